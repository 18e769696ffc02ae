/* tok_config.c - the small files beside tokenizer.json: tokenizer_config.json (begin and end token,
 * chat template), chat_template.jinja, generation_config.json (end tokens, sampling defaults) and,
 * for the end token only, config.json. All are optional; what they say is checked.
 *
 * Order of precedence: chat_template.jinja over the template in tokenizer_config.json; end tokens
 * are the union.
 */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/tok_json.h"

#define MAX_TEMPLATE ((uint64_t)1 << 20)

/* "tok" or {"content": "tok"}; *id = -1 when missing or null. */
static kt_status special(const struct tok_json *j, const json_t *o, const char *key,
                         const char *file, int32_t *id, kt_err *err)
{
    const json_t *v = json_object_get(o, key);
    const char *text = json_string_value(v);
    *id = -1;
    if (v == NULL || json_is_null(v))
        return KT_OK;
    if (json_is_object(v))
        KT_TRY(tok_json_str(v, "content", file, &text, err));
    if (text == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: \"%s\" is neither a string nor an added token", file, key);
    *id = tok_find(j->t, text);
    if (*id < 0)
        KT_FAIL(err, KT_E_FORMAT, "%s: \"%s\" is \"%.60s\", which is no token of %s", file, key,
                text, j->path);
    return KT_OK;
}

/* A string, or a list of named ones of which "default" counts. */
static kt_status template_of(const json_t *config, const char *file, const char **out, kt_err *err)
{
    const json_t *v = json_object_get(config, "chat_template");
    if (!json_is_array(v))
        return tok_json_str(config, "chat_template", file, out, err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(v, i), "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return tok_json_str(json_array_get(v, i), "template", file, out, err);
    }
    return KT_OK;
}

/* Without a TemplateProcessing the flags of tokenizer_config.json say what goes around a text. */
static kt_status around(struct tok_json *j, const json_t *config, const char *file, int32_t bos,
                        int32_t eos, kt_err *err)
{
    bool add_bos = false, add_eos = false;
    KT_TRY(tok_json_bool(config, "add_bos_token", false, file, &add_bos, err));
    KT_TRY(tok_json_bool(config, "add_eos_token", false, file, &add_eos, err));
    if (j->template)
        return KT_OK;
    if (add_bos && bos >= 0)
        KT_TRY(tok_ids_push(&j->t->prefix, bos, err));
    if (add_eos && eos >= 0)
        KT_TRY(tok_ids_push(&j->t->suffix, eos, err));
    return KT_OK;
}

static kt_status tokenizer_config(struct tok_json *j, const json_t *config, const char *file,
                                  const char **template, kt_err *err)
{
    int32_t bos = -1, eos = -1;
    KT_TRY(special(j, config, "bos_token", file, &bos, err));
    KT_TRY(special(j, config, "eos_token", file, &eos, err));
    KT_TRY(around(j, config, file, bos, eos, err));
    if (eos >= 0)
        KT_TRY(tok_add_eos(j->t, eos, file, "eos_token", err));
    return template_of(config, file, template, err);
}

/* A number or a list of numbers. */
static kt_status eos_ids(kt_tokenizer *t, const json_t *v, const char *file, kt_err *err)
{
    if (v == NULL || json_is_null(v))
        return KT_OK;
    if (!json_is_integer(v) && !json_is_array(v))
        KT_FAIL(err, KT_E_FORMAT, "%s: eos_token_id is neither a number nor a list", file);
    if (json_is_integer(v))
        return tok_add_eos(t, json_integer_value(v), file, "eos_token_id", err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id))
            KT_FAIL(err, KT_E_FORMAT, "%s: eos_token_id has an entry that is no number", file);
        KT_TRY(tok_add_eos(t, json_integer_value(id), file, "eos_token_id", err));
    }
    return KT_OK;
}

static kt_status generation_config(struct tok_json *j, const char *dir, kt_err *err)
{
    static const char *const name[] = {"temperature", "top_k", "top_p", "min_p"};
    char *path = NULL;
    json_t *root = NULL;
    bool do_sample = true;
    kt_status st = tok_json_read(dir, "generation_config.json", true, &path, &root, err);
    if (st == KT_OK)
        st = eos_ids(j->t, json_object_get(root, "eos_token_id"), path, err);
    for (size_t i = 0; st == KT_OK && i < 4; i++) {
        const json_t *v = json_object_get(root, name[i]);
        if (v == NULL || json_is_null(v))
            continue;
        if (json_is_number(v))
            st = tok_set_default(j->t, name[i], json_number_value(v), path, err);
        else
            st = err_set(err, KT_E_FORMAT, 0, __func__, "%s: %s is no number", path, name[i]);
    }
    if (st == KT_OK)
        st = tok_json_bool(root, "do_sample", true, path, &do_sample, err);
    if (st == KT_OK && !do_sample)
        j->t->defaults.temperature = 0;
    json_decref(root);
    mem_free(path);
    return st;
}

static kt_status template_file(const char *dir, char **out, kt_err *err)
{
    struct strbuf b = {0};
    size_t len = 0;
    kt_err why = {0};
    *out = NULL;
    sb_printf(&b, "%s/chat_template.jinja", dir);
    if (!sb_ok(&b)) {
        sb_free(&b);
        KT_FAIL(err, KT_E_NOMEM, "no memory for a path");
    }
    kt_status st = file_read(b.data, MAX_TEMPLATE, out, &len, &why);
    if (st == KT_E_NOT_FOUND)
        st = KT_OK;
    else if (st == KT_OK && strlen(*out) != len)
        st = err_set(err, KT_E_FORMAT, 0, __func__, "%s: has a NUL byte", b.data);
    else if (st != KT_OK && err != NULL)
        *err = why;
    sb_free(&b);
    return st;
}

kt_status tok_json_configs(struct tok_json *j, const struct mdl *m, const char *chat_override,
                           kt_err *err)
{
    char *path = NULL, *file = NULL;
    json_t *config = NULL;
    const char *template = NULL;
    kt_status st = tok_json_read(m->dir, "tokenizer_config.json", true, &path, &config, err);
    if (st == KT_OK && config != NULL)
        st = tokenizer_config(j, config, path, &template, err);
    if (st == KT_OK)
        st = template_file(m->dir, &file, err);
    if (st == KT_OK)
        st = chat_set(&j->t->chat, file != NULL ? file : template, chat_override, err);
    json_decref(config);
    mem_free(path);
    mem_free(file);
    KT_TRY(st);
    KT_TRY(generation_config(j, m->dir, err));
    if (j->t->eos.n > 0 || m->config_json == NULL)
        return KT_OK;
    config = json_loads(m->config_json, 0, NULL);
    st = eos_ids(j->t, json_object_get(config, "eos_token_id"), "config.json", err);
    json_decref(config);
    return st;
}
