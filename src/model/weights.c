/* weights.c - every tensor of the file gets a role, every role a tensor: names of both schemes
 * (models 4), shapes against the traits, types. A tensor that has no role and is not on the ignore
 * list is an error that names it: a model is computed whole or not at all. After success mdl_weight
 * cannot leave a tensor's bounds.
 */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "model/model_priv.h"

enum form { PLAIN, QKV, STACKED, STACKED_GATE_UP };

static const struct {
    const char *gguf, *hf; /* after the layer prefix; NULL: not in that scheme */
    enum mdl_role role;
    enum form form;
} names[] = {
    {"attn_norm.weight", "input_layernorm.weight", MDL_ATTN_NORM, PLAIN},
    {"attn_q.weight", "self_attn.q_proj.weight", MDL_Q, PLAIN},
    {"attn_k.weight", "self_attn.k_proj.weight", MDL_K, PLAIN},
    {"attn_v.weight", "self_attn.v_proj.weight", MDL_V, PLAIN},
    {"attn_qkv.weight", NULL, MDL_Q, QKV},
    {"attn_output.weight", "self_attn.o_proj.weight", MDL_O, PLAIN},
    {"attn_q_norm.weight", "self_attn.q_norm.weight", MDL_Q_NORM, PLAIN},
    {"attn_k_norm.weight", "self_attn.k_norm.weight", MDL_K_NORM, PLAIN},
    {"ffn_norm.weight", "post_attention_layernorm.weight", MDL_FFN_NORM, PLAIN},
    {"ffn_gate_inp.weight", "mlp.gate.weight", MDL_ROUTER, PLAIN},
    {"ffn_gate.weight", "mlp.gate_proj.weight", MDL_GATE, PLAIN},
    {"ffn_up.weight", "mlp.up_proj.weight", MDL_UP, PLAIN},
    {"ffn_down.weight", "mlp.down_proj.weight", MDL_DOWN, PLAIN},
    {"ffn_gate_exps.weight", NULL, MDL_GATE, STACKED},
    {"ffn_up_exps.weight", NULL, MDL_UP, STACKED},
    {"ffn_down_exps.weight", NULL, MDL_DOWN, STACKED},
    {"ffn_gate_up_exps.weight", NULL, MDL_GATE, STACKED_GATE_UP},
};

static const char *const role_name[MDL_ROLE_COUNT] = {
    "embedding", "final norm", "head",     "attention norm",
    "q",         "k",          "v",        "attention output",
    "q norm",    "k norm",     "FFN norm", "router",
    "gate",      "up",         "down"};

static bool is_expert_role(enum mdl_role r)
{
    return r == MDL_GATE || r == MDL_UP || r == MDL_DOWN;
}

/* Rows and columns that a role must have (of one expert). */
static void role_shape(const struct mdl_traits *t, enum mdl_role role, bool moe, uint64_t *rows,
                       uint64_t *cols)
{
    uint32_t inter = moe ? t->expert_inter : t->dense_inter;
    uint64_t q = (uint64_t)t->n_heads * t->head_dim, kv = (uint64_t)t->n_kv_heads * t->head_dim;
    *rows = 1;
    *cols = t->hidden;
    switch (role) {
    case MDL_EMBED:
    case MDL_HEAD:
        *rows = t->vocab;
        break;
    case MDL_Q:
        *rows = q;
        break;
    case MDL_K:
    case MDL_V:
        *rows = kv;
        break;
    case MDL_O:
        *rows = t->hidden;
        *cols = q;
        break;
    case MDL_Q_NORM:
    case MDL_K_NORM:
        *cols = t->head_dim;
        break;
    case MDL_ROUTER:
        *rows = t->n_experts;
        break;
    case MDL_GATE:
    case MDL_UP:
        *rows = inter;
        break;
    case MDL_DOWN:
        *rows = t->hidden;
        *cols = inter;
        break;
    default:
        break;
    }
}

