/* pretok.c - see pretok.h: building a pre-tokeniser and running it. A piece goes depth first
 * through the steps, so that nothing is kept but one pending segment per step, whatever the length
 * of the text.
 *
 * Owner of a struct pretok: the tokenizer; a struct pretok_run belongs to one call. Expressions see
 * `shadow`, which equals the text except that each invalid byte is U+0001, so offsets agree and
 * PCRE2 may trust the UTF-8.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretok.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/uni.h"

#define MAX_STEPS 16
#define HEAP_LIMIT_KIB (256u << 10)

enum step_kind { STEP_REGEX, STEP_SPACES_AT_EOL, STEP_PREFIX_SPACE };

struct pretok_regex {
    pcre2_code *code;
    pcre2_general_context *memory;
};

struct step {
    enum step_kind kind;
    enum split_mode mode;
    bool invert;
    struct pretok_regex *re;
    char *source; /* the pattern with non-ASCII as \x{HEX} */
};

struct pretok {
    struct step step[MAX_STEPS];
    size_t n;
};

struct pretok_run {
    const struct pretok *p;
    pcre2_general_context *memory;
    pcre2_match_data *md;
    pcre2_match_context *mc;
    const struct pretok_sink *sink;
    kt_err *err;
};

static void *re_malloc(size_t n, void *user)
{
    (void)user;
    return mem_alloc(n);
}

static void re_free(void *p, void *user)
{
    (void)user;
    mem_free(p);
}

/* ---- expressions ---- */

void pretok_regex_free(struct pretok_regex *x)
{
    if (x == NULL)
        return;
    pcre2_code_free(x->code);
    pcre2_general_context_free(x->memory);
    mem_free(x);
}

static kt_status compile(struct pretok_regex *x, const char *pattern, const struct strbuf *text,
                         kt_err *err)
{
    x->memory = pcre2_general_context_create(re_malloc, re_free, NULL);
    pcre2_compile_context *cc = x->memory != NULL ? pcre2_compile_context_create(x->memory) : NULL;
    if (cc == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a regular expression");
    pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(cc, 100);
    int code = 0;
    PCRE2_SIZE at = 0;
    x->code = pcre2_compile((PCRE2_SPTR)(text->data != NULL ? text->data : ""), text->len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DOLLAR_ENDONLY |
                                PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, cc);
    pcre2_compile_context_free(cc);
    if (x->code == NULL) {
        if (code == 121)
            KT_FAIL(err, KT_E_NOMEM, "no memory for a regular expression");
        PCRE2_UCHAR why[120] = "";
        pcre2_get_error_message(code, why, sizeof why);
        KT_FAIL(err, KT_E_FORMAT, "regular expression \"%.200s\": %s", pattern, (const char *)why);
    }
    pcre2_jit_compile(x->code, PCRE2_JIT_COMPLETE); /* refused where executable memory is: the
                                                       interpreter gives the same matches */
    return KT_OK;
}

kt_status pretok_regex_new(const char *pattern, struct pretok_regex **out, kt_err *err)
{
    struct strbuf text = {0};
    struct pretok_regex *x = mem_calloc(1, sizeof *x);
    kt_status st = KT_OK;
    *out = NULL;
    if (x == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a regular expression");
    st = pretok_translate(pattern, &text, err);
    if (st == KT_OK)
        st = compile(x, pattern, &text, err);
    sb_free(&text);
    if (st != KT_OK) {
        pretok_regex_free(x);
        return st;
    }
    *out = x;
    return KT_OK;
}

/* Next match at or after `at`: 1 found, 0 none, or an error. */
static kt_status find(const struct pretok_regex *re, pcre2_match_data *md, pcre2_match_context *mc,
                      const char *s, size_t n, size_t at, size_t *from, size_t *to, kt_err *err)
{
    int rc = pcre2_match(re->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, md, mc);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(re->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, md, mc);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *from = *to = SIZE_MAX;
        return KT_OK;
    }
    if (rc == PCRE2_ERROR_NOMEMORY)
        KT_FAIL(err, KT_E_NOMEM, "no memory to split a text of %zu bytes into words", n);
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT)
        KT_FAIL(err, KT_E_LIMIT,
                "splitting a text of %zu bytes into words exceeds the matching limit (PCRE2 error "
                "%d); shorten the text",
                n, rc);
    if (rc < 0)
        KT_FAIL(err, KT_E_INTERNAL, "PCRE2 error %d at byte %zu of %zu", rc, at, n);
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
    *from = ov[0];
    *to = ov[1];
    return KT_OK;
}

