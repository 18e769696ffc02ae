/* moe_op.c - the public mixture-of-experts operator: the expert path of moe.c on weights that the
 * caller hands over, without a model around it.
 *
 * Inside is an engine with one layer and nothing but its experts: the same plan, pools, workers,
 * arenas and phases as a loaded model has. A matrix is packed by the workers of the pools that own
 * its rows, so pages are touched first by their own node; when the last matrix has come, every page
 * is looked at, as a loaded model's are. Owner: the thread that opened it.
 */
#include "moe.h"

#include <string.h>

#include "base/mem.h"

#define STEP_ROWS KERN_PANEL /* rows converted at once */
#define MAX_TOP_K 256

struct load_args {
    const struct eng_mat *mat;
    const uint8_t *rows;
    enum dtype src;
    atomic_bool failed;
    atomic_uint bad_row;
};

struct forward_args {
    const float *x, *weights;
    const int32_t *ids;
    float *out;
};

struct kt_moe {
    struct kt_engine e; /* one layer, no attention */
    struct mdl model;   /* of which only the traits of the experts are set */
    bool is_moe;        /* what traits.layer_is_moe points at */
    uint8_t *loaded;    /* [E] bits 1 << kt_moe_matrix: usable; 16 << it: came at least once */
    uint32_t n_missing; /* matrices that never came */
    bool pages_seen;
    uint8_t **buf; /* [n_workers] a panel of fp32 rows, then the same in file form */
    size_t buf_f32;
    struct load_args load;
    struct forward_args run;
};

void kt_moe_opts_init(kt_moe_opts *o)
{
    memset(o, 0, sizeof *o);
    o->size = sizeof *o;
    o->format = "mxfp4";
    o->max_tokens = 512;
}

/* ---- opening ---- */

static kt_status check_opts(const kt_moe_opts *o, kt_err *err)
{
    if (o->size != sizeof *o)
        KT_FAIL(err, KT_E_INVALID,
                "kt_moe_opts has size %zu, this library knows %zu: initialise it with "
                "kt_moe_opts_init, compiled against the same kt.h",
                o->size, sizeof *o);
    if (o->hidden < 1 || o->hidden > 65536 || o->inter < 1 || o->inter > 65536 ||
        o->n_experts < 1 || o->n_experts > 65536)
        KT_FAIL(err, KT_E_INVALID,
                "kt_moe: hidden %u, inter %u and n_experts %u must each be 1 to 65536", o->hidden,
                o->inter, o->n_experts);
    if (o->top_k < 1 || o->top_k > o->n_experts || o->top_k > MAX_TOP_K)
        KT_FAIL(err, KT_E_INVALID, "kt_moe: top_k %u must be 1 to %u", o->top_k,
                o->n_experts < MAX_TOP_K ? o->n_experts : MAX_TOP_K);
    if (o->max_tokens < 1 || o->max_tokens > 8192)
        KT_FAIL(err, KT_E_INVALID, "kt_moe: max_tokens %u must be 1 to 8192", o->max_tokens);
    return KT_OK;
}

static kt_status format_of(const char *name, uint32_t k, enum dtype *out, kt_err *err)
{
    int t = name != NULL ? dtype_by_name(name) : -1;
    if (t < 0 || !kern_has_dtype(t))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "kt_moe: there is no kernel for weights in %s; use mxfp4, q8_0, q4_0 or bf16",
                name != NULL ? name : "no format");
    if (k % kern_row_unit((enum dtype)t) != 0)
        KT_FAIL(err, KT_E_INVALID,
                "kt_moe: rows of %u elements are not a multiple of the %u of %s; choose another "
                "format",
                k, kern_row_unit((enum dtype)t), name);
    *out = (enum dtype)t;
    return KT_OK;
}

static void describe(kt_moe *op, const kt_moe_opts *o)
{
    struct mdl_traits *t = &op->model.t;
    op->e.model = &op->model;
    op->e.batch = o->max_tokens;
    op->e.memory_limit = o->memory_limit_bytes;
    op->is_moe = true;
    op->model.name = "kt_moe";
    t->n_layers = t->n_moe_layers = 1;
    t->layer_is_moe = &op->is_moe;
    t->hidden = o->hidden;
    t->n_experts = o->n_experts;
    t->top_k = o->top_k;
    t->expert_inter = o->inter;
}

