#!/bin/sh
# reference.sh - the engine against models that Hugging Face transformers computed: every golden checkpoint and GGUF file of types that have kernels,
# strict, default, fp32 and INT8 KV; and the bundled demo model, which needs no fixtures.
set -u
tune=${KTTUNE:-${KT_BUILDDIR:-.}/kttune}
golden=${KT_FIXTURES:-../shared/fixtures}/golden
demo=${KT_SRCDIR:-.}/models/demo
bad=0 n=0

check() { # MODEL GOLDEN OPTIONS..
    out=$("$tune" check-model "$@" 2>&1)
    status=$?
    n=$((n + 1))
    if [ $status -ne 0 ]; then
        echo "NOT MET (exit $status): check-model $*"
        echo "$out" | tail -25
        bad=1
    else
        echo "met: check-model $*"
    fi
}

check "$demo" "$demo/golden.safetensors" --strict
check "$demo" "$demo/golden.safetensors"
check "$demo" "$demo/golden.safetensors" --kv-type f32
check "$demo" "$demo/golden.safetensors" --kv-type int8
if [ ! -d "$golden" ]; then
    echo "no $golden: only the bundled model was checked"
else
    for m in qwen3_moe qwen3_moe_options qwen3_moe_yarn qwen3_moe_k256; do
        check "$golden/$m" "$golden/$m/golden.safetensors" --strict
        check "$golden/$m" "$golden/$m/golden.safetensors"
        check "$golden/$m" "$golden/$m/golden.safetensors" --kv-type int8
        check "$golden/$m" "$golden/$m/golden.safetensors" --strict --cpu-mask ref --threads 1 --chunk 5
    done
    for t in qwen3_moe.bf16 qwen3_moe.mxfp4 qwen3_moe.q4_0 qwen3_moe.q5_1 qwen3_moe.q8_0 qwen3_moe_k256.q2_k qwen3_moe_k256.q3_k qwen3_moe_k256.q4_k qwen3_moe_k256.q5_k qwen3_moe_k256.q6_k qwen3_moe_k256.iq4_nl qwen3_moe_k256.iq4_xs; do
        check "$golden/gguf/$t.gguf" "$golden/gguf/$t.golden.safetensors" --strict
        check "$golden/gguf/$t.gguf" "$golden/gguf/$t.golden.safetensors"
        check "$golden/gguf/$t.gguf" "$golden/gguf/$t.golden.safetensors" --kv-type f32
    done
fi
# a check that cannot fail proves nothing: the wrong model must not meet
if "$tune" check-model "$demo" "$demo/golden.safetensors" --quant q4_0 --quant-dense q4_0 --strict >/dev/null 2>&1; then
    echo "a model in 4 bits was said to equal the one in 16"
    bad=1
fi
echo "$n comparisons"
exit $bad
