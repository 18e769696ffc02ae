/* traits_gguf.c - the numbers of a model from GGUF metadata (models 3), for the architectures
 * qwen3moe and llama (dense). Reads and converts; relations between numbers are checked in
 * traits.c, shapes in weights.c. A key that would change the arithmetic in a way that nobody here
 * computes is an error that names it; other unknown keys are ignored.
 */
#include <stdio.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"
#include "model/gguf_priv.h"
#include "model/model_priv.h"

struct src {
    struct mdl *m;
    const struct gguf *g;
    const char *arch, *file;
    char key[128]; /* the last one asked for */
    kt_err *err;
};

static const char *key_of(struct src *s, const char *suffix)
{
    snprintf(s->key, sizeof s->key, "%s.%s", s->arch, suffix);
    return s->key;
}

static kt_status missing(const struct src *s)
{
    KT_FAIL(s->err, KT_E_FORMAT,
            "%s: key %s is missing; the file is damaged or was written by an old converter: "
            "convert the model again",
            s->file, s->key);
}

static kt_status in_range(const struct src *s, uint64_t v, uint32_t max)
{
    if (v < 1 || v > max)
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is %llu, it must be 1 to %u; the file is damaged",
                s->file, s->key, (unsigned long long)v, max);
    return KT_OK;
}

/* An integer that may also be an array with one value per layer; the values must agree (0 entries
 * are skipped when zeros are allowed). */
static kt_status layered(struct src *s, const struct gguf_kv *kv, bool zeros, uint64_t *v)
{
    *v = 0;
    if (kv->type > GGUF_I32 && kv->type != GGUF_U64 && kv->type != GGUF_I64)
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: key %s has the value type %s, it must be integer; the file is damaged",
                s->file, s->key, gguf_kv_type_name(kv));
    for (uint64_t i = 0; i < kv->count; i++) {
        int64_t x = gguf_int_at(kv, i);
        if (x == 0 && zeros)
            continue;
        if (x < 0 || (*v != 0 && (uint64_t)x != *v))
            KT_FAIL(s->err, KT_E_UNSUPPORTED,
                    "%s: key %s differs between layers (%lld and %lld); this version has one value "
                    "for all",
                    s->file, s->key, (long long)*v, (long long)x);
        *v = (uint64_t)x;
    }
    return KT_OK;
}

/* A count of 1..max. def 0: required. */
static kt_status count_of(struct src *s, const char *suffix, uint32_t def, uint32_t max,
                          uint32_t *out)
{
    uint64_t v;
    const struct gguf_kv *kv = gguf_find(s->g, key_of(s, suffix));
    if (kv == NULL && def == 0)
        return missing(s);
    if (kv != NULL && kv->is_array)
        KT_TRY(layered(s, kv, false, &v));
    else
        KT_TRY(gguf_get_u64(s->g, s->key, def, &v, s->err));
    KT_TRY(in_range(s, v, max));
    *out = (uint32_t)v;
    return KT_OK;
}

static kt_status real_of(struct src *s, const char *suffix, double def, double *out)
{
    return gguf_get_f64(s->g, key_of(s, suffix), def, out, s->err);
}

