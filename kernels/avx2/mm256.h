/* mm256.h - reading P16 panels into AVX2 registers: what the AVX2 matrix kernels share. A panel is
 * two halves of 8 rows; lanes are rows.
 *
 * maddubs multiplies unsigned by signed bytes and adds pairs with 16-bit saturation, so each format
 * says how many of its products fit in 16 bits before they must be widened (lump_of). Codes are
 * unsigned with a zero subtracted through the accumulator's start (-zero * sum of the activation
 * codes), but Q8_0 and IQ4 use |w| and the activation with w's sign: 128 * 127 * 2 = 32512 fits, so
 * code -128 is exact. Activation codes are within -127..127. `t` is a compile-time constant
 * everywhere. Static inline only; included by files compiled with the AVX2 flags alone.
 *
 * With KERN_VNNI256 the same sources become the AVX-VNNI variants: vpdpbusd adds four products to
 * 32 bits at once, so nothing is lumped and every code is unsigned. Client processors have it in
 * VEX form. Compiled with the AVX512 flags instead, the instruction is encoded as EVEX and the rows
 * are called -evex: a test build, whose logic runs where AVX512-VNNI exists.
 */
#ifndef KT_KERN_MM256_H
#define KT_KERN_MM256_H

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

#if !defined(KERN_VNNI256)
#define VNNI 0
#define VARIANT "avx2"
#define NEEDS KERN_ISA_AVX2
#define RANK 10
#define ACCESSOR(what) kern_avx2_##what
#elif defined(__AVXVNNI__)
#define VNNI 1
#define VARIANT "avxvnni"
#define NEEDS KERN_ISA_AVX2 | KERN_ISA_AVXVNNI
#define RANK 15
#define ACCESSOR(what) kern_avxvnni_##what
#else
#define VNNI 1
#define VARIANT "avxvnni-evex"
#define NEEDS KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI
#define RANK 1
#define ACCESSOR(what) kern_avxvnni_evex_##what
#endif

/* Operands whose products may be added in 16 bits: 8 * 2 * 15 * 127, 4 * 2 * 31 * 127 and 2 * 2 *
 * 63 * 127 are below 2^15. 1: signed codes. */
IN int lump_of(int t)
{
    if (VNNI)
        return 4;
    switch (t) {
    case DT_Q2_K: /* a half has four operands: 4 * 2 * 7 * 127 */
    case DT_Q3_K:
        return 4;
    case DT_Q4_0:
    case DT_INT4:
    case DT_Q4_1:
    case DT_Q4_K:
        return 8;
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

IN int zero_of(int t)
{
    if (VNNI && (t == DT_Q8_0 || t == DT_IQ4_NL || t == DT_IQ4_XS))
        return 128;
    return t == DT_Q4_0 || t == DT_INT4 ? 8
           : t == DT_Q5_0               ? 16
           : t == DT_MXFP4              ? 12
           : t == DT_Q6_K               ? 32
           : t == DT_Q3_K               ? 4
                                        : 0;
}

IN int has_min(int t)
{
    return t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q4_K || t == DT_Q5_K;
}

IN int has_halves(int t)
{
    return t == DT_Q6_K || t == DT_Q3_K || t == DT_Q2_K;
}

/* Minimums of 16 columns each, folded like the scales. */
IN int has_half_mins(int t)
{
    return t == DT_Q2_K;
}

IN __m256i load32(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* q[j]: rows 8*half.. x columns 4j..4j+3 of the group at p. */
IN void decode256(int t, const uint8_t *p, int half, __m256i q[8])
{
    const struct p16 f = p16_of(t);
    const uint8_t *high = p + f.scale + f.min + 32 * half,
                  *codes = p + f.scale + f.min + f.high + 32 * half;
    const __m256i nib = _mm256_set1_epi8(15);
    if (t == DT_Q8_0) {
        UNROLL
        for (int j = 0; j < 8; j++) {
            q[j] = load32(codes + 64 * j);
            if (VNNI)
                q[j] = _mm256_xor_si256(q[j], _mm256_set1_epi8(-128));
        }
        return;
    }
    if (f.codes == 128) { /* two bits a column */
        UNROLL
        for (int j = 0; j < 8; j++)
            q[j] = _mm256_and_si256(_mm256_srli_epi16(load32(codes + 64 * (j / 4)), 2 * (j % 4)),
                                    _mm256_set1_epi8(3));
    } else {
        UNROLL
        for (int v = 0; v < 4; v++) {
            __m256i b = load32(codes + 64 * v);
            q[v] = _mm256_and_si256(b, nib);
            q[v + 4] = _mm256_and_si256(_mm256_srli_epi16(b, 4), nib);
        }
    }
    if (t == DT_MXFP4 || t == DT_IQ4_NL || t == DT_IQ4_XS) {
        const __m256i lut = _mm256_broadcastsi128_si256(
            t == DT_MXFP4 ? _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)
            : VNNI ? _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59,
                                   -39, -15)
                   : _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
                                   89, 113));
        UNROLL
        for (int j = 0; j < 8; j++)
            q[j] = _mm256_shuffle_epi8(lut, q[j]);
    }
    if (f.high) {
        const __m256i keep = _mm256_set1_epi8(t == DT_Q6_K ? 0x30 : t == DT_Q3_K ? 4 : 0x10);
        UNROLL
        for (int j = 0; j < 8; j++) {
            __m256i x = load32(high + (t == DT_Q6_K ? 64 * (j / 4) : 0));
            int up = t == DT_Q6_K ? 4 - 2 * (j % 4) : (t == DT_Q3_K ? 2 : 4) - j;
            x = up >= 0 ? _mm256_slli_epi16(x, up) : _mm256_srli_epi16(x, -up);
            q[j] = _mm256_or_si256(q[j], _mm256_and_si256(x, keep));
        }
    }
}

