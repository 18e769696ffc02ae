/* report.h - the placement report: what the counts of a placement object say about hot experts and
 * skew. Pure. */
#ifndef KT_TUNER_REPORT_H
#define KT_TUNER_REPORT_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

struct report_layer {
    int64_t layer;
    uint64_t hits;
    double top10_share; /* of the hits, by the tenth of the experts that has most */
    double entropy;     /* of the shares, over log(experts): 1 is even, 0 is one expert */
};

/* Decode base64; returns the bytes written or -1 for anything that is not base64 or does not fit.
 */
long base64_decode(const char *s, size_t len, uint8_t *out, size_t cap);
/* Share of the top tenth and normalised entropy of n counts. */
void report_skew(const uint32_t *hits, uint32_t n, struct report_layer *out);
/* Print the text tables of a placement object. */
kt_status report_print(const json_t *placement, uint32_t top, FILE *to, kt_err *err);

#endif
