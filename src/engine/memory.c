/* memory.c - how much memory a loaded model takes, whether it is there, and taking it: packed
 * weights per pool, KV pages, scratch of a step.
 *
 * Sizing is one function that walks the scratch twice: first with no base to add up the bytes, then
 * with the block to hand out pointers, so the sum and the use cannot disagree. Everything is taken
 * before the first token.
 */
#include "engine.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "tuned.h"

struct carver {
    uint8_t *base; /* NULL while adding up */
    uint64_t bytes;
};

static void *carve(struct carver *c, uint64_t n, uint64_t size)
{
    void *p = c->base != NULL ? c->base + c->bytes : NULL;
    c->bytes += (n * size + 63) / 64 * 64;
    return p;
}

/* Room for `rows` activation rows of k elements in fp32 and int8. Odd widths have no int8
 * form. */
static void carve_act(const struct kt_engine *e, struct carver *c, struct eng_act *a, uint64_t rows,
                      uint32_t k)
{
    a->k = k;
    a->x = carve(c, rows * k, sizeof *a->x);
    a->ldq = (k + 63u) / 64 * 64;
    a->ldg = ((k + KERN_GROUP - 1) / KERN_GROUP + 15) / 16 * 16;
    a->q = NULL;
    a->scale = NULL;
    a->sum = NULL;
    a->row_q = a->row_g = 0;
    a->b = NULL;
    a->also = NULL;
    a->also_bytes = 0;
    if (e->acts & 1u << KERN_ACT_ROW) {
        a->row_q = a->ldq;
        a->row_g = a->ldg;
        a->ldq *= 2;
        a->ldg += 16;
    }
    if (k % KERN_GROUP == 0) {
        a->q = carve(c, rows * a->ldq, 1);
        a->scale = carve(c, rows * a->ldg, sizeof *a->scale);
        a->sum = carve(c, rows * a->ldg, sizeof *a->sum);
    }
}

/* And in BF16 for fast products. Rows are not multiples of 2 KiB apart: those that a kernel reads
 * side by side would share few sets of the first-level cache. */
static void carve_rounded(const struct kt_engine *e, struct carver *c, struct eng_act *a,
                          uint64_t rows)
{
    if (e->fast == 0 || (e->acts & 1u << KERN_ACT_F32) == 0)
        return;
    a->ldb = (a->k + 31u) / 32 * 32 + 32;
    a->b = carve(c, rows * a->ldb, sizeof *a->b);
}

static void carve_groups(struct carver *c, struct eng_groups *g, uint64_t tokens,
                         const struct mdl_traits *t)
{
    uint64_t E = t->n_experts, slots = tokens * t->top_k;
    g->chosen = carve(c, slots, sizeof *g->chosen);
    g->weight = carve(c, slots, sizeof *g->weight);
    g->gap = carve(c, tokens, sizeof *g->gap);
    g->slot_tok = carve(c, slots, sizeof *g->slot_tok);
    g->slot_weight = carve(c, slots, sizeof *g->slot_weight);
    g->first = carve(c, E + 1, sizeof *g->first);
    g->active = carve(c, E, sizeof *g->active);
    g->fill = carve(c, E, sizeof *g->fill);
}

static void carve_step(struct kt_engine *e, struct carver *c)
{
    const struct mdl_traits *t = &e->model->t;
    struct eng_step *s = &e->step;
    uint64_t B = e->batch;
    s->seq = carve(c, B, sizeof *s->seq);
    s->pos = carve(c, B, sizeof *s->pos);
    s->id = carve(c, B, sizeof *s->id);
    s->item = carve(c, B, sizeof *s->item);
    s->bad = carve(c, B, sizeof *s->bad);
    s->out_tok = carve(c, B, sizeof *s->out_tok);
    s->out_ptr = carve(c, B, sizeof *s->out_ptr);
    s->attn = carve(c, e->max_attn, sizeof *s->attn);
    s->slot_left = carve(c, e->n_slots, sizeof *s->slot_left);
    carve_groups(c, &s->groups, B, t);
}

/* What a worker computes for itself in a step of few tokens. */
static void carve_worker(struct kt_engine *e, struct carver *c, uint32_t worker)
{
    const struct mdl_traits *t = &e->model->t;
    struct eng_worker *w = &e->worker[worker];
    w->x = carve(c, worker > 0 ? (uint64_t)FEW_TOKENS * t->hidden : 0, sizeof *w->x);
    if (worker == 0)
        w->x = e->x;
    carve_act(e, c, &w->norm, FEW_TOKENS, t->hidden);
    carve_groups(c, &w->groups, FEW_TOKENS, t);
    w->probs = carve(c, t->n_experts, sizeof *w->probs);
    w->tmp = carve(c, eng_tmp_floats(e), sizeof *w->tmp);
    w->acc = carve(c, eng_tmp_floats(e) / 2, sizeof *w->acc);
}

