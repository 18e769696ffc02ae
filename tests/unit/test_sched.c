/* test_sched.c - scheduler, streams and replies over the fake engine: the test's thread plays the
 * I/O thread, the scheduler has its own. Each job carries a record of what came back: chunks of its
 * stream, its whole reply, its terminal event.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fake_kt.h"
#include "serve/encode.h"
#include "serve/mapper_openai.h"
#include "serve/out_openai.h"
#include "serve/sched.h"

struct world {
    kt_engine *engine;
    kt_tokenizer *tok;
    struct bridge *bridge;
    struct sched *sched;
    struct kts_limits lim;
    struct met_registry *reg;
    struct sched_metrics met;
    pthread_t thread;
    uint32_t live;
};

struct record {
    struct out_openai out;
    struct strbuf sse, reply;
    bool ended, ok;
    struct kts_fail fail;
    uint32_t n_events;
    struct kts_job *job;
};

static const double bounds[] = {1};
static const struct met_def d_requests = {MET_COUNTER, "r_total", "r", {"reason"}, NULL, 0};
static const struct met_def d_tokens = {MET_COUNTER, "t_total", "t", {NULL}, NULL, 0};
static const struct met_def d_prompt = {MET_COUNTER, "p_total", "p", {NULL}, NULL, 0};
static const struct met_def d_ttft = {MET_HISTOGRAM, "ttft_seconds", "f", {NULL}, bounds, 1};

static void *engine_thread(void *user)
{
    sched_run(user);
    return NULL;
}

struct setup {
    uint32_t parallel, batch, ctx, queue, max_events;
    int pages, step_us;
    uint64_t queue_ns, request_ns;
};

static void open_world(struct world *w, const struct setup *s)
{
    static const char *const reasons[] = {"stop", "length", "abort", "error"};
    kt_engine_opts o;
    kt_err err;
    memset(w, 0, sizeof *w);
    atomic_store(&fake_kv_pages, s->pages ? s->pages : 4096);
    atomic_store(&fake_step_us, s->step_us);
    atomic_store(&fake_most_items, 0);
    kt_engine_opts_init(&o);
    o.max_seqs = s->parallel ? s->parallel : 16;
    o.batch_tokens = s->batch ? s->batch : 64;
    o.ctx_tokens = s->ctx ? s->ctx : 1024;
    assert_int_equal(kt_engine_open(&o, &w->engine, &err), KT_OK);
    assert_int_equal(kt_tokenizer_open(NULL, NULL, &w->tok, &err), KT_OK);
    assert_int_equal(bridge_open(s->max_events ? s->max_events : 1000, &w->bridge, &err), KT_OK);
    w->reg = met_open();
    for (int i = 0; i < REASON_COUNT; i++)
        w->met.requests[i] = met_series(w->reg, &d_requests, &reasons[i]);
    w->met.generated_tokens = met_series(w->reg, &d_tokens, NULL);
    w->met.prompt_tokens = met_series(w->reg, &d_prompt, NULL);
    w->met.ttft = met_series(w->reg, &d_ttft, NULL);
    w->lim = (struct kts_limits){.ctx = o.ctx_tokens, .vocab = FAKE_VOCAB, .model_id = "demo"};
    kt_sampling_defaults(w->tok, &w->lim.defaults);
    struct sched_config c = {.engine = w->engine,
                             .tok = w->tok,
                             .events = w->bridge,
                             .met = w->met,
                             .ctx = o.ctx_tokens,
                             .queue_requests = s->queue ? s->queue : 256,
                             .queue_tokens = 1 << 20,
                             .latency_target_ns = 200000000,
                             .queue_deadline_ns = s->queue_ns ? s->queue_ns : 300000000000u,
                             .request_deadline_ns = s->request_ns ? s->request_ns : 3600000000000u};
    assert_int_equal(sched_open(&c, &w->sched, &err), KT_OK);
    assert_int_equal(pthread_create(&w->thread, NULL, engine_thread, w->sched), 0);
}

static struct record *make(struct world *w, enum kts_api api, const char *body)
{
    struct kts_fail f;
    struct record *r = calloc(1, sizeof *r);
    struct kts_job *j = mem_calloc(1, sizeof *j);
    if (mapper_openai(body, strlen(body), api, &w->lim, &j->req, &f) != 0 ||
        encode_job(w->tok, j, &w->lim, 12, &f) != 0)
        fail_msg("%s: %s", body, f.msg);
    j->seed = j->req.seed < 0 ? 1 : (uint64_t)j->req.seed;
    j->submitted_ns = clock_ns();
    snprintf(j->id, sizeof j->id, "chatcmpl-1");
    j->owner = r;
    r->job = j;
    assert_true(out_openai_init(&r->out, j, w->tok, "demo"));
    r->out.created = 1767225600;
    r->out.fingerprint = "f";
    return r;
}

static struct record *submit(struct world *w, enum kts_api api, const char *body)
{
    struct record *r = make(w, api, body);
    assert_int_equal(sched_submit(w->sched, r->job), SUBMIT_OK);
    w->live++;
    return r;
}

static void end_record(struct world *w, struct record *r, const struct kts_event *e)
{
    assert_false(r->ended);
    r->ended = true;
    r->ok = e->kind == EV_END;
    r->fail = r->job->fail;
    if (r->ok && r->job->req.stream)
        out_openai_done(&r->out, &r->sse);
    else if (r->ok)
        out_openai_reply(&r->out, &r->reply);
    w->live--;
}

/* Handle what has come, waiting at most ms for something. */
static void pump(struct world *w, int ms)
{
    struct pollfd p = {.fd = bridge_fd(w->bridge), .events = POLLIN};
    poll(&p, 1, ms);
    for (struct kts_event *e = bridge_take(w->bridge), *next; e != NULL; e = next) {
        struct record *r = e->job->owner;
        next = e->next;
        r->n_events++;
        assert_false(r->ended);
        if (e->kind == EV_END || e->kind == EV_ERROR) {
            end_record(w, r, e);
        } else {
            if (r->job->req.stream)
                out_openai_chunk(&r->out, e, &r->sse);
            else
                out_openai_collect(&r->out, e);
            bridge_event_free(e);
        }
    }
    if (bridge_was_full(w->bridge))
        sched_wake(w->sched);
}

