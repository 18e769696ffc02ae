/* test_http_server.c - connections of the HTTP layer over loopback: keep-alive, order, closing
 * without reset, disconnects, limits, deadlines. See http_world.h for how server and clients share
 * one thread.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "base/mem.h"
#include "http_world.h"
#include "serve/conn.h"

#define L "Host: localhost\r\n"
#define GET(path) "GET " path " HTTP/1.1\r\n" L "\r\n"
#define JSON "Content-Type: application/json\r\n"

/* Large replies are collected first and decoded once. */
static void receive_at_least(int fd, struct strbuf *b, size_t n)
{
    uint64_t end = clock_ns() + WAIT_NS;
    while (b->len < n && clock_ns() < end)
        if (receive_some(fd, b) == -2)
            poll(NULL, 0, 1);
    assert_true(b->len >= n);
}

static void replies_and_headers(void **state)
{
    (void)state;
    world_open();
    int fd = dial();
    struct reply r = {0};
    ask(fd, GET("/hello"), &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "hello");
    assert_true(has(&r, "Content-Type: text/plain") && has(&r, "X-Content-Type-Options: nosniff") &&
                has(&r, "Cache-Control: no-store") && has(&r, "x-test: 1"));
    assert_non_null(strstr(r.head.data, "\r\nx-request-id: req_"));
    assert_null(strstr(r.head.data, "Connection:"));
    ask(fd, "GET /hello HTTP/1.1\r\n" L "X-Request-Id: a.B_c-1\r\n\r\n", &r);
    assert_true(has(&r, "x-request-id: a.B_c-1"));
    ask(fd, "GET /hello HTTP/1.1\r\n" L "X-Request-Id: a b\r\n\r\n", &r);
    assert_non_null(strstr(r.head.data, "\r\nx-request-id: req_"));
    ask(fd, "HEAD /hello HTTP/1.1\r\n" L "\r\n", &r);
    assert_true(r.status == 200 && has(&r, "Content-Length: 5") && r.rest.len == 0);
    ask(fd, "HEAD /stream HTTP/1.1\r\n" L "\r\n", &r);
    assert_true(r.status == 200 && has(&r, "Content-Type: text/event-stream"));
    ask(fd, GET("/stream"), &r);
    assert_string_equal(r.body.data, "data: 1\n\ndata: 2\n\n");
    assert_true(has(&r, "Transfer-Encoding: chunked") && has(&r, "Cache-Control: no-cache") &&
                has(&r, "X-Accel-Buffering: no"));
    ask(fd, GET("/models/org%2Fname:q4?x=1"), &r);
    assert_string_equal(
        r.body.data, "path=/models/org/name:q4 tail=org/name:q4 query=x=1 key= scope=1 accept=-");
    assert_int_equal(w.n_done, 7);
    assert_string_equal(w.last_route, "/models/*");
    assert_int_equal(http_server_active(w.s), 0);
    uint32_t idle, active;
    PUMP_UNTIL((http_server_connections(w.s, &idle, &active), idle == 1 && active == 0));
    reply_free(&r);
    close(fd);
}

