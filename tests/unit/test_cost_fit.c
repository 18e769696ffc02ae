/* test_cost_fit.c - the cost model against a public table: 33 decode speeds of Qwen3-Next-80B
 * (48 layers, 512 experts, 10 per token) at eleven shares of experts in VRAM, published by
 * KTransformers. Three constants (base, s, c) are fitted by least squares of relative errors; the
 * model has no formula of its own here: every time is a sum of the product's cost_layer_time over
 * m ~ Binomial(k, 1 - f), or over complete layers for front-loading. Bounds and golden columns are
 * those of docs/COST.md.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "cost/cost.h"

#define LAYERS 48
#define TOP_K 10
#define POINTS 11
#define COLUMNS 3 /* random, uniform, front-loading */

static const double published[COLUMNS][POINTS] = {
    {53.01, 56.63, 58.75, 62.86, 66.81, 70.38, 71.33, 74.40, 79.71, 88.82, 112.61},
    {52.96, 56.57, 60.28, 62.08, 66.82, 65.25, 72.80, 76.17, 79.20, 81.06, 112.32},
    {54.18, 57.18, 58.82, 63.87, 67.45, 73.65, 77.95, 81.59, 89.20, 98.14, 111.82},
};
static const double golden[2][POINTS] = {
    /* base 9.1 ms, s 44 us, c 15 us: random and uniform; front-loading */
    {54.312, 56.523, 58.921, 61.531, 64.384, 67.522, 71.027, 75.118, 80.481, 89.321, 109.890},
    {54.312, 57.206, 60.424, 64.027, 68.086, 72.696, 77.974, 84.079, 91.221, 99.689, 109.890},
};

struct fit {
    double base, s, c; /* seconds */
};

static double layer(const struct fit *v, double missing)
{
    struct cost_rates r = {.cpu_bytes_per_second = 1,
                           .cpu_ops_per_second = (double)INFINITY,
                           .fast_bytes_per_second = (double)INFINITY,
                           .fast_ops_per_second = (double)INFINITY,
                           .join_seconds = v->s};
    struct cost_expert x = {.bytes = v->c, .ops_per_token = 1};
    struct cost_load l = {.resident = TOP_K - missing, .missing = missing, .tokens = 1};
    return cost_layer_time(&r, &x, v->base / LAYERS, &l, NULL);
}

static double choose(int n, int k)
{
    double c = 1;
    for (int i = 1; i <= k; i++)
        c = c * (n - k + i) / i;
    return c;
}

/* Seconds of a step at f; column 2 is front-loading: complete layers first. */
static double step(const struct fit *v, int column, double f)
{
    double sum = 0;
    if (column == 2)
        return LAYERS * (f * layer(v, 0) + (1 - f) * layer(v, TOP_K));
    for (int m = 0; m <= TOP_K; m++)
        sum += choose(TOP_K, m) * pow(1 - f, m) * pow(f, TOP_K - m) * layer(v, m);
    return LAYERS * sum;
}

static double rms(const struct fit *v, unsigned columns)
{
    double sum = 0;
    int n = 0;
    for (int col = 0; col < COLUMNS; col++)
        for (int i = 0; i < POINTS && (columns >> col & 1) != 0; i++, n++)
            sum += pow(1 - published[col][i] * step(v, col, i / 10.0), 2);
    return sqrt(sum / n);
}

/* Normal equations of sum (1 - y*T)^2; T is linear in the constants, so its coefficients are the
 * times with one of them 1 and the others 0. */
static struct fit solve(unsigned columns, bool with_s)
{
    static const struct fit unit[3] = {{1, 0, 0}, {0, 0, 1}, {0, 1, 0}};
    double a[3][4] = {{0}}, v[3] = {0};
    int n = with_s ? 3 : 2;
    for (int col = 0; col < COLUMNS; col++)
        for (int i = 0; i < POINTS && (columns >> col & 1) != 0; i++) {
            double g[3];
            for (int k = 0; k < n; k++)
                g[k] = published[col][i] * step(&unit[k], col, i / 10.0);
            for (int r = 0; r < n; r++) {
                for (int k = 0; k < n; k++)
                    a[r][k] += g[r] * g[k];
                a[r][3] += g[r];
            }
        }
    for (int p = 0; p < n; p++)
        for (int r = 0; r < n; r++) {
            double q = r == p ? 0 : a[r][p] / a[p][p];
            for (int k = 0; k < 4 && r != p; k++)
                a[r][k] -= q * a[p][k];
        }
    for (int p = 0; p < n; p++)
        v[p] = a[p][3] / a[p][p];
    return (struct fit){v[0], v[2], v[1]};
}

static void fits_the_public_table(void **state)
{
    struct fit v = solve(7, true);
    (void)state;
    print_message("base %.3f ms, s %.1f us, c %.2f us, RMS %.3f %%\n", v.base * 1e3, v.s * 1e6,
                  v.c * 1e6, 100 * rms(&v, 7));
    assert_true(rms(&v, 7) <= 0.03);
    assert_true(v.base >= 9.0e-3 && v.base <= 9.2e-3);
    assert_true(v.s >= 40e-6 && v.s <= 50e-6);
    assert_true(v.c >= 14.2e-6 && v.c <= 15.4e-6);
}

static void golden_columns(void **state)
{
    const struct fit v = {9.1e-3, 44e-6, 15e-6};
    (void)state;
    for (int i = 0; i < POINTS; i++)
        for (int g = 0; g < 2; g++)
            assert_true(fabs(1 / step(&v, g == 0 ? 1 : 2, i / 10.0) - golden[g][i]) <= 0.001);
    assert_true(fabs(rms(&v, 7) - 0.02577) <= 0.00001);
}

static void the_join_is_real(void **state)
{
    struct fit v = solve(7, false);
    (void)state;
    assert_true(fabs(rms(&v, 7) - 0.0515) <= 0.0005);
}

static void each_column_is_predicted_by_the_others(void **state)
{
    static const double expected[COLUMNS] = {0.025, 0.037, 0.023};
    (void)state;
    for (int col = 0; col < COLUMNS; col++) {
        struct fit v = solve(7u & ~(1u << col), true);
        double e = rms(&v, 1u << col);
        print_message("column %d from the other two: RMS %.2f %%\n", col + 1, 100 * e);
        assert_true(e <= 0.04);
        assert_true(fabs(e - expected[col]) <= 0.001);
    }
}

/* The largest residual is the uniform column at 0.9, 9.3 % slower than the model. */
static void largest_residual(void **state)
{
    const struct fit v = {9.1e-3, 44e-6, 15e-6};
    double worst = 0;
    int at = -1;
    (void)state;
    for (int col = 0; col < COLUMNS; col++)
        for (int i = 0; i < POINTS; i++) {
            double e = 1 - published[col][i] * step(&v, col, i / 10.0);
            if (fabs(e) > fabs(worst)) {
                worst = e;
                at = 100 * col + i;
            }
        }
    assert_int_equal(at, 109);
    assert_true(fabs(worst) > 0.09 && fabs(worst) < 0.10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fits_the_public_table),
        cmocka_unit_test(golden_columns),
        cmocka_unit_test(the_join_is_real),
        cmocka_unit_test(each_column_is_predicted_by_the_others),
        cmocka_unit_test(largest_residual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