static void finish(struct world *w, struct record *r)
{
    for (int i = 0; i < 2000 && !r->ended; i++)
        pump(w, 20);
    assert_true(r->ended);
}

static void drop(struct record *r)
{
    assert_true(r->ended);
    out_openai_free(&r->out);
    kts_job_free(r->job);
    sb_free(&r->sse);
    sb_free(&r->reply);
    free(r);
}

static void close_world(struct world *w)
{
    assert_int_equal(w->live, 0);
    sched_stop(w->sched);
    pthread_join(w->thread, NULL);
    assert_int_equal(atomic_load(&fake_seqs_open), 0);
    sched_close(w->sched);
    kt_engine_close(w->engine);
    kt_tokenizer_close(w->tok);
    bridge_close(w->bridge);
    met_close(w->reg);
}

static void wait_for_steps(int n)
{
    int start = atomic_load(&fake_steps);
    for (int i = 0; i < 5000 && atomic_load(&fake_steps) - start < n; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    assert_true(atomic_load(&fake_steps) - start >= n);
}

static const char *text_of(const struct record *r)
{
    const char *s = r->out.choices[0].text.data;
    return s == NULL ? "" : s;
}

#define SAY(text)                                                                                  \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"say:" text "\"}],\"temperature\":0"

static void whole_reply(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){0});
    struct record *r = submit(&w, KTS_CHAT, SAY("Hello \\u00e9!") "}");
    finish(&w, r);
    assert_string_equal(r->reply.data,
                        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":"
                        "1767225600,\"model\":\"demo\",\"system_fingerprint\":\"f\","
                        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                        "\"Hello \xc3\xa9!\",\"reasoning_content\":null},"
                        "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_"
                        "tokens\":20,\"completion_tokens\":10,\"total_tokens\":30,"
                        "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_"
                        "details\":{\"reasoning_tokens\":0}}}");
    assert_true(met_value(w.met.requests[REASON_STOP]) == 1 &&
                met_value(w.met.generated_tokens) == 10 && met_value(w.met.prompt_tokens) == 20);
    drop(r);
    close_world(&w);
}

