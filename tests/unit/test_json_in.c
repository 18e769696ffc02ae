/* test_json_in.c - JSON from clients: limits, surrogates, byte offsets; and the field table and
 * mapper on top of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "serve/json_in.h"
#include "serve/mapper_openai.h"
#include "serve/params.h"

static kt_status parse(const char *text, size_t len, json_t **v, kt_err *err)
{
    return json_in_parse(text, len, v, err);
}

static void expect_bad(const char *text, size_t len, kt_status want, const char *in_message)
{
    json_t *v;
    kt_err err;
    assert_int_equal(parse(text, len, &v, &err), want);
    assert_null(v);
    assert_non_null(strstr(err.msg, in_message));
    assert_non_null(strstr(err.msg, "byte "));
}

static void repeated(const char *unit, size_t times, const char *after, kt_status want,
                     const char *in_message)
{
    struct strbuf b = {0};
    for (size_t i = 0; i < times; i++)
        sb_puts(&b, unit);
    sb_puts(&b, after);
    expect_bad(b.data, b.len, want, in_message);
    sb_free(&b);
}

static void limits_hold(void **state)
{
    json_t *v;
    kt_err err;
    struct strbuf b = {0};
    (void)state;
    repeated("[", 65, "", KT_E_LIMIT, "deeper than 64");
    repeated("[", 1000000, "", KT_E_LIMIT, "deeper than 64");
    repeated("9", 65, "", KT_E_LIMIT, "more than 64 characters");
    sb_puts(&b, "[0");
    for (int i = 0; i < 1000000; i++)
        sb_puts(&b, ",0");
    sb_puts(&b, "]");
    expect_bad(b.data, b.len, KT_E_LIMIT, "1000000 members");
    sb_clear(&b);
    sb_puts(&b, "{\"");
    for (int i = 0; i < 65537; i++)
        sb_putc(&b, 'k');
    sb_puts(&b, "\":1}");
    expect_bad(b.data, b.len, KT_E_LIMIT, "key is longer");
    sb_clear(&b);
    for (int i = 0; i < 64; i++)
        sb_putc(&b, '[');
    for (int i = 0; i < 64; i++)
        sb_putc(&b, ']');
    assert_int_equal(parse(b.data, b.len, &v, &err), KT_OK);
    json_decref(v);
    sb_free(&b);
}

static void bad_texts(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {{"", 0},
               {"\xef\xbb\xbf{}", 5},
               {"{\"a\":1,\"a\":2}", 13},
               {"\"\\u0000\"", 8},
               {"\"a\0b\"", 5},
               {"[1e999]", 7},
               {"[NaN]", 5},
               {"[9223372036854775808]", 21},
               {"\"\xff\"", 3},
               {"\"\xed\xa0\x80\"", 5},
               {"{} x", 4},
               {"{\"a\":}", 6},
               {"[1,]", 4},
               {"\"\\u12", 5},
               {"\"\\", 2},
               {"'a'", 3}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_bad(bad[i].text, bad[i].len, KT_E_FORMAT, "invalid JSON at byte");
}

static void surrogates(void **state)
{
    static const struct {
        const char *in, *out;
    } row[] = {{"\"\\ud800\"", "\xef\xbf\xbd"},
               {"\"a\\udfffb\"", "a\xef\xbf\xbd"
                                 "b"},
               {"\"\\uD83D\\uDE00\"", "\xf0\x9f\x98\x80"},
               {"\"\\ud83dx\"", "\xef\xbf\xbdx"},
               {"\"\\ud83d\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80"},
               {"\"\\\\ud800\"", "\\ud800"},
               {"\"\\ud800\\n\"", "\xef\xbf\xbd\n"}};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        json_t *v;
        kt_err err;
        assert_int_equal(parse(row[i].in, strlen(row[i].in), &v, &err), KT_OK);
        assert_string_equal(json_string_value(v), row[i].out);
        json_decref(v);
    }
}

/* ---- mapper ---- */

static const struct kts_limits lim = {.ctx = 2048,
                                      .vocab = 300,
                                      .model_id = "demo",
                                      .defaults = {.temperature = 1, .top_k = -1, .top_p = 1}};

static int map(const char *body, enum kts_api api, struct kts_req *r, struct kts_fail *f)
{
    return mapper_openai(body, strlen(body), api, &lim, r, f);
}

