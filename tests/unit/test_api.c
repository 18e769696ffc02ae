/* test_api.c - the small parts of the API side: options from four sources, placement object and
 * report, the bridge's queue, the route table. */
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "report.h"
#include "serve/bridge.h"
#include "serve/options.h"
#include "serve/placement_view.h"
#include "serve/routes.h"

/* ---- options ---- */

static int read_options(struct options *o, char *err, int n, const char *const *args)
{
    static char store[16][128]; /* *o points into it until the next call */
    char *argv[16] = {(char[]){"ktserve"}};
    for (int i = 0; i < n; i++)
        snprintf(argv[i + 1] = store[i], sizeof store[i], "%s", args[i]);
    return options_read(o, n + 1, argv, err, 300);
}
#define READ(o, err, ...)                                                                          \
    read_options(o, err, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)),       \
                 (const char *const[]){__VA_ARGS__})

static void precedence(void **state)
{
    struct options o;
    char err[300] = "", path[] = "/tmp/kt-conf-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    FILE *f = fdopen(fd, "w");
    fputs(
        "# a comment\n\nctx = 11\nparallel = 12\nbatch=13\n strict = true\nmodel-id = from file\n",
        f);
    fclose(f);
    setenv("KTSERVE_PARALLEL", "22", 1);
    setenv("KTSERVE_BATCH", "23", 1);
    setenv("KTSERVE_MODEL_ID", "env", 1);
    assert_int_equal(READ(&o, err, "-m", "path", "--batch=33", "--config", path, "--allow-host",
                          "a", "--allow-host=b"),
                     0);
    assert_true(o.ctx == 11 && o.parallel == 22 && o.batch == 33 && o.queue == 256 && o.strict &&
                !o.insecure && o.port == 8080);
    assert_string_equal(o.model_id, "env");
    assert_string_equal(o.host, "127.0.0.1");
    assert_string_equal(o.model, "path");
    assert_true(o.allow_hosts.n == 2 && strcmp(o.allow_hosts.v[1], "b") == 0 &&
                o.max_output_bytes == 1 << 20);
    options_free(&o);
    unsetenv("KTSERVE_PARALLEL");
    unsetenv("KTSERVE_BATCH");
    unsetenv("KTSERVE_MODEL_ID");
    unlink(path);
}

static void listen_forms(void **state)
{
    struct options o;
    char err[300];
    (void)state;
    assert_int_equal(READ(&o, err, "--listen", "0.0.0.0:90"), 0);
    assert_true(o.port == 90 && strcmp(o.host, "0.0.0.0") == 0);
    assert_int_equal(READ(&o, err, "--listen", "[::1]:91"), 0);
    assert_true(o.port == 91 && strcmp(o.host, "::1") == 0);
    assert_int_equal(READ(&o, err, "--listen", ":92"), 0);
    assert_true(o.port == 92 && strcmp(o.host, "127.0.0.1") == 0);
    assert_int_equal(READ(&o, err, "--listen", "nothing"), -1);
    assert_int_equal(READ(&o, err, "--listen", "a:70000"), -1);
}

static void bad_options(void **state)
{
    static const char *const bad[][2] = {{"--port=x", "--port"},
                                         {"--port=-1", "--port"},
                                         {"--port=65536", "--port"},
                                         {"--port= 1", "--port"},
                                         {"--port=", "--port"},
                                         {"--what", "--what"},
                                         {"word", "word"},
                                         {"--model", "--model"},
                                         {"--strict=maybe", "--strict"},
                                         {"-x", "-x"},
                                         {"--ctx=99999999999999999999", "--ctx"},
                                         {"--config=/nonexistent/x", "/nonexistent/x"}};
    struct options o;
    char err[300];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(READ(&o, err, bad[i][0]), -1);
        if (strstr(err, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], err);
        options_free(&o);
    }
    setenv("KTSERVE_QUEUE", "none", 1);
    assert_int_equal(READ(&o, err, "--port=1"), -1);
    assert_non_null(strstr(err, "KTSERVE_QUEUE"));
    unsetenv("KTSERVE_QUEUE");
}

static void defaults_are_in_range(void **state)
{
    struct options o;
    char err[300] = "", *text = NULL;
    size_t n;
    (void)state;
    assert_int_equal(READ(&o, err, "--port=0"), 0);
    FILE *f = open_memstream(&text, &n);
    options_help(f);
    options_print(&o, f);
    fclose(f);
    for (size_t i = 0; i < opt_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "--%s", opt_table[i].name);
        assert_non_null(strstr(text, name));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(opt_table[i].name, opt_table[k].name);
    }
    free(text);
}

/* ---- placement and report ---- */

