/* bridge.h - jobs and events: what the I/O thread and the engine thread hand each other.
 *
 * A job goes from the I/O thread to the scheduler and comes back with exactly one terminal event
 * (EV_END or EV_ERROR); between the two the engine thread owns its `run` part, everything else is
 * constant, and the atomics are flags in both directions. After the terminal event the job is the
 * I/O thread's again. Events of one engine step cross in one batch with one wake-up of the eventfd.
 * The queue is bounded by policy: when bridge_full() says so, the scheduler pauses sequences
 * instead of blocking, so terminal events (one per job, allocated with it) always fit.
 */
#ifndef KT_SERVE_BRIDGE_H
#define KT_SERVE_BRIDGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/req.h"

enum kts_finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH };
enum kts_cancel { CANCEL_NONE, CANCEL_DISCONNECT, CANCEL_ADMIN, CANCEL_SHUTDOWN, CANCEL_CAUSES };

enum kts_event_kind {
    EV_START, /* the first choice was admitted */
    EV_ECHO,  /* the prompt's text, with its tokens when log probabilities were asked for */
    EV_TEXT, /* text that may be sent, with the tokens that it covers; text may be empty on the last
                one */
    EV_FINISH, /* one choice ended: finish says how */
    EV_END,    /* all choices ended: terminal */
    EV_ERROR   /* the job failed: job->fail says why; terminal */
};

struct kts_top {
    int32_t id;
    float logprob;
};

struct kts_token {
    int32_t id;
    float logprob;
    uint32_t top, n_top; /* range in the event's tops; n_top 0 on the first token of an echo: it has
                            no log probability */
    bool none;           /* no log probability (first token of a prompt) */
};

struct kts_job;

struct kts_event {
    struct kts_event *next;
    struct kts_job *job;
    enum kts_event_kind kind;
    enum kts_finish finish;
    uint32_t choice;
    uint32_t n_generated;     /* of this choice so far */
    double sum_logprob;       /* EV_FINISH, with best_of */
    struct kts_token *tokens; /* inside the same block */
    struct kts_top *tops;
    uint32_t n_tokens;
    size_t len;
    const char *text; /* [len], valid UTF-8, inside the same block */
};

struct kts_prompt {
    int32_t *ids; /* mem_free */
    uint32_t n;
    const char *text; /* as sent, or NULL when ids were sent */
    size_t len;
};

enum kts_job_state { JOB_QUEUED, JOB_PREFILL, JOB_DECODE };

struct seq;

struct kts_job {
    /* constant after submission */
    struct kts_req req;
    struct kts_prompt *prompts; /* [req.n_prompts], 1 for chat */
    uint32_t n_prompts, n_choices, n_prompt_tokens;
    uint64_t seed;
    uint64_t submitted_ns;
    char id[48];
    void *owner; /* I/O thread */

    /* flags; any order is fine, the scheduler reads them between steps */
    _Atomic int cancel;  /* enum kts_cancel, by the I/O thread */
    _Atomic bool paused; /* by the I/O thread: the client is slow */
    _Atomic int state;   /* by the engine thread, for the admin view */
    _Atomic uint32_t generated;

    /* engine thread, from submission to the terminal event */
    struct kts_job *next;
    struct seq *seqs; /* [n_choices], by the scheduler */
    uint32_t next_choice, live;
    bool started, first_token_seen, any_length;
    struct kts_fail fail;
    struct kts_event last; /* the terminal event */
};

void kts_job_free(struct kts_job *j); /* prompts, request and the job */

struct bridge;
kt_status bridge_open(uint32_t max_events, struct bridge **out, kt_err *err);
void bridge_close(struct bridge *b);   /* frees events that nobody took (not their jobs) */
int bridge_fd(const struct bridge *b); /* readable when events wait */
/* Engine thread: hand over a chain of events. */
void bridge_push(struct bridge *b, struct kts_event *first);
bool bridge_full(struct bridge *b);
/* I/O thread: was the queue full when it was last taken? Then the scheduler may sleep and wants a
 * wake-up. */
bool bridge_was_full(const struct bridge *b);
/* Wake the I/O thread without an event (state changes). Any thread. */
void bridge_wake(struct bridge *b);
/* I/O thread: all events so far, in order; NULL when none. Clears the wake-up. */
struct kts_event *bridge_take(struct bridge *b);
/* Free a taken event, unless it is a job's terminal one. */
void bridge_event_free(struct kts_event *e);

#endif
