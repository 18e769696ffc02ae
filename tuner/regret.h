/* regret.h - is a chosen config near the best? It is timed against up to 59 random others in paired
 * rounds: with 59 drawn, the best of them is in the top 5 % of the space with a probability of 95
 * %. A few rounds find the eight fastest, fresh rounds judge: what chose them cannot also judge
 * them. Pure, like the search. Owner: one thread.
 */
#ifndef KT_TUNER_REGRET_H
#define KT_TUNER_REGRET_H

#include "search.h"

#define REGRET_RIVALS 59
#define REGRET_TOP 8
#define REGRET_MOST 0.05 /* the upper 95 % bound may be so much */

struct regret_in {
    uint32_t n, chosen; /* configs 0..n-1 */
    uint32_t rival[REGRET_RIVALS], n_rivals;
    double budget_seconds;
    uint64_t seed;
    const volatile sig_atomic_t *stop; /* NULL: never */
    void (*progress)(void *user, const struct search_progress *p);
    void *user;
};

struct regret_out {
    uint32_t rivals, failed, rounds; /* timed; failed or hung; fresh rounds */
    uint32_t best;                   /* the fastest rival; UINT32_MAX: none was timed */
    double median, upper;            /* 1 - t_best / t_chosen, and its upper 95 % bound */
    double noise_cv, chosen_seconds, seconds;
    bool complete; /* false: time was up, nothing is proved */
    bool met;      /* complete, and upper <= REGRET_MOST */
};

/* KT_E_DEVICE: the chosen config itself cannot be timed. */
kt_status regret_run(const struct regret_in *in, struct kt_timer *timer, struct regret_out *out,
                     kt_err *err);
/* Draw up to 59 of the configs 0..n-1 without `chosen`. */
uint32_t regret_draw(uint32_t n, uint32_t chosen, uint64_t seed, uint32_t out[REGRET_RIVALS]);

#endif
