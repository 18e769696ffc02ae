/* layer_attn.c - the attention half of a layer: norm, q k v, q/k norm and rope, KV write,
 * grouped-query attention, output projection.
 *
 * Every worker runs eng_attention; phases end at barriers. KV values are rounded to the KV type
 * when they are written, before any use, so a chunk's own keys are read back rounded as well
 * (canonical arithmetic).
 */
#include "engine.h"

#include <string.h>

#include "base/clock.h"

/* q norm and rope of the query heads of one kv head, in place. */
static void rotate_queries(const struct kt_engine *e, uint32_t layer, uint32_t pos, float *q)
{
    const struct mdl_traits *m = &e->model->t;
    const float *norm = e->layer[layer].q_norm;
    uint32_t half = m->rope.dims / 2;
    const float *cos = e->rope_cos + (size_t)pos * half, *sin = e->rope_sin + (size_t)pos * half;
    for (uint32_t h = 0; h < m->n_heads / m->n_kv_heads; h++, q += m->head_dim) {
        if (norm != NULL)
            e->fn.rmsnorm(q, norm, m->head_dim, m->norm_eps, q);
        e->fn.rope(q, cos, sin, half, m->rope.interleaved);
    }
}

/* k norm and rope of one kv head of one token, then the KV write. */
static void store_key(struct kt_engine *e, uint32_t layer, uint32_t t, uint32_t kv_head)
{
    const struct mdl_traits *m = &e->model->t;
    const float *norm = e->layer[layer].k_norm;
    uint32_t half = m->rope.dims / 2, pos = e->step.pos[t];
    size_t at = ((size_t)t * m->n_kv_heads + kv_head) * m->head_dim;
    float *k = e->kbuf + at;
    if (norm != NULL)
        e->fn.rmsnorm(k, norm, m->head_dim, m->norm_eps, k);
    e->fn.rope(k, e->rope_cos + (size_t)pos * half, e->rope_sin + (size_t)pos * half, half,
               m->rope.interleaved);
    uint8_t *plane = eng_kv_plane(e, e->step.seq[t]->pages[pos / KERN_KV_PAGE], layer, kv_head);
    if (!kern_kv_write(e->kv_type, m->head_dim, pos % KERN_KV_PAGE, k, e->vbuf + at, plane,
                       plane + e->plane_bytes))
        atomic_store_explicit(&e->step.bad[t], 1, memory_order_relaxed);
}

/* Do the heads of one kv head fill whole groups of the int8 form? */
static bool groups_fit(const struct mdl_traits *m)
{
    return m->n_heads / m->n_kv_heads * m->head_dim % KERN_GROUP == 0;
}

/* A piece of attention of one layer. */
struct piece {
    uint32_t layer, kv_head;
    const struct eng_attn_item *item;
    const float *q; /* rotated queries of the first position */
};

/* Join the parts of all blocks; quantised for the output projection where possible. */
static void join(struct kt_engine *e, const struct piece *p, const struct kern_attn *a)
{
    const struct mdl_traits *m = &e->model->t;
    uint32_t width = a->n_q * a->dim;
    e->fn.attn_join(a);
    if (!eng_wants_groups(&e->layer[p->layer].o) || !groups_fit(m))
        return;
    for (uint32_t i = 0; i < p->item->n; i++) {
        uint32_t t = p->item->token + i;
        eng_quantise_part(e, a->out + i * a->ldo, width, &e->attn,
                          &(struct eng_place){t, p->kv_head * width, t});
    }
}

