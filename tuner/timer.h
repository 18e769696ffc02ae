/* timer.h - the only way in which the tuner sees time: a table of two functions. `live` times a
 * loaded engine, `replay` draws from a recorded table, `synthetic` from a formula with noise; the
 * clock of the last two is virtual, so a search over them is a pure function of its seed. A sample
 * that takes longer than limit_seconds is given up (TIMER_HUNG); the timer spends at most that
 * much. Owner: the thread that searches.
 */
#ifndef KT_TUNER_TIMER_H
#define KT_TUNER_TIMER_H

#include <stdint.h>

enum timer_result {
    TIMER_OK,
    TIMER_FAILED, /* this config cannot run: it is not asked again */
    TIMER_HUNG    /* longer than limit_seconds */
};

struct kt_timer {
    void *ctx;
    /* Time one sample of a config; rep counts the samples of this config from 0. */
    enum timer_result (*time)(void *ctx, uint32_t config, uint32_t rep, double *seconds);
    /* Seconds since any fixed moment. */
    double (*now)(void *ctx);
    /* Set by the search before each sample; NULL: the timer cannot give up. */
    double *limit_seconds;
};

#endif
