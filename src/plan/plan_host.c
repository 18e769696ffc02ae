/* plan_host.c - pools and threads from topology and limits (host-profile sections 6 and 7). A pool
 * is a worker team with its cores and memory; a node with memory but without cores of its own is a
 * tier. Counts come from core objects, never from CPU numbers or cache counts. Pure: the same
 * facts, options and measured knees give the same plan, in every field and byte; no I/O, clock or
 * randomness. Sizes follow the host: no array has a fixed number of nodes, CPUs or GPUs.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kern.h"
#include "plan/plan_int.h"

_Static_assert((int)HOST_ISA_AVX2 == (int)KERN_ISA_AVX2 &&
                   (int)HOST_ISA_AVX512 == (int)KERN_ISA_AVX512 &&
                   (int)HOST_ISA_AVX512VNNI == (int)KERN_ISA_AVX512VNNI &&
                   (int)HOST_ISA_AVX512BF16 == (int)KERN_ISA_AVX512BF16 &&
                   (int)HOST_ISA_AVXVNNI == (int)KERN_ISA_AVXVNNI &&
                   (int)HOST_ISA_AMX == (int)KERN_ISA_AMX,
               "a plan hands ISA bits from host to kernels: both rooms must number them alike");

#define FAST_CLASS_MIN 4 /* fewer fast cores than this: all classes work, weighted */
#define UNKNOWN_CLASS_WEIGHT                                                                       \
    0.6 /* of a slower class without frequency or capacity: an efficiency core beside a            \
           performance core, until measured */

void plan_opts_init(struct plan_opts *o)
{
    memset(o, 0, sizeof *o);
    o->reserve = -1;
    o->isa_mask = UINT32_MAX;
}

const struct plan_measured *plan_measured_of(const struct plan_opts *o, int32_t node)
{
    for (uint32_t i = 0; i < o->n_measured; i++)
        if (o->measured[i].node == node)
            return &o->measured[i];
    return NULL;
}

const struct host_node *plan_node(const struct host *h, int32_t os)
{
    for (uint32_t i = 0; i < h->n_nodes; i++)
        if (h->nodes[i].os == os)
            return &h->nodes[i];
    return NULL;
}

static uint32_t klass_of(const struct host *h, uint32_t core)
{
    int32_t k = h->cores[core].kind;
    return k >= 0 && (uint32_t)k < h->n_kinds ? h->kinds[k].klass : 0;
}

/* Speed of a core relative to the fastest kind: an equal split over mixed classes would run at the
 * speed of the slowest. */
static double weight_of(const struct host *h, uint32_t core)
{
    double best_hz = 0, best_capacity = 0;
    int32_t k = h->cores[core].kind;
    for (uint32_t i = 0; i < h->n_kinds; i++) {
        best_hz = fmax(best_hz, h->kinds[i].max_hz);
        best_capacity = fmax(best_capacity, (double)h->kinds[i].capacity);
    }
    if (k < 0 || klass_of(h, core) == 0)
        return 1;
    if (h->kinds[k].capacity > 0)
        return (double)h->kinds[k].capacity / best_capacity;
    return h->kinds[k].max_hz > 0 ? h->kinds[k].max_hz / best_hz : UNKNOWN_CLASS_WEIGHT;
}

/* Which cores may work: all allowed ones, or only the fastest class when it is large enough. */
static void choose_classes(struct work *w)
{
    uint32_t fast = 0;
    for (uint32_t c = 0; c < w->h->n_cores; c++) {
        w->eligible[c] = w->h->cores[c].allowed;
        if (w->eligible[c] && klass_of(w->h, c) + 1 > w->n_classes)
            w->n_classes = klass_of(w->h, c) + 1;
        fast += w->eligible[c] && klass_of(w->h, c) == 0;
    }
    w->fast_only = w->n_classes > 1 && fast >= FAST_CLASS_MIN && w->o.threads <= fast;
    for (uint32_t c = 0; c < w->h->n_cores && w->fast_only; c++)
        w->eligible[c] = w->eligible[c] && klass_of(w->h, c) == 0;
}

static struct plan_pool *new_pool(struct work *w, int32_t node)
{
    struct plan_pool *list = mem_realloc(w->p->pools, (w->p->n_pools + (size_t)1) * sizeof *list);
    if (list == NULL) {
        w->oom = true;
        return NULL;
    }
    w->p->pools = list;
    struct plan_pool *q = &list[w->p->n_pools++];
    memset(q, 0, sizeof *q);
    q->node = node;
    q->local = node >= 0;
    return q;
}

