/* attn_ref.c - attention over paged keys and values in plain C.
 *
 * The definition, for each row (query position, head) over blocks b of 256 absolute positions:
 *   s_j = fl32(dot_j * scale), dot_j an fma chain over the head's dims; m_b = max s_j; p_j =
 * exp(s_j - m_b); l_b = sum p_j and o_b = sum p_j v_j with j ascending; then M = max m_b and, with
 * b ascending, l = fma(l_b, exp(m_b - M), l), o = fma(o_b, exp(m_b - M), o), out = o / l.
 * An element of INT8 pages is fl32(code * scale of its position).
 * Correct on any CPU and the oracle of avx2/ and avx512/; speed does not matter. Keys that a row
 * does not see are not read. Any thread.
 */
#include <math.h>

#include "attn_scratch.h"
#include "base/fp.h"
#include "kern.h"
#include "vec_ref.h"

/* Element i of a plane, of the page's position j. */
static float element(const struct kern_attn *a, const void *plane, size_t i, uint32_t j)
{
    const int8_t *code = plane;
    if (a->kv == KERN_KV_INT8)
        return (float)code[i] *
               ((const float *)(const void *)(code + (size_t)KERN_KV_PAGE * a->dim))[j];
    return a->kv == KERN_KV_BF16 ? bf16_to_f32(((const uint16_t *)plane)[i])
                                 : ((const float *)plane)[i];
}

static float key_score(const struct kern_attn *a, const float *q, uint32_t page, uint32_t j)
{
    float dot = 0.0f;
    for (uint32_t d = 0; d < a->dim; d++)
        dot = fmaf(q[d], element(a, a->kpage[page], (size_t)d * KERN_KV_PAGE + j, j), dot);
    return dot * a->scale;
}

/* The first n keys of block b for one row: *m, *l and o[dim]. */
static void block(const struct kern_attn *a, const float *q, uint32_t b, uint32_t n, float *m,
                  float *l, float *o)
{
    float *score = a->scratch;
    const uint32_t page0 = b * (KERN_KV_BLOCK / KERN_KV_PAGE);
    *m = -INFINITY;
    for (uint32_t j = 0; j < n; j++) {
        score[j] = key_score(a, q, page0 + j / KERN_KV_PAGE, j % KERN_KV_PAGE);
        *m = fmaxf(*m, score[j]);
    }
    *l = 0.0f;
    for (uint32_t d = 0; d < a->dim; d++)
        o[d] = 0.0f;
    for (uint32_t j = 0; j < n; j++) {
        const void *page = a->vpage[page0 + j / KERN_KV_PAGE];
        const uint32_t at = j % KERN_KV_PAGE;
        float p = ref_exp(score[j] - *m);
        *l = *l + p;
        for (uint32_t d = 0; d < a->dim; d++)
            o[d] = fmaf(p, element(a, page, (size_t)at * a->dim + d, at), o[d]);
    }
}

void kern_ref_attn(const struct kern_attn *a)
{
    const struct attn_part s = attn_part_of(a);
    const size_t rows = (size_t)a->n_pos * a->n_q;
    float *f = a->part;
    for (size_t r = 0; r < rows; r++) {
        const uint32_t i = (uint32_t)(r / a->n_q);
        const float *q = a->q + i * a->ldq + r % a->n_q * a->dim;
        for (uint32_t b = a->block0; b < a->block1 && attn_visible(a, i, b) > 0; b++)
            block(a, q, b, attn_visible(a, i, b), f + s.m_at + r * s.block_pad + b,
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
