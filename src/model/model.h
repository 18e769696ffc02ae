/* model.h - a model on disk as the engine sees it: traits (numbers), and every weight by its role.
 * Containers (GGUF, safetensors) and naming schemes (Hugging Face, GGUF) end here. Everything is
 * read-only and mapped; nothing is decoded.
 *
 * Opening checks every rule of the container and of the traits (weight-formats 1.2, 5; models 6);
 * afterwards all slices are in bounds and shapes agree with the traits. Immutable after mdl_open;
 * any thread may read. Strings and data pointers belong to the model until mdl_close.
 */
#ifndef KT_MODEL_H
#define KT_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/status.h"

struct gguf; /* gguf.h */

enum mdl_rope_scaling {
    MDL_ROPE_NONE,
    MDL_ROPE_LINEAR,
    MDL_ROPE_YARN,
    MDL_ROPE_LLAMA3,
    MDL_ROPE_TABLE
};

struct mdl_rope {
    uint32_t dims;    /* R, rotated dims at the start of a head, even */
    bool interleaved; /* pairs (2i, 2i+1); else NeoX halves */
    double base;
    enum mdl_rope_scaling scaling;
    double factor, low_freq_factor, high_freq_factor, original_ctx, beta_fast, beta_slow;
    double attention_factor; /* on cos and sin; 1 when none */
    bool truncate;           /* yarn bounds are rounded */
    const float *divisors; /* MDL_ROPE_TABLE: [R/2], f_i / divisor_i; may be unaligned in the file,
                              so copied: belongs to the model */
};

struct mdl_traits {
    const char *arch; /* GGUF architecture name: "qwen3moe", "llama" */
    uint32_t n_layers, hidden, vocab, ctx_tokens;
    uint32_t n_heads, n_kv_heads, head_dim;
    float norm_eps;
    bool qk_norm; /* RMSNorm of each q and k head before rope */
    struct mdl_rope rope;
    uint32_t dense_inter;                    /* width of dense FFN layers, 0 if none */
    uint32_t n_experts, top_k, expert_inter; /* 0 for a dense model */
    bool renorm;                             /* divide the chosen weights by their sum */
    bool tied_head;
    const bool *layer_is_moe; /* [n_layers] */
    uint32_t n_moe_layers;
};

enum mdl_role {
    MDL_EMBED,
    MDL_FINAL_NORM,
    MDL_HEAD, /* layer and expert are ignored; MDL_HEAD is the embedding when tied */
    MDL_ATTN_NORM,
    MDL_Q,
    MDL_K,
    MDL_V,
    MDL_O,
    MDL_Q_NORM,
    MDL_K_NORM,
    MDL_FFN_NORM, /* per layer */
    MDL_ROUTER,
    MDL_GATE,
    MDL_UP,
    MDL_DOWN, /* dense layers: expert ignored; MoE layers: of one expert */
    MDL_ROLE_COUNT
};

/* Scales that stand in a tensor of their own: that of row r, column c is element (r / row_div) *
 * cols
 * + c / col_div. data NULL: none. */
struct mdl_scale {
    const uint8_t *data;
    enum dtype type; /* F32, BF16, F16 or E8M0 */
    uint32_t row_div, col_div, cols;
};

/* Rows of one matrix in file form. A vector is one row. */
struct mdl_slice {
    const char *tensor; /* name in the file, for messages */
    const char *file;   /* path of the file that holds it */
    enum dtype type;
    uint32_t rows, cols;
    const uint8_t *data; /* first row; rows are contiguous, mdl_file_row_bytes each; no alignment */
    struct mdl_scale scale; /* rows are complete in the file, dtype_row_bytes(type, cols) each,
                               where there is none; else mdl_rows makes them so */
};

#define MDL_DIMS 8 /* vision towers have up to 5 */
struct mdl_tensor {
    const char *name;
    const char *file;
    enum dtype type;
    uint32_t n_dims;
    uint64_t dims[MDL_DIMS]; /* outermost first (row-major order): [.., out, in] */
    const uint8_t *data;
    uint64_t bytes;
    struct mdl_scale scale; /* of fp8, int8 and int4 tensors, whose type and name are joined ones */
    bool part;              /* scales or shape of another tensor */
};

