#!/bin/sh
# convert.sh - a GGUF file that kttune convert wrote from the demo model gives the same figures, to the last digit, as the checkpoint quantised at load.
set -u
tune=${KTTUNE:-${KT_BUILDDIR:-.}/kttune}
demo=${KT_SRCDIR:-.}/models/demo
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
bad=0

figures() { # MODEL OPTIONS..: all numbers of the comparison with the demo model's golden file, without the model's name
    "$tune" check-model "$1" "$demo/golden.safetensors" --json --kv-type f32 $2 2>"$tmp/err" | sed 's/"model":"[^"]*",//'
}

for pair in "none none" "q8_0 q8_0" "mxfp4 q8_0" "q4_0 none" "mxfp4 mxfp4"; do
    set -- $pair
    if ! "$tune" convert "$demo" -o "$tmp/m.gguf" --quant "$1" --quant-dense "$2" >"$tmp/out" 2>&1; then
        echo "convert --quant $1 --quant-dense $2 failed:"
        cat "$tmp/out"
        bad=1
        continue
    fi
    file=$(figures "$tmp/m.gguf" "")
    load=$(figures "$demo" "--quant $1 --quant-dense $2")
    if [ -z "$file" ] || [ "$file" != "$load" ]; then
        echo "experts $1, dense $2: file and load differ"
        echo "file: $file"
        echo "load: $load"
        cat "$tmp/err"
        bad=1
    else
        echo "experts $1, dense $2: equal"
    fi
done
"$tune" inspect "$tmp/m.gguf" >/dev/null || { echo "inspect failed"; bad=1; }
# rows that do not fit a format are an error that names the tensor, and nothing is written
if "$tune" convert "$demo" -o "$tmp/bad.gguf" --quant q4_k >"$tmp/out" 2>&1 || [ -e "$tmp/bad.gguf" ]; then
    echo "a format without a quantiser was accepted"
    bad=1
fi
exit $bad
