/* out_openai.c - chunks and replies of /v1/chat/completions and /v1/completions.
 * Stream order per choice: role chunk (chat), text deltas, finish chunk; after all choices the
 * usage chunk when it was asked for; then [DONE]. A delta is never empty. Log probabilities are
 * kept as ready JSON members: a stream sends them with the text they belong to, a whole reply at
 * the end. With best_of, the n choices with the best mean log probability are sent. Pure; no
 * clocks, no I/O.
 */
#include "serve/out_openai.h"

#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "serve/stop.h"

bool out_openai_init(struct out_openai *o, const struct kts_job *job, const kt_tokenizer *tok,
                     const char *model)
{
    memset(o, 0, sizeof *o);
    o->job = job;
    o->tok = tok;
    o->model = model;
    o->choices = mem_calloc(job->n_choices, sizeof *o->choices);
    return o->choices != NULL;
}

void out_openai_free(struct out_openai *o)
{
    for (uint32_t i = 0; o->choices != NULL && i < o->job->n_choices; i++) {
        sb_free(&o->choices[i].text);
        for (int k = 0; k < 4; k++)
            sb_free(&o->choices[i].lp[k]);
    }
    mem_free(o->choices);
    memset(o, 0, sizeof *o);
}

/* ---- log probabilities ---- */

static size_t token_bytes(const struct out_openai *o, int32_t id, const char **bytes)
{
    size_t n = kt_token_bytes(o->tok, id, bytes);
    if (n == 0)
        *bytes = "";
    return n;
}

static void add_chat_token(struct out_openai *o, struct json_out *j, int32_t id, float logprob)
{
    const char *bytes;
    size_t n = token_bytes(o, id, &bytes);
    struct strbuf clean = {0};
    utf8_clean(bytes, n, &clean);
    jo_key(j, "token");
    jo_strn(j, clean.data == NULL ? "" : clean.data, clean.len);
    j->b->failed = j->b->failed || clean.failed;
    sb_free(&clean);
    jo_kreal(j, "logprob", (double)logprob);
    jo_key(j, "bytes");
    jo_array(j);
    for (size_t i = 0; i < n; i++)
        jo_uint(j, (unsigned char)bytes[i]);
    jo_array_end(j);
}

static void comma(struct strbuf *b)
{
    if (b->len > 0)
        sb_putc(b, ',');
}

static void add_chat_logprob(struct out_openai *o, struct strbuf *lp, const struct kts_event *e,
                             const struct kts_token *t)
{
    struct json_out j;
    comma(lp);
    jo_init(&j, lp);
    jo_object(&j);
    add_chat_token(o, &j, t->id, t->logprob);
    jo_key(&j, "top_logprobs");
    jo_array(&j);
    for (uint32_t i = 0; i < t->n_top; i++) {
        jo_object(&j);
        add_chat_token(o, &j, e->tops[t->top + i].id, e->tops[t->top + i].logprob);
        jo_object_end(&j);
    }
    jo_array_end(&j);
    jo_object_end(&j);
}

/* The name of a token in the legacy shape: its text, or "bytes:\xHH.." when it is no valid text by
 * itself. */
static void legacy_name(const struct out_openai *o, int32_t id, struct strbuf *name)
{
    const char *bytes;
    size_t n = token_bytes(o, id, &bytes);
    sb_clear(name);
    utf8_clean(bytes, n, name);
    if (name->len == n && (n == 0 || memcmp(name->data, bytes, n) == 0))
        return;
    sb_clear(name);
    sb_puts(name, "bytes:");
    for (size_t i = 0; i < n; i++)
        sb_printf(name, "\\x%02x", (unsigned char)bytes[i]);
}

static void name_out(struct json_out *j, const struct strbuf *name, bool as_key)
{
    j->b->failed = j->b->failed || name->failed;
    const char *s = name->data == NULL ? "" : name->data;
    if (as_key)
        jo_key(j, s);
    else
        jo_str(j, s);
}