static void bodies(void **state)
{
    (void)state;
    world_open();
    int fd = dial();
    struct reply r = {0};
    ask(fd, "POST /echo HTTP/1.1\r\n" L JSON "Content-Length: 2\r\n\r\n{}", &r);
    assert_true(r.status == 200 && strcmp(r.body.data, "{}") == 0);
    ask(fd,
        "PUT /echo HTTP/1.1\r\n" L JSON
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nA: b\r\n\r\n",
        &r);
    assert_true(r.status == 200 && strcmp(r.body.data, "abcde") == 0);
    ask(fd, "POST /echo HTTP/1.1\r\n" L "Content-Length: 0\r\n\r\n", &r);
    assert_true(r.status == 200 && r.body.len == 0);
    ask(fd, "GET /hello HTTP/1.1\r\n" L "Content-Length: 3\r\n\r\nabc", &r);
    assert_int_equal(r.status, 200);
    /* a large body, whole and by byte; the same bytes come back */
    size_t n = 3000000;
    char *body = malloc(n), head[200];
    for (size_t i = 0; i < n; i++)
        body[i] = (char)(i * 2654435761u >> 13);
    send_bytes(fd, head,
               (size_t)snprintf(head, sizeof head,
                                "POST /echo HTTP/1.1\r\n" L JSON "Content-Length: %zu\r\n\r\n", n));
    send_bytes(fd, body, n);
    receive_at_least(fd, &r.rest, n);
    receive_reply(fd, &r, false);
    assert_int_equal(r.body.len, n);
    assert_memory_equal(r.body.data, body, n);
    free(body);
    static const char slow[] =
        "POST /echo HTTP/1.1\r\n" L JSON "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (size_t i = 0; i < sizeof slow - 1; i++) {
        send_bytes(fd, slow + i, 1);
        pump();
    }
    receive_reply(fd, &r, false);
    assert_string_equal(r.body.data, "abc");
    reply_free(&r);
    close(fd);
}

