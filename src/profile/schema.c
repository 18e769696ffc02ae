/* schema.c - see schema.h.
 *
 * One recursive function per group of keywords; each returns true or writes the first failure once.
 * Where a failure only steers (anyOf, if), it is evaluated quietly. The path of the value under
 * test is a stack of borrowed keys and indexes, so success costs no formatting.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "profile/schema.h"

#include <pcre2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define MAX_PATH 128

struct regex {
    const char *pattern; /* borrowed from the schema tree */
    pcre2_code *code;
};

struct schema {
    json_t *root;
    struct regex *regex;
    size_t n_regex;
};

struct check {
    struct schema *s;
    const char *key[MAX_PATH]; /* NULL: index */
    size_t index[MAX_PATH];
    int depth;
    int quiet; /* > 0: failures are not reported */
    struct strbuf reason;
};

static bool run(struct check *c, const json_t *s, const json_t *v);

/* ---- opening ---- */

static const char *const known[] = {"$schema",
                                    "$id",
                                    "title",
                                    "description",
                                    "format",
                                    "$defs",
                                    "$ref",
                                    "type",
                                    "enum",
                                    "const",
                                    "required",
                                    "properties",
                                    "patternProperties",
                                    "additionalProperties",
                                    "items",
                                    "minItems",
                                    "maxItems",
                                    "uniqueItems",
                                    "minimum",
                                    "maximum",
                                    "exclusiveMinimum",
                                    "minLength",
                                    "maxLength",
                                    "pattern",
                                    "anyOf",
                                    "if",
                                    "then",
                                    "else"};
static const char *const maps[] = {"$defs", "properties", "patternProperties"};
static const char *const subs[] = {"additionalProperties", "items", "if", "then", "else"};

static bool in_list(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(s, list[i]) == 0)
            return true;
    return false;
}

static const char *unknown_keyword(json_t *s)
{
    const char *key, *name, *bad = NULL;
    json_t *v, *sub;
    size_t i;
    if (!json_is_object(s))
        return json_is_boolean(s) ? NULL : "(not a schema)";
    json_object_foreach(s, key, v)
    {
        if (!in_list(key, known, sizeof known / sizeof *known))
            return key;
        if (in_list(key, maps, sizeof maps / sizeof *maps)) {
            json_object_foreach(v, name, sub) if ((bad = unknown_keyword(sub)) != NULL) return bad;
        } else if (strcmp(key, "anyOf") == 0) {
            json_array_foreach(v, i, sub) if ((bad = unknown_keyword(sub)) != NULL) return bad;
        } else if (in_list(key, subs, sizeof subs / sizeof *subs) &&
                   (bad = unknown_keyword(v)) != NULL) {
            return bad;
        }
    }
    return NULL;
}

kt_status schema_open(const char *text, struct schema **out, kt_err *err)
{
    json_error_t e;
    *out = NULL;
    struct schema *s = mem_calloc(1, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the profile schema");
    s->root = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    const char *bad = s->root != NULL ? unknown_keyword(s->root) : e.text;
    if (bad != NULL) {
        err_set(err, KT_E_INTERNAL, 0, __func__, "built-in profile schema: cannot interpret '%s'",
                bad);
        schema_close(s);
        return KT_E_INTERNAL;
    }
    *out = s;
    return KT_OK;
}

void schema_close(struct schema *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_regex; i++)
        pcre2_code_free(s->regex[i].code);
    mem_free(s->regex);
    json_decref(s->root);
    mem_free(s);
}

/* ---- reporting ---- */

static void add_path(const struct check *c, struct strbuf *b)
{
    if (c->depth == 0)
        sb_puts(b, "(document)");
    for (int i = 0; i < c->depth; i++) {
        if (c->key[i] == NULL)
            sb_printf(b, "[%zu]", c->index[i]);
        else
            sb_printf(b, "%s%.100s", i ? "." : "", c->key[i]);
    }
}

static bool fail(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct check *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    if (c->quiet > 0 || c->reason.len > 0)
        return false;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add_path(c, &c->reason);
    sb_printf(&c->reason, ": %s", text);
    return false;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {
        "an object", "an array", "a string", "an integer", "a number with a fraction",
        "true",      "false",    "null"};
    return names[json_typeof(v)];
}

/* ---- keywords ---- */

/* Integers are plain digits: 4.0 is refused where an integer is due, while 150 is fine where a real
 * is. */
static bool is_type(const json_t *v, const char *t)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return strcmp(t, "object") == 0;
    case JSON_ARRAY:
        return strcmp(t, "array") == 0;
    case JSON_STRING:
        return strcmp(t, "string") == 0;
    case JSON_INTEGER:
        return strcmp(t, "integer") == 0 || strcmp(t, "number") == 0;
    case JSON_REAL:
        return strcmp(t, "number") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(t, "boolean") == 0;
    case JSON_NULL:
        return strcmp(t, "null") == 0;
    }
    return false;
}

