/* packing.c - the weights of a model from its files into the pools' memory, by all workers.
 *
 * The work is cut into pieces of about half a megabyte: rows of one matrix that one pool owns. A
 * pool's workers claim runs of pieces in file order, which is also the order of the pool's memory,
 * so pages are touched first, and only, by their own node, and the disk is read sequentially.
 * Rows that are packed as stored are read right into the place where they will lie, one panel too
 * high, and packed downwards from there; others go through a buffer of the worker. So memory beyond
 * the packed weights is two buffers for each worker. Conversion at load (--quant, --quant-dense,
 * --strict) goes file form -> fp32 -> file form of the wanted type -> packed, 64 rows at a time, so
 * its bits equal those of a file that was converted before. Owner: the engine thread; workers only
 * inside team_run.
 */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pack_cache.h"
#include "source.h"

#define PIECE_BYTES (1u << 19) /* of the file, about: the second-level cache holds it */
/* Pieces of a claim: two workers that touch one huge page of fresh memory at the same time both
 * fill it with zeros, and one of the two is thrown away. */
#define RUN_PIECES 8
#define STEP_ROWS 64 /* rows converted at once */
#define PROGRESS_NS 100000000u

struct piece {
    const struct eng_mat *mat;
    struct mdl_slice src;
    const uint8_t *at;   /* its first row in the mapped file */
    uint64_t bytes;      /* in the file */
    int through;         /* dtype that values pass through before packing (-1: none) */
    uint32_t pool;       /* whose part of the matrix */
    uint32_t row0, rows; /* in the part; row0 is a multiple of the panel */
};

struct packer {
    struct kt_engine *e;
    struct source *source;
    struct piece *piece;
    uint32_t n_pieces;
    uint32_t listed_pool; /* while the list is made */
    uint32_t *pool_first; /* [n_pools+1] pieces of each pool are contiguous */
    uint64_t total_bytes, largest;
    _Atomic uint64_t done_bytes;
    atomic_bool failed;
    atomic_flag err_taken;
    kt_err err;
    uint8_t **stage; /* [n_workers] a piece as the file has it */
    uint8_t **buf;   /* [n_workers] conversion: fp32 rows, then two of other forms */
    size_t f32_bytes, mid_bytes;
    const kt_engine_opts *o;
    uint64_t last_progress_ns;
};

static void fail(struct packer *pk, const kt_err *err)
{
    if (!atomic_flag_test_and_set(&pk->err_taken))
        pk->err = *err;
    atomic_store(&pk->failed, true);
}

static void bad_value(struct packer *pk, const struct piece *k, uint64_t row)
{
    kt_err err;
    err_set(&err, KT_E_FORMAT, 0, __func__,
            "%s: tensor %s (%s), row %llu: NaN or infinity in a value or scale; the file is "
            "damaged or was converted wrongly",
            k->src.file, k->src.tensor, dtype_name(k->src.type), (unsigned long long)row);
    fail(pk, &err);
}

void eng_decode_rows(enum dtype t, const uint8_t *src, uint32_t n, uint32_t k, float *dst)
{
    for (uint32_t r = 0; r < n; r++)
        kern_decode(t, src + r * dtype_row_bytes(t, k), k, dst + (size_t)r * k);
}

void eng_quantise_rows(enum dtype t, const float *src, uint32_t n, uint32_t k, uint8_t *dst)
{
    for (uint32_t r = 0; r < n; r++)
        kern_quantise(t, src + (size_t)r * k, k, dst + r * dtype_row_bytes(t, k));
}

/* n rows of a piece, as the file has them at src, converted and packed. row: of the whole matrix,
 * for messages. */
