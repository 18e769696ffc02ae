/* test_http_gate.c - the gate over loopback: routes and methods, keys and scopes, Host, Origin and
 * CORS, media types, where it may bind, and the key file. Each matrix is a table; a row says what a
 * client sends and which status it must get.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <sys/un.h>

#include "base/sha256.h"
#include "http_world.h"
#include "serve/gate.h"

#define JSON "Content-Type: application/json\r\n"
#define BODY JSON "Content-Length: 2\r\n\r\n{}" /* ends the head itself */

static char key_path[64];

static void write_keys(const char *text, mode_t mode)
{
    FILE *f;
    if (key_path[0] == '\0') {
        snprintf(key_path, sizeof key_path, "/tmp/kt-keys-XXXXXX");
        int fd = mkstemp(key_path);
        assert_true(fd >= 0);
        close(fd);
    }
    f = fopen(key_path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(key_path, mode), 0);
}

/* One request on a new connection. more: header lines, or header lines with a body when it holds an
 * empty line. */
static struct reply reply_to(const char *line, const char *more)
{
    char text[4096];
    struct reply r = {0};
    snprintf(text, sizeof text, "%s HTTP/1.1\r\n%s%s%s", line,
             strstr(more, "Host:") ? "" : "Host: localhost\r\n", more,
             strstr(more, "\r\n\r\n") ? "" : "\r\n");
    int fd = dial();
    ask(fd, text, &r);
    close(fd);
    return r;
}

static int status_of(const char *line, const char *more)
{
    struct reply r = reply_to(line, more);
    int status = r.status;
    reply_free(&r);
    return status;
}

#define EXPECT(line, more, want)                                                                   \
    do {                                                                                           \
        int got_ = status_of(line, more);                                                          \
        if (got_ != (want))                                                                        \
            fail_msg("line %d: %s [%s]: %d, wanted %d", __LINE__, line, more, got_, want);         \
    } while (0)

static void routes_and_methods(void **state)
{
    (void)state;
    world_open();
    EXPECT("GET /hello", "", 200);
    EXPECT("GET /hello/", "", 404);
    EXPECT("GET /hell%6f", "", 200);
    EXPECT("GET /Hello", "", 404);
    EXPECT("GET //hello", "", 404);
    EXPECT("GET /nowhere", "", 404);
    EXPECT("POST /nowhere", BODY, 404);
    EXPECT("GET /models/", "", 404);
    EXPECT("GET /models%2Fx", "", 404); /* an encoded slash separates nothing */
    EXPECT("GET /models/a%2Fb", "", 200);
    EXPECT("GET /models%2Fexact", "", 404);
    EXPECT("GET /admin%2Fview", "", 404);
    EXPECT("GET /models/exa%63t", "", 200);
    EXPECT("PATCH /hello", "", 501);
    EXPECT("OPTIONS *", "", 404);
    struct reply r = reply_to("DELETE /hello", "");
    assert_true(r.status == 405 && has(&r, "Allow: GET, HEAD") &&
                has(&r, "Content-Type: application/json"));
    reply_free(&r);
    r = reply_to("HEAD /tell", "");
    assert_true(r.status == 405 && has(&r, "Allow: GET, DELETE"));
    reply_free(&r);
    r = reply_to("TRACE /hello", "");
    assert_true(r.status == 405 &&
                strstr(r.head.data, "\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n") !=
                    NULL);
    reply_free(&r);
    r = reply_to("GET /models/exact", "");
    assert_string_equal(r.body.data, "hello");
    reply_free(&r);
    r = reply_to("GET /nowhere", "");
    assert_string_equal(r.body.data,
                        "{\"error\":{\"message\":\"No such "
                        "route\",\"type\":\"not_found_error\",\"param\":null,\"code\":null}}");
    reply_free(&r);
}

