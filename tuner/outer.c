/* outer.c - see outer.h. */
#include "outer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHARE_MOST 0.6 /* of the budget for all tries */

/* A search over few configs with numbers of its own. */
struct few {
    struct kt_timer timer, *inner;
    uint32_t config[OUTER_CONFIGS + 1], rank[OUTER_CONFIGS + 1];
};

static enum timer_result few_time(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct few *f = ctx;
    return f->inner->time(f->inner->ctx, f->config[config], rep, seconds);
}

static double few_now(void *ctx)
{
    const struct few *f = ctx;
    return f->inner->now(f->inner->ctx);
}

const char *outer_fate_name(enum outer_fate f)
{
    static const char *const name[] = {"open",   "not offered", "refused", "no time",
                                       "failed", "kept",        "proved"};
    return name[f];
}

static double left(const struct outer_in *in, struct kt_timer *timer, double start)
{
    return start + in->search.budget_seconds - timer->now(timer->ctx);
}

/* Which tries fit the budget? The last ones are given up first. Seconds of the others. */
static double fit(const struct outer_in *in, struct outer_try *tries, uint32_t n)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < n; i++)
        open += tries[i].fate == OUTER_OPEN;
    for (uint32_t i = n; i-- > 0 && open > 0;) {
        if ((open + 1) * in->try_seconds <= SHARE_MOST * in->search.budget_seconds)
            break;
        if (tries[i].fate != OUTER_OPEN)
            continue;
        tries[i].fate = OUTER_NO_TIME;
        snprintf(tries[i].reason, sizeof tries[i].reason,
                 "a try loads the model again and takes %.0f s; give more with --budget",
                 in->try_seconds);
        open--;
    }
    return open > 0 ? (open + 1) * in->try_seconds : 0;
}

/* Search among few configs, the first the reference; numbers in *out are the caller's. */
static kt_status among(const struct outer_in *in, struct few *f, uint32_t n, double seconds,
                       uint64_t seed, struct search_out *out, kt_err *err)
{
    struct search_in s = in->search;
    s.n = n;
    s.reference = 0;
    s.prior = NULL;
    s.rank = f->rank;
    s.budget_seconds = seconds;
    s.seed = seed;
    for (uint32_t i = 0; i < n; i++)
        f->rank[i] = in->rank(in->ctx, f->config[i]);
    f->timer = (struct kt_timer){f, few_time, few_now, f->inner->limit_seconds};
    KT_TRY(search_run(&s, &f->timer, out, err));
    out->chosen = f->config[out->chosen];
    for (uint32_t i = 0; i < out->n_finalists; i++)
        out->finalist[i].config = f->config[out->finalist[i].config];
    return KT_OK;
}

/* Counts of a part go to the whole. */
static void add_counts(struct search_out *to, const struct search_out *part)
{
    to->timed += part->timed;
    to->failed += part->failed;
    to->hung += part->hung;
    to->samples += part->samples;
    to->interrupted = to->interrupted || part->interrupted;
}

/* The verdict of `from` takes the place of that in `to`, counts and configs stay. */
static void take_verdict(struct search_out *to, const struct search_out *from)
{
    to->chosen = from->chosen;
    to->proved = from->proved;
    to->stop = from->stop;
    to->gain = from->gain;
    to->regret = from->regret;
    to->n_finalists = from->n_finalists;
    memcpy(to->finalist, from->finalist, sizeof to->finalist);
}

static void judge(struct outer_try *t, const struct search_out *o, uint32_t n)
{
    const struct search_finalist *best = NULL;
    for (uint32_t i = 0; i < o->n_finalists; i++)
        if (o->finalist[i].choice.n > 0 &&
            (best == NULL || o->finalist[i].choice.median < best->choice.median))
            best = &o->finalist[i];
    if (o->proved) {
        t->fate = OUTER_PROVED;
        t->gain = o->gain;
        snprintf(t->reason, sizeof t->reason, "%+.1f %% (95 %%: %+.1f to %+.1f) in %u fresh rounds",
                 100 * o->gain.median, 100 * o->gain.lo, 100 * o->gain.hi, o->gain.n);
    } else if (o->failed + o->hung >= n - 1) {
        t->fate = OUTER_FAILED;
        snprintf(t->reason, sizeof t->reason, "no sample could be taken");
    } else if (o->missing[0] != '\0') {
        t->fate = OUTER_NO_TIME;
        snprintf(t->reason, sizeof t->reason, "%s", o->missing);
    } else {
        t->fate = OUTER_KEPT;
        snprintf(t->reason, sizeof t->reason, "%+.1f %% at best in paired rounds: %s",
                 best != NULL ? 100 * (exp(-best->choice.median) - 1) : 0,
                 o->stop == SEARCH_EQUIVALENT ? "the same within 1 %" : "not proved faster");
    }
}

