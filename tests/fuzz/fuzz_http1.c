/* fuzz_http1.c - fuzz target: the request parser gives the same trace for the whole input, byte by
 * byte, and cut at random. Input: 4 bytes of seed for the cuts and the choice of limits, then the
 * byte stream. Invariants that a trace cannot show (pieces stay inside the input, everything is
 * taken) are checked by http1_trace.h, which aborts. Linked with libFuzzer, or called by
 * test_http1.
 */
#include <stdint.h>
#include <stdio.h>

#include "tests/unit/http1_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t cut_random(void *state, size_t left)
{
    uint32_t *s = state;
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    size_t n = *s % 7 == 0 ? *s % 300 : *s % 9;
    if (n == 0 && left > 0)
        n = 1;
    return n < left ? n : left;
}

static void check(const struct http1_limits *l, const char *text, size_t n,
                  const struct strbuf *whole, http1_cut cut, void *state)
{
    struct strbuf other = {0};
    http1_trace(l, text, n, cut, state, &other);
    if (other.len != whole->len || memcmp(other.data, whole->data, whole->len) != 0) {
        fprintf(stderr, "whole:\n%s\ncut:\n%s\n", whole->data, other.data);
        abort();
    }
    sb_free(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    uint32_t seed;
    memcpy(&seed, data, 4);
    struct http1_limits l = http1_limits_default;
    if (seed & 1) { /* small limits are met by small inputs */
        l = (struct http1_limits){.line_bytes = 24,
                                  .field_bytes = 32,
                                  .block_bytes = 96,
                                  .fields = 4,
                                  .extension_bytes = 8,
                                  .body_bytes = 40,
                                  .ignored_body_bytes = 9};
    }
    seed |= 1u << 31;
    const char *text = (const char *)data + 4;
    struct strbuf whole = {0};
    http1_trace(&l, text, size - 4, http1_cut_whole, NULL, &whole);
    check(&l, text, size - 4, &whole, http1_cut_bytes, NULL);
    check(&l, text, size - 4, &whole, cut_random, &seed);
    sb_free(&whole);
    return 0;
}
