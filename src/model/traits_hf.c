/* traits_hf.c - the numbers of a model from config.json (models 3), for Qwen3MoeForCausalLM and
 * LlamaForCausalLM. Both spellings are read: transformers 5 (rope_parameters, num_local_experts)
 * and the older keys of published checkpoints. A key that would change the arithmetic in a way that
 * nobody here computes is an error that names it; relations are checked in traits.c, shapes in
 * weights.c.
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/strbuf.h"
#include "model/model_priv.h"

struct src {
    struct mdl *m;
    const char *file;
    const json_t *j; /* the object that keys are read from */
    kt_err *err;
};

static const json_t *key_of(const struct src *s, const char *key)
{
    const json_t *v = json_object_get(s->j, key);
    return json_is_null(v) ? NULL : v;
}

static kt_status missing(const struct src *s, const char *key)
{
    KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is missing; download the file again", s->file, key);
}

/* An integer of 1..max. def 0: required. */
static kt_status count_of(const struct src *s, const char *key, uint32_t def, uint32_t max,
                          uint32_t *out)
{
    const json_t *v = key_of(s, key);
    if (v == NULL && def == 0)
        return missing(s, key);
    if (v != NULL && !json_is_integer(v))
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is not an integer; correct the file", s->file,
                key);
    json_int_t n = v != NULL ? json_integer_value(v) : (json_int_t)def;
    if (n < 1 || n > (json_int_t)max)
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is %lld, it must be 1 to %u; correct the file",
                s->file, key, (long long)n, max);
    *out = (uint32_t)n;
    return KT_OK;
}

static kt_status real_of(const struct src *s, const char *key, double def, double *out)
{
    const json_t *v = key_of(s, key);
    *out = def;
    if (v == NULL)
        return KT_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is not a number; correct the file", s->file, key);
    *out = json_number_value(v);
    return KT_OK;
}

static kt_status bool_of(const struct src *s, const char *key, bool def, bool *out)
{
    const json_t *v = key_of(s, key);
    *out = def;
    if (v == NULL)
        return KT_OK;
    if (!json_is_boolean(v))
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is not true or false; correct the file", s->file,
                key);
    *out = json_is_true(v);
    return KT_OK;
}

/* Keys that change the arithmetic: absent, null, false, "" or this number is fine. */
static const struct {
    const char *key;
    double neutral;
    const char *text; /* a string that is fine */
} keys_at_rest[] = {
    {"attention_bias", 0, NULL},
    {"mlp_bias", 0, NULL},
    {"hidden_act", 0, "silu"},
    {"shared_expert_intermediate_size", 0, NULL},
    {"n_shared_experts", 0, NULL},
    {"routed_scaling_factor", 1, NULL},
    {"scoring_func", 0, "softmax"},
    {"n_group", 1, NULL},
    {"num_nextn_predict_layers", 0, NULL},
    {"final_logit_softcapping", 0, NULL},
    {"attn_logit_softcapping", 0, NULL},
    {"logit_scale", 1, NULL},
    {"embedding_multiplier", 1, NULL},
    {"residual_multiplier", 1, NULL},
    {"attention_multiplier", 0, NULL},
    {"logits_scaling", 1, NULL},
    {"attn_output_gate", 0, NULL},
    {"first_k_dense_replace", 0, NULL},
    {"rope_interleave", 0, NULL},
    {"query_pre_attn_scalar", 0, NULL},
};

static kt_status check_at_rest(const struct src *s)
{
    for (size_t i = 0; i < sizeof keys_at_rest / sizeof keys_at_rest[0]; i++) {
        const char *key = keys_at_rest[i].key, *text = keys_at_rest[i].text;
        const json_t *v = key_of(s, key);
        bool fine = v == NULL || json_is_false(v) ||
                    (json_is_number(v) && json_number_value(v) == keys_at_rest[i].neutral) ||
                    (json_is_string(v) && text != NULL && strcmp(json_string_value(v), text) == 0);
        if (fine)
            continue;
        char *shown = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        kt_status st = err_set(s->err, KT_E_UNSUPPORTED, 0, __func__,
                               "%s: key %s is %.64s: this version does not compute "
                               "that; use another model",
                               s->file, key, shown != NULL ? shown : "?");
        json_free_t release;
        json_get_alloc_funcs(NULL, &release);
        release(shown);
        return st;
    }
    return KT_OK;
}

