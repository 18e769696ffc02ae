/* sched.c - the engine thread's loop (see sched.h).
 * Incoming jobs and flags cross under one lock; everything else belongs to the engine thread.
 * Admission is first come, first served: the head of the queue waits for pages and nothing
 * overtakes it, so no request starves. Choices of one request are admitted one by one, each as a
 * sequence of its own. Buffers are made at open; a step allocates only the events that it sends.
 * Invariant: each job that was submitted ends with exactly one terminal event.
 */
#include "serve/sched.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/status.h"
#include "serve/seqrun.h"

#define PROMPT_ROWS                                                                                \
    16 /* prompt tokens per step whose logits are looked at (echo with logprobs)                   \
        */
#define MIN_CHUNK 16u
#define TICK_NS 250000000u /* how often a sleeping loop looks at deadlines */
#define FULL_TICK_NS 5000000u

struct sched {
    struct sched_config c;
    kt_engine_info info;

    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct kts_job *inbox, **inbox_last; /* guarded by lock */
    uint32_t waiting; /* guarded by lock: jobs with choices not yet admitted, inbox included */
    uint64_t waiting_tokens;                   /* guarded by lock */
    bool woken, draining, abort, stop, broken; /* guarded by lock */
    _Atomic uint32_t running_view;
    _Atomic uint64_t moved_ns,
        duration_ns; /* last loop turn with work, 0 when idle; smoothed request duration */
    _Atomic uint64_t decode_ns, decode_weight_bytes, decode_kv_bytes; /* see sched_view */

    /* engine thread */
    struct kts_job *queue, **queue_last;
    struct seq **run; /* [max_seqs] admitted sequences in order of admission */
    uint32_t n_run, first_decode;
    kt_batch_item *items; /* [max_seqs] */
    struct seq **who;     /* [max_seqs] the sequence of each item */
    float *rows;          /* [max_seqs][vocab] */
    float *prompt_rows;   /* [PROMPT_ROWS][vocab] */
    double prefill_ns_per_token;
    uint64_t weight_bytes, kv_bytes; /* that all steps so far read */
    struct seq_env env;
};

/* ---- open, close, flags ---- */

static kt_status self_test(struct sched *s, kt_err *err)
{
    kt_seq *q;
    int32_t id = 0;
    KT_TRY(kt_seq_open(s->c.engine, 1, &q, err));
    kt_batch_item item = {.seq = q, .ids = &id, .n = 1, .logits = s->rows};
    kt_status st = kt_step(s->c.engine, &item, 1, err);
    kt_seq_close(q);
    KT_TRY(st);
    kt_sampling greedy = {.temperature = 0, .top_k = -1, .top_p = 1};
    if (item.result != KT_OK ||
        kt_sample(s->rows, s->info.vocab, &greedy, 1, s->env.picker.scratch) < 0)
        KT_FAIL(err, KT_E_NUMERIC,
                "the self-test step gave NaN: the model file is damaged or a kernel is wrong; try "
                "--cpu-mask ref");
    return KT_OK;
}

kt_status sched_open(const struct sched_config *c, struct sched **out, kt_err *err)
{
    pthread_condattr_t attr;
    kt_status st = KT_E_NOMEM;
    struct sched *s = mem_calloc(1, sizeof *s);
    *out = NULL;
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the scheduler");
    s->c = *c;
    kt_engine_get_info(c->engine, &s->info);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->cond, &attr);
    pthread_condattr_destroy(&attr);
    s->inbox_last = &s->inbox;
    s->queue_last = &s->queue;
    s->env.tok = c->tok;
    s->env.vocab = s->info.vocab;
    s->env.last = &s->env.first;
    s->run = mem_calloc(s->info.max_seqs, sizeof *s->run);
    s->items = mem_calloc(s->info.max_seqs, sizeof *s->items);
    s->who = mem_calloc(s->info.max_seqs, sizeof *s->who);
    s->rows = mem_aligned(64, (size_t)s->info.max_seqs * s->info.vocab * sizeof(float));
    s->prompt_rows = mem_aligned(64, (size_t)PROMPT_ROWS * s->info.vocab * sizeof(float));
    if (s->run == NULL || s->items == NULL || s->who == NULL || s->rows == NULL ||
        s->prompt_rows == NULL) {
        err_set(err, st, 0, __func__, "no memory for the logits of %u sequences; lower --parallel",
                s->info.max_seqs);
        goto fail;
    }
    st = picker_init(&s->env.picker, c->tok, s->info.vocab, err);
    if (st == KT_OK)
        st = self_test(s, err);
    if (st != KT_OK)
        goto fail;
    *out = s;
    return KT_OK;
