/* search.c - samples, paired rounds and successive halving; the last four go to search_final.c.
 *
 * Order matters more than counts: a machine that slows down while a search runs slows all configs
 * of a round alike, and the two samples of the default in each round say by how much (between them
 * it is interpolated in time). A score is a median over rounds, so a disturbance of single samples
 * does not drop a config. Part of the budget is kept for the last rounds: a short search times
 * fewer configs rather than proving nothing.
 */
#include "search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "search_int.h"

#define WARM_UPS 3
#define REFERENCE_SAMPLES 20
#define RUNG_ROUNDS_MOST 128
#define MISSES_MOST 3

const char *search_stop_name(enum search_stop s)
{
    static const char *const name[] = {"proved", "equivalent", "budget", "too_noisy", "exhausted"};
    return name[s];
}

uint32_t search_rank(const struct search *s, uint32_t config)
{
    return s->in->rank != NULL ? s->in->rank[config] : config;
}

double search_left(const struct search *s)
{
    return s->deadline - s->timer->now(s->timer->ctx);
}

void search_tell(const struct search *s, struct search_progress *p)
{
    if (s->in->progress == NULL)
        return;
    p->left_seconds = search_left(s);
    s->in->progress(s->in->user, p);
}

double search_sample(struct search *s, uint32_t config)
{
    struct search_config *c = &s->out->config[config];
    double left = search_left(s), seconds = 0;
    if (left <= 0 || (s->in->stop != NULL && *s->in->stop)) {
        s->out->interrupted = left > 0;
        s->over = true;
        return (double)NAN;
    }
    if (s->timer->limit_seconds != NULL) {
        double most = s->out->default_seconds * HUNG_FACTOR;
        *s->timer->limit_seconds = most > 0 && most < left ? most : left;
    }
    enum timer_result r = s->timer->time(s->timer->ctx, config, c->samples, &seconds);
    s->out->timed += c->samples++ == 0 && c->fate != SEARCH_REFERENCE;
    s->out->samples++;
    if (r == TIMER_OK && seconds > 0 && isfinite(seconds))
        return log(seconds);
    if (c->fate != SEARCH_REFERENCE && search_left(s) <= 0) {
        s->over = true; /* cut by the deadline: nothing is known about this config */
    } else if (c->fate != SEARCH_REFERENCE) {
        c->fate = r == TIMER_HUNG ? SEARCH_HUNG : SEARCH_FAILED;
        s->out->failed += r != TIMER_HUNG;
        s->out->hung += r == TIMER_HUNG;
    }
    return (double)NAN;
}

static bool dead(const struct search *s, uint32_t config)
{
    enum search_fate f = s->out->config[config].fate;
    return f == SEARCH_FAILED || f == SEARCH_HUNG;
}

static void bury(struct search *s)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < s->n_live; i++)
        if (!dead(s, s->live[i])) {
            s->row[k] = s->row[i];
            s->live[k++] = s->live[i];
        }
    s->n_live = k;
}

/* log t of the default at a moment between its two samples. Two samples that differ by more than
 * noise explains are not a slope: the lower one is undisturbed. */
static double reference_at(const struct search *s, const double t[2], const double log_t[2],
                           double at)
{
    if (isnan(log_t[0]) || isnan(log_t[1]))
        return isnan(log_t[0]) ? log_t[1] : log_t[0];
    if (fabs(log_t[1] - log_t[0]) > s->apart)
        return log_t[0] < log_t[1] ? log_t[0] : log_t[1];
    double part = t[1] > t[0] ? (at - t[0]) / (t[1] - t[0]) : 0;
    return log_t[0] + part * (log_t[1] - log_t[0]);
}

bool search_round(struct search *s)
{
    double t[2], log_t[2];
    for (uint32_t i = 0; i < s->n_live; i++)
        s->order[i] = i;
    ss_shuffle(&s->rng, s->order, s->n_live);
    t[0] = s->timer->now(s->timer->ctx);
    log_t[0] = search_sample(s, s->in->reference);
    for (uint32_t k = 0; k < s->n_live && !s->over; k++) {
        uint32_t i = s->order[k];
        s->when[i] = s->timer->now(s->timer->ctx);
        s->row[i] = search_sample(s, s->live[i]);
    }
    if (s->over)
        return false;
    t[1] = s->timer->now(s->timer->ctx);
    log_t[1] = search_sample(s, s->in->reference);
    if (s->over)
        return false;
    bool blind = isnan(log_t[0]) && isnan(log_t[1]);
    s->misses = blind ? s->misses + 1 : 0;
    s->over = s->over || s->misses >= MISSES_MOST;
    for (uint32_t i = 0; i < s->n_live; i++)
        s->row[i] = blind ? (double)NAN : s->row[i] - reference_at(s, t, log_t, s->when[i]);
    bury(s);
    return !blind;
}

