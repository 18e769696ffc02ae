/* mm512.h - reading P16 panels into AVX512 registers: what the AVX512 matrix kernels share. Lanes
 * are the 16 rows of a panel.
 *
 * Codes become unsigned bytes u = code + zero, operands of vpdpbusd with the signed activation
 * codes; the accumulator starts at -zero times the sum of the activation codes, so the integer dot
 * product is exact and needs no correction afterwards. `t` is a compile-time constant everywhere:
 * each kernel names its type and the switches fold away.
 *
 * The block-format and INT8 sources are compiled twice. Without VNNI (Skylake-SP) a product is
 * maddubs, which adds pairs with 16-bit saturation, so each format says how many products fit in 16
 * bits before they must be widened (lump_of); Q8_0, IQ4 and INT8 have signed codes there,
 * multiplied as |w| and the activation with w's sign: 2 * 128 * 127 fits, so code -128 is exact.
 * Activation codes are within -127..127. Static inline only; included by files compiled with AVX512
 * flags.
 */
#ifndef KT_KERN_MM512_H
#define KT_KERN_MM512_H

#include <immintrin.h>

#include "blocks.h"
#include "pack.h"

#define IN static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define SEG_GROUPS (KERN_SEGMENT / KERN_GROUP)

#if defined(__AVX512VNNI__)
#define VNNI 1
#define VARIANT "avx512vnni"
#define NEEDS KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI
#define RANK 20
#define ACCESSOR(what) kern_avx512vnni_##what
#else
#define VNNI 0
#define VARIANT "avx512"
#define NEEDS KERN_ISA_AVX2 | KERN_ISA_AVX512
#define RANK 17
#define ACCESSOR(what) kern_avx512_##what
#endif

/* What is added to a code to make it unsigned; 0 where it stays signed (lump_of 1). */
IN int zero_of(int t)
{
    switch (t) {
    case DT_Q8_0:
    case DT_IQ4_NL:
    case DT_IQ4_XS:
        return VNNI ? 128 : 0;
    case DT_Q4_0:
    case DT_INT4:
        return 8;
    case DT_Q5_0:
        return 16;
    case DT_MXFP4:
        return 12;
    case DT_Q6_K:
        return 32;
    case DT_Q3_K:
        return 4;
    default:
        return 0;
    }
}

/* Operands whose products may be added in 16 bits: 8 * 2 * 15 * 127, 4 * 2 * 31 * 127 and 2 * 2 *
 * 63 * 127 are below 2^15. 1: signed codes. vpdpbusd adds in 32 bits. */
IN int lump_of(int t)
{
    if (VNNI)
        return 8;
    switch (t) {
    case DT_Q4_0:
    case DT_INT4:
    case DT_Q4_1:
    case DT_Q4_K:
        return 8;
    case DT_Q2_K: /* a half has four operands */
    case DT_Q3_K:
    case DT_MXFP4:
    case DT_Q5_0:
    case DT_Q5_1:
    case DT_Q5_K:
        return 4;
    case DT_Q6_K:
        return 2;
    default:
        return 1;
    }
}

IN int has_min(int t)
{
    return t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q4_K || t == DT_Q5_K;
}

IN int has_halves(int t)
{
    return t == DT_Q6_K || t == DT_Q3_K || t == DT_Q2_K;
}

#if VNNI

/* acc + four products per lane of unsigned w (at most 128) and signed x. */
IN __m512i quad(__m512i acc, __m512i w, __m512i x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

/* *acc + operand j of a group times four activation codes. sum and lump (lump_of) are for the
 * variant that adds products in 16 bits first. */
IN void dot4(int lump, int j, __m512i *acc, __m512i *sum, __m512i w, __m512i x)
{
    (void)lump;
    (void)j;
    (void)sum;
    *acc = _mm512_dpbusd_epi32(*acc, w, x);
}

#else

/* Sums at this point: gcc otherwise turns a chain of them into a tree, holds all products for it
 * and spills. */
IN __m512i add16(__m512i a, __m512i b)
{
    a = _mm512_add_epi16(a, b);
    __asm__("" : "+v"(a));
    return a;
}

IN __m512i add32(__m512i a, __m512i b)
{
    a = _mm512_add_epi32(a, b);
    __asm__("" : "+v"(a));
    return a;
}

IN __m512i quad(__m512i acc, __m512i w, __m512i x)
{
    return add32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
}

/* Operands j of a lump gather in *sum, which goes to *acc after the last of them. */
IN void dot4(int lump, int j, __m512i *acc, __m512i *sum, __m512i w, __m512i x)
{
    __m512i p;
    if (lump == 1)
        p = _mm512_maddubs_epi16(
            _mm512_abs_epi8(w),
            _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x));
    else
        p = _mm512_maddubs_epi16(w, x);
    *sum = j % lump == 0 ? p : add16(*sum, p);
    if (j % lump == lump - 1)
        *acc = add32(*acc, _mm512_madd_epi16(*sum, _mm512_set1_epi16(1)));
}

#endif

/* Minimums of 16 columns each, folded like the scales. */
IN int has_half_mins(int t)
{
    return t == DT_Q2_K;
}

