/* bench_rounds.h - rounds of a benchmark: every item once a round, in random order, so that a
 * machine that slows down slows all of them; the ceilings are items like the others; figures are
 * medians and quartiles over the rounds, and a share divides two figures of one round.
 * Owner: the program's main thread.
 */
#ifndef KT_TUNER_BENCH_ROUNDS_H
#define KT_TUNER_BENCH_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json_out.h"
#include "base/status.h"
#include "stats.h"

#define ROUNDS_MOST 100
#define ROUNDS_ITEMS 272

struct rounds {
    uint32_t n, n_items; /* rounds that count; items, at most ROUNDS_ITEMS */
    uint64_t rng;
    void *ctx;
    kt_status (*item)(void *ctx, uint32_t item, uint32_t round, kt_err *err);
    void (*after)(void *ctx, uint32_t round); /* the round's shares; NULL: nothing */
    bool warm_up;                             /* first a round whose figures are overwritten */
    void (*warm)(void *ctx);                  /* after it: sizes of samples; NULL: nothing */
    bool show;                                /* "round 2 of 7" on a terminal */
};

/* One round, its figures at index `round`. */
kt_status rounds_one(struct rounds *r, uint32_t round, kt_err *err);
/* Warm-up if wanted, then rounds 0 to n - 1. */
kt_status rounds_run(struct rounds *r, kt_err *err);
/* Warm-up if wanted, then a round at index 0 for every line on standard input (paced.h), each
 * followed by report(ctx). */
kt_status rounds_paced(struct rounds *r, void (*report)(void *ctx), kt_err *err);
/* How often to repeat what takes `once` seconds, for a sample of `sample` seconds; 1 to most. */
uint32_t rounds_times(double sample, double once, uint32_t most);

/* "MXFP4: 2 of 5 formats" on a terminal. */
void rounds_show_format(const char *name, uint32_t i, uint32_t n);

/* ---- ceilings beside the items ---- */

enum { CEIL_READ, CEIL_INT8, CEIL_SCALED, N_CEILINGS }; /* the first items of a benchmark */

struct ceiling;
struct ceilings {
    struct ceiling *c;
    uint32_t isa; /* of the kernels that are compared */
    double read_bps[ROUNDS_MOST], int8_ops[ROUNDS_MOST], scaled_ops[ROUNDS_MOST];
};
void ceilings_sample(struct ceilings *c, uint32_t item, uint32_t round);

/* ---- figures ---- */

/* Of v[n], or of v / by where `by` is given: NAN for a round where it is not positive. */
struct stats rounds_stats(const double *v, const double *by, uint32_t n);
/* "key": {"median": , "q1": , "q3": } */
void rounds_put(struct json_out *j, const char *key, const struct stats *s, double scale);

struct rounds_line { /* of a table: label, median, quartiles, unit */
    const char *key, *label, *unit;
    const double *v; /* [rounds] */
    double scale;
    bool share; /* of a ceiling: per cent in the table */
};
/* JSON: key, key_q1, key_q3. width: of the label, 0: no text. none: there is no such figure. */
void rounds_line(const struct rounds_line *l, uint32_t n, bool none, int width, struct json_out *j);

#endif