bool mdl_role_shape(const struct mdl_traits *t, enum mdl_role role, uint32_t layer, uint32_t *rows,
                    uint32_t *cols)
{
    uint64_t r, c;
    bool per_layer = role > MDL_HEAD;
    if (role >= MDL_ROLE_COUNT || (per_layer && layer >= t->n_layers) ||
        (role == MDL_ROUTER && !t->layer_is_moe[layer]) ||
        (!t->qk_norm && (role == MDL_Q_NORM || role == MDL_K_NORM)))
        return false;
    role_shape(t, role, per_layer && t->layer_is_moe[layer], &r, &c);
    *rows = (uint32_t)r;
    *cols = (uint32_t)c;
    return true;
}

const char *mdl_gguf_name(const struct mdl_traits *t, enum mdl_role role, uint32_t layer,
                          char buf[64])
{
    static const char *const top[] = {"token_embd.weight", "output_norm.weight", "output.weight"};
    bool stacked = role > MDL_HEAD && is_expert_role(role) && t->layer_is_moe[layer];
    snprintf(buf, 64, "%s", role <= MDL_HEAD ? top[role] : "");
    for (size_t i = 0; role > MDL_HEAD && i < sizeof names / sizeof names[0]; i++)
        if (names[i].role == role && names[i].form == (stacked ? STACKED : PLAIN))
            snprintf(buf, 64, "blk.%u.%s", layer, names[i].gguf);
    return buf;
}

bool mdl_role_is_plain(enum mdl_role role)
{
    return role == MDL_FINAL_NORM || role == MDL_ATTN_NORM || role == MDL_Q_NORM ||
           role == MDL_K_NORM || role == MDL_FFN_NORM || role == MDL_ROUTER;
}

static kt_status check_type(const struct mdl_tensor *t, enum mdl_role role, kt_err *err)
{
    bool plain = t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16;
    if (plain || (!mdl_role_is_plain(role) && dtype_is_quantised(t->type)))
        return KT_OK;
    KT_FAIL(err, KT_E_UNSUPPORTED,
            "%s: tensor %.128s (%s) has the type %s, which no kernel takes there; convert the "
            "model to %s",
            t->file, t->name, role_name[role], dtype_name(t->type),
            mdl_role_is_plain(role) ? "f32, f16 or bf16 for this tensor"
                                    : "f32, f16, bf16 or a block format");
}

/* want: outermost first. */
static kt_status check_shape(const struct mdl_tensor *t, const uint64_t *want, uint32_t n,
                             kt_err *err)
{
    bool same = t->n_dims == n;
    for (uint32_t i = 0; same && i < n; i++)
        same = t->dims[i] == want[i];
    if (same)
        return KT_OK;
    char w[96] = "", f[200] = "";
    for (uint32_t i = 0, k = 0; i < n; i++)
        k += (uint32_t)snprintf(w + k, sizeof w - k, "%s%llu", i > 0 ? " x " : "",
                                (unsigned long long)want[i]);
    for (uint32_t i = 0, k = 0; i < t->n_dims; i++)
        k += (uint32_t)snprintf(f + k, sizeof f - k, "%s%llu", i > 0 ? " x " : "",
                                (unsigned long long)t->dims[i]);
    KT_FAIL(err, KT_E_FORMAT,
            "%s: tensor %.128s has the shape [%s], the model's numbers need [%s]; the file is "
            "damaged or belongs to another config",
            t->file, t->name, f, w);
}

static kt_status put(struct mdl_ref *ref, const struct mdl_tensor *t, uint32_t row0,
                     uint32_t stride, kt_err *err)
{
    if (ref->t != NULL)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: tensors %.96s and %.96s have the same role; the file is damaged", t->file,
                ref->t->name, t->name);
    *ref = (struct mdl_ref){t, row0, stride};
    return KT_OK;
}

static kt_status unknown(const struct mdl *m, const struct mdl_tensor *t, kt_err *err)
{
    KT_FAIL(err, KT_E_UNSUPPORTED,
            "%s: tensor %.128s is not part of a %s model as this version computes it; use another "
            "model or version",
            t->file, t->name, m->t.arch);
}

