/* test_tuned.c - from an entry of host.json's tunings to a running engine: an equal shape, else the
 * nearest of the same format; another kernel build, another host, an unproved search or more
 * threads than there are change nothing; the user's flags come first. The plan's text says where
 * each value comes from. The profile is made from this host's facts, the model is the demo.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/engine.h"
#include "kern.h"
#include "kt.h"
#include "profile/profile.h"

static struct host *host;
static char model[4096], file[64], abi[17];
static kt_err err;

/* An entry for the shape of the demo, but for the number of experts. */
static json_t *entry(const char *goal, uint32_t experts, const char *format, json_t *chosen)
{
    json_t *def =
        json_pack("{s:i,s:s,s:i,s:i,s:i,s:i}", "threads", 64, "kernel", "avx2", "claim_rows", 512,
                  "spin_us", 50, "gemv_rows", 0, "gemm_claim_rows", 64);
    struct profile *p;
    struct profile_tool tool = {0};
    memcpy(tool.kernel_abi, abi, sizeof abi);
    assert_int_equal(profile_build(host, &tool, &p, &err), KT_OK);
    json_t *all = json_copy(def);
    json_object_update(all, chosen);
    json_t *e = json_pack(
        "{s:s,s:{s:i,s:i,s:i,s:i,s:s},s:s,s:s,s:s,s:s,s:i,s:f,s:i,s:i,s:s,s:o,s:o,s:b,s:{s:f,s:[f,"
        "f],s:i},s:n,s:[]}",
        "host", p->hard_id, "shape", "experts", (int)experts, "top_k", 4, "hidden", 256, "inter",
        64, "format", format, "goal", goal, "kernel_abi", abi, "stage", "quick", "created",
        "2026-11-01T00:00:00Z", "seed", 1, "noise_cv", 0.01, "configs_total", 2, "configs_timed", 2,
        "stop", "proved", "default", def, "chosen", all, "proved", 1, "gain", "median", 0.05,
        "ci95", 0.03, 0.07, "n", 20, "regret", "decisions");
    assert_non_null(e);
    json_decref(chosen);
    profile_close(p);
    return e;
}

/* Write a profile with these tunings (stolen). */
static void write_profile(json_t *list)
{
    struct profile *p;
    struct profile_tool tool = {0};
    memcpy(tool.kernel_abi, abi, sizeof abi);
    assert_int_equal(profile_build(host, &tool, &p, &err), KT_OK);
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_int_equal(profile_put_tuning(p, json_incref(json_array_get(list, i)), &err), KT_OK);
    json_decref(list);
    if (profile_write(p, file, &err) != KT_OK)
        fail_msg("%s", err.msg);
    profile_close(p);
}

static bool yields; /* values as from a configuration file */

static kt_engine *open_engine(uint32_t threads, bool ignore, kt_tuning *t, const char **plan)
{
    kt_engine_opts o;
    kt_engine *e;
    static kt_engine_info info;
    kt_engine_opts_init(&o);
    o.model_path = model;
    o.profile_path = file;
    o.ctx_tokens = 64;
    o.batch_tokens = 16;
    o.threads = threads;
    o.quant = "q8_0";
    o.ignore_tunings = ignore;
    o.threads_yield = yields;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    kt_engine_get_tuning(e, t);
    kt_engine_get_info(e, &info);
    *plan = info.plan_text;
    return e;
}