static void carve_attn(const struct kt_engine *e, struct carver *c, struct eng_worker *w)
{
    const struct mdl_traits *t = &e->model->t;
    uint32_t group = t->n_heads / t->n_kv_heads, rows = e->attn_positions * group;
    w->attn_part = carve(c, kern_attn_part_bytes(rows, t->head_dim, e->ctx), 1);
    w->attn_scratch = carve(c, kern_attn_scratch_bytes(rows, t->head_dim), 1);
    w->q = carve(c, (uint64_t)group * t->head_dim, sizeof *w->q);
    w->kpages = carve(c, e->max_pages, sizeof(void *));
    w->vpages = carve(c, e->max_pages, sizeof(void *));
}

/* Worker w's own scratch comes next (w = n_workers: no more): that of a pool's workers lies in
 * whole pages, so that it can be near them. */
static void own_pages(struct kt_engine *e, struct carver *c, uint32_t w)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint32_t pool = w < e->n_workers ? e->worker[w].pool : e->n_pools;
    if (w > 0 && e->worker[w - 1].pool == pool)
        return;
    c->bytes = (c->bytes + page - 1) / page * page;
    e->own_at[pool] = c->bytes;
}

static void carve_all(struct kt_engine *e, struct carver *c)
{
    const struct mdl_traits *t = &e->model->t;
    uint64_t B = e->batch, H = t->hidden, slots = B * t->top_k;
    uint32_t q_width = t->n_heads * t->head_dim, kv_width = t->n_kv_heads * t->head_dim;
    uint32_t inter = t->dense_inter > t->expert_inter ? t->dense_inter : t->expert_inter;
    uint64_t rows = slots > B ? slots : B;
    carve_step(e, c);
    e->x = carve(c, B * H, sizeof *e->x);
    carve_act(e, c, &e->norm, B, t->hidden);
    carve_rounded(e, c, &e->norm, B);
    e->qbuf = carve(c, B * q_width, sizeof *e->qbuf);
    e->kbuf = carve(c, B * kv_width, sizeof *e->kbuf);
    e->vbuf = carve(c, B * kv_width, sizeof *e->vbuf);
    carve_act(e, c, &e->attn, B, q_width);
    e->obuf = carve(c, B * H, sizeof *e->obuf);
    e->rlogits = carve(c, B * t->n_experts, sizeof *e->rlogits);
    carve_act(e, c, &e->mid, rows,
              (inter + KERN_GROUP - 1) / KERN_GROUP *
                  KERN_GROUP); /* dense and expert layers share it: one of both may need int8 */
    carve_rounded(e, c, &e->mid, rows);
    carve_act(e, c, &e->out, e->out_rows, t->hidden);
    e->logits = carve(c, (uint64_t)e->out_rows * t->vocab, sizeof *e->logits);
    for (uint32_t w = 0; w < e->n_workers; w++) {
        own_pages(e, c, w);
        carve_worker(e, c, w);
        carve_attn(e, c, &e->worker[w]);
    }
    own_pages(e, c, e->n_workers);
    e->slots = carve(c, e->n_slots, e->slot_bytes);
    e->rope_cos = carve(c, (uint64_t)e->ctx * (t->rope.dims / 2), sizeof(float));
    e->rope_sin = carve(c, (uint64_t)e->ctx * (t->rope.dims / 2), sizeof(float));
    e->free_pages = carve(c, e->kv_pages, sizeof *e->free_pages);
    e->seqs = carve(c, e->max_seqs, sizeof *e->seqs);
    e->seq_pages = carve(c, (uint64_t)e->max_seqs * e->max_pages, sizeof *e->seq_pages);
    e->counts = carve(c, (uint64_t)t->n_moe_layers * t->n_experts, sizeof *e->counts);
}

static double gib(uint64_t b)
{
    return (double)b / (double)(1u << 30);
}

/* A product that may not fit 64 bits: only for messages. */
static double gib_of(uint64_t n, uint64_t each)
{
    return (double)n * gib(each);
}

/* Free reserved pages on the pool's own nodes, in bytes: bound memory that finds none ends the
 * process. */
static uint64_t reserved_bytes(const struct kt_engine *e, uint32_t p)
{
    const struct plan_pool *q = &e->plan->pools[p];
    uint64_t have = 0;
    for (uint32_t i = 0; i < e->host->env.n_hugetlb; i++) {
        const struct host_hugetlb *g = &e->host->env.hugetlb[i];
        for (uint32_t k = 0; k < q->n_mems; k++)
            if (g->page_bytes == 2u << 20 && (int32_t)g->node == q->mems[k])
                have += g->free * g->page_bytes;
    }
    return have;
}

