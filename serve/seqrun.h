/* seqrun.h - one choice of a request while it runs: its engine sequence, the token to feed next,
 * stop strings, text and log probabilities on the way out. The scheduler decides when a sequence
 * takes part in a step; this module decides what its tokens mean. Owner: engine thread.
 */
#ifndef KT_SERVE_SEQRUN_H
#define KT_SERVE_SEQRUN_H

#include "serve/bridge.h"
#include "serve/pick.h"
#include "serve/stop.h"

enum seq_state { SEQ_WAIT, SEQ_PREFILL, SEQ_DECODE, SEQ_DONE };

struct seq_token { /* a token whose text is not released yet */
    struct kts_token t;
    uint64_t start; /* raw byte at which its text begins */
    uint32_t len;
};

struct seq {
    struct kts_job *job;
    const struct kts_prompt *prompt;
    uint32_t choice, sub; /* over the whole job; within its prompt */
    enum seq_state state;
    kt_seq *kt;
    uint32_t fed; /* prompt tokens stored */
    uint32_t n_made, max_new;
    int32_t next_id; /* SEQ_DECODE: the token to feed */
    int32_t *made;   /* [max_new], only when penalties look back */
    struct stop_state stop;
    struct strbuf text; /* released, not yet sent */
    struct seq_token *pend;
    struct kts_top *tops;
    uint32_t n_pend, cap_pend, n_tops, cap_tops;
    uint64_t raw_bytes; /* of all tokens made so far */
    double sum_logprob;
    uint64_t last_token_ns;
};

/* What the sequences share. */
struct seq_env {
    const kt_tokenizer *tok;
    uint32_t vocab;
    struct picker picker;
    struct kts_event *first, **last; /* events of this step, in order */
};

void seq_init(struct seq *q, struct kts_job *job, uint32_t choice, uint32_t ctx);
void seq_close(struct seq *q);             /* gives the pages back, frees all; state SEQ_DONE */
uint32_t seq_reserve(const struct seq *q); /* tokens to reserve: prompt and output, at least 1 */
bool seq_wants_prompt_logprobs(const struct seq *q);

/* All of these return KT_OK, KT_E_NOMEM, or KT_E_NUMERIC (NaN in the logits). */
/* The prompt is stored: send it back if echo was asked for. */
kt_status seq_echo(struct seq *q, struct seq_env *env);
/* Record log probabilities of prompt tokens first.. from rows [n][vocab]; row i belongs to prompt
 * token first + i + 1. */
kt_status seq_prompt_logprobs(struct seq *q, struct seq_env *env, const float *rows, uint32_t first,
                              uint32_t n);
/* Choose the next token from its row and take it; *finish says whether the choice is over. */
kt_status seq_take(struct seq *q, struct seq_env *env, const float *row, enum kts_finish *finish);
/* Queue an EV_TEXT event for what was released (none if there is nothing). */
kt_status seq_emit(struct seq *q, struct seq_env *env);
/* End the choice: release held text, queue the last EV_TEXT and EV_FINISH. */
kt_status seq_finish(struct seq *q, struct seq_env *env, enum kts_finish how);

#endif
