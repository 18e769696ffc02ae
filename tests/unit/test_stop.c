/* test_stop.c - stop strings and UTF-8: every way to cut the bytes into tokens gives the same text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "serve/stop.h"

static void feed_cut(const char *bytes, size_t n, unsigned cut, const struct stop_set *set,
                     struct strbuf *out, int *matched)
{
    struct stop_state s;
    bool done = false;
    stop_init(&s, set);
    for (size_t i = 0; i < n && !done;) {
        size_t end = i + 1;
        while (end < n && !(cut >> (end % 31) & 1))
            end++;
        done = stop_feed(&s, bytes + i, end - i, out);
        i = end;
    }
    if (!done)
        stop_flush(&s, out);
    *matched = s.matched;
    stop_free(&s);
}

static void expect(const char *bytes, size_t n, const char *const *stops, uint32_t n_stops,
                   const char *text, int matched)
{
    uint32_t len[16];
    struct stop_set set = {stops, len, n_stops};
    for (uint32_t i = 0; i < n_stops; i++)
        len[i] = (uint32_t)strlen(stops[i]);
    for (unsigned seed = 0; seed < 3000; seed++) {
        struct strbuf out = {0};
        int got;
        unsigned cut = seed == 0 ? 0 : seed == 1 ? ~0u : seed * 2654435761u;
        feed_cut(bytes, n, cut, &set, &out, &got);
        assert_int_equal(got, matched);
        if (strcmp(out.data == NULL ? "" : out.data, text) != 0)
            fail_msg("cut %x: '%s' instead of '%s'", cut, out.data, text);
        sb_free(&out);
    }
}

static void stop_strings(void **state)
{
    (void)state;
    expect("hello world", 11, NULL, 0, "hello world", -1);
    expect("hello world", 11, (const char *const[]){"wor"}, 1, "hello ", 0);
    expect("hello world", 11, (const char *const[]){"worx", "ld"}, 2, "hello wor", 1);
    expect("aaab", 4, (const char *const[]){"aab"}, 1, "a", 0);
    expect("abcabd", 6, (const char *const[]){"abd"}, 1, "abc", 0);
    expect("xabcd", 5, (const char *const[]){"bc", "abcd"}, 2, "xa", 0);   /* complete first wins */
    expect("xabc", 4, (const char *const[]){"c", "bc", "abc"}, 3, "x", 2); /* the longer on a tie */
    expect("hello", 5, (const char *const[]){"lonely"}, 1, "hello",
           -1); /* held back, then flushed */
    expect("stop", 4, (const char *const[]){"stop"}, 1, "", 0);
    expect("a\n\nb", 4, (const char *const[]){"\n\n"}, 1, "a", 0);
    expect("caf\xc3\xa9!", 6, (const char *const[]){"\xc3\xa9"}, 1, "caf", 0);
}

static void broken_text(void **state)
{
    (void)state;
    expect("a\xf0\x9f\x98\x80z", 6, NULL, 0, "a\xf0\x9f\x98\x80z", -1);
    expect("a\xf0\x9f\x98", 4, NULL, 0, "a\xef\xbf\xbd", -1);
    expect("\xe2\x82"
           "A",
           3, NULL, 0,
           "\xef\xbf\xbd"
           "A",
           -1);
    expect("\xff\xfe", 2, NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd", -1);
    expect("\xc0\x80", 2, NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd", -1);
    expect("\xed\xa0\x80", 3, NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", -1);
    expect("\xf0\x9f\x98\xf0\x9f\x98\x80", 7, NULL, 0, "\xef\xbf\xbd\xf0\x9f\x98\x80", -1);
    expect("\xf5\x80", 2, NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd", -1);
    expect("ab\xe2\x82STOPx", 9, (const char *const[]){"STOP"}, 1, "ab\xef\xbf\xbd", 0);
}

/* What comes out is never cut inside a character and never more than three bytes late. */
static void hold_back_is_short(void **state)
{
    static const char text[] = "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80 end";
    struct stop_state s;
    struct strbuf out = {0};
    (void)state;
    stop_init(&s, NULL);
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        assert_false(stop_feed(&s, text + i, 1, &out));
        assert_true(i + 1 - out.len <= 3);
        assert_int_equal(utf8_unfinished(out.data, out.len), 0);
    }
    assert_string_equal(out.data, text);
    stop_free(&s);
    sb_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stop_strings),
                                       cmocka_unit_test(broken_text),
                                       cmocka_unit_test(hold_back_is_short)};
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
