/* plan_predict.c - tokens per second from bytes and rates: every part of a layer costs
 * max(bytes / rate, operations / rate) where it lies, routed experts cost what cost.h says, and
 * joins are counted. Beside the constants of rates.h three rules are used for every host: a cache
 * of keys and values is read at 60 % of the memory's rate, attention scores are computed at a
 * quarter of the matrices' operation rate (fp32 beside int8 lanes), and a layer has four barriers
 * beside the two of its experts. Pure.
 */
#include <math.h>
#include <stddef.h>

#include "base/mem.h"
#include "plan/plan_model.h"

#define KV_SHARE 0.6
#define SCORE_SHARE 0.25
#define LAYER_BARRIERS 4

struct side { /* where a part runs */
    double read, ops;
};

struct builder {
    const struct plan_model *m;
    struct plan_prediction *p;
    struct side dense;
    double tokens;
};

/* The last line, or NULL when there was nothing to add. */
static struct plan_term *term(struct builder *b, const char *what, double bytes, double seconds,
                              uint32_t count, bool inside)
{
    if ((seconds <= 0 && bytes <= 0) || b->p->n_terms == PLAN_TERMS)
        return NULL;
    struct plan_term *t = &b->p->terms[b->p->n_terms++];
    *t = (struct plan_term){
        .what = what, .bytes = bytes, .seconds = seconds, .count = count, .inside = inside};
    if (!inside)
        b->p->seconds += seconds;
    return t;
}

static void arithmetic(struct plan_term *t, double ops, const struct side *where)
{
    if (t == NULL)
        return;
    t->ops = ops;
    t->by_ops = ops / where->ops > t->bytes / where->read;
}

/* One part of every layer that has it. */
static void dense_part(struct builder *b, enum shape_part part, const char *what)
{
    const struct shape *s = b->m->shape;
    double bytes = 0, seconds = 0, ops = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        double by = s->layers[i].bytes[part], w = s->layers[i].weights[part];
        if (by <= 0)
            continue;
        count++;
        bytes += by;
        ops += b->tokens * 2 * w;
        seconds += fmax(by / b->dense.read, b->tokens * 2 * w / b->dense.ops);
    }
    arithmetic(term(b, what, bytes, seconds, count, false), ops, &b->dense);
}

static void kv_decode(struct builder *b)
{
    const struct shape *s = b->m->shape;
    double elements = 0, size = plan_kv_element(b->m->o.kv_type);
    double rate = b->m->dense_fast ? b->dense.read : KV_SHARE * b->m->rates.dram_bytes_per_second;
    for (uint32_t i = 0; i < s->n_layers; i++)
        elements += shape_kv_read(&s->layers[i].kv, b->p->at_tokens);
    double bytes = b->p->streams * elements * size;
    term(b, "KV cache", bytes, bytes / rate, s->n_layers, false);
}

/* Scores of a chunk: on average half of it is visible. */
static void scores_prefill(struct builder *b)
{
    const struct shape *s = b->m->shape;
    double ops = 0;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct shape_kv *kv = &s->layers[i].kv;
        double seen = b->tokens / 2;
        if (kv->window > 0)
            seen = fmin(seen, kv->window);
        ops += 2 * kv->score_ops * seen * b->tokens;
    }
    arithmetic(
        term(b, "attention scores", 0, ops / (SCORE_SHARE * b->dense.ops), s->n_layers, false), ops,
        &b->dense);
}

static void overheads(struct builder *b)
{
    const struct plan_model *m = b->m;
    const struct shape *s = m->shape;
    uint32_t devices = m->n_places - m->host_plan->n_pools, dense = s->n_layers - s->n_moe;
    double barrier = m->sources[COST_BARRIER].value;
    if (!m->dense_fast) {
        term(b, "barriers", 0, barrier * (LAYER_BARRIERS * s->n_layers + 2.0 * dense), s->n_layers,
             false);
        return;
    }
    term(b, "launches of attention", 0, m->rates.launch_seconds * s->n_layers, s->n_layers, false);
    term(b, "small kernels on the device", 0, m->sources[COST_LAYER].value * s->n_layers,
         s->n_layers, false);
    if (devices > 1)
        term(b, "sums over devices", 0, 2 * m->rates.merge_seconds * s->n_layers, s->n_layers,
             false);
}

