/* metrics.h - counters, gauges and histograms with fixed label sets, and their text exposition
 * (Prometheus 0.0.4 or OpenMetrics 1.0.0).
 *
 * A family is one name with help, kind and label keys; a series is one tuple of label values in it.
 * All series are registered before they are updated, so every label value is exported from zero on.
 * Registration and exposition belong to one thread (the I/O thread); updates may come from any
 * thread. Values of counters and gauges are atomic doubles; a histogram's buckets, sum and count
 * change under its own lock. Registration failures (memory, a series that exists already) are
 * remembered: check met_ok once. Updates of a NULL series are ignored.
 */
#ifndef KT_METRICS_H
#define KT_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"

enum met_kind { MET_COUNTER, MET_GAUGE, MET_HISTOGRAM };

#define MET_LABELS 4

struct met_def {
    enum met_kind kind;
    const char *name; /* counters end in _total, everything in base units */
    const char *help;
    const char *keys[MET_LABELS]; /* label names, NULL after the last */
    const double *bounds;         /* histograms: upper bounds, ascending, without +Inf */
    uint32_t n_bounds;
};

struct met_registry;
struct met; /* one series */

struct met_registry *met_open(void); /* NULL when memory is short */
void met_close(struct met_registry *r);
bool met_ok(const struct met_registry *r);
/* Add a series; values[] has one entry per label key and is copied (NULL for a family without
 * labels). `def` must live as long as the registry. */
struct met *met_series(struct met_registry *r, const struct met_def *def,
                       const char *const *values);
/* Called at the start of each exposition to refresh gauges. At most 8. */
void met_on_collect(struct met_registry *r, void (*fn)(void *user), void *user);

void met_add(struct met *m, double v); /* v >= 0 for counters */
static inline void met_inc(struct met *m)
{
    met_add(m, 1);
}
void met_set(struct met *m,
             double v); /* gauges, and counters that mirror a monotone total kept elsewhere */
double met_value(const struct met *m); /* histograms: their count */
void met_observe(struct met *m, double v);

enum met_format { MET_TEXT_004, MET_OPENMETRICS };
/* What a request's Accept header (may be NULL) asks for. */
enum met_format met_negotiate(const char *accept);
const char *met_content_type(enum met_format f);
void met_expose(struct met_registry *r, enum met_format f, struct strbuf *out);

#endif
