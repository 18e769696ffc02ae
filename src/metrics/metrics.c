/* metrics.c - the registry of metric families and their exposition.
 * Families keep the order of registration and their samples stay together. Numbers are written in
 * the C locale with the fewest digits that read back equal. Not here: which metrics exist (that is
 * decided where the numbers arise). Threads: see metrics.h.
 */
#include "metrics/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json_out.h"
#include "base/mem.h"

struct met {
    struct met *next;
    const struct met_def *def;
    char *labels;          /* rendered: key="value",... ; "" without labels */
    _Atomic uint64_t bits; /* counter, gauge: the double's bits; relaxed */
    pthread_mutex_t lock;  /* histograms: guards the rest */
    uint64_t *counts;      /* [n_bounds + 1], not cumulative */
    uint64_t count;
    double sum;
};

struct family {
    struct family *next;
    const struct met_def *def;
    struct met *first, **last;
};

struct met_registry {
    struct family *first, **last;
    bool failed;
    uint32_t n_collect;
    struct {
        void (*fn)(void *);
        void *user;
    } collect[8];
};

struct met_registry *met_open(void)
{
    struct met_registry *r = mem_calloc(1, sizeof *r);
    if (r != NULL)
        r->last = &r->first;
    return r;
}

static void series_free(struct met *m)
{
    if (m == NULL)
        return;
    pthread_mutex_destroy(&m->lock);
    mem_free(m->labels);
    mem_free(m->counts);
    mem_free(m);
}

void met_close(struct met_registry *r)
{
    if (r == NULL)
        return;
    for (struct family *f = r->first; f != NULL;) {
        struct family *next = f->next;
        for (struct met *m = f->first; m != NULL;) {
            struct met *after = m->next;
            series_free(m);
            m = after;
        }
        mem_free(f);
        f = next;
    }
    mem_free(r);
}

bool met_ok(const struct met_registry *r)
{
    return !r->failed;
}

static void add_escaped(struct strbuf *b, const char *s, bool quotes)
{
    for (; *s; s++) {
        if (*s == '\\')
            sb_puts(b, "\\\\");
        else if (*s == '\n')
            sb_puts(b, "\\n");
        else if (*s == '"' && quotes)
            sb_puts(b, "\\\"");
        else
            sb_putc(b, *s);
    }
}

static struct family *family_of(struct met_registry *r, const struct met_def *def)
{
    struct family *f = r->first;
    while (f != NULL && strcmp(f->def->name, def->name) != 0)
        f = f->next;
    if (f != NULL)
        return f->def == def ? f : NULL; /* two definitions of one name are a mistake */
    f = mem_calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->def = def;
    f->last = &f->first;
    *r->last = f;
    r->last = &f->next;
    return f;
}

struct met *met_series(struct met_registry *r, const struct met_def *def, const char *const *values)
{
    struct strbuf b = {0};
    struct family *f = family_of(r, def);
    struct met *m = f == NULL ? NULL : mem_calloc(1, sizeof *m);
    if (m == NULL) {
        r->failed = true;
        return NULL;
    }
    m->def = def;
    pthread_mutex_init(&m->lock, NULL);
    for (int i = 0; i < MET_LABELS && def->keys[i] != NULL; i++) {
        sb_printf(&b, "%s%s=\"", i > 0 ? "," : "", def->keys[i]);
        add_escaped(&b, values[i], true);
        sb_putc(&b, '"');
    }
    m->labels = sb_take(&b, NULL);
    if (def->kind == MET_HISTOGRAM)
        m->counts = mem_calloc(def->n_bounds + 1, sizeof *m->counts);
    bool good = m->labels != NULL && (def->kind != MET_HISTOGRAM || m->counts != NULL);
    for (const struct met *o = f->first; good && o != NULL; o = o->next)
        good = strcmp(o->labels, m->labels) != 0;
    if (!good) {
        series_free(m);
        r->failed = true;
        return NULL;
    }
    *f->last = m;
    f->last = &m->next;
    return m;
}

void met_on_collect(struct met_registry *r, void (*fn)(void *user), void *user)
{
    if (r->n_collect == sizeof r->collect / sizeof r->collect[0]) {
        r->failed = true;
        return;
    }
    r->collect[r->n_collect].fn = fn;
    r->collect[r->n_collect++].user = user;
}

static double as_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t as_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

