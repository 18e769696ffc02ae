/* test_search.c - the tuner's search against clocks that it cannot tell from real ones: formulas
 * with known best configurations, noise, drift, outliers, a clock with two speeds, configurations
 * that hang or fail. The bounds are those of host-profile.md 11. Truth is the formula, never what
 * the search measured.
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
#include "tuner/search.h"
#include "tuner/timer_virtual.h"

#define SEEDS 200
#define MOST 512

/* A space of threads x variant x blocking x wait: 8 x 4 x 4 x 3 configs with effects that multiply,
 * and a small effect of each combination. */
struct space {
    uint32_t n, reference;
    double seconds[MOST]; /* < 0: fails */
    uint32_t rank[MOST];
};

static void make_space(struct space *sp, uint64_t seed)
{
    uint64_t rng = seed * 77 + 1;
    double threads[8], variant[4], block[4], wait[3];
    for (int i = 0; i < 8; i++) /* a knee: more threads help less and less, then hurt */
        threads[i] = 1.0 / (1 + i) + 0.09 * i + 0.05 * ss_uniform(&rng);
    for (int i = 0; i < 4; i++) {
        variant[i] = 1 + 0.5 * ss_uniform(&rng);
        block[i] = 1 + 0.15 * ss_uniform(&rng);
        wait[i % 3] = 1 + 0.08 * ss_uniform(&rng);
    }
    sp->n = 384;
    for (uint32_t i = 0; i < sp->n; i++) {
        sp->seconds[i] = 0.02 * threads[i % 8] * variant[i / 8 % 4] * block[i / 32 % 4] *
                         wait[i / 128] * (1 + 0.02 * ss_uniform(&rng));
        sp->rank[i] = i % 8;
    }
    sp->reference = 7; /* all threads, first variant, block and wait: what a default is */
}

/* 384 configs without any structure, 8 % apart: the nearest rivals of the best are 1 % away. */
static void make_rugged(struct space *sp, uint64_t seed)
{
    uint64_t rng = seed * 31 + 5;
    sp->n = 384;
    sp->reference = 0;
    for (uint32_t i = 0; i < sp->n; i++) {
        double z = 0;
        for (int k = 0; k < 12; k++)
            z += ss_uniform(&rng) - 0.5;
        sp->seconds[i] = 0.02 * exp(0.08 * z);
        sp->rank[i] = i;
    }
    sp->seconds[0] = 0.02;
}

static double source(void *ctx, uint32_t config, uint32_t rep, uint64_t *rng)
{
    const struct space *sp = ctx;
    (void)rep;
    (void)rng;
    return sp->seconds[config];
}

static double best_seconds(const struct space *sp)
{
    double best = sp->seconds[sp->reference];
    for (uint32_t i = 0; i < sp->n; i++)
        if (sp->seconds[i] >= 0 && sp->seconds[i] < best)
            best = sp->seconds[i];
    return best;
}

struct run {
    double budget;
    struct virtual_faults faults;
    struct search_out out;
    double ended;
};

