/* placement_view.h - the placement object of the admin API, as JSON and as text. Any thread; pure
 * apart from reading the engine's counters.
 */
#ifndef KT_SERVE_PLACEMENT_VIEW_H
#define KT_SERVE_PLACEMENT_VIEW_H

#include "base/strbuf.h"
#include "kt.h"

struct placement_in {
    const kt_engine_info *info;
    const uint64_t *counts; /* [n_moe_layers][n_experts], may change while it is read */
    double time, uptime_s;
    uint64_t capacity_bytes; /* of the one tier */
};

void placement_json(const struct placement_in *in, struct strbuf *out);
void placement_text(const struct placement_in *in, struct strbuf *out);
/* Base64 with padding. */
void base64_add(struct strbuf *out, const unsigned char *p, size_t n);

#endif
