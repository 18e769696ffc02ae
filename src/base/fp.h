/* fp.h - half and bfloat16 to and from fp32, by bits, on any CPU: exact, subnormals kept, NaN kept,
 * rounding to nearest even. */
#ifndef KT_BASE_FP_H
#define KT_BASE_FP_H

#include <stdint.h>
#include <string.h>

static inline float fp_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t fp_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float bf16_to_f32(uint16_t h)
{
    return fp_from_bits((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u = fp_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
    if (e == 31)
        return fp_from_bits(sign | 0x7f800000u | m << 13);
    if (e == 0) { /* m * 2^-24: exact in fp32 */
        float f = (float)m * 0x1p-24f;
        return fp_from_bits(sign | fp_bits(f));
    }
    return fp_from_bits(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = fp_bits(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | ((a >> 13) & 0x3ff));
    if (a >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000u) { /* below 2^-14: subnormal half; adding 0.5 rounds at 2^-24 */
        float r = fp_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (fp_bits(r) - 0x3f000000u));
    }
    a += 0xfffu + ((a >> 13) & 1);
    return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
}

/* E4M3 (the FN kind: no infinity, 0x7f and 0xff are NaN) */
static inline float e4m3_to_f32(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24, e = (b >> 3) & 15, m = b & 7;
    if ((b & 0x7f) == 0x7f)
        return fp_from_bits(sign | 0x7fc00000u);
    if (e == 0) {
        float f = (float)m * 0x1p-9f;
        return fp_from_bits(sign | fp_bits(f));
    }
    return fp_from_bits(sign | (e + 120) << 23 | m << 20);
}

/* Nearest, ties to even; 448 beyond. NaN stays one. */
static inline uint8_t f32_to_e4m3(float f)
{
    uint32_t u = fp_bits(f), sign = (u >> 24) & 0x80, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint8_t)(sign | 0x7f);
    if (a >= 0x43e00000u) /* 448 */
        return (uint8_t)(sign | 0x7e);
    if (a < 0x3c800000u) { /* below 2^-6: adding 2^14 rounds at 2^-9 */
        float r = fp_from_bits(a) + 0x1p14f;
        return (uint8_t)(sign | (fp_bits(r) - 0x46800000u));
    }
    a += 0x7ffffu + ((a >> 20) & 1);
    return (uint8_t)(sign | ((a - 0x3c000000u) >> 20));
}

/* 2^(e-127); e = 255 is NaN. */
static inline float e8m0_to_f32(uint8_t e)
{
    return fp_from_bits(e == 255 ? 0x7fc00000u : e == 0 ? 0x00400000u : (uint32_t)e << 23);
}

static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

#endif