/* Fifth bits (Q5), third bits (Q3_K) or upper bit pairs (Q6_K) of operand j, moved to bit 4 (2) up;
 * callers mask. x: the 64 high bytes that hold operand j. */
IN __m512i high_bits(int t, __m512i x, int j)
{
    int up = t == DT_Q6_K ? 4 - 2 * (j % 4) : (t == DT_Q3_K ? 2 : 4) - j;
    return up >= 0 ? _mm512_slli_epi16(x, (unsigned)up) : _mm512_srli_epi16(x, (unsigned)-up);
}

/* q[j]: rows x columns 4j..4j+3 of the group at p, unsigned codes. */
IN void decode512(int t, const uint8_t *p, __m512i q[8])
{
    const struct p16 f = p16_of(t);
    const uint8_t *high = p + f.scale + f.min, *codes = high + f.high;
    const __m512i nib = _mm512_set1_epi8(15);
    if (t == DT_Q8_0) {
        UNROLL
        for (int j = 0; j < 8; j++) {
            q[j] = _mm512_loadu_si512(codes + 64 * j);
            if (VNNI)
                q[j] = _mm512_xor_si512(q[j], _mm512_set1_epi8(-128));
        }
        return;
    }
    if (f.codes == 128) { /* two bits a column */
        UNROLL
        for (int j = 0; j < 8; j++)
            q[j] = _mm512_and_si512(
                _mm512_srli_epi16(_mm512_loadu_si512(codes + 64 * (j / 4)), 2 * ((unsigned)j % 4)),
                _mm512_set1_epi8(3));
    } else {
        UNROLL
        for (int v = 0; v < 4; v++) {
            __m512i b = _mm512_loadu_si512(codes + 64 * v);
            q[v] = _mm512_and_si512(b, nib);
            q[v + 4] = _mm512_and_si512(_mm512_srli_epi16(b, 4), nib);
        }
    }
    if (t == DT_MXFP4 || t == DT_IQ4_NL || t == DT_IQ4_XS) {
        const __m512i lut = _mm512_broadcast_i32x4(
            t == DT_MXFP4 ? _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)
            : VNNI ? _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59,
                                   -39, -15)
                   : _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
                                   89, 113));
        UNROLL
        for (int j = 0; j < 8; j++)
            q[j] = _mm512_shuffle_epi8(lut, q[j]);
    }
    if (f.high) {
        const __m512i keep = _mm512_set1_epi8(t == DT_Q6_K ? 0x30 : t == DT_Q3_K ? 4 : 0x10);
        UNROLL
        for (int j = 0; j < 8; j++) {
            __m512i x = _mm512_loadu_si512(high + (t == DT_Q6_K ? 64 * (j / 4) : 0));
            q[j] =
                _mm512_ternarylogic_epi32(q[j], high_bits(t, x, j), keep, 0xf8); /* a | (b & c) */
        }
    }
}

IN __m512 half16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* Integer scales of columns 0..15 (h = 0) and 16..31 as floats. Their sums of products stay below
 * 2^24, so fp32 arithmetic on them is exact. */
IN __m512 sub512(int t, const uint8_t *p, int h)
{
    __m512i s = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * h)));
    return _mm512_cvtepi32_ps(t == DT_Q2_K ? _mm512_and_si512(s, _mm512_set1_epi32(15)) : s);
}

/* Integer minimums of the same columns. */
IN __m512 low512(const uint8_t *p, int h)
{
    __m512i s = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * h)));
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(s, 4));
}

/* d of the 16 rows. head: the head that the group is under (K formats). */
IN __m512 scale512(int t, const uint8_t *p, const uint8_t *head)
{
    if (t == DT_MXFP4) { /* 2^(e-128), by bits; the two subnormals apart */
        __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
        __m512i s = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
        __mmask16 low = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
        return _mm512_castsi512_ps(
            _mm512_mask_sllv_epi32(s, low, _mm512_set1_epi32(0x00200000), e));
    }
    if (t == DT_IQ4_XS)
        return _mm512_mul_ps(half16(head), sub512(t, p, 0));
    if (t == DT_Q4_K || t == DT_Q5_K)
        return _mm512_mul_ps(half16(head), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(
                                               _mm_loadu_si128((const __m128i *)p))));
    if (t == DT_INT4)
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
    return half16(has_halves(t) ? head : p);
}

/* m of the 16 rows, with its sign. */
IN __m512 min512(int t, const uint8_t *p, const uint8_t *head)
{
    if (t == DT_Q2_K)
        return _mm512_xor_ps(half16(head + 32), _mm512_set1_ps(-0.0f));
    if (t == DT_Q4_K || t == DT_Q5_K) {
        __m512 m = _mm512_mul_ps(
            half16(head + 32),
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 16)))));
        return _mm512_xor_ps(m, _mm512_set1_ps(-0.0f));
    }
    return half16(p + p16_of(t).scale);
}

/* Per token and segment: accumulator starts, and the sums as floats for minimums. Halves: a and sum
 * for columns 0..15, b and sum2 for 16..31. */