static kt_status put_plain(struct mdl *m, uint32_t layer, enum mdl_role role,
                           const struct mdl_tensor *t, kt_err *err)
{
    uint64_t want[2];
    bool moe = m->t.layer_is_moe[layer];
    if ((moe && is_expert_role(role)) || (!moe && role == MDL_ROUTER) ||
        (!m->t.qk_norm && (role == MDL_Q_NORM || role == MDL_K_NORM)))
        return unknown(m, t, err);
    role_shape(&m->t, role, false, &want[0], &want[1]);
    bool vector = mdl_role_is_plain(role) && role != MDL_ROUTER;
    KT_TRY(check_shape(t, vector ? want + 1 : want, vector ? 1 : 2, err));
    KT_TRY(check_type(t, role, err));
    return put(&m->priv->layer[layer].r[role], t, 0, 0, err);
}

static kt_status put_qkv(struct mdl *m, uint32_t layer, const struct mdl_tensor *t, kt_err *err)
{
    uint64_t q, kv, cols, want[2];
    struct mdl_ref *r = m->priv->layer[layer].r;
    role_shape(&m->t, MDL_Q, false, &q, &cols);
    role_shape(&m->t, MDL_K, false, &kv, &cols);
    want[0] = q + 2 * kv;
    want[1] = cols;
    KT_TRY(check_shape(t, want, 2, err));
    KT_TRY(check_type(t, MDL_Q, err));
    KT_TRY(put(&r[MDL_Q], t, 0, 0, err));
    KT_TRY(put(&r[MDL_K], t, (uint32_t)q, 0, err));
    return put(&r[MDL_V], t, (uint32_t)(q + kv), 0, err);
}

static kt_status put_stacked(struct mdl *m, uint32_t layer, size_t i, const struct mdl_tensor *t,
                             kt_err *err)
{
    uint64_t want[3], rows;
    struct mdl_ref *r = m->priv->layer[layer].r;
    if (!m->t.layer_is_moe[layer])
        return unknown(m, t, err);
    role_shape(&m->t, names[i].role, true, &rows, &want[2]);
    bool fused = names[i].form == STACKED_GATE_UP;
    want[0] = m->t.n_experts;
    want[1] = fused ? 2 * rows : rows;
    KT_TRY(check_shape(t, want, 3, err));
    KT_TRY(check_type(t, names[i].role, err));
    KT_TRY(put(&r[names[i].role], t, 0, (uint32_t)want[1], err));
    return fused ? put(&r[MDL_UP], t, (uint32_t)rows, (uint32_t)want[1], err) : KT_OK;
}

/* A decimal number without leading zeros at *s, moved behind it. */
static bool number(const char **s, uint32_t *v)
{
    const char *p = *s;
    uint64_t n = 0;
    while (*p >= '0' && *p <= '9' && n <= UINT32_MAX)
        n = n * 10 + (uint64_t)(*p++ - '0');
    if (p == *s || n > UINT32_MAX || (**s == '0' && p - *s > 1))
        return false;
    *v = (uint32_t)n;
    *s = p;
    return true;
}