static void search_space(struct space *sp, struct run *r, uint64_t seed)
{
    struct virtual_timer t;
    kt_err err = {0};
    struct virtual_source src = {sp, source};
    struct search_in in = {.n = sp->n,
                           .reference = sp->reference,
                           .rank = sp->rank,
                           .budget_seconds = r->budget,
                           .seed = seed};
    virtual_open(&t, &src, &r->faults, seed);
    if (search_run(&in, &t.timer, &r->out, &err) != KT_OK)
        fail_msg("%s", err.msg);
    r->ended = t.now;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct tally {
    double median, p95;
    uint32_t above2; /* runs with more than 2 % */
    uint32_t proved;
};

static struct tally many(const struct virtual_faults *f, double budget,
                         void (*make)(struct space *sp, uint64_t seed))
{
    static double regret[SEEDS];
    struct tally t = {0};
    for (uint32_t i = 0; i < SEEDS; i++) {
        struct space sp;
        struct run r = {.budget = budget, .faults = *f};
        make(&sp, i);
        search_space(&sp, &r, i + 1);
        regret[i] = 1 - best_seconds(&sp) / sp.seconds[r.out.chosen];
        t.above2 += regret[i] > 0.02;
        t.proved += r.out.proved;
        search_free(&r.out);
    }
    qsort(regret, SEEDS, sizeof *regret, ascending);
    t.median = regret[SEEDS / 2];
    t.p95 = regret[SEEDS * 95 / 100];
    printf(
        "%s: cv %.0f %% drift %.0f %% outliers %.0f %% slow %.2f: regret median %.2f %%, 95 %% at "
        "%.2f %%, %u of %d above 2 %%, %u proved\n",
        make == make_space ? "product" : "rugged", 100 * f->cv, 100 * f->drift, 100 * f->outliers,
        f->slow_factor, 100 * t.median, 100 * t.p95, t.above2, SEEDS, t.proved);
    return t;
}

static void within_bounds(const struct virtual_faults *f, uint32_t most)
{
    struct tally t = many(f, 300, make_space);
    assert_true(t.above2 <= most);
    assert_true(t.median <= 0.03 && t.p95 <= 0.05);
    t = many(f, 300, make_rugged);
    assert_true(t.above2 <= most);
    assert_true(t.median <= 0.03 && t.p95 <= 0.05);
}

static void regret_is_small(void **state)
{
    struct virtual_faults f;
    (void)state;
    virtual_faults_none(&f);
    f.cv = 0.01;
    within_bounds(&f, SEEDS / 100);
    f.cv = 0.03;
    within_bounds(&f, SEEDS / 20);
}

static void drift_does_not_matter(void **state)
{
    struct virtual_faults f;
    (void)state;
    virtual_faults_none(&f);
    f.drift = 0.05;
    f.drift_seconds = 25;
    f.cv = 0.01;
    within_bounds(&f, SEEDS / 100);
    f.cv = 0.03;
    within_bounds(&f, SEEDS / 20);
}

static void disturbances_do_not_flip(void **state)
{
    struct virtual_faults f;
    struct tally t;
    (void)state;
    virtual_faults_none(&f);
    f.cv = 0.01;
    f.outliers = 0.02;
    t = many(&f, 300, make_space);
    assert_true(t.above2 <= SEEDS / 50);
    f.outliers = 0;
    f.slow_factor = 1.3;
    f.dwell_seconds = 2;
    t = many(&f, 300, make_space);
    assert_true(t.above2 <= SEEDS / 20);
    f.slow_factor = 0;
    for (uint32_t i = 0; i < 20; i++) { /* the best one hangs, or another */
        struct space sp;
        struct run r = {.budget = 300, .faults = f};
        make_space(&sp, i);
        r.faults.hung = 100 + i;
        search_space(&sp, &r, i);
        assert_int_not_equal(r.out.chosen, 100 + i);
        assert_true(r.out.hung <= 1);
        sp.seconds[100 + i] = 1e9;
        assert_true(1 - best_seconds(&sp) / sp.seconds[r.out.chosen] <= 0.03);
        search_free(&r.out);
    }
}

static void budget_is_kept(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        struct space sp;
        struct run r = {.budget = 0.01 * pow(1.18, i)};
        virtual_faults_none(&r.faults);
        r.faults.cv = 0.02;
        r.faults.hung = i % 3 == 0 ? 50 : -1;
        make_space(&sp, i);
        double longest = 0;
        for (uint32_t k = 0; k < sp.n; k++)
            longest = sp.seconds[k] > longest ? sp.seconds[k] : longest;
        search_space(&sp, &r, i);
        assert_true(r.ended <= r.budget + longest * 1.1);
        /* whatever was cut: never worse than the default */
        assert_true(sp.seconds[r.out.chosen] <= sp.seconds[sp.reference]);
        assert_true(r.out.proved || r.out.chosen == sp.reference);
        assert_true(r.out.proved || r.out.stop != SEARCH_PROVED);
        search_free(&r.out);
    }
}