static bool check_type(struct check *c, const json_t *type, const json_t *v)
{
    struct strbuf want = {0};
    size_t i;
    json_t *t;
    if (json_is_string(type)) {
        if (is_type(v, json_string_value(type)))
            return true;
        return fail(c, "is %s, must be %s", type_name(v), json_string_value(type));
    }
    json_array_foreach(type, i, t) if (is_type(v, json_string_value(t))) return true;
    json_array_foreach(type, i, t) sb_printf(&want, "%s%s", i ? " or " : "", json_string_value(t));
    fail(c, "is %s, must be %s", type_name(v), want.data != NULL ? want.data : "another type");
    sb_free(&want);
    return false;
}

static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
        return json_number_value(a) <= json_number_value(b) &&
               json_number_value(a) >= json_number_value(b);
    return json_equal(a, b) != 0;
}

static bool check_enum(struct check *c, const json_t *list, const json_t *v)
{
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e) if (equal(e, v)) return true;
    if (c->quiet == 0) {
        char *text = json_dumps(list, JSON_COMPACT);
        fail(c, "must be one of %s", text != NULL ? text : "the listed values");
        free(text);
    }
    return false;
}

static pcre2_code *regex_for(struct schema *s, const char *pattern)
{
    int code;
    PCRE2_SIZE at;
    for (size_t i = 0; i < s->n_regex; i++)
        if (s->regex[i].pattern == pattern)
            return s->regex[i].code;
    struct regex *grown = mem_realloc(s->regex, (s->n_regex + 1) * sizeof *grown);
    if (grown == NULL)
        return NULL;
    s->regex = grown;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_DOLLAR_ENDONLY | PCRE2_UTF, &code, &at, NULL);
    if (re != NULL)
        s->regex[s->n_regex++] = (struct regex){pattern, re};
    return re;
}

static bool matches(struct check *c, const char *pattern, const char *text, size_t len)
{
    pcre2_code *re = regex_for(c->s, pattern);
    pcre2_match_data *m = re != NULL ? pcre2_match_data_create_from_pattern(re, NULL) : NULL;
    if (m == NULL)
        return fail(c, "pattern %s could not be applied", pattern);
    int rc = pcre2_match(re, (PCRE2_SPTR)text, len, 0, 0, m, NULL);
    pcre2_match_data_free(m);
    return rc >= 0;
}

static bool check_string(struct check *c, const json_t *s, const json_t *v)
{
    const char *text = json_string_value(v);
    size_t bytes = json_string_length(v), points = 0;
    for (size_t i = 0; i < bytes; i++)
        points += ((unsigned char)text[i] & 0xc0) != 0x80;
    const json_t *k = json_object_get(s, "minLength");
    if (k != NULL && points < (size_t)json_integer_value(k))
        return fail(c, "is shorter than %lld characters", (long long)json_integer_value(k));
    if ((k = json_object_get(s, "maxLength")) != NULL && points > (size_t)json_integer_value(k))
        return fail(c, "is longer than %lld characters", (long long)json_integer_value(k));
    if ((k = json_object_get(s, "pattern")) != NULL &&
        !matches(c, json_string_value(k), text, bytes))
        return fail(c, "\"%.60s\" does not match %s", text, json_string_value(k));
    return true;
}

static bool check_number(struct check *c, const json_t *s, const json_t *v)
{
    const json_t *k = json_object_get(s, "minimum");
    double x = json_number_value(v);
    if (k != NULL && x < json_number_value(k))
        return fail(c, "%g is below the minimum %g", x, json_number_value(k));
    if ((k = json_object_get(s, "maximum")) != NULL && x > json_number_value(k))
        return fail(c, "%g is above the maximum %g", x, json_number_value(k));
    if ((k = json_object_get(s, "exclusiveMinimum")) != NULL && x <= json_number_value(k))
        return fail(c, "%g must be above %g", x, json_number_value(k));
    return true;
}

static bool descend(struct check *c, const char *key, size_t index, const json_t *s,
                    const json_t *v)
{
    if (c->depth == MAX_PATH)
        return fail(c, "is nested too deeply");
    c->key[c->depth] = key;
    c->index[c->depth++] = index;
    bool ok = run(c, s, v);
    c->depth--;
    return ok;
}

