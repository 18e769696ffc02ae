/* test_moe_op.c - the public mixture-of-experts operator against its definition, computed token by
 * token with the kernels of ref/ on unpacked rows: the same bits over one to four uneven pools
 * (this program brings its own plan), for every batch split, ISA level and weight format; errors
 * that name their cause and leave other tokens alone.
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
#include "kern.h"
#include "kt.h"
#include "plan/plan.h"

#define E 7
#define K 3
#define MOST 192 /* elements of the widest row */
#define TOKENS 40

static uint32_t pools_wanted = 1;

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
    struct plan *p = mem_calloc(1, sizeof *p);
    struct plan_pool *pools = mem_calloc(pools_wanted, sizeof *pools);
    if (p == NULL || pools == NULL) {
        mem_free(p);
        mem_free(pools);
        KT_FAIL(err, KT_E_NOMEM, "no memory for a plan");
    }
    p->n_pools = pools_wanted;
    p->pools = pools;
    for (uint32_t i = 0; i < pools_wanted; i++) {
        pools[i].node = -1;
        pools[i].share = share[pools_wanted - 1][i];
        pools[i].threads = 1 + i % 2;
        p->n_threads += pools[i].threads;
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

/* ---- the world: values, rows in file form, what must come out ---- */

struct world {
    enum dtype type[3]; /* gate, up, down */
    uint32_t hidden, inter;
    float *value[E][3]; /* as the caller has them */
    uint8_t *file[E][3];
    float x[TOKENS * MOST], weight[TOKENS * K], want[TOKENS * MOST];
    int32_t id[TOKENS * K];
};

static uint32_t seed = 1;

static float uniform(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float)(int32_t)seed * 0x1p-31f;
}

static void multiply(enum dtype t, const void *rows, uint32_t n_rows, const float *x, uint32_t k,
                     float *y)
{
    static _Alignas(64) int8_t q[MOST];
    static float scale[MOST];
    static int32_t sum[MOST];
    struct kern_mm m = {.w = rows,
                        .k = k,
                        .row1 = n_rows,
                        .n = 1,
                        .q = q,
                        .scale = scale,
                        .sum = sum,
                        .x = x,
                        .ldq = MOST,
                        .ldg = MOST,
                        .ldx = k,
                        .y = y,
                        .ldy = n_rows};
    if (dtype_info(t)->block_elems > 1)
        assert_true(kern_find(KERN_QUANT_ACT, -1, 0, NULL)->run.quant(x, k, q, scale, sum));
    kern_find(KERN_GEMV, (int)t, 0, NULL)->run.mm(&m);
}

static void define(struct world *w)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        int64_t acc[MOST] = {0};
        float g[MOST], u[MOST], y[MOST], *out = w->want + t * w->hidden;
        for (int j = 0; j < K; j++) {
            uint8_t *const *file = w->file[w->id[t * K + (uint32_t)j]];
            multiply(w->type[0], file[0], w->inter, w->x + t * w->hidden, w->hidden, g);
            multiply(w->type[1], file[1], w->inter, w->x + t * w->hidden, w->hidden, u);
            kern_find(KERN_SWIGLU, -1, 0, NULL)->run.swiglu(g, u, w->inter, g);
            multiply(w->type[2], file[2], w->hidden, g, w->inter, y);
            assert_true(kern_find(KERN_MOE_ADD, -1, 0, NULL)
                            ->run.moe_add(acc, y, w->weight[t * K + (uint32_t)j], w->hidden));
        }
        memset(out, 0, w->hidden * sizeof *out);
        kern_find(KERN_MOE_DONE, -1, 0, NULL)->run.moe_done(acc, out, w->hidden);
    }
}

static void make(struct world *w, const char *format, const char *down, uint32_t size[2])
{
    memset(w, 0, sizeof *w);
    w->type[0] = w->type[1] = (enum dtype)dtype_by_name(format);
    w->type[2] = (enum dtype)dtype_by_name(down);
    w->hidden = size[0];
    w->inter = size[1];
    for (int e = 0; e < E; e++)
        for (int m = 0; m < 3; m++) {
            size_t n = (size_t)w->hidden * w->inter;
            w->value[e][m] = malloc(n * sizeof(float));
            w->file[e][m] = malloc(n * sizeof(float));
            assert_true(w->value[e][m] != NULL && w->file[e][m] != NULL);
            for (size_t i = 0; i < n; i++)
                w->value[e][m][i] = uniform();
            assert_true(kern_quantise(w->type[m], w->value[e][m], n, w->file[e][m]));
        }
    for (uint32_t i = 0; i < TOKENS * w->hidden; i++)
        w->x[i] = 4 * uniform();
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t j = 0; j < K; j++) {
            w->id[t * K + j] = (int32_t)((t * t + 2 * j) % E); /* uneven, distinct in a row */
            w->weight[t * K + j] = uniform();
        }
    define(w);
}

