/* cmd_report.c - kttune report URL: ask a running ktserve where its experts are and which are hot,
 * and print it as text. A small HTTP/1.1 client over plain sockets: http:// only, one GET with
 * Connection: close, replies with Content-Length, bounded in size and time. No redirects, no TLS.
 * The API key, if the server wants one, comes from the environment so that it does not show in the
 * process list.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cmds.h"
#include "report.h"

#define MAX_REPLY (64u << 20)

struct url {
    char host[256], port[8], prefix[256];
};

static kt_status parse_url(const char *s, struct url *u, kt_err *err)
{
    const char *at = strncmp(s, "http://", 7) == 0 ? s + 7 : s;
    bool v6 = *at == '[';
    size_t n = v6 ? strcspn(at, "]") : strcspn(at, ":/"), skip = v6;
    const char *rest = at + n + (v6 && at[n] == ']');
    size_t port = *rest == ':' ? strcspn(rest + 1, "/") : 0;
    snprintf(u->port, sizeof u->port, "%s", "8080");
    if (strncmp(s, "https://", 8) == 0 || n <= skip || n - skip >= sizeof u->host ||
        (*rest == ':' && (port < 1 || port > 5)))
        KT_FAIL(err, KT_E_INVALID,
                "'%.200s' is no address like http://127.0.0.1:8080 (plain http only)", s);
    memcpy(u->host, at + skip, n - skip);
    u->host[n - skip] = '\0';
    if (port > 0) {
        memcpy(u->port, rest + 1, port);
        u->port[port] = '\0';
        rest += 1 + port;
    }
    snprintf(u->prefix, sizeof u->prefix, "%.255s", rest);
    for (size_t k = strlen(u->prefix); k > 0 && u->prefix[k - 1] == '/'; k--)
        u->prefix[k - 1] = '\0';
    return KT_OK;
}

static kt_status connect_to(const struct url *u, int *out, kt_err *err)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    struct timeval limit = {10, 0};
    int rc = getaddrinfo(u->host, u->port, &hint, &list), fd = -1;
    if (rc != 0)
        KT_FAIL(err, KT_E_IO, "cannot look up %s: %s", u->host, gai_strerror(rc));
    for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            int e = errno;
            close(fd);
            errno = e;
            fd = -1;
        }
    }
    int e = errno;
    freeaddrinfo(list);
    if (fd < 0)
        KT_FAIL(err, KT_E_IO, "cannot reach %s port %s: %s; is ktserve running there?", u->host,
                u->port, strerror(e));
    *out = fd;
    return KT_OK;
}

static kt_status exchange(int fd, const struct strbuf *request, struct strbuf *reply, kt_err *err)
{
    char buf[65536];
    size_t sent = 0;
    while (sent < request->len) {
        ssize_t n = send(fd, request->data + sent, request->len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            KT_FAIL_OS(err, KT_E_IO, "cannot send the request: %s", strerror(errno));
        sent += (size_t)n;
    }
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            KT_FAIL_OS(err, KT_E_IO, "no whole reply: %s", strerror(errno));
        if (n == 0)
            break;
        sb_add(reply, buf, (size_t)n);
        if (reply->len > MAX_REPLY || !sb_ok(reply))
            KT_FAIL(err, KT_E_LIMIT, "the reply is larger than %u MiB", MAX_REPLY >> 20);
    }
    return KT_OK;
}

/* Body of a reply with status 200. */
static kt_status body_of(const struct strbuf *reply, const char **body, size_t *len, kt_err *err)
{
    const char *end = reply->data == NULL ? NULL : strstr(reply->data, "\r\n\r\n");
    if (end == NULL || strncmp(reply->data, "HTTP/1.", 7) != 0)
        KT_FAIL(err, KT_E_FORMAT, "the server did not answer in HTTP");
    *body = end + 4;
    *len = reply->len - (size_t)(end + 4 - reply->data);
    if (strncmp(reply->data + 8, " 200", 4) == 0)
        return KT_OK;
    if (strncmp(reply->data + 8, " 401", 4) == 0 || strncmp(reply->data + 8, " 403", 4) == 0)
        KT_FAIL(err, KT_E_INVALID,
                "the server wants an admin key: set KTSERVE_API_KEY in the environment");
    KT_FAIL(err, KT_E_IO, "the server answered %.3s: %.200s", reply->data + 9, *body);
}

static kt_status get_placement(const struct url *u, json_t **out, kt_err *err)
{
    struct strbuf request = {0}, reply = {0};
    const char *key = getenv("KTSERVE_API_KEY"), *body = NULL;
    json_error_t je;
    size_t len = 0;
    int fd = -1;
    KT_TRY(connect_to(u, &fd, err));
    sb_printf(&request,
              "GET %s/admin/placement HTTP/1.1\r\nHost: %s%s%s:%s\r\nConnection: close\r\nAccept: "
              "application/json\r\n",
              u->prefix, strchr(u->host, ':') ? "[" : "", u->host, strchr(u->host, ':') ? "]" : "",
              u->port);
    if (key != NULL)
        sb_printf(&request, "Authorization: Bearer %s\r\n", key);
    sb_puts(&request, "\r\n");
    kt_status st = exchange(fd, &request, &reply, err);
    close(fd);
    if (st == KT_OK)
        st = body_of(&reply, &body, &len, err);
    if (st == KT_OK) {
        *out = json_loadb(body, len, 0, &je);
        if (*out == NULL)
            st = err_set(err, KT_E_FORMAT, 0, __func__, "the placement object is no JSON: %s",
                         je.text);
    }
    sb_free(&request);
    sb_free(&reply);
    return st;
}

static int help(void)
{
    printf("usage: kttune report [--top N] [--json] URL\n\n"
           "Asks the ktserve at URL (http://127.0.0.1:8080) which experts its tokens went to and "
           "prints the tiers, the hottest experts,\n"
           "and the skew of each layer.\n\n"
           "  --top N   how many of the hottest experts (20)\n"
           "  --json    print the placement object as it came\n\n"
           "environment:\n"
           "  KTSERVE_API_KEY   admin key, for a server that has keys\n");
    return EXIT_OK;
}

static int usage_error(const char *why)
{
    fprintf(stderr, "kttune report: %s; kttune report --help tells the options\n", why);
    return EXIT_USAGE;
}

int cmd_report(int argc, char **argv)
{
    const char *where = NULL;
    unsigned long top = 20;
    bool json = false;
    struct url u;
    json_t *placement = NULL;
    kt_err err;
    for (int i = 1; i < argc; i++) {
        char *end;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help();
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--top") == 0 && i + 1 < argc) {
            top = strtoul(argv[++i], &end, 10);
            if (*end != '\0' || top < 1 || top > 1000000)
                return usage_error("--top must be a number between 1 and 1000000");
        } else if (argv[i][0] == '-' || where != NULL) {
            return usage_error("one URL is expected");
        } else {
            where = argv[i];
        }
    }
    if (where == NULL)
        return usage_error("no URL");
    kt_status st = parse_url(where, &u, &err);
    if (st == KT_OK)
        st = get_placement(&u, &placement, &err);
    if (st == KT_OK && json) {
        json_dumpf(placement, stdout, JSON_PRESERVE_ORDER | JSON_INDENT(1));
        putchar('\n');
    } else if (st == KT_OK) {
        st = report_print(placement, (uint32_t)top, stdout, &err);
    }
    json_decref(placement);
    if (st != KT_OK) {
        fprintf(stderr, "kttune report: %s\n", err.msg);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}
