/* conn.c - one connection: reading, deadlines, the 64 KiB rule, disconnects and the way to the
 * close. Reading is never switched off: a FIN is seen at once, in every state. What may not be read
 * yet (a pipelined request while a reply runs) waits in the input buffer, at most CONN_FLOOD_BYTES
 * of it; whoever sends more is cut off. Every deadline is absolute. One timer per connection, armed
 * for the state's deadline; a stalled reader is found by progress_ns. Owner: the I/O thread.
 */
#include "serve/conn.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

static void process(struct conn *c);

static uint64_t ns(uint32_t ms)
{
    return (uint64_t)ms * 1000000u;
}

void server_rejected(struct http_server *s, const char *reason)
{
    if (s->config.on_rejected != NULL && reason != NULL)
        s->config.on_rejected(s->config.user, reason);
}

/* ---- deadlines */

/* 0: none. */
static uint64_t deadline_of(const struct conn *c)
{
    const struct http_config *k = &c->server->config;
    switch (c->state) {
    case CONN_BODY: {
        uint64_t bytes = c->parser.chunked ? c->parser.received : c->parser.content_length;
        return c->deadline_ns + ns(k->header_timeout_ms) + bytes * 1000 / CONN_BODY_RATE * 1000000u;
    }
    case CONN_BUSY:
    case CONN_FLUSH:
        return evbuffer_get_length(bufferevent_get_output(c->bev)) > 0
                   ? c->progress_ns + ns(k->write_stall_ms)
                   : 0;
    default:
        return c->deadline_ns;
    }
}

void conn_arm(struct conn *c)
{
    if (c->dead)
        return;
    uint64_t at = deadline_of(c), now = clock_ns();
    if (at == 0) {
        event_del(c->timer);
        return;
    }
    uint64_t wait = (at > now ? at - now : 0) / 1000 + 1;
    struct timeval tv = {.tv_sec = (time_t)(wait / 1000000),
                         .tv_usec = (suseconds_t)(wait % 1000000)};
    event_add(c->timer, &tv);
}

static void enter(struct conn *c, enum conn_state state, uint64_t deadline_ns)
{
    c->state = state;
    c->deadline_ns = deadline_ns;
    conn_arm(c);
}

static void refuse(struct conn *c, int status, const char *code, const char *reason,
                   const char *message)
{
    if (c->x == NULL)
        c->x = exchange_new(c, false);
    if (c->x == NULL) {
        conn_close(c);
        return;
    }
    struct gate_pass *pass = &c->x->pass;
    pass->status = status;
    pass->type = status == 503 ? "unavailable_error" : "invalid_request_error";
    pass->code = code;
    pass->reason = reason;
    pass->message = message;
    exchange_refuse(c->x);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct conn *c = arg;
    if (c->dead)
        return;
    uint64_t at = deadline_of(c);
    if (at == 0 || clock_ns() < at) {
        conn_arm(c); /* there was progress since it was armed */
        return;
    }
    switch (c->state) {
    case CONN_HEAD:
        if (!http1_is_idle(&c->parser)) {
            refuse(c, 408, NULL, "header_timeout", "The request's header did not arrive in time");
            return;
        }
        break;
    case CONN_BODY:
        refuse(c, 408, NULL, "body_timeout", "The request's body did not arrive in time");
        return;
    case CONN_BUSY:
    case CONN_FLUSH:
        server_rejected(c->server, "write_stall");
        break;
    default:
        break;
    }
    conn_close(c);
}

/* ---- end of a connection */

void conn_release_body(struct conn *c)
{
    c->server->bodies_bytes -= c->body_cap;
    mem_free(c->body);
    c->body = NULL;
    c->body_len = c->body_cap = 0;
}

void conn_close(struct conn *c)
{
    if (c->dead)
        return;
    struct http_server *s = c->server;
    c->dead = true;
    s->n_doomed -= c->doomed;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    s->n_conns--;
    struct http_x *x = c->x;
    c->x = NULL;
    if (x != NULL) {
        if (x->dispatched) {
            s->n_active--;
            if (x->on_gone != NULL)
                x->on_gone(x, x->user);
            if (s->config.on_done != NULL)
                s->config.on_done(s->config.user, x->pass.route->path, c->parser.method, 499,
                                  clock_ns() - x->start_ns);
        }
        exchange_free(x);
    }
    conn_release_body(c);
    bufferevent_free(c->bev);
    event_free(c->timer);
    http1_free(&c->parser);
    c->next = s->graveyard;
    s->graveyard = c;
    event_active(s->reaper, EV_TIMEOUT, 0);
    listen_update(s);
}

