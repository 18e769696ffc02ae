/* http_world.h - a real server on loopback port 0 and raw client sockets in one thread, for
 * test_http_server and test_http_gate. The client calls pump the server's event loop while they
 * wait, so there are no threads, no sleeps and no races; every wait is bounded. The routes are
 * small: each shows one behaviour. A held exchange stays in w.held until the test answers it or the
 * client is gone.
 */
#ifndef KT_TESTS_HTTP_WORLD_H
#define KT_TESTS_HTTP_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "config.h"
#include "serve/http.h"

/* A process that a sanitizer slows down gets more time everywhere: in the server's own timeouts, so
 * that a client is slow only where a test means it, and in what is waited at most. */
#ifdef KT_SANITIZED
#define SLOW 8
#else
#define SLOW 1
#endif
#define WAIT_NS (SLOW * 20000000000ull) /* nothing here takes this long unless it is broken */

struct world {
    struct event_base *base;
    struct http_server *s;
    struct http_config config;
    struct http_x *held[64];
    int n_held, n_gone, n_drained, n_done, last_status;
    char last_route[64];
    struct strbuf rejected; /* reasons, each followed by a space */
};
static struct world w;

static void forget(struct http_x *x)
{
    int kept = 0; /* the order stays: the latest is the last */
    for (int i = 0; i < w.n_held; i++)
        if (w.held[i] != x)
            w.held[kept++] = w.held[i];
    w.n_held = kept;
}

static void on_gone(struct http_x *x, void *user)
{
    (void)user;
    w.n_gone++;
    forget(x);
}

static void on_drained(struct http_x *x, void *user)
{
    (void)x;
    (void)user;
    w.n_drained++;
}

static void hello(struct http_x *x, void *user)
{
    (void)user;
    http_set_header(x, "x-test", "1");
    http_reply(x, 200, "text/plain", "hello", 5);
}

static void echo(struct http_x *x, void *user)
{
    (void)user;
    size_t n;
    const char *body = http_body(x, &n);
    assert_int_equal(body[n], '\0');
    http_reply(x, 200, "application/octet-stream", body, n);
}

static void tell(struct http_x *x, void *user)
{
    (void)user;
    char text[1024];
    int n =
        snprintf(text, sizeof text, "path=%s tail=%s query=%s key=%s scope=%d accept=%s",
                 http_path(x), http_tail(x), http_query(x), http_key_name(x), (int)http_granted(x),
                 http_header(x, "ACCEPT") ? http_header(x, "ACCEPT") : "-");
    http_reply(x, 200, "text/plain", text, (size_t)n);
}

static void hold(struct http_x *x, void *user)
{
    (void)user;
    assert_true(w.n_held < 64);
    w.held[w.n_held++] = x;
    http_set_user(x, &w, on_gone, on_drained);
}

static void stream(struct http_x *x, void *user)
{
    (void)user;
    http_stream_begin(x, 200, "text/event-stream");
    http_stream_write(x, "data: 1\n\n", 9);
    http_stream_write(x, "", 0);
    http_stream_write(x, "data: 2\n\n", 9);
    http_stream_end(x);
}

static const struct http_route routes[] = {
    {.path = "/hello", .methods = HTTP_GET | HTTP_HEAD, .scope = HTTP_PUBLIC, .handler = hello},
    {.path = "/echo", .methods = HTTP_POST | HTTP_PUT, .scope = HTTP_USER, .handler = echo},
    {.path = "/any", .methods = HTTP_POST, .scope = HTTP_USER, .any_type = true, .handler = echo},
    {.path = "/tell", .methods = HTTP_GET | HTTP_DELETE, .scope = HTTP_USER, .handler = tell},
    {.path = "/models", .methods = HTTP_GET, .scope = HTTP_USER, .handler = tell},
    {.path = "/models/*", .methods = HTTP_GET, .scope = HTTP_USER, .handler = tell},
    {.path = "/models/exact", .methods = HTTP_GET, .scope = HTTP_PUBLIC, .handler = hello},
    {.path = "/hold", .methods = HTTP_GET | HTTP_POST, .scope = HTTP_USER, .handler = hold},
    {.path = "/stream", .methods = HTTP_GET | HTTP_HEAD, .scope = HTTP_USER, .handler = stream},
    {.path = "/metrics", .methods = HTTP_GET, .scope = HTTP_METRICS, .handler = tell},
    {.path = "/admin/view", .methods = HTTP_GET, .scope = HTTP_ADMIN, .handler = tell},
    {.path = "/admin/do", .methods = HTTP_POST, .scope = HTTP_ADMIN, .handler = echo},
    {.path = "/forgot-scope", .methods = HTTP_GET, .handler = tell},
    {.path = NULL},
};

static void on_done(void *user, const char *route, enum http_method m, int status,
                    uint64_t duration_ns)
{
    (void)user;
    (void)m;
    assert_true(duration_ns < 60000000000u);
    w.n_done++;
    w.last_status = status;
    snprintf(w.last_route, sizeof w.last_route, "%s", route);
}

static void on_rejected(void *user, const char *reason)
{
    (void)user;
    sb_printf(&w.rejected, "%s ", reason);
}

/* Open with w.config as the test changed it. */
static void world_open(void)
{
    char err[300] = "";
    w.config.routes = routes;
    w.config.on_done = on_done;
    w.config.on_rejected = on_rejected;
    w.base = event_base_new();
    assert_non_null(w.base);
    if (http_server_open(w.base, &w.config, &w.s, err, sizeof err) != 0)
        fail_msg("%s", err);
    assert_true(http_server_port(w.s) != 0 || w.config.host != NULL);
}

