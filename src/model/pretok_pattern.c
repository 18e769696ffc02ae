/* pretok_pattern.c - translation of regular expressions from the dialect of the `tokenizers`
 * library (Oniguruma with Ruby syntax on Unicode text) to PCRE2 with UTF, UCP and MULTILINE. The
 * two agree on most of what tokenizers use; this file rewrites what would match something else
 * (\s, \w, \d, \v, \u, scripts, open intervals) and refuses, by name, what it does not know. Pure
 * function of the pattern.
 *
 * Known differences it exists for: PCRE2's \s has U+180E; its \w lacks marks and connectors; its
 * \p{Han} means script extensions; \v is a class; Ruby's {n}+ is not possessive; Ruby classes nest
 * and intersect.
 */
#include "model/pretok.h"

#include <string.h>

#include "model/uni.h"

#define SPACE                                                                                      \
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}" \
    "\\x{3000}"
#define NOT_SPACE                                                                                  \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{"     \
    "1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}"                                                  \
    "\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

struct translation {
    const char *p, *start;
    struct strbuf *out;
    bool in_class;
    kt_err *err;
};

static kt_status refuse(const struct translation *t, const char *at, size_t n)
{
    KT_FAIL(
        t->err, KT_E_UNSUPPORTED,
        "regular expression \"%.200s\": \"%.*s\" at byte %zu has no translation in this version",
        t->start, (int)n, at, (size_t)(at - t->start));
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* p points at the backslash of \p{..} or \P{..} */
static kt_status property(struct translation *t)
{
    const char *at = t->p, *name = at + 3;
    bool negated = at[1] == 'P';
    if (at[2] != '{')
        return refuse(t, at, 2);
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    size_t n = 0;
    while (is_alnum(name[n]) || name[n] == '_')
        n++;
    if (n == 0 || name[n] != '}' || n > 40)
        return refuse(t, at, 3);
    bool script = n > 2 && !(n == 3 && memcmp(name, "Any", 3) == 0) &&
                  !(n == 10 && memcmp(name, "Alphabetic", 10) == 0);
    sb_printf(t->out, "\\%c{%s%.*s}", negated ? 'P' : 'p', script ? "sc:" : "", (int)n, name);
    t->p = name + n + 1;
    return KT_OK;
}

/* \xHH, \x{H..}, \uHHHH */
static kt_status code_point(struct translation *t)
{
    const char *at = t->p, *hex = at + 2;
    bool braced = at[1] == 'x' && *hex == '{';
    hex += braced;
    uint32_t cp = 0;
    size_t n = 0, want = at[1] == 'u' ? 4 : braced ? 6 : 2;
    for (; n < want && is_hex(hex[n]); n++)
        cp = cp * 16 + (uint32_t)(hex[n] <= '9' ? hex[n] - '0' : (hex[n] | 32) - 'a' + 10);
    bool whole = braced ? n > 0 && hex[n] == '}' : n == want;
    if (!whole || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF) ||
        (at[1] == 'x' && !braced && cp > 0x7f))
        return refuse(t, at, 2);
    sb_printf(t->out, "\\x{%X}", (unsigned)cp);
    t->p = hex + n + braced;
    return KT_OK;
}

static kt_status escape(struct translation *t)
{
    char c = t->p[1];
    const char *text = NULL;
    switch (c) {
    case 's':
        text = t->in_class ? SPACE : "[" SPACE "]";
        break;
    case 'S':
        text = t->in_class ? NOT_SPACE : "[^" SPACE "]";
        break;
    case 'w':
        text = t->in_class ? WORD : "[" WORD "]";
        break;
    case 'W':
        text = t->in_class ? NULL : "[^" WORD "]";
        break;
    case 'd':
        text = "\\p{Nd}";
        break;
    case 'D':
        text = "\\P{Nd}";
        break;
    case 'v':
        text = "\\x{B}";
        break;
    case 'p':
    case 'P':
        return property(t);
    case 'x':
    case 'u':
        return code_point(t);
    default:
        if (c == '\0' || (uint8_t)c >= 0x80 ||
            (is_alnum(c) && strchr(t->in_class ? "nrtf" : "nrtfAz", c) == NULL))
            return refuse(t, t->p, c == '\0' ? 1 : 2);
        sb_add(t->out, t->p, 2);
        t->p += 2;
        return KT_OK;
    }
    if (text == NULL)
        return refuse(t, t->p, 2);
    sb_puts(t->out, text);
    t->p += 2;
    return KT_OK;
}

/* {n}, {n,}, {,m}, {n,m}; anything else is a literal brace */
static kt_status interval(struct translation *t)
{
    const char *q = t->p + 1;
    size_t low = strspn(q, "0123456789"), high = 0;
    bool comma = q[low] == ',';
    if (comma)
        high = strspn(q + low + 1, "0123456789");
    const char *end = q + low + comma + high;
    if (*end != '}' || low + high == 0) {
        sb_puts(t->out, "\\{");
        t->p++;
        return KT_OK;
    }
    if (low > 4 || high > 4 || end[1] == '+' || (end[1] == '?' && !comma))
        return refuse(t, t->p, (size_t)(end + 1 - t->p));
    sb_puts(t->out, low == 0 ? "{0" : "{");
    sb_add(t->out, q, (size_t)(end + 1 - q));
    t->p = end + 1;
    return KT_OK;
}

static kt_status group(struct translation *t)
{
    static const char *const plain[] = {
        "(?:", "(?i:", "(?i)", "(?-i)", "(?-i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (t->p[1] == '*')
        return refuse(t, t->p, 2);
    if (t->p[1] != '?') {
        sb_puts(t->out, "(?:"); /* no construct here refers to a capture */
        t->p++;
        return KT_OK;
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strncmp(t->p, plain[i], strlen(plain[i])) == 0) {
            sb_puts(t->out, plain[i]);
            t->p += strlen(plain[i]);
            return KT_OK;
        }
    return refuse(t, t->p, strnlen(t->p, 4));
}

static kt_status one(struct translation *t)
{
    char c = t->p[0];
    uint32_t cp = 0;
    if (c == '\\')
        return escape(t);
    if ((uint8_t)c >= 0x80) {
        size_t n = uni_decode(t->p, strlen(t->p), &cp);
        if (n == 0)
            KT_FAIL(t->err, KT_E_FORMAT, "a regular expression is not UTF-8");
        sb_printf(t->out, "\\x{%X}", (unsigned)cp);
        t->p += n;
        return KT_OK;
    }
    if (t->in_class) {
        if (c == '[' || (c == '&' && t->p[1] == '&'))
            return refuse(t, t->p, 2);
        t->in_class = c != ']';
    } else if (c == '{') {
        return interval(t);
    } else if (c == '(') {
        return group(t);
    } else if (c == '[') {
        t->in_class = true;
        size_t n = t->p[1] == '^' ? 2 : 1;
        if (t->p[n] == ']')
            return refuse(t, t->p, n + 1);
        sb_add(t->out, t->p, n);
        t->p += n;
        return KT_OK;
    }
    sb_putc(t->out, c);
    t->p++;
    return KT_OK;
}

kt_status pretok_translate(const char *pattern, struct strbuf *out, kt_err *err)
{
    struct translation t = {.p = pattern, .start = pattern, .out = out, .err = err};
    while (*t.p != '\0')
        KT_TRY(one(&t));
    if (!sb_ok(out))
        KT_FAIL(err, KT_E_NOMEM, "no memory to translate a regular expression");
    return KT_OK;
}
