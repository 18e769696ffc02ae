/* timer_replay.h - recorded timing tables, "kt.replay/1": the samples of every config of a space,
 * taken on a real host in interleaved rounds, so that a search can be repeated anywhere, with other
 * seeds and with disturbances. A search over a table is as pure as one over a formula. Owner: one
 * thread.
 *
 * File: {"schema": "kt.replay/1", "host": "sha256:..", "kernel_abi": "..", "model": "..", "shape":
 * {..}, "goal": "decode", "created": "..", "seed": 1, "reference": 0, "axes": [{"name": "threads",
 * "values": [2, 1]}, ..], "configs": [{"config": {..}, "samples": [0.021, ..]}, {"config": {..},
 * "failed": true}, ..]}
 */
#ifndef KT_TUNER_TIMER_REPLAY_H
#define KT_TUNER_TIMER_REPLAY_H

#include "space.h"
#include "timer_virtual.h"

#define REPLAY_SCHEMA "kt.replay/1"

struct replay {
    json_t *root;
    const char *host, *kernel_abi, *goal, *created, *model; /* into root */
    struct space space;
    uint32_t reference;
    double **samples; /* [space.n][n_samples[i]]; NULL: the config failed */
    uint32_t *n_samples;
    double *median; /* [space.n] of the samples; < 0: the config failed */
    double noise; /* share of each sample's distance from its median that is kept; 1: as recorded */
};

/* The whole file or an error that names path and rule: KT_E_NOT_FOUND, _IO, _LIMIT, _FORMAT,
 * _UNSUPPORTED, _NOMEM. */
kt_status replay_read(const char *path, struct replay *out, kt_err *err);
void replay_free(struct replay *r);
/* Draws one of the config's samples, each as likely. */
struct virtual_source replay_source(struct replay *r);
/* How noisy the table is: median over its configs of 1.4826 times the median distance of log t from
 * its median, as recorded. */
double replay_cv(const struct replay *r);

#endif
