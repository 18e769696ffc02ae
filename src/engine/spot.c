/* spot.c - does the profile still tell the truth? Up to three of its measurements are taken again
 * when an engine opens: the read rate of the pool that has the least, a barrier of the whole team,
 * a futex wake. A few samples each, in turn, a fraction of a second in all and never more than
 * three.
 *
 * A figure is off when its median differs by more than 10 % from the profile's and lies outside
 * what the profile's own samples spanned, so that a profile made on a noisy host is not blamed for
 * its noise. A profile with a figure off is stale: still used as a whole, said once, exported.
 * Engine thread, between the start of the team and the first step.
 */
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sync_time.h"
#include "profile/profile.h"
#include "read_loop.h"

#define ROUNDS 7
#define SAMPLE_SECONDS 0.02
#define LONGEST_SECONDS 2.5
#define TOLERANCE 0.10
#define LEAST_BUFFER (64u << 20)
#define MOST_BUFFER (1u << 30)

struct spot {
    kt_engine *e;
    struct sync_wake *sleeper;
    uint32_t pool, threads; /* the first `threads` workers of `pool` read */
    uint8_t **buf;          /* [threads] */
    uint64_t buf_bytes, sample_bytes;
    double value[ENG_SPOTS][ROUNDS];
    int kind[ENG_SPOTS];
};

enum { READ, BARRIER, WAKE };

static bool reads(const struct spot *s, uint32_t worker)
{
    const struct eng_worker *w = &s->e->worker[worker];
    return w->pool == s->pool && w->index < s->threads;
}

static void touch(void *ctx, uint32_t worker)
{
    struct spot *s = ctx;
    if (reads(s, worker))
        memset(s->buf[s->e->worker[worker].index], 1, s->buf_bytes);
}

static void read_buffer(void *ctx, uint32_t worker)
{
    struct spot *s = ctx;
    if (reads(s, worker))
        for (uint64_t left = s->sample_bytes; left > 0;) {
            uint64_t n = left < s->buf_bytes ? left : s->buf_bytes;
            read_loop(s->buf[s->e->worker[worker].index], n, s->e->isa);
            left -= n;
        }
}

static double sample(struct spot *s, int kind)
{
    if (kind == BARRIER)
        return sync_barrier_seconds(s->e->team);
    if (kind == WAKE)
        return sync_wake_seconds(s->sleeper);
    uint64_t start = clock_ns();
    team_run(s->e->team, read_buffer, s);
    double seconds = (double)(clock_ns() - start) * 1e-9,
           rate = (double)s->sample_bytes * s->threads / seconds;
    /* the next sample reads whole buffers, so that every one is as cold as the first */
    double whole = rate * SAMPLE_SECONDS / ((double)s->buf_bytes * s->threads);
    s->sample_bytes = s->buf_bytes * (whole < 1 ? 1 : (uint64_t)whole);
    return rate;
}

/* Asks the profile for one figure; without it there is nothing to compare. */
static bool add(struct spot *s, int kind, const char *id, const char *unit)
{
    kt_engine *e = s->e;
    struct eng_spot *o = &e->spot[e->n_spots];
    if (!profile_range(e->profile, id, &o->pub.profiled, &o->pub.low, &o->pub.high))
        return false;
    snprintf(o->id, sizeof o->id, "%s", id);
    o->pub.id = o->id;
    o->pub.unit = unit;
    s->kind[e->n_spots++] = kind;
    return true;
}

static bool add_read(struct spot *s)
{
    const struct plan *p = s->e->plan;
    char id[64];
    for (uint32_t i = 1; i < p->n_pools; i++)
        if (p->pools[i].share < p->pools[s->pool].share)
            s->pool = i;
    for (s->threads = s->e->pool_workers[s->pool]; s->threads > 0; s->threads--) {
        snprintf(id, sizeof id, "mem.read:node%d.t%u", p->pools[s->pool].node, s->threads);
        if (add(s, READ, id, "bytes_per_second"))
            return true;
    }
    return false;
}

