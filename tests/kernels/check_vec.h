/* check_vec.h - between the parts of checkkern's vector half: comparison (check_vec.c,
 * check_attn.c) and speed (check_vec_bench.c). */
#ifndef KT_CHECK_VEC_H
#define KT_CHECK_VEC_H

#include "checkkern.h"

/* KERN_ATTN, with the KERN_ATTN_JOIN of the same ISA (check_attn.c). */
int check_attn(const struct check_opts *o, const struct kern *k);

/* A value: mode 0 ordinary, 1 forty times that, 2 any finite exponent, 3 special and finite, 4
 * special. */
float check_float(struct check_rng *r, int mode);
/* Index of the first of n elements (kinds as in check_vec.c) that differs, n if none. */
size_t check_differs(char kind, const void *a, const void *b, size_t n);

/* checkkern --bench for the vector ops: ns per call, and GB/s of keys and values for attention.
 * Never fails a row. */
int check_vec_bench(const struct check_opts *o);

#endif
