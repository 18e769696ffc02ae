/* gguf_write.h - writer of GGUF v3 files: metadata, then tensors streamed in the order they were
 * declared. The file appears under its name only when it is whole (base/file.h: file_new). One
 * thread owns a writer.
 *
 * Order of calls: gguf_out_open, metadata and gguf_out_tensor in any order, gguf_out_begin,
 * gguf_out_data until every tensor is full, gguf_out_commit. Failed allocations in metadata calls
 * are remembered and reported by gguf_out_begin. gguf_out_close removes what was not committed.
 */
#ifndef KT_GGUF_WRITE_H
#define KT_GGUF_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/status.h"
#include "model/gguf.h"

struct gguf_out;

struct gguf_out_opts {
    const char *path;
    uint32_t alignment; /* 0: 32 */
    /* Called at least every 64 MiB with tensor bytes written; may be NULL. */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

kt_status gguf_out_open(const struct gguf_out_opts *o, struct gguf_out **out, kt_err *err);

void gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v);
void gguf_out_f32(struct gguf_out *o, const char *key, float v);
void gguf_out_bool(struct gguf_out *o, const char *key, bool v);
void gguf_out_str(struct gguf_out *o, const char *key, const char *v, size_t len);
/* Array head; then exactly n elements by gguf_out_item_*. */
void gguf_out_array(struct gguf_out *o, const char *key, enum gguf_type type, uint64_t n);
void gguf_out_item_str(struct gguf_out *o, const char *v, size_t len);
void gguf_out_item_i32(struct gguf_out *o, int32_t v);

/* dims[0] is the fastest axis, a whole number of blocks. */
void gguf_out_tensor(struct gguf_out *o, const char *name, enum dtype type, uint32_t n_dims,
                     const uint64_t *dims);
/* Bytes of all tensors with padding. */
uint64_t gguf_out_total(const struct gguf_out *o);

/* Write header and metadata; data follows. */
kt_status gguf_out_begin(struct gguf_out *o, kt_err *err);
/* The next bytes of the tensors, in declared order; a call never crosses a tensor's end. */
kt_status gguf_out_data(struct gguf_out *o, const void *data, size_t n, kt_err *err);
kt_status gguf_out_commit(struct gguf_out *o, kt_err *err);
void gguf_out_close(struct gguf_out *o);

#endif
