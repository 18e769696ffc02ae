/* attn_avx512.c - attention over paged keys and values, for AVX512 F, BW, DQ and VL.
 *
 * Same bits as ref/attn_ref.c. Rows (query position, head) go through in groups of up to 8, which
 * share every load of K and V; a block of 256 keys is used by all groups before the next one, so it
 * comes from memory once per call. Rows of a group may see different numbers of the block's keys:
 * those that all see are summed together, the rest row by row. Keys that a row does not see may be
 * read inside the last page (never a page without a visible key) but reach no result. The join of
 * the blocks is here too. INT8 pages: attn_codes_avx512.c. Any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__)
#error "attn_avx512.c needs the AVX512 flags of KT_AVX512_CFLAGS"
#endif

#include "attn_inner_avx512.h"

#include <math.h>

/* scores to weights: m_b over the visible keys, then exp(s - m_b) in place */
INLINE void weigh(const struct work *w, uint32_t h)
{
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    const __m512 m = _mm512_set1_ps(top_score(w, h));
    for (uint32_t j = 0; j < w->n[h]; j += 16)
        _mm512_store_ps(s + j, exp_ps(_mm512_sub_ps(_mm512_load_ps(s + j), m)));
}

/* Keys [j0, j1) of a page for H rows from `row` on: chunks go NC at a time, then one by one; V's
 * page stays in the first-level cache between them. */
INLINE void value_page(const struct work *w, struct run r, const int H, const int NC,
                       const enum kern_kv kv)
{
    const uint32_t dim = w->a->dim, wide = CHUNK * (uint32_t)NC;
    r.left = CHUNK;
    if (dim >= wide) {
        value_run(w, &r, H, NC, kv, true);
        for (r.d = wide; r.d + wide <= dim; r.d += wide)
            value_run(w, &r, H, NC, kv, false);
    }
    for (; r.d < dim; r.d += CHUNK) { /* few: small or odd dims */
        r.left = dim - r.d;
        if (r.d == 0)
            value_run(w, &r, H, 1, kv, true);
        else
            value_run(w, &r, H, 1, kv, false);
    }
}

/* The keys that only some rows see, row after row: at most as many as there are positions. */
static void __attribute__((noinline))
value_rest(const struct work *w, uint32_t h, const enum kern_kv kv)
{
    for (uint32_t j = w->all; j < w->n[h];) {
        const uint32_t page = j / KERN_KV_PAGE, end = (page + 1) * KERN_KV_PAGE;
        struct run r = {.row = h,
                        .page = page,
                        .j0 = j % KERN_KV_PAGE,
                        .j1 = (w->n[h] < end ? w->n[h] : end) - page * KERN_KV_PAGE,
                        .first = j == 0};
        if (kv == KERN_KV_F32)
            value_page(w, r, 1, 1, KERN_KV_F32);
        else
            value_page(w, r, 1, 1, KERN_KV_BF16);
        j = end;
    }
}

/* A block for H rows; F32 and BF16 pages. */
INLINE void block(const struct work *w, const int H, const enum kern_kv kv)
{
    const int NV = H <= 6 ? 4 : 2, NC = H <= 3 ? 4 : H <= 5 ? 2 : 1;
    for (uint32_t g = 0; g * KERN_KV_PAGE < w->any; g++)
        score_page(w, g, H, NV, kv);
    for (uint32_t h = 0; h < (uint32_t)H; h++)
        weigh(w, h);
    for (uint32_t g = 0; g * KERN_KV_PAGE < w->all; g++) {
        const uint32_t left = w->all - g * KERN_KV_PAGE;
        value_page(w,
                   (struct run){
                       .page = g, .j1 = left < KERN_KV_PAGE ? left : KERN_KV_PAGE, .first = g == 0},
                   H, NC, kv);
    }
    for (uint32_t h = 0; h < (uint32_t)H; h++)
        value_rest(w, h, kv);
}

#define BLOCK(h)                                                                                   \
    static void block_f32_##h(const struct work *w)                                                \
    {                                                                                              \
        block(w, h, KERN_KV_F32);                                                                  \
    }                                                                                              \
    static void block_bf16_##h(const struct work *w)                                               \
    {                                                                                              \
        block(w, h, KERN_KV_BF16);                                                                 \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)
