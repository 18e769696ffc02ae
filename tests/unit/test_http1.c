/* test_http1.c - the message rules of serving section 1.2 as a table: every row whole, byte by
 * byte, and cut in two at every byte. Then the limits, where the interest is in the last size that
 * passes and the first that does not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/http1_trace.h"

/* the fuzz targets */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int fuzz_keys(const uint8_t *data, size_t size);

#define H "Host: a\r\n"

/* want: 0 = one complete request; else the error status. n = 0: strlen. */
struct row {
    const char *name, *text;
    int want;
    size_t n;
};
#define NUL(s) s, 400, sizeof(s) - 1

static const struct row rows[] = {
    {"plain", "GET / HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"one leading CRLF", "\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"two leading CRLF", "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"leading LF", "\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"leading space", " GET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"two spaces", "GET  / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"two spaces before version", "GET /  HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"tab as space", "GET\t/ HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"space after version", "GET / HTTP/1.1 \r\n" H "\r\n", 400, 0},
    {"no version", "GET /\r\n" H "\r\n", 400, 0},
    {"HTTP/1.0", "GET / HTTP/1.0\r\n" H "\r\n", 0, 0},
    {"HTTP/0.9 number", "GET / HTTP/0.9\r\n" H "\r\n", 505, 0},
    {"HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", 505, 0},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", 505, 0},
    {"HTTP/9.9", "GET / HTTP/9.9\r\n" H "\r\n", 505, 0},
    {"HTTP/1.10", "GET / HTTP/1.10\r\n" H "\r\n", 400, 0},
    {"http/1.1", "GET / http/1.1\r\n" H "\r\n", 400, 0},
    {"HTTP/1,1", "GET / HTTP/1,1\r\n" H "\r\n", 400, 0},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 0},
    {"HEAD", "HEAD / HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"DELETE", "DELETE / HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"OPTIONS", "OPTIONS / HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"lower-case method", "get / HTTP/1.1\r\n" H "\r\n", 501, 0},
    {"unknown method", "PATCH / HTTP/1.1\r\n" H "\r\n", 501, 0},
    {"CONNECT", "CONNECT a:80 HTTP/1.1\r\n" H "\r\n", 405, 0},
    {"TRACE", "TRACE / HTTP/1.1\r\n" H "\r\n", 405, 0},
    {"method not a token", "GE(T / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"TLS hello", NUL("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")},
    {"query", "GET /a?b=%zz&c HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"asterisk with GET", "GET * HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"relative target", "GET a HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"absolute target", "GET http://a/x HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"absolute target without path", "GET http://a HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"absolute target, query only", "GET http://a?q HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"absolute target, port", "GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", 0, 0},
    {"absolute target, other authority", "GET http://b/x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"absolute target, prefix of Host", "GET http://a/x HTTP/1.1\r\nHost: ab\r\n\r\n", 400, 0},
    {"absolute target, userinfo", "GET http://u@a/x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"other scheme", "GET ftp://a/x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"fragment", "GET /a#b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"backslash", "GET /a\\b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"raw byte above 0x7e in target", "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"DEL in target", "GET /\x7f HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"NUL in target", NUL("GET /\0 HTTP/1.1\r\n" H "\r\n")},
    {"percent", "GET /%41%c3%a9%2Fb HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"percent, no second round", "GET /%2541 HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"percent NUL", "GET /%00 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"bad hex", "GET /%4g HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"cut hex", "GET /%4 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"cut hex before query", "GET /%4?1 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"bad UTF-8", "GET /%c3%28 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"overlong UTF-8", "GET /%c0%af HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"overlong UTF-8, three bytes", "GET /%e0%80%af HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"surrogate", "GET /%ed%a0%80 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"above U+10FFFF", "GET /%f4%90%80%80 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"cut UTF-8", "GET /%e2%82 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"dot segment", "GET /a/./b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"dot dot segment", "GET /a/../b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"dot dot at the end", "GET /a/.. HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"encoded dot dot", "GET /a/%2e%2E/b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"dot dot between encoded slashes", "GET /a%2f..%2fb HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"three dots", "GET /.../b HTTP/1.1\r\n" H "\r\n", 0, 0},
    {"bare LF after request line", "GET / HTTP/1.1\n" H "\r\n", 400, 0},
    {"bare CR in request line", "GET / HTTP/1.1\rX" H "\r\n", 400, 0},
    {"bare LF after field", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400, 0},
    {"bare CR in field", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, 0},
    {"bare LF ends head", "GET / HTTP/1.1\r\n" H "\n", 400, 0},
    {"space before colon", "GET / HTTP/1.1\r\n" H "A : b\r\n\r\n", 400, 0},
    {"space before field", "GET / HTTP/1.1\r\n A: b\r\n" H "\r\n", 400, 0},
    {"obs-fold", "GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", 400, 0},
    {"obs-fold by tab", "GET / HTTP/1.1\r\n" H "A: b\r\n\tc\r\n\r\n", 400, 0},
    {"empty name", "GET / HTTP/1.1\r\n" H ": b\r\n\r\n", 400, 0},
    {"name without colon", "GET / HTTP/1.1\r\n" H "A\r\n\r\n", 400, 0},
    {"name not a token", "GET / HTTP/1.1\r\n" H "A(: b\r\n\r\n", 400, 0},
    {"name with high byte", "GET / HTTP/1.1\r\n" H "A\xc3: b\r\n\r\n", 400, 0},
    {"value bytes", "GET / HTTP/1.1\r\n" H "A: \t b\tc \x80\xff ~ \t\r\n\r\n", 0, 0},
    {"empty value", "GET / HTTP/1.1\r\n" H "A:\r\nB:  \t\r\n\r\n", 0, 0},
    {"NUL in value", NUL("GET / HTTP/1.1\r\n" H "A: b\0c\r\n\r\n")},
    {"control in value", "GET / HTTP/1.1\r\n" H "A: b\x01\r\n\r\n", 400, 0},
    {"ESC in value", "GET / HTTP/1.1\r\n" H "A: b\x1b[0m\r\n\r\n", 400, 0},
    {"DEL in value", "GET / HTTP/1.1\r\n" H "A: b\x7f\r\n\r\n", 400, 0},
    {"no Host", "GET / HTTP/1.1\r\n\r\n", 400, 0},
    {"no Host, 1.0", "GET / HTTP/1.0\r\n\r\n", 400, 0},
    {"two Hosts", "GET / HTTP/1.1\r\n" H H "\r\n", 400, 0},
    {"two Hosts, other case", "GET / HTTP/1.1\r\n" H "hOST: b\r\n\r\n", 400, 0},
    {"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, 0},
    {"Host with port", "GET / HTTP/1.1\r\nHost: a.b-c:8080\r\n\r\n", 0, 0},
    {"Host IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0, 0},
    {"Host IPv6 open", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, 0},
    {"Host userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, 0},
    {"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, 0},
    {"Host path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, 0},
    {"Host empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400, 0},
    {"Host port not a number", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400, 0},
    {"Host port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, 0},
    {"length", "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", 0, 0},
    {"length 0", "POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", 0, 0},
    {"length with zeros", "POST / HTTP/1.1\r\n" H "Content-Length: 0000000000000000003\r\n\r\nabc",
     0, 0},
    {"length, 20 digits", "POST / HTTP/1.1\r\n" H "Content-Length: 00000000000000000003\r\n\r\nabc",
     400, 0},
    {"length, 19 nines", "POST / HTTP/1.1\r\n" H "Content-Length: 9999999999999999999\r\n\r\n", 413,
     0},
    {"length twice", "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
     400, 0},
    {"length list", "POST / HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\nabc", 400, 0},
    {"length plus", "POST / HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\nabc", 400, 0},
    {"length minus", "POST / HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\nabc", 400, 0},
    {"length hex", "POST / HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\nabc", 400, 0},
    {"length empty", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, 0},
    {"length, space inside", "POST / HTTP/1.1\r\n" H "Content-Length: 1 1\r\n\r\n", 400, 0},
    {"length, space before colon", "POST / HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nabc", 400, 0},
    {"length and coding",
     "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, 0},
    {"coding and length",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
     400, 0},
    {"length and unknown coding",
     "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: x\r\n\r\nabc", 400, 0},
    {"chunked",
     "POST / HTTP/1.1\r\n" H
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n",
     0, 0},
    {"chunked, other case", "POST / HTTP/1.1\r\n" H "transfer-encoding:CHUNKED\r\n\r\n0\r\n\r\n", 0,
     0},
    {"chunked on 1.0", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
     0},
    {"coding twice",
     "POST / HTTP/1.1\r\n" H
     "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, 0},
    {"xchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, 0},
    {"gzip, chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     501, 0},
    {"chunked, chunked",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501, 0},
    {"chunked with parameter",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 501, 0},
    {"identity coding", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 501, 0},
    {"empty coding", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", 400, 0},
    {"coding, vertical tab",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b"
     "chunked\r\n\r\n0\r\n\r\n",
     400, 0},
#define C "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
    {"chunk size empty", C "\r\n\r\n", 400, 0},
    {"chunk size sign", C "+3\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk size 0x", C "0x3\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk size space", C "3 \r\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk size, leading space", C " 3\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk size 16 digits", C "0000000000000003\r\nabc\r\n0\r\n\r\n", 0, 0},
    {"chunk size 17 digits", C "00000000000000003\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk size, all bits", C "FFFFFFFFFFFFFFFF\r\nabc", 413, 0},
    {"chunk sum overflows", C "1\r\na\r\nFFFFFFFFFFFFFFFF\r\nabc", 413, 0},
    {"chunk size not hex", C "g\r\n", 400, 0},
    {"chunk size bare LF", C "3\nabc\r\n0\r\n\r\n", 400, 0},
    {"chunk data without CRLF", C "3\r\nabc0\r\n\r\n", 400, 0},
    {"chunk data, other two bytes", C "3\r\nabcXX0\r\n\r\n", 400, 0},
    {"chunk data, LF only", C "3\r\nabc\n0\r\n\r\n", 400, 0},
    {"chunk data, CR X", C "3\r\nabc\rX0\r\n\r\n", 400, 0},
    {"last chunk 000", C "000\r\n\r\n", 0, 0},
    {"extension", C "3;a\r\nabc\r\n0;b=c;d\r\n\r\n", 0, 0},
    {"extension empty", C "3;\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"extension quoted", C "3;a=\"b\"\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"extension with space", C "3; a\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"extension without value", C "3;a=\r\nabc\r\n0\r\n\r\n", 400, 0},
    {"extension bare LF", C "3;a\nabc\r\n0\r\n\r\n", 400, 0},
    {"trailer", C "0\r\nA: b\r\nContent-Length: 7\r\n\r\n", 0, 0},
    {"trailer bare LF", C "0\r\nA: b\n\r\n", 400, 0},
    {"trailer fold", C "0\r\nA: b\r\n c\r\n\r\n", 400, 0},
    {"trailer without colon", C "0\r\nA\r\n\r\n", 400, 0},
    {"trailer, NUL", NUL(C "0\r\nA: \0\r\n\r\n")},
    {"trailer end bare LF", C "0\r\n\n", 400, 0},
    {"POST without length", "POST / HTTP/1.1\r\n" H "\r\n", 411, 0},
    {"PUT without length", "PUT / HTTP/1.1\r\n" H "\r\n", 411, 0},
    {"body on GET", "GET / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", 0, 0},
    {"large body on GET", "GET / HTTP/1.1\r\n" H "Content-Length: 16385\r\n\r\n", 413, 0},
    {"expect", "POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\na", 0, 0},
    {"upgrade is ignored",
     "GET / HTTP/1.1\r\n" H
     "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
     0, 0},
    {"two Authorization",
     "GET / HTTP/1.1\r\n" H "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n\r\n", 400, 0},
    {"two x-api-key", "GET / HTTP/1.1\r\n" H "x-api-key: a\r\nX-API-Key: a\r\n\r\n", 400, 0},
    {"two Content-Type", "GET / HTTP/1.1\r\n" H "Content-Type: a\r\nContent-Type: a\r\n\r\n", 400,
     0},
    {"two Origin", "GET / HTTP/1.1\r\n" H "Origin: a\r\nOrigin: a\r\n\r\n", 400, 0},
};

static struct strbuf trace_of(const struct http1_limits *l, const char *text, size_t n,
                              http1_cut cut, void *state)
{
    struct strbuf out = {0};
    http1_trace(l, text, n, cut, state, &out);
    assert_true(sb_ok(&out));
    return out;
}

/* The trace of the whole input; checks that no way of cutting changes it. */
static struct strbuf checked_trace(const char *name, const struct http1_limits *l, const char *text,
                                   size_t n)
{
    struct strbuf whole = trace_of(l, text, n, http1_cut_whole, NULL);
    struct strbuf bytes = trace_of(l, text, n, http1_cut_bytes, NULL);
    if (strcmp(whole.data, bytes.data) != 0)
        fail_msg("%s: byte by byte differs:\n%s\n%s", name, whole.data, bytes.data);
    sb_free(&bytes);
    for (size_t i = 1; i < n; i++) {
        size_t first = i;
        struct strbuf cut = trace_of(l, text, n, http1_cut_at, &first);
        if (strcmp(whole.data, cut.data) != 0)
            fail_msg("%s: cut at %zu differs:\n%s\n%s", name, i, whole.data, cut.data);
        sb_free(&cut);
    }
    return whole;
}

static int status_in(const char *trace)
{
    const char *e = strstr(trace, "ERROR ");
    return e != NULL ? (int)strtol(e + 6, NULL, 10) : 0;
}

static void message_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct strbuf t = checked_trace(r->name, NULL, r->text, r->n ? r->n : strlen(r->text));
        if (status_in(t.data) != r->want || (r->want == 0 && strstr(t.data, "DONE") == NULL) ||
            (r->want == 0 && strstr(t.data, "END idle=1 body 0") == NULL))
            fail_msg("%s: wanted %d:\n%s", r->name, r->want, t.data);
        sb_free(&t);
    }
}

static void expect_trace(const char *text, const char *want)
{
    struct strbuf t = checked_trace(want, NULL, text, strlen(text));
    assert_string_equal(t.data, want);
    sb_free(&t);
}

static void results(void **state)
{
    (void)state;
    expect_trace("GET /%41%c3%a9%2Fb?x=%41 HTTP/1.1\r\nHost: a\r\nX-Y: \t b c\t \r\n\r\n",
                 "HEAD 1 1.1 /A\xc3\xa9/b?x=%41 slash=4 keep=1 chunked=0 body=0 length=0 status=0 "
                 "expect=00 [host=a] [x-y=b c]\nDONE body 0:\nEND idle=1 body 0\n");
    expect_trace(C "3;q\r\nabc\r\n2\r\nde\r\n0\r\nHost: evil\r\n\r\nGET / HTTP/1.0\r\nHost: "
                   "b\r\nConnection: keep-alive\r\n\r\n",
                 "HEAD 4 1.1 /? slash=-1 keep=1 chunked=1 body=1 length=0 status=0 expect=00 "
                 "[host=a] [transfer-encoding=chunked]\nDONE body 5:abcde\n"
                 "HEAD 1 1.0 /? slash=-1 keep=0 chunked=0 body=0 length=0 status=0 expect=00 "
                 "[host=b] [connection=keep-alive]\nDONE body 0:\nEND idle=1 body 0\n");
    expect_trace(
        "GET http://a?q HTTP/1.1\r\nHost: A\r\nConnection: x ,  CLOSE\t, y\r\nExpect: "
        "200-ok\r\n\r\n",
        "HEAD 1 1.1 /?q slash=-1 keep=0 chunked=0 body=0 length=0 status=0 expect=01 [host=A] "
        "[connection=x ,  CLOSE\t, y] [expect=200-ok]\nDONE body 0:\nEND idle=1 body 0\n");
    /* the head is reported before a length error, so that the gate can speak first */
    expect_trace("POST / HTTP/1.1\r\nHost: a\r\n\r\n",
                 "HEAD 4 1.1 /? slash=-1 keep=1 chunked=0 body=0 length=0 status=411 expect=00 "
                 "[host=a]\nERROR 411 a length is required after 28 body 0\n");
}

/* text = head + fill * n + tail */
static int filled(const struct http1_limits *l, const char *head, const char *fill, size_t n,
                  const char *tail)
{
    struct strbuf b = {0};
    sb_puts(&b, head);
    for (size_t i = 0; i < n; i++)
        sb_puts(&b, fill);
    sb_puts(&b, tail);
    struct strbuf whole = trace_of(l, b.data, b.len, http1_cut_whole, NULL),
                  bytes = trace_of(l, b.data, b.len, http1_cut_bytes, NULL);
    assert_string_equal(whole.data, bytes.data);
    int status = status_in(whole.data);
    sb_free(&whole);
    sb_free(&bytes);
    sb_free(&b);
    return status;
}

static void limits(void **state)
{
    (void)state;
    /* request line: "GET /" and " HTTP/1.1" are 14 bytes */
    assert_int_equal(filled(NULL, "GET /", "a", 8192 - 14, " HTTP/1.1\r\n" H "\r\n"), 0);
    assert_int_equal(filled(NULL, "GET /", "a", 8192 - 13, " HTTP/1.1\r\n" H "\r\n"), 414);
    assert_int_equal(filled(NULL, "", "G", 8193, " / HTTP/1.1\r\n" H "\r\n"), 414);
    /* one header line */
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H "A: ", "b", 8192 - 3, "\r\n\r\n"), 0);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H "A: ", "b", 8192 - 2, "\r\n\r\n"), 431);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, "b", 8193, ": \r\n\r\n"), 431);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H "A: ", " ", 100000, "\r\n\r\n"), 431);
    /* the block: Host is 9 bytes, the end 2, each line 1024 */
    char line[1025];
    memset(line, 'x', 1022);
    memcpy(line, "A:", 2);
    memcpy(line + 1022, "\r\n", 3);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, line, 15, "\r\n"), 0);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, line, 16, "\r\n"), 431);
    /* fields: Host is one of 100 */
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, "A:\r\n", 99, "\r\n"), 0);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, "A:\r\n", 100, "\r\n"), 431);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\n" H, "A:\r\n", 100000, "\r\n"), 431);
    /* chunk extensions, trailers */
    assert_int_equal(filled(NULL, C "1;", "a", 255, "\r\nx\r\n0\r\n\r\n"), 0);
    assert_int_equal(filled(NULL, C "1;", "a", 256, "\r\nx\r\n0\r\n\r\n"), 400);
    assert_int_equal(filled(NULL, C "0\r\n", "A:\r\n", 100, "\r\n"), 0);
    assert_int_equal(filled(NULL, C "0\r\n", "A:\r\n", 101, "\r\n"), 431);
    assert_int_equal(filled(NULL, C "0\r\n", line, 16, "\r\n"), 431);
    assert_int_equal(filled(NULL, C "0\r\nA: ", "b", 8190, "\r\n\r\n"), 431);
    /* a host name */
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\nHost: ", "a", 255, ":80\r\n\r\n"), 0);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\nHost: ", "a", 256, ":80\r\n\r\n"), 400);
    assert_int_equal(filled(NULL, "GET / HTTP/1.1\r\nHost: [", ":", 254, "]\r\n\r\n"), 400);
    /* bodies */
    struct http1_limits l = http1_limits_default;
    l.body_bytes = 10;
    l.ignored_body_bytes = 5;
    assert_int_equal(filled(&l, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n", "x", 10, ""),
                     0);
    assert_int_equal(filled(&l, "POST / HTTP/1.1\r\n" H "Content-Length: 11\r\n\r\n", "x", 11, ""),
                     413);
    assert_int_equal(filled(&l, "GET / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n", "x", 5, ""), 0);
    assert_int_equal(filled(&l, "GET / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\n", "x", 6, ""),
                     413);
    assert_int_equal(filled(&l, C, "5\r\n01234\r\n", 2, "0\r\n\r\n"), 0);
    assert_int_equal(filled(&l, C, "5\r\n01234\r\n", 3, "0\r\n\r\n"), 413);
}