static void expect_continue(void **state)
{
    (void)state;
    world_open();
    int fd = dial();
    struct reply r = {0};
    ask(fd, "POST /echo HTTP/1.1\r\n" L JSON "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        &r);
    assert_int_equal(r.status, 100);
    ask(fd, "{}", &r);
    assert_true(r.status == 200 && strcmp(r.body.data, "{}") == 0);
    close(fd);
    /* no 100 where the answer is already known */
    static const char *const refused[] = {
        "POST /nowhere HTTP/1.1\r\n" L JSON "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" L JSON
        "Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
        "POST /admin/do HTTP/1.1\r\n" L JSON "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" L JSON "Expect: tea\r\nContent-Length: 2\r\n\r\n",
    };
    static const int want[] = {404, 413, 401, 417};
    for (int i = 0; i < 4; i++) {
        sb_clear(&r.rest);
        fd = dial();
        ask(fd, refused[i], &r);
        assert_int_equal(r.status, want[i]);
        assert_true(has(&r, "Connection: close"));
        close(fd);
    }
    reply_free(&r);
}

static void pipelining(void **state)
{
    (void)state;
    world_open();
    int fd = dial();
    struct reply r = {0};
    send_text(fd, GET("/hello") "POST /echo HTTP/1.1\r\n" L JSON "Content-Length: 2\r\n\r\n42" GET(
                      "/hold") GET("/tell?4") GET("/hello"));
    receive_reply(fd, &r, false);
    assert_string_equal(r.body.data, "hello");
    receive_reply(fd, &r, false);
    assert_string_equal(r.body.data, "42");
    PUMP_UNTIL(w.n_held == 1);
    pump_for(20);
    assert_int_equal(w.n_done, 2); /* one at a time */
    assert_int_equal(http_server_active(w.s), 1);
    http_reply(w.held[0], 200, "text/plain", "held", 4);
    receive_reply(fd, &r, false);
    assert_string_equal(r.body.data, "held");
    receive_reply(fd, &r, false);
    assert_non_null(strstr(r.body.data, "query=4"));
    receive_reply(fd, &r, false);
    assert_string_equal(r.body.data, "hello");
    reply_free(&r);
    close(fd);
}

static uint32_t open_connections(void)
{
    uint32_t idle, active;
    http_server_connections(w.s, &idle, &active);
    return idle + active;
}

static void closing(void **state)
{
    (void)state;
    world_open();
    static const char *const last[] = {
        "GET /hello HTTP/1.1\r\n" L "Connection: close\r\n\r\n",
        "GET /hello HTTP/1.0\r\n" L "\r\n",
        "GET /hello HTTP/1.0\r\n" L "Connection: keep-alive\r\n\r\n",
    };
    struct reply r = {0};
    for (int i = 0; i < 3; i++) {
        int fd = dial();
        ask(fd, last[i], &r);
        assert_true(r.status == 200 && has(&r, "Connection: close") && receive_all(fd, &r.rest) &&
                    r.rest.len == 0);
        /* the end came with the reply, not after the grace time: the server holds it still */
        assert_int_equal(open_connections(), 1);
        close(fd);
        PUMP_UNTIL(open_connections() == 0);
    }
    /* a stream to a 1.0 client ends by the close */
    int fd = dial();
    struct strbuf b = {0};
    send_text(fd, "GET /stream HTTP/1.0\r\n" L "\r\n");
    assert_true(receive_all(fd, &b));
    assert_null(strstr(b.data, "chunked"));
    assert_string_equal(strstr(b.data, "\r\n\r\n") + 4, "data: 1\n\ndata: 2\n\n");
    close(fd);
    /* the same when everything had left before the end */
    fd = dial();
    sb_clear(&b);
    send_text(fd, "GET /hold HTTP/1.0\r\n" L "\r\n");
    PUMP_UNTIL(w.n_held == 1);
    http_stream_begin(w.held[0], 200, "text/plain");
    http_stream_write(w.held[0], "x", 1);
    pump_for(20);
    http_stream_end(w.held[0]);
    forget(w.held[0]);
    assert_true(receive_all(fd, &b));
    assert_string_equal(strstr(b.data, "\r\n\r\n") + 4, "x");
    close(fd);
    sb_free(&b);
    reply_free(&r);
}

/* A reply before the body was read must arrive, whole, and end in FIN; the client is still sending
 * meanwhile. */
static void early_reply_without_reset(void **state)
{
    (void)state;
    w.config.max_body_bytes = 100000;
    world_open();
    static char body[200000];
    memset(body, 'x', sizeof body);
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"POST /nowhere HTTP/1.1\r\n" L JSON "Content-Length: 90000\r\n\r\n", 404},
        {"POST /admin/do HTTP/1.1\r\n" L JSON "Content-Length: 90000\r\n\r\n", 401},
        {"POST /echo HTTP/1.1\r\n" L JSON "Content-Length: 200000\r\n\r\n", 413},
        {"POST /echo HTTP/1.1\r\n" L "Content-Type: text/plain\r\nContent-Length: 90000\r\n\r\n",
         415},
        {"POST /echo HTTP/1.1\r\n" L JSON "Content-Encoding: gzip\r\nContent-Length: 90000\r\n\r\n",
         415},
        {"POST /echo HTTP/1.1\r\n" L JSON "\r\n", 411},
        {"POST /echo HTTP/1.1\r\n" L JSON "Transfer-Encoding: chunked\r\n\r\n186A1\r\n", 413},
        {"GET /hello HTTP/1.1\r\n" L "Content-Length: 16385\r\n\r\n", 413},
        {"BREW /hello HTTP/1.1\r\n" L "\r\n", 501},
        {"GET /hello HTTP/1.1\r\n" L "A : b\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply r = {0};
        int fd = dial();
        send_text(fd, cases[i].head);
        send_bytes(fd, body, sizeof body);
        receive_reply(fd, &r, false);
        assert_int_equal(r.status, cases[i].status);
        assert_true(has(&r, "Connection: close"));
        assert_non_null(strstr(r.body.data, "{\"error\":{\"message\":\""));
        if (!receive_all(fd, &r.rest))
            fail_msg("case %zu: reset instead of the end", i);
        reply_free(&r);
        close(fd);
    }
    /* but not for ever: a client that goes on sending is cut off, and one that stays is closed
     * after 2 s */
    int fd = dial();
    send_text(fd, cases[2].head);
    size_t sent = 0;
    for (int i = 0; i < 100; i++)
        sent += send_bytes(fd, body, sizeof body);
    assert_true(sent < 100 * sizeof body);
    close(fd);
    uint32_t idle, active;
    PUMP_UNTIL((http_server_connections(w.s, &idle, &active), active == 0));
}

