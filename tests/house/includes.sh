#!/bin/sh
# includes.sh - the dependency law: an include may only point left. Rooms and what each may see are the table below (docs/ARCHITECTURE.md).
# kt.h is seen by base/status.h, base/log.h, base/mem.c (types and the few functions that base implements), the tokenizer, the engine and the programs.
set -u
cd "${KT_SRCDIR:-.}" || exit 99
bad=0

allowed() {
    case $1 in
    src/base) echo "base" ;;
    src/host) echo "base host" ;;
    src/metrics) echo "base metrics" ;;
    kernels) echo "base" ;;
    src/model) echo "base model kt.h" ;;
    src/profile) echo "base host profile" ;;
    src/cost) echo "base host model kernels profile cost" ;;
    src/plan) echo "base host model kernels profile cost plan" ;;
    src/engine) echo "base host model kernels metrics profile cost plan engine kt.h" ;;
    tuner) echo "base host model kernels metrics profile cost plan tuner kt.h" ;;
    serve) echo "base metrics serve kt.h" ;;
    esac
}

room_of_include() {
    case $1 in
    base/* | host/* | model/* | metrics/* | profile/* | cost/* | plan/* | engine/*) echo "${1%%/*}" ;;
    kt.h) echo kt.h ;;
    config.h) echo config.h ;;
    serve/*) echo serve ;;
    kernels/* | kern.h | read_loop.h | tables.h | pack.h) echo kernels ;;
    *) echo same ;; # a header of the file's own folder, by its bare name
    esac
}

for room in src/base src/host src/metrics kernels src/model src/profile src/cost src/plan src/engine tuner serve; do
    ok=" $(allowed $room) config.h same "
    for f in $(find $room -name '*.[ch]' | sort); do
        for inc in $(sed -n 's/^# *include *"\([^"]*\)".*/\1/p' "$f"); do
            r=$(room_of_include "$inc")
            case "$f $inc" in
            "src/base/status.h kt.h" | "src/base/log.h kt.h" | "src/base/mem.c kt.h") continue ;;
            esac
            [ "$r" != kernels ] || [ "$room" != kernels ] || continue
            if [ "$r" = same ] && [ ! -f "$(dirname "$f")/$inc" ] && [ ! -f "$room/$inc" ]; then
                case $room in
                kernels) [ -f "kernels/$inc" ] || { echo "$f: includes \"$inc\", which is not of its room"; bad=1; } ;;
                *) echo "$f: includes \"$inc\", which is not of its room; write the path from src/"; bad=1 ;;
                esac
            fi
            case "$ok" in
            *" $r "*) ;;
            *) echo "$f: $room must not include \"$inc\" ($r is not left of it)"; bad=1 ;;
            esac
        done
    done
done
# kernels are called by the engine, the tuner and the programs only; plans see descriptions
[ $bad = 0 ] && echo "every include points left"
exit $bad
