/* step.c - sequences and the step: check the batch, lay the tokens out, run all layers on the
 * worker team, give back logits.
 *
 * kt_step changes nothing before all checks have passed. Inside, every worker runs step_worker; the
 * engine thread is worker 0. A token's numeric error marks its item only; the other sequences of
 * the batch are not disturbed.
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/fp.h"

kt_status kt_seq_open(kt_engine *e, uint32_t reserve_tokens, kt_seq **out, kt_err *err)
{
    *out = NULL;
    if (e->kv == NULL)
        KT_FAIL(err, KT_E_INVALID, "the engine was opened for metadata only");
    if (reserve_tokens == 0 || reserve_tokens > e->ctx)
        KT_FAIL(err, KT_E_INVALID,
                "a sequence of %u tokens was asked for; this engine takes 1 to %u (--ctx)",
                reserve_tokens, e->ctx);
    uint32_t pages = (reserve_tokens + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    kt_seq *s = NULL;
    for (uint32_t i = 0; i < e->max_seqs && s == NULL; i++)
        if (!e->seqs[i].open)
            s = &e->seqs[i];
    if (s == NULL)
        KT_FAIL(err, KT_E_KV_FULL,
                "all %u sequences are open; wait, or start with a larger --parallel", e->max_seqs);
    if (pages > e->n_free)
        KT_FAIL(err, KT_E_KV_FULL,
                "%u KV pages of %u tokens are needed, %llu of %llu are free; wait for a sequence "
                "to end",
                pages, KERN_KV_PAGE, (unsigned long long)e->n_free,
                (unsigned long long)e->kv_pages);
    for (uint32_t i = 0; i < pages; i++)
        s->pages[i] = e->free_pages[--e->n_free];
    s->n_pages = pages;
    s->len = 0;
    s->open = true;
    atomic_store_explicit(&e->stat.pages_used, e->kv_pages - e->n_free, memory_order_relaxed);
    *out = s;
    return KT_OK;
}

void kt_seq_close(kt_seq *s)
{
    if (s == NULL || !s->open)
        return;
    struct kt_engine *e = s->e;
    while (s->n_pages > 0)
        e->free_pages[e->n_free++] = s->pages[--s->n_pages];
    s->open = false;
    atomic_store_explicit(&e->stat.pages_used, e->kv_pages - e->n_free, memory_order_relaxed);
}

uint32_t kt_seq_length(const kt_seq *s)
{
    return s->len;
}

/* No NaN, no infinity: no exponent of all ones. */
static bool finite_row(const float *x, uint32_t n)
{
    uint32_t odd = 0;
    for (uint32_t i = 0; i < n; i++)
        odd |= (fp_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !odd;
}

/* Row `token` of x from the embedding table as the engine sees it: decoded, through --quant-dense
 * if that applies. The table is the one matrix that is never packed, so nobody looked for NaN in it
 * before, and a quantiser could swallow one: such a row stays as it is and is an error at once. */
static void embed(struct kt_engine *e, uint32_t token, float *x, float *tmp)
{
    uint32_t H = e->model->t.hidden;
    kern_decode(e->embed.type, mdl_rows(&e->embed, (uint32_t)e->step.id[token], 1, tmp), H, x);
    if (!finite_row(x, H)) {
        atomic_store_explicit(&e->step.bad[token], 1, memory_order_relaxed);
    } else if (e->quant_dense >= 0 && e->quant_dense != (int)e->embed.type) {
        kern_quantise((enum dtype)e->quant_dense, x, H, tmp);
        kern_decode((enum dtype)e->quant_dense, tmp, H, x);
    }
}

/* The residual stream as this worker sees it. */
static float *stream_of(struct kt_engine *e, uint32_t worker)
{
    return e->step.few ? e->worker[worker].x : e->x;
}

/* Row `token` of the stream with what is pending, normalised into row `to` of an activation. */
static void norm_row(struct kt_engine *e, uint32_t worker, uint32_t token, const float *norm,
                     const struct eng_act *act, uint32_t to)
{
    uint32_t H = e->model->t.hidden;
    float *x = stream_of(e, worker) + (size_t)token * H;
    if (e->worker[worker].pending)
        e->fn.add(x, e->obuf + (size_t)token * H, H);
    e->fn.rmsnorm(x, norm, H, e->model->t.norm_eps, act->x + (size_t)to * H);
}

const struct eng_act *eng_norm_rows(struct kt_engine *e, uint32_t worker, const float *norm,
                                    bool int8)
{
    struct eng_worker *w = &e->worker[worker];
    const struct eng_act *act = e->step.few ? &w->norm : &e->norm;
    uint32_t i = 0;
    while (e->step.few ? i < e->step.n : eng_claim(e, worker, e->step.n, &i)) {
        norm_row(e, worker, i, norm, act, i);
        eng_round_part(act, act->x + (size_t)i * act->k, act->k, i, 0);
        if (int8)
            eng_quantise(e, act, i, i);
        i++;
    }
    if (!e->step.few)
        eng_phase_end(e, worker);
    w->pending = false;
    return act;
}

#define COPY_FLOATS 16384

/* Copy one piece of a logits row to where the caller wants it, and look for NaN and infinity on the
 * way. */
static void hand_out(struct kt_engine *e, uint32_t out, uint32_t row, uint32_t first)
{
    struct eng_step *s = &e->step;
    uint32_t vocab = e->model->t.vocab,
             n = vocab - first < COPY_FLOATS ? vocab - first : COPY_FLOATS;
    const float *l = e->logits + (size_t)row * vocab + first;
    if (!finite_row(l, n))
        atomic_store_explicit(&s->bad[s->out_tok[out]], 1, memory_order_relaxed);
    memcpy(s->out_ptr[out] + first, l, n * sizeof *l);
}

/* Final norm, head and copy for the tokens whose logits are wanted, out_rows at a time. */
static void run_head(struct kt_engine *e, uint32_t worker)
{
    struct eng_step *s = &e->step;
    const struct mdl_traits *t = &e->model->t;
    const struct eng_act *act = s->few ? &e->worker[worker].norm : &e->out;
    for (uint32_t base = 0; base < s->n_out; base += e->out_rows) {
        uint32_t rows = s->n_out - base < e->out_rows ? s->n_out - base : e->out_rows, i = 0;
        while (s->few ? i < rows : eng_claim(e, worker, rows, &i)) {
            uint32_t tok = s->out_tok[base + i];
            norm_row(e, worker, tok, e->final_norm, act, i);
            if (eng_wants_int8(&e->head))
                eng_quantise(e, act, i, tok);
            i++;
        }
        if (!s->few)
            eng_phase_end(e, worker);
        struct mm_job head = {&e->head, act, NULL, rows, e->logits, t->vocab, NULL};
        eng_jobs_run(e, worker, &head, 1);
        eng_phase_end(e, worker);
        uint32_t pieces = (t->vocab + COPY_FLOATS - 1) / COPY_FLOATS;
        while (eng_claim(e, worker, rows * pieces, &i))
            hand_out(e, base + i / pieces, i / pieces, i % pieces * COPY_FLOATS);
        eng_phase_end(e, worker);
    }
}

/* With a tap what is pending must be in x before the layer is shown. */
static void show_layer(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct eng_step *s = &e->step;
    struct eng_worker *w = &e->worker[worker];
    uint32_t H = e->model->t.hidden, i = 0;
    while (w->pending && (s->few ? i < s->n : eng_claim(e, worker, s->n, &i))) {
        e->fn.add(stream_of(e, worker) + (size_t)i * H, e->obuf + (size_t)i * H, H);
        i++;
    }
    w->pending = false;
    eng_phase_end(e, worker);
    if (worker == 0) {
        const struct eng_groups *g = s->few ? &w->groups : &s->groups;
        bool routed = e->layer[layer].moe;
        e->tap(e->tap_user,
               &(kt_tap){layer, s->n, e->x, routed ? g->chosen : NULL, routed ? g->gap : NULL});
    }
    eng_phase_end(e, worker);
}

static void step_worker(void *ctx, uint32_t worker)
{
    struct kt_engine *e = ctx;
    struct eng_step *s = &e->step;
    struct eng_worker *w = &e->worker[worker];
    float *x = stream_of(e, worker);
    const struct eng_act *norm = s->few ? &w->norm : &e->norm;
    uint32_t i = 0, H = e->model->t.hidden;
    uint64_t t0 = clock_ns(), t1, attn = 0, moe = 0;
    w->phase = w->phase % 3;
    w->pending = false;
    while (s->few ? i < s->n : eng_claim(e, worker, s->n, &i)) {
        /* the norm's rows serve as conversion space: nothing else is live yet */
        embed(e, i, x + (size_t)i * H, norm->x + (size_t)i * H);
        i++;
    }
    if (!s->few)
        eng_phase_end(e, worker);
    for (uint32_t l = 0; l < e->model->t.n_layers; l++) {
        t1 = clock_ns();
        eng_attention(e, worker, l);
        uint64_t t2 = clock_ns();
        attn += t2 - t1;
        eng_ffn(e, worker, l);
        if (e->tap != NULL)
            show_layer(e, worker, l);
        moe += clock_ns() - t2;
    }
    run_head(e, worker);
    if (worker == 0) {
        atomic_fetch_add_explicit(&e->stat.attn_ns, attn, memory_order_relaxed);
        atomic_fetch_add_explicit(&e->stat.moe_ns, moe, memory_order_relaxed);
        atomic_fetch_add_explicit(&e->stat.other_ns, clock_ns() - t0 - attn - moe,
                                  memory_order_relaxed);
    }
}

static kt_status check_batch(const kt_engine *e, const kt_batch_item *items, uint32_t n_items,
                             kt_err *err)
{
    uint64_t total = 0;
    if (e->kv == NULL)
        KT_FAIL(err, KT_E_INVALID, "the engine was opened for metadata only");
    if (n_items == 0 || n_items > e->max_seqs)
        KT_FAIL(err, KT_E_INVALID, "a step takes 1 to %u sequences, not %u", e->max_seqs, n_items);
    for (uint32_t i = 0; i < n_items; i++) {
        const kt_batch_item *it = &items[i];
        if (it->seq == NULL || it->seq->e != e || !it->seq->open || it->n == 0)
            KT_FAIL(err, KT_E_INVALID, "item %u has no open sequence of this engine, or no token",
                    i);
        for (uint32_t j = 0; j < i; j++)
            if (items[j].seq == it->seq)
                KT_FAIL(
                    err, KT_E_INVALID,
                    "items %u and %u name the same sequence; a sequence may occur once in a step",
                    j, i);
        total += it->n;
        for (uint32_t k = 0; k < it->n; k++)
            if (it->ids[k] < 0 || (uint32_t)it->ids[k] >= e->model->t.vocab)
                KT_FAIL(err, KT_E_INVALID, "item %u: token id %d is outside the vocabulary of %u",
                        i, it->ids[k], e->model->t.vocab);
        if ((uint64_t)it->seq->len + it->n > (uint64_t)it->seq->n_pages * KERN_KV_PAGE ||
            (uint64_t)it->seq->len + it->n > e->ctx)
            KT_FAIL(err, KT_E_KV_FULL,
                    "item %u: %u tokens after %u exceed the sequence's reservation", i, it->n,
                    it->seq->len);
    }
    if (total > e->batch)
        KT_FAIL(err, KT_E_INVALID, "a step of %llu tokens exceeds batch_tokens %u",
                (unsigned long long)total, e->batch);
    return KT_OK;
}

static void lay_tokens(kt_engine *e, kt_batch_item *items, uint32_t n_items)
{
    struct eng_step *s = &e->step;
    s->items = items;
    s->n_items = n_items;
    s->n = s->n_out = 0;
    s->single = true;
    for (uint32_t i = 0; i < n_items; i++) {
        s->single = s->single && items[i].n == 1;
        items[i].result = KT_OK;
        for (uint32_t k = 0; k < items[i].n; k++) {
            uint32_t t = s->n++;
            s->seq[t] = items[i].seq;
            s->pos[t] = items[i].seq->len + k;
            s->id[t] = items[i].ids[k];
            s->item[t] = i;
            atomic_store_explicit(&s->bad[t], 0, memory_order_relaxed);
            if (items[i].logits != NULL && (items[i].all_logits || k + 1 == items[i].n)) {
                s->out_tok[s->n_out] = t;
                s->out_ptr[s->n_out++] =
                    items[i].logits + (items[i].all_logits ? (size_t)k * e->model->t.vocab : 0);
            }
        }
    }
}

kt_status kt_step(kt_engine *e, kt_batch_item *items, uint32_t n_items, kt_err *err)
{
    KT_TRY(check_batch(e, items, n_items, err));
    lay_tokens(e, items, n_items);
    eng_attn_plan(e);
    e->step.few = e->step.n <= FEW_TOKENS;
    team_run(e->team, step_worker, e);
    uint64_t decode = 0;
    for (uint32_t t = 0; t < e->step.n; t++)
        if (atomic_load_explicit(&e->step.bad[t], memory_order_relaxed))
            items[e->step.item[t]].result = KT_E_NUMERIC;
    for (uint32_t i = 0; i < n_items; i++) {
        items[i].seq->len += items[i].n;
        decode += items[i].n == 1;
    }
    atomic_fetch_add_explicit(&e->stat.steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.tokens, e->step.n, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.kv_bytes, e->step.kv_read, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.attn_macs, e->step.attn_macs, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.decode, decode, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.prefill, e->step.n - decode, memory_order_relaxed);
    return KT_OK;
}
