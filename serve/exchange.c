/* exchange.c - generation requests between HTTP and the scheduler.
 * A request is validated, templated and tokenized before its job is submitted, so that bad input
 * gets a real status. Headers of a stream are held back until the first text, or 5 s of prompt
 * processing, so that late refusals keep their status too. Events of one engine step are one write
 * per client. An exchange lives until its job's terminal event, also when the client is gone; then
 * x is NULL. I/O thread only.
 */
#include "serve/exchange.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/encode.h"
#include "serve/mapper_openai.h"

#define HEADERS_AFTER_NS 5000000000u
#define PING_NS 15000000000u

static void random_id(char *out, size_t n, const char *prefix)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char raw[24] = {0};
    size_t at = strlen(prefix);
    if (getrandom(raw, sizeof raw, 0) < 0)
        memcpy(raw, &(uint64_t){clock_ns()}, 8);
    snprintf(out, n, "%s", prefix);
    for (size_t i = 0; i < sizeof raw && at + 1 < n; i++)
        out[at++] = digits[raw[i] % 62];
    out[at] = '\0';
}

static uint64_t random_seed(void)
{
    uint64_t v = 0;
    if (getrandom(&v, sizeof v, 0) != sizeof v)
        v = clock_ns();
    return v >> 1;
}

/* ---- life of an exchange ---- */

static void forget(struct exchange *e)
{
    *e->prev = e->next;
    if (e->next != NULL)
        e->next->prev = e->prev;
    e->app->n_live--;
    out_openai_free(&e->out);
    sb_free(&e->frames);
    kts_job_free(e->job);
    mem_free(e);
}

static void on_gone(struct http_x *x, void *user)
{
    struct exchange *e = user;
    (void)x;
    e->x = NULL;
    atomic_store(&e->job->cancel, CANCEL_DISCONNECT);
    if (e->app->sched != NULL)
        sched_wake(e->app->sched);
}

static void on_drained(struct http_x *x, void *user)
{
    struct exchange *e = user;
    (void)x;
    atomic_store(&e->job->paused, false);
    if (e->app->sched != NULL)
        sched_wake(e->app->sched);
}

static void log_unknown(const struct app *a, const struct kts_req *r)
{
    met_add(a->met.unknown_fields, r->n_unknown);
    for (uint32_t i = 0; i < r->n_unknown && i < sizeof r->unknown / sizeof r->unknown[0]; i++)
        log_debug("unknown request field '%.80s' is ignored", r->unknown[i]);
}

static struct kts_job *make_job(struct app *a, struct http_x *x, enum kts_api api,
                                struct kts_fail *f)
{
    size_t len;
    const char *body = http_body(x, &len);
    struct kts_job *j = mem_calloc(1, sizeof *j);
    if (j == NULL) {
        kts_fail_set(f, 503, "overloaded", NULL, "no memory for this request");
        return NULL;
    }
    if (mapper_openai(body, len, api, &a->limits, &j->req, f) != 0)
        goto fail;
    log_unknown(a, &j->req);
    if (api == KTS_CHAT && a->chat_error.code != KT_OK) {
        kts_fail_set(f, 501, "not_supported", "messages", "%s", a->chat_error.msg);
        goto fail;
    }
    if (encode_job(a->tok, j, &a->limits, a->longest_token, f) != 0)
        goto fail;
    j->seed = j->req.seed < 0 ? random_seed() : (uint64_t)j->req.seed;
    j->submitted_ns = clock_ns();
    random_id(j->id, api == KTS_CHAT ? 26 : 22, api == KTS_CHAT ? "chatcmpl-" : "cmpl-");
    return j;
fail:
    kts_job_free(j);
    return NULL;
}

static struct exchange *make_exchange(struct app *a, struct http_x *x, struct kts_job *j)
{
    struct exchange *e = mem_calloc(1, sizeof *e);
    if (e == NULL || !out_openai_init(&e->out, j, a->tok, a->model_id)) {
        mem_free(e);
        return NULL;
    }
    e->out.created = (int64_t)time(NULL);
    e->out.fingerprint = a->fingerprint;
    e->app = a;
    e->x = x;
    e->job = j;
    j->owner = e;
    e->next = a->live;
    e->prev = &a->live;
    if (a->live != NULL)
        a->live->prev = &e->next;
    a->live = e;
    a->n_live++;
    return e;
}

static int submit(struct app *a, struct exchange *e, struct kts_fail *f)
{
    switch (sched_submit(a->sched, e->job)) {
    case SUBMIT_OK:
        return 0;
    case SUBMIT_FULL:
        return kts_fail_set(f, 503, "overloaded", NULL,
                            "the queue is full (%u requests or %llu tokens); try again later",
                            (unsigned)a->opt.queue, 4ull * a->limits.ctx);
    case SUBMIT_DRAINING:
        return kts_fail_set(f, 503, "draining", NULL, "the server is shutting down");
    default:
        return kts_fail_set(f, 500, "engine_error", NULL, "the engine failed; the log says why");
    }
}

static void begin(struct http_x *x, struct app *a, enum kts_api api)
{
    char seed[24];
    struct kts_fail f;
    if (app_check_ready(a, x) != 0)
        return;
    struct kts_job *j = make_job(a, x, api, &f);
    if (j == NULL) {
        app_reply_fail(a, x, &f);
        return;
    }
    struct exchange *e = make_exchange(a, x, j);
    if (e == NULL) {
        kts_job_free(j);
        kts_fail_set(&f, 503, "overloaded", NULL, "no memory for this request");
        app_reply_fail(a, x, &f);
        return;
    }
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)j->seed);
    if (submit(a, e, &f) != 0) {
        forget(e);
        app_reply_fail(a, x, &f);
        return;
    }
    http_set_header(x, "x-kt-seed", seed);
    http_set_user(x, e, on_gone, on_drained);
}

