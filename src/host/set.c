/* set.c - sets of OS indexes: the only representation of CPU and node sets outside hwloc. See
 * host.h. Words are grown on demand, and trailing zero words never change a meaning: two sets of
 * different length may be equal. Text is the Linux list form ("0-3,8"), as in sysfs and cgroup
 * files. Any thread; a set belongs to whoever holds it.
 */
#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "host/host.h"

#define SET_MAX_INDEX                                                                              \
    1048575u /* beyond any kernel's limit: a larger number in a file is damage, not a CPU */

static bool set_grow(struct host_set *s, uint32_t n_words)
{
    if (n_words <= s->n_words)
        return true;
    uint64_t *p = mem_realloc(s->bits, (size_t)n_words * sizeof *p);
    if (p == NULL)
        return false;
    memset(p + s->n_words, 0, (size_t)(n_words - s->n_words) * sizeof *p);
    s->bits = p;
    s->n_words = n_words;
    return true;
}

bool host_set_has(const struct host_set *s, uint32_t i)
{
    return i / 64 < s->n_words && (s->bits[i / 64] >> (i % 64) & 1) != 0;
}

bool host_set_add(struct host_set *s, uint32_t i)
{
    if (!set_grow(s, i / 64 + 1))
        return false;
    s->bits[i / 64] |= UINT64_C(1) << (i % 64);
    return true;
}

bool host_set_or(struct host_set *s, const struct host_set *t)
{
    if (!set_grow(s, t->n_words))
        return false;
    for (uint32_t w = 0; w < t->n_words; w++)
        s->bits[w] |= t->bits[w];
    return true;
}

bool host_set_copy(struct host_set *dst, const struct host_set *src)
{
    memset(dst, 0, sizeof *dst);
    return host_set_or(dst, src);
}

void host_set_and(struct host_set *s, const struct host_set *t)
{
    for (uint32_t w = 0; w < s->n_words; w++)
        s->bits[w] &= w < t->n_words ? t->bits[w] : 0;
}

void host_set_minus(struct host_set *s, const struct host_set *t)
{
    for (uint32_t w = 0; w < s->n_words && w < t->n_words; w++)
        s->bits[w] &= ~t->bits[w];
}

bool host_set_meets(const struct host_set *s, const struct host_set *t)
{
    for (uint32_t w = 0; w < s->n_words && w < t->n_words; w++)
        if ((s->bits[w] & t->bits[w]) != 0)
            return true;
    return false;
}

bool host_set_equal(const struct host_set *s, const struct host_set *t)
{
    uint32_t n = s->n_words > t->n_words ? s->n_words : t->n_words;
    for (uint32_t w = 0; w < n; w++)
        if ((w < s->n_words ? s->bits[w] : 0) != (w < t->n_words ? t->bits[w] : 0))
            return false;
    return true;
}

uint32_t host_set_count(const struct host_set *s)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < s->n_words; w++)
        n += (uint32_t)__builtin_popcountll(s->bits[w]);
    return n;
}

int32_t host_set_next(const struct host_set *s, int32_t after)
{
    uint32_t i = (uint32_t)(after + 1);
    while (i / 64 < s->n_words) {
        uint64_t rest = s->bits[i / 64] >> (i % 64);
        if (rest != 0)
            return (int32_t)(i + (uint32_t)__builtin_ctzll(rest));
        i = (i / 64 + 1) * 64;
    }
    return -1;
}

char *host_set_format(const struct host_set *s)
{
    struct strbuf b = {0};
    sb_puts(&b, "");
    for (int32_t i = host_set_next(s, -1); i >= 0;) {
        int32_t last = i;
        while (host_set_has(s, (uint32_t)last + 1))
            last++;
        sb_printf(&b, last > i ? "%s%d-%d" : "%s%d", b.len > 0 ? "," : "", i, last);
        i = host_set_next(s, last);
    }
    return sb_take(&b, NULL);
}

/* Digits at *p; moves *p behind them. -1 if there are none or the number is beyond any index. */
static int64_t set_number(const char **p)
{
    int64_t v = 0;
    if (!isdigit((unsigned char)**p))
        return -1;
    for (; isdigit((unsigned char)**p); (*p)++) {
        v = v * 10 + (**p - '0');
        if (v > SET_MAX_INDEX)
            return -1;
    }
    return v;
}

bool host_set_parse(const char *text, struct host_set *out)
{
    const char *p = text;
    memset(out, 0, sizeof *out);
    while (isspace((unsigned char)*p))
        p++;
    while (*p != '\0') {
        int64_t a = set_number(&p), b = a;
        if (a >= 0 && *p == '-') {
            p++;
            b = set_number(&p);
        }
        bool ok = a >= 0 && b >= a;
        for (int64_t i = a; ok && i <= b; i++)
            ok = host_set_add(out, (uint32_t)i);
        while (isspace((unsigned char)*p))
            p++;
        if (ok && *p == ',' && p[1] != '\0')
            p++;
        else if (ok && *p != '\0')
            ok = false;
        if (!ok) {
            host_set_free(out);
            return false;
        }
    }
    return true;
}

void host_set_free(struct host_set *s)
{
    mem_free(s->bits);
    memset(s, 0, sizeof *s);
}
