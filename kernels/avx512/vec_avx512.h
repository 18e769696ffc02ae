/* vec_avx512.h - inline pieces that the AVX512 vector kernels share: the canonical exp and tail
 * masks, 16 lanes wide. Included by avx512/ only; every function is static inline, so nothing
 * compiled with these flags can be picked by another file.
 */
#ifndef KT_KERN_VEC_AVX512_H
#define KT_KERN_VEC_AVX512_H

#include <immintrin.h>

#include "kern.h"

/* The first n of 16 lanes, n <= 16. */
static inline __mmask16 head_mask(uint32_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* Lane by lane the bits of ref_exp. A NaN stays one: min keeps its second operand, and every later
 * step carries it. */
static inline __m512 exp_ps(__m512 v)
{
    const __mmask16 live = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    __m512 x = _mm512_min_ps(_mm512_set1_ps(88.0f), v);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps((float)1.4426950408889634)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
    __m512 p =
        _mm512_fmadd_ps(_mm512_set1_ps((float)(1.0 / 5040)), r, _mm512_set1_ps((float)(1.0 / 720)));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps((float)(1.0 / 120)));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps((float)(1.0 / 24)));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps((float)(1.0 / 6)));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    /* n is in -126..127 here, so 2^n is normal and the product exact */
    __m512i two_n =
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    return _mm512_maskz_mul_ps(live, p, _mm512_castsi512_ps(two_n));
}

void kern_avx512_attn(const struct kern_attn *a);
void kern_avx512_attn_codes(const struct kern_attn *a);
void kern_avx512_attn_join(const struct kern_attn *a);

#endif
