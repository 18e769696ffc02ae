/* tuned.h - the tunings of a profile that apply to the engine that is being opened. */
#ifndef KT_ENGINE_TUNED_H
#define KT_ENGINE_TUNED_H

#include "engine.h"
#include "profile/profile.h"

struct eng_tuned {
    struct profile_tuning decode, prefill; /* zero without has_ */
    bool has_decode, has_prefill;
    uint32_t threads;        /* 0: the plan's */
    const char *kernel;      /* level; NULL: the best usable */
    const char *pages, *smt; /* NULL: as built in */
    uint32_t pools;          /* 0: all */
    const char *created;     /* of the tuning that they are from */
};

void eng_tuned_find(const struct kt_engine *e, const kt_engine_opts *o, const char *abi,
                    struct eng_tuned *t);
void eng_tuned_knobs(const struct eng_tuned *t, struct eng_knobs *k);
/* When GEMM replaces GEMV: the user's number, else the tuning's, else a configuration file's, else
 * what the profile measured for each format, else each kernel's own. */
kt_status eng_tuned_rows(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                         kt_err *err);
kt_status eng_rows_say(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                       kt_err *err);
/* Pages of the weights, SMT and pools: the user's, else the tuning's, else the configuration
 * file's. KT_E_INVALID for an unknown word. */
kt_status eng_tuned_places(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                           struct plan_opts *po, kt_err *err);
/* Reserved pages that a tuning counts on are not there: the default instead, said in log and plan.
 */
kt_status eng_tuned_pages_gone(struct kt_engine *e, const char *why, kt_err *err);
/* Rows of the plan: what was taken over and from where, or why nothing. */
kt_status eng_tuned_say(const struct eng_tuned *t, struct plan *plan, kt_err *err);

#endif
