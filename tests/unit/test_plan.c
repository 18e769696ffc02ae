/* test_plan.c - pools, threads and reasons: the synthetic rows of the expected decisions, measured
 * knees, user wishes, what happens when memory is short, and 500 random machines (seeded) on which
 * every plan must keep its promises: threads within the budget, no empty pool, no pool without
 * cores or on a node without CPUs, every allowed PU in exactly one place, the same text twice, GPUs
 * in another order get the same nodes, and a model that is said to fit fits every node.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "plan/plan.h"
#include "plan/plan_model.h"

static struct host *synthetic(const char *text)
{
    struct host *h;
    kt_err err = {0};
    char spec[600];
    snprintf(spec, sizeof spec, "syn:%s", text);
    if (host_read(spec, &h, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return h;
}

static struct plan *planned(const struct host *h, const struct plan_opts *o)
{
    struct plan *p;
    kt_err err = {0};
    if (plan_host(h, o, &p, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return p;
}

static const struct plan_decision *find(const struct plan *p, const char *id)
{
    for (uint32_t i = 0; i < p->n_decisions; i++)
        if (strcmp(p->decisions[i].id, id) == 0)
            return &p->decisions[i];
    fail_msg("no decision %s", id);
    return NULL;
}

static void synthetic_rows(void **state)
{
    (void)state;
    static const struct {
        const char *text, *pools, *unknown;
        uint32_t cores, t;
    } rows[] = {
        {"pack:2 group:4 [numa(memory=96GB)] l3:3 core:8 pu:2", "0-7", "", 24, 190},
        {"pack:2 [numa(memory=768GB)] l3:12 core:8 pu:2", "0-1", "", 96, 190},
        {"pack:2 group:4 [numa(memory=32GB)] [numa(memory=16GB)] l2:12 core:1 pu:2",
         "0,2,4,6,8,10,12,14", "1,3,5,7,9,11,13,15", 12, 94},
        {"pack:2 [numa(memory=256GB)] [numa(memory=512GB)] l3:1 core:32 pu:2", "0,2", "1,3", 32,
         62},
        {"[numa(memory=512GB)] pack:2 [numa(memory=256GB)] core:32 pu:2", "0-1", "2", 32, 62},
        {"core:1 pu:1", "0", "", 1, 1},
        {"core:3 pu:2", "0", "", 3, 3},
        {"core:4 pu:1", "0", "", 4, 3},
        {"core:15 pu:1", "0", "", 15, 14},
        {"core:16 pu:1", "0", "", 16, 14},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct host *h = synthetic(rows[i].text);
        struct plan *p = planned(h, NULL);
        struct host_set pools = {0}, unknown = {0};
        uint32_t kt004 = 0;
        for (uint32_t k = 0; k < p->n_pools; k++) {
            host_set_add(&pools, (uint32_t)p->pools[k].node);
            assert_int_equal(p->pools[k].n_cpus, rows[i].cores);
        }
        for (uint32_t k = 0; k < p->n_tiers; k++)
            if (p->tiers[k].tier == HOST_TIER_UNKNOWN && !p->tiers[k].usable)
                host_set_add(&unknown, (uint32_t)p->tiers[k].node);
        for (uint32_t k = 0; k < p->n_warnings; k++)
            kt004 += strcmp(p->warnings[k].code, "KT004") == 0;
        char *a = host_set_format(&pools), *b = host_set_format(&unknown);
        assert_string_equal(a, rows[i].pools);
        assert_string_equal(b, rows[i].unknown);
        assert_int_equal(p->threads_max, rows[i].t);
        assert_int_equal(p->n_threads, rows[i].t);
        assert_int_equal(kt004, host_set_count(&unknown));
        mem_free(a);
        mem_free(b);
        host_set_free(&pools);
        host_set_free(&unknown);
        plan_free(p);
        host_free(h);
    }
}

static void knees_limit_threads(void **state)
{
    (void)state;
    struct host *h = synthetic("pack:2 [numa(memory=128GB)] [numa(memory=512GB)] core:16 pu:2");
    static const char *const why0[] = {"mem.read:node0.t12", "mem.read:node0.t16"},
                             *const why2[] = {"mem.read:node2.t8"};
    const struct plan_measured m[] = {
        {.node = 2,
         .knee_threads = 8,
         .knee_bytes_per_second = 50e9,
         .read_bytes_per_second = 50e9,
         .best_threads = 8,
         .because = why2,
         .n_because = 1},
        {.node = 0,
         .knee_threads = 12,
         .knee_bytes_per_second = 150e9,
         .read_bytes_per_second = 152e9,
         .best_threads = 16,
         .because = why0,
         .n_because = 2},
    };
    struct plan_opts o;
    plan_opts_init(&o);
    o.measured = m;
    o.n_measured = 2;
    struct plan *p = planned(h, &o);
    assert_int_equal(p->threads_max, 30);
    assert_int_equal(p->pools[0].threads, 12);
    assert_int_equal(p->pools[1].threads, 8);
    assert_int_equal(p->n_threads, 20);
    assert_true(fabs(p->pools[0].share - 0.75) < 1e-12 && fabs(p->pools[1].share - 0.25) < 1e-12);
    const struct plan_decision *d = find(p, "threads.node0");
    assert_string_equal(d->origin, "measured");
    assert_string_equal(d->value_json, "12");
    assert_string_equal(d->why, "12 threads give 98.7 % of the best read rate of node 0");
    assert_int_equal(d->n_because, 2);
    assert_string_equal(d->because[1], "mem.read:node0.t16");
    assert_int_equal(d->n_alternatives, 1);
    assert_string_equal(d->alternatives[0].value, "16");
    assert_false(d->alternatives[0].distinguishable);
    plan_free(p);
    o.threads = 31; /* the user's wish beats the rule, the reserve and the knees */
    p = planned(h, &o);
    assert_int_equal(p->n_threads, 31);
    assert_string_equal(find(p, "threads.total")->origin, "user");
    plan_free(p);
    o.threads = 33;
    kt_err err = {0};
    assert_int_equal(plan_host(h, &o, &p, &err), KT_E_INVALID);
    assert_null(p);
    o.threads = 1; /* fewer threads than pools: the pool with the least bandwidth goes */
    p = planned(h, &o);
    assert_int_equal(p->n_pools, 1);
    assert_int_equal(p->pools[0].node, 0);
    assert_true(p->pools[0].share == 1);
    plan_free(p);
    host_free(h);
}