static void flood_while_busy(void **state)
{
    (void)state;
    world_open();
    static char junk[30000];
    memset(junk, '\n', sizeof junk);
    int fd = dial();
    send_text(fd, GET("/hold"));
    PUMP_UNTIL(w.n_held == 1);
    send_bytes(fd, junk, sizeof junk);
    pump_for(20);
    assert_int_equal(w.n_gone, 0);
    send_bytes(fd, junk, sizeof junk);
    pump_for(20);
    assert_int_equal(w.n_gone, 0);
    send_bytes(fd, junk, sizeof junk);
    PUMP_UNTIL(w.n_gone == 1);
    assert_int_equal(w.last_status, 499);
    assert_non_null(strstr(w.rejected.data, "flood "));
    struct strbuf b = {0};
    receive_all(fd, &b);
    sb_free(&b);
    close(fd);
}

static void disconnects(void **state)
{
    (void)state;
    world_open();
    for (int kind = 0; kind < 6; kind++) {
        int fd = dial(), gone = w.n_gone;
        send_text(fd, GET("/hold"));
        PUMP_UNTIL(w.n_held == 1);
        if (kind >= 3) { /* while a stream runs */
            http_stream_begin(w.held[0], 200, "text/event-stream");
            http_stream_write(w.held[0], "data: 1\n\n", 9);
            pump_for(5);
        }
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        if (kind % 3 == 0)
            shutdown(fd, SHUT_WR);
        if (kind % 3 == 1)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (kind % 3 != 0)
            close(fd);
        PUMP_UNTIL(w.n_gone == gone + 1);
        assert_int_equal(w.last_status, 499);
        assert_int_equal(http_server_active(w.s), 0);
        if (kind % 3 == 0)
            close(fd);
    }
    /* a FIN behind pipelined bytes is seen too */
    int fd = dial(), gone = w.n_gone;
    send_text(fd, GET("/hold") GET("/hello"));
    PUMP_UNTIL(w.n_held == 1);
    close(fd);
    PUMP_UNTIL(w.n_gone == gone + 1);
    /* a reply that was complete before the half-close arrives */
    struct strbuf b = {0};
    fd = dial();
    const char *text = GET("/hello");
    assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
    shutdown(fd, SHUT_WR);
    assert_true(receive_all(fd, &b));
    assert_non_null(strstr(b.data, "hello"));
    close(fd);
    /* also one that takes many writes */
    static char body[1000000];
    memset(body, 'b', sizeof body);
    fd = dial();
    send_text(fd, "POST /echo HTTP/1.1\r\n" L JSON "Content-Length: 1000000\r\n\r\n");
    send_bytes(fd, body, sizeof body - 1);
    assert_int_equal(send(fd, "b", 1, 0), 1);
    shutdown(fd, SHUT_WR);
    sb_clear(&b);
    assert_true(receive_all(fd, &b));
    assert_true(b.len > sizeof body);
    sb_free(&b);
    close(fd);
    /* a half request and a close: nothing happens */
    fd = dial();
    send_text(fd, "GET /hello HT");
    close(fd);
    uint32_t idle, active;
    PUMP_UNTIL((http_server_connections(w.s, &idle, &active), idle + active == 0));
}

