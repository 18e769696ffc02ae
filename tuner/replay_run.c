/* replay_run.c - one search over a recorded table, and how far its choice is from the table's best.
 * Truth is the table's median of each config: the search sees single samples in the order of its
 * own rounds. The clock is virtual, so the same table, seed and disturbances give the same bytes on
 * every machine. Prints nothing.
 */
#include <math.h>

#include "tune_replay.h"

#define DWELL_SAMPLES 60 /* mean number of samples between two changes of speed */

double tune_replay_regret(const struct replay *r, uint32_t chosen)
{
    double best = r->median[r->reference];
    for (uint32_t i = 0; i < r->space.n; i++) {
        double m = r->median[i];
        if (m > 0 && m < best)
            best = m;
    }
    return 1 - best / r->median[chosen];
}

kt_status tune_replay_once(struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                           struct search_out *out, kt_err *err)
{
    struct virtual_timer t;
    struct virtual_faults f;
    struct virtual_source src = replay_source(r);
    double each = r->median[r->reference];
    virtual_faults_none(&f);
    f.drift = a->drift;
    f.drift_seconds = a->drift > 0 ? fmin(a->budget, each * (3.0 * r->space.n + 400)) : 0;
    f.outliers = a->outliers;
    f.slow_factor = a->slow;
    f.dwell_seconds = DWELL_SAMPLES * each;
    virtual_open(&t, &src, &f, seed);
    struct search_in in = {.n = r->space.n,
                           .reference = r->reference,
                           .rank = r->space.rank,
                           .budget_seconds = a->budget,
                           .seed = seed};
    return search_run(&in, &t.timer, out, err);
}