/* mlp.experts.E.{gate,up,down}_proj.weight */
static kt_status put_expert(struct mdl *m, uint32_t layer, const char *rest,
                            const struct mdl_tensor *t, kt_err *err)
{
    static const char *const part[] = {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"};
    uint64_t want[2];
    uint32_t e, k = 0;
    if (!number(&rest, &e) || !m->t.layer_is_moe[layer] || e >= m->t.n_experts)
        return unknown(m, t, err);
    while (k < 3 && strcmp(rest, part[k]) != 0)
        k++;
    if (k == 3)
        return unknown(m, t, err);
    enum mdl_role role = (enum mdl_role)((uint32_t)MDL_GATE + k);
    role_shape(&m->t, role, true, &want[0], &want[1]);
    KT_TRY(check_shape(t, want, 2, err));
    KT_TRY(check_type(t, role, err));
    /* names are unique, so the place is free */
    m->priv->expert[((size_t)m->priv->layer[layer].moe_index * m->t.n_experts + e) * 3 + k] = t;
    return KT_OK;
}

static kt_status put_layer(struct mdl *m, const char *rest, const struct mdl_tensor *t, kt_err *err)
{
    uint32_t layer;
    if (!number(&rest, &layer) || *rest++ != '.')
        return unknown(m, t, err);
    if (layer >= m->t.n_layers)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: tensor %.128s: the model's numbers say %u layers; the file is damaged or "
                "belongs to another config",
                t->file, t->name, m->t.n_layers);
    if (!m->is_gguf && strncmp(rest, "mlp.experts.", 12) == 0 && m->priv->expert != NULL)
        return put_expert(m, layer, rest + 12, t, err);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *n = m->is_gguf ? names[i].gguf : names[i].hf;
        if (n == NULL || strcmp(n, rest) != 0)
            continue;
        switch (names[i].form) {
        case PLAIN:
            return put_plain(m, layer, names[i].role, t, err);
        case QKV:
            return put_qkv(m, layer, t, err);
        default:
            return put_stacked(m, layer, i, t, err);
        }
    }
    if (strstr(rest, "rotary_emb.inv_freq") != NULL)
        return KT_OK;
    return unknown(m, t, err);
}

static kt_status put_top(struct mdl *m, enum mdl_role role, const struct mdl_tensor *t, kt_err *err)
{
    uint64_t want[2];
    role_shape(&m->t, role, false, &want[0], &want[1]);
    bool vector = role == MDL_FINAL_NORM;
    KT_TRY(check_shape(t, vector ? want + 1 : want, vector ? 1 : 2, err));
    if (role == MDL_HEAD && m->t.tied_head)
        return KT_OK; /* an equal copy of the embedding */
    KT_TRY(check_type(t, role, err));
    return put(&m->priv->top[role], t, 0, 0, err);
}

static kt_status put_tensor(struct mdl *m, const struct mdl_tensor *t, kt_err *err)
{
    static const char *const top[2][MDL_HEAD + 1] = {
        {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"},
        {"token_embd.weight", "output_norm.weight", "output.weight"}};
    const char *prefix = m->is_gguf ? "blk." : "model.layers.";
    if (strncmp(t->name, prefix, strlen(prefix)) == 0)
        return put_layer(m, t->name + strlen(prefix), t, err);
    for (int r = MDL_EMBED; r <= MDL_HEAD; r++)
        if (strcmp(t->name, top[m->is_gguf][r]) == 0)
            return put_top(m, (enum mdl_role)r, t, err);
    if (strcmp(t->name, "rope_freqs.weight") == 0 || strstr(t->name, "rotary_emb.inv_freq") != NULL)
        return KT_OK; /* read with the traits where it is used */
    return unknown(m, t, err);
}

static kt_status lacks(const struct mdl *m, enum mdl_role role, uint32_t layer, kt_err *err)
{
    if (role <= MDL_HEAD)
        KT_FAIL(err, KT_E_FORMAT, "%s: the %s weight is missing; the download is incomplete",
                mdl_traits_file(m), role_name[role]);
    const char *name = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].role == role && names[i].form != QKV && names[i].form != STACKED_GATE_UP &&
            (names[i].form == STACKED) ==
                (m->is_gguf && is_expert_role(role) && m->t.layer_is_moe[layer]))
            name = m->is_gguf ? names[i].gguf : names[i].hf;
    if (!m->is_gguf && is_expert_role(role) && m->t.layer_is_moe[layer])
        name = "mlp.experts.*";
    KT_FAIL(err, KT_E_FORMAT, "%s: layer %u has no %s weight (%s%u.%s); the download is incomplete",
            mdl_traits_file(m), layer, role_name[role], m->is_gguf ? "blk." : "model.layers.",
            layer, name);
}