static size_t next_char(const char *s, size_t n, size_t at)
{
    uint32_t cp = 0;
    size_t k = at < n ? uni_decode(s + at, n - at, &cp) : 1;
    return at + (k > 0 ? k : 1);
}

/* ---- building ---- */

kt_status pretok_new(struct pretok **out, kt_err *err)
{
    *out = mem_calloc(1, sizeof **out);
    if (*out == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a pre-tokeniser");
    return KT_OK;
}

void pretok_free(struct pretok *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n; i++) {
        pretok_regex_free(p->step[i].re);
        mem_free(p->step[i].source);
    }
    mem_free(p);
}

static kt_status new_step(struct pretok *p, struct step **out, kt_err *err)
{
    if (p->n == MAX_STEPS)
        KT_FAIL(err, KT_E_UNSUPPORTED, "more than %d pre-tokeniser steps", MAX_STEPS);
    *out = &p->step[p->n++];
    return KT_OK;
}

kt_status pretok_add_regex(struct pretok *p, const char *pattern, enum split_mode mode, bool invert,
                           kt_err *err)
{
    struct step *s = NULL;
    struct strbuf source = {0};
    KT_TRY(new_step(p, &s, err));
    s->mode = mode;
    s->invert = invert;
    for (size_t i = 0, n = strlen(pattern); i < n;) {
        uint32_t cp = 0;
        size_t k = uni_decode(pattern + i, n - i, &cp);
        if (k > 1)
            sb_printf(&source, "\\x{%X}", (unsigned)cp);
        else
            sb_putc(&source, pattern[i]);
        i += k > 0 ? k : 1;
    }
    s->source = sb_take(&source, NULL);
    if (s->source == NULL && *pattern != '\0')
        KT_FAIL(err, KT_E_NOMEM, "no memory for a pre-tokeniser");
    if (strcmp(pattern, "\\s+$") ==
        0) { /* as an expression it takes quadratic time on runs of spaces */
        s->kind = STEP_SPACES_AT_EOL;
        return KT_OK;
    }
    return pretok_regex_new(pattern, &s->re, err);
}

kt_status pretok_add_literal(struct pretok *p, const char *text, enum split_mode mode, bool invert,
                             kt_err *err)
{
    struct strbuf b = {0};
    for (const char *c = text; *c != '\0'; c++) {
        if (strchr("\\^$.|?*+()[]{}-", *c) != NULL)
            sb_putc(&b, '\\');
        sb_putc(&b, *c);
    }
    kt_status st = KT_E_NOMEM;
    if (sb_ok(&b) && b.data != NULL)
        st = pretok_add_regex(p, b.data, mode, invert, err);
    else if (sb_ok(&b))
        st = err_set(err, KT_E_FORMAT, 0, __func__, "an empty string to split at");
    else
        err_set(err, st, 0, __func__, "no memory for a pre-tokeniser");
    sb_free(&b);
    return st;
}

kt_status pretok_add_prefix_space(struct pretok *p, kt_err *err)
{
    struct step *s = NULL;
    KT_TRY(new_step(p, &s, err));
    s->kind = STEP_PREFIX_SPACE;
    return KT_OK;
}

size_t pretok_steps(const struct pretok *p)
{
    return p->n;
}