static void back_pressure(void **state)
{
    (void)state;
    w.config.max_output_bytes = 300000;
    w.config.resume_output_bytes = 100000;
    world_open();
    int fd = dial();
    send_text(fd, GET("/hold"));
    PUMP_UNTIL(w.n_held == 1);
    struct http_x *x = w.held[0];
    static char piece[50000];
    memset(piece, 'y', sizeof piece);
    http_stream_begin(x, 200, "text/plain");
    assert_true(http_stream_started(x));
    size_t total = 0;
    for (int i = 0; i < 300; i++, total += sizeof piece)
        http_stream_write(x, piece, sizeof piece);
    pump_for(30);
    assert_true(http_output_pending(x) > 300000);
    assert_int_equal(w.n_drained, 0);
    struct reply r = {0};
    while (w.n_drained == 0)
        assert_true(receive_some(fd, &r.rest) != 0);
    assert_true(http_output_pending(x) <= 100000);
    http_stream_write(x, "end", 3);
    http_stream_end(x);
    receive_at_least(fd, &r.rest, total);
    receive_reply(fd, &r, false);
    assert_int_equal(r.body.len, total + 3);
    assert_int_equal(w.n_drained, 1);
    ask(fd, GET("/hello"), &r); /* and the connection goes on */
    assert_int_equal(r.status, 200);
    reply_free(&r);
    close(fd);
}

static void deadlines(void **state)
{
    (void)state;
    w.config.header_timeout_ms = SLOW * 150;
    w.config.keepalive_timeout_ms = SLOW * 250;
    world_open();
    struct reply r = {0};
    uint64_t start = clock_ns();
    int silent = dial(), header = dial(), body = dial(), kept = dial(), second = dial();
    send_text(body, "POST /echo HTTP/1.1\r\n" L JSON "Content-Length: 10\r\n\r\n");
    ask(kept, GET("/hello"), &r);
    reply_free(&r);
    /* a byte now and then must not move the deadline */
    for (int i = 0; i < 10; i++) {
        if (send(header, &"GET /hello"[i], 1, MSG_NOSIGNAL) < 0)
            break;
        if (i < 8)
            send(body, "x", 1, MSG_NOSIGNAL);
        pump_for(SLOW * 20);
    }
    receive_reply(header, &r, false);
    assert_int_equal(r.status, 408);
    assert_true(clock_ns() - start >= SLOW * 150000000ull);
    assert_true(receive_all(header, &r.rest));
    reply_free(&r);
    receive_reply(body, &r, false);
    assert_true(r.status == 408 && has(&r, "x-should-retry: false"));
    reply_free(&r);
    struct strbuf b = {0};
    assert_true(receive_all(silent, &b) && b.len == 0);
    assert_true(receive_all(kept, &b) && b.len == 0);
    assert_true(clock_ns() - start >= SLOW * 250000000ull);
    /* the later request's header has its own deadline, from its first byte */
    close(second);
    second = dial();
    ask(second, GET("/hello"), &r);
    pump_for(SLOW * 100);
    start = clock_ns();
    send_text(second, "GET /hello HTTP/1.1\r\n");
    receive_reply(second, &r, false);
    assert_true(r.status == 408 && clock_ns() - start >= SLOW * 140000000ull);
    assert_non_null(strstr(w.rejected.data, "header_timeout "));
    assert_non_null(strstr(w.rejected.data, "body_timeout "));
    reply_free(&r);
    sb_free(&b);
    close(silent), close(header), close(body), close(kept), close(second);
}

/* Slow headers, stalled readers and idle connections around one healthy stream: it gets every frame
 * before the next one is written. */
