/* probe_expert.c - expert.gemv and expert.gemm: how fast each usable variant of a weight format
 * goes through experts of a real shape, with all threads of a pool. Expert ids are random over a
 * set larger than the caches, weights lie on the pool's node. One child per format, so its variants
 * and row counts are timed in the same rounds; every layout that a variant needs is packed once. An
 * expert is gate and up [inter][hidden] and down [hidden][inter]; activations are fixed: their
 * making is not what is timed.
 *
 * A format has a wall of time. Its points stand in order of worth: the variant that would run, with
 * one row and with many; then what decides between variants and about GEMV or GEMM; lower levels
 * last. What does not fit is given up and says so (measure.h).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"
#include "base/team.h"
#include "kern.h"
#include "measure.h"
#include "probe.h"
#include "selftest.h"

#define HIDDEN 2048
#define INTER 768
#define MAX_POINTS 48
#define MAX_TOKENS 64
#define SAMPLE_SECONDS 0.020
#define LEAST_SECONDS 0.1 /* less is not worth packing for */
#define LATE_SECONDS 2.0  /* after its wall a child hangs, or is stopped */
#define GROUP 8           /* experts between two barriers: what one token uses in a layer */

struct set { /* experts in one layout */
    uint8_t *data;
    uint64_t up_bytes, down_bytes, expert_bytes;
};

struct point {
    const struct kern *row;
    uint32_t tokens;
    uint32_t experts; /* per sample */
};

struct expert_ctx {
    const struct plan_pool *pool;
    enum dtype t;
    struct point points[MAX_POINTS];
    uint32_t n_points, n_experts, n_threads;
    double warmup;
    uint64_t seed, end_ns; /* end_ns: when the samples shall be there */
    uint32_t max_rounds;
    /* in the child */
    struct set sets[2]; /* by enum kern_layout */
    struct team *team;
    float *x, *y, *scale;
    int8_t *q;
    int32_t *sum;
    const struct point *now;
};

static uint64_t file_bytes(enum dtype t)
{
    return dtype_row_bytes(t, HIDDEN) * INTER * 2 + dtype_row_bytes(t, INTER) * HIDDEN;
}

/* ---- child ---- */

/* Gate and up lie as one matrix of 2 * INTER rows, the way the engine packs them. */
static void product(const struct expert_ctx *c, const uint8_t *w, uint32_t rows, uint32_t k,
                    uint32_t worker)
{
    uint32_t panels = rows / KERN_PANEL, from = panels * worker / c->n_threads,
             to = panels * (worker + 1) / c->n_threads;
    if (from == to)
        return;
    struct kern_mm m = {.w = w,
                        .k = k,
                        .row0 = from * KERN_PANEL,
                        .row1 = to * KERN_PANEL,
                        .n = c->now->tokens,
                        .q = c->q,
                        .scale = c->scale,
                        .sum = c->sum,
                        .x = c->x,
                        .ldq = HIDDEN,
                        .ldg = HIDDEN / 32,
                        .ldx = HIDDEN,
                        .y = c->y,
                        .ldy = 2 * HIDDEN};
    c->now->row->run.mm(&m);
}

static void run_experts(void *vctx, uint32_t worker)
{
    struct expert_ctx *c = vctx;
    const struct set *s = &c->sets[c->now->row->layout];
    const uint8_t *e[GROUP];
    uint64_t seed = c->seed; /* all workers draw the same ids */
    for (uint32_t i = 0; i < c->now->experts; i += GROUP) {
        for (uint32_t k = 0; k < GROUP; k++) {
            e[k] = s->data + s->expert_bytes * (m_random(&seed) % c->n_experts);
            product(c, e[k], 2 * INTER, HIDDEN, worker);
        }
        team_barrier(c->team, worker);
        for (uint32_t k = 0; k < GROUP; k++)
            product(c, e[k] + s->up_bytes, HIDDEN, INTER, worker);
        team_barrier(c->team, worker);
    }
}