static void media_types(void **state)
{
    (void)state;
    world_open();
    EXPECT("POST /echo", BODY, 200);
    EXPECT("POST /echo",
           "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}", 200);
    EXPECT("POST /echo", "Content-Type: application/jsonx\r\nContent-Length: 2\r\n\r\n{}", 415);
    EXPECT("POST /echo", "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415);
    EXPECT("POST /echo", "Content-Length: 2\r\n\r\n{}", 415);
    EXPECT("POST /echo", "Content-Length: 0\r\n", 200);
    EXPECT("POST /echo", JSON "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415);
    EXPECT("POST /echo", JSON "Content-Encoding: Identity\r\nContent-Length: 2\r\n\r\n{}", 200);
    EXPECT("POST /any",
           "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}", 200);
    EXPECT("POST /any", "Content-Length: 2\r\n\r\n{}", 200);
    EXPECT("POST /any",
           "Content-Type: text/plain\r\nOrigin: http://localhost\r\nContent-Length: 2\r\n\r\n{}",
           415);
    EXPECT("POST /any",
           "Content-Type: text/plain\r\nSec-Fetch-Mode: no-cors\r\nContent-Length: 2\r\n\r\n{}",
           415);
    EXPECT("POST /any", JSON "Origin: http://localhost\r\nContent-Length: 2\r\n\r\n{}", 200);
}

static void without_keys(void **state)
{
    (void)state;
    world_open();
    EXPECT("GET /hello", "", 200);
    EXPECT("GET /tell", "", 200);
    EXPECT("GET /tell", "Authorization: Bearer anything\r\n",
           200); /* the client libraries insist on sending some key */
    EXPECT("GET /metrics", "", 200);
    EXPECT("GET /admin/view", "", 200);
    EXPECT("POST /admin/do", BODY, 401);
    EXPECT("POST /admin/do", "Authorization: Bearer anything\r\n" BODY, 401);
    EXPECT("GET /nowhere", "", 404);
}

static void keys_and_scopes(void **state)
{
    (void)state;
    char hex[65], text[600];
    sha256_hex("user-key-2", 10, hex);
    snprintf(text, sizeof text,
             "# comment\n\nuser alice user-key-1\n  user bob sha256:%s\r\nmetrics prom "
             "metrics-key\nadmin root admin-key",
             hex);
    write_keys(text, 0600);
    w.config.api_key_file = key_path;
    world_open();
    static const char *const key[] = {"",
                                      "Authorization: Bearer user-key-1\r\n",
                                      "x-api-key: user-key-2\r\n",
                                      "authorization: bearer metrics-key\r\n",
                                      "Authorization: Bearer admin-key\r\n",
                                      "Authorization: Bearer user-key-\r\n",
                                      "Authorization: Basic dXNlcg==\r\n"};
    static const struct {
        const char *line;
        bool post;
        int want[7]; /* none, user, user, metrics, admin, wrong, other scheme */
    } rows[] = {
        {"GET /hello", false, {200, 200, 200, 200, 200, 200, 200}},
        {"GET /tell", false, {401, 200, 200, 403, 200, 401, 401}},
        {"POST /echo", true, {401, 200, 200, 403, 200, 401, 401}},
        {"GET /metrics", false, {401, 403, 403, 200, 200, 401, 401}},
        {"GET /admin/view", false, {401, 403, 403, 403, 200, 401, 401}},
        {"POST /admin/do", true, {401, 403, 403, 403, 200, 401, 401}},
        {"GET /forgot-scope", false, {401, 403, 403, 403, 200, 401, 401}},
        {"GET /nowhere", false, {401, 404, 404, 404, 404, 401, 401}},
        {"DELETE /metrics", false, {401, 403, 403, 405, 405, 401, 401}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int k = 0; k < 7; k++) {
            snprintf(text, sizeof text, "%s%s", key[k], rows[i].post ? BODY : "");
            EXPECT(rows[i].line, text, rows[i].want[k]);
        }
    struct reply r = reply_to("GET /tell", "");
    assert_true(has(&r, "WWW-Authenticate: Bearer"));
    assert_non_null(
        strstr(r.body.data,
               "\"type\":\"authentication_error\",\"param\":null,\"code\":\"invalid_api_key\""));
    reply_free(&r);
    r = reply_to("GET /tell", key[2]);
    assert_non_null(strstr(r.body.data, "key=bob scope=1"));
    reply_free(&r);
    /* every route of the table but the public ones refuses a client without a key */
    for (const struct http_route *i = routes; i->path != NULL; i++) {
        snprintf(text, sizeof text, "%s %s", (i->methods & HTTP_GET) ? "GET" : "POST",
                 strchr(i->path, '*') ? "/models/x" : i->path);
        EXPECT(text, (i->methods & HTTP_GET) ? "" : BODY, i->scope == HTTP_PUBLIC ? 200 : 401);
    }
    /* reload: a broken file changes nothing, a good one replaces all */
    char err[300];
    write_keys("user alice\n", 0600);
    assert_int_equal(http_server_reload_keys(w.s, err, sizeof err), -1);
    EXPECT("GET /tell", key[1], 200);
    write_keys("user carol new-key\n", 0600);
    assert_int_equal(http_server_reload_keys(w.s, err, sizeof err), 0);
    EXPECT("GET /tell", key[1], 401);
    EXPECT("GET /tell", "x-api-key: new-key\r\n", 200);
}

static void failed_logins(void **state)
{
    (void)state;
    write_keys("user alice right\n", 0600);
    w.config.api_key_file = key_path;
    world_open();
    for (int i = 0; i < LOGIN_BURST; i++)
        EXPECT("GET /tell", "x-api-key: wrong\r\n", 401);
    struct reply r = reply_to("GET /tell", "x-api-key: wrong\r\n");
    assert_true(r.status == 429 && strstr(r.head.data, "\r\nRetry-After: ") != NULL);
    reply_free(&r);
    EXPECT("GET /tell", "x-api-key: right\r\n", 429);
    EXPECT("GET /hello", "", 200);
    assert_non_null(strstr(w.rejected.data, "login_rate "));
    /* time heals, address by address */
    static struct logins l;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)}, b = a;
    b.sin_addr.s_addr = htonl(0x0a000002);
    uint64_t now = 1000000000000u;
    for (int i = 0; i < LOGIN_BURST; i++) {
        assert_int_equal(logins_wait(&l, (struct sockaddr *)&a, now), 0);
        logins_failed(&l, (struct sockaddr *)&a, now);
    }
    assert_true(logins_wait(&l, (struct sockaddr *)&a, now) > 0);
    assert_int_equal(logins_wait(&l, (struct sockaddr *)&b, now), 0);
    assert_int_equal(logins_wait(&l, (struct sockaddr *)&a, now + LOGIN_REFILL_NS), 0);
    for (uint32_t i = 0; i < 2 * LOGIN_SLOTS; i++) { /* many addresses evict the oldest */
        b.sin_addr.s_addr = htonl(0x0b000000 + i);
        logins_failed(&l, (struct sockaddr *)&b, now + i + 1);
    }
    assert_int_equal(logins_wait(&l, (struct sockaddr *)&a, now), 0);
}

static void key_files(void **state)
{
    (void)state;
    struct keys k = {0};
    char err[300];
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "holds no key"},
        {"# only a comment\n", "holds no key"},
        {"user alice\n", "line 1: expected"},
        {"user alice key more\n", "line 1: expected"},
        {"\nroot alice key\n", "line 2: the scope"},
        {"public alice key\n", "line 1: the scope"},
        {"user al/ice key\n", "line 1: the name"},
        {"user alice k\x01y\n", "line 1: the key must be printable"},
        {"user alice k\xc3\xa9y\n", "line 1: the key must be printable"},
        {"user alice sha256:00\n", "line 1: sha256:"},
        {"user alice sha256:zz00000000000000000000000000000000000000000000000000000000000000\n",
         "line 1: sha256:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_keys(bad[i].text, 0600);
        if (keys_read(key_path, &k, err, sizeof err) == 0 || strstr(err, bad[i].message) == NULL)
            fail_msg("case %zu: %s", i, err);
    }
    write_keys("user alice secret-key\n", 0604);
    assert_int_equal(keys_read(key_path, &k, err, sizeof err), -1);
    assert_non_null(strstr(err, "mode 604"));
    write_keys("user alice secret-key\n", 0620);
    assert_int_equal(keys_read(key_path, &k, err, sizeof err), -1);
    assert_int_equal(keys_read("/dev/null", &k, err, sizeof err), -1);
    assert_int_equal(keys_read("/nonexistent/keys", &k, err, sizeof err), -1);
    write_keys("user alice secret-key\nuser bob other\n", 0640);
    assert_int_equal(keys_read(key_path, &k, err, sizeof err), 0);
    assert_int_equal(k.n, 2);
    assert_string_equal(keys_find(&k, "secret-key")->name, "alice");
    assert_string_equal(keys_find(&k, "other")->name, "bob");
    assert_null(keys_find(&k, "secret-ke"));
    assert_null(keys_find(&k, "sha256:"));
    assert_null(memmem(k.list, 2 * sizeof *k.list, "secret-key", 10));
    keys_free(&k);
}

