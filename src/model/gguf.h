/* gguf.h - reader of GGUF v2 and v3, single and split (weight-formats section 1). Maps the files,
 * checks every rule, decodes nothing. Immutable after gguf_open; strings and arrays point into the
 * mapping or into memory of the reader, until gguf_close.
 */
#ifndef KT_GGUF_H
#define KT_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/status.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

struct gguf_str {
    const char *s; /* not terminated */
    uint64_t len;
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_type type; /* of the value, or of the elements when is_array */
    bool is_array;
    uint64_t count; /* 1 for scalars */
    const uint8_t
        *data; /* first element, little endian, unaligned; strings: u64 length + bytes each */
};

struct gguf_tensor {
    struct gguf_str name;
    enum dtype type;
    uint32_t n_dims;
    uint64_t dims[4]; /* as stored: dims[0] is the fastest axis */
    uint64_t offset;  /* from the shard's data start */
    const uint8_t *data;
    uint64_t bytes;
    uint32_t shard;
};

struct gguf;
struct file_map; /* base/file.h */

/* path: any shard of a split model, or a single file. Opens all shards. */
kt_status gguf_open(const char *path, struct gguf **out, kt_err *err);
void gguf_close(struct gguf *g);

const char *gguf_path(const struct gguf *g, uint32_t shard);
const struct file_map *gguf_map(const struct gguf *g, uint32_t shard);
uint64_t gguf_file_bytes(const struct gguf *g, uint32_t shard);
uint32_t gguf_shards(const struct gguf *g);
uint32_t gguf_version(const struct gguf *g);
const struct gguf_tensor *gguf_tensors(const struct gguf *g, uint64_t *n);
const struct gguf_kv *gguf_kvs(const struct gguf *g, uint64_t *n);

/* NULL when absent. */
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
/* Typed reads with range checks. def / false when the key is absent; KT_E_FORMAT naming file and
 * key when it has another type or is out of range. */
kt_status gguf_get_u64(const struct gguf *g, const char *key, uint64_t def, uint64_t *out,
                       kt_err *err); /* any integer width, non-negative */
kt_status gguf_get_f64(const struct gguf *g, const char *key, double def, double *out,
                       kt_err *err); /* any float or integer */
kt_status gguf_get_bool(const struct gguf *g, const char *key, bool def, bool *out, kt_err *err);
/* out->s = NULL when absent */
kt_status gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out, kt_err *err);
/* Element i of an array of integers / floats; the caller checked type and count. */
int64_t gguf_int_at(const struct gguf_kv *kv, uint64_t i);
double gguf_float_at(const struct gguf_kv *kv, uint64_t i);
/* Walk an array of strings: start with *cursor = kv->data, call count times. */
struct gguf_str gguf_next_str(const uint8_t **cursor);

#endif
