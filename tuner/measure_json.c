/* measure_json.c - the samples of one point as an entry of `measurements`: statistics, causes of
 * discards, provenance, and the verdict ok or noisy. Interrupted samples are left out when enough
 * clean ones remain; on a machine where nearly every sample is interrupted they are kept, and the
 * entry is noisy and says so: a number with a warning is worth more than none.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "measure.h"
#include "stats.h"

#define NOISY_SPREAD 0.10
#define MIN_CLEAN 5
#define MIN_SAMPLES 3

static const char *const cause_names[M_CAUSES] = {"", "involuntary_ctx_switch", "steal",
                                                  "throttle"};

static json_t *head(const struct m_desc *d)
{
    json_t *o = json_object(), *where = json_object(), *mem = json_array();
    for (uint32_t i = 0; i < d->n_mem; i++)
        json_array_append_new(mem, json_integer(d->mem[i]));
    json_object_set_new(where, "cpus", d->cpus != NULL ? json_string(d->cpus) : json_null());
    json_object_set_new(where, "mem", mem);
    json_object_set_new(where, "gpu", json_null());
    json_object_set_new(o, "id", json_string(d->id));
    json_object_set_new(o, "what", json_string(d->what));
    json_object_set_new(o, "where", where);
    json_object_set_new(o, "params", d->params != NULL ? d->params : json_object());
    return o;
}

json_t *m_json_none(const struct m_desc *d, const char *status, const char *reason)
{
    json_t *o = head(d);
    json_object_set_new(o, "status", json_string(status));
    json_object_set_new(o, "reason", json_string(reason));
    return o;
}

static json_t *span(double lo, double hi)
{
    return json_pack("[f,f]", lo, hi);
}

static json_t *provenance(const struct m_desc *d, const struct m_result *r, double drift,
                          size_t switched)
{
    json_t *p = json_object();
    double a = m_note_value(r, UINT32_MAX - 1, 0), b = m_note_value(r, UINT32_MAX - 2, 0);
    json_object_set_new(p, "method", json_string(d->method));
    json_object_set_new(p, "clock", json_string("monotonic"));
    json_object_set_new(p, "started", json_string(r->started));
    json_object_set_new(p, "duration_seconds", json_real(r->seconds));
    json_object_set_new(p, "warmup_seconds",
                        json_real(m_note_value(r, UINT32_MAX, d->warmup_seconds)));
    json_object_set_new(p, "order", json_string(d->single ? "single" : "random_rounds"));
    if (d->kernel_abi != NULL)
        json_object_set_new(p, "kernel_abi", json_string(d->kernel_abi));
    json_object_set_new(p, "freq_hz",
                        a > 0 && b > 0 ? span(a < b ? a : b, a < b ? b : a) : json_null());
    json_object_set_new(p, "temp_celsius", json_null());
    json_object_set_new(p, "ctx_switches", json_integer((json_int_t)switched));
    json_object_set_new(p, "drift_ratio", json_real(drift));
    return p;
}

struct chosen {
    double *v; /* in time order */
    size_t n, n_all, by_cause[M_CAUSES];
    bool kept_dirty;
};

static bool choose(const struct m_result *r, uint32_t point, struct chosen *c)
{
    memset(c, 0, sizeof *c);
    c->v = mem_calloc(r->n + 1, sizeof *c->v);
    if (c->v == NULL)
        return false;
    for (size_t i = 0; i < r->n; i++)
        if (r->records[i].kind == M_SAMPLE && r->records[i].point == point) {
            c->n_all++;
            c->by_cause[r->records[i].cause % M_CAUSES]++;
        }
    size_t clean = c->by_cause[M_CLEAN];
    c->kept_dirty = clean < c->n_all && clean < MIN_CLEAN;
    for (size_t i = 0; i < r->n; i++)
        if (r->records[i].kind == M_SAMPLE && r->records[i].point == point &&
            (c->kept_dirty || r->records[i].cause == M_CLEAN))
            c->v[c->n++] = r->records[i].value;
    return true;
}

static void put_numbers(json_t *o, const struct chosen *c, const struct stats *s)
{
    json_t *discards = json_object();
    json_object_set_new(o, "n", json_integer((json_int_t)s->n));
    json_object_set_new(o, "n_discarded", json_integer((json_int_t)(c->n_all - c->n)));
    json_object_set_new(o, "median", json_real(s->median));
    json_object_set_new(o, "q1", json_real(s->q1));
    json_object_set_new(o, "q3", json_real(s->q3));
    json_object_set_new(o, "min", json_real(s->min));
    json_object_set_new(o, "max", json_real(s->max));
    json_object_set_new(o, "ci95", s->has_ci ? span(s->ci_lo, s->ci_hi) : json_null());
    for (int i = 1; i < M_CAUSES && !c->kept_dirty; i++)
        if (c->by_cause[i] > 0)
            json_object_set_new(discards, cause_names[i], json_integer((json_int_t)c->by_cause[i]));
    if (json_object_size(discards) > 0)
        json_object_set(o, "discards", discards);
    json_decref(discards);
}

/* Why a point was given up, or NULL. */
static const char *given_up(const struct m_result *r, uint32_t point)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->records[i].kind == M_GIVEN_UP && r->records[i].point == point)
            return r->records[i].text;
    return NULL;
}

json_t *m_json(const struct m_desc *d, const struct m_result *r, uint32_t point)
{
    struct chosen c;
    struct stats s;
    char reason[160];
    const char *why = given_up(r, point);
    if (why != NULL)
        return m_json_none(d, "failed", why);
    if (!choose(r, point, &c))
        return NULL;
    if (c.n == 0) {
        mem_free(c.v);
        return m_json_none(d, "failed", m_reason(r, reason, sizeof reason));
    }
    double *work = mem_calloc(c.n, sizeof *work),
           drift = work != NULL ? stats_drift(c.v, c.n, work) : 0;
    stats_of(c.v, c.n, &s);
    bool few = !d->single && c.n < MIN_SAMPLES,
         noisy = few || c.kept_dirty || stats_spread(&s) > NOISY_SPREAD;
    json_t *o = head(d);
    json_object_set_new(o, "unit", json_string(d->unit));
    json_object_set_new(o, "status", json_string(noisy ? "noisy" : "ok"));
    if (few)
        snprintf(reason, sizeof reason, "no time was left for more than %zu of its samples", c.n);
    else if (c.kept_dirty)
        snprintf(reason, sizeof reason, "%zu of %zu samples were interrupted; all are kept",
                 c.n_all - c.by_cause[M_CLEAN], c.n_all);
    else if (noisy)
        snprintf(reason, sizeof reason, "quartiles differ by %.0f %% of the median",
                 100.0 * stats_spread(&s));
    if (noisy)
        json_object_set_new(o, "reason", json_string(reason));
    put_numbers(o, &c, &s);
    json_object_set_new(o, "provenance", provenance(d, r, drift, c.by_cause[M_SWITCHED]));
    mem_free(work);
    mem_free(c.v);
    return o;
}