static void pool_mem(struct work *w, struct plan_pool *q, const struct host_node *n)
{
    int32_t *p = mem_realloc(q->mems, (q->n_mems + (size_t)1) * sizeof *p);
    if (p == NULL) {
        w->oom = true;
        return;
    }
    q->mems = p;
    p[q->n_mems++] = n->os;
    q->bytes = n->bytes == HOST_UNKNOWN_BYTES || q->bytes == HOST_UNKNOWN_BYTES
                   ? HOST_UNKNOWN_BYTES
                   : q->bytes + n->bytes;
}

static bool candidate(const struct work *w, const struct host_node *n)
{
    return n->allowed && n->bytes > 0 && n->tier != HOST_GPU &&
           host_set_meets(&n->cpus, &w->h->limits.allowed_pus);
}

/* Rule 3: in order of nearness each node takes the working cores whose first allowed PU is inside
 * it and that nobody took. */
static void assign_cores(struct work *w)
{
    const struct host *h = w->h;
    uint32_t *order = mem_calloc(h->n_nodes > 0 ? h->n_nodes : 1, sizeof *order);
    if (order == NULL) {
        w->oom = true;
        return;
    }
    host_nodes_by_nearness(h, order);
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        const struct host_node *n = &h->nodes[order[i]];
        for (uint32_t c = 0; c < h->n_cores && candidate(w, n); c++)
            if (w->eligible[c] && w->owner[c] < 0 &&
                host_set_has(&n->cpus, (uint32_t)h->cores[c].first_pu))
                w->owner[c] = (int32_t)order[i];
    }
    mem_free(order);
    for (uint32_t i = 0; i < h->n_nodes;
         i++) { /* node indexes become pool indexes, in order of P# */
        int32_t pool = -1;
        for (uint32_t c = 0; c < h->n_cores; c++) {
            if (w->owner[c] != (int32_t)i)
                continue;
            if (pool < 0) {
                struct plan_pool *q = new_pool(w, h->nodes[i].os);
                if (q == NULL)
                    return;
                pool_mem(w, q, &h->nodes[i]);
                pool = (int32_t)w->p->n_pools - 1;
            }
            w->owner[c] = -2 - pool; /* below -1: already a pool index */
        }
    }
    for (uint32_t c = 0; c < h->n_cores; c++)
        w->owner[c] = w->owner[c] <= -2 ? -2 - w->owner[c] : -1;
}

/* No allowed node is near an allowed core: one pool over everything that is allowed. */
static void remote_pool(struct work *w)
{
    struct plan_pool *q = new_pool(w, -1);
    if (q == NULL)
        return;
    w->remote = true;
    for (uint32_t i = 0; i < w->h->n_nodes; i++)
        if (w->h->nodes[i].allowed && w->h->nodes[i].bytes > 0 && w->h->nodes[i].tier != HOST_GPU)
            pool_mem(w, q, &w->h->nodes[i]);
    for (uint32_t c = 0; c < w->h->n_cores; c++)
        w->owner[c] = w->eligible[c] ? 0 : -1;
}

static uint32_t cores_of(const struct work *w, uint32_t pool)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < w->h->n_cores; c++)
        n += w->owner[c] == (int32_t)pool;
    return n;
}

/* Threads that a pool can hold: one per core, or one per allowed PU. */
static uint32_t places_of(const struct work *w, uint32_t pool)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < w->h->n_cores; c++) {
        const struct host_core *k = &w->h->cores[c];
        if (w->owner[c] != (int32_t)pool)
            continue;
        n++;
        for (int32_t u = host_set_next(&k->pus, -1); u >= 0 && w->o.smt == PLAN_SMT_ALL;
             u = host_set_next(&k->pus, u))
            n += u != k->first_pu && host_set_has(&w->h->limits.allowed_pus, (uint32_t)u);
    }
    return n;
}

static double bandwidth_of(const struct work *w, int32_t node)
{
    const struct plan_measured *m = plan_measured_of(&w->o, node);
    return m != NULL ? m->read_bytes_per_second : 0;
}

/* Index of the pool that is given up first: least bandwidth when all are measured, else fewest
 * cores; ties: the highest P#. */
static uint32_t weakest(const struct work *w)
{
    bool measured = true;
    uint32_t worst = 0;
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        measured = measured && bandwidth_of(w, w->p->pools[i].node) > 0;
    for (uint32_t i = 1; i < w->p->n_pools; i++) {
        double a = measured ? bandwidth_of(w, w->p->pools[i].node) : cores_of(w, i);
        double b = measured ? bandwidth_of(w, w->p->pools[worst].node) : cores_of(w, worst);
        if (a <= b)
            worst = i;
    }
    return worst;
}

