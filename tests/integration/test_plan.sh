#!/bin/sh
# test_plan.sh - kttune plan, explain and diff as commands: exit codes, the same bytes twice, JSON that parses, what-ifs, the chain of levels in their order.
# Uses stored hosts and configurations only; nothing is measured.
set -u
kttune=$KT_BUILDDIR/kttune
profile=$KT_SRCDIR/profiles/xeon-6454s-2s-rtx4090.json
small=$KT_SRCDIR/profiles/laptop-hx370-32g.json
qwen=$KT_SRCDIR/profiles/shapes/qwen3-30b-a3b.config.json
deepseek=$KT_SRCDIR/profiles/shapes/deepseek-v3.config.json
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
bad=0

# expect CODE PATTERN -- COMMAND..: exit code, and a line of the output (both streams) that matches
expect() {
    code=$1 pattern=$2
    shift 3
    "$@" >"$tmp/out" 2>&1
    got=$?
    [ $got = "$code" ] || { echo "exit $got, expected $code: $*"; head -5 "$tmp/out"; bad=1; }
    grep -q -- "$pattern" "$tmp/out" || { echo "no line with '$pattern': $*"; head -8 "$tmp/out"; bad=1; }
}

expect 0 'decode, 1 stream' -- "$kttune" plan --profile "$profile" -m "$qwen" --format mxfp4
expect 0 'decode, 8 streams' -- "$kttune" plan --profile "$profile" -m "$qwen" --format mxfp4 --parallel 8 --goal decode
expect 0 'not predicted: no read rate' -- "$kttune" plan --topology 'syn:pack:2 [numa(memory=96GB)] core:8 pu:2' -m "$qwen" --format mxfp4
expect 0 'uniform f' -- "$kttune" plan --profile "$profile" -m "$deepseek" --format q4_k_m --ctx 2048 --fast-tier auto
expect 0 'not served by this version' -- "$kttune" plan --profile "$profile" -m "$deepseek" --format q4_k_m
expect 3 'does not fit' -- "$kttune" plan --profile "$small" -m "$deepseek" --format q4_k_m
expect 3 '^  3\. .* more memory' -- "$kttune" plan --profile "$small" -m "$KT_SRCDIR/profiles/shapes/kimi-k2.config.json"
expect 3 '^  1\. ' -- "$kttune" plan --profile "$small" -m "$qwen"
expect 1 'give one of --profile' -- "$kttune" plan -m "$qwen"
expect 1 '--set' -- "$kttune" plan --profile "$profile" -m "$qwen" --set nothing=1
expect 1 'no weight format' -- "$kttune" plan --profile "$profile" -m "$qwen" --format q99
expect 4 'schema' -- "$kttune" plan --profile "$qwen" -m "$qwen"
echo '{' >"$tmp/broken.json"
expect 6 'broken.json' -- "$kttune" plan --profile "$profile" -m "$tmp/broken.json"
# a quota of 4 cores on a host with 64: one is kept for the server
expect 0 '3 threads' -- "$kttune" plan --profile "$profile" -m "$qwen" --format mxfp4 --set limits.cpu_quota_cores=4
# kernels of FP8 checkpoints are found by either name
expect 0 'few tokens gemv_fp8' -- "$kttune" plan --profile "$profile" -m "$deepseek" --fast-tier auto
expect 0 'few tokens gemv_fp8' -- "$kttune" plan --profile "$profile" -m "$qwen" --format f8_e4m3
# every rate has words beside its symbol, and its origin
expect 0 '^  B_C  *experts read by the CPU  *[0-9.]* GB/s  *datasheet ' -- "$kttune" plan --profile "$profile" -m "$qwen" --format mxfp4
# the demo model, from its directory
expect 0 'sizes from the file' -- "$kttune" plan --profile "$profile" -m "$KT_SRCDIR/models/demo"

"$kttune" plan --profile "$profile" -m "$deepseek" --format q4_k_m --fast-tier auto --ctx 2048 --json >"$tmp/a"
"$kttune" plan --profile "$profile" -m "$deepseek" --format q4_k_m --fast-tier auto --ctx 2048 --json >"$tmp/b"
cmp "$tmp/a" "$tmp/b" || bad=1
"${PYTHON3:-python3}" -c '
import json, sys
d = json.load(open(sys.argv[1]))
p = d["decode"]
assert d["fits"] and abs(sum(t["seconds"] for t in p["terms"] if not t["beside"]) / p["seconds"] - 1) < 1e-9
assert abs(sum(t["share"] for t in p["terms"]) - 1) < 1e-9 and d["budget"]["hit_model"] == "uniform"
' "$tmp/a" || { echo "plan --json does not add up"; bad=1; }

