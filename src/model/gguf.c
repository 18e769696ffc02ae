/* gguf.c - GGUF models: open a file and the other shards of a split model, rules over all shards,
 * and typed reads of metadata. The walk through one file is gguf_shard.c. Immutable after
 * gguf_open; any thread may read.
 */
#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fp.h"
#include "base/mem.h"
#include "model/gguf_priv.h"

#define SUFFIX "-00001-of-00001.gguf"

const char *gguf_show(struct gguf_str s, char buf[GGUF_SHOW])
{
    size_t n = 0;
    for (uint64_t i = 0; i < s.len && n < GGUF_SHOW - 4; i++) {
        unsigned char c = (unsigned char)s.s[i];
        buf[n++] = c < 0x20 || c >= 0x7f ? '?' : (char)c;
    }
    memcpy(buf + n, s.len > n ? "..." : "", s.len > n ? 4 : 1);
    return buf;
}

const char *gguf_kv_type_name(const struct gguf_kv *kv)
{
    static const char *const name[2][13] = {
        {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64",
         "f64"},
        {"array of u8", "array of i8", "array of u16", "array of i16", "array of u32",
         "array of i32", "array of f32", "array of bool", "array of string", "array of array",
         "array of u64", "array of i64", "array of f64"},
    };
    return name[kv->is_array][kv->type];
}

kt_status gguf_grow(void *table_ptr, uint64_t n, uint64_t *cap, size_t size, const char *path,
                    kt_err *err)
{
    void *old;
    if (n < *cap)
        return KT_OK;
    uint64_t want = *cap == 0 ? 16 : *cap * 2, bytes;
    memcpy(&old, table_ptr, sizeof old);
    void *p = checked_mul(want, size, &bytes) ? mem_realloc(old, (size_t)bytes) : NULL;
    if (p == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for a table of %llu entries", path,
                (unsigned long long)want);
    memset((char *)p + n * size, 0, (size_t)(want - n) * size);
    memcpy(table_ptr, &p, sizeof p);
    *cap = want;
    return KT_OK;
}

static int by_str(const void *av, const void *bv)
{
    const struct gguf_str *a = av, *b = bv;
    int c = memcmp(a->s, b->s, (size_t)(a->len < b->len ? a->len : b->len));
    return c != 0 ? c : (a->len > b->len) - (a->len < b->len);
}

kt_status gguf_check_unique(const char *path, const char *what, const void *first, uint64_t n,
                            size_t stride, kt_err *err)
{
    char b[GGUF_SHOW];
    struct gguf_str *s = mem_calloc((size_t)n, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for a table of %llu names", path,
                (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++)
        memcpy(&s[i], (const char *)first + i * stride, sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_str);
    for (uint64_t i = 1; i < n; i++)
        if (by_str(&s[i - 1], &s[i]) == 0) {
            gguf_show(s[i], b);
            mem_free(s);
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: %s %s appears twice, names must be unique; the file is damaged", path,
                    what, b);
        }
    mem_free(s);
    return KT_OK;
}

/* A path that ends in -NNNNN-of-MMMMM.gguf: N and M. */
static bool split_name(const char *path, uint32_t *no, uint32_t *count)
{
    size_t n = strlen(path), m = strlen(SUFFIX);
    if (n <= m || path[n - m - 1] == '/')
        return false;
    const char *p = path + n - m;
    *no = *count = 0;
    for (size_t i = 0; i < m; i++) {
        bool digit = SUFFIX[i] >= '0' && SUFFIX[i] <= '9';
        if (digit ? p[i] < '0' || p[i] > '9' : p[i] != SUFFIX[i])
            return false;
        uint32_t *v = i < 6 ? no : count;
        if (digit)
            *v = *v * 10 + (uint32_t)(p[i] - '0');
    }
    return *no >= 1 && *no <= *count;
}

/* split.* keys of a shard; the whole-model accessors look at shard 0 only. */
static kt_status shard_u64(struct gguf_shard *s, const char *key, uint64_t def, uint64_t *out,
                           kt_err *err)
{
    struct gguf one = {.shard = s, .n_shards = 1};
    return gguf_get_u64(&one, key, def, out, err);
}