/* Buffers beyond the caches, each thread's own pages: the first touch puts them on its node. */
static bool take_buffers(struct spot *s)
{
    const struct host *h = s->e->host;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < h->n_l3; i++)
        if (h->l3[i].bytes > 0)
            bytes += h->l3[i].bytes * 4;
    bytes = bytes < LEAST_BUFFER ? LEAST_BUFFER : bytes > MOST_BUFFER ? MOST_BUFFER : bytes;
    s->buf_bytes = (bytes / s->threads + 4095) / 4096 * 4096;
    s->sample_bytes = s->buf_bytes;
    s->buf = mem_calloc(s->threads, sizeof *s->buf);
    for (uint32_t i = 0; s->buf != NULL && i < s->threads; i++)
        if ((s->buf[i] = mem_map(s->buf_bytes)) == NULL)
            return false;
    if (s->buf != NULL)
        team_run(s->e->team, touch, s);
    return s->buf != NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void judge(kt_engine *e, const struct spot *s, uint32_t rounds)
{
    for (uint32_t i = 0; i < e->n_spots; i++) {
        kt_spot *o = &e->spot[i].pub;
        double v[ROUNDS];
        memcpy(v, s->value[i], sizeof v);
        qsort(v, rounds, sizeof *v, ascending);
        o->measured = v[rounds / 2];
        o->off = fabs(o->measured - o->profiled) > TOLERANCE * o->profiled &&
                 (o->measured < o->low || o->measured > o->high);
        bool time = strcmp(o->unit, "seconds") == 0;
        double scale = time ? 1e6 : 1e-9;
        const char *unit = time ? "us" : "GB/s";
        if (o->off)
            log_warn("KT025: %s is %.4g %s here and %.4g %s in the profile, which is stale; used "
                     "as a whole. Run: kttune probe --force -o %s",
                     o->id, o->measured * scale, unit, o->profiled * scale, unit, e->profile->path);
        else
            log_info("profile check: %s %.4g %s, profile %.4g %s", o->id, o->measured * scale, unit,
                     o->profiled * scale, unit);
    }
}

kt_status eng_spot_check(kt_engine *e, kt_err *err)
{
    struct spot s = {.e = e};
    const struct plan_pool *first = &e->plan->pools[0];
    char id[64];
    kt_status st = KT_OK;
    if (e->profile == NULL || !e->host->this_system)
        return KT_OK;
    bool ready = !add_read(&s) || take_buffers(&s);
    snprintf(id, sizeof id, "sync.barrier:t%u", e->n_workers);
    add(&s, BARRIER, id, "seconds");
    if (ready && first->n_cpus > 1 && add(&s, WAKE, "sync.wake", "seconds"))
        st = sync_wake_open(first->cpus[1], &s.sleeper, err);
    uint64_t start = clock_ns();
    uint32_t r = 0;
    if (!ready)
        log_warn("profile check: no memory for its buffers; left out");
    if (!ready || st != KT_OK)
        e->n_spots = 0;
    for (uint32_t i = 0; i < e->n_spots; i++) /* warms up */
        (void)sample(&s, s.kind[i]);
    for (; e->n_spots > 0 && r < ROUNDS &&
           (r == 0 || (double)(clock_ns() - start) * 1e-9 < LONGEST_SECONDS);
         r++)
        for (uint32_t i = 0; i < e->n_spots; i++)
            s.value[i][r] = sample(&s, s.kind[i]);
    judge(e, &s, r);
    for (uint32_t i = 0; i < e->n_spots; i++)
        if (e->spot[i].pub.off)
            e->profile_state = profile_state_name(PROFILE_STALE);
    for (uint32_t i = 0; s.buf != NULL && i < s.threads; i++)
        mem_unmap(s.buf[i], s.buf_bytes);
    mem_free(s.buf);
    sync_wake_close(s.sleeper);
    return st;
}
