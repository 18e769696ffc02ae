/* attn_codes_avx2.h - attention over INT8 pages for AVX2: queries and weights as codes, scores and
 * values by integer dot products of 16-bit words.
 *
 * Keys are stored plus 128; accumulators start from minus 128 times the sum of the query's codes.
 * The four bytes of a dot are two words and two words, and so is the other side: vpmaddwd is exact,
 * where vpmaddubsw would saturate. Sums are exact: 256 weights of 15 bits times 8 bits, or 65,793
 * dims of codes, stay inside int32. Included by attn_avx2.c only; every function is inlined.
 */
#ifndef KT_KERN_ATTN_CODES_AVX2_H
#define KT_KERN_ATTN_CODES_AVX2_H

#include <math.h>
#include <string.h>

#include "attn_inner_avx2.h"

#define WEIGHT_MAX 32767.0f /* a weight has 15 bits */

/* What becomes of a row's integer dots, of the rows of a group. */
struct code_rows {
    float f[ROWS];       /* times the key's scale: the factor of the dot */
    int32_t start[ROWS]; /* minus 128 times the sum of the row's codes */
};

/* 8 elements of a row of which n are left; the others are 0. */
INLINE __m256 part_ps(const float *q, uint32_t n)
{
    return n >= 8 ? _mm256_loadu_ps(q) : _mm256_maskload_ps(q, head_mask(n));
}

/* Scale of q[dim], and in *inv what gives the codes; 0 for rows of zeros, NaN if not all finite. */
static inline float query_scale(const float *q, uint32_t dim, float *inv)
{
    __m256i top = _mm256_setzero_si256();
    for (uint32_t d = 0; d < dim; d += 8)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(part_ps(q + d, dim - d)),
                                                     _mm256_set1_epi32(0x7fffffff)));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const float amax = _mm_cvtss_f32(_mm_castsi128_ps(m));
    *inv = 0.0f;
    if (_mm_cvtsi128_si32(m) >= 0x7f800000)
        return NAN;
    if (amax < 0x1p-100f)
        return 0.0f;
    const float scale = amax / 127.0f;
    *inv = 1.0f / scale;
    return scale;
}

/* One row into its place h of a group: to[quad][2][ROWS] dwords of two words, codes 0 and 2 before
 * 1 and 3. */
static inline void put_query(const float *q, uint32_t dim, int32_t *to, struct code_rows *rows,
                             uint32_t h, float scale)
{
    float inv;
    int32_t total = 0;
    const float s = query_scale(q, dim, &inv);
    to += h;
    for (uint32_t d = 0; d < dim; d += 8) {
        const uint32_t n = dim - d < 8 ? dim - d : 8, quads = attn_quads(n);
        __m256i c = _mm256_setzero_si256();
        if (inv != 0.0f) /* |q * inv| <= 127 (1 + 2^-22) rounds to 127: no clamp */
            c = _mm256_cvtps_epi32(_mm256_mul_ps(part_ps(q + d, n), _mm256_set1_ps(inv)));
        _Alignas(32) int32_t code[8];
        _mm256_store_si256((__m256i *)(void *)code, c);
        for (uint32_t i = 0; i < quads; i++, to += 2 * ROWS) {
            const int32_t *four = code + 4 * i;
            to[0] = (int32_t)((uint32_t)four[2] << 16 | ((uint32_t)four[0] & 0xffff));
            to[ROWS] = (int32_t)((uint32_t)four[3] << 16 | ((uint32_t)four[1] & 0xffff));
            total += four[0] + four[1] + four[2] + four[3];
        }
    }
    rows->f[h] = s * scale;
    rows->start[h] = -128 * total;
}

/* Scores of the keys of one page for H rows: NV vectors of 8 keys at a time, as far as a row sees
 * them. */