static void same_seed_same_answer(void **state)
{
    (void)state;
    struct space sp;
    struct run a = {.budget = 60}, b = {.budget = 60};
    virtual_faults_none(&a.faults);
    a.faults.cv = 0.05;
    b.faults = a.faults;
    make_space(&sp, 5);
    search_space(&sp, &a, 9);
    search_space(&sp, &b, 9);
    assert_memory_equal(a.out.config, b.out.config, sp.n * sizeof *a.out.config);
    assert_memory_equal(a.out.finalist, b.out.finalist, sizeof a.out.finalist);
    assert_int_equal(a.out.chosen, b.out.chosen);
    assert_memory_equal(&a.out.gain, &b.out.gain, sizeof a.out.gain);
    assert_memory_equal(&a.ended, &b.ended, sizeof a.ended);
    search_free(&a.out);
    search_free(&b.out);
}

static void no_gain_keeps_the_default(void **state)
{
    uint32_t proved = 0, other = 0;
    (void)state;
    for (uint32_t i = 0; i < SEEDS; i++) {
        struct space sp = {.n = 48, .reference = 11};
        struct run r = {.budget = 100};
        virtual_faults_none(&r.faults);
        r.faults.cv = i % 2 == 0 ? 0.01 : 0.08;
        for (uint32_t k = 0; k < sp.n; k++) {
            sp.seconds[k] = 0.02;
            sp.rank[k] = k == 11 ? 0 : 1;
        }
        search_space(&sp, &r, i);
        proved += r.out.proved;
        other += r.out.chosen != 11;
        search_free(&r.out);
    }
    printf("noise only: %u of %d proved\n", proved, SEEDS);
    assert_int_equal(other, proved);
    assert_true(proved <= SEEDS / 100);
}

static void equal_ones_give_the_simplest(void **state)
{
    uint32_t simplest = 0;
    (void)state;
    for (uint32_t i = 0; i < 50; i++) { /* three equal ones, all better than the default */
        struct space sp = {.n = 4, .reference = 0, .seconds = {0.02, 0.015, 0.015, 0.015}};
        struct run r = {.budget = 100};
        virtual_faults_none(&r.faults);
        r.faults.cv = 0.005;
        memcpy(sp.rank, (uint32_t[]){0, 3, 1, 2}, 16);
        search_space(&sp, &r, i);
        assert_true(r.out.proved);
        simplest += r.out.chosen == 2;
        search_free(&r.out);
    }
    assert_true(simplest >= 48);
}

static void small_spaces(void **state)
{
    struct space sp = {.n = 0};
    struct run r = {.budget = 10};
    struct virtual_timer t;
    struct search_out out;
    kt_err err = {0};
    (void)state;
    virtual_faults_none(&r.faults);
    struct virtual_source src = {&sp, source};
    struct search_in in = {.n = 0, .budget_seconds = 10};
    virtual_open(&t, &src, &r.faults, 1);
    assert_int_equal(search_run(&in, &t.timer, &out, &err), KT_E_INVALID);
    sp = (struct space){.n = 1, .seconds = {0.01}};
    search_space(&sp, &r, 1);
    assert_int_equal(r.out.chosen, 0);
    assert_false(r.out.proved);
    assert_int_equal(r.out.stop, SEARCH_EXHAUSTED);
    assert_int_equal(r.out.samples, 0);
    search_free(&r.out);
    sp = (struct space){.n = 2, .seconds = {0.01, 0.008}, .rank = {0, 1}};
    r.faults.cv = 0.01;
    search_space(&sp, &r, 1);
    assert_true(r.out.proved);
    assert_int_equal(r.out.chosen, 1);
    assert_int_equal(r.out.stop, SEARCH_PROVED);
    assert_true(r.out.gain.lo < 0.25 && r.out.gain.hi > 0.25);
    search_free(&r.out);
}

static void failing_configs(void **state)
{
    struct space sp;
    struct run r = {.budget = 60};
    (void)state;
    virtual_faults_none(&r.faults);
    r.faults.cv = 0.01;
    make_space(&sp, 3);
    for (uint32_t k = 0; k < sp.n; k++)
        if (k != sp.reference)
            sp.seconds[k] = -1;
    search_space(&sp, &r, 3);
    assert_int_equal(r.out.chosen, sp.reference);
    assert_false(r.out.proved);
    assert_int_equal(r.out.failed, sp.n - 1);
    assert_int_equal(r.out.stop, SEARCH_EXHAUSTED);
    search_free(&r.out);
    make_space(&sp, 3); /* the default fails: nothing to compare with */
    sp.seconds[sp.reference] = -1;
    struct virtual_timer t;
    struct virtual_source src = {&sp, source};
    struct search_in in = {
        .n = sp.n, .reference = sp.reference, .rank = sp.rank, .budget_seconds = 10};
    kt_err err = {0};
    virtual_open(&t, &src, &r.faults, 1);
    assert_int_equal(search_run(&in, &t.timer, &r.out, &err), KT_E_DEVICE);
}

