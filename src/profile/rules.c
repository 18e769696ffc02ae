/* rules.c - see rules.h. The document has passed the schema before rules_document looks at it, so
 * types and required keys are certain here. */
#include "profile/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "host/host.h"
#include "profile/profile.h"

#define REFUSE(...) KT_FAIL(err, KT_E_FORMAT, __VA_ARGS__)
#define MAX_INTEGER 9007199254740991LL

kt_status rules_text(const char *text, size_t len, const char *name, kt_err *err)
{
    int depth = 0;
    bool string = false;
    if (len > PROFILE_MAX_BYTES)
        KT_FAIL(err, KT_E_LIMIT, "%s: %zu bytes, a profile has at most %u; this is another file",
                name, len, PROFILE_MAX_BYTES);
    for (size_t i = 0; i < len; i++) {
        if (string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                string = false;
        } else if (text[i] == '"') {
            string = true;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > PROFILE_MAX_DEPTH)
                REFUSE("%s: byte %zu: nested deeper than %d levels; this is not a host profile",
                       name, i, PROFILE_MAX_DEPTH);
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        }
    }
    return KT_OK;
}

kt_status rules_version(const json_t *root, const char *name, kt_err *err)
{
    static const char prefix[] = "kt.host-profile/";
    const char *s = json_string_value(json_object_get(root, "schema"));
    if (s == NULL || strncmp(s, prefix, sizeof prefix - 1) != 0)
        REFUSE("%s: schema: must be \"%s\"; this is not a host profile", name, PROFILE_SCHEMA);
    if (strcmp(s, PROFILE_SCHEMA) == 0)
        return KT_OK;
    char *end;
    long major = strtol(s + sizeof prefix - 1, &end, 10);
    if (*end == '\0' && major > 1)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: schema: version %ld is newer than this program understands (1); update, or "
                "probe again",
                name, major);
    REFUSE("%s: schema: \"%.40s\" is not a known version; make a new profile with kttune probe",
           name, s);
}

