/* load.c - from a model on disk to the layout of its packed matrices: types, parts, arena sizes;
 * norm vectors. Weights are not read here (packing.c).
 *
 * Every matrix is split by output rows over the pools, in whole panels (gate and up: in pairs), by
 * the plan's shares. The parts lie in the arenas as the weights lie in the files, so that packing,
 * which reads the files in order, fills each page at once, while the zeros that the system has put
 * there are still in a cache.
 */
#include "engine.h"

#include <stdlib.h>

#include "base/mem.h"

/* Which type a weight passes through (the quantisation asked for) and which type is packed. */
void eng_choose_type(const struct kt_engine *e, enum mdl_role role, bool expert, enum dtype src,
                     int *through, enum dtype *packed)
{
    int q = expert ? e->quant : e->quant_dense;
    *through = role != MDL_ROUTER && q >= 0 && q != (int)src ? q : -1;
    enum dtype t = *through >= 0 ? (enum dtype) * through : src;
    *packed = e->strict && dtype_is_quantised(t) ? DT_F32 : t;
}

static uint32_t units_before(const struct kt_engine *e, uint32_t pool, uint32_t n_units)
{
    double cum = 0;
    if (pool == e->n_pools)
        return n_units;
    for (uint32_t p = 0; p < pool; p++)
        cum += e->plan->pools[p].share;
    uint32_t at = (uint32_t)(cum * n_units + 0.5);
    return at < n_units ? at : n_units;
}

bool eng_lay_out_rows(struct kt_engine *e, struct eng_mat *mat, uint32_t unit)
{
    uint32_t n_units = (mat->rows + unit - 1) / unit;
    e->acts |= 1u << kern_act_of(mat->type);
    mat->layout = kern_layout_for(mat->type, e->isa);
    mat->panel_bytes = kern_panel_bytes(mat->layout, mat->type, mat->k);
    mat->row_file_bytes = dtype_row_bytes(mat->type, mat->k);
    for (uint32_t p = 0; p < e->n_pools; p++) {
        uint32_t a = units_before(e, p, n_units) * unit, b = units_before(e, p + 1, n_units) * unit;
        if (b > mat->rows)
            b = mat->rows;
        mat->part[p].row0 = a;
        mat->part[p].rows = b > a ? b - a : 0;
        mat->part[p].w =
            (uint8_t *)(uintptr_t)e->arena_bytes[p]; /* offset until the arenas exist */
        e->arena_bytes[p] +=
            (kern_packed_bytes(mat->layout, mat->type, mat->part[p].rows, mat->k) + 63) / 64 * 64;
    }
    return eng_mat_kernels(e, mat);
}

static kt_status lay_out(struct kt_engine *e, enum mdl_role role, uint32_t layer, uint32_t expert,
                         struct eng_mat *mat, kt_err *err)
{
    struct mdl_slice s;
    int through;
    bool is_expert = e->model->t.n_experts > 0 &&
                     (role == MDL_GATE || role == MDL_UP || role == MDL_DOWN) &&
                     e->model->t.layer_is_moe[layer];
    if (!mdl_weight(e->model, role, layer, expert, &s))
        KT_FAIL(err, KT_E_INTERNAL, "%s: layer %u has no weight of role %d", e->model->path, layer,
                (int)role);
    eng_choose_type(e, role, is_expert, s.type, &through, &mat->type);
    enum dtype widest = through >= 0 ? (enum dtype)through : s.type;
    if (!kern_has_dtype(mat->type) || !kern_has_dtype(widest))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tensor %s has type %s, for which this version has no kernel; convert the "
                "model to one of mxfp4, q8_0, q4_0, bf16",
                s.file, s.tensor, dtype_name(s.type));
    if (s.cols % kern_row_unit(widest) != 0)
        KT_FAIL(err, KT_E_INVALID,
                "%s: tensor %s has rows of %u elements, not a multiple of the %u of %s; choose "
                "another type or none",
                s.file, s.tensor, s.cols, kern_row_unit(widest), dtype_name(widest));
    mat->rows = s.rows;
    mat->k = s.cols;
    /* rows of gate and up become int8 groups where they are computed: no group in two pools */
    if (!eng_lay_out_rows(e, mat, role == MDL_GATE || role == MDL_UP ? KERN_GROUP : KERN_PANEL))
        KT_FAIL(err, KT_E_INTERNAL, "%s: no kernel pair with one layout for %s", s.tensor,
                dtype_name(mat->type));
    return KT_OK;
}

