/* verify_regret.h - `kttune verify F --regret`. */
#ifndef KT_TUNER_VERIFY_REGRET_H
#define KT_TUNER_VERIFY_REGRET_H

#include "timer_live.h"

struct verify_regret_args {
    const char *profile;
    const char *replay; /* table in place of this machine; NULL: live */
    const char *chosen; /* JSON of a config to judge; NULL: what the profile's tuning chose */
    const char *goal;   /* NULL: decode, or the table's */
    struct live_opts live;
    double budget;
    uint32_t seed;
};

/* Prints; an exit code of cmds.h: 5 when the bound is not met, 2 when time was up before. */
int verify_regret(struct verify_regret_args *a);

#endif