static void stream_order(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){0});
    struct record *r =
        submit(&w, KTS_CHAT,
               SAY("\\u00e9x") ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    finish(&w, r);
#define CHUNK(delta, finish)                                                                       \
    "data: "                                                                                       \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,"          \
    "\"model\":\"demo\",\"choices\":[{\"index\":0,"                                                \
    "\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish "}],\"usage\":null}\n\n"
    assert_string_equal(
        r->sse.data,
        CHUNK("\"role\":\"assistant\",\"content\":\"\"", "null")
            CHUNK("\"content\":\"\xc3\xa9\"", "null") CHUNK("\"content\":\"x\"", "null")
                CHUNK("", "\"stop\"") "data: "
                                      "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                                      "\"created\":1767225600,\"model\":\"demo\","
                                      "\"choices\":[],\"usage\":{\"prompt_tokens\":14,\"completion_"
                                      "tokens\":4,\"total_tokens\":18,"
                                      "\"prompt_tokens_details\":{\"cached_tokens\":0},"
                                      "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n\n"
                                      "data: [DONE]\n\n");
    drop(r);
    close_world(&w);
}

static void lengths_and_stops(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.ctx = 64});
    struct record *r = submit(&w, KTS_CHAT, SAY("abcdefgh") ",\"max_tokens\":3}");
    finish(&w, r);
    assert_string_equal(text_of(r), "abc");
    assert_int_equal(r->out.choices[0].finish, FINISH_LENGTH);
    drop(r);
    r = submit(&w, KTS_CHAT, SAY("abcdefgh") ",\"stop\":[\"zz\",\"def\"],\"logprobs\":true}");
    finish(&w, r);
    assert_string_equal(text_of(r), "abc");
    assert_int_equal(r->out.choices[0].finish, FINISH_STOP);
    json_t *v = json_loads(r->reply.data, 0, NULL);
    json_t *content;
    assert_int_equal(json_unpack(v, "{s:[{s:{s:o}}]}", "choices", "logprobs", "content", &content),
                     0);
    assert_int_equal(json_array_size(content), 3); /* tokens of the stop string are not shown */
    json_decref(v);
    drop(r);
    r = submit(&w, KTS_COMPLETION,
               "{\"prompt\":\"no end\",\"temperature\":0}"); /* to the end of the context */
    finish(&w, r);
    assert_int_equal(r->out.choices[0].finish, FINISH_LENGTH);
    assert_int_equal(r->out.choices[0].n_generated, 64 - 6);
    drop(r);
    r = submit(
        &w, KTS_CHAT,
        SAY("ab") ",\"min_tokens\":4,\"max_tokens\":8}"); /* the end token is banned until then */
    finish(&w, r);
    assert_true(r->out.choices[0].n_generated >= 4);
    drop(r);
    r = submit(&w, KTS_COMPLETION,
               "{\"prompt\":\"say:abc~\",\"temperature\":0,\"stop_token_ids\":[98]}");
    finish(&w, r);
    assert_string_equal(text_of(r), "a");
    drop(r);
    r = submit(&w, KTS_CHAT, SAY("abab") ",\"logit_bias\":{\"98\":-100}}");
    finish(&w, r);
    assert_null(strchr(text_of(r), 'b'));
    drop(r);
    close_world(&w);
}

