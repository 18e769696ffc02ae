/* plan_args.h - what `kttune plan`, `explain` and tests of both share: a host from a profile or a
 * topology with what-ifs applied, and its plan. Owner: the program's thread; plan_args_close frees.
 */
#ifndef KT_TUNER_PLAN_ARGS_H
#define KT_TUNER_PLAN_ARGS_H

#include "plan/plan_model.h"

#define PLAN_SETS 64

struct plan_args {
    const char *profile_path, *topology; /* exactly one */
    const char *set[PLAN_SETS];          /* KEY=VALUE */
    uint32_t n_set;
    uint32_t threads;
    int reserve;
    bool rules_only;           /* tunings are told, but the plan is what the rules give */
    const struct shape *shape; /* for tunings of the profile; NULL: none are looked up */
    /* results */
    struct profile *profile; /* NULL with a topology, unless a --set names a measurement */
    struct host *host;
    struct plan *plan;
};

void plan_args_init(struct plan_args *a);
/* Read, apply what-ifs, plan. KT_E_INVALID: a KEY or value; else as profile_read and host_read. */
kt_status plan_args_open(struct plan_args *a, kt_err *err);
void plan_args_close(struct plan_args *a);

/* plan_tuned.c: what the profile's tunings ask for, false when nothing; rows that say so. */
bool plan_tuned_opts(const struct plan_args *a, const struct plan *p, struct plan_opts *o);
kt_status plan_tuned_say(const struct plan_args *a, struct plan *p, kt_err *err);

#endif
