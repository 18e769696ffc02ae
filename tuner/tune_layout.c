/* tune_layout.c - the outer axes of a live search: which values of pages, SMT and pools this host
 * offers, whether they can be compared fairly (two engines must fit into memory at once), and the
 * configs with which a value is tried. Decides from facts and plans; loads nothing.
 */
#include <stdio.h>
#include <string.h>

#include "plan/plan.h"
#include "tune.h"

#define SPARE_BYTES (256u << 20) /* beside two engines */

static struct outer_try *add(struct tune_job *j, const char *axis, const char *value,
                             const char *absent)
{
    if (j->n_tries == OUTER_TRIES)
        return NULL;
    struct outer_try *t = &j->tries[j->n_tries++];
    *t = (struct outer_try){.fate = absent != NULL ? OUTER_ABSENT : OUTER_OPEN};
    snprintf(t->axis, sizeof t->axis, "%s", axis);
    snprintf(t->value, sizeof t->value, "%s", value);
    if (absent != NULL)
        snprintf(t->reason, sizeof t->reason, "%s", absent);
    return t;
}

static void pages(const struct tune_layouts *f, struct tune_job *j)
{
    const char *thp = f->h->env.thp_enabled;
    char why[160];
    uint64_t reserved = 0;
    bool never = thp == NULL || strcmp(thp, "never") == 0;
    (void)add(j, "pages", "4k",
              never ? "transparent huge pages are off: it is what the default has" : NULL);
    for (uint32_t i = 0; i < f->h->env.n_hugetlb; i++)
        if (f->h->env.hugetlb[i].page_bytes == 2u << 20)
            reserved += f->h->env.hugetlb[i].free * f->h->env.hugetlb[i].page_bytes;
    snprintf(why, sizeof why,
             "%.2f GiB of reserved pages of 2 MiB are free, an engine takes %.2f GiB "
             "(vm.nr_hugepages)",
             (double)reserved / 0x1p30, (double)f->engine_bytes / 0x1p30);
    (void)add(j, "pages", "hugetlb", reserved < f->engine_bytes ? why : NULL);
}

static void siblings(const struct tune_layouts *f, struct tune_job *j)
{
    bool some = false;
    for (uint32_t c = 0; c < f->h->n_cores && !some; c++) {
        uint32_t n = 0;
        for (int32_t u = host_set_next(&f->h->cores[c].pus, -1); u >= 0;
             u = host_set_next(&f->h->cores[c].pus, u))
            n += host_set_has(&f->h->limits.allowed_pus, (uint32_t)u);
        some = n > 1;
    }
    if (!some) {
        (void)add(j, "smt", "on", "no core has two PUs that this process may use");
        return;
    }
    struct outer_try *t = add(j, "smt", "server", NULL);
    if (t != NULL && (t->threads = tune_layout_threads(f, t)) <= f->threads) {
        t->fate = OUTER_ABSENT;
        snprintf(t->reason, sizeof t->reason,
                 "no core is kept for the server: %u threads either way", f->threads);
    }
    t = add(j, "smt", "on", NULL);
    if (t != NULL)
        t->threads = tune_layout_threads(f, t);
}

static void pools(const struct tune_layouts *f, struct tune_job *j)
{
    char text[16];
    if (f->n_pools < 2) {
        (void)add(j, "pools", "1", "there is one pool");
        return;
    }
    for (uint32_t n = f->n_pools / 2, last = 0; n >= 1 && n != last; last = n, n = 1) {
        snprintf(text, sizeof text, "%u", n);
        struct outer_try *t = add(j, "pools", text, NULL);
        if (t != NULL)
            t->threads = tune_layout_threads(f, t);
    }
}

uint32_t tune_layout_threads(const struct tune_layouts *f, const struct outer_try *t)
{
    struct plan_opts o;
    struct plan *p;
    unsigned n = 0;
    plan_opts_init(&o);
    if (strcmp(t->axis, "smt") == 0)
        o.smt = (enum plan_smt)plan_smt_by_name(t->value);
    else if (strcmp(t->axis, "pools") == 0 && sscanf(t->value, "%u", &n) == 1)
        o.pools = n;
    else
        return 0;
    if (plan_host(f->h, &o, &p, NULL) != KT_OK)
        return 0;
    n = p->n_threads;
    plan_free(p);
    return n;
}

void tune_layout_tries(const struct tune_layouts *f, struct tune_job *j)
{
    uint64_t memory = host_memory_allowed(f->h);
    j->n_tries = 0;
    pages(f, j);
    siblings(f, j);
    pools(f, j);
    for (uint32_t i = 0; i < j->n_tries; i++) {
        struct outer_try *t = &j->tries[i];
        /* what is reserved is no part of the free memory: the second engine's weights are there */
        uint64_t second = strcmp(t->value, "hugetlb") == 0 ? 0 : f->engine_bytes,
                 need = f->engine_bytes + second + SPARE_BYTES;
        if (t->fate != OUTER_OPEN || memory == HOST_UNKNOWN_BYTES || need <= memory)
            continue;
        t->fate = OUTER_REFUSED;
        snprintf(t->reason, sizeof t->reason,
                 "a fair comparison needs two engines at once, %.2f GiB; %.2f GiB were free",
                 (double)need / 0x1p30, (double)memory / 0x1p30);
    }
}

/* Put one config into the space: `from` with a value, and perhaps a number of threads, changed. */
static void put(const struct tune_layout_ctx *c, const struct outer_try *t, uint32_t from,
                uint32_t threads, uint32_t *out, uint32_t *n)
{
    struct space *s = c->space;
    struct space_value v = {0}, count = {.number = threads};
    uint8_t at[SPACE_AXES], value;
    uint32_t axis;
    memcpy(at, s->at + (size_t)from * s->n_axes, s->n_axes);
    if (strcmp(t->axis, "pools") == 0)
        (void)sscanf(t->value, "%lf", &v.number);
    else
        memcpy(v.text, t->value, sizeof t->value);
    if (!space_find(s, t->axis, &v, &axis, &value))
        return;
    at[axis] = value;
    if (threads > 0 && space_find(s, "threads", &count, &axis, &value))
        at[axis] = value;
    uint32_t config = space_add(s, at);
    for (uint32_t i = 0; i < *n; i++)
        if (out[i] == config)
            return;
    if (config != UINT32_MAX && *n < OUTER_CONFIGS)
        out[(*n)++] = config;
}

uint32_t tune_layout_configs(void *ctx, const struct outer_try *t, uint32_t best,
                             uint32_t out[OUTER_CONFIGS])
{
    const struct tune_layout_ctx *c = ctx;
    uint32_t n = 0;
    put(c, t, best, t->threads, out, &n);
    put(c, t, 0, t->threads, out, &n);
    if (t->threads > c->facts->threads) /* siblings may also help less than all of them */
        put(c, t, best, (t->threads + c->facts->threads) / 2, out, &n);
    return n;
}

uint32_t tune_layout_rank(void *ctx, uint32_t config)
{
    const struct tune_layout_ctx *c = ctx;
    return c->space->rank[config];
}
