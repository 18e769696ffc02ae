/* http_server.c - opening, draining and closing the server, and what it tells about itself.
 * Ignores SIGPIPE for the process: a client that goes away is an error of one write, not the end of
 * the server. Owner: the I/O thread.
 */
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/conn.h"

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    conn_reap(arg);
}

/* 0 means the default of serving section 1.3. */
static void fill_defaults(struct http_config *c)
{
    c->max_connections = c->max_connections ? c->max_connections : 1024;
    c->max_connections_per_ip = c->max_connections_per_ip ? c->max_connections_per_ip : 256;
    c->max_body_bytes = c->max_body_bytes ? c->max_body_bytes : (uint64_t)32 << 20;
    c->max_bodies_bytes = c->max_bodies_bytes ? c->max_bodies_bytes : (uint64_t)256 << 20;
    c->header_timeout_ms = c->header_timeout_ms ? c->header_timeout_ms : 10000;
    c->keepalive_timeout_ms = c->keepalive_timeout_ms ? c->keepalive_timeout_ms : 75000;
    c->write_stall_ms = c->write_stall_ms ? c->write_stall_ms : 60000;
    c->max_output_bytes = c->max_output_bytes ? c->max_output_bytes : (uint64_t)1 << 20;
    c->resume_output_bytes = c->resume_output_bytes ? c->resume_output_bytes : (uint64_t)256 << 10;
}

int http_server_open(struct event_base *base, const struct http_config *c, struct http_server **out,
                     char *err, size_t errlen)
{
    struct http_server *s = mem_calloc(1, sizeof *s);
    if (s == NULL) {
        snprintf(err, errlen, "cannot start the HTTP server: out of memory");
        return -1;
    }
    s->base = base;
    s->config = *c;
    s->reserve_fd = -1;
    fill_defaults(&s->config);
    if (getrandom(&s->id_seed, sizeof s->id_seed, GRND_NONBLOCK) != (ssize_t)sizeof s->id_seed)
        s->id_seed = clock_ns(); /* request ids need to differ, not to be secret */
    s->reaper = event_new(base, -1, 0, on_reap, s);
    if (s->reaper == NULL) {
        snprintf(err, errlen, "cannot start the HTTP server: out of memory");
        http_server_close(s);
        return -1;
    }
    if (gate_open(&s->gate, &s->config, err, errlen) != 0 || listen_open(s, err, errlen) != 0) {
        http_server_close(s);
        return -1;
    }
    signal(SIGPIPE, SIG_IGN);
    *out = s;
    return 0;
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
    listen_close(s);
    for (struct conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->state == CONN_IDLE || (c->state == CONN_HEAD && http1_is_idle(&c->parser)))
            conn_close(c);
    }
}

uint32_t http_server_active(const struct http_server *s)
{
    uint32_t n = s->n_active;
    for (const struct conn *c = s->conns; c != NULL; c = c->next)
        n += c->state == CONN_FLUSH;
    return n;
}

void http_server_close(struct http_server *s)
{
    if (s == NULL)
        return;
    listen_close(s);
    while (s->conns != NULL)
        conn_close(s->conns);
    conn_reap(s);
    gate_close(&s->gate);
    if (s->reaper != NULL)
        event_free(s->reaper);
    mem_free(s);
}

void http_server_connections(const struct http_server *s, uint32_t *idle, uint32_t *active)
{
    uint32_t n = 0;
    for (const struct conn *c = s->conns; c != NULL; c = c->next)
        n += c->state == CONN_IDLE || (c->state == CONN_HEAD && http1_is_idle(&c->parser));
    *idle = n;
    *active = s->n_conns - n;
}

int http_server_reload_keys(struct http_server *s, char *err, size_t errlen)
{
    struct keys fresh;
    if (s->config.api_key_file == NULL)
        return 0;
    if (keys_read(s->config.api_key_file, &fresh, err, errlen) != 0)
        return -1; /* the old keys stay */
    keys_free(&s->gate.keys);
    s->gate.keys = fresh;
    return 0;
}