fail:
    sched_close(s);
    return st;
}

void sched_close(struct sched *s)
{
    if (s == NULL)
        return;
    picker_free(&s->env.picker);
    mem_free(s->run);
    mem_free(s->items);
    mem_free(s->who);
    mem_free(s->rows);
    mem_free(s->prompt_rows);
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

static void set_flag(struct sched *s, bool *flag)
{
    pthread_mutex_lock(&s->lock);
    *flag = true;
    s->woken = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

void sched_wake(struct sched *s)
{
    set_flag(s, &s->woken);
}

void sched_drain(struct sched *s)
{
    set_flag(s, &s->draining);
}

void sched_abort(struct sched *s)
{
    set_flag(s, &s->abort);
}

void sched_stop(struct sched *s)
{
    set_flag(s, &s->stop);
}

enum sched_submit sched_submit(struct sched *s, struct kts_job *j)
{
    enum sched_submit r = SUBMIT_OK;
    j->next = NULL;
    j->last.job = j;
    pthread_mutex_lock(&s->lock);
    if (s->broken)
        r = SUBMIT_BROKEN;
    else if (s->draining || s->stop)
        r = SUBMIT_DRAINING;
    else if (s->waiting > 0 && (s->waiting >= s->c.queue_requests ||
                                s->waiting_tokens + j->n_prompt_tokens > s->c.queue_tokens))
        r = SUBMIT_FULL;
    if (r == SUBMIT_OK) {
        s->waiting++;
        s->waiting_tokens += j->n_prompt_tokens;
        *s->inbox_last = j;
        s->inbox_last = &j->next;
        s->woken = true;
        pthread_cond_signal(&s->cond);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

void sched_get_view(struct sched *s, struct sched_view *v)
{
    uint64_t moved = atomic_load(&s->moved_ns), now = clock_ns();
    memset(v, 0, sizeof *v);
    pthread_mutex_lock(&s->lock);
    v->waiting = s->waiting;
    v->waiting_tokens = s->waiting_tokens;
    v->draining = s->draining;
    v->broken = s->broken;
    pthread_mutex_unlock(&s->lock);
    v->running = atomic_load(&s->running_view);
    v->idle_ns = moved == 0 || moved > now ? 0 : now - moved;
    v->decode_ns = atomic_load(&s->decode_ns);
    v->decode_weight_bytes = atomic_load(&s->decode_weight_bytes);
    v->decode_kv_bytes = atomic_load(&s->decode_kv_bytes);
    double seconds =
        (double)atomic_load(&s->duration_ns) * 1e-9 * (v->waiting + 1) / s->info.max_seqs;
    v->retry_after_s = seconds < 1 ? 1 : seconds > 60 ? 60 : (uint32_t)(seconds + 0.5);
}

/* ---- ends of jobs ---- */

static void left_queue(struct sched *s, const struct kts_job *j)
{
    pthread_mutex_lock(&s->lock);
    s->waiting--;
    s->waiting_tokens -= j->n_prompt_tokens;
    pthread_mutex_unlock(&s->lock);
}

static void drop_running(struct sched *s, const struct kts_job *j)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_run; i++)
        if (s->run[i]->job != j)
            s->run[n++] = s->run[i];
    s->n_run = n;
}

static void drop_queued(struct sched *s, struct kts_job *j)
{
    struct kts_job **at = &s->queue;
    while (*at != NULL && *at != j)
        at = &(*at)->next;
    if (*at == NULL)
        return;
    *at = j->next;
    if (s->queue_last == &j->next)
        s->queue_last = at;
    left_queue(s, j);
}

/* Give everything back and queue the terminal event. The job is not ours after the push. */
static void end_job(struct sched *s, struct kts_job *j, enum kts_event_kind kind)
{
    uint64_t took = clock_ns() - j->submitted_ns;
    drop_queued(s, j);
    drop_running(s, j);
    for (uint32_t i = 0; j->seqs != NULL && i < j->n_choices; i++)
        seq_close(&j->seqs[i]);
    mem_free(j->seqs);
    j->seqs = NULL;
    j->last.kind = kind;
    j->last.next = NULL;
    *s->env.last = &j->last;
    s->env.last = &j->last.next;
    met_observe(s->c.met.duration, (double)took * 1e-9);
    if (kind == EV_END) {
        uint64_t old = atomic_load(&s->duration_ns);
        atomic_store(&s->duration_ns, old == 0 ? took : old - old / 8 + took / 8);
        met_inc(s->c.met.requests[j->any_length ? REASON_LENGTH : REASON_STOP]);
    }
}

static void fail_job(struct sched *s, struct kts_job *j, int status, const char *code,
                     const char *msg)
{
    kts_fail_set(&j->fail, status, code, NULL, "%s", msg);
    j->fail.no_retry = j->started;
    met_inc(s->c.met.requests[REASON_ERROR]);
    end_job(s, j, EV_ERROR);
}

static void cancel_job(struct sched *s, struct kts_job *j, int cause)
{
    static const char *const text[] = {"", "the client closed the connection",
                                       "the request was cancelled by an administrator",
                                       "the server is shutting down"};
    kts_fail_set(&j->fail, 503, cause == CANCEL_SHUTDOWN ? "draining" : "cancelled", NULL, "%s",
                 text[cause]);
    j->fail.no_retry = j->started || cause == CANCEL_ADMIN;
    met_inc(s->c.met.cancelled[cause]);
    met_inc(s->c.met.requests[REASON_ABORT]);
    end_job(s, j, EV_ERROR);
}

static void fail_seq(struct sched *s, struct seq *q, kt_status st)
{
    if (st == KT_E_NOMEM)
        fail_job(s, q->job, 500, "out_of_memory", "no memory for the output of this request");
    else
        fail_job(s, q->job, 500, "numeric", "the model gave NaN or infinity for this request");
}

/* ---- between steps: inbox, flags, deadlines ---- */

struct flags {
    bool draining, abort, stop;
};

static void take_inbox(struct sched *s, struct flags *f)
{
    pthread_mutex_lock(&s->lock);
    if (s->inbox != NULL) {
        *s->queue_last = s->inbox;
        s->queue_last = s->inbox_last;
        s->inbox = NULL;
        s->inbox_last = &s->inbox;
    }
    s->woken = false;
    *f = (struct flags){s->draining, s->abort || s->stop, s->stop};
    pthread_mutex_unlock(&s->lock);
}

static struct kts_job *next_marked(struct sched *s, const struct flags *f, int *cause)
{
    for (struct kts_job *j = s->queue; j != NULL; j = j->next) {
        *cause = f->abort ? CANCEL_SHUTDOWN : atomic_load(&j->cancel);
        if (*cause != CANCEL_NONE)
            return j;
    }
    for (uint32_t i = 0; i < s->n_run; i++) {
        *cause = f->abort ? CANCEL_SHUTDOWN : atomic_load(&s->run[i]->job->cancel);
        if (*cause != CANCEL_NONE)
            return s->run[i]->job;
    }
    return NULL;
}

/* A finished choice: out of the run list; the job ends with its last one. */
static void finish_seq(struct sched *s, struct seq *q, enum kts_finish how)
{
    struct kts_job *j = q->job;
    uint32_t n = 0;
    if (seq_finish(q, &s->env, how) != KT_OK) {
        fail_seq(s, q, KT_E_NOMEM);
        return;
    }
    for (uint32_t i = 0; i < s->n_run; i++)
        if (s->run[i] != q)
            s->run[n++] = s->run[i];
    s->n_run = n;
    seq_close(q);
    j->any_length = j->any_length || how == FINISH_LENGTH;
    if (--j->live == 0)
        end_job(s, j, EV_END);
}

static void check_deadlines(struct sched *s, const struct flags *f)
{
    uint64_t now = clock_ns();
    for (struct kts_job *j = s->queue, *next; j != NULL; j = next) {
        next = j->next;
        if (j->started)
            continue;
        if (f->draining) {
            fail_job(s, j, 503, "draining", "the server is shutting down");
        } else if (now - j->submitted_ns > s->c.queue_deadline_ns) {
            met_inc(s->c.met.cancelled[CANCEL_DEADLINE]);
            fail_job(s, j, 503, "queue_timeout", "the request waited too long in the queue");
        }
    }
    for (uint32_t i = 0; i < s->n_run;) {
        struct seq *q = s->run[i];
        if (now - q->job->submitted_ns <= s->c.request_deadline_ns) {
            i++;
            continue;
        }
        log_warn("request %s reached its deadline: it ends with finish reason length", q->job->id);
        met_inc(s->c.met.cancelled[CANCEL_DEADLINE]);
        finish_seq(s, q, FINISH_LENGTH);
        i = 0;
    }
}

static void between_steps(struct sched *s, struct flags *f)
{
    int cause;
    struct kts_job *j;
    take_inbox(s, f);
    while ((j = next_marked(s, f, &cause)) != NULL)
        cancel_job(s, j, cause);
    check_deadlines(s, f);
}

/* ---- admission ---- */

static bool start_job(struct sched *s, struct kts_job *j)
{
    struct kts_event *e;
    if (j->seqs != NULL)
        return true;
    j->seqs = mem_calloc(j->n_choices, sizeof *j->seqs);
    e = mem_calloc(1, sizeof *e);
    if (j->seqs == NULL || e == NULL) {
        mem_free(e);
        fail_job(s, j, 503, "overloaded", "no memory for this request");
        return false;
    }
    for (uint32_t i = 0; i < j->n_choices; i++)
        seq_init(&j->seqs[i], j, i, s->c.ctx);
    j->live = j->n_choices;
    e->job = j;
    e->kind = EV_START;
    *s->env.last = e;
    s->env.last = &e->next;
    return true;
}

/* Admit the next choice of the head of the queue. false: nothing more can be admitted now. */
static bool admit_one(struct sched *s)
{
    kt_err err;
    struct kts_job *j = s->queue;
    if (j == NULL || s->n_run == s->info.max_seqs || !start_job(s, j))
        return s->queue != j && s->queue != NULL;
    struct seq *q = &j->seqs[j->next_choice];
    if (picker_needs_history(&j->req) && q->made == NULL && q->max_new > 0 &&
        (q->made = mem_calloc(q->max_new, sizeof *q->made)) == NULL) {
        fail_job(s, j, 503, "overloaded", "no memory for this request");
        return true;
    }
    kt_status st = kt_seq_open(s->c.engine, seq_reserve(q), &q->kt, &err);
    if (st == KT_E_KV_FULL && s->n_run > 0)
        return false;
    if (st != KT_OK) {
        log_error("request %s cannot be admitted: %s", j->id, err.msg);
        fail_job(s, j, st == KT_E_KV_FULL ? 503 : 500,
                 st == KT_E_KV_FULL ? "overloaded" : "engine_error", err.msg);
        return true;
    }
    q->state = SEQ_PREFILL;
    s->run[s->n_run++] = q;
    if (!j->started) {
        j->started = true;
        atomic_store(&j->state, JOB_PREFILL);
        met_observe(s->c.met.queue_time, (double)(clock_ns() - j->submitted_ns) * 1e-9);
    }
    if (++j->next_choice == j->n_choices)
        drop_queued(s, j);
    return true;
}

/* ---- one step ---- */

static bool can_run(const struct seq *q)
{
    return !atomic_load(&q->job->paused);
}

static uint32_t add_decodes(struct sched *s, uint32_t room)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->n_run && n < room; k++) {
        struct seq *q = s->run[(s->first_decode + k) % s->n_run];
        if (q->state != SEQ_DECODE || !can_run(q))
            continue;
        s->who[n] = q;
        s->items[n] = (kt_batch_item){.seq = q->kt,
                                      .ids = &q->next_id,
                                      .n = 1,
                                      .logits = s->rows + (size_t)n * s->info.vocab};
        n++;
    }
    s->first_decode = n == room && s->n_run > 0
                          ? (s->first_decode + n) % s->n_run
                          : 0; /* a batch smaller than the run list takes turns */
    return n;
}

