/* test_metrics.c - the metrics registry: both exposition formats, negotiation, updates from many
 * threads. promtool looks at the text where it is installed. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "metrics/metrics.h"

static const double bounds[] = {.5, 1, 16384};
static const struct met_def d_count = {
    MET_COUNTER, "kt_things_total", "Things \\ seen.\nHere.", {"kind"}, NULL, 0};
static const struct met_def d_gauge = {MET_GAUGE, "kt_level_ratio", "Level.", {NULL}, NULL, 0};
static const struct met_def d_hist = {
    MET_HISTOGRAM, "kt_wait_seconds", "Wait.", {"model"}, bounds, 3};

static struct met_registry *make(struct met **count, struct met **gauge, struct met **hist)
{
    struct met_registry *r = met_open();
    *count = met_series(r, &d_count, (const char *const[]){"a\"b\\c\nd"});
    *gauge = met_series(r, &d_gauge, NULL);
    *hist = met_series(r, &d_hist, (const char *const[]){"demo"});
    assert_true(met_ok(r));
    return r;
}

static void text_format(void **state)
{
    struct met *c, *g, *h;
    struct strbuf b = {0};
    struct met_registry *r = make(&c, &g, &h);
    (void)state;
    met_add(c, 3);
    met_set(g, 0.25);
    met_observe(h, 0.5);
    met_observe(h, 0.75);
    met_observe(h, 20000);
    met_expose(r, MET_TEXT_004, &b);
    assert_string_equal(
        b.data,
        "# HELP kt_things_total Things \\\\ seen.\\nHere.\n# TYPE kt_things_total counter\n"
        "kt_things_total{kind=\"a\\\"b\\\\c\\nd\"} 3\n"
        "# HELP kt_level_ratio Level.\n# TYPE kt_level_ratio gauge\nkt_level_ratio 0.25\n"
        "# HELP kt_wait_seconds Wait.\n# TYPE kt_wait_seconds histogram\n"
        "kt_wait_seconds_bucket{model=\"demo\",le=\"0.5\"} "
        "1\nkt_wait_seconds_bucket{model=\"demo\",le=\"1.0\"} 2\n"
        "kt_wait_seconds_bucket{model=\"demo\",le=\"16384.0\"} "
        "2\nkt_wait_seconds_bucket{model=\"demo\",le=\"+Inf\"} 3\n"
        "kt_wait_seconds_sum{model=\"demo\"} 20001.25\nkt_wait_seconds_count{model=\"demo\"} 3\n");
    sb_free(&b);
    met_close(r);
}

static void openmetrics_format(void **state)
{
    struct met *c, *g, *h;
    struct strbuf b = {0};
    struct met_registry *r = make(&c, &g, &h);
    (void)state;
    met_expose(r, MET_OPENMETRICS, &b);
    assert_non_null(strstr(b.data, "# TYPE kt_things counter\nkt_things_total{"));
    assert_string_equal(b.data + b.len - 6, "# EOF\n");
    sb_free(&b);
    met_close(r);
}

static void doubles_and_mistakes(void **state)
{
    struct met *c, *g, *h;
    struct met_registry *r = make(&c, &g, &h);
    static const struct met_def other = {MET_GAUGE, "kt_level_ratio", "Again.", {NULL}, NULL, 0};
    (void)state;
    assert_null(met_series(r, &d_hist, (const char *const[]){"demo"})); /* the same series twice */
    assert_false(met_ok(r));
    met_close(r);
    r = make(&c, &g, &h);
    assert_null(met_series(r, &other, NULL)); /* one name, two definitions */
    assert_false(met_ok(r));
    met_add(NULL, 1);
    met_set(NULL, 1);
    met_observe(NULL, 1);
    met_close(r);
    met_close(NULL);
}

static void negotiation(void **state)
{
    (void)state;
    assert_int_equal(met_negotiate(NULL), MET_TEXT_004);
    assert_int_equal(met_negotiate("*/*"), MET_TEXT_004);
    assert_int_equal(met_negotiate("text/plain"), MET_TEXT_004);
    assert_int_equal(met_negotiate("application/openmetrics-text; version=1.0.0"), MET_OPENMETRICS);
    assert_int_equal(met_negotiate("application/openmetrics-text"), MET_OPENMETRICS);
    assert_int_equal(met_negotiate("application/openmetrics-text;version=0.0.1"), MET_TEXT_004);
    assert_int_equal(met_negotiate("application/openmetrics-text;version=1.0.0;q=0.5,application/"
                                   "openmetrics-text;version=0.0.1;q=0.4,"
                                   "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"),
                     MET_OPENMETRICS);
    assert_int_equal(
        met_negotiate("text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5"),
        MET_TEXT_004);
    assert_int_equal(met_negotiate("application/openmetrics-text;version=1.0.0;q=0"), MET_TEXT_004);
}

struct both {
    struct met *c, *h;
};

static void *hammer(void *user)
{
    struct both *b = user;
    for (int i = 0; i < 20000; i++) {
        met_inc(b->c);
        met_observe(b->h, i % 3);
    }
    return NULL;
}

static void threads_add_up(void **state)
{
    struct met *g;
    struct both both;
    pthread_t t[4];
    struct met_registry *r = make(&both.c, &g, &both.h);
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, &both), 0);
    for (int i = 0; i < 20; i++) {
        struct strbuf b = {0};
        met_expose(r, MET_TEXT_004, &b);
        sb_free(&b);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_true(met_value(both.c) == 80000 && met_value(both.h) == 80000);
    met_close(r);
}

static void promtool_is_content(void **state)
{
    struct met *c, *g, *h;
    struct strbuf b = {0};
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0)
        skip();
    struct met_registry *r = make(&c, &g, &h);
    met_expose(r, MET_TEXT_004, &b);
    FILE *p = popen("promtool check metrics", "w");
    assert_non_null(p);
    fwrite(b.data, 1, b.len, p);
    assert_int_equal(pclose(p), 0);
    sb_free(&b);
    met_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_format),          cmocka_unit_test(openmetrics_format),
        cmocka_unit_test(doubles_and_mistakes), cmocka_unit_test(negotiation),
        cmocka_unit_test(threads_add_up),       cmocka_unit_test(promtool_is_content),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
