/* test_vec.c - the vector kernels against results that no kernel produced: canonical arithmetic in
 * numpy (vec_golden.h) and the known answers of the activation format. Every variant that this CPU
 * runs, bit for bit. Variants against ref on many shapes: checkkern. ISA names and masks too.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp.h"
#include "base/mem.h"
#include "kern.h"
#include "vec_golden.h"

#define LEN(a) (sizeof(a) / sizeof(a)[0])

/* the generator of vec_golden.py */
static void draw(uint32_t seed, size_t n, float unit, float *out)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)((int32_t)(seed >> 16) - 32768) * unit;
    }
}

static void expect_bits(const struct kern *k, const char *what, const float *got,
                        const uint32_t *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fp_bits(got[i]) != want[i])
            fail_msg("%s, %s[%zu]: %a, expected %a", k->name, what, i, (double)got[i],
                     (double)fp_from_bits(want[i]));
}

/* The i-th row of the table for op that this CPU can run, NULL after the last. */
static const struct kern *variant(enum kern_op op, size_t i)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    const uint32_t isa = kern_isa_host();
    for (size_t r = 0; r < n; r++)
        if (t[r]->op == op && (t[r]->isa & ~isa) == 0 && i-- == 0)
            return t[r];
    return NULL;
}
#define EACH(k, op) (size_t v_ = 0; (k = variant(op, v_)) != NULL; v_++)

static void isa_names(void **state)
{
    (void)state;
    assert_int_equal(kern_isa_by_name("ref"), 0);
    assert_int_equal(kern_isa_by_name("avx2"), KERN_ISA_AVX2);
    assert_int_equal(kern_isa_by_name("avx512"), KERN_ISA_AVX2 | KERN_ISA_AVX512);
    assert_int_equal(kern_isa_by_name("avx512vnni"),
                     KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI);
    assert_int_equal(kern_isa_by_name("amx"),
                     KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI | KERN_ISA_AMX);
    assert_int_equal(kern_isa_by_name("AVX2"), -1);
    assert_int_equal(kern_isa_by_name(""), -1);
    assert_int_equal(kern_isa_by_name(NULL), -1);
    static const char *const names[] = {"ref", "avx2", "avx512", "avx512vnni", "amx"};
    for (size_t i = 0; i < LEN(names); i++)
        assert_string_equal(kern_isa_level_name((uint32_t)kern_isa_by_name(names[i])), names[i]);
    assert_string_equal(kern_isa_level_name(KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI),
                        "ref"); /* a level contains those below */
    assert_string_equal(kern_isa_level_name(UINT32_MAX), "amx");
    /* AVX512 without AVX2 does not exist, nor the extensions without it */
    const uint32_t isa = kern_isa_host();
    if ((isa & KERN_ISA_AVX512) != 0)
        assert_true((isa & KERN_ISA_AVX2) != 0);
    if ((isa & (KERN_ISA_AVX512VNNI | KERN_ISA_AVX512BF16)) != 0)
        assert_true((isa & KERN_ISA_AVX512) != 0);
}

static void every_op_has_a_ref_row(void **state)
{
    (void)state;
    for (int op = KERN_QUANT_ACT; op < KERN_OP_COUNT; op++) {
        const struct kern *k = kern_find((enum kern_op)op, -1, 0, NULL);
        assert_non_null(k);
        assert_true(k->isa == 0);
        assert_ptr_equal(kern_by_name(k->name), k);
    }
}

static void exp_is_canonical(void **state)
{
    (void)state;
    const float edge[] = {-87.0f, -87.00001f, -86.99999f, -88.0f, -INFINITY, 88.0f,      88.1f,
                          1e30f,  INFINITY,   0.0f,       -0.0f,  0x1p-130f, -0x1p-149f, 87.9f};
    float x[96 + 48 + LEN(edge)], y[LEN(x)];
    draw(1, 96, 1.0f / 256, x);
    draw(2, 48, 1.0f / 8192, x + 96);
    memcpy(x + 144, edge, sizeof edge);
    assert_int_equal(LEN(x), LEN(golden_exp));
    const struct kern *k;
    for
        EACH(k, KERN_EXP)
        {
            k->run.vexp(x, 0.0f, LEN(x), y);
            expect_bits(k, "exp", y, golden_exp, LEN(x));
        }
}