void exchange_chat(struct http_x *x, void *user)
{
    begin(x, user, KTS_CHAT);
}

void exchange_completion(struct http_x *x, void *user)
{
    begin(x, user, KTS_COMPLETION);
}

/* ---- events ---- */

/* Frames that are not whole for lack of memory must not be sent: the stream then ends with an
 * error. */
static bool frames_failed(struct exchange *e)
{
    if (sb_ok(&e->frames))
        return false;
    sb_free(&e->frames);
    kts_fail_set(&e->broken, 500, "out_of_memory", NULL,
                 "no memory for the output of this request");
    atomic_store(&e->job->cancel, CANCEL_ADMIN);
    sched_wake(e->app->sched);
    return true;
}

static void write_frames(struct exchange *e)
{
    if (e->x == NULL || frames_failed(e) || e->frames.len == 0)
        return;
    if (!http_stream_started(e->x))
        http_stream_begin(e->x, 200, "text/event-stream");
    http_stream_write(e->x, e->frames.data, e->frames.len);
    sb_clear(&e->frames);
    e->last_write_ns = clock_ns();
    if (e->x != NULL && http_output_pending(e->x) > e->app->opt.max_output_bytes)
        atomic_store(&e->job->paused, true);
}

static void end_error(struct exchange *e, const struct kts_fail *f);

static void end_ok(struct exchange *e)
{
    struct http_x *x = e->x;
    struct strbuf b = {0};
    if (e->job->req.stream) {
        out_openai_done(&e->out, &e->frames);
        if (e->broken.status != 0 || frames_failed(e)) {
            end_error(e, &e->broken);
            return;
        }
        write_frames(e);
        if (e->x == NULL) /* the write found the client gone */
            return;
        http_set_user(x, NULL, NULL, NULL);
        http_stream_end(x);
        return;
    }
    out_openai_reply(&e->out, &b);
    http_set_user(x, NULL, NULL, NULL);
    app_reply_json(x, 200, &b);
    sb_free(&b);
}

static void end_error(struct exchange *e, const struct kts_fail *f)
{
    struct http_x *x = e->x;
    if (http_stream_started(x)) {
        out_openai_error(f, &e->frames);
        write_frames(e);
        if (e->x == NULL)
            return;
        http_set_user(x, NULL, NULL, NULL);
        http_stream_end(x);
        return;
    }
    http_set_user(x, NULL, NULL, NULL);
    app_reply_fail(e->app, x, f);
}

static void handle_event(struct exchange *e, const struct kts_event *ev, struct exchange **dirty)
{
    if (ev->kind == EV_START)
        e->running_since_ns = clock_ns();
    if (e->x == NULL)
        return;
    if (!e->job->req.stream) {
        out_openai_collect(&e->out, ev);
        return;
    }
    out_openai_chunk(&e->out, ev, &e->frames);
    if (e->frames.len > 0 && !e->dirty) {
        e->dirty = true;
        e->next_dirty = *dirty;
        *dirty = e;
    }
}

static void flush_dirty(struct exchange **dirty)
{
    while (*dirty != NULL) {
        struct exchange *e = *dirty;
        *dirty = e->next_dirty;
        e->dirty = false;
        write_frames(e);
    }
}

static void undirty(struct exchange **dirty, struct exchange *e)
{
    for (; *dirty != NULL; dirty = &(*dirty)->next_dirty) {
        if (*dirty == e) {
            *dirty = e->next_dirty;
            return;
        }
    }
}

void exchange_events(struct app *a)
{
    struct exchange *dirty = NULL;
    for (struct kts_event *ev = bridge_take(a->bridge), *next; ev != NULL; ev = next) {
        struct exchange *e = ev->job->owner;
        next = ev->next;
        if (ev->kind != EV_END && ev->kind != EV_ERROR) {
            handle_event(e, ev, &dirty);
            bridge_event_free(ev);
            continue;
        }
        undirty(&dirty, e);
        if (e->x != NULL && ev->kind == EV_END)
            end_ok(e);
        else if (e->x != NULL)
            end_error(e, e->broken.status != 0 ? &e->broken : &e->job->fail);
        forget(e);
    }
    flush_dirty(&dirty);
    if (a->sched != NULL && a->n_live > 0 && bridge_was_full(a->bridge))
        sched_wake(a->sched);
}

void exchange_tick(struct app *a)
{
    uint64_t now = clock_ns();
    for (struct exchange *e = a->live, *next; e != NULL; e = next) {
        next = e->next;
        if (e->x == NULL || !e->job->req.stream || e->running_since_ns == 0)
            continue;
        bool started = http_stream_started(e->x);
        if (!started && now - e->running_since_ns > HEADERS_AFTER_NS) {
            http_stream_begin(e->x, 200, "text/event-stream");
            e->last_write_ns = now;
        } else if (started && now - e->last_write_ns > PING_NS && http_output_pending(e->x) == 0) {
            sb_puts(&e->frames, ": ping\n\n");
            write_frames(e);
        }
    }
}

bool exchange_cancel(struct app *a, const char *id)
{
    for (struct exchange *e = a->live; e != NULL; e = e->next) {
        if (strcmp(e->job->id, id) != 0)
            continue;
        atomic_store(&e->job->cancel, CANCEL_ADMIN);
        sched_wake(a->sched);
        return true;
    }
    return false;
}
