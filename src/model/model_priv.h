/* model_priv.h - what the files behind model.h share: the open model's private part, and the steps
 * of mdl_open. Order: model.c opens containers, traits_gguf.c or traits_hf.c read the numbers,
 * traits.c checks them, weights.c finds every weight.
 */
#ifndef KT_MODEL_PRIV_H
#define KT_MODEL_PRIV_H

#include "model/gguf.h"
#include "model/model.h"
#include "model/safetensors.h"

/* Where a role's rows begin: row0 in the tensor's rows; expert e begins `stride` rows further each.
 */
struct mdl_ref {
    const struct mdl_tensor *t;
    uint32_t row0, stride;
};

struct mdl_layer {
    struct mdl_ref r[MDL_ROLE_COUNT];
    uint32_t moe_index; /* of a MoE layer: 0, 1, .. */
};

struct mdl_keep; /* a block that lives as long as the model */

struct mdl_priv {
    struct gguf *gguf;
    struct st *st;
    struct mdl_keep *keep;
    const struct mdl_tensor **by_name; /* [n_tensors], sorted */
    struct mdl_ref top[MDL_HEAD + 1];
    struct mdl_layer *layer;          /* [n_layers] */
    const struct mdl_tensor **expert; /* [n_moe_layers][n_experts][3], tensors that hold one
                                         expert's matrix; NULL when experts are stacked */
    kt_err scales; /* why scales could not be joined to their codes; code KT_OK: they were */
};

/* Zeroed memory that mdl_close frees. NULL when memory is short. */
void *mdl_keep(struct mdl *m, size_t bytes);
const char *mdl_keep_str(struct mdl *m, const char *s, size_t n);

/* Codes and scales of a checkpoint become one tensor each. */
kt_status mdl_join_scales(struct mdl *m, kt_err *err);
kt_status mdl_traits_gguf(struct mdl *m, kt_err *err);
kt_status mdl_traits_hf(struct mdl *m, kt_err *err);
/* Ranges and relations that hold for every source; no division by what is checked here happens
 * before. */
kt_status mdl_traits_check(const struct mdl *m, kt_err *err);
/* Before anything is allocated per layer: not more layers than tensors (a model without tensors is
 * a config alone). */
kt_status mdl_layers_check(const struct mdl *m, kt_err *err);
/* 0.1 ln s + 1 for s > 1, else 1 (models 2.3) */
double mdl_yarn_mscale(double factor, double mscale);
kt_status mdl_map_weights(struct mdl *m, kt_err *err);

/* Where the numbers came from, for messages: path of config.json or of the first GGUF file. */
const char *mdl_traits_file(const struct mdl *m);

#define MDL_MAX_LAYERS 65536u

#endif