static void healthy_stream_among_slow_clients(void **state)
{
    (void)state;
    w.config.header_timeout_ms = SLOW * 200;
    w.config.write_stall_ms = SLOW * 300;
    world_open();
    int slow[16], stalled[8], idle_fd[16];
    static char piece[60000];
    memset(piece, 'z', sizeof piece);
    for (int i = 0; i < 8; i++) {
        stalled[i] = dial();
        send_text(stalled[i], GET("/hold"));
        PUMP_UNTIL(
            w.n_held + w.n_gone ==
            i + 1); /* on a slow machine the first ones are aborted before the last ones begin */
        struct http_x *reader = w.held[w.n_held - 1];
        http_stream_begin(reader, 200, "text/plain");
        for (int k = 0; k < 200; k++)
            http_stream_write(reader, piece, sizeof piece);
    }
    for (int i = 0; i < 16; i++) {
        slow[i] = dial();
        idle_fd[i] = dial();
    }
    int fd = dial();
    struct reply r = {0};
    send_text(fd, GET("/hold"));
    PUMP_UNTIL(w.n_held + w.n_gone == 9);
    struct http_x *x = w.held[w.n_held - 1];
    http_stream_begin(x, 200, "text/event-stream");
    size_t expect = 0;
    for (int frame = 0; frame < 100; frame++) {
        uint64_t sent = clock_ns();
        size_t before = r.rest.len;
        http_stream_write(x, "data: x\n\n", 9);
        for (int i = 0; i < 16; i++)
            send(slow[i], "A", 1, MSG_NOSIGNAL);
        while (r.rest.len == before && clock_ns() - sent < WAIT_NS)
            receive_some(fd, &r.rest);
        assert_true(r.rest.len > before);
        expect += 9;
        pump_for(5);
    }
    http_stream_end(x);
    forget(x);
    receive_reply(fd, &r, false);
    assert_int_equal(r.body.len, expect);
    PUMP_UNTIL(w.n_gone == 8); /* the stalled readers */
    assert_non_null(strstr(w.rejected.data, "write_stall "));
    for (int i = 0; i < 16; i++)
        close(slow[i]), close(idle_fd[i]);
    for (int i = 0; i < 8; i++)
        close(stalled[i]);
    close(fd);
    reply_free(&r);
}

/* Slow is not stalled: bytes taken now and then, and pauses without output, reset the clock. */
static void slow_reader_is_not_stalled(void **state)
{
    (void)state;
    w.config.write_stall_ms = SLOW * 800;
    world_open();
    static char piece[100000];
    int fd = dial();
    struct reply r = {0};
    send_text(fd, GET("/hold"));
    PUMP_UNTIL(w.n_held == 1);
    struct http_x *x = w.held[0];
    http_stream_begin(x, 200, "text/plain");
    http_stream_write(x, "x", 1);
    pump_for(SLOW * 1000); /* nothing waits */
    for (int i = 0; i < 300; i++)
        http_stream_write(x, piece, sizeof piece);
    uint64_t end = clock_ns() + SLOW * 1700000000ull;
    while (clock_ns() < end) {
        for (int i = 0; i < 8; i++)
            receive_some(fd, &r.rest);
        pump_for(20);
    }
    assert_int_equal(w.n_gone, 0);
    http_stream_end(x);
    receive_at_least(fd, &r.rest, 300 * sizeof piece);
    receive_reply(fd, &r, false);
    assert_int_equal(r.body.len, 300 * sizeof piece + 1);
    reply_free(&r);
    close(fd);
}

static void connection_cap(void **state)
{
    (void)state;
    w.config.max_connections = 3;
    world_open();
    int fd[5];
    struct reply r = {0};
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        ask(fd[i], GET("/hello"), &r);
    }
    fd[3] = dial(); /* the kernel's backlog takes it; the server does not */
    send_text(fd[3], GET("/hello"));
    pump_for(30);
    struct strbuf b = {0};
    assert_int_equal(receive_some(fd[3], &b), -2);
    close(fd[0]);
    receive_reply(fd[3], &r, false);
    assert_int_equal(r.status, 200);
    for (int i = 1; i < 4; i++)
        close(fd[i]);
    pump_for(20);
    for (int i = 0; i < 5; i++) { /* five at once: three are accepted, two wait */
        fd[i] = dial();
        const char *text = GET("/hello");
        assert_int_equal(send(fd[i], text, strlen(text), MSG_NOSIGNAL), strlen(text));
    }
    for (int i = 0; i < 5; i++) {
        sb_clear(&r.rest);
        receive_reply(fd[i], &r, false);
        assert_int_equal(r.status, 200);
        close(fd[i]);
    }
    reply_free(&r);
    sb_free(&b);
}

