/* json_in.c - the pre-scan in front of jansson.
 * The scan does not check grammar (jansson does); it only follows strings, brackets and numbers
 * well enough to bound what jansson will do with the text: recursion, number of nodes, conversion
 * of endless digits. It works on a private copy because surrogate escapes are rewritten in place.
 */
#include "serve/json_in.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

struct scan {
    char *s;
    size_t len, i;
    size_t depth, members;
    size_t string_len; /* bytes of the last string: a key if a colon follows */
};

static int hex4(const struct scan *c, size_t at)
{
    int v = 0;
    if (at + 4 > c->len)
        return -1;
    for (size_t k = at; k < at + 4; k++) {
        char h = c->s[k];
        int d = h >= '0' && h <= '9'   ? h - '0'
                : h >= 'a' && h <= 'f' ? h - 'a' + 10
                : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* At the 'u' of an escape: keep a proper pair, replace a lone surrogate. */
static void fix_surrogate(struct scan *c)
{
    int v = hex4(c, c->i + 1);
    if (v >= 0xd800 && v <= 0xdbff && c->i + 6 < c->len && c->s[c->i + 5] == '\\' &&
        c->s[c->i + 6] == 'u') {
        int low = hex4(c, c->i + 7);
        if (low >= 0xdc00 && low <= 0xdfff) {
            c->i += 10;
            return;
        }
    }
    if (v >= 0xd800 && v <= 0xdfff)
        memcpy(c->s + c->i + 1, "FFFD", 4);
    c->i += v >= 0 ? 4 : 0;
}

static void skip_string(struct scan *c)
{
    size_t start = ++c->i;
    while (c->i < c->len && c->s[c->i] != '"') {
        if (c->s[c->i] == '\\' && c->i + 1 < c->len) {
            c->i++;
            if (c->s[c->i] == 'u')
                fix_surrogate(c);
        }
        c->i++;
    }
    c->string_len = c->i - start;
}

static bool number_char(char ch)
{
    return (ch >= '0' && ch <= '9') || ch == '-' || ch == '+' || ch == '.' || ch == 'e' ||
           ch == 'E';
}

static kt_status scan_token(struct scan *c, kt_err *err)
{
    char ch = c->s[c->i];
    size_t start = c->i;
    switch (ch) {
    case '"':
        skip_string(c);
        break;
    case '{':
    case '[':
        if (++c->depth > JSON_IN_DEPTH)
            KT_FAIL(err, KT_E_LIMIT, "JSON is nested deeper than %d levels at byte %zu",
                    JSON_IN_DEPTH, c->i);
        c->members++;
        break;
    case '}':
    case ']':
        c->depth -= c->depth > 0;
        break;
    case ',':
        c->members++;
        break;
    case ':':
        if (c->string_len > JSON_IN_KEY)
            KT_FAIL(err, KT_E_LIMIT, "a JSON key is longer than %d bytes at byte %zu", JSON_IN_KEY,
                    c->i);
        break;
    default:
        if (!number_char(ch))
            break;
        while (c->i + 1 < c->len && number_char(c->s[c->i + 1]))
            c->i++;
        if (c->i + 1 - start > JSON_IN_NUMBER)
            KT_FAIL(err, KT_E_LIMIT, "a JSON number has more than %d characters at byte %zu",
                    JSON_IN_NUMBER, start);
    }
    if (c->members > JSON_IN_MEMBERS)
        KT_FAIL(err, KT_E_LIMIT, "JSON has more than %d members and elements at byte %zu",
                JSON_IN_MEMBERS, c->i);
    return KT_OK;
}

kt_status json_in_scan(char *text, size_t len, kt_err *err)
{
    struct scan c = {.s = text, .len = len};
    for (; c.i < c.len; c.i++)
        KT_TRY(scan_token(&c, err));
    return KT_OK;
}

kt_status json_in_parse(const char *text, size_t len, json_t **out, kt_err *err)
{
    json_error_t je;
    *out = NULL;
    char *copy = mem_alloc(len + 1);
    if (copy == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a JSON text of %zu bytes", len);
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    kt_status s = json_in_scan(copy, len, err);
    if (s == KT_OK) {
        *out = json_loadb(copy, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
        if (*out == NULL)
            s = err_set(err, KT_E_FORMAT, 0, __func__, "invalid JSON at byte %d: %s", je.position,
                        je.text);
    }
    mem_free(copy);
    return s;
}
