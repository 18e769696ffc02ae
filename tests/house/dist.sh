#!/bin/sh
# dist.sh - the release archive holds every file of the repository: what git tracks and "make dist" would leave out is named. Needs a git checkout.
set -u
src=${KT_SRCDIR:-.}
build=${KT_BUILDDIR:-.}
tracked=$(git -C "$src" ls-files 2>/dev/null) || tracked=
[ -n "$tracked" ] && [ -e "$src/.git" ] || { echo "not a git checkout"; exit 77; }
list=$(mktemp) || exit 99
trap 'rm -f "$list"' EXIT
rel=$(sed -n 's/^srcdir = //p' "$build/Makefile")
(unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES; cd "$build" && make -s dist-list) | tr ' ' '\n' | sed "s,^$src/,,; s,^$rel/,,; s,^\./,," | sort -u >"$list"
[ "$(wc -l <"$list")" -gt 100 ] || { echo "make dist-list names too few files"; exit 1; }
bad=0
for f in $tracked; do
    case $f in .gitignore) continue ;; esac
    [ ! -f "$src/$f" ] || grep -qxF "$f" "$list" || { echo "not in the archive: $f (add it to _SOURCES or EXTRA_DIST)"; bad=1; }
done
[ $bad = 0 ] && echo "$(echo "$tracked" | wc -l) files, all in the archive"
exit $bad
