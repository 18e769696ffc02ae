/* test_bench_args.c - what the benchmarks share: option tables (every kind of row, refusals, lists,
 * operands) and rounds (each item once a round in an order that the seed decides, warm-up, shares
 * inside a round). The ceilings are counters here; nothing is measured.
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

#include "tuner/bench_args.h"
#include "tuner/bench_rounds.h"
#include "tuner/ceiling.h"
#include "tuner/cmds.h"

/* ---- what the programs around them bring ---- */

bool cmd_number(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    *out = (uint32_t)v;
    return end != text && *end == '\0' && v >= min && v <= max;
}

double ceiling_read(struct ceiling *c)
{
    (void)c;
    return 10;
}

double ceiling_int8(struct ceiling *c, uint32_t isa)
{
    (void)c;
    return isa;
}

double ceiling_scaled(struct ceiling *c, uint32_t isa)
{
    (void)c;
    (void)isa;
    return 0;
}

/* ---- options ---- */

static int usages;
static char why[160];

static int usage(FILE *to)
{
    usages++;
    return to == stdout ? 0 : 1;
}

struct values {
    bool flag;
    uint32_t number;
    const char *text, *called, *model;
    struct bench_tokens tokens;
    struct bench_formats formats;
};

static bool call(void *to, const char *at)
{
    ((struct values *)to)->called = at;
    return strcmp(at, "bad") != 0;
}

/* Words between spaces, as argv. */
static int read_words(struct values *v, int operands, const char *words, int *first)
{
    static char copy[256];
    char *argv[32] = {(char *)(uintptr_t) "bench"};
    int n = 1;
    const struct bench_opt opt[] = {OPT_FLAG("flag", &v->flag),
                                    OPT_NUMBER("number", &v->number, 2, 9),
                                    OPT_TEXT("text", &v->text),
                                    OPT_CALL("call", v, call),
                                    OPT_MODEL(&v->model),
                                    OPT_PARTS("tokens", &v->tokens, bench_take_tokens),
                                    OPT_PARTS("format", &v->formats, bench_take_format)};
    struct bench_args a = {.command = "bench test",
                           .opt = opt,
                           .n = N_OPTS(opt),
                           .operands = operands,
                           .usage = usage};
    *v = (struct values){.formats.command = "bench test", .tokens.most = 3};
    snprintf(copy, sizeof copy, "%s", words);
    for (char *w = strtok(copy, " "); w != NULL; w = strtok(NULL, " "))
        argv[n++] = w;
    int code = bench_args_read(&a, n, argv);
    *first = a.first;
    snprintf(why, sizeof why, "%s", a.why);
    return code;
}

static void rows_of_every_kind(void **state)
{
    struct values v;
    int first;
    (void)state;
    usages = 0;
    assert_int_equal(read_words(&v, 2,
                                "--flag --number 9 --text t --call c -m M --tokens 1,8192,3 "
                                "--format q8_0,bf16 one two",
                                &first),
                     -1);
    assert_true(v.flag && v.number == 9 && first == 14);
    assert_string_equal(v.text, "t");
    assert_string_equal(v.called, "c");
    assert_string_equal(v.model, "M");
    assert_true(v.tokens.n == 3 && v.tokens.v[1] == 8192);
    assert_true(v.formats.n == 2 && v.formats.t[0] == DT_Q8_0 && v.formats.t[1] == DT_BF16);
    assert_int_equal(read_words(&v, 0, "--model N --number=2", &first), -1);
    assert_string_equal(v.model, "N");
    assert_int_equal(usages, 0);
    assert_int_equal(read_words(&v, 0, "--help", &first), 0);
    assert_int_equal(usages, 1);
}

static void refusals(void **state)
{
    static const struct {
        const char *words, *why; /* why: part of what the message says */
    } bad[] = {{"--number 1", "--number 1: must be a number from 2 to 9"},
               {"--number 10", "from 2 to 9"},
               {"--number x", "--number x"},
               {"--call bad", "--call bad: not a value"},
               {"--tokens ,", "--tokens ,"},
               {"--tokens 1,,2", "--tokens 1,,2"},
               {"--tokens 0", "--tokens 0"},
               {"--tokens 9000", "--tokens 9000"},
               {"--tokens 1,2,3,4", "--tokens 1,2,3,4"},
               {"--format none", "--format none"},
               {"--format q8_0,", "--format q8_0,"},
               {"--unknown", "no option '--unknown'"},
               {"--text", "--text needs a value"},
               {"operand", "unexpected 'operand'"},
               {"--flag=1", "--flag=1"}};
    struct values v;
    int first;
    (void)state;
    usages = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(read_words(&v, 0, bad[i].words, &first), 1);
        assert_non_null(strstr(why, bad[i].why));
    }
    assert_int_equal(usages, 0);
    assert_int_equal(read_words(&v, 2, "one", &first), 1);
    assert_int_equal(usages, 1);
}