static void golden_text(void **state)
{
    (void)state;
    struct host *h = synthetic("pack:2 [numa(memory=64GB)] l3:2 core:4 pu:2");
    struct strbuf b = {0};
    h->limits.quota_cores = 7.65;
    host_limits_apply(h);
    struct plan *p = planned(h, NULL);
    plan_print(p, &b);
    assert_string_equal(
        b.data,
        "plan  pools = node0 (8 cores, cpus 0-15), node1 (8 cores, cpus 16-31)   why: nodes 0 and "
        "1 have cores and memory\n"
        "      would change if: NPS or SNC mode changes, cpuset changes\n"
        "plan  threads.total = 6   why: 16 cores allowed, quota 7.65 cores, 1 kept for server and "
        "copy threads\n"
        "      would change if: cpu quota changes, cpuset changes\n"
        "plan  threads.node0 = 3   why: 3 of 8 cores: 6 threads over 2 pools\n"
        "      would change if: cpu quota below 7 cores, NPS or SNC mode changes, a measured curve "
        "has its knee below 3 threads\n"
        "plan  threads.node1 = 3   why: 3 of 8 cores: 6 threads over 2 pools\n"
        "      would change if: cpu quota below 7 cores, NPS or SNC mode changes, a measured curve "
        "has its knee below 3 threads\n"
        "plan  isa = \"ref\"   why: the source says nothing about the instruction set: plain C "
        "kernels only\n"
        "      would change if: a self-test fails\n"
        "plan  rows.share = [0.5,0.5]   why: no measured rates: output rows follow threads\n"
        "plan  pages = \"thp\"   why: no gain proved for reserved huge pages; transparent ones are "
        "available on request\n"
        "warn  KT008 CPU quota of 7.65 cores is below the 16 allowed cores: more threads would be "
        "throttled; fix: raise the quota (cpu.max, --cpus) or "
        "give whole cores with a cpuset\n");
    /* threads go to both caches in turn */
    const int32_t want[] = {0, 8, 2, 10, 4, 12, 6, 14};
    assert_memory_equal(p->pools[0].cpus, want, sizeof want);
    sb_free(&b);
    plan_free(p);
    host_free(h);
}

