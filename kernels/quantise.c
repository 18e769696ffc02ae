/* quantise.c - fp32 rows to stored blocks: kern_quantise, the reference quantisers of
 * weight-formats section 10.
 *
 * They make test weights and converted files; quality searches are not their business. All
 * arithmetic is fp32 with one rounding per written operation, which gives byte for byte what the
 * other writers of these formats give. Finite input is the caller's duty. And kern_round_bf16 for
 * activations, which takes any. Compiled without ISA flags, with SSE2 where the target has it. Any
 * thread.
 */
#include <math.h>

#include "base/fp.h"
#include "blocks.h"
#include "kern.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static void put_u16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}

/* The element of largest magnitude, the first of equals. */
static float extreme(const float *x)
{
    float best = x[0];
    for (int i = 1; i < 32; i++)
        if (fabsf(x[i]) > fabsf(best))
            best = x[i];
    return best;
}

static float inverse(float d)
{
    return d == 0 ? 0 : 1.0f / d;
}

static uint8_t code_of(float v, int max)
{
    int q = (int)v; /* v >= 0: truncation */
    return (uint8_t)(q > max ? max : q < 0 ? 0 : q);
}

/* Nibbles in block order, fifth bits returned. */
static uint32_t put_codes(const uint8_t q[32], uint8_t *dst)
{
    uint32_t h = 0;
    for (int j = 0; j < 16; j++)
        dst[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
    for (int i = 0; i < 32; i++)
        h |= (uint32_t)(q[i] >> 4) << i;
    return h;
}

/* Symmetric: d = extreme / -half, codes around half. half 8 (Q4_0) or 16 (Q5_0) */
static void quant_sym(const float *x, int half, uint8_t *b)
{
    float d = extreme(x) / (float)-half, id = inverse(d), mid = (float)half + 0.5f;
    uint8_t q[32];
    for (int i = 0; i < 32; i++)
        q[i] = code_of(x[i] * id + mid, 2 * half - 1);
    put_u16(b, f32_to_f16(d));
    uint32_t h = put_codes(q, b + (half == 8 ? 2 : 6));
    if (half == 16)
        memcpy(b + 2, &h, 4);
}

/* With minimum: d = (max - min) / top. top 15 (Q4_1) or 31 (Q5_1) */
static void quant_min(const float *x, int top, uint8_t *b)
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < 32; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float d = (hi - lo) / (float)top, id = inverse(d);
    uint8_t q[32];
    for (int i = 0; i < 32; i++)
        q[i] = code_of((x[i] - lo) * id + 0.5f, top);
    put_u16(b, f32_to_f16(d));
    put_u16(b + 2, f32_to_f16(lo));
    uint32_t h = put_codes(q, b + (top == 15 ? 4 : 8));
    if (top == 31)
        memcpy(b + 4, &h, 4);
}

/* Q4_0 with a BF16 scale; codes are taken with the scale as it is stored. */
static void quant_int4(const float *x, uint8_t *b)
{
    uint16_t h = f32_to_bf16(extreme(x) / -8.0f);
    float id = inverse(bf16_to_f32(h));
    uint8_t q[32];
    for (int i = 0; i < 32; i++)
        q[i] = code_of(x[i] * id + 8.5f, 15);
    put_u16(b, h);
    put_codes(q, b + 2);
}

static void quant_q8_0(const float *x, uint8_t *b)
{
    float d = fabsf(extreme(x)) / 127.0f, id = inverse(d);
    put_u16(b, f32_to_f16(d));
    for (int i = 0; i < 32; i++) {
        float v = x[i] * id, a = floorf(fabsf(v));
        a += floorf(2.0f * (fabsf(v) - a)); /* ties away from zero */
        b[2 + i] = (uint8_t)(int8_t)(v < 0 ? -a : a);
    }
}

/* e = floor(log2 amax) - 2 + 127, by the exponent field; codes: the nearest value, the first of
 * equals. */
static void quant_mxfp4(const float *x, uint8_t *b)
{
    float amax = fabsf(extreme(x));
    int e = (int)(fp_bits(amax) >> 23) - 2;
    e = e < 0 ? 0 : e;
    float d = e8m0_half((uint8_t)e);
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        float err = INFINITY;
        for (int c = 0; c < 16; c++) {
            float r = fabsf(d * (float)code_e2m1x2[c] - x[i]);
            if (r < err) {
                err = r;
                q[i] = (uint8_t)c;
            }
        }
    }
    b[0] = (uint8_t)e;
    put_codes(q, b + 1);
}

