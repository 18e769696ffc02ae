/* read.c - host.json into struct profile: text rules, JSON, schema, rules between fields, then the
 * typed views. All or nothing. */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "profile/profile.h"
#include "profile/rules.h"
#include "profile/schema.h"
#include "profile/tree.h"

static kt_status check_schema(const json_t *root, const char *name, kt_err *err)
{
    struct schema *s;
    KT_TRY(schema_open((const char *)profile_schema_text, &s, err));
    kt_status st = schema_check(s, root, name, err);
    schema_close(s);
    return st;
}

kt_status profile_check_tree(const json_t *root, const char *name, kt_err *err)
{
    KT_TRY(rules_version(root, name, err));
    KT_TRY(check_schema(root, name, err));
    return rules_document(root, name, err);
}

kt_status profile_parse(const char *text, size_t len, const char *name, struct profile **out,
                        kt_err *err)
{
    json_error_t e;
    *out = NULL;
    KT_TRY(rules_text(text, len, name, err));
    struct profile *p = mem_calloc(1, sizeof *p);
    if (p == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", name);
    kt_status st = KT_OK;
    p->path = mem_strdup(name);
    p->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (p->root == NULL)
        st = err_set(err, KT_E_FORMAT, 0, __func__,
                     "%s: line %d, column %d: %s; the file is cut off or damaged, make a new one "
                     "with kttune probe",
                     name, e.line, e.column, e.text);
    else if (p->path == NULL)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "%s: out of memory", name);
    if (st == KT_OK)
        st = profile_check_tree(p->root, name, err);
    if (st == KT_OK)
        st = profile_refresh(p, err);
    if (st != KT_OK) {
        profile_close(p);
        return st;
    }
    *out = p;
    return KT_OK;
}

kt_status profile_read(const char *path, struct profile **out, kt_err *err)
{
    char *text;
    size_t len;
    *out = NULL;
    kt_status st = file_read(path, PROFILE_MAX_BYTES, &text, &len, err);
    if (st == KT_E_NOT_FOUND)
        KT_FAIL(err, st, "%s: there is no such profile; kttune probe -o FILE makes one", path);
    KT_TRY(st);
    st = profile_parse(text, len, path, out, err);
    mem_free(text);
    return st;
}

static void free_knees(struct profile_knee *k, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        mem_free((void *)k[i].because);
    mem_free(k);
}

void profile_close(struct profile *p)
{
    if (p == NULL)
        return;
    json_decref(p->root);
    profile_match_free(&p->match);
    free_knees(p->knees, p->n_knees);
    mem_free(p->path);
    mem_free(p);
}

kt_status profile_open_for_host(const char *path, const struct host *h, bool trust,
                                struct profile **out, struct profile_match *m, kt_err *err)
{
    struct profile *p;
    struct profile_match local = {0};
    *out = NULL;
    if (m != NULL)
        memset(m, 0, sizeof *m);
    KT_TRY(profile_read(path, &p, err));
    kt_status st = profile_match_host(p, h, &p->match, err);
    if (st == KT_OK && m != NULL)
        st = profile_match_host(p, h, &local, err);
    if (st != KT_OK) {
        profile_close(p);
        return st;
    }
    if (m != NULL)
        *m = local;
    if (p->match.state == PROFILE_MISMATCH && (!trust || p->datasheet))
        profile_close(p);
    else
        *out = p;
    return KT_OK;
}

/* ---- views ---- */

const char *profile_state_name(enum profile_state s)
{
    static const char *const names[] = {"none", "match", "stale", "mismatch"};
    return (unsigned)s < 4 ? names[s] : "none";
}

/* "mem.read:node3.t12" -> 3 and 12 */
static bool read_point(const char *id, int32_t *node, uint32_t *threads)
{
    char *end;
    static const char prefix[] = "mem.read:node";
    if (strncmp(id, prefix, sizeof prefix - 1) != 0)
        return false;
    long n = strtol(id + sizeof prefix - 1, &end, 10);
    if (end == id + sizeof prefix - 1 || strncmp(end, ".t", 2) != 0 || n < 0 || n > 65535)
        return false;
    const char *digits = end + 2;
    long t = strtol(digits, &end, 10);
    if (end == digits || *end != '\0' || t < 1 || t > 65535)
        return false;
    *node = (int32_t)n;
    *threads = (uint32_t)t;
    return true;
}

static bool measured(const json_t *m, double *median)
{
    const json_t *v = json_object_get(m, "median");
    *median = json_number_value(v);
    return v != NULL;
}

static int by_node(const void *a, const void *b)
{
    const struct profile_knee *x = a, *y = b;
    return (x->node > y->node) - (x->node < y->node);
}

static bool is_noisy(const json_t *m)
{
    const char *status = json_string_value(json_object_get(m, "status"));
    return status != NULL && strcmp(status, "noisy") == 0;
}

/* Fills one node's curve from the points that are there. A curve with a noisy point has no knee: it
 * does not prove that fewer threads are enough, and an unproved choice leaves the default alone.
 * false when memory is short. */
