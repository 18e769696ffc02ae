/* attn_scratch.h - how KERN_ATTN divides its caller's scratch: one layout for all variants, so that
 * a plan can size it without knowing which runs.
 *
 *   o      [blocks][n_q][dim_pad]  values summed under the block's own maximum, in the variant's
 * own order of dims m      [n_q][block_pad]        maximum score of each block, later the factor
 * exp(m_b - M) l      [n_q][block_pad]        sum of the block's weights score [n_q][KERN_KV_BLOCK]
 * scores, then weights, of the block in work Every array starts on 64 bytes; pads make rows whole
 * vectors, so kernels load and store them unmasked. Integer arithmetic only: ISA files include
 * this, and nothing here is an exported symbol.
 */
#ifndef KT_KERN_ATTN_SCRATCH_H
#define KT_KERN_ATTN_SCRATCH_H

#include "kern.h"

struct attn_scratch {
    size_t blocks, block_pad, dim_pad;
    size_t m_at, l_at, score_at, floats; /* offsets in floats; o is at 0 */
};

static inline struct attn_scratch attn_scratch_layout(uint32_t n_q, uint32_t dim, uint32_t n_keys)
{
    struct attn_scratch s;
    s.blocks = ((size_t)n_keys + KERN_KV_BLOCK - 1) / KERN_KV_BLOCK;
    s.block_pad = (s.blocks + 15) / 16 * 16;
    s.dim_pad = ((size_t)dim + 31) / 32 * 32;
    s.m_at = s.blocks * n_q * s.dim_pad;
    s.l_at = s.m_at + n_q * s.block_pad;
    s.score_at = s.l_at + n_q * s.block_pad;
    s.floats = s.score_at + (size_t)n_q * KERN_KV_BLOCK;
    return s;
}

#endif
