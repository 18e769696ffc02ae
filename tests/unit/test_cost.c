/* test_cost.c - properties of the cost functions over the standard rate sets (server, desktop,
 * laptop) and random ones: more hits are never slower, faster parts are never slower, the chosen
 * q and j equal brute force, the expectation equals the sum written out, and the examples of the
 * documents come out.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "cost/cost.h"

#define N_SETS 40

static uint64_t seed = 20261121;

static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

/* The three documented sets, then random ones within their range. */
static struct cost_rates rates_of(int i)
{
    static const double known[3][8] = {/* B_C B_D B_P B_G s g0 mrg P_C */
                                       {220, 400, 25, 800, 44, 20, 8, 20},
                                       {55, 75, 50, 1200, 30, 15, 6, 4},
                                       {35, 60, 12, 350, 25, 15, 6, 2}};
    double v[8];
    for (int k = 0; k < 8; k++)
        v[k] = i < 3 ? known[i][k] : known[i % 3][k] * exp(2 * uniform() - 1);
    if (v[2] > v[1])
        v[2] = v[1];
    return (struct cost_rates){.cpu_bytes_per_second = v[0] * 1e9,
                               .cpu_ops_per_second = v[7] * 1e12,
                               .dram_bytes_per_second = v[1] * 1e9,
                               .link_bytes_per_second = v[2] * 1e9,
                               .fast_bytes_per_second = v[3] * 1e9,
                               .fast_ops_per_second = 200e12,
                               .overlap = 0.5,
                               .join_seconds = v[4] * 1e-6,
                               .launch_seconds = v[5] * 1e-6,
                               .merge_seconds = v[6] * 1e-6};
}

static const struct cost_expert expert = {.bytes = 3.06e6, .ops_per_token = 2 * 4.72e6};

static double decode(const struct cost_rates *r, double h, double m, double q, double n)
{
    struct cost_load l = {.resident = h, .missing = m, .fetched = q, .tokens = n};
    return cost_layer_time(r, &expert, 50e-6, &l, NULL);
}

static void the_formula(void **state)
{
    struct cost_rates r = rates_of(0);
    struct cost_terms t;
    struct cost_load l = {.resident = 3, .missing = 5, .fetched = 2, .tokens = 1};
    (void)state;
    double b = expert.bytes, bc = 220e9 * (1 - 0.5 * 25.0 / 400), cpu = 44e-6 + 3 * b / bc,
           link = 2 * b / 25e9 + 2 * b / 800e9, fast = 20e-6 + 3 * b / 800e9;
    assert_true(fabs(cost_layer_time(&r, &expert, 60e-6, &l, &t) - (60e-6 + link + 8e-6)) < 1e-15);
    assert_true(link > cpu && link > fast);
    assert_true(fabs(t.cpu - cpu) < 1e-15 && fabs(t.fast - fast) < 1e-15 &&
                fabs(t.link - link) < 1e-15);
    /* all resident: neither join nor merge; nothing fetched: the CPU reads at its full rate */
    assert_true(fabs(decode(&r, 8, 0, 0, 1) - (50e-6 + 20e-6 + 8 * b / 800e9)) < 1e-15);
    assert_true(fabs(decode(&r, 0, 8, 0, 1) - (50e-6 + 44e-6 + 8 * b / 220e9 + 8e-6)) < 1e-15);
    /* everything fetched: no join */
    assert_true(fabs(decode(&r, 0, 8, 8, 1) - (50e-6 + 8 * (b / 25e9 + b / 800e9) + 8e-6)) < 1e-15);
    /* many tokens on an expert: arithmetic takes longer than bytes */
    assert_true(fabs(decode(&r, 0, 1, 0, 1000) -
                     (50e-6 + 44e-6 + 1000 * expert.ops_per_token / 20e12 + 8e-6)) < 1e-12);
}

/* A hit shortens the layer as long as the CPU side stays the longer one; beyond that it costs at
 * most what the fast side gets longer. */
static void more_hits_are_never_slower(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        struct cost_rates r = rates_of(i);
        for (int h = 0; h < 8; h++) {
            struct cost_load l = {.resident = h + 1, .missing = 7 - h, .tokens = 1};
            struct cost_terms t;
            double was = decode(&r, h, 8 - h, 0, 1),
                   now = cost_layer_time(&r, &expert, 50e-6, &l, &t);
            assert_true(now <= was + expert.bytes / r.fast_bytes_per_second + 1e-15);
            assert_true(t.cpu < t.fast || now < was);
        }
    }
}

static void faster_parts_are_never_slower(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        struct cost_rates r = rates_of(i);
        double was = decode(&r, 3, 5, 2, 4), now;
        for (int k = 0; k < 6; k++) {
            struct cost_rates f = r;
            double *up[6] = {&f.cpu_bytes_per_second,  &f.cpu_ops_per_second,
                             &f.dram_bytes_per_second, &f.link_bytes_per_second,
                             &f.fast_bytes_per_second, &f.fast_ops_per_second};
            *up[k] *= 1.5;
            /* a faster link may starve the CPU: that is what eta says */
            now = decode(&f, 3, 5, 2, 4);
            assert_true(k == 3 || now <= was);
        }
        assert_true(decode(&r, 3, 6, 0, 1) >= decode(&r, 3, 5, 0, 1));
        assert_true(decode(&r, 3, 5, 0, 9) >= decode(&r, 3, 5, 0, 1));
    }
}

