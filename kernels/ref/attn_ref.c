/* attn_ref.c - attention over paged keys and values in plain C.
 *
 * The definition, for each row (query position, head) over blocks b of 256 absolute positions:
 *   s_j = fl32(dot_j * scale), dot_j an fma chain over the head's dims; m_b = max s_j; p_j =
 * exp(s_j - m_b); l_b = sum p_j and o_b = sum p_j v_j with j ascending; then M = max m_b and, with
 * b ascending, l = fma(l_b, exp(m_b - M), l), o = fma(o_b, exp(m_b - M), o), out = o / l.
 * INT8 pages: the row of q is quantised as an activation with one scale; s_j = fl32((float)dot_j *
 * fl32(f * k_scale_j)) with the exact integer dot_j and f = fl32(q_scale * scale). l_b is summed in
 * 16 lanes: lane r takes j = r mod 16, then lanes + 8, + 4, + 2, + 1. Weights w_j = fl32(p_j *
 * v_scale_j) become integers u_j = rne(w_j * (32767 / W)), W = max w_j, all 0 where W < 2^-100, and
 * o_b = fl32((float)sum * (W / 32767)) with the exact integer sum of u_j times the codes.
 * Correct on any CPU and the oracle of avx2/ and avx512/; speed does not matter. Keys that a row
 * does not see are not read. Any thread.
 */
#include <math.h>

#include "attn_scratch.h"
#include "base/fp.h"
#include "kern.h"
#include "vec_ref.h"

/* Element i of a plane */
static float element(const struct kern_attn *a, const void *plane, size_t i)
{
    return a->kv == KERN_KV_BF16 ? bf16_to_f32(((const uint16_t *)plane)[i])
                                 : ((const float *)plane)[i];
}

/* Scale of an INT8 page's position */
static float scale_at(const struct kern_attn *a, const void *plane, uint32_t j)
{
    return ((const float *)(const void *)((const char *)plane + kern_kv_scales_at(a->dim)))[j];
}

/* A query, as codes too where the pages are INT8 */
struct query {
    const float *q;
    const int8_t *code;
    float f;
};

static float key_score(const struct kern_attn *a, const struct query *q, const void *page,
                       uint32_t j)
{
    float sum = 0.0f;
    int32_t dot = 0;
    if (a->kv == KERN_KV_INT8) {
        for (uint32_t d = 0; d < a->dim; d++)
            dot += q->code[d] *
                   (((const uint8_t *)page)[d / 4 * 4 * KERN_KV_PAGE + 4 * j + d % 4] - 128);
        return (float)dot * (q->f * scale_at(a, page, j));
    }
    for (uint32_t d = 0; d < a->dim; d++)
        sum = fmaf(q->q[d], element(a, page, (size_t)d * KERN_KV_PAGE + j), sum);
    return sum * a->scale;
}

/* *l and o[dim] of the block's first n weights. */
static void value_sums(const struct kern_attn *a, uint32_t page0, uint32_t n, float *l, float *o)
{
    const float *p = a->scratch;
    *l = 0.0f;
    for (uint32_t d = 0; d < a->dim; d++)
        o[d] = 0.0f;
    for (uint32_t j = 0; j < n; j++) {
        const void *page = a->vpage[page0 + j / KERN_KV_PAGE];
        const size_t at = (size_t)(j % KERN_KV_PAGE) * a->dim;
        *l = *l + p[j];
        for (uint32_t d = 0; d < a->dim; d++)
            o[d] = fmaf(p[j], element(a, page, at + d), o[d]);
    }
}