/* ---- rounds ---- */

#define ITEMS 5
struct seen {
    struct rounds r;
    uint32_t count[ITEMS][ROUNDS_MOST], order[400], n, warmed, after;
    struct ceilings c;
};

static kt_status item(void *ctx, uint32_t i, uint32_t round, kt_err *err)
{
    struct seen *s = ctx;
    if (i < N_CEILINGS)
        ceilings_sample(&s->c, i, round);
    s->count[i][round]++;
    s->order[s->n++] = i;
    if (s->warmed == 77)
        KT_FAIL(err, KT_E_IO, "item %u", i);
    return KT_OK;
}

static void warm(void *ctx)
{
    ((struct seen *)ctx)->warmed++;
}

static void after(void *ctx, uint32_t round)
{
    struct seen *s = ctx;
    s->after = s->after * 10 + round;
}

static void run(struct seen *s, uint64_t seed, bool warm_up)
{
    memset(s, 0, sizeof *s);
    s->c.isa = 4;
    s->r = (struct rounds){.n = 4,
                           .n_items = ITEMS,
                           .rng = seed,
                           .ctx = s,
                           .item = item,
                           .after = after,
                           .warm = warm,
                           .warm_up = warm_up};
    assert_int_equal(rounds_run(&s->r, NULL), KT_OK);
}

static void every_item_once_a_round(void **state)
{
    static struct seen a, b, c;
    (void)state;
    run(&a, 1, true);
    run(&b, 1, true);
    run(&c, 2, true);
    assert_memory_equal(a.order, b.order, sizeof a.order);
    assert_memory_not_equal(a.order, c.order, sizeof a.order);
    assert_true(a.n == 5 * ITEMS && a.warmed == 1 && a.after == 123); /* 0 0 1 2 3 */
    for (uint32_t i = 0; i < ITEMS; i++)
        for (uint32_t r = 0; r < 4; r++)
            assert_int_equal(a.count[i][r], r == 0 ? 2 : 1); /* the warm-up is at index 0 too */
    assert_true(fabs(a.c.read_bps[3] - 10) < 1e-9 && fabs(a.c.int8_ops[3] - 4) < 1e-9);
    run(&a, 1, false);
    assert_true(a.n == 4 * ITEMS && a.warmed == 0);
    kt_err err = {0};
    a.warmed = 77;
    a.n = 0;
    assert_int_equal(rounds_run(&a.r, &err), KT_E_IO);
    assert_int_equal(a.n, 1);
}

static void figures(void **state)
{
    const double v[] = {4, 1, 3, 2}, by[] = {2, 1, 0, 4};
    struct stats s = rounds_stats(v, NULL, 4), one = rounds_stats(v, by, 2);
    (void)state;
    assert_true(fabs(s.median - 2.5) < 1e-9 && fabs(one.median - 1.5) < 1e-9);
    assert_true(isnan(rounds_stats(v + 2, by + 2, 1).median)); /* no share of nothing */
    assert_int_equal(rounds_times(0.01, 0.001, 100), 11);
    assert_int_equal(rounds_times(0.01, 1, 100), 1);
    assert_int_equal(rounds_times(0.01, 1e-9, 100), 100);
    struct strbuf text = {0};
    struct json_out j;
    const struct rounds_line share = {"k", "label", "%", v, 1, true};
    jo_init(&j, &text);
    jo_object(&j);
    rounds_line(&share, 4, false, 0, &j);
    rounds_put(&j, "o", &s, 2);
    jo_object_end(&j);
    assert_true(sb_ok(&text));
    assert_non_null(strstr(text.data, "\"k\":2.5,\"k_q1\":1.75,\"k_q3\":3.25"));
    assert_non_null(strstr(text.data, "\"o\":{\"median\":5,"));
    sb_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_every_kind), cmocka_unit_test(refusals),
        cmocka_unit_test(every_item_once_a_round), cmocka_unit_test(figures)};
    return cmocka_run_group_tests_name("bench args and rounds", tests, NULL, NULL);
}
