/* test_fast_router.c - what --fast-bf16 permits reaches experts and dense matrices, and never a
 * router: a rounded input could choose other experts. Looks at the kernels that an engine gives to
 * matrices of each kind; nothing is loaded. Also what goes with it: the crossover and --cpu-mask.
 * Skips on CPUs without AVX512-BF16. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"

static uint32_t isa_of(bool fast, bool exact, enum dtype t)
{
    struct kt_engine e = {.isa = kern_isa_host()};
    struct eng_mat m = {.type = t, .layout = KERN_P16, .rows = 128, .k = 2048, .exact = exact};
    if (fast)
        e.fast = KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16 | KERN_FAST_BF16;
    assert_true(eng_mat_kernels(&e, &m));
    assert_true((m.gemv->isa & KERN_FAST_BF16) == 0);
    return m.gemm->isa;
}

static void routers_stay_canonical(void **s)
{
    static const enum dtype types[] = {DT_BF16, DT_FP8};
    (void)s;
    for (size_t i = 0; i < 2; i++) {
        assert_true((isa_of(true, false, types[i]) & KERN_FAST_BF16) != 0);
        assert_true((isa_of(true, true, types[i]) & KERN_FAST_BF16) == 0);
        assert_true((isa_of(false, false, types[i]) & KERN_FAST_BF16) == 0);
    }
}

/* Where GEMM replaces GEMV was measured with the canonical kernels: it holds for those alone. */
static void measured_crossover_is_of_the_canonical_kernels(void **s)
{
    static const enum dtype types[] = {DT_BF16, DT_FP8};
    (void)s;
    for (size_t i = 0; i < 2; i++) {
        struct kt_engine e = {.isa = kern_isa_host()};
        struct eng_mat m = {.type = types[i], .layout = KERN_P16, .rows = 128, .k = 2048};
        e.gemv_rows[types[i]] = 23;
        assert_true(eng_mat_kernels(&e, &m));
        assert_int_equal(m.gemv_rows, 23);
        e.fast = KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16 | KERN_FAST_BF16;
        assert_true(eng_mat_kernels(&e, &m));
        assert_int_equal(m.gemv_rows, m.gemv->tok_tile);
        m.exact = true;
        assert_true(eng_mat_kernels(&e, &m));
        assert_int_equal(m.gemv_rows, 23);
    }
}

/* --cpu-mask is the highest level that may run, also of kernels that are permitted apart. */
static void a_level_below_it_refuses(void **s)
{
    kt_moe_opts o;
    kt_moe *op;
    kt_err err;
    (void)s;
    kt_moe_opts_init(&o);
    o.n_experts = 4, o.top_k = 2, o.hidden = 128, o.inter = 64, o.max_tokens = 8;
    o.format = "bf16";
    o.fast_bf16 = true;
    o.cpu_mask = "avx2";
    assert_int_equal(kt_moe_open(&o, &op, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "--cpu-mask avx2"));
    o.cpu_mask = "avx512";
    assert_int_equal(kt_moe_open(&o, &op, &err), KT_OK);
    kt_moe_close(op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routers_stay_canonical),
        cmocka_unit_test(measured_crossover_is_of_the_canonical_kernels),
        cmocka_unit_test(a_level_below_it_refuses)};
    if ((kern_find(KERN_GEMM, DT_BF16, kern_isa_host() | KERN_FAST_BF16, NULL)->isa &
         KERN_FAST_BF16) == 0) {
        puts("this CPU or this build has no AVX512-BF16");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
