/* attn_scratch.h - how KERN_ATTN divides its caller's memory: one layout for all variants, so that
 * a plan can size it without knowing which runs.
 *
 * Part, for rows (position, head) and all blocks of the longest row:
 *   o      [blocks][rows][dim_pad]  values summed under the block's own maximum, in the variant's
 *                                   own order of dims
 *   m      [rows][block_pad]        maximum score of each block, later the factor exp(m_b - M)
 *   l      [rows][block_pad]        sum of the block's weights
 * Scratch of a running call:
 *   score  [ATTN_ROWS][KERN_KV_BLOCK]   scores, then weights, of the rows and the block in work
 *   weight [ATTN_ROWS][KERN_KV_BLOCK]   INT8 pages: weights as integers of 15 bits
 *   row    [rows / ATTN_ROWS][2][ATTN_ROWS]    INT8 pages: what becomes of a row's integer dots
 *   q      [rows / ATTN_ROWS][dim to 4][ATTN_ROWS]  queries, rows side by side
 * Every array starts on 64 bytes; pads make rows whole vectors, so kernels load and store them
 * unmasked. Integer arithmetic only: ISA files include this, and nothing here is an exported
 * symbol.
 */
#ifndef KT_KERN_ATTN_SCRATCH_H
#define KT_KERN_ATTN_SCRATCH_H

#include "kern.h"

#define ATTN_ROWS 8 /* most rows that share a load of keys and values, over all variants */

/* Groups of four dims, which a dot instruction takes at once. */
static inline uint32_t attn_quads(uint32_t dim)
{
    return (dim + 3) / 4;
}

struct attn_part {
    size_t blocks, block_pad, dim_pad;
    size_t m_at, l_at, floats; /* offsets in floats; o is at 0 */
};

static inline struct attn_part attn_part_layout(uint32_t rows, uint32_t dim, uint32_t n_keys)
{
    struct attn_part s;
    s.blocks = ((size_t)n_keys + KERN_KV_BLOCK - 1) / KERN_KV_BLOCK;
    s.block_pad = (s.blocks + 15) / 16 * 16;
    s.dim_pad = ((size_t)dim + 31) / 32 * 32;
    s.m_at = s.blocks * rows * s.dim_pad;
    s.l_at = s.m_at + rows * s.block_pad;
    s.floats = s.l_at + rows * s.block_pad;
    return s;
}

static inline struct attn_part attn_part_of(const struct kern_attn *a)
{
    return attn_part_layout(a->n_pos * a->n_q, a->dim, a->pos[a->n_pos - 1] + 1);
}

/* Keys of block b that position i sees: 0..256. */
static inline uint32_t attn_visible(const struct kern_attn *a, uint32_t i, uint32_t b)
{
    const uint64_t first = (uint64_t)b * KERN_KV_BLOCK, end = (uint64_t)a->pos[i] + 1;
    return end <= first                   ? 0
           : end - first >= KERN_KV_BLOCK ? KERN_KV_BLOCK
                                          : (uint32_t)(end - first);
}

#endif
