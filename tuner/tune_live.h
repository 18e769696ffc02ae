/* tune_live.h - `kttune tune` on this machine. */
#ifndef KT_TUNER_TUNE_LIVE_H
#define KT_TUNER_TUNE_LIVE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "timer_live.h"

struct tune_live_args {
    const char *profile, *record;
    const char *state; /* notes of the search; NULL: beside the profile */
    struct live_opts live;
    const char *goal;
    double budget;
    uint32_t seed;
    bool json, restart;
    const volatile sig_atomic_t *stop;
};

/* Prints; an exit code of cmds.h. */
int tune_live(struct tune_live_args *a);

#endif
