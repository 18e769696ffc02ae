/* search.h - which of several configurations is fastest, and is that proved? A pure function of its
 * inputs, its seed and what the timer says: no clock, no files, no output.
 *
 * Every comparison is paired: a round times each live config once, in random order, between two
 * samples of the default, and what counts is the logarithm of a config's time over the default's at
 * that moment. Successive halving (2 rounds, keep the best third, half as many rounds again ..)
 * leaves at most four; 20 rounds choose among them, 20 fresh ones judge the choice. A choice that
 * the fresh rounds do not prove faster than the default is not made. Owner: one thread.
 */
#ifndef KT_TUNER_SEARCH_H
#define KT_TUNER_SEARCH_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "search_stats.h"
#include "timer.h"

#define SEARCH_FINALISTS 4
#define SEARCH_ROUNDS 20      /* of the choice, and again of the proof */
#define SEARCH_ROUNDS_MOST 40 /* of the choice, while it is open */

struct search_progress {
    const char *stage; /* "warm-up", "rung 1", "choice", "proof" */
    uint32_t round, rounds, live;
    bool has_best;
    uint32_t best;
    double best_gain;    /* of the best so far over the default */
    double left_seconds; /* of the budget */
};

struct search_in {
    uint32_t n, reference; /* configs 0..n-1; the default's number */
    const uint32_t *rank;  /* [n] simplicity, lower is simpler; NULL: the config's number */
    const double *prior;   /* [n] predicted seconds: what is timed when not all can be; NULL */
    double budget_seconds;
    uint64_t seed;
    const volatile sig_atomic_t *stop; /* set: end as at the deadline; NULL: never */
    void (*progress)(void *user, const struct search_progress *p); /* before each round; or NULL */
    void *user;
};

enum search_stop {
    SEARCH_PROVED,
    SEARCH_EQUIVALENT, /* the best is within 1 % of the default */
    SEARCH_BUDGET,     /* time was up, or it was interrupted */
    SEARCH_TOO_NOISY,  /* the best is less than 5 % away, and the noise above 10 % */
    SEARCH_EXHAUSTED   /* all rounds done, nothing proved; or nothing to choose from */
};
const char *search_stop_name(enum search_stop s);

enum search_fate {
    SEARCH_NOT_TIMED,
    SEARCH_DROPPED, /* in rung `rung` */
    SEARCH_FINAL,
    SEARCH_REFERENCE,
    SEARCH_FAILED,
    SEARCH_HUNG
};

struct search_config {
    enum search_fate fate;
    uint32_t rung;
    uint32_t samples;
    double score; /* median of log(t / t_default) over the rungs' rounds; NAN */
};

/* One of the last configs: its time against the default's, as logarithms. */
struct search_finalist {
    uint32_t config;
    struct span choice, proof; /* of log(t / t_default) */
    uint32_t n_choice, n_proof;
    double choice_log[SEARCH_ROUNDS_MOST], proof_log[SEARCH_ROUNDS]; /* NAN: not timed */
    struct span behind; /* of log(t / t_chosen), from the fresh rounds where there are any */
};

struct search_out {
    uint32_t chosen; /* the default unless proved */
    bool proved, interrupted;
    enum search_stop stop;
    double noise_cv, default_seconds; /* robust; median of the warm-up */
    uint32_t timed, failed, hung, rungs, samples;
    struct span gain;   /* t_default / t_chosen - 1; n 0 when the default was kept */
    struct span regret; /* 1 - t_best / t_chosen over the other finalists: median, and hi the upper
                           95 % bound; n their number */
    struct search_finalist finalist[SEARCH_FINALISTS];
    uint32_t n_finalists;
    struct search_config *config; /* [n] */
    double elapsed_seconds;
    char missing[128]; /* what the deadline or an interruption cut; "" */
};

/* KT_OK with *out filled (search_free it) also when nothing was found; KT_E_INVALID for an empty
 * space, KT_E_DEVICE when the default itself cannot be timed, KT_E_NOMEM. */
kt_status search_run(const struct search_in *in, struct kt_timer *timer, struct search_out *out,
                     kt_err *err);
void search_free(struct search_out *out);

#endif
