/* plan_remedy.c - what would make a model fit: sets of changes, each tried by the same arithmetic
 * that refused it (plan_fit), with the shape, limits and memories that the change would give.
 * Experts in fewer bits, other matrices in 8 or 4, keys and values in 8, fewer or shorter
 * sequences, a fast tier, a higher limit, more memory; alone and together. A set of which a part
 * does as well at no higher cost is told only when there is nothing else. Costs add up;
 * docs/COST.md has the table. Pure.
 */
#include "plan/plan_remedy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/mem.h"
#include "kern.h"

#define KV_COST 0.05
#define CUT_COST 0.5 /* of a context or a number of sequences that becomes nothing */
#define TIER_COST 0.3
#define LIMIT_COST 0.2
#define MEMORY_COST 0.3
#define DOUBLING_COST 0.7 /* of memory */
#define AND_COST 0.05     /* of every change beside the first */
#define LEAST_CTX 1024u
#define CTX_UNIT 256u

/* Formats of experts from many bits to few; those that do not divide the rows are passed over. */
static const char *const ladder[] = {"q8_0", "q6_k", "q5_k",  "q5_0", "q4_k",
                                     "q4_0", "q4_1", "mxfp4", "q3_k", "q2_k"};
#define LADDER ((int)(sizeof ladder / sizeof ladder[0]))

/* What the other matrices may become: little is lost in 8 bits, attention suffers in 4. */
static const struct {
    const char *format, *bits;
    double cost;
} dense[] = {{"", "", 0}, {"q8_0", "8.5", 0.08}, {"q4_0", "4.5", 0.35}};
#define DENSE_FORMATS 3

/* ---- one trial ---- */

/* The shape as --format and --format-dense give it. */
static void reshape(struct search *w, const struct change *c)
{
    struct shape_format fe, fd;
    const struct shape *s = w->m->shape;
    memcpy(w->layers, s->layers, s->n_layers * sizeof *w->layers);
    w->shape = *s;
    w->shape.layers = w->layers;
    bool experts = c->format >= 0 && shape_format_by_name(ladder[c->format], &fe),
         others = c->dense > 0 && shape_format_by_name(dense[c->dense].format, &fd);
    shape_apply_format(&w->shape, experts ? &fe : NULL, others ? &fd : NULL);
}

/* Places of the model after the change; the caller frees out->places. false: out of memory. */
static bool trial(struct search *w, const struct change *c, struct plan_model *out)
{
    struct plan_tier_ask tiers[PLAN_TIERS];
    uint32_t n = 0;
    struct host h = *w->h;
    *out = (struct plan_model){.shape = &w->shape, .host_plan = &w->plan, .o = w->m->o};
    if (c->kinds & KV)
        out->o.kv_type = "int8";
    out->o.ctx_tokens = c->ctx;
    if (out->o.chunk > c->ctx)
        out->o.chunk = c->ctx;
    out->o.parallel = c->parallel;
    if (c->tier >= 0)
        out->o.fast_tier = w->tier[c->tier];
    if ((double)h.limits.memory_max < c->limit)
        h.limits.memory_max = (uint64_t)c->limit;
    if ((double)h.limits.memory_high < c->limit)
        h.limits.memory_high = (uint64_t)c->limit;
    for (uint32_t i = 0; i < w->plan.n_pools; i++) {
        w->pools[i].bytes = w->m->host_plan->pools[i].bytes;
        if (c->added > 0 && w->node[i] > (double)w->pools[i].bytes)
            w->pools[i].bytes = (uint64_t)w->node[i];
    }
    w->status = plan_read_tiers(out->o.fast_tier, w->h, &w->plan, tiers, &n, w->err);
    if (w->status == KT_OK)
        w->status = plan_fit(out, &h, tiers, n, w->err);
    return w->status == KT_OK;
}

static bool fits(struct search *w, const struct change *c)
{
    struct plan_model t;
    bool ok = trial(w, c, &t) && t.fits;
    mem_free(t.places);
    return ok;
}

/* ---- costs ---- */