/* Which methods are known; the tensors themselves decide what is read (scales.c). */
static kt_status check_quantisation(const struct src *s, const json_t *q)
{
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    const json_t *block = json_object_get(q, "weight_block_size"), *v;
    size_t i;
    if (method == NULL || (strcmp(method, "fp8") != 0 && strcmp(method, "compressed-tensors") != 0))
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key quantization_config has quant_method %.32s, this version "
                "reads fp8, compressed-tensors and unquantised checkpoints; use one of these or a "
                "GGUF file",
                s->file, method != NULL ? method : "(none)");
    json_array_foreach((json_t *)(uintptr_t)block, i, v)
    {
        if (json_integer_value(v) != 128 || json_array_size(block) != 2)
            KT_FAIL(s->err, KT_E_UNSUPPORTED,
                    "%s: key weight_block_size must be [128, 128], the only block of "
                    "scales that this version reads; use another checkpoint",
                    s->file);
    }
    return KT_OK;
}

/* Windows and quantised checkpoints. */
static kt_status check_layers_kind(const struct src *s)
{
    bool window, norm;
    const json_t *q = key_of(s, "quantization_config"), *types = key_of(s, "layer_types"), *v;
    size_t i;
    if (q != NULL)
        KT_TRY(check_quantisation(s, q));
    KT_TRY(bool_of(s, "use_sliding_window", false, &window));
    if (window && key_of(s, "sliding_window") != NULL)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key use_sliding_window is true: windowed attention is not "
                "supported by this version",
                s->file);
    json_array_foreach((json_t *)(uintptr_t)types, i, v)
    {
        const char *t = json_string_value(v);
        if (t == NULL || strcmp(t, "full_attention") != 0)
            KT_FAIL(s->err, KT_E_UNSUPPORTED,
                    "%s: key layer_types: layer %zu is %.32s, this version computes "
                    "full_attention only",
                    s->file, i, t != NULL ? t : "?");
    }
    KT_TRY(bool_of(s, "use_qk_norm", s->m->t.qk_norm, &norm));
    if (norm != s->m->t.qk_norm)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key use_qk_norm differs from what %s models do; this version does "
                "not compute that",
                s->file, s->m->t.arch);
    return KT_OK;
}

static kt_status read_yarn(const struct src *s, struct mdl_rope *r)
{
    double mscale, all;
    KT_TRY(real_of(s, "beta_fast", 32, &r->beta_fast));
    KT_TRY(real_of(s, "beta_slow", 1, &r->beta_slow));
    KT_TRY(bool_of(s, "truncate", true, &r->truncate));
    KT_TRY(real_of(s, "mscale", 0, &mscale));
    KT_TRY(real_of(s, "mscale_all_dim", 0, &all));
    double def = mscale != 0 && all != 0
                     ? mdl_yarn_mscale(r->factor, mscale) / mdl_yarn_mscale(r->factor, all)
                     : mdl_yarn_mscale(r->factor, 1);
    return real_of(s, "attention_factor", def, &r->attention_factor);
}

/* s->j is rope_scaling or rope_parameters. */
static kt_status read_scaling(const struct src *s, struct mdl_rope *r)
{
    const json_t *kind =
        key_of(s, "rope_type") != NULL ? key_of(s, "rope_type") : key_of(s, "type");
    const char *type = kind == NULL ? "default" : json_string_value(kind);
    if (key_of(s, "mrope_section") != NULL)
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key mrope_section: sectioned rope is not supported by this version", s->file);
    if (type != NULL && strcmp(type, "default") == 0)
        return KT_OK;
    if (type != NULL && strcmp(type, "linear") == 0)
        r->scaling = MDL_ROPE_LINEAR;
    else if (type != NULL && strcmp(type, "yarn") == 0)
        r->scaling = MDL_ROPE_YARN;
    else if (type != NULL && strcmp(type, "llama3") == 0)
        r->scaling = MDL_ROPE_LLAMA3;
    else
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key rope_type is %.32s, supported are default, linear, yarn and "
                "llama3",
                s->file, type != NULL ? type : "not a string");
    if (key_of(s, "factor") == NULL)
        return missing(s, "factor (of the rope scaling)");
    KT_TRY(real_of(s, "factor", 0, &r->factor));
    KT_TRY(real_of(s, "original_max_position_embeddings", s->m->t.ctx_tokens, &r->original_ctx));
    KT_TRY(real_of(s, "low_freq_factor", 1, &r->low_freq_factor));
    KT_TRY(real_of(s, "high_freq_factor", 4, &r->high_freq_factor));
    return r->scaling == MDL_ROPE_YARN ? read_yarn(s, r) : KT_OK;
}

