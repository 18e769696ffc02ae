/* plan_remedy.c - what would make a model fit: sets of changes, each tried by the same arithmetic
 * that refused it (plan_fit), with the shape, limits and memories that the change would give.
 * Experts in fewer bits, other matrices in 8, keys and values in 8, fewer or shorter sequences, a
 * fast tier, a higher limit, more memory; alone and together. A set stays only when no part of it
 * can be left out or made smaller at the same cost or less. Costs add up; docs/COST.md has the
 * table. Pure.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/mem.h"
#include "kern.h"
#include "plan/plan_model.h"

#define KV_COST 0.05
#define CUT_COST 0.5 /* of a context or a number of sequences that becomes nothing */
#define TIER_COST 0.3
#define LIMIT_COST 0.2
#define MEMORY_COST 0.3
#define DOUBLING_COST 0.7 /* of memory */
#define LEAST_CTX 1024u
#define CTX_UNIT 256u
#define AND_COST 0.05 /* of every change beside the first */
#define GB 1e9

enum { FORMAT = 1, DENSE = 2, KV = 4, CTX = 8, PARALLEL = 16, TIER = 32, LIMIT = 64, MEMORY = 128 };

/* Formats of experts from many bits to few; those that do not divide the rows are passed over. */
static const char *const ladder[] = {"q8_0", "q6_k", "q5_k",  "q5_0", "q4_k",
                                     "q4_0", "q4_1", "mxfp4", "q3_k", "q2_k"};
#define LADDER ((int)(sizeof ladder / sizeof ladder[0]))
#define MAX_TIER_ASKS 8

/* What the other matrices may become: little is lost in 8 bits, attention suffers in 4. */
static const struct {
    const char *format, *bits;
    double cost;
} dense[] = {{"", "", 0}, {"q8_0", "8.5", 0.08}, {"q4_0", "4.5", 0.35}};
#define DENSE_FORMATS 3

struct change {
    uint32_t kinds;
    int format;     /* of the ladder; -1: as it is */
    uint32_t dense; /* of dense[]; 0: as it is */
    uint32_t ctx, parallel;
    int tier;     /* of search.tier; -1: as it is */
    double bits;  /* of the experts then */
    double saved; /* bytes of experts */
    double limit; /* bytes; 0: as it is */
    double added; /* bytes of memory on all nodes together */
    double cost;
    bool pointless; /* a part of it does as well at no higher cost */
    bool useless;   /* and with no more memory */
    bool taken;
};

struct search {
    const struct plan_model *m;
    const struct host *h;
    struct shape shape; /* with its own layers, rewritten by every trial */
    struct shape_layer *layers;
    struct plan plan;
    struct plan_pool *pools;
    double *node; /* [n_pools] bytes that the pool's memory must have */
    char tier[MAX_TIER_ASKS][48];
    int n_tiers;
    struct change *found;
    uint32_t n, most;
    kt_status status;
    kt_err *err;
};

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

static double present(const struct search *w)
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
        sum += MEMORY_COST + DOUBLING_COST * log2(1 + c->added / fmax(present(w), 1));
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

