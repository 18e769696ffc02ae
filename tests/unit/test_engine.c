/* test_engine.c - the engine through kt.h on the bundled demo model: what a step promises (no
 * allocation, no influence of batch, chunks and threads, errors that stay in their sequence),
 * reservations, refusals with remedies, and loads that fail at any allocation without leaking or
 * crashing.
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
#include "kt.h"

#define VOCAB 1280

static char demo[4096];

static kt_engine *open_demo(void (*change)(kt_engine_opts *o))
{
    kt_engine_opts o;
    kt_engine *e;
    kt_err err = {0};
    kt_engine_opts_init(&o);
    o.model_path = demo;
    o.max_seqs = 8;
    o.ctx_tokens = 512;
    o.batch_tokens = 128;
    if (change != NULL)
        change(&o);
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return e;
}

static void fill(int32_t *ids, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        ids[i] = (int32_t)(seed >> 8) % VOCAB;
    }
}

/* Logits after the last of n tokens, fed in chunks. */
static void run(kt_engine *e, const int32_t *ids, uint32_t n, uint32_t chunk, float *logits)
{
    kt_seq *s;
    kt_err err;
    assert_int_equal(kt_seq_open(e, n, &s, &err), KT_OK);
    for (uint32_t at = 0; at < n; at += chunk) {
        uint32_t k = n - at < chunk ? n - at : chunk;
        kt_batch_item it = {
            .seq = s, .ids = ids + at, .n = k, .logits = at + k == n ? logits : NULL};
        assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
        assert_int_equal(it.result, KT_OK);
    }
    assert_int_equal(kt_seq_length(s), n);
    kt_seq_close(s);
}

static void chunks_do_not_change_bits(void **state)
{
    (void)state;
    kt_engine *e = open_demo(NULL);
    int32_t ids[300];
    static float a[VOCAB], b[VOCAB];
    fill(ids, 300, 1);
    run(e, ids, 300, 128, a);
    for (uint32_t chunk = 1; chunk < 128; chunk = chunk * 3 + 1) {
        run(e, ids, 300, chunk, b);
        assert_memory_equal(a, b, sizeof a);
    }
    kt_engine_close(e);
}

static void one_thread(kt_engine_opts *o)
{
    o->threads = 1;
}

static void plain_c(kt_engine_opts *o)
{
    o->cpu_mask = "ref";
}

static void threads_and_isa_do_not_change_bits(void **state)
{
    (void)state;
    static float want[VOCAB], got[VOCAB];
    int32_t ids[70];
    fill(ids, 70, 2);
    void (*const change[])(kt_engine_opts *) = {NULL, one_thread, plain_c};
    for (int i = 0; i < 3; i++) {
        kt_engine *e = open_demo(change[i]);
        run(e, ids, 70, 64, i == 0 ? want : got);
        if (i > 0)
            assert_memory_equal(want, got, sizeof want);
        kt_engine_close(e);
    }
}

static void q8(kt_engine_opts *o)
{
    o->quant = "q8_0";
    o->quant_dense = "q8_0";
}

/* Eight sequences of different lengths in one step give each the bits it has alone; with allocation
 * forbidden. */
static void batches_do_not_change_bits_and_steps_allocate_nothing(void **state)
{
    (void)state;
    for (int quantised = 0; quantised < 2; quantised++) {
        kt_engine *e = open_demo(quantised ? q8 : NULL);
        static float alone[8][VOCAB], together[8][VOCAB];
        static int32_t ids[8][40];
        kt_seq *s[8];
        kt_batch_item it[8];
        kt_err err;
        for (uint32_t i = 0; i < 8; i++) {
            fill(ids[i], 40, 100 + i);
            run(e, ids[i], 20 + i, 128, alone[i]);
        }
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(kt_seq_open(e, 40, &s[i], &err), KT_OK);
        mem_fail_after(0);
        for (uint32_t round = 0; round < 2; round++) {
            for (uint32_t i = 0; i < 8; i++)
                it[i] = (kt_batch_item){.seq = s[i],
                                        .ids = ids[i] + round * (9 + i / 2),
                                        .n = round == 0 ? 9 + i / 2 : 11 + i - i / 2,
                                        .logits = together[i]};
            assert_int_equal(kt_step(e, it, 8, &err), KT_OK);
        }
        mem_fail_after(-1);
        for (uint32_t i = 0; i < 8; i++) {
            assert_int_equal(it[i].result, KT_OK);
            assert_memory_equal(alone[i], together[i], sizeof alone[i]);
            kt_seq_close(s[i]);
        }
        kt_engine_close(e);
    }
}

