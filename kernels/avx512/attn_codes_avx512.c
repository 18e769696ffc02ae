/* attn_codes_avx512.c - attention over INT8 pages for AVX512: queries and weights as codes, scores
 * and values by integer dot products of bytes (VNNI) or of 16-bit words.
 *
 * Keys are stored plus 128, so they are the unsigned side of vpdpbusd, and a query's four codes are
 * its broadcast operand; accumulators start from minus 128 times the sum of the query's codes. A
 * weight of 15 bits is two unsigned bytes, each with a sum of its own. Without VNNI the four bytes
 * of a dot are two words and two words, and vpmaddwd is exact too, at two instructions and two
 * additions. Sums are exact: 256 weights of 15 bits times 8 bits, or 65,793 dims of codes, stay
 * inside int32. Compiled twice, here and in avx512vnni/. Any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__)
#error "attn_codes_avx512.c needs the AVX512 flags of KT_AVX512_CFLAGS"
#endif

#include <math.h>
#include <string.h>

#include "attn_inner_avx512.h"
#include "tables.h"

#if defined(__AVX512VNNI__)
#define VNNI 1
#else
#define VNNI 0
#endif
#define WEIGHT_MAX 32767.0f /* a weight has 15 bits */

/* Scale of q[dim], and in *inv what gives the codes; 0 for rows of zeros, NaN if not all finite. */
static inline float query_scale(const float *q, uint32_t dim, float *inv)
{
    __m512i top = _mm512_setzero_si512();
    for (uint32_t d = 0; d < dim; d += 16) {
        const uint32_t n = dim - d < 16 ? dim - d : 16;
        const __m512i x = _mm512_maskz_loadu_epi32(head_mask(n), q + d);
        top = _mm512_max_epi32(top, _mm512_and_si512(x, _mm512_set1_epi32(0x7fffffff)));
    }
    const int32_t bits = _mm512_reduce_max_epi32(top);
    const float amax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
    *inv = 0.0f;
    if (bits >= 0x7f800000)
        return NAN;
    if (amax < 0x1p-100f)
        return 0.0f;
    const float scale = amax / 127.0f;
    *inv = 1.0f / scale;
    return scale;
}

/* One row into its place h of a group: to[quad][ATTN_ROWS] dwords of four codes with VNNI, else
 * to[quad][2][ATTN_ROWS] dwords of two words, codes 0 and 2 before 1 and 3. */
static inline void put_query(const float *q, uint32_t dim, int32_t *to, struct code_rows *rows,
                             uint32_t h, float scale)
{
    float inv;
    const float s = query_scale(q, dim, &inv);
    __m512i sum = _mm512_setzero_si512();
    to += h;
    for (uint32_t d = 0; d < dim; d += 16) {
        const uint32_t n = dim - d < 16 ? dim - d : 16, quads = attn_quads(n);
        __m512i c = _mm512_setzero_si512();
        if (inv != 0.0f) /* |q * inv| <= 127 (1 + 2^-22) rounds to 127: no clamp */
            c = _mm512_cvtps_epi32(
                _mm512_mul_ps(_mm512_maskz_loadu_ps(head_mask(n), q + d), _mm512_set1_ps(inv)));
        const __m128i bytes = _mm512_cvtepi32_epi8(c);
        _Alignas(16) int32_t even[4], odd[4];
        sum = _mm512_add_epi32(sum, c);
        if (VNNI) {
            _mm_store_si128((__m128i *)(void *)even, bytes);
        } else {
            _mm_store_si128((__m128i *)(void *)even, _mm_srai_epi16(_mm_slli_epi16(bytes, 8), 8));
            _mm_store_si128((__m128i *)(void *)odd, _mm_srai_epi16(bytes, 8));
        }
        for (uint32_t i = 0; i < quads; i++, to += VNNI ? ATTN_ROWS : 2 * ATTN_ROWS) {
            to[0] = even[i];
            if (!VNNI)
                to[ATTN_ROWS] = odd[i];
        }
    }
    rows->f[h] = s * scale;
    rows->start[h] = -128 * _mm512_reduce_add_epi32(sum);
}

INLINE __m512i dot_step(__m512i acc, __m512i key, const int32_t *q)
{
    if (VNNI)
        return _mm512_dpbusd_epi32(acc, key, _mm512_set1_epi32(q[0]));
    const __m512i even = _mm512_and_si512(key, _mm512_set1_epi32(0x00ff00ff)),
                  odd = _mm512_srli_epi16(key, 8);
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(even, _mm512_set1_epi32(q[0])));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(odd, _mm512_set1_epi32(q[ATTN_ROWS])));
}

/* Scores of the keys of one page for H rows: NV vectors of 16 keys at a time, as far as a row sees
 * them. */
