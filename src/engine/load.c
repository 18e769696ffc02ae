/* load.c - from a model on disk to packed matrices: first the layout (types, parts, arena sizes;
 * nothing is read), then the packing by all workers.
 *
 * Every matrix is split by output rows over the pools, in whole panels (gate and up: in pairs), by
 * the plan's shares; the worker that packs a part belongs to the pool that owns it, so pages are
 * touched first by their own node. Conversion at load (--quant, --quant-dense, --strict) goes file
 * form -> fp32 -> file form of the wanted type -> packed, 64 rows at a time, so its bits equal
 * those of a file that was converted before.
 */
#include "engine.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define PIECE_ROWS 1024 /* rows of one packing task */
#define STEP_ROWS 64    /* rows converted at once */

struct task {
    const struct eng_mat *mat;
    struct mdl_slice src;
    int through;               /* dtype that values pass through before packing (-1: none) */
    uint32_t pool, row0, rows; /* in the part */
};

struct loader {
    struct kt_engine *e;
    struct task *task;
    uint32_t n_tasks;
    uint32_t *pool_first; /* [n_pools+1] tasks of each pool are contiguous */
    uint64_t total_bytes;
    _Atomic uint64_t done_bytes;
    atomic_bool failed;
    atomic_flag err_taken;
    kt_err err;
    uint8_t **buf; /* [n_workers] conversion buffers */
    size_t f32_bytes, mid_bytes;
    const kt_engine_opts *o;
    uint64_t last_progress_ns;
};

/* Which type a weight passes through (the quantisation asked for) and which type is packed. */
static void choose_type(const struct kt_engine *e, enum mdl_role role, bool expert, enum dtype src,
                        int *through, enum dtype *packed)
{
    int q = expert ? e->quant : e->quant_dense;
    *through = role != MDL_ROUTER && q >= 0 && q != (int)src ? q : -1;
    enum dtype t = *through >= 0 ? (enum dtype) * through : src;
    *packed = e->strict && dtype_info(t)->block_elems > 1 ? DT_F32 : t;
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
    choose_type(e, role, is_expert, s.type, &through, &mat->type);
    enum dtype widest = through >= 0 ? (enum dtype)through : s.type;
    if (!kern_has_dtype(mat->type) || !kern_has_dtype(widest))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tensor %s has type %s, for which this version has no kernel; convert the "
                "model to one of mxfp4, q8_0, q4_0, bf16",
                s.file, s.tensor, dtype_name(s.type));
    if (s.cols % dtype_info(widest)->block_elems != 0)
        KT_FAIL(err, KT_E_INVALID,
                "%s: tensor %s has rows of %u elements, not a multiple of the %u of %s; choose "
                "another type or none",
                s.file, s.tensor, s.cols, dtype_info(widest)->block_elems, dtype_name(widest));
    mat->rows = s.rows;
    mat->k = s.cols;
    mat->layout = kern_layout_for(mat->type, e->isa);
    mat->panel_bytes = kern_panel_bytes(mat->layout, mat->type, mat->k);
    mat->row_file_bytes = dtype_row_bytes(mat->type, mat->k);
    if (!eng_mat_kernels(e, mat))
        KT_FAIL(err, KT_E_INTERNAL, "%s: no kernel pair with one layout for %s", s.tensor,
                dtype_name(mat->type));
    /* rows of gate and up become int8 groups where they are computed: no group in two pools */
    uint32_t unit = role == MDL_GATE || role == MDL_UP ? KERN_GROUP : KERN_PANEL,
             n_units = (mat->rows + unit - 1) / unit;
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
    return KT_OK;
}

static size_t count_mats(const struct mdl_traits *t)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->n_layers; i++)
        n += 5 + (t->layer_is_moe[i] ? 3 * (size_t)t->n_experts : 3);
    return n;
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
    size_t n_mats = count_mats(t), at = 0,
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
        }
        KT_TRY(take_vector(e, MDL_ATTN_NORM, i, &l->attn_norm, err));
        KT_TRY(take_vector(e, MDL_FFN_NORM, i, &l->ffn_norm, err));
        KT_TRY(take_vector(e, MDL_Q_NORM, i, &l->q_norm, err));
        KT_TRY(take_vector(e, MDL_K_NORM, i, &l->k_norm, err));
    }
    e->head.part = e->mats[at++].part;
    KT_TRY(lay_out(e, MDL_HEAD, 0, 0, &e->head, err));
    for (uint32_t p = 0; p < e->n_pools; p++)
        e->weight_bytes += e->arena_bytes[p];
    return KT_OK;
}

/* ---- packing ---- */

static void fail(struct loader *ld, const kt_err *err)
{
    if (!atomic_flag_test_and_set(&ld->err_taken))
        ld->err = *err;
    atomic_store(&ld->failed, true);
}