static bool check_array(struct check *c, const json_t *s, const json_t *v)
{
    const json_t *k = json_object_get(s, "minItems");
    size_t n = json_array_size(v);
    if (k != NULL && n < (size_t)json_integer_value(k))
        return fail(c, "has %zu items, at least %lld are needed", n,
                    (long long)json_integer_value(k));
    if ((k = json_object_get(s, "maxItems")) != NULL && n > (size_t)json_integer_value(k))
        return fail(c, "has %zu items, at most %lld are allowed", n,
                    (long long)json_integer_value(k));
    if (json_is_true(json_object_get(s, "uniqueItems")))
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < i; j++)
                if (equal(json_array_get(v, i), json_array_get(v, j)))
                    return fail(c, "items %zu and %zu are equal", j, i);
    if ((k = json_object_get(s, "items")) != NULL)
        for (size_t i = 0; i < n; i++)
            if (!descend(c, NULL, i, k, json_array_get(v, i)))
                return false;
    return true;
}

static bool check_object(struct check *c, const json_t *s, const json_t *v)
{
    const json_t *props = json_object_get(s, "properties"),
                 *pats = json_object_get(s, "patternProperties");
    const json_t *more = json_object_get(s, "additionalProperties"),
                 *required = json_object_get(s, "required");
    const char *key, *pattern;
    json_t *item, *sub;
    size_t i;
    json_array_foreach(required, i, item) if (json_object_get(v, json_string_value(item)) ==
                                              NULL) return fail(c, "key \"%s\" is missing",
                                                                json_string_value(item));
    json_t *obj = (json_t *)(uintptr_t)v;
    json_object_foreach(obj, key, item)
    {
        bool known_key = false;
        if ((sub = json_object_get(props, key)) != NULL) {
            known_key = true;
            if (!descend(c, key, 0, sub, item))
                return false;
        }
        json_t *all = (json_t *)(uintptr_t)pats;
        json_object_foreach(all, pattern, sub)
        {
            if (matches(c, pattern, key, strlen(key))) {
                known_key = true;
                if (!descend(c, key, 0, sub, item))
                    return false;
            }
        }
        if (!known_key && more != NULL) {
            if (json_is_false(more))
                return fail(c, "unknown key \"%.60s\"", key);
            if (!descend(c, key, 0, more, item))
                return false;
        }
    }
    return true;
}

static bool check_choices(struct check *c, const json_t *s, const json_t *v)
{
    const json_t *any = json_object_get(s, "anyOf"), *cond = json_object_get(s, "if");
    if (any != NULL) {
        bool ok = false;
        c->quiet++;
        for (size_t i = 0; i < json_array_size(any) && !ok; i++)
            ok = run(c, json_array_get(any, i), v);
        c->quiet--;
        if (!ok)
            return fail(c, "is %s in none of the allowed forms", type_name(v));
    }
    if (cond != NULL) {
        c->quiet++;
        bool holds = run(c, cond, v);
        c->quiet--;
        const json_t *branch = json_object_get(s, holds ? "then" : "else");
        if (branch != NULL && !run(c, branch, v))
            return false;
    }
    return true;
}

static const json_t *resolve(struct schema *s, const char *ref)
{
    static const char prefix[] = "#/$defs/";
    if (strncmp(ref, prefix, sizeof prefix - 1) != 0)
        return NULL;
    return json_object_get(json_object_get(s->root, "$defs"), ref + sizeof prefix - 1);
}

static bool run(struct check *c, const json_t *s, const json_t *v)
{
    if (json_is_boolean(s))
        return json_is_true(s) || fail(c, "must not be present here");
    const json_t *k = json_object_get(s, "$ref");
    if (k != NULL) {
        const json_t *target = resolve(c->s, json_string_value(k));
        if (target == NULL)
            return fail(c, "schema reference %s does not exist", json_string_value(k));
        if (!run(c, target, v))
            return false;
    }
    if ((k = json_object_get(s, "type")) != NULL && !check_type(c, k, v))
        return false;
    if ((k = json_object_get(s, "const")) != NULL && !equal(k, v)) {
        char *text = c->quiet == 0 ? json_dumps(k, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        fail(c, "must be %s", text != NULL ? text : "the fixed value");
        free(text);
        return false;
    }
    if ((k = json_object_get(s, "enum")) != NULL && !check_enum(c, k, v))
        return false;
    if (json_is_string(v) && !check_string(c, s, v))
        return false;
    if (json_is_number(v) && !check_number(c, s, v))
        return false;
    if (json_is_array(v) && !check_array(c, s, v))
        return false;
    if (json_is_object(v) && !check_object(c, s, v))
        return false;
    return check_choices(c, s, v);
}

kt_status schema_check(struct schema *s, const json_t *value, const char *name, kt_err *err)
{
    struct check c = {.s = s};
    kt_status st = KT_OK;
    if (!run(&c, s->root, value))
        st = err_set(err, KT_E_FORMAT, 0, __func__,
                     "%s: %s; the file is not used, make a new one with kttune probe", name,
                     c.reason.data != NULL ? c.reason.data : "breaks the schema");
    sb_free(&c.reason);
    return st;
}
