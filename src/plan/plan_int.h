/* plan_int.h - what the files that plan a host share: the plan under construction and text for its
 * reasons. Not for other rooms. Owner: plan_host's caller; `oom` remembers a failed allocation
 * until the end, where it becomes KT_E_NOMEM.
 */
#ifndef KT_PLAN_INT_H
#define KT_PLAN_INT_H

#include "plan/plan.h"

struct work {
    const struct host *h;
    struct plan_opts o;
    struct plan *p;
    int32_t *owner;      /* [n_cores] index of the pool that has the core; -1: none */
    bool *eligible;      /* [n_cores] allowed, and of a class that works */
    uint32_t reserve;    /* cores kept for server and copy threads */
    uint32_t pool_cores; /* cores in pools before pools were dropped */
    uint32_t cap;        /* T before the user's wish */
    uint32_t n_classes;
    bool fast_only;   /* only the fastest class works */
    bool remote;      /* no local pool (KT006) */
    int32_t *dropped; /* nodes of pools that were dropped for want of threads */
    uint32_t n_dropped;
    bool oom;
};

/* NULL when the profile has nothing about this node. */
const struct plan_measured *plan_measured_of(const struct plan_opts *o, int32_t node);
const struct host_node *plan_node(const struct host *h, int32_t os);

/* plan_tiers.c: memory nodes that are no pools, and the node of each GPU */
void plan_tiers(struct work *w);
void plan_gpus(struct work *w);
/* plan_explain.c: the rows of `decisions` and `warnings` */
void plan_explain(struct work *w);
void plan_warn(struct work *w, const char *code, const char *about, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#endif
