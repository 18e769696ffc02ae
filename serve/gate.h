/* gate.h - the one gate in front of all handlers: method, Host, Origin, route, key and scope,
 * length, media type, in this order. Default-deny: a route whose scope was not set is admin, an
 * unknown route needs a key when keys exist. Says what to answer, sends nothing. Owner: the I/O
 * thread.
 */
#ifndef KT_SERVE_GATE_H
#define KT_SERVE_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "serve/http.h"
#include "serve/http1.h"
#include "serve/keys.h"

struct gate {
    const struct http_config *config; /* outlives the gate */
    struct keys keys;                 /* n == 0: no keys */
    struct logins logins;
    char host_name[256];
    bool check_host; /* bound to loopback */
};

/* What the gate found. status 0: call route->handler. */
struct gate_pass {
    const struct http_route *route; /* NULL: none */
    const char *tail;               /* inside the request's path */
    char key_name[KEY_NAME_MAX + 1];
    enum http_scope granted;
    bool cors; /* Origin is on the list: the reply names it */
    /* the refusal */
    int status;
    bool preflight; /* status 204 with the preflight headers */
    const char *type, *code, *message;
    const char *reason; /* for the metrics; NULL: an ordinary answer */
    char allow[64];     /* 405 */
    unsigned retry_after_s;
};

/* Reads the key file when the configuration names one. 0, or -1 with a message. */
int gate_open(struct gate *g, const struct http_config *c, char *err, size_t errlen);
void gate_close(struct gate *g);
/* 0, or -1: an address that others can reach needs keys or the insecure option. */
int gate_allows_bind(const struct gate *g, const char *address, bool loopback, char *err,
                     size_t errlen);
/* peer: NULL for a UNIX socket (Host is not checked then). */
void gate_check(struct gate *g, const struct http1 *r, const struct sockaddr *peer, uint64_t now_ns,
                struct gate_pass *out);
/* The requested preflight headers that may be granted, comma-separated, into out. */
void gate_preflight_headers(const char *requested, char *out, size_t out_len);
void gate_method_names(unsigned methods, char *out, size_t out_len);

#endif