/* Two classes: fast cores alone work when there are four of them, unless the user wants more
 * threads than they are. */
static void mixed_cores(void **state)
{
    (void)state;
    struct host *h = synthetic("numa:1(memory=64GB) core:12 pu:1");
    struct plan_opts o;
    mem_free(h->kinds);
    h->kinds = mem_calloc(2, sizeof *h->kinds);
    h->n_kinds = 2;
    h->kinds[0] = (struct host_kind){.rank = 1, .klass = 0, .capacity = 1000};
    h->kinds[1] = (struct host_kind){.rank = 0, .klass = 1, .capacity = 500};
    for (uint32_t c = 0; c < 12; c++)
        h->cores[c].kind = c < 8; /* 8 slow cores first, then 4 fast ones */
    plan_opts_init(&o);
    struct plan *p = planned(h, &o);
    assert_int_equal(p->n_threads, 4);
    assert_int_equal(p->pools[0].cpus[0], 8);
    assert_int_equal(host_set_count(&p->homeless), 8);
    assert_int_equal(p->n_warnings, 0); /* slow cores are idle by choice, not without memory */
    plan_free(p);
    o.threads = 6;
    p = planned(h, &o);
    assert_int_equal(p->n_threads, 6);
    assert_int_equal(p->pools[0].cpus[0], 8);
    assert_true(p->pools[0].weights[0] == 1 && p->pools[0].weights[4] == 0.5);
    plan_free(p);
    h->cores[11].kind = 1; /* three fast ones: all work */
    p = planned(h, NULL);
    assert_int_equal(p->pools[0].n_cpus, 12);
    assert_int_equal(p->n_threads, 11);
    plan_free(p);
    host_free(h);
}

static void gpu(struct host_gpu *g, uint32_t index, const char *pci, int32_t node)
{
    memset(g, 0, sizeof *g);
    g->index = index;
    g->cuda = true;
    g->node = node;
    g->node_origin = "hwloc";
    snprintf(g->pci, sizeof g->pci, "%s", pci);
}

static void gpus_follow_their_nodes(void **state)
{
    (void)state;
    static const int32_t nodes[][3] = {{3, 0, 1}, {0, 1, 3}, {1, 3, 0}};
    for (int k = 0; k < 3; k++) {
        struct host *h = synthetic("pack:4 [numa(memory=64GB)] core:8 pu:1");
        h->gpus = mem_calloc(4, sizeof *h->gpus);
        h->n_gpus = 4;
        for (uint32_t i = 0; i < 3; i++)
            gpu(&h->gpus[i], i, "0000:01:00.0", nodes[k][i]);
        gpu(&h->gpus[3], 3, "0000:09:00.0", -1);
        struct plan *p = planned(h, NULL);
        assert_int_equal(p->n_gpus, 4);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(p->gpus[i].node, nodes[k][i]);
        assert_int_equal(p->gpus[3].node, -1);
        assert_string_equal(find(p, "gpu.node.gpu3")->value_json, "null");
        plan_free(p);
        host_set_free(&h->limits.cpuset_mems);
        assert_true(host_set_parse("0,2-3", &h->limits.cpuset_mems));
        host_limits_apply(h);
        p = planned(h, NULL);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(p->gpus[i].moved, nodes[k][i] == 1);
            assert_int_not_equal(p->gpus[i].node, 1);
        }
        plan_free(p);
        host_free(h);
    }
}

/* ---- random machines */

static uint64_t rng_state;
static uint32_t rnd(uint32_t n) /* 0..n-1, xorshift64* */
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (uint32_t)((rng_state * UINT64_C(2685821657736338717)) >> 33) % n;
}

