/* pack_key.h - what packed weights depend on: the kernels' build, the model, and the plan's layout.
 * Two loads with equal keys pack the same bytes to the same places. Pure but for reading samples of
 * the model's files.
 */
#ifndef KT_ENGINE_PACK_KEY_H
#define KT_ENGINE_PACK_KEY_H

#include "engine.h"
#include "source.h"

struct pack_key {
    char build[17];      /* kern_abi */
    uint8_t packing[32]; /* what this build's packers make of known rows */
    uint8_t model[32];   /* tensor table, file sizes and times, sampled content */
    uint8_t layout[32];  /* types, panels, pools' rows, conversions */
};

kt_status pack_key_of(const struct kt_engine *e, struct source *src, struct pack_key *out,
                      kt_err *err);

#endif
