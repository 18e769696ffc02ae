/* app_metrics.h - the metric families of ktserve: their definitions, their series, and what is
 * refreshed at each scrape. I/O thread, except for the series that the scheduler updates.
 */
#ifndef KT_SERVE_APP_METRICS_H
#define KT_SERVE_APP_METRICS_H

#include "metrics/metrics.h"
#include "serve/http.h"
#include "serve/sched.h"

#define MET_APIS 8
#define MET_CODES 19
#define MET_REASONS 16

struct app;

struct app_metrics {
    struct met_registry *reg;
    struct sched_metrics sched;
    struct met *http[MET_APIS][MET_CODES], *rejected[MET_REASONS], *auth_failures, *unknown_fields;
    struct met *connections[2], *running, *waiting;
    struct met *kv_ratio, *kv_capacity, *load_seconds, *layer_time[4], *expert_tokens, *memory[3];
    struct pool_met { /* of a pool; bandwidth NULL: no read rate of its node is known */
        struct met *weight_read, *bandwidth;
        double weight_share, read_bytes_per_second;
    } * pools; /* [n_pools] */
    uint32_t n_pools;
    uint64_t seen_at_ns; /* when bandwidth was computed, and from which totals */
    struct sched_view seen;
    struct met *profile_state[4];
    struct met *throttled, *cpu_seconds, *resident, *start_time, *open_fds, *max_fds;
};

/* Families that exist from the start. false: no memory. */
bool app_metrics_init(struct app *a);
/* Families that need facts of the loaded engine. */
bool app_metrics_loaded(struct app *a);
void app_metrics_close(struct app *a); /* the registry too */
void app_metrics_done(struct app *a, const char *route, int status);
void app_metrics_rejected(struct app *a, const char *reason);

#endif
