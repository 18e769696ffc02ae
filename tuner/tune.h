/* tune.h - parts of `kttune tune`: the space of a loaded engine, the verdict as an entry of
 * `tunings`, a table of samples for replay. Owner: the program's thread.
 */
#ifndef KT_TUNER_TUNE_H
#define KT_TUNER_TUNE_H

#include <jansson.h>
#include <signal.h>

#include "profile/profile.h"
#include "search.h"
#include "space.h"
#include "timer_live.h"

/* What was tuned, and from what. Strings are the caller's. */
struct tune_job {
    const char *goal, *model, *host, *abi, *stage;
    uint32_t experts, top_k, hidden, inter, layers;
    const char *format;
    uint64_t seed;
    const struct space *space;
};

/* tune_space.c: axes that the engine honours and this goal feels, without what the profile's
 * measurements rule out. p may be NULL. Several combinations may remain untimed; config 0 is the
 * engine as opened. */
kt_status tune_space(const struct live *l, const struct profile *p, const char *abi,
                     struct space *out, kt_err *err);
/* Values of a config for the timing process; a value that is the default is 0 or "". */
void tune_config(const struct space *s, uint32_t config, struct live_config *out);

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
