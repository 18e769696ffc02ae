/* main.c - ktserve: options, start, signals, the event loop, the orderly end.
 * The server listens before the model is loaded (health says 503 until then). SIGTERM or SIGINT:
 * the queue is refused, running requests may finish within the drain timeout, then they get an
 * error frame; exit 0. A second signal exits at once with 130. SIGHUP re-reads the keys. Exit codes
 * as sysexits.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "config.h"
#include "serve/engine_side.h"
#include "serve/exchange.h"
#include "serve/routes.h"

#define MAX_EVENTS 8192

static int log_threshold = KT_LOG_INFO; /* set before threads start */

struct loop {
    struct app *app;
    struct event *sig[3], *wake, *tick;
    int exit_code;
    bool loaded, failed;
    uint64_t drain_until_ns, abort_until_ns;
};

static void log_to_stderr(void *user, kt_log_level level, const char *line)
{
    static const char *const tag[] = {"debug", "info", "warning", "error"};
    char out[1200];
    (void)user;
    if ((int)level < log_threshold)
        return;
    /* on a terminal the bar of a load may be on this line */
    int n = snprintf(out, sizeof out, "%sktserve: %s: ", isatty(STDERR_FILENO) ? "\r\033[K" : "",
                     tag[level]);
    for (const char *s = line; *s && n < (int)sizeof out - 2; s++)
        out[n++] =
            (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s; /* control bytes could forge lines */
    out[n++] = '\n';
    ssize_t w = write(STDERR_FILENO, out, (size_t)n);
    (void)w;
}

static int exit_code_of(kt_status st)
{
    switch (st) {
    case KT_E_INVALID:
        return EX_USAGE;
    case KT_E_FORMAT:
    case KT_E_UNSUPPORTED:
        return EX_DATAERR;
    case KT_E_NOT_FOUND:
        return EX_NOINPUT;
    case KT_E_IO:
        return EX_IOERR;
    case KT_E_NOMEM:
    case KT_E_LIMIT:
        return EX_OSERR;
    case KT_E_STALE:
        return EX_CONFIG;
    default:
        return EX_SOFTWARE;
    }
}

/* The model's name in the API: the option, else the last part of its path without suffix. */
static void choose_model_id(struct app *a)
{
    char path[4096];
    if (a->opt.model_id != NULL) {
        snprintf(a->model_id, sizeof a->model_id, "%s", a->opt.model_id);
        return;
    }
    if (realpath(a->opt.model, path) == NULL)
        snprintf(path, sizeof path, "%s", a->opt.model);
    const char *base = strrchr(path, '/');
    snprintf(a->model_id, sizeof a->model_id, "%.255s",
             base == NULL || base[1] == '\0' ? path : base + 1);
    char *dot = strrchr(a->model_id, '.');
    if (dot != NULL && (strcasecmp(dot, ".gguf") == 0 || strcasecmp(dot, ".safetensors") == 0))
        *dot = '\0';
}

/* ---- HTTP ---- */

static void on_done(void *user, const char *route, enum http_method m, int status,
                    uint64_t duration_ns)
{
    (void)m;
    app_metrics_done(user, route, status);
    log_debug("%s %d %.1f ms", route == NULL ? "-" : route, status, (double)duration_ns * 1e-6);
}

static void on_rejected(void *user, const char *reason)
{
    app_metrics_rejected(user, reason);
}

static int open_server(struct app *a)
{
    char err[512];
    struct http_config c = {.host = a->opt.host,
                            .port = (uint16_t)a->opt.port,
                            .api_key_file = a->opt.api_key_file,
                            .insecure = a->opt.insecure,
                            .allow_hosts = a->opt.allow_hosts.v,
                            .n_allow_hosts = a->opt.allow_hosts.n,
                            .cors_origins = a->opt.cors_origins.v,
                            .n_cors_origins = a->opt.cors_origins.n,
                            .max_connections = (uint32_t)a->opt.max_connections,
                            .max_body_bytes = a->opt.max_body_mib << 20,
                            .max_bodies_bytes = 256u << 20,
                            .header_timeout_ms = 10000,
                            .keepalive_timeout_ms = 75000,
                            .write_stall_ms = 60000,
                            .max_output_bytes = a->opt.max_output_bytes,
                            .resume_output_bytes = a->opt.max_output_bytes / 4,
                            .routes = route_table,
                            .user = a,
                            .on_done = on_done,
                            .on_rejected = on_rejected};
    if (http_server_open(a->base, &c, &a->http, err, sizeof err) != 0) {
        log_error("%s", err);
        return EX_UNAVAILABLE;
    }
    bool v6 = strchr(a->opt.host, ':') != NULL;
    printf("ktserve: listening on http://%s%s%s:%u\n", v6 ? "[" : "", a->opt.host, v6 ? "]" : "",
           http_server_port(a->http));
    fflush(stdout);
    return 0;
}

/* ---- the loop ---- */

static void became_ready(struct loop *l)
{
    struct app *a = l->app;
    l->loaded = true;
    if (!app_metrics_loaded(a))
        log_warn("some metrics could not be registered");
    log_info("model %s: %s, %u layers, %u experts, context %u, kernel %s, %u threads, profile %s, "
             "loaded in %.1f s",
             a->model_id, a->info.arch, a->info.n_layers, a->info.n_experts, a->limits.ctx,
             a->info.kernel, a->info.n_threads, a->info.profile_state, a->info.load_seconds);
    log_debug("plan: %s", a->info.plan_text);
    log_info("ready");
    if (a->draining)
        sched_drain(a->sched);
}

static void check_drained(struct loop *l)
{
    struct app *a = l->app;
    uint64_t now = clock_ns();
    if (!a->draining)
        return;
    if (l->drain_until_ns == 0)
        l->drain_until_ns = now + a->opt.drain_timeout * 1000000000u;
    if (a->n_live == 0 && http_server_active(a->http) == 0) {
        event_base_loopbreak(a->base);
        return;
    }
    if (now < l->drain_until_ns)
        return;
    if (l->abort_until_ns == 0) {
        l->abort_until_ns = now + 2000000000u; /* time for the error frames to leave */
        log_warn("drain timeout: %u requests end with an error", a->n_live);
        if (l->loaded)
            sched_abort(a->sched);
    } else if (now > l->abort_until_ns) {
        event_base_loopbreak(a->base);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    struct loop *l = user;
    int state = atomic_load(&l->app->state);
    (void)fd;
    (void)what;
    exchange_events(l->app);
    if (state == STATE_READY && !l->loaded)
        became_ready(l);
    if (state == STATE_FAILED && !l->failed) {
        l->failed = true;
        log_error("%s", l->app->load_error.msg);
        l->exit_code = exit_code_of(l->app->load_error.code);
        event_base_loopbreak(l->app->base);
    }
    check_drained(l);
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    static const struct timeval slow = {1, 0}, fast = {0, 50000};
    struct loop *l = user;
    (void)fd;
    (void)what;
    exchange_tick(l->app);
    check_drained(l);
    event_add(l->tick, l->app->draining ? &fast : &slow);
}

static void on_end_signal(evutil_socket_t sig, short what, void *user)
{
    static const struct timeval soon = {0, 20000};
    struct loop *l = user;
    (void)what;
    if (l->app->draining)
        _exit(130);
    log_info("signal %d: draining, %u requests", (int)sig, l->app->n_live);
    app_drain(l->app);
    event_add(l->tick, &soon);
}

static void on_hup(evutil_socket_t sig, short what, void *user)
{
    struct loop *l = user;
    char err[512] = "";
    (void)sig;
    (void)what;
    if (http_server_reload_keys(l->app->http, err, sizeof err) != 0)
        log_error("keys were not reloaded: %s", err);
    else
        log_info("keys reloaded");
}

static bool add_events(struct loop *l)
{
    static const struct timeval second = {1, 0};
    struct event_base *b = l->app->base;
    l->sig[0] = evsignal_new(b, SIGTERM, on_end_signal, l);
    l->sig[1] = evsignal_new(b, SIGINT, on_end_signal, l);
    l->sig[2] = evsignal_new(b, SIGHUP, on_hup, l);
    l->wake = event_new(b, bridge_fd(l->app->bridge), EV_READ | EV_PERSIST, on_wake, l);
    l->tick = event_new(b, -1, 0, on_tick, l);
    if (l->sig[0] == NULL || l->sig[1] == NULL || l->sig[2] == NULL || l->wake == NULL ||
        l->tick == NULL)
        return false;
    return event_add(l->sig[0], NULL) == 0 && event_add(l->sig[1], NULL) == 0 &&
           event_add(l->sig[2], NULL) == 0 && event_add(l->wake, NULL) == 0 &&
           event_add(l->tick, &second) == 0;
}

static int serve(struct app *a)
{
    struct loop l = {.app = a};
    kt_err err;
    int rc;
    if (bridge_open(MAX_EVENTS, &a->bridge, &err) != KT_OK ||
        (a->base = event_base_new()) == NULL || !app_metrics_init(a) || !add_events(&l)) {
        log_error("cannot set up: no memory or file descriptors");
        return EX_OSERR;
    }
    if ((rc = open_server(a)) != 0)
        return rc;
    if (engine_side_start(a, &err) != 0) {
        log_error("%s", err.msg);
        return EX_OSERR;
    }
    event_base_dispatch(a->base);
    if (!l.loaded && !l.failed)
        _exit(l.exit_code); /* a signal during the load: nothing runs that could be lost */
    engine_side_join(a);
    exchange_events(a);
    http_server_close(a->http);
    exchange_events(a);
    for (int i = 0; i < 3; i++)
        event_free(l.sig[i]);
    event_free(l.wake);
    event_free(l.tick);
    event_base_free(a->base);
    sched_close(a->sched);
    kt_engine_close(a->engine);
    kt_tokenizer_close(a->tok);
    app_metrics_close(a);
    bridge_close(a->bridge);
    return l.exit_code;
}

/* ---- ktserve --health ---- */

static int ask_health(const struct options *o)
{
    char port[16], reply[64] = "";
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *ai = NULL;
    static const char request[] =
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    struct timeval limit = {5, 0};
    snprintf(port, sizeof port, "%u", (unsigned)o->port);
    if (getaddrinfo(o->host, port, &hint, &ai) != 0) {
        log_error("--host %.100s: no such address", o->host);
        return EX_UNAVAILABLE;
    }
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool up = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
              connect(fd, ai->ai_addr, ai->ai_addrlen) == 0 &&
              write(fd, request, sizeof request - 1) == (ssize_t)sizeof request - 1 &&
              read(fd, reply, sizeof reply - 1) > 12;
    freeaddrinfo(ai);
    if (fd >= 0)
        close(fd);
    if (up && strncmp(reply + 8, " 200", 4) == 0)
        return 0;
    if (up)
        log_error("%s port %s is not ready: %.12s", o->host, port, reply);
    else
        log_error("no answer from %s port %s; is ktserve running there?", o->host, port);
    return EX_UNAVAILABLE;
}

static int set_log_level(const char *name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            log_threshold = i;
            return 0;
        }
    }
    log_error("--log-level must be debug, info, warn or error, got '%.40s'", name);
    return EX_USAGE;
}