static void head(struct builder *b, double rows)
{
    const struct shape *s = b->m->shape;
    double ops = rows * 2 * s->head_weights;
    double seconds = fmax(s->head_bytes / b->dense.read, ops / b->dense.ops);
    arithmetic(term(b, "head", s->head_bytes, seconds, 0, false), ops, &b->dense);
}

/* ---- routed experts ---- */

static void add_terms(struct cost_terms *sum, const struct cost_terms *t)
{
    sum->fast += t->fast;
    sum->cpu += t->cpu;
    sum->link += t->link;
    sum->merge += t->merge;
    sum->total += t->total;
}

static void experts_decode(struct builder *b)
{
    const struct plan_model *m = b->m;
    const struct shape *s = m->shape;
    struct cost_terms sum = {0}, t;
    struct cost_rates r = m->rates;
    if (m->o.no_fetch)
        r.link_bytes_per_second = 0;
    double distinct = cost_distinct(s->n_experts, s->top_k, b->tokens), bytes = 0;
    struct cost_load l = {.resident = distinct * m->hit,
                          .missing = distinct * (1 - m->hit),
                          .tokens = fmax(b->tokens * s->top_k / fmax(distinct, 1), 1)};
    b->p->experts_read = distinct;
    double last_bytes = -1;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct shape_layer *y = &s->layers[i];
        struct cost_expert x = {y->bytes[SHAPE_EXPERT], 2 * y->weights[SHAPE_EXPERT]};
        if (!y->moe)
            continue;
        if (x.bytes < last_bytes || x.bytes > last_bytes) /* most layers are alike */
            (void)cost_layer_expected(&r, &x, 0, &l, &t);
        last_bytes = x.bytes;
        add_terms(&sum, &t);
        bytes += x.bytes * distinct;
    }
    if (s->n_moe == 0)
        return;
    if (m->hit <= 0) {
        double join = m->rates.join_seconds * s->n_moe;
        term(b, "experts", bytes, sum.cpu - join, s->n_moe, false);
        term(b, "joins", 0, join, s->n_moe, false);
    } else {
        term(b, "experts, slowest side", bytes, sum.total - sum.merge, s->n_moe, false);
        term(b, "CPU side with its join", bytes * (1 - m->hit), sum.cpu, s->n_moe, true);
        term(b, "fast side", bytes * m->hit, sum.fast, s->n_moe, true);
        term(b, "copies on demand", 0, sum.link, s->n_moe, true);
    }
    term(b, "merges", 0, sum.merge, s->n_moe, false);
}

static void experts_prefill(struct builder *b, uint32_t *counts)
{
    const struct plan_model *m = b->m;
    const struct shape *s = m->shape;
    double distinct = cost_distinct(s->n_experts, s->top_k, b->tokens), bytes = 0, seconds = 0;
    uint32_t reached = (uint32_t)(distinct + 0.5),
             each = (uint32_t)fmax(b->tokens * s->top_k / fmax(distinct, 1) + 0.5, 1),
             resident = (uint32_t)(m->hit * reached + 0.5);
    for (uint32_t i = 0; i < s->n_experts; i++)
        counts[i] = each;
    struct cost_chunk c = {counts, counts, resident, reached - resident};
    double last_bytes = -1, last = 0, ops = 0;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct shape_layer *y = &s->layers[i];
        struct cost_expert x = {y->bytes[SHAPE_EXPERT], 2 * y->weights[SHAPE_EXPERT]};
        if (!y->moe)
            continue;
        if (x.bytes < last_bytes || x.bytes > last_bytes)
            last = cost_chunk_best(&m->rates, &x, 0, &c, &b->p->streamed);
        last_bytes = x.bytes;
        seconds += last;
        bytes += x.bytes * reached;
        ops += x.ops_per_token * b->tokens * s->top_k;
    }
    b->p->experts_read = distinct;
    struct side cpu = {m->rates.cpu_bytes_per_second, m->rates.cpu_ops_per_second};
    arithmetic(term(b, m->hit > 0 || b->p->streamed > 0 ? "experts, slowest side" : "experts",
                    bytes, seconds, s->n_moe, false),
               ops, &cpu);
}

