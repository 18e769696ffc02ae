#!/bin/sh
# comments.sh - every source file starts with a header comment that says what it is responsible for.
set -u
cd "${KT_SRCDIR:-.}" || exit 99
bad=0
for f in $(find src kernels tuner serve tests -name '*.[ch]' | sort); do
    first=$(head -c 3 "$f")
    if [ "$first" != "/* " ] && [ "$first" != "/**" ]; then
        echo "$f: starts without a header comment"
        bad=1
    fi
done
for f in $(find tests -name '*.sh' -o -name '*.py' | sort) quickstart; do
    if ! head -3 "$f" | grep -Eq '^(# |""")'; then
        echo "$f: starts without a comment or docstring"
        bad=1
    fi
done
big=$(find src kernels tuner serve -name '*.[ch]' -exec wc -l {} + | awk '$2 != "total" && $1 > 1000 {print $2 " has " $1 " lines; split it"}')
if [ -n "$big" ]; then
    echo "$big"
    bad=1
fi
[ $bad = 0 ] && echo "every file says what it is for"
exit $bad
