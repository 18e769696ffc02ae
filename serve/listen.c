/* listen.c - the listening socket: address, loopback or not, accepting, pausing at the connection
 * limit, and running out of descriptors. At the limit the listener is switched off (the kernel's
 * backlog holds the rest). On EMFILE one reserve descriptor is given up to take and close one
 * waiting connection, then the listener rests for 100 ms: it never spins. Owner: the I/O thread.
 */
#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/conn.h"

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *peer,
                      int peer_len, void *arg)
{
    (void)l;
    struct http_server *s = arg;
    if (s->n_conns >= s->config.max_connections ||
        s->draining) { /* accepted in the same round that filled the table */
        server_rejected(s, "connections");
        evutil_closesocket(fd);
        return;
    }
    conn_accept(s, fd, peer, (socklen_t)peer_len);
}

static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct http_server *s = arg;
    int error = EVUTIL_SOCKET_ERROR();
    if (error == EMFILE || error == ENFILE) {
        server_rejected(s, "connections");
        if (s->reserve_fd >= 0) {
            close(s->reserve_fd);
            int fd = accept(evconnlistener_get_fd(l), NULL, NULL);
            if (fd >= 0)
                close(fd);
        }
        s->reserve_fd = open_reserve();
    } else {
        log_warn("accept: %s", strerror(error));
    }
    s->starved = true;
    listen_update(s);
    struct timeval rest = {.tv_sec = 0, .tv_usec = 100000};
    event_add(s->retry, &rest);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *s = arg;
    s->starved = false;
    listen_update(s);
}

void listen_update(struct http_server *s)
{
    if (s->listener == NULL)
        return;
    bool pause = s->starved || s->n_conns >= s->config.max_connections;
    if (pause == s->paused)
        return;
    s->paused = pause;
    if (pause)
        evconnlistener_disable(s->listener);
    else
        evconnlistener_enable(s->listener);
}

/* ---- addresses */

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return (ntohl(in.sin_addr.s_addr) >> 24) == 127;
    }
    if (a->sa_family != AF_INET6)
        return a->sa_family == AF_UNIX;
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) && in6.sin6_addr.s6_addr[12] == 127);
}

static int bind_one(const struct sockaddr *address, socklen_t len)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (address->sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, address, len) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int bind_tcp(struct http_server *s, const char *host, char *err, size_t errlen)
{
    char port[8];
    snprintf(port, sizeof port, "%u", (unsigned)s->config.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        snprintf(err, errlen, "cannot listen on %s: %s", host, gai_strerror(rc));
        return -1;
    }
    int fd = -1;
    snprintf(err, errlen, "cannot listen on %s: no address", host);
    for (struct addrinfo *i = list; i != NULL && fd < 0; i = i->ai_next) {
        if (i->ai_family != AF_INET && i->ai_family != AF_INET6)
            continue;
        bool loopback = is_loopback(i->ai_addr);
        if (gate_allows_bind(&s->gate, host, loopback, err, errlen) != 0)
            break;
        fd = bind_one(i->ai_addr, i->ai_addrlen);
        if (fd < 0)
            snprintf(err, errlen, "cannot listen on %s port %s: %s%s", host, port, strerror(errno),
                     errno == EADDRINUSE ? " (choose another --port)" : "");
        s->gate.check_host = loopback;
    }
    freeaddrinfo(list);
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)&bound, &len) == 0)
        s->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                   : ((struct sockaddr_in6 *)&bound)->sin6_port);
    return fd;
}

/* A socket file that nobody answers on is left over from a crash and is replaced; one that answers
 * belongs to a running server. */
static int bind_unix(struct http_server *s, const char *path, char *err, size_t errlen)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (*path == '\0' || strlen(path) >= sizeof a.sun_path) {
        snprintf(err, errlen, "unix:%s: the path must have 1 to %zu bytes", path,
                 sizeof a.sun_path - 1);
        return -1;
    }
    memcpy(a.sun_path, path, strlen(path) + 1);
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool stale = probe >= 0 && connect(probe, (struct sockaddr *)&a, sizeof a) != 0 &&
                     errno == ECONNREFUSED;
        if (probe >= 0)
            close(probe);
        if (stale)
            unlink(path);
    }
    mode_t mask = umask(0117); /* 0660 from the first moment on */
    int fd = bind_one((struct sockaddr *)&a, sizeof a);
    int saved = errno;
    umask(mask);
    if (fd < 0) {
        snprintf(err, errlen, "cannot listen on unix:%s: %s%s", path, strerror(saved),
                 saved == EADDRINUSE ? " (another server answers there)" : "");
        return -1;
    }
    s->unix_path = mem_strdup(path);
    return fd;
}

int listen_open(struct http_server *s, char *err, size_t errlen)
{
    const char *host = s->config.host != NULL ? s->config.host : "127.0.0.1";
    int fd = strncmp(host, "unix:", 5) == 0 ? bind_unix(s, host + 5, err, errlen)
                                            : bind_tcp(s, host, err, errlen);
    if (fd < 0)
        return -1;
    s->reserve_fd = open_reserve();
    s->retry = evtimer_new(s->base, on_retry, s);
    if (s->retry != NULL)
        s->listener = evconnlistener_new(
            s->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, SOMAXCONN, fd);
    if (s->listener == NULL) {
        snprintf(err, errlen, "cannot listen on %s: %s", host, strerror(errno));
        close(fd);
        return -1;
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    return 0;
}

void listen_close(struct http_server *s)
{
    if (s->listener != NULL)
        evconnlistener_free(s->listener);
    s->listener = NULL;
    if (s->retry != NULL)
        event_free(s->retry);
    s->retry = NULL;
    if (s->reserve_fd >= 0)
        close(s->reserve_fd);
    s->reserve_fd = -1;
    if (s->unix_path != NULL) {
        unlink(s->unix_path);
        mem_free(s->unix_path);
        s->unix_path = NULL;
    }
}