/* One value of an outer axis; *best moves when it is proved. *direct: the default was the rival. */
static kt_status try_one(const struct outer_in *in, struct outer_try *t, uint32_t index,
                         double seconds, struct kt_timer *timer, uint32_t *best,
                         struct search_out *whole, kt_err *err)
{
    struct few f = {.inner = timer};
    struct search_out o;
    uint32_t n = in->configs(in->ctx, t, *best, f.config + 1);
    f.config[0] = *best;
    if (n == 0) {
        t->fate = OUTER_FAILED;
        snprintf(t->reason, sizeof t->reason, "there is no configuration with it");
        return KT_OK;
    }
    kt_status s = among(in, &f, n + 1, seconds, in->search.seed + 1 + index, &o, err);
    if (s == KT_E_DEVICE) { /* the rival died: what is known already stays */
        t->fate = OUTER_FAILED;
        snprintf(t->reason, sizeof t->reason, "what was best so far could not be timed again");
        return KT_OK;
    }
    KT_TRY(s);
    judge(t, &o, n + 1);
    add_counts(whole, &o);
    if (o.proved && *best == in->search.reference)
        take_verdict(whole, &o);
    if (o.proved)
        *best = o.chosen;
    search_free(&o);
    return KT_OK;
}

/* Steps were proved one after the other: now all of them against the default. */
static kt_status prove_sum(const struct outer_in *in, struct outer_try *tries, uint32_t n,
                           uint32_t best, double seconds, struct kt_timer *timer,
                           struct search_out *whole, kt_err *err)
{
    struct few f = {.inner = timer, .config = {in->search.reference, best}};
    struct search_out o = {0};
    kt_status s =
        seconds > 0 ? among(in, &f, 2, seconds, in->search.seed + 1 + n, &o, err) : KT_E_DEVICE;
    if (s != KT_OK && s != KT_E_DEVICE)
        return s;
    if (s == KT_OK) {
        add_counts(whole, &o);
        if (o.proved)
            take_verdict(whole, &o);
    }
    for (uint32_t i = 0; i < n && !o.proved; i++)
        if (tries[i].fate == OUTER_PROVED) {
            tries[i].fate = OUTER_KEPT;
            snprintf(tries[i].reason, sizeof tries[i].reason,
                     "faster than the step before, but not proved against the default at the end");
        }
    search_free(&o);
    return KT_OK;
}

static void tell_missing(const struct outer_try *tries, uint32_t n, struct search_out *out)
{
    for (uint32_t i = 0; i < n && out->missing[0] == '\0'; i++)
        if (tries[i].fate == OUTER_NO_TIME)
            snprintf(out->missing, sizeof out->missing, "%s %s: %.90s", tries[i].axis,
                     tries[i].value, tries[i].reason);
}

kt_status outer_run(const struct outer_in *in, struct outer_try *tries, uint32_t n,
                    struct kt_timer *timer, struct search_out *out, kt_err *err)
{
    double start = timer->now(timer->ctx);
    struct search_in first = in->search;
    first.budget_seconds -= fit(in, tries, n);
    KT_TRY(search_run(&first, timer, out, err));
    uint32_t best = out->chosen;
    bool direct = true;
    kt_status s = KT_OK;
    for (uint32_t i = 0; i < n && s == KT_OK; i++) {
        double room = left(in, timer, start);
        if (tries[i].fate != OUTER_OPEN)
            continue;
        if (out->interrupted || room <= 0) {
            tries[i].fate = OUTER_NO_TIME;
            snprintf(tries[i].reason, sizeof tries[i].reason, "%s",
                     out->interrupted ? "interrupted" : "time was up");
            continue;
        }
        uint32_t before = best;
        s = try_one(in, &tries[i], i, fmin(room, in->try_seconds), timer, &best, out, err);
        if (best != before)
            direct = before == in->search.reference;
    }
    if (s == KT_OK && !direct)
        s = prove_sum(in, tries, n, best, out->interrupted ? 0 : left(in, timer, start), timer, out,
                      err);
    tell_missing(tries, n, out);
    out->elapsed_seconds = timer->now(timer->ctx) - start;
    if (s != KT_OK)
        search_free(out);
    return s;
}
