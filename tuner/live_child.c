/* live_child.c - the timing process: one engine, one request after the other. A sample is some
 * decode steps of `batch` sequences, or some prefill chunks, with random token ids that are never
 * fed back, after one step that is not timed (it wakes the new threads). The process ends when its
 * parent does. It holds no other state, so it can be killed at any time.
 */
#define _GNU_SOURCE
#include "live_child.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "search_stats.h"

#define DECODE_ROOM (4 * LIVE_REPEATS_MOST) /* steps before the sequences are opened anew */

struct child {
    const struct live_opts *o;
    kt_engine *e;
    kt_engine_info info;
    uint64_t rng;
    kt_seq **seq;        /* [batch], NULL: not open */
    kt_batch_item *item; /* [batch] */
    int32_t *ids;        /* [prefill, prompt or batch, whatever is most] */
    float *logits;       /* [batch][vocab] */
};

static kt_status open_engine(struct child *c, kt_err *err)
{
    kt_engine_opts o = c->o->engine;
    uint32_t prompt = c->o->prompt, prefill = c->o->prefill;
    uint32_t most = prompt > prefill ? prompt : prefill;
    o.max_seqs = c->o->batch + 1; /* one more for prefill */
    o.batch_tokens = prefill > o.max_seqs ? prefill : o.max_seqs;
    o.ctx_tokens = prompt + DECODE_ROOM > prefill ? prompt + DECODE_ROOM : prefill;
    o.progress = NULL;
    kt_status s = kt_engine_open(&o, &c->e, err);
    if (s == KT_E_INVALID) { /* a short context is all that this model has */
        o.ctx_tokens = 0;
        s = kt_engine_open(&o, &c->e, err);
    }
    KT_TRY(s);
    kt_engine_get_info(c->e, &c->info);
    if (c->info.ctx_tokens < most + 2)
        KT_FAIL(err, KT_E_INVALID, "%s: a context of %u tokens is too short for samples of %u",
                o.model_path, c->info.ctx_tokens, most);
    c->seq = mem_calloc(c->o->batch, sizeof *c->seq);
    c->item = mem_calloc(c->o->batch, sizeof *c->item);
    c->ids = mem_calloc(most > c->o->batch ? most : c->o->batch, sizeof *c->ids);
    c->logits = mem_calloc((size_t)c->o->batch * c->info.vocab, sizeof *c->logits);
    if (c->seq == NULL || c->item == NULL || c->ids == NULL || c->logits == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u sequences", c->o->batch);
    return KT_OK;
}

static void random_ids(struct child *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        c->ids[i] = (int32_t)ss_below(&c->rng, c->info.vocab);
}

/* Feed n random tokens to a sequence in chunks of a step. */
static kt_status feed(struct child *c, kt_seq *s, uint32_t n, float *logits)
{
    for (uint32_t at = 0; at < n;) {
        uint32_t k = n - at < c->info.batch_tokens ? n - at : c->info.batch_tokens;
        random_ids(c, k);
        kt_batch_item it = {.seq = s, .ids = c->ids, .n = k, .logits = at + k == n ? logits : NULL};
        KT_TRY(kt_step(c->e, &it, 1, NULL));
        at += k;
    }
    return KT_OK;
}

/* All sequences open, with room for `steps` more tokens. */
static kt_status make_room(struct child *c, uint32_t steps)
{
    uint32_t most = c->info.ctx_tokens - c->o->prompt;
    uint32_t room = most < DECODE_ROOM ? most : DECODE_ROOM;
    for (uint32_t i = 0; i < c->o->batch; i++) {
        if (c->seq[i] != NULL && kt_seq_length(c->seq[i]) + steps <= c->o->prompt + room)
            continue;
        kt_seq_close(c->seq[i]);
        c->seq[i] = NULL;
        KT_TRY(kt_seq_open(c->e, c->o->prompt + room, &c->seq[i], NULL));
        KT_TRY(feed(c, c->seq[i], c->o->prompt, NULL));
    }
    return KT_OK;
}

/* Seconds of n steps from the median one: a step that something interrupted does not count more
 * than another. */
static double total(const double *each, uint32_t n)
{
    double work[LIVE_REPEATS_MOST];
    return n * ss_median(each, n, (double)INFINITY, work);
}

static kt_status decode(struct child *c, uint32_t steps, double *seconds)
{
    double each[LIVE_REPEATS_MOST];
    KT_TRY(make_room(c, steps + 1));
    for (uint32_t s = 0; s <= steps; s++) { /* the first one is not timed */
        random_ids(c, c->o->batch);
        for (uint32_t i = 0; i < c->o->batch; i++)
            c->item[i] = (kt_batch_item){.seq = c->seq[i],
                                         .ids = &c->ids[i],
                                         .n = 1,
                                         .logits = c->logits + (size_t)i * c->info.vocab};
        uint64_t start = clock_ns();
        KT_TRY(kt_step(c->e, c->item, c->o->batch, NULL));
        if (s > 0)
            each[s - 1] = (double)(clock_ns() - start) * 1e-9;
    }
    *seconds = total(each, steps);
    return KT_OK;
}

static kt_status prefill(struct child *c, uint32_t chunks, double *seconds)
{
    kt_status st = KT_OK;
    double each[LIVE_REPEATS_MOST];
    for (uint32_t k = 0; k <= chunks && st == KT_OK; k++) {
        kt_seq *s;
        uint32_t n = k > 0 ? c->o->prefill : 2; /* the first one is not timed */
        KT_TRY(kt_seq_open(c->e, n, &s, NULL));
        uint64_t start = clock_ns();
        st = feed(c, s, n, c->logits);
        if (k > 0)
            each[k - 1] = (double)(clock_ns() - start) * 1e-9;
        kt_seq_close(s);
    }
    *seconds = total(each, chunks);
    return st;
}

static kt_status sample(struct child *c, const struct live_ask *q, double *seconds)
{
    kt_tuning t;
    double d = 0, p = 0;
    kt_tuning_init(&t);
    t.threads = q->config.threads;
    t.kernel = q->config.kernel[0] != '\0' ? q->config.kernel : NULL;
    t.gemv_rows = q->config.gemv_rows;
    t.claim_rows = q->config.claim_rows;
    t.gemm_claim_rows = q->config.gemm_claim_rows;
    t.spin_us = q->config.spin_us;
    KT_TRY(kt_engine_retune(c->e, &t, NULL));
    if (c->o->goal != LIVE_PREFILL)
        KT_TRY(decode(c, q->repeats, &d));
    if (c->o->goal != LIVE_DECODE)
        KT_TRY(prefill(c, q->repeats, &p));
    *seconds = c->o->goal == LIVE_DECODE ? d : c->o->goal == LIVE_PREFILL ? p : sqrt(d * p);
    return KT_OK;
}

static void describe(const struct child *c, struct live_ready *r)
{
    kt_tuning t;
    kt_engine_get_tuning(c->e, &t);
    r->built_in = (struct live_config){.threads = t.threads,
                                       .gemv_rows = t.gemv_rows,
                                       .claim_rows = t.claim_rows,
                                       .gemm_claim_rows = t.gemm_claim_rows,
                                       .spin_us = t.spin_us};
    snprintf(r->built_in.kernel, sizeof r->built_in.kernel, "%s", t.kernel);
    r->n_pools = c->info.n_pools;
    snprintf(r->expert_format, sizeof r->expert_format, "%s", c->info.expert_format);
    snprintf(r->dense_format, sizeof r->dense_format, "%s", c->info.dense_format);
    r->load_seconds = c->info.load_seconds;
    r->vocab = c->info.vocab;
    r->bytes = c->info.weight_bytes + c->info.kv_bytes + c->info.scratch_bytes;
}

_Noreturn void live_child(const struct live_opts *o, int fd)
{
    struct child c = {.o = o, .rng = o->seed};
    struct live_ready ready = {0};
    struct live_ask q;
    kt_err err = {0};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGINT, SIG_IGN); /* the parent decides when to end */
    (void)signal(SIGTERM, SIG_DFL);
    ready.status = open_engine(&c, &err);
    ready.os_errno = err.os_errno;
    memcpy(ready.msg, err.msg, sizeof ready.msg);
    if (ready.status == KT_OK)
        describe(&c, &ready);
    if (send(fd, &ready, sizeof ready, MSG_NOSIGNAL) != (ssize_t)sizeof ready ||
        ready.status != KT_OK)
        _exit(1);
    while (recv(fd, &q, sizeof q, MSG_WAITALL) == (ssize_t)sizeof q) {
        struct live_answer a = {.status = KT_OK};
        a.status = sample(&c, &q, &a.seconds);
        if (send(fd, &a, sizeof a, MSG_NOSIGNAL) != (ssize_t)sizeof a)
            break;
    }
    _exit(0);
}
