/* measure.h - one probe is one forked child: it sends samples through a pipe, the parent waits
 * until a deadline and then kills it. So a hung driver or an illegal instruction costs one result,
 * not the program. The child times its points in random interleaved rounds; a sample is discarded
 * only for a cause that the system reports (involuntary switch, steal, throttling), never for its
 * value. Owner: the program's only thread; children may start teams.
 */
#ifndef KT_TUNER_MEASURE_H
#define KT_TUNER_MEASURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* ---- parent ---- */

enum m_kind {
    M_SAMPLE,
    M_NOTE,
    M_FAIL,
    M_GIVEN_UP /* a point that the time was not enough for; text says so */
};
enum m_cause { M_CLEAN, M_SWITCHED, M_STOLEN, M_THROTTLED, M_CAUSES };

struct m_record {
    uint32_t kind, point, cause, reserved;
    double value;
    char text[104]; /* notes and failures; terminated */
};

enum m_end { M_DONE, M_TIMEOUT, M_SIGNAL, M_EXIT, M_NOT_STARTED };

struct m_result {
    struct m_record *records; /* in time order; mem_free by m_result_free */
    size_t n;
    enum m_end end;
    int code; /* signal or exit status */
    double seconds;
    char started[32]; /* ISO time */
};

struct m_out; /* the child's end */
/* Run fn in a child for at most `seconds`. KT_OK whatever became of the child (look at out->end);
 * an error only when it could not be started. */
kt_status m_run(int (*fn)(void *ctx, struct m_out *o), void *ctx, double seconds,
                struct m_result *out, kt_err *err);
void m_result_free(struct m_result *r);
/* Why a child gave nothing: its own words, or "killed after 3.0 s", "signal 4 (Illegal
 * instruction)". */
const char *m_reason(const struct m_result *r, char *buf, size_t n);
/* Value of the first note of a point; `missing` when there is none. */
double m_note_value(const struct m_result *r, uint32_t point, double missing);

/* One measurement of the profile. */
struct m_desc {
    const char *id, *what, *cpus; /* cpus NULL: null */
    const int32_t *mem;
    uint32_t n_mem;
    json_t *params; /* stolen; NULL: {} */
    const char *unit, *method;
    const char *kernel_abi; /* NULL: not a kernel */
    double warmup_seconds;
    bool single; /* order "single" instead of "random_rounds" */
};
/* Entry of `measurements` from the samples of one point; NULL when memory is short. Never NULL
 * numbers: without a sample it is "failed". */
json_t *m_json(const struct m_desc *d, const struct m_result *r, uint32_t point);
/* Entry with status refused, unsupported or failed. */
json_t *m_json_none(const struct m_desc *d, const char *status, const char *reason);

/* ---- child ---- */

void m_sample(struct m_out *o, uint32_t point, double value, enum m_cause cause);
void m_note(struct m_out *o, uint32_t point, double value, const char *text);
/* Send the reason of a failure; returns 1 for the child function to return. */
int m_fail(struct m_out *o, const char *text);

struct m_rounds {
    uint32_t n_points;
    double (*sample)(void *ctx, uint32_t point); /* < 0: failed, the point is dropped */
    bool (*sparse)(void *ctx, uint32_t point);   /* NULL: none. A slow point that is no rival of the
                                                    others: first 3 rounds only */
    void *ctx;
    uint64_t seed;
    double warmup_seconds, seconds; /* seconds: for the rounds; at least 3 rounds are run */
    uint32_t max_rounds;
    bool budget; /* `seconds` is a wall, warm-up included. Points stand in order of worth: when what
                    the first round took says that not all can have M_ENOUGH_ROUNDS, the last ones
                    are given up */
};
#define M_ENOUGH_ROUNDS 6 /* a confidence interval by order statistics needs so many samples */
/* Warm up by running the points in turn, then sample. */
void m_rounds(struct m_out *o, const struct m_rounds *r);

/* Effective clock of the calling core from a chain of dependent additions, one per cycle: best of 5
 * bursts. */
double m_clock_hz(void);
uint64_t m_random(uint64_t *state);

#endif
