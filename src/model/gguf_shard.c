/* gguf_shard.c - the walk through one GGUF file: header, metadata, tensor table, extents
 * (weight-formats 1.1 and 1.2).
 *
 * Every length is compared with what is left of the file before it is used; tables grow with the
 * entries that were really read, so a count that the file claims never becomes an allocation.
 * Nothing is decoded, no tensor byte is touched. After success every kv and every tensor lies
 * inside the mapping, keys are unique, and no two tensors of the file overlap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fp.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/gguf_priv.h"

#define MAX_STRING ((uint64_t)1 << 30)
#define MAX_ARRAY ((uint64_t)1 << 30)
#define MAX_KEY 65535
#define MAX_NAME 64
#define MIN_KV_BYTES 13
#define MIN_TENSOR_BYTES 24

typedef unsigned long long ull;

/* Where the walk stands, and what it reads, for messages. */
struct rd {
    const struct file_map *m;
    uint64_t pos;
    const char *what; /* "key", "tensor", "header" */
    struct gguf_str name;
    char num[32]; /* holds `name` until the real one is known */
    kt_err *err;
};

#define RD_FAIL(r, code, fmt, ...)                                                                 \
    do {                                                                                           \
        char rd_show_[GGUF_SHOW];                                                                  \
        KT_FAIL((r)->err, code, "%s: %s %s: " fmt, (r)->m->path, (r)->what,                        \
                gguf_show((r)->name, rd_show_), __VA_ARGS__);                                      \
    } while (0)

static kt_status need(const struct rd *r, uint64_t n, const char *part)
{
    uint64_t left = r->m->bytes - r->pos;
    if (n > left)
        RD_FAIL(r, KT_E_FORMAT,
                "%s at byte %llu needs %llu bytes, but the file ends after %llu; the file is "
                "damaged or its download is incomplete",
                part, (ull)r->pos, (ull)n, (ull)left);
    return KT_OK;
}

static kt_status get_u32(struct rd *r, const char *part, uint32_t *v)
{
    KT_TRY(need(r, 4, part));
    *v = load_u32(r->m->data + r->pos);
    r->pos += 4;
    return KT_OK;
}

static kt_status get_u64(struct rd *r, const char *part, uint64_t *v)
{
    KT_TRY(need(r, 8, part));
    *v = load_u64(r->m->data + r->pos);
    r->pos += 8;
    return KT_OK;
}

static kt_status get_string(struct rd *r, const char *part, uint64_t max, struct gguf_str *s)
{
    KT_TRY(get_u64(r, part, &s->len));
    if (s->len > max)
        RD_FAIL(r, KT_E_FORMAT,
                "%s at byte %llu has a length of %llu bytes, at most %llu are allowed; the file is "
                "damaged",
                part, (ull)(r->pos - 8), (ull)s->len, (ull)max);
    KT_TRY(need(r, s->len, part));
    s->s = (const char *)r->m->data + r->pos;
    r->pos += s->len;
    return KT_OK;
}

/* A key or tensor name: 1..max bytes, no control bytes (they would let two names look alike in C
 * strings and logs). */
static kt_status get_name(struct rd *r, uint64_t index, uint64_t max, struct gguf_str *s)
{
    snprintf(r->num, sizeof r->num, "number %llu", (ull)index);
    r->name = (struct gguf_str){r->num, strlen(r->num)};
    KT_TRY(get_string(r, "the name", max, s));
    if (s->len == 0)
        RD_FAIL(r, KT_E_FORMAT,
                "the name is empty, it must have 1 to %llu bytes; the file is damaged", (ull)max);
    for (uint64_t i = 0; i < s->len; i++)
        if ((unsigned char)s->s[i] < 0x20 || s->s[i] == 0x7f)
            RD_FAIL(r, KT_E_FORMAT, "the name holds the control byte 0x%02x; the file is damaged",
                    (unsigned char)s->s[i]);
    r->name = *s;
    return KT_OK;
}

static const uint8_t type_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static kt_status check_type(const struct rd *r, uint32_t type)
{
    if (type >= sizeof type_bytes)
        RD_FAIL(
            r, KT_E_FORMAT,
            "value type %u is unknown, types are 0 to 12; the file is damaged or of a newer format",
            type);
    return KT_OK;
}