struct prep {
    int32_t a[SEG_GROUPS], b[SEG_GROUPS];
    float sum[SEG_GROUPS], sum2[SEG_GROUPS];
};

IN void prep_halves(struct prep *o, const int8_t *q, uint32_t groups, int zero)
{
    const __m512i pick = _mm512_setr_epi32(0, 8, 4, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    for (uint32_t g = 0; g < groups; g += 2) {
        __mmask64 m = groups - g >= 2 ? ~(__mmask64)0 : 0xffffffffu;
        __m512i x = quad(_mm512_setzero_si512(), _mm512_set1_epi8((char)zero),
                         _mm512_maskz_loadu_epi8(m, q + 32 * (size_t)g));
        x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, (_MM_PERM_ENUM)0x4e));
        x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, (_MM_PERM_ENUM)0xb1));
        x = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_permutexvar_epi32(pick, x));
        __m128i r = _mm512_castsi512_si128(x);
        _mm_storel_epi64((__m128i *)(o->a + g), r);
        _mm_storel_epi64((__m128i *)(o->b + g), _mm_unpackhi_epi64(r, r));
    }
}

/* Halves with minimums and no zero: the sums of 16 columns. */
IN void prep_half_mins(struct prep *o, const int8_t *q, uint32_t groups)
{
    const __m512i none = _mm512_setzero_si512();
    prep_halves(o, q, groups, 1);
    _mm512_storeu_ps(o->sum, _mm512_cvtepi32_ps(_mm512_sub_epi32(none, _mm512_loadu_si512(o->a))));
    _mm512_storeu_ps(o->sum2, _mm512_cvtepi32_ps(_mm512_sub_epi32(none, _mm512_loadu_si512(o->b))));
    _mm512_storeu_si512(o->a, none);
    _mm512_storeu_si512(o->b, none);
}

/* Folded minimum of a token's group g over 16 rows; u, v: low512 of both halves. */
IN __m512 half_mins(const struct prep *x, uint32_t g, __m512 u, __m512 v)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(x->sum[g]), u,
                           _mm512_mul_ps(_mm512_set1_ps(x->sum2[g]), v));
}

/* q and sum point at the segment's first group. */
IN void prep512(int zero, int min, int halves, struct prep *o, const int8_t *q, const int32_t *sum,
                uint32_t groups)
{
    if (halves && zero == 0) {
        prep_half_mins(o, q, groups);
        return;
    }
    if (halves) {
        prep_halves(o, q, groups, zero);
        return;
    }
    if (zero == 0 && !min)
        return;
    __m512i s = _mm512_maskz_loadu_epi32((__mmask16)((1u << groups) - 1), sum);
    _mm512_storeu_si512(o->a, _mm512_mullo_epi32(s, _mm512_set1_epi32(-zero)));
    if (min)
        _mm512_storeu_ps(o->sum, _mm512_cvtepi32_ps(s));
}

IN __m512i bcast4(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* Segment result f of 16 rows: the first begins the row sum, the others are added to it. */
IN void put512(float *y, __mmask16 rows, __m512 f, int first)
{
    if (!first)
        f = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), f);
    _mm512_mask_storeu_ps(y, rows, f);
}

/* Lanes of the panel that begins at row r. */
IN __mmask16 lanes_of(const struct kern_mm *a, uint32_t r)
{
    return a->row1 - r >= KERN_PANEL ? 0xffff : (__mmask16)((1u << (a->row1 - r)) - 1);
}

IN size_t token(const struct kern_mm *a, uint32_t i)
{
    return a->tok ? a->tok[i] : i;
}

static inline bool fits_32(const struct kern_shape *s)
{
    return s->k % 32 == 0;
}

static inline bool fits_row(const struct kern_shape *s)
{
    return s->k % 32 == 0 && s->k <= KERN_ROW_MAX;
}

static inline bool fits_256(const struct kern_shape *s)
{
    return s->k % 256 == 0;
}

/* Every block type, for tables and instances: X(name, dtype, fits). */
#define BLOCK_TYPES(X)                                                                             \
    X(q8_0, DT_Q8_0, fits_32)                                                                      \
    X(q4_0, DT_Q4_0, fits_32)                                                                      \
    X(int4, DT_INT4, fits_32)                                                                      \
    X(q4_1, DT_Q4_1, fits_32)                                                                      \
    X(q5_0, DT_Q5_0, fits_32)                                                                      \
    X(q5_1, DT_Q5_1, fits_32)                                                                      \
    X(iq4_nl, DT_IQ4_NL, fits_32)                                                                  \
    X(mxfp4, DT_MXFP4, fits_32)                                                                    \
    X(q2_k, DT_Q2_K, fits_256)                                                                     \
    X(q3_k, DT_Q3_K, fits_256)                                                                     \
    X(q4_k, DT_Q4_K, fits_256)                                                                     \
    X(q5_k, DT_Q5_K, fits_256)                                                                     \
    X(iq4_xs, DT_IQ4_XS, fits_256)                                                                 \
    X(q6_k, DT_Q6_K, fits_256)

#endif