static kt_status check_split(struct gguf *g, uint32_t i, uint32_t count, kt_err *err)
{
    uint64_t no, n;
    struct gguf_shard *s = &g->shard[i];
    KT_TRY(shard_u64(s, "split.count", 0, &n, err));
    KT_TRY(shard_u64(s, "split.no", UINT64_MAX, &no, err));
    if (n != count)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key split.count is %llu, its name says %u; the parts are not of one model",
                s->map.path, (unsigned long long)n, count);
    if (no != i)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key split.no is %lld, expected %u by its name; a part was renamed",
                s->map.path, (long long)no, i);
    return KT_OK;
}

static kt_status open_parts(struct gguf *g, const char *path, uint32_t count, kt_err *err)
{
    size_t n = strlen(path);
    char *p = mem_strdup(path);
    kt_status st = KT_OK;
    if (p == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    for (uint32_t i = 0; st == KT_OK && i < count; i++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%05u", i + 1);
        memcpy(p + n - strlen(SUFFIX) + 1, digits, 5);
        st = gguf_read_shard(g, p, err);
        if (st == KT_E_NOT_FOUND)
            st = err_set(err, KT_E_NOT_FOUND, 0, __func__,
                         "%s: part %u of %u is missing; all parts must lie in one directory", p,
                         i + 1, count);
        if (st == KT_OK)
            st = check_split(g, i, count, err);
    }
    mem_free(p);
    return st;
}

static kt_status check_whole(const struct gguf *g, kt_err *err)
{
    const char *path = gguf_path(g, 0);
    struct gguf_str arch;
    uint64_t v;
    if (g->n_t > 1)
        KT_TRY(gguf_check_unique(path, "tensor", &g->t[0].name, g->n_t, sizeof *g->t, err));
    KT_TRY(gguf_get_str(g, "general.architecture", &arch, err));
    if (arch.s == NULL || arch.len == 0)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key general.architecture is missing or empty; the file is damaged", path);
    KT_TRY(gguf_get_u64(g, "general.quantization_version", 2, &v, err));
    for (uint64_t i = 0; v != 2 && i < g->n_t; i++)
        if (dtype_info(g->t[i].type)->block_elems > 1)
            KT_FAIL(
                err, KT_E_UNSUPPORTED,
                "%s: key general.quantization_version is %llu, expected 2; convert the model again",
                path, (unsigned long long)v);
    return KT_OK;
}

static kt_status open_all(struct gguf *g, const char *path, kt_err *err)
{
    uint64_t count, total;
    uint32_t no, of;
    KT_TRY(gguf_read_shard(g, path, err));
    KT_TRY(shard_u64(&g->shard[0], "split.count", 0, &count, err));
    if (count <= 1)
        return check_whole(g, err);
    if (!split_name(path, &no, &of))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key split.count is %llu, so the name must end in -NNNNN-of-%05llu.gguf to "
                "find the other parts; rename the parts",
                path, (unsigned long long)count, (unsigned long long)count);
    if (of != count)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key split.count is %llu, its name says %u; the parts are not of one model",
                path, (unsigned long long)count, of);
    /* begin again with part 1, so that shards and tensors are in order whichever part was named */
    file_unmap(&g->shard[0].map);
    mem_free(g->shard[0].kv);
    g->n_shards = 0;
    g->n_t = 0;
    KT_TRY(open_parts(g, path, of, err));
    KT_TRY(gguf_get_u64(g, "split.tensors.count", g->n_t, &total, err));
    if (total != g->n_t)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key split.tensors.count is %llu, the %u parts hold %llu tensors; a part is of "
                "another model",
                gguf_path(g, 0), (unsigned long long)total, of, (unsigned long long)g->n_t);
    return check_whole(g, err);
}

kt_status gguf_open(const char *path, struct gguf **out, kt_err *err)
{
    *out = NULL;
    struct gguf *g = mem_calloc(1, sizeof *g);
    if (g == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    kt_status st = open_all(g, path, err);
    if (st != KT_OK) {
        gguf_close(g);
        return st;
    }
    *out = g;
    return KT_OK;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL)
        return;
    for (uint32_t i = 0; i < g->n_shards; i++) {
        file_unmap(&g->shard[i].map);
        mem_free(g->shard[i].kv);
    }
    mem_free(g->shard);
    mem_free(g->t);
    mem_free(g);
}

const struct file_map *gguf_map(const struct gguf *g, uint32_t shard)
{
    return &g->shard[shard].map;
}

const char *gguf_path(const struct gguf *g, uint32_t shard)
{
    return g->shard[shard].map.path;
}

uint64_t gguf_file_bytes(const struct gguf *g, uint32_t shard)
{
    return g->shard[shard].map.bytes;
}

