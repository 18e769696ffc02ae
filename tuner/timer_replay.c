/* timer_replay.c - see timer_replay.h. */
#include "timer_replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "search_stats.h"

#define MAX_BYTES (16u << 20)
#define REFUSE(...) KT_FAIL(err, KT_E_FORMAT, __VA_ARGS__)

static bool take_value(const json_t *v, struct space_value *out)
{
    memset(out, 0, sizeof *out);
    if (json_is_number(v))
        out->number = json_number_value(v);
    else if (json_is_string(v) && json_string_length(v) > 0 &&
             json_string_length(v) < sizeof out->text)
        memcpy(out->text, json_string_value(v), json_string_length(v));
    else
        return false;
    return true;
}

static bool same_value(const struct space_value *a, const struct space_value *b)
{
    return a->number == b->number && strcmp(a->text, b->text) == 0;
}

static kt_status read_axes(struct replay *r, const char *path, kt_err *err)
{
    const json_t *axes = json_object_get(r->root, "axes");
    if (!json_is_array(axes) || json_array_size(axes) > SPACE_AXES)
        REFUSE("%s: axes: must be a list of at most %d", path, SPACE_AXES);
    for (size_t i = 0; i < json_array_size(axes); i++) {
        const json_t *a = json_array_get(axes, i), *values = json_object_get(a, "values");
        const char *name = json_string_value(json_object_get(a, "name"));
        size_t n = json_array_size(values);
        if (name == NULL || name[0] == '\0' || strlen(name) >= SPACE_TEXT || n == 0 ||
            n > SPACE_VALUES)
            REFUSE("%s: axes[%zu]: needs a name and 1 to %d values", path, i, SPACE_VALUES);
        struct space_axis *x = space_axis(&r->space, name);
        for (size_t k = 0; k < n; k++) {
            struct space_value v;
            if (!take_value(json_array_get(values, k), &v))
                REFUSE("%s: axes[%zu].values[%zu]: must be a number or a short text", path, i, k);
            x->v[x->n++] = v;
        }
    }
    return KT_OK;
}

/* Where a config's values lie on the axes. */
static bool locate(const struct replay *r, const json_t *config, uint8_t *at)
{
    for (uint32_t i = 0; i < r->space.n_axes; i++) {
        const struct space_axis *a = &r->space.axis[i];
        struct space_value v;
        uint32_t k = 0;
        if (!take_value(json_object_get(config, a->name), &v))
            return false;
        while (k < a->n && !same_value(&a->v[k], &v))
            k++;
        if (k == a->n)
            return false;
        at[i] = (uint8_t)k;
    }
    return json_object_size(config) == r->space.n_axes;
}

