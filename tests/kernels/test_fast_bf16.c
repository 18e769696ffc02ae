/* test_fast_bf16.c - the products that --fast-bf16 allows, BF16 and FP8, also those with AMX tiles
 * over the model of amx/tile.h: not ref's bits, so they are held to the sum in double over the same
 * rounded activations, within what fp32 sums may lose. Odd rows, columns and tokens, gathered
 * tokens; places outside the computed rows stay as they were. Skips on CPUs
 * without AVX512-BF16. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"
#include "config.h"
#include "kern.h"
#include "tables.h"

#define UNTOUCHED (-12345.5f)

static uint64_t state = 7;

static float draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int32_t)(state >> 32) * 0x1p-31);
}

/* The caller's own rounded rows give the same bits; x is not there to help. */
static void rounded_before(const struct kern *k, const struct kern_mm *a, uint32_t held,
                           const float *y)
{
    struct kern_mm m = *a;
    const size_t n = (size_t)a->n * a->ldy;
    float *again = mem_calloc(n, sizeof *again);
    m.ldb = (a->k + 31) / 32 * 32 + 32;
    uint16_t *b = mem_calloc((size_t)held * m.ldb, sizeof *b);
    memset(b, 0xff, (size_t)held * m.ldb * sizeof *b); /* NaN behind the rows */
    for (uint32_t i = 0; i < held; i++) {
        kern_round_bf16(a->x + (size_t)i * a->ldx, a->k, b + i * m.ldb);
        if (a->k % 2 != 0)
            b[i * m.ldb + a->k] = 0;
    }
    for (size_t i = 0; i < n; i++)
        again[i] = UNTOUCHED;
    m.x = NULL;
    m.b = b;
    m.y = again;
    k->run.mm(&m);
    if (memcmp(again, y, n * sizeof *y) != 0) {
        print_error("%s: columns %u tokens %u: rows rounded before give other bits\n", k->name,
                    a->k, a->n);
        fail();
    }
    mem_free(again), mem_free(b);
}

static void shape(const struct kern *k, uint32_t rows, uint32_t cols, uint32_t n, bool gather)
{
    const uint32_t held = n + (gather ? 3 : 0), ldy = rows + 5;
    const enum dtype t = (enum dtype)k->dtype;
    const size_t row_bytes = dtype_row_bytes(t, cols);
    uint8_t *file = mem_calloc(rows, row_bytes);
    float *w = mem_calloc((size_t)rows * cols, sizeof *w);
    float *x = mem_calloc((size_t)held * cols, sizeof *x), *y = mem_calloc((size_t)n * ldy, 4);
    uint32_t *tok = mem_calloc(n, sizeof *tok);
    uint8_t *packed = mem_aligned(64, kern_packed_bytes(KERN_P16, t, rows, cols));
    for (size_t i = 0; i < (size_t)rows * cols; i++)
        w[i] = draw();
    for (uint32_t r = 0; r < rows; r++) {
        assert_true(kern_quantise(t, w + (size_t)r * cols, cols, file + r * row_bytes));
        assert_true(kern_decode(t, file + r * row_bytes, cols, w + (size_t)r * cols));
    }
    for (size_t i = 0; i < (size_t)held * cols; i++)
        x[i] = draw();
    for (size_t i = 0; i < (size_t)n * ldy; i++)
        y[i] = UNTOUCHED;
    for (uint32_t i = 0; i < n; i++)
        tok[i] = gather ? (i * 7 + 2) % held : i;
    assert_int_equal(kern_pack(KERN_P16, t, file, rows, cols, packed), -1);
    struct kern_mm a = {.w = packed,
                        .k = cols,
                        .row1 = rows,
                        .n = n,
                        .tok = gather ? tok : NULL,
                        .x = x,
                        .ldx = cols,
                        .y = y,
                        .ldy = ldy};
    k->run.mm(&a);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < ldy; r++) {
            double sum = 0, size = 0, got = (double)y[(size_t)i * ldy + r];
            if (r >= rows) {
                assert_true(got == (double)UNTOUCHED);
                continue;
            }
            for (uint32_t c = 0; c < cols; c++) {
                const float rounded = bf16_to_f32(f32_to_bf16(x[(size_t)tok[i] * cols + c]));
                const double p = (double)w[(size_t)r * cols + c] * (double)rounded;
                sum += p;
                size += fabs(p);
            }
            if (fabs(got - sum) > 0x1p-22 * (double)cols * size + 0x1p-100) {
                print_error("%s: rows %u columns %u tokens %u: token %u row %u is %.9g, not %.9g\n",
                            k->name, rows, cols, n, i, r, got, sum);
                fail();
            }
        }
    if (strstr(k->name, "amx") == NULL) /* tiles take x */
        rounded_before(k, &a, held, y);
    mem_free(file), mem_free(w), mem_free(x), mem_free(y), mem_free(tok), mem_free(packed);
}

