/* attn_avx2.c - attention over paged keys and values, for AVX2 and FMA.
 *
 * Same bits as ref/attn_ref.c. Rows (query position, head) go through in groups of up to 4, which
 * share every load of K and V; a block of 256 keys is used by all groups before the next one, so it
 * comes from memory once per call. Rows of a group may see different numbers of the block's keys:
 * those that all see are summed together, the rest row by row. Keys that a row does not see may be
 * read inside the last page (never a page without a visible key) but reach no result. The join of
 * the blocks is here too. Any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "attn_avx2.c needs the flags of KT_AVX2_CFLAGS"
#endif

#include "attn_codes_avx2.h"
#include "attn_inner_avx2.h"

#include <math.h>

/* scores to weights: m_b over the visible keys, then exp(s - m_b) in place */
INLINE void weigh(const struct work *w, uint32_t h)
{
    float *s = w->score + (size_t)h * KERN_KV_BLOCK;
    const __m256 m = _mm256_set1_ps(top_score(w, h));
    for (uint32_t j = 0; j < w->n[h]; j += 8)
        _mm256_store_ps(s + j, exp_ps(_mm256_sub_ps(_mm256_load_ps(s + j), m)));
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
    const int NV = H <= 2 ? 4 : 2, NC = H == 1 ? 4 : H == 2 ? 2 : 1;
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

typedef void (*block_fn)(const struct work *w);
#define BLOCK(h)                                                                                   \
    static void block_f32_##h(const struct work *w)                                                \
    {                                                                                              \
        block(w, h, KERN_KV_F32);                                                                  \
    }                                                                                              \
    static void block_bf16_##h(const struct work *w)                                               \
    {                                                                                              \
        block(w, h, KERN_KV_BF16);                                                                 \
    }                                                                                              \
    static void block_int8_##h(const struct work *w)                                               \
    {                                                                                              \
        block_codes(w, h);                                                                         \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
static const block_fn block_of[KERN_KV_COUNT][ROWS] = {
    {block_f32_1, block_f32_2, block_f32_3, block_f32_4},
    {block_bf16_1, block_bf16_2, block_bf16_3, block_bf16_4},
    {block_int8_1, block_int8_2, block_int8_3, block_int8_4},
};

/* Queries of a group side by side: [dim][ROWS]; rows past the last are not used. */
static void gather_rows(const struct kern_attn *a, uint32_t row, uint32_t n, float *to)
{
    for (uint32_t h = 0; h < n; h++) {
        const float *q = a->q + (row + h) / a->n_q * a->ldq + (row + h) % a->n_q * a->dim;
        for (uint32_t d = 0; d < a->dim; d++)
            to[(size_t)d * ROWS + h] = q[d];
    }
}

/* The same as codes: [quad][2][ROWS]; places of absent rows are left as they are. */
static void gather_codes(const struct kern_attn *a, uint32_t row, uint32_t n, int32_t *to,
                         struct code_rows *rows)
{
    for (uint32_t h = 0; h < n; h++)
        put_query(a->q + (row + h) / a->n_q * a->ldq + (row + h) % a->n_q * a->dim, a->dim, to,
                  rows, h, a->scale);
}

void kern_avx2_attn(const struct kern_attn *a)
{
    const struct attn_part s = attn_part_of(a);
    const uint32_t rows = a->n_pos * a->n_q, last = a->pos[a->n_pos - 1] / KERN_KV_BLOCK,
                   pages = a->block1 > last ? a->pos[a->n_pos - 1] / KERN_KV_PAGE + 1
                                            : a->block1 * (KERN_KV_BLOCK / KERN_KV_PAGE);
    const size_t groups = (rows + ROWS - 1) / ROWS, q_step = (size_t)attn_quads(a->dim) * 4 * ROWS;
    float *f = a->part, *score = a->scratch;
    uint8_t *weight = (uint8_t *)(score + ATTN_ROWS * KERN_KV_BLOCK);
    struct code_rows *codes = (struct code_rows *)(void *)(weight + 2 * ATTN_ROWS * KERN_KV_BLOCK);
    float *q = (float *)(void *)(codes + groups);
    for (uint32_t g = 0; g < groups; g++) {
        const uint32_t r = g * ROWS, n = rows - r < ROWS ? rows - r : ROWS;
        if (a->kv == KERN_KV_INT8)
            gather_codes(a, r, n, (int32_t *)(void *)(q + g * q_step), &codes[g]);
        else
            gather_rows(a, r, n, q + g * q_step);
    }
    for (uint32_t b = a->block0; b < a->block1 && b <= last; b++) {
        bool fetch = true;
        for (uint32_t r = 0; r < rows; r += ROWS) {
            const uint32_t n = rows - r < ROWS ? rows - r : ROWS;
            struct work w = {
                .a = a,
                .q = q + r / ROWS * q_step,
                .score = score,
                .weight = weight,
                .codes = &codes[r / ROWS],
                .o = f + ((size_t)b * rows + r) * s.dim_pad,
                .m = f + s.m_at + r * s.block_pad + b,
                .l = f + s.l_at + r * s.block_pad + b,
                .block_pad = s.block_pad,
                .dim_pad = s.dim_pad,
                .page0 = b * (KERN_KV_BLOCK / KERN_KV_PAGE),
                .pages = pages,
                .fetch = fetch,
            };
            for (uint32_t h = 0; h < n; h++)
                w.n[h] = attn_visible(a, (r + h) / a->n_q, b);
            w.all = w.n[0], w.any = w.n[n - 1];
            if (w.any == 0) /* its positions end before this block */
                continue;
            block_of[a->kv][n - 1](&w);
            fetch = false;
        }
    }
}

/* ---- join ---- */

/* M, the factors exp(m_b - M) in place of m, and l of one row */
static float join_l(float *m, const float *l, size_t blocks)
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

/* out[dim] of a row from its o of every block, `step` apart, the factors e and the sum l */
static void join_o(const struct kern_attn *a, const float *o, size_t step, size_t blocks,
                   const float *e, float l, float *out)
{
    for (uint32_t d = 0; d < a->dim; d += CHUNK) {
        const float *from = o + d;
        __m256 x = _mm256_setzero_ps(), y = x;
        for (size_t b = 0; b < blocks; b++, from += step) {
            const __m256 f = _mm256_set1_ps(e[b]);
            x = _mm256_fmadd_ps(_mm256_load_ps(from), f, x);
            y = _mm256_fmadd_ps(_mm256_load_ps(from + 8), f, y);
        }
        x = _mm256_div_ps(x, _mm256_set1_ps(l)), y = _mm256_div_ps(y, _mm256_set1_ps(l));
        const uint32_t left = a->dim - d;
        const bool mixed = a->kv == KERN_KV_BF16;
        _mm256_maskstore_ps(out + d, head_mask(left < 8 ? left : 8),
                            mixed ? interleave(x, y, 0) : x);
        if (left > 8)
            _mm256_maskstore_ps(out + d + 8, head_mask(left < 16 ? left - 8 : 8),
                                mixed ? interleave(x, y, 1) : y);
    }
}

void kern_avx2_attn_join(const struct kern_attn *a)
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
