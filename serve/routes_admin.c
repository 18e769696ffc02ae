/* routes_admin.c - metrics and the admin views: status, requests, drain, placement.
 * Views show no prompt or output text. Mutating actions are logged with the name of the key. I/O
 * thread only.
 */
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/sha256.h"
#include "config.h"
#include "serve/exchange.h"
#include "serve/placement_view.h"
#include "serve/routes.h"

void route_metrics(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    enum met_format f = met_negotiate(http_header(x, "Accept"));
    met_expose(a->met.reg, f, &b);
    if (sb_ok(&b))
        http_reply(x, 200, met_content_type(f), b.data, b.len);
    else
        http_reply_error(x, 503, "unavailable_error", "overloaded", NULL,
                         "no memory for the reply");
    sb_free(&b);
}

static void put_engine(struct app *a, struct json_out *j)
{
    char hash[65];
    const kt_engine_info *i = &a->info;
    sha256_hex(i->plan_text, strlen(i->plan_text), hash);
    jo_kstr(j, "plan_hash", hash);
    jo_kstr(j, "profile_id", i->profile_id);
    jo_kstr(j, "profile_state", i->profile_state);
    jo_kstr(j, "kernel", i->kernel);
    jo_kstr(j, "arch", i->arch);
    jo_kstr(j, "kv_type", i->kv_type);
    jo_kbool(j, "strict", i->strict);
    jo_kuint(j, "threads", i->n_threads);
    jo_kuint(j, "weight_bytes", i->weight_bytes);
    jo_kuint(j, "kv_bytes", i->kv_bytes);
    jo_key(j, "limits");
    jo_object(j);
    jo_kuint(j, "ctx", a->limits.ctx);
    jo_kuint(j, "parallel", i->max_seqs);
    jo_kuint(j, "batch_tokens", i->batch_tokens);
    jo_kuint(j, "queue", a->opt.queue);
    jo_kuint(j, "kv_tokens", i->kv_pages * i->kv_page_tokens);
    jo_object_end(j);
}

void route_admin_status(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    struct json_out j;
    struct sched_view v = {0};
    bool ready = atomic_load(&a->state) == STATE_READY;
    if (ready)
        sched_get_view(a->sched, &v);
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "version", PACKAGE_VERSION);
    jo_kstr(&j, "build", KT_GIT);
    jo_kstr(&j, "state", v.broken ? "failed" : app_state_name(a));
    jo_kreal(&j, "uptime_s", (double)(clock_ns() - a->started_ns) * 1e-9);
    jo_kstr(&j, "model", a->model_id);
    jo_kuint(&j, "requests", a->n_live);
    jo_kuint(&j, "running", v.running);
    jo_kuint(&j, "waiting", v.waiting);
    if (ready) {
        put_engine(a, &j);
    } else {
        jo_kuint(&j, "load_done_bytes", atomic_load(&a->load_done));
        jo_kuint(&j, "load_total_bytes", atomic_load(&a->load_total));
    }
    jo_object_end(&j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

void route_admin_requests(struct http_x *x, void *user)
{
    static const char *const states[] = {"queued", "prefill", "decode"};
    struct app *a = user;
    struct strbuf b = {0};
    struct json_out j;
    uint64_t now = clock_ns();
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "object", "list");
    jo_key(&j, "data");
    jo_array(&j);
    for (const struct exchange *e = a->live; e != NULL; e = e->next) {
        uint32_t made = atomic_load(&e->job->generated);
        double seconds = e->running_since_ns == 0 ? 0 : (double)(now - e->running_since_ns) * 1e-9;
        jo_object(&j);
        jo_kstr(&j, "id", e->job->id);
        jo_kstr(&j, "api", e->job->req.api == KTS_CHAT ? "chat" : "completions");
        jo_kstr(&j, "key", e->x == NULL ? "" : http_key_name(e->x));
        jo_kstr(&j, "state",
                e->x == NULL                   ? "cancelling"
                : atomic_load(&e->job->paused) ? "paused"
                                               : states[atomic_load(&e->job->state)]);
        jo_kint(&j, "priority", 0);
        jo_kreal(&j, "age_s", (double)(now - e->job->submitted_ns) * 1e-9);
        jo_kuint(&j, "prompt_tokens", e->job->n_prompt_tokens);
        jo_kuint(&j, "cached_tokens", 0);
        jo_kuint(&j, "generated_tokens", made);
        jo_kreal(&j, "tokens_per_second", seconds > 0 ? made / seconds : 0);
        jo_object_end(&j);
    }
    jo_array_end(&j);
    jo_object_end(&j);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

void route_admin_cancel(struct http_x *x, void *user)
{
    struct app *a = user;
    struct kts_fail f;
    if (!exchange_cancel(a, http_tail(x))) {
        kts_fail_set(&f, 404, "not_found", NULL, "there is no running request with this id");
        app_reply_fail(a, x, &f);
        return;
    }
    log_info("request %.60s cancelled by key '%s'", http_tail(x), http_key_name(x));
    http_reply(x, 200, "application/json", "{\"status\":\"cancelled\"}", 22);
}

void app_drain(struct app *a)
{
    if (a->draining)
        return;
    a->draining = true;
    if (atomic_load(&a->state) == STATE_READY)
        sched_drain(a->sched);
    http_server_drain(a->http);
}

void route_admin_drain(struct http_x *x, void *user)
{
    struct app *a = user;
    log_info("drain asked for by key '%s'", http_key_name(x));
    http_reply(x, 200, "application/json", "{\"status\":\"draining\"}", 21);
    app_drain(a);
}

void route_admin_placement(struct http_x *x, void *user)
{
    struct app *a = user;
    struct strbuf b = {0};
    struct timespec t;
    const char *accept = http_header(x, "Accept");
    if (atomic_load(&a->state) != STATE_READY) {
        struct kts_fail f;
        kts_fail_set(&f, 503, "model_loading", NULL, "Loading model");
        app_reply_fail(a, x, &f);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &t);
    struct placement_in in = {.info = &a->info,
                              .counts = kt_engine_expert_counts(a->engine),
                              .time = (double)t.tv_sec + (double)t.tv_nsec * 1e-9,
                              .uptime_s = (double)(clock_ns() - a->started_ns) * 1e-9,
                              .capacity_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) *
                                                (uint64_t)sysconf(_SC_PAGESIZE)};
    bool text = accept != NULL && strncasecmp(accept, "text/plain", 10) == 0;
    if (text)
        placement_text(&in, &b);
    else
        placement_json(&in, &b);
    if (text && sb_ok(&b))
        http_reply(x, 200, "text/plain; charset=utf-8", b.data, b.len);
    else
        app_reply_json(x, 200, &b);
    sb_free(&b);
}
