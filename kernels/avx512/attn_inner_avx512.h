/* attn_inner_avx512.h - the two loops of attention for AVX512: scores of a page's keys, and the sum
 * of its values, for up to 8 rows (query position, head) that share every load.
 *
 * A key's dot product and an output element are one fma chain each, in the definition's order;
 * lanes are keys in the first loop and dims in the second, so no sum crosses lanes. The loops are
 * bound by fma, 2 * dim per row and key, not by loads (8 rows: 16 accumulators, 2 widened vectors,
 * 16 fma a step). BF16 is widened two words at a time: shift for the even words, mask for the odd
 * ones; keys are put back in order when scores are stored, dims stay in that order until the join
 * writes them. Beside them the walk over blocks and groups of rows, also for INT8 pages.
 * Included by attn_avx512.c and attn_codes_avx512.c only; every loop is inlined, with its counts
 * known.
 */
#ifndef KT_KERN_ATTN_INNER_AVX512_H
#define KT_KERN_ATTN_INNER_AVX512_H

#include <math.h>

#include "attn_scratch.h"
#include "vec_avx512.h"

#define INLINE static inline __attribute__((always_inline))
/* Loops over rows, vectors and chunks must disappear, or the accumulators live in memory: 3 times
 * slower. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define CHUNK 32 /* dims of a step over V, keys of one over K: two registers */

/* INT8 pages: what becomes of the integer dots of a group's rows. */
struct code_rows {
    float f[ATTN_ROWS];       /* times the key's scale: the factor of the dot */
    int32_t start[ATTN_ROWS]; /* minus 128 times the sum of the row's codes */
};

/* A group of rows in one block; immutable while its functions run. */
struct work {
    const struct kern_attn *a;
    const void *q;                 /* [dim][ATTN_ROWS] floats, or codes */
    float *score;                  /* [ATTN_ROWS][KERN_KV_BLOCK] */
    uint8_t *weight;               /* [ATTN_ROWS][2 * KERN_KV_BLOCK] bytes; INT8 pages */
    const struct code_rows *codes; /* INT8 pages */
    float *o;                      /* [rows][dim_pad] of this block */
    float *m, *l;                  /* of this block; rows are block_pad apart */
    size_t block_pad, dim_pad;
    uint32_t page0;        /* first page of the block */
    uint32_t all, any;     /* keys of the block that every row sees, that one row sees */
    uint32_t n[ATTN_ROWS]; /* that each row sees, ascending */
    uint32_t pages;        /* up to here pages are used, and may be fetched ahead */
    bool fetch;            /* first rows of a block: later ones find it in the cache */
};

INLINE int elem_bytes(const enum kern_kv kv)
{
    return kv == KERN_KV_F32 ? 4 : 2;
}

/* Pages lie anywhere, so the hardware's prefetchers start anew with each: while a page is worked
 * on, the one needed next (values after keys, then the next block's keys) is called in, evenly, to
 * L2. Zen 4, 32,768 keys, 8 heads of 128: BF16 6 to 12 GB/s, fp32 10 to 22, with the fma units
 * busy. */