/* Reserved pages that were asked for and are not there are an error; a tuning's are not worth one.
 */
kt_status eng_settle_pages(struct kt_engine *e, kt_err *err)
{
    uint32_t p = 0;
    char why[200];
    if (e->page_kind != MEM_HUGETLB)
        return KT_OK;
    while (p < e->n_pools && reserved_bytes(e, p) >= e->arena_bytes[p] + (4u << 20))
        p++;
    if (p == e->n_pools)
        return KT_OK;
    snprintf(why, sizeof why,
             "%.2f GiB of reserved 2 MiB pages are needed for the weights of a pool, and %.2f GiB "
             "are free on node %d; reserve them (vm.nr_hugepages)",
             gib(e->arena_bytes[p] + (4u << 20)), gib(reserved_bytes(e, p)),
             e->plan->pools[p].n_mems > 0 ? (int)e->plan->pools[p].mems[0] : 0);
    if (e->pages_tuned)
        return eng_tuned_pages_gone(e, why, err);
    KT_FAIL(err, KT_E_NOMEM, "--pages hugetlb: %s or leave the option out", why);
}

kt_status eng_budget(struct kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    const struct mdl_traits *t = &e->model->t;
    uint64_t allowed =
        o->memory_limit_bytes > 0 ? o->memory_limit_bytes : host_memory_allowed(e->host);
    uint64_t want_tokens = o->kv_tokens > 0 ? o->kv_tokens : (uint64_t)e->max_seqs * e->ctx;
    uint64_t pages = want_tokens / KERN_KV_PAGE + (want_tokens % KERN_KV_PAGE != 0),
             least = o->kv_tokens > 0 ? pages : e->max_pages;
    struct carver c = {0};
    if (o->memory_limit_bytes == 0 && e->page_kind == MEM_HUGETLB) /* beside what is free */
        allowed += e->weight_bytes < UINT64_MAX - allowed ? e->weight_bytes : 0;
    e->plane_bytes = kern_kv_plane_bytes(e->kv_type, t->head_dim);
    eng_attn_sizes(e);
    e->page_bytes = (uint64_t)t->n_layers * t->n_kv_heads * 2 * e->plane_bytes;
    e->kv_pages = pages;
    carve_all(e, &c);
    e->scratch_bytes = c.bytes;
    uint64_t fixed = e->weight_bytes + e->scratch_bytes;
    uint64_t room = allowed > fixed ? (allowed - fixed) / e->page_bytes : 0;
    if (o->kv_tokens == 0 && pages > room)
        pages = room;
    if (pages < least || room < pages)
        KT_FAIL(err, KT_E_LIMIT,
                "%s needs %.2f GiB (weights %.2f, KV for %llu tokens %.2f, scratch %.2f), and %.2f "
                "GiB may be used here. Remedies: a smaller context or fewer sequences "
                "(--ctx, --parallel); smaller weights (--quant mxfp4, --quant-dense q8_0); a "
                "higher memory limit for this process or a machine with more memory",
                e->model->name, gib(fixed) + gib_of(least, e->page_bytes), gib(e->weight_bytes),
                (unsigned long long)(least * KERN_KV_PAGE), gib_of(least, e->page_bytes),
                gib(e->scratch_bytes), gib(allowed));
    e->kv_pages = pages;
    e->kv_bytes = pages * e->page_bytes;
    log_info(
        "memory: weights %.2f GiB, KV %.2f GiB (%llu tokens), scratch %.2f GiB of %.2f GiB allowed",
        gib(e->weight_bytes), gib(e->kv_bytes), (unsigned long long)(pages * KERN_KV_PAGE),
        gib(e->scratch_bytes), gib(allowed));
    return KT_OK;
}

static kt_status take_arenas(struct kt_engine *e, kt_err *err)
{
    for (uint32_t p = 0; p < e->n_pools; p++) {
        /* kernels prefetch a little past the end */
        e->arena[p] = mem_map_pages(e->arena_bytes[p] + 4096, e->page_kind);
        if (e->arena[p] == NULL && e->page_kind == MEM_HUGETLB)
            KT_FAIL(err, KT_E_NOMEM,
                    "the system refused %.2f GiB of reserved 2 MiB pages for weights: something "
                    "else took them meanwhile; start again",
                    gib(e->arena_bytes[p]));
        if (e->arena[p] == NULL)
            KT_FAIL(err, KT_E_NOMEM,
                    "the system refused %.2f GiB for weights; free memory or use a smaller model",
                    gib(e->arena_bytes[p]));
        KT_TRY(eng_numa_bind(e, p, e->arena[p], e->arena_bytes[p] + 4096, err));
    }
    return KT_OK;
}

