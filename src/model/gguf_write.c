/* gguf_write.c - see gguf_write.h. Metadata is collected in memory, tensor data goes straight to
 * the file in the making. */
#include "model/gguf_write.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/fp.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define BUFFER ((size_t)1 << 20)
#define PROGRESS_STEP ((uint64_t)64 << 20)

struct out_tensor {
    uint64_t bytes; /* without padding */
};

struct gguf_out {
    struct file_new file;
    uint32_t alignment;
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    struct strbuf kv, infos;
    uint64_t n_kv;
    struct out_tensor *t;
    uint64_t n_t, cap_t;
    uint64_t total;          /* padded bytes of all tensors */
    uint64_t at, in_tensor;  /* tensor being written, bytes of it so far */
    uint64_t done, reported; /* bytes written, padding included */
    uint8_t *buffer;         /* [BUFFER] */
    size_t fill;
};

static void put_le(struct strbuf *b, uint64_t v, int bytes)
{
    char c[8];
    for (int i = 0; i < bytes; i++)
        c[i] = (char)(v >> (8 * i));
    sb_add(b, c, (size_t)bytes);
}

static void put_str(struct strbuf *b, const char *s, size_t n)
{
    put_le(b, n, 8);
    sb_add(b, s, n);
}

static void put_key(struct gguf_out *o, const char *key, enum gguf_type type)
{
    put_str(&o->kv, key, strlen(key));
    put_le(&o->kv, (uint64_t)type, 4);
    o->n_kv++;
}

kt_status gguf_out_open(const struct gguf_out_opts *opts, struct gguf_out **out, kt_err *err)
{
    *out = NULL;
    struct gguf_out *o = mem_calloc(1, sizeof *o);
    if (o == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", opts->path);
    o->file.fd = -1;
    o->alignment = opts->alignment != 0 ? opts->alignment : 32;
    assert(o->alignment >= 8 && (o->alignment & (o->alignment - 1)) == 0);
    o->progress = opts->progress;
    o->user = opts->user;
    o->buffer = mem_alloc(BUFFER);
    kt_status st = o->buffer == NULL
                       ? err_set(err, KT_E_NOMEM, 0, __func__, "%s: out of memory", opts->path)
                       : file_new_open(&o->file, opts->path, err);
    if (st != KT_OK) {
        gguf_out_close(o);
        return st;
    }
    gguf_out_u32(o, "general.alignment", o->alignment);
    *out = o;
    return KT_OK;
}

void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v)
{
    put_key(o, key, GGUF_U32);
    put_le(&o->kv, v, 4);
}

void gguf_out_f32(struct gguf_out *o, const char *key, float v)
{
    put_key(o, key, GGUF_F32);
    put_le(&o->kv, fp_bits(v), 4);
}

void gguf_out_bool(struct gguf_out *o, const char *key, bool v)
{
    put_key(o, key, GGUF_BOOL);
    put_le(&o->kv, v, 1);
}

void gguf_out_str(struct gguf_out *o, const char *key, const char *v, size_t len)
{
    put_key(o, key, GGUF_STRING);
    put_str(&o->kv, v, len);
}

void gguf_out_array(struct gguf_out *o, const char *key, enum gguf_type type, uint64_t n)
{
    put_key(o, key, GGUF_ARRAY);
    put_le(&o->kv, (uint64_t)type, 4);
    put_le(&o->kv, n, 8);
}

void gguf_out_item_str(struct gguf_out *o, const char *v, size_t len)
{
    put_str(&o->kv, v, len);
}

void gguf_out_item_i32(struct gguf_out *o, int32_t v)
{
    put_le(&o->kv, (uint32_t)v, 4);
}

static uint64_t padded(const struct gguf_out *o, uint64_t n)
{
    return (n + o->alignment - 1) & ~(uint64_t)(o->alignment - 1);
}

void gguf_out_tensor(struct gguf_out *o, const char *name, enum dtype type, uint32_t n_dims,
                     const uint64_t *dims)
{
    uint64_t rows = 1;
    if (o->n_t == o->cap_t) {
        uint64_t cap = o->cap_t == 0 ? 64 : o->cap_t * 2;
        void *p = mem_realloc(o->t, (size_t)cap * sizeof *o->t);
        if (p == NULL) {
            o->infos.failed = true;
            return;
        }
        o->t = p;
        o->cap_t = cap;
    }
    put_str(&o->infos, name, strlen(name));
    put_le(&o->infos, n_dims, 4);
    for (uint32_t d = 0; d < n_dims; d++) {
        put_le(&o->infos, dims[d], 8);
        rows *= d > 0 ? dims[d] : 1;
    }
    put_le(&o->infos, (uint64_t)dtype_info(type)->ggml_id, 4);
    put_le(&o->infos, o->total, 8);
    o->t[o->n_t].bytes = rows * dtype_row_bytes(type, dims[0]);
    o->total += padded(o, o->t[o->n_t++].bytes);
}

