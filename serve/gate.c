/* gate.c - see gate.h. Order matters: what a browser can be tricked into sending is refused before
 * keys are looked at, and nothing about routes, lengths or bodies is told to a client without a key
 * (when keys exist). Without keys: user and metrics routes are open, admin views (GET, HEAD) are
 * open, and mutating admin routes stay closed for everybody.
 */
#include "serve/gate.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

int gate_open(struct gate *g, const struct http_config *c, char *err, size_t errlen)
{
    memset(g, 0, sizeof *g);
    g->config = c;
    if (gethostname(g->host_name, sizeof g->host_name - 1) != 0)
        g->host_name[0] = '\0';
    return c->api_key_file != NULL ? keys_read(c->api_key_file, &g->keys, err, errlen) : 0;
}

void gate_close(struct gate *g)
{
    keys_free(&g->keys);
}

int gate_allows_bind(const struct gate *g, const char *address, bool loopback, char *err,
                     size_t errlen)
{
    if (loopback || g->keys.n > 0)
        return 0;
    if (g->config->insecure) {
        log_warn("listening on %s without API keys: everybody who reaches this address can use the "
                 "model (--insecure)",
                 address);
        return 0;
    }
    snprintf(err, errlen,
             "%s can be reached from other machines and no API keys are set: give --api-key-file, "
             "or listen on 127.0.0.1, or give --insecure",
             address);
    return -1;
}

static void refuse(struct gate_pass *out, int status, const char *type, const char *code,
                   const char *reason, const char *message)
{
    out->status = status;
    out->type = type;
    out->code = code;
    out->reason = reason;
    out->message = message;
}

/* ---- Host */

static bool is_local_address(int family, const void *address)
{
    if (family == AF_INET && ((const uint8_t *)address)[0] == 127)
        return true;
    if (family == AF_INET6 && memcmp(address, &in6addr_loopback, 16) == 0)
        return true;
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        return false;
    bool found = false;
    for (struct ifaddrs *i = list; i != NULL && !found; i = i->ifa_next) {
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != family)
            continue;
        if (family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, i->ifa_addr, sizeof in);
            found = memcmp(&in.sin_addr, address, 4) == 0;
        } else {
            struct sockaddr_in6 in6;
            memcpy(&in6, i->ifa_addr, sizeof in6);
            found = memcmp(&in6.sin6_addr, address, 16) == 0;
        }
    }
    freeifaddrs(list);
    return found;
}

/* DNS rebinding: a page of a foreign name that now resolves to this machine sends that foreign name
 * as Host. */
static bool host_allowed(const struct gate *g, const char *value)
{
    char host[256];
    size_t n;
    if (!http1_split_host(value, &n))
        return false;
    memcpy(host, value, n);
    host[n] = '\0';
    if (n > 1 && host[n - 1] == '.')
        host[n - 1] = '\0'; /* a fully qualified name */
    uint8_t address[16];
    if (host[0] == '[') {
        char inner[256];
        memcpy(inner, host + 1, n - 2);
        inner[n - 2] = '\0';
        return inet_pton(AF_INET6, inner, address) == 1 && is_local_address(AF_INET6, address);
    }
    if (inet_pton(AF_INET, host, address) == 1)
        return is_local_address(AF_INET, address);
    size_t len = strlen(host);
    if (http1_text_equal(host, "localhost") ||
        (len > 10 && http1_text_equal(host + len - 10, ".localhost")))
        return true;
    if (g->host_name[0] != '\0' && http1_text_equal(host, g->host_name))
        return true;
    for (uint32_t i = 0; i < g->config->n_allow_hosts; i++)
        if (http1_text_equal(host, g->config->allow_hosts[i]) ||
            http1_text_equal(value, g->config->allow_hosts[i]))
            return true;
    return false;
}

/* ---- Origin */

static bool origin_listed(const struct gate *g, const char *origin)
{
    for (uint32_t i = 0; i < g->config->n_cors_origins; i++)
        if (strcmp(origin, g->config->cors_origins[i]) == 0)
            return true;
    return false;
}

static bool origin_is_ours(const struct http1 *r, const char *origin)
{
    size_t scheme = strncmp(origin, "http://", 7) == 0    ? 7
                    : strncmp(origin, "https://", 8) == 0 ? 8
                                                          : 0;
    return scheme > 0 && http1_text_equal(origin + scheme, http1_header(r, "host"));
}

static bool origin_allowed(const struct http1 *r, const struct gate_pass *out)
{
    bool changes = (r->method & (HTTP_POST | HTTP_PUT | HTTP_DELETE)) != 0;
    const char *origin = http1_header(r, "origin"), *site = http1_header(r, "sec-fetch-site");
    if (!changes || out->cors)
        return true;
    if (origin != NULL && !origin_is_ours(r, origin))
        return false;
    return site == NULL || !http1_text_equal(site, "cross-site");
}