static void hosts(void **state)
{
    (void)state;
    static const char *const allowed[] = {"kt.example"};
    w.config.allow_hosts = allowed;
    w.config.n_allow_hosts = 1;
    world_open();
    char name[256] = "", line[300];
    gethostname(name, sizeof name - 1);
    static const char *const good[] = {"localhost", "LOCALHOST:80",   "localhost.",  "a.localhost",
                                       "127.0.0.1", "127.0.0.1:8080", "127.1.2.3",   "[::1]",
                                       "[::1]:80",  "kt.example",     "KT.example:1"};
    static const char *const evil[] = {"evil.example",
                                       "localhost.evil.example",
                                       "xlocalhost",
                                       ".localhost.x",
                                       "8.8.8.8",
                                       "0.0.0.0",
                                       "127.0.0.1.evil.example",
                                       "[2001:db8::1]",
                                       "2130706433",
                                       "kt.example.evil",
                                       "xkt.example"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "Host: %s\r\n", good[i]);
        EXPECT("GET /hello", line, 200);
    }
    for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
        snprintf(line, sizeof line, "Host: %s\r\n", evil[i]);
        EXPECT("GET /hello", line, 403);
    }
    snprintf(line, sizeof line, "Host: %s\r\n", name);
    size_t n;
    if (http1_split_host(name, &n))
        EXPECT("GET /hello", line, 200);
    EXPECT("GET http://evil.example/hello", "Host: localhost\r\n", 400);
}

