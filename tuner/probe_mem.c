/* probe_mem.c - mem.read: how fast 1, 2, 4, .. all cores of a node read its memory, every thread
 * its own pages, bound to the node before the first touch. Buffers exceed the caches, because
 * weights are cold in decode. The points of one node are timed in the same random rounds, so that
 * the curve (and its knee: threads for a pool) compares like with like.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "kern.h"
#include "measure.h"
#include "probe.h"
#include "read_loop.h"

#define MAX_POINTS 32
#define SAMPLE_SECONDS 0.020

struct mem_ctx {
    const struct plan_pool *pool;
    uint32_t threads[MAX_POINTS], n_points;
    uint64_t buffer_bytes; /* all threads of a point together */
    double warmup, seconds;
    uint64_t seed;
    uint32_t max_rounds;
    /* in the child */
    struct team *team[MAX_POINTS];
    uint8_t **own; /* [max threads] */
    uint64_t own_bytes;
    uint64_t *at;      /* [max threads] next granule of each thread's buffer */
    uint64_t granules; /* of READ_LOOP_BYTES, per thread and sample */
    uint32_t isa;
    double rate[MAX_POINTS]; /* last, to size the next sample */
    uint32_t now;
};

static void touch(void *vctx, uint32_t worker)
{
    struct mem_ctx *c = vctx;
    memset(c->own[worker], 1, c->own_bytes);
}

static void read_some(void *vctx, uint32_t worker)
{
    struct mem_ctx *c = vctx;
    uint64_t total = c->own_bytes / READ_LOOP_BYTES, at = c->at[worker * 8], left = c->granules;
    while (left > 0) {
        uint64_t run = total - at < left ? total - at : left;
        read_loop(c->own[worker] + at * READ_LOOP_BYTES, run * READ_LOOP_BYTES, c->isa);
        at = at + run == total ? 0 : at + run;
        left -= run;
    }
    c->at[worker * 8] = at;
}

/* One sample: a fixed number of bytes per thread, sized from the last rate so that it takes about
 * 20 ms. */
static double sample(void *vctx, uint32_t point)
{
    struct mem_ctx *c = vctx;
    uint32_t t = c->threads[point];
    double want = c->rate[point] > 0 ? c->rate[point] * SAMPLE_SECONDS : 16e6;
    c->granules = (uint64_t)(want / (double)t) / READ_LOOP_BYTES;
    c->granules = c->granules < 512 ? 512 : c->granules;
    uint64_t start = clock_ns();
    team_run(c->team[point], read_some, c);
    double seconds = (double)(clock_ns() - start) * 1e-9;
    c->rate[point] = (double)(c->granules * READ_LOOP_BYTES) * t / seconds;
    return c->rate[point];
}

static int child(void *vctx, struct m_out *o)
{
    struct mem_ctx *c = vctx;
    uint32_t most = 0, biggest = 0;
    for (uint32_t i = 0; i < c->n_points; i++)
        if (c->threads[i] > most) {
            most = c->threads[i];
            biggest = i;
        }
    c->isa = kern_isa_host();
    c->own_bytes = c->buffer_bytes / most / 4096 * 4096;
    c->own = mem_calloc(most, sizeof *c->own);
    c->at = mem_calloc((size_t)most * 8, sizeof *c->at);
    if (c->own == NULL || c->at == NULL || c->own_bytes == 0)
        return m_fail(o, "out of memory");
    bool bound = true;
    for (uint32_t i = 0; i < most; i++) {
        c->own[i] = mem_map(c->own_bytes);
        if (c->own[i] == NULL)
            return m_fail(o, "out of memory");
        bound &= probe_bind(c->own[i], c->own_bytes, c->pool->mems, c->pool->n_mems);
    }
    m_note(o, UINT32_MAX - 3, bound ? 1 : 0, "bound");
    for (uint32_t i = 0; i < c->n_points; i++) {
        struct team_opts opts = {
            .n = c->threads[i], .cpu = c->pool->cpus, .pin_caller = 1, .name = "mem"};
        kt_err err;
        if (team_open(&opts, &c->team[i], &err) != KT_OK)
            return m_fail(o, err.msg);
    }
    team_run(c->team[biggest], touch, c);
    struct m_rounds rounds = {.n_points = c->n_points,
                              .sample = sample,
                              .ctx = c,
                              .seed = c->seed,
                              .warmup_seconds = c->warmup,
                              .seconds = c->seconds,
                              .max_rounds = c->max_rounds};
    m_rounds(o, &rounds);
    return 0;
}

static void choose_points(const struct probe_run *r, const struct plan_pool *pool,
                          struct mem_ctx *c)
{
    uint32_t most =
        pool->n_cpus < r->h->limits.cores_budget ? pool->n_cpus : r->h->limits.cores_budget;
    if (most == 0)
        most = 1;
    for (uint32_t t = 1; t < most && c->n_points < MAX_POINTS - 1; t *= 2)
        c->threads[c->n_points++] = t;
    c->threads[c->n_points++] = most;
}