bool pretok_step_is(const struct pretok *p, size_t i, const char *pattern)
{
    return i < p->n && p->step[i].kind != STEP_PREFIX_SPACE && p->step[i].mode == SPLIT_ISOLATED &&
           !p->step[i].invert && p->step[i].source != NULL &&
           strcmp(p->step[i].source, pattern) == 0;
}

/* ---- running ---- */

kt_status pretok_run_new(const struct pretok *p, struct pretok_run **out, kt_err *err)
{
    struct pretok_run *r = mem_calloc(1, sizeof *r);
    *out = r;
    if (r != NULL) {
        r->p = p;
        r->memory = pcre2_general_context_create(re_malloc, re_free, NULL);
        if (r->memory != NULL) {
            r->md = pcre2_match_data_create(1, r->memory);
            r->mc = pcre2_match_context_create(r->memory);
        }
    }
    if (r == NULL || r->md == NULL || r->mc == NULL) {
        pretok_run_free(r);
        *out = NULL;
        KT_FAIL(err, KT_E_NOMEM, "no memory to split text into words");
    }
    pcre2_set_heap_limit(r->mc, HEAP_LIMIT_KIB);
    return KT_OK;
}

void pretok_run_free(struct pretok_run *r)
{
    if (r == NULL)
        return;
    pcre2_match_data_free(r->md);
    pcre2_match_context_free(r->mc);
    pcre2_general_context_free(r->memory);
    mem_free(r);
}

/* A piece of text: what the expressions see and what comes out, at equal offsets. */
struct piece {
    const char *shadow, *text;
    size_t n;
};

static kt_status run_step(struct pretok_run *r, size_t i, struct piece in);

struct segments { /* a step's walk over one piece */
    struct pretok_run *r;
    size_t step;
    struct piece in;
    size_t from, to; /* pending segment */
    bool pending, pending_match;
};

static kt_status flush(struct segments *g)
{
    size_t a = g->from, b = g->to;
    bool any = g->pending && b > a;
    g->pending = false;
    return any ? run_step(g->r, g->step + 1,
                          (struct piece){g->in.shadow + a, g->in.text + a, b - a})
               : KT_OK;
}

/* Next segment in order. Segments cover the piece; modes differ in which neighbours join. */
static kt_status segment(struct segments *g, size_t from, size_t to, bool match)
{
    const struct step *s = &g->r->p->step[g->step];
    match = match != s->invert;
    bool join = false;
    switch (s->mode) {
    case SPLIT_ISOLATED:
        break;
    case SPLIT_REMOVED:
        if (match)
            return KT_OK;
        break;
    case SPLIT_CONTIGUOUS:
        join = g->pending && g->pending_match == match;
        break;
    case SPLIT_PREVIOUS:
        join = g->pending && match && !g->pending_match;
        break;
    case SPLIT_NEXT:
        join = g->pending && !match && g->pending_match;
        break;
    }
    if (!join) {
        KT_TRY(flush(g));
        g->from = from;
    }
    g->to = to;
    g->pending = true;
    g->pending_match = match;
    return KT_OK;
}

static kt_status split_regex(struct pretok_run *r, size_t i, struct piece in)
{
    struct segments g = {.r = r, .step = i, .in = in};
    size_t done = 0, at = 0;
    while (at <= in.n) {
        size_t from = 0, to = 0;
        KT_TRY(find(r->p->step[i].re, r->md, r->mc, in.shadow, in.n, at, &from, &to, r->err));
        if (from == SIZE_MAX)
            break;
        if (from > done)
            KT_TRY(segment(&g, done, from, false));
        KT_TRY(segment(&g, from, to, true));
        done = to;
        at = to > from ? to : next_char(in.shadow, in.n, to);
    }
    if (done < in.n)
        KT_TRY(segment(&g, done, in.n, false));
    return flush(&g);
}

/* \s+$ with lines: of each run of white space, all of it at the end of the text, else what stands
 * before its last LF. */