/* The query heads of one kv head over the item's blocks. Who finishes a split position joins it. */
static void attend(struct kt_engine *e, uint32_t worker, const struct piece *p)
{
    const struct mdl_traits *m = &e->model->t;
    const struct eng_attn_item *it = p->item;
    struct eng_worker *w = &e->worker[worker];
    const kt_seq *s = e->step.seq[it->token];
    uint32_t group = m->n_heads / m->n_kv_heads, slot = it->slot + p->kv_head,
             last = e->step.pos[it->token + it->n - 1] / KERN_KV_PAGE;
    for (uint32_t g = it->block0 * (KERN_KV_BLOCK / KERN_KV_PAGE);
         g <= last && g < it->block1 * (KERN_KV_BLOCK / KERN_KV_PAGE); g++) {
        w->kpages[g] = eng_kv_plane(e, s->pages[g], p->layer, p->kv_head);
        w->vpages[g] = (const uint8_t *)w->kpages[g] + e->plane_bytes;
    }
    struct kern_attn a = {
        .q = p->q,
        .out = e->attn.x + ((size_t)it->token * m->n_heads + p->kv_head * group) * m->head_dim,
        .ldq = (size_t)m->n_heads * m->head_dim,
        .ldo = (size_t)m->n_heads * m->head_dim,
        .pos = e->step.pos + it->token,
        .n_pos = it->n,
        .n_q = group,
        .dim = m->head_dim,
        .block0 = it->block0,
        .block1 = it->block1,
        .kv = e->kv_type,
        .kpage = w->kpages,
        .vpage = w->vpages,
        .scale = (float)(1.0 / __builtin_sqrt((double)m->head_dim)),
        .part = it->ranges > 1 ? (void *)(e->slots + slot * e->slot_bytes) : w->attn_part,
        .scratch = w->attn_scratch,
    };
    e->fn.attn(&a);
    if (it->ranges > 1) {
        atomic_uint *left = &e->step.slot_left[slot];
        if (atomic_fetch_sub_explicit(left, 1, memory_order_acq_rel) != 1)
            return;
        atomic_store_explicit(left, it->ranges, memory_order_relaxed); /* for the next layer */
    }
    join(e, p, &a);
}

/* A piece of a step in which every sequence has one token: whoever has the position's last block
 * writes its key, which nobody else reads; the others rotate queries for themselves. */
static void attend_single(struct kt_engine *e, uint32_t worker, struct piece *p)
{
    const struct mdl_traits *m = &e->model->t;
    uint32_t t = p->item->token, width = m->n_heads / m->n_kv_heads * m->head_dim;
    float *q = e->qbuf + ((size_t)t * m->n_kv_heads + p->kv_head) * width;
    if (p->item->ranges > 1)
        q = memcpy(e->worker[worker].q, q, width * sizeof *q);
    rotate_queries(e, p->layer, e->step.pos[t], q);
    if (p->item->block1 > e->step.pos[t] / KERN_KV_BLOCK)
        store_key(e, p->layer, t, p->kv_head);
    p->q = q;
    attend(e, worker, p);
}

/* Rotation, KV write and attention of all tokens. */
static void attend_all(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct eng_step *s = &e->step;
    uint32_t kv = e->model->t.n_kv_heads, i;
    size_t width = (size_t)e->model->t.n_heads / kv * e->model->t.head_dim;
    while (!s->single && eng_claim(e, worker, s->n * kv, &i)) {
        rotate_queries(e, layer, s->pos[i / kv], e->qbuf + i * width);
        store_key(e, layer, i / kv, i % kv);
    }
    if (!s->single)
        eng_phase_end(e, worker);
    while (eng_claim(e, worker, s->n_attn * kv, &i)) {
        struct piece p = {.layer = layer, .kv_head = i % kv, .item = &s->attn[i / kv]};
        p.q = e->qbuf + ((size_t)p.item->token * kv + p.kv_head) * width;
        if (s->single)
            attend_single(e, worker, &p);
        else
            attend(e, worker, &p);
    }
    eng_phase_end(e, worker);
}

void eng_attention(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct mdl_traits *m = &e->model->t;
    const struct eng_layer *l = &e->layer[layer];
    uint32_t n = e->step.n, i;

    const struct eng_act *x =
        eng_norm_rows(e, worker, l->attn_norm,
                      eng_wants_int8(&l->q) || eng_wants_int8(&l->k) || eng_wants_int8(&l->v));
    struct mm_job qkv[3] = {
        {&l->q, x, NULL, n, e->qbuf, (size_t)m->n_heads * m->head_dim, NULL},
        {&l->k, x, NULL, n, e->kbuf, (size_t)m->n_kv_heads * m->head_dim, NULL},
        {&l->v, x, NULL, n, e->vbuf, (size_t)m->n_kv_heads * m->head_dim, NULL},
    };
    eng_jobs_run(e, worker, qkv, 3);
    eng_phase_end(e, worker);

    uint64_t start = clock_ns();
    attend_all(e, worker, layer);
    if (worker == 0)
        atomic_fetch_add_explicit(&e->stat.attend_ns, clock_ns() - start, memory_order_relaxed);
    if (eng_wants_rows(&l->o) || (eng_wants_groups(&l->o) && !groups_fit(m))) {
        while (eng_claim(e, worker, n, &i))
            eng_quantise(e, &e->attn, i, i);
        eng_phase_end(e, worker);
    }
    struct mm_job o = {&l->o, &e->attn, NULL, n, e->obuf, m->hidden, NULL};
    eng_jobs_run(e, worker, &o, 1);
    e->worker[worker].pending = true;
    eng_phase_end(e, worker);
}