static void base64_both_ways(void **state)
{
    (void)state;
    static const char *const row[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < 6; i++) {
        struct strbuf b = {0};
        uint8_t back[16];
        base64_add(&b, (const unsigned char *)row[i][0], strlen(row[i][0]));
        assert_string_equal(b.data == NULL ? "" : b.data, row[i][1]);
        assert_int_equal(base64_decode(row[i][1], strlen(row[i][1]), back, sizeof back),
                         strlen(row[i][0]));
        assert_memory_equal(back, row[i][0], strlen(row[i][0]));
        sb_free(&b);
    }
    uint8_t out[8];
    static const char *const bad[] = {"A",    "AB",   "ABC",      "A===",        "=AAA",
                                      "AA=A", "A A=", "AAAA====", "AAAAAAAAAAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(base64_decode(bad[i], strlen(bad[i]), out, sizeof out), -1);
}

static char *report_of(const char *json, kt_status want)
{
    json_t *v = json_loads(json, 0, NULL);
    char *text = NULL;
    size_t n;
    kt_err err = {0};
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(report_print(v, 3, f, &err), want);
    fclose(f);
    json_decref(v);
    return text;
}

static void placement_and_report(void **state)
{
    uint64_t counts[2 * 20] = {[3] = 70, [4] = 30, [20 + 7] = 6000000000u};
    kt_engine_info info = {.n_moe_layers = 2,
                           .first_moe_layer = 1,
                           .last_moe_layer = 2,
                           .n_experts = 20,
                           .experts_per_token = 2,
                           .expert_bytes = 1 << 20};
    struct placement_in in = {
        .info = &info, .counts = counts, .time = 1.5, .uptime_s = 9, .capacity_bytes = 1 << 30};
    struct strbuf b = {0};
    (void)state;
    placement_json(&in, &b);
    assert_non_null(strstr(b.data,
                           "{\"object\":\"placement\",\"epoch\":0,\"time\":1.5,\"window_s\":9,"
                           "\"layers\":[1,2],\"n_experts\":20,\"experts_per_token\":2,"));
    assert_non_null(strstr(b.data, "\"policy\":{\"name\":\"off\",\"paused\":false,"));
    char *text = report_of(b.data, KT_OK);
    assert_non_null(
        strstr(text, "2      7       0     4294967295    100.0 %")); /* saturated, not wrapped */
    assert_non_null(strstr(text, "1      3       0     70             70.0 %\n1      4       0     "
                                 "30             30.0 %\n"));
    assert_non_null(strstr(text, "1      100             100.0 %    0.204\n"));
    free(text);
    sb_clear(&b);
    placement_text(&in, &b);
    assert_non_null(strstr(b.data, "layer 1: 100 hits, hottest expert 3 with 70\n"));
    sb_clear(&b);
    info = (kt_engine_info){0}; /* a dense model */
    placement_json(&in, &b);
    text = report_of(b.data, KT_OK);
    assert_non_null(strstr(text, "no routed experts"));
    free(text);
    sb_free(&b);
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"tiers\":[]}",
        "{\"tiers\":[],\"n_experts\":3,\"residency\":\"AAAA\",\"hits\":\"AAAA\"}",
        "{\"tiers\":[],\"n_experts\":2,\"residency\":\"AAAA\",\"hits\":\"\"}",
        "{\"tiers\":[],\"n_experts\":3,\"residency\":\"!!!!\"}",
        "{\"tiers\":[],\"n_experts\":9999999999,\"residency\":\"AAAA\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        free(report_of(bad[i], KT_E_FORMAT));
}

static void skew(void **state)
{
    uint32_t even[16], one[16] = {0};
    struct report_layer l;
    (void)state;
    for (int i = 0; i < 16; i++)
        even[i] = 5;
    one[9] = 7;
    report_skew(even, 16, &l);
    assert_true(fabs(l.entropy - 1) < 1e-12 && fabs(l.top10_share - 2.0 / 16) < 1e-12 &&
                l.hits == 80);
    report_skew(one, 16, &l);
    assert_true(l.entropy == 0 && l.top10_share == 1);
    report_skew(one, 9, &l);
    assert_true(l.hits == 0 && l.entropy == 0 && l.top10_share == 0);
}

/* ---- bridge, routes ---- */

static void bridge_queue(void **state)
{
    struct bridge *b;
    kt_err err;
    struct kts_job *job = mem_calloc(1, sizeof *job);
    (void)state;
    assert_int_equal(bridge_open(3, &b, &err), KT_OK);
    struct pollfd p = {.fd = bridge_fd(b), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_null(bridge_take(b));
    for (int i = 0; i < 3; i++) {
        struct kts_event *e = mem_calloc(1, sizeof *e);
        e->job = job;
        e->choice = (uint32_t)i;
        assert_false(bridge_full(b));
        bridge_push(b, e);
    }
    assert_true(bridge_full(b));
    assert_int_equal(poll(&p, 1, 0), 1);
    struct kts_event *e = bridge_take(b);
    assert_true(bridge_was_full(b) && !bridge_full(b));
    assert_int_equal(poll(&p, 1, 0), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct kts_event *next = e->next;
        assert_int_equal(e->choice, i);
        bridge_event_free(e);
        e = next;
    }
    assert_null(e);
    job->last.job = job;
    bridge_push(b, &job->last);
    bridge_push(b, NULL);
    bridge_close(b); /* frees what nobody took, but not a job's own event */
    kts_job_free(job);
}

static void routes_have_handlers(void **state)
{
    (void)state;
    for (const struct http_route *r = route_table; r->handler != NULL || r->path != NULL; r++) {
        assert_non_null(r->path);
        assert_non_null(r->handler);
        assert_true(r->path[0] == '/' && r->methods != 0);
        if (strncmp(r->path, "/admin", 6) == 0)
            assert_int_equal(r->scope, HTTP_ADMIN);
        else if (r->methods & HTTP_POST)
            assert_int_equal(r->scope, HTTP_USER);
        for (const struct http_route *o = route_table; o != r; o++)
            assert_string_not_equal(o->path, r->path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precedence),
        cmocka_unit_test(listen_forms),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(defaults_are_in_range),
        cmocka_unit_test(base64_both_ways),
        cmocka_unit_test(placement_and_report),
        cmocka_unit_test(skew),
        cmocka_unit_test(bridge_queue),
        cmocka_unit_test(routes_have_handlers),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
