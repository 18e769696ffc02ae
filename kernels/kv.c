/* kv.c - how keys and values are stored: names and sizes of the KV types, one position written into
 * a page, and the sizes of attention's memory.
 *
 * Rounding to the type happens here and nowhere else, before any use. INT8 quantises a position's
 * key and value as activations are quantised (amax / 127, by the reciprocal, ties to even), with
 * one group per position and kv head. Plain C without ISA flags: a write moves one cache line per
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
    static const uint8_t elem[KERN_KV_COUNT] = {4, 2, 1};
    return (uint64_t)KERN_KV_PAGE * dim * elem[t] +
           (t == KERN_KV_INT8 ? KERN_KV_PAGE * sizeof(float) : 0);
}

size_t kern_attn_part_bytes(uint32_t rows, uint32_t dim, uint32_t n_keys)
{
    return attn_part_layout(rows, dim, n_keys).floats * sizeof(float);
}

size_t kern_attn_scratch_bytes(uint32_t rows, uint32_t dim)
{
    const size_t groups = ((size_t)rows + ATTN_ROWS - 1) / ATTN_ROWS;
    return (ATTN_ROWS * KERN_KV_BLOCK + (groups * dim + 1) / 2 * 2 * ATTN_ROWS) * sizeof(float);
}

/* x[n] as codes, `step` apart, and their scale. Magnitudes compare as integers, so NaN and infinity
 * are the largest. Adding and taking away 1.5 * 2^23 rounds to nearest even. */
static bool quantise(const float *x, uint32_t n, int8_t *to, size_t step, float *scale)
{
    uint32_t top = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t size = fp_bits(x[i]) & 0x7fffffffu;
        top = size > top ? size : top;
    }
    const bool finite = top < 0x7f800000u;
    const float amax = finite ? fp_from_bits(top) : 0.0f;
    *scale = amax < 0x1p-100f ? 0.0f : amax / 127.0f;
    const float inv = *scale == 0.0f ? 0.0f : 1.0f / *scale;
    for (uint32_t i = 0; i < n; i++, to += step) {
        float y = finite ? x[i] * inv : 0.0f;
        y = y > 127.0f ? 127.0f : y < -127.0f ? -127.0f : y;
        *to = (int8_t)((y + 12582912.0f) - 12582912.0f);
    }
    return finite;
}

bool kern_kv_write(enum kern_kv t, uint32_t dim, uint32_t at, const float *k, const float *v,
                   void *kplane, void *vplane)
{
    bool ok = true;
    if (t == KERN_KV_INT8) {
        const size_t codes = (size_t)KERN_KV_PAGE * dim;
        float ks, vs;
        ok = quantise(k, dim, (int8_t *)kplane + at, KERN_KV_PAGE, &ks);
        ok &= quantise(v, dim, (int8_t *)vplane + (size_t)at * dim, 1, &vs);
        memcpy((char *)kplane + codes + at * sizeof ks, &ks, sizeof ks);
        memcpy((char *)vplane + codes + at * sizeof vs, &vs, sizeof vs);
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