static void refused(const char *fields, enum kts_api api, int status, const char *param,
                    const char *in_message)
{
    struct strbuf b = {0};
    struct kts_req r;
    struct kts_fail f;
    sb_printf(&b,
              api == KTS_CHAT ? "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],%s}"
                              : "{\"prompt\":\"x\",%s}",
              fields);
    if (map(b.data, api, &r, &f) == 0)
        fail_msg("accepted: %s", b.data);
    if (f.status != status || strcmp(f.param, param) != 0 || strstr(f.msg, in_message) == NULL)
        fail_msg("%s -> %d %s: %s", b.data, f.status, f.param, f.msg);
    assert_null(r.root);
    sb_free(&b);
}

static void every_number_is_bounded(void **state)
{
    static const char *const bad[] = {
        "-9223372036854775808", "1e308", "-1e308", "\"1\"", "[]", "true"};
    (void)state;
    for (size_t i = 0; i < param_count; i++) {
        const struct param *p = &param_table[i];
        if (p->type != P_INT && p->type != P_NUM)
            continue;
        for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
            char field[120];
            snprintf(field, sizeof field, "\"%s\":%s", p->name, bad[k]);
            refused(field, p->apis & KTS_CHAT ? KTS_CHAT : KTS_COMPLETION, 400, p->name, p->name);
        }
        char field[120];
        snprintf(field, sizeof field, "\"%s\":%.17g", p->name, p->min - 1);
        refused(field, p->apis & KTS_CHAT ? KTS_CHAT : KTS_COMPLETION, 400, p->name, "must be");
        if (p->max < 9e18) {
            snprintf(field, sizeof field, "\"%s\":%.17g", p->name, p->max + 1);
            refused(field, p->apis & KTS_CHAT ? KTS_CHAT : KTS_COMPLETION, 400, p->name, "must be");
        }
    }
}

static void lists_and_objects(void **state)
{
    (void)state;
    refused("\"max_tokens\":-5", KTS_CHAT, 400, "max_tokens", "got -5");
    refused("\"max_tokens\":0", KTS_CHAT, 400, "max_tokens", "got 0");
    refused("\"max_completion_tokens\":1.5", KTS_CHAT, 400, "max_completion_tokens", "integer");
    refused("\"top_p\":0", KTS_CHAT, 400, "top_p", "above 0");
    refused("\"stop\":[\"a\",1]", KTS_CHAT, 400, "stop", "strings");
    refused("\"stop\":\"\"", KTS_CHAT, 400, "stop", "between 1 and 256");
    refused("\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", KTS_CHAT, 400, "stop",
            "limit is 16");
    refused("\"stop_token_ids\":[300]", KTS_CHAT, 400, "stop_token_ids", "between 0 and 299");
    refused("\"logit_bias\":{\"300\":1}", KTS_CHAT, 400, "logit_bias", "between 0 and 299");
    refused("\"logit_bias\":{\"x\":1}", KTS_CHAT, 400, "logit_bias", "between 0 and 299");
    refused("\"logit_bias\":{\"1\":101}", KTS_CHAT, 400, "logit_bias", "-100 and 100");
    refused("\"logit_bias\":[[1]]", KTS_CHAT, 400, "logit_bias", "pairs");
    refused("\"top_logprobs\":3", KTS_CHAT, 400, "top_logprobs", "logprobs");
    refused("\"logprobs\":true,\"top_logprobs\":21", KTS_CHAT, 400, "top_logprobs", "20");
    refused("\"logprobs\":1", KTS_CHAT, 400, "logprobs", "true or false");
    refused("\"logprobs\":6", KTS_COMPLETION, 400, "logprobs", "5");
    refused("\"model\":\"other\"", KTS_CHAT, 404, "model", "other");
    refused("\"model\":1", KTS_CHAT, 400, "model", "string");
    refused("\"stream_options\":{\"include_usage\":1}", KTS_CHAT, 400, "stream_options",
            "include_usage");
    refused("\"n\":9", KTS_CHAT, 400, "n", "8");
    refused("\"n\":3,\"best_of\":2", KTS_COMPLETION, 400, "best_of", "at least n");
    refused("\"best_of\":2,\"stream\":true", KTS_COMPLETION, 400, "best_of", "streamed");
    refused("\"suffix\":\"x\"", KTS_COMPLETION, 400, "suffix", "fill-in");
    refused("\"tools\":[{\"type\":\"function\"}]", KTS_CHAT, 501, "tools", "not available");
    refused("\"response_format\":{\"type\":\"json_object\"}", KTS_CHAT, 501, "response_format",
            "not available");
    refused("\"mirostat\":2", KTS_CHAT, 501, "mirostat", "not available");
    refused("\"stream\":\"yes\"", KTS_CHAT, 400, "stream", "true or false");
    refused("\"min_tokens\":5,\"max_tokens\":4", KTS_CHAT, 400, "min_tokens", "max_tokens");
}

