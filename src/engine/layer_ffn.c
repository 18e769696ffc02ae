/* layer_ffn.c - the feed-forward half of a layer: residual, norm, then a dense FFN or the mixture
 * of experts.
 *
 * Mixture: router logits -> softmax over all experts -> top k (ties to the lower id) -> slots
 * grouped by expert -> gate and up of each active expert -> SwiGLU and re-quantisation per slot ->
 * down projection by row chunks, each chunk adding every expert's product into the token's int64
 * sum. A row of the sum is touched by one worker only, and the sum does not depend on the order of
 * experts (canonical arithmetic).
 */
#include "engine.h"

#include <math.h>
#include <string.h>

void eng_finish_rows(struct kt_engine *e, uint32_t row)
{
    uint32_t H = e->model->t.hidden;
    e->fn.moe_done(e->acc + (size_t)row * H, e->x + (size_t)row * H, H);
}

/* Softmax over all experts and the k best of one token, ids ascending, weights renormalised if the
 * model says so. */
static void route(struct kt_engine *e, uint32_t t)
{
    const struct mdl_traits *m = &e->model->t;
    uint32_t E = m->n_experts, K = m->top_k;
    float *p = e->rlogits + (size_t)t * E, max = p[0], total = 0;
    int32_t *chosen = e->step.chosen + (size_t)t * K;
    float *weight = e->step.weight + (size_t)t * K;
    bool finite = true;
    for (uint32_t i = 0; i < E; i++) {
        finite = finite && isfinite(p[i]);
        if (p[i] > max)
            max = p[i];
    }
    if (!finite) { /* keep going with harmless numbers; the caller of the step learns it */
        atomic_store_explicit(&e->step.bad[t], 1, memory_order_relaxed);
        for (uint32_t i = 0; i < E; i++)
            p[i] = 0;
        max = 0;
    }
    e->fn.vexp(p, max, E, p);
    for (uint32_t i = 0; i < E; i++)
        total += p[i];
    for (uint32_t i = 0; i < E; i++)
        p[i] /= total;
    /* k rounds of selection: the best not yet taken, ties to the lower id; then ascending ids */
    for (uint32_t k = 0; k < K; k++) {
        int32_t best = -1;
        for (uint32_t i = 0; i < E; i++)
            if (!signbit(p[i]) && (best < 0 || p[i] > p[best]))
                best = (int32_t)i;
        chosen[k] = best;
        weight[k] = p[best];
        p[best] = -1; /* probabilities are never negative: marks it taken */
    }
    if (e->tap != NULL) {
        float left = 0;
        for (uint32_t i = 0; i < E; i++)
            left = p[i] > left ? p[i] : left;
        e->step.gap[t] = weight[K - 1] > 0 ? (weight[K - 1] - left) / weight[K - 1] : 0;
    }
    for (uint32_t i = 1; i < K; i++)
        for (uint32_t j = i; j > 0 && chosen[j - 1] > chosen[j]; j--) {
            int32_t c = chosen[j];
            float w = weight[j];
            chosen[j] = chosen[j - 1], weight[j] = weight[j - 1];
            chosen[j - 1] = c, weight[j - 1] = w;
        }
    if (m->renorm) {
        total = 0;
        for (uint32_t k = 0; k < K; k++)
            total += weight[k];
        for (uint32_t k = 0; k < K; k++)
            weight[k] /= total;
    }
}