/* Integers of any place, x_ keys included, must survive readers that keep numbers as doubles. */
static kt_status check_integers(const json_t *v, const char *name, const char *top, kt_err *err)
{
    const char *key;
    json_t *sub, *obj = (json_t *)(uintptr_t)v;
    if (json_is_integer(v) &&
        (json_integer_value(v) > MAX_INTEGER || json_integer_value(v) < -MAX_INTEGER))
        REFUSE("%s: %s: integer %lld is not below 2^53", name, top,
               (long long)json_integer_value(v));
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        KT_TRY(check_integers(json_array_get(v, i), name, top, err));
    json_object_foreach(obj, key, sub) KT_TRY(check_integers(sub, name, key, err));
    return KT_OK;
}

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static double num(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Linux list form with ascending numbers below 65536; what host_set_parse may be trusted with. */
static bool list_ascends(const char *s)
{
    long last = -1;
    while (*s != '\0') {
        char *end;
        long a = strtol(s, &end, 10), b = a;
        if (*end == '-')
            b = strtol(end + 1, &end, 10);
        if (a <= last || b < a || b > 65535)
            return false;
        last = b;
        s = *end == ',' ? end + 1 : end;
    }
    return true;
}

static kt_status check_lists(const json_t *v, const char *name, const char *path, kt_err *err)
{
    static const char *const keys[] = {"cpus", "cpuset", "affinity", "cpuset_cpus", "cpuset_mems"};
    const char *key;
    json_t *sub, *obj = (json_t *)(uintptr_t)v;
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        KT_TRY(check_lists(json_array_get(v, i), name, path, err));
    json_object_foreach(obj, key, sub)
    {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (strcmp(key, keys[i]) == 0 && json_is_string(sub) &&
                !list_ascends(json_string_value(sub)))
                REFUSE("%s: %s.%s: \"%.60s\" is not an ascending list of numbers below 65536", name,
                       path, key, json_string_value(sub));
        KT_TRY(check_lists(sub, name, path, err));
    }
    return KT_OK;
}

/* Ids of an array of objects are unique; *ids gets them as the keys of an object. */
static kt_status unique_ids(const json_t *array, const char *path, const char *name, json_t **ids,
                            kt_err *err)
{
    size_t n = json_array_size(array);
    *ids = json_object();
    if (*ids == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", name);
    for (size_t i = 0; i < n; i++) {
        const char *id = str(json_array_get(array, i), "id");
        if (json_object_get(*ids, id) != NULL) {
            json_decref(*ids);
            *ids = NULL;
            REFUSE("%s: %s[%zu].id: \"%s\" occurs twice", name, path, i, id);
        }
        json_object_set_new(*ids, id, json_true());
    }
    return KT_OK;
}

static kt_status check_measurement(const json_t *m, size_t i, const char *name, kt_err *err)
{
    const json_t *median = json_object_get(m, "median"), *ci = json_object_get(m, "ci95"),
                 *samples = json_object_get(m, "samples");
    static const char *const order[] = {"min", "q1", "median", "q3", "max"};
    if (median == NULL)
        return KT_OK;
    for (int k = 1; k < 5; k++)
        if (num(m, order[k - 1]) > num(m, order[k]))
            REFUSE("%s: measurements[%zu].%s: %g is above %s %g; min <= q1 <= median <= q3 <= max "
                   "must hold",
                   name, i, order[k - 1], num(m, order[k - 1]), order[k], num(m, order[k]));
    if (json_is_array(ci)) {
        double lo = json_number_value(json_array_get(ci, 0)),
               hi = json_number_value(json_array_get(ci, 1));
        if (lo > num(m, "median") || hi < num(m, "median"))
            REFUSE("%s: measurements[%zu].ci95: [%g, %g] does not hold the median %g", name, i, lo,
                   hi, num(m, "median"));
    }
    if (samples != NULL &&
        (json_int_t)json_array_size(samples) != json_integer_value(json_object_get(m, "n")))
        REFUSE("%s: measurements[%zu].samples: %zu values, but n is %lld", name, i,
               json_array_size(samples), (long long)json_integer_value(json_object_get(m, "n")));
    return KT_OK;
}

static kt_status check_decisions(const json_t *array, const char *path, const json_t *measured,
                                 const char *name, kt_err *err)
{
    json_t *ids;
    KT_TRY(unique_ids(array, path, name, &ids, err));
    json_decref(ids);
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *because = json_object_get(json_array_get(array, i), "because");
        for (size_t k = 0; k < json_array_size(because); k++) {
            const char *id = json_string_value(json_array_get(because, k));
            if (json_object_get(measured, id) == NULL)
                REFUSE("%s: %s[%zu].because[%zu]: no measurement has the id \"%s\"", name, path, i,
                       k, id);
        }
    }
    return KT_OK;
}

static kt_status check_nodes(const json_t *root, const char *name, kt_err *err)
{
    const json_t *nodes = json_object_get(json_object_get(root, "topology"), "nodes");
    for (size_t i = 0; i < json_array_size(nodes); i++)
        for (size_t k = 0; k < i; k++)
            if (json_integer_value(json_object_get(json_array_get(nodes, i), "os")) ==
                json_integer_value(json_object_get(json_array_get(nodes, k), "os")))
                REFUSE(
                    "%s: topology.nodes[%zu].os: node %lld occurs twice", name, i,
                    (long long)json_integer_value(json_object_get(json_array_get(nodes, i), "os")));
    return KT_OK;
}

static const json_t *decision(const json_t *root, const char *id)
{
    const json_t *all = json_object_get(root, "decisions");
    for (size_t i = 0; i < json_array_size(all); i++)
        if (strcmp(str(json_array_get(all, i), "id"), id) == 0)
            return json_array_get(all, i);
    return NULL;
}

static bool node_allowed(const json_t *root, json_int_t os)
{
    const json_t *nodes = json_object_get(json_object_get(root, "topology"), "nodes");
    for (size_t i = 0; i < json_array_size(nodes); i++)
        if (json_integer_value(json_object_get(json_array_get(nodes, i), "os")) == os)
            return json_is_true(json_object_get(json_array_get(nodes, i), "allowed"));
    return false;
}

/* CPUs of one pool: inside affinity and cpuset, and not in a pool before it (`used`, one byte per
 * CPU). */
static kt_status check_pool_cpus(const json_t *root, const char *cpus, size_t i, uint8_t *used,
                                 const char *name, kt_err *err)
{
    const json_t *limits = json_object_get(json_object_get(root, "environment"), "limits");
    const char *allowed[2] = {str(limits, "affinity"),
                              json_string_value(json_object_get(limits, "cpuset_cpus"))};
    struct host_set pool = {0};
    kt_status st = KT_OK;
    if (!list_ascends(cpus) || !host_set_parse(cpus, &pool))
        REFUSE("%s: decisions: pools[%zu].cpus: \"%.60s\" is no list of CPUs", name, i, cpus);
    for (int a = 0; a < 2 && st == KT_OK; a++) {
        struct host_set set = {0};
        if (allowed[a] == NULL || *allowed[a] == '\0' || !host_set_parse(allowed[a], &set))
            continue;
        for (int32_t cpu = host_set_next(&pool, -1); cpu >= 0 && st == KT_OK;
             cpu = host_set_next(&pool, cpu))
            if (!host_set_has(&set, (uint32_t)cpu))
                st = err_set(err, KT_E_FORMAT, 0, __func__,
                             "%s: decisions: pools[%zu].cpus: CPU %d is not allowed (%s \"%.60s\")",
                             name, i, cpu, a == 0 ? "affinity" : "cpuset", allowed[a]);
        host_set_free(&set);
    }
    for (int32_t cpu = host_set_next(&pool, -1); cpu >= 0 && st == KT_OK;
         cpu = host_set_next(&pool, cpu)) {
        if (used[cpu])
            st = err_set(err, KT_E_FORMAT, 0, __func__,
                         "%s: decisions: pools[%zu].cpus: CPU %d is in two pools", name, i, cpu);
        used[cpu] = 1;
    }
    host_set_free(&pool);
    return st;
}

static kt_status check_pools(const json_t *root, const char *name, kt_err *err)
{
    const json_t *value = json_object_get(decision(root, "pools"), "value");
    kt_status st = KT_OK;
    if (value == NULL)
        return KT_OK;
    if (!json_is_array(value))
        REFUSE("%s: decisions: pools: the value must be an array", name);
    uint8_t *used = mem_calloc(65536, 1);
    if (used == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", name);
    for (size_t i = 0; i < json_array_size(value) && st == KT_OK; i++) {
        const json_t *pool = json_array_get(value, i), *cpus = json_object_get(pool, "cpus"),
                     *mems = json_object_get(pool, "mems");
        if (!json_is_string(cpus) || !json_is_array(mems))
            st = err_set(err, KT_E_FORMAT, 0, __func__,
                         "%s: decisions: pools[%zu]: needs cpus and mems", name, i);
        else
            st = check_pool_cpus(root, json_string_value(cpus), i, used, name, err);
        for (size_t k = 0; k < json_array_size(mems) && st == KT_OK; k++)
            if (!node_allowed(root, json_integer_value(json_array_get(mems, k))))
                st = err_set(
                    err, KT_E_FORMAT, 0, __func__,
                    "%s: decisions: pools[%zu].mems: node %lld does not exist or is not allowed",
                    name, i, (long long)json_integer_value(json_array_get(mems, k)));
    }
    mem_free(used);
    return st;
}

static kt_status check_threads(const json_t *root, const char *name, kt_err *err)
{
    const json_t *total = decision(root, "threads.total"),
                 *all = json_object_get(root, "decisions");
    json_int_t sum = 0;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *d = json_array_get(all, i), *v = json_object_get(d, "value");
        if (strncmp(str(d, "id"), "threads.", 8) != 0)
            continue;
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1000000)
            REFUSE("%s: decisions[%zu].value: %s must be a number of threads", name, i,
                   str(d, "id"));
        if (strncmp(str(d, "id"), "threads.node", 12) == 0)
            sum += json_integer_value(v);
    }
    if (total != NULL && sum > json_integer_value(json_object_get(total, "value")))
        REFUSE("%s: decisions: threads.total is %lld, but the pools have %lld threads", name,
               (long long)json_integer_value(json_object_get(total, "value")), (long long)sum);
    return KT_OK;
}

