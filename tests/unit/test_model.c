/* test_model.c - traits and weight maps of whole models: the golden checkpoints and GGUF files, the
 * bundled model, rope frequencies. */
#include "model_files.h"

#include <math.h>

#include "model/gguf.h"
#include "model/model.h"

static void bundled_model(void **state)
{
    (void)state;
    struct mdl *m;
    kt_err err;
    struct mdl_slice s;
    if (mdl_open(source("models/demo"), &m, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(m->name, "demo");
    assert_string_equal(m->t.arch, "qwen3moe");
    assert_int_equal(m->t.n_layers, 4);
    assert_int_equal(m->t.n_experts, 32);
    assert_int_equal(m->t.top_k, 4);
    assert_true(m->t.renorm && !m->t.tied_head && !m->t.rope.interleaved);
    assert_true(mdl_weight(m, MDL_DOWN, 3, 31, &s));
    assert_string_equal(s.tensor, "model.layers.3.mlp.experts.31.down_proj.weight");
    assert_int_equal(s.rows, 256);
    assert_int_equal(s.cols, 64);
    assert_false(mdl_weight(m, MDL_DOWN, 3, 32, &s));
    assert_false(mdl_weight(m, MDL_DOWN, 4, 0, &s));
    mdl_close(m);
}

static void golden_options(void **state)
{
    (void)state;
    struct mdl *m;
    kt_err err;
    struct mdl_slice s, h;
    if (!have(fixtures("golden")))
        skip();
    if (mdl_open(fixtures("golden/qwen3_moe_options"), &m, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_true(m->t.tied_head && !m->t.renorm);
    assert_int_equal(m->t.n_moe_layers, 3);
    assert_false(m->t.layer_is_moe[1]);
    assert_int_equal(m->t.dense_inter, 192);
    assert_int_equal(m->t.vocab, 515);
    assert_int_equal(m->t.rope.dims, 48);
    assert_true(mdl_weight(m, MDL_EMBED, 0, 0, &s) && mdl_weight(m, MDL_HEAD, 0, 0, &h));
    assert_ptr_equal(s.data, h.data);
    assert_false(mdl_weight(m, MDL_ROUTER, 1, 0, &s));
    assert_true(mdl_weight(m, MDL_GATE, 1, 0, &s));
    assert_int_equal(s.rows, 192);
    mdl_close(m);
}

static void golden_all(void **state)
{
    (void)state;
    static const char *const dirs[] = {"qwen3_moe", "qwen3_moe_k256", "qwen3_moe_options",
                                       "qwen3_moe_yarn"};
    static const char *const files[] = {
        "qwen3_moe.bf16",        "qwen3_moe.mxfp4",     "qwen3_moe.q4_0",
        "qwen3_moe.q5_1",        "qwen3_moe.q8_0",      "qwen3_moe_k256.iq4_nl",
        "qwen3_moe_k256.iq4_xs", "qwen3_moe_k256.q2_k", "qwen3_moe_k256.q3_k",
        "qwen3_moe_k256.q4_k",   "qwen3_moe_k256.q5_k", "qwen3_moe_k256.q6_k"};
    struct mdl *m;
    kt_err err;
    char rest[256];
    if (!have(fixtures("golden")))
        skip();
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(rest, sizeof rest, "golden/%s", dirs[i]);
        if (mdl_open(fixtures(rest), &m, &err) != KT_OK)
            fail_msg("%s", err.msg);
        mdl_close(m);
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(rest, sizeof rest, "golden/gguf/%s.gguf", files[i]);
        if (mdl_open(fixtures(rest), &m, &err) != KT_OK)
            fail_msg("%s", err.msg);
        assert_true(m->is_gguf);
        assert_string_equal(m->name, files[i]);
        mdl_close(m);
    }
}

/* The GGUF golden in BF16 was written from the checkpoint: every role must give the same bytes. */
static void same_weights_in_both_containers(void **state)
{
    (void)state;
    struct mdl *a, *b;
    kt_err err;
    struct mdl_slice x, y;
    if (!have(fixtures("golden")))
        skip();
    assert_int_equal(mdl_open(fixtures("golden/qwen3_moe"), &a, &err), KT_OK);
    assert_int_equal(mdl_open(fixtures("golden/gguf/qwen3_moe.bf16.gguf"), &b, &err), KT_OK);
    unsigned compared = 0;
    for (uint32_t l = 0; l < a->t.n_layers; l++)
        for (int r = 0; r < MDL_ROLE_COUNT; r++)
            for (uint32_t e = 0; e < (r >= MDL_GATE ? a->t.n_experts : 1); e++) {
                assert_true(mdl_weight(a, (enum mdl_role)r, l, e, &x));
                assert_true(mdl_weight(b, (enum mdl_role)r, l, e, &y));
                assert_int_equal(x.rows, y.rows);
                assert_int_equal(x.cols, y.cols);
                for (size_t i = 0; i < (size_t)x.rows * x.cols; i++) {
                    uint32_t want = (uint32_t)load_u16(x.data + 2 * i) << 16;
                    uint32_t got = y.type == DT_BF16 ? (uint32_t)load_u16(y.data + 2 * i) << 16
                                                     : load_u32(y.data + 4 * i);
                    if (want != got)
                        fail_msg("%s and %s differ at %zu", x.tensor, y.tensor, i);
                }
                compared++;
            }
    assert_int_equal(compared, 3 * (12 + 3 * 16));
    mdl_close(a);
    mdl_close(b);
}

static void check_freqs(const struct mdl_rope *r, const unsigned *at, const double *want,
                        unsigned n)
{
    float f[64];
    mdl_rope_freqs(r, f);
    for (unsigned i = 0; i < n; i++)
        if (!(fabs((double)f[at[i]] / want[i] - 1) < 2e-7))
            fail_msg("frequency %u: %.9g, expected %.9g", at[i], (double)f[at[i]], want[i]);
}

static void rope_frequencies(void **state)
{
    (void)state;
    static const unsigned at[] = {1, 10, 12, 15, 20, 25, 31};
    struct mdl_rope r = {.dims = 64,
                         .base = 1e4,
                         .scaling = MDL_ROPE_YARN,
                         .factor = 40,
                         .original_ctx = 4096,
                         .beta_fast = 32,
                         .beta_slow = 1,
                         .truncate = true};
    check_freqs(&r, at,
                (double[]){.749894209, .0562341325, .0268793601, .00833450895, .000790569415,
                           1.87473552e-05, 3.33380358e-06},
                7);
    r.base = 5e4;
    r.factor = 64;
    r.beta_fast = 1;
    check_freqs(&r, at,
                (double[]){.713111085, .0340072782, .0172936334, .00627130338, 1.80702339e-05,
                           3.3323431e-06, 4.38220646e-07},
                7);
    r.beta_fast = 32;
    check_freqs(&r, at + 1, (double[]){.0284279591, .0116191599, .00267020339}, 3);
    r.base = 1.5e5;
    r.factor = 32;
    r.truncate = false;
    check_freqs(&r, at,
                (double[]){.689044306, .0193350011, .00679495949, .0010526021, 1.81883367e-05,
                           2.82506683e-06, 3.02351143e-07},
                7);
    r.truncate = true;
    check_freqs(&r, at + 1, (double[]){.0194509675, .00701571391, .00120613097}, 3);
    struct mdl_rope s = {.dims = 128,
                         .base = 5e5,
                         .scaling = MDL_ROPE_LLAMA3,
                         .factor = 16,
                         .low_freq_factor = 1,
                         .high_freq_factor = 1,
                         .original_ctx = 8192};
    static const unsigned at3[] = {1, 34, 35, 63};
    check_freqs(&s, at3, (double[]){.814617234, .00093847387, 4.77810618e-05, 1.53446299e-07}, 4);
    struct mdl_rope lin = {.dims = 4, .base = 1e4, .scaling = MDL_ROPE_LINEAR, .factor = 4};
    check_freqs(&lin, (unsigned[]){0, 1}, (double[]){.25, .0025}, 2);
    struct mdl_rope table = {
        .dims = 4, .base = 1e4, .scaling = MDL_ROPE_TABLE, .divisors = (float[]){1, 8}};
    check_freqs(&table, (unsigned[]){0, 1}, (double[]){1, .00125}, 2);
}

static void yarn_golden(void **state)
{
    (void)state;
    struct mdl *m;
    kt_err err;
    if (!have(fixtures("golden")))
        skip();
    assert_int_equal(mdl_open(fixtures("golden/qwen3_moe_yarn"), &m, &err), KT_OK);
    assert_int_equal(m->t.rope.scaling, MDL_ROPE_YARN);
    assert_true(fabs(m->t.rope.attention_factor - (0.1 * log(4.0) + 1)) < 1e-12);
    assert_true(m->t.rope.original_ctx == 32 && m->t.rope.base == 1e6);
    mdl_close(m);
}

static void other_architectures_are_named(void **state)
{
    (void)state;
    struct mdl *m;
    kt_err err;
    if (!have(fixtures("golden")))
        skip();
    assert_int_equal(mdl_open(fixtures("golden/deepseek_v3"), &m, &err), KT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "DeepseekV3ForCausalLM"));
    assert_int_equal(mdl_open_files(fixtures("golden/deepseek_v3"), &m, &err), KT_OK);
    assert_true(m->n_tensors > 100);
    mdl_close(m);
    assert_int_equal(mdl_open(fixtures("tokenizers/ggml-vocab-gpt-2.gguf"), &m, &err),
                     KT_E_UNSUPPORTED);
    assert_int_equal(mdl_open_files(fixtures("tokenizers/ggml-vocab-gpt-2.gguf"), &m, &err), KT_OK);
    assert_int_equal(m->n_tensors, 0);
    assert_non_null(gguf_find(m->gguf, "tokenizer.ggml.tokens"));
    mdl_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bundled_model),
        cmocka_unit_test(golden_options),
        cmocka_unit_test(golden_all),
        cmocka_unit_test(same_weights_in_both_containers),
        cmocka_unit_test(rope_frequencies),
        cmocka_unit_test(yarn_golden),
        cmocka_unit_test(other_architectures_are_named),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
