/* sample.h - pieces of sampling that tests check by themselves: the counter-based generator and the
 * order of candidates. Pure functions, any thread, no allocation.
 */
#ifndef KT_ENGINE_SAMPLE_H
#define KT_ENGINE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Philox4x32-10: four random words from a counter of four words under a key of two. */
void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* keys[i] = order << 32 | i for logit i; sorting keys ascending gives logits descending, ties by
 * ascending id. spare has room for n, too; returns the array (keys or spare) that holds the sorted
 * keys. No NaN. */
uint64_t *sample_sort(const float *logits, uint32_t n, uint64_t *keys, uint64_t *spare);

#endif