static kt_status read_rope(const struct src *s, struct mdl_traits *t)
{
    struct mdl_rope *r = &t->rope;
    const json_t *params = key_of(s, "rope_parameters"), *scaling = key_of(s, "rope_scaling");
    double part, dims;
    struct src sub = *s;
    if ((params != NULL && !json_is_object(params)) ||
        (scaling != NULL && !json_is_object(scaling)))
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key %s is not an object; correct the file", s->file,
                params != NULL && !json_is_object(params) ? "rope_parameters" : "rope_scaling");
    r->attention_factor = 1;
    r->truncate = true;
    KT_TRY(real_of(s, "rope_theta", 10000, &r->base));
    KT_TRY(real_of(s, "partial_rotary_factor", 1, &part));
    if (params != NULL) {
        sub.j = params;
        KT_TRY(real_of(&sub, "rope_theta", r->base, &r->base));
        KT_TRY(real_of(&sub, "partial_rotary_factor", part, &part));
        KT_TRY(read_scaling(&sub, r));
    }
    if (scaling != NULL && r->scaling == MDL_ROPE_NONE) {
        sub.j = scaling;
        KT_TRY(read_scaling(&sub, r));
    }
    dims = floor(t->head_dim * part);
    if (!(part > 0 && part <= 1))
        KT_FAIL(s->err, KT_E_FORMAT,
                "%s: key partial_rotary_factor is %g, it must be above 0 and at most "
                "1; correct the file",
                s->file, part);
    r->dims = (uint32_t)dims;
    return KT_OK;
}

/* HF's rule: every decoder_sparse_step-th layer, unless listed in mlp_only_layers. */
static kt_status find_moe_layers(const struct src *s, struct mdl_traits *t)
{
    uint32_t step = 1;
    size_t i;
    const json_t *v, *only = key_of(s, "mlp_only_layers");
    KT_TRY(mdl_layers_check(s->m, s->err));
    bool *moe = mdl_keep(s->m, t->n_layers);
    if (moe == NULL)
        KT_FAIL(s->err, KT_E_NOMEM, "%s: out of memory for %u layers", s->file, t->n_layers);
    t->layer_is_moe = moe;
    if (t->n_experts == 0)
        return KT_OK;
    KT_TRY(count_of(s, "decoder_sparse_step", 1, MDL_MAX_LAYERS, &step));
    for (uint32_t l = 0; l < t->n_layers; l++)
        moe[l] = (l + 1) % step == 0;
    if (only != NULL && !json_is_array(only))
        KT_FAIL(s->err, KT_E_FORMAT, "%s: key mlp_only_layers is not an array; correct the file",
                s->file);
    json_array_foreach((json_t *)(uintptr_t)only, i, v)
    {
        json_int_t l = json_is_integer(v) ? json_integer_value(v) : -1;
        if (l < 0 || l >= (json_int_t)t->n_layers)
            KT_FAIL(s->err, KT_E_FORMAT,
                    "%s: key mlp_only_layers names a layer that does not exist; the "
                    "model has %u; correct the file",
                    s->file, t->n_layers);
        moe[l] = false;
    }
    for (uint32_t l = 0; l < t->n_layers; l++)
        t->n_moe_layers += moe[l];
    return KT_OK;
}

