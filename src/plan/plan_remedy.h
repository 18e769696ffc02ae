/* plan_remedy.h - what the search for remedies (plan_remedy.c) and their words
 * (plan_remedy_text.c) share: a set of changes and the search that tries it. Not for other files.
 * Owner: plan_remedies' caller.
 */
#ifndef KT_PLAN_REMEDY_H
#define KT_PLAN_REMEDY_H

#include "plan/plan_model.h"

#define GB 1e9
#define REMEDY_TIERS 8

enum { FORMAT = 1, DENSE = 2, KV = 4, CTX = 8, PARALLEL = 16, TIER = 32, LIMIT = 64, MEMORY = 128 };

struct change {
    uint32_t kinds;
    int format;                                 /* place in the ladder of formats; -1: as it is */
    uint32_t dense;                             /* the same of the other matrices; 0: as it is */
    const char *experts, *others, *others_bits; /* names of both formats; bits of a weight */
    uint32_t ctx, parallel;
    int tier;     /* of search.tier; -1: as it is */
    double bits;  /* of the experts then */
    double saved; /* bytes of experts */
    double limit; /* bytes; 0: as it is */
    double added; /* bytes of memory on all nodes together */
    double cost;
    bool pointless; /* a part of it does as well at no higher cost */
    bool useless;   /* and with no more memory */
    bool taken;
};

struct search {
    const struct plan_model *m;
    const struct host *h;
    struct shape shape; /* with its own layers, rewritten by every trial */
    struct shape_layer *layers;
    struct plan plan;
    struct plan_pool *pools;
    double *node; /* [n_pools] bytes that the pool's memory must have */
    char tier[REMEDY_TIERS][48];
    int n_tiers;
    struct change *found;
    uint32_t n, most;
    kt_status status;
    kt_err *err;
};

/* Bits of an expert's weight; 0 without experts. */
double remedy_bits(const struct shape *s);
/* Bytes of all pools' memory now. */
double remedy_present(const struct search *w);
/* c in words; search.node has the sizes that its memory needs. */
void remedy_say(const struct search *w, const struct change *c, struct plan_remedy *r);

#endif