INLINE void score_codes(const struct work *w, uint32_t page, const int H, const int NV)
{
    const uint32_t quads = attn_quads(w->a->dim), seen = w->any - page * KERN_KV_PAGE;
    const int share = 32 * NV; /* fetched per step */
    const char *base = w->a->kpage[w->page0 + page];
    const float *scales = (const float *)(const void *)(base + kern_kv_scales_at(w->a->dim));
    const char *ahead = w->fetch ? w->a->vpage[w->page0 + page] : base;
    const struct code_rows *rows = w->codes;
    for (uint32_t at = 0; at < KERN_KV_PAGE && at < seen; at += 8 * (uint32_t)NV) {
        __m256i acc[ROWS][4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm256_set1_epi32(rows->start[h]);
        const char *row = base + 4 * at;
        const int32_t *q = w->q;
        for (uint32_t d = 0; d < quads;
             d++, ahead += share, row += 4 * KERN_KV_PAGE, q += 2 * ROWS) {
            __m256i even[4], odd[4];
            fetch_ahead(ahead, share);
            UNROLL
            for (int v = 0; v < NV; v++) {
                const __m256i key = _mm256_loadu_si256((const __m256i *)(const void *)row + v);
                even[v] = _mm256_and_si256(key, _mm256_set1_epi32(0x00ff00ff));
                odd[v] = _mm256_srli_epi16(key, 8);
            }
            UNROLL
            for (int h = 0; h < H; h++) {
                const __m256i q0 = _mm256_set1_epi32(q[h]), q1 = _mm256_set1_epi32(q[ROWS + h]);
                UNROLL
                for (int v = 0; v < NV; v++) {
                    acc[h][v] = _mm256_add_epi32(acc[h][v], _mm256_madd_epi16(even[v], q0));
                    acc[h][v] = _mm256_add_epi32(acc[h][v], _mm256_madd_epi16(odd[v], q1));
                }
            }
        }
        UNROLL
        for (int v = 0; v < NV; v++) {
            const __m256 k = _mm256_loadu_ps(scales + at + 8 * (uint32_t)v);
            float *out = w->score + page * KERN_KV_PAGE + at + 8 * (uint32_t)v;
            UNROLL
            for (int h = 0; h < H; h++)
                _mm256_store_ps(out + h * KERN_KV_BLOCK,
                                _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h][v]),
                                              _mm256_mul_ps(_mm256_set1_ps(rows->f[h]), k)));
        }
    }
}

/* Lanes r and r + 8, 4, 2 and 1 apart are added; a has lanes 0 to 7. */
INLINE float fold16(__m256 a, __m256 b)
{
    a = _mm256_add_ps(a, b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* 8 weights of 15 bits as words, those of keys 0 and 2 of four before 1 and 3 */
INLINE void put_weights(uint8_t *to, __m256i u)
{
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15),
                  words =
                      _mm_packs_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
    _mm_store_si128((__m128i *)(void *)to, _mm_shuffle_epi8(words, order));
}

/* Scores of a row to integer weights: m_b, l_b, weights times the scales of their values in place,
 * and these as multiples of *unit; 0 for keys that the row does not see. */
INLINE void weigh_codes(const struct work *w, uint32_t h, float *unit)
{
    const uint32_t n = w->n[h];
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    uint8_t *to = w->weight + (size_t)h * 2 * KERN_KV_BLOCK;
    const __m256 m = _mm256_set1_ps(top_score(w, h));
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, top = sum[0];
    for (uint32_t j = 0; j < w->any; j += 8) {
        const __m256 seen = _mm256_castsi256_ps(head_mask(j >= n ? 0 : n - j < 8 ? n - j : 8));
        const char *page = w->a->vpage[w->page0 + j / KERN_KV_PAGE];
        const float *scale = (const float *)(const void *)(page + kern_kv_scales_at(w->a->dim));
        const __m256 p = _mm256_and_ps(seen, exp_ps(_mm256_sub_ps(_mm256_load_ps(s + j), m)));
        const __m256 x =
            _mm256_and_ps(seen, _mm256_mul_ps(p, _mm256_loadu_ps(scale + j % KERN_KV_PAGE)));
        sum[j / 8 % 2] = _mm256_add_ps(sum[j / 8 % 2], p);
        top = _mm256_max_ps(top, x);
        _mm256_store_ps(s + j, x);
    }
    const float most = max_ps(top), inv = most >= 0x1p-100f ? WEIGHT_MAX / most : 0.0f;
    *unit = most >= 0x1p-100f ? most / WEIGHT_MAX : 0.0f;
    w->l[h * w->block_pad] = fold16(sum[0], sum[1]);
    for (uint32_t j = 0; j < w->any; j += 8, to += 16)
        put_weights(to,
                    _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(s + j), _mm256_set1_ps(inv))));
}