static void all_logits_equal_last_logits(void **state)
{
    (void)state;
    kt_engine *e = open_demo(NULL);
    int32_t ids[50];
    static float all[50][VOCAB], last[VOCAB];
    kt_seq *s;
    kt_err err;
    fill(ids, 50, 3);
    assert_int_equal(kt_seq_open(e, 50, &s, &err), KT_OK);
    kt_batch_item it = {.seq = s, .ids = ids, .n = 50, .logits = all[0], .all_logits = true};
    assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
    kt_seq_close(s);
    for (uint32_t n = 1; n <= 50; n += 7) {
        run(e, ids, n, 128, last);
        assert_memory_equal(all[n - 1], last, sizeof last);
    }
    kt_engine_close(e);
}

struct seen {
    uint32_t calls, layers;
    uint64_t pairs;
};

static void look(void *user, const kt_tap *t)
{
    struct seen *s = user;
    assert_int_equal(t->layer, s->calls % 4);
    assert_non_null(t->experts);
    for (uint32_t i = 0; i < t->n_tokens; i++)
        for (int k = 0; k < 4; k++) {
            assert_in_range(t->experts[i * 4 + k], 0, 31);
            if (k > 0)
                assert_true(t->experts[i * 4 + k] > t->experts[i * 4 + k - 1]);
            s->pairs++;
        }
    s->calls++;
}

/* The tap changes no bit, and the routing counts add up to what it showed. */
static void taps_and_counts(void **state)
{
    (void)state;
    kt_engine *e = open_demo(NULL);
    static float a[VOCAB], b[VOCAB];
    int32_t ids[33];
    struct seen seen = {0};
    fill(ids, 33, 4);
    run(e, ids, 33, 10, a);
    kt_engine_set_tap(e, look, &seen);
    const uint64_t *counts = kt_engine_expert_counts(e);
    uint64_t before = 0, after = 0;
    for (int i = 0; i < 4 * 32; i++)
        before += counts[i];
    run(e, ids, 33, 10, b);
    for (int i = 0; i < 4 * 32; i++)
        after += counts[i];
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(seen.calls, 4 * 4);
    assert_int_equal(seen.pairs, 33 * 4 * 4);
    assert_int_equal(after - before, seen.pairs);
    kt_engine_stats st;
    kt_engine_get_stats(e, &st);
    assert_int_equal(st.step_tokens, 66);
    assert_int_equal(st.kv_pages_used, 0);
    assert_int_equal(st.expert_tokens, after);
    kt_engine_close(e);
}

static void few_pages(kt_engine_opts *o)
{
    o->kv_tokens = 4 * 64;
}

static void reservations(void **state)
{
    (void)state;
    kt_engine *e = open_demo(few_pages);
    kt_seq *a, *b, *c;
    kt_err err;
    int32_t ids[130];
    fill(ids, 130, 5);
    assert_int_equal(kt_seq_open(e, 513, &a, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "512"));
    assert_int_equal(kt_seq_open(e, 0, &a, &err), KT_E_INVALID);
    assert_int_equal(kt_seq_open(e, 129, &a, &err), KT_OK); /* three pages */
    assert_int_equal(kt_seq_open(e, 65, &b, &err), KT_E_KV_FULL);
    assert_null(b);
    assert_int_equal(kt_seq_open(e, 64, &b, &err), KT_OK);
    kt_batch_item it = {.seq = b, .ids = ids, .n = 65};
    assert_int_equal(kt_step(e, &it, 1, &err), KT_E_KV_FULL);
    assert_int_equal(kt_seq_length(b), 0);
    it.n = 64;
    assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
    it.n = 1;
    assert_int_equal(kt_step(e, &it, 1, &err), KT_E_KV_FULL);
    kt_seq_close(a);
    assert_int_equal(kt_seq_open(e, 192, &c, &err), KT_OK);
    kt_batch_item twice[2] = {{.seq = c, .ids = ids, .n = 1}, {.seq = c, .ids = ids, .n = 1}};
    assert_int_equal(kt_step(e, twice, 2, &err), KT_E_INVALID);
    ids[0] = VOCAB;
    assert_int_equal(kt_step(e, twice, 1, &err), KT_E_INVALID);
    ids[0] = -1;
    assert_int_equal(kt_step(e, twice, 1, &err), KT_E_INVALID);
    ids[0] = 0;
    twice[0].n = 129;
    assert_int_equal(kt_step(e, twice, 1, &err), KT_E_INVALID); /* more than batch_tokens */
    assert_int_equal(kt_step(e, twice, 0, &err), KT_E_INVALID);
    kt_seq_close(b);
    kt_seq_close(c);
    kt_seq_close(NULL);
    kt_engine_close(e);
}

