/* dtype.h - element and block types of stored tensors: one table with names, ids and sizes
 * (weight-formats: GGML types and safetensors dtypes). Layouts and formulas belong to kernels/;
 * this is the vocabulary that model files, kernels and plans share.
 */
#ifndef KT_BASE_DTYPE_H
#define KT_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_F64,
    DT_I8,
    DT_I16,
    DT_I32,
    DT_I64,
    DT_Q4_0,
    DT_Q4_1,
    DT_Q5_0,
    DT_Q5_1,
    DT_Q8_0,
    DT_Q2_K,
    DT_Q3_K,
    DT_Q4_K,
    DT_Q5_K,
    DT_Q6_K,
    DT_IQ4_NL,
    DT_IQ4_XS,
    DT_MXFP4,
    DT_NVFP4,
    DT_IQ2_XXS,
    DT_IQ2_XS,
    DT_IQ2_S,
    DT_IQ3_XXS,
    DT_IQ3_S,
    DT_IQ1_S,
    DT_IQ1_M,
    DT_TQ1_0,
    DT_TQ2_0,
    DT_Q1_0,
    DT_Q2_0,
    DT_U8,
    DT_U16,
    DT_U32,
    DT_U64,
    DT_BOOL,
    DT_F8_E4M3,
    DT_F8_E5M2,
    DT_F8_E8M0,
    DT_C64,
    /* made of several tensors of a checkpoint; scales stand with the codes, see scale_elems */
    DT_INT4, /* groups of 32: BF16 scale, then nibbles as Q4_0 */
    DT_FP8,  /* E4M3 codes, one fp32 scale per 128 columns of a row */
    DT_INT8, /* signed codes, one fp32 scale per row */
    DT_COUNT
};

struct dtype_info {
    const char *name;     /* lower case, "q4_k"; also the option value */
    int ggml_id;          /* -1: not a GGML type */
    uint16_t block_elems; /* elements per block; 1 for scalars */
    uint16_t block_bytes;
    uint32_t
        scale_elems; /* a row begins with fp32 scales, one per so many elements; 0: it does not */
};

/* Never NULL for 0 <= t < DT_COUNT. */
const struct dtype_info *dtype_info(enum dtype t);
/* -1 when unknown. Names compare without case. */
int dtype_by_name(const char *name);
int dtype_by_ggml_id(uint32_t id);
static inline const char *dtype_name(enum dtype t)
{
    return dtype_info(t)->name;
}
/* Bytes of the scales at the start of a row of n elements. */
static inline uint64_t dtype_row_scale_bytes(enum dtype t, uint64_t n)
{
    uint32_t per = dtype_info(t)->scale_elems;
    return per > 0 ? (n + per - 1) / per * 4 : 0;
}
/* Bytes of a row of n elements; n must be a multiple of block_elems. */
static inline uint64_t dtype_row_bytes(enum dtype t, uint64_t n)
{
    const struct dtype_info *i = dtype_info(t);
    return n / i->block_elems * i->block_bytes + dtype_row_scale_bytes(t, n);
}
/* Scaled codes, not plain numbers: what --strict decodes. */
static inline bool dtype_is_quantised(enum dtype t)
{
    return dtype_info(t)->block_elems > 1 || dtype_info(t)->scale_elems > 0;
}

#endif
