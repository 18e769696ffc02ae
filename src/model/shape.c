/* shape.c - opening a shape: which source the path names, the model's own formats or the ones that
 * were asked for, sums over layers. See shape.h.
 */
#include "model/shape.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#define MAX_CONFIG (16u << 20)

/* What is no dtype: whole-checkpoint formats and usual mixes. q4_k_m: half of the down matrices in
 * q6_k (the rule of more bits for the first and last eighth and every third layer between). */
static const struct shape_format named[] = {
    {"fp8", 8.002, 8.002, 8.002, 16, 16}, {"f8_e4m3", 8.002, 8.002, 8.002, 16, 16},
    {"int8", 8.01, 8.01, 8.01, 8.01, 16}, {"int4", 4.5, 4.5, 4.5, 16, 16},
    {"rawint4", 4.5, 4.5, 4.5, 16, 16},   {"q4_k_m", 4.5, 5.53, 4.85, 6.5625, 4.5},
};

bool shape_format_by_name(const char *name, struct shape_format *out)
{
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (strcmp(named[i].name, name) == 0) {
            *out = named[i];
            return true;
        }
    int t = dtype_by_name(name);
    if (t < 0)
        return false;
    const struct dtype_info *d = dtype_info((enum dtype)t);
    double bits = 8.0 * d->block_bytes / d->block_elems;
    *out = (struct shape_format){d->name, bits, bits, bits, bits, bits};
    return true;
}

void shape_apply_format(struct shape *s, const struct shape_format *experts,
                        const struct shape_format *dense)
{
    for (uint32_t i = 0; i < s->n_layers; i++) {
        struct shape_layer *l = &s->layers[i];
        for (int p = 0; p < SHAPE_PARTS && dense != NULL; p++)
            if (p != SHAPE_EXPERT)
                l->bytes[p] = l->weights[p] * (p == SHAPE_PLAIN ? 16 : dense->dense_bits) / 8;
        if (experts != NULL)
            l->bytes[SHAPE_EXPERT] =
                l->weights[SHAPE_EXPERT] * (2 * experts->up_bits + experts->down_bits) / 24;
    }
    if (experts != NULL)
        snprintf(s->expert_format, sizeof s->expert_format, "%s", experts->name);
    if (dense == NULL)
        return;
    snprintf(s->dense_format, sizeof s->dense_format, "%s", dense->name);
    s->head_bytes = s->head_weights * dense->head_bits / 8;
    s->embed_bytes = s->tied_head ? s->head_bytes : s->embed_weights * dense->embed_bits / 8;
}

double shape_expert_bytes(const struct shape *s)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        sum += s->layers[i].bytes[SHAPE_EXPERT] * s->n_experts;
    return sum;
}

double shape_dense_bytes(const struct shape *s)
{
    double sum = s->head_bytes + (s->tied_head ? 0 : s->embed_bytes);
    for (uint32_t i = 0; i < s->n_layers; i++)
        for (int p = 0; p < SHAPE_PARTS; p++)
            sum += p == SHAPE_EXPERT ? 0 : s->layers[i].bytes[p];
    return sum;
}

double shape_kv_stored(const struct shape_kv *kv, double n)
{
    return kv->fixed + kv->per_token * (kv->window > 0 ? fmin(n, kv->window) : n);
}

double shape_kv_read(const struct shape_kv *kv, double n)
{
    double kept = kv->window > 0 ? fmin(n, kv->window) : n;
    double main = (kv->per_token - kv->index) * kept;
    return kv->fixed + kv->index * kept + (kv->cap > 0 ? fmin(main, kv->cap) : main);
}

double shape_kv_bytes(const struct shape *s, double n, double element_bytes)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        sum += shape_kv_stored(&s->layers[i].kv, n) * element_bytes;
    return sum;
}