static double sample(void *vctx, uint32_t point)
{
    struct expert_ctx *c = vctx;
    struct point *p = &c->points[point];
    c->now = p;
    (void)m_random(&c->seed);
    if (p->experts < GROUP)
        p->experts = GROUP;
    uint64_t start = clock_ns();
    team_run(c->team, run_experts, c);
    double seconds = (double)(clock_ns() - start) * 1e-9, per_expert = seconds / p->experts;
    double work =
        p->row->op == KERN_GEMM ? 2.0 * 3.0 * HIDDEN * INTER * p->tokens : (double)file_bytes(c->t);
    p->experts = (uint32_t)fmin(fmax(ceil(SAMPLE_SECONDS / per_expert / GROUP), 1), 12500) * GROUP;
    return work / per_expert;
}

/* Experts of one layout: packed once, then copied; only their places differ. */
static const char *make_set(struct expert_ctx *c, enum kern_layout l)
{
    struct set *s = &c->sets[l];
    if (s->data != NULL)
        return NULL;
    s->up_bytes = kern_packed_bytes(l, c->t, 2 * INTER, HIDDEN);
    s->down_bytes = kern_packed_bytes(l, c->t, HIDDEN, INTER);
    s->up_bytes = (s->up_bytes + 63) / 64 * 64;
    s->expert_bytes = (s->up_bytes + s->down_bytes + 63) / 64 * 64;
    void *up = selftest_rows(c->t, 2 * INTER, HIDDEN, 51),
         *down = selftest_rows(c->t, HIDDEN, INTER, 52);
    s->data = mem_map(s->expert_bytes * c->n_experts);
    const char *why = up == NULL || down == NULL || s->data == NULL ? "out of memory" : NULL;
    if (why == NULL) {
        (void)probe_bind(s->data, s->expert_bytes * c->n_experts, c->pool->mems, c->pool->n_mems);
        if (kern_pack(l, c->t, up, 2 * INTER, HIDDEN, s->data) != -1 ||
            kern_pack(l, c->t, down, HIDDEN, INTER, s->data + s->up_bytes) != -1)
            why = "test weights could not be packed";
        for (uint32_t i = 1; why == NULL && i < c->n_experts; i++)
            memcpy(s->data + s->expert_bytes * i, s->data, s->expert_bytes);
    }
    mem_free(up);
    mem_free(down);
    return why;
}

static bool make_acts(struct expert_ctx *c)
{
    size_t n = (size_t)MAX_TOKENS * HIDDEN;
    uint64_t seed = 9;
    c->x = mem_aligned(64, n * sizeof *c->x);
    c->q = mem_aligned(64, n);
    c->scale = mem_aligned(64, n / 32 * sizeof *c->scale);
    c->sum = mem_aligned(64, n / 32 * sizeof *c->sum);
    c->y = mem_aligned(64, (size_t)MAX_TOKENS * 2 * HIDDEN * sizeof *c->y);
    if (c->x == NULL || c->q == NULL || c->scale == NULL || c->sum == NULL || c->y == NULL)
        return false;
    selftest_floats(c->x, n, 8);
    for (size_t g = 0; g < n / 32; g++) {
        c->scale[g] = 0.01f;
        c->sum[g] = 0;
        for (size_t i = 0; i < 32; i++) {
            c->q[g * 32 + i] = (int8_t)((int)(m_random(&seed) >> 33) % 255 - 127);
            c->sum[g] += c->q[g * 32 + i];
        }
    }
    return true;
}