/* A file that holds tensors, mapped. */
struct mdl_file {
    const char *path;
    const uint8_t *data;
    uint64_t bytes;
    uint64_t device, inode;
    int64_t mtime_ns; /* last change of its content */
};

struct mdl {
    const char *path; /* as given to mdl_open */
    const char *name; /* directory or file name without suffix and shard number */
    bool is_gguf;
    struct mdl_traits t;
    const struct gguf *gguf;    /* metadata of shard 0, NULL for safetensors */
    const char *config_json;    /* text of config.json, NULL for GGUF */
    const char *dir;            /* directory that holds the model's files */
    struct mdl_tensor *tensors; /* every tensor of the model, in file order */
    uint32_t n_tensors;
    struct mdl_priv *priv; /* private */
};

/* Open a GGUF file (any shard), a directory with config.json + safetensors, or a directory with
 * exactly one GGUF model. KT_E_IO, KT_E_NOT_FOUND, KT_E_FORMAT (bad file), KT_E_UNSUPPORTED
 * (architecture, quantisation or key that changes the arithmetic), KT_E_NOMEM. */
kt_status mdl_open(const char *path, struct mdl **out, kt_err *err);
/* Only containers and metadata, no traits: works for vocabulary-only files and unknown
 * architectures (t is zero then). For tokenizer and inspect. */
kt_status mdl_open_files(const char *path, struct mdl **out, kt_err *err);
/* Only the traits of a config.json (path of the file): no tensors, every weight absent. For
 * planning and for synthetic models. */
kt_status mdl_open_config(const char *path, struct mdl **out, kt_err *err);
void mdl_close(struct mdl *m);

/* The weight of a role. false if the model has none (a dense layer's router, q norm where qk_norm
 * is false). */
bool mdl_weight(const struct mdl *m, enum mdl_role role, uint32_t layer, uint32_t expert,
                struct mdl_slice *out);
/* Bytes between rows at s->data. */
uint64_t mdl_file_row_bytes(const struct mdl_slice *s);
/* Rows [row, row + n) as dtype_row_bytes(type, cols) each: in the file where they are complete
 * there, else put together in buf (n rows; not used otherwise, may then be NULL). */
const uint8_t *mdl_rows(const struct mdl_slice *s, uint32_t row, uint32_t n, void *buf);
/* The second half of that for codes already in memory: src holds rows [row, row + n) as in the
 * file. Only where s has scales of its own. */
void mdl_join_rows(const struct mdl_slice *s, const uint8_t *src, uint32_t row, uint32_t n,
                   uint8_t *dst);
/* Rows and columns of a role (of one expert; a vector has one row). false if such a layer has none.
 * Pure function of the traits. */
bool mdl_role_shape(const struct mdl_traits *t, enum mdl_role role, uint32_t layer, uint32_t *rows,
                    uint32_t *cols);
/* Norms and routers: plain floats in every file, never quantised. */
bool mdl_role_is_plain(enum mdl_role role);
/* The GGUF name of a role; experts of a MoE layer are stacked in one tensor. Returns buf. */
const char *mdl_gguf_name(const struct mdl_traits *t, enum mdl_role role, uint32_t layer,
                          char buf[64]);
/* Files that hold tensors: count, and the i-th. */
uint32_t mdl_file_count(const struct mdl *m);
void mdl_file_at(const struct mdl *m, uint32_t i, struct mdl_file *out);
/* By its name in the file. NULL if absent. */
const struct mdl_tensor *mdl_tensor_by_name(const struct mdl *m, const char *name);
/* Rope frequencies after scaling, f_i as fp32, i < dims/2 (models 2.3): computed in double, rounded
 * once. */
void mdl_rope_freqs(const struct mdl_rope *r, float *f);

#endif
