/* tok_gguf.c - the vocabulary of a GGUF file: tokenizer.ggml.* with model "gpt2", its pre-tokeniser
 * by name, end tokens, chat template and sampling defaults. Other vocabulary models are an error
 * that names them. The reader has checked lengths and counts; here every type, id and relation is.
 *
 * Strings of the file are used in place: the mapping outlives the load, the tokenizer copies what
 * it keeps.
 */
#include <string.h>

#include "base/mem.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tok_priv.h"

struct gguf_load {
    kt_tokenizer *t;
    const struct gguf *g;
    struct tok_source src;
};

static bool is(struct gguf_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.s, text, s.len) == 0;
}

/* Array under key with elements of type want (GGUF_I32: any integer); NULL when absent and not
 * required. */
static kt_status array_of(const struct gguf_load *l, const char *key, enum gguf_type want,
                          bool required, const struct gguf_kv **out, kt_err *err)
{
    const struct gguf_kv *kv = gguf_find(l->g, key);
    *out = kv;
    if (kv == NULL && required)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is missing", l->src.file, key);
    if (kv == NULL)
        return KT_OK;
    bool integer = kv->type != GGUF_STRING && kv->type != GGUF_F32 && kv->type != GGUF_F64 &&
                   kv->type != GGUF_BOOL && kv->type != GGUF_ARRAY;
    if (!kv->is_array || (want == GGUF_STRING ? kv->type != GGUF_STRING : !integer))
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is not an array of %s", l->src.file, key,
                want == GGUF_STRING ? "strings" : "integers");
    return KT_OK;
}

static kt_status read_tokens(struct gguf_load *l, kt_err *err)
{
    const struct gguf_kv *tokens = NULL, *types = NULL;
    KT_TRY(array_of(l, "tokenizer.ggml.tokens", GGUF_STRING, true, &tokens, err));
    KT_TRY(array_of(l, "tokenizer.ggml.token_type", GGUF_I32, false, &types, err));
    if (tokens->count == 0 || tokens->count > TOK_MAX_VOCAB)
        KT_FAIL(err, KT_E_FORMAT, "%s: a vocabulary of %llu tokens (1 to %u are allowed)",
                l->src.file, (unsigned long long)tokens->count, TOK_MAX_VOCAB);
    if (types != NULL && types->count != tokens->count)
        KT_FAIL(err, KT_E_FORMAT, "%s: tokenizer.ggml.token_type has %llu entries for %llu tokens",
                l->src.file, (unsigned long long)types->count, (unsigned long long)tokens->count);
    l->src.n = (uint32_t)tokens->count;
    l->src.item = mem_calloc(l->src.n, sizeof *l->src.item);
    if (l->src.item == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for a vocabulary of %u tokens", l->src.file,
                l->src.n);
    const uint8_t *cursor = tokens->data;
    for (uint32_t i = 0; i < l->src.n; i++) {
        struct gguf_str s = gguf_next_str(&cursor);
        int64_t kind = types != NULL ? gguf_int_at(types, i) : TOK_NORMAL;
        if (kind < 0 || kind > TOK_BYTE)
            KT_FAIL(err, KT_E_FORMAT, "%s: token %u has type %lld (0 to 6 are known)", l->src.file,
                    i, (long long)kind);
        if (s.len >= UINT32_MAX)
            KT_FAIL(err, KT_E_FORMAT, "%s: token %u has %llu bytes", l->src.file, i,
                    (unsigned long long)s.len);
        l->src.item[i] =
            (struct tok_item){s.s, (size_t)s.len, kind == 0 ? TOK_UNUSED : (uint8_t)kind, 0};
    }
    return KT_OK;
}

/* *id = -1 when absent */
static kt_status id_of(const struct gguf_load *l, const char *key, int32_t *id, kt_err *err)
{
    uint64_t v = UINT64_MAX;
    KT_TRY(gguf_get_u64(l->g, key, UINT64_MAX, &v, err));
    *id = -1;
    if (v == UINT64_MAX || v == UINT32_MAX) /* writers state "none" as all ones, too */
        return KT_OK;
    if (v >= l->src.n)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is %llu, outside the vocabulary of %u tokens",
                l->src.file, key, (unsigned long long)v, l->src.n);
    *id = (int32_t)v;
    return KT_OK;
}

/* Without types the named tokens are the only control tokens that can be known. */
static kt_status mark_controls(struct gguf_load *l, kt_err *err)
{
    static const char *const key[] = {
        "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"};
    if (gguf_find(l->g, "tokenizer.ggml.token_type") != NULL)
        return KT_OK;
    for (size_t i = 0; i < sizeof key / sizeof key[0]; i++) {
        int32_t id = -1;
        KT_TRY(id_of(l, key[i], &id, err));
        if (id >= 0)
            l->src.item[id].kind = TOK_CONTROL;
    }
    return KT_OK;
}

static kt_status read_merges(struct gguf_load *l, kt_err *err)
{
    const struct gguf_kv *merges = NULL;
    KT_TRY(array_of(l, "tokenizer.ggml.merges", GGUF_STRING, true, &merges, err));
    if (merges->count > TOK_MAX_VOCAB)
        KT_FAIL(err, KT_E_FORMAT, "%s: %llu merges (at most %u)", l->src.file,
                (unsigned long long)merges->count, TOK_MAX_VOCAB);
    KT_TRY(bpe_merges_begin(&l->t->bpe, (uint32_t)merges->count, err));
    const uint8_t *cursor = merges->data;
    for (uint32_t i = 0; i < (uint32_t)merges->count; i++) {
        struct gguf_str s = gguf_next_str(&cursor);
        KT_TRY(tok_merge_text(l->t, &l->src, i, s.s, (size_t)s.len, err));
    }
    return KT_OK;
}

