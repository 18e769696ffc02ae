/* tok_json_parts.c - the pipelines of tokenizer.json: normalizer, pre_tokenizer, post_processor,
 * decoder. Each is one step or a Sequence of steps by type; a type that is not here, or one that
 * byte-level BPE cannot have, is an error that names it and the file.
 *
 * The decoder is only checked: bytes of a token are what the byte-level alphabet says.
 */
#include "model/tok_json.h"

#include <string.h>

#define MAX_DEPTH 8

typedef kt_status (*part_fn)(struct tok_json *j, const json_t *v, int depth, kt_err *err);

static kt_status unknown(const struct tok_json *j, const char *part, const char *type, kt_err *err)
{
    KT_FAIL(err, KT_E_UNSUPPORTED, "%s: %s \"%.60s\" is not known to this version's byte-level BPE",
            j->path, part, type);
}

static kt_status type_of(const struct tok_json *j, const json_t *v, const char *part, int depth,
                         const char **type, kt_err *err)
{
    if (!json_is_object(v))
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is not an object", j->path, part);
    if (depth > MAX_DEPTH)
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: %s nests deeper than %d", j->path, part, MAX_DEPTH);
    KT_TRY(tok_json_str(v, "type", j->path, type, err));
    if (*type == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s has no type", j->path, part);
    return KT_OK;
}

static kt_status each(struct tok_json *j, const json_t *v, const char *key, int depth, part_fn fn,
                      kt_err *err)
{
    const json_t *list = json_object_get(v, key);
    if (!json_is_array(list))
        KT_FAIL(err, KT_E_FORMAT, "%s: a Sequence has no array \"%s\"", j->path, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        KT_TRY(fn(j, json_array_get(list, i), depth + 1, err));
    return KT_OK;
}

/* {"String": s} or {"Regex": s} */
static kt_status pattern_of(const struct tok_json *j, const json_t *v, const char **text,
                            bool *literal, kt_err *err)
{
    const json_t *p = json_object_get(v, "pattern");
    KT_TRY(tok_json_str(p, "String", j->path, text, err));
    *literal = *text != NULL;
    if (!*literal)
        KT_TRY(tok_json_str(p, "Regex", j->path, text, err));
    if (*text == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: a pattern is neither String nor Regex", j->path);
    return KT_OK;
}

/* ---- normalizer ---- */

static kt_status replace_step(struct tok_json *j, const json_t *v, kt_err *err)
{
    const char *pattern = NULL, *content = NULL;
    bool literal = false;
    struct strbuf quoted = {0};
    struct pretok_regex *re = NULL;
    KT_TRY(pattern_of(j, v, &pattern, &literal, err));
    KT_TRY(tok_json_str(v, "content", j->path, &content, err));
    for (const char *c = pattern; literal && *c != '\0'; c++) {
        if (strchr("\\^$.|?*+()[]{}-", *c) != NULL)
            sb_putc(&quoted, '\\');
        sb_putc(&quoted, *c);
    }
    kt_status st = sb_ok(&quoted)
                       ? KT_OK
                       : err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a normaliser");
    if (st == KT_OK)
        st = pretok_regex_new(literal ? quoted.data != NULL ? quoted.data : "" : pattern, &re, err);
    sb_free(&quoted);
    return st == KT_OK ? norm_add(&j->t->norm, NORM_REPLACE, content, re, err) : st;
}

kt_status tok_json_normalizer(struct tok_json *j, const json_t *v, int depth, kt_err *err)
{
    static const struct {
        const char *type;
        enum norm_kind kind;
    } simple[] = {{"NFC", NORM_NFC},
                  {"NFD", NORM_NFD},
                  {"NFKC", NORM_NFKC},
                  {"NFKD", NORM_NFKD},
                  {"Lowercase", NORM_LOWERCASE}};
    const char *type = NULL, *text = NULL;
    if (v == NULL || json_is_null(v))
        return KT_OK;
    KT_TRY(type_of(j, v, "normalizer", depth, &type, err));
    if (strcmp(type, "Sequence") == 0)
        return each(j, v, "normalizers", depth, tok_json_normalizer, err);
    for (size_t i = 0; i < sizeof simple / sizeof simple[0]; i++)
        if (strcmp(type, simple[i].type) == 0)
            return norm_add(&j->t->norm, simple[i].kind, NULL, NULL, err);
    if (strcmp(type, "Replace") == 0)
        return replace_step(j, v, err);
    if (strcmp(type, "Prepend") == 0) {
        KT_TRY(tok_json_str(v, "prepend", j->path, &text, err));
        return norm_add(&j->t->norm, NORM_PREPEND, text, NULL, err);
    }
    return unknown(j, "normalizer", type, err);
}

/* ---- pre_tokenizer ---- */

static kt_status mode_of(const struct tok_json *j, const json_t *v, enum split_mode *mode,
                         kt_err *err)
{
    static const char *const name[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                       "MergedWithNext"};
    static const enum split_mode modes[] = {SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_CONTIGUOUS,
                                            SPLIT_PREVIOUS, SPLIT_NEXT};
    const char *text = NULL;
    KT_TRY(tok_json_str(v, "behavior", j->path, &text, err));
    *mode = SPLIT_ISOLATED;
    for (size_t i = 0; i < 5; i++)
        if (text == NULL || strcmp(text, name[i]) == 0) {
            *mode = text == NULL ? SPLIT_ISOLATED : modes[i];
            return KT_OK;
        }
    return unknown(j, "split behavior", text, err);
}

static kt_status split_step(struct tok_json *j, const json_t *v, kt_err *err)
{
    const char *pattern = NULL;
    bool literal = false, invert = false;
    enum split_mode mode = SPLIT_ISOLATED;
    KT_TRY(pattern_of(j, v, &pattern, &literal, err));
    KT_TRY(mode_of(j, v, &mode, err));
    KT_TRY(tok_json_bool(v, "invert", false, j->path, &invert, err));
    return literal ? pretok_add_literal(j->t->pre, pattern, mode, invert, err)
                   : pretok_add_regex(j->t->pre, pattern, mode, invert, err);
}

static kt_status byte_level_step(struct tok_json *j, const json_t *v, kt_err *err)
{
    bool prefix = true, regex = true;
    KT_TRY(tok_json_bool(v, "add_prefix_space", true, j->path, &prefix, err));
    KT_TRY(tok_json_bool(v, "use_regex", true, j->path, &regex, err));
    j->byte_level = true;
    if (prefix)
        KT_TRY(pretok_add_prefix_space(j->t->pre, err));
    return regex ? pretok_add_regex(j->t->pre, pretok_gpt2_pattern, SPLIT_ISOLATED, false, err)
                 : KT_OK;
}

kt_status tok_json_pre_tokenizer(struct tok_json *j, const json_t *v, int depth, kt_err *err)
{
    const char *type = NULL;
    bool single = false;
    enum split_mode mode = SPLIT_ISOLATED;
    if (v == NULL || json_is_null(v))
        return KT_OK;
    KT_TRY(type_of(j, v, "pre_tokenizer", depth, &type, err));
    if (strcmp(type, "Sequence") == 0)
        return each(j, v, "pretokenizers", depth, tok_json_pre_tokenizer, err);
    if (j->byte_level) /* it would see mapped bytes, not text */
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: pre_tokenizer \"%.60s\" after ByteLevel", j->path,
                type);
    if (strcmp(type, "ByteLevel") == 0)
        return byte_level_step(j, v, err);
    if (strcmp(type, "Split") == 0)
        return split_step(j, v, err);
    if (strcmp(type, "Digits") == 0) {
        KT_TRY(tok_json_bool(v, "individual_digits", false, j->path, &single, err));
        return pretok_add_regex(j->t->pre, single ? "\\p{N}" : "\\p{N}+", SPLIT_ISOLATED, false,
                                err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        KT_TRY(mode_of(j, v, &mode, err));
        return pretok_add_regex(j->t->pre, "[\\p{P}!-/:-@\\[-`{-~]", mode, false, err);
    }
    if (strcmp(type, "Whitespace") == 0)
        return pretok_add_regex(j->t->pre, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+",
                                SPLIT_REMOVED, true, err);
    return unknown(j, "pre_tokenizer", type, err);
}

/* ---- post_processor ---- */

static kt_status special_ids(struct tok_json *j, const json_t *v, const char *name,
                             struct tok_ids *out, kt_err *err)
{
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(v, "special_tokens"), name), "ids");
    if (!json_is_array(ids))
        KT_FAIL(err, KT_E_FORMAT, "%s: post_processor: special token \"%.60s\" has no ids", j->path,
                name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= j->t->n_vocab)
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: post_processor: special token \"%.60s\" has an id outside the vocabulary",
                    j->path, name);
        KT_TRY(tok_ids_push(out, (int32_t)json_integer_value(id), err));
    }
    return KT_OK;
}

