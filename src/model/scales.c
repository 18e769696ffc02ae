/* scales.c - tensors of a checkpoint that belong together become one: codes and the scales beside
 * them (weight-formats 6 and 8), recognised by their names, types and shapes; the configuration is
 * not asked.
 *
 *   X.weight F8_E4M3 + X.weight_scale_inv, X.weight_scale or X.scale   -> X.weight fp8
 *   X.weight I8 + X.weight_scale                                       -> X.weight int8
 *   X.weight_packed I32 + X.weight_scale (+ X.weight_shape)            -> X.weight int4
 *
 * The scales' own tensors are marked as parts and get no role. What looks like one of these and is
 * not is an error that names it, kept until somebody wants the weights: inspecting a file needs
 * none of this. Runs once, in mdl_open_files.
 */
#include <stdio.h>
#include <string.h>

#include "base/fp.h"
#include "model/model_priv.h"

#define NAME_MAX_LEN 512

static bool ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && strcmp(s + n - m, suffix) == 0;
}

/* The tensor of the same module with another last part, by the names in the file; NULL if absent.
 */
static struct mdl_tensor *beside(struct mdl *m, const struct mdl_tensor *t, const char *suffix)
{
    char name[NAME_MAX_LEN];
    const char *dot = strrchr(t->name, '.');
    int n = snprintf(name, sizeof name, "%.*s%s", (int)(dot - t->name), t->name, suffix);
    if (n < 0 || (size_t)n >= sizeof name)
        return NULL;
    uint32_t count;
    const struct mdl_tensor *s = st_find(m->priv->st, name);
    return s != NULL ? &m->tensors[s - st_tensors(m->priv->st, &count)] : NULL;
}

static uint64_t elements(const struct mdl_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i]; /* its bytes fit 64 bits, so this does */
    return n;
}

static kt_status bad_scales(const struct mdl_tensor *t, const struct mdl_tensor *s,
                            const char *want, kt_err *err)
{
    KT_FAIL(err, KT_E_UNSUPPORTED,
            "%s: tensor %.128s is %s of %llu x %llu elements, which does not fit %.96s [%llu x "
            "%llu]: supported are %s",
            s->file, s->name, dtype_name(s->type), (unsigned long long)s->dims[0],
            (unsigned long long)(s->n_dims > 1 ? s->dims[1] : 1), t->name,
            (unsigned long long)t->dims[0], (unsigned long long)t->dims[1], want);
}

static kt_status join(struct mdl_tensor *t, struct mdl_tensor *s, enum dtype type,
                      struct mdl_scale scale)
{
    scale.data = s->data;
    scale.type = s->type == DT_U8 ? DT_F8_E8M0 : s->type;
    t->scale = scale;
    t->type = type;
    s->part = true;
    return KT_OK;
}

/* One scale, one per row, or one per tile of 128 x 128. */
static kt_status join_bytes(struct mdl_tensor *t, struct mdl_tensor *s, enum dtype type,
                            kt_err *err)
{
    bool e8m0 = s->type == DT_F8_E8M0 || s->type == DT_U8, fp8 = type == DT_FP8;
    uint64_t rows = t->dims[0], n = elements(s), tiles = (t->dims[1] + 127) / 128;
    bool plain = s->type == DT_F32 || s->type == DT_BF16 || s->type == DT_F16;
    if (plain || (fp8 && e8m0)) {
        if (n == 1)
            return join(t, s, type, (struct mdl_scale){NULL, s->type, UINT32_MAX, UINT32_MAX, 1});
        if (s->n_dims >= 1 && s->dims[0] == rows && n == rows)
            return join(t, s, type, (struct mdl_scale){NULL, s->type, 1, UINT32_MAX, 1});
        if (fp8 && s->n_dims == 2 && s->dims[0] == (rows + 127) / 128 && s->dims[1] == tiles)
            return join(t, s, type, (struct mdl_scale){NULL, s->type, 128, 128, (uint32_t)tiles});
    }
    return bad_scales(t, s,
                      fp8 ? "F32, BF16, F16 or E8M0 scales per row or per 128 x 128 block"
                          : "F32, BF16 or F16 scales per row",
                      err);
}

