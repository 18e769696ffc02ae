/* shape.h - how big a model is, without its weights: bytes of every part of every layer, KV cache
 * per token, experts and how many a token uses. Made from a config.json alone, from a GGUF header
 * or from a checkpoint directory, also for architectures that the engine does not compute: a plan
 * asks what a host could hold and read, not whether this version serves it (`why_not` says that).
 * Nothing is decoded. One thread; immutable after shape_open.
 */
#ifndef KT_MODEL_SHAPE_H
#define KT_MODEL_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct json_t; /* jansson */
struct mdl;

/* A weight format or a usual mix of them, by name: any dtype ("mxfp4", "q4_k"), "fp8", "int8",
 * "int4" (group 32), "q4_k_m". Bits a weight, scales included. */
struct shape_format {
    const char *name;
    double up_bits, down_bits; /* gate and up; down */
    double dense_bits;         /* attention, shared experts, dense FFN */
    double head_bits, embed_bits;
};
/* false when nobody knows the name. */
bool shape_format_by_name(const char *name, struct shape_format *out);

enum shape_part {
    SHAPE_ATTENTION, /* matrices of the mixer */
    SHAPE_SHARED,    /* shared expert */
    SHAPE_FFN,       /* dense FFN */
    SHAPE_EXPERT,    /* one routed expert */
    SHAPE_PLAIN,     /* router, norms and other small tensors */
    SHAPE_PARTS
};

/* KV cache of one sequence of n tokens in one layer, in elements of the cache's type:
 * stored fixed + per_token * min(n, window); read by one step index * n + the rest, at most cap. */
struct shape_kv {
    double fixed;     /* sliding windows, states of linear attention */
    double per_token; /* keys and values, or a compressed latent */
    double index;     /* of per_token: read by every step whatever is selected */
    double cap;       /* most that a step reads of the selected part; 0: all of it */
    uint32_t window;  /* tokens kept; 0: all */
    double score_ops; /* multiply-adds of one query with one key and value, all heads */
};

struct shape_layer {
    bool moe;
    double weights[SHAPE_PARTS]; /* numbers */
    double bytes[SHAPE_PARTS];
    struct shape_kv kv;
};

struct shape {
    char name[128], arch[48];
    char expert_format[24], dense_format[24]; /* for people: "mxfp4", "mixed" */
    const char *bytes_from; /* "file", "config" (its own quantisation) or "format" (asked for) */
    uint32_t n_layers, n_moe, hidden, vocab, ctx_tokens;
    uint32_t n_experts, top_k, expert_inter; /* 0 for a dense model */
    struct shape_layer *layers;
    double head_weights, head_bytes, embed_weights, embed_bytes;
    bool tied_head, gqa; /* gqa: head_dim and n_kv_heads describe the KV cache */
    uint32_t n_heads, n_kv_heads, head_dim;
    char why_not[256]; /* why this version cannot serve it; "": it can */
};

/* path: config.json, a GGUF file (any shard) or a checkpoint directory. format, dense: names for
 * shape_format_by_name that replace the model's own formats; NULL: as they are.
 * KT_E_INVALID: unknown format; KT_E_UNSUPPORTED: no size can be told; else as mdl_open_files. */
kt_status shape_open(const char *path, const char *format, const char *dense, struct shape **out,
                     kt_err *err);
void shape_close(struct shape *s); /* NULL is fine */

/* Bytes of all experts of all layers; of everything else. */
double shape_expert_bytes(const struct shape *s);
double shape_dense_bytes(const struct shape *s);
/* Elements that one sequence of n tokens keeps, and that one decode step reads of it. */
double shape_kv_stored(const struct shape_kv *kv, double n);
double shape_kv_read(const struct shape_kv *kv, double n);
/* Stored bytes of a sequence of n tokens with elements of this many bytes. */
double shape_kv_bytes(const struct shape *s, double n, double element_bytes);

/* Internal steps. shape_config.c: numbers from the object of a config.json. shape_files.c: the same
 * object from a GGUF header; real bytes from tensors. */
kt_status shape_from_config(const struct json_t *config, const char *file, struct shape *s,
                            kt_err *err);
struct json_t *shape_config_of_gguf(const struct mdl *m);
void shape_bytes_from_tensors(const struct mdl *m, struct shape *s);
void shape_apply_format(struct shape *s, const struct shape_format *experts,
                        const struct shape_format *dense);

#endif
