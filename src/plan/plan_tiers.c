/* plan_tiers.c - memory that no pool works from by default, and the memory node of each GPU's
 * staging buffers (host-profile section 7 rule 4, section 9). A tier belongs to the pools whose
 * CPUs it shares; without CPUs to the initiators that firmware names, else to the nearest pools by
 * distance. Firmware distances only break ties here; measured rates decide once a profile has them.
 * Pure; owner: plan_host.
 */
#include <string.h>

#include "base/mem.h"
#include "plan/plan_int.h"

static bool is_pool(const struct plan *p, int32_t node)
{
    for (uint32_t i = 0; i < p->n_pools; i++)
        for (uint32_t k = 0; k < p->pools[i].n_mems; k++)
            if (p->pools[i].mems[k] == node)
                return true;
    return false;
}

/* Relative distance between two nodes; a negative number when no table has both. */
static double distance(const struct host *h, int32_t from, int32_t to)
{
    for (uint32_t i = 0; i < h->n_distances; i++) {
        const struct host_distances *d = &h->distances[i];
        int64_t a = -1, b = -1;
        for (uint32_t k = 0; k < d->n; k++) {
            if (d->nodes[k] == from)
                a = k;
            if (d->nodes[k] == to)
                b = k;
        }
        if (a >= 0 && b >= 0 && strcmp(d->unit, "relative") == 0)
            return d->values[(size_t)a * d->n + (size_t)b];
    }
    return -1;
}

static void tier_pool(struct work *w, struct plan_tier *t, int32_t node)
{
    int32_t *p = mem_realloc(t->pools, (t->n_pools + (size_t)1) * sizeof *p);
    if (p == NULL) {
        w->oom = true;
        return;
    }
    t->pools = p;
    p[t->n_pools++] = node;
}

/* Does firmware name the pool, or a node that shares its CPUs, as an initiator? */
static bool named(const struct host *h, const struct host_claim *c, const struct plan_pool *q)
{
    for (uint32_t i = 0; i < c->n_initiators; i++) {
        const struct host_node *n = plan_node(h, c->initiators[i]);
        if (c->initiators[i] == q->node || (n != NULL && host_set_meets(&n->cpus, &q->pus)))
            return true;
    }
    return false;
}

static void find_pools(struct work *w, struct plan_tier *t, const struct host_node *n)
{
    const struct plan *p = w->p;
    double least = -1;
    for (uint32_t i = 0; i < p->n_pools; i++)
        if (host_set_meets(&n->cpus, &p->pools[i].pus))
            tier_pool(w, t, p->pools[i].node);
    bool none = t->n_pools == 0;
    /* no allowed CPU of its own: initiators, then the part of the machine it is in, then distance
     */
    for (uint32_t i = 0; i < p->n_pools && n->claim.present; i++)
        if (none && named(w->h, &n->claim, &p->pools[i]))
            tier_pool(w, t, p->pools[i].node);
    none = t->n_pools == 0;
    for (uint32_t i = 0; i < p->n_pools && none; i++)
        if (host_set_meets(&n->around, &p->pools[i].pus))
            tier_pool(w, t, p->pools[i].node);
    if (t->n_pools > 0)
        return;
    for (uint32_t i = 0; i < p->n_pools; i++) {
        double d = distance(w->h, p->pools[i].node, n->os);
        if (d >= 0 && (least < 0 || d < least))
            least = d;
    }
    for (uint32_t i = 0; i < p->n_pools; i++)
        if (least < 0 || distance(w->h, p->pools[i].node, n->os) <= least)
            tier_pool(w, t, p->pools[i].node);
}

void plan_tiers(struct work *w)
{
    for (uint32_t i = 0; i < w->h->n_nodes; i++) {
        const struct host_node *n = &w->h->nodes[i];
        if (!n->allowed || n->bytes == 0 || n->tier == HOST_GPU || is_pool(w->p, n->os))
            continue;
        struct plan_tier *list =
            mem_realloc(w->p->tiers, (w->p->n_tiers + (size_t)1) * sizeof *list);
        if (list == NULL) {
            w->oom = true;
            return;
        }
        w->p->tiers = list;
        struct plan_tier *t = &list[w->p->n_tiers++];
        memset(t, 0, sizeof *t);
        t->node = n->os;
        t->tier = n->tier;
        t->bytes = n->bytes;
        t->usable = n->tier != HOST_TIER_UNKNOWN || plan_measured_of(&w->o, n->os) != NULL;
        find_pools(w, t, n);
    }
}

/* The pool node nearest to `node`: itself, one that shares its CPUs, the least distance, the lowest
 * P#. -1 for the remote pool. */
static int32_t nearest_pool(const struct work *w, int32_t node)
{
    const struct host_node *n = plan_node(w->h, node);
    int32_t best = w->p->n_pools > 0 ? w->p->pools[0].node : -1;
    double least = -1;
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        if (w->p->pools[i].node == node)
            return node;
    for (uint32_t i = 0; n != NULL && i < w->p->n_pools; i++)
        if (host_set_meets(&n->cpus, &w->p->pools[i].pus))
            return w->p->pools[i].node;
    for (uint32_t i = 0; i < w->p->n_pools; i++) {
        double d = distance(w->h, node, w->p->pools[i].node);
        if (d >= 0 && (least < 0 || d < least)) {
            least = d;
            best = w->p->pools[i].node;
        }
    }
    return best;
}

void plan_gpus(struct work *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->h->n_gpus; i++)
        n += w->h->gpus[i].cuda;
    w->p->gpus = mem_calloc(n > 0 ? n : 1, sizeof *w->p->gpus);
    if (w->p->gpus == NULL) {
        w->oom = true;
        return;
    }
    for (uint32_t i = 0; i < w->h->n_gpus; i++) {
        const struct host_gpu *g = &w->h->gpus[i];
        if (!g->cuda)
            continue;
        struct plan_gpu *q = &w->p->gpus[w->p->n_gpus++];
        q->gpu = i;
        q->node = g->node < 0 ? -1 : nearest_pool(w, g->node);
        q->moved = g->node_forbidden;
        if (g->node_forbidden)
            plan_warn(w, "KT030", g->pci,
                      "gpu%u (%s) is near node %d, which is forbidden: its buffers go to node %d",
                      g->index, g->pci, g->node, q->node);
    }
}
