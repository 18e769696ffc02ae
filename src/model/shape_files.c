/* shape_files.c - sizes that files state: the numbers of a GGUF header under the names of a
 * config.json, and the real bytes of every part by the names of its tensors. Works for any
 * architecture that keeps the usual names; what it does not recognise counts as small tensors of
 * its layer, so totals are right whatever happens.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/shape.h"

/* ---- GGUF keys ---- */

static const char *const keys[][2] = {
    {"block_count", "num_hidden_layers"},
    {"embedding_length", "hidden_size"},
    {"context_length", "max_position_embeddings"},
    {"vocab_size", "vocab_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.sliding_window", "sliding_window"},
    {"attention.q_lora_rank", "q_lora_rank"},
    {"attention.kv_lora_rank", "kv_lora_rank"},
    {"feed_forward_length", "intermediate_size"},
    {"expert_count", "num_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_count", "n_shared_experts"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    {"leading_dense_block_count", "first_k_dense_replace"},
    {"interleave_moe_layer_step", "interleave_moe_layer_step"},
    {"full_attention_interval", "full_attention_interval"},
    {"ssm.conv_kernel", "linear_conv_kernel_dim"},
    {"ssm.group_count", "linear_num_key_heads"},
    {"ssm.time_step_rank", "linear_num_value_heads"},
    {"ssm.state_size", "linear_key_head_dim"},
};

json_t *shape_config_of_gguf(const struct mdl *m)
{
    json_t *j = json_object();
    struct gguf_str arch = {0};
    char key[160], name[64];
    if (gguf_get_str(m->gguf, "general.architecture", &arch, NULL) != KT_OK || arch.s == NULL)
        return j;
    snprintf(name, sizeof name, "%.*s", (int)(arch.len < 60 ? arch.len : 60), arch.s);
    json_object_set_new(j, "model_type", json_string(name));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", name, keys[i][0]);
        const struct gguf_kv *kv = gguf_find(m->gguf, key);
        if (kv == NULL || kv->count == 0 || kv->type == GGUF_STRING || kv->type == GGUF_BOOL)
            continue;
        double v = kv->type == GGUF_F32 || kv->type == GGUF_F64 ? gguf_float_at(kv, 0)
                                                                : (double)gguf_int_at(kv, 0);
        json_object_set_new(j, keys[i][1], json_real(v));
    }
    if (json_object_get(j, "vocab_size") == NULL) {
        const struct gguf_kv *kv = gguf_find(m->gguf, "tokenizer.ggml.tokens");
        const struct mdl_tensor *t = mdl_tensor_by_name(m, "token_embd.weight");
        double v = kv != NULL && kv->is_array ? (double)kv->count
                   : t != NULL                ? (double)t->dims[0]
                                              : 0;
        json_object_set_new(j, "vocab_size", json_real(v));
    }
    if (mdl_tensor_by_name(m, "output.weight") == NULL)
        json_object_set_new(j, "tie_word_embeddings", json_true());
    return j;
}

/* ---- tensors ---- */

/* Number after "blk." or "layers."; -1 when the tensor belongs to no layer. */
static long layer_of(const char *name)
{
    const char *p = strstr(name, "blk."), *q = strstr(name, "layers.");
    const char *at = p != NULL ? p + 4 : q != NULL ? q + 7 : NULL;
    return at != NULL && *at >= '0' && *at <= '9' ? strtol(at, NULL, 10) : -1;
}

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static enum shape_part part_of(const char *n)
{
    if (has(n, "norm") || has(n, "gate_inp") || has(n, "mlp.gate.") || has(n, "ffn.gate.") ||
        has(n, "exp_probs_b") || has(n, "router") || has(n, "moe.gate.") || has(n, "hc_"))
        return SHAPE_PLAIN;
    if (has(n, "shexp") || has(n, "shared_expert"))
        return SHAPE_SHARED;
    if (has(n, "_exps") || has(n, ".experts."))
        return SHAPE_EXPERT;
    if (has(n, "attn") || has(n, "ssm_"))
        return SHAPE_ATTENTION;
    if (has(n, "ffn_") || has(n, ".mlp.") || has(n, "feed_forward"))
        return SHAPE_FFN;
    return SHAPE_PLAIN;
}

static void name_format(char *out, size_t n, enum dtype t)
{
    const char *name = dtype_name(t);
    if (out[0] == '\0')
        snprintf(out, n, "%s", name);
    else if (strcmp(out, name) != 0)
        snprintf(out, n, "mixed");
}

static double weights_of(const struct mdl_tensor *t)
{
    double n = 1;
    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= (double)t->dims[d];
    return n;
}

void shape_bytes_from_tensors(const struct mdl *m, struct shape *s)
{
    for (uint32_t i = 0; i < s->n_layers; i++) {
        memset(s->layers[i].bytes, 0, sizeof s->layers[i].bytes);
        memset(s->layers[i].weights, 0, sizeof s->layers[i].weights);
    }
    s->head_bytes = s->embed_bytes = 0;
    s->expert_format[0] = s->dense_format[0] = '\0';
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct mdl_tensor *t = &m->tensors[i];
        long layer = layer_of(t->name);
        if (layer >= (long)s->n_layers)
            continue; /* draft layers are not read */
        if (layer < 0) {
            bool head = has(t->name, "lm_head") || strcmp(t->name, "output.weight") == 0 ||
                        strcmp(t->name, "head.weight") == 0;
            *(head ? &s->head_bytes : &s->embed_bytes) += (double)t->bytes;
            continue;
        }
        enum shape_part p = part_of(t->name);
        double share = p == SHAPE_EXPERT && s->n_experts > 0 ? 1.0 / s->n_experts : 1;
        s->layers[layer].bytes[p] += (double)t->bytes * share;
        s->layers[layer].weights[p] += weights_of(t) * share;
        if (p == SHAPE_EXPERT)
            name_format(s->expert_format, sizeof s->expert_format, t->type);
        else if (p != SHAPE_PLAIN)
            name_format(s->dense_format, sizeof s->dense_format, t->type);
    }
    if (s->head_bytes <= 0) {
        s->tied_head = true;
        s->head_bytes = s->embed_bytes;
    }
}