expect 0 'decode' -- "$kttune" plan --profile "$profile" -m "$qwen" --format mxfp4 --html "$tmp/p.html"
"${PYTHON3:-python3}" -c '
import html.parser, sys
class P(html.parser.HTMLParser):
    rects = links = 0
    def handle_starttag(self, tag, attrs):
        self.rects += tag == "rect"
        self.links += any(k in ("src", "href") for k, _ in attrs) or tag == "script"
p = P(); p.feed(open(sys.argv[1]).read())
assert p.rects > 8 and p.links == 0
' "$tmp/p.html" || { echo "the HTML page is not as documented"; bad=1; }

# the chain: each level wins over those below it
printf 'threads = 5 # wish\n' >"$tmp/ktserve.conf"
x="$kttune explain threads.total --profile $profile"
expect 0 '^  -> cost model  *62 ' -- $x
expect 0 '^  -> ktserve.conf  *5 ' -- $x --config "$tmp/ktserve.conf"
expect 0 '^  -> environment  *6 ' -- env KTSERVE_THREADS=6 $x --config "$tmp/ktserve.conf"
expect 0 '^  -> command line  *7 ' -- env KTSERVE_THREADS=6 $x --config "$tmp/ktserve.conf" --option threads=7
expect 0 '^  -> profile  *12 ' -- "$kttune" explain threads.node0 --profile "$KT_SRCDIR/profiles/example.json"
expect 0 'runner-up' -- "$kttune" explain threads.node0 --profile "$KT_SRCDIR/profiles/example.json"
expect 0 '^  -> default  *16 ' -- "$kttune" explain parallel --profile "$profile"
expect 0 '^  -> cost model' -- "$kttune" explain kv.tokens --profile "$profile" -m "$qwen"
demo=$KT_SRCDIR/models/demo
expect 0 '^ctx = 2048, by default' -- "$kttune" explain ctx --profile "$profile" -m "$demo"
expect 0 '^kv.tokens = 32768, by cost model' -- "$kttune" explain kv.tokens --profile "$profile" -m "$demo"
expect 0 '^kv.tokens = 8192, by cost model' -- "$kttune" explain kv.tokens --profile "$profile" -m "$demo" --option parallel=4
expect 0 'experts have another format' -- "$kttune" explain kernel.gemm.q8_0 --profile "$profile" -m "$demo"
expect 0 "the engine's own rule" -- "$kttune" explain tune.claim_rows --profile "$profile" -m "$demo"
expect 1 'nothing is known' -- "$kttune" explain kernel.gemv.no_such --profile "$profile"
expect 1 'expected NAME=VALUE with one of threads' -- "$kttune" explain ctx --profile "$profile" --option foo=1
expect 1 'threads=x: expected a number' -- "$kttune" explain ctx --profile "$profile" --option threads=x
expect 1 'pages=x: expected thp' -- "$kttune" explain ctx --profile "$profile" --option pages=x
expect 1 '-m MODEL is missing' -- "$kttune" plan --profile "$profile"
expect 1 'ctx x: must be a number from 1' -- "$kttune" plan --profile "$profile" -m "$qwen" --ctx x
expect 1 'no option --foo' -- "$kttune" plan --foo
expect 1 'there is no such profile' -- "$kttune" plan --profile /nonexistent -m "$qwen"
expect 0 'decode, 1 stream at 1024 tokens.*not predicted' -- "$kttune" plan --topology 'syn:[numa(memory=256GB)] core:8 pu:1' -m "$qwen"
if [ -w /dev/full ]; then
    "$kttune" inspect "$demo" >/dev/full 2>"$tmp/err" && { echo "inspect on a full disk: exit 0"; bad=1; }
    grep -q 'standard output: cannot write' "$tmp/err" || { echo "a full disk is not told"; bad=1; }
fi
expect 1 'nothing is known' -- "$kttune" explain no.such --profile "$profile"

expect 0 '^0 differences' -- "$kttune" diff "$profile" "$profile"
expect 5 'gpus' -- "$kttune" diff "$profile" "$KT_SRCDIR/profiles/xeon-6454s-2s-8xl20.json"
expect 5 'same within noise' -- "$kttune" diff --all "$profile" "$KT_SRCDIR/profiles/xeon-6454s-2s-8xl20.json"
expect 4 'schema' -- "$kttune" diff "$profile" "$qwen"
expect 1 'two profiles are needed' -- "$kttune" diff "$profile"
[ $bad = 0 ] && echo "plan, explain and diff answer as documented"
exit $bad