static kt_status read_samples(struct replay *r, uint32_t i, const json_t *c, const char *path,
                              kt_err *err)
{
    const json_t *list = json_object_get(c, "samples");
    size_t n = json_array_size(list);
    r->median[i] = -1;
    if (json_is_true(json_object_get(c, "failed")))
        return KT_OK;
    if (n == 0 || n > 100000)
        REFUSE("%s: configs[%u].samples: must hold 1 to 100000 numbers", path, i);
    r->samples[i] = mem_calloc(n, sizeof **r->samples);
    if (r->samples[i] == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %s", path);
    r->n_samples[i] = (uint32_t)n;
    double *work = mem_calloc(n, sizeof *work);
    if (work == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %s", path);
    kt_status s = KT_OK;
    for (size_t k = 0; k < n && s == KT_OK; k++) {
        double v = json_number_value(json_array_get(list, k));
        if (!(v > 0) || !(v < 1e6))
            s = err_set(err, KT_E_FORMAT, 0, __func__,
                        "%s: configs[%u].samples[%zu]: must be seconds above 0", path, i, k);
        r->samples[i][k] = v;
    }
    r->median[i] = ss_median(r->samples[i], (uint32_t)n, (double)INFINITY, work);
    mem_free(work);
    return s;
}

static kt_status read_configs(struct replay *r, const char *path, kt_err *err)
{
    const json_t *list = json_object_get(r->root, "configs");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0 || n > 100000)
        REFUSE("%s: configs: must be a list of 1 to 100000", path);
    /* the file's list takes the place of all combinations: its order and its gaps */
    KT_TRY(space_build(&r->space, NULL, NULL, err));
    mem_free(r->space.at);
    mem_free(r->space.rank);
    mem_free(r->space.prior);
    uint32_t axes = r->space.n_axes;
    r->space.n = r->space.room = (uint32_t)n;
    r->space.at = mem_calloc(n * (axes > 0 ? axes : 1), 1);
    r->space.rank = mem_calloc(n, sizeof *r->space.rank);
    r->space.prior = mem_calloc(n, sizeof *r->space.prior);
    r->samples = mem_calloc(n, sizeof *r->samples);
    r->n_samples = mem_calloc(n, sizeof *r->n_samples);
    r->median = mem_calloc(n, sizeof *r->median);
    r->noise = 1;
    if (r->space.at == NULL || r->space.rank == NULL || r->space.prior == NULL ||
        r->samples == NULL || r->n_samples == NULL || r->median == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %s", path);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(list, i);
        uint8_t *at = r->space.at + (size_t)i * axes;
        if (!locate(r, json_object_get(c, "config"), at))
            REFUSE("%s: configs[%u].config: must give each axis one of its values", path, i);
        r->space.rank[i] = space_rank(&r->space, at);
        KT_TRY(read_samples(r, i, c, path, err));
    }
    json_int_t ref = json_integer_value(json_object_get(r->root, "reference"));
    if (!json_is_integer(json_object_get(r->root, "reference")) || ref < 0 || ref >= (json_int_t)n)
        REFUSE("%s: reference: must be the number of a config", path);
    r->reference = (uint32_t)ref;
    return KT_OK;
}

static kt_status parse(struct replay *r, const char *path, kt_err *err)
{
    const char *schema = json_string_value(json_object_get(r->root, "schema"));
    static const char *const text[] = {"host", "kernel_abi", "goal", "created", "model"};
    const char **to[] = {&r->host, &r->kernel_abi, &r->goal, &r->created, &r->model};
    if (schema == NULL || strncmp(schema, "kt.replay/", 10) != 0)
        REFUSE("%s: is no timing table: schema must be " REPLAY_SCHEMA, path);
    if (strcmp(schema, REPLAY_SCHEMA) != 0)
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: schema %s: this version reads " REPLAY_SCHEMA, path,
                schema);
    for (int i = 0; i < 5; i++) {
        *to[i] = json_string_value(json_object_get(r->root, text[i]));
        if (*to[i] == NULL)
            REFUSE("%s: %s: must be a text", path, text[i]);
    }
    if (!json_is_object(json_object_get(r->root, "shape")))
        REFUSE("%s: shape: must be an object", path);
    KT_TRY(read_axes(r, path, err));
    return read_configs(r, path, err);
}

kt_status replay_read(const char *path, struct replay *out, kt_err *err)
{
    char *text;
    size_t len;
    json_error_t je;
    memset(out, 0, sizeof *out);
    KT_TRY(file_read(path, MAX_BYTES, &text, &len, err));
    out->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    mem_free(text);
    if (out->root == NULL)
        REFUSE("%s: line %d: %s; record it again", path, je.line, je.text);
    kt_status s = parse(out, path, err);
    if (s != KT_OK)
        replay_free(out);
    return s;
}

void replay_free(struct replay *r)
{
    for (uint32_t i = 0; r->samples != NULL && i < r->space.n; i++)
        mem_free(r->samples[i]);
    mem_free(r->samples);
    mem_free(r->n_samples);
    mem_free(r->median);
    space_free(&r->space);
    json_decref(r->root);
    memset(r, 0, sizeof *r);
}

static double draw(void *ctx, uint32_t config, uint32_t rep, uint64_t *rng)
{
    const struct replay *r = ctx;
    (void)rep;
    if (r->samples[config] == NULL)
        return -1;
    double s = r->samples[config][ss_below(rng, r->n_samples[config])], m = r->median[config];
    return m * pow(s / m, r->noise);
}

struct virtual_source replay_source(struct replay *r)
{
    return (struct virtual_source){r, draw};
}

double replay_cv(const struct replay *r)
{
    double each[256], work[256], logs[256];
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->space.n && n < 256; i++) {
        uint32_t k = r->n_samples[i] < 256 ? r->n_samples[i] : 256;
        if (r->samples[i] == NULL || k < 4)
            continue;
        for (uint32_t j = 0; j < k; j++)
            logs[j] = log(r->samples[i][j]);
        each[n++] = ss_mad(logs, k, work);
    }
    return n > 0 ? ss_median(each, n, (double)INFINITY, work) : 0;
}
