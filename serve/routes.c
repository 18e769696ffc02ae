/* routes.c - which routes exist, and the handlers of health, models, tokens and properties.
 * A route that belongs to an API of later versions is in the table too, with 501: clients then
 * learn that it is not there yet instead of guessing from a 404. I/O thread only; nothing here
 * waits.
 */
#include "serve/routes.h"

#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "config.h"
#include "serve/encode.h"
#include "serve/exchange.h"
#include "serve/json_in.h"
#include "serve/stop.h"

#define STALL_NS 60000000000u

/* ---- shared ---- */

void app_reply_json(struct http_x *x, int status, struct strbuf *b)
{
    if (!sb_ok(b)) {
        http_reply_error(x, 503, "unavailable_error", "overloaded", NULL,
                         "no memory for the reply");
        return;
    }
    http_reply(x, status, "application/json", b->data, b->len);
}

void app_reply_fail(struct app *a, struct http_x *x, const struct kts_fail *f)
{
    char text[24];
    struct strbuf b = {0};
    struct sched_view v = {.retry_after_s = 1};
    if (atomic_load(&a->state) == STATE_READY)
        sched_get_view(a->sched, &v);
    if (f->status == 503) {
        snprintf(text, sizeof text, "%u", v.retry_after_s);
        http_set_header(x, "Retry-After", text);
        http_set_header(x, "x-should-retry", f->no_retry ? "false" : "true");
    } else if (f->status >= 500) {
        http_set_header(x, "x-should-retry", "false");
    }
    out_openai_error_json(f, &b);
    app_reply_json(x, f->status, &b);
    sb_free(&b);
}

const char *app_state_name(struct app *a)
{
    int s = atomic_load(&a->state);
    return a->draining         ? "draining"
           : s == STATE_READY  ? "ready"
           : s == STATE_FAILED ? "failed"
                               : "loading";
}

int app_check_ready(struct app *a, struct http_x *x)
{
    struct kts_fail f;
    if (a->draining)
        kts_fail_set(&f, 503, "draining", NULL, "The server is shutting down");
    else if (atomic_load(&a->state) != STATE_READY)
        kts_fail_set(&f, 503, "model_loading", NULL, "Loading model");
    else
        return 0;
    app_reply_fail(a, x, &f);
    return -1;
}

/* ---- health ---- */

static void health(struct http_x *x, void *user)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    struct app *a = user;
    struct sched_view v;
    if (app_check_ready(a, x) != 0)
        return;
    sched_get_view(a->sched, &v);
    if (v.broken)
        http_reply_error(x, 500, "server_error", "engine_error", NULL,
                         "the engine failed; the log says why");
    else
        http_reply(x, 200, "application/json", ok, sizeof ok - 1);
}

static void live(struct http_x *x, void *user)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    struct app *a = user;
    struct sched_view v = {0};
    if (atomic_load(&a->state) == STATE_READY)
        sched_get_view(a->sched, &v);
    if (v.idle_ns > STALL_NS)
        http_reply_error(x, 503, "unavailable_error", "stalled", NULL,
                         "no engine step for a minute although requests run");
    else
        http_reply(x, 200, "application/json", ok, sizeof ok - 1);
}