static void pool_free(struct plan_pool *q)
{
    mem_free(q->mems);
    mem_free(q->cpus);
    mem_free(q->weights);
    host_set_free(&q->pus);
}

static void drop_pool(struct work *w, uint32_t pool)
{
    int32_t *d = mem_realloc(w->dropped, (w->n_dropped + (size_t)1) * sizeof *d);
    if (d == NULL) {
        w->oom = true;
        return;
    }
    w->dropped = d;
    d[w->n_dropped++] = w->p->pools[pool].node;
    pool_free(&w->p->pools[pool]);
    w->p->n_pools--;
    memmove(&w->p->pools[pool], &w->p->pools[pool + 1],
            (w->p->n_pools - pool) * sizeof *w->p->pools);
    for (uint32_t c = 0; c < w->h->n_cores; c++)
        if (w->owner[c] == (int32_t)pool)
            w->owner[c] = -1;
        else if (w->owner[c] > (int32_t)pool)
            w->owner[c]--;
}

/* T = min(B - r, cores in pools), or what the user asks for. */
static kt_status budget(struct work *w, kt_err *err)
{
    uint32_t b = w->h->limits.cores_budget;
    w->reserve = w->o.reserve >= 0 ? (uint32_t)w->o.reserve : b < 4 ? 0 : b < 16 ? 1 : 2;
    if (w->o.smt == PLAN_SMT_SERVER && w->o.reserve < 0)
        w->reserve = 0;
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        w->pool_cores += places_of(w, i);
    if (w->o.smt == PLAN_SMT_ALL) /* a quota is time of PUs */
        b = w->h->limits.quota_cores > 0 && w->h->limits.quota_cores < w->pool_cores
                ? (uint32_t)w->h->limits.quota_cores
                : w->pool_cores;
    w->cap = b > w->reserve ? b - w->reserve : 1;
    if (w->cap > w->pool_cores)
        w->cap = w->pool_cores;
    if (w->o.threads > w->pool_cores)
        KT_FAIL(err, KT_E_INVALID,
                "%u threads are more than the %u cores that may work here; ask for fewer, or allow "
                "more cores",
                w->o.threads, w->pool_cores);
    w->p->threads_max = w->o.threads > 0 ? w->o.threads : w->cap;
    return KT_OK;
}

static void spread_threads(struct work *w)
{
    uint32_t sum = 0;
    while (w->p->threads_max < w->p->n_pools && !w->oom)
        drop_pool(w, weakest(w));
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        sum += w->p->pools[i].threads = places_of(w, i);
    for (; sum > w->p->threads_max; sum--) {
        struct plan_pool *most = &w->p->pools[0];
        for (uint32_t i = 1; i < w->p->n_pools; i++)
            if (w->p->pools[i].threads > most->threads)
                most = &w->p->pools[i];
        most->threads--;
    }
    for (uint32_t i = 0; i < w->p->n_pools; i++) {
        struct plan_pool *q = &w->p->pools[i];
        const struct plan_measured *m = plan_measured_of(&w->o, q->node);
        if (w->o.threads == 0 && w->o.smt == PLAN_SMT_OFF && m != NULL && m->knee_threads > 0 &&
            m->knee_threads < q->threads)
            q->threads = m->knee_threads;
        w->p->n_threads += q->threads;
    }
}

/* Cores of a pool in the order in which threads are placed: fast classes first, then one core of
 * every L3 in turn, so that fewer threads than cores still use every cache and its link to memory.
 */
static void place_cores(struct work *w, uint32_t pool)
{
    const struct host *h = w->h;
    struct plan_pool *q = &w->p->pools[pool];
    uint32_t n = cores_of(w, pool), places = places_of(w, pool),
             *rank = mem_calloc(h->n_cores, sizeof *rank),
             *used = mem_calloc(h->n_l3 + (size_t)1, sizeof *used);
    q->cpus = mem_calloc(places > 0 ? places : 1, sizeof *q->cpus);
    q->weights = mem_calloc(n > 0 ? n : 1, sizeof *q->weights);
    if (q->cpus == NULL || q->weights == NULL || rank == NULL || used == NULL) {
        w->oom = true;
        n = 0;
    }
    for (uint32_t c = 0; n > 0 && c < h->n_cores; c++)
        if (w->owner[c] == (int32_t)pool)
            rank[c] = used[h->cores[c].l3 >= 0
                               ? h->cores[c].l3
                               : (int32_t)h->n_l3]++; /* how many cores of its L3 come before it */
    for (uint32_t klass = 0; q->n_cpus < n && klass < w->n_classes; klass++)
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = 0; c < h->n_cores; c++)
                if (w->owner[c] == (int32_t)pool && rank[c] == r && klass_of(h, c) == klass) {
                    q->weights[q->n_cpus] = weight_of(h, c);
                    q->cpus[q->n_cpus++] = h->cores[c].first_pu;
                    w->oom = !host_set_or(&q->pus, &h->cores[c].pus) || w->oom;
                }
    host_set_and(&q->pus, &h->limits.allowed_pus);
    q->n_places = q->n_cpus;
    for (int32_t u = host_set_next(&q->pus, -1); u >= 0 && w->o.smt == PLAN_SMT_ALL && !w->oom;
         u = host_set_next(&q->pus, u)) {
        bool first = false;
        for (uint32_t i = 0; i < q->n_cpus; i++)
            first = first || q->cpus[i] == u;
        if (!first && q->n_places < places)
            q->cpus[q->n_places++] = u;
    }
    mem_free(rank);
    mem_free(used);
}