static void drop(struct world *w)
{
    for (int e = 0; e < E; e++)
        for (int m = 0; m < 3; m++) {
            free(w->value[e][m]);
            free(w->file[e][m]);
        }
}

static void options(const struct world *w, kt_moe_opts *o)
{
    kt_moe_opts_init(o);
    o->hidden = w->hidden;
    o->inter = w->inter;
    o->n_experts = E;
    o->top_k = K;
    o->format = dtype_name(w->type[0]);
    o->down_format = dtype_name(w->type[2]);
    o->max_tokens = 16;
}

static kt_moe *loaded(const struct world *w, const kt_moe_opts *o, bool from_values)
{
    kt_moe *op;
    kt_err err = {0};
    if (kt_moe_open(o, &op, &err) != KT_OK)
        fail_msg("%s", err.msg);
    for (uint32_t e = 0; e < E; e++)
        for (int m = 0; m < 3; m++)
            if (kt_moe_load(op, e, (kt_moe_matrix)m, from_values ? "f32" : dtype_name(w->type[m]),
                            from_values ? (void *)w->value[e][m] : w->file[e][m], &err) != KT_OK)
                fail_msg("%s", err.msg);
    return op;
}

static kt_moe *open_loaded(const struct world *w, const char *level, bool from_values)
{
    kt_moe_opts o;
    options(w, &o);
    o.cpu_mask = level;
    return loaded(w, &o, from_values);
}

static void compare(const struct world *w, kt_moe *op)
{
    static const uint32_t split[] = {1, 3, 4, 5, 16, 17, TOKENS};
    static float got[TOKENS * MOST];
    kt_err err = {0};
    for (size_t s = 0; s < sizeof split / sizeof split[0]; s++) {
        memset(got, 0xff, sizeof got);
        for (uint32_t at = 0; at < TOKENS; at += split[s]) {
            uint32_t n = TOKENS - at < split[s] ? TOKENS - at : split[s];
            if (kt_moe_forward(op, w->x + at * w->hidden, w->id + at * K, w->weight + at * K, n,
                               got + at * w->hidden, &err) != KT_OK)
                fail_msg("%s", err.msg);
        }
        assert_memory_equal(got, w->want, (size_t)TOKENS * w->hidden * sizeof *got);
    }
}

static void equals_its_definition(void **state)
{
    static const struct {
        const char *format, *down;
        uint32_t size[2];
    } c[] = {{"mxfp4", "mxfp4", {160, 192}}, {"q8_0", "q4_0", {64, 160}},
             {"q4_0", "q8_0", {96, 32}},     {"bf16", "bf16", {45, 37}},
             {"bf16", "q8_0", {45, 64}},     {"q4_1", "f32", {128, 75}}};
    static struct world w;
    (void)state;
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        uint32_t size[2] = {c[i].size[0], c[i].size[1]};
        make(&w, c[i].format, c[i].down, size);
        for (pools_wanted = 1; pools_wanted <= 4; pools_wanted++)
            for (int ref = 0; ref < 2; ref++) {
                kt_moe *op = open_loaded(&w, ref ? "ref" : NULL, pools_wanted % 2 == 0);
                compare(&w, op);
                kt_moe_close(op);
            }
        drop(&w);
    }
    pools_wanted = 1;
}

/* With activations rounded to BF16: near the definition, never equal to it, and the same bits over
 * any pools. */
