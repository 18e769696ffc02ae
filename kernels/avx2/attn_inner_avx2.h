/* attn_inner_avx2.h - the two loops of attention for AVX2 and FMA: scores of a page's keys, and the
 * sum of its values, for up to 4 rows (query position, head) that share every load.
 *
 * A key's dot product and an output element are one fma chain each, in the definition's order;
 * lanes are keys in the first loop and dims in the second, so no sum crosses lanes. 4 rows take 8
 * accumulators of the 16 registers. BF16 is widened two words at a time: shift for the even words,
 * mask for the odd ones; keys are put back in order when scores are stored, dims stay in that order
 * until the join writes them. An odd dim cannot occur: rotation pairs dims. Included by attn_avx2.c
 * only; every function is inlined, with its counts known.
 */
#ifndef KT_KERN_ATTN_INNER_AVX2_H
#define KT_KERN_ATTN_INNER_AVX2_H

#include <math.h>

#include "attn_scratch.h"
#include "vec_avx2.h"

#define INLINE static inline __attribute__((always_inline))
/* Loops over rows, vectors and chunks must disappear, or the accumulators live in memory: 3 times
 * slower. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define CHUNK 16 /* dims of a step over V, keys of one over K: two registers */
#define ROWS 4   /* rows of a group; divides ATTN_ROWS */

/* A group of rows in one block; immutable while its functions run. */
struct work {
    const struct kern_attn *a;
    const void *q;                 /* [dim][ROWS] floats, or codes */
    float *score;                  /* [ROWS][KERN_KV_BLOCK] */
    uint8_t *weight;               /* [ROWS][2 * KERN_KV_BLOCK] bytes; INT8 pages */
    const struct code_rows *codes; /* INT8 pages */
    float *o;                      /* [rows][dim_pad] of this block */
    float *m, *l;                  /* of this block; rows are block_pad apart */
    size_t block_pad, dim_pad;
    uint32_t page0;    /* first page of the block */
    uint32_t all, any; /* keys of the block that every row sees, that one row sees */
    uint32_t n[ROWS];  /* that each row sees, ascending */
    uint32_t pages;    /* up to here pages are used, and may be fetched ahead */
    bool fetch;        /* first rows of a block: later ones find it in the cache */
};

INLINE int elem_bytes(const enum kern_kv kv)
{
    return kv == KERN_KV_F32 ? 4 : 2;
}

/* Pages lie anywhere, so the hardware's prefetchers start anew with each: while a page is worked
 * on, the one needed next (values after keys, then the next block's keys) is called in, evenly, to
 * L2. */
INLINE void fetch_ahead(const char *p, const int bytes)
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

/* 16 elements of a plane as two registers; `left` < 16: the others are 0. */
INLINE void widen(const void *p, uint32_t left, const enum kern_kv kv, __m256 v[2])
{
    if (kv == KERN_KV_BF16) {
        const __m256i raw =
            left >= CHUNK ? _mm256_loadu_si256(p) : _mm256_maskload_epi32(p, head_mask(left / 2));
        v[0] = even_words(raw), v[1] = odd_words(raw);
    } else {
        const float *f = p;
        v[0] = left >= CHUNK ? _mm256_loadu_ps(f)
                             : _mm256_maskload_ps(f, head_mask(left < 8 ? left : 8));
        v[1] = left >= CHUNK ? _mm256_loadu_ps(f + 8)
               : left > 8    ? _mm256_maskload_ps(f + 8, head_mask(left - 8))
                             : _mm256_setzero_ps();
    }
}

/* The larger of each lane; of equal or unordered ones the second, as everywhere: a NaN score makes
 * its weight, and so the sum, NaN anyway. */
INLINE float max_ps(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Lanes of v at and past n are -infinity. */
INLINE __m256 visible(__m256 v, uint32_t n)
{
    return n >= 8
               ? v
               : _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), v, _mm256_castsi256_ps(head_mask(n)));
}

/* m_b of a row, over the keys that it sees; also stored */
INLINE float top_score(const struct work *w, uint32_t h)
{
    const uint32_t n = w->n[h];
    const float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    __m256 top = _mm256_set1_ps(-INFINITY);
    for (uint32_t j = 0; j < n; j += 8)
        top = _mm256_max_ps(top, visible(_mm256_load_ps(s + j), n - j));
    const float m = max_ps(top);
    w->m[h * w->block_pad] = m;
    return m;
}

/* Scores of the keys of one page for H rows: NV vectors of 8 keys at a time, as far as a row sees
 * them. */
