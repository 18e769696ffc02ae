/* http.h - the boundary between the HTTP layer (connections, parsing, limits, gate) and the API
 * handlers (routes, JSON, scheduling).
 *
 * The HTTP layer parses a whole request, passes the gate (method, route, Host, Origin, key and
 * scope, length, media type) and calls the route's handler on the I/O thread with a struct http_x.
 * The handler answers at once or later, from the I/O thread only. One exchange per connection at a
 * time. The exchange lives until http_reply/http_stream_end was called, or until on_gone returned,
 * whichever comes first; after that the pointer is dead. on_gone is never called from inside
 * http_reply or http_stream_*, only from the event loop. A client that half-closes while a reply
 * runs is gone.
 */
#ifndef KT_SERVE_HTTP_H
#define KT_SERVE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct http_server;
struct http_x;

enum http_method {
    HTTP_GET = 1,
    HTTP_HEAD = 2,
    HTTP_POST = 4,
    HTTP_PUT = 8,
    HTTP_DELETE = 16,
    HTTP_OPTIONS = 32
};
/* admin is 0 on purpose: a route that forgets its scope is closed, not open. An admin key covers
 * user and metrics. */
enum http_scope { HTTP_ADMIN, HTTP_USER, HTTP_METRICS, HTTP_PUBLIC };

struct http_route {
    const char *path; /* "/v1/models", or a prefix ending in "/" + "*" whose rest is the handler's
                         tail: "/v1/models/" "*" */
    unsigned methods;
    enum http_scope scope;
    bool any_type; /* POST bodies of any media type (Ollama rule); else application/json */
    void (*handler)(struct http_x *x, void *user);
};

/* A number that is 0 takes the default in its comment. Strings and tables are borrowed for the
 * server's life. */
struct http_config {
    const char *host;         /* name, address, or "unix:PATH"; NULL: 127.0.0.1 */
    uint16_t port;            /* 0: any; http_server_port tells */
    const char *api_key_file; /* NULL: no keys */
    bool insecure;
    const char *const *allow_hosts;
    uint32_t n_allow_hosts;
    const char *const *cors_origins;
    uint32_t n_cors_origins;
    uint32_t max_connections;  /* 1024 */
    uint64_t max_body_bytes;   /* 32 MiB */
    uint64_t max_bodies_bytes; /* 256 MiB over all requests in memory */
    uint32_t header_timeout_ms, keepalive_timeout_ms, write_stall_ms; /* 10000, 75000, 60000 */
    uint64_t max_output_bytes, resume_output_bytes;                   /* 1 MiB, 256 KiB */
    const struct http_route *routes; /* NULL handler ends the table */
    void *user;                      /* second argument of handlers */
    /* called once per finished request for the log and metrics: status 499 = client gone */
    void (*on_done)(void *user, const char *route, enum http_method m, int status,
                    uint64_t duration_ns);
    /* malformed, header_limit, header_timeout, body_limit, body_timeout, body_memory, media_type,
     * auth, scope, login_rate, host, origin, connections, flood, write_stall */
    void (*on_rejected)(void *user, const char *reason);
    uint32_t max_connections_per_ip; /* 256; loopback and UNIX sockets are exempt */
    /* Optional: writes the error reply of the gate (401, 404, 413, ...) in the shape of the path's
     * API, by http_reply. NULL: OpenAI's shape. The headers that belong to the status are set
     * already. The body was not read. */
    void (*reply_error)(struct http_x *x, void *user, int status, const char *type,
                        const char *code, const char *message);
};

/* ---- request side: valid while the exchange lives ---- */
enum http_method http_method(const struct http_x *x);
const char *http_path(const struct http_x *x);  /* decoded */
const char *http_tail(const struct http_x *x);  /* rest of the path after a prefix route, "" else */
const char *http_query(const struct http_x *x); /* raw text after '?', "" else */
const char *http_header(const struct http_x *x,
                        const char *name);                  /* case-insensitive; NULL if absent */
const char *http_body(const struct http_x *x, size_t *len); /* NUL-terminated after len */
void http_release_body(
    struct http_x *x); /* optional: gives the body's memory back before the reply */
const char *http_request_id(const struct http_x *x);
const char *http_key_name(const struct http_x *x); /* "" without keys */
enum http_scope http_granted(const struct http_x *x);

/* ---- reply side ---- */
void http_set_header(struct http_x *x, const char *name,
                     const char *value); /* before reply or stream_begin */
void http_reply(struct http_x *x, int status, const char *content_type, const char *body,
                size_t len);
/* The error shape of the OpenAI APIs; type, param and code as in serving section 3 (param and code
 * may be NULL: null). */
void http_reply_error(struct http_x *x, int status, const char *type, const char *code,
                      const char *param, const char *message);
void http_stream_begin(struct http_x *x, int status, const char *content_type);
void http_stream_write(struct http_x *x, const char *data, size_t len); /* one call = one flush */
void http_stream_end(struct http_x *x);
bool http_stream_started(const struct http_x *x);
size_t http_output_pending(const struct http_x *x); /* bytes that the client has not taken */

/* on_gone: the client closed or the connection was aborted while the exchange lived; free what
 * hangs on it, do not answer. on_drained: output fell below resume_output_bytes after having been
 * above max_output_bytes. */
void http_set_user(struct http_x *x, void *user, void (*on_gone)(struct http_x *x, void *user),
                   void (*on_drained)(struct http_x *x, void *user));
void *http_get_user(const struct http_x *x);

/* ---- server ---- */
/* 0, or -1 with a message in err[errlen] (what, where, remedy). */
int http_server_open(struct event_base *base, const struct http_config *c, struct http_server **out,
                     char *err, size_t errlen);
uint16_t http_server_port(const struct http_server *s);
/* Stop accepting; idle connections close; running exchanges go on. Replies carry Connection: close
 * from now on. */
void http_server_drain(struct http_server *s);
/* Exchanges alive, and replies that are complete but not yet handed to the kernel: at 0 a drained
 * server can be closed without cutting a reply. */
uint32_t http_server_active(const struct http_server *s);
void http_server_close(struct http_server *s); /* on_gone for what is left */
/* Counters for metrics: connections by state. */
void http_server_connections(const struct http_server *s, uint32_t *idle, uint32_t *active);
int http_server_reload_keys(struct http_server *s, char *err, size_t errlen);

#endif