static float amax_of(const float *x, uint64_t n)
{
    float a = 0;
    for (uint64_t i = 0; i < n; i++)
        a = fabsf(x[i]) > a ? fabsf(x[i]) : a;
    return a;
}

/* A row with fp32 scales in front: FP8 amax/448 per 128 columns, INT8 amax/127; nearest, ties to
 * even. */
static void quant_row(enum dtype t, const float *x, uint64_t n, uint8_t *row)
{
    uint8_t *code = row + dtype_row_scale_bytes(t, n);
    uint64_t per = dtype_info(t)->scale_elems;
    for (uint64_t at = 0; at < n; at += per, row += 4) {
        uint64_t len = n - at < per ? n - at : per;
        float d = amax_of(x + at, len) / (t == DT_FP8 ? 448.0f : 127.0f), id = inverse(d);
        if (!(id - id == 0.0f)) /* a scale whose inverse is no number: all zero */
            d = id = 0;
        memcpy(row, &d, 4);
        for (uint64_t i = at; i < at + len; i++) {
            float v = x[i] * id;
            code[i] = t == DT_FP8 ? f32_to_e4m3(v) : (uint8_t)(int8_t)rintf(v);
        }
    }
}

static void quant_block(enum dtype t, const float *x, uint8_t *b)
{
    switch (t) {
    case DT_F32:
        memcpy(b, x, 4);
        break;
    case DT_F16:
        put_u16(b, f32_to_f16(*x));
        break;
    case DT_BF16:
        put_u16(b, f32_to_bf16(*x));
        break;
    case DT_Q4_0:
        quant_sym(x, 8, b);
        break;
    case DT_Q5_0:
        quant_sym(x, 16, b);
        break;
    case DT_Q4_1:
        quant_min(x, 15, b);
        break;
    case DT_Q5_1:
        quant_min(x, 31, b);
        break;
    case DT_Q8_0:
        quant_q8_0(x, b);
        break;
    case DT_INT4:
        quant_int4(x, b);
        break;
    default:
        quant_mxfp4(x, b);
        break;
    }
}

bool kern_quantise(enum dtype t, const float *src, uint64_t n, void *dst)
{
    static const bool can[DT_COUNT] = {
        [DT_F32] = true,  [DT_F16] = true,  [DT_BF16] = true, [DT_Q4_0] = true,  [DT_Q4_1] = true,
        [DT_Q5_0] = true, [DT_Q5_1] = true, [DT_Q8_0] = true, [DT_MXFP4] = true, [DT_INT4] = true};
    const struct dtype_info *i = dtype_info(t);
    uint8_t *b = dst;
    if (i->scale_elems > 0) {
        quant_row(t, src, n, dst);
        return true;
    }
    if (!can[t] || n % i->block_elems != 0)
        return false;
    for (; n > 0; n -= i->block_elems, src += i->block_elems, b += i->block_bytes)
        quant_block(t, src, b);
    return true;
}

void kern_round_bf16(const float *x, uint32_t n, uint16_t *out)
{
    uint32_t i = 0;
#if defined(__SSE2__)
    const __m128i one = _mm_set1_epi32(1), half = _mm_set1_epi32(0x7fff);
    for (; i + 8 <= n; i += 8) {
        __m128i v[2];
        int nan = 0;
        for (int h = 0; h < 2; h++) {
            const __m128 f = _mm_loadu_ps(x + i + 4 * h);
            const __m128i u = _mm_castps_si128(f);
            nan |= _mm_movemask_ps(_mm_cmpunord_ps(f, f));
            v[h] = _mm_add_epi32(_mm_add_epi32(u, half), _mm_and_si128(_mm_srli_epi32(u, 16), one));
            v[h] = _mm_srai_epi32(v[h], 16); /* packs_epi32 keeps what fits 16 bits with a sign */
        }
        if (nan != 0)
            break;
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm_packs_epi32(v[0], v[1]));
    }
#endif
    for (; i < n; i++)
        out[i] = f32_to_bf16(x[i]);
}
