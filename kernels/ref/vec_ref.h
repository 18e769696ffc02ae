/* vec_ref.h - what vec_ref.c and attn_ref.c share: the canonical exp, codes of a row with one
 * scale, and the attention entry that the table of vec_ref.c lists. Included by ref/ only.
 */
#ifndef KT_KERN_VEC_REF_H
#define KT_KERN_VEC_REF_H

#include <math.h>

#include "kern.h"

/* e^x = 2^n * e^r, n = rne(x log2 e), r = x - n ln 2 in two steps; e^r by its Taylor sum. Below
 * -87: 0; above 88: as 88; NaN stays NaN. */
static inline float ref_exp(float x)
{
    static const float c[8] = {1.0f,
                               1.0f,
                               (float)(1.0 / 2),
                               (float)(1.0 / 6),
                               (float)(1.0 / 24),
                               (float)(1.0 / 120),
                               (float)(1.0 / 720),
                               (float)(1.0 / 5040)};
    if (isnan(x))
        return x;
    if (x < -87.0f)
        return 0.0f;
    if (x > 88.0f)
        x = 88.0f;
    float n = rintf(x * (float)1.4426950408889634);
    float r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = c[7];
    for (int k = 6; k >= 0; k--)
        p = fmaf(p, r, c[k]);
    return ldexpf(p, (int)n);
}

/* kern_quant_fn with one group; k may be any number */
bool ref_quant_row(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum);
void kern_ref_attn(const struct kern_attn *a);
void kern_ref_attn_join(const struct kern_attn *a);

#endif