static kt_status template_step(struct tok_json *j, const json_t *v, kt_err *err)
{
    const json_t *single = json_object_get(v, "single");
    bool after = false;
    const char *name = NULL;
    if (!json_is_array(single))
        KT_FAIL(err, KT_E_FORMAT, "%s: post_processor: TemplateProcessing has no array \"single\"",
                j->path);
    if (j->template)
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: post_processor: more than one TemplateProcessing",
                j->path);
    j->template = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i),
                     *special = json_object_get(piece, "SpecialToken");
        if (json_is_object(json_object_get(piece, "Sequence")) && !after) {
            after = true;
            continue;
        }
        KT_TRY(tok_json_str(special, "id", j->path, &name, err));
        if (name == NULL)
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: post_processor: piece %zu is neither a special token nor the text",
                    j->path, i);
        KT_TRY(special_ids(j, v, name, after ? &j->t->suffix : &j->t->prefix, err));
    }
    if (!after)
        KT_FAIL(err, KT_E_FORMAT, "%s: post_processor: the template has no place for the text",
                j->path);
    return KT_OK;
}

kt_status tok_json_post_processor(struct tok_json *j, const json_t *v, int depth, kt_err *err)
{
    const char *type = NULL;
    if (v == NULL || json_is_null(v))
        return KT_OK;
    KT_TRY(type_of(j, v, "post_processor", depth, &type, err));
    if (strcmp(type, "Sequence") == 0)
        return each(j, v, "processors", depth, tok_json_post_processor, err);
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets only */
        return KT_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return template_step(j, v, err);
    return unknown(j, "post_processor", type, err);
}

/* ---- decoder ---- */

kt_status tok_json_decoder(struct tok_json *j, const json_t *v, int depth, kt_err *err)
{
    const char *type = NULL;
    if (v == NULL || json_is_null(v))
        return unknown(j, "decoder", "null", err);
    KT_TRY(type_of(j, v, "decoder", depth, &type, err));
    if (strcmp(type, "Sequence") == 0)
        return each(j, v, "decoders", depth, tok_json_decoder, err);
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "Fuse") == 0)
        return KT_OK;
    return unknown(j, "decoder", type, err);
}
