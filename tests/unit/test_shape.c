/* test_shape.c - sizes told from configurations alone, against published numbers: parameters in all
 * and per token, bytes of DeepSeek-V4's parts, KV caches; formats by name; and that a GGUF header
 * and a checkpoint directory of the bundled demo model say the same as its tensors.
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
#include "model/model.h"
#include "model/shape.h"

static struct shape *open_shape(const char *name, const char *format)
{
    char path[600];
    struct shape *s;
    kt_err err = {0};
    snprintf(path, sizeof path, "%s/profiles/shapes/%s.config.json", getenv("KT_SRCDIR"), name);
    if (shape_open(path, format, NULL, &s, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return s;
}

static double params(const struct shape *s, bool active)
{
    double sum = s->head_weights + (active ? 0 : s->embed_weights);
    for (uint32_t i = 0; i < s->n_layers; i++)
        for (int p = 0; p < SHAPE_PARTS; p++)
            sum += s->layers[i].weights[p] * (p != SHAPE_EXPERT ? 1
                                              : active          ? s->top_k
                                                                : s->n_experts);
    return sum;
}

/* Billions as published by the makers, in all and activated per token. */
static void published_parameters(void **state)
{
    static const struct {
        const char *name;
        double all, active, tolerance;
    } rows[] = {
        {"deepseek-v3", 671, 37, 0.02},        {"kimi-k2", 1026, 32, 0.03},
        {"qwen3-30b-a3b", 30.5, 3.3, 0.03},    {"qwen3-235b-a22b", 235, 22, 0.02},
        {"qwen3-next-80b-a3b", 80, 3.6, 0.04}, {"glm-4.5-air", 106, 12, 0.06},
        {"gpt-oss-120b", 116.8, 5.1, 0.02},    {"deepseek-v4-flash", 284, 13, 0.05},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct shape *s = open_shape(rows[i].name, NULL);
        double all = params(s, false) / 1e9, active = params(s, true) / 1e9;
        print_message("%-20s %7.1f (%g)  active %5.2f (%g)\n", rows[i].name, all, rows[i].all,
                      active, rows[i].active);
        assert_true(fabs(all / rows[i].all - 1) <= rows[i].tolerance);
        assert_true(fabs(active / rows[i].active - 1) <= 0.12);
        shape_close(s);
    }
}

static void deepseek_v4_bytes(void **state)
{
    struct shape *s = open_shape("deepseek-v4-flash", NULL);
    (void)state;
    assert_true(s->layers[0].bytes[SHAPE_EXPERT] == 13369344);
    assert_true(fabs(shape_expert_bytes(s) / 147.17e9 - 1) < 1e-3);
    assert_true(fabs(s->layers[0].bytes[SHAPE_ATTENTION] / 106.96e6 - 1) < 2e-3);
    assert_true(fabs(s->layers[0].bytes[SHAPE_SHARED] / 25.17e6 - 1) < 2e-3);
    assert_true(fabs(s->head_bytes / 1.059e9 - 1) < 1e-3);
    double layers = shape_dense_bytes(s) - s->head_bytes - s->embed_bytes;
    assert_true(fabs(layers / 6.708e9 - 1) < 0.02);
    assert_string_equal(s->expert_format, "mxfp4");
    assert_true(s->why_not[0] != '\0');
    /* 2 layers keep a window only; at 100000 tokens a ratio-4 layer reads all index keys and 512
     * entries */
    const struct shape_kv *w = &s->layers[0].kv, *c4 = &s->layers[2].kv, *c128 = &s->layers[3].kv;
    assert_true(shape_kv_stored(w, 100000) == 128 * 512);
    assert_true(shape_kv_stored(c4, 100000) == 128 * 512 + 25000 * (512 + 128));
    assert_true(shape_kv_read(c4, 100000) == 128 * 512 + 25000 * 128 + 512 * 512);
    assert_true(shape_kv_stored(c128, 128000) == 128 * 512 + 1000 * 512);
    shape_close(s);
}

