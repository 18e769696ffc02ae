/* mm_gemm_bf16.c - BF16 and FP8 matrices for many tokens with vdpbf16ps: activations rounded to
 * BF16, two columns at a time, subnormals taken as zero.
 *
 * Twice the rate of fp32, and not canonical: the bits differ from ref/, so its rows need the
 * permission KERN_FAST_BF16, which only --fast-bf16 grants. The tiles are those of wide512.h: a
 * step is two columns, which BF16 panels hold side by side. FP8 codes are BF16 numbers; a scale
 * multiplies the sum of its 128 columns. Activations that the caller has rounded already are read
 * where they lie. Segments meet in y as in the definition. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) ||                   \
    !defined(__AVX512BF16__)
#error "compile with the AVX512-BF16 flags of configure"
#endif
#define KERN_WIDE_DP
#include "../avx512/wide512.h"
#include "tables.h"

WIDE_TILES(bf16, DT_BF16, WIDE_DIRECT)
WIDE_TILES(fp8, DT_FP8, WIDE_FIRST)
WIDE_TILES(fp8_again, DT_FP8, WIDE_AGAIN)

static void gemm_bf16(const struct kern_mm *a)
{
    wide_gemm(a, DT_BF16, bf16, bf16);
}

static void gemm_fp8(const struct kern_mm *a)
{
    wide_gemm(a, DT_FP8, fp8, fp8_again);
}

/* clang-format off */
#define PAIRS_NEED KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16 | KERN_FAST_BF16
static const struct kern table[] = {
    {"gemm_bf16_bf16_avx512bf16", KERN_GEMM, DT_BF16, KERN_P16, PAIRS_NEED, WIDE_TOKENS, 40, NULL, {.mm = gemm_bf16}},
    {"gemm_fp8_bf16_avx512bf16", KERN_GEMM, DT_FP8, KERN_P16, PAIRS_NEED, WIDE_TOKENS, 40, NULL, {.mm = gemm_fp8}},
};
/* clang-format on */

const struct kern *kern_avx512bf16_mm(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
