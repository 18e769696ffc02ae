/* test_stats.c - medians, quartiles, confidence by order statistics, drift and correlation, against
 * values worked out by hand (numpy's linear quantiles, binomial tables), and the child runner:
 * samples, failures, signals, deadlines.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tuner/measure.h"
#include "tuner/stats.h"

static void quartiles_interpolate(void **state)
{
    (void)state;
    double v[] = {7, 1, 3, 2}, one[] = {5}, odd[] = {9, 1, 5, 3, 7};
    struct stats s;
    stats_of(v, 4, &s);
    assert_float_equal(s.median, 2.5, 0);
    assert_float_equal(s.q1, 1.75, 0);
    assert_float_equal(s.q3, 4.0, 0);
    assert_float_equal(s.min, 1, 0);
    assert_float_equal(s.max, 7, 0);
    assert_false(s.has_ci);
    stats_of(one, 1, &s);
    assert_true(s.median == 5 && s.q1 == 5 && s.q3 == 5 && s.min == 5 && s.max == 5);
    stats_of(odd, 5, &s);
    assert_true(s.median == 5 && s.q1 == 3 && s.q3 == 7);
    assert_float_equal(stats_spread(&s), 0.8, 1e-12);
}

static void confidence_ranks(void **state)
{
    /* from tables of the binomial distribution with p = 1/2 */
    static const struct {
        size_t n, rank;
    } known[] = {{0, 0},  {1, 0},  {5, 0},  {6, 1},   {8, 1},   {9, 2},   {11, 2},  {12, 3},
                 {15, 4}, {20, 6}, {25, 8}, {30, 10}, {40, 14}, {50, 18}, {100, 40}};
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_int_equal(stats_ci_rank(known[i].n), known[i].rank);
    size_t last = 0;
    for (size_t n = 6; n < 3000; n++) {
        size_t l = stats_ci_rank(n);
        assert_true(l >= 1 && 2 * l <= n + 1);
        assert_true(l + 1 >=
                    last); /* grows, one step of slack at the change to the normal approximation */
        last = l;
    }
    double v[20];
    struct stats s;
    for (int i = 0; i < 20; i++)
        v[i] = 20 - i;
    stats_of(v, 20, &s);
    assert_true(s.has_ci && s.ci_lo == 6 && s.ci_hi == 15);
}

static void time_order_matters(void **state)
{
    (void)state;
    double rising[9], alternating[10], flat[6] = {2, 2, 2, 2, 2, 2}, work[16];
    for (int i = 0; i < 9; i++)
        rising[i] = 10 + i;
    for (int i = 0; i < 10; i++)
        alternating[i] = i % 2;
    assert_float_equal(stats_drift(rising, 9, work), 17.0 / 11.0 - 1, 1e-12);
    assert_float_equal(stats_drift(flat, 6, work), 0, 0);
    assert_true(stats_lag1(rising, 9) > 0.5);
    assert_true(stats_lag1(alternating, 10) < -0.5);
    assert_float_equal(stats_lag1(flat, 6), 0, 0);
}

/* ---- children ---- */

static int gives_samples(void *ctx, struct m_out *o)
{
    (void)ctx;
    for (int i = 0; i < 300; i++)
        m_sample(o, (uint32_t)i % 2, 1 + i % 2, i < 2 ? M_SWITCHED : M_CLEAN);
    m_note(o, 7, 3.5, "seven");
    return 0;
}

static int illegal(void *ctx, struct m_out *o)
{
    (void)ctx;
    (void)o;
    raise(SIGILL);
    return 0;
}

static int hangs(void *ctx, struct m_out *o)
{
    (void)ctx;
    m_sample(o, 0, 1, M_CLEAN);
    while (pause() < 0)
        continue;
    return 0;
}

static int explains(void *ctx, struct m_out *o)
{
    (void)ctx;
    return m_fail(o, "because");
}

static void children_are_contained(void **state)
{
    (void)state;
    struct m_result r;
    char buf[160];
    assert_int_equal(m_run(gives_samples, NULL, 10, &r, NULL), 0);
    assert_int_equal(r.end, M_DONE);
    assert_int_equal(r.n, 301);
    assert_true(m_note_value(&r, 7, 0) == 3.5 && m_note_value(&r, 8, -1) == -1);
    m_result_free(&r);
    assert_int_equal(m_run(illegal, NULL, 10, &r, NULL), 0);
    assert_int_equal(r.end, M_SIGNAL);
    assert_non_null(strstr(m_reason(&r, buf, sizeof buf), "signal 4"));
    m_result_free(&r);
    assert_int_equal(m_run(hangs, NULL, 0.2, &r, NULL), 0);
    assert_int_equal(r.end, M_TIMEOUT);
    assert_int_equal(r.n, 1);
    assert_non_null(strstr(m_reason(&r, buf, sizeof buf), "killed after"));
    m_result_free(&r);
    assert_int_equal(m_run(explains, NULL, 10, &r, NULL), 0);
    assert_string_equal(m_reason(&r, buf, sizeof buf), "because");
    m_result_free(&r);
    assert_int_equal(m_run(explains, NULL, 0, &r, NULL), 0);
    assert_int_equal(r.end, M_NOT_STARTED);
    m_result_free(&r);
}