static void bad_value(struct loader *ld, const struct task *k, uint64_t row)
{
    kt_err err;
    err_set(&err, KT_E_FORMAT, 0, __func__,
            "%s: tensor %s (%s), row %llu: NaN or infinity in a value or scale; the file is "
            "damaged or was converted wrongly",
            k->src.file, k->src.tensor, dtype_name(k->src.type), (unsigned long long)row);
    fail(ld, &err);
}

/* Rows [row, row + n) of the whole matrix, converted, into dst. */
static bool pack_rows(struct loader *ld, const struct task *k, uint32_t worker, uint32_t row,
                      uint32_t n, uint8_t *dst)
{
    const struct eng_mat *m = k->mat;
    const uint8_t *src = k->src.data + row * dtype_row_bytes(k->src.type, m->k);
    enum dtype type = k->src.type;
    uint64_t elems = (uint64_t)n * m->k;
    float *f32 = (float *)(void *)ld->buf[worker];
    uint8_t *mid = ld->buf[worker] + ld->f32_bytes;
    if (k->through >= 0) {
        kern_decode(type, src, elems, f32);
        for (uint64_t i = 0; i < elems; i++)
            if (!(f32[i] - f32[i] == 0.0f)) {
                bad_value(ld, k, row + i / m->k);
                return false;
            }
        kern_quantise((enum dtype)k->through, f32, elems, mid);
        src = mid;
        type = (enum dtype)k->through;
    }
    if (type != m->type) { /* strict: values as fp32 */
        kern_decode(type, src, elems, f32);
        src = (const uint8_t *)f32;
        type = m->type;
    }
    int64_t bad = kern_pack(m->layout, type, src, n, m->k, dst);
    if (bad >= 0)
        bad_value(ld, k, row + (uint64_t)bad);
    return bad < 0;
}

/* The packed copy is what steps read: take the file's pages out of this process again (they stay in
 * the page cache, which is reclaimable). Only whole pages inside the range, because its ends belong
 * to neighbours. A later read, of an embedding row say, maps its page again. */
static void drop_pages(const uint8_t *p, uint64_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
              first = ((uintptr_t)p + page - 1) / page * page,
              end = ((uintptr_t)p + bytes) / page * page;
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
}

static void pack_task(struct loader *ld, const struct task *k, uint32_t worker)
{
    const struct eng_mat *m = k->mat;
    const struct eng_part *part = &m->part[k->pool];
    uint32_t step = k->through >= 0 || m->type != k->src.type ? STEP_ROWS : k->rows;
    for (uint32_t r = 0; r < k->rows; r += step) {
        uint32_t n = k->rows - r < step ? k->rows - r : step;
        uint8_t *dst = part->w + (uint64_t)((k->row0 + r) / KERN_PANEL) * m->panel_bytes;
        if (atomic_load_explicit(&ld->failed, memory_order_relaxed) ||
            !pack_rows(ld, k, worker, part->row0 + k->row0 + r, n, dst))
            return;
        uint64_t done = atomic_fetch_add(&ld->done_bytes, n * dtype_row_bytes(k->src.type, m->k)) +
                        n * dtype_row_bytes(k->src.type, m->k);
        uint64_t now = clock_ns();
        if (worker == 0 && ld->o->progress != NULL && now - ld->last_progress_ns > 100000000u) {
            ld->last_progress_ns = now;
            ld->o->progress(ld->o->progress_user, done, ld->total_bytes);
        }
    }
    drop_pages(k->src.data + (part->row0 + k->row0) * dtype_row_bytes(k->src.type, m->k),
               k->rows * dtype_row_bytes(k->src.type, m->k));
}

static void load_worker(void *ctx, uint32_t worker)
{
    struct loader *ld = ctx;
    struct kt_engine *e = ld->e;
    uint32_t pool = e->worker[worker].pool, first = ld->pool_first[pool],
             n = ld->pool_first[pool + 1] - first, i;
    e->worker[worker].phase = 0;
    while (eng_claim_pool(e, worker, n, &i))
        pack_task(ld, &ld->task[first + i], worker);
}

/* Add the tasks of one matrix for one pool; counts only while ld->task is NULL. */
static void add_tasks(struct loader *ld, const struct eng_mat *m, enum mdl_role role,
                      uint32_t layer, uint32_t expert, uint32_t pool)
{
    struct kt_engine *e = ld->e;
    struct mdl_slice s;
    int through;
    enum dtype packed;
    bool is_expert =
        (role == MDL_GATE || role == MDL_UP || role == MDL_DOWN) && e->model->t.layer_is_moe[layer];
    mdl_weight(e->model, role, layer, expert, &s);
    choose_type(e, role, is_expert, s.type, &through, &packed);
    for (uint32_t r = 0; r < m->part[pool].rows; r += PIECE_ROWS) {
        uint32_t n = m->part[pool].rows - r < PIECE_ROWS ? m->part[pool].rows - r : PIECE_ROWS;
        if (ld->task != NULL)
            ld->task[ld->n_tasks] = (struct task){m, s, through, pool, r, n};
        else
            ld->total_bytes += n * dtype_row_bytes(s.type, m->k);
        ld->n_tasks++;
    }
}