IN __m256 half8(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

IN __m256i bytes8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* Integer scales of columns 0..15 (h = 0) or 16..31 of 8 rows as floats; fp32 arithmetic on sums
 * below 2^24 is exact. */
IN __m256 sub256(int t, const uint8_t *p, int h, int half)
{
    __m256i s = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 16 * h + 8 * half)));
    return _mm256_cvtepi32_ps(t == DT_Q2_K ? _mm256_and_si256(s, _mm256_set1_epi32(15)) : s);
}

/* Integer minimums of the same columns. */
IN __m256 low256(const uint8_t *p, int h, int half)
{
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes8(p + 16 * h + 8 * half), 4));
}

/* d of 8 rows. head: the head that the group is under (K formats). */
IN __m256 scale256(int t, const uint8_t *p, const uint8_t *head, int half)
{
    if (t == DT_MXFP4) { /* 2^(e-128), by bits; the two subnormals apart */
        __m256i e = bytes8(p + 8 * half),
                s = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
        __m256i low = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
        return _mm256_castsi256_ps(
            _mm256_blendv_epi8(s, low, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
    }
    if (t == DT_IQ4_XS)
        return _mm256_mul_ps(half8(head + 16 * half), sub256(t, p, 0, half));
    if (t == DT_Q4_K || t == DT_Q5_K)
        return _mm256_mul_ps(half8(head + 16 * half), _mm256_cvtepi32_ps(bytes8(p + 8 * half)));
    if (t == DT_INT4)
        return _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * half))), 16));
    return half8((has_halves(t) ? head : p) + 16 * half);
}

/* m of 8 rows, with its sign. */
IN __m256 min256(int t, const uint8_t *p, const uint8_t *head, int half)
{
    if (t == DT_Q2_K)
        return _mm256_xor_ps(half8(head + 32 + 16 * half), _mm256_set1_ps(-0.0f));
    if (t == DT_Q4_K || t == DT_Q5_K)
        return _mm256_xor_ps(_mm256_mul_ps(half8(head + 32 + 16 * half),
                                           _mm256_cvtepi32_ps(bytes8(p + 16 + 8 * half))),
                             _mm256_set1_ps(-0.0f));
    return half8(p + p16_of(t).scale + 16 * half);
}

