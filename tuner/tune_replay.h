/* tune_replay.h - `kttune tune --backend replay:TABLE`: the search against a recorded table, with
 * disturbances, and how far its choice is from the table's best. */
#ifndef KT_TUNER_TUNE_REPLAY_H
#define KT_TUNER_TUNE_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "search.h"
#include "timer_replay.h"

struct tune_replay_args {
    const char *path;
    double drift, outliers, slow; /* slow: factor of the second speed; 0: one speed */
    double noise_cv;              /* scale the table's noise to this; 0: as recorded */
    double budget;
    uint32_t seed, seeds; /* seeds 0: one search, reported in full */
    const char *state;    /* file that a killed search goes on from; NULL: none */
    bool restart;         /* do not read it */
    bool json;
};

/* What became of the file `state`. */
struct tune_replay_state {
    uint32_t resumed; /* samples taken over */
    char reason[256]; /* why none; "" */
};

/* Prints; an exit code of cmds.h. */
int tune_replay(const struct tune_replay_args *a);
/* replay_run.c. One search; same arguments, same *out (search_free it), also when a->state goes on
 * from a search that was killed. */
kt_status tune_replay_once(struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                           struct search_out *out, kt_err *err);
/* The same; *told (may be NULL) says what became of a->state. */
kt_status tune_replay_resume(struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                             struct search_out *out, struct tune_replay_state *told, kt_err *err);
/* 1 - t_best / t_chosen by the medians of the table. */
double tune_replay_regret(const struct replay *r, uint32_t chosen);

#endif
