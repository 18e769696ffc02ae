/* st_header.c - the JSON header of one safetensors file.
 *
 * The outer object is walked by hand and each member given to jansson alone: a hostile header
 * cannot become a document many times its own size, and duplicate tensor names are found. Every
 * tensor's extent is checked; sorted by begin they must tile the byte buffer exactly.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fp.h"
#include "base/mem.h"
#include "model/st_priv.h"

#define MAX_HEADER 100000000u
#define MAX_ENTRY 4096u         /* bytes of one tensor's JSON */
#define MAX_METADATA (4u << 20) /* bytes of __metadata__ */
#define MAX_TENSORS 16777216u

typedef unsigned long long ull;

struct walk {
    const char *path;
    const char *p, *end; /* the rest of the header */
    const char *base;    /* its first byte, for positions */
    kt_err *err;
};

static const struct {
    const char *name;
    enum dtype type;
} dtypes[] = {
    {"BF16", DT_BF16},       {"F32", DT_F32},         {"F16", DT_F16}, {"F8_E4M3", DT_F8_E4M3},
    {"F8_E5M2", DT_F8_E5M2}, {"F8_E8M0", DT_F8_E8M0}, {"I8", DT_I8},   {"U8", DT_U8},
    {"I16", DT_I16},         {"U16", DT_U16},         {"I32", DT_I32}, {"U32", DT_U32},
    {"I64", DT_I64},         {"U64", DT_U64},         {"F64", DT_F64}, {"BOOL", DT_BOOL},
    {"C64", DT_C64},
};

static kt_status bad_json(const struct walk *w, const char *what)
{
    KT_FAIL(w->err, KT_E_FORMAT, "%s: header, byte %llu: %s; the file is damaged", w->path,
            (ull)(w->p - w->base + 8), what);
}

static void skip_space(struct walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\n' || *w->p == '\r' || *w->p == '\t'))
        w->p++;
}

static kt_status expect(struct walk *w, char c, const char *what)
{
    skip_space(w);
    if (w->p >= w->end || *w->p != c)
        return bad_json(w, what);
    w->p++;
    return KT_OK;
}

/* Step over a string; *n is its length with both quotes. */
static kt_status span_string(struct walk *w, const char **s, size_t *n)
{
    skip_space(w);
    *s = w->p;
    if (w->p >= w->end || *w->p != '"')
        return bad_json(w, "expected a name in double quotes");
    for (w->p++; w->p < w->end && *w->p != '"'; w->p++)
        if (*w->p == '\\' && ++w->p >= w->end)
            break;
    if (w->p >= w->end)
        return bad_json(w, "a string has no end");
    w->p++;
    *n = (size_t)(w->p - *s);
    return KT_OK;
}

/* Step over an object by its braces; jansson judges the inside. */
static kt_status span_object(struct walk *w, const char **s, size_t *n)
{
    const char *str;
    size_t len, depth = 0;
    skip_space(w);
    *s = w->p;
    if (w->p >= w->end || *w->p != '{')
        return bad_json(w, "expected an object");
    do {
        if (w->p >= w->end)
            return bad_json(w, "an object has no end");
        if (*w->p == '"') {
            KT_TRY(span_string(w, &str, &len));
            continue;
        }
        depth += *w->p == '{';
        depth -= *w->p == '}';
        w->p++;
    } while (depth > 0);
    *n = (size_t)(w->p - *s);
    return KT_OK;
}

/* Unescape a member name to `to`, which has room for n bytes. */
static kt_status member_name(const struct walk *w, const char *s, size_t n, char *to)
{
    json_error_t je;
    json_t *j = n > 0 ? json_loadb(s, n, JSON_DECODE_ANY, &je) : NULL;
    if (!json_is_string(j)) {
        json_decref(j);
        return bad_json(w, "a tensor name is not a valid JSON string");
    }
    memcpy(to, json_string_value(j), json_string_length(j) + 1);
    json_decref(j);
    return KT_OK;
}

static kt_status check_metadata(const struct walk *w, const char *s, size_t n)
{
    json_error_t je;
    const char *key;
    json_t *v, *j;
    if (n > MAX_METADATA)
        KT_FAIL(w->err, KT_E_LIMIT,
                "%s: __metadata__ has %zu bytes, at most %u are read; remove it from the file",
                w->path, n, MAX_METADATA);
    j = json_loadb(s, n, JSON_REJECT_DUPLICATES, &je);
    if (j == NULL)
        KT_FAIL(w->err, KT_E_FORMAT, "%s: __metadata__: %s; the file is damaged", w->path, je.text);
    json_object_foreach(j, key, v)
    {
        if (!json_is_string(v)) {
            kt_status st =
                err_set(w->err, KT_E_FORMAT, 0, __func__,
                        "%s: __metadata__: the value of %.64s is not a string; the file is damaged",
                        w->path, key);
            json_decref(j);
            return st;
        }
    }
    json_decref(j);
    return KT_OK;
}