static void list_tasks(struct loader *ld)
{
    struct kt_engine *e = ld->e;
    const struct mdl_traits *t = &e->model->t;
    ld->n_tasks = 0;
    for (uint32_t p = 0; p < e->n_pools; p++) {
        ld->pool_first[p] = ld->n_tasks;
        for (uint32_t i = 0; i < t->n_layers; i++) {
            const struct eng_layer *l = &e->layer[i];
            add_tasks(ld, &l->q, MDL_Q, i, 0, p);
            add_tasks(ld, &l->k, MDL_K, i, 0, p);
            add_tasks(ld, &l->v, MDL_V, i, 0, p);
            add_tasks(ld, &l->o, MDL_O, i, 0, p);
            if (l->moe)
                add_tasks(ld, &l->router, MDL_ROUTER, i, 0, p);
            for (uint32_t x = 0; x < (l->moe ? t->n_experts : 1); x++) {
                add_tasks(ld, &l->gate[x], MDL_GATE, i, x, p);
                add_tasks(ld, &l->up[x], MDL_UP, i, x, p);
                add_tasks(ld, &l->down[x], MDL_DOWN, i, x, p);
            }
        }
        add_tasks(ld, &e->head, MDL_HEAD, 0, 0, p);
    }
    ld->pool_first[e->n_pools] = ld->n_tasks;
}

static uint32_t widest_k(const struct kt_engine *e)
{
    const struct mdl_traits *t = &e->model->t;
    uint32_t k = t->hidden, heads = t->n_heads * t->head_dim;
    k = heads > k ? heads : k;
    k = t->dense_inter > k ? t->dense_inter : k;
    return t->expert_inter > k ? t->expert_inter : k;
}

kt_status eng_load_weights(struct kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    struct loader ld = {.e = e, .o = o, .err_taken = ATOMIC_FLAG_INIT};
    kt_status result = KT_OK;
    for (uint32_t p = 0; p < e->n_pools; p++)
        for (size_t i = 0, n = count_mats(&e->model->t); i < n; i++)
            e->parts[i * e->n_pools + p].w =
                e->arena[p] + (uintptr_t)e->parts[i * e->n_pools + p].w;
    ld.f32_bytes = ((size_t)STEP_ROWS * widest_k(e) * sizeof(float) + 63) / 64 * 64;
    ld.mid_bytes = ld.f32_bytes;
    ld.pool_first = mem_calloc(e->n_pools + 1, sizeof *ld.pool_first);
    ld.buf = mem_calloc(e->n_workers, sizeof *ld.buf);
    if (ld.pool_first == NULL || ld.buf == NULL)
        goto nomem;
    for (uint32_t i = 0; i < e->n_workers; i++)
        if ((ld.buf[i] = mem_aligned(64, ld.f32_bytes + ld.mid_bytes)) == NULL)
            goto nomem;
    list_tasks(&ld);
    ld.task = mem_calloc(ld.n_tasks, sizeof *ld.task);
    if (ld.task == NULL)
        goto nomem;
    list_tasks(&ld);
    for (uint32_t p = 0; p < e->n_pools; p++)
        for (int c = 0; c < 3; c++)
            atomic_store(&e->pool_counter[p].next[c], 0);
    uint64_t start = clock_ns();
    team_run(e->team, load_worker, &ld);
    for (uint32_t p = 0; p < e->n_pools; p++)
        atomic_store(&e->pool_counter[p].next[0], 0);
    if (atomic_load(&ld.failed)) {
        if (err != NULL)
            *err = ld.err;
        result = ld.err.code;
    } else {
        double s = (double)(clock_ns() - start) * 1e-9;
        if (o->progress != NULL)
            o->progress(o->progress_user, ld.total_bytes, ld.total_bytes);
        log_info("packed %.1f MB in %.2f s (%.2f GB/s)", (double)ld.total_bytes * 1e-6, s,
                 (double)ld.total_bytes * 1e-9 / (s > 0 ? s : 1e-9));
    }
    goto done;
nomem:
    result = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for packing buffers");
done:
    for (uint32_t i = 0; ld.buf != NULL && i < e->n_workers; i++)
        mem_free(ld.buf[i]);
    mem_free(ld.buf);
    mem_free(ld.task);
    mem_free(ld.pool_first);
    return result;
}
