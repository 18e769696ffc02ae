#!/bin/sh
# install.sh - what a package would hold: "make install DESTDIR=" puts every part in its place, and a program outside the tree finds libkt through pkg-config,
# compiles, links (shared and static, whichever this build has) and runs. Writes only below a temporary directory.
set -u
src=${KT_SRCDIR:-.}
build=${KT_BUILDDIR:-.}
[ -f "$build/kt.pc" ] || { echo "no kt.pc in $build"; exit 99; }
if grep -q '^#define KT_SANITIZED 1' "$build/config.h"; then
    echo "sanitizer build: not one that is installed"
    exit 77
fi
dest=$(mktemp -d) || exit 99
trap 'rm -rf "$dest"' EXIT
bad=0

# Not a part of the make that runs this test: its job server and flags are not passed on.
if ! (unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES; cd "$build" && make install DESTDIR="$dest") >"$dest/log" 2>&1; then
    tail -20 "$dest/log"
    exit 1
fi
variable() { sed -n "s/^$1=//p" "$build/kt.pc"; }
make_variable() { sed -n "s/^$1 = //p" "$build/Makefile" | head -1; }
prefix=$(variable prefix)
exec_prefix=$(variable exec_prefix | sed "s,^[$]{prefix},$prefix,")
libdir=$(variable libdir | sed "s,^[$]{exec_prefix},$exec_prefix,")
includedir=$(variable includedir | sed "s,^[$]{prefix},$prefix,")

for f in "$exec_prefix/bin/kttune" "$exec_prefix/bin/ktserve" "$includedir/kt.h" "$libdir/pkgconfig/kt.pc" "$prefix/share/man/man1/kttune.1" \
    "$prefix/share/man/man8/ktserve.8" "$prefix/share/ktserve/host.schema.json" "$prefix/share/ktserve/demo/model.safetensors" \
    "$prefix/share/ktserve/demo/config.json" "$prefix/share/ktserve/demo/tokenizer.json"; do
    [ -s "$dest$f" ] || { echo "not installed: $f"; bad=1; }
done
"$dest$exec_prefix/bin/ktserve" --version || bad=1
"$dest$exec_prefix/bin/kttune" --version || bad=1

command -v pkg-config >/dev/null 2>&1 || { echo "no pkg-config: linking was not tried"; exit $bad; }
kt() {
    PKG_CONFIG_PATH=$dest$libdir/pkgconfig pkg-config --define-variable=prefix="$dest$prefix" --define-variable=libdir="$dest$libdir" \
        --define-variable=includedir="$dest$includedir" "$@" kt
}
cc=$(make_variable CC)
cp "$src/tests/house/header_c.c" "$dest/user.c"
cd "$dest" || exit 99
tried=
if [ -f "$dest$libdir/libkt.so" ]; then
    tried="$tried shared"
    $cc -o user-shared user.c $(kt --cflags --libs) && LD_LIBRARY_PATH=$dest$libdir ./user-shared || { echo "a program does not work with the shared libkt"; bad=1; }
    LD_LIBRARY_PATH=$dest$libdir ldd user-shared | grep -q "$dest$libdir/libkt.so" || { echo "the program is not linked with libkt.so"; bad=1; }
fi
if [ -f "$dest$libdir/libkt.a" ]; then
    tried="$tried static"
    $cc -o user-static user.c $(kt --static --cflags --libs | sed 's/-lkt /-l:libkt.a /') && ./user-static || { echo "a program does not work with the static libkt"; bad=1; }
    ldd user-static | grep -q libkt && { echo "the program still needs libkt.so"; bad=1; }
fi
[ -n "$tried" ] || { echo "neither libkt.so nor libkt.a was installed"; bad=1; }
echo "tried:$tried"
exit $bad
