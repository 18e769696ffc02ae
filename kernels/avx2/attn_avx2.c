/* attn_avx2.c - attention of one query position over paged keys and values, for AVX2 and FMA.
 *
 * Same bits as ref/attn_ref.c: a key's dot product and an output element are one fma chain each, in
 * the definition's order; lanes are keys in the first half and dims in the second, so no sum
 * crosses lanes. Query heads of one kv head go through in groups of up to 4 (8 accumulators of the
 * 16 registers), which share every load of K and V. BF16 is widened two words at a time: shift for
 * the even words, mask for the odd ones. Keys are put back in order when scores are stored; dims
 * stay in that order in scratch until the result is written. An odd dim cannot occur: rotation
 * pairs dims. Keys at and past n_keys may be read inside the last page (never a page without a
 * visible key) but reach no result. Any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "attn_avx2.c needs the flags of KT_AVX2_CFLAGS"
#endif

#include "vec_avx2.h"

#include <math.h>

#include "attn_scratch.h"

#define INLINE static inline __attribute__((always_inline))
/* Loops over heads, vectors and chunks must disappear, or the accumulators live in memory: 3 times
 * slower. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define CHUNK 16 /* dims of a step over V: two registers */
#define MAX_GROUP 4

/* A group of heads in one block; immutable while its functions run. */
struct work {
    const struct kern_attn *a;
    const float *q; /* [heads][dim] of the group */
    float *score;   /* [heads][KERN_KV_BLOCK] */
    float *o;       /* [heads][dim_pad] of this block */
    float *m, *l;   /* of this block; heads are block_pad apart */
    size_t block_pad, dim_pad;
    uint32_t page0; /* first page of the block */
    uint32_t n;     /* visible keys of the block, 1..256 */
    uint32_t pages; /* of the whole sequence: what may be fetched ahead */
};

/* Pages lie anywhere, so the hardware's prefetchers start anew with each: while a page is worked
 * on, the one needed next (values after keys, then the next block's keys) is called in, evenly, to
 * L2. */
INLINE void fetch(const char *p, const int bytes)
{
    UNROLL
    for (int c = 0; c < bytes; c += 64)
        _mm_prefetch(p + c, _MM_HINT_T1);
}

/* 16 BF16 words as fp32: those at even and those at odd places */
INLINE __m256 even_words(__m256i v)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

INLINE __m256 odd_words(__m256i v)
{
    return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000)));
}

/* back to the order of the words: elements 8 * half .. */
INLINE __m256 interleave(__m256 even, __m256 odd, int half)
{
    const __m256 a = _mm256_unpacklo_ps(even, odd), b = _mm256_unpackhi_ps(even, odd);
    return half == 0 ? _mm256_permute2f128_ps(a, b, 0x20) : _mm256_permute2f128_ps(a, b, 0x31);
}

/* The larger of each lane; of equal or unordered ones the second, as everywhere: a NaN score makes
 * its weight, and so the sum, NaN anyway. */
INLINE float max_ps(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Scores of the 64 keys of one page for H heads: NV vectors of 8 keys at a time. */
INLINE void score_page(const struct work *w, uint32_t page, const int H, const int NV,
                       const bool bf16)
{
    const uint32_t dim = w->a->dim;
    const __m256 scale = _mm256_set1_ps(w->a->scale);
    const void *base = w->a->kpage[w->page0 + page];
    const int share =
        8 * NV * (bf16 ? 2 : 4); /* per step, to have the whole page of values at the end */
    const char *ahead = w->a->vpage[w->page0 + page];
    for (int at = 0; at < KERN_KV_PAGE; at += 8 * NV) {
        __m256 acc[MAX_GROUP][4], key[4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm256_setzero_ps();
        for (uint32_t d = 0; d < dim; d++, ahead += share) {
            fetch(ahead, share);
            const size_t row = (size_t)d * KERN_KV_PAGE + (size_t)at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                if (bf16) {
                    const __m256i raw =
                        _mm256_loadu_si256((const __m256i *)((const uint16_t *)base + row + 8 * v));
                    key[v] = even_words(raw), key[v + 1] = odd_words(raw);
                } else {
                    key[v] = _mm256_loadu_ps((const float *)base + row + 8 * v);
                    key[v + 1] = _mm256_loadu_ps((const float *)base + row + 8 * v + 8);
                }
            }
            UNROLL
            for (int h = 0; h < H; h++) {
                const __m256 q = _mm256_set1_ps(w->q[(size_t)h * dim + d]);
                UNROLL
                for (int v = 0; v < NV; v++)
                    acc[h][v] = _mm256_fmadd_ps(q, key[v], acc[h][v]);
            }
        }
        UNROLL
        for (int h = 0; h < H; h++) {
            float *out = w->score + (size_t)h * KERN_KV_BLOCK + page * KERN_KV_PAGE + at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                const __m256 a = _mm256_mul_ps(acc[h][v], scale),
                             b = _mm256_mul_ps(acc[h][v + 1], scale);
                _mm256_store_ps(out + 8 * v, bf16 ? interleave(a, b, 0) : a);
                _mm256_store_ps(out + 8 * v + 8, bf16 ? interleave(a, b, 1) : b);
            }
        }
    }
}

