#!/bin/sh
# test_probe.sh - kttune probe, show, verify and explain on this machine and on described ones. Checks the file's validity (own reader always,
# python3-jsonschema where it can be imported), exit codes, that foreign files are kept, and that ids which are not measured again survive.
# Nothing here depends on how fast the machine is; a run that its own deadline cuts (exit 2) must leave a valid file as well and say what is missing. A build with
# a sanitizer gets the deadline of a default run for the same measurements.
set -u
kttune=$KT_BUILDDIR/kttune
[ -x "$kttune" ] || { echo "kttune was not built"; exit 77; }
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 99
failed=0

expect() { # expect CODE WORDS... -- COMMAND...: exit code, and that the output has the words
  code=$1 words=$2
  shift 3
  "$@" > out 2>&1
  rc=$?
  if [ "$rc" != "$code" ] || ! grep -q -e "$words" out; then
    echo "FAIL: $* gave $rc, expected $code and '$words':"
    cat out
    failed=1
  fi
}

valid() { # by our own reader, then by an independent one
  expect 0 profile -- "$kttune" show "$1"
  "${PYTHON3:-python3}" - "$KT_SRCDIR/profiles/host.schema.json" "$1" << 'PY'
import json, sys
try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is absent: own reader only")
    sys.exit(0)
def refuse(name):
    raise ValueError(name)
schema = json.load(open(sys.argv[1]))
with open(sys.argv[2]) as f:
    doc = json.load(f, parse_constant=refuse)
jsonschema.Draft202012Validator(schema).validate(doc)
PY
  [ $? = 0 ] || { echo "FAIL: $1 breaks the schema"; failed=1; }
}

# a quick run; 2 is the program's own deadline on an overloaded machine
depth=--quick
grep -q '^#define KT_SANITIZED' "$KT_BUILDDIR/config.h" && depth='--only mem.read:*,sync.*,noise'
"$kttune" probe $depth --seed 7 -o host.json > out 2> err
rc=$?
cat err
[ $rc = 0 ] || [ $rc = 2 ] || { echo "FAIL: probe $depth gave $rc"; cat out; exit 1; }
cut=$rc
valid host.json
if [ $cut = 2 ]; then
  grep -q 'missing at the deadline' err || { echo "FAIL: nobody says what the deadline cut"; failed=1; }
  grep -q '"complete": false' host.json || { echo "FAIL: a run that was cut calls itself complete"; failed=1; }
else
  grep -q 'mem.read:node' host.json || { echo "FAIL: no read bandwidth"; failed=1; }
fi
grep -q '"threads.total"' host.json || { echo "FAIL: no decision about threads"; failed=1; }
grep -q '"kernel.isa"' host.json || { echo "FAIL: no decision about kernels"; failed=1; }
for secret in /etc/machine-id /proc/sys/kernel/random/boot_id; do
  if [ -s "$secret" ] && grep -q -e "$(cat "$secret")" host.json; then
    echo "FAIL: $secret is in the file"
    failed=1
  fi
done
ls | grep -q tmp && { echo "FAIL: a temporary file was left"; failed=1; }

[ $cut = 2 ] || expect 0 'mem.read:node' -- "$kttune" show host.json
expect 0 '"measurements"' -- "$kttune" show --json host.json
expect 0 'fields match this machine' -- "$kttune" verify --no-measure host.json
expect 0 'why:' -- "$kttune" explain threads.total --profile host.json
expect 1 'nothing is known' -- "$kttune" explain no.such --profile host.json
expect 1 'kttune probe -o FILE makes one' -- "$kttune" show absent.json
expect 1 'no option' -- "$kttune" show --wrong
expect 1 'usage' -- "$kttune" probe --wrong
expect 0 'usage' -- "$kttune" probe --help

# ids that are not measured again survive, with their values
cp host.json before.json
"$kttune" probe --quick --only sync.barrier -o host.json > out 2>&1
rc=$?
[ $rc = 0 ] || [ $rc = 2 ] || { echo "FAIL: probe --only gave $rc"; cat out; failed=1; }
valid host.json
grep -o '"id": "mem.read:[^}]*}' before.json > a
grep -o '"id": "mem.read:[^}]*}' host.json > b
cmp -s a b || { echo "FAIL: --only sync.barrier changed mem.read"; failed=1; }

# damaged and foreign files: refused, kept, overwritten only on demand
sed 's/"packages": /"packages": 9/' host.json > bad.json
expect 4 'does not match its fields' -- "$kttune" verify --no-measure bad.json
head -c 1000 host.json > cut.json
expect 4 'cut off or damaged' -- "$kttune" show cut.json
cp cut.json kept.json
expect 4 'is kept' -- "$kttune" probe --topology-only -o cut.json
cmp -s cut.json kept.json || { echo "FAIL: a file that is no profile was overwritten"; failed=1; }

"$kttune" probe --topology 'syn:pack:2 [numa(memory=64GB)] core:8 pu:2' --json > other.json 2> err || { echo "FAIL: --topology"; cat err; failed=1; }
valid other.json
grep -q KT003 other.json || { echo "FAIL: a described machine must say that nothing is measured"; failed=1; }
grep -q '"measurements": \[\]' other.json || { echo "FAIL: a described machine was measured"; failed=1; }
expect 4 'MISMATCH' -- "$kttune" verify --no-measure other.json
expect 0 'fields match' -- "$kttune" verify --topology 'syn:pack:2 [numa(memory=64GB)] core:8 pu:2' other.json
cp other.json kept.json
expect 4 'belongs to another host' -- "$kttune" probe --topology-only -o other.json
cmp -s other.json kept.json || { echo "FAIL: a profile of another host was overwritten"; failed=1; }
expect 0 'written to' -- "$kttune" probe --topology-only --force -o other.json
expect 0 'fields match' -- "$kttune" verify --no-measure other.json
expect 1 'no.*such an id' -- "$kttune" probe --only nosuch -o none.json
[ ! -e none.json ] || { echo "FAIL: a probe of nothing wrote a profile"; failed=1; }
expect 1 'not both' -- "$kttune" probe --quick --deep -o none.json
expect 1 'no such file' -- "$kttune" probe --topology xml:/nonexistent.xml --json
exit $failed
