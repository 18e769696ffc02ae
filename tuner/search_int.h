/* search_int.h - what the files of the search share: its state, one sample, one round. Not for
 * others. Owner: search_run's caller. Sample times are kept as logarithms; NAN means "not timed in
 * that round".
 */
#ifndef KT_TUNER_SEARCH_INT_H
#define KT_TUNER_SEARCH_INT_H

#include "search.h"

#define EQUIVALENT 0.01 /* closer than this is the same */
#define NOISY_CV 0.10   /* above it configs closer than NOISY_APART are not ranked */
#define NOISY_APART 0.05
#define HUNG_FACTOR 30.0 /* a sample that takes so many times the default's is given up */

struct search {
    const struct search_in *in;
    struct kt_timer *timer;
    struct search_out *out;
    uint64_t rng;
    double start, deadline;
    double apart;    /* two samples of one config further apart than this: a disturbance */
    bool over;       /* deadline or interruption */
    uint32_t misses; /* rounds in a row without a sample of the default */
    /* scratch, [n] */
    uint32_t *live, *order;
    double *row, *when, *work;
    uint32_t n_live;
};

uint32_t search_rank(const struct search *s, uint32_t config);
double search_left(const struct search *s);
/* One sample; its logarithm, or NAN: then s->over is set, or the config is dead. */
double search_sample(struct search *s, uint32_t config);
/* Every live config once, the default first and last: s->row[i] = log(t / t_default) of live[i], or
 * NAN. Dead configs leave s->live. False when the round could not be finished: its row is void. */
bool search_round(struct search *s);
void search_tell(const struct search *s, struct search_progress *p);

/* search_final.c: choose among s->live, prove, fill the verdict */
void search_finish(struct search *s);

#endif
