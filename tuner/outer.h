/* outer.h - the outer level of a search: what is fixed when weights are loaded (pages, SMT, pools).
 *
 * First the inner search over all that one loaded engine can switch. Then each value of an outer
 * axis is tried by itself: some configs with it against the best so far, in paired rounds of two
 * engines that are loaded at once. A value is taken when fresh rounds prove it faster than what was
 * best before; what was taken step by step must at last be proved against the default itself. Pure,
 * like the inner search: config numbers, a seed and a timer. Owner: one thread.
 */
#ifndef KT_TUNER_OUTER_H
#define KT_TUNER_OUTER_H

#include "search.h"

#define OUTER_CONFIGS 4
#define OUTER_TRIES 8

enum outer_fate {
    OUTER_OPEN,    /* not tried yet */
    OUTER_ABSENT,  /* the host does not offer it */
    OUTER_REFUSED, /* it could not be compared fairly */
    OUTER_NO_TIME,
    OUTER_FAILED, /* no sample */
    OUTER_KEPT,   /* not proved faster: what was before stays */
    OUTER_PROVED
};
const char *outer_fate_name(enum outer_fate f);

struct outer_try {
    char axis[16], value[16];
    uint32_t threads; /* of its engine as opened; 0: those of the default */
    enum outer_fate fate;
    char reason[200];
    struct span gain; /* PROVED: over what was best before */
};

struct outer_in {
    struct search_in search; /* of the inner level; its budget is that of everything */
    double try_seconds;      /* one try, loading included */
    /* Configs of a try beside the best so far; their number, 0: none. */
    uint32_t (*configs)(void *ctx, const struct outer_try *t, uint32_t best,
                        uint32_t out[OUTER_CONFIGS]);
    uint32_t (*rank)(void *ctx, uint32_t config);
    void *ctx;
};

/* As search_run; config numbers in *out are the caller's. Tries with fate OUTER_OPEN are made, and
 * none has it afterwards. */
kt_status outer_run(const struct outer_in *in, struct outer_try *tries, uint32_t n,
                    struct kt_timer *timer, struct search_out *out, kt_err *err);

#endif