static void out_of_descriptors(void **state)
{
    (void)state;
    world_open();
    struct rlimit old, low;
    int fd[6];
    for (int i = 0; i < 6; i++) /* connected by the kernel, not accepted yet */
        fd[i] = dial();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)fd[5] + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    uint64_t start = clock_ns();
    int rounds = 0;
    pump();
    while (clock_ns() - start <
           80000000) { /* the listener rests: no event is ready, the loop blocks */
        struct timeval tick = {.tv_usec = 10000};
        event_base_loopexit(w.base, &tick);
        event_base_loop(w.base, EVLOOP_ONCE);
        rounds++;
    }
    setrlimit(RLIMIT_NOFILE, &old);
    assert_true(rounds < 40);
    assert_non_null(strstr(w.rejected.data, "connections "));
    int served = 0, shed = 0;
    for (int i = 0; i < 6; i++) {
        const char *text = GET("/hello");
        struct strbuf b = {0};
        send(fd[i], text, strlen(text), MSG_NOSIGNAL);
        uint64_t end = clock_ns() + WAIT_NS;
        ssize_t n;
        while ((n = receive_some(fd[i], &b)) == -2 && clock_ns() < end)
            poll(NULL, 0, 1);
        served += n > 0;
        shed += n == 0 || n == -1;
        sb_free(&b);
        close(fd[i]);
    }
    assert_int_equal(served + shed, 6);
    assert_true(served >= 4 && shed >= 1);
}

static void bodies_in_memory(void **state)
{
    (void)state;
    w.config.max_bodies_bytes = 300000;
    world_open();
    static char body[100000];
    memset(body, 'x', sizeof body);
    static const char head[] = "POST /hold HTTP/1.1\r\n" L JSON "Content-Length: 100000\r\n\r\n";
    int fd[4];
    struct reply r = {0};
    for (int i = 0; i < 2; i++) {
        fd[i] = dial();
        send_text(fd[i], head);
        send_bytes(fd[i], body, sizeof body);
        PUMP_UNTIL(w.n_held == i + 1);
    }
    fd[2] = dial(); /* announcing reserves nothing, sending does */
    send_text(fd[2], head);
    fd[3] = dial();
    send_text(fd[3], head);
    send_bytes(fd[3], body, sizeof body / 2);
    pump_for(20);
    send_bytes(fd[2], body, sizeof body);
    receive_reply(fd[2], &r, false);
    assert_true(r.status == 503 && has(&r, "Retry-After: 5"));
    assert_non_null(strstr(w.rejected.data, "body_memory "));
    reply_free(&r);
    http_release_body(w.held[0]); /* room again */
    send_bytes(fd[3], body, sizeof body / 2);
    PUMP_UNTIL(w.n_held == 3);
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    PUMP_UNTIL(w.n_gone == 3);
}