static void caches(void **state)
{
    struct shape *s = open_shape("deepseek-v3", NULL);
    (void)state;
    assert_true(shape_kv_bytes(s, 1, 2) == 61 * 576 * 2);
    shape_close(s);
    s = open_shape("qwen3-30b-a3b", NULL);
    assert_true(shape_kv_bytes(s, 1000, 2) == 1000.0 * 48 * 2 * 4 * 128 * 2);
    assert_string_equal(s->why_not, "");
    shape_close(s);
    s = open_shape("gpt-oss-120b", NULL); /* every other layer keeps 128 tokens */
    assert_true(shape_kv_bytes(s, 1000, 2) == 18.0 * (1000 + 128) * 2 * 8 * 64 * 2);
    shape_close(s);
    s = open_shape("qwen3-next-80b-a3b", NULL); /* 12 layers keep tokens, 36 a state */
    assert_true(shape_kv_bytes(s, 2000, 2) - shape_kv_bytes(s, 1000, 2) ==
                1000.0 * 12 * 2 * 2 * 256 * 2);
    shape_close(s);
}

static void formats(void **state)
{
    struct shape_format f;
    struct shape *s = open_shape("deepseek-v3", "q4_k_m"), *t = open_shape("deepseek-v3", "mxfp4");
    (void)state;
    /* the published Q4_K_M files of V3 hold 404 GB */
    double all = shape_expert_bytes(s) + shape_dense_bytes(s);
    print_message("DeepSeek-V3 q4_k_m: %.1f GB\n", all / 1e9);
    assert_true(fabs(all / 404e9 - 1) < 0.02);
    assert_string_equal(t->dense_format, "fp8");
    assert_string_equal(t->expert_format, "mxfp4");
    assert_true(t->layers[3].bytes[SHAPE_EXPERT] == 3.0 * 7168 * 2048 * 4.25 / 8);
    assert_true(!shape_format_by_name("q9_z", &f));
    assert_true(shape_format_by_name("bf16", &f) && f.up_bits == 16);
    shape_close(s);
    shape_close(t);
    kt_err err = {0};
    char path[600];
    snprintf(path, sizeof path, "%s/profiles/shapes/kimi-k2.config.json", getenv("KT_SRCDIR"));
    assert_int_equal(shape_open(path, "q9_z", NULL, &s, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "q9_z"));
}

/* Real files: every byte of the tensors is somewhere, and the parts agree with the numbers. */
static void demo_model(void **state)
{
    char path[600];
    struct shape *s;
    struct mdl *m;
    kt_err err = {0};
    double all = 0;
    (void)state;
    snprintf(path, sizeof path, "%s/models/demo", getenv("KT_SRCDIR"));
    if (shape_open(path, NULL, NULL, &s, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mdl_open(path, &m, &err), KT_OK);
    for (uint32_t i = 0; i < m->n_tensors; i++)
        all += (double)m->tensors[i].bytes;
    assert_true(fabs(shape_expert_bytes(s) + shape_dense_bytes(s) - all) < 1);
    assert_int_equal(s->n_experts, m->t.n_experts);
    assert_int_equal(s->n_moe, m->t.n_moe_layers);
    assert_true(s->layers[s->n_layers - 1].weights[SHAPE_EXPERT] ==
                3.0 * s->hidden * s->expert_inter);
    assert_true(s->layers[0].kv.per_token == 2.0 * m->t.n_kv_heads * m->t.head_dim);
    assert_string_equal(s->bytes_from, "file");
    mdl_close(m);
    shape_close(s);
}

static void bad_files(void **state)
{
    static const char *const bad[] = {"{", "[]", "{}", "{\"num_hidden_layers\": 9000000}"};
    char path[] = "/tmp/kt_shape_XXXXXX.json";
    struct shape *s;
    kt_err err = {0};
    (void)state;
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(bad[i], f);
        fclose(f);
        assert_int_equal(shape_open(path, NULL, NULL, &s, &err), KT_E_FORMAT);
        assert_null(s);
    }
    remove(path);
    assert_int_equal(shape_open(path, NULL, NULL, &s, &err), KT_E_NOT_FOUND);
    /* memory that runs out anywhere is an error, not a crash */
    snprintf(err.msg, sizeof err.msg, "%s", "");
    char good[600];
    snprintf(good, sizeof good, "%s/profiles/shapes/deepseek-v3.config.json", getenv("KT_SRCDIR"));
    for (long n = 0; n < 6; n++) {
        mem_fail_after(n);
        kt_status st = shape_open(good, NULL, NULL, &s, &err);
        mem_fail_after(-1);
        if (st == KT_OK)
            shape_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_parameters),
        cmocka_unit_test(deepseek_v4_bytes),
        cmocka_unit_test(caches),
        cmocka_unit_test(formats),
        cmocka_unit_test(demo_model),
        cmocka_unit_test(bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