static void proved_values_are_used(void **state)
{
    kt_tuning t;
    const char *plan;
    (void)state;
    write_profile(json_pack(
        "[o,o]",
        entry("decode", 32, "q8_0",
              json_pack("{s:i,s:i,s:i}", "claim_rows", 1024, "spin_us", 1000, "threads", 1)),
        entry("prefill", 32, "q8_0",
              json_pack("{s:i,s:i}", "gemv_rows", 2, "gemm_claim_rows", 128))));
    kt_engine *e = open_engine(0, false, &t, &plan);
    assert_int_equal(t.threads, 1);
    assert_int_equal(t.claim_rows, 1024);
    assert_int_equal(t.spin_us, 1000);
    assert_int_equal(t.gemv_rows, 2);
    assert_int_equal(t.gemm_claim_rows, 128);
    assert_non_null(strstr(plan, "tune.claim_rows = 1024"));
    assert_non_null(strstr(plan, "+5.0 % over the default"));
    kt_engine_close(e);
    e = open_engine(0, true, &t, &plan);
    assert_int_equal(t.claim_rows, 512);
    assert_int_equal(t.gemv_rows, 0); /* each kernel's own */
    assert_null(strstr(plan, "tune."));
    kt_engine_close(e);
    if (host->limits.cores_allowed >= 2) { /* the user's number of threads comes first */
        e = open_engine(2, false, &t, &plan);
        assert_int_equal(t.threads, 2);
        assert_int_equal(t.claim_rows, 1024);
        kt_engine_close(e);
    }
}

static char logged[4096];

