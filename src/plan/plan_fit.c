/* plan_fit.c - what lies where, in bytes, and whether it fits. The CPU side holds every expert (the
 * fast tier has copies) and, unless the fast tier takes them, attention, shared experts, KV and
 * scratch. A fast tier takes the dense part and KV first, when they fit as a whole, then experts.
 * Rows are split over nodes by the plan's shares, so the fullest node decides. When it does not
 * fit: the cheapest changes that make it fit, each tried with the same arithmetic. Pure.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan_model.h"

#define SYSTEM_SHARE                                                                               \
    0.03 /* of a node, and this much of the first one: kernel, page tables, programs */
#define SYSTEM_BYTES 1.0e9
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
        q->system = known ? SYSTEM_SHARE * q->capacity + (i == 0 ? SYSTEM_BYTES : 0) : 0;
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
        q->system = q->capacity * (t[i].dev.gpu ? GPU_SHARE : SYSTEM_SHARE);
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

/* The CPU side by shares; which node is over its room, if any. */
static bool place_cpu(struct plan_model *m, const struct needs *left, double *over)
{
    bool fits = true;
    double sum = 0, room = 0;
    *over = 0;
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
        *over = fmax(*over, (used - free_bytes) / fmax(q->share, 1e-9));
        fits = fits && used <= free_bytes;
    }
    if (m->memory_limit > 0 && sum > m->memory_limit) {
        *over = fmax(*over, sum - m->memory_limit);
        fits = false;
    }
    m->need = sum;
    m->room = m->memory_limit > 0 ? fmin(room, m->memory_limit) : room;
    return fits;
}