uint32_t gguf_shards(const struct gguf *g)
{
    return g->n_shards;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->shard[0].version;
}

const struct gguf_tensor *gguf_tensors(const struct gguf *g, uint64_t *n)
{
    *n = g->n_t;
    return g->t;
}

const struct gguf_kv *gguf_kvs(const struct gguf *g, uint64_t *n)
{
    *n = g->shard[0].n_kv;
    return g->shard[0].kv;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    for (uint64_t i = 0; i < g->shard[0].n_kv; i++)
        if (gguf_str_is(g->shard[0].kv[i].key, key))
            return &g->shard[0].kv[i];
    return NULL;
}

static bool is_int(enum gguf_type t)
{
    return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64;
}

static kt_status wrong_type(const struct gguf *g, const struct gguf_kv *kv, const char *key,
                            const char *want, kt_err *err)
{
    KT_FAIL(err, KT_E_FORMAT,
            "%s: key %s has the value type %s, it must be %s; the file is damaged", gguf_path(g, 0),
            key, gguf_kv_type_name(kv), want);
}

kt_status gguf_get_u64(const struct gguf *g, const char *key, uint64_t def, uint64_t *out,
                       kt_err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = def;
    if (kv == NULL)
        return KT_OK;
    if (kv->is_array || !is_int(kv->type))
        return wrong_type(g, kv, key, "an integer", err);
    int64_t v = gguf_int_at(kv, 0);
    if (v < 0 && kv->type != GGUF_U64)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: key %s is %lld, it must not be negative; the file is damaged", gguf_path(g, 0),
                key, (long long)v);
    *out = (uint64_t)v;
    return KT_OK;
}

kt_status gguf_get_f64(const struct gguf *g, const char *key, double def, double *out, kt_err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = def;
    if (kv == NULL)
        return KT_OK;
    if (kv->is_array || (kv->type != GGUF_F32 && kv->type != GGUF_F64 && !is_int(kv->type)))
        return wrong_type(g, kv, key, "a number", err);
    *out = gguf_float_at(kv, 0);
    if (!isfinite(*out))
        KT_FAIL(err, KT_E_FORMAT, "%s: key %s is not a finite number; the file is damaged",
                gguf_path(g, 0), key);
    return KT_OK;
}

kt_status gguf_get_bool(const struct gguf *g, const char *key, bool def, bool *out, kt_err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = def;
    if (kv == NULL)
        return KT_OK;
    if (kv->is_array || kv->type != GGUF_BOOL)
        return wrong_type(g, kv, key, "bool", err);
    *out = kv->data[0] != 0;
    return KT_OK;
}

kt_status gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out, kt_err *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = (struct gguf_str){NULL, 0};
    if (kv == NULL)
        return KT_OK;
    if (kv->is_array || kv->type != GGUF_STRING)
        return wrong_type(g, kv, key, "a string", err);
    const uint8_t *p = kv->data;
    *out = gguf_next_str(&p);
    return KT_OK;
}

int64_t gguf_int_at(const struct gguf_kv *kv, uint64_t i)
{
    const uint8_t *d = kv->data;
    switch (kv->type) {
    case GGUF_U8:
    case GGUF_BOOL:
        return d[i];
    case GGUF_I8:
        return (int8_t)d[i];
    case GGUF_U16:
        return load_u16(d + 2 * i);
    case GGUF_I16:
        return (int16_t)load_u16(d + 2 * i);
    case GGUF_U32:
        return load_u32(d + 4 * i);
    case GGUF_I32:
        return (int32_t)load_u32(d + 4 * i);
    case GGUF_U64:
    case GGUF_I64:
        return (int64_t)load_u64(d + 8 * i);
    default:
        return 0;
    }
}

double gguf_float_at(const struct gguf_kv *kv, uint64_t i)
{
    if (kv->type == GGUF_F32)
        return (double)fp_from_bits(load_u32(kv->data + 4 * i));
    if (kv->type == GGUF_F64) {
        double v;
        memcpy(&v, kv->data + 8 * i, 8);
        return v;
    }
    return kv->type == GGUF_U64 ? (double)load_u64(kv->data + 8 * i) : (double)gguf_int_at(kv, i);
}

struct gguf_str gguf_next_str(const uint8_t **cursor)
{
    struct gguf_str s = {(const char *)*cursor + 8, load_u64(*cursor)};
    *cursor += 8 + s.len;
    return s;
}