/* 8 dims of four keys; `left` < 8: the others are 0. */
INLINE __m256i codes_at(const char *p, uint32_t left)
{
    return left >= 8 ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                     : _mm256_maskload_epi32((const int *)(const void *)p, head_mask(left));
}

/* o_b of H rows for NV vectors of dims from d on; with less than 8 dims left NV is 1. */
INLINE void value_codes(const struct work *w, uint32_t d, const float *unit, const int H,
                        const int NV)
{
    const uint32_t dim = w->a->dim;
    __m256i acc[ROWS][4];
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
    for (int v = 0; v < NV; v++)
        acc[h][v] = _mm256_setzero_si256();
    const uint8_t *weight = w->weight;
    for (uint32_t g = 0; g * KERN_KV_PAGE < w->any; g++) {
        const uint32_t left = w->any - g * KERN_KV_PAGE,
                       quads = attn_quads(left < KERN_KV_PAGE ? left : KERN_KV_PAGE),
                       next = w->page0 + KERN_KV_BLOCK / KERN_KV_PAGE + g;
        const char *row = (const char *)w->a->vpage[w->page0 + g] + 4 * (size_t)d;
        /* the same place in the next block */
        const char *ahead = w->fetch && next < w->pages
                                ? (const char *)w->a->kpage[next] + (size_t)d * KERN_KV_PAGE
                                : row;
        for (uint32_t j = 0; j < quads;
             j++, row += 4 * (size_t)dim, ahead += 32 * NV, weight += 8) {
            __m256i even[4], odd[4];
            fetch_ahead(ahead, 32 * NV);
            UNROLL
            for (int v = 0; v < NV; v++) {
                const __m256i code = codes_at(row + 32 * v, NV > 1 ? 8 : dim - d);
                even[v] = _mm256_srai_epi16(_mm256_slli_epi16(code, 8), 8);
                odd[v] = _mm256_srai_epi16(code, 8);
            }
            UNROLL
            for (int h = 0; h < H; h++) {
                int32_t pair[2];
                memcpy(pair, weight + h * 2 * KERN_KV_BLOCK, sizeof pair);
                const __m256i a = _mm256_set1_epi32(pair[0]), b = _mm256_set1_epi32(pair[1]);
                UNROLL
                for (int v = 0; v < NV; v++) {
                    acc[h][v] = _mm256_add_epi32(acc[h][v], _mm256_madd_epi16(even[v], a));
                    acc[h][v] = _mm256_add_epi32(acc[h][v], _mm256_madd_epi16(odd[v], b));
                }
            }
        }
    }
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
    for (int v = 0; v < NV; v++)
        _mm256_store_ps(w->o + (size_t)h * w->dim_pad + d + 8 * (uint32_t)v,
                        _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h][v]), _mm256_set1_ps(unit[h])));
}

/* A block for H rows. */
INLINE void block_codes(const struct work *w, const int H)
{
    const int NV = H <= 2 ? 4 : 2;
    float unit[ROWS];
    uint32_t d = 0;
    for (uint32_t g = 0; g * KERN_KV_PAGE < w->any; g++)
        score_codes(w, g, H, NV);
    for (uint32_t h = 0; h < (uint32_t)H; h++)
        weigh_codes(w, h, &unit[h]);
    for (; d + 8 * (uint32_t)NV <= w->a->dim; d += 8 * (uint32_t)NV)
        value_codes(w, d, unit, H, NV);
    for (; d < w->a->dim; d += 8)
        value_codes(w, d, unit, H, 1);
}

#endif