/* Bits of an expert's weight; 0 without experts. */
static double bits_of(const struct shape *s)
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
    c->bits = bits_of(&w->shape);
    if (c->bits >= *last)
        return false;
    *last = c->bits;
    c->kinds |= FORMAT;
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
    double last = bits_of(w->m->shape);
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
    for (uint32_t i = 0; i < w->plan.n_tiers && w->n_tiers < MAX_TIER_ASKS; i++) {
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

/* ---- words ---- */

static void add(char *to, size_t size, const char *between, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void add(char *to, size_t size, const char *between, const char *fmt, ...)
{
    size_t n = strlen(to);
    va_list ap;
    if (n > 0)
        n += (size_t)snprintf(to + n, size - n, "%s", between);
    if (n >= size)
        return;
    va_start(ap, fmt);
    vsnprintf(to + n, size - n, fmt, ap);
    va_end(ap);
}

#define ACTION(...) add(r->action, sizeof r->action, " and ", __VA_ARGS__)
#define PRICE(...) add(r->price, sizeof r->price, "; ", __VA_ARGS__)
#define OPTION(...) add(r->options, sizeof r->options, " ", __VA_ARGS__)

static bool made_at_load(const char *format)
{
    static const char *const can[] = {"mxfp4", "q8_0", "q4_0", "int4", "int8", "fp8"};
    for (size_t i = 0; i < sizeof can / sizeof can[0]; i++)
        if (strcmp(can[i], format) == 0)
            return true;
    return false;
}

static void say_weights(const struct search *w, const struct change *c, struct plan_remedy *r)
{
    if (c->kinds & FORMAT) {
        const char *f = ladder[c->format];
        ACTION("--format %s", f);
        OPTION("--format %s", f);
        PRICE("%.2f instead of %.2f bits a weight, experts %.1f GB less (%s%s)", c->bits,
              bits_of(w->m->shape), c->saved / GB,
              made_at_load(f) ? "ktserve --quant " : "a GGUF file in ", f);
    }
    if (c->kinds & DENSE) {
        const char *f = dense[c->dense].format;
        ACTION("--format-dense %s", f);
        OPTION("--format-dense %s", f);
        PRICE("attention and head in %s bits a weight (ktserve --quant-dense %s)",
              dense[c->dense].bits, f);
    }
    if (c->kinds & KV) {
        ACTION("--kv-type int8");
        OPTION("--kv-type int8");
        PRICE("keys and values are rounded to 8 bits");
    }
}

static void say_memory(const struct search *w, const struct change *c, struct plan_remedy *r)
{
    const struct plan *p = w->m->host_plan;
    double least = INFINITY, most = 0;
    uint32_t n = 0;
    if (!(c->kinds & MEMORY))
        return;
    for (uint32_t i = 0; i < p->n_pools; i++) {
        if (w->node[i] <= 0)
            continue;
        int32_t os = p->pools[i].node >= 0    ? p->pools[i].node
                     : p->pools[i].n_mems > 0 ? p->pools[i].mems[0]
                                              : 0;
        double grown = w->node[i] - (double)p->pools[i].bytes;
        for (uint32_t k = 0; k < w->h->n_nodes; k++)
            if (w->h->nodes[k].os == os) /* a pool may have more nodes than this one */
                OPTION("--set node%d.bytes=%.0f", os, (double)w->h->nodes[k].bytes + grown);
        least = fmin(least, w->node[i]);
        most = fmax(most, w->node[i]);
        n++;
    }
    if (p->n_pools == 1)
        ACTION("%.0f GB more memory", ceil(c->added / GB));
    else if (most - least < GB)
        ACTION("%.0f GB more memory (%.0f GB on each of %u nodes)", ceil(c->added / GB), most / GB,
               n);
    else
        ACTION("%.0f GB more memory (%.0f to %.0f GB on %u nodes)", ceil(c->added / GB), least / GB,
               most / GB, n);
    PRICE("hardware: %.0f instead of %.0f GB", (present(w) + c->added) / GB, present(w) / GB);
}

static void say_limit(const struct search *w, const struct change *c, struct plan_remedy *r)
{
    const struct host_limits *l = &w->h->limits;
    if (!(c->kinds & LIMIT))
        return;
    ACTION("a memory limit of %.0f GB", c->limit / GB);
    if ((double)l->memory_max < c->limit)
        OPTION("--set limits.memory_max_bytes=%.0f", c->limit);
    if ((double)l->memory_high < c->limit)
        OPTION("--set limits.memory_high_bytes=%.0f", c->limit);
    PRICE("a change of the cgroup or container: %.0f GB more",
          (c->limit - w->m->memory_limit) / GB);
}

static void say(struct search *w, const struct change *c, struct plan_remedy *r)
{
    struct change again = *c;
    r->cost = c->cost;
    say_weights(w, c, r);
    if (c->kinds & CTX) {
        ACTION("--ctx %u", c->ctx);
        OPTION("--ctx %u", c->ctx);
        PRICE("sequences of %u instead of %u tokens", c->ctx, w->m->o.ctx_tokens);
    }
    if (c->kinds & PARALLEL) {
        ACTION("--parallel %u", c->parallel);
        OPTION("--parallel %u", c->parallel);
        PRICE("%u instead of %u sequences at once", c->parallel, w->m->o.parallel);
    }
    if (c->kinds & TIER) {
        ACTION("--fast-tier %s", w->tier[c->tier]);
        OPTION("--fast-tier %s", w->tier[c->tier]);
        PRICE("%s; planned, not served by this version",
              strcmp(w->tier[c->tier], "auto") == 0
                  ? "attention, KV and some experts on the GPU"
                  : "some experts in memory that no cores are near to");
    }
    if (c->kinds & (MEMORY | LIMIT)) { /* the sizes of its nodes again */
        again.kinds &= ~(uint32_t)(MEMORY | LIMIT);
        again.added = again.limit = 0;
        reshape(w, &again);
        w->n = w->most; /* nothing is kept */
        try_memory(w, &again);
    }
    say_limit(w, c, r);
    say_memory(w, c, r);
}

kt_status plan_remedies(struct plan_model *m, const struct host *h, kt_err *err)
{
    struct change best[PLAN_REMEDIES];
    const uint32_t n_pools = m->host_plan->n_pools;
    struct search w = {.m = m, .h = h, .plan = *m->host_plan, .err = err};
    w.most = (LADDER + 1) * 2 * DENSE_FORMATS * (MAX_TIER_ASKS + 1) * 5;
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
        for (uint32_t i = 0; i < m->n_remedies; i++)
            say(&w, &best[i], &m->remedies[i]);
    }
    mem_free(w.layers);
    mem_free(w.pools);
    mem_free(w.node);
    mem_free(w.found);
    return w.status;
}