static kt_status get_dtype(const struct walk *w, const json_t *j, struct mdl_tensor *t)
{
    const char *name = json_string_value(json_object_get(j, "dtype"));
    if (name == NULL)
        KT_FAIL(w->err, KT_E_FORMAT, "%s: tensor %.128s has no dtype; the file is damaged", w->path,
                t->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            t->type = dtypes[i].type;
            return KT_OK;
        }
    KT_FAIL(w->err, KT_E_UNSUPPORTED,
            "%s: tensor %.128s has the dtype %.32s, which is not supported; convert the checkpoint "
            "to BF16",
            w->path, t->name, name);
}

static bool get_count(const json_t *j, uint64_t *v)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return false;
    *v = (uint64_t)json_integer_value(j);
    return true;
}

static kt_status get_extent(const struct walk *w, const json_t *j, struct mdl_tensor *t,
                            uint64_t *begin)
{
    const json_t *shape = json_object_get(j, "shape"), *off = json_object_get(j, "data_offsets");
    uint64_t end, want = dtype_info(t->type)->block_bytes;
    if (!json_is_array(shape))
        KT_FAIL(w->err, KT_E_FORMAT, "%s: tensor %.128s has no shape array; the file is damaged",
                w->path, t->name);
    if (json_array_size(shape) > MDL_DIMS)
        KT_FAIL(w->err, KT_E_UNSUPPORTED,
                "%s: tensor %.128s has %zu dimensions, at most %d are supported", w->path, t->name,
                json_array_size(shape), MDL_DIMS);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < MDL_DIMS; d++)
        t->dims[d] = 1;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (!get_count(json_array_get(shape, d), &t->dims[d]))
            KT_FAIL(w->err, KT_E_FORMAT,
                    "%s: tensor %.128s: shape entry %u is not a non-negative integer; the file is "
                    "damaged",
                    w->path, t->name, d);
        if (!checked_mul(want, t->dims[d], &want))
            KT_FAIL(w->err, KT_E_FORMAT,
                    "%s: tensor %.128s: its size overflows 64 bits; the file is damaged", w->path,
                    t->name);
    }
    if (!json_is_array(off) || json_array_size(off) != 2 ||
        !get_count(json_array_get(off, 0), begin) || !get_count(json_array_get(off, 1), &end) ||
        *begin > end)
        KT_FAIL(w->err, KT_E_FORMAT,
                "%s: tensor %.128s: data_offsets must be two rising non-negative integers; the "
                "file is damaged",
                w->path, t->name);
    t->bytes = end - *begin;
    if (t->bytes != want)
        KT_FAIL(w->err, KT_E_FORMAT,
                "%s: tensor %.128s: data_offsets give %llu bytes, shape and dtype need %llu; the "
                "file is damaged",
                w->path, t->name, (ull)t->bytes, (ull)want);
    return KT_OK;
}

