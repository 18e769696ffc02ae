/* gemm256.h - what mm_gemm_avx2.c multiplies: a panel's segment decoded to operands in L1, and the
 * tokens of a block prepared for a segment.
 *
 * Operands are unsigned bytes for vpmaddubsw and vpdpbusd. Formats whose products do not fit 16
 * bits twice (Q8_0, IQ4) become 16-bit numbers instead, for vpmaddwd, and so do the activations:
 * |w| with w's sign on the activation would take three instructions of the two multiplier pipes
 * instead of two. Both are split into even and odd bytes, so that no shuffle is needed. With
 * vpmaddubsw the integer sub-scales of Q2_K, Q3_K and Q6_K take the place of the ones that widen
 * sums of 16 bits; with vpdpbusd Q2_K and Q3_K fold them into the codes, whose products still fit a
 * byte. Static inline only; included by files compiled with the AVX2 or AVX-VNNI flags alone.
 */
#ifndef KT_KERN_GEMM256_H
#define KT_KERN_GEMM256_H

#include "mm256.h"

#define BLOCK 64 /* tokens */
#define STRIP 16 /* panels for which activations are prepared once */
#define TOKENS 6 /* of a tile, at most */

/* What becomes of a group's integer sum. WORDS is SCALE with operands of 16 bits. */
enum kind { WORDS, SCALE, MIN, HALVES, HALF_MINS };

#define Q3_ZERO 124 /* makes code times sub-scale of Q3_K, -124..128, unsigned */

IN int folds(int t)
{
    return VNNI && (t == DT_Q2_K || t == DT_Q3_K);
}

IN int kind_of(int t)
{
    if (lump_of(t) == 1)
        return WORDS;
    return has_half_mins(t)             ? HALF_MINS
           : has_halves(t) && !folds(t) ? HALVES
           : has_min(t)                 ? MIN
                                        : SCALE;
}

/* A decoded segment of a panel. u: sub-scales of columns 0..15 and 16..31, as pairs of int16 or
 * (VNNI) as floats; z: pairs of int16, the sub-scales times minus the codes' zero, or the integer
 * minimums; m: minimum. */
struct seg {
    uint8_t q[SEG_GROUPS][16][64];
    float d[SEG_GROUPS][16], m[SEG_GROUPS][16];
    int32_t u[SEG_GROUPS][2][16], z[SEG_GROUPS][16];
} __attribute__((aligned(64)));

/* A token in the segment: accumulator starts, or (b) sums of columns 0..15 and 16..31 as a pair of
 * int16, or the sum as a float for minimums; activation scales; the results. */
struct tok {
    int32_t a[SEG_GROUPS], b[SEG_GROUPS];
    float scale[SEG_GROUPS], f[KERN_PANEL];
} __attribute__((aligned(64)));

/* The tokens of a block; words: their codes in 16 bits (WORDS), rows skewed against each other:
 * columns that are loaded together would lie in the same banks of the cache. */
struct side {
    struct tok x[BLOCK];
    const int8_t *q[BLOCK];
    int16_t words[BLOCK][KERN_SEGMENT + 16];
} __attribute__((aligned(64)));

/* A panel's segment and the tokens that pass over it; next: what comes after it, to ask for, `ask`
 * lines per step. */
struct job {
    struct side *x;
    struct seg *w;
    const uint8_t *next;
    uint32_t n, g0, len, ask;
};

/* a in the low and b in the high 16 bits. */
IN __m256i pair16(__m256i a, __m256i b)
{
    return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
}

/* Sub-scales of 8 rows as integers; high: integer minimums (Q2_K). */
IN __m256i sub_ints(int t, const uint8_t *p, int part, int half)
{
    __m256i s = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 16 * part + 8 * half)));
    return t == DT_Q2_K ? _mm256_and_si256(s, _mm256_set1_epi32(15)) : s;
}

IN __m256i low_ints(const uint8_t *p, int part, int half)
{
    return _mm256_srli_epi32(bytes8(p + 16 * part + 8 * half), 4);
}

/* q[j] times the sub-scales s. The products of a pair of bytes do not borrow from each other, once
 * Q3_K's are above zero: the whole 16-bit number is exact. */