static void refusals_name_the_remedy(void **state)
{
    (void)state;
    kt_engine_opts o;
    kt_engine *e;
    kt_err err;
    kt_engine_opts_init(&o);
    o.model_path = demo;
    o.memory_limit_bytes = 1 << 20;
    assert_int_equal(kt_engine_open(&o, &e, &err), KT_E_LIMIT);
    assert_null(e);
    assert_non_null(strstr(err.msg, "--ctx"));
    assert_non_null(strstr(err.msg, "--quant"));
    assert_non_null(strstr(err.msg, "limit"));
    kt_engine_opts_init(&o);
    o.model_path = "/nonexistent/model";
    assert_true(kt_engine_open(&o, &e, &err) < 0);
    assert_non_null(strstr(err.msg, "/nonexistent/model"));
    static const struct {
        const char *quant, *kv, *mask;
        uint32_t seqs, batch, ctx;
    } bad[] = {{"q3_k", NULL, NULL, 1, 1, 0}, {NULL, "int4", NULL, 1, 1, 0},
               {NULL, NULL, "sse9", 1, 1, 0}, {NULL, NULL, NULL, 0, 1, 0},
               {NULL, NULL, NULL, 1, 0, 0},   {NULL, NULL, NULL, 1, 1, 99999},
               {NULL, NULL, NULL, 5000, 1, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        kt_engine_opts_init(&o);
        o.model_path = demo;
        o.quant = bad[i].quant;
        o.kv_type = bad[i].kv;
        o.cpu_mask = bad[i].mask;
        o.max_seqs = bad[i].seqs;
        o.batch_tokens = bad[i].batch;
        o.ctx_tokens = bad[i].ctx;
        assert_int_equal(kt_engine_open(&o, &e, &err), KT_E_INVALID);
        assert_null(e);
        assert_non_null(strstr(err.msg, "--"));
    }
}

static void metadata_needs_no_memory(void **state)
{
    (void)state;
    kt_engine_opts o;
    kt_engine *e;
    kt_err err;
    kt_seq *s;
    kt_engine_info info;
    kt_engine_opts_init(&o);
    o.model_path = demo;
    o.metadata_only = true;
    assert_int_equal(kt_engine_open(&o, &e, &err), KT_OK);
    kt_engine_get_info(e, &info);
    assert_string_equal(info.arch, "qwen3moe");
    assert_int_equal(info.vocab, VOCAB);
    assert_int_equal(info.n_experts, 32);
    assert_int_equal(kt_seq_open(e, 1, &s, &err), KT_E_INVALID);
    kt_engine_close(e);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    kt_engine_opts o;
    kt_engine *e;
    kt_err err;
    long n = 0;
    kt_status s;
    kt_engine_opts_init(&o);
    o.model_path = demo;
    o.max_seqs = 2;
    o.ctx_tokens = 64;
    o.batch_tokens = 8;
    do {
        mem_fail_after(n);
        s = kt_engine_open(&o, &e, &err);
        mem_fail_after(-1);
        if (s != KT_OK) {
            assert_null(e);
            assert_true(err.msg[0] != '\0');
        }
        n += n < 50 ? 1
                    : n / 16; /* thousands of small allocations happen in the reader; sample them */
    } while (s != KT_OK && n < 1000000);
    assert_int_equal(s, KT_OK);
    kt_engine_close(e);
}

int main(void)
{
    const char *top = getenv("KT_SRCDIR");
    snprintf(demo, sizeof demo, "%s/models/demo", top != NULL ? top : ".");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_do_not_change_bits),
        cmocka_unit_test(threads_and_isa_do_not_change_bits),
        cmocka_unit_test(batches_do_not_change_bits_and_steps_allocate_nothing),
        cmocka_unit_test(all_logits_equal_last_logits),
        cmocka_unit_test(taps_and_counts),
        cmocka_unit_test(reservations),
        cmocka_unit_test(refusals_name_the_remedy),
        cmocka_unit_test(metadata_needs_no_memory),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
