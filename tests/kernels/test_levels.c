/* test_levels.c - every weight format has a product for few and for many tokens at each level of
 * instructions, and every other operation has one too: no format falls back to a lower level
 * because nobody wrote its rows. Holds the table only; checkkern holds what the rows compute.
 *
 * Formats with fp32 activations (BF16, F16, FP8, F32) use no dot-product instruction, so their
 * rows of the level below serve the VNNI levels too. Variants that configure left out are not asked
 * for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "config.h"
#include "kern.h"

static const enum dtype formats[] = {
    DT_F32,  DT_BF16, DT_F16,  DT_FP8,  DT_INT8, DT_INT4, DT_MXFP4, DT_Q8_0,   DT_Q4_0,  DT_Q4_1,
    DT_Q5_0, DT_Q5_1, DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K,  DT_IQ4_NL, DT_IQ4_XS};
#define N_FORMATS (sizeof formats / sizeof formats[0])

/* adds: the bit that a level has and the one before lacks */
static const struct level {
    const char *name;
    uint32_t adds;
    bool built;
} levels[] = {{"ref", 0, true},
              {"avx2", KERN_ISA_AVX2, KT_HAVE_AVX2},
              {"avxvnni", KERN_ISA_AVXVNNI, KT_HAVE_AVXVNNI},
              {"avx512", KERN_ISA_AVX512, KT_HAVE_AVX512},
              {"avx512vnni", KERN_ISA_AVX512VNNI, KT_HAVE_AVX512VNNI}};
#define N_LEVELS (sizeof levels / sizeof levels[0])

/* What a level's best row must need. */
static uint32_t must_need(const struct level *l, int dtype)
{
    const bool dots = dtype >= 0 && kern_act_of((enum dtype)dtype) != KERN_ACT_F32;
    return dots                             ? l->adds
           : l->adds == KERN_ISA_AVXVNNI    ? KERN_ISA_AVX2
           : l->adds == KERN_ISA_AVX512VNNI ? KERN_ISA_AVX512
                                            : l->adds;
}

static int missing(enum kern_op op, int dtype, const char *what)
{
    int bad = 0;
    for (size_t i = 0; i < N_LEVELS; i++) {
        const struct level *l = &levels[i];
        if (!l->built)
            continue;
        const struct kern *k = kern_find(op, dtype, (uint32_t)kern_isa_by_name(l->name), NULL);
        if (k == NULL || (k->isa & must_need(l, dtype)) != must_need(l, dtype)) {
            print_error("%s: level %s is served by %s\n", what, l->name,
                        k != NULL ? k->name : "nothing");
            bad++;
        }
    }
    return bad;
}

static void test_formats(void **state)
{
    int bad = 0;
    char what[64];
    (void)state;
    for (size_t i = 0; i < N_FORMATS; i++)
        for (int op = KERN_GEMV; op <= KERN_GEMM; op++) {
            snprintf(what, sizeof what, "%s of %s", op == KERN_GEMV ? "GEMV" : "GEMM",
                     dtype_name(formats[i]));
            bad += missing((enum kern_op)op, (int)formats[i], what);
        }
    assert_int_equal(bad, 0);
}

/* A format that gets kernels must be in the list above. */
static void test_no_format_is_left_out(void **state)
{
    size_t n = 0;
    (void)state;
    for (int t = 0; t < DT_COUNT; t++)
        n += kern_has_dtype(t);
    assert_int_equal(n, N_FORMATS);
}

static void test_other_operations(void **state)
{
    int bad = 0;
    char what[64];
    (void)state;
    for (int op = KERN_GEMM + 1; op < KERN_OP_COUNT; op++) {
        snprintf(what, sizeof what, "operation %d of enum kern_op", op);
        bad += missing((enum kern_op)op, -1, what);
    }
    assert_int_equal(bad, 0);
}

/* The table has room for what was built: its last rows are there, and names are unique. */
static void test_table_is_whole(void **state)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    (void)state;
#if KT_HAVE_AMX
    assert_non_null(kern_by_name("gemm_q6_k_q8_amx"));
#endif
    for (size_t i = 0; i < n; i++)
        assert_ptr_equal(kern_by_name(t[i]->name), t[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats), cmocka_unit_test(test_no_format_is_left_out),
        cmocka_unit_test(test_other_operations), cmocka_unit_test(test_table_is_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
