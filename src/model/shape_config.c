/* shape_config.c - sizes of a model from its config.json (models of many families): how many
 * weights each part of each layer has and what a token keeps in the cache. Family differences are
 * looked for by the keys that only they have: kv_lora_rank (latent attention), o_lora_rank with
 * compress_ratios (DeepSeek-V4), linear_num_value_heads (gated delta net), else grouped queries.
 * Published sizes test it (tests/unit/test_shape.c).
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/shape.h"

struct reader {
    const json_t *j;
    const char *file;
    struct shape *s;
};

static double num(const struct reader *r, const char *key, double def)
{
    const json_t *v = json_object_get(r->j, key);
    return json_is_number(v) ? json_number_value(v) : def;
}

static uint32_t count(const struct reader *r, const char *key, uint32_t def)
{
    double v = num(r, key, def);
    return v >= 0 && v <= 4294967295.0 ? (uint32_t)v : def;
}

/* The first of several spellings that is there. */
static uint32_t first_of(const struct reader *r, const char *const *keys, uint32_t def)
{
    for (; *keys != NULL; keys++)
        if (json_is_number(json_object_get(r->j, *keys)))
            return count(r, *keys, def);
    return def;
}

static bool is_true(const struct reader *r, const char *key)
{
    return json_is_true(json_object_get(r->j, key));
}

static const char *text(const struct reader *r, const char *key)
{
    const char *v = json_string_value(json_object_get(r->j, key));
    return v != NULL ? v : "";
}

/* ---- mixers ---- */

static void gqa(const struct reader *r, struct shape_layer *l, uint32_t layer)
{
    const struct shape *s = r->s;
    double h = s->hidden, q = (double)s->n_heads * s->head_dim,
           kv = (double)s->n_kv_heads * s->head_dim;
    const json_t *types = json_object_get(r->j, "layer_types");
    const char *type = json_string_value(json_array_get(types, layer));
    /* an output gate doubles the query projection (Qwen3-Next and 3.5) */
    bool gate = json_object_get(r->j, "linear_num_value_heads") != NULL;
    l->weights[SHAPE_ATTENTION] = h * (q * (gate ? 2 : 1) + 2 * kv) + q * h;
    l->kv.per_token = 2 * kv;
    l->kv.score_ops = 2 * q;
    if (type != NULL && strcmp(type, "sliding_attention") == 0)
        l->kv.window = count(r, "sliding_window", 0);
}

static void mla(const struct reader *r, struct shape_layer *l)
{
    double h = r->s->hidden, heads = r->s->n_heads, q_rank = num(r, "q_lora_rank", 0),
           kv_rank = num(r, "kv_lora_rank", 512), rope = num(r, "qk_rope_head_dim", 64),
           nope = num(r, "qk_nope_head_dim", 128), v = num(r, "v_head_dim", 128);
    double q = q_rank > 0 ? h * q_rank + q_rank * heads * (nope + rope) : h * heads * (nope + rope);
    l->weights[SHAPE_ATTENTION] =
        q + h * (kv_rank + rope) + kv_rank * heads * (nope + v) + heads * v * h;
    l->kv.per_token = kv_rank + rope;
    l->kv.score_ops = heads * (2 * kv_rank + rope); /* absorbed form */
}

static void gated_delta(const struct reader *r, struct shape_layer *l)
{
    double h = r->s->hidden, nk = num(r, "linear_num_key_heads", 16),
           nv = num(r, "linear_num_value_heads", 32), dk = num(r, "linear_key_head_dim", 128),
           dv = num(r, "linear_value_head_dim", 128), conv = num(r, "linear_conv_kernel_dim", 4);
    double c = 2 * nk * dk + nv * dv;
    l->weights[SHAPE_ATTENTION] = h * (2 * nk * dk + 2 * nv * dv + 2 * nv) + nv * dv * h;
    l->weights[SHAPE_PLAIN] += c * conv;
    l->kv.fixed = 2 * (nv * dk * dv + (conv - 1) * c); /* fp32 beside a 16-bit cache */
}

