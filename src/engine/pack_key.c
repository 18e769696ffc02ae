/* pack_key.c - see pack_key.h.
 *
 * The model's digest takes every tensor's name, type, shape and place, every file's size and time
 * of change, and 256 blocks of 4 KiB spread evenly over all files. Reading everything would cost
 * what the cache saves. So a model whose content was changed in place is found by its time; one
 * with its time set back, or restored by a copy that keeps times, by the samples, as another model
 * differs everywhere. What neither finds: an edit of a few bytes with the time set back by hand.
 *
 * The packers' digest packs known rows of every type in use: a change of a panel's layout changes
 * it even if nobody renamed a kernel.
 */
#include "pack_key.h"

#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"

#define SAMPLES 256
#define SAMPLE_BYTES 4096

static void add(struct sha256 *h, const void *p, size_t n)
{
    sha256_update(h, p, n);
}

static void add_u64(struct sha256 *h, uint64_t v)
{
    sha256_update(h, &v, sizeof v);
}

/* A panel of rows of one type, whose bytes avoid NaN and infinity in every format. */
static kt_status add_panel(struct sha256 *h, enum kern_layout l, enum dtype t, kt_err *err)
{
    static const uint8_t mask[2] = {0xbb, 0xee};
    uint32_t k = 2 * dtype_info(t)->block_elems < 512 ? 512 : 2 * dtype_info(t)->block_elems;
    uint64_t row = dtype_row_bytes(t, k), packed = kern_packed_bytes(l, t, KERN_PANEL, k);
    uint8_t *src = mem_alloc(KERN_PANEL * row), *dst = mem_aligned(64, packed);
    for (int m = 0; src != NULL && dst != NULL && m < 2; m++) {
        uint32_t seed = 1;
        for (uint64_t i = 0; i < KERN_PANEL * row; i++) {
            seed = seed * 1664525u + 1013904223u;
            src[i] = (uint8_t)(seed >> 24) & mask[m];
        }
        memset(dst, 0, packed);
        add_u64(h, (uint64_t)kern_pack(l, t, src, KERN_PANEL, k, dst));
        add(h, dst, packed);
    }
    bool ok = src != NULL && dst != NULL;
    mem_free(src);
    mem_free(dst);
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "no memory to identify the packers");
    return KT_OK;
}

static kt_status digest_packing(const struct kt_engine *e, const struct eng_mat *const *mat,
                                size_t n, uint8_t out[32], kt_err *err)
{
    bool seen[2][DT_COUNT] = {{false}};
    struct sha256 h;
    (void)e;
    for (size_t i = 0; i < n; i++)
        seen[mat[i]->layout][mat[i]->type] = true;
    sha256_init(&h);
    for (int l = KERN_ROWS; l <= KERN_P16; l++)
        for (int t = 0; t < DT_COUNT; t++)
            if (seen[l][t])
                KT_TRY(add_panel(&h, (enum kern_layout)l, (enum dtype)t, err));
    sha256_final(&h, out);
    return KT_OK;
}

static void digest_layout(const struct kt_engine *e, const struct eng_mat *const *mat, size_t n,
                          uint8_t out[32])
{
    struct sha256 h;
    sha256_init(&h);
    add_u64(&h, e->n_pools);
    add_u64(&h, (uint64_t)(int64_t)e->quant);
    add_u64(&h, (uint64_t)(int64_t)e->quant_dense);
    add_u64(&h, e->strict);
    for (uint32_t p = 0; p < e->n_pools; p++)
        add_u64(&h, e->arena_bytes[p]);
    for (size_t i = 0; i < n; i++) {
        const struct eng_mat *m = mat[i];
        const uint64_t v[] = {(uint64_t)m->type, (uint64_t)m->layout, m->rows, m->k,
                              m->panel_bytes};
        add(&h, v, sizeof v);
        for (uint32_t p = 0; p < e->n_pools; p++) {
            const uint64_t place[] = {m->part[p].row0, m->part[p].rows,
                                      (uint64_t)(m->part[p].w - e->arena[p])};
            add(&h, place, sizeof place);
        }
    }
    sha256_final(&h, out);
}

/* Blocks at equal distances over all files; the last one ends with the last file. */
static kt_status add_samples(const struct mdl *m, struct source *src, struct sha256 *h, kt_err *err)
{
    uint8_t block[SAMPLE_BYTES];
    uint64_t total = source_bytes(m), before = 0;
    struct mdl_file f = {0};
    uint32_t file = 0;
    if (total == 0)
        return KT_OK;
    mdl_file_at(m, 0, &f);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint64_t at = total / SAMPLES * i;
        while (at - before >= f.bytes) {
            before += f.bytes;
            mdl_file_at(m, ++file, &f);
        }
        uint64_t left = f.bytes - (at - before), n = left < SAMPLE_BYTES ? left : SAMPLE_BYTES;
        KT_TRY(source_read(src, f.data + (at - before), n, block, err));
        add(h, block, (size_t)n);
    }
    return KT_OK;
}

static kt_status digest_model(const struct kt_engine *e, struct source *src, uint8_t out[32],
                              kt_err *err)
{
    const struct mdl *m = e->model;
    struct sha256 h;
    sha256_init(&h);
    for (uint32_t i = 0, n = mdl_file_count(m); i < n; i++) {
        struct mdl_file f;
        mdl_file_at(m, i, &f);
        add_u64(&h, f.bytes);
        add_u64(&h, (uint64_t)f.mtime_ns);
    }
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct mdl_tensor *t = &m->tensors[i];
        struct mdl_file f = {0};
        for (uint32_t k = 0, n = mdl_file_count(m); k < n; k++) {
            mdl_file_at(m, k, &f);
            if (strcmp(f.path, t->file) == 0)
                break;
        }
        add(&h, t->name, strlen(t->name) + 1);
        add_u64(&h, (uint64_t)t->type);
        add(&h, t->dims, sizeof t->dims);
        add_u64(&h, (uint64_t)(t->data - f.data));
        add_u64(&h, t->bytes);
    }
    KT_TRY(add_samples(m, src, &h, err));
    sha256_final(&h, out);
    return KT_OK;
}

struct mat_list {
    const struct eng_mat **mat;
    size_t n;
};

static void take(void *ctx, struct eng_mat *m, enum mdl_role role, uint32_t layer, uint32_t expert)
{
    struct mat_list *l = ctx;
    (void)role;
    (void)layer;
    (void)expert;
    l->mat[l->n++] = m;
}

kt_status pack_key_of(const struct kt_engine *e, struct source *src, struct pack_key *out,
                      kt_err *err)
{
    struct mat_list l = {mem_calloc(eng_count_mats(&e->model->t), sizeof *l.mat), 0};
    memset(out, 0, sizeof *out);
    if (l.mat == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of matrices");
    eng_each_mat(e, take, &l);
    kern_abi(out->build);
    digest_layout(e, l.mat, l.n, out->layout);
    kt_status s = digest_packing(e, l.mat, l.n, out->packing, err);
    mem_free(l.mat);
    return s == KT_OK ? digest_model(e, src, out->model, err) : s;
}
