/* tok_json.c - tokenizer.json: the vocabulary, the merges and the added tokens of a byte-level BPE.
 * Everything else in the file that changes tokens is read in tok_json_parts.c; the files beside it
 * in tok_config.c. What is not byte-level BPE, or not known, is an error that names it.
 *
 * Every id is checked before it becomes an index: inside a range that follows from the number of
 * entries, used once.
 */
#include "model/tok_json.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#define MAX_FILE ((uint64_t)128 << 20)

kt_status tok_json_read(const char *dir, const char *name, bool optional, char **path, json_t **out,
                        kt_err *err)
{
    struct strbuf b = {0};
    char *text = NULL;
    size_t len = 0;
    json_error_t je;
    *out = NULL;
    sb_printf(&b, "%s/%s", dir, name);
    *path = sb_take(&b, NULL);
    if (*path == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a path");
    kt_err why = {0};
    kt_status st = file_read(*path, MAX_FILE, &text, &len, &why);
    if (st != KT_OK) {
        if (st == KT_E_NOT_FOUND && optional)
            return KT_OK;
        if (err != NULL)
            *err = why;
        return st;
    }
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    mem_free(text);
    if (*out == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: byte %d: %s", *path, je.position, je.text);
    if (!json_is_object(*out))
        KT_FAIL(err, KT_E_FORMAT, "%s: not a JSON object", *path);
    return KT_OK;
}

kt_status tok_json_bool(const json_t *o, const char *key, bool def, const char *file, bool *out,
                        kt_err *err)
{
    const json_t *v = json_object_get(o, key);
    *out = v == NULL || json_is_null(v) ? def : json_is_true(v);
    if (v != NULL && !json_is_null(v) && !json_is_boolean(v))
        KT_FAIL(err, KT_E_FORMAT, "%s: \"%s\" is not true or false", file, key);
    return KT_OK;
}

kt_status tok_json_str(const json_t *o, const char *key, const char *file, const char **out,
                       kt_err *err)
{
    const json_t *v = json_object_get(o, key);
    *out = json_string_value(v);
    if (v != NULL && !json_is_null(v) && !json_is_string(v))
        KT_FAIL(err, KT_E_FORMAT, "%s: \"%s\" is not a string", file, key);
    return KT_OK;
}

/* ---- vocabulary ---- */

static kt_status place(struct tok_json *j, const char *text, const json_t *v, uint32_t limit,
                       uint32_t *id, kt_err *err)
{
    json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < 0 || i >= limit)
        KT_FAIL(err, KT_E_FORMAT, "%s: the id of token \"%.60s\" is not a number below %u", j->path,
                text, limit);
    *id = (uint32_t)i;
    j->src.n = *id >= j->src.n ? *id + 1 : j->src.n;
    return KT_OK;
}

static kt_status read_vocab(struct tok_json *j, uint32_t limit, kt_err *err)
{
    const char *text = NULL;
    json_t *v = NULL;
    void *it = NULL;
    json_t *vocab = json_object_get(json_object_get(j->root, "model"), "vocab");
    for (it = json_object_iter(vocab); it != NULL; it = json_object_iter_next(vocab, it)) {
        text = json_object_iter_key(it);
        v = json_object_iter_value(it);
        uint32_t id = 0;
        KT_TRY(place(j, text, v, limit, &id, err));
        if (j->src.item[id].kind != TOK_HOLE)
            KT_FAIL(err, KT_E_FORMAT, "%s: tokens \"%.60s\" and \"%.60s\" share the id %u", j->path,
                    j->src.item[id].text, text, id);
        j->src.item[id] = (struct tok_item){text, strlen(text), TOK_NORMAL, 0};
    }
    return KT_OK;
}

static kt_status read_added(struct tok_json *j, const json_t *v, uint32_t limit, kt_err *err)
{
    static const struct {
        const char *key;
        uint8_t flag;
    } flag[] = {{"lstrip", TOK_LSTRIP},
                {"rstrip", TOK_RSTRIP},
                {"single_word", TOK_SINGLE_WORD},
                {"normalized", TOK_NORMALIZED}};
    const char *text = NULL;
    bool on = false, special = false;
    uint32_t id = 0;
    if (!json_is_object(v))
        KT_FAIL(err, KT_E_FORMAT, "%s: an entry of added_tokens is not an object", j->path);
    KT_TRY(tok_json_str(v, "content", j->path, &text, err));
    if (text == NULL || *text == '\0')
        KT_FAIL(err, KT_E_FORMAT, "%s: an added token has no content", j->path);
    KT_TRY(place(j, text, json_object_get(v, "id"), limit, &id, err));
    const json_t *same = json_object_get(j->vocab, text);
    struct tok_item *x = &j->src.item[id];
    if ((same != NULL && json_integer_value(same) != id) ||
        (x->kind != TOK_HOLE && strcmp(x->text, text) != 0))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: added token \"%.60s\" has id %u, but the vocabulary says otherwise", j->path,
                text, id);
    uint8_t flags = 0;
    for (size_t i = 0; i < sizeof flag / sizeof flag[0]; i++) {
        KT_TRY(tok_json_bool(v, flag[i].key, false, j->path, &on, err));
        flags |= on ? flag[i].flag : 0;
    }
    KT_TRY(tok_json_bool(v, "special", false, j->path, &special, err));
    *x = (struct tok_item){text, strlen(text), special ? TOK_CONTROL : TOK_USER, flags};
    return KT_OK;
}