static kt_status split_spaces(struct pretok_run *r, size_t i, struct piece in)
{
    struct segments g = {.r = r, .step = i, .in = in};
    size_t done = 0;
    for (size_t at = 0; at < in.n;) {
        size_t end = at, last_lf = at;
        uint32_t cp = 0;
        while (end < in.n) {
            size_t k = uni_decode(in.shadow + end, in.n - end, &cp);
            if (!uni_space(cp))
                break;
            if (cp == '\n')
                last_lf = end;
            end += k;
        }
        size_t to = end == in.n ? end : last_lf;
        if (to > at) {
            if (at > done)
                KT_TRY(segment(&g, done, at, false));
            KT_TRY(segment(&g, at, to, true));
            done = to;
        }
        at = end == at || end < in.n ? next_char(in.shadow, in.n, end) : end;
    }
    if (done < in.n)
        KT_TRY(segment(&g, done, in.n, false));
    return flush(&g);
}

static kt_status prefix_space(struct pretok_run *r, size_t i, struct piece in)
{
    if (in.n == 0 || in.shadow[0] == ' ')
        return run_step(r, i + 1, in);
    char *b = mem_alloc(2 * (in.n + 1));
    if (b == NULL)
        KT_FAIL(r->err, KT_E_NOMEM, "no memory to split a text of %zu bytes into words", in.n);
    char *t = b + in.n + 1;
    b[0] = t[0] = ' ';
    memcpy(b + 1, in.shadow, in.n);
    memcpy(t + 1, in.text, in.n);
    kt_status st = run_step(r, i + 1, (struct piece){b, t, in.n + 1});
    mem_free(b);
    return st;
}

static kt_status run_step(struct pretok_run *r, size_t i, struct piece in)
{
    if (i == r->p->n)
        return r->sink->word(r->sink->user, in.text, in.n, r->err);
    switch (r->p->step[i].kind) {
    case STEP_REGEX:
        return split_regex(r, i, in);
    case STEP_SPACES_AT_EOL:
        return split_spaces(r, i, in);
    default:
        return prefix_space(r, i, in);
    }
}

kt_status pretok_split(struct pretok_run *r, const char *text, size_t n,
                       const struct pretok_sink *sink, kt_err *err)
{
    if (n == 0)
        return KT_OK;
    r->sink = sink;
    r->err = err;
    size_t valid = uni_valid(text, n);
    if (valid == n)
        return run_step(r, 0, (struct piece){text, text, n});
    char *shadow = mem_alloc(n);
    if (shadow == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory to split a text of %zu bytes into words", n);
    memcpy(shadow, text, n);
    for (size_t i = valid; i < n; i += 1 + uni_valid(text + i + 1, n - i - 1))
        shadow[i] = 1;
    kt_status st = run_step(r, 0, (struct piece){shadow, text, n});
    mem_free(shadow);
    return st;
}

kt_status pretok_regex_replace(const struct pretok_regex *x, const char *s, size_t n,
                               const char *with, struct strbuf *out, kt_err *err)
{
    pcre2_match_data *md = pcre2_match_data_create(1, x->memory);
    pcre2_match_context *mc = pcre2_match_context_create(x->memory);
    kt_status st = md != NULL && mc != NULL
                       ? KT_OK
                       : err_set(err, KT_E_NOMEM, 0, __func__, "no memory to normalise text");
    size_t done = 0, at = 0;
    if (st == KT_OK)
        pcre2_set_heap_limit(mc, HEAP_LIMIT_KIB);
    while (st == KT_OK && at <= n) {
        size_t from = SIZE_MAX, to = SIZE_MAX;
        st = find(x, md, mc, s, n, at, &from, &to, err);
        if (st != KT_OK || from == SIZE_MAX)
            break;
        sb_add(out, s + done, from - done);
        sb_puts(out, with);
        done = to;
        at = to > from ? to : next_char(s, n, to);
    }
    sb_add(out, s + done, n - done);
    pcre2_match_data_free(md);
    pcre2_match_context_free(mc);
    return st;
}