/* A layer's experts share the form of their activations: what the first one takes is made for all.
 */
static kt_status same_acts(const struct kt_engine *e, uint32_t layer, uint32_t expert, kt_err *err)
{
    const struct eng_layer *l = &e->layer[layer];
    const struct eng_mat *of[3] = {l->gate, l->up, l->down};
    for (int i = 0; i < 3; i++)
        if (kern_act_of(of[i][expert].type) != kern_act_of(of[i][0].type))
            KT_FAIL(err, KT_E_UNSUPPORTED,
                    "%s: layer %u: expert %u is %s where expert 0 is %s; give all experts one "
                    "format with --quant",
                    e->model->path, layer, expert, dtype_name(of[i][expert].type),
                    dtype_name(of[i][0].type));
    return KT_OK;
}

size_t eng_count_mats(const struct mdl_traits *t)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->n_layers; i++)
        n += 5 + (t->layer_is_moe[i] ? 3 * (size_t)t->n_experts : 3);
    return n;
}

void eng_each_mat(const struct kt_engine *e, eng_mat_fn fn, void *ctx)
{
    for (uint32_t i = 0; i < e->model->t.n_layers; i++) {
        struct eng_layer *l = &e->layer[i];
        fn(ctx, &l->q, MDL_Q, i, 0);
        fn(ctx, &l->k, MDL_K, i, 0);
        fn(ctx, &l->v, MDL_V, i, 0);
        fn(ctx, &l->o, MDL_O, i, 0);
        if (l->moe)
            fn(ctx, &l->router, MDL_ROUTER, i, 0);
        for (uint32_t x = 0; x < (l->moe ? e->model->t.n_experts : 1); x++) {
            fn(ctx, &l->gate[x], MDL_GATE, i, x);
            fn(ctx, &l->up[x], MDL_UP, i, x);
            fn(ctx, &l->down[x], MDL_DOWN, i, x);
        }
    }
    fn(ctx, (struct eng_mat *)(uintptr_t)&e->head, MDL_HEAD, 0, 0);
}

struct places {
    const struct kt_engine *e;
    struct place {
        const uint8_t *at; /* in the mapped file */
        size_t nth;        /* in the fixed order: two matrices may share a tensor */
        struct eng_mat *m;
    } * list;
    size_t n;
};

static void add_place(void *ctx, struct eng_mat *m, enum mdl_role role, uint32_t layer,
                      uint32_t expert)
{
    struct places *p = ctx;
    struct mdl_slice s = {0};
    (void)mdl_weight(p->e->model, role, layer, expert, &s);
    p->list[p->n] = (struct place){s.data, p->n, m};
    p->n++;
}

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->at != y->at)
        return x->at > y->at ? 1 : -1;
    return (x->nth > y->nth) - (x->nth < y->nth);
}

/* New offsets in the arenas; their sizes stay. */
static kt_status order_arenas(struct kt_engine *e, kt_err *err)
{
    struct places all = {.e = e};
    all.list = mem_calloc(eng_count_mats(&e->model->t), sizeof *all.list);
    if (all.list == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of matrices");
    eng_each_mat(e, add_place, &all);
    qsort(all.list, all.n, sizeof *all.list, by_place);
    for (uint32_t p = 0; p < e->n_pools; p++) {
        uint64_t at = 0;
        for (size_t i = 0; i < all.n; i++) {
            const struct eng_mat *m = all.list[i].m;
            m->part[p].w = (uint8_t *)(uintptr_t)at;
            at += (kern_packed_bytes(m->layout, m->type, m->part[p].rows, m->k) + 63) / 64 * 64;
        }
    }
    mem_free(all.list);
    return KT_OK;
}

/* Norm vectors as fp32, whatever the file has. */
static kt_status take_vector(struct kt_engine *e, enum mdl_role role, uint32_t layer,
                             const float **out, kt_err *err)
{
    struct mdl_slice s;
    *out = NULL;
    if (!mdl_weight(e->model, role, layer, 0, &s))
        return KT_OK;
    float *d = e->vectors + e->n_vectors;
    if (!kern_decode(s.type, s.data, s.cols, d))
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: tensor %s has type %s; norms must be F32, F16 or BF16",
                s.file, s.tensor, dtype_name(s.type));
    for (uint32_t i = 0; i < s.cols; i++)
        if (!(d[i] - d[i] == 0.0f))
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: tensor %s has NaN or infinity at element %u; the file is damaged", s.file,
                    s.tensor, i);
    e->n_vectors += s.cols;
    *out = d;
    return KT_OK;
}

