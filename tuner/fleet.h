/* fleet.h - several loaded engines behind one timer: each config belongs to a layout (what is fixed
 * at load), each layout to an engine in a process of its own. Two are loaded at once, so that a
 * round can hold configs of both; a third takes the place of the one that was asked longest ago.
 * Owner: one thread of a process that has no engine of its own.
 */
#ifndef KT_TUNER_FLEET_H
#define KT_TUNER_FLEET_H

#include "timer_live.h"

#define FLEET_SLOTS 2

/* What is fixed at load; zero: as planned. */
struct fleet_layout {
    char pages[12], smt[12];
    uint32_t pools;
};

struct fleet {
    struct kt_timer timer;
    struct live slot[FLEET_SLOTS]; /* slot 0: opened by the caller with the layout of zeros */
    struct fleet_layout layout[FLEET_SLOTS];
    uint64_t asked[FLEET_SLOTS], asks; /* 0: empty */
    /* What a config is; set before the first sample. */
    void (*config)(void *ctx, uint32_t config, struct fleet_layout *layout,
                   struct live_config *out);
    void *ctx;
    double limit;
    char reason[200]; /* why an engine could not be loaded, the latest */
};

/* Slot 0 loaded as o says; its sample length is taken over by the others. fleet_close accepts a
 * failed or zeroed one. */
kt_status fleet_open(struct fleet *f, const struct live_opts *o, kt_err *err);
void fleet_close(struct fleet *f);

#endif
