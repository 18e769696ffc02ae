/* attn_avx512.c - attention of one query position over paged keys and values, for AVX512 F, BW, DQ
 * and VL.
 *
 * Same bits as ref/attn_ref.c: a key's dot product and an output element are one fma chain each, in
 * the definition's order; lanes are keys in the first half and dims in the second, so no sum
 * crosses lanes. Query heads of one kv head go through in groups of up to 8, which share every load
 * of K and V: the loop is bound by fma, 2 n_q dim per key, not by loads (8 heads: 16 accumulators,
 * 2 converted vectors, 16 fma a step). BF16 is widened two words at a time: shift for the even
 * words, mask for the odd ones. Keys are put back in order when scores are stored; dims stay in
 * that order in scratch until the result is written. Keys at and past n_keys may be read inside the
 * last page (never a page without a visible key) but reach no result. Any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__)
#error "attn_avx512.c needs the AVX512 flags of KT_AVX512_CFLAGS"
#endif

#include "vec_avx512.h"

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
#define CHUNK 32 /* dims of a step over V: two registers, one cache line of BF16 */
#define MAX_GROUP 8

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
 * L2. Zen 4, 32,768 keys, 8 heads of 128: BF16 6 to 12 GB/s, fp32 10 to 22, with the fma units
 * busy. */
INLINE void fetch_lines(const char *p, const int lines)
{
    UNROLL
    for (int c = 0; c < lines; c++)
        _mm_prefetch(p + 64 * c, _MM_HINT_T1);
}

/* 32 BF16 words as fp32: those at even and those at odd places */
INLINE __m512 even_words(__m512i v)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

INLINE __m512 odd_words(__m512i v)
{
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}

/* back to the order of the words: element 16 * half + i */
INLINE __m512 interleave(__m512 even, __m512 odd, int half)
{
    const __m512i lo = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i at = half == 0 ? lo : _mm512_add_epi32(lo, _mm512_set1_epi32(8));
    return _mm512_permutex2var_ps(even, at, odd);
}

/* Scores of the 64 keys of one page for H heads: NV vectors of 16 keys at a time. */
INLINE void score_page(const struct work *w, uint32_t page, const int H, const int NV,
                       const bool bf16)
{
    const uint32_t dim = w->a->dim;
    const __m512 scale = _mm512_set1_ps(w->a->scale);
    const void *base = w->a->kpage[w->page0 + page];
    const int lines =
        NV * (bf16 ? 2 : 4) / 4; /* per step, to have the whole page of values at the end */
    const char *ahead = w->a->vpage[w->page0 + page];
    for (int at = 0; at < KERN_KV_PAGE; at += 16 * NV) {
        __m512 acc[MAX_GROUP][4], key[4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm512_setzero_ps();
        for (uint32_t d = 0; d < dim; d++, ahead += 64 * lines) {
            fetch_lines(ahead, lines);
            const size_t row = (size_t)d * KERN_KV_PAGE + (size_t)at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                if (bf16) {
                    const __m512i raw = _mm512_loadu_si512((const uint16_t *)base + row + 16 * v);
                    key[v] = even_words(raw), key[v + 1] = odd_words(raw);
                } else {
                    key[v] = _mm512_loadu_ps((const float *)base + row + 16 * v);
                    key[v + 1] = _mm512_loadu_ps((const float *)base + row + 16 * v + 16);
                }
            }
            UNROLL
            for (int h = 0; h < H; h++) {
                const __m512 q = _mm512_set1_ps(w->q[(size_t)h * dim + d]);
                UNROLL
                for (int v = 0; v < NV; v++)
                    acc[h][v] = _mm512_fmadd_ps(q, key[v], acc[h][v]);
            }
        }
        UNROLL
        for (int h = 0; h < H; h++) {
            float *out = w->score + (size_t)h * KERN_KV_BLOCK + page * KERN_KV_PAGE + at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                const __m512 a = _mm512_mul_ps(acc[h][v], scale),
                             b = _mm512_mul_ps(acc[h][v + 1], scale);
                _mm512_store_ps(out + 16 * v, bf16 ? interleave(a, b, 0) : a);
                _mm512_store_ps(out + 16 * v + 16, bf16 ? interleave(a, b, 1) : b);
            }
        }
    }
}

