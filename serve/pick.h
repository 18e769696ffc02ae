/* pick.h - from a row of logits to the next token: bias, bans, penalties, then the library's
 * sampler. Engine thread only.
 */
#ifndef KT_SERVE_PICK_H
#define KT_SERVE_PICK_H

#include "serve/req.h"

struct picker {
    uint32_t vocab;
    float *row;      /* [vocab] f32: changed copy of the logits */
    uint32_t *count; /* [vocab], zero between calls */
    void *scratch;   /* of kt_sample */
    int32_t *eos;    /* [n_eos] tokens that end a generation */
    uint32_t n_eos;
};

kt_status picker_init(struct picker *p, const kt_tokenizer *tok, uint32_t vocab, kt_err *err);
void picker_free(struct picker *p);

struct pick_in {
    const struct kts_req *req;
    uint64_t seed;
    uint32_t choice;              /* within its prompt */
    uint64_t position;            /* index of the new token in its sequence */
    const int32_t *prompt, *made; /* tokens so far */
    uint32_t n_prompt, n_made;
};
/* The next token, or -1 if a logit is NaN. `logits` [vocab] f32 is not changed. */
int32_t picker_pick(struct picker *p, const float *logits, const struct pick_in *in);
/* Does this request look at the tokens made so far? */
bool picker_needs_history(const struct kts_req *r);

#endif
