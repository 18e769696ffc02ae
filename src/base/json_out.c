/* json_out.c - see json_out.h. */
#include "base/json_out.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void jo_init(struct json_out *j, struct strbuf *b)
{
    memset(j, 0, sizeof *j);
    j->b = b;
}

/* Before any value: a comma unless it is the first member or follows its key. */
static void separate(struct json_out *j)
{
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth > 0) {
        uint64_t bit = (uint64_t)1 << (j->depth - 1);
        if (j->has_item & bit)
            sb_putc(j->b, ',');
        j->has_item |= bit;
    }
}

static void enter(struct json_out *j, char c)
{
    separate(j);
    sb_putc(j->b, c);
    assert(j->depth < JO_DEPTH);
    j->depth++;
    j->has_item &= ~((uint64_t)1 << (j->depth - 1));
}

static void leave(struct json_out *j, char c)
{
    assert(j->depth > 0);
    j->depth--;
    sb_putc(j->b, c);
}

void jo_object(struct json_out *j)
{
    enter(j, '{');
}

void jo_object_end(struct json_out *j)
{
    leave(j, '}');
}

void jo_array(struct json_out *j)
{
    enter(j, '[');
}

void jo_array_end(struct json_out *j)
{
    leave(j, ']');
}

/* Length of a well-formed UTF-8 sequence at s (1..4), or 0. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                 : (s[0] & 0xf0) == 0xe0        ? 3
                 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

static void escape_ascii(struct strbuf *b, unsigned char c)
{
    static const char named[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c ? strchr(named, c) : NULL;
    if (at != NULL) {
        sb_putc(b, '\\');
        sb_putc(b, letter[at - named]);
    } else {
        sb_printf(b, "\\u%04x", c);
    }
}

static void quote(struct strbuf *b, const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str;
    sb_putc(b, '"');
    for (size_t i = 0; i < n;) {
        size_t run = i;
        while (run < n && s[run] >= 0x20 && s[run] < 0x7f && s[run] != '"' && s[run] != '\\')
            run++;
        if (run > i) {
            sb_add(b, str + i, run - i);
            i = run;
            continue;
        }
        size_t len = utf8_len(s + i, n - i);
        if (len == 0) {
            sb_puts(b, "\xef\xbf\xbd");
            i++;
        } else if (len == 1) {
            escape_ascii(b, s[i]);
            i++;
        } else {
            if (len == 2 && s[i] == 0xc2 && s[i + 1] == 0x85)
                sb_puts(b, "\\u0085");
            else if (len == 3 && s[i] == 0xe2 && s[i + 1] == 0x80 &&
                     (s[i + 2] == 0xa8 || s[i + 2] == 0xa9))
                sb_puts(b, s[i + 2] == 0xa8 ? "\\u2028" : "\\u2029");
            else
                sb_add(b, str + i, len);
            i += len;
        }
    }
    sb_putc(b, '"');
}

void jo_key(struct json_out *j, const char *key)
{
    separate(j);
    quote(j->b, key, strlen(key));
    sb_putc(j->b, ':');
    j->after_key = true;
}

void jo_strn(struct json_out *j, const char *s, size_t n)
{
    separate(j);
    quote(j->b, s, n);
}

void jo_str(struct json_out *j, const char *s)
{
    if (s == NULL)
        jo_null(j);
    else
        jo_strn(j, s, strlen(s));
}

void jo_int(struct json_out *j, int64_t v)
{
    separate(j);
    sb_printf(j->b, "%lld", (long long)v);
}

void jo_uint(struct json_out *j, uint64_t v)
{
    separate(j);
    sb_printf(j->b, "%llu", (unsigned long long)v);
}

void jo_real(struct json_out *j, double v)
{
    char s[40];
    if (!isfinite(v)) {
        jo_null(j);
        return;
    }
    separate(j);
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtod(s, NULL) == v)
            break;
    }
    for (char *p = s; *p; p++) /* a program may have set another locale */
        if (*p == ',')
            *p = '.';
    sb_puts(j->b, s);
}

void jo_bool(struct json_out *j, bool v)
{
    separate(j);
    sb_puts(j->b, v ? "true" : "false");
}

void jo_null(struct json_out *j)
{
    separate(j);
    sb_puts(j->b, "null");
}

void jo_raw(struct json_out *j, const char *json)
{
    separate(j);
    sb_puts(j->b, json);
}

void jo_kstr(struct json_out *j, const char *key, const char *s)
{
    jo_key(j, key);
    jo_str(j, s);
}

void jo_kint(struct json_out *j, const char *key, int64_t v)
{
    jo_key(j, key);
    jo_int(j, v);
}

void jo_kuint(struct json_out *j, const char *key, uint64_t v)
{
    jo_key(j, key);
    jo_uint(j, v);
}

void jo_kreal(struct json_out *j, const char *key, double v)
{
    jo_key(j, key);
    jo_real(j, v);
}

void jo_kbool(struct json_out *j, const char *key, bool v)
{
    jo_key(j, key);
    jo_bool(j, v);
}

void jo_knull(struct json_out *j, const char *key)
{
    jo_key(j, key);
    jo_null(j);
}