static void random_text(char *out, size_t cap)
{
    char machine[40] = "", group[40] = "", node[48] = "", second[40] = "", l3[16] = "", numa0[40];
    snprintf(numa0, sizeof numa0, "[numa(memory=%uGB)]", 1 + rnd(2000));
    if (rnd(8) == 0)
        snprintf(machine, sizeof machine, "[numa(memory=%uGB)] ", 1 + rnd(500));
    if (rnd(3) == 0)
        snprintf(group, sizeof group, "group:%u ", 1 + rnd(4));
    if (machine[0] == '\0' || rnd(2) == 0)
        snprintf(node, sizeof node, "%s ", numa0);
    if (node[0] != '\0' && rnd(4) == 0)
        snprintf(second, sizeof second, "[numa(memory=%uGB)] ", 1 + rnd(64));
    if (rnd(2) == 0)
        snprintf(l3, sizeof l3, "l3:%u ", 1 + rnd(4));
    snprintf(out, cap, "%spack:%u %s%s%s%score:%u pu:%u", machine, 1 + rnd(4), group, node, second,
             l3, 1 + rnd(9), 1 + rnd(4));
}

static void random_subset(struct host_set *s, uint32_t keep_of_8)
{
    struct host_set out = {0};
    for (int32_t i = host_set_next(s, -1); i >= 0; i = host_set_next(s, i))
        if (rnd(8) < keep_of_8)
            host_set_add(&out, (uint32_t)i);
    if (host_set_count(&out) == 0)
        host_set_add(&out, (uint32_t)host_set_next(s, -1));
    host_set_free(s);
    *s = out;
}

static void random_limits(struct host *h)
{
    if (rnd(3) == 0)
        random_subset(&h->limits.affinity, 1 + rnd(7));
    if (rnd(4) == 0)
        random_subset(&h->limits.cpuset_mems, 1 + rnd(7));
    if (rnd(3) == 0)
        h->limits.quota_cores = (double)(1 + rnd(4000)) / 100;
    if (rnd(4) == 0)
        h->limits.memory_max = (uint64_t)(1 + rnd(48)) << 30;
    for (uint32_t c = 0; c < h->n_cores; c++)
        h->cores[c].kind = -1;
    host_limits_apply(h);
}

static void check_pool(const struct host *h, const struct plan *p, uint32_t i,
                       struct host_set *seen)
{
    const struct plan_pool *q = &p->pools[i];
    assert_true(q->n_cpus > 0 && q->threads > 0 && q->threads <= q->n_cpus);
    assert_true(q->share > 0 && q->share <= 1);
    for (uint32_t k = 0; k < q->n_cpus; k++) {
        assert_true(host_set_has(&q->pus, (uint32_t)q->cpus[k]));
        assert_true(host_set_has(&h->limits.allowed_pus, (uint32_t)q->cpus[k]));
    }
    assert_false(host_set_meets(&q->pus, seen));
    assert_true(host_set_or(seen, &q->pus));
    for (uint32_t n = 0; n < h->n_nodes; n++) {
        if (h->nodes[n].os != q->node)
            continue;
        assert_true(h->nodes[n].allowed && h->nodes[n].bytes > 0);
        assert_true(host_set_meets(&h->nodes[n].cpus, &q->pus));
    }
    for (uint32_t k = 0; k < i; k++)
        assert_int_not_equal(p->pools[k].node, q->node);
    for (uint32_t k = 0; k < q->n_mems; k++)
        for (uint32_t t = 0; t < p->n_tiers; t++)
            assert_int_not_equal(p->tiers[t].node, q->mems[k]);
}

