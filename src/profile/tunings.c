/* tunings.c - the `tunings` of a profile: what a search proved for one shape, goal and kernel
 * build. Found by equal shape, else by the nearest one in log(experts, top k, hidden, inter) among
 * those of the same weight format: kernels and their crossovers belong to a format. An entry of
 * another kernel build or another host is as good as absent. Values that equal the default of their
 * search are not handed out: the plan may know better by now.
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "profile/profile.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static uint32_t number_of(const json_t *o, const char *key)
{
    double v = json_number_value(json_object_get(o, key));
    return v >= 1 && v <= 4294967295.0 ? (uint32_t)v : 0;
}

static void shape_of(const json_t *entry, struct profile_shape *out)
{
    const json_t *s = json_object_get(entry, "shape");
    *out =
        (struct profile_shape){number_of(s, "experts"), number_of(s, "top_k"),
                               number_of(s, "hidden"), number_of(s, "inter"), text_of(s, "format")};
}

static double apart(uint32_t a, uint32_t b)
{
    double d = a > 0 && b > 0 ? log((double)a / b) : a == b ? 0 : 100;
    return d * d;
}

static double distance(const struct profile_shape *a, const struct profile_shape *b)
{
    return sqrt(apart(a->experts, b->experts) + apart(a->top_k, b->top_k) +
                apart(a->hidden, b->hidden) + apart(a->inter, b->inter));
}

/* The chosen value where it differs from the default of the search; NULL otherwise. */
static const json_t *changed(const json_t *entry, const char *key)
{
    const json_t *c = json_object_get(json_object_get(entry, "chosen"), key),
                 *d = json_object_get(json_object_get(entry, "default"), key);
    return c != NULL && !(d != NULL && json_equal(c, d)) ? c : NULL;
}

static uint32_t changed_number(const json_t *entry, const char *key)
{
    double v = json_number_value(changed(entry, key));
    return v >= 1 && v <= 4294967295.0 ? (uint32_t)v : 0;
}

static void fill(const json_t *entry, struct profile_tuning *out)
{
    const json_t *gain = json_object_get(entry, "gain");
    shape_of(entry, &out->shape);
    out->goal = text_of(entry, "goal");
    out->created = text_of(entry, "created");
    out->proved = json_is_true(json_object_get(entry, "proved"));
    out->gain = json_number_value(json_object_get(gain, "median"));
    if (!out->proved)
        return;
    out->threads = changed_number(entry, "threads");
    out->kernel = json_string_value(changed(entry, "kernel"));
    out->gemv_rows = changed_number(entry, "gemv_rows");
    out->claim_rows = changed_number(entry, "claim_rows");
    out->gemm_claim_rows = changed_number(entry, "gemm_claim_rows");
    out->spin_us = changed_number(entry, "spin_us");
    out->pages = json_string_value(changed(entry, "pages"));
    out->smt = json_string_value(changed(entry, "smt"));
    out->pools = changed_number(entry, "pools");
}

bool profile_find_tuning(const struct profile *p, const struct profile_shape *shape,
                         const char *goal, const char *abi, struct profile_tuning *out)
{
    const json_t *list = json_object_get(p->root, "tunings"), *best = NULL;
    double least = (double)INFINITY;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        struct profile_shape s;
        shape_of(e, &s);
        if (strcmp(text_of(e, "kernel_abi"), abi) != 0 || strcmp(text_of(e, "goal"), goal) != 0 ||
            strcmp(text_of(e, "host"), p->hard_id != NULL ? p->hard_id : "") != 0 ||
            strcmp(s.format, shape->format) != 0)
            continue;
        double d = distance(shape, &s);
        if (best == NULL || d < least ||
            (d == least && strcmp(text_of(e, "created"), text_of(best, "created")) > 0)) {
            best = e;
            least = d;
        }
    }
    if (best == NULL)
        return false;
    fill(best, out);
    out->exact = least == 0;
    return true;
}

static bool same_key(const json_t *a, const json_t *b)
{
    struct profile_shape x, y;
    shape_of(a, &x);
    shape_of(b, &y);
    return strcmp(text_of(a, "host"), text_of(b, "host")) == 0 &&
           strcmp(text_of(a, "goal"), text_of(b, "goal")) == 0 &&
           strcmp(text_of(a, "kernel_abi"), text_of(b, "kernel_abi")) == 0 &&
           strcmp(x.format, y.format) == 0 && distance(&x, &y) == 0;
}

kt_status profile_put_tuning(struct profile *p, struct json_t *v, kt_err *err)
{
    json_t *list = json_object_get(p->root, "tunings");
    for (size_t i = json_array_size(list); i-- > 0;)
        if (same_key(json_array_get(list, i), v))
            json_array_remove(list, i);
    if (json_array_append_new(list, v) != 0)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a tuning");
    return KT_OK;
}

/* Are all measurements that a tuning's decisions name still in the document? */
static bool founded(const struct profile *p, const json_t *entry)
{
    const json_t *ds = json_object_get(entry, "decisions"),
                 *ms = json_object_get(p->root, "measurements");
    for (size_t i = 0; i < json_array_size(ds); i++) {
        const json_t *because = json_object_get(json_array_get(ds, i), "because");
        for (size_t k = 0; k < json_array_size(because); k++) {
            const char *id = json_string_value(json_array_get(because, k));
            size_t m = 0;
            while (m < json_array_size(ms) &&
                   strcmp(text_of(json_array_get(ms, m), "id"), id != NULL ? id : "") != 0)
                m++;
            if (m == json_array_size(ms))
                return false;
        }
    }
    return true;
}

kt_status profile_keep_tunings(struct profile *p, const struct profile *old, kt_err *err)
{
    const json_t *list = json_object_get(old->root, "tunings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *e = json_array_get(list, i);
        if (founded(p, e))
            KT_TRY(profile_put_tuning(p, json_incref(e), err));
    }
    return KT_OK;
}