/* The elements of kv, already typed and counted: bounds, and the position after them. */
static kt_status walk_value(struct rd *r, struct gguf_kv *kv)
{
    kv->data = r->m->data + r->pos;
    if (kv->type == GGUF_STRING) {
        struct gguf_str s;
        for (uint64_t i = 0; i < kv->count; i++)
            KT_TRY(get_string(r, "a string", MAX_STRING, &s));
        return KT_OK;
    }
    uint64_t bytes = kv->count * type_bytes[kv->type]; /* count <= 2^30 */
    KT_TRY(need(r, bytes, "the value"));
    for (uint64_t i = 0; kv->type == GGUF_BOOL && i < kv->count; i++)
        if (kv->data[i] > 1)
            RD_FAIL(r, KT_E_FORMAT,
                    "a bool has the value %u, only 0 and 1 are allowed; the file is damaged",
                    kv->data[i]);
    r->pos += bytes;
    return KT_OK;
}

/* The specification wants dotted lower_snake_case; files in the wild deviate, so this is only said.
 */
static void note_odd_key(const struct rd *r)
{
    char b[GGUF_SHOW];
    for (uint64_t i = 0; i < r->name.len; i++) {
        char c = r->name.s[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
              c == '-')) {
            log_debug("%s: key %s is not in lower_snake_case", r->m->path, gguf_show(r->name, b));
            return;
        }
    }
}

static kt_status read_kv(struct rd *r, uint64_t index, struct gguf_kv *kv)
{
    uint32_t type;
    r->what = "key";
    KT_TRY(get_name(r, index, MAX_KEY, &kv->key));
    note_odd_key(r);
    KT_TRY(get_u32(r, "the value type", &type));
    KT_TRY(check_type(r, type));
    kv->count = 1;
    kv->is_array = type == GGUF_ARRAY;
    if (kv->is_array) {
        KT_TRY(get_u32(r, "the element type", &type));
        KT_TRY(check_type(r, type));
        if (type == GGUF_ARRAY)
            RD_FAIL(r, KT_E_UNSUPPORTED, "%s are not supported; write the file without this key",
                    "arrays of arrays");
        KT_TRY(get_u64(r, "the array length", &kv->count));
        if (kv->count > MAX_ARRAY)
            RD_FAIL(r, KT_E_FORMAT,
                    "an array of %llu elements, at most %llu are allowed; the file is damaged",
                    (ull)kv->count, (ull)MAX_ARRAY);
    }
    kv->type = (enum gguf_type)type;
    return walk_value(r, kv);
}

static kt_status bad_tensor_type(const struct rd *r, uint32_t id)
{
    if (id == 36 || (id >= 97 && id <= 99) || (id >= 133 && id <= 158) || (id >= 202 && id <= 399))
        RD_FAIL(r, KT_E_UNSUPPORTED,
                "type %u is one of ik_llama.cpp's own; use a file in one of ggml's formats", id);
    if (id == 9 || id == 15)
        RD_FAIL(
            r, KT_E_UNSUPPORTED,
            "type %u (%s) is for intermediate results, never for weights; convert the model again",
            id, id == 9 ? "Q8_1" : "Q8_K");
    if (id == 4 || id == 5 || (id >= 31 && id <= 38))
        RD_FAIL(r, KT_E_UNSUPPORTED, "type %u was removed from the format; convert the model again",
                id);
    RD_FAIL(r, KT_E_UNSUPPORTED, "type %u is unknown; the file is damaged or of a newer format",
            id);
}

static kt_status size_tensor(const struct rd *r, struct gguf_tensor *t)
{
    uint64_t elems = 1;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (t->dims[d] == 0)
            RD_FAIL(r, KT_E_FORMAT, "dimension %u is 0, it must be at least 1; the file is damaged",
                    d);
        if (!checked_mul(elems, t->dims[d], &elems) || elems >> 63 != 0)
            RD_FAIL(r, KT_E_FORMAT,
                    "its %u dimensions multiply to 2^63 or more; the file is damaged", t->n_dims);
    }
    const struct dtype_info *i = dtype_info(t->type);
    if (t->dims[0] % i->block_elems != 0)
        RD_FAIL(
            r, KT_E_FORMAT,
            "rows of %llu elements do not consist of whole %s blocks of %u; the file is damaged",
            (ull)t->dims[0], i->name, i->block_elems);
    if (!checked_mul(elems / i->block_elems, i->block_bytes, &t->bytes))
        RD_FAIL(r, KT_E_FORMAT, "its %llu elements take more than 2^64 bytes; the file is damaged",
                (ull)elems);
    return KT_OK;
}