static void echo_and_legacy_logprobs(void **state)
{
    struct world w;
    json_t *tokens, *lps, *tops, *offsets;
    const char *text;
    (void)state;
    open_world(&w, &(struct setup){0});
    struct record *r =
        submit(&w, KTS_COMPLETION,
               "{\"prompt\":\"say:hi~\",\"temperature\":0,\"echo\":true,\"logprobs\":2}");
    finish(&w, r);
    json_t *v = json_loads(r->reply.data, 0, NULL);
    assert_int_equal(json_unpack(v, "{s:[{s:s,s:{s:o,s:o,s:o,s:o}}]}", "choices", "text", &text,
                                 "logprobs", "tokens", &tokens, "token_logprobs", &lps,
                                 "top_logprobs", &tops, "text_offset", &offsets),
                     0);
    assert_string_equal(text, "say:hi~hi");
    assert_int_equal(json_array_size(tokens), 9);
    assert_int_equal(json_array_size(lps), 9);
    assert_true(json_is_null(json_array_get(lps, 0)) && json_is_null(json_array_get(tops, 0)));
    for (size_t i = 0; i < 9; i++)
        assert_int_equal(json_integer_value(json_array_get(offsets, i)), i);
    assert_true(json_real_value(json_array_get(lps, 8)) < 0 &&
                json_object_size(json_array_get(tops, 8)) == 2);
    json_decref(v);
    drop(r);
    r = submit(&w, KTS_COMPLETION,
               "{\"prompt\":[\"a long prompt that takes several chunks of sixteen "
               "tokens\",\"b\"],\"max_tokens\":0,\"echo\":true,\"logprobs\":0}");
    finish(&w, r); /* scoring only */
    v = json_loads(r->reply.data, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(v, "choices")), 2);
    assert_int_equal(json_unpack(v, "{s:[{s:s,s:{s:o}}]}", "choices", "text", &text, "logprobs",
                                 "token_logprobs", &lps),
                     0);
    assert_int_equal(json_array_size(lps), strlen(text));
    json_decref(v);
    drop(r);
    close_world(&w);
}

static char *sampled(struct world *w, const char *extra, uint32_t choice)
{
    char body[400];
    snprintf(body, sizeof body, "{\"prompt\":\"sampled text %s\",\"max_tokens\":40,\"seed\":42%s}",
             "x", extra);
    struct record *r = submit(w, KTS_COMPLETION, body);
    finish(w, r);
    char *s = strdup(r->out.choices[choice].text.data);
    drop(r);
    return s;
}

/* The same seed gives the same text alone, in a full batch, as a choice of n, after a pause, and
 * with other chunk sizes. */
static void seeds_are_kept(void **state)
{
    struct world w;
    struct record *busy[8];
    (void)state;
    open_world(&w, &(struct setup){0});
    char *alone = sampled(&w, "", 0), *of_two = sampled(&w, ",\"n\":2", 0),
         *second = sampled(&w, ",\"n\":2", 1);
    assert_string_equal(alone, of_two);
    assert_string_not_equal(alone, second);
    atomic_store(&fake_hold,
                 true); /* until all are there: else the first could end before the last */
    for (int i = 0; i < 8; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"prompt\":\"sampled text x\",\"max_tokens\":40,\"seed\":%d}",
                 i == 5 ? 42 : i);
        busy[i] = submit(&w, KTS_COMPLETION, body);
    }
    atomic_store(&fake_hold, false);
    for (int i = 0; i < 8; i++)
        finish(&w, busy[i]);
    assert_string_equal(busy[5]->out.choices[0].text.data, alone);
    assert_string_not_equal(busy[4]->out.choices[0].text.data, alone);
    assert_true(atomic_load(&fake_most_items) >= 4);
    for (int i = 0; i < 8; i++)
        drop(busy[i]);
    close_world(&w);
    open_world(&w, &(struct setup){.batch = 3});
    char *small = sampled(&w, "", 0);
    assert_string_equal(small, alone);
    free(alone), free(of_two), free(second), free(small);
    close_world(&w);
}

