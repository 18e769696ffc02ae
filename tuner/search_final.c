/* search_final.c - choice and proof. Twenty rounds choose the best of the last four: not the one
 * with the best median, but the simplest of those that are equivalent to it. Twenty fresh rounds
 * judge: what chose a config cannot also prove it (the best of several looks better than it is).
 * The interval of the fresh rounds must exclude zero and must not lie inside +-1 %, else the
 * default stays. When time is up before, the rounds so far must prove at a level that allows for
 * the choice among four.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "search_int.h"

#define ALPHA 0.05
#define ALPHA_CHOICE (ALPHA / SEARCH_FINALISTS)
#define ROUNDS_LEAST 6

static struct search_finalist *finalist(struct search *s, uint32_t config)
{
    for (uint32_t i = 0; i < s->out->n_finalists; i++)
        if (s->out->finalist[i].config == config)
            return &s->out->finalist[i];
    return NULL;
}

/* Log ratios of a to b in the rounds that timed both. */
static struct span versus(const double *a, const double *b, uint32_t n, double alpha)
{
    double d[SEARCH_ROUNDS_MOST], work[SEARCH_ROUNDS_MOST];
    for (uint32_t i = 0; i < n; i++)
        d[i] = b != NULL ? a[i] - b[i] : a[i];
    return ss_span(d, n, alpha, work);
}

static bool same(const struct span *d)
{
    return d->has_ci && d->lo > -EQUIVALENT && d->hi < EQUIVALENT;
}

static bool noisy(const struct search *s)
{
    return s->out->noise_cv > NOISY_CV;
}

/* Run rounds of the live configs; which: their choice_log or proof_log. Ends early when `open` says
 * that nothing is left to decide (NULL: never). */
static void rounds_of(struct search *s, const char *stage, bool proof, uint32_t most,
                      bool (*open)(struct search *s, uint32_t done))
{
    struct search_progress p = {.stage = stage, .rounds = most};
    double work[SEARCH_ROUNDS_MOST];
    for (uint32_t r = 0, done = 0; r < most && s->n_live > 0 && !s->over; r++) {
        p.round = r + 1;
        p.live = s->n_live;
        search_tell(s, &p);
        if (!search_round(s))
            continue;
        for (uint32_t i = 0; i < s->out->n_finalists; i++) {
            struct search_finalist *f = &s->out->finalist[i];
            (proof ? f->proof_log : f->choice_log)[done] = (double)NAN;
            *(proof ? &f->n_proof : &f->n_choice) = done + 1;
        }
        for (uint32_t i = 0; i < s->n_live; i++) {
            struct search_finalist *f = finalist(s, s->live[i]);
            double *log_ratio = proof ? f->proof_log : f->choice_log;
            log_ratio[done] = s->row[i];
            double m = ss_median(log_ratio, done + 1, (double)INFINITY, work);
            if (!isnan(m) && (i == 0 || exp(-m) - 1 > p.best_gain)) {
                p.has_best = true;
                p.best = f->config;
                p.best_gain = exp(-m) - 1;
            }
        }
        done++;
        if (open != NULL && !open(s, done))
            return;
    }
}

static bool usable(const struct search *s, const struct search_finalist *f)
{
    enum search_fate fate = s->out->config[f->config].fate;
    return fate != SEARCH_FAILED && fate != SEARCH_HUNG && f->choice.n > 0;
}

static void measure_choice(struct search *s)
{
    for (uint32_t i = 0; i < s->out->n_finalists; i++) {
        struct search_finalist *f = &s->out->finalist[i];
        f->choice = versus(f->choice_log, NULL, f->n_choice, ALPHA);
    }
}

static struct search_finalist *leader(struct search *s)
{
    struct search_finalist *best = NULL;
    measure_choice(s);
    for (uint32_t i = 0; i < s->out->n_finalists; i++) {
        struct search_finalist *f = &s->out->finalist[i];
        if (usable(s, f) && (best == NULL || f->choice.median < best->choice.median))
            best = f;
    }
    return best;
}

/* May rival stand for best? Only when they are proved to be the same; under great noise also when
 * they are too close to be ranked. */
static bool ties(const struct search *s, const struct search_finalist *rival,
                 const struct search_finalist *best)
{
    struct span d = versus(rival->choice_log, best->choice_log, best->n_choice, ALPHA);
    return same(&d) || (noisy(s) && d.median < log(1 + NOISY_APART));
}

/* Is there still something to decide? A pair is decided when its interval excludes zero or lies
 * inside +-1 %. */
static bool open_question(struct search *s, uint32_t done)
{
    if (done < SEARCH_ROUNDS)
        return true;
    const struct search_finalist *best = leader(s);
    for (uint32_t i = 0; best != NULL && i < s->out->n_finalists; i++) {
        const struct search_finalist *f = &s->out->finalist[i];
        if (f == best || !usable(s, f))
            continue;
        struct span d = versus(f->choice_log, best->choice_log, best->n_choice, ALPHA);
        if (d.lo <= 0 && !same(&d))
            return true;
    }
    return false;
}

