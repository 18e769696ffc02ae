/* dtype.c - the table of dtype.h. Rows are in enum order. Sizes: weight-formats section 2. */
#include "base/dtype.h"

#include <assert.h>
#include <strings.h>

/* clang-format off */
static const struct dtype_info table[DT_COUNT] = {
    [DT_F32] = {"f32", 0, 1, 4, 0},        [DT_F16] = {"f16", 1, 1, 2, 0},        [DT_BF16] = {"bf16", 30, 1, 2, 0},     [DT_F64] = {"f64", 28, 1, 8, 0},
    [DT_I8] = {"i8", 24, 1, 1, 0},         [DT_I16] = {"i16", 25, 1, 2, 0},       [DT_I32] = {"i32", 26, 1, 4, 0},       [DT_I64] = {"i64", 27, 1, 8, 0},
    [DT_Q4_0] = {"q4_0", 2, 32, 18, 0},    [DT_Q4_1] = {"q4_1", 3, 32, 20, 0},    [DT_Q5_0] = {"q5_0", 6, 32, 22, 0},    [DT_Q5_1] = {"q5_1", 7, 32, 24, 0},
    [DT_Q8_0] = {"q8_0", 8, 32, 34, 0},    [DT_Q2_K] = {"q2_k", 10, 256, 84, 0},  [DT_Q3_K] = {"q3_k", 11, 256, 110, 0}, [DT_Q4_K] = {"q4_k", 12, 256, 144, 0},
    [DT_Q5_K] = {"q5_k", 13, 256, 176, 0}, [DT_Q6_K] = {"q6_k", 14, 256, 210, 0}, [DT_IQ4_NL] = {"iq4_nl", 20, 32, 18, 0}, [DT_IQ4_XS] = {"iq4_xs", 23, 256, 136, 0},
    [DT_MXFP4] = {"mxfp4", 39, 32, 17, 0}, [DT_NVFP4] = {"nvfp4", 40, 64, 36, 0},
    [DT_IQ2_XXS] = {"iq2_xxs", 16, 256, 66, 0}, [DT_IQ2_XS] = {"iq2_xs", 17, 256, 74, 0}, [DT_IQ2_S] = {"iq2_s", 22, 256, 82, 0},
    [DT_IQ3_XXS] = {"iq3_xxs", 18, 256, 98, 0}, [DT_IQ3_S] = {"iq3_s", 21, 256, 110, 0},  [DT_IQ1_S] = {"iq1_s", 19, 256, 50, 0},
    [DT_IQ1_M] = {"iq1_m", 29, 256, 56, 0},     [DT_TQ1_0] = {"tq1_0", 34, 256, 54, 0},   [DT_TQ2_0] = {"tq2_0", 35, 256, 66, 0},
    [DT_Q1_0] = {"q1_0", 41, 128, 18, 0},       [DT_Q2_0] = {"q2_0", 42, 64, 18, 0},
    [DT_U8] = {"u8", -1, 1, 1, 0},         [DT_U16] = {"u16", -1, 1, 2, 0},       [DT_U32] = {"u32", -1, 1, 4, 0},       [DT_U64] = {"u64", -1, 1, 8, 0},
    [DT_BOOL] = {"bool", -1, 1, 1, 0},     [DT_F8_E4M3] = {"f8_e4m3", -1, 1, 1, 0}, [DT_F8_E5M2] = {"f8_e5m2", -1, 1, 1, 0},
    [DT_F8_E8M0] = {"f8_e8m0", -1, 1, 1, 0}, [DT_C64] = {"c64", -1, 1, 8, 0},
    [DT_INT4] = {"int4", -1, 32, 18, 0},   [DT_FP8] = {"fp8", -1, 1, 1, 128},  [DT_INT8] = {"int8", -1, 1, 1, UINT32_MAX},
};
/* clang-format on */

const struct dtype_info *dtype_info(enum dtype t)
{
    assert((unsigned)t < DT_COUNT);
    return &table[t];
}

int dtype_by_name(const char *name)
{
    for (int i = 0; i < DT_COUNT; i++)
        if (strcasecmp(table[i].name, name) == 0)
            return i;
    return -1;
}

int dtype_by_ggml_id(uint32_t id)
{
    for (int i = 0; i < DT_COUNT; i++)
        if (table[i].ggml_id >= 0 && (uint32_t)table[i].ggml_id == id)
            return i;
    return -1;
}