/* I32 or I64 [2] = {out, in} */
static kt_status check_packed_shape(const struct mdl_tensor *t, struct mdl_tensor *shape,
                                    kt_err *err)
{
    uint64_t v[2];
    if (shape == NULL)
        return KT_OK;
    if (elements(shape) != 2 || (shape->type != DT_I32 && shape->type != DT_I64))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: tensor %.128s must be two I32 or I64 numbers; the file is damaged",
                shape->file, shape->name);
    for (int i = 0; i < 2; i++)
        v[i] =
            shape->type == DT_I32 ? load_u32(shape->data + 4 * i) : load_u64(shape->data + 8 * i);
    if (v[0] != t->dims[0] || v[1] != t->dims[1])
        KT_FAIL(err, KT_E_FORMAT,
                "%s: tensor %.128s says %llu x %llu, the packed codes are %llu x %llu; the file is "
                "damaged",
                shape->file, shape->name, (unsigned long long)v[0], (unsigned long long)v[1],
                (unsigned long long)t->dims[0], (unsigned long long)t->dims[1]);
    shape->part = true;
    return KT_OK;
}

static kt_status join_packed(struct mdl *m, struct mdl_tensor *t, kt_err *err)
{
    static const char *const refused[] = {".weight_zero_point", ".weight_g_idx", ".weight"},
                             *const why[] = {"zero points", "a group index",
                                             "an unpacked copy beside them"};
    struct mdl_tensor *s = beside(m, t, ".weight_scale"), *shape = beside(m, t, ".weight_shape");
    for (size_t i = 0; i < 3; i++) {
        const struct mdl_tensor *x = beside(m, t, refused[i]);
        if (x != NULL)
            KT_FAIL(err, KT_E_UNSUPPORTED,
                    "%s: tensor %.128s: packed weights with %s are not supported; use a symmetric "
                    "checkpoint without activation order",
                    x->file, x->name, why[i]);
    }
    if (s == NULL || t->n_dims != 2 || t->type != DT_I32)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tensor %.128s: packed weights must be I32 [out, in/8] with a weight_scale "
                "beside them",
                t->file, t->name);
    t->dims[1] *= 8;
    uint64_t rows = t->dims[0], cols = t->dims[1],
             groups = s->n_dims == 2 && s->dims[0] == rows ? s->dims[1] : 0;
    KT_TRY(check_packed_shape(t, shape, err));
    if (s->type != DT_BF16 || groups == 0 || cols % groups != 0 || cols / groups % 32 != 0)
        return bad_scales(t, s, "BF16 scales per group of 32 or a multiple of it (4-bit codes)",
                          err);
    char *name = (char *)(uintptr_t)mdl_keep_str(m, t->name, strlen(t->name));
    if (name == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", t->file);
    name[strlen(name) - strlen("_packed")] = '\0';
    t->name = name;
    return join(t, s, DT_INT4,
                (struct mdl_scale){NULL, DT_BF16, 1, (uint32_t)(cols / groups), (uint32_t)groups});
}

static kt_status join_one(struct mdl *m, struct mdl_tensor *t, kt_err *err)
{
    static const char *const scales[] = {".weight_scale_inv", ".weight_scale", ".scale"};
    static const char *const unused[] = {".input_scale", ".activation_scale"};
    if (ends(t->name, ".weight_packed"))
        return join_packed(m, t, err);
    if (!ends(t->name, ".weight") || (t->type != DT_F8_E4M3 && t->type != DT_I8) || t->n_dims != 2)
        return KT_OK;
    for (size_t i = 0; i < 2; i++) { /* of static activation quantisation, which is not done here */
        struct mdl_tensor *x = beside(m, t, unused[i]);
        if (x != NULL)
            x->part = true;
    }
    for (size_t i = 0; i < (t->type == DT_I8 ? 2u : 3u); i++) {
        struct mdl_tensor *s = beside(m, t, scales[i]);
        if (s != NULL)
            return join_bytes(t, s, t->type == DT_I8 ? DT_INT8 : DT_FP8, err);
    }
    return KT_OK; /* a weight without scales: its type is refused by name where it is used */
}

kt_status mdl_join_scales(struct mdl *m, kt_err *err)
{
    for (uint32_t i = 0; i < m->n_tensors; i++)
        KT_TRY(join_one(m, &m->tensors[i], err));
    return KT_OK;
}
