/* test_outer.c - the outer level of a search (pages, SMT, pools), which combinations are left out
 * before anything is timed, and the plans behind SMT and pools. Truth is a formula behind a virtual
 * clock, or a stored topology (hwloc's synthetic ones): no machine with these axes is needed.
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

#include "base/mem.h"
#include "plan/plan.h"
#include "tuner/decide_rows.h"
#include "tuner/decide_streams.h"
#include "tuner/timer_virtual.h"
#include "tuner/tune.h"
#include "tuner/tune_prune.h"

/* Times of a space of threads x claim x pages x smt: what each value does multiplies. */
struct world {
    struct space space;
    double pages_gain, smt_gain, claim_gain; /* of 4k, on, 128 over the default */
    bool smt_fails;
};

static double seconds_of(void *ctx, uint32_t config, uint32_t rep, uint64_t *rng)
{
    const struct world *w = ctx;
    const struct space_value *p = space_get(&w->space, config, "pages"),
                             *m = space_get(&w->space, config, "smt");
    double t = 0.02;
    (void)rep;
    (void)rng;
    bool smt = strcmp(m->text, "on") == 0;
    if (smt && w->smt_fails)
        return -1;
    if (strcmp(p->text, "4k") == 0)
        t /= 1 + w->pages_gain;
    if (smt)
        t /= 1 + w->smt_gain;
    if (space_get_number(&w->space, config, "claim_rows", 0) == 128)
        t /= 1 + w->claim_gain;
    return t * 4 / space_get_number(&w->space, config, "threads", 4) * (smt ? 2 : 1);
}

/* A search in such a world: set its gains after trial_begin, look at job and out after trial_run.
 */
struct trial {
    struct world w;
    struct tune_job job;
    struct search_out out;
};

static void trial_begin(struct trial *t)
{
    struct space *s = &t->w.space;
    struct tune_job *j = &t->job;
    kt_err err = {0};
    memset(t, 0, sizeof *t);
    struct space_axis *a = space_axis(s, "threads");
    space_number(a, 4);
    space_number(a, 2);
    space_number(a, 8);
    space_number(a, 6);
    a = space_axis(s, "claim_rows");
    space_number(a, 512);
    space_number(a, 128);
    a = space_axis(s, "pages");
    space_word(a, "thp");
    space_word(a, "4k");
    a->apart = true;
    a = space_axis(s, "smt");
    space_word(a, "off");
    space_word(a, "on");
    a->apart = true;
    assert_int_equal(space_build(s, NULL, NULL, &err), KT_OK);
    assert_int_equal(s->total, 8); /* outer axes do not multiply */
    s->n = 2;                      /* 4 and 2 threads only: 8 and 6 are of another engine */
    j->tries[0] = (struct outer_try){.axis = "pages", .value = "4k"};
    j->tries[1] = (struct outer_try){.axis = "smt", .value = "on", .threads = 8};
    j->n_tries = 2;
}

