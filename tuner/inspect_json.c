/* inspect_json.c - kttune inspect --json: one object on standard output. Long metadata arrays are
 * given as type and count. */
#include <stdio.h>

#include "base/json_out.h"
#include "inspect.h"

static void traits(struct json_out *j, const struct mdl_traits *t)
{
    static const char *const scaling[] = {"none", "linear", "yarn", "llama3", "table"};
    jo_key(j, "traits");
    jo_object(j);
    jo_kstr(j, "architecture", t->arch);
    jo_kuint(j, "layers", t->n_layers);
    jo_kuint(j, "moe_layers", t->n_moe_layers);
    jo_kuint(j, "hidden", t->hidden);
    jo_kuint(j, "vocabulary", t->vocab);
    jo_kuint(j, "context_tokens", t->ctx_tokens);
    jo_kuint(j, "heads", t->n_heads);
    jo_kuint(j, "kv_heads", t->n_kv_heads);
    jo_kuint(j, "head_dim", t->head_dim);
    jo_kbool(j, "qk_norm", t->qk_norm);
    jo_kreal(j, "norm_eps", (double)t->norm_eps);
    jo_kreal(j, "rope_base", t->rope.base);
    jo_kuint(j, "rope_dims", t->rope.dims);
    jo_kbool(j, "rope_interleaved", t->rope.interleaved);
    jo_kstr(j, "rope_scaling", scaling[t->rope.scaling]);
    jo_kuint(j, "experts", t->n_experts);
    jo_kuint(j, "experts_per_token", t->top_k);
    jo_kuint(j, "expert_width", t->expert_inter);
    jo_kuint(j, "dense_width", t->dense_inter);
    jo_kbool(j, "renormalise", t->renorm);
    jo_kbool(j, "tied_head", t->tied_head);
    jo_object_end(j);
    jo_key(j, "memory");
    jo_object(j);
    jo_kuint(j, "kv_bytes_per_token_bf16", inspect_kv_bytes(t, 2));
    jo_kuint(j, "kv_bytes_per_token_f32", inspect_kv_bytes(t, 4));
    jo_object_end(j);
}

static void parts(struct json_out *j, const struct inspect *in)
{
    jo_key(j, "parts");
    jo_array(j);
    for (int p = 0; p < PART_COUNT; p++) {
        const struct inspect_sum *s = &in->part[p];
        if (s->tensors == 0)
            continue;
        jo_object(j);
        jo_kstr(j, "part", inspect_part_name((enum inspect_part)p));
        jo_kuint(j, "tensors", s->tensors);
        jo_kuint(j, "bytes", s->bytes);
        jo_key(j, "formats");
        jo_object(j);
        for (int t = 0; t < DT_COUNT; t++)
            if (s->by_type[t] > 0)
                jo_kuint(j, dtype_name((enum dtype)t), s->by_type[t]);
        jo_object_end(j);
        jo_object_end(j);
    }
    jo_array_end(j);
}

static void tensors(struct json_out *j, const struct mdl *m)
{
    jo_key(j, "tensors");
    jo_array(j);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct mdl_tensor *t = &m->tensors[i];
        jo_object(j);
        jo_kstr(j, "name", t->name);
        jo_kstr(j, "format", dtype_name(t->type));
        jo_kuint(j, "bytes", t->bytes);
        jo_key(j, "shape");
        jo_array(j);
        for (uint32_t d = 0; d < t->n_dims; d++)
            jo_uint(j, t->dims[d]);
        jo_array_end(j);
        jo_object_end(j);
    }
    jo_array_end(j);
}

static void value(struct json_out *j, const struct gguf_kv *kv)
{
    const uint8_t *p = kv->data;
    struct gguf_str s;
    if (kv->is_array) {
        jo_object(j);
        jo_kstr(j, "array_of", inspect_type_name(kv->type));
        jo_kuint(j, "count", kv->count);
        jo_object_end(j);
    } else if (kv->type == GGUF_STRING) {
        s = gguf_next_str(&p);
        jo_strn(j, s.s, (size_t)s.len);
    } else if (kv->type == GGUF_BOOL) {
        jo_bool(j, kv->data[0] != 0);
    } else if (kv->type == GGUF_F32 || kv->type == GGUF_F64) {
        jo_real(j, gguf_float_at(kv, 0));
    } else if (kv->type == GGUF_U64) {
        jo_uint(j, (uint64_t)gguf_int_at(kv, 0));
    } else {
        jo_int(j, gguf_int_at(kv, 0));
    }
}

static void metadata(struct json_out *j, const struct gguf *g)
{
    uint64_t n;
    const struct gguf_kv *kv = gguf_kvs(g, &n);
    jo_key(j, "metadata");
    jo_array(j);
    for (uint64_t i = 0; i < n; i++) {
        jo_object(j);
        jo_key(j, "key");
        jo_strn(j, kv[i].key.s, (size_t)kv[i].key.len);
        jo_key(j, "value");
        value(j, &kv[i]);
        jo_object_end(j);
    }
    jo_array_end(j);
}

bool inspect_print_json(const struct inspect *in)
{
    struct strbuf b = {0};
    struct json_out j;
    const struct mdl *m = in->files;
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "path", m->path);
    jo_kstr(&j, "name", m->name);
    jo_kstr(&j, "container", m->is_gguf ? "gguf" : "safetensors");
    if (m->is_gguf) {
        jo_kuint(&j, "gguf_version", gguf_version(m->gguf));
        jo_kuint(&j, "files", gguf_shards(m->gguf));
    }
    jo_kuint(&j, "weight_bytes", in->bytes);
    jo_kbool(&j, "can_be_served", in->model != NULL);
    if (in->model == NULL)
        jo_kstr(&j, "reason", in->why.msg);
    else
        traits(&j, &in->model->t);
    parts(&j, in);
    if (m->is_gguf)
        metadata(&j, m->gguf);
    tensors(&j, m);
    jo_object_end(&j);
    bool ok = sb_ok(&b);
    if (ok)
        printf("%s\n", b.data);
    sb_free(&b);
    return ok;
}
