/* check_vec.h - between the two halves of checkkern's vector part: comparison (check_vec.c) and
 * speed (check_vec_bench.c). */
#ifndef KT_CHECK_VEC_H
#define KT_CHECK_VEC_H

#include "checkkern.h"

/* checkkern --bench for the vector ops: ns per call, and GB/s of keys and values for attention.
 * Never fails a row. */
int check_vec_bench(const struct check_opts *o);

#endif
