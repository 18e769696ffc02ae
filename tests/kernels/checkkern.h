/* checkkern.h - what the parts of checkkern share: options, a random source, guarded buffers, the
 * trap for signals, counts and reporting.
 *
 * checkkern compares every row of the kernel table with its ref row, bit for bit. check_mm.c checks
 * the matrix products, check_vec.c everything else. A part returns 0 or 1 (something differed) and
 * reports through check_row. One thread.
 */
#ifndef KT_CHECKKERN_H
#define KT_CHECKKERN_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kern.h"

struct check_opts {
    bool list, bench;
    const char *func; /* substring of the row's name, or NULL */
    uint32_t isa;     /* rows with other bits are skipped: the CPU's, cut by --isa */
    uint64_t seed;
    const char *broken; /* --break=NAME: flip a bit of the output of rows with this name, to see
                           that the comparison notices; or NULL */
};

/* Parts. Each walks kern_table for its own ops. */
int check_mm(const struct check_opts *o);
int check_mm_bench(const struct check_opts *o);
int check_vec(const struct check_opts *o); /* also answers --bench */

/* ---- shared by the parts (checkkern.c) ---- */

struct check_rng {
    uint64_t s;
};
uint64_t check_u64(struct check_rng *r);
uint32_t check_below(struct check_rng *r, uint32_t n); /* 0..n-1 */
float check_uniform(struct check_rng *r);              /* -1..1 */
float check_normal(struct check_rng *r);               /* about N(0,1) */

/* A buffer between two inaccessible pages, whose end (rounded down to `align`) touches the rear
 * one; filled with a poison pattern. NULL: no memory. */
struct check_buf {
    uint8_t *p;
    size_t bytes;
    void *map;
    size_t map_bytes;
};
bool check_buf_open(struct check_buf *b, size_t bytes, size_t align);
void check_buf_close(struct check_buf *b);
void check_poison(void *p, size_t bytes);
bool check_is_poison(const void *p, size_t bytes);

/* Should this row run? Prints it with --list (and answers false); counts and prints a row whose ISA
 * is missing. */
bool check_wants(const struct check_opts *o, const struct kern *k);

/* if (sigsetjmp(check_trap, 1) == 0) { check_armed = true; run; check_armed = false; } else:
 * SIGILL, SIGSEGV, SIGBUS or SIGFPE came */
extern sigjmp_buf check_trap;
extern volatile bool check_armed;

/* Flip one bit in [p, p + bytes) if the row is the one of --break. Call it on a row's output before
 * comparing. */
void check_break(const struct check_opts *o, const struct kern *k, void *p, size_t bytes);

/* Count a row's result; what: NULL when it is right, else what differed (printed with the seed).
 * Returns 1 if what is set. */
int check_row(const struct check_opts *o, const struct kern *k, const char *what);

#endif