static void check_plan(const struct host *h, const struct plan *p)
{
    struct host_set seen = {0};
    uint32_t sum = 0;
    double share = 0;
    assert_true(p->n_pools > 0 && p->threads_max >= p->n_pools &&
                p->threads_max <= h->limits.cores_budget);
    for (uint32_t i = 0; i < p->n_pools; i++) {
        check_pool(h, p, i, &seen);
        sum += p->pools[i].threads;
        share += p->pools[i].share;
    }
    assert_true(sum <= p->threads_max && sum == p->n_threads);
    assert_true(fabs(share - 1) < 1e-9);
    assert_false(host_set_meets(&seen, &p->homeless));
    assert_true(host_set_or(&seen, &p->homeless));
    assert_true(host_set_equal(&seen, &h->limits.allowed_pus));
    host_set_free(&seen);
    for (uint32_t i = 0; i < p->n_decisions; i++) {
        json_t *v = json_loads(p->decisions[i].value_json, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        json_decref(v);
        assert_true(p->decisions[i].why[0] != '\0');
        assert_true(strcmp(p->decisions[i].origin, "measured") != 0 ||
                    p->decisions[i].n_because > 0);
    }
    for (uint32_t i = 0; i < p->n_warnings; i++)
        assert_true(p->warnings[i].text[0] != '\0' && p->warnings[i].fix != NULL);
}

static void random_gpus(struct host *h)
{
    uint32_t n = rnd(5);
    h->gpus = n > 0 ? mem_calloc(n, sizeof *h->gpus) : NULL;
    h->n_gpus = n;
    for (uint32_t i = 0; i < n; i++) {
        char pci[20];
        uint32_t node = rnd(h->n_nodes + 1);
        snprintf(pci, sizeof pci, "0000:%02x:00.0", i + 1);
        gpu(&h->gpus[i], i, pci, node < h->n_nodes ? h->nodes[node].os : -1);
        h->gpus[i].cuda = rnd(5) > 0;
        h->gpus[i].node_forbidden = node < h->n_nodes && !h->nodes[node].allowed;
    }
}

static const struct plan_gpu *gpu_at(const struct host *h, const struct plan *p, const char *pci)
{
    for (uint32_t i = 0; i < p->n_gpus; i++)
        if (strcmp(h->gpus[p->gpus[i].gpu].pci, pci) == 0)
            return &p->gpus[i];
    return NULL;
}

/* The same GPUs in the opposite order: each keeps its node, and nothing else changes. */
static void check_permuted(struct host *h, const struct plan_opts *o, const struct plan *p)
{
    for (uint32_t i = 0; i < h->n_gpus / 2; i++) {
        struct host_gpu t = h->gpus[i];
        h->gpus[i] = h->gpus[h->n_gpus - 1 - i];
        h->gpus[h->n_gpus - 1 - i] = t;
    }
    for (uint32_t i = 0; i < h->n_gpus; i++)
        h->gpus[i].index = i;
    struct plan *q = planned(h, o);
    assert_int_equal(q->n_gpus, p->n_gpus);
    assert_int_equal(q->n_pools, p->n_pools);
    assert_int_equal(q->n_tiers, p->n_tiers);
    assert_int_equal(q->n_decisions, p->n_decisions);
    assert_int_equal(q->n_warnings, p->n_warnings);
    for (uint32_t i = 0; i < q->n_pools; i++) {
        assert_int_equal(q->pools[i].node, p->pools[i].node);
        assert_int_equal(q->pools[i].threads, p->pools[i].threads);
        assert_true(q->pools[i].share == p->pools[i].share);
    }
    for (uint32_t i = 0; i < p->n_gpus; i++) {
        const char *pci = h->gpus[h->n_gpus - 1 - p->gpus[i].gpu].pci; /* before it was moved */
        const struct plan_gpu *g = gpu_at(h, q, pci);
        assert_non_null(g);
        assert_int_equal(g->node, p->gpus[i].node);
        assert_int_equal(g->moved, p->gpus[i].moved);
    }
    plan_free(q);
}

/* A model that is said to fit fits every node that it lies on, with all its bytes placed; one that
 * is not exceeds a node or the limit, and the refusal says by how much. */
static void check_memory(const struct shape *s, const struct host *h, const struct plan *p)
{
    struct plan_model_opts o;
    struct plan_model *m;
    kt_err err = {0};
    double experts = 0, limit, used = 0;
    bool room = true;
    plan_model_opts_init(&o);
    o.ctx_tokens = 4096;
    o.parallel = 1 + rnd(16);
    if (plan_model(s, h, p, NULL, &o, &m, &err) != KT_OK)
        fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < m->n_places; i++) {
        const struct plan_place *q = &m->places[i];
        double sum = q->experts + q->dense + q->kv + q->scratch;
        assert_true(sum >= 0 && q->capacity > 0);
        room = room && sum <= q->capacity - q->system;
        used += sum;
        experts += q->experts;
    }
    limit = m->memory_limit > 0 ? m->memory_limit : (double)INFINITY;
    assert_true(m->fits == (room && used <= limit));
    assert_true(m->fits == (m->refusal[0] == '\0'));
    assert_true(fabs(experts / shape_expert_bytes(s) - 1) < 1e-9);
    plan_model_free(m);
}

