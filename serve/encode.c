/* encode.c - from a request's texts to the prompts of a job.
 * Message contents are encoded by the library so that they cannot forge control tokens; the prompt
 * of a completion is raw and may contain them. A text that cannot fit whatever its tokens are is
 * refused before it is encoded, so that a huge body does not hold the I/O thread.
 */
#include "serve/encode.h"

#include <string.h>

#include "base/mem.h"

static int refuse(struct kts_fail *f, kt_status st, const kt_err *err)
{
    if (st == KT_E_NOMEM)
        return kts_fail_set(f, 503, "overloaded", NULL, "no memory for this request");
    if (st == KT_E_UNSUPPORTED)
        return kts_fail_set(f, 501, "not_supported", "messages", "%s", err->msg);
    return kts_fail_set(f, 400, "invalid_value", NULL, "%s", err->msg);
}

struct encode_in {
    const kt_tokenizer *t;
    const char *text;
    size_t len;
    unsigned flags;
    const kt_chat_message *m; /* not NULL: messages */
    size_t n_messages;
};

static kt_status encode_once(const struct encode_in *in, int32_t *ids, size_t cap, size_t *n,
                             kt_err *err)
{
    if (in->m != NULL)
        return kt_chat_encode(in->t, in->m, in->n_messages, true, ids, cap, n, err);
    return kt_tokenize(in->t, in->text, in->len, in->flags, ids, cap, n, err);
}

/* A first guess of the size is mostly right; the second call has the size that was asked for. */
static int encode(const struct encode_in *in, size_t guess, int32_t **out, uint32_t *n_out,
                  struct kts_fail *f)
{
    kt_err err = {0};
    size_t n = guess, cap = 0;
    int32_t *ids = NULL;
    kt_status st = KT_OK;
    while (st == KT_OK && n > cap) {
        mem_free(ids);
        cap = n;
        ids = mem_calloc(cap, sizeof *ids);
        st = ids == NULL ? KT_E_NOMEM : encode_once(in, ids, cap, &n, &err);
    }
    if (st != KT_OK) {
        mem_free(ids);
        return refuse(f, st, &err);
    }
    *out = ids;
    *n_out = (uint32_t)n;
    return 0;
}

int encode_text(const kt_tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                uint32_t *n, struct kts_fail *f)
{
    struct encode_in in = {.t = t, .text = text, .len = len, .flags = flags};
    return encode(&in, len / 2 + 16, ids, n, f);
}

static size_t chat_bytes(const kt_chat_message *m, uint32_t n)
{
    size_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += strlen(m[i].content) + 8;
    return total;
}

int encode_chat(const kt_tokenizer *t, const kt_chat_message *m, uint32_t n_messages, int32_t **ids,
                uint32_t *n, struct kts_fail *f)
{
    struct encode_in in = {.t = t, .m = m, .n_messages = n_messages};
    return encode(&in, chat_bytes(m, n_messages) / 2 + 32, ids, n, f);
}

static int too_long(struct kts_fail *f, const char *param, uint64_t n, uint32_t ctx)
{
    kts_fail_set(
        f, 400, "context_length_exceeded", param,
        "This request has %llu prompt tokens and exceeds the available context size of %u tokens",
        (unsigned long long)n, ctx);
    f->n_prompt_tokens = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    f->n_ctx = ctx;
    return -1;
}

static int encode_prompt(const kt_tokenizer *t, const struct kts_text *in, struct kts_prompt *out,
                         struct kts_fail *f)
{
    if (in->text != NULL) {
        out->text = in->text;
        out->len = in->len;
        return encode_text(t, in->text, in->len, KT_TOK_ADD_SPECIAL | KT_TOK_PARSE_SPECIAL,
                           &out->ids, &out->n, f);
    }
    out->n = (uint32_t)in->n_ids;
    out->ids = mem_calloc(in->n_ids, sizeof *out->ids);
    if (out->ids == NULL)
        return kts_fail_set(f, 503, "overloaded", NULL, "no memory for this request");
    memcpy(out->ids, in->ids, in->n_ids * sizeof *out->ids);
    return 0;
}

int encode_job(const kt_tokenizer *t, struct kts_job *j, const struct kts_limits *lim,
               size_t longest_token, struct kts_fail *f)
{
    const struct kts_req *r = &j->req;
    bool chat = r->api == KTS_CHAT;
    const char *param = chat ? "messages" : "prompt";
    uint32_t n = chat ? 1 : r->n_prompts, most = r->max_tokens == 0 ? lim->ctx : lim->ctx - 1;
    uint64_t total = 0;
    j->prompts = mem_calloc(n, sizeof *j->prompts);
    if (j->prompts == NULL)
        return kts_fail_set(f, 503, "overloaded", NULL, "no memory for this request");
    j->n_prompts = n;
    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = chat ? chat_bytes(r->messages, r->n_messages) : r->prompts[i].len;
        if (bytes / longest_token > lim->ctx)
            return too_long(f, param, bytes / longest_token, lim->ctx);
        if ((chat ? encode_chat(t, r->messages, r->n_messages, &j->prompts[i].ids, &j->prompts[i].n,
                                f)
                  : encode_prompt(t, &r->prompts[i], &j->prompts[i], f)) != 0)
            return -1;
        if (j->prompts[i].n == 0)
            return kts_fail_set(f, 400, "invalid_value", param, "%s has no tokens", param);
        if (j->prompts[i].n > most)
            return too_long(f, param, j->prompts[i].n, lim->ctx);
        total += j->prompts[i].n;
    }
    j->n_prompt_tokens = (uint32_t)total;
    j->n_choices = n * (uint32_t)r->best_of;
    return 0;
}