static kt_status check_hashes(const json_t *root, const char *name, kt_err *err)
{
    const json_t *fp = json_object_get(root, "fingerprint");
    static const char *const parts[] = {"hard", "soft"};
    char id[72], file_id[33];
    for (int i = 0; i < 2; i++) {
        const json_t *part = json_object_get(fp, parts[i]);
        KT_TRY(profile_fields_id(json_object_get(part, "fields"), id, err));
        if (strcmp(id, str(part, "id")) != 0)
            REFUSE("%s: fingerprint.%s.id: does not match its fields; the file was changed by hand "
                   "or damaged",
                   name, parts[i]);
    }
    profile_file_id(str(json_object_get(fp, "hard"), "id"), str(json_object_get(fp, "soft"), "id"),
                    str(root, "created"), file_id);
    if (strcmp(file_id, str(root, "id")) != 0)
        REFUSE("%s: id: does not match the fingerprint and the date; the file was changed by hand "
               "or damaged",
               name);
    return KT_OK;
}

kt_status rules_document(const json_t *root, const char *name, kt_err *err)
{
    const json_t *ms = json_object_get(root, "measurements"),
                 *tunings = json_object_get(root, "tunings");
    json_t *ids;
    char path[64];
    KT_TRY(check_integers(root, name, "(document)", err));
    static const char *const sections[] = {"environment", "topology", "measurements"};
    for (int i = 0; i < 3; i++)
        KT_TRY(check_lists(json_object_get(root, sections[i]), name, sections[i], err));
    KT_TRY(check_nodes(root, name, err));
    KT_TRY(unique_ids(ms, "measurements", name, &ids, err));
    kt_status st = KT_OK;
    for (size_t i = 0; i < json_array_size(ms) && st == KT_OK; i++)
        st = check_measurement(json_array_get(ms, i), i, name, err);
    if (st == KT_OK)
        st = check_decisions(json_object_get(root, "decisions"), "decisions", ids, name, err);
    for (size_t i = 0; i < json_array_size(tunings) && st == KT_OK; i++) {
        snprintf(path, sizeof path, "tunings[%zu].decisions", i);
        st = check_decisions(json_object_get(json_array_get(tunings, i), "decisions"), path, ids,
                             name, err);
    }
    json_decref(ids);
    KT_TRY(st);
    KT_TRY(check_pools(root, name, err));
    KT_TRY(check_threads(root, name, err));
    return check_hashes(root, name, err);
}