static void messages_are_checked(void **state)
{
    static const struct {
        const char *body;
        int status;
        const char *param;
    } row[] = {
        {"{}", 400, "messages"},
        {"[]", 400, ""},
        {"{\"messages\":[]}", 400, "messages"},
        {"{\"messages\":\"x\"}", 400, "messages"},
        {"{\"messages\":[1]}", 400, "messages[0]"},
        {"{\"messages\":[{\"role\":\"boss\",\"content\":\"x\"}]}", 400, "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\"}]}", 400, "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", 400, "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
         "messages[0].content[0]"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]}]}", 501,
         "messages"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct kts_req r;
        struct kts_fail f;
        assert_int_equal(map(row[i].body, KTS_CHAT, &r, &f), -1);
        assert_int_equal(f.status, row[i].status);
        assert_string_equal(f.param, row[i].param);
    }
}

static void a_full_request(void **state)
{
    struct kts_req r;
    struct kts_fail f;
    (void)state;
    const char *body = "{\"model\":\"demo\",\"messages\":[{\"role\":\"developer\",\"content\":"
                       "\"be\"},{\"role\":\"user\",\"content\":[{"
                       "\"type\":\"text\",\"text\":\"a\"},"
                       "{\"type\":\"text\",\"text\":\"b\"}]}],\"max_completion_tokens\":7,"
                       "\"temperature\":0,\"top_p\":0.5,\"seed\":"
                       "9223372036854775807,\"stop\":\"x\","
                       "\"logit_bias\":{\"5\":-100,\"6\":false},\"logprobs\":true,\"top_logprobs\":"
                       "2,\"stream\":true,\"stream_options\":{"
                       "\"include_usage\":true},"
                       "\"tools\":[],\"tool_choice\":\"auto\",\"response_format\":{\"type\":"
                       "\"text\"},\"user\":\"u\",\"store\":null,\"n\":"
                       "2,\"frequency_penalty\":null}";
    assert_int_equal(map(body, KTS_CHAT, &r, &f), 0);
    assert_int_equal(r.n_messages, 2);
    assert_string_equal(r.messages[0].role, "system");
    assert_string_equal(r.messages[1].content, "ab");
    assert_true(r.max_tokens == 7 && r.seed == INT64_MAX && r.n_logprobs == 2 && r.stream &&
                r.include_usage && r.n == 2 && r.best_of == 2);
    assert_true(r.temperature == 0 && r.top_p == 0.5 && r.n_bias == 2 && r.n_stop == 1 &&
                r.n_unknown == 2);
    kts_req_free(&r);
    assert_int_equal(map("{\"prompt\":[[1,2],[3]],\"logprobs\":0,\"echo\":true,\"max_tokens\":0}",
                         KTS_COMPLETION, &r, &f),
                     0);
    assert_true(r.n_prompts == 2 && r.prompts[0].n_ids == 2 && r.prompts[1].ids[0] == 3 &&
                r.n_logprobs == 0);
    kts_req_free(&r);
    assert_int_equal(map("{\"prompt\":[\"a\",\"b\"]}", KTS_COMPLETION, &r, &f), 0);
    assert_int_equal(r.n_prompts, 2);
    kts_req_free(&r);
    assert_int_equal(map("{\"prompt\":[7,8,299]}", KTS_COMPLETION, &r, &f), 0);
    assert_true(r.n_prompts == 1 && r.prompts[0].n_ids == 3);
    kts_req_free(&r);
    assert_int_equal(map("{\"prompt\":[7,300]}", KTS_COMPLETION, &r, &f), -1);
    assert_int_equal(map("{\"prompt\":[]}", KTS_COMPLETION, &r, &f), -1);
}

/* Every allocation may fail: the answer is then a refusal, and nothing leaks. */
static void memory_may_be_short(void **state)
{
    struct kts_req r;
    struct kts_fail f;
    int rc = -1;
    (void)state;
    for (long n = 0; n < 200 && rc != 0; n++) {
        mem_fail_after(n);
        rc = map("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}"
                 "]}],\"stop\":[\"a\",\"b\"],\"logit_"
                 "bias\":{\"1\":1}}",
                 KTS_CHAT, &r, &f);
        mem_fail_after(-1);
        if (rc != 0)
            assert_int_equal(f.status, 503);
    }
    assert_int_equal(rc, 0);
    kts_req_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_hold),       cmocka_unit_test(bad_texts),
        cmocka_unit_test(surrogates),        cmocka_unit_test(every_number_is_bounded),
        cmocka_unit_test(lists_and_objects), cmocka_unit_test(messages_are_checked),
        cmocka_unit_test(a_full_request),    cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests_name("json_in", tests, NULL, NULL);
}