static void swiglu_is_canonical(void **state)
{
    (void)state;
    float g[60], u[60], y[60];
    draw(3, 60, 1.0f / 1024, g);
    draw(4, 60, 1.0f / 4096, u);
    const struct kern *k;
    for
        EACH(k, KERN_SWIGLU)
        {
            k->run.swiglu(g, u, 60, y);
            expect_bits(k, "swiglu", y, golden_swiglu, 60);
        }
}

static void rmsnorm_is_canonical(void **state)
{
    (void)state;
    static const struct {
        uint32_t n;
        const uint32_t *want;
    } cases[] = {{1, golden_rmsnorm_1},
                 {15, golden_rmsnorm_15},
                 {37, golden_rmsnorm_37},
                 {128, golden_rmsnorm_128}};
    float x[128], w[128], y[128];
    const struct kern *k;
    for
        EACH(k, KERN_RMSNORM)
    for (size_t i = 0; i < LEN(cases); i++) {
        draw(5, cases[i].n, 1.0f / 4096, x);
        draw(6, cases[i].n, 1.0f / 8192, w);
        k->run.rmsnorm(x, w, cases[i].n, 1e-6f, y);
        expect_bits(k, "rmsnorm", y, cases[i].want, cases[i].n);
    }
}

static void rope_is_canonical(void **state)
{
    (void)state;
    float x[22], cos[11], sin[11];
    draw(8, 11, 0x1p-15f, cos);
    draw(9, 11, 0x1p-15f, sin);
    const struct kern *k;
    for
        EACH(k, KERN_ROPE)
        {
            draw(7, 22, 1.0f / 4096, x);
            k->run.rope(x, cos, sin, 11, false);
            expect_bits(k, "halves", x, golden_rope_halves, 22);
            draw(7, 22, 1.0f / 4096, x);
            k->run.rope(x, cos, sin, 11, true);
            expect_bits(k, "pairs", x, golden_rope_pairs, 22);
        }
}

static void quant_is_canonical(void **state)
{
    (void)state;
    float x[320], y[320], s[10], scale[10];
    int8_t q[320];
    int32_t sum[10];
    draw(10, 320, 1.0f / 512, x);
    const struct kern *k;
    for
        EACH(k, KERN_QUANT_ACT)
        {
            assert_true(k->run.quant(x, 320, q, scale, sum));
            for (int i = 0; i < 320; i++)
                y[i] =
                    (float)q[i] * scale[i / 32] + 0.0f; /* no -0, as in the sums of the generator */
            for (int g = 0; g < 10; g++)
                s[g] = (float)sum[g] * scale[g] + 0.0f;
            expect_bits(k, "code * scale", y, golden_quant, 320);
            expect_bits(k, "sum * scale", s, golden_quant_sums, 10);
        }
}

static void quant_has_the_known_answers(void **state)
{
    (void)state;
    static const int8_t want[2][32] = {
        {-44, -26, -8,  11, 30, 127, -34, -16, 3,  22, 40, -42, -24, -5,  14, 32,
         -50, -32, -13, 6,  24, 42,  -40, -21, -2, 16, 34, -48, -29, -10, 8,  26},
        {-99, -5,  89, -74,  20,  114, -48, 46, -117, -23, 71, -91,  3,   97, -66,  28,
         122, -41, 53, -109, -15, 79,  -84, 10, 104,  -58, 36, -127, -33, 61, -102, -8},
    };
    static const uint32_t scale_bits[2] = {0x3d800000, 0x3cc99326};
    static const int32_t sums[2] = {-9, -167};
    float x[64], scale[2];
    int8_t q[64];
    int32_t sum[2];
    for (int i = 0; i < 32; i++) {
        x[i] = i == 5 ? 7.9375f : (float)((37 * i + 11) % 201 - 100) / 32.0f;
        x[32 + i] = (float)((37 * i + 11) % 101 - 50) / 16.0f;
    }
    const struct kern *k;
    for
        EACH(k, KERN_QUANT_ACT)
        {
            assert_true(k->run.quant(x, 64, q, scale, sum));
            expect_bits(k, "scale", scale, scale_bits, 2);
            assert_memory_equal(sum, sums, sizeof sums);
            assert_memory_equal(q, want, sizeof want);
        }
}