BLOCK(7)
BLOCK(8)
static const block_fn block_of[][ATTN_ROWS] = {
    [KERN_KV_F32] = {block_f32_1, block_f32_2, block_f32_3, block_f32_4, block_f32_5, block_f32_6,
                     block_f32_7, block_f32_8},
    [KERN_KV_BF16] = {block_bf16_1, block_bf16_2, block_bf16_3, block_bf16_4, block_bf16_5,
                      block_bf16_6, block_bf16_7, block_bf16_8},
};

/* Queries of a group side by side: [dim][ATTN_ROWS]; rows past the last are not used. */
static void gather_rows(const struct kern_attn *a, uint32_t row, uint32_t n, float *to)
{
    for (uint32_t h = 0; h < n; h++) {
        const float *q = a->q + (row + h) / a->n_q * a->ldq + (row + h) % a->n_q * a->dim;
        for (uint32_t d = 0; d < a->dim; d++)
            to[(size_t)d * ATTN_ROWS + h] = q[d];
    }
}

void kern_avx512_attn(const struct kern_attn *a)
{
    const uint32_t rows = a->n_pos * a->n_q;
    const size_t q_step = (size_t)a->dim * ATTN_ROWS;
    float *score = a->scratch, *q = score + ATTN_ROWS * KERN_KV_BLOCK;
    if (a->kv == KERN_KV_INT8) {
        kern_avx512_attn_codes(a);
        return;
    }
    for (uint32_t r = 0; r < rows; r += ATTN_ROWS)
        gather_rows(a, r, rows - r < ATTN_ROWS ? rows - r : ATTN_ROWS, q + (size_t)r * a->dim);
    each_group(&(struct work){.a = a, .q = q, .score = score}, q_step, block_of[a->kv]);
}

/* ---- join ---- */

/* M, the factors exp(m_b - M) in place of m, and l of one row */
static float join_l(float *m, const float *l, size_t blocks)
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

/* out[dim] of a row from its o of every block, `step` apart, the factors e and the sum l */
static void join_o(const struct kern_attn *a, const float *o, size_t step, size_t blocks,
                   const float *e, float l, float *out)
{
    for (uint32_t d = 0; d < a->dim; d += CHUNK) {
        const float *from = o + d;
        __m512 x = _mm512_setzero_ps(), y = x;
        for (size_t b = 0; b < blocks; b++, from += step) {
            const __m512 f = _mm512_set1_ps(e[b]);
            x = _mm512_fmadd_ps(_mm512_load_ps(from), f, x);
            y = _mm512_fmadd_ps(_mm512_load_ps(from + 16), f, y);
        }
        x = _mm512_div_ps(x, _mm512_set1_ps(l)), y = _mm512_div_ps(y, _mm512_set1_ps(l));
        const uint32_t left = a->dim - d;
        const __mmask16 m0 = head_mask(left < 16 ? left : 16),
                        m1 = head_mask(left < 16   ? 0
                                       : left < 32 ? left - 16
                                                   : 16);
        const bool mixed = a->kv == KERN_KV_BF16;
        _mm512_mask_storeu_ps(out + d, m0, mixed ? interleave(x, y, 0) : x);
        _mm512_mask_storeu_ps(out + d + 16, m1, mixed ? interleave(x, y, 1) : y);
    }
}

void kern_avx512_attn_join(const struct kern_attn *a)
{
    const struct attn_part s = attn_part_of(a);
    const uint32_t rows = a->n_pos * a->n_q;
    float *f = a->part;
    for (uint32_t r = 0; r < rows; r++) {
        const size_t blocks = a->pos[r / a->n_q] / KERN_KV_BLOCK + 1;
        float *m = f + s.m_at + r * s.block_pad;
        const float l = join_l(m, f + s.l_at + r * s.block_pad, blocks);
        join_o(a, f + r * s.dim_pad, rows * s.dim_pad, blocks, m, l,
               a->out + r / a->n_q * a->ldo + r % a->n_q * a->dim);
    }
}
