/* convert_tok.c - see convert_tok.h. The model room's tokenizer checks the files and names the
 * pre-tokeniser; here their content is copied: tokens, types, merges, special ids, chat template,
 * sampling defaults. Nothing is guessed: an unknown split pattern is an error.
 */
#include "convert_tok.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/tok.h"

#define MAX_JSON ((uint64_t)256 << 20)
#define MAX_ENDS 3

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

struct conv {
    const struct mdl *m;
    struct gguf_out *o;
    json_t *tok, *tok_config, *gen, *config; /* the JSON files, NULL when absent */
    const char **text;                       /* [vocab], NULL: no such id */
    uint8_t *type;                           /* [vocab] */
    kt_err *err;
};

/* *out = NULL when the file does not exist. */
static kt_status read_text(const struct conv *c, const char *name, char **out, size_t *n)
{
    struct strbuf b = {0};
    sb_printf(&b, "%s/%s", c->m->dir, name);
    kt_status st = sb_ok(&b) ? file_read(b.data, MAX_JSON, out, n, c->err)
                             : err_set(c->err, KT_E_NOMEM, 0, __func__, "%s: out of memory", name);
    sb_free(&b);
    if (st != KT_OK)
        *out = NULL;
    return st == KT_E_NOT_FOUND ? KT_OK : st;
}

static kt_status read_json(const struct conv *c, const char *name, json_t **out)
{
    char *text;
    size_t n;
    json_error_t je;
    *out = NULL;
    KT_TRY(read_text(c, name, &text, &n));
    if (text == NULL)
        return KT_OK;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    mem_free(text);
    if (*out == NULL)
        KT_FAIL(c->err, KT_E_FORMAT, "%s/%s: line %d: %s; download the file again", c->m->dir, name,
                je.line, je.text);
    return KT_OK;
}

static kt_status set_token(struct conv *c, const json_t *id, const char *text, uint8_t type)
{
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (text == NULL || v < 0 || v >= (json_int_t)c->m->t.vocab)
        KT_FAIL(c->err, KT_E_FORMAT,
                "%s/tokenizer.json: token '%.64s' has the id %lld, the model has ids 0 to %u; the "
                "file is of another model",
                c->m->dir, text != NULL ? text : "", (long long)v, c->m->t.vocab - 1);
    if (c->text[v] != NULL && strcmp(c->text[v], text) != 0)
        KT_FAIL(c->err, KT_E_FORMAT,
                "%s/tokenizer.json: tokens '%.64s' and '%.64s' have the same id %lld; the file is "
                "damaged",
                c->m->dir, c->text[v], text, (long long)v);
    c->text[v] = text;
    c->type[v] = type;
    return KT_OK;
}

static kt_status read_tokens(struct conv *c)
{
    const char *text;
    json_t *v;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(c->tok, "model"), "vocab"), text, v)
    {
        KT_TRY(set_token(c, v, text, TYPE_NORMAL));
    }
    json_array_foreach(json_object_get(c->tok, "added_tokens"), i, v)
    {
        bool special = json_is_true(json_object_get(v, "special"));
        KT_TRY(set_token(c, json_object_get(v, "id"),
                         json_string_value(json_object_get(v, "content")),
                         special ? TYPE_CONTROL : TYPE_USER));
    }
    return KT_OK;
}