/* DeepSeek-V4: one shared key-value head with a window, and keys compressed `ratio` to one. */
static void v4(const struct reader *r, struct shape_layer *l, uint32_t layer)
{
    double h = r->s->hidden, hd = r->s->head_dim, q = (double)r->s->n_heads * hd,
           q_rank = num(r, "q_lora_rank", 1024),
           o = num(r, "o_groups", 8) * num(r, "o_lora_rank", 1024),
           window = num(r, "sliding_window", 128), hc = num(r, "hc_mult", 4);
    const json_t *ratios = json_object_get(r->j, "compress_ratios");
    double ratio = json_number_value(json_array_get(ratios, layer)),
           groups = fmax(num(r, "o_groups", 8), 1);
    l->weights[SHAPE_ATTENTION] = h * q_rank + q_rank * q + h * hd + o / groups * q + o * h;
    l->weights[SHAPE_PLAIN] += 2 * (2 + hc) * hc * hc * h;
    l->kv.fixed = window * hd;
    l->kv.score_ops = 2 * q;
    if (ratio <= 0)
        return;
    double c = ratio < 8 ? 2 : 1; /* overlapping windows compress with two sets of weights */
    l->weights[SHAPE_PLAIN] += 2 * c * hd * h;
    l->kv.per_token = hd / ratio;
    l->kv.score_ops = 2 * q / ratio;
    if (ratio < 8) { /* an indexer chooses which of them are read */
        double ih = num(r, "index_n_heads", 64), id = num(r, "index_head_dim", 128);
        l->weights[SHAPE_ATTENTION] += ih * id * q_rank;
        l->weights[SHAPE_PLAIN] += ih * h + 4 * id * h;
        l->kv.index = id / ratio;
        l->kv.per_token += l->kv.index;
        l->kv.cap = num(r, "index_topk", 512) * hd;
    }
}

/* ---- feed-forward ---- */

static bool layer_is_moe(const struct reader *r, uint32_t layer)
{
    const json_t *only = json_object_get(r->j, "mlp_only_layers"), *v;
    size_t i;
    uint32_t step = count(r, "interleave_moe_layer_step", count(r, "decoder_sparse_step", 1));
    if (r->s->n_experts == 0 || layer < count(r, "first_k_dense_replace", 0))
        return false;
    json_array_foreach((json_t *)(uintptr_t)only, i, v)
    {
        if (json_integer_value(v) == (json_int_t)layer)
            return false;
    }
    return step <= 1 || (layer + 1) % step == 0;
}

static void feed_forward(const struct reader *r, struct shape_layer *l)
{
    const struct shape *s = r->s;
    double h = s->hidden;
    if (!l->moe) {
        l->weights[SHAPE_FFN] =
            3 * h * num(r, "intermediate_size_mlp", num(r, "intermediate_size", 0));
        return;
    }
    double shared =
        num(r, "shared_expert_intermediate_size", num(r, "n_shared_experts", 0) * s->expert_inter);
    if (strstr(s->arch, "Llama4") != NULL)
        shared = s->expert_inter;
    l->weights[SHAPE_EXPERT] = 3 * h * s->expert_inter;
    l->weights[SHAPE_SHARED] = 3 * h * shared;
    l->weights[SHAPE_PLAIN] += h * s->n_experts;
}

static void read_layer(const struct reader *r, uint32_t i)
{
    struct shape_layer *l = &r->s->layers[i];
    uint32_t every = count(r, "full_attention_interval", 4);
    l->moe = layer_is_moe(r, i);
    l->weights[SHAPE_PLAIN] = 2.0 * r->s->hidden;
    if (json_object_get(r->j, "compress_ratios") != NULL)
        v4(r, l, i);
    else if (json_is_number(json_object_get(r->j, "kv_lora_rank")))
        mla(r, l);
    else if (json_object_get(r->j, "linear_num_value_heads") != NULL && every > 0 &&
             (i + 1) % every != 0)
        gated_delta(r, l);
    else
        gqa(r, l, i);
    feed_forward(r, l);
    r->s->n_moe += l->moe;
}