/* Rows follow measured bandwidth; without it the threads' speed. */
static void share_rows(struct work *w)
{
    double sum = 0;
    bool measured = true;
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        measured = measured && bandwidth_of(w, w->p->pools[i].node) > 0;
    for (uint32_t i = 0; i < w->p->n_pools; i++) {
        struct plan_pool *q = &w->p->pools[i];
        const struct plan_measured *m = plan_measured_of(&w->o, q->node);
        q->share = 0;
        for (uint32_t t = 0; t < q->threads && t < q->n_cpus; t++)
            q->share += q->weights[t];
        if (measured)
            q->share = m->knee_threads == q->threads && m->knee_bytes_per_second > 0
                           ? m->knee_bytes_per_second
                           : m->read_bytes_per_second;
        sum += q->share;
    }
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        w->p->pools[i].share = sum > 0 ? w->p->pools[i].share / sum : 1.0 / w->p->n_pools;
}

static void find_homeless(struct work *w)
{
    w->oom = !host_set_copy(&w->p->homeless, &w->h->limits.allowed_pus) || w->oom;
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        host_set_minus(&w->p->homeless, &w->p->pools[i].pus);
}

static kt_status build(struct work *w, kt_err *err)
{
    choose_classes(w);
    assign_cores(w);
    if (w->p->n_pools == 0 && !w->oom)
        remote_pool(w);
    while (w->o.pools > 0 && w->p->n_pools > w->o.pools && !w->oom)
        drop_pool(w, weakest(w));
    if (w->oom)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    KT_TRY(budget(w, err));
    spread_threads(w);
    for (uint32_t i = 0; i < w->p->n_pools && !w->oom; i++)
        place_cores(w, i);
    if (w->oom)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    share_rows(w);
    find_homeless(w);
    plan_tiers(w);
    plan_gpus(w);
    w->p->isa = w->h->isa.kern_isa & w->o.isa_mask;
    plan_explain(w);
    if (w->oom)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    return KT_OK;
}

kt_status plan_host(const struct host *h, const struct plan_opts *o, struct plan **out, kt_err *err)
{
    struct work w = {.h = h, .n_classes = 1};
    *out = NULL;
    if (o != NULL)
        w.o = *o;
    else
        plan_opts_init(&w.o);
    if (h->limits.cores_allowed == 0)
        KT_FAIL(err, KT_E_INVALID, "plan: the host has no allowed core");
    w.p = mem_calloc(1, sizeof *w.p);
    w.owner = mem_calloc(h->n_cores, sizeof *w.owner);
    w.eligible = mem_calloc(h->n_cores, sizeof *w.eligible);
    kt_status st = KT_OK;
    if (w.p == NULL || w.owner == NULL || w.eligible == NULL) {
        st = err_set(err, KT_E_NOMEM, 0, __func__, "plan: out of memory");
    } else {
        for (uint32_t c = 0; c < h->n_cores; c++)
            w.owner[c] = -1;
        st = build(&w, err);
    }
    mem_free(w.owner);
    mem_free(w.eligible);
    mem_free(w.dropped);
    if (st != KT_OK)
        plan_free(w.p);
    else
        *out = w.p;
    return st;
}

void plan_free(struct plan *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; i < p->n_pools; i++)
        pool_free(&p->pools[i]);
    for (uint32_t i = 0; i < p->n_tiers; i++)
        mem_free(p->tiers[i].pools);
    while (p->n_decisions > 0)
        plan_forget(p, p->decisions[p->n_decisions - 1].id);
    for (uint32_t i = 0; i < p->n_warnings; i++)
        host_warning_free(&p->warnings[i]);
    host_set_free(&p->homeless);
    mem_free(p->pools);
    mem_free(p->tiers);
    mem_free(p->gpus);
    mem_free(p->decisions);
    mem_free(p->warnings);
    mem_free(p);
}