void conn_doom(struct conn *c)
{
    if (c->dead || c->doomed)
        return;
    c->doomed = true;
    c->server->n_doomed++;
    event_active(c->server->reaper, EV_TIMEOUT, 0);
}

void conn_reap(struct http_server *s)
{
    for (struct conn *c = s->conns, *next; c != NULL && s->n_doomed > 0; c = next) {
        next = c->next;
        if (c->doomed)
            conn_close(c);
    }
    while (s->graveyard != NULL) {
        struct conn *c = s->graveyard;
        s->graveyard = c->next;
        mem_free(c);
    }
}

/* ---- request side */

/* Room for n more body bytes and a NUL. Only memory that exists is counted, so that announcing a
 * body reserves nothing. */
static int body_reserve(struct conn *c, size_t n)
{
    size_t need = c->body_len + n + 1;
    if (need <= c->body_cap)
        return 0;
    size_t cap = c->body_cap < 8192 ? 8192 : c->body_cap * 2;
    if (!c->parser.chunked && cap > c->parser.content_length + 1)
        cap = (size_t)c->parser.content_length + 1;
    if (cap < need)
        cap = need;
    struct http_server *s = c->server;
    if (s->bodies_bytes + (cap - c->body_cap) > s->config.max_bodies_bytes)
        return -1;
    char *grown = mem_realloc(c->body, cap);
    if (grown == NULL)
        return -1;
    s->bodies_bytes += cap - c->body_cap;
    c->body = grown;
    c->body_cap = cap;
    return 0;
}

static void take_body(struct conn *c)
{
    if ((c->parser.method & (HTTP_POST | HTTP_PUT)) == 0)
        return; /* a body without meaning: read, dropped */
    if (body_reserve(c, c->parser.body_len) != 0) {
        http_set_header(c->x, "Retry-After", "5");
        http_set_header(c->x, "x-should-retry", "true");
        refuse(c, 503, "overloaded", "body_memory",
               "Too many request bodies are being received: try again later");
        return;
    }
    memcpy(c->body + c->body_len, c->parser.body, c->parser.body_len);
    c->body_len += c->parser.body_len;
    c->body[c->body_len] = '\0';
}

static void take_head(struct conn *c)
{
    struct http_server *s = c->server;
    c->x = exchange_new(c, true);
    if (c->x == NULL) {
        conn_close(c);
        return;
    }
    c->requests++;
    gate_check(&s->gate, &c->parser, c->local ? NULL : (struct sockaddr *)&c->peer, clock_ns(),
               &c->x->pass);
    if (c->x->pass.status != 0) {
        exchange_refuse(c->x);
        return;
    }
    enter(c, CONN_BODY, clock_ns());
    if (c->parser.expect_continue && c->parser.has_body) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        if (bufferevent_write(c->bev, go_on, sizeof go_on - 1) != 0)
            conn_close(c);
    }
}

static void dispatch(struct conn *c)
{
    struct http_x *x = c->x;
    c->state = CONN_BUSY;
    conn_arm(c);
    x->dispatched = true;
    c->server->n_active++;
    x->pass.route->handler(x, c->server->config.user);
}

static void take_error(struct conn *c)
{
    int status = c->parser.status;
    const char *reason = status == 413                    ? "body_limit"
                         : status == 431 || status == 414 ? "header_limit"
                         : status == 503                  ? "body_memory"
                                                          : "malformed";
    refuse(c, status, status == 413 ? "request_too_large" : NULL, reason, c->parser.reason);
}

static void discard(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    size_t n = evbuffer_get_length(in);
    c->discarded += n;
    evbuffer_drain(in, n);
    if (c->discarded > CONN_DISCARD_BYTES)
        conn_close(c);
}

/* One event of the parser. false: no more bytes for it now. */
static bool parse_some(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct evbuffer_iovec piece = {.iov_base = NULL, .iov_len = 0};
    if (evbuffer_peek(in, -1, NULL, &piece, 1) < 1)
        piece.iov_len = 0;
    if (c->state == CONN_IDLE) {
        if (piece.iov_len == 0)
            return false;
        c->start_ns = clock_ns();
        enter(c, CONN_HEAD, c->start_ns + ns(c->server->config.header_timeout_ms));
    }
    size_t used;
    enum http1_event e = http1_feed(&c->parser, piece.iov_base, piece.iov_len, &used);
    switch (e) {
    case HTTP1_HEAD:
        take_head(c);
        break;
    case HTTP1_BODY:
        take_body(c);
        break;
    case HTTP1_DONE:
        dispatch(c);
        break;
    case HTTP1_ERROR:
        take_error(c);
        break;
    case HTTP1_MORE:
        break;
    }
    if (!c->dead && used > 0)
        evbuffer_drain(in, used);
    return !c->dead && (e != HTTP1_MORE || used > 0);
}

