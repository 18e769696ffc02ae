#!/bin/sh
# test_checkkern_catches.sh - a comparison that never fails proves nothing: one flipped output bit in one row must make checkkern fail, in each op and ISA
# that this CPU runs, and only then. Needs the built checkkern; exit 0 or 1.
set -u
bin="${KT_BUILDDIR:-.}/tests/kernels/checkkern"
bad=0
for row in $("$bin" --list --func="${1:-_q4_}" | grep -v 'not runnable' | awk '{print $1}' | grep -E '^gem[vm]_q4_(0|k)_') gemv_bf16_f32_ref \
    $("$bin" --list | grep -v 'not runnable' | awk '{print $1}' | grep -v '^gem'); do
    out=$("$bin" --func="$row" --seed=3 --break="$row")
    if [ $? -ne 1 ]; then
        echo "checkkern did not notice a flipped bit in $row"
        bad=1
    fi
    case "$out" in
    *"FAIL $row: "*) ;;
    *) echo "checkkern does not name $row and the shape: $out"; bad=1 ;;
    esac
done
if ! "$bin" --func=gemv_q4_0_q8_ref --seed=3 >/dev/null; then
    echo "checkkern fails an unbroken row"
    bad=1
fi
exit $bad