static void great_noise_ranks_nothing_close(void **state)
{
    uint32_t proved = 0;
    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        struct space sp = {.n = 3, .reference = 0, .seconds = {0.02, 0.0194, 0.0193}};
        struct run r = {.budget = 100};
        virtual_faults_none(&r.faults);
        r.faults.cv = 0.2;
        search_space(&sp, &r, i);
        proved += r.out.proved;
        search_free(&r.out);
    }
    assert_true(proved <= 3);
}

struct stop_after {
    volatile sig_atomic_t stop;
    uint32_t rounds, left;
};

static void count_round(void *user, const struct search_progress *p)
{
    struct stop_after *a = user;
    (void)p;
    a->rounds++;
    if (a->left > 0 && --a->left == 0)
        a->stop = 1;
}

static void interruption_leaves_an_answer(void **state)
{
    struct stop_after a = {0};
    uint32_t proved = 0;
    (void)state;
    for (uint32_t after = 1; after < 60; after++) {
        struct space sp;
        struct virtual_timer t;
        struct virtual_faults f;
        struct search_out out;
        kt_err err = {0};
        struct virtual_source src = {&sp, source};
        make_space(&sp, 4);
        virtual_faults_none(&f);
        f.cv = 0.01;
        virtual_open(&t, &src, &f, 4);
        a = (struct stop_after){.left = after};
        struct search_in in = {.n = sp.n,
                               .reference = sp.reference,
                               .rank = sp.rank,
                               .budget_seconds = 300,
                               .seed = 4,
                               .stop = &a.stop,
                               .progress = count_round,
                               .user = &a};
        assert_int_equal(search_run(&in, &t.timer, &out, &err), KT_OK);
        if (a.stop) {
            assert_true(out.interrupted);
            assert_string_not_equal(out.missing, "");
        }
        assert_true(sp.seconds[out.chosen] <= sp.seconds[sp.reference]);
        assert_true(out.proved || out.chosen == sp.reference);
        proved += out.proved;
        search_free(&out);
    }
    assert_true(proved > 0);
}

static void memory_may_fail(void **state)
{
    kt_status st = KT_E_NOMEM;
    (void)state;
    for (long n = 0; st != KT_OK; n++) {
        static struct space sp;
        struct virtual_timer t;
        struct virtual_faults f;
        struct search_out out;
        kt_err err = {0};
        struct virtual_source src = {&sp, source};
        make_space(&sp, 4);
        virtual_faults_none(&f);
        virtual_open(&t, &src, &f, 4);
        struct search_in in = {.n = sp.n, .reference = 7, .rank = sp.rank, .budget_seconds = 5};
        mem_fail_after(n);
        st = search_run(&in, &t.timer, &out, &err);
        mem_fail_after(-1);
        assert_true(st == KT_OK || st == KT_E_NOMEM);
        assert_true(n < 100);
        if (st == KT_OK)
            search_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regret_is_small),
        cmocka_unit_test(drift_does_not_matter),
        cmocka_unit_test(disturbances_do_not_flip),
        cmocka_unit_test(budget_is_kept),
        cmocka_unit_test(same_seed_same_answer),
        cmocka_unit_test(no_gain_keeps_the_default),
        cmocka_unit_test(equal_ones_give_the_simplest),
        cmocka_unit_test(small_spaces),
        cmocka_unit_test(failing_configs),
        cmocka_unit_test(great_noise_ranks_nothing_close),
        cmocka_unit_test(interruption_leaves_an_answer),
        cmocka_unit_test(memory_may_fail),
    };
    return cmocka_run_group_tests_name("search", tests, NULL, NULL);
}
