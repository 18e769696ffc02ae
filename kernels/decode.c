/* decode.c - stored rows to fp32: kern_decode, bit for bit the formulas of weight-formats
 * section 3.
 *
 * Not a hot path: it serves conversion, embedding rows, --strict and tests. Each decoder takes one
 * block; every product and sum is one fp32 rounding, in the order the formula is written, so that
 * the values equal those of other readers of these formats. Compiled without ISA flags. Any thread.
 */
#include "blocks.h"
#include "kern.h"

static void dec_q4_0(const uint8_t *b, float *y)
{
    float d = load_half(b);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void dec_q4_1(const uint8_t *b, float *y)
{
    float d = load_half(b), m = load_half(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b[4 + j] & 15) + m;
        y[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

/* code 0..31 of element i: nibbles at q, fifth bits in h */
static int five(const uint8_t *q, uint32_t h, int i)
{
    int n = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
    return n | (int)((h >> i) & 1) << 4;
}

static void dec_q5_0(const uint8_t *b, float *y)
{
    float d = load_half(b);
    uint32_t h = load_u32(b + 2);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(five(b + 6, h, i) - 16);
}

static void dec_q5_1(const uint8_t *b, float *y)
{
    float d = load_half(b), m = load_half(b + 2);
    uint32_t h = load_u32(b + 4);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)five(b + 8, h, i) + m;
}

static void dec_q8_0(const uint8_t *b, float *y)
{
    float d = load_half(b);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(int8_t)b[2 + i];
}

static void dec_table(const uint8_t *q, float d, const int8_t *t, float *y)
{
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)t[q[j] & 15];
        y[j + 16] = d * (float)t[q[j] >> 4];
    }
}

static void dec_iq4_nl(const uint8_t *b, float *y)
{
    dec_table(b + 2, load_half(b), code_iq4, y);
}

/* The halved scale times the doubled code: exact, as E8M0 times E2M1 is. */
static void dec_mxfp4(const uint8_t *b, float *y)
{
    dec_table(b + 1, e8m0_half(b[0]), code_e2m1x2, y);
}

static float ue4m3(uint8_t x)
{
    int e = (x >> 3) & 15, m = x & 7;
    if ((x & 127) == 127)
        return 0;
    return e == 0 ? (float)m * 0x1p-9f
                  : fp_from_bits((uint32_t)(e + 120) << 23 | (uint32_t)m << 20);
}

static void dec_nvfp4(const uint8_t *b, float *y)
{
    for (int s = 0; s < 4; s++) {
        float d = ue4m3(b[s]) * 0.5f;
        for (int r = 0; r < 16; r++) {
            int n = b[4 + 8 * s + r % 8];
            y[16 * s + r] = d * (float)code_e2m1x2[r < 8 ? n & 15 : n >> 4];
        }
    }
}

static void dec_q2_k(const uint8_t *b, float *y)
{
    float d = load_half(b + 80), dmin = load_half(b + 82);
    for (int i = 0; i < 256; i++) {
        int q = (b[16 + 32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4)) & 3, s = b[i / 16];
        float lo = d * (float)(s & 15), hi = dmin * (float)(s >> 4);
        y[i] = lo * (float)q - hi;
    }
}

static void dec_q3_k(const uint8_t *b, float *y)
{
    float d = load_half(b + 108);
    for (int i = 0; i < 256; i++) {
        int q = ((b[32 + 32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4)) & 3) |
                ((b[i % 32] >> i / 32) & 1) << 2;
        float s = d * (float)q3k_scale(b + 96, i / 16);
        y[i] = s * (float)(q - 4);
    }
}

/* Q4_K (qh NULL) and Q5_K */
static void dec_k45(const uint8_t *b, const uint8_t *qh, const uint8_t *qs, float *y)
{
    float d = load_half(b), dmin = load_half(b + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t sc, mn;
        kq_scale_min(b + 4, j, &sc, &mn);
        float s = d * (float)sc, m = dmin * (float)mn;
        for (int l = 0; l < 32; l++) {
            int n = qs[32 * (j / 2) + l], q = j % 2 ? n >> 4 : n & 15;
            if (qh)
                q |= ((qh[l] >> j) & 1) << 4;
            y[32 * j + l] = s * (float)q - m;
        }
    }
}

static void dec_q4_k(const uint8_t *b, float *y)
{
    dec_k45(b, NULL, b + 16, y);
}

static void dec_q5_k(const uint8_t *b, float *y)
{
    dec_k45(b, b + 16, b + 48, y);
}

static void dec_q6_k(const uint8_t *b, float *y)
{
    float d = load_half(b + 208);
    for (int i = 0; i < 256; i++) {
        float s = d * (float)(int8_t)b[192 + i / 16];
        y[i] = s * (float)(q6k_code(b, i) - 32);
    }
}

static void dec_iq4_xs(const uint8_t *b, float *y)
{
    float d = load_half(b);
    for (int j = 0; j < 8; j++)
        dec_table(b + 8 + 16 * j, d * (float)iq4xs_scale(b, j), code_iq4, y + 32 * j);
}

static void dec_int4(const uint8_t *b, float *y)
{
    float d = bf16_to_f32(load_u16(b));
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b[2 + j] & 15) - 8);
        y[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

/* A row with its scales in front: w = code * scale. */
static void dec_row(enum dtype t, const uint8_t *row, uint64_t n, float *y)
{
    const uint8_t *code = row + dtype_row_scale_bytes(t, n);
    for (uint64_t i = 0; i < n; i++) {
        float c = t == DT_FP8 ? e4m3_to_f32(code[i]) : (float)(int8_t)code[i];
        y[i] = c * row_scale(t, row, i);
    }
}

static void dec_f32(const uint8_t *b, float *y)
{
    *y = fp_from_bits(load_u32(b));
}

static void dec_f16(const uint8_t *b, float *y)
{
    *y = load_half(b);
}

static void dec_bf16(const uint8_t *b, float *y)
{
    *y = bf16_to_f32(load_u16(b));
}

/* One block of dtype_info(t)->block_elems elements. */
typedef void (*block_fn)(const uint8_t *b, float *y);
static const block_fn decoders[DT_COUNT] = {
    [DT_F32] = dec_f32,     [DT_F16] = dec_f16,       [DT_BF16] = dec_bf16,
    [DT_Q4_0] = dec_q4_0,   [DT_Q4_1] = dec_q4_1,     [DT_Q5_0] = dec_q5_0,
    [DT_Q5_1] = dec_q5_1,   [DT_Q8_0] = dec_q8_0,     [DT_Q2_K] = dec_q2_k,
    [DT_Q3_K] = dec_q3_k,   [DT_Q4_K] = dec_q4_k,     [DT_Q5_K] = dec_q5_k,
    [DT_Q6_K] = dec_q6_k,   [DT_IQ4_NL] = dec_iq4_nl, [DT_IQ4_XS] = dec_iq4_xs,
    [DT_MXFP4] = dec_mxfp4, [DT_NVFP4] = dec_nvfp4,   [DT_INT4] = dec_int4,
};

bool kern_decode(enum dtype t, const void *src, uint64_t n, float *dst)
{
    const struct dtype_info *i = dtype_info(t);
    const uint8_t *b = src;
    block_fn f = decoders[t];
    if (i->scale_elems > 0) {
        dec_row(t, b, n, dst);
        return true;
    }
    if (f == NULL || n % i->block_elems != 0)
        return false;
    for (; n > 0; n -= i->block_elems, b += i->block_bytes, dst += i->block_elems)
        f(b, dst);
    return true;
}