/* The default by itself: how noisy is this machine, how long is a sample? */
static kt_status warm_up(struct search *s, kt_err *err)
{
    double v[REFERENCE_SAMPLES], work[REFERENCE_SAMPLES];
    uint32_t n = 0, bad = 0;
    struct search_progress p = {.stage = "warm-up", .rounds = REFERENCE_SAMPLES, .live = s->in->n};
    search_tell(s, &p);
    for (uint32_t i = 0; i < WARM_UPS && !s->over; i++)
        bad += isnan(search_sample(s, s->in->reference));
    if (bad == WARM_UPS && !s->over)
        KT_FAIL(err, KT_E_DEVICE,
                "the default configuration itself cannot be timed on this machine; nothing to "
                "compare with");
    while (n < REFERENCE_SAMPLES && !s->over && bad <= 2 * WARM_UPS) {
        double x = search_sample(s, s->in->reference);
        if (!isnan(x))
            v[n++] = x;
        else
            bad++;
    }
    s->out->noise_cv = ss_mad(v, n, work);
    s->out->default_seconds = n > 0 ? exp(ss_median(v, n, (double)INFINITY, work)) : 0;
    s->apart = 8 * s->out->noise_cv > 0.1 ? 8 * s->out->noise_cv : 0.1;
    return KT_OK;
}

struct key {
    double score;
    uint32_t rank, config;
};

static int by_score(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->score != y->score) /* NAN never gets here */
        return x->score < y->score ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return (x->config > y->config) - (x->config < y->config);
}

/* Sort the live configs by `score` and keep the first `keep`. */
static kt_status keep_best(struct search *s, const double *score, uint32_t keep, kt_err *err)
{
    struct key *k = mem_calloc(s->n_live + 1, sizeof *k);
    if (k == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory to sort %u configurations", s->n_live);
    for (uint32_t i = 0; i < s->n_live; i++) {
        uint32_t c = s->live[i];
        double v = score[c];
        k[i] = (struct key){isnan(v) ? (double)INFINITY : v, search_rank(s, c), c};
    }
    qsort(k, s->n_live, sizeof *k, by_score);
    for (uint32_t i = 0; i < s->n_live; i++) {
        s->live[i] = k[i].config;
        if (i >= keep && s->out->config[k[i].config].samples > 0) {
            s->out->config[k[i].config].fate = SEARCH_DROPPED;
            s->out->config[k[i].config].rung = s->out->rungs;
        }
    }
    if (s->n_live > keep)
        s->n_live = keep;
    mem_free(k);
    return KT_OK;
}

/* Seconds that the last rounds take: choice and proof of all finalists with the default twice. */
static double last_rounds(const struct search *s)
{
    return 2.0 * SEARCH_ROUNDS * (SEARCH_FINALISTS + 2) * s->out->default_seconds;
}

/* When the budget does not hold two rounds of everything beside the last rounds, take what the
 * prior likes best. */
static kt_status fit_budget(struct search *s, kt_err *err)
{
    double each = s->out->default_seconds, room = search_left(s) - last_rounds(s);
    if (each <= 0 || (double)s->n_live * each * 3 <= room)
        return KT_OK;
    uint32_t most = room > 0 ? (uint32_t)(room / each / 3) : 0;
    if (most < SEARCH_FINALISTS)
        most = SEARCH_FINALISTS;
    if (most >= s->n_live)
        return KT_OK;
    snprintf(s->out->missing, sizeof s->out->missing,
             "time for %u of %u configurations only, those with the best forecast", most,
             s->n_live);
    double *none = NULL;
    if (s->in->prior == NULL) {
        none = mem_calloc(s->in->n, sizeof *none);
        if (none == NULL)
            KT_FAIL(err, KT_E_NOMEM, "no memory for %u configurations", s->in->n);
    }
    kt_status st = keep_best(s, none != NULL ? none : s->in->prior, most, err);
    mem_free(none);
    return st;
}

/* One rung: `rounds` more rounds of the live configs, whose ratios are added to hist. */
static void run_rung(struct search *s, float *hist, uint32_t *done, uint32_t rounds)
{
    char name[24];
    struct search_progress p = {.stage = name, .rounds = rounds};
    snprintf(name, sizeof name, "rung %u", ++s->out->rungs);
    for (uint32_t r = 0; r < rounds && s->n_live > 0 && *done < RUNG_ROUNDS_MOST; r++) {
        p.round = r + 1;
        p.live = s->n_live;
        search_tell(s, &p);
        if (search_left(s) < last_rounds(s) && s->out->rungs + r > 1)
            return;
        if (search_round(s)) {
            for (uint32_t i = 0; i < s->n_live; i++)
                hist[(size_t)s->live[i] * RUNG_ROUNDS_MOST + *done] = (float)s->row[i];
            ++*done;
        }
        if (s->over)
            return;
        for (uint32_t i = 0; i < s->n_live; i++) {
            double *v = s->work, *w = s->work + RUNG_ROUNDS_MOST;
            for (uint32_t d = 0; d < *done; d++)
                v[d] = (double)hist[(size_t)s->live[i] * RUNG_ROUNDS_MOST + d];
            double m = ss_median(v, *done, s->apart, w);
            s->out->config[s->live[i]].score = m;
            if (!isnan(m) && (!p.has_best || m < s->out->config[p.best].score)) {
                p.has_best = true;
                p.best = s->live[i];
            }
        }
        if (p.has_best)
            p.best_gain = exp(-s->out->config[p.best].score) - 1;
    }
}

static kt_status halve(struct search *s, kt_err *err)
{
    uint32_t rounds = 2, done = 0;
    kt_status st = KT_OK;
    if (s->n_live <= SEARCH_FINALISTS)
        return KT_OK;
    float *hist = mem_calloc((size_t)s->in->n * RUNG_ROUNDS_MOST, sizeof *hist);
    double *score = mem_calloc(s->in->n, sizeof *score);
    if (hist == NULL || score == NULL)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for the rounds of %u configurations",
                     s->in->n);
    while (st == KT_OK && !s->over && s->n_live > SEARCH_FINALISTS) {
        run_rung(s, hist, &done, rounds);
        for (uint32_t i = 0; i < s->n_live; i++)
            score[s->live[i]] = s->out->config[s->live[i]].score;
        bool late = s->over || done >= RUNG_ROUNDS_MOST || search_left(s) < last_rounds(s);
        uint32_t keep =
            late || s->n_live / 3 < SEARCH_FINALISTS ? SEARCH_FINALISTS : (s->n_live + 2) / 3;
        st = keep_best(s, score, keep, err);
        rounds = rounds * 3 / 2 + 1;
    }
    mem_free(hist);
    mem_free(score);
    return st;
}

