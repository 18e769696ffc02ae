/* tok.c - the encoder: added tokens in raw text, normalisation, added tokens in normalised text,
 * splits, BPE; and the parts of building that both loaders share. File formats are tok_json.c's and
 * tok_gguf.c's.
 *
 * A tokenizer is immutable after tok_open, so encoding takes no lock; what a call needs lives in a
 * struct encoder on its stack. Invariant: control tokens come out only where the caller allows it
 * (flag, and no byte of a request inside), user-defined ones always.
 */
#include "model/tok.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/tok_priv.h"

struct encoder {
    const kt_tokenizer *t;
    struct tok_ids *ids;
    struct bpe_scratch scratch;
    struct pretok_run *run;
    struct strbuf normalized;
    struct tok_guard guard;
};

kt_status tok_ids_push(struct tok_ids *ids, int32_t id, kt_err *err)
{
    if (ids->n == ids->cap) {
        if (ids->n >= INT32_MAX)
            KT_FAIL(err, KT_E_INVALID, "the text has more than 2^31-1 tokens");
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *v = mem_realloc(ids->v, cap * sizeof *v);
        if (v == NULL)
            KT_FAIL(err, KT_E_NOMEM, "no memory for %zu token ids", cap);
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return KT_OK;
}

/* ---- encoding ---- */

static kt_status on_word(void *user, const char *bytes, size_t n, kt_err *err)
{
    struct encoder *e = user;
    return bpe_encode(&e->t->bpe, &e->scratch, bytes, n, e->ids, err);
}

static kt_status encode_plain(struct encoder *e, const char *s, size_t n, kt_err *err)
{
    return pretok_split(e->run, s, n, &(struct pretok_sink){on_word, e}, err);
}

/* Normalised text: its own added tokens, then words. */
static kt_status encode_normalized(struct encoder *e, const char *s, size_t n, kt_err *err)
{
    size_t at = 0;
    struct added_match m = {0};
    struct tok_guard none = {.control = false}; /* no control token is in this tree */
    while (added_next(&e->t->added.normalized, s, n, &none, &m)) {
        if (m.from > at)
            KT_TRY(encode_plain(e, s + at, m.from - at, err));
        KT_TRY(tok_ids_push(e->ids, m.id, err));
        at = m.to;
    }
    return encode_plain(e, s + at, n - at, err);
}

/* Text between two added tokens. */
static kt_status encode_stretch(struct encoder *e, const char *s, size_t n, kt_err *err)
{
    if (n == 0)
        return KT_OK;
    if (norm_unchanged(&e->t->norm, s, n))
        return encode_normalized(e, s, n, err);
    KT_TRY(norm_run(&e->t->norm, s, n, &e->normalized, err));
    return encode_normalized(e, e->normalized.data != NULL ? e->normalized.data : "",
                             e->normalized.len, err);
}

static kt_status encode_text(struct encoder *e, const char *s, size_t n, kt_err *err)
{
    size_t at = 0;
    struct added_match m = {0};
    while (added_next(&e->t->added.raw, s, n, &e->guard, &m)) {
        if (m.from > at)
            KT_TRY(encode_stretch(e, s + at, m.from - at, err));
        KT_TRY(tok_ids_push(e->ids, m.id, err));
        at = m.to;
    }
    return encode_stretch(e, s + at, n - at, err);
}

static kt_status push_all(struct tok_ids *ids, const struct tok_ids *more, kt_err *err)
{
    for (size_t i = 0; i < more->n; i++)
        KT_TRY(tok_ids_push(ids, more->v[i], err));
    return KT_OK;
}

static kt_status encode(const kt_tokenizer *t, const char *s, size_t n,
                        const struct tok_guard *guard, struct tok_ids *ids, kt_err *err)
{
    struct encoder e = {.t = t, .ids = ids, .guard = *guard};
    kt_status st = pretok_run_new(t->pre, &e.run, err);
    if (st == KT_OK)
        st = encode_text(&e, s, n, err);
    pretok_run_free(e.run);
    bpe_scratch_free(&e.scratch);
    sb_free(&e.normalized);
    return st;
}

kt_status tok_encode(const kt_tokenizer *t, const char *text, size_t len, unsigned flags,
                     struct tok_ids *ids, kt_err *err)
{
    struct tok_guard guard = {.control = (flags & KT_TOK_PARSE_SPECIAL) != 0};
    if (flags & KT_TOK_ADD_SPECIAL)
        KT_TRY(push_all(ids, &t->prefix, err));
    if (len > 0)
        KT_TRY(encode(t, text, len, &guard, ids, err));
    if (flags & KT_TOK_ADD_SPECIAL)
        KT_TRY(push_all(ids, &t->suffix, err));
    return KT_OK;
}

kt_status tok_encode_chat(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                          bool add_generation_prompt, struct tok_ids *ids, kt_err *err)
{
    struct strbuf text = {0};
    struct tok_guard guard = {.control = true};
    struct tok_range *range = mem_calloc(n, 2 * sizeof *range);
    if (range == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a prompt of %zu messages", n);
    kt_status st = chat_render(&t->chat, m, n, add_generation_prompt, &text, range, &guard.n, err);
    guard.range = range;
    if (st == KT_OK && text.len > 0)
        st = encode(t, text.data, text.len, &guard, ids, err);
    mem_free(range);
    sb_free(&text);
    return st;
}

/* ---- building ---- */

/* Does the token's spelling mean bytes of the printable alphabet? Not for added tokens (their text
 * is text) nor for <0xHH>. */
static kt_status token_bytes(const struct tok_source *s, uint32_t id, char *out, size_t *n,
                             kt_err *err)
{
    const struct tok_item *x = &s->item[id];
    size_t k = SIZE_MAX;
    if (x->kind == TOK_NORMAL || x->kind == TOK_UNUSED) {
        k = bpe_unmap(x->text, x->len, out);
    } else if (x->kind == TOK_BYTE) {
        static const char hex[] = "0123456789ABCDEF";
        const char *hi = x->len == 6 ? memchr(hex, x->text[3], 16) : NULL,
                   *lo = x->len == 6 ? memchr(hex, x->text[4], 16) : NULL;
        if (hi == NULL || lo == NULL || memcmp(x->text, "<0x", 3) != 0 || x->text[5] != '>')
            KT_FAIL(err, KT_E_FORMAT, "%s: byte token %u is \"%.*s\", not <0xHH>", s->file, id,
                    (int)(x->len < 40 ? x->len : 40), x->text);
        out[0] = (char)((hi - hex) << 4 | (lo - hex));
        k = 1;
    }
    if (k == SIZE_MAX) {
        memcpy(out, x->text, x->len);
        k = x->len;
    }
    *n = k;
    return KT_OK;
}

/* May BPE make this token? Control tokens never; user-defined ones only where text and bytes are
 * the same thing. */
static bool bpe_may_make(const struct tok_item *x, char *scratch)
{
    if (x->kind == TOK_BYTE)
        return true;
    if (x->kind != TOK_NORMAL && x->kind != TOK_USER)
        return false;
    size_t n = bpe_unmap(x->text, x->len, scratch);
    return n != SIZE_MAX && n > 0 &&
           (x->kind == TOK_NORMAL || (n == x->len && memcmp(scratch, x->text, n) == 0));
}

/* The markers of the built-in chat shapes are control tokens, also where a file calls them
 * user-defined: text of a request must never forge a turn. */
static bool chat_marker(const struct tok_item *x)
{
    return (x->len == 12 && memcmp(x->text, "<|im_start|>", 12) == 0) ||
           (x->len == 10 && memcmp(x->text, "<|im_end|>", 10) == 0);
}

static kt_status add_to_tree(kt_tokenizer *t, const struct tok_source *s, uint32_t id, kt_err *err)
{
    const struct tok_item *x = &s->item[id];
    bool control = x->kind == TOK_CONTROL || x->kind == TOK_UNKNOWN;
    if ((!control && x->kind != TOK_USER) || x->len == 0)
        return KT_OK;
    if (control || !(x->flags & TOK_NORMALIZED) || t->norm.n == 0)
        return added_put(!control && (x->flags & TOK_NORMALIZED) ? &t->added.normalized
                                                                 : &t->added.raw,
                         x->text, x->len, (int32_t)id, x->flags, control, err);
    struct strbuf b = {0};
    kt_status st = norm_run(&t->norm, x->text, x->len, &b, err);
    if (st == KT_OK && b.len > 0)
        st = added_put(&t->added.normalized, b.data, b.len, (int32_t)id, x->flags, false, err);
    sb_free(&b);
    return st;
}

static kt_status fill(kt_tokenizer *t, const struct tok_source *s, char *scratch, kt_err *err)
{
    uint32_t at = 0, doubles = 0;
    for (uint32_t id = 0; id < s->n; id++) {
        size_t n = 0;
        if (s->item[id].kind != TOK_HOLE)
            KT_TRY(token_bytes(s, id, t->arena + at, &n, err));
        t->offset[id] = at;
        t->kind[id] = s->item[id].kind;
        at += (uint32_t)n;
    }
    t->offset[s->n] = at;
    KT_TRY(bpe_init(&t->bpe, t->arena, t->offset, s->n, err));
    for (uint32_t id = 0; id < s->n; id++) {
        if (bpe_may_make(&s->item[id], scratch) && !bpe_add_token(&t->bpe, id))
            doubles++;
        KT_TRY(add_to_tree(t, s, id, err));
    }
    if (doubles > 0)
        log_warn("%s: %u tokens repeat the text of another; the lowest id counts", s->file,
                 doubles);
    return KT_OK;
}

kt_status tok_vocab_build(kt_tokenizer *t, const struct tok_source *s, kt_err *err)
{
    uint64_t total = 0;
    size_t longest = 0;
    if (s->n == 0 || s->n > TOK_MAX_VOCAB)
        KT_FAIL(err, KT_E_FORMAT, "%s: a vocabulary of %u tokens (1 to %u are allowed)", s->file,
                s->n, TOK_MAX_VOCAB);
    for (uint32_t i = 0; i < s->n; i++) {
        total += s->item[i].len;
        longest = s->item[i].len > longest ? s->item[i].len : longest;
        if (s->item[i].kind == TOK_USER && chat_marker(&s->item[i]))
            s->item[i].kind = TOK_CONTROL;
    }
    if (total >= UINT32_MAX)
        KT_FAIL(err, KT_E_LIMIT, "%s: the vocabulary's texts are longer than 4 GiB", s->file);
    t->n_vocab = s->n;
    t->arena = mem_alloc(total + 1);
    t->offset = mem_calloc((size_t)s->n + 1, sizeof *t->offset);
    t->kind = mem_calloc(s->n, 1);
    char *scratch = mem_alloc(longest + 1);
    kt_status st = KT_OK;
    if (t->arena == NULL || t->offset == NULL || t->kind == NULL || scratch == NULL)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "%s: no memory for a vocabulary of %u tokens",
                     s->file, s->n);
    else
        st = fill(t, s, scratch, err);
    mem_free(scratch);
    return st;
}

kt_status tok_merge(kt_tokenizer *t, const struct tok_source *s, uint32_t rank, const char *a,
                    size_t n_a, const char *b, size_t n_b, kt_err *err)
{
    char small[512], *buf = small;
    if (n_a + n_b > sizeof small && (buf = mem_alloc(n_a + n_b)) == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for merge %u", s->file, rank);
    size_t l = bpe_unmap(a, n_a, buf), r = l != SIZE_MAX ? bpe_unmap(b, n_b, buf + l) : SIZE_MAX;
    bool ok = r != SIZE_MAX && l > 0 && r > 0 && bpe_add_merge(&t->bpe, rank, buf, l, l + r);
    if (buf != small)
        mem_free(buf);
    if (!ok)
        KT_FAIL(
            err, KT_E_FORMAT,
            "%s: merge %u, \"%.*s\" with \"%.*s\", names tokens that the vocabulary does not have",
            s->file, rank, (int)(n_a < 60 ? n_a : 60), a, (int)(n_b < 60 ? n_b : 60), b);
    return KT_OK;
}

kt_status tok_merge_text(kt_tokenizer *t, const struct tok_source *s, uint32_t rank,
                         const char *text, size_t len, kt_err *err)
{
    const char *space = len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
    if (space == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: merge %u, \"%.*s\", is not two tokens with a space between",
                s->file, rank, (int)(len < 60 ? len : 60), text);
    size_t n_a = (size_t)(space - text);
    return tok_merge(t, s, rank, text, n_a, space + 1, len - n_a - 1, err);
}

kt_status tok_add_eos(kt_tokenizer *t, int64_t id, const char *file, const char *key, kt_err *err)
{
    if (id < 0 || id >= t->n_vocab)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is %lld, outside the vocabulary of %u tokens", file, key,
                (long long)id, t->n_vocab);
    for (size_t i = 0; i < t->eos.n; i++)
        if (t->eos.v[i] == id)
            return KT_OK;
    return tok_ids_push(&t->eos, (int32_t)id, err);
}

int32_t tok_find(const kt_tokenizer *t, const char *text)
{
    struct added_match m = {0}, k = {0};
    struct tok_guard all = {.control = true};
    size_t n = strlen(text);
    if (added_next(&t->added.raw, text, n, &all, &m) && m.from == 0 && m.to == n)
        return m.id;
    if (added_next(&t->added.normalized, text, n, &all, &k) && k.from == 0 && k.to == n)
        return k.id;
    return (int32_t)bpe_find(&t->bpe, text, n);
}

kt_status tok_use_known(kt_tokenizer *t, const struct pretok_known *k, kt_err *err)
{
    for (size_t i = 0; k->patterns[i] != NULL; i++)
        KT_TRY(pretok_add_regex(t->pre, k->patterns[i], SPLIT_ISOLATED, false, err));
    if (k->nfc)
        KT_TRY(norm_add(&t->norm, NORM_NFC, NULL, NULL, err));
    t->bpe.ignore_merges = k->ignore_merges;
    t->pre_name = k->name;
    return KT_OK;
}

kt_status tok_set_default(kt_tokenizer *t, const char *name, double v, const char *file,
                          kt_err *err)
{
    bool temperature = strcmp(name, "temperature") == 0, top_k = strcmp(name, "top_k") == 0,
         top_p = strcmp(name, "top_p") == 0;
    double low = 0, high = temperature ? 5 : top_k ? 2147483647.0 : 1;
    if (!(v >= (top_k ? -1 : low) && v <= high) || (top_p && v <= 0))
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is %g, outside %s%g..%g", file, name, v,
                top_p ? "above " : "", top_k ? -1.0 : low, high);
    if (temperature)
        t->defaults.temperature = (float)v;
    else if (top_k)
        t->defaults.top_k = (int32_t)v;
    else if (top_p)
        t->defaults.top_p = (float)v;
    else
        t->defaults.min_p = (float)v;
    return KT_OK;
}