static uint32_t add_prompts(struct sched *s, uint32_t n, uint32_t room)
{
    bool rows_taken = false;
    for (uint32_t k = 0; k < s->n_run && room > 0 && n < s->info.max_seqs; k++) {
        struct seq *q = s->run[k];
        if (q->state != SEQ_PREFILL || !can_run(q))
            continue;
        bool all = seq_wants_prompt_logprobs(q);
        if (all && rows_taken)
            continue;
        uint32_t left = q->prompt->n - q->fed, take = left < room ? left : room;
        if (all && take > PROMPT_ROWS)
            take = PROMPT_ROWS;
        rows_taken = rows_taken || all;
        s->who[n] = q;
        s->items[n] = (kt_batch_item){
            .seq = q->kt, .ids = q->prompt->ids + q->fed, .n = take, .all_logits = all};
        if (all)
            s->items[n].logits = s->prompt_rows;
        else if (take == left)
            s->items[n].logits = s->rows + (size_t)n * s->info.vocab;
        room -= take;
        n++;
    }
    return n;
}

/* Prompt tokens for a step that also decodes: what fits the latency target at the measured rate. */
static uint32_t prompt_room(const struct sched *s, uint32_t n_decode)
{
    uint32_t room = s->info.batch_tokens - n_decode;
    if (n_decode == 0 || s->prefill_ns_per_token <= 0)
        return n_decode == 0 ? room : room < 8 * MIN_CHUNK ? room : 8 * MIN_CHUNK;
    double fit = (double)s->c.latency_target_ns / s->prefill_ns_per_token;
    uint32_t most = fit < MIN_CHUNK ? MIN_CHUNK : fit > room ? room : (uint32_t)fit;
    return most < room ? most : room;
}