INLINE void score_page(const struct work *w, uint32_t page, const int H, const int NV,
                       const enum kern_kv kv)
{
    const uint32_t dim = w->a->dim;
    const int elem = elem_bytes(kv), share = 8 * NV * elem; /* fetched per step */
    const uint32_t seen = w->any - page * KERN_KV_PAGE;
    const __m256 factor = _mm256_set1_ps(w->a->scale);
    const char *base = w->a->kpage[w->page0 + page];
    const char *ahead = w->fetch ? w->a->vpage[w->page0 + page] : base;
    for (uint32_t at = 0; at < KERN_KV_PAGE && at < seen; at += 8 * (uint32_t)NV) {
        __m256 acc[ROWS][4], key[4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm256_setzero_ps();
        const char *row = base + at * (uint32_t)elem;
        const float *q = w->q;
        for (uint32_t d = 0; d < dim; d++, ahead += share, row += KERN_KV_PAGE * elem, q += ROWS) {
            fetch_ahead(ahead, share);
            UNROLL
            for (int v = 0; v < NV; v += 2)
                widen(row + 8 * v * elem, CHUNK, kv, key + v);
            UNROLL
            for (int h = 0; h < H; h++) {
                const __m256 one = _mm256_set1_ps(q[h]);
                UNROLL
                for (int v = 0; v < NV; v++)
                    acc[h][v] = _mm256_fmadd_ps(one, key[v], acc[h][v]);
            }
        }
        UNROLL
        for (int h = 0; h < H; h++) {
            float *out = w->score + h * KERN_KV_BLOCK + page * KERN_KV_PAGE + at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                const bool mixed = kv == KERN_KV_BF16;
                const __m256 a = _mm256_mul_ps(acc[h][v], factor),
                             b = _mm256_mul_ps(acc[h][v + 1], factor);
                _mm256_store_ps(out + 8 * v, mixed ? interleave(a, b, 0) : a);
                _mm256_store_ps(out + 8 * v + 8, mixed ? interleave(a, b, 1) : b);
            }
        }
    }
}

/* A run of keys inside one page, for rows from `row` on and dims from d on. */
struct run {
    uint32_t row, page, j0, j1; /* keys [j0, j1) of the page */
    uint32_t d, left;           /* left: dims from d on, for a last part chunk */
    bool first;                 /* sums start from 0 */
};

/* o += p v over the keys of a run for H rows and NC chunks of dims; with_l also l += p. */
INLINE void value_run(const struct work *w, const struct run *r, const int H, const int NC,
                      const enum kern_kv kv, const bool with_l)
{
    const uint32_t dim = w->a->dim;
    const int elem = elem_bytes(kv), share = NC * CHUNK * elem;
    const size_t row_bytes = (size_t)dim * (size_t)elem;
    const char *plane = w->a->vpage[w->page0 + r->page],
               *row = plane + r->j0 * row_bytes + (size_t)r->d * (size_t)elem;
    const float *p = w->score + r->row * KERN_KV_BLOCK + r->page * KERN_KV_PAGE;
    /* the same place in the next block */
    const uint32_t next = w->page0 + KERN_KV_BLOCK / KERN_KV_PAGE + r->page;
    const char *ahead = w->fetch && next < w->pages
                            ? (const char *)w->a->kpage[next] + r->d * (uint32_t)elem * KERN_KV_PAGE
                            : row;
    __m256 o[ROWS][8];
    __m128 l[ROWS];
    UNROLL
    for (int h = 0; h < H; h++) {
        const float *from = w->o + (r->row + (uint32_t)h) * w->dim_pad + r->d;
        l[h] =
            r->first ? _mm_setzero_ps() : _mm_load_ss(w->l + (r->row + (uint32_t)h) * w->block_pad);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            o[h][c] = r->first ? _mm256_setzero_ps() : _mm256_load_ps(from + 8 * c);
    }
    for (uint32_t j = r->j0; j < r->j1; j++, row += row_bytes, ahead += share) {
        __m256 v[8];
        fetch_ahead(ahead, share);
        UNROLL
        for (int c = 0; c < NC; c++)
            widen(row + c * CHUNK * elem, r->left, kv, v + 2 * c);
        UNROLL
        for (int h = 0; h < H; h++) {
            const __m256 weight = _mm256_set1_ps(p[h * KERN_KV_BLOCK + (int)j]);
            if (with_l)
                l[h] = _mm_add_ss(l[h], _mm256_castps256_ps128(weight));
            UNROLL
            for (int c = 0; c < 2 * NC; c++)
                o[h][c] = _mm256_fmadd_ps(weight, v[c], o[h][c]);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        float *to = w->o + (r->row + (uint32_t)h) * w->dim_pad + r->d;
        if (with_l)
            _mm_store_ss(w->l + (r->row + (uint32_t)h) * w->block_pad, l[h]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            _mm256_store_ps(to + 8 * c, o[h][c]);
    }
}

#endif
