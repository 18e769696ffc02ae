/* test_plan_model.c - plans of models on hosts that are not here: bytes add up, what does not fit
 * is refused and every remedy makes it fit, the terms of a prediction sum to the step, what-ifs
 * change what they should, a fast tier takes the dense part first, and the same inputs give the
 * same bytes from profile and from topology. Rates of the example profile are illustrative; only
 * relations between predictions are checked here (docs/PREDICTIONS.md compares with published
 * speeds).
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
#include <jansson.h>

#include "base/mem.h"
#include "kern.h"
#include "tuner/plan_args.h"

struct setup {
    struct plan_args a;
    struct shape *s;
    struct plan_model *m;
    const char *dense; /* format of the other matrices; NULL: the model's */
    char path[600], model[600];
};

static void close_setup(struct setup *t)
{
    plan_model_free(t->m);
    plan_args_close(&t->a);
    shape_close(t->s);
    t->m = NULL;
    t->s = NULL;
}

static kt_status try_open(struct setup *t, const char *profile, const char *model,
                          const char *format, const struct plan_model_opts *o, kt_err *err)
{
    const char *src = getenv("KT_SRCDIR");
    struct plan_model_opts def;
    plan_model_opts_init(&def);
    if (strncmp(profile, "syn:", 4) == 0) {
        t->a.topology = profile;
    } else {
        snprintf(t->path, sizeof t->path, "%s/profiles/%s", src, profile);
        t->a.profile_path = t->path;
    }
    snprintf(t->model, sizeof t->model, "%s/profiles/shapes/%s.config.json", src, model);
    KT_TRY(shape_open(t->model, format, t->dense, &t->s, err));
    KT_TRY(plan_args_open(&t->a, err));
    return plan_model(t->s, t->a.host, t->a.plan, t->a.profile, o != NULL ? o : &def, &t->m, err);
}

static struct setup *open_setup(struct setup *t, const char *profile, const char *model,
                                const char *format, const struct plan_model_opts *o)
{
    kt_err err = {0};
    if (try_open(t, profile, model, format, o, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return t;
}

static struct setup fresh(void)
{
    struct setup t = {.s = NULL};
    plan_args_init(&t.a);
    return t;
}

static double placed(const struct plan_model *m)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->n_places; i++)
        sum += m->places[i].experts + m->places[i].dense;
    return sum;
}

static double sum_terms(const struct plan_prediction *p)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_terms; i++)
        sum += p->terms[i].inside ? 0 : p->terms[i].seconds;
    return sum;
}

static void bytes_add_up(void **state)
{
    static const char *const models[] = {"qwen3-30b-a3b", "deepseek-v3",  "deepseek-v4-flash",
                                         "glm-4.5-air",   "gpt-oss-120b", "qwen3-next-80b-a3b"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct setup t = fresh();
        open_setup(&t, "example.json", models[i], "mxfp4", NULL);
        assert_true(fabs(placed(t.m) / (shape_expert_bytes(t.s) + shape_dense_bytes(t.s)) - 1) <
                    1e-9);
        assert_int_equal(t.m->n_places, 2);
        assert_true(t.m->fits && t.m->decode.possible);
        assert_true(fabs(sum_terms(&t.m->decode) / t.m->decode.seconds - 1) < 1e-9);
        assert_true(fabs(t.m->decode.tokens_per_second * t.m->decode.seconds - 1) < 1e-9);
        close_setup(&t);
    }
}

/* Options of a remedy, as the command line would take them. */
static void take_options(char *words, struct setup *u, struct plan_model_opts *o,
                         const char **format, const char **dense)
{
    for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " ")) {
        char *value = strtok(NULL, " ");
        assert_non_null(value);
        if (strcmp(w, "--format") == 0)
            *format = value;
        else if (strcmp(w, "--format-dense") == 0)
            *dense = value;
        else if (strcmp(w, "--kv-type") == 0)
            o->kv_type = value;
        else if (strcmp(w, "--fast-tier") == 0)
            o->fast_tier = value;
        else if (strcmp(w, "--ctx") == 0)
            o->ctx_tokens = (uint32_t)atol(value);
        else if (strcmp(w, "--parallel") == 0)
            o->parallel = (uint32_t)atol(value);
        else if (strcmp(w, "--set") == 0)
            u->a.set[u->a.n_set++] = value;
        else
            fail_msg("an option that nobody takes: %s", w);
    }
}