static void root(struct http_x *x, void *user)
{
    static const char text[] = "ktserve is running\n";
    (void)user;
    http_reply(x, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

/* ---- models, properties ---- */

static void put_model(struct app *a, struct json_out *j)
{
    jo_object(j);
    jo_kstr(j, "id", a->model_id);
    jo_kstr(j, "object", "model");
    jo_kint(j, "created", a->started_unix);
    jo_kstr(j, "owned_by", "ktserve");
    jo_kuint(j, "context_length", a->limits.ctx);
    jo_kuint(j, "max_model_len", a->limits.ctx);
    jo_key(j, "capabilities");
    jo_array(j);
    jo_str(j, "completion");
    jo_array_end(j);
    jo_object_end(j);
}

static void models(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    struct json_out j;
    if (app_check_ready(a, x) != 0)
        return;
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "object", "list");
    jo_key(&j, "data");
    jo_array(&j);
    put_model(a, &j);
    jo_array_end(&j);
    jo_object_end(&j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

static void model(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    struct json_out j;
    struct kts_fail f;
    if (app_check_ready(a, x) != 0)
        return;
    if (strcmp(http_tail(x), a->model_id) != 0) {
        kts_fail_set(
            &f, 404, "model_not_found", "model",
            "The model '%.200s' does not exist here; /v1/models lists the one that is served",
            http_tail(x));
        app_reply_fail(a, x, &f);
        return;
    }
    jo_init(&j, &b);
    put_model(a, &j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

static void props(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    struct json_out j;
    if (app_check_ready(a, x) != 0)
        return;
    jo_init(&j, &b);
    jo_object(&j);
    jo_key(&j, "default_generation_settings");
    jo_object(&j);
    jo_kuint(&j, "n_ctx", a->limits.ctx);
    jo_kreal(&j, "temperature", (double)a->limits.defaults.temperature);
    jo_kint(&j, "top_k", a->limits.defaults.top_k);
    jo_kreal(&j, "top_p", (double)a->limits.defaults.top_p);
    jo_kreal(&j, "min_p", (double)a->limits.defaults.min_p);
    jo_object_end(&j);
    jo_kuint(&j, "total_slots", a->info.max_seqs);
    jo_kuint(&j, "n_ctx", a->limits.ctx);
    jo_kstr(&j, "model_id", a->model_id);
    jo_kstr(&j, "chat_template", kt_chat_template(a->tok));
    jo_key(&j, "chat_template_caps");
    jo_object(&j);
    jo_kbool(&j, "chat", a->chat_error.code == KT_OK);
    jo_kbool(&j, "tools", false);
    jo_object_end(&j);
    jo_kstr(&j, "build_info", "ktserve " PACKAGE_VERSION " (" KT_GIT ")");
    jo_object_end(&j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

/* ---- tokens ---- */

/* The body as a JSON object, or NULL after a refusal was sent. */
static json_t *body_object(struct app *a, struct http_x *x)
{
    size_t len;
    kt_err err;
    struct kts_fail f;
    json_t *v = NULL;
    const char *body = http_body(x, &len);
    if (app_check_ready(a, x) != 0)
        return NULL;
    if (json_in_parse(body, len, &v, &err) != KT_OK)
        kts_fail_set(&f, 400, "invalid_json", NULL, "%s", err.msg);
    else if (!json_is_object(v))
        kts_fail_set(&f, 400, "invalid_json", NULL, "the request body must be a JSON object");
    else
        return v;
    json_decref(v);
    app_reply_fail(a, x, &f);
    return NULL;
}

/* A boolean member with a default; -1 for a wrong type. */
static int flag(const json_t *o, const char *key, bool def)
{
    const json_t *v = json_object_get(o, key);
    return v == NULL || json_is_null(v) ? def : json_is_boolean(v) ? json_is_true(v) : -1;
}

static int tokenize_ids(struct app *a, const json_t *o, int32_t **ids, uint32_t *n,
                        struct kts_fail *f)
{
    const json_t *text = json_object_get(o, "content");
    int add = flag(o, "add_special", false), parse = flag(o, "parse_special", true);
    if (text == NULL)
        text = json_object_get(o, "prompt");
    if (!json_is_string(text))
        return kts_fail_set(f, 400, "invalid_type", "content", "content must be a string");
    if (add < 0 || parse < 0)
        return kts_fail_set(f, 400, "invalid_type", add < 0 ? "add_special" : "parse_special",
                            "%s must be true or false", add < 0 ? "add_special" : "parse_special");
    return encode_text(a->tok, json_string_value(text), json_string_length(text),
                       (add ? KT_TOK_ADD_SPECIAL : 0u) | (parse ? KT_TOK_PARSE_SPECIAL : 0u), ids,
                       n, f);
}

static void tokenize(struct http_x *x, void *user)
{
    struct app *a = user;
    int32_t *ids = NULL;
    uint32_t n = 0;
    struct kts_fail f;
    struct strbuf b = {0};
    struct json_out j;
    json_t *o = body_object(a, x);
    if (o == NULL)
        return;
    if (tokenize_ids(a, o, &ids, &n, &f) != 0) {
        json_decref(o);
        app_reply_fail(a, x, &f);
        return;
    }
    jo_init(&j, &b);
    jo_object(&j);
    jo_key(&j, "tokens");
    jo_array(&j);
    for (uint32_t i = 0; i < n; i++)
        jo_int(&j, ids[i]);
    jo_array_end(&j);
    jo_kuint(&j, "count", n);
    jo_kuint(&j, "max_model_len", a->limits.ctx);
    jo_object_end(&j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
    mem_free(ids);
    json_decref(o);
}

static int detokenize_text(struct app *a, const json_t *o, struct strbuf *out, struct kts_fail *f)
{
    const json_t *tokens = json_object_get(o, "tokens");
    struct strbuf raw = {0};
    if (!json_is_array(tokens))
        return kts_fail_set(f, 400, "invalid_type", "tokens",
                            "tokens must be an array of token ids");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *t = json_array_get(tokens, i);
        const char *bytes = "";
        json_int_t id = json_is_integer(t) ? json_integer_value(t) : -1;
        if (id < 0 || id >= (json_int_t)a->limits.vocab) {
            sb_free(&raw);
            return kts_fail_set(f, 400, "out_of_range", "tokens",
                                "tokens[%zu] must be an id between 0 and %u", i,
                                a->limits.vocab - 1);
        }
        size_t n = kt_token_bytes(a->tok, (int32_t)id, &bytes);
        if (n > 0)
            sb_add(&raw, bytes, n);
    }
    if (raw.len > 0)
        utf8_clean(raw.data, raw.len, out);
    out->failed = out->failed || !sb_ok(&raw);
    sb_free(&raw);
    return 0;
}

static void detokenize(struct http_x *x, void *user)
{
    struct app *a = user;
    struct kts_fail f;
    struct strbuf text = {0}, b = {0};
    struct json_out j;
    json_t *o = body_object(a, x);
    if (o == NULL)
        return;
    int rc = detokenize_text(a, o, &text, &f);
    json_decref(o);
    if (rc != 0) {
        app_reply_fail(a, x, &f);
        return;
    }
    jo_init(&j, &b);
    jo_object(&j);
    jo_key(&j, "content");
    jo_strn(&j, text.data == NULL ? "" : text.data, text.len);
    jo_object_end(&j);
    b.failed = b.failed || !sb_ok(&text);
    app_reply_json(x, 200, &b);
    sb_free(&b);
    sb_free(&text);
}

static void not_here(struct http_x *x, void *user)
{
    struct app *a = user;
    struct kts_fail f;
    const char *hint = strncmp(http_path(x), "/v1/assistants", 14) == 0 ||
                               strncmp(http_path(x), "/v1/threads", 11) == 0
                           ? "; /v1/responses is the API that replaces it"
                           : "";
    kts_fail_set(&f, 501, "not_supported", NULL, "%.100s is not available in this version%s",
                 http_path(x), hint);
    app_reply_fail(a, x, &f);
}

#define GET_HEAD (HTTP_GET | HTTP_HEAD)
#define ANY (HTTP_GET | HTTP_HEAD | HTTP_POST | HTTP_PUT | HTTP_DELETE)

/* clang-format off */
const struct http_route route_table[] = {
    {"/", GET_HEAD, HTTP_PUBLIC, false, root},
    {"/health", GET_HEAD, HTTP_PUBLIC, false, health},
    {"/v1/health", GET_HEAD, HTTP_PUBLIC, false, health},
    {"/ready", GET_HEAD, HTTP_PUBLIC, false, health},
    {"/live", GET_HEAD, HTTP_PUBLIC, false, live},
    {"/v1/models", GET_HEAD, HTTP_USER, false, models},
    {"/v1/models/" "*", GET_HEAD, HTTP_USER, false, model},
    {"/v1/chat/completions", HTTP_POST, HTTP_USER, false, exchange_chat},
    {"/chat/completions", HTTP_POST, HTTP_USER, false, exchange_chat},
    {"/v1/completions", HTTP_POST, HTTP_USER, false, exchange_completion},
    {"/completions", HTTP_POST, HTTP_USER, false, exchange_completion},
    {"/tokenize", HTTP_POST, HTTP_USER, false, tokenize},
    {"/detokenize", HTTP_POST, HTTP_USER, false, detokenize},
    {"/props", GET_HEAD, HTTP_USER, false, props},
    {"/metrics", GET_HEAD, HTTP_METRICS, false, route_metrics},
    {"/admin/status", GET_HEAD, HTTP_ADMIN, false, route_admin_status},
    {"/admin/requests", GET_HEAD, HTTP_ADMIN, false, route_admin_requests},
    {"/admin/requests/" "*", HTTP_DELETE, HTTP_ADMIN, false, route_admin_cancel},
    {"/admin/drain", HTTP_POST, HTTP_ADMIN, true, route_admin_drain},
    {"/admin/placement", GET_HEAD, HTTP_ADMIN, false, route_admin_placement},
    {"/v1/responses", ANY, HTTP_USER, true, not_here},
    {"/v1/messages", ANY, HTTP_USER, true, not_here},
    {"/v1/messages/" "*", ANY, HTTP_USER, true, not_here},
    {"/v1/embeddings", ANY, HTTP_USER, true, not_here},
    {"/v1/rerank", ANY, HTTP_USER, true, not_here},
    {"/v1/audio/" "*", ANY, HTTP_USER, true, not_here},
    {"/v1/assistants", ANY, HTTP_USER, true, not_here},
    {"/v1/threads", ANY, HTTP_USER, true, not_here},
    {"/apply-template", ANY, HTTP_USER, true, not_here},
    {"/generate", ANY, HTTP_USER, true, not_here},
    {"/api/" "*", ANY, HTTP_USER, true, not_here},
    {NULL, 0, HTTP_ADMIN, false, NULL},
};
/* clang-format on */