/* Keys that change the arithmetic, with the values that do not. */
static const struct {
    const char *suffix;
    double neutral[2];
} keys_at_rest[] = {
    {"attention.sliding_window", {0, 0}},
    {"attention.chunk_size", {0, 0}},
    {"attention.max_alibi_bias", {0, 0}},
    {"attention.clamp_kqv", {0, 0}},
    {"attention.scale", {0, 0}},
    {"attention.causal", {1, 1}},
    {"attention.temperature_scale", {0, 0}},
    {"attention.output_scale", {0, 1}},
    {"attn_logit_softcapping", {0, 0}},
    {"final_logit_softcapping", {0, 0}},
    {"router_logit_softcapping", {0, 0}},
    {"logit_scale", {0, 1}},
    {"embedding_scale", {0, 1}},
    {"residual_scale", {0, 1}},
    {"use_parallel_residual", {0, 0}},
    {"expert_weights_scale", {0, 1}},
    {"expert_gating_func", {0, 1}},
    {"expert_group_count", {0, 1}},
    {"expert_shared_count", {0, 0}},
    {"expert_shared_feed_forward_length", {0, 0}},
    {"leading_dense_block_count", {0, 0}},
    {"nextn_predict_layers", {0, 0}},
    {"moe_every_n_layers", {0, 1}},
    {"interleave_moe_layer_step", {0, 1}},
    {"rope.scaling.yarn_ext_factor", {1, 1}},
    {"rope.scaling.yarn_log_multiplier", {0, 0}},
    {"rope.scale_linear", {0, 1}},
    {"rope.scaling.alpha", {0, 1}},
    {"pooling_type", {0, 0}},
    {"attention.key_length_mla", {0, 0}},
    {"attention.kv_lora_rank", {0, 0}},
    {"attention.q_lora_rank", {0, 0}},
    {"full_attention_interval", {0, 1}},
};

static kt_status check_at_rest(struct src *s)
{
    for (size_t i = 0; i < sizeof keys_at_rest / sizeof keys_at_rest[0]; i++) {
        const struct gguf_kv *kv = gguf_find(s->g, key_of(s, keys_at_rest[i].suffix));
        if (kv == NULL)
            continue;
        for (uint64_t e = 0; e < kv->count; e++) {
            double v = kv->type == GGUF_STRING ? -1
                       : kv->type == GGUF_BOOL ? (double)gguf_int_at(kv, e)
                                               : gguf_float_at(kv, e);
            if (v != keys_at_rest[i].neutral[0] && v != keys_at_rest[i].neutral[1])
                KT_FAIL(s->err, KT_E_UNSUPPORTED,
                        "%s: key %s is %g: this version does not compute that; use another model",
                        s->file, s->key, v);
        }
    }
    if (gguf_find(s->g, key_of(s, "rope.dimension_sections")) != NULL)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key %s: sectioned rope is not supported by this version; use another model",
                s->file, s->key);
    return KT_OK;
}

static kt_status scaling_kind(struct src *s, struct mdl_rope *r)
{
    struct gguf_str type;
    char b[GGUF_SHOW];
    KT_TRY(real_of(s, "rope.scaling.factor", 0, &r->factor));
    KT_TRY(gguf_get_str(s->g, key_of(s, "rope.scaling.type"), &type, s->err));
    if (type.s == NULL)
        r->scaling = r->factor != 0 ? MDL_ROPE_LINEAR : MDL_ROPE_NONE;
    else if (gguf_str_is(type, "none"))
        r->scaling = MDL_ROPE_NONE;
    else if (gguf_str_is(type, "linear"))
        r->scaling = MDL_ROPE_LINEAR;
    else if (gguf_str_is(type, "yarn"))
        r->scaling = MDL_ROPE_YARN;
    else
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key %s is '%s', supported are none, linear and yarn; use another model",
                s->file, s->key, gguf_show(type, b));
    if (r->scaling != MDL_ROPE_NONE && r->factor == 0) {
        key_of(s, "rope.scaling.factor");
        return missing(s);
    }
    return KT_OK;
}

/* rope_freqs.weight: one divisor per pair. */
static kt_status rope_table(struct src *s, struct mdl_rope *r)
{
    const struct mdl_tensor *t = mdl_tensor_by_name(s->m, "rope_freqs.weight");
    if (t == NULL || strcmp(s->arch, "llama") != 0)
        return KT_OK;
    if (t->type != DT_F32 || t->n_dims != 1 || t->dims[0] != r->dims / 2)
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: tensor rope_freqs.weight: expected %u f32 divisors, found %llu values of type "
                "%s; the file is damaged",
                t->file, r->dims / 2, (unsigned long long)t->dims[0], dtype_name(t->type));
    if (r->scaling != MDL_ROPE_NONE)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: tensor rope_freqs.weight beside rope.scaling.type: only one of them is "
                "supported; use another model",
                t->file);
    float *d = mdl_keep(s->m, (size_t)t->bytes);
    if (d == NULL)
        KT_FAIL(s->err, KT_E_NOMEM, "%s: out of memory", s->file);
    memcpy(d, t->data, (size_t)t->bytes);
    for (uint32_t i = 0; i < r->dims / 2; i++)
        if (!(d[i] > 0 && d[i] < 1e30f))
            KT_FAIL(s->err, KT_E_FORMAT,
                    "%s: tensor rope_freqs.weight: divisor %u is %g, it must be above 0; the file "
                    "is damaged",
                    t->file, i, (double)d[i]);
    r->divisors = d;
    r->scaling = MDL_ROPE_TABLE;
    return KT_OK;
}