static void note_log(void *user, kt_log_level level, const char *line)
{
    size_t n = strlen(logged);
    (void)user;
    (void)level;
    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

/* Who decides the threads, as `kttune explain` tells it: the arrow's line. */
static void explained(const char *env, const char *args, const char *winner)
{
    char command[9000], line[512], arrow[512] = "";
    const char *build = getenv("KT_BUILDDIR");
    snprintf(command, sizeof command,
             "%s '%s/kttune' explain threads.total --profile '%s' -m '%s' %s 2>&1", env,
             build != NULL ? build : ".", file, model, args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (strstr(line, "->") != NULL)
            memcpy(arrow, line, sizeof arrow);
    (void)pclose(f);
    if (strstr(arrow, winner) == NULL)
        fail_msg("'%s' decides, not %s", arrow, winner);
}

/* command line > environment > tuning > configuration file > plan */
static void order_of_those_who_decide(void **state)
{
    kt_tuning t;
    const char *plan;
    char conf[80], args[200];
    (void)state;
    if (host->limits.cores_allowed < 2) {
        printf("one core: no two numbers of threads to choose from\n");
        skip();
    }
    write_profile(json_pack("[o]", entry("decode", 32, "q8_0", json_pack("{s:i}", "threads", 1))));
    kt_log_sink(note_log, NULL);
    kt_engine *e = open_engine(2, false, &t, &plan); /* a flag or the environment */
    assert_int_equal(t.threads, 2);
    kt_engine_close(e);
    assert_null(strstr(logged, "instead of"));
    yields = true;
    e = open_engine(2, false, &t, &plan); /* a file's value gives way, and that is said */
    assert_int_equal(t.threads, 1);
    kt_engine_close(e);
    assert_non_null(strstr(logged, "threads: 1, tuned on 2026-11-01T00:00:00Z, instead of 2 of the "
                                   "configuration file; --threads 2"));
    e = open_engine(2, true, &t, &plan); /* no tuning: the file's value */
    assert_int_equal(t.threads, 2);
    kt_engine_close(e);
    yields = false;
    kt_log_sink(NULL, NULL);
    /* the same order by kttune explain; the demo as stored is bf16 */
    write_profile(json_pack("[o]", entry("decode", 32, "bf16", json_pack("{s:i}", "threads", 1))));
    snprintf(conf, sizeof conf, "%s.conf", file);
    FILE *f = fopen(conf, "w");
    assert_non_null(f);
    fputs("threads = 2\n", f);
    fclose(f);
    snprintf(args, sizeof args, "--config %s", conf);
    explained("", args, "tuning ");
    explained("KTSERVE_THREADS=2", args, "environment ");
    strcat(args, " --option threads=2");
    explained("KTSERVE_THREADS=2", args, "command line ");
    write_profile(json_array());
    snprintf(args, sizeof args, "--config %s", conf);
    explained("", args, "ktserve.conf ");
    explained("", "", "cost model ");
    unlink(conf);
}

/* A profile whose measured crossover of a format is `rows`, and these tunings (stolen). */
static void write_crossover(const char *id, int rows, json_t *tunings)
{
    struct profile *p;
    write_profile(tunings);
    assert_int_equal(profile_read(file, &p, &err), KT_OK);
    json_t *m =
        json_pack("{s:s,s:s,s:{s:n,s:[],s:n},s:{},s:s,s:s,s:s}", "id", "expert.gemv:q8_0.avx2.m2",
                  "what", "made up", "where", "cpus", "mem", "gpu", "params", "unit",
                  "bytes_per_second", "status", "unsupported", "reason", "made up");
    json_t *d = json_pack("{s:s,s:i,s:s,s:s,s:s,s:[s],s:[],s:n,s:s,s:s}", "id", id, "value", rows,
                          "unit", "rows", "origin", "measured", "why", "GEMM is faster from there",
                          "because", "expert.gemv:q8_0.avx2.m2", "alternatives", "margin",
                          "confidence", "high", "goal", "prefill");
    assert_non_null(m);
    assert_non_null(d);
    assert_int_equal(profile_put_measurement(p, m, &err), KT_OK);
    assert_int_equal(profile_put_decision(p, d, &err), KT_OK);
    if (profile_write(p, file, &err) != KT_OK)
        fail_msg("%s", err.msg);
    profile_close(p);
}

/* The model with the profile of this test, small. */
static void small_options(kt_engine_opts *o)
{
    kt_engine_opts_init(o);
    o->model_path = model;
    o->profile_path = file;
    o->ctx_tokens = 64;
    o->batch_tokens = 16;
    o->quant = "q8_0";
}

static const char *plan_with_rows(uint32_t rows, bool from_file, uint32_t *tuned)
{
    static char plan[8192];
    kt_engine_opts o;
    kt_engine_info info;
    kt_engine *e;
    kt_tuning t;
    small_options(&o);
    o.gemv_rows = rows;
    o.gemv_rows_yield = from_file;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    kt_engine_get_info(e, &info);
    kt_engine_get_tuning(e, &t);
    *tuned = t.gemv_rows;
    snprintf(plan, sizeof plan, "%s", info.plan_text);
    kt_engine_close(e);
    return plan;
}

/* flag > tuning > configuration file > measured > the kernel's own */
static void crossover_of_gemv_and_gemm(void **state)
{
    uint32_t rows;
    (void)state;
    write_crossover("experts.gemv_rows.q8_0", 3, json_array());
    const char *plan = plan_with_rows(0, false, &rows);
    assert_int_equal(rows, 0); /* each format's own */
    assert_non_null(strstr(plan, "experts.gemv_rows.q8_0 = 3"));
    assert_non_null(strstr(plan, "GEMM is faster from there"));
    plan = plan_with_rows(5, true, &rows);
    assert_int_equal(rows, 5);
    assert_null(strstr(plan, "experts.gemv_rows.q8_0"));
    write_crossover(
        "experts.gemv_rows.q8_0", 3,
        json_pack("[o]", entry("prefill", 32, "q8_0", json_pack("{s:i}", "gemv_rows", 2))));
    plan = plan_with_rows(5, true, &rows);
    assert_int_equal(rows, 2);
    assert_non_null(strstr(plan, "tune.gemv_rows = 2"));
    plan = plan_with_rows(5, false, &rows);
    assert_int_equal(rows, 5);
    assert_null(strstr(plan, "tune.gemv_rows"));
    assert_non_null(strstr(plan, "experts.gemv_rows = 5"));
    write_crossover("experts.gemv_rows.mxfp4", 3, json_array()); /* of another format */
    plan = plan_with_rows(0, false, &rows);
    assert_null(strstr(plan, "gemv_rows"));
}

/* Reserved pages that were there when the search ran may be gone: an automatic choice must not keep
 * a server from starting, and the plan tells what is used instead. Asked for, they are an error. */
static void reserved_pages_that_are_gone(void **state)
{
    kt_tuning t;
    const char *plan;
    kt_engine *e;
    (void)state;
    for (uint32_t i = 0; i < host->env.n_hugetlb; i++)
        if (host->env.hugetlb[i].free > 0) {
            printf("this host has reserved pages\n");
            skip();
        }
    write_profile(
        json_pack("[o]", entry("decode", 32, "q8_0",
                               json_pack("{s:s,s:i}", "pages", "hugetlb", "claim_rows", 1024))));
    logged[0] = '\0';
    kt_log_sink(note_log, NULL);
    e = open_engine(0, false, &t, &plan);
    kt_log_sink(NULL, NULL);
    assert_int_equal(t.claim_rows, 1024); /* the rest of the tuning holds */
    assert_null(strstr(plan, "\"hugetlb\""));
    assert_non_null(strstr(plan, "pages = \"thp\""));
    assert_non_null(strstr(logged, "vm.nr_hugepages"));
    kt_engine_close(e);
    kt_engine_opts o;
    kt_engine_opts_init(&o);
    o.model_path = model;
    o.ctx_tokens = 64;
    o.batch_tokens = 16;
    o.pages = "hugetlb";
    assert_int_equal(kt_engine_open(&o, &e, &err), KT_E_NOMEM);
    assert_non_null(strstr(err.msg, "--pages hugetlb"));
}

/* Reserved pages are beside what is free: weights in them do not need it twice. */
static void reserved_pages_are_beside_what_is_free(void **state)
{
    kt_engine_opts o;
    kt_engine *e;
    (void)state;
    kt_engine_opts_init(&o);
    o.model_path = model;
    o.ctx_tokens = 64;
    o.batch_tokens = 16;
    o.max_seqs = 1;
    o.kv_tokens = 64;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    if (e->n_pools != 1 || e->plan->pools[0].n_mems == 0) {
        kt_engine_close(e);
        skip();
    }
    struct host was = *e->host;
    struct host_hugetlb page = {.node = (uint32_t)e->plan->pools[0].mems[0],
                                .page_bytes = 2u << 20,
                                .total = 64,
                                .free = 64};
    e->page_kind = MEM_HUGETLB;
    e->host->env.hugetlb = &page;
    e->host->env.n_hugetlb = 1;
    e->host->env.mem_available = e->kv_bytes + e->scratch_bytes + 4096;
    kt_status enough = eng_settle_pages(e, &err);
    kt_status fits = eng_budget(e, &o, &err);
    page.free = 1;
    kt_status few = eng_settle_pages(e, &err);
    e->page_kind = MEM_THP;
    kt_status normal = eng_budget(e, &o, &err);
    *e->host = was;
    kt_engine_close(e);
    assert_int_equal(enough, KT_OK);
    assert_int_equal(fits, KT_OK);
    assert_int_equal(few, KT_E_NOMEM);
    assert_int_equal(normal, KT_E_LIMIT);
}

/* The plan tells who chose each value, not who chose one of them. */
static void each_value_has_its_own_reason(void **state)
{
    kt_engine_opts o;
    kt_engine_info info;
    kt_engine *e;
    (void)state;
    write_profile(json_pack("[o]", entry("decode", 32, "q8_0", json_pack("{s:s}", "pages", "4k"))));
    small_options(&o);
    o.smt = "server";
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    kt_engine_get_info(e, &info);
    assert_non_null(strstr(info.plan_text, "smt = \"server\"   why: asked for"));
    assert_non_null(strstr(info.plan_text, "pages = \"4k\"   why: by the tuning below"));
    kt_engine_close(e);
}

static void nearest_shape_of_the_same_format(void **state)
{
    kt_tuning t;
    const char *plan;
    (void)state;
    write_profile(json_pack("[o,o,o]",
                            entry("decode", 64, "q8_0", json_pack("{s:i}", "claim_rows", 256)),
                            entry("decode", 4096, "q8_0", json_pack("{s:i}", "claim_rows", 128)),
                            entry("decode", 32, "mxfp4", json_pack("{s:i}", "claim_rows", 64))));
    kt_engine *e = open_engine(0, false, &t, &plan);
    assert_int_equal(t.claim_rows, 256);
    assert_non_null(strstr(plan, "nearest shape tuned: 64 experts"));
    kt_engine_close(e);
}

static void expect_default(const char *says)
{
    kt_tuning t;
    const char *plan;
    kt_engine *e = open_engine(0, false, &t, &plan);
    assert_int_equal(t.claim_rows, 512);
    if (says != NULL)
        assert_non_null(strstr(plan, says));
    else
        assert_null(strstr(plan, "tune."));
    kt_engine_close(e);
}

static void what_does_not_apply_changes_nothing(void **state)
{
    (void)state;
    json_t *e = entry("decode", 32, "q8_0", json_pack("{s:i}", "claim_rows", 256));
    json_object_set_new(e, "kernel_abi", json_string("0123456789abcdef"));
    write_profile(json_pack("[o]", e));
    expect_default(NULL);
    e = entry("decode", 32, "q8_0", json_pack("{s:i}", "claim_rows", 256));
    json_object_set_new(e, "host",
                        json_string("sha256:000000000000000000000000000000000000000000000000000000"
                                    "0000000000"));
    write_profile(json_pack("[o]", e));
    expect_default(NULL);
    e = entry("decode", 32, "q8_0", json_object());
    json_object_set_new(e, "proved", json_false());
    json_object_set_new(e, "stop", json_string("exhausted"));
    json_object_set_new(e, "gain", json_null());
    write_profile(json_pack("[o]", e));
    expect_default("nothing was proved faster");
    write_profile(
        json_pack("[o]", entry("decode", 32, "q8_0", json_pack("{s:i}", "claim_rows", 777777))));
    expect_default("tune.");
}

static void one_entry_for_a_key(void **state)
{
    struct profile *p;
    (void)state;
    write_profile(json_pack("[o,o,o]",
                            entry("decode", 32, "q8_0", json_pack("{s:i}", "claim_rows", 256)),
                            entry("decode", 32, "q8_0", json_pack("{s:i}", "claim_rows", 128)),
                            entry("both", 32, "q8_0", json_pack("{s:i}", "claim_rows", 64))));
    assert_int_equal(profile_read(file, &p, &err), KT_OK);
    assert_int_equal(json_array_size(json_object_get(p->root, "tunings")), 2);
    struct profile_tuning t;
    struct profile_shape s = {32, 4, 256, 64, "q8_0"};
    assert_true(profile_find_tuning(p, &s, "decode", abi, &t));
    assert_true(t.exact && t.proved);
    assert_int_equal(t.claim_rows, 128);
    assert_int_equal(t.threads, 0); /* as the default of its search */
    assert_true(profile_find_tuning(p, &s, "both", abi, &t));
    assert_false(profile_find_tuning(p, &s, "prefill", abi, &t));
    profile_close(p);
}

static int set_up(void **state)
{
    const char *top = getenv("KT_SRCDIR");
    (void)state;
    snprintf(model, sizeof model, "%s/models/demo", top != NULL ? top : ".");
    snprintf(file, sizeof file, "/tmp/kt-tuned-%ld.json", (long)getpid());
    kern_abi(abi);
    return host_read(NULL, &host, &err) == KT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(file);
    host_free(host);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proved_values_are_used),
        cmocka_unit_test(order_of_those_who_decide),
        cmocka_unit_test(crossover_of_gemv_and_gemm),
        cmocka_unit_test(reserved_pages_that_are_gone),
        cmocka_unit_test(reserved_pages_are_beside_what_is_free),
        cmocka_unit_test(each_value_has_its_own_reason),
        cmocka_unit_test(nearest_shape_of_the_same_format),
        cmocka_unit_test(what_does_not_apply_changes_nothing),
        cmocka_unit_test(one_entry_for_a_key),
    };
    return cmocka_run_group_tests_name("tuned", tests, set_up, tear_down);
}