/* Counting sort of (token, expert) pairs by expert; worker 0 only. */
static void group_by_expert(struct kt_engine *e, struct eng_layer *l)
{
    struct eng_step *s = &e->step;
    uint32_t E = e->model->t.n_experts, K = e->model->t.top_k, pairs = s->n * K;
    memset(s->first, 0, (E + 1) * sizeof *s->first);
    for (uint32_t i = 0; i < pairs; i++)
        s->first[s->chosen[i] + 1]++;
    s->n_active = 0;
    for (uint32_t x = 0; x < E; x++) {
        if (s->first[x + 1] > 0) {
            s->active[s->n_active++] = x;
            atomic_fetch_add_explicit(&e->counts[(size_t)l->moe_index * E + x], s->first[x + 1],
                                      memory_order_relaxed);
        }
        s->first[x + 1] += s->first[x];
        s->fill[x] = s->first[x];
    }
    for (uint32_t i = 0; i < pairs; i++) {
        uint32_t slot = s->fill[s->chosen[i]]++;
        s->slot_tok[slot] = i / K;
        s->slot_weight[slot] = s->weight[i];
    }
    atomic_fetch_add_explicit(&e->stat.expert_tokens, pairs, memory_order_relaxed);
}

/* Down projection of all active experts for one chunk of this pool's rows. */
static void down_chunk(struct kt_engine *e, uint32_t worker, struct eng_layer *l, uint32_t chunk)
{
    struct eng_step *s = &e->step;
    struct eng_worker *w = &e->worker[worker];
    uint32_t H = e->model->t.hidden;
    for (uint32_t a = 0; a < s->n_active; a++) {
        uint32_t x = s->active[a], first = s->first[x], n = s->first[x + 1] - first;
        const struct eng_part *part = &l->down[x].part[w->pool];
        uint32_t row0 = chunk * s->down_rows,
                 row1 = row0 + s->down_rows < part->rows ? row0 + s->down_rows : part->rows;
        struct eng_act act = e->mid;
        act.x += (size_t)first * act.k;
        if (act.q != NULL) {
            act.q += first * act.ldq;
            act.scale += first * act.ldg;
            act.sum += first * act.ldg;
        }
        struct mm_job j = {&l->down[x], &act, NULL, n, NULL, 0};
        /* the kernel writes element (i, r) at y[i * ldy + r] with r counted in the part: shift so
         * that row0 lands at tmp */
        eng_mm(&j, part, row0, row1, (float *)((uintptr_t)w->tmp - row0 * sizeof(float)),
               s->down_rows);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t t = s->slot_tok[first + i];
            if (!e->fn.moe_add(e->acc + (size_t)t * H + part->row0 + row0,
                               w->tmp + (size_t)i * s->down_rows, s->slot_weight[first + i],
                               row1 - row0))
                atomic_store_explicit(&s->bad[t], 1, memory_order_relaxed);
        }
    }
}

static void swiglu_slot(struct kt_engine *e, uint32_t slot, uint32_t token, bool int8)
{
    uint32_t I = e->mid.k;
    float *y = e->mid.x + (size_t)slot * I;
    e->fn.swiglu(e->gbuf + (size_t)slot * I, e->ubuf + (size_t)slot * I, I, y);
    if (int8)
        eng_quantise(e, &e->mid, slot, token);
}

