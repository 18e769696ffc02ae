/* attn_ref.c - attention of one query position in plain C, and the size of its scratch.
 *
 * The definition, for each of n_q query heads over blocks b of 256 absolute positions:
 *   s_j = fl32(dot_j * scale), dot_j an fma chain over the head's dims; m_b = max s_j; p_j =
 * exp(s_j - m_b); l_b = sum p_j and o_b = sum p_j v_j with j ascending; then M = max m_b and, with
 * b ascending, l = fma(l_b, exp(m_b - M), l), o = fma(o_b, exp(m_b - M), o), out = o / l. Correct
 * on any CPU and the oracle of avx2/ and avx512/; speed does not matter. Keys at and past n_keys
 * are not read. Any thread.
 */
#include <math.h>

#include "attn_scratch.h"
#include "base/fp.h"
#include "kern.h"
#include "vec_ref.h"

size_t kern_attn_scratch_bytes(uint32_t n_q, uint32_t dim, uint32_t n_keys)
{
    return attn_scratch_layout(n_q, dim, n_keys).floats * sizeof(float);
}

static float element(const struct kern_attn *a, const void *page, size_t i)
{
    return a->kv_type == DT_BF16 ? bf16_to_f32(((const uint16_t *)page)[i])
                                 : ((const float *)page)[i];
}

static float key_score(const struct kern_attn *a, const float *q, uint32_t j)
{
    const void *page = a->kpage[j / KERN_KV_PAGE];
    float dot = 0.0f;
    for (uint32_t d = 0; d < a->dim; d++)
        dot = fmaf(q[d], element(a, page, (size_t)d * KERN_KV_PAGE + j % KERN_KV_PAGE), dot);
    return dot * a->scale;
}

/* Keys [j0, j1) of one block for one head: *m, *l and o[dim]. */
static void block(const struct kern_attn *a, const float *q, uint32_t j0, uint32_t j1, float *m,
                  float *l, float *o, float *score)
{
    *m = -INFINITY;
    for (uint32_t j = j0; j < j1; j++) {
        score[j - j0] = key_score(a, q, j);
        *m = fmaxf(*m, score[j - j0]);
    }
    *l = 0.0f;
    for (uint32_t d = 0; d < a->dim; d++)
        o[d] = 0.0f;
    for (uint32_t j = j0; j < j1; j++) {
        const void *page = a->vpage[j / KERN_KV_PAGE];
        float p = ref_exp(score[j - j0] - *m);
        *l = *l + p;
        for (uint32_t d = 0; d < a->dim; d++)
            o[d] = fmaf(p, element(a, page, (size_t)(j % KERN_KV_PAGE) * a->dim + d), o[d]);
    }
}

static void combine(const struct kern_attn *a, const struct attn_scratch *s, const float *o,
                    const float *m, const float *l, float *out)
{
    float big = -INFINITY, sum = 0.0f;
    for (size_t b = 0; b < s->blocks; b++)
        big = fmaxf(big, m[b]);
    for (uint32_t d = 0; d < a->dim; d++)
        out[d] = 0.0f;
    for (size_t b = 0; b < s->blocks; b++, o += a->n_q * s->dim_pad) {
        float e = ref_exp(m[b] - big);
        sum = fmaf(l[b], e, sum);
        for (uint32_t d = 0; d < a->dim; d++)
            out[d] = fmaf(o[d], e, out[d]);
    }
    for (uint32_t d = 0; d < a->dim; d++)
        out[d] = out[d] / sum;
}

void kern_ref_attn(const struct kern_attn *a)
{
    const struct attn_scratch s = attn_scratch_layout(a->n_q, a->dim, a->n_keys);
    float *f = a->scratch, *score = f + s.score_at;
    for (uint32_t h = 0; h < a->n_q; h++) {
        const float *q = a->q + (size_t)h * a->dim;
        float *o = f + h * s.dim_pad, *m = f + s.m_at + h * s.block_pad,
              *l = f + s.l_at + h * s.block_pad;
        for (size_t b = 0; b < s.blocks; b++) {
            uint32_t j0 = (uint32_t)b * KERN_KV_BLOCK,
                     j1 = a->n_keys - j0 < KERN_KV_BLOCK ? a->n_keys : j0 + KERN_KV_BLOCK;
            block(a, q, j0, j1, &m[b], &l[b], o + b * a->n_q * s.dim_pad, score);
        }
        combine(a, &s, o, m, l, a->out + (size_t)h * a->dim);
    }
}