static struct search_finalist *choose(struct search *s)
{
    struct search_finalist *best = leader(s), *pick = best;
    for (uint32_t i = 0; best != NULL && i < s->out->n_finalists; i++) {
        struct search_finalist *f = &s->out->finalist[i];
        if (f != best && usable(s, f) && ties(s, f, best) &&
            search_rank(s, f->config) < search_rank(s, pick->config))
            pick = f;
    }
    return pick;
}

/* Does an interval of log ratios prove a gain worth having? Else *stop says why not. */
static bool proves(const struct search *s, const struct span *v, enum search_stop *stop)
{
    *stop = SEARCH_EXHAUSTED;
    if (!v->has_ci)
        return false;
    if (same(v)) {
        *stop = SEARCH_EQUIVALENT;
        return false;
    }
    if (noisy(s) && v->median > -log(1 + NOISY_APART)) {
        *stop = SEARCH_TOO_NOISY;
        return false;
    }
    if (v->hi >= 0)
        return false;
    *stop = SEARCH_PROVED;
    return true;
}

/* How far the choice may be from the best of the finalists. */
static void measure_regret(struct search *s)
{
    struct search_out *o = s->out;
    const struct search_finalist *c = finalist(s, o->chosen);
    double worst = 0, upper = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->n_finalists; i++) {
        struct search_finalist *f = &o->finalist[i];
        bool fresh = f->n_proof >= ROUNDS_LEAST && (c == NULL || c->n_proof >= ROUNDS_LEAST);
        f->behind =
            fresh ? versus(f->proof_log, c != NULL ? c->proof_log : NULL, f->n_proof, ALPHA)
                  : versus(f->choice_log, c != NULL ? c->choice_log : NULL, f->n_choice, ALPHA);
        if (f == c || f->behind.n < ROUNDS_LEAST || !f->behind.has_ci)
            continue;
        double r = 1 - exp(f->behind.median), u = 1 - exp(f->behind.lo);
        worst = r > worst ? r : worst;
        upper = u > upper ? u : upper;
        n++;
    }
    o->regret = (struct span){worst, 0, upper, n, n > 0};
}

static void verdict(struct search *s, struct search_finalist *pick, bool complete)
{
    struct search_out *o = s->out;
    enum search_stop stop = SEARCH_EXHAUSTED;
    struct span v = {0};
    if (pick != NULL) {
        pick->proof = versus(pick->proof_log, NULL, pick->n_proof, ALPHA);
        v = pick->proof.has_ci && pick->n_proof >= SEARCH_ROUNDS / 2
                ? pick->proof
                : versus(pick->choice_log, NULL, pick->n_choice, ALPHA_CHOICE);
        o->proved = proves(s, &v, &stop);
    }
    o->stop = complete || o->proved ? stop : SEARCH_BUDGET;
    if (o->proved) {
        o->chosen = pick->config;
        o->gain = (struct span){exp(-v.median) - 1, exp(-v.hi) - 1, exp(-v.lo) - 1, v.n, true};
    }
    measure_regret(s);
}

void search_finish(struct search *s)
{
    struct search_out *o = s->out;
    uint32_t n = s->n_live < SEARCH_FINALISTS ? s->n_live : SEARCH_FINALISTS;
    enum search_stop ignored;
    for (uint32_t i = 0; i < n && !s->over; i++) {
        o->finalist[o->n_finalists++].config = s->live[i];
        o->config[s->live[i]].fate = SEARCH_FINAL;
    }
    s->n_live = o->n_finalists;
    rounds_of(s, "choice", false, SEARCH_ROUNDS_MOST, open_question);
    struct search_finalist *pick = choose(s);
    bool complete = !s->over;
    /* nothing to prove: spare the time */
    if (pick != NULL && complete && (pick->choice.hi < 0 || noisy(s)) &&
        proves(s, &pick->choice, &ignored)) {
        rounds_of(s, "proof", true, SEARCH_ROUNDS, NULL);
        complete = !s->over;
        verdict(s, pick, complete);
    } else if (pick != NULL && complete) {
        (void)proves(s, &pick->choice, &o->stop);
        measure_regret(s);
    } else {
        verdict(s, pick, o->n_finalists == 0 && !s->over);
    }
    if (s->over && s->misses == 0)
        snprintf(o->missing, sizeof o->missing, "%s during %s; %u rounds of choice, %u of proof",
                 o->interrupted ? "interrupted" : "time was up",
                 o->n_finalists == 0 ? (o->rungs == 0 ? "the warm-up" : "the halving")
                 : pick != NULL && pick->n_proof > 0 ? "the proof"
                                                     : "the choice",
                 o->n_finalists > 0 ? o->finalist[0].n_choice : 0,
                 o->n_finalists > 0 ? o->finalist[0].n_proof : 0);
}
