/* timer_live.h - the timer that asks a real engine. A child process loads the model once and times
 * samples on request; configurations are kt_tuning values, switched between samples without
 * touching a weight. A sample that does not come back in time, or kills the child, costs one
 * configuration and a new child, not the search. Owner: one thread of a process that has no engine
 * of its own.
 */
#ifndef KT_TUNER_TIMER_LIVE_H
#define KT_TUNER_TIMER_LIVE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/status.h"
#include "timer.h"

enum live_goal { LIVE_DECODE, LIVE_PREFILL, LIVE_BOTH };

/* What a configuration sets; strings inline, because it crosses processes. 0 or "": built in. */
struct live_config {
    char kernel[32];
    uint32_t threads, gemv_rows, claim_rows, gemm_claim_rows, spin_us;
};

struct live_opts {
    kt_engine_opts engine; /* ctx_tokens, max_seqs, batch_tokens are set here */
    enum live_goal goal;
    uint32_t batch;           /* sequences decoded together */
    uint32_t prompt, prefill; /* tokens before decoding; tokens of a prefill sample */
    double sample_seconds;    /* least length of a sample */
    uint32_t repeats;         /* steps of a sample; 0: as many as sample_seconds needs */
    uint64_t seed;            /* of token ids */
};

struct live {
    struct kt_timer timer;
    struct live_opts o;
    const struct live_config *config; /* [n], set before the first sample; the caller's */
    pid_t pid;
    int fd; /* socket to the child; -1: no child */
    double limit;
    uint32_t repeats; /* steps of a sample */
    uint32_t starts;  /* children so far */
    /* of the loaded engine, as opened */
    struct live_config built_in; /* with numbers in place of zeros */
    uint32_t n_pools;
    char expert_format[16], dense_format[16];
    double load_seconds;
    uint64_t bytes; /* of memory that it holds */
    uint32_t vocab;
};

/* Load the model in a child and choose the length of a sample. Errors are the engine's. live_close
 * accepts a failed or zeroed one. */
kt_status live_open(struct live *l, const struct live_opts *o, kt_err *err);
void live_close(struct live *l);

#endif
