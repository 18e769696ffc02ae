/* probe_sync.c - what joins cost: sync.barrier:tT (all workers of a team meet, spinning), sync.wake
 * (a thread asleep for 1 ms is woken through a futex and runs), and noise (the share of time that a
 * spinning thread does not get). A MoE step has about two joins per layer, so microseconds count.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"
#include "base/sync_time.h"
#include "base/team.h"
#include "measure.h"
#include "probe.h"

#define MAX_POINTS 16

/* ---- barrier ---- */

struct sync_ctx {
    int *cpu; /* [max threads] over all pools */
    uint32_t threads[MAX_POINTS], n_points;
    struct team *team[MAX_POINTS];
    double seconds, warmup;
    uint64_t seed;
};

static double barrier_sample(void *vctx, uint32_t point)
{
    struct sync_ctx *c = vctx;
    return sync_barrier_seconds(c->team[point]);
}

static int barrier_child(void *vctx, struct m_out *o)
{
    struct sync_ctx *c = vctx;
    for (uint32_t i = 0; i < c->n_points; i++) {
        struct team_opts opts = {
            .n = c->threads[i], .cpu = c->cpu, .pin_caller = 1, .spin_ns = 200000, .name = "sync"};
        kt_err err;
        if (team_open(&opts, &c->team[i], &err) != KT_OK)
            return m_fail(o, err.msg);
    }
    struct m_rounds r = {.n_points = c->n_points,
                         .sample = barrier_sample,
                         .ctx = c,
                         .seed = c->seed,
                         .warmup_seconds = c->warmup,
                         .seconds = c->seconds,
                         .max_rounds = 20};
    m_rounds(o, &r);
    return 0;
}

static kt_status put_barriers(struct probe_run *r, struct sync_ctx *c, const struct m_result *res,
                              kt_err *err)
{
    for (uint32_t i = 0; i < c->n_points; i++) {
        char id[48];
        struct host_set set = {0};
        for (uint32_t k = 0; k < c->threads[i]; k++)
            (void)host_set_add(&set, (uint32_t)c->cpu[k]);
        char *cpus = host_set_format(&set);
        host_set_free(&set);
        snprintf(id, sizeof id, "sync.barrier:t%u", c->threads[i]);
        struct m_desc d = {.id = id,
                           .what = "spin barrier of a worker team",
                           .cpus = cpus,
                           .unit = "seconds",
                           .method = "barrier_loop_500"};
        d.params = json_pack("{s:i,s:b}", "threads", (int)c->threads[i], "spin", 1);
        kt_status st = probe_put(r, m_json(&d, res, i), err);
        mem_free(cpus);
        KT_TRY(st);
    }
    return KT_OK;
}