static int child(void *vctx, struct m_out *o)
{
    struct expert_ctx *c = vctx;
    struct team_opts opts = {.n = c->n_threads,
                             .cpu = c->pool->cpus,
                             .pin_caller = 1,
                             .spin_ns = 200000,
                             .name = "expert"};
    kt_err err;
    if (!make_acts(c))
        return m_fail(o, "out of memory");
    if (c->pool->n_cpus > 0)
        (void)place_pin(c->pool->cpus[0]);
    for (uint32_t i = 0; i < c->n_points; i++) {
        const char *why = make_set(c, c->points[i].row->layout);
        if (why != NULL)
            return m_fail(o, why);
    }
    if (team_open(&opts, &c->team, &err) != KT_OK)
        return m_fail(o, err.msg);
    uint64_t now = clock_ns();
    struct m_rounds r = {.n_points = c->n_points,
                         .sample = sample,
                         .ctx = c,
                         .seed = c->seed,
                         .warmup_seconds = c->warmup,
                         .seconds = now < c->end_ns ? (double)(c->end_ns - now) * 1e-9 : 0,
                         .max_rounds = c->max_rounds,
                         .budget = true};
    m_rounds(o, &r);
    return 0;
}

/* ---- parent ---- */

/* "avx512vnni" of "gemv_mxfp4_q8_avx512vnni" */
static const char *variant_name(const struct kern *row)
{
    const char *last = strrchr(row->name, '_');
    return last != NULL ? last + 1 : row->name;
}

static void point_id(const struct expert_ctx *c, uint32_t i, char *id, size_t n)
{
    const struct point *p = &c->points[i];
    snprintf(id, n, "expert.%s:%s.%s.m%u", p->row->op == KERN_GEMM ? "gemm" : "gemv",
             dtype_name(c->t), variant_name(p->row), p->tokens);
}

static void add_point(const struct probe_run *r, struct expert_ctx *c, const struct kern *row,
                      uint32_t tokens)
{
    char id[96];
    if (row == NULL || c->n_points == MAX_POINTS)
        return;
    for (uint32_t i = 0; i < c->n_points; i++)
        if (c->points[i].row == row && c->points[i].tokens == tokens)
            return;
    c->points[c->n_points] = (struct point){row, tokens, 1};
    point_id(c, c->n_points, id, sizeof id);
    if (probe_wanted(r, id))
        c->n_points++;
}

/* Every variant of a format that this machine runs, with one row (GEMV) and 32 (GEMM); those of
 * `level` only, or all when it is NULL. ref is the oracle, not a rival: its samples are hundred
 * times as long. */
static void add_variants(const struct probe_run *r, struct expert_ctx *c, const struct kern *level)
{
    size_t n;
    const struct kern *const *table = kern_table(&n);
    struct kern_shape shape = {2 * INTER, HIDDEN, 1};
    for (size_t i = 0; i < n; i++) {
        const struct kern *row = table[i];
        if (row->dtype != (int)c->t || (row->isa & ~r->isa) != 0 ||
            (row->fits != NULL && !row->fits(&shape)) ||
            (level != NULL ? row->isa != level->isa || row->op != level->op
                           : row->isa == 0 && r->isa != 0 && r->depth != PROBE_DEEP))
            continue;
        if (row->op == KERN_GEMV)
            add_point(r, c, row, 1);
        if (row->op == KERN_GEMM && r->depth >= PROBE_DEFAULT)
            add_point(r, c, row, 32);
        if (row->op == KERN_GEMM && r->depth == PROBE_DEEP && row->isa != 0)
            add_point(r, c, row, MAX_TOKENS);
    }
}

static void choose_points(const struct probe_run *r, struct expert_ctx *c)
{
    static const uint32_t crossover[] = {4, 8, 2,
                                         16}; /* where GEMM begins to be faster than GEMV */
    struct kern_shape shape = {2 * INTER, HIDDEN, 1};
    const struct kern *gemv = kern_find(KERN_GEMV, (int)c->t, r->isa, &shape),
                      *gemm = kern_find(KERN_GEMM, (int)c->t, r->isa, &shape);
    add_point(r, c, gemv, 1);
    if (r->depth >= PROBE_DEFAULT)
        add_point(r, c, gemm, 32);
    if (gemv != NULL)
        add_variants(r, c, gemv); /* with other numbers of address streams */
    if (r->depth < PROBE_DEFAULT)
        return; /* few points with enough samples say more than many with three */
    for (size_t i = 0; i < sizeof crossover / sizeof *crossover; i++) {
        bool ref = gemv == NULL || gemm == NULL || gemv->isa == 0 || gemm->isa == 0;
        add_point(r, c, ref ? NULL : gemv, crossover[i]);
        add_point(r, c, ref ? NULL : gemm, crossover[i]);
    }
    add_variants(r, c, NULL);
}

