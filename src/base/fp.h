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
