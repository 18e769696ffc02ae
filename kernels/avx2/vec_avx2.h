/* vec_avx2.h - inline pieces that the AVX2 vector kernels share: the canonical exp and tail masks,
 * 8 lanes wide. Included by avx2/ only; every function is static inline, so nothing compiled with
 * these flags can be picked by another file.
 */
#ifndef KT_KERN_VEC_AVX2_H
#define KT_KERN_VEC_AVX2_H

#include <immintrin.h>

#include "kern.h"

/* All ones in the first n of 8 lanes, n <= 8. */
static inline __m256i head_mask(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Lane by lane the bits of ref_exp. A NaN stays one: min keeps its second operand, and every later
 * step carries it. */
static inline __m256 exp_ps(__m256 v)
{
    const __m256 live = _mm256_cmp_ps(v, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
    __m256 x = _mm256_min_ps(_mm256_set1_ps(88.0f), v);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps((float)1.4426950408889634)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e4p-1f), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.7f7d1cp-20f), r);
    __m256 p =
        _mm256_fmadd_ps(_mm256_set1_ps((float)(1.0 / 5040)), r, _mm256_set1_ps((float)(1.0 / 720)));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps((float)(1.0 / 120)));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps((float)(1.0 / 24)));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps((float)(1.0 / 6)));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    /* n is in -126..127 here, so 2^n is normal and the product exact */
    __m256i two_n =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(live, _mm256_mul_ps(p, _mm256_castsi256_ps(two_n)));
}

void kern_avx2_attn(const struct kern_attn *a);
void kern_avx2_attn_join(const struct kern_attn *a);

#endif
