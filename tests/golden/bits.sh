#!/bin/sh
# bits.sh - canonical arithmetic: logits equal, bit for bit, what an independent reading of the definition gives, on every ISA level that this CPU has,
# with 1 and 2 threads, alone and in ragged batches of 8, with any prompt chunking.
set -u
tune=${KTTUNE:-${KT_BUILDDIR:-.}/kttune}
golden=${KT_FIXTURES:-../shared/fixtures}/golden
[ -d "$golden/canonical" ] || { echo "no $golden/canonical"; exit 77; }
bad=0 n=0 skipped=

check() { # MODEL FILE OPTIONS..
    out=$("$tune" check-model "$@" --exact 2>&1)
    status=$?
    case $out in
    *"this CPU or its operating system has only"*) skipped="$skipped $level"; return ;;
    esac
    n=$((n + 1))
    if [ $status -ne 0 ]; then
        echo "NOT EQUAL (exit $status): check-model $* --exact"
        echo "$out" | tail -3
        bad=1
    fi
}

for f in "$golden"/canonical/*.safetensors; do
    name=$(basename "$f" .safetensors)
    mode=${name##*.}
    name=${name%.*}
    case $name in
    *.*) model=$golden/gguf/$name.gguf ;;
    *) model=$golden/$name ;;
    esac
    case $mode in
    f32kv) set -- --kv-type f32 ;;
    bf16kv) set -- --kv-type bf16 ;;
    strict) set -- --strict ;;
    esac
    for level in ref avx2 avx512 avx512vnni; do
        check "$model" "$f" "$@" --cpu-mask $level --threads 1
        check "$model" "$f" "$@" --cpu-mask $level --threads 2 --batch 8 --chunk 37
    done
    level=best
    check "$model" "$f" "$@" --threads 2 --chunk 1
    check "$model" "$f" "$@" --threads 1 --batch 8 --chunk 300
done
[ -z "$skipped" ] || echo "not on this CPU:$(echo "$skipped" | tr ' ' '\n' | sort -u | tr '\n' ' ')"
echo "$n comparisons of bits"
exit $bad
