/* http_reply.c - exchanges and everything that goes back to the client: status line, headers,
 * bodies, chunked streams, refusals. Writes only append to the connection's output; the event loop
 * sends. Nothing here closes a connection or calls on_gone: a failure to append (memory) marks the
 * connection, and the event loop closes it. Owner: the I/O thread.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/conn.h"

static const struct {
    int status;
    const char *text;
} phrases[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
    {529, "Overloaded"},
};

static const char *phrase_of(int status)
{
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        if (phrases[i].status == status)
            return phrases[i].text;
    return "Status";
}

static struct evbuffer *output_of(const struct http_x *x)
{
    return bufferevent_get_output(x->c->bev);
}

static void put(struct http_x *x, const char *data, size_t len)
{
    if (!x->c->dead && evbuffer_add(output_of(x), data, len) != 0)
        conn_doom(x->c);
}

/* ---- exchanges */

static bool id_is_valid(const char *id)
{
    size_t n = strlen(id);
    for (size_t i = 0; i < n; i++) {
        char c = id[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return n >= 1 && n <= 128;
}

struct http_x *exchange_new(struct conn *c, bool parsed)
{
    struct http_x *x = mem_calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    x->c = c;
    x->parsed = parsed;
    x->start_ns = c->start_ns;
    x->pass.tail = "";
    const char *id = parsed ? http1_header(&c->parser, "x-request-id") : NULL;
    if (id != NULL && id_is_valid(id))
        memcpy(x->id, id, strlen(id) + 1);
    else
        snprintf(x->id, sizeof x->id, "req_%016llx%08llx", (unsigned long long)c->server->id_seed,
                 (unsigned long long)++c->server->id_count);
    return x;
}

void exchange_free(struct http_x *x)
{
    sb_free(&x->headers);
    mem_free(x);
}

/* The reply is complete: the exchange ends here, its connection goes on when the output has left.
 */
static void finish(struct http_x *x)
{
    struct conn *c = x->c;
    struct http_server *s = c->server;
    if (s->config.on_done != NULL)
        s->config.on_done(s->config.user, x->pass.route != NULL ? x->pass.route->path : "",
                          x->parsed ? c->parser.method : 0, x->status, clock_ns() - x->start_ns);
    s->n_active -= x->dispatched;
    c->x = NULL;
    exchange_free(x);
    conn_release_body(c);
    c->state = CONN_FLUSH;
    if (c->dead)
        return;
    conn_arm(c);
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) ==
        0) /* nothing left to send: the write callback must come all the same */
        bufferevent_trigger(c->bev, EV_WRITE,
                            BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

/* ---- request side */

enum http_method http_method(const struct http_x *x)
{
    return x->c->parser.method;
}

const char *http_path(const struct http_x *x)
{
    return x->parsed ? http1_path(&x->c->parser) : "";
}

const char *http_tail(const struct http_x *x)
{
    return x->pass.tail;
}

const char *http_query(const struct http_x *x)
{
    return x->parsed ? http1_query(&x->c->parser) : "";
}

const char *http_header(const struct http_x *x, const char *name)
{
    return x->parsed ? http1_header(&x->c->parser, name) : NULL;
}

const char *http_body(const struct http_x *x, size_t *len)
{
    if (len != NULL)
        *len = x->c->body_len;
    return x->c->body != NULL ? x->c->body : "";
}

void http_release_body(struct http_x *x)
{
    conn_release_body(x->c);
}

const char *http_request_id(const struct http_x *x)
{
    return x->id;
}

const char *http_key_name(const struct http_x *x)
{
    return x->pass.key_name;
}

enum http_scope http_granted(const struct http_x *x)
{
    return x->pass.granted;
}

void http_set_user(struct http_x *x, void *user, void (*on_gone)(struct http_x *x, void *user),
                   void (*on_drained)(struct http_x *x, void *user))
{
    x->user = user;
    x->on_gone = on_gone;
    x->on_drained = on_drained;
}

void *http_get_user(const struct http_x *x)
{
    return x->user;
}

/* ---- reply side */

static bool value_is_clean(const char *value)
{
    for (; *value != '\0'; value++)
        if ((unsigned char)*value < 0x20 || *value == 0x7f)
            return false;
    return true;
}

void http_set_header(struct http_x *x, const char *name, const char *value)
{
    if (!value_is_clean(name) || !value_is_clean(value)) {
        log_warn("a reply header with control bytes was left out");
        return;
    }
    x->has_cache_control |= http1_text_equal(name, "Cache-Control");
    sb_printf(&x->headers, "%s: %s\r\n", name, value);
}

static void cors_headers(struct http_x *x, struct strbuf *b)
{
    if (x->c->server->config.n_cors_origins == 0)
        return;
    sb_puts(b, "Vary: Origin\r\n");
    if (x->pass.cors)
        sb_printf(b,
                  "Access-Control-Allow-Origin: %s\r\nAccess-Control-Expose-Headers: x-request-id, "
                  "request-id, retry-after\r\n",
                  http_header(x, "origin"));
}

/* len < 0: the length is not known (a stream). */
static void put_head(struct http_x *x, int status, const char *content_type, int64_t len)
{
    struct conn *c = x->c;
    struct strbuf b = {0};
    bool no_content = status == 204 || status == 304;
    x->status = status;
    x->started = true;
    x->bodyless = no_content || (x->parsed && c->parser.method == HTTP_HEAD);
    x->chunked = len < 0 && x->parsed && c->parser.minor == 1;
    bool unread =
        c->state < CONN_BUSY && (!x->parsed || c->parser.has_body || c->parser.length_status != 0);
    c->closing = unread || (x->parsed && !c->parser.keep_alive) ||
                 c->requests >= CONN_REQUESTS_MAX || c->server->draining ||
                 (len < 0 && !x->chunked);
    sb_printf(&b, "HTTP/1.1 %d %s\r\n", status, phrase_of(status));
    if (content_type != NULL && !no_content)
        sb_printf(&b, "Content-Type: %s\r\n", content_type);
    if (len >= 0 && !no_content)
        sb_printf(&b, "Content-Length: %lld\r\n", (long long)len);
    if (x->chunked && !no_content)
        sb_puts(&b, "Transfer-Encoding: chunked\r\n");
    sb_printf(&b, "x-request-id: %s\r\nX-Content-Type-Options: nosniff\r\n", x->id);
    if (!x->has_cache_control)
        sb_puts(&b, len < 0 ? "Cache-Control: no-cache\r\n" : "Cache-Control: no-store\r\n");
    if (len < 0)
        sb_puts(&b, "X-Accel-Buffering: no\r\n");
    cors_headers(x, &b);
    if (x->headers.len > 0)
        sb_add(&b, x->headers.data, x->headers.len);
    if (c->closing)
        sb_puts(&b, "Connection: close\r\n");
    sb_puts(&b, "\r\n");
    if (sb_ok(&b) && sb_ok(&x->headers))
        put(x, b.data, b.len);
    else
        conn_doom(c);
    sb_free(&b);
}

void http_reply(struct http_x *x, int status, const char *content_type, const char *body,
                size_t len)
{
    put_head(x, status, content_type, (int64_t)len);
    if (!x->bodyless && len > 0)
        put(x, body, len);
    finish(x);
}

void http_reply_error(struct http_x *x, int status, const char *type, const char *code,
                      const char *param, const char *message)
{
    struct strbuf b = {0};
    struct json_out j;
    jo_init(&j, &b);
    jo_object(&j);
    jo_key(&j, "error");
    jo_object(&j);
    jo_kstr(&j, "message", message);
    jo_kstr(&j, "type", type);
    jo_kstr(&j, "param", param);
    jo_kstr(&j, "code", code);
    jo_object_end(&j);
    jo_object_end(&j);
    if (!sb_ok(&b))
        conn_doom(x->c);
    http_reply(x, status, "application/json", sb_ok(&b) ? b.data : "", sb_ok(&b) ? b.len : 0);
    sb_free(&b);
}

void http_stream_begin(struct http_x *x, int status, const char *content_type)
{
    put_head(x, status, content_type, -1);
}

void http_stream_write(struct http_x *x, const char *data, size_t len)
{
    if (x->bodyless || len == 0) /* an empty chunk would end the stream */
        return;
    if (x->chunked) {
        char size[24];
        put(x, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", len));
    }
    put(x, data, len);
    if (x->chunked)
        put(x, "\r\n", 2);
    if (http_output_pending(x) > x->c->server->config.max_output_bytes)
        x->over = true;
}

void http_stream_end(struct http_x *x)
{
    if (x->chunked && !x->bodyless)
        put(x, "0\r\n\r\n", 5);
    finish(x);
}

bool http_stream_started(const struct http_x *x)
{
    return x->started;
}

size_t http_output_pending(const struct http_x *x)
{
    return evbuffer_get_length(output_of(x));
}

/* ---- refusals */

static void preflight(struct http_x *x)
{
    char names[512], methods[64];
    const char *requested = http_header(x, "access-control-request-headers");
    gate_preflight_headers(requested != NULL ? requested : "", names, sizeof names);
    gate_method_names(HTTP_GET | HTTP_HEAD | HTTP_POST | HTTP_DELETE, methods, sizeof methods);
    http_set_header(x, "Access-Control-Allow-Methods", methods);
    if (names[0] != '\0')
        http_set_header(x, "Access-Control-Allow-Headers", names);
    http_set_header(x, "Access-Control-Max-Age", "600");
    http_reply(x, 204, NULL, NULL, 0);
}

void exchange_refuse(struct http_x *x)
{
    struct gate_pass *pass = &x->pass;
    struct http_server *s = x->c->server;
    server_rejected(s, pass->reason);
    if (pass->preflight) {
        preflight(x);
        return;
    }
    if (pass->status == 401)
        http_set_header(x, "WWW-Authenticate", "Bearer");
    if (pass->status == 405) {
        if (pass->allow[0] == '\0')
            gate_method_names(0x3f, pass->allow, sizeof pass->allow);
        http_set_header(x, "Allow", pass->allow);
    }
    if (pass->status == 408 || pass->status == 501)
        http_set_header(x, "x-should-retry", "false");
    if (pass->retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u",
                 pass->retry_after_s < 60 ? pass->retry_after_s : 60u);
        http_set_header(x, "Retry-After", seconds);
    }
    if (x->parsed && s->config.reply_error != NULL)
        s->config.reply_error(x, s->config.user, pass->status, pass->type, pass->code,
                              pass->message);
    else
        http_reply_error(x, pass->status, pass->type, pass->code, NULL, pass->message);
}
