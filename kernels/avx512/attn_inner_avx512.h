/* attn_inner_avx512.h - the two loops of attention for AVX512: scores of a page's keys, and the sum
 * of its values, for up to 8 rows (query position, head) that share every load.
 *
 * A key's dot product and an output element are one fma chain each, in the definition's order;
 * lanes are keys in the first loop and dims in the second, so no sum crosses lanes. The loops are
 * bound by fma, 2 * dim per row and key, not by loads (8 rows: 16 accumulators, 2 widened vectors,
 * 16 fma a step). BF16 is widened two words at a time: shift for the even words, mask for the odd
 * ones; keys are put back in order when scores are stored, dims stay in that order until the join
 * writes them. Included by attn_avx512.c only; every function is inlined, with its counts known.
 */
#ifndef KT_KERN_ATTN_INNER_AVX512_H
#define KT_KERN_ATTN_INNER_AVX512_H

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

/* A group of rows in one block; immutable while its functions run. */
struct work {
    const struct kern_attn *a;
    const float *q; /* [dim][ATTN_ROWS] */
    float *score;   /* [ATTN_ROWS][KERN_KV_BLOCK] */
    float *o;       /* [rows][dim_pad] of this block */
    float *m, *l;   /* of this block; rows are block_pad apart */
    size_t block_pad, dim_pad;
    uint32_t page0;        /* first page of the block */
    uint32_t all, any;     /* keys of the block that every row sees, that one row sees */
    uint32_t n[ATTN_ROWS]; /* that each row sees, ascending */
    uint32_t pages;        /* up to here pages are used, and may be fetched ahead */
    bool fetch;            /* first rows of a block: later ones find it in the cache */
};

INLINE int elem_bytes(const enum kern_kv kv)
{
    return kv == KERN_KV_F32 ? 4 : kv == KERN_KV_BF16 ? 2 : 1;
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

INLINE __m512 codes(__m128i v)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
}

/* 32 elements of a plane as two registers, INT8 without scales; `left` < 32: the others are 0. */
INLINE void widen(const void *p, uint32_t left, const enum kern_kv kv, __m512 v[2])
{
    const uint32_t n0 = left < 16 ? left : 16, n1 = left < 16 ? 0 : left < 32 ? left - 16 : 16;
    if (kv == KERN_KV_BF16) {
        const __m512i raw = left >= CHUNK
                                ? _mm512_loadu_si512(p)
                                : _mm512_maskz_loadu_epi16((__mmask32)((1u << left) - 1), p);
        v[0] = even_words(raw), v[1] = odd_words(raw);
    } else if (kv == KERN_KV_F32) {
        v[0] = left >= CHUNK ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(head_mask(n0), p);
        v[1] = left >= CHUNK ? _mm512_loadu_ps((const float *)p + 16)
                             : _mm512_maskz_loadu_ps(head_mask(n1), (const float *)p + 16);
    } else {
        const int8_t *c = p;
        v[0] = codes(left >= CHUNK ? _mm_loadu_si128(p) : _mm_maskz_loadu_epi8(head_mask(n0), c));
        v[1] = codes(left >= CHUNK ? _mm_loadu_si128((const __m128i *)p + 1)
                                   : _mm_maskz_loadu_epi8(head_mask(n1), c + 16));
    }
}

/* Scores of the 64 keys of one page for H rows: NV vectors of 16 keys at a time. */
INLINE void score_page(const struct work *w, uint32_t page, const int H, const int NV,
                       const enum kern_kv kv)
{
    const uint32_t dim = w->a->dim;
    const int elem = elem_bytes(kv), share = 16 * NV * elem; /* fetched per step */
    const __m512 factor = _mm512_set1_ps(w->a->scale);
    const char *base = w->a->kpage[w->page0 + page];
    const float *scales = (const float *)(const void *)(base + (size_t)dim * KERN_KV_PAGE);
    const char *ahead = w->fetch ? w->a->vpage[w->page0 + page] : base;
    for (int at = 0; at < KERN_KV_PAGE; at += 16 * NV) {
        __m512 acc[ATTN_ROWS][4], key[4], scale[4];
        UNROLL
        for (int v = 0; v < NV; v++)
            scale[v] = kv == KERN_KV_INT8 ? _mm512_loadu_ps(scales + at + 16 * v) : factor;
        UNROLL
        for (int h = 0; h < H; h++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[h][v] = _mm512_setzero_ps();
        const char *row = base + at * elem;
        const float *q = w->q;
        for (uint32_t d = 0; d < dim;
             d++, ahead += share, row += KERN_KV_PAGE * elem, q += ATTN_ROWS) {
            fetch_ahead(ahead, share);
            UNROLL
            for (int v = 0; v < NV; v += 2)
                widen(row + 16 * v * elem, CHUNK, kv, key + v);
#ifndef OUTSIDE
            if (kv == KERN_KV_INT8)
                UNROLL
            for (int v = 0; v < NV; v++)
                key[v] = _mm512_mul_ps(key[v], scale[v]);
#endif
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
#ifdef OUTSIDE
                if (kv == KERN_KV_INT8)
                    acc[h][v] = _mm512_mul_ps(acc[h][v], scale[v]),
                    acc[h][v + 1] = _mm512_mul_ps(acc[h][v + 1], scale[v + 1]);
#endif
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
    const float *scales = (const float *)(const void *)(plane + (size_t)dim * KERN_KV_PAGE);
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
#ifndef OUTSIDE
        if (kv == KERN_KV_INT8)
            UNROLL
        for (int c = 0; c < 2 * NC; c++)
            v[c] = _mm512_mul_ps(v[c], _mm512_set1_ps(scales[j]));
#endif
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
    (void)scales;
}

#endif