double remedy_present(const struct search *w)
{
    double sum = 0;
    for (uint32_t i = 0; i < w->plan.n_pools; i++)
        sum += (double)w->m->host_plan->pools[i].bytes;
    return sum;
}

static double cost_of(const struct search *w, const struct change *c)
{
    const struct plan_model_opts *o = &w->m->o;
    double sum = 0;
    if (c->kinds & FORMAT) /* the error of a weight doubles with each bit that goes */
        sum += fmin(0.1 + 0.9 * exp2(2 - c->bits), 1);
    if (c->kinds & DENSE)
        sum += dense[c->dense].cost;
    if (c->kinds & KV)
        sum += KV_COST;
    if (c->kinds & CTX)
        sum += CUT_COST * (1 - (double)c->ctx / o->ctx_tokens);
    if (c->kinds & PARALLEL)
        sum += CUT_COST * (1 - (double)c->parallel / o->parallel);
    if (c->kinds & TIER)
        sum += TIER_COST;
    if (c->kinds & LIMIT)
        sum += LIMIT_COST;
    if (c->kinds & MEMORY)
        sum += MEMORY_COST + DOUBLING_COST * log2(1 + c->added / fmax(remedy_present(w), 1));
    return sum + AND_COST * (__builtin_popcount(c->kinds) - 1);
}

static void keep(struct search *w, struct change *c)
{
    c->cost = cost_of(w, c);
    if (w->n < w->most)
        w->found[w->n++] = *c;
}

/* ---- changes that need a search for their size ---- */

/* The largest v = k * unit below `from` that fits, at least `least`; 0: none. More never helps. */
static uint32_t largest(struct search *w, struct change *c, uint32_t *v, uint32_t unit,
                        uint32_t least)
{
    uint32_t lo = (least + unit - 1) / unit, hi = (*v - 1) / unit, best = 0;
    while (lo <= hi && hi > 0) {
        uint32_t mid = lo + (hi - lo) / 2;
        *v = mid * unit;
        if (fits(w, c)) {
            best = *v;
            lo = mid + 1;
        } else {
            hi = mid - 1;
        }
    }
    return best;
}

static uint32_t least_ctx(const struct search *w)
{
    return w->m->o.at_tokens > LEAST_CTX ? w->m->o.at_tokens : LEAST_CTX;
}

static void try_shorter(struct search *w, const struct change *base)
{
    struct change c = *base;
    uint32_t least = least_ctx(w);
    c.kinds |= CTX;
    c.ctx = c.ctx > least ? largest(w, &c, &c.ctx, CTX_UNIT, least) : 0;
    if (c.ctx > 0)
        keep(w, &c);
}

static void try_fewer(struct search *w, const struct change *base)
{
    struct change c = *base;
    c.kinds |= PARALLEL;
    c.parallel = c.parallel > 1 ? largest(w, &c, &c.parallel, 1, 1) : 0;
    if (c.parallel > 0)
        keep(w, &c);
}

/* Memory per node and limit that would do: what the trial places there, whole GB. */
static void try_memory(struct search *w, const struct change *base)
{
    struct change c = *base;
    struct plan_model t;
    double sum = 0;
    if (!trial(w, &c, &t))
        return;
    for (uint32_t i = 0; i < w->plan.n_pools; i++) {
        const struct plan_place *q = &t.places[i];
        double used = q->experts + q->dense + q->kv + q->scratch, now = q->capacity;
        w->node[i] = 0;
        sum += used;
        if (!isfinite(now) || used <= now - q->system)
            continue;
        double need = (used + (i == 0 ? PLAN_SYSTEM_BYTES : 0)) / (1 - PLAN_SYSTEM_SHARE);
        w->node[i] = ceil(need / GB) * GB;
        c.added += w->node[i] - now;
        c.kinds |= MEMORY;
    }
    mem_free(t.places);
    if (t.memory_limit > 0 && sum > t.memory_limit) {
        c.limit = ceil(sum / GB) * GB;
        c.kinds |= LIMIT;
    }
    if (fits(w, &c))
        keep(w, &c);
}

/* ---- all sets ---- */

