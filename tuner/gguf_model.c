/* gguf_model.c - see gguf_model.h. Keys and names as models 3 and 4; the order of tensors is the
 * order of use. */
#include "gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

static void add_part(const struct mdl_traits *t, enum mdl_role role, uint32_t layer,
                     struct gguf_parts *out)
{
    struct gguf_part *p = &out->v[out->n];
    if (role == MDL_HEAD && t->tied_head)
        return;
    if (!mdl_role_shape(t, role, layer, &p->rows, &p->cols))
        return;
    mdl_gguf_name(t, role, layer, p->name);
    p->role = role;
    p->layer = layer;
    p->type = DT_F32;
    p->stack = role >= MDL_GATE && t->layer_is_moe[layer] ? t->n_experts : 0;
    out->n++;
    return;
}

static kt_status check_blocks(const struct gguf_part *p, kt_err *err)
{
    const struct dtype_info *i = dtype_info(p->type);
    if (p->cols % i->block_elems != 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "tensor %s: rows of %u elements do not consist of whole %s blocks of %u; choose "
                "another format for it",
                p->name, p->cols, i->name, i->block_elems);
    return KT_OK;
}

kt_status gguf_model_parts(const struct mdl_traits *t, gguf_type_fn type_of, void *user,
                           struct gguf_parts *out, kt_err *err)
{
    out->n = 0;
    out->v = mem_calloc((size_t)t->n_layers * (MDL_ROLE_COUNT - MDL_ATTN_NORM) + 3, sizeof *out->v);
    if (out->v == NULL)
        KT_FAIL(err, KT_E_NOMEM, "out of memory for the list of tensors");
    add_part(t, MDL_EMBED, 0, out);
    for (uint32_t l = 0; l < t->n_layers; l++)
        for (int r = MDL_ATTN_NORM; r < MDL_ROLE_COUNT; r++)
            add_part(t, (enum mdl_role)r, l, out);
    add_part(t, MDL_FINAL_NORM, 0, out);
    add_part(t, MDL_HEAD, 0, out);
    for (uint32_t i = 0; i < out->n; i++) {
        if (!mdl_role_is_plain(out->v[i].role))
            KT_TRY(type_of(user, &out->v[i], &out->v[i].type, err));
        KT_TRY(check_blocks(&out->v[i], err));
    }
    return KT_OK;
}

void gguf_model_declare(struct gguf_out *o, const struct gguf_parts *parts)
{
    for (uint32_t i = 0; i < parts->n; i++) {
        const struct gguf_part *p = &parts->v[i];
        uint64_t dims[3] = {p->cols, p->rows, p->stack};
        bool vector = mdl_role_is_plain(p->role) && p->role != MDL_ROUTER;
        gguf_out_tensor(o, p->name, p->type, vector ? 1 : p->stack > 0 ? 3 : 2, dims);
    }
}

static const char *key(const struct mdl_traits *t, const char *suffix)
{
    static char buf[128];
    snprintf(buf, sizeof buf, "%s.%s", t->arch, suffix);
    return buf;
}

static kt_status rope(struct gguf_out *o, const struct mdl_traits *t, kt_err *err)
{
    const struct mdl_rope *r = &t->rope;
    gguf_out_f32(o, key(t, "rope.freq_base"), (float)r->base);
    gguf_out_u32(o, key(t, "rope.dimension_count"), r->dims);
    if (r->scaling == MDL_ROPE_NONE)
        return KT_OK;
    if ((r->scaling != MDL_ROPE_YARN && r->scaling != MDL_ROPE_LINEAR) ||
        (r->scaling == MDL_ROPE_YARN && !r->truncate))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "the model's rope scaling (%s) cannot be written as GGUF metadata",
                r->scaling == MDL_ROPE_YARN ? "yarn without rounding" : "llama3 or table");
    const char *type = r->scaling == MDL_ROPE_YARN ? "yarn" : "linear";
    gguf_out_str(o, key(t, "rope.scaling.type"), type, strlen(type));
    gguf_out_f32(o, key(t, "rope.scaling.factor"), (float)r->factor);
    if (r->scaling == MDL_ROPE_LINEAR)
        return KT_OK;
    gguf_out_u32(o, key(t, "rope.scaling.original_context_length"), (uint32_t)r->original_ctx);
    double implied = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    if (r->attention_factor != implied)
        gguf_out_f32(o, key(t, "rope.scaling.attn_factor"), (float)(r->attention_factor / implied));
    if (r->beta_fast != 32)
        gguf_out_f32(o, key(t, "rope.scaling.yarn_beta_fast"), (float)r->beta_fast);
    if (r->beta_slow != 1)
        gguf_out_f32(o, key(t, "rope.scaling.yarn_beta_slow"), (float)r->beta_slow);
    return KT_OK;
}

kt_status gguf_model_metadata(struct gguf_out *o, const struct mdl_traits *t, const char *name,
                              kt_err *err)
{
    gguf_out_str(o, "general.architecture", t->arch, strlen(t->arch));
    gguf_out_str(o, "general.type", "model", 5);
    gguf_out_str(o, "general.name", name, strlen(name));
    gguf_out_u32(o, "general.quantization_version", 2);
    gguf_out_u32(o, key(t, "block_count"), t->n_layers);
    gguf_out_u32(o, key(t, "context_length"), t->ctx_tokens);
    gguf_out_u32(o, key(t, "embedding_length"), t->hidden);
    gguf_out_u32(o, key(t, "feed_forward_length"),
                 t->dense_inter > 0 ? t->dense_inter : t->expert_inter);
    gguf_out_u32(o, key(t, "vocab_size"), t->vocab);
    gguf_out_u32(o, key(t, "attention.head_count"), t->n_heads);
    gguf_out_u32(o, key(t, "attention.head_count_kv"), t->n_kv_heads);
    gguf_out_u32(o, key(t, "attention.key_length"), t->head_dim);
    gguf_out_u32(o, key(t, "attention.value_length"), t->head_dim);
    gguf_out_f32(o, key(t, "attention.layer_norm_rms_epsilon"), t->norm_eps);
    if (t->n_experts > 0) {
        gguf_out_u32(o, key(t, "expert_count"), t->n_experts);
        gguf_out_u32(o, key(t, "expert_used_count"), t->top_k);
        gguf_out_u32(o, key(t, "expert_feed_forward_length"), t->expert_inter);
        gguf_out_bool(o, key(t, "expert_weights_norm"), t->renorm);
        if (!t->renorm || t->n_moe_layers < t->n_layers)
            log_warn("this model %s: other programs may read the GGUF file differently",
                     t->renorm ? "has dense layers" : "does not renormalise expert weights");
    }
    return rope(o, t, err);
}

void gguf_model_progress(void *user, uint64_t done, uint64_t total)
{
    static const char bar[] = "########################################";
    if (!isatty(STDERR_FILENO))
        return;
    int fill = total > 0 ? (int)((double)done / (double)total * 40) : 40;
    fprintf(stderr, "\r%s [%-40.*s] %5.1f of %.1f MB%s", (const char *)user, fill, bar,
            (double)done / 1e6, (double)total / 1e6, done == total ? "\n" : "");
    fflush(stderr);
}
