/* plan.h - choices from facts: pools, threads and their reasons. Pure: same inputs, same plan; no
 * I/O, no clock, no randomness. The model-dependent part (memory budget, KV pages) is
 * plan_memory.h.
 */
#ifndef KT_PLAN_H
#define KT_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "host/host.h"

/* What a matching profile measured about one node, handed in by whoever reads profiles. */
struct plan_measured {
    int32_t node;
    uint32_t knee_threads;        /* smallest T with >= 97 % of the best read rate; 0: no curve */
    double knee_bytes_per_second; /* read rate at the knee; 0: unknown */
    double read_bytes_per_second; /* best read rate; 0: unknown. Row shares follow it */
    uint32_t best_threads;        /* T of the best rate; 0: unknown */
    const char *const *because;   /* measurement ids */
    uint32_t n_because;
};

struct plan_pool {
    int32_t node;  /* OS index of its memory; -1 when the pool spans all nodes */
    int32_t *mems; /* nodes that its memory is bound to */
    uint32_t n_mems;
    int32_t *cpus; /* one PU (P#) per core of the pool, in the order threads are placed */
    uint32_t n_cpus;
    uint32_t n_places;   /* of cpus: n_cpus, or more where SMT siblings work too; they come last */
    double *weights;     /* [n_cpus] speed of each core relative to the fastest class: 1 unless core
                            classes are mixed */
    struct host_set pus; /* all allowed PUs of its cores */
    uint32_t threads;
    double share;   /* of output rows, sums to 1 over pools */
    bool local;     /* its CPUs are near its memory */
    uint64_t bytes; /* of its memory; HOST_UNKNOWN_BYTES */
};

struct plan_tier { /* an allowed memory node that no pool works from by default */
    int32_t node;
    enum host_tier tier;
    uint64_t bytes;
    int32_t *pools; /* nodes of the pools that it is near to, ascending */
    uint32_t n_pools;
    bool usable; /* false: unknown tier that nobody measured or named (KT004) */
};

struct plan_gpu {
    uint32_t gpu; /* index into host.gpus */
    int32_t node; /* pool node for its staging buffers; -1: none known */
    bool moved;   /* its own node is forbidden: the nearest allowed one (KT030) */
};

struct plan_alternative {
    char value[32];
    double loss; /* relative time lost by taking it */
    bool distinguishable;
};

struct plan_decision { /* one row of host.json decisions */
    char id[64];
    char *value_json;   /* JSON text of the value */
    const char *unit;   /* NULL: none */
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
    uint32_t threads_max; /* T of host-profile section 6: the sum over pools may be smaller (knees)
                             but never larger */
    struct plan_tier *tiers;
    uint32_t n_tiers;
    struct plan_gpu *gpus; /* CUDA devices only */
    uint32_t n_gpus;
    struct host_set homeless; /* allowed PUs of no pool */
    uint32_t isa;             /* HOST_ISA_* (= KERN_ISA_*) bits that kernels may use */
    struct plan_decision *decisions;
    uint32_t n_decisions;
    struct host_warning *warnings; /* codes that only the plan can know: KT004, KT005, KT006.. */
    uint32_t n_warnings;
};

/* What the second and further PUs of a core do. */
enum plan_smt {
    PLAN_SMT_OFF,    /* nothing is planned for them */
    PLAN_SMT_SERVER, /* one worker on every core; siblings are left to server threads, so that no
                        core is kept for them */
    PLAN_SMT_ALL     /* a worker on every PU */
};
const char *plan_smt_name(enum plan_smt s); /* "off", "server", "on": also the option values */
int plan_smt_by_name(const char *name);     /* -1 for another name */

struct plan_opts {
    uint32_t threads;        /* 0: choose */
    const char *threads_why; /* who chose `threads`, when it was not the user; NULL: the user */
    int reserve;             /* cores kept for server and copy threads; -1: by the rule */
    uint32_t isa_mask;       /* ISA bits allowed by the user; UINT32_MAX: all */
    enum plan_smt smt;
    uint32_t pools;    /* at most so many, those with most bandwidth; 0: all */
    const char *pages; /* what weights lie in: "thp", "4k", "hugetlb"; NULL: the default */
    const char *smt_why, *pages_why;      /* who chose them; NULL: the user */
    const struct plan_measured *measured; /* NULL: no profile */
    uint32_t n_measured;
};
void plan_opts_init(struct plan_opts *o);

/* Topology, limits and (when a matching profile has curves) measured knees into pools and threads.
 * o may be NULL (defaults).
 * @return KT_OK with *out owned by the caller; KT_E_INVALID when o->threads exceeds the allowed
 * cores; KT_E_NOMEM */
kt_status plan_host(const struct host *h, const struct plan_opts *o, struct plan **out,
                    kt_err *err);
/* A decision that was made elsewhere. */
struct plan_note {
    const char *id, *text; /* text NULL: the value is the number */
    uint64_t number;
    const char *unit, *origin, *why, *goal; /* unit, origin and goal static; unit may be NULL */
    bool exact;                             /* of this very case, not of a similar one */
};
kt_status plan_note(struct plan *p, const struct plan_note *n, kt_err *err);
/* Takes out the decision of this id, if there is one: what it said does not hold. */
void plan_forget(struct plan *p, const char *id);
void plan_free(struct plan *p);
/* Human-readable lines: "threads.node0 = 12   why: ..". */
void plan_print(const struct plan *p, struct strbuf *out);

#endif