static void took_token(struct sched *s, struct seq *q, uint64_t now)
{
    struct kts_job *j = q->job;
    met_inc(s->c.met.generated_tokens);
    atomic_fetch_add(&j->generated, 1);
    if (!j->first_token_seen) {
        j->first_token_seen = true;
        atomic_store(&j->state, JOB_DECODE);
        met_observe(s->c.met.ttft, (double)(now - j->submitted_ns) * 1e-9);
    }
    if (q->last_token_ns != 0)
        met_observe(s->c.met.inter_token, (double)(now - q->last_token_ns) * 1e-9);
    q->last_token_ns = now;
}

static kt_status prompt_done(struct sched *s, struct seq *q)
{
    if (q->sub == 0)
        met_add(s->c.met.prompt_tokens, q->prompt->n); /* counted once per prompt, as usage does */
    return seq_echo(q, &s->env);
}

static void handle_item(struct sched *s, uint32_t i, uint64_t now)
{
    struct seq *q = s->who[i];
    kt_batch_item *it = &s->items[i];
    enum kts_finish how = FINISH_NONE;
    kt_status st = it->result;
    const float *row = it->logits;
    if (st == KT_OK && q->state == SEQ_PREFILL) {
        if (it->all_logits) {
            st = seq_prompt_logprobs(q, &s->env, it->logits, q->fed, it->n);
            row = it->logits + (size_t)(it->n - 1) * s->info.vocab;
        }
        q->fed += it->n;
        if (st == KT_OK && q->fed < q->prompt->n)
            return;
        if (st == KT_OK)
            st = prompt_done(s, q);
        q->state = SEQ_DECODE;
        if (q->max_new == 0)
            how = FINISH_LENGTH;
    }
    if (st == KT_OK && how == FINISH_NONE) {
        st = seq_take(q, &s->env, row, &how);
        if (st == KT_OK)
            took_token(s, q, now);
    }
    if (st == KT_OK && how == FINISH_NONE)
        st = seq_emit(q, &s->env);
    if (st != KT_OK)
        fail_seq(s, q, st);
    else if (how != FINISH_NONE)
        finish_seq(s, q, how);
}