static void fast_bf16_is_near_and_one_for_all_pools(void **state)
{
    static const uint32_t sizes[][2] = {{45, 37}, {160, 192}, {128, 33}};
    static struct world w;
    static float first[TOKENS * MOST], got[TOKENS * MOST];
    (void)state;
    if ((kern_isa_host() & KERN_ISA_AVX512BF16) == 0) {
        puts("this CPU or this build has no AVX512-BF16");
        skip();
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        make(&w, "bf16", "bf16", (uint32_t[2]){sizes[i][0], sizes[i][1]});
        for (pools_wanted = 1; pools_wanted <= 4; pools_wanted++) {
            const size_t n = (size_t)TOKENS * w.hidden;
            double off = 0, all = 0;
            kt_moe_opts o;
            kt_err err = {0};
            options(&w, &o);
            o.fast_bf16 = true;
            o.max_tokens = TOKENS;
            kt_moe *op = loaded(&w, &o, false);
            if (kt_moe_forward(op, w.x, w.id, w.weight, TOKENS, got, &err) != KT_OK)
                fail_msg("%s", err.msg);
            for (size_t j = 0; j < n; j++) {
                off += pow((double)(got[j] - w.want[j]), 2);
                all += pow((double)w.want[j], 2);
            }
            assert_true(off > 0 &&
                        sqrt(off / all) < 0x1p-8); /* a rounding is off by 2^-9 at most */
            if (pools_wanted == 1)
                memcpy(first, got, n * sizeof *got);
            assert_memory_equal(got, first, n * sizeof *got);
            kt_moe_close(op);
        }
        drop(&w);
    }
    pools_wanted = 1;
}

static void refused(const kt_moe_opts *o, kt_status want, const char *text)
{
    kt_moe *op;
    kt_err err = {0};
    kt_status s = kt_moe_open(o, &op, &err);
    if (s != want || strstr(err.msg, text) == NULL || op != NULL)
        fail_msg("%d instead of %d: %s", s, want, err.msg);
}

static void bad_options_are_refused(void **state)
{
    static struct world w;
    kt_moe_opts good, o;
    (void)state;
    make(&w, "q8_0", "q8_0", (uint32_t[2]){64, 32});
    options(&w, &good);
    o = good, o.size = 1, refused(&o, KT_E_INVALID, "kt.h");
    o = good, o.hidden = 0, refused(&o, KT_E_INVALID, "hidden 0");
    o = good, o.top_k = E + 1, refused(&o, KT_E_INVALID, "top_k 8");
    o = good, o.max_tokens = 0, refused(&o, KT_E_INVALID, "max_tokens 0");
    o = good, o.format = "f64", refused(&o, KT_E_UNSUPPORTED, "f64");
    o = good, o.format = NULL, refused(&o, KT_E_UNSUPPORTED, "no format");
    o = good, o.hidden = 65, refused(&o, KT_E_INVALID, "65 elements");
    o = good, o.memory_limit_bytes = 1, refused(&o, KT_E_LIMIT, "GiB");
    o = good, o.cpu_mask = "abacus", refused(&o, KT_E_INVALID, "abacus");
    kt_moe_close(NULL);
    drop(&w);
}

static void bad_calls_are_refused(void **state)
{
    static struct world w;
    static float out[TOKENS * MOST];
    kt_err err;
    kt_moe_opts o;
    kt_moe *op;
    kt_moe_info info;
    (void)state;
    make(&w, "q8_0", "q8_0", (uint32_t[2]){64, 32});
    options(&w, &o);
    assert_int_equal(kt_moe_open(&o, &op, &err), KT_OK);
    kt_moe_get_info(op, &info);
    assert_int_equal(info.expert_bytes, 3 * 64 * 34);
    assert_int_equal(info.n_pools, 1);
    assert_int_equal(kt_moe_forward(op, w.x, w.id, w.weight, 1, out, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "was not loaded"));
    assert_int_equal(kt_moe_load(op, E, KT_MOE_UP, "f32", w.value[0][0], &err), KT_E_INVALID);
    assert_int_equal(kt_moe_load(op, 0, KT_MOE_UP, "mxfp4", w.value[0][0], &err), KT_E_INVALID);
    assert_int_equal(kt_moe_load(op, 0, KT_MOE_UP, "f32", NULL, &err), KT_E_INVALID);
    w.value[1][2][77] = NAN;
    assert_int_equal(kt_moe_load(op, 1, KT_MOE_DOWN, "f32", w.value[1][2], &err), KT_E_FORMAT);
    assert_non_null(strstr(err.msg, "row 2"));
    kt_moe_close(op);

    op = open_loaded(&w, NULL, false);
    w.id[4] = E;
    assert_int_equal(kt_moe_forward(op, w.x, w.id, w.weight, 2, out, &err), KT_E_INVALID);
    w.id[4] = w.id[3];
    assert_int_equal(kt_moe_forward(op, w.x, w.id, w.weight, 2, out, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "twice"));
    assert_int_equal(kt_moe_forward(op, w.x, w.id, w.weight, 0, out, &err), KT_E_INVALID);
    kt_moe_close(op);

    options(&w, &o);
    o.format = "q4_k", o.hidden = 256;
    assert_int_equal(kt_moe_open(&o, &op, &err), KT_OK);
    assert_int_equal(kt_moe_load(op, 0, KT_MOE_GATE, "f32", w.value[0][0], &err), KT_E_UNSUPPORTED);
    kt_moe_close(op);
    drop(&w);
}