static void origins(void **state)
{
    (void)state;
    static const char *const cors[] = {"https://ui.example"};
    w.config.cors_origins = cors;
    w.config.n_cors_origins = 1;
    world_open();
    EXPECT("POST /echo", "Origin: http://localhost\r\n" BODY, 200);
    EXPECT("POST /echo", "Host: localhost:99\r\nOrigin: http://localhost:99\r\n" BODY, 200);
    EXPECT("POST /echo", "Host: localhost:99\r\nOrigin: http://localhost:98\r\n" BODY, 403);
    EXPECT("POST /echo", "Origin: http://evil.example\r\n" BODY, 403);
    EXPECT("POST /echo", "Origin: null\r\n" BODY, 403);
    EXPECT("POST /echo", "Origin: http://localhost.evil.example\r\n" BODY, 403);
    EXPECT("POST /echo", "Origin: https://ui.example\r\n" BODY, 200);
    EXPECT("POST /echo", "Origin: https://ui.example.evil\r\n" BODY, 403);
    EXPECT("POST /echo", "Origin: http://ui.example\r\n" BODY, 403);
    EXPECT("POST /echo", "Sec-Fetch-Site: cross-site\r\n" BODY, 403);
    EXPECT("POST /echo", "Sec-Fetch-Site: same-origin\r\n" BODY, 200);
    EXPECT("POST /echo", "Sec-Fetch-Site: cross-site\r\nOrigin: http://localhost\r\n" BODY, 403);
    EXPECT("POST /echo", "Sec-Fetch-Site: cross-site\r\nOrigin: https://ui.example\r\n" BODY, 200);
    EXPECT("DELETE /tell", "Origin: http://evil.example\r\n", 403);
    EXPECT("GET /tell", "Origin: http://evil.example\r\n",
           200); /* the browser keeps the answer from the page */
    struct reply r = reply_to("GET /tell", "Origin: http://evil.example\r\n");
    assert_true(strstr(r.head.data, "Access-Control") == NULL && has(&r, "Vary: Origin"));
    reply_free(&r);
    r = reply_to("GET /stream", "Origin: https://ui.example\r\n");
    assert_true(has(&r, "Access-Control-Allow-Origin: https://ui.example") &&
                has(&r, "Vary: Origin"));
    assert_null(strstr(r.head.data, "Allow-Credentials"));
    reply_free(&r);
    r = reply_to("OPTIONS /echo",
                 "Origin: https://ui.example\r\nAccess-Control-Request-Method: POST\r\n"
                 "Access-Control-Request-Headers: authorization, Content-Type,x-evil, "
                 "anthropic-version,X-Stainless-OS,cookie\r\n");
    assert_int_equal(r.status, 204);
    assert_true(has(&r, "Access-Control-Allow-Headers: authorization, content-type, "
                        "anthropic-version, x-stainless-os"));
    assert_true(has(&r, "Access-Control-Allow-Origin: https://ui.example") &&
                has(&r, "Vary: Origin"));
    assert_null(strstr(r.head.data, "Content-Length"));
    reply_free(&r);
    EXPECT("OPTIONS /echo",
           "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n", 403);
    EXPECT("OPTIONS /echo", "", 405);
}