static void add_legacy_tops(struct out_openai *o, struct json_out *j, const struct kts_event *e,
                            const struct kts_token *t)
{
    struct strbuf name = {0};
    bool own = t->n_top == 0;
    jo_object(j);
    for (uint32_t i = 0; i < t->n_top; i++) {
        legacy_name(o, e->tops[t->top + i].id, &name);
        name_out(j, &name, true);
        jo_real(j, (double)e->tops[t->top + i].logprob);
        own = own || e->tops[t->top + i].id == t->id;
    }
    if (!own) { /* the chosen token is always among them */
        legacy_name(o, t->id, &name);
        name_out(j, &name, true);
        jo_real(j, (double)t->logprob);
    }
    jo_object_end(j);
    sb_free(&name);
}

static uint64_t count_chars(const char *s, size_t n)
{
    uint64_t c = 0;
    for (size_t i = 0; i < n; i++)
        c += ((unsigned char)s[i] & 0xc0) != 0x80;
    return c;
}

static void add_legacy_logprob(struct out_openai *o, struct out_choice *c,
                               const struct kts_event *e, const struct kts_token *t)
{
    struct json_out j[4];
    struct strbuf name = {0};
    const char *bytes;
    for (int k = 0; k < 4; k++) {
        comma(&c->lp[k]);
        jo_init(&j[k], &c->lp[k]);
    }
    legacy_name(o, t->id, &name);
    name_out(&j[0], &name, false);
    sb_free(&name);
    if (t->none)
        jo_null(&j[1]);
    else
        jo_real(&j[1], (double)t->logprob);
    if (t->none || o->job->req.n_logprobs == 0)
        jo_null(&j[2]);
    else
        add_legacy_tops(o, &j[2], e, t);
    jo_uint(&j[3], c->chars);
    size_t n = token_bytes(o, t->id, &bytes);
    c->chars += count_chars(bytes, n);
}

static void add_logprobs(struct out_openai *o, const struct kts_event *e)
{
    struct out_choice *c = &o->choices[e->choice];
    for (uint32_t i = 0; i < e->n_tokens; i++) {
        if (o->job->req.api == KTS_CHAT)
            add_chat_logprob(o, &c->lp[0], e, &e->tokens[i]);
        else
            add_legacy_logprob(o, c, e, &e->tokens[i]);
    }
}

static void lp_array(struct json_out *j, const char *key, const struct strbuf *b)
{
    jo_key(j, key);
    jo_array(j);
    if (b->len > 0)
        jo_raw(j, b->data);
    jo_array_end(j);
}

static void put_logprobs(const struct out_openai *o, struct json_out *j, struct out_choice *c,
                         bool empty_is_null)
{
    for (int k = 0; k < 4; k++)
        j->b->failed =
            j->b->failed || c->lp[k].failed; /* a part that is missing must not look like a reply */
    jo_key(j, "logprobs");
    if (o->job->req.n_logprobs < 0 || (empty_is_null && c->lp[0].len == 0)) {
        jo_null(j);
        return;
    }
    jo_object(j);
    if (o->job->req.api == KTS_CHAT) {
        lp_array(j, "content", &c->lp[0]);
    } else {
        lp_array(j, "tokens", &c->lp[0]);
        lp_array(j, "token_logprobs", &c->lp[1]);
        if (o->job->req.n_logprobs > 0)
            lp_array(j, "top_logprobs", &c->lp[2]);
        else
            jo_knull(j, "top_logprobs");
        lp_array(j, "text_offset", &c->lp[3]);
    }
    jo_object_end(j);
}

/* ---- shared pieces ---- */

static const char *finish_name(enum kts_finish f)
{
    return f == FINISH_STOP ? "stop" : f == FINISH_LENGTH ? "length" : NULL;
}