static kt_status put_points(struct probe_run *r, struct expert_ctx *c, const struct m_result *res,
                            bool capped, kt_err *err)
{
    char *cpus = probe_cpu_list(c->pool, c->n_threads), id[96];
    kt_status st = KT_OK;
    for (uint32_t i = 0; i < c->n_points && st == KT_OK; i++) {
        const struct point *p = &c->points[i];
        bool gemm = p->row->op == KERN_GEMM;
        point_id(c, i, id, sizeof id);
        struct m_desc d = {.id = id,
                           .what = "random experts, set larger than the last-level cache",
                           .cpus = cpus,
                           .mem = c->pool->mems,
                           .n_mem = c->pool->n_mems,
                           .unit = gemm ? "ops_per_second" : "bytes_per_second",
                           .method = gemm ? "expert_gemm" : "expert_gemv",
                           .kernel_abi = r->abi};
        d.params = json_pack("{s:i,s:i,s:i,s:i,s:i,s:s,s:s}", "hidden", HIDDEN, "inter", INTER,
                             "rows", (int)p->tokens, "experts", (int)c->n_experts, "threads",
                             (int)c->n_threads, "page", "thp advised", "kernel", p->row->name);
        if (capped)
            json_object_set_new(d.params, "below_4x_cache", json_true());
        st = probe_put(r, m_json(&d, res, i), err);
    }
    mem_free(cpus);
    return st;
}

/* `seconds`: packing included. */
static kt_status measure_format(struct probe_run *r, enum dtype t, double seconds, kt_err *err)
{
    struct expert_ctx c = {
        .pool = &r->plan->pools[0], .t = t, .seed = r->seed + 100 + (uint64_t)t, .max_rounds = 20};
    bool capped;
    struct m_result res;
    choose_points(r, &c);
    if (c.n_points == 0)
        return KT_OK;
    uint64_t set = probe_buffer_bytes(r, &capped);
    c.n_experts = (uint32_t)(set / file_bytes(t)) + 1;
    c.n_threads = c.pool->threads > 0 ? c.pool->threads : 1;
    c.warmup = 0.1;
    c.end_ns = clock_ns() + (uint64_t)(seconds * 1e9);
    double wall = fmin(seconds + LATE_SECONDS, probe_time_left(r) - 0.2);
    KT_TRY(m_run(child, &c, seconds >= LEAST_SECONDS ? wall : 0, &res, err));
    kt_status st = put_points(r, &c, &res, capped, err);
    m_result_free(&res);
    return st;
}

kt_status probe_expert(struct probe_run *r, double seconds, kt_err *err)
{
    static const enum dtype quick[] = {DT_MXFP4, DT_Q8_0, DT_BF16};
    enum dtype formats[DT_COUNT];
    uint32_t n = 0;
    char what[64];
    if (r->plan->n_pools == 0)
        return KT_OK;
    for (int t = 0; t < DT_COUNT; t++) {
        bool wanted = r->depth >= PROBE_DEFAULT;
        for (size_t i = 0; i < sizeof quick / sizeof *quick; i++)
            wanted |= quick[i] == (enum dtype)t;
        if (wanted && kern_has_dtype(t) && INTER % dtype_info((enum dtype)t)->block_elems == 0)
            formats[n++] = (enum dtype)t;
    }
    double end = probe_time_left(r) - seconds;
    for (uint32_t i = 0; i < n; i++) {
        double share = fmax(probe_time_left(r) - end, 0) / (n - i);
        snprintf(what, sizeof what, "experts in %s", dtype_name(formats[i]));
        probe_progress(r, what, (double)i / n);
        KT_TRY(measure_format(r, formats[i], share, err));
    }
    return KT_OK;
}