uint64_t gguf_out_total(const struct gguf_out *o)
{
    return o->total;
}

static kt_status write_out(struct gguf_out *o, const void *data, size_t n, kt_err *err)
{
    const char *p = data;
    while (n > 0) {
        ssize_t w = write(o->file.fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            KT_FAIL_OS(err, KT_E_IO, "%s: cannot write: %s", o->file.path, strerror(errno));
        p += w;
        n -= (size_t)w;
    }
    return KT_OK;
}

static kt_status flush(struct gguf_out *o, kt_err *err)
{
    size_t n = o->fill;
    o->fill = 0;
    return write_out(o, o->buffer, n, err);
}

/* Small pieces are gathered, large ones go straight through. */
static kt_status put_bytes(struct gguf_out *o, const void *data, size_t n, kt_err *err)
{
    if (o->fill + n > BUFFER)
        KT_TRY(flush(o, err));
    if (n >= BUFFER)
        return write_out(o, data, n, err);
    if (n > 0)
        memcpy(o->buffer + o->fill, data, n);
    o->fill += n;
    return KT_OK;
}

static kt_status put_zeros(struct gguf_out *o, uint64_t n, kt_err *err)
{
    static const uint8_t zero[64];
    while (n > 0) {
        size_t part = n < sizeof zero ? (size_t)n : sizeof zero;
        KT_TRY(put_bytes(o, zero, part, err));
        n -= part;
    }
    return KT_OK;
}

kt_status gguf_out_begin(struct gguf_out *o, kt_err *err)
{
    struct strbuf head = {0};
    sb_puts(&head, "GGUF");
    put_le(&head, 3, 4);
    put_le(&head, o->n_t, 8);
    put_le(&head, o->n_kv, 8);
    kt_status st = KT_OK;
    if (!sb_ok(&head) || !sb_ok(&o->kv) || !sb_ok(&o->infos))
        st = err_set(err, KT_E_NOMEM, 0, __func__, "%s: out of memory for the metadata",
                     o->file.path);
    uint64_t n = head.len + o->kv.len + o->infos.len;
    if (st == KT_OK)
        st = put_bytes(o, head.data, head.len, err);
    if (st == KT_OK)
        st = put_bytes(o, o->kv.data, o->kv.len, err);
    if (st == KT_OK)
        st = put_bytes(o, o->infos.data, o->infos.len, err);
    if (st == KT_OK)
        st = put_zeros(o, padded(o, n) - n, err);
    sb_free(&head);
    sb_free(&o->kv);
    sb_free(&o->infos);
    return st;
}

kt_status gguf_out_data(struct gguf_out *o, const void *data, size_t n, kt_err *err)
{
    assert(o->at < o->n_t && n <= o->t[o->at].bytes - o->in_tensor);
    KT_TRY(put_bytes(o, data, n, err));
    o->in_tensor += n;
    o->done += n;
    if (o->in_tensor == o->t[o->at].bytes) {
        uint64_t pad = padded(o, o->in_tensor) - o->in_tensor;
        KT_TRY(put_zeros(o, pad, err));
        o->done += pad;
        o->in_tensor = 0;
        o->at++;
    }
    if (o->progress != NULL && (o->done - o->reported >= PROGRESS_STEP || o->done == o->total)) {
        o->reported = o->done;
        o->progress(o->user, o->done, o->total);
    }
    return KT_OK;
}

kt_status gguf_out_commit(struct gguf_out *o, kt_err *err)
{
    assert(o->at == o->n_t);
    KT_TRY(flush(o, err));
    return file_new_commit(&o->file, err);
}

void gguf_out_close(struct gguf_out *o)
{
    if (o == NULL)
        return;
    file_new_close(&o->file);
    sb_free(&o->kv);
    sb_free(&o->infos);
    mem_free(o->t);
    mem_free(o->buffer);
    mem_free(o);
}