static void put_usage(const struct out_openai *o, struct json_out *j)
{
    uint64_t made = 0;
    for (uint32_t i = 0; i < o->job->n_choices; i++)
        made += o->choices[i].n_generated;
    jo_key(j, "usage");
    jo_object(j);
    jo_kuint(j, "prompt_tokens", o->job->n_prompt_tokens);
    jo_kuint(j, "completion_tokens", made);
    jo_kuint(j, "total_tokens", o->job->n_prompt_tokens + made);
    jo_key(j, "prompt_tokens_details");
    jo_object(j);
    jo_kuint(j, "cached_tokens", 0);
    jo_object_end(j);
    jo_key(j, "completion_tokens_details");
    jo_object(j);
    jo_kuint(j, "reasoning_tokens", 0);
    jo_object_end(j);
    jo_object_end(j);
}

static void put_head(const struct out_openai *o, struct json_out *j, bool chunk)
{
    bool chat = o->job->req.api == KTS_CHAT;
    jo_object(j);
    jo_kstr(j, "id", o->job->id);
    jo_kstr(j, "object",
            !chat   ? "text_completion"
            : chunk ? "chat.completion.chunk"
                    : "chat.completion");
    jo_kint(j, "created", o->created);
    jo_kstr(j, "model", o->model);
    if (!chunk)
        jo_kstr(j, "system_fingerprint", o->fingerprint);
    jo_key(j, "choices");
    jo_array(j);
}

/* ---- streams ---- */

struct delta {
    const char *role, *text;
    size_t len;
    enum kts_finish finish;
};

static void put_chunk(struct out_openai *o, uint32_t choice, const struct delta *d,
                      struct strbuf *sse)
{
    struct json_out j;
    sb_puts(sse, "data: ");
    jo_init(&j, sse);
    put_head(o, &j, true);
    jo_object(&j);
    jo_kuint(&j, "index", choice);
    if (o->job->req.api == KTS_CHAT) {
        jo_key(&j, "delta");
        jo_object(&j);
        if (d->role != NULL)
            jo_kstr(&j, "role", d->role);
        if (d->text != NULL) {
            jo_key(&j, "content");
            jo_strn(&j, d->text, d->len);
        }
        jo_object_end(&j);
    } else {
        jo_key(&j, "text");
        jo_strn(&j, d->text == NULL ? "" : d->text, d->len);
    }
    put_logprobs(o, &j, &o->choices[choice], true);
    jo_kstr(&j, "finish_reason", finish_name(d->finish));
    jo_object_end(&j);
    jo_array_end(&j);
    if (o->job->req.include_usage && o->job->req.continuous_usage)
        put_usage(o, &j);
    else if (o->job->req.include_usage)
        jo_knull(&j, "usage");
    jo_object_end(&j);
    sb_puts(sse, "\n\n");
}

void out_openai_chunk(struct out_openai *o, const struct kts_event *e, struct strbuf *sse)
{
    if (e->kind == EV_START || e->kind == EV_END || e->kind == EV_ERROR)
        return;
    struct out_choice *c = &o->choices[e->choice];
    c->n_generated = e->n_generated;
    if (!c->role_sent && o->job->req.api == KTS_CHAT)
        put_chunk(o, e->choice, &(struct delta){.role = "assistant", .text = ""}, sse);
    c->role_sent = true;
    if (e->kind == EV_FINISH) {
        c->finish = e->finish;
        put_chunk(o, e->choice, &(struct delta){.finish = e->finish}, sse);
        return;
    }
    add_logprobs(o, e);
    if (e->n_tokens == 0)
        c->chars += count_chars(e->text, e->len);
    if (e->len > 0)
        put_chunk(o, e->choice, &(struct delta){.text = e->text, .len = e->len}, sse);
    for (int k = 0; k < 4; k++)
        sb_clear(&c->lp[k]);
}