/* NaN in one token: the others have their bits, alone and in a batch, and so has the next call. */
/* Shares and bytes per pool; pages count as looked at when the last matrix has come, not before. */
static void pools_tell_their_weights(void **state)
{
    static struct world w;
    uint32_t size[2] = {64, 96};
    kt_moe *op;
    kt_moe_opts o;
    kt_moe_info info;
    kt_pool_info pool;
    kt_err err = {0};
    (void)state;
    pools_wanted = 3;
    make(&w, "q8_0", "q8_0", size);
    options(&w, &o);
    assert_int_equal(kt_moe_open(&o, &op, &err), KT_OK);
    kt_moe_get_info(op, &info);
    assert_int_equal(info.n_pools, 3);
    for (uint32_t e = 0; e < E; e++)
        for (int m = KT_MOE_GATE; m <= KT_MOE_DOWN; m++) {
            assert_true(kt_moe_get_pool(op, 0, &pool));
            assert_false(pool.pages_known);
            assert_int_equal(kt_moe_load(op, e, (kt_moe_matrix)m, "q8_0", w.file[e][m], &err),
                             KT_OK);
        }
    uint64_t bytes = 0;
    double share = 0;
    for (uint32_t p = 0; p < info.n_pools; p++) {
        assert_true(kt_moe_get_pool(op, p, &pool));
        assert_true(pool.pages_known);
        bytes += pool.weight_bytes;
        share += pool.row_share;
    }
    assert_int_equal(bytes, info.weight_bytes);
    assert_true(fabs(share - 1) < 1e-9);
    assert_false(kt_moe_get_pool(op, info.n_pools, &pool));
    kt_moe_close(op);
    drop(&w);
    pools_wanted = 1;
}

static void a_bad_token_stays_alone(void **state)
{
    static struct world w;
    static float out[TOKENS * MOST];
    kt_err err;
    (void)state;
    make(&w, "mxfp4", "mxfp4", (uint32_t[2]){96, 64});
    kt_moe *op = open_loaded(&w, NULL, false);
    for (uint32_t n = 3; n <= TOKENS; n += TOKENS - 3) {
        float was = w.x[96 + 5];
        w.x[96 + 5] = INFINITY;
        assert_int_equal(kt_moe_forward(op, w.x, w.id, w.weight, n, out, &err), KT_E_NUMERIC);
        assert_non_null(strstr(err.msg, "token 1"));
        assert_memory_equal(out, w.want, 96 * sizeof *out);
        assert_memory_equal(out + 192, w.want + 192, (n - 2) * 96 * sizeof *out);
        w.x[96 + 5] = was;
        compare(&w, op);
    }
    kt_moe_close(op);
    drop(&w);
}

static void opening_survives_failing_allocations(void **state)
{
    static struct world w;
    kt_moe_opts o;
    kt_moe *op = NULL;
    kt_err err;
    (void)state;
    make(&w, "q8_0", "q8_0", (uint32_t[2]){64, 32});
    options(&w, &o);
    for (long n = 0; op == NULL; n++) {
        mem_fail_after(n);
        kt_status s = kt_moe_open(&o, &op, &err);
        mem_fail_after(-1);
        assert_true(n < 10000 && (s == KT_OK) == (op != NULL));
    }
    kt_moe_close(op);
    drop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_its_definition),
                                       cmocka_unit_test(fast_bf16_is_near_and_one_for_all_pools),
                                       cmocka_unit_test(bad_options_are_refused),
                                       cmocka_unit_test(bad_calls_are_refused),
                                       cmocka_unit_test(a_bad_token_stays_alone),
                                       cmocka_unit_test(pools_tell_their_weights),
                                       cmocka_unit_test(opening_survives_failing_allocations)};
    return cmocka_run_group_tests_name("moe operator", tests, NULL, NULL);
}