static bool read_curve(const json_t *ms, struct profile_knee *k)
{
    double v;
    int32_t node;
    uint32_t threads;
    bool noisy = false;
    k->because = mem_calloc(json_array_size(ms), sizeof *k->because);
    if (k->because == NULL)
        return false;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < json_array_size(ms); i++) {
            const json_t *m = json_array_get(ms, i);
            const char *id = json_string_value(json_object_get(m, "id"));
            if (id == NULL || !read_point(id, &node, &threads) || node != k->node ||
                !measured(m, &v))
                continue;
            if (pass == 0) {
                k->because[k->n_because++] = id;
                noisy |= is_noisy(m);
                if (v > k->read_bytes_per_second) {
                    k->read_bytes_per_second = v;
                    k->best_threads = threads;
                }
            } else if (!noisy && k->n_because > 1 && v >= 0.97 * k->read_bytes_per_second &&
                       (k->knee_threads == 0 || threads < k->knee_threads)) {
                k->knee_threads = threads;
                k->knee_bytes_per_second = v;
            }
        }
    return true;
}

static kt_status refresh_knees(struct profile *p, kt_err *err)
{
    const json_t *ms = json_object_get(p->root, "measurements");
    struct profile_knee *knees = mem_calloc(json_array_size(ms) + 1, sizeof *knees);
    uint32_t n = 0, threads;
    int32_t node;
    double v;
    bool ok = knees != NULL;
    for (size_t i = 0; ok && i < json_array_size(ms); i++) {
        const json_t *m = json_array_get(ms, i);
        const char *id = json_string_value(json_object_get(m, "id"));
        bool seen = false;
        if (id == NULL || !read_point(id, &node, &threads) || !measured(m, &v))
            continue;
        for (uint32_t k = 0; k < n; k++)
            seen |= knees[k].node == node;
        if (seen)
            continue;
        knees[n].node = node;
        ok = read_curve(ms, &knees[n++]);
    }
    if (!ok) {
        free_knees(knees, n);
        KT_FAIL(err, KT_E_NOMEM, "no memory for the curves of a profile");
    }
    qsort(knees, n, sizeof *knees, by_node);
    free_knees(p->knees, p->n_knees);
    p->knees = knees;
    p->n_knees = n;
    return KT_OK;
}

kt_status profile_refresh(struct profile *p, kt_err *err)
{
    const json_t *fp = json_object_get(p->root, "fingerprint");
    p->id = json_string_value(json_object_get(p->root, "id"));
    p->created = json_string_value(json_object_get(p->root, "created"));
    p->stage = json_string_value(json_object_get(p->root, "stage"));
    p->complete = json_is_true(json_object_get(p->root, "complete"));
    p->hard_id = json_string_value(json_object_get(json_object_get(fp, "hard"), "id"));
    p->soft_id = json_string_value(json_object_get(json_object_get(fp, "soft"), "id"));
    p->kernel_abi =
        json_string_value(json_object_get(json_object_get(p->root, "tool"), "kernel_abi"));
    const char *origin = json_string_value(json_object_get(p->root, "origin"));
    p->datasheet = origin != NULL && strcmp(origin, "datasheet") == 0;
    return refresh_knees(p, err);
}

static const json_t *by_id(const struct profile *p, const char *section, const char *id)
{
    const json_t *a = json_object_get(p->root, section);
    for (size_t i = 0; i < json_array_size(a); i++) {
        const char *s = json_string_value(json_object_get(json_array_get(a, i), "id"));
        if (s != NULL && strcmp(s, id) == 0)
            return json_array_get(a, i);
    }
    return NULL;
}

bool profile_median(const struct profile *p, const char *id, double *median)
{
    const json_t *m = by_id(p, "measurements", id);
    return m != NULL && measured(m, median);
}

bool profile_range(const struct profile *p, const char *id, double *median, double *min,
                   double *max)
{
    const json_t *m = by_id(p, "measurements", id);
    if (m == NULL || !measured(m, median))
        return false;
    *min = json_number_value(json_object_get(m, "min"));
    *max = json_number_value(json_object_get(m, "max"));
    return true;
}

const char *profile_decision_str(const struct profile *p, const char *id)
{
    const json_t *d = by_id(p, "decisions", id);
    if (d == NULL)
        return NULL;
    const char *s = json_string_value(json_object_get(d, "value"));
    return s != NULL ? s : "";
}

bool profile_decision_number(const struct profile *p, const char *id, double *value)
{
    const json_t *v = json_object_get(by_id(p, "decisions", id), "value");
    *value = json_number_value(v);
    return json_is_number(v);
}

const char *profile_decision_why(const struct profile *p, const char *id)
{
    const char *s = json_string_value(json_object_get(by_id(p, "decisions", id), "why"));
    return s != NULL ? s : "";
}

const char *profile_isa_level(const struct profile *p, const char *abi)
{
    const char *level = profile_decision_str(p, "kernel.isa");
    if (level == NULL || *level == '\0' || p->kernel_abi == NULL || strcmp(p->kernel_abi, abi) != 0)
        return NULL;
    return level;
}

int64_t profile_created_seconds(const struct profile *p)
{
    struct tm t = {0};
    if (p->created == NULL || strptime(p->created, "%Y-%m-%dT%H:%M:%S", &t) == NULL)
        return 0;
    return (int64_t)timegm(&t);
}
