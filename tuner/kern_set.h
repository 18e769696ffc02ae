/* kern_set.h - one matrix product at a time on cold weights: every thread of a team owns as many
 * packed copies of a matrix as no cache can keep, and goes through them in turn. Threads share the
 * activations and nothing else, so the set says what a kernel does, not how work is divided. Owner:
 * the thread that opened it.
 */
#ifndef KT_TUNER_KERN_SET_H
#define KT_TUNER_KERN_SET_H

#include <stdint.h>

#include "base/status.h"
#include "kern.h"

struct kern_set;

struct kern_set_opts {
    uint32_t n_threads;
    const int *cpus; /* [n_threads]; the caller is pinned to the first until the set is closed */
    enum dtype type;
    enum kern_layout layout;
    uint32_t rows, k;
    uint32_t max_tokens;
    uint64_t bytes; /* of the whole set, at least */
};

kt_status kern_set_open(const struct kern_set_opts *o, struct kern_set **out, kt_err *err);
void kern_set_close(struct kern_set *s);
/* Each thread multiplies the next `times` of its matrices with `tokens` activation rows; seconds
 * from the common start to the last end. */
double kern_set_run(struct kern_set *s, const struct kern *row, uint32_t tokens, uint32_t times);

#endif
