/* rates.h - the constants of cost.h for one host and one expert format, read from a profile, each
 * with where it came from. A measured value wins; what was not measured follows one stated rule
 * for every host (docs/COST.md lists the rules); what has neither is missing, and then nothing is
 * predicted. Reads the profile only: no I/O, no clock; any thread.
 */
#ifndef KT_COST_RATES_H
#define KT_COST_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "cost/cost.h"
#include "profile/profile.h"

enum cost_constant {
    COST_CPU_READ,  /* B_C */
    COST_CPU_OPS,   /* P_C */
    COST_DRAM,      /* B_D: read rate of all nodes */
    COST_LINK,      /* B_P, all devices together */
    COST_FAST_READ, /* B_G, all devices together */
    COST_FAST_OPS,  /* P_G */
    COST_OVERLAP,   /* eta */
    COST_BARRIER,   /* one barrier of the worker team */
    COST_JOIN,      /* s */
    COST_LAUNCH,    /* g0 */
    COST_MERGE,     /* mrg */
    COST_LAYER,     /* a_g: small kernels of a layer on a device, beside what they read */
    COST_CONSTANTS
};

enum cost_origin { COST_MISSING, COST_RULE, COST_DATASHEET, COST_MEASURED };
const char *cost_origin_name(enum cost_origin o);

struct cost_source {
    const char *symbol, *unit, *what; /* "B_C", "bytes_per_second", words for people */
    double value;
    enum cost_origin origin;
    char from[160]; /* measurement id, or the rule */
};

struct cost_pool {
    int32_t node;
    uint32_t threads;
};

/* What stands behind a fast tier. */
struct cost_device {
    bool gpu;       /* else a memory node without cores of its own */
    uint32_t index; /* gpuN or nodeN */
};

struct cost_ask {
    const struct profile *p; /* NULL: nothing was measured */
    const struct cost_pool *pools;
    uint32_t n_pools;
    const struct cost_device *devices;
    uint32_t n_devices;
    const char *format; /* of the experts, a name of shape_format_by_name */
};

/* Fills both; all rates of missing constants are 0 (read rates) or free (fast tier without
 * devices). */
void cost_rates_read(const struct cost_ask *a, struct cost_rates *r,
                     struct cost_source source[COST_CONSTANTS]);
/* Read rate of a node with so many threads from its curve, straight lines between the points; 0
 * when nothing was measured. The id of the nearest point in `id` (64 bytes, may be NULL). */
double cost_node_read(const struct profile *p, int32_t node, uint32_t threads, char *id);

#endif