static kt_status read_special(struct gguf_load *l, bool bos_default, kt_err *err)
{
    static const char *const end[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                      "tokenizer.ggml.eom_token_id"};
    int32_t bos = -1, eos = -1, id = -1;
    bool add_bos = false, add_eos = false;
    KT_TRY(id_of(l, "tokenizer.ggml.bos_token_id", &bos, err));
    KT_TRY(id_of(l, "tokenizer.ggml.eos_token_id", &eos, err));
    KT_TRY(id_of(l, "tokenizer.ggml.unknown_token_id", &id, err));
    l->t->bpe.unk_id = id;
    KT_TRY(gguf_get_bool(l->g, "tokenizer.ggml.add_bos_token", bos_default, &add_bos, err));
    KT_TRY(gguf_get_bool(l->g, "tokenizer.ggml.add_eos_token", false, &add_eos, err));
    if (add_bos && bos >= 0)
        KT_TRY(tok_ids_push(&l->t->prefix, bos, err));
    if (add_eos && eos >= 0)
        KT_TRY(tok_ids_push(&l->t->suffix, eos, err));
    for (size_t i = 0; i < sizeof end / sizeof end[0]; i++) {
        KT_TRY(id_of(l, end[i], &id, err));
        if (id >= 0)
            KT_TRY(tok_add_eos(l->t, id, l->src.file, end[i], err));
    }
    return KT_OK;
}

static kt_status read_template(struct gguf_load *l, const char *chat_override, kt_err *err)
{
    struct gguf_str s = {0};
    KT_TRY(gguf_get_str(l->g, "tokenizer.chat_template", &s, err));
    if (s.s == NULL)
        return chat_set(&l->t->chat, NULL, chat_override, err);
    if (memchr(s.s, 0, (size_t)s.len) != NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: tokenizer.chat_template has a NUL byte", l->src.file);
    char *copy = mem_strndup(s.s, (size_t)s.len);
    if (copy == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for the chat template", l->src.file);
    kt_status st = chat_set(&l->t->chat, copy, chat_override, err);
    mem_free(copy);
    return st;
}

static kt_status read_sampling(struct gguf_load *l, kt_err *err)
{
    static const struct {
        const char *key, *name;
    } field[] = {{"general.sampling.temp", "temperature"},
                 {"general.sampling.top_k", "top_k"},
                 {"general.sampling.top_p", "top_p"},
                 {"general.sampling.min_p", "min_p"}};
    for (size_t i = 0; i < sizeof field / sizeof field[0]; i++) {
        double v = 0;
        if (gguf_find(l->g, field[i].key) == NULL)
            continue;
        KT_TRY(gguf_get_f64(l->g, field[i].key, 0, &v, err));
        KT_TRY(tok_set_default(l->t, field[i].name, v, l->src.file, err));
    }
    return KT_OK;
}

static kt_status known_pre(const struct gguf_load *l, const struct pretok_known **out, kt_err *err)
{
    struct gguf_str model = {0}, pre = {0};
    KT_TRY(gguf_get_str(l->g, "tokenizer.ggml.model", &model, err));
    if (model.s == NULL || is(model, "no_vocab") || is(model, "none"))
        KT_FAIL(err, KT_E_NOT_FOUND, "%s: the model has no tokenizer", l->src.file);
    if (is(model, "llama"))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tokenizer.ggml.model is \"llama\" (SentencePiece); this version reads "
                "\"gpt2\" (byte-level BPE)",
                l->src.file);
    if (!is(model, "gpt2"))
        KT_FAIL(
            err, KT_E_UNSUPPORTED,
            "%s: tokenizer.ggml.model is \"%.*s\"; this version reads \"gpt2\" (byte-level BPE)",
            l->src.file, (int)(model.len < 40 ? model.len : 40), model.s);
    KT_TRY(gguf_get_str(l->g, "tokenizer.ggml.pre", &pre, err));
    if (pre.s == NULL)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tokenizer.ggml.pre is missing, so nobody knows how text is split; convert the "
                "model again",
                l->src.file);
    *out = pretok_by_name(pre.s, (size_t)pre.len);
    if (*out == NULL)
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: pre-tokeniser \"%.*s\" is not known to this version",
                l->src.file, (int)(pre.len < 40 ? pre.len : 40), pre.s);
    return KT_OK;
}

static kt_status load(struct gguf_load *l, const char *chat_override, kt_err *err)
{
    const struct pretok_known *pre = NULL;
    KT_TRY(known_pre(l, &pre, err));
    KT_TRY(read_tokens(l, err));
    KT_TRY(mark_controls(l, err));
    KT_TRY(tok_use_known(l->t, pre, err));
    KT_TRY(tok_vocab_build(l->t, &l->src, err));
    KT_TRY(read_merges(l, err));
    KT_TRY(read_special(l, pre->add_bos, err));
    KT_TRY(read_sampling(l, err));
    return read_template(l, chat_override, err);
}

kt_status tok_load_gguf(kt_tokenizer *t, const struct mdl *m, const char *chat_override,
                        kt_err *err)
{
    struct gguf_load l = {.t = t, .g = m->gguf, .src = {.file = gguf_path(m->gguf, 0)}};
    kt_status st = load(&l, chat_override, err);
    mem_free(l.src.item);
    return st;
}