/* Scratch is mapped and handed out: put it where its users are. */
static kt_status place_scratch(struct kt_engine *e, kt_err *err)
{
    memcpy(e->own, e->worker, e->max_workers * sizeof *e->own);
    KT_TRY(eng_numa_spread(e, e->scratch, e->scratch_bytes, err));
    for (uint32_t p = 0; p < e->n_pools; p++)
        eng_numa_own(e, p, e->scratch + e->own_at[p], e->own_at[p + 1] - e->own_at[p]);
    return KT_OK;
}

/* The part of the scratch that the expert path uses. */
static void carve_moe(struct kt_engine *e, struct carver *c)
{
    const struct mdl_traits *t = &e->model->t;
    carve_groups(c, &e->step.groups, e->batch, t);
    e->step.bad = carve(c, e->batch, sizeof *e->step.bad);
    carve_act(e, c, &e->norm, e->batch, t->hidden);
    carve_rounded(e, c, &e->norm, e->batch);
    carve_act(e, c, &e->mid, (uint64_t)e->batch * t->top_k, t->expert_inter);
    carve_rounded(e, c, &e->mid, (uint64_t)e->batch * t->top_k);
    for (uint32_t w = 0; w < e->n_workers; w++) {
        own_pages(e, c, w);
        carve_worker(e, c, w);
    }
    own_pages(e, c, e->n_workers);
}

kt_status eng_take_moe_memory(struct kt_engine *e, kt_err *err)
{
    struct carver sum = {0}, c = {0};
    carve_moe(e, &sum);
    e->scratch_bytes = sum.bytes;
    uint64_t need = sum.bytes, allowed = host_memory_allowed(e->host);
    if (e->memory_limit > 0)
        allowed = e->memory_limit;
    for (uint32_t p = 0; p < e->n_pools; p++)
        need += e->arena_bytes[p];
    if (need > allowed)
        KT_FAIL(err, KT_E_LIMIT,
                "%u experts need %.2f GiB (scratch %.2f), and %.2f GiB may be used here; choose a "
                "smaller format, fewer experts or a higher memory limit",
                e->model->t.n_experts, gib(need), gib(sum.bytes), gib(allowed));
    KT_TRY(take_arenas(e, err));
    e->scratch = mem_map(e->scratch_bytes + 4096);
    if (e->scratch == NULL)
        KT_FAIL(err, KT_E_NOMEM, "the system refused %.2f GiB for scratch; use fewer max_tokens",
                gib(e->scratch_bytes));
    c.base = e->scratch;
    carve_moe(e, &c);
    return place_scratch(e, err);
}

kt_status eng_take_memory(struct kt_engine *e, kt_err *err)
{
    struct carver c = {0};
    KT_TRY(take_arenas(e, err));
    e->kv = mem_map(e->kv_bytes);
    e->scratch = mem_map(e->scratch_bytes + 4096);
    if (e->kv == NULL || e->scratch == NULL)
        KT_FAIL(err, KT_E_NOMEM,
                "the system refused %.2f GiB for KV pages and scratch; use a smaller --ctx or "
                "--parallel",
                gib(e->kv_bytes + e->scratch_bytes));
    KT_TRY(eng_numa_spread(e, e->kv, e->kv_bytes, err));
    uint64_t planned = e->scratch_bytes;
    c.base = e->scratch;
    carve_all(e, &c);
    KT_TRY(place_scratch(e, err));
    if (c.bytes > planned)
        KT_FAIL(err, KT_E_INTERNAL, "scratch of %llu bytes was planned as %llu",
                (unsigned long long)c.bytes, (unsigned long long)planned);
    for (uint64_t i = 0; i < e->kv_pages; i++)
        e->free_pages[i] = (uint32_t)(e->kv_pages - 1 - i);
    e->n_free = e->kv_pages;
    for (uint32_t i = 0; i < e->max_seqs; i++) {
        e->seqs[i].e = e;
        e->seqs[i].slot = i;
        e->seqs[i].pages = e->seq_pages + (size_t)i * e->max_pages;
    }
    return KT_OK;
}

void eng_free_memory(struct kt_engine *e)
{
    for (uint32_t p = 0; e->arena != NULL && e->arena_bytes != NULL && p < e->n_pools; p++)
        mem_unmap(e->arena[p], e->arena_bytes[p] + 4096);
    mem_unmap(e->kv, e->kv_bytes);
    mem_unmap(e->scratch, e->scratch_bytes + 4096);
    mem_free(e->arena);
    mem_free(e->arena_bytes);
    mem_free(e->vectors);
    mem_free(e->mats);
    mem_free(e->parts);
    mem_free(e->layer);
}