/* ---- the three predictions ---- */

static bool start(struct builder *b, struct plan_model *m, struct plan_prediction *p)
{
    const struct cost_source *c = m->sources;
    *p = (struct plan_prediction){0};
    b->m = m;
    b->p = p;
    if (c[COST_CPU_READ].origin == COST_MISSING) {
        p->why_not = "no read rate of every pool is known: give a profile with mem.read, or --set "
                     "mem.read:nodeN.tT=RATE";
        return false;
    }
    if (m->n_places > m->host_plan->n_pools && c[COST_FAST_READ].origin == COST_MISSING) {
        p->why_not = "no read rate of the fast tier is known: gpu.mem:gpuN or mem.matrix";
        return false;
    }
    b->dense = m->dense_fast
                   ? (struct side){m->rates.fast_bytes_per_second, m->rates.fast_ops_per_second}
                   : (struct side){m->rates.cpu_bytes_per_second, m->rates.cpu_ops_per_second};
    p->possible = true;
    return true;
}

static void decode(struct plan_model *m, uint32_t streams, struct plan_prediction *p)
{
    struct builder b;
    bool known = start(&b, m, p);
    p->streams = p->tokens = streams;
    p->at_tokens = m->o.at_tokens;
    if (!known)
        return;
    b.tokens = streams;
    dense_part(&b, SHAPE_ATTENTION, "attention");
    kv_decode(&b);
    dense_part(&b, SHAPE_SHARED, "shared experts");
    dense_part(&b, SHAPE_FFN, "dense FFN");
    dense_part(&b, SHAPE_PLAIN, "router, norms, small");
    experts_decode(&b);
    overheads(&b);
    head(&b, streams);
    p->tokens_per_second = streams / p->seconds;
}

static void prefill(struct plan_model *m, struct plan_prediction *p)
{
    struct builder b;
    if (!start(&b, m, p))
        return;
    if (!isfinite(b.dense.ops) || !isfinite(m->rates.cpu_ops_per_second)) {
        p->possible = false;
        p->why_not = m->dense_fast ? "no operation rate is known: gpu.expert:gpuN.FORMAT.m512 and "
                                     "expert.gemm"
                                   : "no operation rate is known: expert.gemm was not measured";
        return;
    }
    uint32_t *counts = mem_calloc(m->shape->n_experts + (size_t)1, sizeof *counts);
    if (counts == NULL) {
        p->possible = false;
        p->why_not = "out of memory";
        return;
    }
    p->streams = 1;
    p->tokens = m->o.chunk;
    b.tokens = m->o.chunk;
    dense_part(&b, SHAPE_ATTENTION, "attention");
    scores_prefill(&b);
    dense_part(&b, SHAPE_SHARED, "shared experts");
    dense_part(&b, SHAPE_FFN, "dense FFN");
    dense_part(&b, SHAPE_PLAIN, "router, norms, small");
    if (m->shape->n_moe > 0)
        experts_prefill(&b, counts);
    overheads(&b);
    head(&b, 1);
    mem_free(counts);
    p->tokens_per_second = p->tokens / p->seconds;
}

void plan_predict(struct plan_model *m)
{
    decode(m, 1, &m->decode);
    decode(m, m->o.parallel, &m->decode_all);
    prefill(m, &m->prefill);
}