static void write_tokens(struct conv *c)
{
    uint32_t n = c->m->t.vocab;
    char pad[32];
    gguf_out_array(c->o, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(pad, sizeof pad, "[PAD%u]", i);
        const char *t = c->text[i] != NULL ? c->text[i] : pad;
        gguf_out_item_str(c->o, t, strlen(t));
    }
    gguf_out_array(c->o, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (uint32_t i = 0; i < n; i++)
        gguf_out_item_i32(c->o, c->text[i] != NULL ? c->type[i] : TYPE_UNUSED);
}

/* "A B" or ["A", "B"]; byte-level tokens hold no space. */
static kt_status write_merges(struct conv *c)
{
    json_t *merges = json_object_get(json_object_get(c->tok, "model"), "merges"), *v;
    size_t i;
    struct strbuf b = {0};
    gguf_out_array(c->o, "tokenizer.ggml.merges", GGUF_STRING, json_array_size(merges));
    json_array_foreach(merges, i, v)
    {
        const char *one = json_string_value(v), *left = json_string_value(json_array_get(v, 0)),
                   *right = json_string_value(json_array_get(v, 1));
        sb_clear(&b);
        if (one != NULL)
            sb_puts(&b, one);
        else if (left != NULL && right != NULL)
            sb_printf(&b, "%s %s", left, right);
        if (!sb_ok(&b) || b.len < 3) {
            sb_free(&b);
            KT_FAIL(c->err, KT_E_FORMAT,
                    "%s/tokenizer.json: merge %zu is not a pair of tokens; the file is damaged",
                    c->m->dir, i);
        }
        gguf_out_item_str(c->o, b.data, b.len);
    }
    sb_free(&b);
    return KT_OK;
}

/* Id of a token's text, -1 when absent. */
static int64_t id_of_text(const struct conv *c, const char *text)
{
    for (uint32_t i = 0; text != NULL && i < c->m->t.vocab; i++)
        if (c->text[i] != NULL && strcmp(c->text[i], text) == 0)
            return i;
    return -1;
}

/* bos_token and the like in tokenizer_config.json: text or {content}. */
static int64_t named_token(const struct conv *c, const char *key)
{
    const json_t *v = json_object_get(c->tok_config, key);
    return id_of_text(c, json_string_value(json_is_object(v) ? json_object_get(v, "content") : v));
}

static int64_t number_in(const struct conv *c, const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 &&
                   json_integer_value(v) < (json_int_t)c->m->t.vocab
               ? json_integer_value(v)
               : -1;
}

static void add_end(int64_t *ends, uint32_t *n, int64_t id, const struct conv *c)
{
    for (uint32_t i = 0; i < *n; i++)
        if (ends[i] == id)
            return;
    if (id < 0)
        return;
    if (*n == MAX_ENDS)
        log_warn("%s: more than %d end tokens; %lld is left out of the GGUF file", c->m->dir,
                 MAX_ENDS, (long long)id);
    else
        ends[(*n)++] = id;
}

/* End tokens are the union of what the files say; GGUF has room for three. */
static void write_ends(const struct conv *c)
{
    static const char *const key[MAX_ENDS] = {"tokenizer.ggml.eos_token_id",
                                              "tokenizer.ggml.eot_token_id",
                                              "tokenizer.ggml.eom_token_id"};
    const json_t *v = json_object_get(c->gen, "eos_token_id"), *from = c->gen;
    int64_t ends[MAX_ENDS];
    uint32_t n = 0;
    add_end(ends, &n, named_token(c, "eos_token"), c);
    if (n == 0 && (v == NULL || json_is_null(v)))
        from = c->config;
    v = json_object_get(from, "eos_token_id");
    add_end(ends, &n, number_in(c, v), c);
    for (size_t i = 0; i < json_array_size(v); i++)
        add_end(ends, &n, number_in(c, json_array_get(v, i)), c);
    for (uint32_t i = 0; i < n; i++)
        gguf_out_u32(c->o, key[i], (uint32_t)ends[i]);
}

/* What the tokenizer puts before a text decides add_bos_token. */
static kt_status write_begin(const struct conv *c, const kt_tokenizer *t)
{
    struct tok_ids ids = {0};
    int64_t bos = named_token(c, "bos_token"), pad = named_token(c, "pad_token");
    KT_TRY(tok_encode(t, "", 0, KT_TOK_ADD_SPECIAL, &ids, c->err));
    bool add = ids.n > 0;
    if (bos < 0)
        bos = add ? ids.v[0] : number_in(c, json_object_get(c->config, "bos_token_id"));
    bool fine = !add || (ids.n == 1 && ids.v[0] == bos);
    mem_free(ids.v);
    if (!fine)
        KT_FAIL(c->err, KT_E_UNSUPPORTED,
                "%s/tokenizer.json: its post-processor adds other tokens than one begin token, "
                "which GGUF cannot say",
                c->m->dir);
    if (bos >= 0)
        gguf_out_u32(c->o, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    if (pad >= 0)
        gguf_out_u32(c->o, "tokenizer.ggml.padding_token_id", (uint32_t)pad);
    gguf_out_bool(c->o, "tokenizer.ggml.add_bos_token", add);
    return KT_OK;
}

static kt_status write_template(const struct conv *c)
{
    char *file;
    size_t n = 0, i;
    const json_t *t = json_object_get(c->tok_config, "chat_template");
    json_t *v;
    KT_TRY(read_text(c, "chat_template.jinja", &file, &n));
    const char *text = file != NULL ? file : json_string_value(t);
    json_array_foreach((json_t *)(uintptr_t)t, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        if (text == NULL && name != NULL && strcmp(name, "default") == 0)
            text = json_string_value(json_object_get(v, "template"));
    }
    if (text != NULL)
        gguf_out_str(c->o, "tokenizer.chat_template", text, strlen(text));
    mem_free(file);
    return KT_OK;
}

static void write_sampling(const struct conv *c)
{
    static const struct {
        const char *name, *key;
    } real[] = {{"top_p", "general.sampling.top_p"}, {"min_p", "general.sampling.min_p"}};
    const json_t *v = json_object_get(c->gen, "temperature");
    bool greedy = json_is_false(json_object_get(c->gen, "do_sample"));
    if (greedy || json_is_number(v))
        gguf_out_f32(c->o, "general.sampling.temp", greedy ? 0 : (float)json_number_value(v));
    v = json_object_get(c->gen, "top_k");
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX)
        gguf_out_u32(c->o, "general.sampling.top_k", (uint32_t)json_integer_value(v));
    for (size_t i = 0; i < 2; i++) {
        v = json_object_get(c->gen, real[i].name);
        if (json_is_number(v))
            gguf_out_f32(c->o, real[i].key, (float)json_number_value(v));
    }
}

static kt_status write_all(struct conv *c, const kt_tokenizer *t)
{
    const char *pre = tok_pre_name(t);
    if (pre == NULL)
        KT_FAIL(c->err, KT_E_UNSUPPORTED,
                "%s/tokenizer.json: its split pattern is none of the known pre-tokenisers, so a "
                "GGUF file could not name it; serve the checkpoint as it is",
                c->m->dir);
    c->text = mem_calloc(c->m->t.vocab, sizeof *c->text);
    c->type = mem_calloc(c->m->t.vocab, 1);
    if (c->text == NULL || c->type == NULL)
        KT_FAIL(c->err, KT_E_NOMEM, "out of memory for %u tokens", c->m->t.vocab);
    KT_TRY(read_tokens(c));
    gguf_out_str(c->o, "tokenizer.ggml.model", "gpt2", 4);
    gguf_out_str(c->o, "tokenizer.ggml.pre", pre, strlen(pre));
    write_tokens(c);
    KT_TRY(write_merges(c));
    write_ends(c);
    KT_TRY(write_begin(c, t));
    KT_TRY(write_template(c));
    write_sampling(c);
    return KT_OK;
}

kt_status convert_tokenizer(struct gguf_out *o, const struct mdl *m, kt_err *err)
{
    struct conv c = {.m = m, .o = o, .err = err};
    kt_tokenizer *t = NULL;
    kt_status st = read_json(&c, "tokenizer.json", &c.tok);
    if (st == KT_OK && c.tok == NULL) {
        log_warn("%s: has no tokenizer.json: the GGUF file gets no vocabulary and cannot be served",
                 m->dir);
        gguf_out_str(o, "tokenizer.ggml.model", "no_vocab", 8);
        return KT_OK;
    }
    if (st == KT_OK)
        st = read_json(&c, "tokenizer_config.json", &c.tok_config);
    if (st == KT_OK)
        st = read_json(&c, "generation_config.json", &c.gen);
    if (st == KT_OK)
        st = read_json(&c, "config.json", &c.config);
    if (st == KT_OK)
        st = tok_open(m, "chatml", &t, err); /* the template is copied, not judged */
    if (st == KT_OK)
        st = write_all(&c, t);
    tok_close(t);
    mem_free(c.text);
    mem_free(c.type);
    json_decref(c.tok);
    json_decref(c.tok_config);
    json_decref(c.gen);
    json_decref(c.config);
    return st;
}