static void entries_say_what_was_dropped(void **state)
{
    (void)state;
    struct m_result r;
    struct m_desc d = {
        .id = "mem.read:node0.t1", .what = "w", .unit = "bytes_per_second", .method = "m"};
    assert_int_equal(m_run(gives_samples, NULL, 10, &r, NULL), 0);
    json_t *m = m_json(&d, &r, 0);
    assert_int_equal(json_integer_value(json_object_get(m, "n")), 149);
    assert_int_equal(json_integer_value(json_object_get(m, "n_discarded")), 1);
    assert_int_equal(json_integer_value(
                         json_object_get(json_object_get(m, "discards"), "involuntary_ctx_switch")),
                     1);
    assert_string_equal(json_string_value(json_object_get(m, "status")), "ok");
    assert_true(json_number_value(json_object_get(m, "median")) == 1);
    json_decref(m);
    m = m_json(&d, &r, 5); /* no samples */
    assert_string_equal(json_string_value(json_object_get(m, "status")), "failed");
    assert_null(json_object_get(m, "median"));
    json_decref(m);
    m_result_free(&r);
}

struct slow {
    int calls[3];
};

static double slow_sample(void *ctx, uint32_t point)
{
    struct slow *s = ctx;
    s->calls[point]++;
    return point == 2 && s->calls[2] > 1 ? -1 : 1.0 + point;
}

static int rounds_child(void *ctx, struct m_out *o)
{
    struct m_rounds r = {
        .n_points = 3, .sample = slow_sample, .ctx = ctx, .seed = 5, .seconds = 5, .max_rounds = 8};
    m_rounds(o, &r);
    return 0;
}

static void rounds_interleave(void **state)
{
    (void)state;
    struct slow s = {{0}};
    struct m_result r;
    size_t per_point[3] = {0};
    assert_int_equal(m_run(rounds_child, &s, 20, &r, NULL), 0);
    assert_int_equal(r.end, M_DONE);
    for (size_t i = 0; i < r.n; i++)
        if (r.records[i].kind == M_SAMPLE)
            per_point[r.records[i].point]++;
    assert_int_equal(per_point[0], 8);
    assert_int_equal(per_point[1], 8);
    assert_int_equal(per_point[2], 0); /* failed in its first round and was dropped */
    m_result_free(&r);
}

static double long_sample(void *ctx, uint32_t point)
{
    (void)ctx;
    usleep(30000);
    return 1.0 + point;
}

static int budget_child(void *ctx, struct m_out *o)
{
    struct m_rounds r = {.n_points = 10,
                         .sample = long_sample,
                         .ctx = ctx,
                         .seed = 5,
                         .seconds = 0.7,
                         .max_rounds = 20,
                         .budget = true};
    m_rounds(o, &r);
    return 0;
}

/* Ten points of 30 ms in 0.7 s: the first ones stay, whoever is left out says why. However slow the
 * machine: the last one cannot have six rounds, and the first one always has a sample. */
static void rounds_keep_to_a_budget(void **state)
{
    (void)state;
    struct m_result r;
    struct m_desc d = {.id = "expert.gemv:f32.ref.m1", .what = "w", .unit = "u", .method = "m"};
    size_t samples = 0;
    uint32_t kept = 10;
    assert_int_equal(m_run(budget_child, NULL, 60, &r, NULL), 0);
    assert_int_equal(r.end, M_DONE);
    for (size_t i = 0; i < r.n; i++) {
        samples += r.records[i].kind == M_SAMPLE && r.records[i].point == 0;
        if (r.records[i].kind == M_GIVEN_UP && r.records[i].point < kept)
            kept = r.records[i].point;
    }
    assert_true(samples > 0 && kept > 0 && kept < 10);
    for (uint32_t point = 0; point < 10; point++) {
        json_t *m = m_json(&d, &r, point);
        const char *status = json_string_value(json_object_get(m, "status")),
                   *reason = json_string_value(json_object_get(m, "reason"));
        assert_int_equal(strcmp(status, "failed") == 0, point >= kept);
        if (point >= kept)
            assert_non_null(strstr(reason, "no time was left"));
        json_decref(m);
    }
    m_result_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quartiles_interpolate),        cmocka_unit_test(confidence_ranks),
        cmocka_unit_test(time_order_matters),           cmocka_unit_test(children_are_contained),
        cmocka_unit_test(rounds_keep_to_a_budget),      cmocka_unit_test(rounds_interleave),
        cmocka_unit_test(entries_say_what_was_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