static void trial_run(struct trial *t, double budget)
{
    struct virtual_timer clock;
    struct virtual_faults faults;
    struct virtual_source src = {&t->w, seconds_of};
    struct tune_layouts facts = {.threads = 4, .n_pools = 1};
    struct tune_layout_ctx ctx = {&t->w.space, &facts};
    kt_err err = {0};
    virtual_faults_none(&faults);
    faults.cv = 0.01;
    virtual_open(&clock, &src, &faults, 7);
    struct outer_in in = {
        .search = {.n = t->w.space.n, .rank = t->w.space.rank, .budget_seconds = budget, .seed = 3},
        .try_seconds = 12,
        .configs = tune_layout_configs,
        .rank = tune_layout_rank,
        .ctx = &ctx};
    if (outer_run(&in, t->job.tries, t->job.n_tries, &clock.timer, &t->out, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_true(clock.now <= budget + 0.2);
}

static void trial_end(struct trial *t)
{
    search_free(&t->out);
    space_free(&t->w.space);
}

/* Begin and run, where only what the axes gain differs. */
static void trial_of_gains(struct trial *t, double pages_gain, double smt_gain)
{
    trial_begin(t);
    t->w.pages_gain = pages_gain;
    t->w.smt_gain = smt_gain;
    trial_run(t, 100);
}

static const char *chosen(const struct trial *t, const char *axis)
{
    return space_get(&t->w.space, t->out.chosen, axis)->text;
}

static void one_axis_is_proved(void **state)
{
    struct trial t;
    (void)state;
    trial_of_gains(&t, 0.05, -0.1);
    assert_true(t.out.proved);
    assert_string_equal(chosen(&t, "pages"), "4k");
    assert_string_equal(chosen(&t, "smt"), "off");
    assert_int_equal(t.job.tries[0].fate, OUTER_PROVED);
    assert_int_equal(t.job.tries[1].fate, OUTER_KEPT);
    assert_true(t.out.gain.lo < 0.05 && t.out.gain.hi > 0.05);
    trial_end(&t);
}

static void steps_are_proved_against_the_default(void **state)
{
    struct trial t;
    (void)state;
    trial_of_gains(&t, 0.05, 0.10); /* SMT with 8 threads */
    assert_true(t.out.proved);
    assert_string_equal(chosen(&t, "pages"), "4k");
    assert_string_equal(chosen(&t, "smt"), "on");
    assert_true(space_get_number(&t.w.space, t.out.chosen, "threads", 0) == 8);
    double truth = 1.05 * 1.10 - 1; /* both together */
    assert_true(t.out.gain.lo < truth && t.out.gain.hi > truth);
    trial_end(&t);
}

static void nothing_better_keeps_the_default(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) { /* equal, or worse */
        struct trial t;
        trial_of_gains(&t, i % 2 == 0 ? 0 : -0.03, -0.02);
        assert_false(t.out.proved);
        assert_int_equal(t.out.chosen, 0);
        assert_int_equal(t.job.tries[0].fate, OUTER_KEPT);
        assert_string_not_equal(t.job.tries[0].reason, "");
        trial_end(&t);
    }
}

static void what_cannot_be_tried_says_why(void **state)
{
    struct trial t;
    const struct outer_try *tries = t.job.tries;
    (void)state;
    trial_begin(&t);
    t.w.smt_fails = true; /* an engine that cannot be loaded */
    trial_run(&t, 100);
    assert_int_equal(tries[1].fate, OUTER_FAILED);
    assert_string_not_equal(tries[1].reason, "");
    trial_end(&t);
    trial_begin(&t);
    trial_run(&t, 15); /* a budget without room for tries */
    assert_int_equal(tries[0].fate, OUTER_NO_TIME);
    assert_int_equal(tries[1].fate, OUTER_NO_TIME);
    assert_non_null(strstr(t.out.missing, "pages 4k"));
    trial_end(&t);
    trial_begin(&t);
    trial_run(&t, 41); /* room for one */
    assert_int_not_equal(tries[0].fate, OUTER_NO_TIME);
    assert_int_equal(tries[1].fate, OUTER_NO_TIME);
    trial_end(&t);
}

static void ties_are_broken_by_simplicity(void **state)
{
    struct trial t;
    uint8_t at[SPACE_AXES] = {0};
    (void)state;
    trial_begin(&t);
    uint32_t plain = space_rank(&t.w.space, at);
    at[2] = 1;
    assert_true(space_rank(&t.w.space, at) < plain); /* no huge pages */
    at[2] = 0;
    at[3] = 1;
    assert_true(space_rank(&t.w.space, at) > plain); /* SMT */
    at[0] = 1;
    assert_true(space_rank(&t.w.space, at) < plain); /* but fewer threads come first */
    uint32_t left_out = t.w.space.total - t.w.space.n;
    assert_int_equal(space_add(&t.w.space, at), 2);
    assert_int_equal(t.w.space.total - t.w.space.n, left_out); /* it is not one of these */
    trial_end(&t);
}

/* ---- what a host offers ---- */

static struct host *stored(const char *spec)
{
    struct host *h;
    kt_err err = {0};
    if (host_read(spec, &h, &err) != KT_OK)
        fail_msg("%s: %s", spec, err.msg);
    return h;
}

static const struct outer_try *try_of(const struct tune_job *j, const char *axis, const char *value)
{
    for (uint32_t i = 0; i < j->n_tries; i++)
        if (strcmp(j->tries[i].axis, axis) == 0 && strcmp(j->tries[i].value, value) == 0)
            return &j->tries[i];
    fail_msg("no try of %s %s", axis, value);
    return NULL;
}

static void hosts_offer_axes(void **state)
{
    (void)state;
    struct host *h = stored("syn:node:4(memory=64GB) core:4 pu:2");
    struct plan *p;
    struct tune_job j = {0};
    kt_err err = {0};
    assert_int_equal(plan_host(h, NULL, &p, &err), KT_OK);
    struct tune_layouts f = {h, (uint64_t)1 << 30, p->n_pools, p->n_threads};
    assert_int_equal(p->n_pools, 4);
    assert_int_equal(p->n_threads, 14); /* 16 cores, two for the server */
    tune_layout_tries(&f, &j);
    assert_int_equal(try_of(&j, "smt", "on")->fate, OUTER_OPEN);
    assert_int_equal(try_of(&j, "smt", "on")->threads, 30);
    assert_int_equal(try_of(&j, "smt", "server")->threads, 16);
    assert_int_equal(try_of(&j, "pools", "2")->threads, 8);
    assert_int_equal(try_of(&j, "pools", "1")->threads, 4);
    assert_int_equal(try_of(&j, "pages", "hugetlb")->fate, OUTER_ABSENT);
    f.engine_bytes = (uint64_t)200 << 30; /* two engines do not fit */
    tune_layout_tries(&f, &j);
    assert_int_equal(try_of(&j, "smt", "on")->fate, OUTER_REFUSED);
    assert_non_null(strstr(try_of(&j, "smt", "on")->reason, "two engines"));
    plan_free(p);
    host_free(h);
    h = stored("syn:node:1(memory=16GB) core:2 pu:1");
    f = (struct tune_layouts){h, 1 << 20, 1, 2};
    tune_layout_tries(&f, &j);
    assert_int_equal(try_of(&j, "smt", "on")->fate, OUTER_ABSENT);
    assert_int_equal(try_of(&j, "pools", "1")->fate, OUTER_ABSENT);
    host_free(h);
}

/* Reserved pages are beside the free memory: the second engine does not need both. */
static void reserved_pages_hold_the_second_engine(void **state)
{
    struct host *h = stored("syn:node:1(memory=16GB) core:2 pu:1");
    struct tune_layouts f = {h, (uint64_t)10 << 30, 1, 2};
    struct tune_job j = {0};
    (void)state;
    h->env.hugetlb = mem_calloc(1, sizeof *h->env.hugetlb);
    assert_non_null(h->env.hugetlb);
    h->env.n_hugetlb = 1;
    h->env.hugetlb[0] = (struct host_hugetlb){.page_bytes = 2u << 20, .total = 6000, .free = 6000};
    tune_layout_tries(&f, &j);
    assert_int_equal(try_of(&j, "pages", "hugetlb")->fate, OUTER_OPEN);
    h->env.hugetlb[0].free = 5000; /* less than 10 GiB */
    tune_layout_tries(&f, &j);
    assert_int_equal(try_of(&j, "pages", "hugetlb")->fate, OUTER_ABSENT);
    assert_non_null(strstr(try_of(&j, "pages", "hugetlb")->reason, "nr_hugepages"));
    host_free(h);
}

static void plans_with_smt_and_fewer_pools(void **state)
{
    struct host *h = stored("syn:node:2(memory=64GB) core:4 pu:2");
    struct plan_opts o;
    struct plan *p;
    kt_err err = {0};
    (void)state;
    plan_opts_init(&o);
    o.smt = PLAN_SMT_ALL;
    o.reserve = 0;
    assert_int_equal(plan_host(h, &o, &p, &err), KT_OK);
    assert_int_equal(p->n_threads, 16);
    for (uint32_t i = 0; i < p->n_pools; i++) { /* first one PU of every core, then the siblings */
        const struct plan_pool *q = &p->pools[i];
        assert_int_equal(q->n_cpus, 4);
        assert_int_equal(q->n_places, 8);
        assert_true(q->share == 0.5);
        for (uint32_t a = 0; a < 8; a++) {
            assert_int_equal(q->cpus[a] % 2, a < 4 ? 0 : 1);
            for (uint32_t b = 0; b < a; b++)
                assert_int_not_equal(q->cpus[a], q->cpus[b]);
        }
    }
    plan_free(p);
    o.smt = PLAN_SMT_OFF;
    o.pools = 1;
    assert_int_equal(plan_host(h, &o, &p, &err), KT_OK);
    assert_int_equal(p->n_pools, 1);
    assert_int_equal(p->n_threads, 4);
    plan_free(p);
    host_free(h);
}

/* ---- what is left out ---- */

static json_t *measured(const char *id, double median, const char *status, int threads)
{
    return json_pack("{s:s,s:f,s:s,s:{s:i}}", "id", id, "median", median, "status", status,
                     "params", "threads", threads);
}

static void rules_leave_combinations_out(void **state)
{
    char abi[] = "0123456789abcdef";
    kt_err err = {0};
    struct profile_knee knee = {.node = 0, .knee_threads = 4};
    (void)state;
    struct profile p = {.kernel_abi = abi, .knees = &knee, .n_knees = 1};
    p.root = json_pack(
        "{s:[o,o,o,o,o],s:{s:[{s:i}]},s:{s:[{s:s,s:s}]}}", "measurements",
        measured("mem.read:node0.t2", 50e9, "ok", 2), measured("mem.read:node0.t4", 98e9, "ok", 4),
        measured("mem.read:node0.t8", 100e9, "ok", 8),
        measured("expert.gemv:mxfp4.avx2.m1", 40e9, "ok", 8),
        measured("expert.gemv:mxfp4.avx512.m1", 90e9, "ok", 8), "topology", "l3", "bytes", 8 << 20,
        "isa", "variants", "name", "gemv_mxfp4_q8_avx512vnni", "selftest", "wrong");
    assert_non_null(p.root);
    struct live l = {.built_in = {.threads = 8}, .n_pools = 1, .vocab = 1000};
    snprintf(l.expert_format, sizeof l.expert_format, "mxfp4");
    struct tune_job j = {
        .abi = abi, .experts = 128, .top_k = 8, .hidden = 2048, .inter = 768, .layers = 48};
    struct space s = {0};
    struct space_axis *a = space_axis(&s, "threads");
    static const int threads[] = {8, 7, 6, 4, 2, 1, 16};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++)
        space_number(a, threads[i]);
    a = space_axis(&s, "kernel");
    space_word(a, "avx512");
    space_word(a, "avx512vnni");
    space_word(a, "avx2");
    a = space_axis(&s, "claim_rows");
    space_number(a, 512);
    space_number(a, 256);
    space_number(a, 2048);
    struct tune_prune x;
    struct tune_pruned out;
    tune_prune_begin(&x, &s, &l, &p, &j, &out);
    assert_int_equal(space_build(&s, tune_prune_keep, &x, &err), KT_OK);
    printf("load %u, selftest %u, knee %u, blocking %u, roofline %u of %u; %u left\n",
           out.n[TUNE_LOAD], out.n[TUNE_SELFTEST], out.n[TUNE_KNEE], out.n[TUNE_BLOCKING],
           out.n[TUNE_ROOFLINE], s.total, s.n);
    assert_int_equal(out.n[TUNE_LOAD], 9);      /* 16 threads: more than at open */
    assert_int_equal(out.n[TUNE_SELFTEST], 18); /* 6 x 3 with the level that gave wrong results */
    /* the knee is 4, one step past it 6: 7 and 8 threads are out, but for the default */
    assert_int_equal(out.n[TUNE_KNEE], 2 * 2 * 3 - 1);
    /* 2048 rows are above half of 8 * 768 rows over 8 workers */
    assert_int_equal(out.n[TUNE_BLOCKING], 4 * 2);
    /* one thread reads at half the rate, avx2 computes at less than half */
    assert_true(out.n[TUNE_ROOFLINE] > 0);
    uint32_t sum = 0;
    for (int i = 0; i < TUNE_RULES; i++) {
        sum += out.n[i];
        assert_string_not_equal(out.why[i], "");
    }
    assert_int_equal(sum + s.n, s.total); /* each is counted once */
    for (uint32_t i = 1; i < s.n; i++) {
        assert_true(space_get_number(&s, i, "threads", 0) <= 6);
        assert_string_not_equal(space_get(&s, i, "kernel")->text, "avx512vnni");
        assert_true(s.prior[i] < 1.6);
    }
    space_free(&s);
    /* noisy measurements rule nothing out by the roofline */
    json_t *ms = json_object_get(p.root, "measurements");
    for (size_t i = 0; i < json_array_size(ms); i++)
        json_object_set_new(json_array_get(ms, i), "status", json_string("noisy"));
    a = space_axis(&s, "threads");
    space_number(a, 4);
    space_number(a, 1);
    space_word(space_axis(&s, "kernel"), "avx512");
    l.built_in.threads = 4;
    tune_prune_begin(&x, &s, &l, &p, &j, &out);
    assert_int_equal(space_build(&s, tune_prune_keep, &x, &err), KT_OK);
    assert_int_equal(s.n, 2);
    space_free(&s);
    json_decref(p.root);
}

