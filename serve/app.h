/* app.h - what the parts of ktserve share: options, event loop, server, engine side, metrics, live
 * requests. Owner: the I/O thread, except for what the engine thread fills before it publishes
 * STATE_READY (engine, tok, sched, info, limits, chat_error) or STATE_FAILED (load_error); after
 * that those are constant.
 */
#ifndef KT_SERVE_APP_H
#define KT_SERVE_APP_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/bar.h"
#include "serve/app_metrics.h"
#include "serve/http.h"
#include "serve/options.h"
#include "serve/sched.h"

enum app_state { STATE_LOADING, STATE_READY, STATE_FAILED };

struct exchange;

struct app {
    struct options opt;
    char model_id[256], fingerprint[64];
    int64_t started_unix;
    uint64_t started_ns;
    struct event_base *base;
    struct http_server *http;
    struct bridge *bridge;
    struct app_metrics met;
    struct exchange *live; /* generation requests that have no terminal event yet */
    uint32_t n_live;
    bool draining;

    pthread_t engine_thread;
    bool engine_started;
    _Atomic int state;                      /* enum app_state */
    struct bar load_bar;                    /* engine thread, while loading */
    _Atomic uint64_t load_done, load_total; /* bytes packed, for the loading message */
    _Atomic bool stop_loading;
    pthread_mutex_t sched_lock; /* guards sched against the engine thread's end */
    kt_engine *engine;
    kt_tokenizer *tok;
    struct sched *sched;
    kt_engine_info info;
    struct kts_limits limits;
    size_t longest_token;          /* bytes */
    kt_err load_error, chat_error; /* chat_error.code KT_OK: chat works */
};

/* state as the admin view names it */
const char *app_state_name(struct app *a);
/* 0 when requests can be served; else the refusal is sent (503 loading or draining). */
int app_check_ready(struct app *a, struct http_x *x);
/* Send a refusal with the headers that its status wants. */
void app_reply_fail(struct app *a, struct http_x *x, const struct kts_fail *f);
/* Send a JSON body that may have failed for memory. */
void app_reply_json(struct http_x *x, int status, struct strbuf *b);
/* Stop accepting, refuse the queue, let running requests end. Returns at once. */
void app_drain(struct app *a);

#endif