/* The two registers of a chunk of V's row; lanes past the row's end are 0. */
INLINE void load_chunk(const void *row, uint32_t d, uint32_t left, const bool bf16, __m256 v[2])
{
    if (bf16) {
        const uint16_t *p = (const uint16_t *)row + d;
        const __m256i raw = left >= CHUNK
                                ? _mm256_loadu_si256((const __m256i *)p)
                                : _mm256_maskload_epi32((const int *)p, head_mask(left / 2));
        v[0] = even_words(raw), v[1] = odd_words(raw);
    } else {
        const float *p = (const float *)row + d;
        v[0] = left >= CHUNK ? _mm256_loadu_ps(p)
                             : _mm256_maskload_ps(p, head_mask(left < 8 ? left : 8));
        v[1] = left >= CHUNK ? _mm256_loadu_ps(p + 8)
               : left > 8    ? _mm256_maskload_ps(p + 8, head_mask(left - 8))
                             : _mm256_setzero_ps();
    }
}

/* o += p v over the n keys of a page for H heads and NC chunks from dim d; with_l also l += p.
 * `left`: dims from d on, for a last part chunk. */
INLINE void value_page(const struct work *w, uint32_t page, uint32_t d, uint32_t left, const int H,
                       const int NC, const bool bf16, const bool with_l)
{
    const uint32_t dim = w->a->dim, n = w->n - page * KERN_KV_PAGE < KERN_KV_PAGE
                                            ? w->n - page * KERN_KV_PAGE
                                            : KERN_KV_PAGE;
    const size_t row_bytes = (size_t)dim * (bf16 ? 2 : 4);
    const char *row = w->a->vpage[w->page0 + page];
    const float *p = w->score + page * KERN_KV_PAGE;
    const uint32_t next =
        w->page0 + KERN_KV_BLOCK / KERN_KV_PAGE + page; /* the same place in the next block */
    const int share = NC * CHUNK * (bf16 ? 2 : 4);
    const char *ahead =
        next < w->pages ? (const char *)w->a->kpage[next] + d * (bf16 ? 2 : 4) * KERN_KV_PAGE : row;
    __m256 o[MAX_GROUP][8];
    __m128 l[MAX_GROUP];
    UNROLL
    for (int h = 0; h < H; h++) {
        const float *from = w->o + h * w->dim_pad + d;
        l[h] = page == 0 ? _mm_setzero_ps() : _mm_set_ss(w->l[h * w->block_pad]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            o[h][c] = page == 0 ? _mm256_setzero_ps() : _mm256_load_ps(from + 8 * c);
    }
    for (uint32_t j = 0; j < n; j++, row += row_bytes, p++, ahead += share) {
        __m256 v[8];
        fetch(ahead, share);
        UNROLL
        for (int c = 0; c < NC; c++)
            load_chunk(row, d + CHUNK * (uint32_t)c, left, bf16, v + 2 * c);
        UNROLL
        for (int h = 0; h < H; h++) {
            const __m256 weight = _mm256_set1_ps(p[h * KERN_KV_BLOCK]);
            if (with_l)
                l[h] = _mm_add_ss(l[h], _mm256_castps256_ps128(weight));
            UNROLL
            for (int c = 0; c < 2 * NC; c++)
                o[h][c] = _mm256_fmadd_ps(weight, v[c], o[h][c]);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        float *to = w->o + h * w->dim_pad + d;
        if (with_l)
            w->l[h * w->block_pad] = _mm_cvtss_f32(l[h]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            _mm256_store_ps(to + 8 * c, o[h][c]);
    }
}

/* Lanes of v at and past n are -infinity. */
INLINE __m256 visible(__m256 v, uint32_t n)
{
    return n >= 8
               ? v
               : _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, _mm256_castsi256_ps(head_mask(n)));
}

/* scores to weights: m_b over the visible keys, then exp(s - m_b) in place */
INLINE void weigh(const struct work *w, uint32_t h)
{
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    __m256 top = _mm256_set1_ps(-INFINITY);
    for (uint32_t j = 0; j < w->n; j += 8)
        top = _mm256_max_ps(top, visible(_mm256_load_ps(s + j), w->n - j));
    const float m = max_ps(top);
    w->m[h * w->block_pad] = m;
    for (uint32_t j = 0; j < w->n; j += 8)
        _mm256_store_ps(s + j, exp_ps(_mm256_sub_ps(_mm256_load_ps(s + j), _mm256_set1_ps(m))));
}

/* A block for H heads. Chunks go NC at a time, then one by one; V's page stays in the first-level
 * cache between them. */
INLINE void block(const struct work *w, const int H, const bool bf16)
{
    const int NV = H <= 2 ? 4 : 2, NC = H == 1 ? 4 : H == 2 ? 2 : 1;
    const uint32_t dim = w->a->dim, pages = (w->n + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    for (uint32_t g = 0; g < pages; g++)
        score_page(w, g, H, NV, bf16);
    for (uint32_t h = 0; h < (uint32_t)H; h++)
        weigh(w, h);
    for (uint32_t g = 0; g < pages; g++) {
        uint32_t d = 0;
        if (dim >= CHUNK * (uint32_t)NC) {
            value_page(w, g, 0, CHUNK, H, NC, bf16, true);
            d = CHUNK * (uint32_t)NC;
            for (; d + CHUNK * (uint32_t)NC <= dim; d += CHUNK * (uint32_t)NC)
                value_page(w, g, d, CHUNK, H, NC, bf16, false);
        }
        for (; d < dim; d += CHUNK)
            value_page(w, g, d, dim - d, H, 1, bf16, d == 0);
    }
}

typedef void (*block_fn)(const struct work *w);
#define BLOCK(h)                                                                                   \
    static void block_bf16_##h(const struct work *w)                                               \
    {                                                                                              \
        block(w, h, true);                                                                         \
    }                                                                                              \
    static void block_f32_##h(const struct work *w)                                                \
    {                                                                                              \
        block(w, h, false);                                                                        \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
static const block_fn block_of[2][MAX_GROUP] = {
    {block_f32_1, block_f32_2, block_f32_3, block_f32_4},
    {block_bf16_1, block_bf16_2, block_bf16_3, block_bf16_4},
};

/* M, the factors exp(m_b - M) in place of m, and l of one head */
static float combine_l(float *m, const float *l, size_t blocks)
{
    __m256 top = _mm256_set1_ps(-INFINITY);
    for (size_t b = 0; b < blocks; b += 8)
        top = _mm256_max_ps(
            top, visible(_mm256_load_ps(m + b), blocks - b < 8 ? (uint32_t)(blocks - b) : 8));
    const __m256 big = _mm256_set1_ps(max_ps(top));
    for (size_t b = 0; b < blocks; b += 8)
        _mm256_store_ps(m + b, exp_ps(_mm256_sub_ps(_mm256_load_ps(m + b), big)));
    __m128 sum = _mm_setzero_ps();
    for (size_t b = 0; b < blocks; b++)
        sum = _mm_fmadd_ss(_mm_load_ss(l + b), _mm_load_ss(m + b), sum);
    return _mm_cvtss_f32(sum);
}

/* out[dim] of one head from its o of every block */
static void combine_o(const struct kern_attn *a, const struct attn_scratch *s, uint32_t h,
                      const float *e, float sum)
{
    const float *o = (const float *)a->scratch + h * s->dim_pad;
    const size_t step = a->n_q * s->dim_pad;
    const __m256 l = _mm256_set1_ps(sum);
    float *out = a->out + (size_t)h * a->dim;
    for (uint32_t d = 0; d < a->dim; d += CHUNK) {
        const float *from = o + d;
        __m256 x = _mm256_setzero_ps(), y = x;
        for (size_t b = 0; b < s->blocks; b++, from += step) {
            const __m256 f = _mm256_set1_ps(e[b]);
            x = _mm256_fmadd_ps(_mm256_load_ps(from), f, x);
            y = _mm256_fmadd_ps(_mm256_load_ps(from + 8), f, y);
        }
        x = _mm256_div_ps(x, l), y = _mm256_div_ps(y, l);
        const uint32_t left = a->dim - d;
        const bool bf16 = a->kv_type == DT_BF16;
        _mm256_maskstore_ps(out + d, head_mask(left < 8 ? left : 8),
                            bf16 ? interleave(x, y, 0) : x);
        if (left > 8)
            _mm256_maskstore_ps(out + d + 8, head_mask(left < 16 ? left - 8 : 8),
                                bf16 ? interleave(x, y, 1) : y);
    }
}

void kern_avx2_attn(const struct kern_attn *a)
{
    const struct attn_scratch s = attn_scratch_layout(a->n_q, a->dim, a->n_keys);
    float *f = a->scratch;
    for (size_t b = 0; b < s.blocks; b++) {
        const uint32_t left = a->n_keys - (uint32_t)b * KERN_KV_BLOCK;
        for (uint32_t h = 0; h < a->n_q; h += MAX_GROUP) {
            const uint32_t heads = a->n_q - h < MAX_GROUP ? a->n_q - h : MAX_GROUP;
            const struct work w = {
                .a = a,
                .q = a->q + (size_t)h * a->dim,
                .score = f + s.score_at,
                .o = f + (b * a->n_q + h) * s.dim_pad,
                .m = f + s.m_at + h * s.block_pad + b,
                .l = f + s.l_at + h * s.block_pad + b,
                .block_pad = s.block_pad,
                .dim_pad = s.dim_pad,
                .page0 = (uint32_t)b * (KERN_KV_BLOCK / KERN_KV_PAGE),
                .n = left < KERN_KV_BLOCK ? left : KERN_KV_BLOCK,
                .pages = (a->n_keys + KERN_KV_PAGE - 1) / KERN_KV_PAGE,
            };
            block_of[a->kv_type == DT_BF16][heads - 1](&w);
        }
    }
    for (uint32_t h = 0; h < a->n_q; h++) {
        float *m = f + s.m_at + h * s.block_pad;
        combine_o(a, &s, h, m, combine_l(m, f + s.l_at + h * s.block_pad, s.blocks));
    }
}
