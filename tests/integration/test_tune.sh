#!/bin/sh
# test_tune.sh - kttune tune on the demo model: the profile stays valid whatever happens, a second run replaces the entry, an interruption says what is
# missing, ktserve's engine names the tuning, a replay gives the same bytes for the same seed. No speed is asserted, and a budget that loading alone used up
# (a slow machine, a sanitizer) is raised.
set -u
build=${KT_BUILDDIR:-.}
src=${KT_SRCDIR:-.}
kttune=$build/kttune
[ -x "$kttune" ] || { echo "no kttune"; exit 77; }
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
bad=0
say() { echo "FAIL: $*"; bad=1; }
f=$dir/host.json
"$kttune" probe --topology-only -o "$f" >/dev/null 2>&1 || { echo "no profile of this host can be made"; exit 77; }

entries() { grep -c '"x_model"' "$f"; }
tune() { # tune BUDGET OPTION..
    budget=$1
    shift
    for again in 1 2 3 4; do
        "$kttune" tune --profile "$f" -m "$src/models/demo" --sample 1 --budget "$budget" "$@" >"$dir/out" 2>"$dir/err"
        tuned=$?
        grep -q '^kttune tune: loading took' "$dir/err" || break
        budget=$((3 * budget))
    done
    return $tuned
}

tune 6
rc=$?
{ [ $rc = 0 ] || [ $rc = 2 ]; } || { cat "$dir/err"; say "tune: exit $rc"; }
grep -q '^chosen' "$dir/out" || say "no verdict was printed"
"$kttune" verify --no-measure "$f" >/dev/null || say "the profile is not valid after tune"
[ "$(entries)" = 1 ] || say "$(entries) entries instead of 1"
tune 6 --seed 2 --json
[ "$(entries)" = 1 ] || say "a second run must replace the entry"
grep -q '"seed": 2' "$dir/out" || say "--json does not print the entry"
tune 6 --goal prefill --prompt 16
[ "$(entries)" = 2 ] || say "another goal is another entry"
# a probe keeps tunings while the host is as it was; when a field of it changed meanwhile, samples and what rests on them are dropped, and the field is named
cp "$f" "$dir/before.json"
"$kttune" probe --topology-only -o "$f" >"$dir/probe" 2>&1
rc=$?
if [ "$(entries)" != 2 ]; then
    if "$kttune" verify --no-measure "$dir/before.json" >"$dir/diff"; then
        cat "$dir/probe"
        say "the host is as it was, and a probe (exit $rc) leaves $(entries) of 2 tunings"
    else
        echo "the host changed during this test, so $(entries) of 2 tunings are left:"
        cat "$dir/diff"
    fi
fi

# an interruption: valid file, exit 2, what is missing
"$kttune" tune --profile "$f" -m "$src/models/demo" --budget 600 --sample 5 >"$dir/out" 2>"$dir/err2" &
pid=$!
n=0
while ! grep -q warm-up "$dir/err2" 2>/dev/null && [ $n -lt 3000 ]; do sleep 0.1; n=$((n + 1)); done
kill -INT $pid
wait $pid
rc=$?
[ $rc = 2 ] || say "interrupted: exit $rc instead of 2"
grep -q '^missing  interrupted' "$dir/out" || say "nobody says what the interruption cut"
"$kttune" verify --no-measure "$f" >/dev/null || say "the profile is not valid after an interruption"

# killed: the next run goes on from the notes beside the profile
rm -f "$f".tune-decode
"$kttune" tune --profile "$f" -m "$src/models/demo" --budget 600 --sample 5 >/dev/null 2>&1 &
pid=$!
n=0
while [ ! -e "$f.tune-decode" ] && [ $n -lt 3000 ]; do sleep 0.1; n=$((n + 1)); done
kill -9 $pid
wait $pid 2>/dev/null
[ -e "$f.tune-decode" ] || say "a running search keeps no notes"
"$kttune" verify --no-measure "$f" >/dev/null || say "the profile is not valid after a kill"
tune 8 --sample 5
grep -q 'goes on from' "$dir/err" || { cat "$dir/err"; say "a killed search does not go on"; }
tune 6 --sample 5 --restart
grep -q 'goes on from' "$dir/err" && say "--restart must begin anew"

t=$src/tests/unit/data/replay_decode.json
"$kttune" tune --backend "replay:$t" --seed 5 --drift 0.05 --outliers 0.02 --json >"$dir/a"
"$kttune" tune --backend "replay:$t" --seed 5 --drift 0.05 --outliers 0.02 --json >"$dir/b"
cmp -s "$dir/a" "$dir/b" || say "the same seed gives other bytes"

