/* seqrun.c - what the tokens of a running choice mean (see seqrun.h).
 * A token with log probability waits in `pend` until the first byte of its text is released, so
 * tokens that became part of a stop string are never sent. Invariant: pend is in order of start;
 * text, tokens and tops of one event are one memory block.
 */
#include "serve/seqrun.h"

#include <string.h>

#include "base/mem.h"

void seq_init(struct seq *q, struct kts_job *job, uint32_t choice, uint32_t ctx)
{
    uint32_t per_prompt = (uint32_t)job->req.best_of;
    memset(q, 0, sizeof *q);
    q->job = job;
    q->choice = choice;
    q->sub = choice % per_prompt;
    q->prompt = &job->prompts[choice / per_prompt];
    q->max_new = ctx - q->prompt->n;
    if (job->req.max_tokens >= 0 && job->req.max_tokens < q->max_new)
        q->max_new = (uint32_t)job->req.max_tokens;
    stop_init(&q->stop, &(struct stop_set){job->req.stop, job->req.stop_len, job->req.n_stop});
}

void seq_close(struct seq *q)
{
    kt_seq_close(q->kt);
    q->kt = NULL;
    mem_free(q->made);
    q->made = NULL;
    stop_free(&q->stop);
    sb_free(&q->text);
    mem_free(q->pend);
    mem_free(q->tops);
    q->pend = NULL;
    q->tops = NULL;
    q->n_pend = q->cap_pend = q->n_tops = q->cap_tops = 0;
    q->state = SEQ_DONE;
}

uint32_t seq_reserve(const struct seq *q)
{
    return q->prompt->n + q->max_new;
}

bool seq_wants_prompt_logprobs(const struct seq *q)
{
    return q->job->req.echo && q->job->req.n_logprobs >= 0;
}

/* ---- events ---- */

static void queue_event(struct seq_env *env, struct kts_event *e)
{
    e->next = NULL;
    *env->last = e;
    env->last = &e->next;
}

/* An event with the first n_tokens of pend and the released text; both leave the sequence. */
static kt_status make_event(struct seq *q, struct seq_env *env, enum kts_event_kind kind,
                            uint32_t n_tokens)
{
    uint32_t n_tops =
        n_tokens == 0 ? 0 : q->pend[n_tokens - 1].t.top + q->pend[n_tokens - 1].t.n_top;
    size_t len = q->text.len, at = sizeof(struct kts_event);
    size_t tokens_at = at, tops_at = tokens_at + n_tokens * sizeof(struct kts_token),
           text_at = tops_at + n_tops * sizeof(struct kts_top);
    if (!sb_ok(&q->text))
        return KT_E_NOMEM;
    struct kts_event *e = mem_calloc(1, text_at + len + 1);
    if (e == NULL)
        return KT_E_NOMEM;
    e->job = q->job;
    e->kind = kind;
    e->choice = q->choice;
    e->n_generated = q->n_made;
    e->tokens = (struct kts_token *)(void *)((char *)e + tokens_at);
    e->tops = (struct kts_top *)(void *)((char *)e + tops_at);
    e->text = (char *)e + text_at;
    e->n_tokens = n_tokens;
    e->len = len;
    for (uint32_t i = 0; i < n_tokens; i++)
        e->tokens[i] = q->pend[i].t;
    if (n_tops > 0)
        memcpy(e->tops, q->tops, n_tops * sizeof *q->tops);
    if (len > 0)
        memcpy((char *)e + text_at, q->text.data, len);
    sb_clear(&q->text);
    q->n_pend -= n_tokens;
    q->n_tops -= n_tops;
    if (n_tokens > 0 && q->n_pend > 0)
        memmove(q->pend, q->pend + n_tokens, q->n_pend * sizeof *q->pend);
    if (n_tops > 0 && q->n_tops > 0)
        memmove(q->tops, q->tops + n_tops, q->n_tops * sizeof *q->tops);
    for (uint32_t i = 0; i < q->n_pend; i++)
        q->pend[i].t.top -= n_tops;
    queue_event(env, e);
    return KT_OK;
}

static uint32_t releasable(const struct seq *q)
{
    uint32_t n = 0;
    while (n < q->n_pend && q->pend[n].start < q->stop.released)
        n++;
    return n;
}

kt_status seq_emit(struct seq *q, struct seq_env *env)
{
    return q->text.len == 0 ? KT_OK : make_event(q, env, EV_TEXT, releasable(q));
}

kt_status seq_finish(struct seq *q, struct seq_env *env, enum kts_finish how)
{
    if (q->stop.matched < 0)
        stop_flush(&q->stop, &q->text);
    if (seq_emit(q, env) != KT_OK)
        return KT_E_NOMEM;
    kt_status s = make_event(q, env, EV_FINISH, 0);
    if (s == KT_OK) {
        struct kts_event *e =
            (struct kts_event *)(void *)((char *)env->last - offsetof(struct kts_event, next));
        e->finish = how;
        e->sum_logprob = q->sum_logprob;
    }
    return s;
}

/* ---- log probabilities ---- */