static bool rows_divide(const struct shape *s, enum dtype t)
{
    uint32_t unit = kern_row_unit(t);
    return s->hidden % unit == 0 && s->expert_inter % unit == 0;
}

double remedy_bits(const struct shape *s)
{
    double weights = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        weights += s->layers[i].weights[SHAPE_EXPERT] * s->n_experts;
    return weights > 0 ? 8 * shape_expert_bytes(s) / weights : 0;
}

/* Fewer bits than now, and than the format before it in the ladder that can be used. */
static bool smaller(struct search *w, struct change *c, double *last)
{
    int t = c->format >= 0 ? dtype_by_name(ladder[c->format]) : -1;
    if (c->format < 0)
        return true;
    if (t < 0 || !kern_has_dtype(t) || !rows_divide(w->m->shape, (enum dtype)t))
        return false;
    reshape(w, c);
    c->bits = remedy_bits(&w->shape);
    if (c->bits >= *last)
        return false;
    *last = c->bits;
    c->kinds |= FORMAT;
    c->experts = ladder[c->format];
    c->saved = shape_expert_bytes(w->m->shape) - shape_expert_bytes(&w->shape);
    return true;
}

/* One combination of what has no size: fits, or fits after one change that has. */
static void try_set(struct search *w, const struct change *c)
{
    reshape(w, c);
    if (c->dense > 0 && shape_dense_bytes(&w->shape) >= shape_dense_bytes(w->m->shape))
        return;
    struct change copy = *c;
    if (fits(w, c)) {
        keep(w, &copy);
        return;
    }
    try_shorter(w, c);
    try_fewer(w, c);
    try_memory(w, c);
    copy.kinds |= CTX; /* for hosts that have nothing else */
    for (uint32_t part = 2; part <= 4; part += 2) {
        copy.ctx = c->ctx / part / CTX_UNIT * CTX_UNIT;
        if (copy.ctx >= least_ctx(w))
            try_memory(w, &copy);
    }
}

static void try_all(struct search *w)
{
    double last = remedy_bits(w->m->shape);
    bool kv = plan_kv_element(w->m->o.kv_type) > plan_kv_element("int8");
    for (int f = last > 0 ? -1 : LADDER; f < LADDER; f++) {
        struct change c = {.format = f,
                           .tier = -1,
                           .ctx = w->m->o.ctx_tokens,
                           .parallel = w->m->o.parallel,
                           .bits = last};
        if (!smaller(w, &c, &last))
            continue;
        for (uint32_t k = 0; k < 2 * DENSE_FORMATS; k++) {
            struct change d = c;
            d.dense = k / 2;
            d.others = dense[d.dense].format;
            d.others_bits = dense[d.dense].bits;
            d.kinds |= (k & 1 ? KV : 0) | (d.dense > 0 ? DENSE : 0);
            if ((k & 1) && !kv)
                continue;
            for (d.tier = -1; d.tier < w->n_tiers && w->status == KT_OK; d.tier++) {
                d.kinds = (d.kinds & ~(uint32_t)TIER) | (d.tier >= 0 ? TIER : 0);
                try_set(w, &d);
            }
        }
    }
}

/* Fast tiers that the host has and nobody asked for: its GPUs, memory nodes without cores. */
static void list_tiers(struct search *w)
{
    bool gpu = false;
    if (strcmp(w->m->o.fast_tier, "none") != 0)
        return;
    for (uint32_t i = 0; i < w->h->n_gpus; i++)
        gpu = gpu || (w->h->gpus[i].cuda && w->h->gpus[i].memory_bytes != HOST_UNKNOWN_BYTES);
    if (gpu)
        snprintf(w->tier[w->n_tiers++], sizeof w->tier[0], "auto");
    for (uint32_t i = 0; i < w->plan.n_tiers && w->n_tiers < REMEDY_TIERS; i++) {
        const struct plan_tier *t = &w->plan.tiers[i];
        double room = floor((double)t->bytes * (1 - PLAN_SYSTEM_SHARE) / GB);
        if (t->usable && t->bytes != HOST_UNKNOWN_BYTES && room >= 1)
            snprintf(w->tier[w->n_tiers++], sizeof w->tier[0], "numa%d=%.0fGB", t->node, room);
    }
}