void gate_preflight_headers(const char *requested, char *out, size_t out_len)
{
    static const char *const exact[] = {"authorization", "content-type", "x-api-key"};
    static const char *const prefix[] = {"anthropic-", "x-stainless-"};
    size_t used = 0;
    out[0] = '\0';
    while (*requested != '\0') {
        requested += strspn(requested, " \t,");
        size_t n = strcspn(requested, " \t,");
        char name[64];
        if (n > 0 && n < sizeof name) {
            for (size_t i = 0; i < n; i++)
                name[i] = (char)(requested[i] >= 'A' && requested[i] <= 'Z' ? requested[i] + 32
                                                                            : requested[i]);
            name[n] = '\0';
            bool ok = false;
            for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++)
                ok |= strcmp(name, exact[i]) == 0;
            for (size_t i = 0; i < sizeof prefix / sizeof prefix[0]; i++)
                ok |= strncmp(name, prefix[i], strlen(prefix[i])) == 0;
            if (ok && used + n + 3 < out_len)
                used += (size_t)snprintf(out + used, out_len - used, "%s%s", used > 0 ? ", " : "",
                                         name);
        }
        requested += n;
    }
}

/* ---- routes */

static bool route_matches(const struct http_route *route, const struct http1 *r, const char **tail)
{
    const char *path = http1_path(r);
    size_t n = strlen(route->path);
    if (n < 2 || strcmp(route->path + n - 2, "/*") != 0) {
        *tail = "";
        return strcmp(route->path, path) == 0 && r->slash_at == SIZE_MAX;
    }
    n--; /* an encoded slash is a byte of the tail, never a separator of the fixed part */
    if (strncmp(route->path, path, n) != 0 || path[n] == '\0' || r->slash_at < n)
        return false;
    *tail = path + n;
    return true;
}

static const struct http_route *find_route(const struct gate *g, const struct http1 *r,
                                           const char **tail)
{
    const struct http_route *prefix = NULL;
    const char *t;
    for (const struct http_route *i = g->config->routes; i != NULL && i->handler != NULL; i++) {
        if (!route_matches(i, r, &t))
            continue;
        if (*t == '\0') { /* an exact route wins over any prefix */
            *tail = t;
            return i;
        }
        if (prefix == NULL || strlen(i->path) > strlen(prefix->path)) {
            prefix = i;
            *tail = t;
        }
    }
    return prefix;
}

/* The entry of the same path that takes this method (a path may have one entry per method). */
static const struct http_route *same_path(const struct gate *g, const struct http_route *first,
                                          unsigned method, unsigned *methods)
{
    const struct http_route *found = NULL;
    *methods = 0;
    for (const struct http_route *i = g->config->routes; i != NULL && i->handler != NULL; i++) {
        if (strcmp(i->path, first->path) != 0)
            continue;
        *methods |= i->methods;
        if (found == NULL && (i->methods & method) != 0)
            found = i;
    }
    return found;
}

void gate_method_names(unsigned methods, char *out, size_t out_len)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"};
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < 6; i++)
        if ((methods >> i & 1) != 0 && used + 10 < out_len)
            used += (size_t)snprintf(out + used, out_len - used, "%s%s", used > 0 ? ", " : "",
                                     names[i]);
}

/* ---- keys */

static bool scope_covers(enum http_scope granted, enum http_scope needed)
{
    return needed == HTTP_PUBLIC || granted == needed || granted == HTTP_ADMIN;
}

/* false: refused, *out says how. any_scope: a valid key is enough (unknown routes). */
static bool check_key(struct gate *g, const struct http1 *r, const struct sockaddr *peer,
                      uint64_t now_ns, enum http_scope needed, bool any_scope,
                      struct gate_pass *out)
{
    const char *authorization = http1_header(r, "authorization"),
               *key = http1_header(r, "x-api-key");
    if (authorization != NULL && strlen(authorization) > 7 &&
        strncasecmp(authorization, "Bearer ", 7) == 0)
        key = authorization + 7 + strspn(authorization + 7, " ");
    if (key == NULL || *key == '\0') {
        refuse(out, 401, "authentication_error", "invalid_api_key", "auth",
               "An API key is required: send it as Authorization: Bearer KEY or x-api-key: KEY");
        return false;
    }
    out->retry_after_s = logins_wait(&g->logins, peer, now_ns);
    if (out->retry_after_s > 0) {
        refuse(out, 429, "rate_limit_error", "too_many_failed_logins", "login_rate",
               "Too many requests with a wrong API key from this address: wait");
        return false;
    }
    const struct key *found = keys_find(&g->keys, key);
    if (found == NULL) {
        logins_failed(&g->logins, peer, now_ns);
        refuse(out, 401, "authentication_error", "invalid_api_key", "auth",
               "The API key is not valid");
        return false;
    }
    memcpy(out->key_name, found->name, sizeof out->key_name);
    out->granted = found->scope;
    if (any_scope || scope_covers(found->scope, needed))
        return true;
    refuse(out, 403, "permission_error", NULL, "scope",
           "The API key's scope does not cover this route");
    return false;
}