static void random_machines(void **state)
{
    struct shape *shape = NULL;
    kt_err err = {0};
    char path[4200];
    (void)state;
    snprintf(path, sizeof path, "%s/profiles/shapes/qwen3-30b-a3b.config.json",
             getenv("KT_SRCDIR") != NULL ? getenv("KT_SRCDIR") : ".");
    if (shape_open(path, "mxfp4", NULL, &shape, &err) != KT_OK)
        fail_msg("%s", err.msg);
    for (uint32_t seed = 1; seed <= 500; seed++) {
        char text[300];
        static const char *const because[] = {"mem.read:node0.t1"};
        struct plan_measured m[40];
        struct plan_opts o;
        rng_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        random_text(text, sizeof text);
        if (seed % 100 == 0)
            print_message("seed %u: %s\n", seed, text);
        struct host *h = synthetic(text), *again = synthetic(text);
        uint64_t before = rng_state;
        random_limits(h);
        random_gpus(h);
        rng_state = before;
        random_limits(again);
        random_gpus(again);
        plan_opts_init(&o);
        if (rnd(3) == 0) {
            o.measured = m;
            for (uint32_t i = 0; i < h->n_nodes && i < 40; i++)
                if (rnd(4) > 0)
                    m[o.n_measured++] =
                        (struct plan_measured){.node = h->nodes[i].os,
                                               .knee_threads = rnd(6),
                                               .knee_bytes_per_second = 1e9 * (1 + rnd(9)),
                                               .read_bytes_per_second = 10e9,
                                               .best_threads = 1 + rnd(9),
                                               .because = because,
                                               .n_because = 1};
        }
        struct plan *p = planned(h, &o), *q = planned(h, &o), *r = planned(again, &o);
        struct strbuf x = {0}, y = {0}, z = {0};
        check_plan(h, p);
        check_memory(shape, h, p);
        check_permuted(again, &o, r);
        plan_print(p, &x);
        plan_print(q, &y);
        plan_print(r, &z);
        assert_string_equal(x.data, y.data);
        assert_string_equal(x.data, z.data);
        sb_free(&x);
        sb_free(&y);
        sb_free(&z);
        plan_free(p);
        plan_free(q);
        plan_free(r);
        host_free(h);
        host_free(again);
    }
    shape_close(shape);
}

/* Every allocation fails once: no crash, no leak (with a sanitizer), and either a complete plan or
 * the error. */
static void memory_runs_out(void **state)
{
    (void)state;
    bool done = false;
    struct host *h = synthetic("pack:2 [numa(memory=64GB)] [numa(memory=8GB)] l3:2 core:3 pu:2");
    for (long n = 0; !done && n < 2000; n++) {
        struct plan *p;
        kt_err err = {0};
        mem_fail_after(n);
        kt_status st = plan_host(h, NULL, &p, &err);
        mem_fail_after(-1);
        assert_true(st == KT_OK || (st == KT_E_NOMEM && p == NULL));
        done = st == KT_OK;
        plan_free(p);
    }
    assert_true(done);
    host_free(h);
    done = false;
    for (long n = 0; !done && n < 5000; n++) {
        kt_err err = {0};
        mem_fail_after(n);
        kt_status st = host_read("syn:pack:2 [numa(memory=64GB)] core:2 pu:2", &h, &err);
        mem_fail_after(-1);
        if (st != KT_OK && st != KT_E_NOMEM)
            fail_msg("allocation %ld: %s", n, err.msg);
        assert_true(st == KT_OK || h == NULL);
        done = st == KT_OK;
        host_free(h);
    }
    assert_true(done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synthetic_rows),
        cmocka_unit_test(knees_limit_threads),
        cmocka_unit_test(golden_text),
        cmocka_unit_test(mixed_cores),
        cmocka_unit_test(gpus_follow_their_nodes),
        cmocka_unit_test(random_machines),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