/* The same over INT8 pages. */
static void value_codes(const struct kern_attn *a, uint32_t page0, uint32_t n, float *l, float *o)
{
    float *p = a->scratch, lane[16] = {0}, top = 0.0f;
    for (uint32_t j = 0; j < n; j++) {
        lane[j % 16] = lane[j % 16] + p[j];
        p[j] = p[j] * scale_at(a, a->vpage[page0 + j / KERN_KV_PAGE], j % KERN_KV_PAGE);
        top = fmaxf(top, p[j]);
    }
    for (uint32_t half = 8; half > 0; half /= 2)
        for (uint32_t r = 0; r < half; r++)
            lane[r] = lane[r] + lane[r + half];
    *l = lane[0];
    const bool live = top >= 0x1p-100f && !isnan(*l); /* the row is NaN otherwise */
    const float unit = live ? top / 32767.0f : 0.0f, inv = live ? 32767.0f / top : 0.0f;
    for (uint32_t d = 0; d < a->dim; d++) {
        int32_t sum = 0;
        for (uint32_t j = 0; live && j < n; j++) {
            const int8_t *page = a->vpage[page0 + j / KERN_KV_PAGE];
            const uint32_t at = j % KERN_KV_PAGE;
            sum += (int32_t)rintf(p[j] * inv) * page[((size_t)(at / 4) * a->dim + d) * 4 + at % 4];
        }
        o[d] = (float)sum * unit;
    }
}

/* The first n keys of block b for one row: *m, *l and o[dim]. */
static void block(const struct kern_attn *a, const struct query *q, uint32_t b, uint32_t n,
                  float *m, float *l, float *o)
{
    float *score = a->scratch;
    const uint32_t page0 = b * (KERN_KV_BLOCK / KERN_KV_PAGE);
    *m = -INFINITY;
    for (uint32_t j = 0; j < n; j++) {
        score[j] = key_score(a, q, a->kpage[page0 + j / KERN_KV_PAGE], j % KERN_KV_PAGE);
        *m = fmaxf(*m, score[j]);
    }
    for (uint32_t j = 0; j < n; j++)
        score[j] = ref_exp(score[j] - *m);
    if (a->kv == KERN_KV_INT8)
        value_codes(a, page0, n, l, o);
    else
        value_sums(a, page0, n, l, o);
}

void kern_ref_attn(const struct kern_attn *a)
{
    const struct attn_part s = attn_part_of(a);
    const size_t rows = (size_t)a->n_pos * a->n_q;
    float *f = a->part;
    for (size_t r = 0; r < rows; r++) {
        const uint32_t i = (uint32_t)(r / a->n_q);
        int8_t *code = (int8_t *)((float *)a->scratch + KERN_KV_BLOCK);
        struct query q = {.q = a->q + i * a->ldq + r % a->n_q * a->dim, .code = code};
        int32_t sum;
        if (a->kv == KERN_KV_INT8)
            q.f = ref_quant_row(q.q, a->dim, code, &q.f, &sum) ? q.f * a->scale : NAN;
        for (uint32_t b = a->block0; b < a->block1 && attn_visible(a, i, b) > 0; b++)
            block(a, &q, b, attn_visible(a, i, b), f + s.m_at + r * s.block_pad + b,
                  f + s.l_at + r * s.block_pad + b, f + (b * rows + r) * s.dim_pad);
    }
}

void kern_ref_attn_join(const struct kern_attn *a)
{
    const struct attn_part s = attn_part_of(a);
    const size_t rows = (size_t)a->n_pos * a->n_q;
    const float *f = a->part;
    for (size_t r = 0; r < rows; r++) {
        const float *m = f + s.m_at + r * s.block_pad, *l = f + s.l_at + r * s.block_pad;
        const size_t blocks = a->pos[r / a->n_q] / KERN_KV_BLOCK + 1;
        float *out = a->out + r / a->n_q * a->ldo + r % a->n_q * a->dim;
        float big = -INFINITY, sum = 0.0f;
        for (size_t b = 0; b < blocks; b++)
            big = fmaxf(big, m[b]);
        for (uint32_t d = 0; d < a->dim; d++)
            out[d] = 0.0f;
        for (size_t b = 0; b < blocks; b++) {
            const float *o = f + (b * rows + r) * s.dim_pad, e = ref_exp(m[b] - big);
            sum = fmaf(l[b], e, sum);
            for (uint32_t d = 0; d < a->dim; d++)
                out[d] = fmaf(o[d], e, out[d]);
        }
        for (uint32_t d = 0; d < a->dim; d++)
            out[d] = out[d] / sum;
    }
}