static void best_fetch_is_brute_force(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        struct cost_rates r = rates_of(i);
        for (uint32_t m = 0; m <= 64; m++)
            for (double n = 1; n <= 512; n *= 8) {
                struct cost_load l = {.resident = 4, .missing = m, .tokens = n};
                uint32_t q = cost_best_fetch(&r, &expert, 50e-6, &l);
                double least = (double)INFINITY, mine = decode(&r, 4, m, q, n);
                for (uint32_t k = 0; k <= m; k++)
                    least = fmin(least, decode(&r, 4, m, k, n));
                assert_true(q <= m);
                assert_true(mine <= least * (1 + 1e-12));
            }
        r.link_bytes_per_second = 0;
        struct cost_load l = {.resident = 0, .missing = 8, .tokens = 1};
        assert_int_equal(cost_best_fetch(&r, &expert, 0, &l), 0);
    }
    /* documented: batch 1 on the server profile fetches nothing, the desktop does */
    struct cost_rates server = rates_of(0), desktop = rates_of(1);
    struct cost_load l = {.resident = 5, .missing = 3, .tokens = 1};
    assert_int_equal(cost_best_fetch(&server, &expert, 0, &l), 0);
    assert_true(cost_best_fetch(&desktop, &expert, 0, &l) > 0);
}

static void expectation_is_the_sum(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        struct cost_rates r = rates_of(i);
        r.link_bytes_per_second = 0;
        for (double f = 0; f <= 1.001; f += 0.125) {
            struct cost_load l = {.resident = 10 * f, .missing = 10 * (1 - f), .tokens = 1};
            struct cost_terms t;
            double sum = 0, c = 1;
            for (int m = 0; m <= 10; c = c * (10 - m) / (m + 1), m++)
                sum += c * pow(1 - f, m) * pow(f, 10 - m) * decode(&r, 10 - m, m, 0, 1);
            double mine = cost_layer_expected(&r, &expert, 50e-6, &l, &t);
            assert_true(fabs(mine / sum - 1) < 1e-9);
            assert_true(fabs(t.total - mine) < 1e-15);
        }
        /* a fraction lies between its neighbours; hundreds of experts do not underflow */
        struct cost_load a = {.resident = 1, .missing = 20, .tokens = 1},
                         b = {.resident = 21.5 / 21, .missing = 21.5 / 21 * 20, .tokens = 1},
                         big = {.resident = 3, .missing = 253, .tokens = 1};
        assert_true(cost_layer_expected(&r, &expert, 0, &b, NULL) >
                    cost_layer_expected(&r, &expert, 0, &a, NULL));
        double many = cost_layer_expected(&r, &expert, 0, &big, NULL);
        assert_true(many > 253 * 0.9 * expert.bytes / r.cpu_bytes_per_second && isfinite(many));
    }
}

static void distinct_experts(void **state)
{
    (void)state;
    assert_true(fabs(cost_distinct(256, 8, 1) - 8) < 1e-9);
    assert_int_equal((int)(cost_distinct(256, 8, 32) + 0.5), 163); /* the documented example */
    assert_true(fabs(cost_distinct(4, 4, 3) - 4) < 1e-9);
    assert_true(cost_distinct(0, 0, 1) == 0);
}

static void best_chunk_is_brute_force(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETS; i++) {
        struct cost_rates r = rates_of(i);
        uint32_t resident[20], missing[60], j;
        for (int k = 0; k < 20; k++)
            resident[k] = (uint32_t)(uniform() * 200);
        for (int k = 0; k < 60; k++) /* descending, zeros at the end */
            missing[k] = k < 50 ? (uint32_t)((50 - k) * (i + 1)) : 0;
        struct cost_chunk c = {resident, missing, 20, 60};
        double mine = cost_chunk_best(&r, &expert, 1e-3, &c, &j), least = (double)INFINITY;
        for (uint32_t k = 0; k <= 50; k++)
            least = fmin(least, cost_chunk_time(&r, &expert, 1e-3, &c, k));
        assert_true(fabs(mine / least - 1) < 1e-12);
        assert_true(fabs(cost_chunk_time(&r, &expert, 1e-3, &c, j) / least - 1) < 1e-12);
        r.link_bytes_per_second = 0;
        (void)cost_chunk_best(&r, &expert, 1e-3, &c, &j);
        assert_int_equal(j, 0);
    }
}

/* 4.5 bits per weight at 25 GB/s: 22 tokens at 2 TFLOP/s, 225 at 20. */
static void copy_or_compute(void **state)
{
    struct cost_expert x = {.bytes = 4.5 / 8 * 1e6, .ops_per_token = 2e6};
    struct cost_rates r = {.cpu_ops_per_second = 2e12, .link_bytes_per_second = 25e9};
    (void)state;
    assert_int_equal((int)cost_copy_tokens(&r, &x), 22);
    r.cpu_ops_per_second = 20e12;
    assert_int_equal((int)cost_copy_tokens(&r, &x), 225);
    r.link_bytes_per_second = 0;
    assert_true(isinf(cost_copy_tokens(&r, &x)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_formula),
        cmocka_unit_test(more_hits_are_never_slower),
        cmocka_unit_test(faster_parts_are_never_slower),
        cmocka_unit_test(best_fetch_is_brute_force),
        cmocka_unit_test(expectation_is_the_sum),
        cmocka_unit_test(distinct_experts),
        cmocka_unit_test(best_chunk_is_brute_force),
        cmocka_unit_test(copy_or_compute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