IN __m256i bcast4(const int8_t *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* Pairs of products of one operand with four activation codes, 16 bits. */
IN __m256i pairs(int lump, __m256i w, __m256i x)
{
    if (lump == 1)
        return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* a + b in 16 bits, at this point: gcc otherwise turns a chain of integer sums into a tree, holds
 * all products for it and spills (half the speed). */
IN __m256i add16(__m256i a, __m256i b)
{
    a = _mm256_add_epi16(a, b);
    __asm__("" : "+x"(a));
    return a;
}

IN __m256i add32(__m256i a, __m256i b)
{
    a = _mm256_add_epi32(a, b);
    __asm__("" : "+x"(a));
    return a;
}

/* v in a register, at this point: gcc otherwise loads it again for each vpmaddwd, and loads become
 * the limit. */
IN __m256i held(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

IN void store32(void *p, __m256i v)
{
    _mm256_store_si256((__m256i *)p, v);
}

/* Bytes 0 and 2 of each lane as int16; bytes 1 and 3. */
IN __m256i even_bytes(__m256i v)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}

IN __m256i odd_bytes(__m256i v)
{
    return _mm256_srai_epi16(v, 8);
}

/* A token's codes of `len` groups as words, in the order of the operands. */
IN void widen(const int8_t *q, uint32_t len, int16_t *to)
{
    for (uint32_t i = 0; i < len; i++) {
        /* lane l: the words of columns 4 l .. 4 l + 3, even ones first */
        const __m256i v = load32(q + (size_t)i * KERN_GROUP), e = even_bytes(v), o = odd_bytes(v),
                      lo = _mm256_unpacklo_epi32(e, o), hi = _mm256_unpackhi_epi32(e, o);
        store32(to + (size_t)i * KERN_GROUP, _mm256_permute2x128_si256(lo, hi, 0x20));
        store32(to + (size_t)i * KERN_GROUP + 16, _mm256_permute2x128_si256(lo, hi, 0x31));
    }
}

/* acc + products of one operand with four activation codes, in 32 bits. VNNI only. */
IN __m256i dot4(__m256i acc, __m256i w, __m256i x)
{
#if !VNNI
    (void)w;
    (void)x;
    return acc;
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(acc, w, x);
#else
    return _mm256_dpbusd_epi32(acc, w, x);
#endif
}

/* acc + dot product of operands q[j0..j1) with a[4*j0..4*j1) */
IN __m256i dot256(int lump, const __m256i *q, const int8_t *a, int j0, int j1, __m256i acc)
{
    const __m256i one = _mm256_set1_epi16(1);
    if (VNNI) {
        UNROLL
        for (int j = j0; j < j1; j++)
            acc = dot4(acc, q[j], bcast4(a + 4 * j));
        return acc;
    }
    UNROLL
    for (int j = j0; j < j1; j += lump) {
        __m256i s = pairs(lump, q[j], bcast4(a + 4 * j));
        UNROLL
        for (int i = j + 1; i < j + lump; i++)
            s = add16(s, pairs(lump, q[i], bcast4(a + 4 * i)));
        acc = add32(acc, _mm256_madd_epi16(s, one));
    }
    return acc;
}

/* Per token and segment: accumulator starts, and the sums as floats for minimums. Halves: a and sum
 * for columns 0..15, b and sum2 for 16..31. */
struct prep {
    int32_t a[SEG_GROUPS], b[SEG_GROUPS];
    float sum[SEG_GROUPS], sum2[SEG_GROUPS];
};

/* Folded minimum of a token's group g over 8 rows; u, v: low256 of both halves. */
IN __m256 half_mins(const struct prep *x, uint32_t g, __m256 u, __m256 v)
{
    return _mm256_fmadd_ps(_mm256_set1_ps(x->sum[g]), u,
                           _mm256_mul_ps(_mm256_set1_ps(x->sum2[g]), v));
}

/* q and sum point at the segment's first group. */
IN void prep256(int zero, int halves, struct prep *o, const int8_t *q, const int32_t *sum,
                uint32_t groups)
{
    for (uint32_t g = 0; g < groups; g++) {
        if (halves) {
            __m256i s = _mm256_sad_epu8(
                _mm256_xor_si256(load32(q + 32 * (size_t)g), _mm256_set1_epi8(-128)),
                _mm256_setzero_si256());
            __m128i lo = _mm256_castsi256_si128(s), hi = _mm256_extracti128_si256(s, 1);
            int32_t a = _mm_cvtsi128_si32(lo) + _mm_extract_epi32(lo, 2) - 2048,
                    b = _mm_cvtsi128_si32(hi) + _mm_extract_epi32(hi, 2) - 2048;
            o->a[g] = -zero * a;
            o->b[g] = -zero * b;
            if (zero == 0) { /* halves without a zero have minimums */
                o->sum[g] = (float)a;
                o->sum2[g] = (float)b;
            }
        } else {
            o->a[g] = -zero * sum[g];
            o->sum[g] = (float)sum[g];
        }
    }
}

/* Segment result of `rows` rows (at most 16): the first begins the row sum, the others are added to
 * it. */
IN void put256(float *y, uint32_t rows, __m256 f0, __m256 f1, int first)
{
    if (rows >= KERN_PANEL) {
        if (!first) {
            f0 = _mm256_add_ps(_mm256_loadu_ps(y), f0);
            f1 = _mm256_add_ps(_mm256_loadu_ps(y + 8), f1);
        }
        _mm256_storeu_ps(y, f0);
        _mm256_storeu_ps(y + 8, f1);
        return;
    }
    float v[KERN_PANEL];
    _mm256_storeu_ps(v, f0);
    _mm256_storeu_ps(v + 8, f1);
    for (uint32_t i = 0; i < rows; i++)
        y[i] = first ? v[i] : y[i] + v[i];
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