static bool lay_out_all(struct kt_engine *e, const enum dtype type[3])
{
    const struct mdl_traits *t = &e->model->t;
    struct eng_layer *l = e->layer;
    bool ok = true;
    l->moe = true;
    l->gate = e->mats;
    l->up = e->mats + t->n_experts;
    l->down = e->mats + 2 * (size_t)t->n_experts;
    for (size_t i = 0; i < 3 * (size_t)t->n_experts; i++)
        e->mats[i].part = e->parts + i * e->n_pools;
    /* an expert's three matrices lie together */
    for (uint32_t x = 0; x < t->n_experts; x++)
        for (int m = 0; m < 3; m++) {
            struct eng_mat *mat = &e->mats[(size_t)m * t->n_experts + x];
            bool down = m == KT_MOE_DOWN;
            mat->type = type[m];
            mat->rows = down ? t->hidden : t->expert_inter;
            mat->k = down ? t->expert_inter : t->hidden;
            ok = ok && eng_lay_out_rows(e, mat, down ? KERN_PANEL : KERN_GROUP);
        }
    return ok;
}

static kt_status take_memory(kt_moe *op, const enum dtype type[3], kt_err *err)
{
    struct kt_engine *e = &op->e;
    uint32_t E = e->model->t.n_experts, widest = e->model->t.hidden > e->model->t.expert_inter
                                                     ? e->model->t.hidden
                                                     : e->model->t.expert_inter;
    e->layer = mem_calloc(1, sizeof *e->layer);
    e->mats = mem_calloc(3 * (size_t)E, sizeof *e->mats);
    e->parts = mem_calloc(3 * (size_t)E * e->n_pools, sizeof *e->parts);
    op->loaded = mem_calloc(E, 1);
    op->n_missing = 3 * E;
    op->buf = mem_calloc(e->n_workers, sizeof *op->buf);
    op->buf_f32 = (size_t)STEP_ROWS * widest * sizeof(float);
    if (e->layer == NULL || e->mats == NULL || e->parts == NULL || op->loaded == NULL ||
        op->buf == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the description of %u experts", E);
    for (uint32_t w = 0; w < e->n_workers; w++)
        if ((op->buf[w] = mem_aligned(64, 2 * op->buf_f32)) == NULL)
            KT_FAIL(err, KT_E_NOMEM, "no memory for packing buffers");
    if (!lay_out_all(e, type))
        KT_FAIL(err, KT_E_INTERNAL, "kt_moe: no kernel pair with one layout for %s and %s",
                dtype_name(type[KT_MOE_GATE]), dtype_name(type[KT_MOE_DOWN]));
    for (uint32_t p = 0; p < e->n_pools; p++)
        e->weight_bytes += e->arena_bytes[p];
    KT_TRY(eng_take_moe_memory(e, err));
    for (size_t i = 0; i < 3 * (size_t)E; i++)
        for (uint32_t p = 0; p < e->n_pools; p++)
            e->mats[i].part[p].w = e->arena[p] + (uintptr_t)e->mats[i].part[p].w;
    return KT_OK;
}

static kt_status set_up(kt_moe *op, const kt_moe_opts *o, kt_err *err)
{
    enum dtype type[3];
    kt_engine_opts eo;
    KT_TRY(check_opts(o, err));
    KT_TRY(format_of(o->format, o->hidden, &type[KT_MOE_GATE], err));
    type[KT_MOE_UP] = type[KT_MOE_GATE];
    KT_TRY(format_of(o->down_format != NULL ? o->down_format : o->format, o->inter,
                     &type[KT_MOE_DOWN], err));
    describe(op, o);
    kt_engine_opts_init(&eo);
    eo.profile_path = o->profile_path;
    eo.trust_profile = o->trust_profile;
    eo.threads = o->threads;
    eo.cpu_mask = o->cpu_mask;
    eo.fast_bf16 = o->fast_bf16;
    KT_TRY(eng_prepare(&op->e, &eo, err));
    KT_TRY(eng_start_workers(&op->e, err));
    return take_memory(op, type, err);
}

kt_status kt_moe_open(const kt_moe_opts *o, kt_moe **out, kt_err *err)
{
    *out = NULL;
    kt_moe *op = mem_calloc(1, sizeof *op);
    if (op == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for an operator");
    kt_status s = set_up(op, o, err);
    if (s != KT_OK) {
        kt_moe_close(op);
        return s;
    }
    *out = op;
    return KT_OK;
}

void kt_moe_close(kt_moe *op)
{
    if (op == NULL)
        return;
    for (uint32_t w = 0; op->buf != NULL && w < op->e.n_workers; w++)
        mem_free(op->buf[w]);
    mem_free(op->buf);
    mem_free(op->loaded);
    eng_release(&op->e);
    mem_free(op);
}

/* ---- loading ---- */

/* Rows [row, row + n) of the whole matrix into dst. Returns -1 or the index of a bad row. */
static int64_t pack_step(kt_moe *op, uint32_t worker, uint32_t row, uint32_t n, uint8_t *dst)
{
    const struct load_args *a = &op->load;
    const struct eng_mat *m = a->mat;
    const uint8_t *src = a->rows + row * dtype_row_bytes(a->src, m->k);
    if (a->src != m->type) {
        float *f32 = (float *)(void *)op->buf[worker];
        uint8_t *file = op->buf[worker] + op->buf_f32;
        uint64_t elems = (uint64_t)n * m->k;
        eng_decode_rows(a->src, src, n, m->k, f32);
        for (uint64_t i = 0; i < elems; i++)
            if (!(f32[i] - f32[i] == 0.0f))
                return (int64_t)(i / m->k);
        eng_quantise_rows(m->type, f32, n, m->k, file);
        src = file;
    }
    return kern_pack(m->layout, m->type, src, n, m->k, dst);
}

static void load_worker(void *ctx, uint32_t worker)
{
    kt_moe *op = ctx;
    struct kt_engine *e = &op->e;
    const struct eng_mat *m = op->load.mat;
    const struct eng_part *part = &m->part[e->worker[worker].pool];
    uint32_t i;
    e->worker[worker].phase %= 3;
    while (eng_claim_pool(e, worker, (part->rows + STEP_ROWS - 1) / STEP_ROWS, &i)) {
        uint32_t r = i * STEP_ROWS, n = part->rows - r < STEP_ROWS ? part->rows - r : STEP_ROWS;
        int64_t bad = pack_step(op, worker, part->row0 + r, n,
                                part->w + (uint64_t)(r / KERN_PANEL) * m->panel_bytes);
        if (bad >= 0) {
            atomic_store(&op->load.bad_row, part->row0 + r + (uint32_t)bad);
            atomic_store(&op->load.failed, true);
        }
    }
    eng_phase_last(e, worker);
}

kt_status kt_moe_load(kt_moe *op, uint32_t expert, kt_moe_matrix matrix, const char *dtype,
                      const void *rows, kt_err *err)
{
    struct kt_engine *e = &op->e;
    uint32_t E = e->model->t.n_experts;
    int src = dtype != NULL ? dtype_by_name(dtype) : -1;
    if (expert >= E || matrix < KT_MOE_GATE || matrix > KT_MOE_DOWN || rows == NULL || src < 0)
        KT_FAIL(err, KT_E_INVALID,
                "kt_moe_load: expert %u of %u, matrix %d, dtype %s: out of range or missing",
                expert, E, (int)matrix, dtype != NULL ? dtype : "(none)");
    const struct eng_mat *m = &e->mats[(size_t)matrix * E + expert];
    if (src != (int)m->type) {
        if (src != DT_F32 && src != DT_F16 && src != DT_BF16)
            KT_FAIL(err, KT_E_INVALID,
                    "kt_moe_load: this operator's format is %s, rows came in %s; give %s rows, or "
                    "f32, f16 or bf16 values",
                    dtype_name(m->type), dtype, dtype_name(m->type));
        if (!kern_quantise(m->type, NULL, 0, NULL))
            KT_FAIL(err, KT_E_UNSUPPORTED,
                    "kt_moe_load: there is no quantiser to %s; give rows in that form",
                    dtype_name(m->type));
    }
    op->load = (struct load_args){.mat = m, .rows = rows, .src = (enum dtype)src};
    const uint8_t bit = (uint8_t)(1u << matrix), came = (uint8_t)(bit << 4);
    op->loaded[expert] &= (uint8_t)~bit;
    team_run(e->team, load_worker, op);
    if (atomic_load(&op->load.failed))
        KT_FAIL(err, KT_E_FORMAT,
                "kt_moe_load: expert %u, matrix %d, row %u: NaN or infinity in a value or scale",
                expert, (int)matrix, atomic_load(&op->load.bad_row));
    op->n_missing -= (op->loaded[expert] & came) == 0;
    op->loaded[expert] |= bit | came;
    if (op->n_missing == 0 && !op->pages_seen) {
        op->pages_seen = true; /* also when it fails: once is enough */
        KT_TRY(eng_numa_check(e, err));
    }
    return KT_OK;
}

/* ---- running ---- */

/* The tokens' activations for this worker's products, and their experts. */
static void take_tokens(kt_moe *op, uint32_t worker, bool int8, struct moe_run *r,
                        struct eng_act *in)
{
    struct kt_engine *e = &op->e;
    const struct forward_args *a = &op->run;
    struct eng_groups *g = e->step.few ? &e->worker[worker].groups : &e->step.groups;
    uint32_t n = e->step.n, k = e->model->t.top_k, i = 0;
    *in = e->step.few ? e->worker[worker].norm : e->norm;
    in->x = (float *)(uintptr_t)a->x; /* read only */
    while ((int8 || in->b != NULL) && (e->step.few ? i < n : eng_claim(e, worker, n, &i))) {
        eng_round_part(in, in->x + (size_t)i * in->k, in->k, i, 0);
        if (int8)
            eng_quantise(e, in, i, i);
        i++;
    }
    if (e->step.few || worker == 0) {
        memcpy(g->chosen, a->ids, (size_t)n * k * sizeof *g->chosen);
        memcpy(g->weight, a->weights, (size_t)n * k * sizeof *g->weight);
        moe_group(g, n, k, e->model->t.n_experts);
    }
    if (!e->step.few)
        eng_phase_end(e, worker);
    r->groups = g;
    r->in = in;
}

static void forward_worker(void *ctx, uint32_t worker)
{
    kt_moe *op = ctx;
    struct kt_engine *e = &op->e;
    const struct eng_layer *l = e->layer;
    struct eng_act in;
    struct moe_run r = {.gate = l->gate,
                        .up = l->up,
                        .down = l->down,
                        .mid = e->mid,
                        .int8 = eng_wants_groups(&l->down[0]),
                        .n = e->step.n,
                        .out = op->run.out,
                        .ldo = e->model->t.hidden};
    e->worker[worker].phase %= 3;
    take_tokens(op, worker, eng_wants_int8(&l->gate[0]), &r, &in);
    moe_gate_up(e, worker, &r);
    eng_phase_end(e, worker);
    if (eng_wants_rows(r.down))
        moe_quantise(e, worker, &r);
    moe_down(e, worker, &r);
    eng_phase_last(e, worker);
}

static kt_status check_ids(const kt_moe *op, const int32_t *ids, uint32_t n, kt_err *err)
{
    uint32_t E = op->e.model->t.n_experts, k = op->e.model->t.top_k;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < k; i++) {
            int32_t id = ids[(size_t)t * k + i];
            if (id < 0 || (uint32_t)id >= E)
                KT_FAIL(err, KT_E_INVALID, "kt_moe_forward: token %u: expert id %d of %u", t, id,
                        E);
            if ((op->loaded[id] & 7) != 7)
                KT_FAIL(err, KT_E_INVALID,
                        "kt_moe_forward: token %u: expert %d was not loaded; call kt_moe_load for "
                        "its gate, up and down",
                        t, id);
            for (uint32_t j = 0; j < i; j++)
                if (ids[(size_t)t * k + j] == id)
                    KT_FAIL(err, KT_E_INVALID,
                            "kt_moe_forward: token %u names expert %d twice; add the weights", t,
                            id);
        }
    return KT_OK;
}

kt_status kt_moe_forward(kt_moe *op, const float *x, const int32_t *ids, const float *weights,
                         uint32_t n, float *out, kt_err *err)
{
    struct kt_engine *e = &op->e;
    uint32_t H = e->model->t.hidden, k = e->model->t.top_k, bad = UINT32_MAX;
    if (x == NULL || ids == NULL || weights == NULL || out == NULL || n == 0)
        KT_FAIL(err, KT_E_INVALID, "kt_moe_forward: a pointer is NULL, or there is no token");
    KT_TRY(check_ids(op, ids, n, err));
    for (uint32_t at = 0; at < n; at += e->step.n) {
        e->step.n = n - at < e->batch ? n - at : e->batch;
        e->step.few = e->step.n <= FEW_TOKENS;
        op->run = (struct forward_args){x + (size_t)at * H, weights + (size_t)at * k,
                                        ids + (size_t)at * k, out + (size_t)at * H};
        for (uint32_t t = 0; t < e->step.n; t++)
            atomic_store_explicit(&e->step.bad[t], 0, memory_order_relaxed);
        team_run(e->team, forward_worker, op);
        for (uint32_t t = 0; t < e->step.n && bad == UINT32_MAX; t++)
            if (atomic_load_explicit(&e->step.bad[t], memory_order_relaxed))
                bad = at + t;
    }
    if (bad != UINT32_MAX)
        KT_FAIL(err, KT_E_NUMERIC, "kt_moe_forward: NaN or infinity came up for token %u", bad);
    return KT_OK;
}

void kt_moe_get_info(const kt_moe *op, kt_moe_info *info)
{
    const struct kt_engine *e = &op->e;
    const struct eng_layer *l = e->layer;
    *info = (kt_moe_info){.expert_bytes = l->gate->row_file_bytes * l->gate->rows +
                                          l->up->row_file_bytes * l->up->rows +
                                          l->down->row_file_bytes * l->down->rows,
                          .weight_bytes = e->weight_bytes,
                          .n_pools = e->n_pools,
                          .n_threads = e->n_workers,
                          .kernel = kern_isa_level_name(e->isa),
                          .plan_text = e->plan_text};
}

bool kt_moe_get_pool(const kt_moe *op, uint32_t pool, kt_pool_info *info)
{
    bool there = eng_pool_info(&op->e, pool, info);
    info->pages_known = info->pages_known && op->pages_seen;
    return there;
}
