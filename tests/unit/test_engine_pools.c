/* test_engine_pools.c - the engine over several pools on a machine that may have one node: this
 * program brings its own plan (in place of src/plan's), so matrices are split by uneven shares of
 * rows among one to four pools, with one or two workers each. The logits must be the same bits
 * every time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kt.h"
#include "plan/plan.h"

#define VOCAB 1280

static uint32_t pools_wanted;

void plan_opts_init(struct plan_opts *o)
{
    memset(o, 0, sizeof *o);
    o->reserve = -1;
    o->isa_mask = UINT32_MAX;
}

kt_status plan_host(const struct host *h, const struct plan_opts *o, struct plan **out, kt_err *err)
{
    static const double share[4][4] = {{1}, {0.7, 0.3}, {0.43, 0.43, 0.14}, {0.01, 0.49, 0, 0.5}};
    (void)h;
    (void)o;
    (void)err;
    struct plan *p = mem_calloc(1, sizeof *p);
    assert_non_null(p);
    p->n_pools = pools_wanted;
    p->pools = mem_calloc(pools_wanted, sizeof *p->pools);
    assert_non_null(p->pools);
    for (uint32_t i = 0; i < pools_wanted; i++) {
        p->pools[i].node = -1;
        p->pools[i].share = share[pools_wanted - 1][i];
        p->pools[i].threads = 1 + i % 2;
        p->n_threads += p->pools[i].threads;
    }
    *out = p;
    return KT_OK;
}

void plan_free(struct plan *p)
{
    if (p != NULL)
        mem_free(p->pools);
    mem_free(p);
}

void plan_print(const struct plan *p, struct strbuf *out)
{
    sb_printf(out, "%u pools\n", p->n_pools);
}

static void logits_with(uint32_t pools, const char *quant, float *logits)
{
    char path[4096];
    const char *top = getenv("KT_SRCDIR");
    kt_engine_opts o;
    kt_engine *e;
    kt_engine_info info;
    kt_err err = {0};
    kt_seq *s;
    int32_t ids[90];
    snprintf(path, sizeof path, "%s/models/demo", top != NULL ? top : ".");
    kt_engine_opts_init(&o);
    o.model_path = path;
    o.ctx_tokens = 128;
    o.batch_tokens = 64;
    o.quant = o.quant_dense = quant;
    pools_wanted = pools;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    kt_engine_get_info(e, &info);
    assert_int_equal(info.n_pools, pools);
    for (int i = 0; i < 90; i++)
        ids[i] = (i * 7919 + 13) % VOCAB;
    assert_int_equal(kt_seq_open(e, 90, &s, &err), KT_OK);
    for (uint32_t at = 0; at < 90; at += 45) {
        kt_batch_item it = {.seq = s, .ids = ids + at, .n = 45, .logits = logits};
        assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
        assert_int_equal(it.result, KT_OK);
    }
    kt_seq_close(s);
    kt_engine_close(e);
}

/* Every step of a sequence runs differently tuned; the logits are those of the engine as opened. */
static void retuning_does_not_change_bits(void **state)
{
    static const char *const level[] = {NULL, "avx2", "avx512", "avx512vnni"};
    static float want[2][VOCAB], got[VOCAB];
    char path[4096];
    const char *top = getenv("KT_SRCDIR");
    kt_engine_opts o;
    kt_engine_info info;
    kt_engine *e;
    kt_err err = {0};
    kt_tuning t;
    int32_t ids[64];
    (void)state;
    snprintf(path, sizeof path, "%s/models/demo", top != NULL ? top : ".");
    kt_engine_opts_init(&o);
    o.model_path = path;
    o.ctx_tokens = 128;
    o.batch_tokens = 64;
    o.quant = o.quant_dense = "q8_0";
    pools_wanted = 3;
    assert_int_equal(kt_engine_open(&o, &e, &err), KT_OK);
    for (int i = 0; i < 64; i++)
        ids[i] = (i * 7919 + 13) % VOCAB;
    for (int round = 0; round < 12; round++) {
        kt_seq *s;
        kt_tuning_init(&t);
        if (round > 0) {
            t.threads = 3 + (uint32_t)round % 2;
            t.kernel = level[round % 4];
            t.gemv_rows = 1u << round % 5;
            t.claim_rows = 64u << round % 6;
            t.gemm_claim_rows = 64u << round % 3;
            t.spin_us = round % 3 == 0 ? 1 : 100;
        }
        kt_status st = kt_engine_retune(e, &t, &err);
        if (st == KT_E_INVALID && t.kernel != NULL) {
            /* this CPU has not the level, or packs for none */
            t.kernel = NULL;
            st = kt_engine_retune(e, &t, &err);
        }
        assert_int_equal(st, KT_OK);
        kt_engine_get_info(e, &info);
        assert_int_equal(info.n_threads, t.threads > 0 ? t.threads : 4);
        assert_int_equal(kt_seq_open(e, 64, &s, &err), KT_OK);
        for (int part = 0; part < 2; part++) {
            kt_batch_item it = {.seq = s,
                                .ids = part == 0 ? ids : ids + 63,
                                .n = part == 0 ? 63 : 1,
                                .logits = round == 0 ? want[part] : got};
            assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
            if (round > 0)
                assert_memory_equal(got, want[part], sizeof got);
        }
        kt_seq_close(s);
    }
    t.kernel = NULL;
    t.threads = 5;
    assert_int_equal(kt_engine_retune(e, &t, &err), KT_E_INVALID);
    t.threads = 2;
    assert_int_equal(kt_engine_retune(e, &t, &err), KT_E_INVALID);
    t.threads = 0;
    t.claim_rows = 100;
    assert_int_equal(kt_engine_retune(e, &t, &err), KT_E_INVALID);
    kt_engine_close(e);
}

static void pools_do_not_change_bits(void **state)
{
    static const char *const quant[] = {"none", "q8_0", "mxfp4"};
    static float want[VOCAB], got[VOCAB];
    (void)state;
    for (int q = 0; q < 3; q++) {
        logits_with(1, quant[q], want);
        for (uint32_t pools = 2; pools <= 4; pools++) {
            logits_with(pools, quant[q], got);
            assert_memory_equal(want, got, sizeof want);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pools_do_not_change_bits),
                                       cmocka_unit_test(retuning_does_not_change_bits)};
    return cmocka_run_group_tests_name("engine pools", tests, NULL, NULL);
}