static kt_status check_complete(const struct mdl *m, kt_err *err)
{
    struct mdl_slice s;
    for (int r = MDL_EMBED; r <= MDL_HEAD; r++)
        if (!mdl_weight(m, (enum mdl_role)r, 0, 0, &s))
            return lacks(m, (enum mdl_role)r, 0, err);
    for (uint32_t l = 0; l < m->t.n_layers; l++) {
        bool moe = m->t.layer_is_moe[l];
        for (int r = MDL_ATTN_NORM; r < MDL_ROLE_COUNT; r++) {
            enum mdl_role role = (enum mdl_role)r;
            if ((role == MDL_ROUTER && !moe) ||
                (!m->t.qk_norm && (role == MDL_Q_NORM || role == MDL_K_NORM)))
                continue;
            uint32_t n =
                moe && is_expert_role(role) && m->priv->expert != NULL ? m->t.n_experts : 1;
            for (uint32_t e = 0; e < n; e++)
                if (!mdl_weight(m, role, l, e, &s))
                    return lacks(m, role, l, err);
        }
    }
    return KT_OK;
}

kt_status mdl_map_weights(struct mdl *m, kt_err *err)
{
    struct mdl_priv *p = m->priv;
    uint64_t n = 0;
    if (p->scales.code != KT_OK) {
        if (err != NULL)
            *err = p->scales;
        return p->scales.code;
    }
    p->layer = mdl_keep(m, m->t.n_layers * sizeof *p->layer);
    bool ok = p->layer != NULL;
    if (!m->is_gguf && m->t.n_moe_layers > 0) {
        if (!checked_mul((uint64_t)m->t.n_moe_layers * 3, m->t.n_experts, &n) || n > m->n_tensors)
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: %u layers of %u experts need %llu tensors, the model has %u; the download "
                    "is incomplete or the config is of another model",
                    mdl_traits_file(m), m->t.n_moe_layers, m->t.n_experts, (unsigned long long)n,
                    m->n_tensors);
        p->expert = mdl_keep(m, (size_t)n * sizeof *p->expert);
        ok = ok && p->expert != NULL;
    }
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for %u layers", mdl_traits_file(m),
                m->t.n_layers);
    for (uint32_t l = 0, moe = 0; l < m->t.n_layers; l++)
        if (m->t.layer_is_moe[l])
            p->layer[l].moe_index = moe++;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        if (!m->tensors[i].part)
            KT_TRY(put_tensor(m, &m->tensors[i], err));
    return check_complete(m, err);
}

bool mdl_weight(const struct mdl *m, enum mdl_role role, uint32_t layer, uint32_t expert,
                struct mdl_slice *out)
{
    const struct mdl_priv *p = m->priv;
    struct mdl_ref ref;
    uint64_t rows, cols;
    if (role <= MDL_HEAD) {
        ref = p->top[role == MDL_HEAD && m->t.tied_head ? MDL_EMBED : role];
        layer = expert = 0;
    } else if (layer >= m->t.n_layers) {
        return false;
    } else {
        ref = p->layer[layer].r[role];
    }
    bool moe = role > MDL_HEAD && m->t.layer_is_moe[layer] && is_expert_role(role);
    if (moe && expert >= m->t.n_experts)
        return false;
    if (moe && p->expert != NULL)
        ref = (struct mdl_ref){
            p->expert[((size_t)p->layer[layer].moe_index * m->t.n_experts + expert) * 3 +
                      (size_t)(role - MDL_GATE)],
            0, 0};
    if (ref.t == NULL)
        return false;
    role_shape(&m->t, role, moe, &rows, &cols);
    *out = (struct mdl_slice){.tensor = ref.t->name,
                              .file = ref.t->file,
                              .type = ref.t->type,
                              .rows = (uint32_t)rows,
                              .cols = (uint32_t)cols,
                              .scale = ref.t->scale};
    /* tensors with scales of their own hold one matrix: row0 and stride are 0 */
    out->data = ref.t->data +
                (ref.row0 + (uint64_t)(moe ? expert : 0) * ref.stride) * mdl_file_row_bytes(out);
    return true;
}