void out_openai_done(struct out_openai *o, struct strbuf *sse)
{
    struct json_out j;
    if (o->job->req.include_usage) {
        sb_puts(sse, "data: ");
        jo_init(&j, sse);
        put_head(o, &j, true);
        jo_array_end(&j);
        put_usage(o, &j);
        jo_object_end(&j);
        sb_puts(sse, "\n\n");
    }
    sb_puts(sse, "data: [DONE]\n\n");
}

void out_openai_error_json(const struct kts_fail *f, struct strbuf *json)
{
    struct json_out j;
    jo_init(&j, json);
    jo_object(&j);
    jo_key(&j, "error");
    jo_object(&j);
    jo_kstr(&j, "message", f->msg);
    jo_kstr(&j, "type", f->type);
    jo_kstr(&j, "param", f->param[0] ? f->param : NULL);
    jo_kstr(&j, "code", f->code);
    if (f->n_ctx > 0) {
        jo_kuint(&j, "n_prompt_tokens", f->n_prompt_tokens);
        jo_kuint(&j, "n_ctx", f->n_ctx);
    }
    jo_object_end(&j);
    jo_object_end(&j);
}

void out_openai_error(const struct kts_fail *f, struct strbuf *sse)
{
    sb_puts(sse, "data: ");
    out_openai_error_json(f, sse);
    sb_puts(sse, "\n\n");
}

/* ---- whole replies ---- */

void out_openai_collect(struct out_openai *o, const struct kts_event *e)
{
    if (e->kind == EV_START || e->kind == EV_END || e->kind == EV_ERROR)
        return;
    struct out_choice *c = &o->choices[e->choice];
    c->n_generated = e->n_generated;
    if (e->kind == EV_FINISH) {
        c->finish = e->finish;
        c->sum_logprob = e->sum_logprob;
        return;
    }
    add_logprobs(o, e);
    if (e->n_tokens == 0)
        c->chars += count_chars(e->text, e->len);
    sb_add(&c->text, e->text, e->len);
}

static void put_choice(struct out_openai *o, struct json_out *j, struct out_choice *c,
                       uint32_t index)
{
    const char *text = c->text.data == NULL ? "" : c->text.data;
    j->b->failed = j->b->failed || c->text.failed;
    jo_object(j);
    jo_kuint(j, "index", index);
    if (o->job->req.api == KTS_CHAT) {
        jo_key(j, "message");
        jo_object(j);
        jo_kstr(j, "role", "assistant");
        jo_key(j, "content");
        jo_strn(j, text, c->text.len);
        jo_knull(j, "reasoning_content");
        jo_object_end(j);
    } else {
        jo_key(j, "text");
        jo_strn(j, text, c->text.len);
    }
    put_logprobs(o, j, c, false);
    jo_kstr(j, "finish_reason", finish_name(c->finish));
    jo_object_end(j);
}

static double mean_logprob(const struct out_choice *c)
{
    return c->n_generated == 0 ? 0 : c->sum_logprob / c->n_generated;
}

void out_openai_reply(struct out_openai *o, struct strbuf *json)
{
    struct json_out j;
    const struct kts_req *r = &o->job->req;
    uint32_t index = 0;
    jo_init(&j, json);
    put_head(o, &j, false);
    for (uint32_t p = 0; p < o->job->n_prompts; p++) {
        struct out_choice *block = &o->choices[p * (uint32_t)r->best_of];
        uint64_t sent = 0;
        for (int64_t k = 0; k < r->n; k++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t i = 0; i < (uint32_t)r->best_of; i++)
                if (!(sent >> i & 1) &&
                    (best == UINT32_MAX ||
                     (r->best_of > r->n && mean_logprob(&block[i]) > mean_logprob(&block[best]))))
                    best = i;
            sent |= (uint64_t)1 << best;
            put_choice(o, &j, &block[best], index++);
        }
    }
    jo_array_end(&j);
    put_usage(o, &j);
    jo_object_end(&j);
}