static void too_large(void **state)
{
    (void)state;
    world_open();
    static char text[40000];
    static const struct {
        const char *before, *after;
        size_t n;
        int status;
        const char *reason;
    } cases[] = {
        {"GET /", " HTTP/1.1\r\n" L "\r\n", 9000, 414, "header_limit "},
        {"GET / HTTP/1.1\r\n" L "A: ", "\r\n\r\n", 9000, 431, "header_limit "},
        {"GET / HTTP/1.1\r\n" L "A: ", "\r\n\r\n", 30000, 431, "header_limit "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply r = {0};
        int fd = dial();
        size_t n = strlen(cases[i].before);
        memcpy(text, cases[i].before, n);
        memset(text + n, 'a', cases[i].n);
        memcpy(text + n + cases[i].n, cases[i].after, strlen(cases[i].after) + 1);
        ask(fd, text, &r);
        assert_int_equal(r.status, cases[i].status);
        assert_non_null(strstr(w.rejected.data, cases[i].reason));
        assert_true(receive_all(fd, &r.rest));
        reply_free(&r);
        close(fd);
    }
}

static void requests_per_connection(void **state)
{
    (void)state;
    world_open();
    int fd = dial();
    struct reply r = {0};
    struct strbuf batch = {0};
    for (int i = 0; i < 500; i++)
        sb_puts(&batch, GET("/hello"));
    for (int i = 0; i < CONN_REQUESTS_MAX / 500; i++) {
        assert_int_equal(send_bytes(fd, batch.data, batch.len), batch.len);
        for (int k = 0; k < 500; k++) {
            receive_reply(fd, &r, false);
            bool last = i == CONN_REQUESTS_MAX / 500 - 1 && k == 499;
            if (r.status != 200 || has(&r, "Connection: close") != last)
                fail_msg("request %d of batch %d: %s", k, i, r.head.data);
        }
    }
    assert_true(receive_all(fd, &r.rest));
    sb_free(&batch);
    reply_free(&r);
    close(fd);
}

/* Fail the Nth allocation of one exchange until it passes: the client sees a reply or a close, the
 * server lives, nothing leaks. */
static void memory_runs_out(void **state)
{
    (void)state;
    world_open();
    static const char text[] =
        "POST /echo HTTP/1.1\r\n" L JSON
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    bool ok = false;
    int n = 0;
    for (; n < 100 && !ok; n++) {
        char piece[4096], got[4096] = "";
        size_t len = 0;
        int fd = dial();
        mem_fail_after(n);
        send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
        uint64_t end = clock_ns() + WAIT_NS;
        for (ssize_t k = -1; k != 0 && clock_ns() < end;) {
            pump();
            k = recv(fd, piece, sizeof piece, 0);
            if (k < 0 && errno != EAGAIN)
                break;
            if (k > 0 && len + (size_t)k < sizeof got) {
                memcpy(got + len, piece, (size_t)k);
                len += (size_t)k;
            }
        }
        mem_fail_after(-1);
        assert_true(clock_ns() < end);
        ok = strncmp(got, "HTTP/1.1 200", 12) == 0 && strstr(got, "\r\n\r\nabc") != NULL;
        if (!ok && len > 0 && strncmp(got, "HTTP/1.1 503", 12) != 0)
            fail_msg("allocation %d fails: %s", n, got);
        close(fd);
    }
    assert_true(ok && n > 5);
}

static void drain_and_close(void **state)
{
    (void)state;
    world_open();
    struct reply r = {0};
    int idle_fd = dial(), busy = dial(), left = dial();
    ask(idle_fd, GET("/hello"), &r);
    send_text(busy, GET("/hold"));
    PUMP_UNTIL(w.n_held == 1);
    send_text(left, GET("/hold"));
    PUMP_UNTIL(w.n_held == 2);
    pump_for(5);
    struct http_x *x = w.held[0];
    http_server_drain(w.s);
    struct strbuf b = {0};
    assert_true(receive_all(idle_fd, &b) && b.len == 0);
    forget(x);
    http_reply(x, 200, "text/plain", "done", 4);
    assert_int_equal(http_server_active(w.s),
                     2); /* nothing of the reply has left yet: closing now would lose it */
    receive_reply(busy, &r, false);
    assert_true(r.status == 200 && has(&r, "Connection: close"));
    assert_true(receive_all(busy, &r.rest));
    assert_int_equal(http_server_active(w.s), 1);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_server_port(w.s)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), -1);
    close(fd);
    http_server_close(w.s);
    w.s = NULL;
    assert_int_equal(w.n_gone, 1);
    reply_free(&r);
    sb_free(&b);
    close(idle_fd), close(busy), close(left);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(replies_and_headers),
        T(bodies),
        T(expect_continue),
        T(pipelining),
        T(closing),
        T(early_reply_without_reset),
        T(flood_while_busy),
        T(disconnects),
        T(back_pressure),
        T(deadlines),
        T(healthy_stream_among_slow_clients),
        T(slow_reader_is_not_stalled),
        T(connection_cap),
        T(out_of_descriptors),
        T(bodies_in_memory),
        T(too_large),
        T(requests_per_connection),
        T(memory_runs_out),
        T(drain_and_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