IN void fold256(int t, const __m256i s[2], __m256i q[8])
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i v = pair16(s[h], s[h]);
        /* the bias of codes is 4, so 4 s comes off each byte */
        const __m256i up = _mm256_sub_epi16(_mm256_set1_epi16(257 * Q3_ZERO),
                                            _mm256_mullo_epi16(v, _mm256_set1_epi16(257 * 4)));
        UNROLL
        for (int j = 4 * h; j < 4 * h + 4; j++) {
            q[j] = _mm256_mullo_epi16(q[j], v);
            if (t == DT_Q3_K)
                q[j] = _mm256_add_epi16(q[j], up);
        }
    }
}

/* Half h of group i, packed at p. */
IN void decode_half(int t, const uint8_t *p, const uint8_t *head, struct seg *o, uint32_t i,
                    const int h)
{
    __m256i q[8], s[2];
    decode256(t, p, h, q);
    _mm256_store_ps(o->d[i] + 8 * h, scale256(t, p, head, h));
    if (has_min(t) || has_half_mins(t))
        _mm256_store_ps(o->m[i] + 8 * h, min256(t, p, head, h));
    if (has_halves(t)) {
        s[0] = sub_ints(t, p, 0, h);
        s[1] = sub_ints(t, p, 1, h);
        if (folds(t))
            fold256(t, s, q);
        else
            UNROLL
        for (int k = 0; k < 2; k++)
            if (VNNI)
                _mm256_store_ps((float *)o->u[i][k] + 8 * h, _mm256_cvtepi32_ps(s[k]));
            else
                store32(o->u[i][k] + 8 * h, pair16(s[k], s[k]));
    }
    if (has_half_mins(t))
        store32(o->z[i] + 8 * h, pair16(low_ints(p, 0, h), low_ints(p, 1, h)));
    else if (has_halves(t) && !VNNI)
        store32(o->z[i] + 8 * h,
                _mm256_mullo_epi16(pair16(s[0], s[1]), _mm256_set1_epi16((short)-zero_of(t))));
    UNROLL
    for (int j = 0; j < 8; j++)
        if (kind_of(t) == WORDS) {
            store32(o->q[i][2 * j] + 32 * h, even_bytes(q[j]));
            store32(o->q[i][2 * j + 1] + 32 * h, odd_bytes(q[j]));
        } else {
            store32(o->q[i][j] + 32 * h, q[j]);
        }
}

IN void decode_seg(int t, const uint8_t *w, uint32_t g0, uint32_t len, struct seg *o)
{
    const struct p16 l = p16_of(t);
    for (uint32_t i = 0; i < len; i++) {
        const uint8_t *p = w + p16_group_at(l, g0 + i), *head = w + p16_head_at(l, g0 + i);
        UNROLL
        for (int h = 0; h < 2; h++)
            decode_half(t, p, head, o, i, h);
    }
}

/* Tokens [t0, t0 + n) in the segment from group g0. */
IN void prepare(const struct kern_mm *a, int t, uint32_t t0, const struct job *b)
{
    const int kind = kind_of(t), zero = folds(t) && t == DT_Q3_K ? Q3_ZERO : zero_of(t);
    for (uint32_t n = 0; n < b->n; n++) {
        const size_t at = token(a, t0 + n), g = at * a->ldg + b->g0;
        const int8_t *q = a->q + at * a->ldq + (size_t)b->g0 * KERN_GROUP;
        struct tok *x = &b->x->x[n];
        struct prep p;
        if (kind >= HALVES)
            prep256(VNNI && kind == HALVES ? zero : -1, 1, &p, q, a->sum + g, b->len);
        for (uint32_t i = 0; i < b->len; i++) {
            x->scale[i] = a->scale[g + i];
            if (kind == SCALE) {
                x->a[i] = -zero * a->sum[g + i];
            } else if (kind == MIN) {
                const float sum = (float)a->sum[g + i];
                __builtin_memcpy(&x->b[i], &sum, 4);
            } else if (VNNI && kind == HALVES) {
                x->a[i] = p.a[i];
                x->b[i] = p.b[i];
            } else if (kind >= HALVES) { /* a zero of -1: the sums themselves */
                x->b[i] = (int32_t)((uint32_t)p.a[i] & 0xffff) | (int32_t)((uint32_t)p.b[i] << 16);
            }
        }
        if (kind == WORDS)
            widen(q, b->len, b->x->words[n]);
        b->x->q[n] = kind == WORDS ? (const int8_t *)b->x->words[n] : q;
    }
}

#endif