static bool pack_rows(struct packer *pk, const struct piece *k, uint32_t worker, const uint8_t *src,
                      uint32_t row, uint32_t n, uint8_t *dst)
{
    const struct eng_mat *m = k->mat;
    enum dtype type = k->src.type;
    uint64_t elems = (uint64_t)n * m->k;
    float *f32 = (float *)(void *)pk->buf[worker];
    uint8_t *mid = pk->buf[worker] + pk->f32_bytes;
    if (k->src.scale.data != NULL) {
        mdl_join_rows(&k->src, src, row, n, mid + pk->mid_bytes);
        src = mid + pk->mid_bytes;
    }
    if (k->through >= 0) {
        eng_decode_rows(type, src, n, m->k, f32);
        for (uint64_t i = 0; i < elems; i++)
            if (!(f32[i] - f32[i] == 0.0f)) {
                bad_value(pk, k, row + i / m->k);
                return false;
            }
        eng_quantise_rows((enum dtype)k->through, f32, n, m->k, mid);
        src = mid;
        type = (enum dtype)k->through;
    }
    if (type != m->type) { /* strict: values as fp32 */
        eng_decode_rows(type, src, n, m->k, f32);
        src = (const uint8_t *)f32;
        type = m->type;
    }
    int64_t bad = kern_pack(m->layout, type, src, n, m->k, dst);
    if (bad >= 0)
        bad_value(pk, k, row + (uint64_t)bad);
    return bad < 0;
}

/* Through the worker's buffers. */
static void pack_staged(struct packer *pk, const struct piece *k, uint32_t worker, uint8_t *dst)
{
    uint64_t row_bytes = mdl_file_row_bytes(&k->src);
    const uint8_t *src = pk->stage[worker];
    kt_err err;
    if (source_read(pk->source, k->at, k->bytes, pk->stage[worker], &err) != KT_OK) {
        fail(pk, &err);
        return;
    }
    for (uint32_t r = 0; r < k->rows; r += STEP_ROWS) {
        uint32_t n = k->rows - r < STEP_ROWS ? k->rows - r : STEP_ROWS;
        if (!pack_rows(pk, k, worker, src + r * row_bytes, k->mat->part[k->pool].row0 + k->row0 + r,
                       n, dst + (uint64_t)(r / KERN_PANEL) * k->mat->panel_bytes))
            return;
    }
}

/* All panels but the last end where the piece's memory ends, and each is packed to the panel below:
 * a packed panel is never smaller than its rows. The last one waits in the worker's buffer. */
static void pack_in_place(struct packer *pk, const struct piece *k, uint32_t worker, uint8_t *dst)
{
    const uint64_t to = k->mat->panel_bytes, from = KERN_PANEL * mdl_file_row_bytes(&k->src);
    const uint32_t last = (k->rows - 1) / KERN_PANEL, row = k->mat->part[k->pool].row0 + k->row0;
    uint8_t *src = dst + (last + 1) * to - last * from;
    kt_err err;
    if ((last > 0 && source_read(pk->source, k->at, last * from, src, &err) != KT_OK) ||
        source_read(pk->source, k->at + last * from, k->bytes - last * from, pk->stage[worker],
                    &err) != KT_OK) {
        fail(pk, &err);
        return;
    }
    for (uint32_t i = 0; i < last; i++)
        if (!pack_rows(pk, k, worker, src + i * from, row + i * KERN_PANEL, KERN_PANEL,
                       dst + i * to))
            return;
    (void)pack_rows(pk, k, worker, pk->stage[worker], row + last * KERN_PANEL,
                    k->rows - last * KERN_PANEL, dst + last * to);
}

static void pack_piece(struct packer *pk, const struct piece *k, uint32_t worker)
{
    const struct eng_mat *m = k->mat;
    uint8_t *dst = m->part[k->pool].w + (uint64_t)(k->row0 / KERN_PANEL) * m->panel_bytes;
    bool as_stored = k->through < 0 && m->type == k->src.type && k->src.scale.data == NULL;
    if (atomic_load_explicit(&pk->failed, memory_order_relaxed))
        return;
    /* rows of KERN_ROWS are not padded to a whole panel: no room to read them higher */
    if (as_stored && m->layout == KERN_P16)
        pack_in_place(pk, k, worker, dst);
    else
        pack_staged(pk, k, worker, dst);
    uint64_t done = atomic_fetch_add(&pk->done_bytes, k->bytes) + k->bytes, now = clock_ns();
    if (worker == 0 && pk->o->progress != NULL && now - pk->last_progress_ns > PROGRESS_NS) {
        pk->last_progress_ns = now;
        pk->o->progress(pk->o->progress_user, done, pk->total_bytes);
    }
}

