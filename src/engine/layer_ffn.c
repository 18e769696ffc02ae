/* layer_ffn.c - the feed-forward half of a layer: norm, then a dense FFN or router and mixture of
 * experts.
 *
 * Routing: router logits -> softmax over all experts -> top k (ties to the lower id) -> slots
 * grouped by expert. In a step of few tokens every worker routes for itself; the expert path is
 * moe.c. Run by every worker; phases end at barriers.
 */
#include "moe.h"

#include <math.h>
#include <string.h>

/* Softmax over all experts (in place of p [E], the router's logits) and the k best of one token,
 * ids ascending, weights renormalised if the model says so. */
static void route(struct kt_engine *e, float *p, const struct eng_groups *g, uint32_t t)
{
    const struct mdl_traits *m = &e->model->t;
    uint32_t E = m->n_experts, K = m->top_k;
    float max = p[0], total = 0;
    int32_t *chosen = g->chosen + (size_t)t * K;
    float *weight = g->weight + (size_t)t * K;
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
        g->gap[t] = weight[K - 1] > 0 ? (weight[K - 1] - left) / weight[K - 1] : 0;
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

static void count_routed(struct kt_engine *e, const struct eng_layer *l, const struct eng_groups *g)
{
    uint32_t E = e->model->t.n_experts;
    for (uint32_t a = 0; a < g->n_active; a++)
        atomic_fetch_add_explicit(&e->counts[(size_t)l->moe_index * E + g->active[a]],
                                  g->first[g->active[a] + 1] - g->first[g->active[a]],
                                  memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.expert_tokens, (uint64_t)e->step.n * e->model->t.top_k,
                              memory_order_relaxed);
}

/* Experts of every token, by expert: this worker's own groups in a step of few tokens, else the
 * step's, behind barriers. */
static const struct eng_groups *route_all(struct kt_engine *e, uint32_t worker)
{
    const struct mdl_traits *m = &e->model->t;
    struct eng_worker *w = &e->worker[worker];
    struct eng_groups *g = e->step.few ? &w->groups : &e->step.groups;
    uint32_t E = m->n_experts, i;
    if (e->step.few) {
        for (i = 0; i < e->step.n; i++) {
            memcpy(w->probs, e->rlogits + (size_t)i * E, E * sizeof *w->probs);
            route(e, w->probs, g, i);
        }
        moe_group(g, e->step.n, m->top_k, E);
        return g;
    }
    while (eng_claim(e, worker, e->step.n, &i))
        route(e, e->rlogits + (size_t)i * E, g, i);
    eng_phase_end(e, worker);
    if (worker == 0)
        moe_group(g, e->step.n, m->top_k, E);
    eng_phase_end(e, worker);
    return g;
}

void eng_experts(struct kt_engine *e, uint32_t worker, const struct eng_layer *l,
                 const struct eng_act *x, const struct eng_groups *g)
{
    struct eng_step *s = &e->step;
    uint32_t H = e->model->t.hidden;
    struct moe_run r = {.gate = l->gate,
                        .up = l->up,
                        .down = l->down,
                        .groups = g,
                        .in = x,
                        .mid = e->mid,
                        .int8 = eng_wants_groups(&l->down[0]),
                        .n = s->n,
                        .out = s->few ? e->obuf : e->x,
                        .ldo = H,
                        .add = !s->few};
    r.mid.k = e->model->t.expert_inter;
    moe_gate_up(e, worker, &r);
    eng_phase_end(e, worker);
    if (eng_wants_rows(&l->down[0]))
        moe_quantise(e, worker, &r);
    moe_down(e, worker, &r);
    e->worker[worker].pending = s->few; /* every worker has its own x to add it to */
    eng_phase_end(e, worker);
}

static void moe(struct kt_engine *e, uint32_t worker, const struct eng_layer *l,
                const struct eng_act *x)
{
    struct mm_job router = {&l->router, x, NULL, e->step.n, e->rlogits, e->model->t.n_experts,
                            NULL};
    eng_jobs_run(e, worker, &router, 1);
    eng_phase_end(e, worker);
    const struct eng_groups *g = route_all(e, worker);
    if (worker == 0)
        count_routed(e, l, g);
    eng_experts(e, worker, l, x, g);
}

static void dense(struct kt_engine *e, uint32_t worker, const struct eng_layer *l,
                  const struct eng_act *x)
{
    uint32_t n = e->step.n, one = 0, first[2] = {0, n};
    const struct eng_groups all = {.first = first, .active = &one, .n_active = 1};
    struct moe_run r = {.gate = l->gate,
                        .up = l->up,
                        .groups = &all,
                        .in = x,
                        .mid = e->mid,
                        .int8 = eng_wants_groups(&l->down[0]),
                        .n = n};
    r.mid.k = e->model->t.dense_inter;
    moe_gate_up(e, worker, &r);
    if (worker == 0) {
        eng_count_weights(e, &l->gate[0], n);
        eng_count_weights(e, &l->up[0], n);
    }
    eng_phase_end(e, worker);
    if (eng_wants_rows(&l->down[0]))
        moe_quantise(e, worker, &r);
    struct mm_job down = {&l->down[0], &r.mid, NULL, n, e->obuf, e->model->t.hidden, NULL};
    eng_jobs_run(e, worker, &down, 1);
    e->worker[worker].pending = true;
    eng_phase_end(e, worker);
}

void eng_ffn(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct eng_layer *l = &e->layer[layer];
    const struct eng_act *x =
        eng_norm_rows(e, worker, l->ffn_norm,
                      eng_wants_int8(&l->gate[0]) || eng_wants_int8(&l->up[0]) ||
                          (l->moe && eng_wants_int8(&l->router)));
    if (l->moe)
        moe(e, worker, l, x);
    else
        dense(e, worker, l, x);
}
