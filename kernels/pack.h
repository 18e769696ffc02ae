/* pack.h - the bytes of a KERN_P16 panel: what pack.c writes and the avx2/ and avx512/ kernels
 * read.
 *
 * Plain formats: for each k the 16 rows' elements; BF16: for every two columns the 16 rows' pairs
 * (one vdpbf16ps operand), the last with zeros where the width is odd. Block formats: a sequence of
 * groups of 32 columns, scales   16 rows: f16 (INT4: bf16), or the E8M0 byte (MXFP4), or a byte
 * (Q4_K, Q5_K: 0..63; IQ4_XS: -32..31), or two vectors of 16 bytes, columns 0..15 and 16..31 (Q6_K,
 * Q3_K signed; Q2_K: scale in the low nibble, minimum in the high one) minimums 16 rows: f16 (Q4_1,
 * Q5_1) or a byte (Q4_K, Q5_K) high     Q5_*: 64 bytes, byte 4r+i bit j = fifth bit of column 4j+i
 * of row r; Q3_K the same with the third bit. Q6_K: 2 x 64 bytes, byte 4r+i of vector v, bits
 * 2j..2j+1 = upper two bits of column 16v+4j+i codes    Q8_0: 8 vectors of 64 bytes; vector j, byte
 * 4r+i = column 4j+i of row r (one VNNI operand). Q2_K, Q3_K: 2 vectors, byte 4r+i of vector v,
 * bits 2j..2j+1 = column 16v+4j+i. others: 4 vectors of 64 bytes; vector j, byte 4r+i = column 4j+i
 * in the low nibble, column 16+4j+i in the high one and before every 8 groups of a K format a head:
 * d of 16 rows as f16 and, Q2_K, Q4_K and Q5_K, dmin of 16 rows. A panel takes what 16 file rows
 * take, but Q3_K, Q4_K, Q5_K and IQ4_XS 1.5 to 3.6 % more. Scales and codes stay what the file
 * holds; nothing is rounded. Immutable tables; any thread.
 */
#ifndef KT_KERN_PACK_H
#define KT_KERN_PACK_H

#include "kern.h"

struct p16 {
    uint16_t head;                    /* bytes before every `super` groups */
    uint16_t super;                   /* groups under one head; 1 where there is none */
    uint16_t scale, min, high, codes; /* bytes of each part of a group, in this order */
};

/* Zeroes for a type that has no block panel. */
static inline struct p16 p16_of(int t)
{
    switch (t) {
    case DT_Q8_0:
        return (struct p16){0, 1, 32, 0, 0, 512};
    case DT_Q4_0:
    case DT_INT4:
    case DT_IQ4_NL:
        return (struct p16){0, 1, 32, 0, 0, 256};
    case DT_Q4_1:
        return (struct p16){0, 1, 32, 32, 0, 256};
    case DT_Q5_0:
        return (struct p16){0, 1, 32, 0, 64, 256};
    case DT_Q5_1:
        return (struct p16){0, 1, 32, 32, 64, 256};
    case DT_MXFP4:
        return (struct p16){0, 1, 16, 0, 0, 256};
    case DT_Q4_K:
        return (struct p16){64, 8, 16, 16, 0, 256};
    case DT_Q5_K:
        return (struct p16){64, 8, 16, 16, 64, 256};
    case DT_IQ4_XS:
        return (struct p16){32, 8, 16, 0, 0, 256};
    case DT_Q6_K:
        return (struct p16){32, 8, 32, 0, 128, 256};
    case DT_Q3_K:
        return (struct p16){32, 8, 32, 0, 64, 128};
    case DT_Q2_K:
        return (struct p16){64, 8, 32, 0, 0, 128};
    default:
        return (struct p16){0, 1, 0, 0, 0, 0};
    }
}

static inline uint32_t p16_group_bytes(struct p16 f)
{
    return (uint32_t)f.scale + f.min + f.high + f.codes;
}

/* Offset of group g from the panel's start, and of the head that it is under. */
static inline size_t p16_group_at(struct p16 f, uint32_t g)
{
    return (size_t)g * p16_group_bytes(f) + (size_t)(g / f.super + 1) * f.head;
}
static inline size_t p16_head_at(struct p16 f, uint32_t g)
{
    return (size_t)(g / f.super) * (f.head + (size_t)f.super * p16_group_bytes(f));
}

/* Sixteen whole rows in file form into one panel (pack_panel.c). false: a value is forbidden or the
 * format has no code there, and the panel is undefined: go row by row. */
bool pack_panel(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel);

/* Bytes of an element of a plain format, 0 for others. */
static inline uint32_t plain_bytes(int t)
{
    return t == DT_F32 ? 4 : t == DT_F16 || t == DT_BF16 ? 2 : 0;
}

/* FP8: for every 128 columns 16 scales, fp32, 2^8 times the stored ones (the kernels decode codes
 * to 2^-8 of their value), then for each column the 16 rows' codes. INT8: 16 scales, fp32, then
 * operands of four columns like Q8_0's, of codes + 128. */
#define FP8_BLOCK 128

/* Offset of the block that column k is in. */
static inline size_t fp8_block_at(uint32_t k)
{
    return (size_t)(k / FP8_BLOCK) * (64 + FP8_BLOCK * KERN_PANEL);
}

#endif