/* ---- formats that a config states ---- */

static void own_formats(const struct reader *r, const char **experts, const char **dense)
{
    const json_t *q = json_object_get(r->j, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method")),
               *format = json_string_value(json_object_get(q, "format"));
    *experts = *dense = "bf16";
    if (method != NULL && strcmp(method, "fp8") == 0)
        *experts = *dense = "fp8";
    else if (method != NULL && strcmp(method, "mxfp4") == 0)
        *experts = "mxfp4";
    else if (method != NULL && strcmp(method, "compressed-tensors") == 0)
        *experts = format != NULL && strcmp(format, "pack-quantized") == 0 ? "int4" : "fp8";
    if (strcmp(text(r, "expert_dtype"), "fp4") == 0)
        *experts = "mxfp4";
    else if (text(r, "expert_dtype")[0] != '\0')
        *experts = text(r, "expert_dtype");
}

static kt_status read_top(const struct reader *r, kt_err *err)
{
    static const char *const experts[] = {"num_experts", "n_routed_experts", "num_local_experts",
                                          NULL};
    struct shape *s = r->s;
    const char *arch = json_string_value(json_array_get(json_object_get(r->j, "architectures"), 0));
    snprintf(s->arch, sizeof s->arch, "%s", arch != NULL ? arch : text(r, "model_type"));
    s->n_layers = count(r, "num_hidden_layers", 0);
    s->hidden = count(r, "hidden_size", 0);
    s->vocab = count(r, "vocab_size", 0);
    s->ctx_tokens = count(r, "max_position_embeddings", 0);
    s->n_heads = count(r, "num_attention_heads", 0);
    s->n_kv_heads = count(r, "num_key_value_heads", s->n_heads);
    s->n_experts = first_of(r, experts, 0);
    s->top_k = count(r, "num_experts_per_tok", 0);
    s->expert_inter =
        s->n_experts > 0 ? count(r, "moe_intermediate_size", count(r, "intermediate_size", 0)) : 0;
    s->tied_head = is_true(r, "tie_word_embeddings");
    if (s->n_layers < 1 || s->n_layers > 4096 || s->n_experts > 65535 || s->hidden < 1 ||
        s->n_heads < 1 || s->vocab < 1 ||
        (s->n_experts > 0 && (s->expert_inter < 1 || s->top_k < 1 || s->top_k > s->n_experts)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: num_hidden_layers, hidden_size, num_attention_heads, vocab_size or the "
                "numbers of the experts are missing or out of range; correct the file",
                r->file);
    s->head_dim = count(r, "head_dim", s->hidden / s->n_heads);
    s->gqa = json_object_get(r->j, "kv_lora_rank") == NULL &&
             json_object_get(r->j, "compress_ratios") == NULL;
    s->embed_weights = (double)s->vocab * s->hidden;
    s->head_weights = s->embed_weights;
    return KT_OK;
}

kt_status shape_from_config(const json_t *config, const char *file, struct shape *s, kt_err *err)
{
    const json_t *inner = json_object_get(config, "text_config");
    struct reader r = {json_is_object(inner) ? inner : config, file, s};
    const char *experts, *dense;
    struct shape_format fe, fd;
    KT_TRY(read_top(&r, err));
    s->layers = mem_calloc(s->n_layers, sizeof *s->layers);
    if (s->layers == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for %u layers", file, s->n_layers);
    for (uint32_t i = 0; i < s->n_layers; i++)
        read_layer(&r, i);
    own_formats(&r, &experts, &dense);
    if (!shape_format_by_name(experts, &fe) || !shape_format_by_name(dense, &fd))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: the size of weights in %s is not known; name a format with --format", file,
                experts);
    shape_apply_format(s, &fe, &fd);
    s->bytes_from = "config";
    return KT_OK;
}