static kt_status read_tensor(struct rd *r, uint64_t index, struct gguf_tensor *t)
{
    uint32_t id;
    r->what = "tensor";
    KT_TRY(get_name(r, index, MAX_NAME, &t->name));
    KT_TRY(get_u32(r, "the number of dimensions", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4)
        RD_FAIL(r, KT_E_FORMAT, "it has %u dimensions, 1 to 4 are allowed; the file is damaged",
                t->n_dims);
    for (uint32_t d = 0; d < 4; d++)
        t->dims[d] = 1;
    for (uint32_t d = 0; d < t->n_dims; d++)
        KT_TRY(get_u64(r, "a dimension", &t->dims[d]));
    KT_TRY(get_u32(r, "the type", &id));
    int type = dtype_by_ggml_id(id);
    if (type < 0)
        return bad_tensor_type(r, id);
    t->type = (enum dtype)type;
    KT_TRY(get_u64(r, "the offset", &t->offset));
    return size_tensor(r, t);
}

static kt_status read_header(struct rd *r, struct gguf_shard *s, uint64_t *n_kv,
                             uint64_t *n_tensors)
{
    uint64_t need_kv, need_t, sum;
    r->what = "header";
    r->name = (struct gguf_str){"GGUF", 4};
    KT_TRY(need(r, 4, "the magic number"));
    const uint8_t *d = r->m->data;
    if (memcmp(d, "GGUF", 4) != 0)
        KT_FAIL(
            r->err, KT_E_FORMAT,
            "%s: not a GGUF file: it starts with bytes %02x %02x %02x %02x, expected 47 47 55 46%s",
            r->m->path, d[0], d[1], d[2], d[3],
            d[0] == '{' ? "; this is JSON: give the directory of the checkpoint, or to kttune "
                          "plan a config.json alone"
                        : "; give a GGUF file or the directory of a checkpoint");
    r->pos = 4;
    KT_TRY(get_u32(r, "the version", &s->version));
    if ((s->version & 0xffff) == 0)
        RD_FAIL(r, KT_E_UNSUPPORTED,
                "version 0x%08x: a big-endian file; convert it for little-endian machines",
                s->version);
    if (s->version != 2 && s->version != 3)
        RD_FAIL(r, KT_E_UNSUPPORTED,
                "version %u, versions 2 and 3 are supported; convert the model again", s->version);
    KT_TRY(get_u64(r, "the tensor count", n_tensors));
    KT_TRY(get_u64(r, "the metadata count", n_kv));
    uint64_t left = r->m->bytes - r->pos;
    if (*n_kv >> 63 != 0 || *n_tensors >> 63 != 0 || !checked_mul(*n_kv, MIN_KV_BYTES, &need_kv) ||
        !checked_mul(*n_tensors, MIN_TENSOR_BYTES, &need_t) ||
        !checked_add(need_kv, need_t, &sum) || sum > left)
        RD_FAIL(r, KT_E_FORMAT,
                "%llu metadata entries and %llu tensors cannot fit in the %llu bytes that follow; "
                "the file is damaged or its download is incomplete",
                (ull)*n_kv, (ull)*n_tensors, (ull)left);
    return KT_OK;
}

struct extent {
    uint64_t begin, end;
    const struct gguf_tensor *t;
};

static int by_begin(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static kt_status check_overlap(const struct rd *r, const struct gguf_tensor *t, uint64_t n,
                               uint64_t align)
{
    char b0[GGUF_SHOW], b1[GGUF_SHOW];
    uint64_t gaps = 0;
    if (n < 2)
        return KT_OK;
    struct extent *x = mem_calloc((size_t)n, sizeof *x);
    if (x == NULL)
        KT_FAIL(r->err, KT_E_NOMEM, "%s: out of memory for a table of %llu tensors", r->m->path,
                (ull)n);
    for (uint64_t i = 0; i < n; i++)
        x[i] = (struct extent){t[i].offset, t[i].offset + t[i].bytes, &t[i]};
    qsort(x, (size_t)n, sizeof *x, by_begin);
    for (uint64_t i = 1; i < n; i++) {
        if (x[i].begin < x[i - 1].end) {
            gguf_show(x[i - 1].t->name, b0);
            gguf_show(x[i].t->name, b1);
            mem_free(x);
            KT_FAIL(r->err, KT_E_FORMAT,
                    "%s: tensor %s overlaps tensor %s in the file; the file is damaged", r->m->path,
                    b1, b0);
        }
        gaps += x[i].begin - x[i - 1].end >= align;
    }
    if (gaps > 0)
        log_debug("%s: %llu unused gaps between tensors", r->m->path, (ull)gaps);
    mem_free(x);
    return KT_OK;
}

static kt_status find_alignment(const struct rd *r, const struct gguf_shard *s, uint64_t *align)
{
    *align = 32;
    for (uint64_t i = 0; i < s->n_kv; i++) {
        const struct gguf_kv *kv = &s->kv[i];
        if (!gguf_str_is(kv->key, "general.alignment"))
            continue;
        if (kv->is_array || kv->type != GGUF_U32)
            KT_FAIL(r->err, KT_E_FORMAT,
                    "%s: key general.alignment has the value type %s, it must be u32; the file is "
                    "damaged",
                    r->m->path, gguf_kv_type_name(kv));
        *align = load_u32(kv->data);
        if (*align < 8 || (*align & (*align - 1)) != 0)
            KT_FAIL(r->err, KT_E_FORMAT,
                    "%s: key general.alignment is %llu, it must be a power of two of at least 8; "
                    "the file is damaged",
                    r->m->path, (ull)*align);
    }
    return KT_OK;
}

/* Turn offsets into pointers: aligned, inside the file, apart from each other. r->pos is the end of
 * the tensor table. */
static kt_status place_tensors(struct rd *r, struct gguf_tensor *t, uint64_t n, uint64_t align)
{
    uint64_t start = (r->pos + align - 1) & ~(align - 1), begin,
             end; /* pos <= file size < 2^63, align <= 2^31 */
    for (uint64_t i = 0; i < n; i++) {
        r->name = t[i].name;
        if (t[i].offset % align != 0)
            RD_FAIL(r, KT_E_FORMAT,
                    "offset %llu is not a multiple of the alignment %llu; the file is damaged",
                    (ull)t[i].offset, (ull)align);
        if (!checked_add(start, t[i].offset, &begin) || !checked_add(begin, t[i].bytes, &end))
            RD_FAIL(r, KT_E_FORMAT, "offset %llu plus %llu bytes exceeds 2^64; the file is damaged",
                    (ull)t[i].offset, (ull)t[i].bytes);
        if (end > r->m->bytes)
            RD_FAIL(r, KT_E_FORMAT,
                    "it ends at byte %llu, %llu bytes past the end of the file; the download is "
                    "incomplete",
                    (ull)end, (ull)(end - r->m->bytes));
        t[i].data = r->m->data + begin;
    }
    return check_overlap(r, t, n, align);
}

kt_status gguf_read_shard(struct gguf *g, const char *path, kt_err *err)
{
    uint64_t n_kv, n_t, align, first = g->n_t;
    KT_TRY(gguf_grow(&g->shard, g->n_shards, &g->cap_shards, sizeof *g->shard, path, err));
    struct gguf_shard *s = &g->shard[g->n_shards++];
    memset(s, 0, sizeof *s);
    KT_TRY(file_map(path, &s->map, err));
    struct rd r = {.m = &s->map, .err = err};
    KT_TRY(read_header(&r, s, &n_kv, &n_t));
    for (uint64_t i = 0; i < n_kv; i++) {
        KT_TRY(gguf_grow(&s->kv, s->n_kv, &s->cap_kv, sizeof *s->kv, path, err));
        KT_TRY(read_kv(&r, i, &s->kv[s->n_kv]));
        s->n_kv++;
    }
    if (n_kv > 0)
        KT_TRY(gguf_check_unique(path, "key", &s->kv[0].key, n_kv, sizeof *s->kv, err));
    for (uint64_t i = 0; i < n_t; i++) {
        KT_TRY(gguf_grow(&g->t, g->n_t, &g->cap_t, sizeof *g->t, path, err));
        KT_TRY(read_tensor(&r, i, &g->t[g->n_t]));
        g->t[g->n_t++].shard = g->n_shards - 1;
    }
    KT_TRY(find_alignment(&r, s, &align));
    return n_t == 0 ? KT_OK : place_tensors(&r, g->t + first, n_t, align);
}
