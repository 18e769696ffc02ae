/* kv.c - how keys and values are stored: names and sizes of the KV types, one position written into
 * a page, and the sizes of attention's memory.
 *
 * Rounding to the type happens here and nowhere else, before any use. INT8 quantises a position's
 * key and value as activations are quantised (amax / 127, by the reciprocal, ties to even), with
 * one group per position and kv head; keys are stored for dot products of bytes, which take one
 * unsigned side. Plain C without ISA flags: a write moves one cache line per
 * dim, which costs more than the arithmetic. Any thread; a position has one writer.
 */
#include <string.h>

#include "attn_scratch.h"
#include "base/fp.h"
#include "kern.h"

static const char *const names[KERN_KV_COUNT] = {"f32", "bf16", "int8"};

const char *kern_kv_name(enum kern_kv t)
{
    return names[t];
}

int kern_kv_by_name(const char *name)
{
    for (int t = 0; t < KERN_KV_COUNT; t++)
        if (strcmp(name, names[t]) == 0)
            return t;
    return -1;
}

uint64_t kern_kv_plane_bytes(enum kern_kv t, uint32_t dim)
{
    static const uint8_t elem[] = {4, 2};
    return t == KERN_KV_INT8 ? kern_kv_scales_at(dim) + KERN_KV_PAGE * sizeof(float)
                             : (uint64_t)KERN_KV_PAGE * dim * elem[t];
}

size_t kern_attn_part_bytes(uint32_t rows, uint32_t dim, uint32_t n_keys)
{
    return attn_part_layout(rows, dim, n_keys).floats * sizeof(float);
}

size_t kern_attn_scratch_bytes(uint32_t rows, uint32_t dim)
{
    const size_t groups = ((size_t)rows + ATTN_ROWS - 1) / ATTN_ROWS;
    return ATTN_ROWS * (KERN_KV_BLOCK + KERN_KV_BLOCK / 2 + groups * (2 + attn_quads(dim) * 4)) *
           sizeof(float);
}

/* Scale of x[n] as codes, and what gives the codes. Magnitudes compare as integers, so NaN and
 * infinity are the largest; false then, as a group of zeros. */
static bool scale_of(const float *x, uint32_t n, float *scale, float *inv)
{
    uint32_t top = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t size = fp_bits(x[i]) & 0x7fffffffu;
        top = size > top ? size : top;
    }
    const bool finite = top < 0x7f800000u;
    const float amax = finite ? fp_from_bits(top) : 0.0f;
    *scale = amax < 0x1p-100f ? 0.0f : amax / 127.0f;
    *inv = *scale == 0.0f ? 0.0f : 1.0f / *scale;
    return finite;
}

/* Adding and taking away 1.5 * 2^23 rounds to nearest even. inv is 0 where x may be anything. */
static int code_of(float x, float inv)
{
    float y = inv == 0.0f ? 0.0f : x * inv;
    y = y > 127.0f ? 127.0f : y < -127.0f ? -127.0f : y;
    return (int)((y + 12582912.0f) - 12582912.0f);
}

static bool write_key(const float *k, uint32_t dim, uint32_t at, uint8_t *codes)
{
    float scale, inv;
    const bool finite = scale_of(k, dim, &scale, &inv);
    uint8_t *to = codes + 4 * (size_t)at;
    for (uint32_t d = 0; d < dim; d += 4, to += 4 * KERN_KV_PAGE)
        for (uint32_t i = 0; i < 4; i++)
            to[i] = (uint8_t)((d + i < dim ? code_of(k[d + i], inv) : 0) + 128);
    memcpy(codes + kern_kv_scales_at(dim) + at * sizeof scale, &scale, sizeof scale);
    return finite;
}

static bool write_value(const float *v, uint32_t dim, uint32_t at, int8_t *codes)
{
    float scale, inv;
    const bool finite = scale_of(v, dim, &scale, &inv);
    int8_t *to = codes + (size_t)(at / 4) * 4 * dim + at % 4;
    for (uint32_t d = 0; d < dim; d++)
        to[4 * d] = (int8_t)code_of(v[d], inv);
    memcpy(codes + kern_kv_scales_at(dim) + at * sizeof scale, &scale, sizeof scale);
    return finite;
}

bool kern_kv_write(enum kern_kv t, uint32_t dim, uint32_t at, const float *k, const float *v,
                   void *kplane, void *vplane)
{
    bool ok = true;
    if (t == KERN_KV_INT8) {
        ok = write_key(k, dim, at, kplane);
        ok &= write_value(v, dim, at, vplane);
    } else if (t == KERN_KV_BF16) {
        uint16_t *kd = kplane, *vd = (uint16_t *)vplane + (size_t)at * dim;
        for (uint32_t d = 0; d < dim; d++)
            kd[(size_t)d * KERN_KV_PAGE + at] = f32_to_bf16(k[d]);
        for (uint32_t d = 0; d < dim; d++)
            vd[d] = f32_to_bf16(v[d]);
    } else {
        float *kd = kplane;
        for (uint32_t d = 0; d < dim; d++)
            kd[(size_t)d * KERN_KV_PAGE + at] = k[d];
        memcpy((float *)vplane + (size_t)at * dim, v, dim * sizeof *v);
    }
    return ok;
}
