/* test_fast_router.c - what --fast-bf16 permits reaches experts and dense matrices, and never a
 * router: a rounded input could choose other experts. Looks at the kernels that an engine gives to
 * matrices of each kind; nothing is loaded. Skips on CPUs without AVX512-BF16. One thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(routers_stay_canonical)};
    if ((kern_find(KERN_GEMM, DT_BF16, kern_isa_host() | KERN_FAST_BF16, NULL)->isa &
         KERN_FAST_BF16) == 0) {
        puts("this CPU or this build has no AVX512-BF16");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
