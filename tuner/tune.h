/* tune.h - parts of `kttune tune`: the space of a loaded engine, the verdict as an entry of
 * `tunings`, a table of samples for replay. Owner: the program's thread.
 */
#ifndef KT_TUNER_TUNE_H
#define KT_TUNER_TUNE_H

#include <jansson.h>
#include <signal.h>

#include "profile/profile.h"
#include "host/host.h"
#include "outer.h"
#include "search.h"
#include "space.h"
#include "timer_live.h"

/* Rules by which combinations are not timed (tune_prune.c). */
enum tune_rule { TUNE_LOAD, TUNE_SELFTEST, TUNE_KNEE, TUNE_BLOCKING, TUNE_ROOFLINE, TUNE_RULES };
struct tune_pruned {
    uint32_t n[TUNE_RULES];
    char why[TUNE_RULES][160];
};
const char *tune_rule_name(enum tune_rule r);

/* What was tuned, and from what. Strings are the caller's. */
struct tune_job {
    const char *goal, *model, *host, *abi, *stage;
    uint32_t experts, top_k, hidden, inter, layers;
    const char *format;
    uint64_t seed;
    struct space *space;
    struct tune_pruned pruned;
    struct outer_try tries[OUTER_TRIES];
    uint32_t n_tries;
};

/* tune_space.c: axes that the engine honours and this goal feels, without what the profile's
 * measurements rule out (j->pruned). p may be NULL. Config 0 is the engine as opened. Axes that are
 * fixed at load get the values of j->tries. */
kt_status tune_space(const struct live *l, const struct profile *p, struct tune_job *j,
                     struct space *out, kt_err *err);
/* Values of a config for the timing process; a value that is the default is 0 or "". */
void tune_config(const struct space *s, uint32_t config, struct live_config *out);
struct fleet_layout;
/* The same for what is fixed at load. */
void tune_layout(const struct space *s, uint32_t config, struct fleet_layout *out);
/* Both, as struct fleet's `config`; ctx is the space. */
void tune_fleet_config(void *ctx, uint32_t config, struct fleet_layout *layout,
                       struct live_config *out);
/* Experts, top k, hidden, inter and layers of j from the files of a model, whose weights are not
 * read; a dense model is one expert. Errors of mdl_open. */
kt_status tune_read_shape(const char *model_path, struct tune_job *j, kt_err *err);

/* tune_layout.c: values of pages, SMT and pools that this host offers, each a try, or why there is
 * none. Facts and plan only. */
struct tune_layouts {
    const struct host *h; /* as it was before the first engine was loaded */
    uint64_t engine_bytes;
    uint32_t n_pools, threads; /* of the default */
};
void tune_layout_tries(const struct tune_layouts *f, struct tune_job *j);
/* Threads that a try's plan has; 0: as the default. */
uint32_t tune_layout_threads(const struct tune_layouts *f, const struct outer_try *t);
/* Callbacks of outer_run; ctx is a struct tune_layout_ctx. */
struct tune_layout_ctx {
    struct space *space;
    const struct tune_layouts *facts;
};
uint32_t tune_layout_configs(void *ctx, const struct outer_try *t, uint32_t best,
                             uint32_t out[OUTER_CONFIGS]);
uint32_t tune_layout_rank(void *ctx, uint32_t config);

/* tune_print.c: the verdict for people, on standard output */
void tune_print(const struct tune_job *j, const struct search_out *r);

/* tune_json.c */
json_t *tune_shape_json(const struct tune_job *j);
/* Id of a finalist's samples: "tune.GOAL:SHAPE.WHO"; WHO "" gives what they all begin with. */
void tune_sample_id(const struct tune_job *j, const char *who, char *out, size_t n);
/* Entry of `tunings`, and (into measurements, an array) the samples that it rests on. NULL when
 * memory is short. */
json_t *tune_entry(const struct tune_job *j, const struct search_out *r, json_t *measurements);

/* tune_record.c: time every config in rounds until the deadline and write "kt.replay/1". */
kt_status tune_record(const struct tune_job *j, struct kt_timer *timer, double seconds,
                      const volatile sig_atomic_t *stop, const char *path, kt_err *err);

#endif
