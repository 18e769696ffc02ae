/* fake_kt.c - an engine and a tokenizer without a model, for tests of the server: the functions of
 * kt.h, deterministic, bytes as tokens. What a sequence says is written in its prompt: the text
 * after the last "say:" up to '~' or the end of the message is repeated, then comes the end token;
 * without it letters follow for ever. Three tokens after "nan!" a sequence has a numeric error;
 * "dev!" breaks the device. Misuse of the interface (a sequence twice in a step, too many tokens,
 * use after close) aborts, so that tests see it. It is never linked into ktserve itself.
 */
#include "fake_kt.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kt.h"

#define PAGE 16

atomic_bool fake_hold;
atomic_int fake_step_us, fake_kv_pages = 4096, fake_seqs_open, fake_steps, fake_most_items;

struct kt_engine {
    uint32_t max_seqs, ctx, batch, pages, used;
    atomic_uint used_view;
    uint64_t counts[2 * 8];
    atomic_ullong steps, tokens;
};

struct kt_seq {
    kt_engine *e;
    uint32_t n, reserve, pages;
    int32_t *ids;
    bool in_step;
};

struct kt_tokenizer {
    char bytes[256];
};

#define MUST(c)                                                                                    \
    do {                                                                                           \
        if (!(c)) {                                                                                \
            fprintf(stderr, "fake_kt: misuse: %s\n", #c);                                          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static kt_status fail(kt_err *err, kt_status st, const char *msg)
{
    if (err != NULL) {
        memset(err, 0, sizeof *err);
        err->code = st;
        snprintf(err->msg, sizeof err->msg, "%s", msg);
    }
    return st;
}

void kt_engine_opts_init(kt_engine_opts *o)
{
    memset(o, 0, sizeof *o);
    o->size = sizeof *o;
    o->max_seqs = 16;
    o->batch_tokens = 512;
    o->kv_type = "bf16";
}

kt_status kt_engine_open(const kt_engine_opts *o, kt_engine **out, kt_err *err)
{
    const char *us = getenv("FAKE_STEP_US"), *load = getenv("FAKE_LOAD_MS"),
               *pages = getenv("FAKE_KV_PAGES");
    *out = NULL;
    if (o->model_path != NULL && strstr(o->model_path, "missing") != NULL)
        return fail(err, KT_E_NOT_FOUND, "no such model");
    if (us != NULL)
        atomic_store(&fake_step_us, (int)strtol(us, NULL, 10));
    if (pages != NULL)
        atomic_store(&fake_kv_pages, (int)strtol(pages, NULL, 10));
    if (load != NULL) {
        long ms = strtol(load, NULL, 10);
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    }
    kt_engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return fail(err, KT_E_NOMEM, "memory");
    e->max_seqs = o->max_seqs;
    e->ctx = o->ctx_tokens ? o->ctx_tokens : 2048;
    e->batch = o->batch_tokens;
    e->pages = (uint32_t)atomic_load(&fake_kv_pages);
    *out = e;
    return KT_OK;
}

void kt_engine_close(kt_engine *e)
{
    if (e != NULL)
        MUST(e->used == 0);
    free(e);
}

void kt_engine_get_info(const kt_engine *e, kt_engine_info *i)
{
    memset(i, 0, sizeof *i);
    i->arch = "fake";
    i->model_name = "fake";
    i->n_layers = i->n_moe_layers = 2;
    i->last_moe_layer = 1;
    i->hidden = 8;
    i->vocab = FAKE_VOCAB;
    i->n_experts = 8;
    i->experts_per_token = 2;
    i->ctx_tokens = i->model_ctx_tokens = e->ctx;
    i->max_seqs = e->max_seqs;
    i->batch_tokens = e->batch;
    i->kv_page_tokens = PAGE;
    i->kv_pages = e->pages;
    i->expert_bytes = 100;
    i->n_pools = i->n_threads = 1;
    i->kernel = "ref";
    i->kv_type = "bf16";
    i->profile_state = "none";
    i->profile_id = i->profile_host = "";
    i->plan_text = "fake";
    i->dense_format = i->expert_format = "F32";
}

bool kt_engine_get_pool(const kt_engine *e, uint32_t pool, kt_pool_info *info)
{
    (void)e;
    *info = (kt_pool_info){.threads = 1, .row_share = 1, .pages_known = true};
    return pool == 0;
}

void kt_engine_get_stats(const kt_engine *e, kt_engine_stats *s)
{
    memset(s, 0, sizeof *s);
    s->steps = atomic_load(&e->steps);
    s->step_tokens = atomic_load(&e->tokens);
    s->expert_tokens = 4 * s->step_tokens;
    s->kv_pages_total = e->pages;
    s->kv_pages_used = atomic_load(&e->used_view);
}

const uint64_t *kt_engine_expert_counts(const kt_engine *e)
{
    return e->counts;
}

kt_status kt_seq_open(kt_engine *e, uint32_t reserve, kt_seq **out, kt_err *err)
{
    uint32_t pages = (reserve + PAGE - 1) / PAGE;
    *out = NULL;
    if (reserve < 1 || reserve > e->ctx)
        return fail(err, KT_E_INVALID, "reserve out of range");
    if (e->used + pages > e->pages || (uint32_t)atomic_load(&fake_seqs_open) >= e->max_seqs)
        return fail(err, KT_E_KV_FULL, "no pages");
    kt_seq *s = calloc(1, sizeof *s);
    s->e = e;
    s->reserve = reserve;
    s->pages = pages;
    s->ids = calloc(reserve, sizeof *s->ids);
    e->used += pages;
    atomic_store(&e->used_view, e->used);
    atomic_fetch_add(&fake_seqs_open, 1);
    *out = s;
    return KT_OK;
}

void kt_seq_close(kt_seq *s)
{
    if (s == NULL)
        return;
    s->e->used -= s->pages;
    atomic_store(&s->e->used_view, s->e->used);
    atomic_fetch_sub(&fake_seqs_open, 1);
    free(s->ids);
    free(s);
}

uint32_t kt_seq_length(const kt_seq *s)
{
    return s->n;
}

static uint32_t mix(uint64_t a)
{
    a *= 0x9e3779b97f4a7c15u;
    a ^= a >> 29;
    a *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(a >> 32);
}

/* Index just after the last occurrence of `what` among the first `end` tokens, or -1. */
static int64_t after(const kt_seq *s, uint32_t end, const char *what)
{
    int64_t n = (int64_t)strlen(what), k;
    for (int64_t i = (int64_t)end - n; i >= 0; i--) {
        for (k = 0; k < n && s->ids[i + k] == what[k]; k++)
            ;
        if (k == n)
            return i + n;
    }
    return -1;
}

/* The token that should follow the first `len` tokens: the script between "say:" and its end ('~'
 * or the end token), then the end token. */
static int32_t next_of(const kt_seq *s, uint32_t len)
{
    int64_t at = after(s, len, "say:"), end = at;
    while (end >= 0 && end < len && s->ids[end] != '~' && s->ids[end] != FAKE_END)
        end++;
    if (at < 0 || end == len)
        return 'a' + (int32_t)(mix(len) % 26);
    int64_t said = len - end - 1;
    return at + said < end ? s->ids[at + said] : FAKE_END;
}

static void row_of(const kt_seq *s, uint32_t len, float *out)
{
    int32_t want = next_of(s, len);
    for (int32_t id = 0; id < FAKE_VOCAB; id++)
        out[id] = (float)(mix((uint64_t)len * 1000 + (uint64_t)id) % 1000) / 1000.0f;
    out[want] += 6;
}

static void run_item(kt_batch_item *it)
{
    kt_seq *s = it->seq;
    memcpy(s->ids + s->n, it->ids, it->n * sizeof *it->ids);
    uint32_t before = s->n;
    s->n += it->n;
    int64_t bad = after(s, s->n, "nan!");
    it->result = bad >= 0 && s->n > bad + 3 ? KT_E_NUMERIC : KT_OK;
    if (it->logits == NULL)
        return;
    for (uint32_t i = it->all_logits ? 0 : it->n - 1, k = 0; i < it->n; i++, k++)
        row_of(s, before + i + 1, it->logits + (size_t)k * FAKE_VOCAB);
}

kt_status kt_step(kt_engine *e, kt_batch_item *items, uint32_t n, kt_err *err)
{
    uint32_t tokens = 0;
    bool broken = false;
    int us = atomic_load(&fake_step_us);
    MUST(n > 0 && n <= e->max_seqs);
    for (uint32_t i = 0; i < n; i++) {
        MUST(!items[i].seq->in_step && items[i].n > 0);
        items[i].seq->in_step = true;
        tokens += items[i].n;
        if (items[i].seq->n + items[i].n > items[i].seq->reserve)
            return fail(err, KT_E_KV_FULL, "over the reservation");
        for (uint32_t k = 0; k < items[i].n; k++)
            MUST(items[i].ids[k] >= 0 && items[i].ids[k] < FAKE_VOCAB);
    }
    MUST(tokens <= e->batch);
    for (int i = 0; atomic_load(&fake_hold) && i < 10000; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (us > 0)
        nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
    for (uint32_t i = 0; i < n; i++) {
        run_item(&items[i]);
        items[i].seq->in_step = false;
        broken = broken || after(items[i].seq, items[i].seq->n, "dev!") >= 0;
    }
    for (uint32_t t = 0; t < tokens * 4; t++)
        __atomic_fetch_add(&e->counts[mix(e->tokens + t) % 16], 1, __ATOMIC_RELAXED);
    atomic_fetch_add(&e->steps, 1);
    atomic_fetch_add(&e->tokens, tokens);
    atomic_fetch_add(&fake_steps, 1);
    if ((int)n > atomic_load(&fake_most_items))
        atomic_store(&fake_most_items, (int)n);
    return broken ? fail(err, KT_E_DEVICE, "the fake device broke") : KT_OK;
}

/* ---- sampling: the highest of logit/T plus noise that depends on seed, choice, position and id
 * ---- */

int32_t kt_sample(const float *logits, uint32_t vocab, const kt_sampling *p, uint64_t position,
                  void *scratch)
{
    int32_t best = -1;
    double top = -INFINITY;
    memset(scratch, 0x5a, (size_t)vocab * 16);
    for (uint32_t id = 0; id < vocab; id++) {
        double v = (double)logits[id];
        if (isnan(v))
            return -1;
        if (p->temperature >= 1e-6f) {
            double u = (mix(p->seed * 31 + p->choice * 7 + position * 1013 + id * 65537) + 0.5) /
                       4294967296.0;
            v = v / (double)p->temperature - log(-log(u));
        }
        if (v > top) {
            top = v;
            best = (int32_t)id;
        }
    }
    return best;
}

double kt_logprob(const float *logits, uint32_t vocab, int32_t id)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

void kt_top_logprobs(const float *logits, uint32_t vocab, uint32_t n, int32_t *ids, double *lps)
{
    for (uint32_t k = 0; k < n; k++) {
        int32_t best = -1;
        for (uint32_t i = 0; i < vocab; i++) {
            bool used = false;
            for (uint32_t j = 0; j < k; j++)
                used = used || ids[j] == (int32_t)i;
            if (!used && (best < 0 || logits[i] > logits[best]))
                best = (int32_t)i;
        }
        ids[k] = best;
        lps[k] = kt_logprob(logits, vocab, best);
    }
}

/* ---- text ---- */

kt_status kt_tokenizer_open(const char *path, const char *chat_override, kt_tokenizer **out,
                            kt_err *err)
{
    (void)chat_override;
    if (path != NULL && strstr(path, "notok") != NULL)
        return fail(err, KT_E_NOT_FOUND, "no tokenizer.json");
    *out = calloc(1, sizeof **out);
    for (int i = 0; i < 256; i++)
        (*out)->bytes[i] = (char)i;
    return KT_OK;
}

void kt_tokenizer_close(kt_tokenizer *t)
{
    free(t);
}

uint32_t kt_tokenizer_vocab(const kt_tokenizer *t)
{
    (void)t;
    return FAKE_VOCAB;
}

static size_t control_at(const char *text, size_t len, int32_t *id)
{
    static const char *const names[] = {"<|im_start|>", "<|im_end|>"};
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(names[i]);
        if (len >= n && memcmp(text, names[i], n) == 0) {
            *id = FAKE_START + i;
            return n;
        }
    }
    return 0;
}

kt_status kt_tokenize(const kt_tokenizer *t, const char *text, size_t len, unsigned flags,
                      int32_t *ids, size_t cap, size_t *n, kt_err *err)
{
    (void)t;
    (void)err;
    *n = 0;
    for (size_t i = 0; i < len;) {
        int32_t id = (unsigned char)text[i];
        size_t skip = flags & KT_TOK_PARSE_SPECIAL ? control_at(text + i, len - i, &id) : 0;
        if (*n < cap)
            ids[*n] = id;
        ++*n;
        i += skip > 0 ? skip : 1;
    }
    return KT_OK;
}

size_t kt_token_bytes(const kt_tokenizer *t, int32_t id, const char **bytes)
{
    static const char *const control[] = {"<|eot|>", "<|im_start|>", "<|im_end|>", "<|pad|>"};
    if (id < 0 || id >= FAKE_VOCAB)
        return 0;
    *bytes = id < FAKE_BYTES ? &t->bytes[id] : control[id - FAKE_BYTES];
    return id < FAKE_BYTES ? 1 : strlen(*bytes);
}

bool kt_token_is_control(const kt_tokenizer *t, int32_t id)
{
    (void)t;
    return id >= FAKE_BYTES;
}

bool kt_token_is_eos(const kt_tokenizer *t, int32_t id)
{
    (void)t;
    return id == FAKE_END || id == FAKE_BYTES;
}

struct sink {
    int32_t *ids;
    size_t cap, n;
};

static void put(struct sink *s, int32_t id)
{
    if (s->n < s->cap)
        s->ids[s->n] = id;
    s->n++;
}

static void put_text(struct sink *s, const char *text)
{
    for (; *text; text++)
        put(s, (unsigned char)*text);
}

kt_status kt_chat_encode(const kt_tokenizer *t, const kt_chat_message *m, size_t n, bool gen,
                         int32_t *ids, size_t cap, size_t *n_ids, kt_err *err)
{
    struct sink s = {ids, cap, 0};
    (void)t;
    (void)err;
    (void)gen;
    for (size_t i = 0; i < n; i++) {
        put(&s, FAKE_START);
        put_text(&s, m[i].role);
        put(&s, '\n');
        put_text(&s, m[i].content);
        put(&s, FAKE_END);
    }
    *n_ids = s.n;
    return KT_OK;
}

kt_status kt_chat_supported(const kt_tokenizer *t, kt_err *err)
{
    (void)t;
    (void)err;
    return KT_OK;
}

const char *kt_chat_template(const kt_tokenizer *t)
{
    (void)t;
    return NULL;
}

void kt_sampling_defaults(const kt_tokenizer *t, kt_sampling *p)
{
    (void)t;
    *p = (kt_sampling){.temperature = 1, .top_k = -1, .top_p = 1, .min_p = 0};
}