static const struct kern *fast_row(enum dtype t)
{
    return kern_find(KERN_GEMM, (int)t, kern_isa_host() | KERN_FAST_BF16, NULL);
}

static void all_shapes(const struct kern *k)
{
    static const uint32_t rows[] = {1, 16, 17, 47, 64}, cols[] = {1, 2, 31, 33, 512, 513, 1540},
                          tokens[] = {1, 2, 5, 12, 13, 37, 66};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof cols / sizeof *cols; j++)
            for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
                shape(k, rows[i], cols[j], tokens[t], (i + j + t) % 2);
}

static void sums_are_those_of_rounded_activations(void **s)
{
    (void)s;
    all_shapes(fast_row(DT_BF16));
    all_shapes(fast_row(DT_FP8));
}

static void so_are_those_of_tiles(void **s)
{
    (void)s;
#if KT_HAVE_AVX512BF16
    size_t n;
    const struct kern *k = kern_amx_bf16_emulated(&n);
    assert_int_equal(n, 2);
    all_shapes(&k[0]);
    all_shapes(&k[1]);
#endif
}

/* Every upper half, with lower halves around the ties; NaN stays NaN. One at a time and in rows. */
static void rounding_is_that_of_one_value(void **s)
{
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    float x[6 * 8 + 5];
    uint16_t b[6 * 8 + 5 + 1];
    const uint32_t n = sizeof x / sizeof *x;
    (void)s;
    for (uint32_t high = 0; high < 0x10000; high += 8) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = ((high + i / 6 % 8) & 0xffff) << 16 | low[i % 6];
            memcpy(&x[i], &bits, 4);
        }
        b[n] = 0x1234;
        kern_round_bf16(x, n, b);
        for (uint32_t i = 0; i < n; i++)
            if (isnan(x[i]) ? !isnan(bf16_to_f32(b[i])) : b[i] != f32_to_bf16(x[i]))
                fail_msg("%a gives %04x, not %04x", (double)x[i], b[i], f32_to_bf16(x[i]));
        assert_int_equal(b[n], 0x1234);
    }
}

static void nobody_gets_it_unasked(void **s)
{
    static const enum dtype types[] = {DT_BF16, DT_FP8};
    (void)s;
    assert_true((kern_isa_host() & KERN_FAST_BF16) == 0);
    for (size_t i = 0; i < 2; i++) {
        assert_true((fast_row(types[i])->isa & KERN_FAST_BF16) != 0);
        assert_true((kern_find(KERN_GEMM, (int)types[i], kern_isa_host(), NULL)->isa &
                     KERN_FAST_BF16) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_gets_it_unasked),
        cmocka_unit_test(rounding_is_that_of_one_value),
        cmocka_unit_test(sums_are_those_of_rounded_activations),
        cmocka_unit_test(so_are_those_of_tiles),
    };
    if ((fast_row(DT_BF16)->isa & KERN_FAST_BF16) == 0) {
        puts("this CPU or this build has no AVX512-BF16");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