/* ---- the choice ---- */

/* Is what a asks for, memory aside, part of what b asks for, and no dearer? Then b is pointless. */
static bool covers(const struct change *a, const struct change *b)
{
    return (a->kinds & ~b->kinds) == 0 && a->format <= b->format && a->dense <= b->dense &&
           a->ctx >= b->ctx && a->parallel >= b->parallel && (a->tier < 0 || a->tier == b->tier) &&
           a->cost <= b->cost;
}

static int by_cost(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    return (x->cost > y->cost) - (x->cost < y->cost);
}

static void prune(struct search *w)
{
    qsort(w->found, w->n, sizeof *w->found, by_cost);
    for (uint32_t i = 0; i < w->n; i++) /* what covers i has no higher cost: it comes before */
        for (uint32_t k = 0; k < i; k++) {
            const struct change *a = &w->found[k];
            struct change *b = &w->found[i];
            bool covered = covers(a, b);
            b->pointless = b->pointless || covered;
            b->useless = b->useless || (covered && a->added <= b->added && a->limit <= b->limit);
        }
}

/* The cheapest of each kind of set, then the cheapest others; only when there are no three, those
 * that ask for more than they must. */
static uint32_t choose(struct search *w, struct change out[PLAN_REMEDIES])
{
    uint32_t n = 0;
    for (int pass = 0; pass < 6; pass++)
        for (uint32_t i = 0; i < w->n && n < PLAN_REMEDIES; i++) {
            struct change *c = &w->found[i];
            bool no = c->taken || (pass < 2 && c->pointless) || (pass < 4 && c->useless);
            for (uint32_t k = 0; k < n; k++)
                no = no || (pass % 2 == 0 && out[k].kinds == c->kinds);
            if (no)
                continue;
            out[n++] = *c;
            c->taken = true;
        }
    qsort(out, n, sizeof *out, by_cost);
    return n;
}

/* The sizes of its nodes once more: other trials have written over them. */
static void sizes_again(struct search *w, const struct change *c)
{
    struct change bare = *c;
    bare.kinds &= ~(uint32_t)(MEMORY | LIMIT);
    bare.added = bare.limit = 0;
    reshape(w, &bare);
    w->n = w->most; /* nothing is kept */
    try_memory(w, &bare);
}

kt_status plan_remedies(struct plan_model *m, const struct host *h, kt_err *err)
{
    struct change best[PLAN_REMEDIES];
    const uint32_t n_pools = m->host_plan->n_pools;
    struct search w = {.m = m, .h = h, .plan = *m->host_plan, .err = err};
    w.most = (LADDER + 1) * 2 * DENSE_FORMATS * (REMEDY_TIERS + 1) * 5;
    w.layers = mem_calloc(m->shape->n_layers + (size_t)1, sizeof *w.layers);
    w.pools = mem_calloc(n_pools + (size_t)1, sizeof *w.pools);
    w.node = mem_calloc(n_pools + (size_t)1, sizeof *w.node);
    w.found = mem_calloc(w.most, sizeof *w.found);
    if (w.layers == NULL || w.pools == NULL || w.node == NULL || w.found == NULL) {
        w.status = err_set(err, KT_E_NOMEM, 0, __func__, "plan: out of memory");
    } else {
        memcpy(w.pools, m->host_plan->pools, n_pools * sizeof *w.pools);
        w.plan.pools = w.pools;
        list_tiers(&w);
        try_all(&w);
        prune(&w);
        m->n_remedies = choose(&w, best);
        for (uint32_t i = 0; i < m->n_remedies; i++) {
            if (best[i].kinds & (MEMORY | LIMIT))
                sizes_again(&w, &best[i]);
            remedy_say(&w, &best[i], &m->remedies[i]);
        }
    }
    mem_free(w.layers);
    mem_free(w.pools);
    mem_free(w.node);
    mem_free(w.found);
    return w.status;
}