static void n_and_best_of(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.parallel = 3});
    struct record *r = submit(&w, KTS_CHAT, SAY("yes") ",\"n\":5,\"stream\":true}");
    finish(&w, r);
    int roles = 0, stops = 0;
    for (const char *s = r->sse.data; (s = strstr(s, "\"role\"")) != NULL; s++)
        roles++;
    for (const char *s = r->sse.data; (s = strstr(s, "\"stop\"")) != NULL; s++)
        stops++;
    assert_true(roles == 5 && stops == 5);
    assert_null(strstr(r->sse.data, "usage"));
    drop(r);
    r = submit(&w, KTS_COMPLETION,
               "{\"prompt\":\"x\",\"max_tokens\":5,\"n\":2,\"best_of\":4,\"seed\":3}");
    finish(&w, r);
    json_t *v = json_loads(r->reply.data, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(v, "choices")), 2);
    json_decref(v);
    double best = -1e9;
    for (int i = 0; i < 4; i++)
        best = r->out.choices[i].sum_logprob > best ? r->out.choices[i].sum_logprob : best;
    for (int i = 0; i < 4; i++)
        if (r->out.choices[i].sum_logprob == best)
            assert_non_null(
                strstr(strstr(r->reply.data, "\"index\":0"), r->out.choices[i].text.data));
    drop(r);
    close_world(&w);
}

static void cancel(struct world *w, struct record *r)
{
    atomic_store(&r->job->cancel, CANCEL_DISCONNECT);
    sched_wake(w->sched);
    finish(w, r);
    assert_false(r->ok);
    drop(r);
}

/* Within one step of a disconnect the pages are free: in the queue, while the prompt is computed,
 * while tokens are made. */
static void cancellation(void **state)
{
    struct world w;
    char prompt[1200];
    (void)state;
    open_world(&w, &(struct setup){.parallel = 1, .step_us = 3000, .batch = 16});
    struct record *a = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"stream\":true}"),
                  *b = submit(&w, KTS_COMPLETION, "{\"prompt\":\"y\"}");
    wait_for_steps(3);
    cancel(&w, b); /* in the queue */
    assert_int_equal(atomic_load(&fake_seqs_open), 1);
    int before = atomic_load(&fake_steps);
    cancel(&w, a);
    assert_int_equal(atomic_load(&fake_seqs_open), 0);
    assert_true(atomic_load(&fake_steps) - before <=
                2); /* the one that ran, and one that began meanwhile */
    int n = snprintf(prompt, sizeof prompt, "{\"prompt\":\"");
    memset(prompt + n, 'p', 900);
    snprintf(prompt + n + 900, sizeof prompt - (size_t)n - 900, "\"}");
    a = submit(&w, KTS_COMPLETION, prompt);
    wait_for_steps(2);
    cancel(&w, a);
    assert_int_equal(atomic_load(&fake_seqs_open), 0);
    assert_true(met_value(w.met.requests[REASON_ABORT]) == 3);
    close_world(&w);
}

static void pages_are_waited_for(void **state)
{
    struct world w;
    struct record *r[6];
    (void)state;
    open_world(&w,
               &(struct setup){.pages = 8, .ctx = 128}); /* room for two requests of 64 tokens */
    for (int i = 0; i < 6; i++)
        r[i] = submit(&w, KTS_COMPLETION, "{\"prompt\":\"abcd\",\"max_tokens\":60}");
    for (int i = 0; i < 6; i++) {
        finish(&w, r[i]);
        assert_true(r[i]->ok && r[i]->out.choices[0].n_generated == 60);
    }
    assert_true(atomic_load(&fake_most_items) == 2);
    for (int i = 0; i < 6; i++)
        drop(r[i]);
    close_world(&w);
}

static void queue_limit(void **state)
{
    struct world w;
    struct record *r[3];
    struct sched_view v;
    (void)state;
    open_world(&w, &(struct setup){.parallel = 1, .queue = 2, .step_us = 2000});
    r[0] = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":50}");
    wait_for_steps(2);
    r[1] = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":2}");
    r[2] = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":2}");
    struct record *over = make(&w, KTS_COMPLETION, "{\"prompt\":\"x\"}");
    assert_int_equal(sched_submit(w.sched, over->job), SUBMIT_FULL);
    sched_get_view(w.sched, &v);
    assert_true(v.waiting == 2 && v.running == 1 && v.retry_after_s >= 1 && v.retry_after_s <= 60);
    over->ended = true;
    drop(over);
    for (int i = 0; i < 3; i++) {
        finish(&w, r[i]);
        drop(r[i]);
    }
    close_world(&w);
}