/* ---- opening ---- */

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static kt_status parse_config(const char *textual, size_t len, const char *file, struct shape *s,
                              kt_err *err)
{
    json_error_t je;
    json_t *j = json_loadb(textual, len, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(j)) {
        json_decref(j);
        KT_FAIL(err, KT_E_FORMAT, "%s: line %d: %s; this is no configuration of a model", file,
                je.line, j == NULL ? je.text : "not an object");
    }
    kt_status st = shape_from_config(j, file, s, err);
    json_decref(j);
    return st;
}

static kt_status from_config_file(const char *path, struct shape *s, kt_err *err)
{
    char *data;
    size_t len;
    KT_TRY(file_read(path, MAX_CONFIG, &data, &len, err));
    kt_status st = parse_config(data, len, path, s, err);
    mem_free(data);
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    snprintf(s->name, sizeof s->name, "%.*s",
             (int)(strlen(name) - (ends(name, ".config.json") ? 12 : 0)), name);
    return st;
}

static kt_status from_files(const char *path, struct shape *s, kt_err *err)
{
    struct mdl *m;
    KT_TRY(mdl_open_files(path, &m, err));
    kt_status st;
    if (m->config_json != NULL) {
        st = parse_config(m->config_json, strlen(m->config_json), path, s, err);
    } else {
        json_t *j = shape_config_of_gguf(m);
        st = j != NULL ? shape_from_config(j, path, s, err)
                       : err_set(err, KT_E_NOMEM, 0, __func__, "%s: out of memory", path);
        json_decref(j);
    }
    if (st == KT_OK) {
        shape_bytes_from_tensors(m, s);
        s->bytes_from = "file";
    }
    snprintf(s->name, sizeof s->name, "%s", m->name);
    mdl_close(m);
    return st;
}

/* Would the engine take it? Its own reader is asked. */
static void ask_engine(const char *path, bool config, struct shape *s)
{
    struct mdl *m = NULL;
    kt_err why = {0};
    kt_status st = config ? mdl_open_config(path, &m, &why) : mdl_open(path, &m, &why);
    /* the path is known to who asked */
    const char *file = strstr(why.msg, "config.json: "), *text = why.msg;
    if (strncmp(text, path, strlen(path)) == 0 && strncmp(text + strlen(path), ": ", 2) == 0)
        text += strlen(path) + 2;
    else if (file != NULL)
        text = file + 13;
    if (st != KT_OK)
        snprintf(s->why_not, sizeof s->why_not, "%.250s", text);
    mdl_close(m);
}

kt_status shape_open(const char *path, const char *format, const char *dense, struct shape **out,
                     kt_err *err)
{
    struct shape_format fe, fd;
    bool config = ends(path, ".json");
    *out = NULL;
    if ((format != NULL && !shape_format_by_name(format, &fe)) ||
        (dense != NULL && !shape_format_by_name(dense, &fd)))
        KT_FAIL(
            err, KT_E_INVALID,
            "no weight format '%s'; known are bf16, f16, f32, fp8, int8, int4, mxfp4, q8_0, q4_0, "
            "q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q4_k_m, q5_k, q6_k, iq4_nl, iq4_xs",
            format != NULL && !shape_format_by_name(format, &fe) ? format : dense);
    struct shape *s = mem_calloc(1, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    kt_status st = config ? from_config_file(path, s, err) : from_files(path, s, err);
    if (st != KT_OK) {
        shape_close(s);
        return st;
    }
    ask_engine(path, config, s);
    if (format != NULL || dense != NULL) {
        /* a mix says what its dense part is; a plain format leaves it as it was */
        bool mix = format != NULL && strcmp(format, "q4_k_m") == 0;
        shape_apply_format(s, format != NULL ? &fe : NULL, dense != NULL ? &fd : mix ? &fe : NULL);
        s->bytes_from = "format";
    }
    *out = s;
    return KT_OK;
}

void shape_close(struct shape *s)
{
    if (s == NULL)
        return;
    mem_free(s->layers);
    mem_free(s);
}