static void moe(struct kt_engine *e, uint32_t worker, struct eng_layer *l)
{
    const struct mdl_traits *m = &e->model->t;
    struct eng_step *s = &e->step;
    uint32_t i, I = m->expert_inter;
    bool int8 = eng_wants_int8(&l->down[0]);

    eng_jobs_run(e, worker); /* router */
    eng_phase_end(e, worker);
    if (s->n > 1) {
        while (eng_claim(e, worker, s->n, &i))
            route(e, i);
        eng_phase_end(e, worker);
    } else if (worker == 0) {
        route(e, 0);
    }
    if (worker == 0) {
        group_by_expert(e, l);
        e->mid.k = I;
        s->n_jobs = 0;
        for (uint32_t a = 0; a < s->n_active; a++) {
            uint32_t x = s->active[a], first = s->first[x], n = s->first[x + 1] - first;
            eng_job_add(e, &(struct mm_job){&l->gate[x], &e->norm, s->slot_tok + first, n,
                                            e->gbuf + (size_t)first * I, I});
            eng_job_add(e, &(struct mm_job){&l->up[x], &e->norm, s->slot_tok + first, n,
                                            e->ubuf + (size_t)first * I, I});
        }
        eng_jobs_prepare(e);
        /* a chunk's products of one expert lie in tmp [tokens][down_rows], which has room for
         * [B][CHUNK_ROWS] */
        uint32_t room = e->batch / s->n * CHUNK_ROWS;
        s->down_rows = eng_chunk_rows(e, m->hidden, s->n);
        if (s->down_rows > room)
            s->down_rows = room;
        for (uint32_t a = 0; a < s->n_active; a++)
            eng_count_weights(e, &l->down[s->active[a]],
                              s->first[s->active[a] + 1] - s->first[s->active[a]]);
    }
    eng_phase_end(e, worker);
    eng_jobs_run(e, worker);
    eng_phase_end(e, worker);
    while (eng_claim(e, worker, s->n * m->top_k, &i))
        swiglu_slot(e, i, s->slot_tok[i], int8);
    eng_phase_end(e, worker);
    uint32_t chunks =
        (l->down[0].part[e->worker[worker].pool].rows + s->down_rows - 1) / s->down_rows;
    while (eng_claim_pool(e, worker, chunks, &i))
        down_chunk(e, worker, l, i);
    if (worker == 0)
        s->pending = true;
    eng_phase_end(e, worker);
}

static void dense(struct kt_engine *e, uint32_t worker, struct eng_layer *l)
{
    const struct mdl_traits *m = &e->model->t;
    struct eng_step *s = &e->step;
    uint32_t i, H = m->hidden;
    bool int8 = eng_wants_int8(&l->down[0]);

    eng_jobs_run(e, worker); /* gate and up */
    eng_phase_end(e, worker);
    while (eng_claim(e, worker, s->n, &i))
        swiglu_slot(e, i, i, int8);
    if (worker == 0) {
        s->n_jobs = 0;
        eng_job_add(e, &(struct mm_job){&l->down[0], &e->mid, NULL, s->n, e->obuf, H});
        eng_jobs_prepare(e);
    }
    eng_phase_end(e, worker);
    eng_jobs_run(e, worker);
    eng_phase_end(e, worker);
    while (eng_claim(e, worker, s->n, &i))
        e->fn.add(e->x + (size_t)i * H, e->obuf + (size_t)i * H, H);
    if (worker == 0)
        s->pending = false;
    eng_phase_end(e, worker);
}

void eng_ffn(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct mdl_traits *m = &e->model->t;
    struct eng_layer *l = &e->layer[layer];
    struct eng_step *s = &e->step;
    uint32_t H = m->hidden, n = s->n, i;

    while (eng_claim(e, worker, n, &i)) {
        float *x = e->x + (size_t)i * H;
        e->fn.add(x, e->obuf + (size_t)i * H, H);
        e->fn.rmsnorm(x, l->ffn_norm, H, m->norm_eps, e->norm.x + (size_t)i * H);
        if (eng_wants_int8(&l->gate[0]) || eng_wants_int8(&l->up[0]) ||
            (l->moe && eng_wants_int8(&l->router)))
            eng_quantise(e, &e->norm, i, i);
    }
    if (worker == 0) {
        s->n_jobs = 0;
        if (l->moe) {
            eng_job_add(e,
                        &(struct mm_job){&l->router, &e->norm, NULL, n, e->rlogits, m->n_experts});
        } else {
            e->mid.k = m->dense_inter;
            eng_job_add(e,
                        &(struct mm_job){&l->gate[0], &e->norm, NULL, n, e->gbuf, m->dense_inter});
            eng_job_add(e, &(struct mm_job){&l->up[0], &e->norm, NULL, n, e->ubuf, m->dense_inter});
        }
        eng_jobs_prepare(e);
    }
    eng_phase_end(e, worker);
    if (l->moe)
        moe(e, worker, l);
    else
        dense(e, worker, l);
}
