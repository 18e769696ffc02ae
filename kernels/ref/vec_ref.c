/* vec_ref.c - the vector ops in plain C: activations to int8, RMSNorm, SwiGLU, add, exp, RoPE and
 * the expert sum.
 *
 * This is the fp32 definition of canonical arithmetic written out, one element after the other: the
 * oracle of the other variants and the code of hosts without AVX2. Correct on any CPU; speed does
 * not matter. Every fused operation is an explicit fmaf; the build forbids contraction. Pure
 * functions, any thread.
 */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/fp.h"
#include "kern.h"
#include "tables.h"
#include "vec_ref.h"

/* Below this the group counts as zero: 1/scale stays finite. */
#define AMAX_ZERO 0x1p-100f

/* scale = amax / 127; q = clamp(rne(x * (1 / scale)), -127, 127) */
static bool quant_act(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    for (uint32_t g = 0; g < k / KERN_GROUP; g++, x += KERN_GROUP, q += KERN_GROUP) {
        float amax = 0.0f;
        for (int i = 0; i < KERN_GROUP; i++) {
            if (!isfinite(x[i]))
                return false;
            amax = fmaxf(amax, fabsf(x[i]));
        }
        scale[g] = 0.0f;
        sum[g] = 0;
        if (amax < AMAX_ZERO) {
            memset(q, 0, KERN_GROUP);
            continue;
        }
        scale[g] = amax / 127.0f;
        float inv = 1.0f / scale[g];
        for (int i = 0; i < KERN_GROUP; i++) {
            float v = rintf(x[i] * inv);
            q[i] = (int8_t)(v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v);
            sum[g] += q[i];
        }
    }
    return true;
}

/* The same with one group for the whole row. */
bool ref_quant_row(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    float amax = 0.0f;
    for (uint32_t i = 0; i < k; i++) {
        if (!isfinite(x[i]))
            return false;
        amax = fmaxf(amax, fabsf(x[i]));
    }
    *scale = 0.0f;
    *sum = 0;
    if (amax < AMAX_ZERO) {
        memset(q, 0, k);
        return true;
    }
    *scale = amax / 127.0f;
    float inv = 1.0f / *scale;
    for (uint32_t i = 0; i < k; i++) {
        float v = rintf(x[i] * inv);
        q[i] = (int8_t)(v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v);
        *sum += q[i];
    }
    return true;
}

static bool quant_row(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    return ref_quant_row(x, k, q, scale, sum);
}

/* sum of squares: lane r takes k = r mod 16, then lanes r + 8, + 4, + 2, + 1 are folded in */
static float dot16(const float *x, uint32_t n)
{
    float lane[16] = {0};
    for (uint32_t k = 0; k < n; k++)
        lane[k % 16] = fmaf(x[k], x[k], lane[k % 16]);
    for (int w = 8; w > 0; w /= 2)
        for (int r = 0; r < w; r++)
            lane[r] = lane[r] + lane[r + w];
    return lane[0];
}

static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float r = 1.0f / sqrtf(dot16(x, n) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = (x[i] * r) * w[i];
}

static void swiglu(const float *g, const float *u, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = (g[i] / (1.0f + ref_exp(-g[i]))) * u[i];
}

static void add(float *y, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = y[i] + x[i];
}

static void vexp(const float *x, float m, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = ref_exp(x[i] - m);
}

static void rope(float *x, const float *cos, const float *sin, uint32_t half, bool interleaved)
{
    for (uint32_t i = 0; i < half; i++) {
        float *pa = interleaved ? &x[2 * (size_t)i] : &x[i];
        float *pb = interleaved ? pa + 1 : pa + half;
        float a = *pa, b = *pb;
        *pa = fmaf(a, cos[i], -(b * sin[i]));
        *pb = fmaf(b, cos[i], a * sin[i]);
    }
}

static int64_t to_fixed(float p)
{
    double v = (double)p * 0x1p32; /* exact */
    if (v >= 0x1p63)
        return INT64_MAX;
    if (v <= -0x1p63)
        return INT64_MIN;
    return llrint(v);
}

static bool moe_add(int64_t *acc, const float *y, float w, uint32_t n)
{
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) {
        float p = w * y[i];
        if (!isfinite(p)) {
            ok = false;
            continue;
        }
        int64_t v = to_fixed(p);
        if (__builtin_add_overflow(acc[i], v, &acc[i]))
            acc[i] = v > 0 ? INT64_MAX : INT64_MIN;
    }
    return ok;
}

static void moe_done(int64_t *acc, float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = x[i] + (float)acc[i] * 0x1p-32f;
        acc[i] = 0;
    }
}

#define ROW(op_, field, fn)                                                                        \
    {                                                                                              \
        .name = #fn "_f32_ref", .op = op_, .dtype = -1, .layout = KERN_ROWS, .isa = 0,             \
        .tok_tile = 1, .rank = 0, .run.field = fn                                                  \
    }

const struct kern *kern_ref_vec(size_t *n)
{
    static const struct kern table[] = {
        ROW(KERN_QUANT_ACT, quant, quant_act),
        ROW(KERN_QUANT_ROW, quant, quant_row),
        ROW(KERN_RMSNORM, rmsnorm, rmsnorm),
        ROW(KERN_SWIGLU, swiglu, swiglu),
        ROW(KERN_ADD, add, add),
        ROW(KERN_EXP, vexp, vexp),
        ROW(KERN_ROPE, rope, rope),
        ROW(KERN_MOE_ADD, moe_add, moe_add),
        ROW(KERN_MOE_DONE, moe_done, moe_done),
        {.name = "attn_f32_ref",
         .op = KERN_ATTN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = 0,
         .tok_tile = 1,
         .rank = 0,
         .run.attn = kern_ref_attn},
        {.name = "attn_join_f32_ref",
         .op = KERN_ATTN_JOIN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = 0,
         .tok_tile = 1,
         .rank = 0,
         .run.attn = kern_ref_attn_join},
    };
    *n = sizeof table / sizeof table[0];
    return table;
}