kt_status plan_fit(struct plan_model *m, const struct host *h, const struct plan_tier_ask *t,
                   uint32_t n, kt_err *err)
{
    struct needs need = needs_of(m->shape, &m->o), left = need;
    double over, *each = mem_calloc(n + (size_t)1, sizeof *each);
    if (each == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    const struct host_limits *l = &h->limits;
    uint64_t limit = l->memory_max < l->memory_high ? l->memory_max : l->memory_high;
    m->memory_limit = limit != HOST_UNKNOWN_BYTES ? (double)limit : 0;
    kt_status st = new_places(m, h, t, n, err);
    if (st == KT_OK) {
        place_fast(m, t, n, &left, each);
        m->fits = place_cpu(m, &left, &over);
        if (!m->fits && m->hit > 0) { /* the host's copies of what the fast tier holds may go */
            left.experts *= 1 - m->hit;
            m->drop_host_copy = m->fits = place_cpu(m, &left, &over);
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

/* ---- what would make it fit ---- */

/* Does it fit with these options and these bytes of experts and dense part? */
static bool would_fit(const struct plan_model *m, const struct plan_model_opts *o, double experts,
                      double dense)
{
    struct plan_model copy = *m;
    struct needs n = needs_of(m->shape, o);
    double over;
    n.experts = experts;
    n.dense = dense;
    bool fits = place_cpu(&copy, &n, &over);
    return fits; /* places of m are written again; plan_remedies restores them at its end */
}

static void propose(struct plan_remedy *list, uint32_t *n, double cost, const char *action,
                    const char *price)
{
    uint32_t at = *n < 8 ? (*n)++ : 7;
    list[at].cost = cost;
    snprintf(list[at].action, sizeof list[at].action, "%s", action);
    snprintf(list[at].price, sizeof list[at].price, "%s", price);
}

static void try_kv(const struct plan_model *m, const struct needs *n, struct plan_remedy *list,
                   uint32_t *count)
{
    struct plan_model_opts o = m->o;
    char action[112], price[112];
    if (plan_kv_element(o.kv_type) > plan_kv_element("int8")) {
        o.kv_type = "int8";
        if (would_fit(m, &o, n->experts, n->dense)) {
            snprintf(price, sizeof price, "keys and values are rounded to 8 bits; KV %.2f GB less",
                     (n->kv - needs_of(m->shape, &o).kv) / 1e9);
            propose(list, count, 0.05, "--kv-type int8", price);
        }
        o.kv_type = m->o.kv_type;
    }
    for (uint32_t p = o.parallel; p > 1;) {
        o.parallel = --p;
        if (!would_fit(m, &o, n->experts, n->dense))
            continue;
        snprintf(action, sizeof action, "--parallel %u", p);
        snprintf(price, sizeof price, "%u instead of %u sequences at once", p, m->o.parallel);
        propose(list, count, 0.5 * (1 - (double)p / m->o.parallel), action, price);
        break;
    }
    o.parallel = m->o.parallel;
    for (uint32_t c = o.ctx_tokens / 256; c > 1;) {
        o.ctx_tokens = --c * 256;
        if (!would_fit(m, &o, n->experts, n->dense))
            continue;
        snprintf(action, sizeof action, "--ctx %u", o.ctx_tokens);
        snprintf(price, sizeof price, "sequences of %u instead of %u tokens", o.ctx_tokens,
                 m->o.ctx_tokens);
        propose(list, count, 0.5 * (1 - (double)o.ctx_tokens / m->o.ctx_tokens), action, price);
        break;
    }
}

/* Bytes of all experts in another format. */
static double experts_in(const struct shape *s, const struct shape_format *f)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        sum += s->layers[i].weights[SHAPE_EXPERT] * s->n_experts * (2 * f->up_bits + f->down_bits) /
               24;
    return sum;
}

static double weights_of(const struct shape *s)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        sum += s->layers[i].weights[SHAPE_EXPERT] * s->n_experts;
    return sum;
}

static void try_formats(const struct plan_model *m, const struct needs *n, struct plan_remedy *list,
                        uint32_t *count)
{
    static const char *const ladder[] = {"q8_0", "q6_k", "q5_k", "q4_k", "mxfp4", "q3_k", "q2_k"};
    double bits = n->experts * 8 / fmax(weights_of(m->shape), 1);
    for (size_t i = 0; i < sizeof ladder / sizeof ladder[0] && m->shape->n_experts > 0; i++) {
        struct shape_format f;
        char action[112], price[112];
        if (!shape_format_by_name(ladder[i], &f))
            continue;
        double bytes = experts_in(m->shape, &f), now = bytes * 8 / weights_of(m->shape);
        if (bytes >= n->experts || !would_fit(m, &m->o, bytes, n->dense))
            continue;
        snprintf(action, sizeof action, "--format %s (ktserve --quant, kttune convert)", ladder[i]);
        snprintf(price, sizeof price, "%.2f instead of %.2f bits a weight; experts %.1f GB less",
                 now, bits, (n->experts - bytes) / 1e9);
        propose(list, count, 0.15 + 0.85 * (1 - now / bits), action, price);
        break;
    }
}

/* The other matrices in 8 bits: little is lost, and little gained unless they were 16. */
static void try_dense(const struct plan_model *m, const struct needs *n, struct plan_remedy *list,
                      uint32_t *count)
{
    struct shape_format f;
    char price[112];
    double weights = m->shape->head_weights + (m->shape->tied_head ? 0 : m->shape->embed_weights),
           plain = 0;
    if (n->dense <= 0 || !shape_format_by_name("q8_0", &f))
        return;
    for (uint32_t i = 0; i < m->shape->n_layers; i++)
        for (int p = 0; p < SHAPE_PARTS; p++) {
            if (p == SHAPE_PLAIN)
                plain += m->shape->layers[i].bytes[p];
            else if (p != SHAPE_EXPERT)
                weights += m->shape->layers[i].weights[p];
        }
    double bytes = plain + weights * f.dense_bits / 8;
    if (bytes >= n->dense || !would_fit(m, &m->o, n->experts, bytes))
        return;
    snprintf(price, sizeof price, "attention and head in 8.5 bits a weight; %.2f GB less",
             (n->dense - bytes) / 1e9);
    propose(list, count, 0.08, "--format-dense q8_0 (ktserve --quant-dense)", price);
}

/* A GPU that nobody uses yet could take the dense part, KV and some experts. */
static void try_fast(const struct plan_model *m, const struct host *h, const struct needs *n,
                     struct plan_remedy *list, uint32_t *count)
{
    double room = 0, dense = n->dense + n->kv + n->scratch;
    bool used = m->n_places > m->host_plan->n_pools;
    for (uint32_t i = 0; i < h->n_gpus; i++)
        if (h->gpus[i].cuda && h->gpus[i].memory_bytes != HOST_UNKNOWN_BYTES)
            room += (1 - GPU_SHARE) * (double)h->gpus[i].memory_bytes;
    if (used || room < dense)
        return;
    struct plan_model_opts o = m->o;
    double experts = n->experts - fmin(room - dense, n->experts);
    struct plan_model copy = *m;
    struct needs left = {.experts = experts};
    double over;
    (void)o;
    if (place_cpu(&copy, &left, &over))
        propose(list, count, 0.1, "--fast-tier auto",
                "attention, KV and some experts on the GPU; planned, not served by this version");
}

static void try_memory(const struct plan_model *m, const struct needs *n, struct plan_remedy *list,
                       uint32_t *count)
{
    double over;
    char action[112];
    struct plan_model copy = *m;
    struct needs all = *n;
    (void)place_cpu(&copy, &all, &over);
    bool limit = m->memory_limit > 0 && m->memory_limit < m->room * 1.001;
    snprintf(action, sizeof action, limit ? "a memory limit %.0f GB higher" : "%.0f GB more memory",
             ceil(over / 0.97e9));
    propose(list, count, limit ? 0.2 : 0.3 + fmin(over / fmax(m->room, 1), 1) * 0.7, action,
            limit ? "a change of the cgroup or container"
                  : "hardware; spread evenly over the nodes");
}

void plan_remedies(struct plan_model *m, const struct host *h)
{
    struct plan_remedy list[8];
    struct needs n = needs_of(m->shape, &m->o);
    uint32_t count = 0;
    double over;
    if (m->dense_fast)
        n.dense = n.kv = n.scratch = 0;
    n.experts *= 1 - m->hit;
    double need = m->need, room = m->room;
    if (!m->dense_fast)
        try_kv(m, &n, list, &count);
    try_dense(m, &n, list, &count);
    try_formats(m, &n, list, &count);
    try_fast(m, h, &n, list, &count);
    try_memory(m, &n, list, &count);
    (void)place_cpu(m, &n, &over);
    m->need = need;
    m->room = room;
    while (m->n_remedies < 3) { /* cheapest first; ties keep the order above */
        uint32_t best = count;
        for (uint32_t i = 0; i < count; i++)
            if (list[i].cost >= 0 && (best == count || list[i].cost < list[best].cost))
                best = i;
        if (best == count)
            break;
        m->remedies[m->n_remedies++] = list[best];
        list[best].cost = -1;
    }
}