static kt_status barriers(struct probe_run *r, double seconds, kt_err *err)
{
    struct sync_ctx c = {
        .seconds = seconds * 0.7, .warmup = fmin(0.1, seconds / 4), .seed = r->seed + 1000};
    uint32_t total = 0, most = r->h->limits.cores_budget;
    for (uint32_t i = 0; i < r->plan->n_pools; i++)
        total += r->plan->pools[i].n_cpus;
    c.cpu = mem_calloc(total + 1, sizeof *c.cpu);
    if (c.cpu == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a probe");
    total = 0;
    for (uint32_t i = 0; i < r->plan->n_pools; i++)
        for (uint32_t k = 0; k < r->plan->pools[i].n_cpus; k++)
            c.cpu[total++] = r->plan->pools[i].cpus[k];
    most = most < total ? most : total;
    for (uint32_t t = 2; t < most && c.n_points < MAX_POINTS - 1; t *= 2)
        c.threads[c.n_points++] = t;
    if (most >= 2)
        c.threads[c.n_points++] = most;
    kt_status st;
    if (c.n_points == 0) {
        struct m_desc d = {.id = "sync.barrier:t1", .what = "spin barrier of a worker team"};
        st = probe_put(r, m_json_none(&d, "unsupported", "one core only: there is nothing to join"),
                       err);
    } else {
        struct m_result res;
        st = m_run(barrier_child, &c, fmin(seconds * 2 + 0.5, probe_time_left(r) - 0.1), &res, err);
        if (st == KT_OK) {
            st = put_barriers(r, &c, &res, err);
            m_result_free(&res);
        }
    }
    mem_free(c.cpu);
    return st;
}

/* ---- wake-up ---- */

struct wake_ctx {
    int cpu[2];
    double seconds;
    struct sync_wake *sleeper;
};

static double wake_sample(void *vctx, uint32_t point)
{
    struct wake_ctx *c = vctx;
    (void)point;
    return sync_wake_seconds(c->sleeper);
}

static int wake_child(void *vctx, struct m_out *o)
{
    struct wake_ctx *c = vctx;
    kt_err err;
    if (c->cpu[0] >= 0)
        (void)place_pin(c->cpu[0]);
    if (sync_wake_open(c->cpu[1], &c->sleeper, &err) != KT_OK)
        return m_fail(o, err.msg);
    struct m_rounds r = {.n_points = 1,
                         .sample = wake_sample,
                         .ctx = c,
                         .warmup_seconds = 0.02,
                         .seconds = c->seconds,
                         .max_rounds = 100};
    m_rounds(o, &r);
    sync_wake_close(c->sleeper);
    return 0;
}

static kt_status wake(struct probe_run *r, double seconds, kt_err *err)
{
    const struct plan_pool *pool = &r->plan->pools[0];
    struct wake_ctx c = {
        .cpu = {pool->n_cpus > 0 ? pool->cpus[0] : -1, pool->n_cpus > 1 ? pool->cpus[1] : -1},
        .seconds = seconds};
    struct m_desc d = {.id = "sync.wake",
                       .what = "futex wake of a thread that slept 1 ms",
                       .unit = "seconds",
                       .method = "futex_wake",
                       .single = true};
    if (pool->n_cpus < 2)
        return probe_put(r, m_json_none(&d, "unsupported", "one core only"), err);
    struct m_result res;
    KT_TRY(m_run(wake_child, &c, fmin(seconds * 2 + 0.5, probe_time_left(r) - 0.1), &res, err));
    char *cpus = probe_cpu_list(pool, 2);
    d.cpus = cpus;
    d.params = json_pack("{s:f}", "idle_seconds", 0.001);
    kt_status st = probe_put(r, m_json(&d, &res, 0), err);
    mem_free(cpus);
    m_result_free(&res);
    return st;
}

kt_status probe_sync(struct probe_run *r, double seconds, kt_err *err)
{
    if (probe_wanted(r, "sync.barrier")) {
        probe_progress(r, "barriers", 0);
        KT_TRY(barriers(r, seconds * 0.7, err));
    }
    if (!probe_wanted(r, "sync.wake") || r->plan->n_pools == 0)
        return KT_OK;
    probe_progress(r, "wake-up", 0.7);
    return wake(r, seconds * 0.3, err);
}

/* ---- noise ---- */

#define GAP_NS 10000u /* longer than any loop turn, shorter than a scheduler tick */

struct noise_ctx {
    int cpu;
    double seconds;
};

/* Share of 50 ms that this thread did not get. */
static double noise_sample(void *vctx, uint32_t point)
{
    (void)vctx;
    (void)point;
    uint64_t start = clock_ns(), last = start, lost = 0, now;
    while ((now = clock_ns()) - start < 50000000u) {
        if (now - last > GAP_NS)
            lost += now - last;
        last = now;
    }
    return (double)lost / (double)(now - start);
}

static int noise_child(void *vctx, struct m_out *o)
{
    struct noise_ctx *c = vctx;
    (void)place_pin(c->cpu);
    uint64_t start = clock_ns();
    /* every sample counts: interruptions are what is measured here */
    for (int i = 0; i < 200 && (i < 5 || (double)(clock_ns() - start) * 1e-9 < c->seconds); i++)
        m_sample(o, 0, noise_sample(c, 0), M_CLEAN);
    return 0;
}

kt_status probe_noise(struct probe_run *r, double seconds, kt_err *err)
{
    const struct plan_pool *pool = &r->plan->pools[0];
    if (!probe_wanted(r, "noise") || r->plan->n_pools == 0 || pool->n_cpus == 0)
        return KT_OK;
    struct noise_ctx c = {.cpu = pool->cpus[0], .seconds = seconds};
    struct m_result res;
    char *cpus = probe_cpu_list(pool, 1);
    probe_progress(r, "noise", 0);
    kt_status st =
        m_run(noise_child, &c, fmin(seconds * 2 + 0.5, probe_time_left(r) - 0.1), &res, err);
    if (st == KT_OK) {
        struct m_desc d = {.id = "noise:gaps",
                           .what = "share of time a spinning thread does not get, gaps above 10 us",
                           .cpus = cpus,
                           .unit = "ratio",
                           .method = "spin_gaps_50ms",
                           .single = true};
        d.params = json_pack("{s:f}", "gap_seconds", 1e-5);
        st = probe_put(r, m_json(&d, &res, 0), err);
        m_result_free(&res);
    }
    mem_free(cpus);
    return st;
}