/* Three remedies, cheapest first, and each does what it says. */
static void remedies_help(void **state)
{
    static const struct {
        const char *host, *model, *format;
        uint32_t ctx, parallel;
        const char *limit, *first; /* what the cheapest is */
    } rows[] = {
        {"example.json", "qwen3-30b-a3b", "q8_0", 32768, 16, "limits.memory_max_bytes=60GiB",
         "--kv-type int8"},
        {"example.json", "qwen3-30b-a3b", NULL, 4096, 1, "limits.memory_max_bytes=40GiB",
         "--format q8_0"},
        {"example.json", "deepseek-v3", "q8_0", 8192, 2, NULL, "--format"},
        {"example.json", "glm-4.5-air", NULL, 8192, 1, "limits.memory_max_bytes=210GB", NULL},
        {"example.json", "gpt-oss-120b", NULL, 4096, 64, "limits.memory_max_bytes=72GB", NULL},
        {"laptop-hx370-32g.json", "kimi-k2", NULL, 8192, 1, NULL, "--format q2_k and 326 GB more"},
        {"laptop-hx370-32g.json", "gpt-oss-120b", NULL, 8192, 1, NULL, "35 GB more memory"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct setup t = fresh();
        struct plan_model_opts o;
        plan_model_opts_init(&o);
        o.ctx_tokens = rows[i].ctx;
        o.parallel = rows[i].parallel;
        if (rows[i].limit != NULL)
            t.a.set[t.a.n_set++] = rows[i].limit;
        open_setup(&t, rows[i].host, rows[i].model, rows[i].format, &o);
        assert_false(t.m->fits);
        assert_true(t.m->refusal[0] != '\0');
        assert_int_equal(t.m->n_remedies, PLAN_REMEDIES);
        if (rows[i].first != NULL)
            assert_memory_equal(t.m->remedies[0].action, rows[i].first, strlen(rows[i].first));
        for (uint32_t k = 0; k < t.m->n_remedies; k++) {
            const struct plan_remedy *r = &t.m->remedies[k];
            struct setup u = fresh();
            struct plan_model_opts p = o;
            const char *format = rows[i].format, *dense = NULL;
            char words[sizeof r->options];
            print_message("%s: %s - %s\n", rows[i].model, r->action, r->price);
            assert_true(k == 0 || r->cost >= t.m->remedies[k - 1].cost);
            for (uint32_t other = 0; other < k; other++)
                assert_string_not_equal(t.m->remedies[other].options, r->options);
            if (rows[i].limit != NULL)
                u.a.set[u.a.n_set++] = rows[i].limit;
            memcpy(words, r->options, sizeof words);
            take_options(words, &u, &p, &format, &dense);
            u.dense = dense;
            open_setup(&u, rows[i].host, rows[i].model, format, &p);
            assert_true(u.m->fits);
            close_setup(&u);
        }
        close_setup(&t);
    }
}

static void what_ifs(void **state)
{
    struct setup t = fresh(), u = fresh(), v = fresh();
    (void)state;
    open_setup(&t, "example.json", "qwen3-30b-a3b", "mxfp4", NULL);
    u.a.set[u.a.n_set++] = "limits.cpu_quota_cores=4";
    open_setup(&u, "example.json", "qwen3-30b-a3b", "mxfp4", NULL);
    assert_int_equal(u.a.plan->n_threads, 3); /* one of four cores is kept for the server */
    assert_true(u.m->decode.tokens_per_second < t.m->decode.tokens_per_second);
    v.a.set[v.a.n_set++] = "mem.read:node0.t12=332e9";
    v.a.set[v.a.n_set++] = "mem.read:node0.t8=300e9";
    v.a.set[v.a.n_set++] = "mem.read:node0.t16=336e9";
    open_setup(&v, "example.json", "qwen3-30b-a3b", "mxfp4", NULL);
    assert_true(v.m->rates.dram_bytes_per_second > 1.4 * t.m->rates.dram_bytes_per_second);
    close_setup(&t);
    close_setup(&u);
    close_setup(&v);
    static const char *const bad[] = {"nothing",
                                      "limits.cpu_quota_cores=0",
                                      "limits.unknown=1",
                                      "node9.bytes=1GiB",
                                      "mem.read:node0.t8=fast",
                                      "=4",
                                      "limits.cpuset_cpus=70000-1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct setup w = fresh();
        kt_err err = {0};
        w.a.set[w.a.n_set++] = bad[i];
        assert_int_equal(try_open(&w, "example.json", "qwen3-30b-a3b", "mxfp4", NULL, &err),
                         KT_E_INVALID);
        assert_non_null(strstr(err.msg, "--set"));
        close_setup(&w);
    }
}

static void fast_tiers(void **state)
{
    static const char *const set[] = {"gpu.mem:gpu0=1600e9", "gpu.expert:gpu0.bf16.m512=400e12",
                                      "gpu.h2d:gpu0.node0=50e9",
                                      "expert.gemm:mxfp4.avx512vnni.m32=4e12"};
    struct plan_model_opts o;
    double was = 0;
    (void)state;
    plan_model_opts_init(&o);
    static const char *const specs[] = {"none", "gpu0=2GB", "gpu0=10GB", "gpu0=50%", "auto"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct setup t = fresh();
        for (int k = 0; k < 4; k++)
            t.a.set[t.a.n_set++] = set[k];
        o.fast_tier = specs[i];
        open_setup(&t, "example.json", "qwen3-30b-a3b", "mxfp4", &o);
        assert_true(t.m->fits && t.m->decode.possible && t.m->prefill.possible);
        assert_true(t.m->decode.tokens_per_second > was); /* more fast memory, more speed; */
        was = i == 0 ? 0 : t.m->decode.tokens_per_second; /* a little of it may not pay its joins */
        assert_true(fabs(sum_terms(&t.m->decode) / t.m->decode.seconds - 1) < 1e-9);
        assert_true(fabs(sum_terms(&t.m->prefill) / t.m->prefill.seconds - 1) < 1e-9);
        assert_true(t.m->dense_fast == (i >= 2));
        if (i == 3)
            assert_true(fabs(t.m->hit - 0.5) < 1e-6);
        if (i == 4)
            assert_true(t.m->hit > 0.999);
        close_setup(&t);
    }
    static const char *const bad[] = {"gpu1=4GB", "gpu0",      "gpu0=",     "gpu0=4GB;", "hbm0=1GB",
                                      "sim0=1GB", "numa0=1GB", "gpu0=150%", "gpu0=-1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct setup t = fresh();
        kt_err err = {0};
        o.fast_tier = bad[i];
        assert_int_equal(try_open(&t, "example.json", "qwen3-30b-a3b", "mxfp4", &o, &err),
                         KT_E_INVALID);
        assert_true(strstr(err.msg, "fast") != NULL);
        close_setup(&t);
    }
}

static void batches(void **state)
{
    struct setup t = fresh();
    struct plan_model_opts o;
    (void)state;
    plan_model_opts_init(&o);
    o.parallel = 8;
    o.ctx_tokens = 4096;
    open_setup(&t, "example.json", "qwen3-30b-a3b", "mxfp4", &o);
    const struct plan_prediction *one = &t.m->decode, *all = &t.m->decode_all;
    assert_true(all->tokens_per_second > one->tokens_per_second);
    assert_true(all->tokens_per_second < 8 * one->tokens_per_second);
    assert_true(fabs(all->experts_read - 128 * (1 - pow(1 - 8 / 128.0, 8))) < 1e-9);
    close_setup(&t);
}

/* Without measurements sizes and threads are planned, and no speed is made up. */
static void topology_alone(void **state)
{
    struct setup t = fresh();
    (void)state;
    open_setup(&t, "syn:pack:2 [numa(memory=96GB)] core:8 pu:2", "qwen3-30b-a3b", "mxfp4", NULL);
    assert_int_equal(t.m->n_places, 2);
    assert_true(t.m->fits);
    assert_false(t.m->decode.possible);
    assert_non_null(strstr(t.m->decode.why_not, "mem.read"));
    close_setup(&t);
}

static void same_bytes(void **state)
{
    struct strbuf first = {0}, again = {0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct setup t = fresh();
        struct strbuf *b = i == 0 ? &first : &again;
        open_setup(&t, "example.json", "deepseek-v4-flash", NULL, NULL);
        plan_model_print(t.m, t.a.host, false, b);
        plan_model_json(t.m, t.a.host, b);
        assert_true(sb_ok(b));
        close_setup(&t);
    }
    assert_int_equal(first.len, again.len);
    assert_memory_equal(first.data, again.data, first.len);
    assert_non_null(strstr(first.data, "uniform"));
    sb_free(&first);
    sb_free(&again);
}

/* Straight lines between the points of a curve; in proportion below the first; flat above. */
static void curves(void **state)
{
    struct setup t = fresh();
    char id[64];
    (void)state;
    open_setup(&t, "example.json", "qwen3-30b-a3b", "mxfp4", NULL);
    const struct profile *p = t.a.profile; /* node0: 151.4, 166.2 and 168.1 GB/s at 8, 12 and 16 */
    assert_true(fabs(cost_node_read(p, 0, 12, id) - 166.2e9) < 1);
    assert_string_equal(id, "mem.read:node0.t12");
    assert_true(fabs(cost_node_read(p, 0, 10, NULL) - 158.8e9) < 1);
    assert_true(fabs(cost_node_read(p, 0, 4, NULL) - 75.7e9) < 1);
    assert_true(fabs(cost_node_read(p, 0, 64, NULL) - 168.1e9) < 1);
    assert_true(cost_node_read(p, 7, 4, NULL) <= 0);
    assert_true(cost_node_read(NULL, 0, 4, NULL) <= 0);
    const struct cost_source *c = t.m->sources;
    assert_int_equal(c[COST_CPU_READ].origin, COST_MEASURED);
    assert_non_null(strstr(c[COST_CPU_READ].from, "expert.gemv:mxfp4"));
    assert_int_equal(c[COST_BARRIER].origin, COST_MEASURED);
    assert_int_equal(c[COST_CPU_OPS].origin, COST_MISSING);
    assert_false(t.m->prefill.possible); /* no expert.gemm: no guess */
    close_setup(&t);
}

/* A proved tuning of this kernel build sets threads and level and says so; one of another build, or
 * one that proved nothing, changes nothing. */
static void tunings(void **state)
{
    char path[] = "/tmp/kt_tuned_XXXXXX.json", src[600], abi[17];
    kt_err err = {0};
    struct profile *p;
    (void)state;
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    kern_abi(abi);
    for (int i = 0; i < 3; i++) {
        snprintf(src, sizeof src, "%s/profiles/example.json", getenv("KT_SRCDIR"));
        assert_int_equal(profile_read(src, &p, &err), KT_OK);
        json_t *t = json_pack(
            "{s:s,s:{s:i,s:i,s:i,s:i,s:s},s:s,s:s,s:s,s:s,s:i,s:f,s:i,s:i,s:s,s:{},s:{s:i,s:s},s:b,"
            "s:{s:f,s:[f,f],s:i},s:[]}",
            "host", p->hard_id, "shape", "experts", 128, "top_k", 8, "hidden", 2048, "inter", 768,
            "format", "mxfp4", "goal", "decode", "kernel_abi", i == 1 ? "0123456789abcdef" : abi,
            "stage", "quick", "created", "2026-01-15T09:30:00Z", "seed", 1, "noise_cv", 0.01,
            "configs_total", 8, "configs_timed", 8, "stop", "proved", "default", "chosen",
            "threads", 10, "kernel", "avx2", "proved", i != 2, "gain", "median", 0.05, "ci95", 0.04,
            0.06, "n", 20, "decisions");
        assert_non_null(t);
        assert_int_equal(profile_put_tuning(p, t, &err), KT_OK);
        if (profile_write(p, path, &err) != KT_OK)
            fail_msg("%s", err.msg);
        profile_close(p);
        struct setup u = fresh();
        struct plan_model_opts o;
        struct strbuf b = {0};
        plan_model_opts_init(&o);
        u.a.profile_path = path;
        snprintf(u.model, sizeof u.model, "%s/profiles/shapes/qwen3-30b-a3b.config.json",
                 getenv("KT_SRCDIR"));
        assert_int_equal(shape_open(u.model, "mxfp4", NULL, &u.s, &err), KT_OK);
        u.a.shape = u.s;
        if (plan_args_open(&u.a, &err) != KT_OK ||
            plan_model(u.s, u.a.host, u.a.plan, u.a.profile, &o, &u.m, &err) != KT_OK)
            fail_msg("%s", err.msg);
        assert_true((u.a.plan->n_threads == 10) == (i == 0));
        plan_model_print(u.m, u.a.host, false, &b);
        assert_true((strstr(b.data, "tuned   threads = 10") != NULL) == (i == 0));
        sb_free(&b);
        close_setup(&u);
    }
    remove(path);
}

/* A profile's host plans as the machine that it describes: pools, threads, ISA. */
static void rehost(void **state)
{
    struct setup t = fresh();
    (void)state;
    open_setup(&t, "example.json", "qwen3-30b-a3b", "mxfp4", NULL);
    const struct host *h = t.a.host;
    assert_int_equal(h->n_cores, 32);
    assert_false(h->this_system);
    assert_int_equal(h->cores[0].n_pus, 2);
    assert_true(host_set_has(&h->cores[0].pus, 0) && host_set_has(&h->cores[0].pus, 32));
    assert_int_equal(t.a.plan->n_pools, 2);
    assert_int_equal(t.a.plan->n_tiers, 1);
    assert_int_equal(t.a.plan->n_gpus, 1);
    close_setup(&t);
    for (long n = 0; n < 400; n += 7) { /* no crash and no leak when memory is short */
        struct setup u = fresh();
        kt_err err = {0};
        mem_fail_after(n);
        kt_status st = try_open(&u, "example.json", "qwen3-30b-a3b", "mxfp4", NULL, &err);
        mem_fail_after(-1);
        assert_true(st == KT_OK || err.msg[0] != '\0');
        close_setup(&u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_add_up), cmocka_unit_test(remedies_help),
        cmocka_unit_test(what_ifs),     cmocka_unit_test(fast_tiers),
        cmocka_unit_test(batches),      cmocka_unit_test(topology_alone),
        cmocka_unit_test(same_bytes),   cmocka_unit_test(curves),
        cmocka_unit_test(tunings),      cmocka_unit_test(rehost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