static bool check_scope(struct gate *g, const struct http1 *r, const struct sockaddr *peer,
                        uint64_t now_ns, struct gate_pass *out)
{
    enum http_scope needed = out->route != NULL ? out->route->scope : HTTP_ADMIN;
    out->granted = needed;
    if (needed == HTTP_PUBLIC)
        return true;
    if (g->keys.n > 0)
        return check_key(g, r, peer, now_ns, needed, out->route == NULL, out);
    if (out->route == NULL || needed != HTTP_ADMIN || (r->method & (HTTP_GET | HTTP_HEAD)) != 0)
        return true;
    refuse(
        out, 401, "authentication_error", "invalid_api_key", "auth",
        "This route changes the server's state and needs an admin key: start with --api-key-file");
    return false;
}

/* ---- what the body may be */

static bool is_json(const char *type)
{
    static const char want[] = "application/json";
    size_t n = type != NULL ? strcspn(type, "; \t") : 0;
    return n == sizeof want - 1 && strncasecmp(type, want, n) == 0;
}

static void check_body(const struct http1 *r, struct gate_pass *out)
{
    const char *coding = http1_header(r, "content-encoding");
    if (r->expect_unknown)
        refuse(out, 417, "invalid_request_error", NULL, "malformed",
               "Only Expect: 100-continue is understood");
    else if (r->length_status == 411)
        refuse(out, 411, "invalid_request_error", NULL, "malformed",
               "POST and PUT need Content-Length or Transfer-Encoding: chunked");
    else if (r->length_status == 413)
        refuse(out, 413, "invalid_request_error", "request_too_large", "body_limit",
               "The request body is larger than this server accepts");
    else if (coding != NULL && !http1_text_equal(coding, "identity"))
        refuse(out, 415, "invalid_request_error", NULL, "media_type",
               "Compressed request bodies are not accepted: send identity");
    else if ((r->method & (HTTP_POST | HTTP_PUT)) != 0 && r->has_body &&
             !is_json(http1_header(r, "content-type"))) {
        bool browser =
            http1_header(r, "origin") != NULL || http1_header(r, "sec-fetch-site") != NULL ||
            http1_header(r, "sec-fetch-mode") != NULL || http1_header(r, "sec-fetch-dest") != NULL;
        if (!out->route->any_type || browser)
            refuse(out, 415, "invalid_request_error", NULL, "media_type",
                   "The request body must be sent as Content-Type: application/json");
    }
}

void gate_check(struct gate *g, const struct http1 *r, const struct sockaddr *peer, uint64_t now_ns,
                struct gate_pass *out)
{
    memset(out, 0, sizeof *out);
    out->tail = "";
    const char *origin = http1_header(r, "origin");
    out->cors = origin != NULL && origin_listed(g, origin);
    if (g->check_host && peer != NULL && !host_allowed(g, http1_header(r, "host"))) {
        refuse(out, 403, "permission_error", "host_not_allowed", "host",
               "The Host of this request is not a name of this server: use localhost, or start "
               "with --allow-host");
        return;
    }
    if (r->method == HTTP_OPTIONS && origin != NULL &&
        http1_header(r, "access-control-request-method") != NULL) {
        out->preflight = out->cors;
        out->status = 204;
        if (!out->cors)
            refuse(out, 403, "permission_error", "origin_not_allowed", "origin",
                   "Cross-origin requests are not allowed: start with --cors-origin");
        return;
    }
    if (!origin_allowed(r, out)) {
        refuse(out, 403, "permission_error", "origin_not_allowed", "origin",
               "Cross-origin requests are not allowed: start with --cors-origin");
        return;
    }
    unsigned methods = 0;
    const struct http_route *first = find_route(g, r, &out->tail),
                            *route = first ? same_path(g, first, r->method, &methods) : NULL;
    out->route = route != NULL ? route : first;
    if (!check_scope(g, r, peer, now_ns, out))
        return;
    if (first == NULL) {
        refuse(out, 404, "not_found_error", NULL, NULL, "No such route");
    } else if (route == NULL) {
        refuse(out, 405, "invalid_request_error", NULL, NULL,
               "This route does not take this method");
        gate_method_names(methods, out->allow, sizeof out->allow);
    } else {
        check_body(r, out);
    }
}