static void drain_and_abort(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.parallel = 1, .step_us = 2000});
    struct record *a = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":30}"),
                  *b = submit(&w, KTS_COMPLETION, "{\"prompt\":\"y\"}");
    wait_for_steps(2);
    sched_drain(w.sched);
    finish(&w, b);
    assert_true(!b->ok && b->fail.status == 503 && strcmp(b->fail.code, "draining") == 0);
    struct record *late = make(&w, KTS_COMPLETION, "{\"prompt\":\"x\"}");
    assert_int_equal(sched_submit(w.sched, late->job), SUBMIT_DRAINING);
    late->ended = true;
    drop(late);
    finish(&w, a);
    assert_true(a->ok && a->out.choices[0].n_generated == 30);
    drop(a), drop(b);
    close_world(&w);
    open_world(&w, &(struct setup){.parallel = 2, .step_us = 2000});
    a = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"n\":2}");
    wait_for_steps(2);
    sched_abort(w.sched);
    finish(&w, a);
    assert_true(!a->ok && a->fail.status == 503);
    drop(a);
    close_world(&w);
}

static void errors_stay_with_their_request(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.step_us = 500});
    struct record *good = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":50}"),
                  *bad = submit(&w, KTS_COMPLETION, "{\"prompt\":\"nan!\",\"n\":2}");
    finish(&w, bad);
    finish(&w, good);
    assert_true(good->ok && !bad->ok && bad->fail.status == 500);
    drop(good), drop(bad);
    good = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\"}");
    struct record *dev = submit(&w, KTS_COMPLETION, "{\"prompt\":\"dev!\",\"n\":3}");
    finish(&w, dev);
    finish(&w, good);
    assert_true(!dev->ok && !good->ok);
    drop(dev), drop(good);
    struct record *late = make(&w, KTS_COMPLETION, "{\"prompt\":\"x\"}");
    assert_int_equal(sched_submit(w.sched, late->job), SUBMIT_BROKEN);
    late->ended = true;
    drop(late);
    close_world(&w);
}

static void slow_clients_pause(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.step_us = 500});
    struct record *slow = submit(&w, KTS_COMPLETION,
                                 "{\"prompt\":\"x\",\"max_tokens\":300,\"stream\":true}"),
                  *fast;
    wait_for_steps(3);
    atomic_store(&slow->job->paused, true);
    fast = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":100}");
    finish(&w, fast);
    uint32_t made = atomic_load(&slow->job->generated);
    drop(fast);
    fast = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":20}");
    finish(&w, fast);
    assert_int_equal(atomic_load(&slow->job->generated), made);
    assert_false(slow->ended);
    drop(fast);
    atomic_store(&slow->job->paused, false);
    sched_wake(w.sched);
    finish(&w, slow);
    assert_int_equal(slow->out.choices[0].n_generated, 300);
    drop(slow);
    close_world(&w);
}

static void event_queue_is_bounded(void **state)
{
    struct world w;
    (void)state;
    open_world(&w, &(struct setup){.max_events = 8});
    struct record *r =
        submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":200,\"stream\":true}");
    nanosleep(&(struct timespec){0, 100000000}, NULL); /* nobody takes events meanwhile */
    assert_true(atomic_load(&r->job->generated) < 30);
    finish(&w, r);
    assert_int_equal(r->out.choices[0].n_generated, 200);
    drop(r);
    close_world(&w);
}

static void deadlines(void **state)
{
    struct world w;
    (void)state;
    /* a quarter of a second: a busy host may leave the engine's thread without a core for long
     * enough that the first request, too, waits its 50 ms */
    open_world(&w,
               &(struct setup){
                   .parallel = 1, .step_us = 2000, .queue_ns = 250000000, .request_ns = 900000000});
    struct record *a = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\"}"),
                  *b = submit(&w, KTS_COMPLETION, "{\"prompt\":\"y\"}");
    finish(&w, b);
    assert_true(!b->ok && b->fail.status == 503 && strcmp(b->fail.code, "queue_timeout") == 0);
    finish(&w, a);
    assert_true(a->ok && a->out.choices[0].finish == FINISH_LENGTH &&
                a->out.choices[0].n_generated > 0);
    drop(a), drop(b);
    close_world(&w);
}