static kt_status read_rope(struct src *s, struct mdl_traits *t)
{
    struct mdl_rope *r = &t->rope;
    double attn, alt;
    r->interleaved = strcmp(s->arch, "llama") == 0;
    r->truncate = true;
    KT_TRY(count_of(s, "rope.dimension_count", t->head_dim, t->head_dim, &r->dims));
    KT_TRY(real_of(s, "rope.freq_base", 10000, &r->base));
    KT_TRY(scaling_kind(s, r));
    KT_TRY(real_of(s, "rope.scaling.original_context_length", t->ctx_tokens, &r->original_ctx));
    KT_TRY(real_of(s, "rope.scaling.yarn_beta_fast", 32, &r->beta_fast));
    KT_TRY(real_of(s, "rope.scaling.yarn_beta_slow", 1, &r->beta_slow));
    KT_TRY(real_of(s, "rope.scaling.attn_factor", 1, &attn));
    KT_TRY(real_of(s, "rope.scaling.yarn_attn_factor", attn, &alt));
    r->attention_factor = r->scaling == MDL_ROPE_YARN ? alt * mdl_yarn_mscale(r->factor, 1) : attn;
    return rope_table(s, r);
}

/* A layer is MoE when it has a router. */
static kt_status find_moe_layers(struct src *s, struct mdl_traits *t)
{
    char name[64];
    KT_TRY(mdl_layers_check(s->m, s->err));
    bool *moe = mdl_keep(s->m, t->n_layers);
    if (moe == NULL)
        KT_FAIL(s->err, KT_E_NOMEM, "%s: out of memory for %u layers", s->file, t->n_layers);
    for (uint32_t i = 0; i < t->n_layers && t->n_experts > 0; i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", i);
        moe[i] = mdl_tensor_by_name(s->m, name) != NULL;
        t->n_moe_layers += moe[i];
    }
    t->layer_is_moe = moe;
    return KT_OK;
}

static kt_status read_experts(struct src *s, struct mdl_traits *t)
{
    uint64_t n;
    KT_TRY(gguf_get_u64(s->g, key_of(s, "expert_count"), 0, &n, s->err));
    if (strcmp(s->arch, "llama") == 0) {
        if (n > 0)
            KT_FAIL(s->err, KT_E_UNSUPPORTED,
                    "%s: key %s is %llu: llama with experts (Mixtral) is not supported by this "
                    "version; use a Qwen3-MoE or a dense llama model",
                    s->file, s->key, (unsigned long long)n);
        return KT_OK;
    }
    KT_TRY(count_of(s, "expert_count", 0, 65535, &t->n_experts));
    KT_TRY(count_of(s, "expert_used_count", 0, 65535, &t->top_k));
    KT_TRY(count_of(s, "expert_feed_forward_length", 0, 1u << 24, &t->expert_inter));
    return gguf_get_bool(s->g, key_of(s, "expert_weights_norm"), true, &t->renorm, s->err);
}

static kt_status read_dense_width(struct src *s, struct mdl_traits *t)
{
    uint64_t v = 0;
    const struct gguf_kv *kv = gguf_find(s->g, key_of(s, "feed_forward_length"));
    if (t->n_moe_layers == t->n_layers)
        return KT_OK;
    if (kv == NULL)
        return missing(s);
    if (kv->is_array)
        KT_TRY(layered(s, kv, true, &v));
    else
        KT_TRY(gguf_get_u64(s->g, s->key, 0, &v, s->err));
    KT_TRY(in_range(s, v, 1u << 24));
    t->dense_inter = (uint32_t)v;
    return KT_OK;
}

