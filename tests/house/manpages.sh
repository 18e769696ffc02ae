#!/bin/sh
# manpages.sh - the man pages name exactly the options and commands that the programs have, and mandoc finds nothing to correct.
set -u
man=${KT_SRCDIR:-.}/docs/man
build=${KT_BUILDDIR:-.}
bad=0

# what --help lists on the left and what the page lists on the right must be the same
compare() { # NAME HELP_LIST PAGE_LIST
    if [ "$2" != "$3" ]; then
        echo "$1: --help and the man page differ:"
        printf '%s\n' "$2" >help.$$
        printf '%s\n' "$3" | diff help.$$ - | grep '^[<>]'
        rm -f help.$$
        bad=1
    else
        echo "$1: $(printf '%s\n' "$2" | wc -l) names agree"
    fi
}

if [ -x "$build/ktserve" ]; then
    compare ktserve "$("$build/ktserve" --help | grep -oE '(^| )--[a-z][a-z0-9-]+' | tr -d ' ' | sort -u | while read -r o; do
        "$build/ktserve" --help | grep -qE "^ +(-[a-z], *)?$o( |\$|=)" && echo "$o"; done)" \
        "$(sed -n '/^\.Sh OPTIONS/,/^\.Sh ROUTES/s/^\.It .*Fl \\-\([^ ]*\).*/--\1/p' "$man/ktserve.8" | sed 's/\\-/-/g' | sort -u)"
fi
if [ -x "$build/kttune" ]; then
    compare kttune "$("$build/kttune" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p' | sort -u)" \
        "$(sed -n '/^\.Sh COMMANDS/,/^\.Sh EXIT/s/^\.It Ic \([^ ]*\).*/\1/p' "$man/kttune.1" | sed 's/\\-/-/g' | sort -u)"
fi
if command -v mandoc >/dev/null 2>&1; then
    for p in kttune.1 ktserve.8; do
        # a page that refers to its sibling is fine although neither is installed yet
        out=$(mandoc -Tlint -Wwarning "$man/$p" | grep -vE 'referenced manual not found' || true)
        [ -z "$out" ] || { echo "$out"; bad=1; }
    done
else
    echo "no mandoc: the pages' markup was not checked"
fi
exit $bad