INLINE void fetch_ahead(const char *p, const int bytes)
{
    UNROLL
    for (int c = 0; c < bytes; c += 64)
        _mm_prefetch(p + c, _MM_HINT_T1);
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

/* 32 elements of a plane as two registers; `left` < 32: the others are 0. */
INLINE void widen(const void *p, uint32_t left, const enum kern_kv kv, __m512 v[2])
{
    const uint32_t n0 = left < 16 ? left : 16, n1 = left < 16 ? 0 : left < 32 ? left - 16 : 16;
    if (kv == KERN_KV_BF16) {
        const __m512i raw = left >= CHUNK
                                ? _mm512_loadu_si512(p)
                                : _mm512_maskz_loadu_epi16((__mmask32)((1u << left) - 1), p);
        v[0] = even_words(raw), v[1] = odd_words(raw);
    } else {
        v[0] = left >= CHUNK ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(head_mask(n0), p);
        v[1] = left >= CHUNK ? _mm512_loadu_ps((const float *)p + 16)
                             : _mm512_maskz_loadu_ps(head_mask(n1), (const float *)p + 16);
    }
}

/* m_b of a row, over the keys that it sees; also stored */
INLINE float top_score(const struct work *w, uint32_t h)
{
    const uint32_t n = w->n[h];
    const float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    const __m512 low = _mm512_set1_ps(-INFINITY);
    __m512 top = low;
    uint32_t j = 0;
    for (; j + 16 <= n; j += 16)
        top = _mm512_max_ps(top, _mm512_load_ps(s + j));
    if (j < n)
        top = _mm512_max_ps(top, _mm512_mask_load_ps(low, head_mask(n - j), s + j));
    const float m = _mm512_reduce_max_ps(top);
    w->m[h * w->block_pad] = m;
    return m;
}

/* Scores of the keys of one page for H rows: NV vectors of 16 keys at a time, as far as a row sees
 * them. */
INLINE void score_page(const struct work *w, uint32_t page, const int H, const int NV,
                       const enum kern_kv kv)
{
    const uint32_t dim = w->a->dim;
    const int elem = elem_bytes(kv), share = 16 * NV * elem; /* fetched per step */
    const uint32_t seen = w->any - page * KERN_KV_PAGE;
    const __m512 factor = _mm512_set1_ps(w->a->scale);
    const char *base = w->a->kpage[w->page0 + page];
    const char *ahead = w->fetch ? w->a->vpage[w->page0 + page] : base;
    for (uint32_t at = 0; at < KERN_KV_PAGE && at < seen; at += 16 * (uint32_t)NV) {
        __m512 acc[ATTN_ROWS][4], key[4];
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm512_setzero_ps();
        const char *row = base + at * (uint32_t)elem;
        const float *q = w->q;
        for (uint32_t d = 0; d < dim;
             d++, ahead += share, row += KERN_KV_PAGE * elem, q += ATTN_ROWS) {
            fetch_ahead(ahead, share);
            UNROLL
            for (int v = 0; v < NV; v += 2)
                widen(row + 16 * v * elem, CHUNK, kv, key + v);
            UNROLL
            for (int h = 0; h < H; h++) {
                const __m512 one = _mm512_set1_ps(q[h]);
                UNROLL
                for (int v = 0; v < NV; v++)
                    acc[h][v] = _mm512_fmadd_ps(one, key[v], acc[h][v]);
            }
        }
        UNROLL
        for (int h = 0; h < H; h++) {
            float *out = w->score + h * KERN_KV_BLOCK + page * KERN_KV_PAGE + at;
            UNROLL
            for (int v = 0; v < NV; v += 2) {
                const __m512 a = _mm512_mul_ps(acc[h][v], factor),
                             b = _mm512_mul_ps(acc[h][v + 1], factor);
                const bool mixed = kv == KERN_KV_BF16;
                _mm512_store_ps(out + 16 * v, mixed ? interleave(a, b, 0) : a);
                _mm512_store_ps(out + 16 * v + 16, mixed ? interleave(a, b, 1) : b);
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
    __m512 o[ATTN_ROWS][8];
    __m128 l[ATTN_ROWS];
    UNROLL
    for (int h = 0; h < H; h++) {
        const float *from = w->o + (r->row + (uint32_t)h) * w->dim_pad + r->d;
        l[h] =
            r->first ? _mm_setzero_ps() : _mm_load_ss(w->l + (r->row + (uint32_t)h) * w->block_pad);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            o[h][c] = r->first ? _mm512_setzero_ps() : _mm512_load_ps(from + 16 * c);
    }
    for (uint32_t j = r->j0; j < r->j1; j++, row += row_bytes, ahead += share) {
        __m512 v[8];
        fetch_ahead(ahead, share);
        UNROLL
        for (int c = 0; c < NC; c++)
            widen(row + c * CHUNK * elem, r->left, kv, v + 2 * c);
        UNROLL
        for (int h = 0; h < H; h++) {
            const __m512 weight = _mm512_set1_ps(p[h * KERN_KV_BLOCK + (int)j]);
            if (with_l)
                l[h] = _mm_add_ss(l[h], _mm512_castps512_ps128(weight));
            UNROLL
            for (int c = 0; c < 2 * NC; c++)
                o[h][c] = _mm512_fmadd_ps(weight, v[c], o[h][c]);
        }
    }
    UNROLL
    for (int h = 0; h < H; h++) {
        float *to = w->o + (r->row + (uint32_t)h) * w->dim_pad + r->d;
        if (with_l)
            _mm_store_ss(w->l + (r->row + (uint32_t)h) * w->block_pad, l[h]);
        UNROLL
        for (int c = 0; c < 2 * NC; c++)
            _mm512_store_ps(to + 16 * c, o[h][c]);
    }
}

typedef void (*block_fn)(const struct work *w);

/* All blocks of a call, and in each all groups of rows, which begin `q_step` elements of q apart;
 * `of` by the rows of a group. `all` has what the groups share, and what the first begins with. */
static inline void each_group(const struct work *all, size_t q_step, const block_fn *of)
{
    const struct kern_attn *a = all->a;
    const struct attn_part s = attn_part_of(a);
    const uint32_t rows = a->n_pos * a->n_q, last = a->pos[a->n_pos - 1] / KERN_KV_BLOCK,
                   pages = a->block1 > last ? a->pos[a->n_pos - 1] / KERN_KV_PAGE + 1
                                            : a->block1 * (KERN_KV_BLOCK / KERN_KV_PAGE);
    float *f = a->part;
    for (uint32_t b = a->block0; b < a->block1 && b <= last; b++) {
        bool fetch = true;
        for (uint32_t r = 0; r < rows; r += ATTN_ROWS) {
            const uint32_t n = rows - r < ATTN_ROWS ? rows - r : ATTN_ROWS;
            struct work w = *all;
            w.q = (const float *)all->q + r / ATTN_ROWS * q_step;
            w.o = f + ((size_t)b * rows + r) * s.dim_pad;
            w.m = f + s.m_at + r * s.block_pad + b;
            w.l = f + s.l_at + r * s.block_pad + b;
            w.block_pad = s.block_pad;
            w.dim_pad = s.dim_pad;
            w.page0 = b * (KERN_KV_BLOCK / KERN_KV_PAGE);
            w.pages = pages;
            w.fetch = fetch;
            if (all->codes != NULL)
                w.codes = all->codes + r / ATTN_ROWS;
            for (uint32_t h = 0; h < n; h++)
                w.n[h] = attn_visible(a, (r + h) / a->n_q, b);
            w.all = w.n[0], w.any = w.n[n - 1];
            if (w.any == 0) /* its positions end before this block */
                continue;
            of[n - 1](&w);
            fetch = false;
        }
    }
}

#endif