/* Is this sequence still running? A job that ends takes its other sequences with it, so who[] may
 * hold dead pointers. */
static bool alive(const struct sched *s, const struct seq *q)
{
    for (uint32_t k = 0; k < s->n_run; k++)
        if (s->run[k] == q)
            return true;
    return false;
}

static void step_failed(struct sched *s, uint32_t n, kt_status st, const kt_err *err)
{
    log_error("a step failed (%s): %s", kt_status_name(st), err->msg);
    for (uint32_t i = 0; i < n; i++)
        if (alive(s, s->who[i]))
            fail_job(s, s->who[i]->job, 500, "engine_error", "the engine failed; the log says why");
    if (st == KT_E_DEVICE) {
        pthread_mutex_lock(&s->lock);
        s->broken = true;
        pthread_mutex_unlock(&s->lock);
        while (s->n_run > 0)
            fail_job(s, s->run[0]->job, 500, "engine_error", "the engine failed; the log says why");
        while (s->queue != NULL)
            fail_job(s, s->queue, 500, "engine_error", "the engine failed; the log says why");
    }
}

/* What the step read counts beside its time when it was a decode step (ns > 0). */
static void count_reads(struct sched *s, uint64_t ns)
{
    kt_engine_stats st;
    kt_engine_get_stats(s->c.engine, &st);
    if (ns > 0) {
        atomic_fetch_add(&s->decode_ns, ns);
        atomic_fetch_add(&s->decode_weight_bytes, st.weight_read_bytes - s->weight_bytes);
        atomic_fetch_add(&s->decode_kv_bytes, st.kv_read_bytes - s->kv_bytes);
    }
    s->weight_bytes = st.weight_read_bytes;
    s->kv_bytes = st.kv_read_bytes;
}

