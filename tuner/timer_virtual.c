/* timer_virtual.c - see timer_virtual.h. */
#include "timer_virtual.h"

#include <math.h>
#include <string.h>

#include "search_stats.h"

#define HANG_SECONDS 60 /* of a hung sample when nobody sets a limit */

void virtual_faults_none(struct virtual_faults *f)
{
    memset(f, 0, sizeof *f);
    f->hung = -1;
}

/* Standard normal, by Box and Muller. */
static double normal(uint64_t *rng)
{
    double u = 1 - ss_uniform(rng), v = ss_uniform(rng);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Which speed does the clock run at now? The time in each is exponentially distributed. */
static double speed(struct virtual_timer *t)
{
    if (t->faults.slow_factor <= 0 || t->faults.dwell_seconds <= 0)
        return 1;
    while (t->now >= t->switch_at) {
        t->slow = !t->slow;
        t->switch_at -= t->faults.dwell_seconds * log(1 - ss_uniform(&t->rng));
    }
    return t->slow ? t->faults.slow_factor : 1;
}

static enum timer_result take(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct virtual_timer *t = ctx;
    const struct virtual_faults *f = &t->faults;
    double s = t->source.seconds(t->source.ctx, config, rep, &t->rng);
    if (s < 0) {
        t->now += 1e-3; /* failing takes a moment, too: a search of failures must end */
        return TIMER_FAILED;
    }
    s *= exp(f->cv * normal(&t->rng)) * speed(t);
    if (f->drift_seconds > 0)
        s *= 1 + f->drift * (t->now < f->drift_seconds ? t->now / f->drift_seconds : 1);
    if (ss_uniform(&t->rng) < f->outliers)
        s *= f->outlier_factor > 0 ? f->outlier_factor : 10;
    if (f->hung == (int64_t)config)
        s = t->limit > 0 ? 2 * t->limit : HANG_SECONDS;
    if (t->limit > 0 && s > t->limit) {
        t->now += t->limit;
        return TIMER_HUNG;
    }
    t->now += s;
    *seconds = s;
    return f->hung == (int64_t)config ? TIMER_HUNG : TIMER_OK;
}

static double now(void *ctx)
{
    return ((const struct virtual_timer *)ctx)->now;
}

void virtual_open(struct virtual_timer *t, const struct virtual_source *source,
                  const struct virtual_faults *faults, uint64_t seed)
{
    memset(t, 0, sizeof *t);
    t->source = *source;
    t->faults = *faults;
    t->rng = seed ^ 0x74696d65u;
    t->timer = (struct kt_timer){t, take, now, &t->limit};
}
