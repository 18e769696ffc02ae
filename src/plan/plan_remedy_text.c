/* plan_remedy_text.c - a remedy in words: what to do, what it costs, and the options that make the
 * same command accept. Nothing is decided here. Pure; owner: the caller of plan_remedies.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "plan/plan_remedy.h"

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
        const char *f = c->experts;
        ACTION("--format %s", f);
        OPTION("--format %s", f);
        PRICE("%.2f instead of %.2f bits a weight, experts %.1f GB less (%s%s)", c->bits,
              remedy_bits(w->m->shape), c->saved / GB,
              made_at_load(f) ? "ktserve --quant " : "a GGUF file in ", f);
    }
    if (c->kinds & DENSE) {
        const char *f = c->others;
        ACTION("--format-dense %s", f);
        OPTION("--format-dense %s", f);
        PRICE("attention and head in %s bits a weight (ktserve --quant-dense %s)", c->others_bits,
              f);
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
    double least = (double)INFINITY, most = 0;
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
    PRICE("hardware: %.0f instead of %.0f GB", (remedy_present(w) + c->added) / GB,
          remedy_present(w) / GB);
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

void remedy_say(const struct search *w, const struct change *c, struct plan_remedy *r)
{
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
    say_limit(w, c, r);
    say_memory(w, c, r);
}
