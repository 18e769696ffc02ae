/* plan.h - choices from facts: pools, threads and their reasons. Pure: same inputs, same plan; no I/O, no clock, no randomness.
 * The model-dependent part (memory budget, KV pages) is plan_memory.h.
 */
#ifndef KT_PLAN_H
#define KT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "host/host.h"

struct profile; /* profile/profile.h; may be NULL everywhere */

struct plan_pool {
    int32_t node; /* OS index of its memory; -1 when the pool spans all nodes */
    int32_t *mems; /* nodes that its memory is bound to */
    uint32_t n_mems;
    int32_t *cpus; /* one PU (P#) per core of the pool, in the order threads are placed */
    uint32_t n_cpus;
    struct host_set pus; /* all allowed PUs of its cores */
    uint32_t threads;
    double share; /* of output rows, sums to 1 over pools */
    bool local;   /* its CPUs are near its memory */
};

struct plan_alternative {
    char value[32];
    double loss; /* relative time lost by taking it */
    bool distinguishable;
};

struct plan_decision { /* one row of host.json decisions */
    char id[64];
    char *value_json; /* JSON text of the value */
    const char *unit; /* NULL: none */
    const char *origin; /* "measured", "model", "interpolated", "default", "limit", "user" */
    char *why;
    char **because; /* measurement ids */
    uint32_t n_because;
    struct plan_alternative *alternatives;
    uint32_t n_alternatives;
    double margin; /* NAN: null */
    char **would_change_if;
    uint32_t n_would_change_if;
    const char *confidence, *goal;
};

struct plan {
    struct plan_pool *pools;
    uint32_t n_pools, n_threads;
    struct host_set homeless;
    uint32_t isa; /* KERN_ISA_* bits that kernels may use */
    struct plan_decision *decisions;
    uint32_t n_decisions;
    struct host_warning *warnings; /* codes that only the plan can know: KT004, KT005, KT006.. */
    uint32_t n_warnings;
};

struct plan_opts {
    uint32_t threads;   /* 0: choose */
    int reserve;        /* cores kept for server and copy threads; -1: by the rule */
    uint32_t isa_mask;  /* ISA bits allowed by the user; UINT32_MAX: all */
};

/* Topology, limits and (when a matching profile has curves) measured knees into pools and threads. */
kt_status plan_host(const struct host *h, const struct profile *p, const struct plan_opts *o, struct plan **out, kt_err *err);
void plan_free(struct plan *p);
/* Human-readable lines: "threads.node0 = 12   why: ..". */
void plan_print(const struct plan *p, struct strbuf *out);

#endif
