/* tune_prune.h - which combinations of a space are not worth timing, by which rule, and a forecast
 * for the others. A rule speaks only where the profile has clean measurements for it. Pure. */
#ifndef KT_TUNER_TUNE_PRUNE_H
#define KT_TUNER_TUNE_PRUNE_H

#include "tune.h"

struct tune_prune {
    const struct space *s;
    const struct live *l;
    const struct profile *p; /* may be NULL */
    const struct tune_job *j;
    struct tune_pruned *out;
    /* index of the axis, -1: none */
    int threads, kernel, claim, gemm_claim, pages, smt, pools;
    double step_above_knee; /* most threads worth timing; 0: no knee */
    double claim_most, gemm_claim_most;
    bool failed[SPACE_VALUES];                   /* by kernel: its self-test */
    double forecast[SPACE_VALUES][SPACE_VALUES]; /* [threads][kernel] seconds; 0: unknown */
    double least;
};

void tune_prune_begin(struct tune_prune *x, const struct space *s, const struct live *l,
                      const struct profile *p, const struct tune_job *j, struct tune_pruned *out);
/* For space_build: ctx is a struct tune_prune. */
bool tune_prune_keep(void *ctx, const uint8_t *at, double *prior);

#endif