static int start(struct app *a)
{
    kt_err err;
    struct rlimit none = {0, 0};
    if (a->opt.model == NULL) {
        log_error("no model: ktserve -m PATH (a GGUF file or a checkpoint directory); --help lists "
                  "all options");
        return EX_USAGE;
    }
    choose_model_id(a);
    if (a->opt.check_config) {
        if (engine_side_check(&a->opt, &err) != KT_OK) {
            log_error("%s", err.msg);
            return exit_code_of(err.code);
        }
        printf("ktserve: configuration is good\n");
        return 0;
    }
    setrlimit(RLIMIT_CORE, &none); /* a core would hold keys and prompts */
    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&a->sched_lock, NULL);
    a->started_ns = clock_ns();
    a->started_unix = (int64_t)time(NULL);
    snprintf(a->fingerprint, sizeof a->fingerprint, "kt-%s-%s", PACKAGE_VERSION, KT_GIT);
    return serve(a);
}

int main(int argc, char **argv)
{
    static struct app app;
    char err[512];
    int rc;
    kt_log_sink(log_to_stderr, NULL);
    if (options_read(&app.opt, argc, argv, err, sizeof err) != 0) {
        log_error("%s", err);
        return EX_USAGE;
    }
    if (app.opt.help) {
        options_help(stdout);
        return 0;
    }
    if (app.opt.version) {
        printf("ktserve %s (%s)\n", PACKAGE_VERSION, KT_GIT);
        return 0;
    }
    if ((rc = set_log_level(app.opt.log_level)) != 0)
        return rc;
    if (app.opt.print_config)
        options_print(&app.opt, stdout);
    else if (app.opt.health)
        rc = ask_health(&app.opt);
    else
        rc = start(&app);
    options_free(&app.opt);
    return rc;
}
