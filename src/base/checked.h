/* checked.h - 64-bit sums and products that say when they overflow. For every size that comes out
 * of a file. */
#ifndef KT_BASE_CHECKED_H
#define KT_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* true and *out = a + b (a * b), or false and *out undefined when the result exceeds 2^64-1 */
static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

#endif
