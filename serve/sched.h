/* sched.h - the scheduler: admission queue, continuous batching, cancellation, deadlines, drain.
 *
 * One engine thread runs sched_run; all engine calls happen there. Other threads submit jobs, set
 * flags of their jobs and call sched_wake. Each step takes one decode token of every running
 * sequence, then prompt chunks up to the batch limit; while sequences decode, a chunk is kept so
 * small that the step stays within the latency target. Nobody waits for a client: sequences of slow
 * clients are left out of steps.
 */
#ifndef KT_SERVE_SCHED_H
#define KT_SERVE_SCHED_H

#include "metrics/metrics.h"
#include "serve/bridge.h"

enum sched_reason { REASON_STOP, REASON_LENGTH, REASON_ABORT, REASON_ERROR, REASON_COUNT };
enum { CANCEL_DEADLINE = CANCEL_CAUSES, CANCEL_LABELS };

struct sched_metrics { /* series, each may be NULL */
    struct met *ttft, *queue_time, *inter_token, *duration, *step_prefill, *step_decode,
        *step_tokens;
    struct met *requests[REASON_COUNT], *cancelled[CANCEL_LABELS], *prompt_tokens,
        *generated_tokens;
};

struct sched_config {
    kt_engine *engine;
    const kt_tokenizer *tok;
    struct bridge *events;
    struct sched_metrics met;
    uint32_t ctx;                                    /* longest sequence that can be admitted */
    uint32_t queue_requests;                         /* 256 */
    uint64_t queue_tokens;                           /* 4 * ctx */
    uint64_t latency_target_ns;                      /* 200 ms */
    uint64_t queue_deadline_ns, request_deadline_ns; /* 300 s, 3600 s */
};

struct sched;

/* Engine thread. Makes all buffers, and runs the self-test step. */
kt_status sched_open(const struct sched_config *c, struct sched **out, kt_err *err);
void sched_close(struct sched *s); /* after sched_run returned */
/* Works until sched_stop. Jobs that are left then end with an error event. */
void sched_run(struct sched *s);

/* Any thread: */
enum sched_submit { SUBMIT_OK, SUBMIT_FULL, SUBMIT_DRAINING, SUBMIT_BROKEN };
/* SUBMIT_OK: the job is the scheduler's until its terminal event. Else nothing happened. */
enum sched_submit sched_submit(struct sched *s, struct kts_job *j);
void sched_wake(struct sched *s); /* a job's flags changed */
void sched_drain(
    struct sched *s); /* queued jobs end with 503, new ones are refused, running ones go on */
void sched_abort(struct sched *s); /* running ones end with an error now */
void sched_stop(struct sched *s);  /* sched_run returns */

struct sched_view {
    uint32_t running, waiting; /* sequences in steps; requests not yet wholly admitted */
    uint64_t waiting_tokens;
    uint32_t retry_after_s; /* 1..60: estimate for the queue */
    bool draining, broken;
    uint64_t idle_ns; /* since the loop last moved while it had work; 0 when idle */
    /* steps without prompt tokens, in all: their time, and the weights, keys and values they read
     */
    uint64_t decode_ns, decode_weight_bytes, decode_kv_bytes;
};
void sched_get_view(struct sched *s, struct sched_view *v);

#endif