static void quant_refuses_what_is_not_finite(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    float x[96], scale[3];
    int8_t q[96];
    int32_t sum[3];
    const struct kern *k;
    for
        EACH(k, KERN_QUANT_ACT)
    for (int at = 0; at < 96; at++)
        for (size_t b = 0; b < LEN(bad); b++) {
            for (int i = 0; i < 96; i++)
                x[i] =
                    i < 32 ? 0x1p-101f : 3e38f; /* below the threshold; near the end of the range */
            assert_true(k->run.quant(x, 96, q, scale, sum));
            assert_true(scale[0] == 0.0f && sum[0] == 0 && q[7] == 0);
            assert_true(q[40] == 127 && sum[2] == 32 * 127);
            x[at] = bad[b];
            assert_false(k->run.quant(x, 96, q, scale, sum));
        }
}

/* Keys and values of one kv head as pages. */
struct pages {
    void *k[8], *v[8];
};

static void fill_pages(struct pages *p, const float *k, const float *v, uint32_t keys, uint32_t dim,
                       enum kern_kv kv)
{
    const size_t plane = kern_kv_plane_bytes(kv, dim);
    for (uint32_t g = 0; g * KERN_KV_PAGE < keys; g++) {
        p->k[g] = mem_aligned(64, plane);
        p->v[g] = mem_aligned(64, plane);
        memset(p->k[g], 0xff, plane); /* NaN wherever nothing is written */
        memset(p->v[g], 0xff, plane);
    }
    for (uint32_t j = 0; j < keys; j++)
        assert_true(kern_kv_write(kv, dim, j % KERN_KV_PAGE, k + (size_t)j * dim,
                                  v + (size_t)j * dim, p->k[j / KERN_KV_PAGE],
                                  p->v[j / KERN_KV_PAGE]));
}

/* The positions that see so many keys, all in one call. */
static void attend(const struct kern *kern, uint32_t dim, uint32_t heads, uint32_t keys,
                   enum kern_kv kv, const uint32_t *want)
{
    static const uint32_t seen[] = {1, 2, 63, 64, 65, 256, 257, 300};
    static float all[300 * 2 * 16], q[LEN(seen) * 2 * 16], k[300 * 16], v[300 * 16];
    const struct kern *join = kern_find(KERN_ATTN_JOIN, -1, kern->isa, NULL);
    const size_t width = (size_t)heads * dim;
    uint32_t pos[LEN(seen)], n = 0;
    float out[LEN(seen) * 2 * 16];
    draw(11, keys * width, 0x1p-13f, all);
    draw(12, (size_t)keys * dim, 0x1p-13f, k);
    draw(13, (size_t)keys * dim, 0x1p-13f, v);
    for (; n < LEN(seen) && seen[n] <= keys; n++) {
        pos[n] = seen[n] - 1;
        memcpy(q + n * width, all + pos[n] * width, width * sizeof *q);
    }
    struct pages p = {0};
    fill_pages(&p, k, v, keys, dim, kv);
    struct kern_attn a = {
        .q = q,
        .out = out,
        .ldq = width,
        .ldo = width,
        .pos = pos,
        .n_pos = n,
        .n_q = heads,
        .dim = dim,
        .block1 = UINT32_MAX,
        .kv = kv,
        .kpage = (const void *const *)p.k,
        .vpage = (const void *const *)p.v,
        .scale = (float)(1 / sqrt(dim)),
    };
    const size_t part = kern_attn_part_bytes(n * heads, dim, pos[n - 1] + 1),
                 scratch = kern_attn_scratch_bytes(n * heads, dim);
    a.part = mem_aligned(64, part);
    a.scratch = mem_aligned(64, scratch);
    memset(a.part, 0xff, part);
    memset(a.scratch, 0xff, scratch);
    kern->run.attn(&a);
    join->run.attn(&a);
    expect_bits(kern, kern_kv_name(kv), out, want, n * width);
    mem_free(a.part);
    mem_free(a.scratch);
    for (int g = 0; g < 8; g++)
        mem_free(p.k[g]), mem_free(p.v[g]);
}