static kt_status read_architecture(const struct src *s, struct mdl_traits *t)
{
    const json_t *a = json_array_get(key_of(s, "architectures"), 0);
    const char *name = json_string_value(a), *type = json_string_value(key_of(s, "model_type"));
    if (name == NULL && type != NULL)
        name = strcmp(type, "qwen3_moe") == 0 ? "Qwen3MoeForCausalLM"
               : strcmp(type, "llama") == 0   ? "LlamaForCausalLM"
                                              : type;
    if (name == NULL)
        return missing(s, "architectures");
    if (strcmp(name, "Qwen3MoeForCausalLM") == 0)
        t->arch = "qwen3moe";
    else if (strcmp(name, "LlamaForCausalLM") == 0)
        t->arch = "llama";
    else
        KT_FAIL(s->err, KT_E_UNSUPPORTED,
                "%s: key architectures is %.64s, this version computes "
                "Qwen3MoeForCausalLM and LlamaForCausalLM; use another model",
                s->file, name);
    t->qk_norm = strcmp(t->arch, "qwen3moe") == 0;
    return KT_OK;
}

static kt_status read_experts(const struct src *s, struct mdl_traits *t)
{
    if (!t->qk_norm) /* llama */
        return KT_OK;
    const char *n = key_of(s, "num_experts") != NULL ? "num_experts" : "num_local_experts";
    KT_TRY(count_of(s, n, 0, 65535, &t->n_experts));
    KT_TRY(count_of(s, "num_experts_per_tok", 0, 65535, &t->top_k));
    KT_TRY(count_of(s, "moe_intermediate_size", 0, 1u << 24, &t->expert_inter));
    return bool_of(s, "norm_topk_prob", false, &t->renorm);
}

static kt_status read_numbers(const struct src *s, struct mdl_traits *t)
{
    double eps;
    KT_TRY(read_architecture(s, t));
    KT_TRY(check_at_rest(s));
    KT_TRY(check_layers_kind(s));
    KT_TRY(count_of(s, "num_hidden_layers", 0, MDL_MAX_LAYERS, &t->n_layers));
    KT_TRY(count_of(s, "hidden_size", 0, 1u << 24, &t->hidden));
    KT_TRY(count_of(s, "vocab_size", 0, INT32_MAX, &t->vocab));
    KT_TRY(count_of(s, "max_position_embeddings", 0, INT32_MAX, &t->ctx_tokens));
    KT_TRY(count_of(s, "num_attention_heads", 0, 65535, &t->n_heads));
    KT_TRY(count_of(s, "num_key_value_heads", t->n_heads, 65535, &t->n_kv_heads));
    KT_TRY(count_of(s, "head_dim", t->hidden / t->n_heads, 65535, &t->head_dim));
    KT_TRY(real_of(s, "rms_norm_eps", 1e-6, &eps));
    t->norm_eps = (float)eps;
    KT_TRY(bool_of(s, "tie_word_embeddings", false, &t->tied_head));
    KT_TRY(read_experts(s, t));
    KT_TRY(find_moe_layers(s, t));
    if (t->n_moe_layers < t->n_layers)
        KT_TRY(count_of(s, "intermediate_size", 0, 1u << 24, &t->dense_inter));
    return read_rope(s, t);
}

static kt_status read_root(struct src *s)
{
    json_error_t je;
    json_t *root = json_loads(s->m->config_json, JSON_REJECT_DUPLICATES, &je);
    if (root == NULL)
        KT_FAIL(s->err, KT_E_FORMAT, "%s: line %d: %s; correct the file", s->file, je.line,
                je.text);
    s->j = root;
    kt_status st = json_is_object(root)
                       ? read_numbers(s, &s->m->t)
                       : err_set(s->err, KT_E_FORMAT, 0, __func__,
                                 "%s: is not a JSON object; correct the file", s->file);
    json_decref(root);
    return st;
}

/* A configuration alone has a path of its own; a checkpoint's lies in its directory. */
kt_status mdl_traits_hf(struct mdl *m, kt_err *err)
{
    struct strbuf name = {0};
    struct src s = {.m = m, .err = err, .file = m->path};
    if (strcmp(m->path, m->dir) == 0) {
        sb_printf(&name, "%s/config.json", m->dir);
        s.file = sb_ok(&name) ? name.data : "config.json";
    }
    kt_status st = read_root(&s);
    sb_free(&name);
    return st;
}