void met_add(struct met *m, double v)
{
    if (m == NULL)
        return;
    uint64_t old = atomic_load_explicit(&m->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&m->bits, &old, as_bits(as_double(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void met_set(struct met *m, double v)
{
    if (m != NULL)
        atomic_store_explicit(&m->bits, as_bits(v), memory_order_relaxed);
}

double met_value(const struct met *m)
{
    if (m == NULL)
        return 0;
    if (m->def->kind == MET_HISTOGRAM)
        return (double)m->count;
    return as_double(atomic_load_explicit(&m->bits, memory_order_relaxed));
}

void met_observe(struct met *m, double v)
{
    if (m == NULL)
        return;
    uint32_t i = 0;
    while (i < m->def->n_bounds && v > m->def->bounds[i])
        i++;
    pthread_mutex_lock(&m->lock);
    m->counts[i]++;
    m->count++;
    m->sum += v;
    pthread_mutex_unlock(&m->lock);
}

/* ---- exposition ---- */

static void add_number(struct strbuf *b, double v)
{
    struct json_out j;
    if (isnan(v))
        sb_puts(b, "NaN");
    else if (isinf(v))
        sb_puts(b, v > 0 ? "+Inf" : "-Inf");
    else if (v == floor(v) && fabs(v) < 1e15)
        sb_printf(b, "%.0f", v);
    else {
        jo_init(&j, b);
        jo_real(&j, v);
    }
}

/* OpenMetrics wants bucket bounds written as floats; the older format takes either. */
static void add_bound(struct strbuf *b, double v)
{
    add_number(b, v);
    if (v == floor(v))
        sb_puts(b, ".0");
}

static void sample(struct strbuf *b, const char *name, const char *suffix, const char *labels)
{
    sb_puts(b, name);
    sb_puts(b, suffix);
    if (labels[0] != '\0')
        sb_printf(b, "{%s}", labels);
    sb_putc(b, ' ');
}

static void expose_histogram(struct met *m, struct strbuf *b)
{
    const struct met_def *d = m->def;
    const char *sep = m->labels[0] ? "," : "";
    uint64_t total = 0;
    pthread_mutex_lock(&m->lock);
    for (uint32_t i = 0; i <= d->n_bounds; i++) {
        total += m->counts[i];
        sb_printf(b, "%s_bucket{%s%sle=\"", d->name, m->labels, sep);
        if (i < d->n_bounds)
            add_bound(b, d->bounds[i]);
        else
            sb_puts(b, "+Inf");
        sb_printf(b, "\"} %llu\n", (unsigned long long)total);
    }
    sample(b, d->name, "_sum", m->labels);
    add_number(b, m->sum);
    sb_putc(b, '\n');
    sample(b, d->name, "_count", m->labels);
    sb_printf(b, "%llu\n", (unsigned long long)m->count);
    pthread_mutex_unlock(&m->lock);
}

static void expose_family(const struct family *f, enum met_format fmt, struct strbuf *b)
{
    static const char *const kind[] = {"counter", "gauge", "histogram"};
    const struct met_def *d = f->def;
    size_t n = strlen(d->name);
    if (fmt == MET_OPENMETRICS && d->kind == MET_COUNTER && n > 6 &&
        strcmp(d->name + n - 6, "_total") == 0)
        n -= 6; /* there the family is declared without the suffix of its sample */
    sb_printf(b, "# HELP %.*s ", (int)n, d->name);
    add_escaped(b, d->help, fmt == MET_OPENMETRICS);
    sb_printf(b, "\n# TYPE %.*s %s\n", (int)n, d->name, kind[d->kind]);
    for (struct met *m = f->first; m != NULL; m = m->next) {
        if (d->kind == MET_HISTOGRAM) {
            expose_histogram(m, b);
        } else {
            sample(b, d->name, "", m->labels);
            add_number(b, met_value(m));
            sb_putc(b, '\n');
        }
    }
}

void met_expose(struct met_registry *r, enum met_format fmt, struct strbuf *out)
{
    for (uint32_t i = 0; i < r->n_collect; i++)
        r->collect[i].fn(r->collect[i].user);
    for (const struct family *f = r->first; f != NULL; f = f->next)
        expose_family(f, fmt, out);
    if (fmt == MET_OPENMETRICS)
        sb_puts(out, "# EOF\n");
}

/* ---- negotiation ---- */

/* Quality of one media range "type;param=..;q=0.5", 1 when absent. */
static double quality(const char *s, const char *end)
{
    for (const char *p = s; p + 2 < end; p++)
        if ((*p == ';' || *p == ' ') && (p[1] == 'q' || p[1] == 'Q') && p[2] == '=')
            return strtod(p + 3, NULL);
    return 1;
}

static bool contains(const char *s, const char *end, const char *word)
{
    size_t n = strlen(word);
    for (; s + n <= end; s++)
        if (strncasecmp(s, word, n) == 0)
            return true;
    return false;
}

enum met_format met_negotiate(const char *accept)
{
    double open = 0, text = 0;
    if (accept == NULL)
        return MET_TEXT_004;
    for (const char *s = accept; *s;) {
        const char *end = s + strcspn(s, ",");
        double q = quality(s, end);
        if (contains(s, end, "application/openmetrics-text")) {
            bool old = contains(s, end, "version=") && !contains(s, end, "version=1.0.0") &&
                       !contains(s, end, "version=\"1.0.0\"");
            if (!old && q > open)
                open = q;
        } else if (q > text) {
            text = q;
        }
        s = *end ? end + 1 : end;
    }
    return open > 0 && open >= text ? MET_OPENMETRICS : MET_TEXT_004;
}

const char *met_content_type(enum met_format f)
{
    return f == MET_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                : "text/plain; version=0.0.4; charset=utf-8";
}
