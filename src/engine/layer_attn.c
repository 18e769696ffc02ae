/* layer_attn.c - the attention half of a layer: norm, q k v, q/k norm and rope, KV write,
 * grouped-query attention, output projection.
 *
 * Every worker runs eng_attention; phases end at barriers. KV values are rounded to the KV type
 * when they are written, before any use, so a chunk's own keys are read back rounded as well
 * (canonical arithmetic).
 */
#include "engine.h"

#include <string.h>

#include "base/fp.h"

static uint8_t *kv_plane(const struct kt_engine *e, uint32_t page, uint32_t layer, uint32_t kv_head)
{
    return e->kv + page * e->page_bytes +
           ((uint64_t)layer * e->model->t.n_kv_heads + kv_head) * 2 * e->plane_bytes;
}

/* One key and one value of one kv head at position pos: keys transposed [D][64], values [64][D]. */
static void kv_store(struct kt_engine *e, const kt_seq *s, uint32_t pos, uint32_t layer,
                     uint32_t head, const float *k, const float *v)
{
    uint32_t dim = e->model->t.head_dim, at = pos % KERN_KV_PAGE;
    uint8_t *plane = kv_plane(e, s->pages[pos / KERN_KV_PAGE], layer, head);
    if (e->kv_type == DT_F32) {
        float *kd = (float *)(void *)plane, *vd = (float *)(void *)(plane + e->plane_bytes);
        for (uint32_t d = 0; d < dim; d++)
            kd[d * KERN_KV_PAGE + at] = k[d];
        memcpy(vd + (size_t)at * dim, v, dim * sizeof *v);
    } else {
        uint16_t *kd = (uint16_t *)(void *)plane,
                 *vd = (uint16_t *)(void *)(plane + e->plane_bytes);
        for (uint32_t d = 0; d < dim; d++)
            kd[d * KERN_KV_PAGE + at] = f32_to_bf16(k[d]);
        for (uint32_t d = 0; d < dim; d++)
            vd[(size_t)at * dim + d] = f32_to_bf16(v[d]);
    }
}

/* q/k norm and rope of one kv head and its query heads of one token, then the KV write. */
static void rotate_and_store(struct kt_engine *e, uint32_t layer, uint32_t t, uint32_t kv_head)
{
    const struct mdl_traits *m = &e->model->t;
    const struct eng_layer *l = &e->layer[layer];
    uint32_t group = m->n_heads / m->n_kv_heads, dim = m->head_dim, half = m->rope.dims / 2,
             pos = e->step.pos[t];
    const float *cos = e->rope_cos + (size_t)pos * half, *sin = e->rope_sin + (size_t)pos * half;
    float *q = e->qbuf + ((size_t)t * m->n_heads + kv_head * group) * dim;
    float *k = e->kbuf + ((size_t)t * m->n_kv_heads + kv_head) * dim;
    for (uint32_t h = 0; h < group; h++) {
        if (l->q_norm != NULL)
            e->fn.rmsnorm(q + h * dim, l->q_norm, dim, m->norm_eps, q + h * dim);
        e->fn.rope(q + h * dim, cos, sin, half, m->rope.interleaved);
    }
    if (l->k_norm != NULL)
        e->fn.rmsnorm(k, l->k_norm, dim, m->norm_eps, k);
    e->fn.rope(k, cos, sin, half, m->rope.interleaved);
    kv_store(e, e->step.seq[t], pos, layer, kv_head, k,
             e->vbuf + ((size_t)t * m->n_kv_heads + kv_head) * dim);
}

/* Do the heads of one kv head fill whole groups of the int8 form? */
static bool groups_fit(const struct mdl_traits *m)
{
    return m->n_heads / m->n_kv_heads * m->head_dim % KERN_GROUP == 0;
}

/* The query heads of one kv head for one token, quantised for the output projection where possible.
 */
static void attend(struct kt_engine *e, uint32_t worker, uint32_t layer, uint32_t t,
                   uint32_t kv_head)
{
    const struct mdl_traits *m = &e->model->t;
    struct eng_worker *w = &e->worker[worker];
    const kt_seq *s = e->step.seq[t];
    uint32_t group = m->n_heads / m->n_kv_heads, dim = m->head_dim, n_keys = e->step.pos[t] + 1;
    for (uint32_t p = 0; p * KERN_KV_PAGE < n_keys; p++) {
        w->kpages[p] = kv_plane(e, s->pages[p], layer, kv_head);
        w->vpages[p] = (const uint8_t *)w->kpages[p] + e->plane_bytes;
    }
    size_t first = ((size_t)t * m->n_heads + kv_head * group) * dim;
    struct kern_attn a = {
        .q = e->qbuf + first,
        .n_q = group,
        .dim = dim,
        .n_keys = n_keys,
        .kv_type = e->kv_type,
        .kpage = w->kpages,
        .vpage = w->vpages,
        .scale = (float)(1.0 / __builtin_sqrt((double)dim)),
        .out = e->attn.x + first,
        .scratch = w->attn_scratch,
    };
    e->fn.attn(&a);
    if (eng_wants_int8(&e->layer[layer].o) && groups_fit(m))
        eng_quantise_part(e, a.out, group * dim, &e->attn,
                          &(struct eng_place){t, kv_head * group * dim, t});
}

void eng_attention(struct kt_engine *e, uint32_t worker, uint32_t layer)
{
    const struct mdl_traits *m = &e->model->t;
    const struct eng_layer *l = &e->layer[layer];
    const struct eng_step *s = &e->step;
    uint32_t n = s->n, i;

    const struct eng_act *x =
        eng_norm_rows(e, worker, l->attn_norm,
                      eng_wants_int8(&l->q) || eng_wants_int8(&l->k) || eng_wants_int8(&l->v));
    struct mm_job qkv[3] = {
        {&l->q, x, NULL, n, e->qbuf, (size_t)m->n_heads * m->head_dim},
        {&l->k, x, NULL, n, e->kbuf, (size_t)m->n_kv_heads * m->head_dim},
        {&l->v, x, NULL, n, e->vbuf, (size_t)m->n_kv_heads * m->head_dim},
    };
    eng_jobs_run(e, worker, qkv, 3);
    eng_phase_end(e, worker);

    while (eng_claim(e, worker, n * m->n_kv_heads, &i)) {
        rotate_and_store(e, layer, i / m->n_kv_heads, i % m->n_kv_heads);
        if (s->single)
            attend(e, worker, layer, i / m->n_kv_heads, i % m->n_kv_heads);
    }
    eng_phase_end(e, worker);
    if (!s->single) {
        /* the last positions see the most keys: hand them out first */
        while (eng_claim(e, worker, n * m->n_kv_heads, &i))
            attend(e, worker, layer, n - 1 - i / m->n_kv_heads, i % m->n_kv_heads);
        eng_phase_end(e, worker);
    }

    if (eng_wants_int8(&l->o) && !groups_fit(m)) {
        while (eng_claim(e, worker, n, &i))
            eng_quantise(e, &e->attn, i, i);
        eng_phase_end(e, worker);
    }
    struct mm_job o = {&l->o, &e->attn, NULL, n, e->obuf, m->hidden};
    eng_jobs_run(e, worker, &o, 1);
    e->worker[worker].pending = true;
    eng_phase_end(e, worker);
}
