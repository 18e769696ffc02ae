/* norm.c - see norm.h. Unicode normal forms: decomposition and properties from utf8proc one
 * character at a time, canonical ordering here by a counting sort per run of marks (utf8proc's own
 * ordering is quadratic in the length of a run, and text is untrusted), composition by utf8proc.
 */
#include "model/norm.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "model/pretok.h"
#include "model/uni.h"

kt_status norm_add(struct norm *n, enum norm_kind kind, const char *text, struct pretok_regex *find,
                   kt_err *err)
{
    if (n->n == NORM_STEPS) {
        pretok_regex_free(find);
        KT_FAIL(err, KT_E_UNSUPPORTED, "more than %d normaliser steps", NORM_STEPS);
    }
    struct norm_step *s = &n->step[n->n++];
    s->kind = kind;
    s->find = find;
    s->text = mem_strdup(text != NULL ? text : "");
    if (s->text == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a normaliser");
    return KT_OK;
}

void norm_free(struct norm *n)
{
    for (size_t i = 0; i < n->n; i++) {
        pretok_regex_free(n->step[i].find);
        mem_free(n->step[i].text);
    }
    memset(n, 0, sizeof *n);
}

bool norm_is(const struct norm *n, bool nfc)
{
    return nfc ? n->n == 1 && n->step[0].kind == NORM_NFC : n->n == 0;
}

bool norm_unchanged(const struct norm *n, const char *s, size_t len)
{
    if (n->n == 0)
        return true;
    if (!norm_is(n, true))
        return false;
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)s[i] >= 0xCC) /* below U+0300 every text is NFC */
            return false;
    return true;
}

static bool is_compat(enum norm_kind k)
{
    return k == NORM_NFKC || k == NORM_NFKD;
}

struct marks { /* canonical order of one run of marks */
    int32_t *tmp;
    size_t count[256];
};

/* Stable counting sort by combining class of v[0..n), all classes > 0. */
static void sort_marks(int32_t *v, size_t n, struct marks *m)
{
    size_t at = 0;
    memset(m->count, 0, sizeof m->count);
    for (size_t i = 0; i < n; i++)
        m->count[utf8proc_get_property(v[i])->combining_class & 255]++;
    for (size_t c = 0; c < 256; c++) {
        size_t k = m->count[c];
        m->count[c] = at;
        at += k;
    }
    for (size_t i = 0; i < n; i++)
        m->tmp[m->count[utf8proc_get_property(v[i])->combining_class & 255]++] = v[i];
    memcpy(v, m->tmp, n * sizeof *v);
}

static void order(int32_t *v, size_t n, struct marks *m)
{
    for (size_t i = 0; i < n;) {
        size_t k = i;
        bool sorted = true;
        int last = 0;
        for (; k < n; k++) {
            int cc = utf8proc_get_property(v[k])->combining_class;
            if (cc == 0)
                break;
            sorted = sorted && cc >= last;
            last = cc;
        }
        if (!sorted)
            sort_marks(v + i, k - i, m);
        i = k > i ? k : i + 1;
    }
}