static kt_status read_tokens(struct tok_json *j, kt_err *err)
{
    const json_t *added = json_object_get(j->root, "added_tokens");
    if (!json_is_object(j->vocab))
        KT_FAIL(err, KT_E_FORMAT, "%s: model.vocab is missing or not an object", j->path);
    if (added != NULL && !json_is_null(added) && !json_is_array(added))
        KT_FAIL(err, KT_E_FORMAT, "%s: added_tokens is not an array", j->path);
    size_t n = json_object_size(j->vocab) + json_array_size(added);
    if (n == 0 || n > TOK_MAX_VOCAB)
        KT_FAIL(err, KT_E_FORMAT, "%s: a vocabulary of %zu tokens (1 to %u are allowed)", j->path,
                n, TOK_MAX_VOCAB);
    uint32_t limit = 2 * (uint32_t)n + 65536; /* ids may have holes, within reason */
    limit = limit < TOK_MAX_VOCAB ? limit : TOK_MAX_VOCAB;
    j->src.item = mem_calloc(limit, sizeof *j->src.item);
    if (j->src.item == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for a vocabulary of %zu tokens", j->path, n);
    KT_TRY(read_vocab(j, limit, err));
    for (size_t i = 0; i < json_array_size(added); i++)
        KT_TRY(read_added(j, json_array_get(added, i), limit, err));
    return KT_OK;
}

/* ---- model ---- */

static kt_status read_merges(struct tok_json *j, const json_t *merges, kt_err *err)
{
    size_t n = json_array_size(merges);
    if (!json_is_array(merges) || n > TOK_MAX_VOCAB)
        KT_FAIL(err, KT_E_FORMAT, "%s: model.merges is missing, too long or not an array", j->path);
    KT_TRY(bpe_merges_begin(&j->t->bpe, (uint32_t)n, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(merges, i);
        const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
        if (json_is_string(v))
            KT_TRY(tok_merge_text(j->t, &j->src, (uint32_t)i, json_string_value(v),
                                  json_string_length(v), err));
        else if (json_array_size(v) == 2 && json_is_string(a) && json_is_string(b))
            KT_TRY(tok_merge(j->t, &j->src, (uint32_t)i, json_string_value(a),
                             json_string_length(a), json_string_value(b), json_string_length(b),
                             err));
        else
            KT_FAIL(err, KT_E_FORMAT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                    j->path, i);
    }
    return KT_OK;
}

/* Members of the model that would change tokens in ways this BPE does not have. */
static kt_status refuse_unknown(const struct tok_json *j, const json_t *model, kt_err *err)
{
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = NULL, *text = NULL;
    KT_TRY(tok_json_str(model, "type", j->path, &type, err));
    if (type == NULL || strcmp(type, "BPE") != 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: model type \"%.40s\"; this version reads byte-level BPE", j->path,
                type != NULL ? type : "(none)");
    for (size_t i = 0; i < 2; i++) {
        KT_TRY(tok_json_str(model, affix[i], j->path, &text, err));
        if (text != NULL && *text != '\0')
            KT_FAIL(err, KT_E_UNSUPPORTED, "%s: model.%s \"%.40s\" is not byte-level BPE", j->path,
                    affix[i], text);
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) &&
        !(json_is_number(dropout) && json_number_value(dropout) == 0))
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: model.dropout makes tokens random", j->path);
    return KT_OK;
}

static kt_status read_unknown(struct tok_json *j, const json_t *model, kt_err *err)
{
    struct bpe *b = &j->t->bpe;
    const char *unk = NULL;
    bool fallback = false;
    KT_TRY(tok_json_str(model, "unk_token", j->path, &unk, err));
    KT_TRY(tok_json_bool(model, "fuse_unk", false, j->path, &b->fuse_unk, err));
    KT_TRY(tok_json_bool(model, "ignore_merges", false, j->path, &b->ignore_merges, err));
    KT_TRY(tok_json_bool(model, "byte_fallback", false, j->path, &fallback, err));
    if (unk != NULL) {
        const json_t *v = json_object_get(j->vocab, unk);
        int32_t id = v != NULL ? (int32_t)json_integer_value(v) : tok_find(j->t, unk);
        if (id < 0)
            KT_FAIL(err, KT_E_FORMAT, "%s: model.unk_token \"%.60s\" is not in the vocabulary",
                    j->path, unk);
        b->unk_id = id;
    }
    for (int i = 0; fallback && i < 256; i++)
        if (b->byte_id[i] < 0)
            KT_FAIL(err, KT_E_UNSUPPORTED,
                    "%s: model.byte_fallback with a vocabulary that lacks byte 0x%02X", j->path,
                    (unsigned)i);
    return KT_OK;
}

static kt_status load(struct tok_json *j, kt_err *err)
{
    const json_t *model = json_object_get(j->root, "model");
    if (!json_is_object(model))
        KT_FAIL(err, KT_E_FORMAT, "%s: \"model\" is missing or not an object", j->path);
    j->vocab = json_object_get(model, "vocab");
    KT_TRY(refuse_unknown(j, model, err));
    KT_TRY(tok_json_normalizer(j, json_object_get(j->root, "normalizer"), 0, err));
    KT_TRY(read_tokens(j, err));
    KT_TRY(tok_vocab_build(j->t, &j->src, err));
    KT_TRY(read_merges(j, json_object_get(model, "merges"), err));
    KT_TRY(read_unknown(j, model, err));
    KT_TRY(tok_json_pre_tokenizer(j, json_object_get(j->root, "pre_tokenizer"), 0, err));
    if (!j->byte_level)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: no ByteLevel pre-tokeniser; this version reads byte-level BPE", j->path);
    KT_TRY(tok_json_post_processor(j, json_object_get(j->root, "post_processor"), 0, err));
    return tok_json_decoder(j, json_object_get(j->root, "decoder"), 0, err);
}

kt_status tok_load_json(kt_tokenizer *t, const struct mdl *m, const char *chat_override,
                        kt_err *err)
{
    struct tok_json j = {.t = t};
    kt_status st = tok_json_read(m->dir, "tokenizer.json", false, &j.path, &j.root, err);
    if (st == KT_E_NOT_FOUND)
        err_set(err, st, 0, __func__, "%s: there is no tokenizer.json; put the model's one there",
                m->dir);
    j.src.file = j.path;
    if (st == KT_OK)
        st = load(&j, err);
    if (st == KT_OK) {
        const struct pretok_known *k = NULL;
        if (norm_is(&t->norm, false) || norm_is(&t->norm, true))
            k = pretok_by_patterns(t->pre, norm_is(&t->norm, true), t->bpe.ignore_merges);
        t->pre_name = k != NULL ? k->name : NULL;
        st = tok_json_configs(&j, m, chat_override, err);
    }
    mem_free(j.src.item);
    json_decref(j.root);
    mem_free(j.path);
    return st;
}