INLINE void score_codes(const struct work *w, uint32_t page, const int H, const int NV)
{
    const uint32_t quads = attn_quads(w->a->dim), seen = w->any - page * KERN_KV_PAGE;
    const int share = 64 * NV; /* fetched per step */
    const char *base = w->a->kpage[w->page0 + page];
    const float *scales = (const float *)(const void *)(base + kern_kv_scales_at(w->a->dim));
    const char *ahead = w->fetch ? w->a->vpage[w->page0 + page] : base;
    const struct code_rows *rows = w->codes;
    for (uint32_t at = 0; at < KERN_KV_PAGE && at < seen; at += 16 * (uint32_t)NV) {
        __m512i acc[ATTN_ROWS][4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm512_set1_epi32(rows->start[h]);
        const char *row = base + 4 * at;
        const int32_t *q = (const int32_t *)(const void *)w->q;
        for (uint32_t d = 0; d < quads;
             d++, ahead += share, row += 4 * KERN_KV_PAGE, q += VNNI ? ATTN_ROWS : 2 * ATTN_ROWS) {
            __m512i key[4];
            fetch_ahead(ahead, share);
            UNROLL
            for (int v = 0; v < NV; v++)
                key[v] = _mm512_loadu_si512(row + 64 * v);
            UNROLL
            for (int h = 0; h < H; h++)
                UNROLL
            for (int v = 0; v < NV; v++)
                acc[h][v] = dot_step(acc[h][v], key[v], q + h);
        }
        UNROLL
        for (int v = 0; v < NV; v++) {
            const __m512 k = _mm512_loadu_ps(scales + at + 16 * (uint32_t)v);
            float *out = w->score + page * KERN_KV_PAGE + at + 16 * (uint32_t)v;
            UNROLL
            for (int h = 0; h < H; h++)
                _mm512_store_ps(out + h * KERN_KV_BLOCK,
                                _mm512_mul_ps(_mm512_cvtepi32_ps(acc[h][v]),
                                              _mm512_mul_ps(_mm512_set1_ps(rows->f[h]), k)));
        }
    }
}

/* Lanes r and r + 8 are added, then 4, 2 and 1 apart. */
INLINE float fold16(__m512 v)
{
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* 16 weights of 15 bits: with VNNI high bytes, and 256 further on the low ones; else words, those
 * of keys 0 and 2 of four before 1 and 3. */
INLINE void put_weights(uint8_t *to, __m512i u)
{
    if (VNNI) {
        _mm_store_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(_mm512_srli_epi32(u, 8)));
        _mm_store_si128((__m128i *)(void *)(to + KERN_KV_BLOCK), _mm512_cvtepi32_epi8(u));
    } else {
        const __m256i order =
            _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3,
                             6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        _mm256_store_si256((__m256i *)(void *)to,
                           _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(u), order));
    }
}

/* Scores of a row to integer weights: m_b, l_b, weights times the scales of their values in place,
 * and these as multiples of *unit; 0 for keys that the row does not see. */
INLINE void weigh_codes(const struct work *w, uint32_t h, float *unit)
{
    const uint32_t n = w->n[h];
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    uint8_t *to = w->weight + (size_t)h * 2 * KERN_KV_BLOCK;
    const __m512 m = _mm512_set1_ps(top_score(w, h));
    __m512 sum = _mm512_setzero_ps(), top = sum;
    for (uint32_t j = 0; j < w->any; j += 16) {
        const __mmask16 seen = j >= n ? 0 : head_mask(n - j < 16 ? n - j : 16);
        const char *page = w->a->vpage[w->page0 + j / KERN_KV_PAGE];
        const float *scale = (const float *)(const void *)(page + kern_kv_scales_at(w->a->dim));
        const __m512 p = exp_ps(_mm512_sub_ps(_mm512_load_ps(s + j), m));
        const __m512 x = _mm512_maskz_mul_ps(seen, p, _mm512_loadu_ps(scale + j % KERN_KV_PAGE));
        sum = _mm512_mask_add_ps(sum, seen, sum, p);
        top = _mm512_max_ps(top, x);
        _mm512_store_ps(s + j, x);
    }
    const float most = _mm512_reduce_max_ps(top),
                inv = most >= 0x1p-100f ? WEIGHT_MAX / most : 0.0f;
    *unit = most >= 0x1p-100f ? most / WEIGHT_MAX : 0.0f;
    w->l[h * w->block_pad] = fold16(sum);
    for (uint32_t j = 0; j < w->any; j += 16, to += VNNI ? 16 : 32)
        put_weights(to,
                    _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(s + j), _mm512_set1_ps(inv))));
}

/* Four keys of NV vectors of 16 dims into the sums of a row: with VNNI high and low bytes apart. */
INLINE void value_step(__m512i *acc, const __m512i *code, const uint8_t *weight, const int NV)
{
    int32_t first, second;
    memcpy(&first, weight, 4);
    memcpy(&second, weight + (VNNI ? KERN_KV_BLOCK : 4), 4);
    const __m512i a = _mm512_set1_epi32(first), b = _mm512_set1_epi32(second);
    UNROLL
    for (int v = 0; v < NV; v++) {
        if (VNNI) {
            acc[v] = _mm512_dpbusd_epi32(acc[v], a, code[v]);
            acc[4 + v] = _mm512_dpbusd_epi32(acc[4 + v], b, code[v]);
        } else {
            const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(code[v], 8), 8);
            acc[v] = _mm512_add_epi32(acc[v], _mm512_madd_epi16(even, a));
            acc[v] = _mm512_add_epi32(acc[v], _mm512_madd_epi16(_mm512_srai_epi16(code[v], 8), b));
        }
    }
}