# the choice against 59 random configurations: what the search chose passes, a planted bad choice fails
chosen=$("$kttune" tune --backend "replay:$t" --seed 5 --json | sed 's/.*"chosen":\({[^}]*}\).*/\1/')
"$kttune" verify --regret --backend "replay:$t" --chosen "$chosen" >"$dir/out" || { cat "$dir/out"; say "the searched choice must pass the regret test"; }
grep -q '^regret .*: met' "$dir/out" || say "verify --regret prints no bound"
"$kttune" verify --regret --backend "replay:$t" --chosen '{"threads": 1}' >"$dir/out"
[ $? = 5 ] || { cat "$dir/out"; say "a planted bad choice must fail the regret test with exit 5"; }
"$kttune" verify --regret --backend "replay:$t" "$f" >/dev/null 2>"$dir/err" && say "a profile without a tuning for the table has nothing to judge"
grep -q 'kttune tune' "$dir/err" || say "a missing tuning must name the remedy"
seconds=20
grep -q '^#define KT_SANITIZED' "$build/config.h" && seconds=200
"$kttune" verify --regret -m "$src/models/demo" --goal decode --budget $seconds "$f" >"$dir/out" 2>"$dir/err"
rc=$?
{ [ $rc = 0 ] || [ $rc = 2 ] || [ $rc = 5 ]; } && grep -q '^rivals' "$dir/out" || { cat "$dir/out" "$dir/err"; say "verify --regret, live: exit $rc"; }

# killed without a word (SIGKILL), it goes on where it stopped and ends with the same bytes
st=$dir/notes
resumed=0
for i in 1 2 3 4 5 6 7 8; do
	rm -f "$st"
	"$kttune" tune --backend "replay:$t" --seed 5 --drift 0.05 --outliers 0.02 --state "$st" --json >/dev/null 2>&1 &
	pid=$!
	n=0
	while [ ! -e "$st" ] && [ $n -lt 1000 ] && kill -0 $pid 2>/dev/null; do n=$((n + 1)); done
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	[ -e "$st" ] || continue # it was done before the kill came
	"$kttune" tune --backend "replay:$t" --seed 5 --drift 0.05 --outliers 0.02 --state "$st" --json >"$dir/b" 2>"$dir/err"
	grep -q 'goes on from' "$dir/err" || say "a killed search does not say that it goes on"
	cmp -s "$dir/a" "$dir/b" || say "a search that was killed and went on gives other bytes"
	[ ! -e "$st" ] || say "the notes of a complete search are left"
	resumed=1
	break
done
[ $resumed = 1 ] || echo "no kill came in time: resuming was not tried"
"$kttune" tune --backend "replay:$t" --seed 5 --budget 1 --state "$st" --json >/dev/null 2>&1
[ -e "$st" ] || say "a search that ran out of time must keep its notes"
"$kttune" tune --backend "replay:$t" --seed 6 --budget 1 --state "$st" --json >/dev/null 2>"$dir/err"
grep -q 'is not used: .*seed is 5 there, 6 here' "$dir/err" || say "notes of another seed must be refused with the reason"
printf 'x' >>"$st"
"$kttune" tune --backend "replay:$t" --seed 6 --budget 1 --state "$st" --json >/dev/null 2>"$dir/err"
[ $? = 2 ] || say "damaged notes must not end the search"
grep -q 'is not used: .*damaged' "$dir/err" || say "damaged notes must be refused with the reason"

"$kttune" tune --backend "replay:$t" --budget 1 --json >"$dir/a"
[ $? = 2 ] || say "a replay that runs out of virtual time must say so"
"$kttune" tune --backend replay:/nonexistent >/dev/null 2>&1 && say "a missing table is an error"
"$kttune" tune --profile "$f" >/dev/null 2>&1
[ $? = 1 ] || say "a missing model is a usage error"
[ $bad = 0 ] && echo "tune: entries, interruption, replay"
refused() { # WORDS ARGUMENTS..
    words=$1; shift
    "$kttune" tune "$@" >"$dir/out" 2>"$dir/err"
    { [ $? = 1 ] && grep -q -- "$words" "$dir/err"; } || { cat "$dir/err"; say "tune $*: not refused with '$words'"; }
}
refused 'from 1 to 8' --batch 9
refused 'from 1 to 10' --backend replay:x --slow 0.5
refused 'drift needs --backend' --profile "$f" -m x --drift 0.1
refused 'profile is missing' -m x
refused 'record times this machine' --backend replay:x --record y
exit $bad
