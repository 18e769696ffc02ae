/* blocks.h - how stored blocks are read: code tables, E8M0 scales, the packed 6-bit scales of the K
 * formats. Formulas: weight-formats section 3.
 *
 * Shared by the decoder, the packer, the quantisers and the ref kernels, all of which are compiled
 * without ISA flags. The ISA folders use the tables and constants only. Pure inline functions on
 * bytes; any thread.
 */
#ifndef KT_KERN_BLOCKS_H
#define KT_KERN_BLOCKS_H

#include <stdint.h>

#include "base/dtype.h"
#include "base/fp.h"

/* 4-bit code tables. E2M1 is doubled, so that it is an integer; its scale is halved (e8m0_half). */
static const int8_t code_e2m1x2[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const int8_t code_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

/* 2^(e-128), half of the E8M0 value; subnormal for e < 2, so it is made of bits. e = 255 is refused
 * by the packer. */
static inline float e8m0_half(uint8_t e)
{
    return fp_from_bits(e < 2 ? (uint32_t)0x00200000 << e : (uint32_t)(e - 1) << 23);
}

static inline float load_half(const uint8_t *p)
{
    return f16_to_f32(load_u16(p));
}

/* Scale of element i of a row that begins with its scales. */
static inline float row_scale(enum dtype t, const uint8_t *row, uint64_t i)
{
    return fp_from_bits(load_u32(row + i / dtype_info(t)->scale_elems * 4));
}

/* Scale and minimum number j (0..7) of Q4_K and Q5_K from their 12 bytes. */
static inline void kq_scale_min(const uint8_t *s, int j, uint8_t *sc, uint8_t *mn)
{
    if (j < 4) {
        *sc = s[j] & 63;
        *mn = s[j + 4] & 63;
    } else {
        *sc = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *mn = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
    }
}

/* Scale number j (0..15) of Q3_K from its 12 bytes, -32..31. */
static inline int q3k_scale(const uint8_t *t, int j)
{
    return (((t[j % 8] >> 4 * (j / 8)) & 15) | ((t[8 + j % 4] >> 2 * (j / 4)) & 3) << 4) - 32;
}

/* Scale number j (0..7) of an IQ4_XS block, -32..31. */
static inline int iq4xs_scale(const uint8_t *b, int j)
{
    return (((b[4 + j / 2] >> 4 * (j % 2)) & 15) | ((load_u16(b + 2) >> 2 * j) & 3) << 4) - 32;
}

/* Code i (0..255) of a Q6_K block, 0..63 (zero is 32). */
static inline int q6k_code(const uint8_t *b, int i)
{
    int h = i / 128, g = i % 128 / 32, l = i % 32, n = b[64 * h + 32 * (g % 2) + l];
    return (g >= 2 ? n >> 4 : n & 15) | ((b[128 + 32 * h + l] >> 2 * g) & 3) << 4;
}

#endif