/* The embedding's rows are the vocabulary; key and token list must not contradict. */
static kt_status read_vocab(struct src *s, struct mdl_traits *t)
{
    const struct mdl_tensor *e = mdl_tensor_by_name(s->m, "token_embd.weight");
    const struct gguf_kv *tokens = gguf_find(s->g, "tokenizer.ggml.tokens");
    if (e == NULL || e->n_dims != 2 || e->dims[0] > INT32_MAX)
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: tensor token_embd.weight is missing or not a matrix; the file is damaged",
                s->file);
    KT_TRY(count_of(s, "vocab_size", (uint32_t)e->dims[0], INT32_MAX, &t->vocab));
    if (t->vocab != e->dims[0])
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: key %s is %u, but tensor token_embd.weight has %llu rows; the file is damaged",
                s->file, s->key, t->vocab, (unsigned long long)e->dims[0]);
    if (tokens != NULL && tokens->is_array && tokens->count > t->vocab)
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: key tokenizer.ggml.tokens has %llu tokens, but tensor token_embd.weight only "
                "%u rows; the file is damaged",
                s->file, (unsigned long long)tokens->count, t->vocab);
    return KT_OK;
}

static kt_status read_attention(struct src *s, struct mdl_traits *t)
{
    double eps;
    uint32_t v_dim;
    KT_TRY(count_of(s, "attention.head_count", 0, 65535, &t->n_heads));
    KT_TRY(count_of(s, "attention.head_count_kv", t->n_heads, 65535, &t->n_kv_heads));
    KT_TRY(count_of(s, "attention.key_length", t->hidden / t->n_heads, 65535, &t->head_dim));
    KT_TRY(count_of(s, "attention.value_length", t->hidden / t->n_heads, 65535, &v_dim));
    if (v_dim != t->head_dim)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key %s is %u, but keys have %u dimensions; this version needs both equal",
                s->file, s->key, v_dim, t->head_dim);
    if (gguf_find(s->g, key_of(s, "attention.layer_norm_rms_epsilon")) == NULL)
        return missing(s);
    KT_TRY(gguf_get_f64(s->g, s->key, 0, &eps, s->err));
    t->norm_eps = (float)eps;
    t->qk_norm = strcmp(s->arch, "qwen3moe") == 0;
    return KT_OK;
}

kt_status mdl_traits_gguf(struct mdl *m, kt_err *err)
{
    struct mdl_traits *t = &m->t;
    struct gguf_str arch;
    char b[GGUF_SHOW];
    struct src s = {.m = m, .g = m->gguf, .file = gguf_path(m->gguf, 0), .err = err};
    KT_TRY(gguf_get_str(m->gguf, "general.architecture", &arch, err));
    if (gguf_str_is(arch, "qwen3moe"))
        t->arch = "qwen3moe";
    else if (gguf_str_is(arch, "llama"))
        t->arch = "llama";
    else
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: key general.architecture is '%s', this version computes qwen3moe and llama; "
                "use another model",
                s.file, gguf_show(arch, b));
    s.arch = t->arch;
    KT_TRY(check_at_rest(&s));
    KT_TRY(count_of(&s, "block_count", 0, MDL_MAX_LAYERS, &t->n_layers));
    KT_TRY(count_of(&s, "embedding_length", 0, 1u << 24, &t->hidden));
    KT_TRY(count_of(&s, "context_length", 0, INT32_MAX, &t->ctx_tokens));
    KT_TRY(read_attention(&s, t));
    KT_TRY(read_vocab(&s, t));
    KT_TRY(read_experts(&s, t));
    KT_TRY(find_moe_layers(&s, t));
    KT_TRY(read_dense_width(&s, t));
    t->tied_head = mdl_tensor_by_name(m, "output.weight") == NULL;
    return read_rope(&s, t);
}
