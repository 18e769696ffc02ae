/* timer_virtual.h - a timer whose clock is virtual: it advances by the samples that it hands out.
 * What a sample takes comes from a source (a formula, a recorded table) and from disturbances that
 * are injected: noise, drift, outliers, a clock with two speeds, a config that hangs. A pure
 * function of the seed. Owner: one thread.
 */
#ifndef KT_TUNER_TIMER_VIRTUAL_H
#define KT_TUNER_TIMER_VIRTUAL_H

#include "timer.h"

struct virtual_source {
    void *ctx;
    /* Undisturbed seconds of one sample; < 0: the config fails. */
    double (*seconds)(void *ctx, uint32_t config, uint32_t rep, uint64_t *rng);
};

struct virtual_faults {
    double cv;             /* log-normal noise of every sample, independent */
    double drift;          /* everything slows down by this share over drift_seconds */
    double drift_seconds;  /* then it stays; 0: no drift */
    double outliers;       /* share of samples that take outlier_factor times as long */
    double outlier_factor; /* 0: 10 */
    double slow_factor;    /* the second speed of the clock, as a factor of time; 0: one speed */
    double dwell_seconds;  /* mean time in one of the two speeds */
    int64_t hung;          /* this config never ends; -1: none */
};

struct virtual_timer {
    struct kt_timer timer;
    struct virtual_source source;
    struct virtual_faults faults;
    double now, limit, switch_at;
    int slow;
    uint64_t rng;
};

void virtual_faults_none(struct virtual_faults *f);
/* t->timer is ready to use; t must stay where it is. */
void virtual_open(struct virtual_timer *t, const struct virtual_source *source,
                  const struct virtual_faults *faults, uint64_t seed);

#endif