/* ---- GEMV or GEMM ---- */

/* GEMV takes 1 second a row, GEMM `fixed` and a fifth a row; intervals +-w. */
static struct rows_choice crossover(double fixed, double w, uint32_t own)
{
    static const uint32_t rows[] = {2, 4, 8, 16};
    struct rows_point p[4];
    struct rows_choice c;
    for (int i = 0; i < 4; i++) {
        double a = rows[i], b = fixed + rows[i] / 5.0;
        p[i] =
            (struct rows_point){rows[i], a, a * (1 - w), a * (1 + w), b, b * (1 - w), b * (1 + w)};
    }
    assert_true(decide_rows(p, 4, own, &c));
    return c;
}

static void gemm_replaces_gemv_where_it_is_faster(void **state)
{
    struct rows_choice c;
    (void)state;
    c = crossover(4.2, 0.01, 2); /* equal at 5.25 rows: 5 are streamed */
    assert_int_equal(c.rows, 5);
    assert_false(c.own);
    c = crossover(4.2, 0.01, 4); /* the kernel's own lies between 4 and 8: nothing speaks against */
    assert_int_equal(c.rows, 4);
    assert_true(c.own);
    c = crossover(0.5, 0.01, 4); /* faster at the first point */
    assert_int_equal(c.rows, 1);
    c = crossover(100, 0.01, 4); /* never */
    assert_int_equal(c.rows, 16);
    assert_string_not_equal(c.why, "");
    c = crossover(4.2, 0.3, 2); /* wide intervals: proved at 16 only */
    assert_true(c.rows >= 8 && c.rows <= 15);
    c = crossover(4.2, 0.4, 2); /* not even there, nor is GEMV: the kernel's own */
    assert_int_equal(c.rows, 2);
    assert_true(c.own);
    assert_false(decide_rows(NULL, 0, 4, &c));
}

