/* sum64.c - see sum64.h. Eight independent lanes of xor, odd multiplication and shift, so that a
 * core's multiplier is busy all the time; the tail goes through the same step in zero-padded words.
 */
#include "base/sum64.h"

#include <string.h>

#include "base/fp.h"

#define LANES 8

static inline uint64_t step(uint64_t h, uint64_t w)
{
    h = (h ^ w) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */
    return h ^ h >> 29;
}

uint64_t sum64(const void *data, size_t n, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h[LANES], out = seed ^ n;
    for (int i = 0; i < LANES; i++)
        h[i] = step(seed, (uint64_t)i);
    for (; n >= 8 * LANES; n -= 8 * LANES, p += 8 * LANES)
        for (int i = 0; i < LANES; i++)
            h[i] = step(h[i], load_u64(p + 8 * i));
    for (int i = 0; n > 0; i++) {
        size_t take = n < 8 ? n : 8;
        uint64_t w = 0;
        memcpy(&w, p, take);
        h[i] = step(h[i], w);
        p += take;
        n -= take;
    }
    for (int i = 0; i < LANES; i++)
        out = step(step(out, h[i]), h[i] >> 32);
    return out;
}