/* The two registers of a chunk of V's row; lanes past the row's end are 0. */
INLINE void load_chunk(const void *row, uint32_t d, uint32_t left, const bool bf16, __m512 v[2])
{
    if (bf16) {
        const uint16_t *p = (const uint16_t *)row + d;
        const __m512i raw = left >= CHUNK
                                ? _mm512_loadu_si512(p)
                                : _mm512_maskz_loadu_epi16((__mmask32)((1u << left) - 1), p);
        v[0] = even_words(raw), v[1] = odd_words(raw);
    } else {
        const float *p = (const float *)row + d;
        v[0] = left >= CHUNK ? _mm512_loadu_ps(p)
                             : _mm512_maskz_loadu_ps(head_mask(left < 16 ? left : 16), p);
        v[1] = left >= CHUNK ? _mm512_loadu_ps(p + 16)
                             : _mm512_maskz_loadu_ps(head_mask(left < 16 ? 0 : left - 16), p + 16);
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
    const int lines = NC * (bf16 ? 2 : 4) / 2;
    const char *ahead =
        next < w->pages ? (const char *)w->a->kpage[next] + d * (bf16 ? 2 : 4) * KERN_KV_PAGE : row;
    __m512 o[MAX_GROUP][8];
    __m128 l[MAX_GROUP];
    UNROLL
    for (int h = 0; h < H; h++) {
        const float *from = w->o + h * w->dim_pad + d;
        l[h] = page == 0 ? _mm_setzero_ps() : _mm_set_ss(w->l[h * w->block_pad]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            o[h][c] = page == 0 ? _mm512_setzero_ps() : _mm512_load_ps(from + 16 * c);
    }
    for (uint32_t j = 0; j < n; j++, row += row_bytes, p++, ahead += 64 * lines) {
        __m512 v[8];
        fetch_lines(ahead, lines);
        UNROLL
        for (int c = 0; c < NC; c++)
            load_chunk(row, d + CHUNK * (uint32_t)c, left, bf16, v + 2 * c);
        UNROLL
        for (int h = 0; h < H; h++) {
            const __m512 weight = _mm512_set1_ps(p[h * KERN_KV_BLOCK]);
            if (with_l)
                l[h] = _mm_add_ss(l[h], _mm512_castps512_ps128(weight));
            UNROLL
            for (int c = 0; c < 2 * NC; c++)
                o[h][c] = _mm512_fmadd_ps(weight, v[c], o[h][c]);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        float *to = w->o + h * w->dim_pad + d;
        if (with_l)
            w->l[h * w->block_pad] = _mm_cvtss_f32(l[h]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            _mm512_store_ps(to + 16 * c, o[h][c]);
    }
}

/* scores to weights: m_b over the visible keys, then exp(s - m_b) in place */
INLINE void weigh(const struct work *w, uint32_t h)
{
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    const __m512 low = _mm512_set1_ps(-INFINITY);
    __m512 top = low;
    uint32_t j = 0;
    for (; j + 16 <= w->n; j += 16)
        top = _mm512_max_ps(top, _mm512_load_ps(s + j));
    if (j < w->n)
        top = _mm512_max_ps(top, _mm512_mask_load_ps(low, head_mask(w->n - j), s + j));
    const float m = _mm512_reduce_max_ps(top);
    w->m[h * w->block_pad] = m;
    for (j = 0; j < w->n; j += 16)
        _mm512_store_ps(s + j, exp_ps(_mm512_sub_ps(_mm512_load_ps(s + j), _mm512_set1_ps(m))));
}

/* A block for H heads. Chunks go NC at a time, then one by one; V's page stays in the first-level
 * cache between them. */
INLINE void block(const struct work *w, const int H, const bool bf16)
{
    const int NV = H <= 6 ? 4 : 2, NC = H <= 3 ? 4 : H <= 5 ? 2 : 1;
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
        for (; d < dim;
             d += CHUNK) /* l again from the same start: cheap, and only for small or odd dims */
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
BLOCK(5)
BLOCK(6)
BLOCK(7)
BLOCK(8)
static const block_fn block_of[2][MAX_GROUP] = {
    {block_f32_1, block_f32_2, block_f32_3, block_f32_4, block_f32_5, block_f32_6, block_f32_7,
     block_f32_8},
    {block_bf16_1, block_bf16_2, block_bf16_3, block_bf16_4, block_bf16_5, block_bf16_6,
     block_bf16_7, block_bf16_8},
};

/* M, the factors exp(m_b - M) in place of m, and l of one head */
static float combine_l(float *m, const float *l, size_t blocks)
{
    const __m512 low = _mm512_set1_ps(-INFINITY);
    __m512 top = low;
    for (size_t b = 0; b < blocks; b += 16)
        top = _mm512_max_ps(
            top, _mm512_mask_load_ps(low, head_mask(blocks - b < 16 ? (uint32_t)(blocks - b) : 16),
                                     m + b));
    const __m512 big = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (size_t b = 0; b < blocks; b += 16)
        _mm512_store_ps(m + b, exp_ps(_mm512_sub_ps(_mm512_load_ps(m + b), big)));
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
    const __m512 l = _mm512_set1_ps(sum);
    float *out = a->out + (size_t)h * a->dim;
    for (uint32_t d = 0; d < a->dim; d += CHUNK) {
        const float *from = o + d;
        __m512 x = _mm512_setzero_ps(), y = x;
        for (size_t b = 0; b < s->blocks; b++, from += step) {
            const __m512 f = _mm512_set1_ps(e[b]);
            x = _mm512_fmadd_ps(_mm512_load_ps(from), f, x);
            y = _mm512_fmadd_ps(_mm512_load_ps(from + 16), f, y);
        }
        x = _mm512_div_ps(x, l), y = _mm512_div_ps(y, l);
        const uint32_t left = a->dim - d;
        const __mmask16 m0 = head_mask(left < 16 ? left : 16),
                        m1 = head_mask(left < 16   ? 0
                                       : left < 32 ? left - 16
                                                   : 16);
        const bool bf16 = a->kv_type == DT_BF16;
        _mm512_mask_storeu_ps(out + d, m0, bf16 ? interleave(x, y, 0) : x);
        _mm512_mask_storeu_ps(out + d + 16, m1, bf16 ? interleave(x, y, 1) : y);
    }
}

void kern_avx512_attn(const struct kern_attn *a)
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
