/* tuned.h - the tunings of a profile that apply to the engine that is being opened. */
#ifndef KT_ENGINE_TUNED_H
#define KT_ENGINE_TUNED_H

#include "engine.h"
#include "profile/profile.h"

struct eng_tuned {
    struct profile_tuning decode, prefill; /* zero without has_ */
    bool has_decode, has_prefill;
    uint32_t threads;    /* 0: the plan's */
    const char *kernel;  /* level; NULL: the best usable */
    const char *created; /* of the tuning that they are from */
};

void eng_tuned_find(const struct kt_engine *e, const kt_engine_opts *o, const char *abi,
                    struct eng_tuned *t);
void eng_tuned_knobs(const struct eng_tuned *t, struct eng_knobs *k);
/* Rows of the plan: what was taken over and from where, or why nothing. */
kt_status eng_tuned_say(const struct eng_tuned *t, struct plan *plan, kt_err *err);

#endif