static void attention_is_canonical(void **state)
{
    (void)state;
    const struct kern *k;
    for
        EACH(k, KERN_ATTN)
        {
            attend(k, 16, 2, 300, KERN_KV_F32, golden_attn_f32_16);
            attend(k, 16, 2, 300, KERN_KV_BF16, golden_attn_bf16_16);
            attend(k, 6, 3, 70, KERN_KV_F32, golden_attn_f32_6);
            attend(k, 6, 3, 70, KERN_KV_BF16, golden_attn_bf16_6);
        }
}

static void expert_sum_is_canonical(void **state)
{
    (void)state;
    float weight[5], y[24], x[24];
    const struct kern *add, *done;
    draw(14, 5, 0x1p-16f, weight);
    for
        EACH(add, KERN_MOE_ADD)
    for (size_t i = 0; (done = variant(KERN_MOE_DONE, i)) != NULL; i++)
        for (int turn = 0; turn < 2;
             turn++) { /* forwards and backwards: the order of experts does not matter */
            int64_t acc[24] = {0};
            draw(15, 24, 0x1p-12f, x);
            for (int e = 0; e < 5; e++) {
                const int at = turn == 0 ? e : 4 - e;
                draw(20 + (uint32_t)at, 24, 0x1p-11f, y);
                assert_true(add->run.moe_add(acc, y, weight[at], 24));
            }
            done->run.moe_done(acc, x, 24);
            expect_bits(done, "expert sum", x, golden_moe, 24);
            for (int j = 0; j < 24; j++)
                assert_true(acc[j] == 0);
        }
}

static void expert_sum_saturates(void **state)
{
    (void)state;
    /* products of 2^31 and more leave the range; sums stop at its ends; ties go to even */
    const float y[8] = {0x1p31f,         -0x1p31f,        -0x1p32f,  3e38f,
                        1.5f * 0x1p-32f, 2.5f * 0x1p-32f, -0x1p-33f, 0x1.8p-33f};
    const int64_t want[8] = {INT64_MAX, INT64_MIN, INT64_MIN, INT64_MAX, 2, 2, 0, 1};
    const struct kern *k;
    for
        EACH(k, KERN_MOE_ADD)
        {
            int64_t acc[8] = {0};
            assert_true(k->run.moe_add(acc, y, 1.0f, 8));
            assert_memory_equal(acc, want, sizeof want);
            assert_true(k->run.moe_add(acc, y, 1.0f, 8));
            assert_true(acc[0] == INT64_MAX && acc[1] == INT64_MIN && acc[4] == 4);
            const float small[8] = {1, -1, -1, 1, 0, 0, 0, 0}, bad[8] = {1, 1, 1, 1, 1, 1, 1, NAN};
            assert_true(k->run.moe_add(acc, small, 1.0f, 8));
            assert_true(acc[0] == INT64_MAX && acc[1] == INT64_MIN);
            assert_false(k->run.moe_add(acc, bad, 1.0f, 8));
            assert_false(k->run.moe_add(acc, y, INFINITY, 8));
            assert_false(k->run.moe_add(acc, y, 3e38f, 3)); /* the product overflows */
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isa_names),
        cmocka_unit_test(every_op_has_a_ref_row),
        cmocka_unit_test(exp_is_canonical),
        cmocka_unit_test(swiglu_is_canonical),
        cmocka_unit_test(rmsnorm_is_canonical),
        cmocka_unit_test(rope_is_canonical),
        cmocka_unit_test(quant_is_canonical),
        cmocka_unit_test(quant_has_the_known_answers),
        cmocka_unit_test(quant_refuses_what_is_not_finite),
        cmocka_unit_test(attention_is_canonical),
        cmocka_unit_test(expert_sum_is_canonical),
        cmocka_unit_test(expert_sum_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