/* Code points of valid UTF-8, decomposed. *v is the caller's to free, also after an error. */
static kt_status decompose(enum norm_kind kind, const char *s, size_t len, int32_t **v, size_t *n,
                           kt_err *err)
{
    utf8proc_option_t opt = UTF8PROC_DECOMPOSE | (is_compat(kind) ? UTF8PROC_COMPAT : 0);
    size_t cap = len + 32, used = 0;
    *v = mem_alloc(cap * sizeof **v);
    for (size_t i = 0; *v != NULL && i < len;) {
        uint32_t cp = 0;
        i += uni_decode(s + i, len - i, &cp);
        for (;;) {
            int klass = 0;
            utf8proc_ssize_t k = utf8proc_decompose_char(
                (int32_t)cp, *v + used, (utf8proc_ssize_t)(cap - used), opt, &klass);
            if (k < 0)
                KT_FAIL(err, KT_E_INTERNAL, "utf8proc: %s", utf8proc_errmsg(k));
            if ((size_t)k <= cap - used) {
                used += (size_t)k;
                break;
            }
            cap = cap * 2 + (size_t)k;
            int32_t *bigger = mem_realloc(*v, cap * sizeof *bigger);
            if (bigger == NULL)
                KT_FAIL(err, KT_E_NOMEM, "no memory to normalise %zu bytes", len);
            *v = bigger;
        }
    }
    *n = used;
    if (*v == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory to normalise %zu bytes", len);
    return KT_OK;
}

static kt_status normal_form(enum norm_kind kind, const char *s, size_t len, struct strbuf *out,
                             kt_err *err)
{
    int32_t *v = NULL;
    size_t n = 0;
    kt_status st = decompose(kind, s, len, &v, &n, err);
    if (st == KT_OK) {
        struct marks m = {.tmp = mem_alloc(n * sizeof *v)};
        if (m.tmp == NULL)
            st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory to normalise %zu bytes", len);
        else
            order(v, n, &m);
        mem_free(m.tmp);
    }
    if (st == KT_OK && (kind == NORM_NFC || kind == NORM_NFKC)) {
        utf8proc_ssize_t k =
            utf8proc_normalize_utf32(v, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        n = k >= 0 ? (size_t)k : n;
        if (k < 0)
            st = err_set(err, KT_E_INTERNAL, 0, __func__, "utf8proc: %s", utf8proc_errmsg(k));
    }
    for (size_t i = 0; st == KT_OK && i < n; i++) {
        char b[4];
        sb_add(out, b, uni_encode((uint32_t)v[i], b));
    }
    mem_free(v);
    return st;
}

static void lowercase(const char *s, size_t len, struct strbuf *out)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        char b[4];
        i += uni_decode(s + i, len - i, &cp);
        sb_add(out, b, uni_encode((uint32_t)utf8proc_tolower((int32_t)cp), b));
        if (cp == 0x130) /* the one letter whose lower case is two characters: i with a dot above */
            sb_puts(out, "\xcc\x87");
    }
}

static kt_status run_valid(const struct norm_step *t, const char *s, size_t len, struct strbuf *out,
                           kt_err *err)
{
    switch (t->kind) {
    case NORM_LOWERCASE:
        lowercase(s, len, out);
        return KT_OK;
    case NORM_REPLACE:
        return pretok_regex_replace(t->find, s, len, t->text, out, err);
    default:
        return normal_form(t->kind, s, len, out, err);
    }
}

static kt_status run_step(const struct norm_step *t, const char *s, size_t len, struct strbuf *out,
                          kt_err *err)
{
    if (t->kind == NORM_PREPEND) {
        if (len > 0)
            sb_puts(out, t->text);
        sb_add(out, s, len);
        return KT_OK;
    }
    for (size_t i = 0; i < len;) {
        size_t k = uni_valid(s + i, len - i);
        if (k > 0)
            KT_TRY(run_valid(t, s + i, k, out, err));
        i += k;
        if (i < len)
            sb_putc(out, s[i++]);
    }
    return KT_OK;
}

kt_status norm_run(const struct norm *n, const char *s, size_t len, struct strbuf *out, kt_err *err)
{
    sb_clear(out);
    if (n->n == 0) {
        sb_add(out, s, len);
        return KT_OK;
    }
    struct strbuf in = {0};
    kt_status st = run_step(&n->step[0], s, len, out, err);
    for (size_t i = 1; st == KT_OK && i < n->n; i++) {
        struct strbuf swap = in;
        in = *out;
        *out = swap;
        sb_clear(out);
        st = run_step(&n->step[i], in.data != NULL ? in.data : "", in.len, out, err);
    }
    if (st == KT_OK && (!sb_ok(out) || !sb_ok(&in)))
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory to normalise %zu bytes", len);
    sb_free(&in);
    return st;
}
