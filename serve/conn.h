/* conn.h - private to the HTTP layer: the server, its connections and their exchanges.
 * One connection runs one exchange at a time:
 *   IDLE -first byte-> HEAD -gate passed-> BODY -complete-> BUSY -reply complete-> FLUSH -output
 * taken-> IDLE, or LINGER when it closes. A refusal goes from HEAD or BODY straight to FLUSH with
 * `closing` set when unread body bytes may follow. A connection is never freed inside a call chain
 * that may still look at it: conn_close moves it to the graveyard, the reaper event frees it. Owner
 * of everything here: the I/O thread.
 */
#ifndef KT_SERVE_CONN_H
#define KT_SERVE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/strbuf.h"
#include "serve/gate.h"
#include "serve/http.h"
#include "serve/http1.h"

struct bufferevent;
struct event;
struct evconnlistener;

#define CONN_FLOOD_BYTES 65536    /* received while a reply runs */
#define CONN_DISCARD_BYTES 262144 /* received after a reply that closes */
#define CONN_DISCARD_NS 2000000000u
#define CONN_REQUESTS_MAX 10000
#define CONN_BODY_RATE 65536 /* bytes per second that a body must reach, on average */

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_BUSY, CONN_FLUSH, CONN_LINGER };

struct conn {
    struct conn *next, *prev; /* in server->conns, or next in server->graveyard */
    struct http_server *server;
    struct bufferevent *bev;
    struct event *timer;
    struct http_x *x; /* the exchange; NULL between requests */
    struct sockaddr_storage peer;
    bool local;   /* UNIX socket */
    bool counted; /* counts for the per-address limit */
    enum conn_state state;
    bool closing; /* the reply said Connection: close */
    bool eof, dead, doomed;
    uint32_t requests;
    size_t discarded;
    uint64_t start_ns;    /* first byte of the current request */
    uint64_t deadline_ns; /* of IDLE, HEAD, LINGER; start of the body deadline in BODY */
    uint64_t progress_ns; /* last time the peer took bytes, or output began to wait */
    struct http1 parser;
    char *body;
    size_t body_len, body_cap;
};

struct http_x {
    struct conn *c;
    struct gate_pass pass;
    char id[129];
    bool parsed;     /* the request's head is valid */
    bool dispatched; /* handed to its handler */
    bool started, chunked, bodyless;
    bool over; /* output went above max_output_bytes */
    bool has_cache_control;
    int status;
    uint64_t start_ns;
    struct strbuf headers; /* set by the handler */
    void *user;
    void (*on_gone)(struct http_x *x, void *user);
    void (*on_drained)(struct http_x *x, void *user);
};

struct http_server {
    struct event_base *base;
    struct http_config config;
    struct gate gate;
    struct evconnlistener *listener;
    struct event *reaper, *retry; /* retry: re-enables the listener after EMFILE */
    int reserve_fd;
    char *unix_path;
    uint16_t port;
    bool draining, paused, starved;
    struct conn *conns, *graveyard;
    uint32_t n_conns, n_active, n_doomed;
    uint64_t bodies_bytes;
    uint64_t id_seed, id_count;
};

/* conn.c */
void conn_accept(struct http_server *s, int fd, const struct sockaddr *peer, socklen_t peer_len);
void conn_close(struct conn *c);
void conn_doom(struct conn *c); /* close from the event loop: for callers inside handlers */
void conn_reap(struct http_server *s);
void conn_arm(struct conn *c);
void conn_release_body(struct conn *c);

/* http_reply.c */
struct http_x *exchange_new(struct conn *c, bool parsed);
void exchange_free(struct http_x *x);
void exchange_refuse(struct http_x *x); /* answers as x->pass says */

/* listen.c */
int listen_open(struct http_server *s, char *err, size_t errlen);
void listen_close(struct http_server *s);
void listen_update(struct http_server *s); /* pause or resume accepting after a change of n_conns */

void server_rejected(struct http_server *s, const char *reason);

#endif
