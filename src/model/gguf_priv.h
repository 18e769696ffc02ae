/* gguf_priv.h - what gguf.c (files, shards, typed reads) and gguf_shard.c (the walk through one
 * file) share. Nobody else includes it. */
#ifndef KT_GGUF_PRIV_H
#define KT_GGUF_PRIV_H

#include <stddef.h>
#include <string.h>

#include "base/file.h"
#include "model/gguf.h"

struct gguf_shard {
    struct file_map map;
    uint32_t version;
    struct gguf_kv *kv;
    uint64_t n_kv, cap_kv;
};

struct gguf {
    struct gguf_shard *shard;
    uint32_t n_shards;
    uint64_t cap_shards;
    struct gguf_tensor *t; /* of all shards, in shard and file order */
    uint64_t n_t, cap_t;
};

/* Map `path` and append its metadata as a new shard and its tensors to g->t. On failure g is whole,
 * perhaps with a half-filled last shard: close it. */
kt_status gguf_read_shard(struct gguf *g, const char *path, kt_err *err);
/* Room for one more element in a table that doubles: nothing is taken for entries that were only
 * claimed. */
kt_status gguf_grow(void *table_ptr, uint64_t n, uint64_t *cap, size_t size, const char *path,
                    kt_err *err);
/* The n strings at `first`, `stride` bytes apart, must differ. `what`: "key", "tensor". */
kt_status gguf_check_unique(const char *path, const char *what, const void *first, uint64_t n,
                            size_t stride, kt_err *err);

#define GGUF_SHOW 96
/* A string of the file for a message: control bytes replaced, cut to fit. Returns buf. */
const char *gguf_show(struct gguf_str s, char buf[GGUF_SHOW]);
/* "u32", "array of string" */
const char *gguf_kv_type_name(const struct gguf_kv *kv);

static inline bool gguf_str_is(struct gguf_str s, const char *c)
{
    size_t n = strlen(c);
    return s.len == n && memcmp(s.s, c, n) == 0;
}

#endif
