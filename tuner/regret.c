/* regret.c - see regret.h. The rounds are those of the search (search_int.h), with the chosen
 * config in the place of the default: before and after each round, so that the machine's drift
 * cancels.
 */
#include "regret.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "search_int.h"

#define WARM_UPS 12
#define FIRST_ROUNDS 5
#define ROUNDS 20
#define ROUNDS_MOST 60 /* while the bound is open */

struct regret {
    struct search s;
    struct search_in in;
    struct search_out out;
    double log_ratio[REGRET_RIVALS][ROUNDS_MOST]; /* by place in in->rival; NAN: not timed */
    double median[REGRET_RIVALS];
    const struct regret_in *ask;
};

uint32_t regret_draw(uint32_t n, uint32_t chosen, uint64_t seed, uint32_t out[REGRET_RIVALS])
{
    uint32_t k = 0;
    uint64_t rng = seed ^ 0x726567u;
    uint32_t *all = mem_calloc(n > 0 ? n : 1, sizeof *all);
    for (uint32_t i = 0; all != NULL && i < n; i++)
        if (i != chosen)
            all[k++] = i;
    if (all != NULL)
        ss_shuffle(&rng, all, k);
    k = k < REGRET_RIVALS ? k : REGRET_RIVALS;
    if (all != NULL)
        memcpy(out, all, k * sizeof *all);
    mem_free(all);
    return k;
}

static uint32_t place_of(const struct regret *r, uint32_t config)
{
    uint32_t i = 0;
    while (r->ask->rival[i] != config)
        i++;
    return i;
}

static void warm_up(struct regret *r)
{
    double v[WARM_UPS], work[WARM_UPS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < WARM_UPS && !r->s.over; i++) {
        double x = search_sample(&r->s, r->in.reference);
        if (!isnan(x))
            v[n++] = x;
    }
    r->out.noise_cv = ss_mad(v, n, work);
    r->out.default_seconds = n > 0 ? exp(ss_median(v, n, (double)INFINITY, work)) : 0;
    r->s.apart = 8 * r->out.noise_cv > 0.1 ? 8 * r->out.noise_cv : 0.1;
}

/* Rounds of the live rivals from round `from` to `to`; false when they could not be finished. */
static bool rounds(struct regret *r, const char *stage, uint32_t from, uint32_t to)
{
    struct search_progress p = {.stage = stage, .rounds = to};
    for (uint32_t done = from, misses = 0; done < to && !r->s.over && misses < 3;) {
        p.round = done + 1;
        p.live = r->s.n_live;
        search_tell(&r->s, &p);
        if (!search_round(&r->s)) {
            misses++;
            continue;
        }
        for (uint32_t i = 0; i < r->ask->n_rivals; i++)
            r->log_ratio[i][done] = (double)NAN;
        for (uint32_t i = 0; i < r->s.n_live; i++)
            r->log_ratio[place_of(r, r->s.live[i])][done] = r->s.row[i];
        done++;
        if (done == to)
            return true;
    }
    return false;
}

/* The eight with the least medians stay. */
static void keep_top(struct regret *r)
{
    double work[ROUNDS_MOST];
    for (uint32_t i = 0; i < r->s.n_live; i++) {
        uint32_t at = place_of(r, r->s.live[i]);
        r->median[at] = ss_median(r->log_ratio[at], FIRST_ROUNDS, r->s.apart, work);
    }
    for (uint32_t i = 0; i < r->s.n_live; i++)
        for (uint32_t k = i + 1; k < r->s.n_live; k++)
            if (r->median[place_of(r, r->s.live[k])] < r->median[place_of(r, r->s.live[i])]) {
                uint32_t swap = r->s.live[i];
                r->s.live[i] = r->s.live[k];
                r->s.live[k] = swap;
            }
    if (r->s.n_live > REGRET_TOP)
        r->s.n_live = REGRET_TOP;
}

/* The worst of the rivals after so many fresh rounds. */
static void judge(const struct regret *r, uint32_t n, struct regret_out *out)
{
    double work[ROUNDS_MOST];
    out->median = out->upper = 0;
    out->best = UINT32_MAX;
    out->rounds = n;
    for (uint32_t i = 0; i < r->s.n_live; i++) {
        struct span d = ss_span(r->log_ratio[place_of(r, r->s.live[i])], n, 0.05, work);
        double median = 1 - exp(d.median), upper = d.has_ci ? 1 - exp(d.lo) : 1;
        if (out->best == UINT32_MAX || median > out->median) {
            out->best = r->s.live[i];
            out->median = median;
        }
        out->upper = upper > out->upper ? upper : out->upper;
    }
}

static void run(struct regret *r, struct regret_out *out)
{
    out->best = UINT32_MAX;
    out->upper = 1;
    bool done = r->ask->n_rivals == 0 || rounds(r, "rivals", 0, FIRST_ROUNDS);
    keep_top(r);
    if (done && r->s.n_live == 0) { /* nobody to lose to */
        out->upper = 0;
        out->complete = true;
        return;
    }
    for (uint32_t n = 0; done && n < ROUNDS_MOST; n += ROUNDS) {
        done = rounds(r, "verdict", n, n + ROUNDS);
        if (!done)
            break;
        judge(r, n + ROUNDS, out);
        out->complete = true;
        if (out->upper <= REGRET_MOST || out->median > 2 * REGRET_MOST)
            break;
    }
}

kt_status regret_run(const struct regret_in *in, struct kt_timer *timer, struct regret_out *out,
                     kt_err *err)
{
    kt_status st = KT_OK;
    memset(out, 0, sizeof *out);
    struct regret *r = mem_calloc(1, sizeof *r);
    uint32_t *ids = mem_calloc(2 * (size_t)(in->n_rivals + 1), sizeof *ids);
    double *rows = mem_calloc(2 * (size_t)(in->n_rivals + 1), sizeof *rows);
    struct search_config *config = mem_calloc(in->n > 0 ? in->n : 1, sizeof *config);
    if (r == NULL || ids == NULL || rows == NULL || config == NULL) {
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for %u rivals", in->n_rivals);
    } else {
        r->ask = in;
        r->in = (struct search_in){.n = in->n,
                                   .reference = in->chosen,
                                   .budget_seconds = in->budget_seconds,
                                   .stop = in->stop,
                                   .progress = in->progress,
                                   .user = in->user};
        r->out.config = config;
        config[in->chosen].fate = SEARCH_REFERENCE;
        r->s = (struct search){.in = &r->in,
                               .timer = timer,
                               .out = &r->out,
                               .rng = in->seed,
                               .live = ids,
                               .order = ids + in->n_rivals + 1,
                               .row = rows,
                               .when = rows + in->n_rivals + 1,
                               .n_live = in->n_rivals};
        memcpy(ids, in->rival, in->n_rivals * sizeof *ids);
        r->s.start = timer->now(timer->ctx);
        r->s.deadline = r->s.start + in->budget_seconds;
        warm_up(r);
        if (r->out.default_seconds <= 0 && !r->s.over)
            st = err_set(err, KT_E_DEVICE, 0, __func__, "the chosen configuration cannot be timed");
        else
            run(r, out);
        out->rivals = in->n_rivals;
        out->failed = r->out.failed + r->out.hung;
        out->noise_cv = r->out.noise_cv;
        out->chosen_seconds = r->out.default_seconds;
        out->seconds = timer->now(timer->ctx) - r->s.start;
        out->met = out->complete && out->upper <= REGRET_MOST;
    }
    mem_free(r);
    mem_free(ids);
    mem_free(rows);
    mem_free(config);
    return st;
}