static void pipeline(void **state)
{
    (void)state;
    const char *text = "GET /1 HTTP/1.1\r\n" H "\r\n\r\nPOST /2 HTTP/1.1\r\n" H
                       "Content-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\n" H "\r\n";
    struct strbuf t = checked_trace("pipeline", NULL, text, strlen(text));
    const char *one = strstr(t.data, " /1?"), *two = strstr(t.data, " /2?"),
               *three = strstr(t.data, " /3?");
    assert_true(one != NULL && two > one && three > two &&
                strstr(t.data, "DONE body 2:hi") != NULL);
    sb_free(&t);
}

static void helpers(void **state)
{
    (void)state;
    size_t n = 0;
    assert_true(http1_split_host("[::1]:8080", &n) && n == 5);
    assert_true(http1_split_host("example.org", &n) && n == 11);
    assert_false(http1_split_host("", &n) || http1_split_host("[]", &n) ||
                 http1_split_host(":80", &n) || http1_split_host("a b", &n));
    assert_true(http1_list_has("a, Close ,b", "close") && http1_list_has("close", "close"));
    assert_false(http1_list_has("closed", "close") || http1_list_has("", "close") ||
                 http1_list_has("x close", "close"));
}

static uint32_t random_next(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

/* Replay the table through the fuzz target, as it is and with bytes changed, removed and rows
 * joined: the same 20 000 inputs each time. */
static void fuzz_target_on_mutated_rows(void **state)
{
    (void)state;
    uint32_t s = 2463534242u;
    const size_t n_rows = sizeof rows / sizeof rows[0];
    for (int i = 0; i < 20000; i++) {
        struct strbuf b = {0};
        uint32_t seed = random_next(&s);
        sb_add(&b, (const char *)&seed, 4);
        for (uint32_t k = 0; k <= random_next(&s) % 3; k++) {
            const struct row *r = &rows[random_next(&s) % n_rows];
            sb_add(&b, r->text, r->n ? r->n : strlen(r->text));
        }
        static const char interesting[] = "\r\n\t :;=,/%?0123abcfF\x80\x7f";
        for (uint32_t k = random_next(&s) % 4; k > 0 && i % 4 != 0; k--) {
            size_t at = 4 + random_next(&s) % (b.len - 4);
            if (random_next(&s) % 3 == 0)
                memmove(b.data + at, b.data + at + 1, b.len-- - at);
            else
                b.data[at] = interesting[random_next(&s) % sizeof interesting];
            if (b.len <= 5)
                break;
        }
        assert_true(sb_ok(&b));
        LLVMFuzzerTestOneInput((const uint8_t *)b.data, b.len);
        sb_free(&b);
    }
}

static void fuzz_target_on_key_files(void **state)
{
    (void)state;
    static const char text[] =
        "# keys\nuser alice key\n\tadmin root "
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\nmetrics m k";
    uint32_t s = 88172645u;
    for (int i = 0; i < 20000; i++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        for (uint32_t k = random_next(&s) % 4; k > 0; k--)
            copy[random_next(&s) % (sizeof text - 1)] = (char)random_next(&s);
        fuzz_keys((const uint8_t *)copy, random_next(&s) % sizeof text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_table),
        cmocka_unit_test(results),
        cmocka_unit_test(limits),
        cmocka_unit_test(pipeline),
        cmocka_unit_test(helpers),
        cmocka_unit_test(fuzz_target_on_mutated_rows),
        cmocka_unit_test(fuzz_target_on_key_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