/* o_b of H rows for NV vectors of dims from d on; `left` < 16: NV is 1, and the others are 0. */
INLINE void value_codes(const struct work *w, uint32_t d, const float *unit, const int H,
                        const int NV)
{
    const uint32_t dim = w->a->dim;
    const __mmask16 live = head_mask(dim - d < 16 ? dim - d : 16);
    __m512i acc[ATTN_ROWS][8];
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
    for (int v = 0; v < 8; v++)
        acc[h][v] = _mm512_setzero_si512();
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
             j++, row += 4 * (size_t)dim, ahead += 64 * NV, weight += VNNI ? 4 : 8) {
            __m512i code[4];
            fetch_ahead(ahead, 64 * NV);
            UNROLL
            for (int v = 0; v < NV; v++)
                code[v] =
                    NV > 1 ? _mm512_loadu_si512(row + 64 * v) : _mm512_maskz_loadu_epi32(live, row);
            UNROLL
            for (int h = 0; h < H; h++)
                value_step(acc[h], code, weight + h * 2 * KERN_KV_BLOCK, NV);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++)
        UNROLL
    for (int v = 0; v < NV; v++) {
        const __m512i sum =
            VNNI ? _mm512_add_epi32(_mm512_slli_epi32(acc[h][v], 8), acc[h][4 + v]) : acc[h][v];
        _mm512_store_ps(w->o + (size_t)h * w->dim_pad + d + 16 * (uint32_t)v,
                        _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(unit[h])));
    }
}

/* A block for H rows. */
INLINE void block_codes(const struct work *w, const int H)
{
    const int NK = H <= 6 ? 4 : 2, NV = VNNI ? (H <= 2 ? 4 : H <= 4 ? 2 : 1) : H <= 4 ? 4 : 2;
    float unit[ATTN_ROWS];
    uint32_t d = 0;
    for (uint32_t g = 0; g * KERN_KV_PAGE < w->any; g++)
        score_codes(w, g, H, NK);
    for (uint32_t h = 0; h < (uint32_t)H; h++)
        weigh_codes(w, h, &unit[h]);
    for (; NV > 1 && d + 16 * (uint32_t)NV <= w->a->dim; d += 16 * (uint32_t)NV)
        value_codes(w, d, unit, H, NV);
    for (; d < w->a->dim; d += 16)
        value_codes(w, d, unit, H, 1);
}

#define BLOCK(h)                                                                                   \
    static void block_##h(const struct work *w)                                                    \
    {                                                                                              \
        block_codes(w, h);                                                                         \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)
BLOCK(7)
BLOCK(8)

static void attend(const struct kern_attn *a)
{
    static const block_fn of[ATTN_ROWS] = {block_1, block_2, block_3, block_4,
                                           block_5, block_6, block_7, block_8};
    const uint32_t rows = a->n_pos * a->n_q;
    const size_t groups = (rows + ATTN_ROWS - 1) / ATTN_ROWS,
                 q_step = (size_t)attn_quads(a->dim) * 4 * ATTN_ROWS;
    float *score = a->scratch;
    uint8_t *weight = (uint8_t *)(score + ATTN_ROWS * KERN_KV_BLOCK);
    struct code_rows *codes = (struct code_rows *)(void *)(weight + 2 * ATTN_ROWS * KERN_KV_BLOCK);
    int32_t *q = (int32_t *)(void *)(codes + groups);
    for (uint32_t r = 0; r < rows; r++)
        put_query(a->q + r / a->n_q * a->ldq + r % a->n_q * a->dim, a->dim,
                  q + r / ATTN_ROWS * q_step, &codes[r / ATTN_ROWS], r % ATTN_ROWS, a->scale);
    each_group(&(struct work){.a = a, .q = q, .score = score, .weight = weight, .codes = codes},
               q_step, of);
}

#if VNNI
/* Pages of floats gain nothing from VNNI. */
static void attn(const struct kern_attn *a)
{
    if (a->kv == KERN_KV_INT8)
        attend(a);
    else
        kern_avx512_attn(a);
}

const struct kern *kern_avx512vnni_vec(size_t *n)
{
    static const struct kern table[] = {
        {.name = "attn_f32_avx512vnni",
         .op = KERN_ATTN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI,
         .tok_tile = 1,
         .rank = 21,
         .run.attn = attn},
    };
    *n = sizeof table / sizeof table[0];
    return table;
}
#else
void kern_avx512_attn_codes(const struct kern_attn *a)
{
    attend(a);
}
#endif