/* Build and run one step. false: nothing could be stepped. */
static bool step(struct sched *s)
{
    kt_err err;
    uint32_t room =
                 s->info.batch_tokens < s->info.max_seqs ? s->info.batch_tokens : s->info.max_seqs,
             tokens = 0;
    uint32_t n_decode = add_decodes(s, room);
    uint32_t n = add_prompts(s, n_decode, prompt_room(s, n_decode));
    if (n == 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        tokens += s->items[i].n;
    uint64_t start = clock_ns();
    kt_status st = kt_step(s->c.engine, s->items, n, &err);
    uint64_t now = clock_ns();
    met_observe(n > n_decode ? s->c.met.step_prefill : s->c.met.step_decode,
                (double)(now - start) * 1e-9);
    count_reads(s, n == n_decode ? now - start : 0);
    met_observe(s->c.met.step_tokens, tokens);
    if (n > n_decode && tokens > n_decode) {
        double each = (double)(now - start) / tokens;
        s->prefill_ns_per_token =
            s->prefill_ns_per_token <= 0 ? each : 0.75 * s->prefill_ns_per_token + 0.25 * each;
    }
    if (st != KT_OK) {
        step_failed(s, n, st, &err);
        return true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (alive(s, s->who[i]))
            handle_item(s, i, now);
    return true;
}

/* ---- the loop ---- */

static void push_events(struct sched *s)
{
    atomic_store(&s->running_view, s->n_run);
    *s->env.last = NULL;
    bridge_push(s->c.events, s->env.first);
    s->env.first = NULL;
    s->env.last = &s->env.first;
}

static void sleep_until_woken(struct sched *s, uint64_t ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t at = (uint64_t)t.tv_nsec + ns;
    t.tv_sec += (time_t)(at / 1000000000u);
    t.tv_nsec = (long)(at % 1000000000u);
    pthread_mutex_lock(&s->lock);
    while (!s->woken) {
        int rc = ns == 0 ? pthread_cond_wait(&s->cond, &s->lock)
                         : pthread_cond_timedwait(&s->cond, &s->lock, &t);
        if (rc != 0)
            break;
    }
    pthread_mutex_unlock(&s->lock);
}

void sched_run(struct sched *s)
{
    struct flags f;
    for (;;) {
        between_steps(s, &f);
        if (f.stop)
            break;
        while (admit_one(s))
            ;
        bool work = s->n_run > 0 || s->queue != NULL, full = bridge_full(s->c.events);
        if (work && !full && step(s)) {
            atomic_store(&s->moved_ns, clock_ns());
            push_events(s);
            continue;
        }
        push_events(s);
        atomic_store(&s->moved_ns, 0);
        sleep_until_woken(s, full ? FULL_TICK_NS : work ? TICK_NS : 0);
    }
    push_events(s);
}
