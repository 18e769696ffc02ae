#!/bin/sh
# format.sh - every C file is as .clang-format says, by version 14 (Debian 12's), so that two people never format the same line differently.
set -u
cd "${KT_SRCDIR:-.}" || exit 99
tool=
for t in clang-format-14 clang-format; do
    command -v $t >/dev/null 2>&1 && $t --version | grep -q 'version 14\.' && tool=$t && break
done
[ -n "$tool" ] || { echo "no clang-format 14"; exit 77; }
files=$(find src kernels tuner serve tests -name '*.[ch]' | sort)
if ! $tool --dry-run -Werror $files >/dev/null 2>&1; then
    for f in $files; do
        $tool "$f" | cmp -s "$f" - || echo "$f: run $tool -i"
    done
    exit 1
fi
echo "$(echo "$files" | wc -l) files are formatted"