static kt_status read_tensor(const struct walk *w, const char *s, size_t n, struct mdl_tensor *t,
                             uint64_t *begin)
{
    json_error_t je;
    if (t->name[0] == '\0')
        KT_FAIL(w->err, KT_E_FORMAT, "%s: a tensor has an empty name; the file is damaged",
                w->path);
    for (const char *c = t->name; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            KT_FAIL(w->err, KT_E_FORMAT,
                    "%s: a tensor name holds the control byte 0x%02x; the file is damaged", w->path,
                    (unsigned char)*c);
    if (n > MAX_ENTRY)
        KT_FAIL(w->err, KT_E_FORMAT,
                "%s: tensor %.128s: its header entry has %zu bytes, at most %u are allowed; the "
                "file is damaged",
                w->path, t->name, n, MAX_ENTRY);
    json_t *j = json_loadb(s, n, JSON_REJECT_DUPLICATES, &je);
    if (j == NULL)
        KT_FAIL(w->err, KT_E_FORMAT, "%s: tensor %.128s: %s; the file is damaged", w->path, t->name,
                je.text);
    kt_status st = get_dtype(w, j, t);
    if (st == KT_OK)
        st = get_extent(w, j, t, begin);
    json_decref(j);
    return st;
}

static int by_data(const void *a, const void *b)
{
    const struct mdl_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

/* Without gap or overlap from the buffer's first byte to the file's end. */
static kt_status check_tiling(const struct st_file *f, const struct mdl_tensor *t, uint32_t n,
                              const uint8_t *buffer, kt_err *err)
{
    const uint8_t *at = buffer, *end = f->map.data + f->map.bytes;
    for (uint32_t i = 0; i < n; i++) {
        if (t[i].data != at)
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: tensor %.128s begins at byte %llu of the data, expected %llu: %s; the "
                    "file is damaged",
                    f->map.path, t[i].name, (ull)(t[i].data - buffer), (ull)(at - buffer),
                    t[i].data < at ? "tensors overlap" : "there is a gap");
        at += t[i].bytes;
    }
    if (at != end)
        KT_FAIL(err, KT_E_FORMAT, "%s: %llu bytes follow the last tensor; the file is damaged",
                f->map.path, (ull)(end - at));
    return KT_OK;
}

static kt_status append(struct st *s, struct walk *w, struct mdl_tensor *t)
{
    if (s->n_t == s->cap_t) {
        uint32_t cap = s->cap_t == 0 ? 64 : s->cap_t * 2;
        void *p = cap <= MAX_TENSORS ? mem_realloc(s->t, cap * sizeof *s->t) : NULL;
        if (p == NULL)
            KT_FAIL(w->err, KT_E_NOMEM, "%s: out of memory for %u tensors", w->path, cap);
        s->t = p;
        s->cap_t = cap;
    }
    s->t[s->n_t++] = *t;
    return KT_OK;
}

/* One member of the outer object. `to` is where its name goes, moved past it. */
static kt_status read_member(struct st *s, struct walk *w, const struct st_file *f,
                             const uint8_t *buffer, char **to)
{
    const char *key, *val;
    size_t nk = 0, nv = 0;
    uint64_t begin = 0, room = (uint64_t)(f->map.data + f->map.bytes - buffer);
    struct mdl_tensor t = {.file = f->map.path};
    KT_TRY(span_string(w, &key, &nk));
    KT_TRY(expect(w, ':', "expected a colon"));
    KT_TRY(span_object(w, &val, &nv));
    KT_TRY(member_name(w, key, nk, *to));
    if (strcmp(*to, "__metadata__") == 0)
        return check_metadata(w, val, nv);
    t.name = *to;
    KT_TRY(read_tensor(w, val, nv, &t, &begin));
    if (begin > room || t.bytes > room - begin)
        KT_FAIL(w->err, KT_E_FORMAT,
                "%s: tensor %.128s ends %llu bytes past the end of the file; the download is "
                "incomplete",
                w->path, t.name, (ull)(begin + t.bytes - room));
    t.data = buffer + begin;
    *to += strlen(*to) + 1;
    return append(s, w, &t);
}

kt_status st_read_header(struct st *s, uint32_t i, kt_err *err)
{
    struct st_file *f = &s->file[i];
    const char *path = f->map.path;
    uint32_t first = s->n_t;
    if (f->map.bytes < 8)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: has %llu bytes, a safetensors file begins with an 8-byte length; the download "
                "is incomplete",
                path, (ull)f->map.bytes);
    uint64_t n = load_u64(f->map.data);
    if (n < 2 || n > MAX_HEADER)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the header length is %llu, it must be 2 to %u; this is not a safetensors file",
                path, (ull)n, MAX_HEADER);
    if (n > f->map.bytes - 8)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the header takes %llu bytes, only %llu follow; the download is incomplete",
                path, (ull)n, (ull)(f->map.bytes - 8));
    const char *h = (const char *)f->map.data + 8;
    struct walk w = {.path = path, .p = h, .end = h + n, .base = h, .err = err};
    if (*h != '{')
        return bad_json(&w, "the header must begin with {");
    f->names = mem_alloc((size_t)n);
    if (f->names == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for its header", path);
    char *to = f->names;
    const uint8_t *buffer = f->map.data + 8 + n;
    w.p++;
    skip_space(&w);
    if (w.p < w.end && *w.p == '}') {
        w.p++;
    } else {
        for (;;) {
            KT_TRY(read_member(s, &w, f, buffer, &to));
            skip_space(&w);
            if (w.p >= w.end || *w.p != ',')
                break;
            w.p++;
        }
        KT_TRY(expect(&w, '}', "expected , or } after a tensor"));
    }
    skip_space(&w);
    if (w.p != w.end)
        return bad_json(&w, "text after the closing brace");
    if (s->n_t > first)
        qsort(s->t + first, s->n_t - first, sizeof *s->t, by_data);
    return check_tiling(f, s->t + first, s->n_t - first, buffer, err);
}