/* ---- one address stream or four ---- */

static void streams_are_carried_by_all_or_none(void **state)
{
    static const struct streams_vote four[] = {{"mxfp4", "avx512vnni", "avx512vnni-x4"},
                                               {"q8_0", "avx512vnni", "avx512vnni-x4"}},
                                     split[] = {{"mxfp4", "avx512vnni", "avx512vnni-x4"},
                                                {"q8_0", "avx512vnni", "avx512vnni"}},
                                     lower[] = {{"mxfp4", "avx512vnni", "avx512-x4"}};
    char why[128], little[16];
    (void)state;
    assert_true(decide_streams(four, 2, why, sizeof why));
    assert_non_null(strstr(why, "by analogy with mxfp4 and q8_0,"));
    assert_true(decide_streams(four, 2, little, sizeof little));
    assert_true(strlen(little) < sizeof little);
    assert_false(decide_streams(split, 2, why, sizeof why));
    assert_false(decide_streams(lower, 1, why, sizeof why));
    assert_false(decide_streams(NULL, 0, why, sizeof why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_axis_is_proved),
        cmocka_unit_test(steps_are_proved_against_the_default),
        cmocka_unit_test(nothing_better_keeps_the_default),
        cmocka_unit_test(what_cannot_be_tried_says_why),
        cmocka_unit_test(ties_are_broken_by_simplicity),
        cmocka_unit_test(hosts_offer_axes),
        cmocka_unit_test(reserved_pages_hold_the_second_engine),
        cmocka_unit_test(plans_with_smt_and_fewer_pools),
        cmocka_unit_test(gemm_replaces_gemv_where_it_is_faster),
        cmocka_unit_test(streams_are_carried_by_all_or_none),
        cmocka_unit_test(rules_leave_combinations_out),
    };
    return cmocka_run_group_tests_name("outer", tests, NULL, NULL);
}