static kt_status grow(struct seq *q, uint32_t n_tops)
{
    if (q->n_pend == q->cap_pend) {
        uint32_t cap = q->cap_pend ? q->cap_pend * 2 : 16;
        struct seq_token *p = mem_realloc(q->pend, cap * sizeof *p);
        if (p == NULL)
            return KT_E_NOMEM;
        q->pend = p;
        q->cap_pend = cap;
    }
    if (q->n_tops + n_tops > q->cap_tops) {
        uint32_t cap = (q->cap_tops + n_tops) * 2;
        struct kts_top *p = mem_realloc(q->tops, cap * sizeof *p);
        if (p == NULL)
            return KT_E_NOMEM;
        q->tops = p;
        q->cap_tops = cap;
    }
    return KT_OK;
}

static float finite_logprob(double lp)
{
    return lp >= -9999.0 ? (float)lp : -9999.0f; /* JSON has no infinity */
}

/* Put a token into pend, with log probabilities from its row (NULL: it has none). */
static kt_status note_token(struct seq *q, struct seq_env *env, int32_t id, const float *row,
                            uint32_t len)
{
    uint32_t n = row == NULL ? 0 : (uint32_t)q->job->req.n_logprobs;
    int32_t ids[64];
    double lps[64];
    n = n > env->vocab ? env->vocab : n;
    if (grow(q, n) != KT_OK)
        return KT_E_NOMEM;
    struct seq_token *p = &q->pend[q->n_pend++];
    memset(p, 0, sizeof *p);
    p->t.id = id;
    p->start = q->raw_bytes;
    p->len = len;
    p->t.top = q->n_tops;
    p->t.none = row == NULL;
    if (row == NULL)
        return KT_OK;
    p->t.logprob = finite_logprob(kt_logprob(row, env->vocab, id));
    p->t.n_top = n;
    if (n > 0)
        kt_top_logprobs(row, env->vocab, n, ids, lps);
    for (uint32_t i = 0; i < n; i++)
        q->tops[q->n_tops++] = (struct kts_top){ids[i], finite_logprob(lps[i])};
    return KT_OK;
}

kt_status seq_prompt_logprobs(struct seq *q, struct seq_env *env, const float *rows, uint32_t first,
                              uint32_t n)
{
    if (first == 0 && note_token(q, env, q->prompt->ids[0], NULL, 0) != KT_OK)
        return KT_E_NOMEM;
    for (uint32_t i = 0; i < n && first + i + 1 < q->prompt->n; i++)
        if (note_token(q, env, q->prompt->ids[first + i + 1], rows + (size_t)i * env->vocab, 0) !=
            KT_OK)
            return KT_E_NOMEM;
    return KT_OK;
}

kt_status seq_echo(struct seq *q, struct seq_env *env)
{
    if (!q->job->req.echo)
        return KT_OK;
    if (q->prompt->text != NULL) {
        sb_add(&q->text, q->prompt->text, q->prompt->len);
    } else {
        struct strbuf raw = {0};
        for (uint32_t i = 0; i < q->prompt->n; i++) {
            const char *bytes;
            size_t len = kt_token_bytes(env->tok, q->prompt->ids[i], &bytes);
            sb_add(&raw, len > 0 ? bytes : "", len);
        }
        if (raw.len > 0)
            utf8_clean(raw.data, raw.len, &q->text);
        q->text.failed = q->text.failed || !sb_ok(&raw);
        sb_free(&raw);
    }
    return make_event(q, env, EV_ECHO, q->n_pend);
}

/* ---- generation ---- */

static bool is_stop_id(const struct kts_req *r, int32_t id)
{
    for (uint32_t i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] == id)
            return true;
    return false;
}

kt_status seq_take(struct seq *q, struct seq_env *env, const float *row, enum kts_finish *finish)
{
    const struct kts_req *r = &q->job->req;
    struct pick_in in = {.req = r,
                         .seed = q->job->seed,
                         .choice = q->sub,
                         .position = kt_seq_length(q->kt),
                         .prompt = q->prompt->ids,
                         .made = q->made,
                         .n_prompt = q->prompt->n,
                         .n_made = q->n_made};
    const char *bytes = "";
    int32_t id = picker_pick(&env->picker, row, &in);
    *finish = FINISH_NONE;
    if (id < 0)
        return KT_E_NUMERIC;
    if (q->made != NULL)
        q->made[q->n_made] = id;
    q->n_made++;
    q->next_id = id;
    if (r->best_of > r->n)
        q->sum_logprob += kt_logprob(row, env->vocab, id);
    if ((kt_token_is_eos(env->tok, id) && !r->ignore_eos) || is_stop_id(r, id)) {
        *finish = FINISH_STOP;
        return KT_OK;
    }
    size_t len = kt_token_is_control(env->tok, id) ? 0 : kt_token_bytes(env->tok, id, &bytes);
    if (r->n_logprobs >= 0 && len > 0 && note_token(q, env, id, row, (uint32_t)len) != KT_OK)
        return KT_E_NOMEM;
    q->raw_bytes += len;
    if (len > 0 && stop_feed(&q->stop, bytes, len, &q->text))
        *finish = FINISH_STOP;
    if (!sb_ok(&q->text) || !sb_ok(&q->stop.held))
        return KT_E_NOMEM;
    if (*finish == FINISH_NONE && q->n_made >= q->max_new)
        *finish = FINISH_LENGTH;
    return KT_OK;
}