static void where_it_binds(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct http_server *s = NULL;
    char err[300] = "";
    struct http_config c = {.host = "0.0.0.0", .routes = routes};
    assert_int_equal(http_server_open(base, &c, &s, err, sizeof err), -1);
    assert_non_null(strstr(err, "--api-key-file"));
    c.api_key_file = "/nonexistent/keys";
    assert_int_equal(http_server_open(base, &c, &s, err, sizeof err), -1);
    write_keys("user alice key\n", 0600);
    c.api_key_file = key_path;
    assert_int_equal(http_server_open(base, &c, &s, err, sizeof err), 0);
    struct http_config taken = {.host = "127.0.0.1", .port = http_server_port(s), .routes = routes};
    struct http_server *second = NULL;
    assert_int_equal(http_server_open(base, &taken, &second, err, sizeof err), -1);
    assert_non_null(strstr(err, "choose another --port"));
    http_server_close(s);
    c.api_key_file = NULL;
    c.insecure = true;
    assert_int_equal(http_server_open(base, &c, &s, err, sizeof err), 0);
    http_server_close(s);
    c.host = "no such host";
    assert_int_equal(http_server_open(base, &c, &s, err, sizeof err), -1);
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_free(base);
}

static void unix_socket(void **state)
{
    (void)state;
    char dir[] = "/tmp/kt-http-XXXXXX", host[128], err[300];
    assert_non_null(mkdtemp(dir));
    snprintf(host, sizeof host, "unix:%s/s", dir);
    const char *path = host + 5;
    w.config.host = host;
    world_open();
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    struct http_server *second = NULL;
    assert_int_equal(http_server_open(w.base, &w.config, &second, err, sizeof err),
                     -1); /* somebody answers there */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct reply r = {0};
    ask(fd, "GET /hello HTTP/1.1\r\nHost: whatever\r\n\r\n", &r);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    close(fd);
    http_server_close(w.s);
    w.s = NULL;
    assert_int_equal(stat(path, &st), -1);
    /* a socket file that nobody listens on is replaced */
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    assert_int_equal(http_server_open(w.base, &w.config, &w.s, err, sizeof err), 0);
    http_server_close(w.s);
    w.s = NULL;
    rmdir(dir);
}

static void own_shape(struct http_x *x, void *user, int status, const char *type, const char *code,
                      const char *message)
{
    (void)user;
    (void)code;
    char text[300];
    int n = snprintf(text, sizeof text, "%s|%s|%s", http_path(x), type, message);
    http_reply(x, status, "text/plain", text, (size_t)n);
}

static void refusals_in_another_shape(void **state)
{
    (void)state;
    w.config.reply_error = own_shape;
    world_open();
    struct reply r = reply_to("GET /nowhere", "");
    assert_string_equal(r.body.data, "/nowhere|not_found_error|No such route");
    reply_free(&r);
    r = reply_to("DELETE /hello", "");
    assert_true(r.status == 405 && has(&r, "Allow: GET, HEAD"));
    reply_free(&r);
    EXPECT("GET /hello", "A : b\r\n", 400); /* not parsed: no path, the default shape */
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_begin, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(routes_and_methods),
        T(media_types),
        T(without_keys),
        T(keys_and_scopes),
        T(failed_logins),
        T(key_files),
        T(hosts),
        T(origins),
        T(where_it_binds),
        T(unix_socket),
        T(refusals_in_another_shape),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    if (key_path[0] != '\0')
        unlink(key_path);
    return rc;
}