kt_status eng_load_layout(struct kt_engine *e, kt_err *err)
{
    const struct mdl_traits *t = &e->model->t;
    size_t n_mats = eng_count_mats(t), at = 0,
           per_layer = 2 * (size_t)t->hidden + 2 * (size_t)t->head_dim;
    e->layer = mem_calloc(t->n_layers, sizeof *e->layer);
    e->mats = mem_calloc(n_mats, sizeof *e->mats);
    e->parts = mem_calloc(n_mats * e->n_pools, sizeof *e->parts);
    e->vectors = mem_aligned(64, (t->n_layers * per_layer + t->hidden) * sizeof *e->vectors);
    if (e->layer == NULL || e->mats == NULL || e->parts == NULL || e->vectors == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the description of %zu matrices", n_mats);
    for (size_t i = 0; i < n_mats; i++)
        e->mats[i].part = e->parts + i * e->n_pools;
    if (!mdl_weight(e->model, MDL_EMBED, 0, 0, &e->embed))
        KT_FAIL(err, KT_E_INTERNAL, "%s: no embedding", e->model->path);
    KT_TRY(take_vector(e, MDL_FINAL_NORM, 0, &e->final_norm, err));
    for (uint32_t i = 0; i < t->n_layers; i++) {
        struct eng_layer *l = &e->layer[i];
        struct eng_mat *five[5] = {&l->q, &l->k, &l->v, &l->o, &l->router};
        static const enum mdl_role role[5] = {MDL_Q, MDL_K, MDL_V, MDL_O, MDL_ROUTER};
        uint32_t n = t->layer_is_moe[i] ? t->n_experts : 1;
        l->moe = t->layer_is_moe[i];
        l->moe_index = i > 0 ? e->layer[i - 1].moe_index + (e->layer[i - 1].moe ? 1 : 0) : 0;
        for (int r = 0; r < (l->moe ? 5 : 4); r++) {
            five[r]->part = e->mats[at++].part;
            five[r]->exact = role[r] == MDL_ROUTER;
            KT_TRY(lay_out(e, role[r], i, 0, five[r], err));
        }
        l->gate = &e->mats[at];
        l->up = &e->mats[at + n];
        l->down = &e->mats[at + 2 * (size_t)n];
        at += 3 * (size_t)n;
        for (uint32_t x = 0; x < n; x++) {
            KT_TRY(lay_out(e, MDL_GATE, i, x, &l->gate[x], err));
            KT_TRY(lay_out(e, MDL_UP, i, x, &l->up[x], err));
            KT_TRY(lay_out(e, MDL_DOWN, i, x, &l->down[x], err));
            KT_TRY(same_acts(e, i, x, err));
        }
        KT_TRY(take_vector(e, MDL_ATTN_NORM, i, &l->attn_norm, err));
        KT_TRY(take_vector(e, MDL_FFN_NORM, i, &l->ffn_norm, err));
        KT_TRY(take_vector(e, MDL_Q_NORM, i, &l->q_norm, err));
        KT_TRY(take_vector(e, MDL_K_NORM, i, &l->k_norm, err));
    }
    e->head.part = e->mats[at++].part;
    KT_TRY(lay_out(e, MDL_HEAD, 0, 0, &e->head, err));
    KT_TRY(order_arenas(e, err));
    for (uint32_t p = 0; p < e->n_pools; p++)
        e->weight_bytes += e->arena_bytes[p];
    return KT_OK;
}
