/* bench_rounds.c - see bench_rounds.h. The order inside a round is a shuffle by the benchmark's own
 * seed, so the same seed gives the same order. Figures are kept by the caller; nothing is dropped.
 */
#include "bench_rounds.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ceiling.h"
#include "measure.h"
#include "paced.h"

kt_status rounds_one(struct rounds *r, uint32_t round, kt_err *err)
{
    uint32_t order[ROUNDS_ITEMS], n = r->n_items;
    assert(n > 0 && n <= ROUNDS_ITEMS && round < ROUNDS_MOST);
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(m_random(&r->rng) >> 33) % (i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < n; i++)
        KT_TRY(r->item(r->ctx, order[i], round, err));
    if (r->after != NULL)
        r->after(r->ctx, round);
    return KT_OK;
}

static kt_status warm_up(struct rounds *r, kt_err *err)
{
    if (!r->warm_up)
        return KT_OK;
    KT_TRY(rounds_one(r, 0, err));
    if (r->warm != NULL)
        r->warm(r->ctx);
    return KT_OK;
}

kt_status rounds_run(struct rounds *r, kt_err *err)
{
    bool show = r->show && isatty(STDERR_FILENO);
    kt_status s = warm_up(r, err);
    for (uint32_t i = 0; s == KT_OK && i < r->n; i++) {
        if (show)
            fprintf(stderr, "\r\033[Kround %u of %u", i + 1, r->n);
        s = rounds_one(r, i, err);
    }
    if (show)
        fprintf(stderr, "\r\033[K");
    return s;
}

kt_status rounds_paced(struct rounds *r, void (*report)(void *ctx), kt_err *err)
{
    KT_TRY(warm_up(r, err));
    r->n = 1;
    while (paced_wait()) {
        KT_TRY(rounds_one(r, 0, err));
        report(r->ctx);
        fflush(stdout);
    }
    return KT_OK;
}

uint32_t rounds_times(double sample, double once, uint32_t most)
{
    double times = sample / once;
    return times < 1 ? 1 : times > most ? most : (uint32_t)times + 1;
}

void rounds_show_format(const char *name, uint32_t i, uint32_t n)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %u of %u formats\r", name, i + 1, n);
}

void ceilings_sample(struct ceilings *c, uint32_t item, uint32_t round)
{
    if (item == CEIL_READ)
        c->read_bps[round] = ceiling_read(c->c);
    else if (item == CEIL_INT8)
        c->int8_ops[round] = ceiling_int8(c->c, c->isa);
    else
        c->scaled_ops[round] = ceiling_scaled(c->c, c->isa);
}

struct stats rounds_stats(const double *v, const double *by, uint32_t n)
{
    double r[ROUNDS_MOST];
    struct stats s;
    for (uint32_t i = 0; i < n; i++)
        r[i] = by == NULL ? v[i] : by[i] > 0 ? v[i] / by[i] : (double)NAN;
    stats_of(r, n, &s);
    return s;
}

void rounds_put(struct json_out *j, const char *key, const struct stats *s, double scale)
{
    jo_key(j, key);
    jo_object(j);
    jo_kreal(j, "median", s->median * scale);
    jo_kreal(j, "q1", s->q1 * scale);
    jo_kreal(j, "q3", s->q3 * scale);
    jo_object_end(j);
}

void rounds_line(const struct rounds_line *l, uint32_t n, bool none, int width, struct json_out *j)
{
    struct stats s = rounds_stats(l->v, NULL, n);
    double show = l->share ? 100 : l->scale;
    char key[64];
    if (none)
        s.median = s.q1 = s.q3 = (double)NAN;
    jo_kreal(j, l->key, s.median * l->scale);
    snprintf(key, sizeof key, "%s_q1", l->key);
    jo_kreal(j, key, s.q1 * l->scale);
    snprintf(key, sizeof key, "%s_q3", l->key);
    jo_kreal(j, key, s.q3 * l->scale);
    if (width > 0 && isnan(s.median))
        printf("  %-*s %10s\n", width, l->label, "-");
    else if (width > 0)
        printf("  %-*s %10.2f %10.2f %10.2f %s\n", width, l->label, s.median * show, s.q1 * show,
               s.q3 * show, l->unit);
}
