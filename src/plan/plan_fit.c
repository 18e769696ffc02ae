/* plan_fit.c - what lies where, in bytes, and whether it fits. The CPU side holds every expert (the
 * fast tier has copies) and, unless the fast tier takes them, attention, shared experts, KV and
 * scratch. A fast tier takes the dense part and KV first, when they fit as a whole, then experts.
 * Rows are split over nodes by the plan's shares, so the fullest node decides. What would make it
 * fit is plan_remedy.c's question, which asks here. Pure.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan_model.h"

#define GPU_SHARE 0.06 /* context, fragmentation, work space of kernels */

double plan_kv_element(const char *t)
{
    if (strcmp(t, "f32") == 0)
        return 4;
    if (strcmp(t, "bf16") == 0)
        return 2;
    return strcmp(t, "int8") == 0 ? 1.03125 : 0; /* codes and a scale */
}

/* What the model needs, in bytes. */
struct needs {
    double experts, dense, kv, scratch;
};

/* Activations of a step: rows of hidden width, expert slots, logits; the order of the engine's own
 * sum, not its digits. */
static double scratch_bytes(const struct shape *s, double chunk, double parallel)
{
    double slots = s->n_experts > 0 ? chunk * s->top_k : 0;
    double wide = s->n_experts > 0 ? slots * s->expert_inter * 4 * 3 : 0;
    return chunk * s->hidden * 4 * 8 + wide + chunk * s->n_heads * (double)s->head_dim * 4 * 3 +
           parallel * s->vocab * 4;
}

static struct needs needs_of(const struct shape *s, const struct plan_model_opts *o)
{
    struct needs n;
    n.experts = shape_expert_bytes(s);
    n.dense = shape_dense_bytes(s);
    n.kv = o->parallel * shape_kv_bytes(s, o->ctx_tokens, plan_kv_element(o->kv_type));
    n.scratch = scratch_bytes(s, o->chunk, o->parallel);
    return n;
}

