/* selftest.h - one kernel row against the ref row of the same operation on a small tile, bit for
 * bit, and the test data that probes share. Runs in a child process: a wrong CPU feature ends it
 * with a signal. No state.
 */
#ifndef KT_TUNER_SELFTEST_H
#define KT_TUNER_SELFTEST_H

#include <stdbool.h>
#include <stdint.h>

#include "kern.h"

enum selftest { SELFTEST_OK, SELFTEST_WRONG, SELFTEST_NO_REF, SELFTEST_NO_MEMORY };

enum selftest selftest_run(const struct kern *row);

/* `rows` rows of k elements in file form with values of ordinary size; mem_free it. NULL when
 * memory is short or the type has no test data. */
void *selftest_rows(enum dtype t, uint32_t rows, uint32_t k, uint64_t seed);
/* n values in -1..1, none of them subnormal. */
void selftest_floats(float *x, size_t n, uint64_t seed);
/* Is the activation of this weight type quantised (block formats)? */
bool selftest_quantised(enum dtype t);

#endif