/* What holds for both kinds of file, once everything is read. */
static kt_status finish(kt_tokenizer *t, const char *chat_override, kt_err *err)
{
    KT_TRY(bpe_finish(&t->bpe, err));
    if (!chat_is_chatml(&t->chat))
        return KT_OK;
    int32_t start = tok_find(t, "<|im_start|>"), end = tok_find(t, "<|im_end|>");
    if (end >= 0)
        KT_TRY(tok_add_eos(t, end, "vocabulary", "<|im_end|>", err));
    if (chat_override != NULL && (start < 0 || end < 0))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "chat template chatml was asked for, but the vocabulary has no token %s",
                start < 0 ? "<|im_start|>" : "<|im_end|>");
    return KT_OK;
}

kt_status tok_open(const struct mdl *m, const char *chat_override, kt_tokenizer **out, kt_err *err)
{
    kt_tokenizer *t = mem_calloc(1, sizeof *t);
    *out = NULL;
    if (t == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a tokenizer");
    t->defaults = (kt_sampling){.temperature = 1, .top_p = 1};
    kt_status st = pretok_new(&t->pre, err);
    if (st == KT_OK)
        st = m->is_gguf ? tok_load_gguf(t, m, chat_override, err)
                        : tok_load_json(t, m, chat_override, err);
    if (st == KT_OK)
        st = finish(t, chat_override, err);
    if (st != KT_OK) {
        tok_close(t);
        return st;
    }
    *out = t;
    return KT_OK;
}

void tok_close(kt_tokenizer *t)
{
    if (t == NULL)
        return;
    bpe_free(&t->bpe);
    added_free(&t->added);
    norm_free(&t->norm);
    pretok_free(t->pre);
    chat_free(&t->chat);
    mem_free(t->arena);
    mem_free(t->offset);
    mem_free(t->kind);
    mem_free(t->prefix.v);
    mem_free(t->suffix.v);
    mem_free(t->eos.v);
    mem_free(t);
}

const char *tok_pre_name(const kt_tokenizer *t)
{
    return t->pre_name;
}
