/* out_openai.h - from events to the replies of the OpenAI APIs: SSE chunks or one JSON object. Pure
 * functions on buffers; owner: one exchange on the I/O thread.
 */
#ifndef KT_SERVE_OUT_OPENAI_H
#define KT_SERVE_OUT_OPENAI_H

#include "base/strbuf.h"
#include "serve/bridge.h"

struct out_choice {
    bool role_sent;
    enum kts_finish finish;
    uint32_t n_generated;
    double sum_logprob;
    uint64_t chars;      /* characters so far: text_offset of the next token */
    struct strbuf text;  /* whole replies: text so far */
    struct strbuf lp[4]; /* log probabilities as JSON members: chat uses [0]; completions tokens,
                            logprobs, tops, offsets */
};

struct out_openai {
    const struct kts_job *job;
    const kt_tokenizer *tok;
    const char *model, *fingerprint;
    int64_t created;
    struct out_choice *choices; /* [job->n_choices] */
};

/* The job must outlive it. false: no memory. */
bool out_openai_init(struct out_openai *o, const struct kts_job *job, const kt_tokenizer *tok,
                     const char *model);
void out_openai_free(struct out_openai *o);

/* Streams: append the frames of an event; of the end; of an error after the start. */
void out_openai_chunk(struct out_openai *o, const struct kts_event *e, struct strbuf *sse);
void out_openai_done(struct out_openai *o, struct strbuf *sse);
void out_openai_error(const struct kts_fail *f, struct strbuf *sse);
/* Whole replies: collect events, then write the object. */
void out_openai_collect(struct out_openai *o, const struct kts_event *e);
void out_openai_reply(struct out_openai *o, struct strbuf *json);
/* The error object {"error":{...}}. */
void out_openai_error_json(const struct kts_fail *f, struct strbuf *json);

#endif