static kt_status search_all(struct search *s, kt_err *err)
{
    struct search_out *o = s->out;
    for (uint32_t i = 0; i < s->in->n; i++) {
        o->config[i] = (struct search_config){.score = (double)NAN};
        if (i != s->in->reference)
            s->live[s->n_live++] = i;
    }
    o->config[s->in->reference].fate = SEARCH_REFERENCE;
    o->config[s->in->reference].score = 0;
    if (s->n_live > 0) {
        KT_TRY(warm_up(s, err));
        KT_TRY(fit_budget(s, err));
        KT_TRY(halve(s, err));
    }
    search_finish(s);
    return KT_OK;
}

kt_status search_run(const struct search_in *in, struct kt_timer *timer, struct search_out *out,
                     kt_err *err)
{
    struct search s = {.in = in, .timer = timer, .out = out, .rng = in->seed};
    memset(out, 0, sizeof *out);
    out->chosen = in->reference;
    out->stop = SEARCH_EXHAUSTED;
    if (in->n == 0 || in->reference >= in->n)
        KT_FAIL(err, KT_E_INVALID,
                "a search needs at least one configuration, the default; %u were given", in->n);
    uint32_t scratch = in->n > 2 * RUNG_ROUNDS_MOST ? in->n : 2 * RUNG_ROUNDS_MOST;
    out->config = mem_calloc(in->n, sizeof *out->config);
    s.live = mem_calloc(2 * (size_t)in->n, sizeof *s.live);
    s.row = mem_calloc(2 * (size_t)in->n + scratch, sizeof *s.row);
    kt_status st = KT_OK;
    if (out->config == NULL || s.live == NULL || s.row == NULL) {
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for %u configurations", in->n);
    } else {
        s.order = s.live + in->n;
        s.when = s.row + in->n;
        s.work = s.when + in->n;
        s.start = timer->now(timer->ctx);
        s.deadline = s.start + in->budget_seconds;
        st = search_all(&s, err);
        out->elapsed_seconds = timer->now(timer->ctx) - s.start;
    }
    mem_free(s.live);
    mem_free(s.row);
    if (st != KT_OK)
        search_free(out);
    return st;
}

void search_free(struct search_out *out)
{
    mem_free(out->config);
    out->config = NULL;
}