static void idle_sleeps(void **state)
{
    struct world w;
    struct rusage before, after;
    (void)state;
    open_world(&w, &(struct setup){0});
    struct record *r = submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":3}");
    finish(&w, r);
    drop(r);
    int steps = atomic_load(&fake_steps);
    getrusage(RUSAGE_SELF, &before);
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    getrusage(RUSAGE_SELF, &after);
    assert_int_equal(atomic_load(&fake_steps), steps);
    double used = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                  1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec);
    assert_true(used < 0.05);
    close_world(&w);
}

/* Decoding goes on while a long prompt is computed: at most two tokens of time pass between two
 * tokens. */
static void prompts_do_not_stop_decoding(void **state)
{
    struct world w;
    char prompt[1200];
    (void)state;
    open_world(&w, &(struct setup){.step_us = 1000, .batch = 16});
    struct record *a =
        submit(&w, KTS_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":500,\"stream\":true}");
    wait_for_steps(3);
    int n = snprintf(prompt, sizeof prompt, "{\"max_tokens\":1,\"prompt\":\"");
    memset(prompt + n, 'p', 900);
    snprintf(prompt + n + 900, sizeof prompt - (size_t)n - 900, "\"}");
    uint32_t made = atomic_load(&a->job->generated);
    struct record *b = submit(&w, KTS_COMPLETION, prompt);
    finish(&w, b);
    assert_true(atomic_load(&a->job->generated) - made >= 900 / 16); /* one per step */
    finish(&w, a);
    drop(a), drop(b);
    close_world(&w);
}

/* Whatever allocation fails while a request runs: it ends once, as a whole reply or as an error,
 * and the next one works. */
static void memory_may_be_short(void **state)
{
    static const char *const bodies[] = {
        SAY("Hello \\u00e9!") ",\"n\":2,\"logprobs\":true,\"top_logprobs\":3,\"presence_penalty\":"
                              "0.1,\"stop\":\"zz\"}",
        "{\"prompt\":\"say:abc~\",\"echo\":true,\"logprobs\":2,\"temperature\":0}"};
    struct world w;
    struct record *r;
    (void)state;
    open_world(&w, &(struct setup){0});
    for (int k = 0; k < 2; k++) {
        enum kts_api api = k == 0 ? KTS_CHAT : KTS_COMPLETION;
        r = submit(&w, api, bodies[k]);
        finish(&w, r);
        char *want = strdup(r->reply.data);
        drop(r);
        bool whole = false;
        for (long n = 0; n < 400 && !whole; n++) {
            r = make(&w, api, bodies[k]);
            mem_fail_after(n);
            assert_int_equal(sched_submit(w.sched, r->job), SUBMIT_OK);
            w.live++;
            finish(&w, r);
            mem_fail_after(-1);
            whole = r->ok && sb_ok(&r->reply);
            if (whole)
                assert_string_equal(r->reply.data, want);
            drop(r);
        }
        assert_true(whole);
        free(want);
    }
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_reply),
        cmocka_unit_test(stream_order),
        cmocka_unit_test(lengths_and_stops),
        cmocka_unit_test(echo_and_legacy_logprobs),
        cmocka_unit_test(seeds_are_kept),
        cmocka_unit_test(n_and_best_of),
        cmocka_unit_test(cancellation),
        cmocka_unit_test(pages_are_waited_for),
        cmocka_unit_test(queue_limit),
        cmocka_unit_test(drain_and_abort),
        cmocka_unit_test(errors_stay_with_their_request),
        cmocka_unit_test(slow_clients_pause),
        cmocka_unit_test(event_queue_is_bounded),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(idle_sleeps),
        cmocka_unit_test(prompts_do_not_stop_decoding),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