static kt_status new_places(struct plan_model *m, const struct host *h,
                            const struct plan_tier_ask *t, uint32_t n, kt_err *err)
{
    const struct plan *p = m->host_plan;
    m->places = mem_calloc(p->n_pools + n + 1, sizeof *m->places);
    if (m->places == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    for (uint32_t i = 0; i < p->n_pools; i++) {
        struct plan_place *q = &m->places[m->n_places++];
        bool known = p->pools[i].bytes != HOST_UNKNOWN_BYTES;
        if (p->pools[i].node >= 0)
            snprintf(q->name, sizeof q->name, "node%d", p->pools[i].node);
        else
            snprintf(q->name, sizeof q->name, "all nodes");
        q->capacity = known ? (double)p->pools[i].bytes : (double)INFINITY;
        q->system = known ? PLAN_SYSTEM_SHARE * q->capacity + (i == 0 ? PLAN_SYSTEM_BYTES : 0) : 0;
        q->share = p->pools[i].share;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct plan_place *q = &m->places[m->n_places++];
        q->fast = true;
        snprintf(q->name, sizeof q->name, "%s%u", t[i].dev.gpu ? "gpu" : "node", t[i].dev.index);
        q->capacity = 0;
        for (uint32_t g = 0; t[i].dev.gpu && g < h->n_gpus; g++)
            if (h->gpus[g].index == t[i].dev.index && h->gpus[g].memory_bytes != HOST_UNKNOWN_BYTES)
                q->capacity = (double)h->gpus[g].memory_bytes;
        for (uint32_t k = 0; !t[i].dev.gpu && k < h->n_nodes; k++)
            if (h->nodes[k].os == (int32_t)t[i].dev.index)
                q->capacity = (double)h->nodes[k].bytes;
        q->system = q->capacity * (t[i].dev.gpu ? GPU_SHARE : PLAN_SYSTEM_SHARE);
    }
    return KT_OK;
}

/* Bytes that the tier may hold, device by device; percentages are of all experts. */
static double tier_budget(const struct plan_model *m, const struct plan_tier_ask *t, uint32_t n,
                          const struct needs *need, double *each)
{
    double sum = 0;
    const struct plan_place *q = &m->places[m->host_plan->n_pools];
    for (uint32_t i = 0; i < n; i++) {
        double room = q[i].capacity - q[i].system;
        each[i] = t[i].bytes >= 0 ? t[i].bytes
                                  : t[i].percent / 100 * need->experts +
                                        (need->dense + need->kv + need->scratch) / n;
        each[i] = fmax(fmin(each[i], room), 0);
        sum += each[i];
    }
    return sum;
}

static void place_fast(struct plan_model *m, const struct plan_tier_ask *t, uint32_t n,
                       struct needs *left, double *each)
{
    double sum = tier_budget(m, t, n, left, each), dense = left->dense + left->kv + left->scratch;
    struct plan_place *q = &m->places[m->host_plan->n_pools];
    if (n == 0 || sum <= 0)
        return;
    m->dense_fast = dense <= sum && t[0].dev.gpu;
    double taken = m->dense_fast ? dense : 0, experts = fmin(sum - taken, left->experts);
    m->hit = left->experts > 0 ? experts / left->experts : 0;
    for (uint32_t i = 0; i < n; i++) {
        q[i].share = each[i] / sum;
        q[i].experts = experts * q[i].share;
        if (m->dense_fast) {
            q[i].dense = left->dense * q[i].share;
            q[i].kv = left->kv * q[i].share;
            q[i].scratch = left->scratch * q[i].share;
        }
    }
    if (m->dense_fast)
        left->dense = left->kv = left->scratch = 0;
}

/* The CPU side by shares; false when a node is over its room, or all are over the limit. */
static bool place_cpu(struct plan_model *m, const struct needs *left)
{
    bool fits = true;
    double sum = 0, room = 0;
    for (uint32_t i = 0; i < m->host_plan->n_pools; i++) {
        struct plan_place *q = &m->places[i];
        q->experts = left->experts * q->share;
        q->dense = left->dense * q->share;
        q->kv = left->kv / m->host_plan->n_pools; /* pages of both are interleaved */
        q->scratch = left->scratch / m->host_plan->n_pools;
        double used = q->experts + q->dense + q->kv + q->scratch,
               free_bytes = q->capacity - q->system;
        sum += used;
        room += free_bytes;
        fits = fits && used <= free_bytes;
    }
    fits = fits && (m->memory_limit <= 0 || sum <= m->memory_limit);
    m->need = sum;
    m->room = m->memory_limit > 0 ? fmin(room, m->memory_limit) : room;
    return fits;
}

kt_status plan_fit(struct plan_model *m, const struct host *h, const struct plan_tier_ask *t,
                   uint32_t n, kt_err *err)
{
    struct needs need = needs_of(m->shape, &m->o), left = need;
    double *each = mem_calloc(n + (size_t)1, sizeof *each);
    if (each == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    const struct host_limits *l = &h->limits;
    uint64_t limit = l->memory_max < l->memory_high ? l->memory_max : l->memory_high;
    m->memory_limit = limit != HOST_UNKNOWN_BYTES ? (double)limit : 0;
    kt_status st = new_places(m, h, t, n, err);
    if (st == KT_OK) {
        place_fast(m, t, n, &left, each);
        m->fits = place_cpu(m, &left);
        if (!m->fits && m->hit > 0) { /* the host's copies of what the fast tier holds may go */
            left.experts *= 1 - m->hit;
            m->drop_host_copy = m->fits = place_cpu(m, &left);
        }
        if (!m->fits)
            snprintf(m->refusal, sizeof m->refusal,
                     "%.2f GB needed (experts %.2f, the rest of the model %.2f, KV of %u x %u "
                     "tokens %.2f, scratch %.2f), %.2f GB can be used here",
                     m->need / 1e9, left.experts / 1e9, left.dense / 1e9, m->o.parallel,
                     m->o.ctx_tokens, left.kv / 1e9, left.scratch / 1e9, m->room / 1e9);
        double token = shape_kv_bytes(m->shape, m->o.ctx_tokens, plan_kv_element(m->o.kv_type)) /
                       m->o.ctx_tokens,
               spare = 0, fast_spare = 0;
        for (uint32_t i = 0; i < m->n_places; i++) {
            const struct plan_place *q = &m->places[i];
            double s = q->capacity - q->system - q->experts - q->dense - q->scratch;
            *(q->fast ? &fast_spare : &spare) += fmax(s, 0);
        }
        if (m->memory_limit > 0)
            spare = fmin(spare, m->memory_limit - (m->need - left.kv));
        m->kv_tokens_room = token > 0 ? fmax(m->dense_fast ? fast_spare : spare, 0) / token : 0;
    }
    mem_free(each);
    return st;
}
