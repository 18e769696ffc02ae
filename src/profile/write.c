/* write.c - a profile's document as text and as a file. A file is written only after it has passed
 * the reader's own rules, as a whole or not at all. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json_out.h"
#include "profile/profile.h"
#include "profile/tree.h"

#define OPEN_DEPTH 2 /* containers above this depth get a line per member */

static void indent(struct strbuf *out, int depth)
{
    sb_putc(out, '\n');
    for (int i = 0; i < depth; i++)
        sb_puts(out, "  ");
}

static void put_scalar(const json_t *v, struct strbuf *out)
{
    struct json_out j;
    jo_init(&j, out);
    switch (json_typeof(v)) {
    case JSON_STRING:
        jo_strn(&j, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        jo_int(&j, json_integer_value(v));
        break;
    case JSON_REAL:
        jo_real(&j, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        jo_bool(&j, json_is_true(v));
        break;
    default:
        jo_null(&j);
    }
}

static void put(const json_t *v, struct strbuf *out, int depth)
{
    json_t *sub, *obj = (json_t *)(uintptr_t)v;
    struct json_out j;
    const char *key;
    bool open = depth < OPEN_DEPTH, first = true;
    if (json_is_array(v)) {
        sb_putc(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0)
                sb_puts(out, open ? "," : ", ");
            if (open)
                indent(out, depth + 1);
            put(json_array_get(v, i), out, depth + 1);
        }
        if (open && json_array_size(v) > 0)
            indent(out, depth);
        sb_putc(out, ']');
    } else if (json_is_object(v)) {
        sb_putc(out, '{');
        json_object_foreach(obj, key, sub)
        {
            if (!first)
                sb_puts(out, open ? "," : ", ");
            first = false;
            if (open)
                indent(out, depth + 1);
            jo_init(&j, out);
            jo_str(&j, key);
            sb_puts(out, ": ");
            put(sub, out, depth + 1);
        }
        if (open && !first)
            indent(out, depth);
        sb_putc(out, '}');
    } else {
        put_scalar(v, out);
    }
}

void tree_print(const json_t *v, struct strbuf *out)
{
    put(v, out, 0);
    sb_putc(out, '\n');
}

kt_status profile_text(const struct profile *p, struct strbuf *out, kt_err *err)
{
    tree_print(p->root, out);
    if (!sb_ok(out))
        KT_FAIL(err, KT_E_NOMEM, "no memory for the text of a profile");
    return KT_OK;
}

kt_status profile_write(const struct profile *p, const char *path, kt_err *err)
{
    struct strbuf b = {0};
    struct profile *again = NULL;
    kt_err why = {0};
    kt_status st = profile_text(p, &b, err);
    if (st == KT_OK && profile_parse(b.data, b.len, path, &again, &why) != KT_OK)
        st = err_set(err, KT_E_INTERNAL, 0, __func__,
                     "the new profile breaks its own rules and was not written: %s", why.msg);
    profile_close(again);
    if (st == KT_OK)
        st = file_write_atomic(path, b.data, b.len, err);
    sb_free(&b);
    return st;
}