static void pack_worker(void *ctx, uint32_t worker)
{
    struct packer *pk = ctx;
    struct kt_engine *e = pk->e;
    uint32_t pool = e->worker[worker].pool, first = pk->pool_first[pool];
    struct eng_cut cut;
    uint64_t from, to;
    e->worker[worker].phase = 0;
    eng_cut_begin(e, worker, &cut, pk->pool_first[pool + 1] - first, 1, RUN_PIECES);
    while (eng_cut_next(e, worker, &cut, &from, &to))
        for (uint64_t i = from; i < to; i++)
            pack_piece(pk, &pk->piece[first + i], worker);
}

/* ---- the list of pieces ---- */

/* Rows of a piece: whole panels; at least one, however wide. */
static uint32_t piece_rows(uint64_t row_bytes)
{
    uint64_t panels = PIECE_BYTES / (row_bytes * KERN_PANEL);
    return (uint32_t)(panels > 0 ? panels : 1) * KERN_PANEL;
}

/* Add the pieces of one matrix for one pool; only counts while pk->piece is NULL. */
static void add_pieces(void *ctx, struct eng_mat *m, enum mdl_role role, uint32_t layer,
                       uint32_t expert)
{
    struct packer *pk = ctx;
    const uint32_t pool = pk->listed_pool;
    struct kt_engine *e = pk->e;
    struct mdl_slice s;
    int through;
    enum dtype packed;
    bool is_expert =
        (role == MDL_GATE || role == MDL_UP || role == MDL_DOWN) && e->model->t.layer_is_moe[layer];
    mdl_weight(e->model, role, layer, expert, &s);
    eng_choose_type(e, role, is_expert, s.type, &through, &packed);
    uint64_t row_bytes = mdl_file_row_bytes(&s);
    uint32_t each = piece_rows(row_bytes);
    for (uint32_t r = 0; r < m->part[pool].rows; r += each) {
        uint32_t n = m->part[pool].rows - r < each ? m->part[pool].rows - r : each;
        uint64_t bytes = n * row_bytes;
        if (pk->piece != NULL) {
            const uint8_t *at = s.data + (m->part[pool].row0 + r) * row_bytes;
            pk->piece[pk->n_pieces] = (struct piece){m, s, at, bytes, through, pool, r, n};
        } else {
            pk->total_bytes += bytes;
            pk->largest = bytes > pk->largest ? bytes : pk->largest;
        }
        pk->n_pieces++;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static void list_pieces(struct packer *pk)
{
    struct kt_engine *e = pk->e;
    pk->n_pieces = 0;
    for (uint32_t p = 0; p < e->n_pools; p++) {
        pk->pool_first[p] = pk->n_pieces;
        pk->listed_pool = p;
        eng_each_mat(e, add_pieces, pk);
    }
    pk->pool_first[e->n_pools] = pk->n_pieces;
    for (uint32_t p = 0; pk->piece != NULL && p < e->n_pools; p++)
        qsort(pk->piece + pk->pool_first[p], pk->pool_first[p + 1] - pk->pool_first[p],
              sizeof *pk->piece, by_place);
}

/* ---- all of it ---- */

static uint32_t widest_k(const struct kt_engine *e)
{
    const struct mdl_traits *t = &e->model->t;
    uint32_t k = t->hidden, heads = t->n_heads * t->head_dim;
    k = heads > k ? heads : k;
    k = t->dense_inter > k ? t->dense_inter : k;
    return t->expert_inter > k ? t->expert_inter : k;
}

/* Pieces and buffers. */
static bool prepare(struct packer *pk)
{
    struct kt_engine *e = pk->e;
    pk->f32_bytes = ((size_t)STEP_ROWS * widest_k(e) * sizeof(float) + 63) / 64 * 64;
    pk->mid_bytes = pk->f32_bytes;
    pk->pool_first = mem_calloc(e->n_pools + 1, sizeof *pk->pool_first);
    pk->buf = mem_calloc(e->n_workers, sizeof *pk->buf);
    pk->stage = mem_calloc(e->n_workers, sizeof *pk->stage);
    if (pk->pool_first == NULL || pk->buf == NULL || pk->stage == NULL)
        return false;
    list_pieces(pk);
    pk->piece = mem_calloc(pk->n_pieces, sizeof *pk->piece);
    if (pk->piece == NULL)
        return false;
    list_pieces(pk);
    for (uint32_t i = 0; i < e->n_workers; i++)
        if ((pk->stage[i] = mem_map(pk->largest)) == NULL ||
            (pk->buf[i] = mem_aligned(64, pk->f32_bytes + 2 * pk->mid_bytes)) == NULL)
            return false;
    return true;
}

static void release(struct packer *pk)
{
    for (uint32_t i = 0; pk->buf != NULL && i < pk->e->n_workers; i++)
        mem_free(pk->buf[i]);
    for (uint32_t i = 0; pk->stage != NULL && i < pk->e->n_workers; i++)
        mem_unmap(pk->stage[i], pk->largest);
    mem_free(pk->buf);
    mem_free(pk->stage);
    mem_free(pk->piece);
    mem_free(pk->pool_first);
    source_close(pk->source);
}

void eng_zero_counters(struct kt_engine *e)
{
    for (uint32_t p = 0; p < e->n_pools; p++)
        for (int c = 0; c < 3; c++)
            atomic_store(&e->pool_counter[p].next[c], 0);
}

static kt_status run(struct packer *pk, kt_err *err)
{
    struct kt_engine *e = pk->e;
    const kt_engine_opts *o = pk->o;
    uint64_t start = clock_ns();
    eng_zero_counters(e);
    team_run(e->team, pack_worker, pk);
    eng_zero_counters(e);
    if (atomic_load(&pk->failed)) {
        if (err != NULL)
            *err = pk->err;
        return pk->err.code;
    }
    double s = (double)(clock_ns() - start) * 1e-9;
    e->pack_seconds = s;
    e->load_bytes = pk->total_bytes;
    if (o->progress != NULL)
        o->progress(o->progress_user, pk->total_bytes, pk->total_bytes);
    log_info("packed %.1f MB in %.2f s (%.2f GB/s)", (double)pk->total_bytes * 1e-6, s,
             (double)pk->total_bytes * 1e-9 / (s > 0 ? s : 1e-9));
    return KT_OK;
}

static kt_status pack_all(struct packer *pk, kt_err *err)
{
    if (!prepare(pk))
        KT_FAIL(err, KT_E_NOMEM,
                "no memory for packing buffers of %llu bytes; free memory or use fewer --threads",
                (unsigned long long)(pk->largest + pk->f32_bytes + 2 * pk->mid_bytes));
    return run(pk, err);
}

kt_status eng_load_weights(struct kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    struct packer pk = {.e = e, .o = o, .err_taken = ATOMIC_FLAG_INIT};
    struct pack_cache *cache = NULL;
    uint64_t allowed =
        o->memory_limit_bytes > 0 ? o->memory_limit_bytes : host_memory_allowed(e->host);
    uint64_t need = e->weight_bytes + e->kv_bytes + e->scratch_bytes;
    bool drop = allowed < need || allowed - need < source_bytes(e->model);
    e->pack_cache = "off";
    for (uint32_t p = 0; p < e->n_pools; p++)
        for (size_t i = 0, n = eng_count_mats(&e->model->t); i < n; i++)
            e->parts[i * e->n_pools + p].w =
                e->arena[p] + (uintptr_t)e->parts[i * e->n_pools + p].w;
    kt_status s = source_open(e->model, drop, &pk.source, err);
    if (s == KT_OK && o->pack_cache_dir != NULL)
        s = pack_cache_open(e, o, pk.source, drop, &cache, err);
    if (s == KT_OK && cache != NULL && pack_cache_read(cache)) {
        e->pack_cache = "read";
    } else if (s == KT_OK) {
        s = pack_all(&pk, err);
        if (s == KT_OK && cache != NULL)
            e->pack_cache = pack_cache_write(cache) ? "written" : "failed";
    }
    pack_cache_close(cache);
    release(&pk);
    return s;
}