static void pump(void)
{
    event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static int world_begin(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    return 0;
}

static int world_end(void **state)
{
    (void)state;
    if (w.base != NULL) {
        http_server_close(w.s);
        pump();
        event_base_free(w.base);
    }
    sb_free(&w.rejected);
    memset(&w, 0, sizeof w);
    return 0;
}

#define PUMP_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t end_ = clock_ns() + WAIT_NS;                                                      \
        while (!(condition)) {                                                                     \
            pump();                                                                                \
            if (clock_ns() > end_)                                                                 \
                fail_msg("line %d: waited in vain for %s", __LINE__, #condition);                  \
            poll(NULL, 0, 1);                                                                      \
        }                                                                                          \
    } while (0)

static inline void pump_for(unsigned ms)
{
    uint64_t end = clock_ns() + (uint64_t)ms * 1000000;
    while (clock_ns() < end) {
        pump();
        poll(NULL, 0, 1);
    }
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_server_port(w.s)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Bytes sent; fewer than n when the server closed. */
static size_t send_bytes(int fd, const char *data, size_t n)
{
    size_t at = 0;
    uint64_t end = clock_ns() + WAIT_NS;
    while (at < n) {
        ssize_t sent = send(fd, data + at, n - at, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            break;
        at += sent > 0 ? (size_t)sent : 0;
        pump();
        if (clock_ns() > end)
            fail_msg("send: no progress at byte %zu of %zu", at, n);
    }
    return at;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send_bytes(fd, text, strlen(text)), strlen(text));
}

/* One read: > 0 bytes, 0 end of stream, -1 reset, -2 nothing yet. */
static ssize_t receive_some(int fd, struct strbuf *b)
{
    char piece[65536];
    pump();
    ssize_t n = recv(fd, piece, sizeof piece, 0);
    if (n > 0)
        sb_add(b, piece, (size_t)n);
    return n >= 0 ? n : errno == EAGAIN ? -2 : -1;
}

/* Everything up to the end of the stream; true if it ended by FIN, false by reset. */
static inline bool receive_all(int fd, struct strbuf *b)
{
    uint64_t end = clock_ns() + WAIT_NS;
    for (;;) {
        ssize_t n = receive_some(fd, b);
        if (n == 0 || n == -1)
            return n == 0;
        if (clock_ns() > end)
            fail_msg("the connection was not closed; got: %.300s", b->data ? b->data : "");
        if (n == -2)
            poll(NULL, 0, 1);
    }
}

struct reply {
    int status;
    struct strbuf head, body, rest; /* rest: received after this reply */
};

static void reply_free(struct reply *r)
{
    sb_free(&r->head);
    sb_free(&r->body);
    sb_free(&r->rest);
}

/* The value of a header (to the end of the head), or NULL. */
static bool has(const struct reply *r, const char *line)
{
    char want[512];
    snprintf(want, sizeof want, "\r\n%s\r\n", line);
    return strstr(r->head.data, want) != NULL;
}

static size_t decode_chunks(const char *s, size_t n, struct strbuf *body)
{
    for (size_t at = 0;;) {
        const char *eol = memmem(s + at, n - at, "\r\n", 2);
        if (eol == NULL)
            return 0;
        size_t size = strtoul(s + at, NULL, 16);
        at = (size_t)(eol - s) + 2;
        if (n - at < size + 2)
            return 0;
        sb_add(body, s + at, size);
        at += size + 2;
        if (size == 0)
            return at;
    }
}

/* Read one reply from a connection; r->rest holds what was received before and after. no_body: a
 * reply to HEAD. */
static void receive_reply(int fd, struct reply *r, bool no_body)
{
    uint64_t end = clock_ns() + WAIT_NS;
    sb_free(&r->head);
    sb_free(&r->body);
    for (;;) {
        const char *blank = r->rest.data ? strstr(r->rest.data, "\r\n\r\n") : NULL;
        if (blank != NULL) {
            size_t head = (size_t)(blank - r->rest.data) + 4, total = 0;
            sb_clear(&r->head);
            sb_clear(&r->body);
            sb_add(&r->head, r->rest.data, head);
            const char *length = strstr(r->head.data, "\r\nContent-Length: ");
            bool chunked = strstr(r->head.data, "\r\nTransfer-Encoding: chunked\r\n") != NULL;
            if (no_body || (length == NULL && !chunked)) {
                total = head;
            } else if (chunked) {
                size_t n = decode_chunks(r->rest.data + head, r->rest.len - head, &r->body);
                total = n > 0 ? head + n : 0;
            } else {
                size_t n = strtoul(length + 18, NULL, 10);
                if (r->rest.len - head >= n) {
                    sb_add(&r->body, r->rest.data + head, n);
                    total = head + n;
                }
            }
            if (total > 0) {
                r->status = (int)strtol(r->head.data + 9, NULL, 10);
                memmove(r->rest.data, r->rest.data + total, r->rest.len - total + 1);
                r->rest.len -= total;
                return;
            }
        }
        ssize_t n = receive_some(fd, &r->rest);
        if (n == 0 || n == -1)
            fail_msg("closed before a whole reply; got: %.300s", r->rest.data ? r->rest.data : "");
        if (clock_ns() > end)
            fail_msg("no whole reply; got: %.300s", r->rest.data ? r->rest.data : "");
        if (n == -2)
            poll(NULL, 0, 1);
    }
}

/* Request and whole reply on an open connection. */
static void ask(int fd, const char *text, struct reply *r)
{
    send_text(fd, text);
    receive_reply(fd, r, strncmp(text, "HEAD", 4) == 0);
}

#endif