static void process(struct conn *c)
{
    while (!c->dead && c->state <= CONN_BODY && parse_some(c))
        ;
    if (c->dead)
        return;
    if (c->closing) {
        discard(c);
    } else if (c->state >= CONN_BUSY &&
               evbuffer_get_length(bufferevent_get_input(c->bev)) > CONN_FLOOD_BYTES) {
        server_rejected(c->server, "flood");
        conn_close(c);
    }
}

/* ---- events */

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    process(arg);
}

/* The whole reply left: next request, or the orderly close (the peer must see the reply, not a
 * reset caused by bytes nobody read). */
static void after_flush(struct conn *c)
{
    if (c->eof || (c->server->draining && !c->closing &&
                   evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)) {
        conn_close(c);
        return;
    }
    if (c->closing) {
        shutdown(bufferevent_getfd(c->bev), SHUT_WR);
        enter(c, CONN_LINGER, clock_ns() + CONN_DISCARD_NS);
        return;
    }
    http1_reset(&c->parser);
    enter(c, CONN_IDLE, clock_ns() + ns(c->server->config.keepalive_timeout_ms));
    process(c);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    if (c->dead)
        return;
    size_t pending = evbuffer_get_length(bufferevent_get_output(bev));
    if (c->state == CONN_FLUSH && pending == 0) {
        after_flush(c);
        return;
    }
    struct http_x *x = c->x;
    if (c->state == CONN_BUSY && x->over && pending <= c->server->config.resume_output_bytes) {
        x->over = false;
        if (x->on_drained != NULL)
            x->on_drained(x, x->user);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    struct conn *c = arg;
    if (c->dead || (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0)
        return;
    c->eof = true;
    if ((what & BEV_EVENT_ERROR) != 0 || c->state != CONN_FLUSH)
        conn_close(c); /* a complete reply may still go out to a client that half-closed; everything
                          else is over */
}

static void on_output(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg)
{
    (void)out;
    struct conn *c = arg;
    if (info->n_deleted == 0 && info->orig_size > 0)
        return;
    c->progress_ns = clock_ns();
    if (info->orig_size == 0 && info->n_added > 0 && c->state >= CONN_BUSY)
        conn_arm(c);
}

static bool is_loopback(const struct sockaddr_storage *peer)
{
    if (peer->ss_family == AF_INET)
        return ((const uint8_t *)&((const struct sockaddr_in *)peer)->sin_addr)[0] == 127;
    if (peer->ss_family != AF_INET6)
        return true;
    const struct in6_addr *a = &((const struct sockaddr_in6 *)peer)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, 16) == 0;
}

static bool too_many_from(const struct http_server *s, const struct conn *c)
{
    uint32_t n = 0;
    for (const struct conn *i = s->conns; i != NULL && c->counted; i = i->next)
        n += i->counted && same_address(&i->peer, &c->peer);
    return n >= s->config.max_connections_per_ip;
}

void conn_accept(struct http_server *s, int fd, const struct sockaddr *peer, socklen_t peer_len)
{
    struct conn *c = mem_calloc(1, sizeof *c);
    if (c == NULL) {
        evutil_closesocket(fd);
        return;
    }
    c->server = s;
    if (peer != NULL && peer_len <= sizeof c->peer)
        memcpy(&c->peer, peer, peer_len);
    c->local = c->peer.ss_family != AF_INET && c->peer.ss_family != AF_INET6;
    c->counted = !c->local && !is_loopback(&c->peer);
    if (too_many_from(s, c)) {
        server_rejected(s, "connections");
        evutil_closesocket(fd);
        mem_free(c);
        return;
    }
    if (!c->local)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    c->timer = event_new(s->base, -1, 0, on_timer, c);
    c->bev = c->timer != NULL ? bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (c->bev == NULL) {
        if (c->timer != NULL)
            event_free(c->timer);
        evutil_closesocket(fd);
        mem_free(c);
        return;
    }
    struct http1_limits limits = http1_limits_default;
    limits.body_bytes = s->config.max_body_bytes;
    http1_init(&c->parser, &limits);
    c->next = s->conns;
    if (s->conns != NULL)
        s->conns->prev = c;
    s->conns = c;
    s->n_conns++;
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    /* the write callback comes whenever the output is at or below this mark: there a paused
     * producer goes on */
    bufferevent_setwatermark(c->bev, EV_WRITE, (size_t)s->config.resume_output_bytes, 0);
    evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    c->start_ns = clock_ns();
    enter(c, CONN_HEAD,
          c->start_ns +
              ns(s->config.header_timeout_ms)); /* from accept, whether or not a byte comes */
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    listen_update(s);
}
