#!/bin/sh
# library.sh - libkt exports kt_ names only, and its rooms never print, exit or abort.
set -u
top=${KT_SRCDIR:-.}
build=${KT_BUILDDIR:-.}
bad=0
lib=$build/.libs/libkt.so
if [ -f "$lib" ]; then
    odd=$(nm -D --defined-only "$lib" | awk '$2 ~ /[TDBRVW]/ && $3 !~ /^kt_/ && $3 !~ /^(_init|_fini|_edata|_end|__bss_start)$/ {print $3}')
    n=$(nm -D --defined-only "$lib" | grep -c ' kt_')
    if [ -n "$odd" ]; then
        echo "libkt exports other names than kt_:" $odd
        bad=1
    elif [ "$n" -lt 20 ]; then
        echo "libkt exports only $n names; something is missing"
        bad=1
    else
        echo "libkt exports $n names, all kt_"
    fi
else
    echo "no shared libkt in this build: exports not checked"
fi
calls=$(cd "$top" && grep -nE '(^|[^a-zA-Z0-9_>.])(exit|abort|printf|puts|perror)\(' $(find src -name '*.[ch]') | grep -vE ':[[:space:]]*(\*|/\*|//)' || true)
if [ -n "$calls" ]; then
    echo "library code that exits, aborts or prints:"
    echo "$calls"
    bad=1
fi
exit $bad