static json_t *params(const struct mem_ctx *c, const struct m_result *res, bool capped,
                      uint32_t threads)
{
    json_t *p = json_object();
    json_object_set_new(p, "threads", json_integer(threads));
    json_object_set_new(p, "buffer_bytes", json_integer((json_int_t)c->buffer_bytes));
    json_object_set_new(p, "page", json_string("thp advised"));
    json_object_set_new(p, "bound", json_boolean(m_note_value(res, UINT32_MAX - 3, 0) > 0));
    json_object_set_new(p, "seed", json_integer((json_int_t)(c->seed & 0xffffffff)));
    if (capped)
        json_object_set_new(p, "below_4x_cache", json_true());
    return p;
}

static kt_status measure_pool(struct probe_run *r, uint32_t pool_index, double seconds, kt_err *err)
{
    const struct plan_pool *pool = &r->plan->pools[pool_index];
    struct mem_ctx c = {
        .pool = pool, .warmup = r->warmup_seconds, .seed = r->seed + pool_index, .max_rounds = 20};
    struct m_result res;
    bool capped;
    char id[80];
    c.buffer_bytes = probe_buffer_bytes(r, &capped);
    choose_points(r, pool, &c);
    double need = 0.02 * c.n_points * 20;
    c.seconds = fmin(seconds - c.warmup, need) - 0.1;
    double limit = fmin(seconds * 2 + 1, probe_time_left(r) - 0.2);
    KT_TRY(m_run(child, &c, limit, &res, err));
    kt_status st = KT_OK;
    for (uint32_t i = 0; i < c.n_points && st == KT_OK; i++) {
        char *cpus = probe_cpu_list(pool, c.threads[i]);
        snprintf(id, sizeof id, "mem.read:node%d.t%u", pool->node >= 0 ? pool->node : 0,
                 c.threads[i]);
        struct m_desc d = {.id = id,
                           .what = "sequential read of own pages",
                           .cpus = cpus,
                           .mem = pool->mems,
                           .n_mem = pool->n_mems,
                           .params = params(&c, &res, capped, c.threads[i]),
                           .unit = "bytes_per_second",
                           .method = read_loop_method(kern_isa_host()),
                           .warmup_seconds = c.warmup};
        json_t *m = m_json(&d, &res, i);
        if (r->first_rate <= 0 && pool_index == 0 && i + 1 == c.n_points)
            r->first_rate = json_number_value(json_object_get(m, "median"));
        st = probe_put(r, m, err);
        mem_free(cpus);
    }
    m_result_free(&res);
    return st;
}

kt_status probe_mem(struct probe_run *r, double seconds, kt_err *err)
{
    uint32_t n = r->plan->n_pools;
    double share = seconds / (n > 0 ? n : 1);
    for (uint32_t i = 0; i < n; i++) {
        probe_progress(r, "read bandwidth", (double)i / n);
        KT_TRY(measure_pool(r, i, share, err));
        r->warmup_seconds = fmin(r->warmup_seconds, 0.2); /* the cores are warm now */
    }
    return profile_refresh(r->p, err);
}

/* Raises drift_ratio of every entry of this run and makes it noisy. */
static void mark_drift(struct probe_run *r, double drift)
{
    json_t *ms = json_object_get(r->p->root, "measurements");
    char reason[96];
    snprintf(reason, sizeof reason, "drift %.1f %% between the first probe and its repeat",
             100 * drift);
    for (size_t i = 0; i < json_array_size(ms); i++) {
        json_t *m = json_array_get(ms, i);
        if (json_object_get(m, "median") == NULL ||
            json_object_get(r->fresh, json_string_value(json_object_get(m, "id"))) == NULL)
            continue;
        json_object_set_new(m, "status", json_string("noisy"));
        if (json_object_get(m, "reason") == NULL)
            json_object_set_new(m, "reason", json_string(reason));
    }
}

kt_status probe_repeat(struct probe_run *r, double seconds, kt_err *err)
{
    char text[160];
    struct m_result res;
    bool capped;
    if (r->first_rate <= 0 || r->plan->n_pools == 0)
        return KT_OK;
    struct mem_ctx c = {
        .pool = &r->plan->pools[0], .warmup = 0.1, .seed = r->seed + 77, .max_rounds = 20};
    c.buffer_bytes = probe_buffer_bytes(r, &capped);
    choose_points(r, c.pool, &c);
    c.threads[0] = c.threads[c.n_points - 1];
    c.n_points = 1;
    c.seconds = fmin(seconds, 0.4);
    KT_TRY(m_run(child, &c, fmin(seconds * 2 + 1, probe_time_left(r) - 0.05), &res, err));
    struct m_desc d = {.id = "mem.read:repeat",
                       .what = "repeat",
                       .unit = "bytes_per_second",
                       .method = read_loop_method(kern_isa_host())};
    json_t *m = m_json(&d, &res, 0);
    double again = json_number_value(json_object_get(m, "median")),
           drift = again > 0 ? fabs(again / r->first_rate - 1) : 0;
    json_decref(m);
    m_result_free(&res);
    if (drift <= 0.05)
        return KT_OK;
    mark_drift(r, drift);
    snprintf(text, sizeof text,
             "the first probe gave %.1f GB/s and its repeat at the end %.1f GB/s (%.0f %% apart)",
             r->first_rate / 1e9, again / 1e9, 100 * drift);
    return profile_warn(r->p, "KT010", "warning", "mem.read", "repeat on an idle machine", text,
                        err);
}
