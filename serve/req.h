/* req.h - the internal form of a generation request, and how a request is refused.
 * Mappers fill kts_req from a protocol's JSON; nothing in it knows the protocol except `api`, which
 * picks the serializer. Strings point into `root` or into memory of the request. Owner: the I/O
 * thread until submission, then read-only until the job ends. Free with kts_req_free.
 */
#ifndef KT_SERVE_REQ_H
#define KT_SERVE_REQ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt.h"

enum kts_api {
    KTS_CHAT = 1,
    KTS_COMPLETION = 2
}; /* bits: the parameter table says where a field belongs */

/* Why a request is refused: one row of the error table. type and code are static; param is "" for
 * none. */
struct kts_fail {
    int status;
    const char *type, *code;
    char param[80];
    char msg[480];
    bool no_retry; /* it cost a prefill: clients should not send it again by themselves */
    uint32_t n_prompt_tokens, n_ctx; /* context_length_exceeded only */
};
/* Fill *f; returns -1 so that callers can pass it on. */
int kts_fail_set(struct kts_fail *f, int status, const char *code, const char *param,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The error type that belongs to a status. */
const char *kts_error_type(int status);

struct kts_text { /* one prompt of a completion: text or ids */
    const char *text;
    size_t len;
    const int32_t *ids;
    size_t n_ids;
};

struct kts_bias {
    int32_t id;
    float bias; /* -INFINITY bans */
};

struct kts_req {
    enum kts_api api;
    json_t *root;
    kt_chat_message *messages;
    uint32_t n_messages;
    struct kts_text *prompts;
    uint32_t n_prompts;

    double temperature, top_p, min_p;
    double presence_penalty, frequency_penalty, repetition_penalty;
    int64_t top_k, repeat_last_n, seed; /* seed -1: choose one */
    int64_t n, best_of;                 /* best_of 0: n */
    int64_t max_tokens, min_tokens;     /* max_tokens -1: to the end of the context */
    int64_t n_logprobs; /* alternatives per token; -1: no log probabilities at all */
    bool stream, include_usage, continuous_usage, echo, ignore_eos;

    const char **stop; /* [n_stop], lengths in stop_len */
    uint32_t *stop_len;
    uint32_t n_stop;
    int32_t *stop_ids;
    uint32_t n_stop_ids;
    struct kts_bias *bias;
    uint32_t n_bias;

    uint32_t n_unknown; /* fields that no table knows: accepted and counted */
    const char *unknown[8];
    void **owned;
    uint32_t n_owned, cap_owned;
};

void kts_req_free(struct kts_req *r);
/* Zeroed memory that lives as long as the request; NULL when short. */
void *kts_req_alloc(struct kts_req *r, size_t n, size_t size);

/* What the loaded model and the options allow. */
struct kts_limits {
    uint32_t ctx, vocab;
    const char *model_id;
    bool accept_any_model;
    kt_sampling defaults;
};

#endif
