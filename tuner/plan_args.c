/* plan_args.c - see plan_args.h. A what-if changes a limit or a size of the host before it is
 * planned, or states a measurement: `--set limits.cpu_quota_cores=4`, `--set
 * mem.read:node0.t8=150e9`. Nothing is measured and no file is written.
 */
#include "plan_args.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kern.h"

void plan_args_init(struct plan_args *a)
{
    *a = (struct plan_args){.reserve = -1};
}

/* A size or a number: "4", "1.5e9", "64GiB". */
static bool number(const char *s, double *out)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1},
                 {"KiB", 1024},
                 {"MiB", 1048576.0},
                 {"GiB", 1073741824.0},
                 {"TiB", 1099511627776.0},
                 {"MB", 1e6},
                 {"GB", 1e9},
                 {"TB", 1e12}};
    char *end;
    double v = strtod(s, &end);
    if (end == s || !isfinite(v) || v < 0)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(end, units[i].unit) == 0) {
            *out = v * units[i].factor;
            return true;
        }
    return false;
}

static kt_status bad_set(const char *set, kt_err *err)
{
    KT_FAIL(err, KT_E_INVALID,
            "--set %.120s: expected limits.cpu_quota_cores=N, limits.memory_max_bytes=SIZE, "
            "limits.cpuset_cpus=LIST, limits.cpuset_mems=LIST, nodeN.bytes=SIZE, gpuN.memory_bytes="
            "SIZE, or a measurement as mem.read:node0.t8=150e9",
            set);
}

/* A list that replaces one of the sets of CPUs or nodes. */
static bool set_list(struct host_set *to, const char *value)
{
    struct host_set s = {0};
    if (!host_set_parse(value, &s))
        return false;
    host_set_free(to);
    *to = s;
    return true;
}

static bool set_size(struct host *h, const char *key, const char *value)
{
    char *end;
    double v;
    bool gpu = strncmp(key, "gpu", 3) == 0;
    long n = strtol(key + (gpu ? 3 : 4), &end, 10);
    if (!number(value, &v) || strcmp(end, gpu ? ".memory_bytes" : ".bytes") != 0)
        return false;
    for (uint32_t i = 0; gpu && i < h->n_gpus; i++)
        if ((long)h->gpus[i].index == n) {
            h->gpus[i].memory_bytes = (uint64_t)v;
            return true;
        }
    for (uint32_t i = 0; !gpu && i < h->n_nodes; i++)
        if (h->nodes[i].os == n) {
            h->nodes[i].bytes = (uint64_t)v;
            return true;
        }
    return false;
}

static bool set_limit(struct host *h, const char *key, const char *value)
{
    struct host_limits *l = &h->limits;
    double v = 0;
    if (strcmp(key, "cpuset_cpus") == 0) {
        l->has_cpuset = true;
        return set_list(&l->cpuset_cpus, value);
    }
    if (strcmp(key, "cpuset_mems") == 0)
        return set_list(&l->cpuset_mems, value);
    bool none = strcmp(value, "none") == 0;
    if (!none && (!number(value, &v) || v <= 0))
        return false;
    if (strcmp(key, "cpu_quota_cores") == 0)
        l->quota_cores = none ? 0 : v;
    else if (strcmp(key, "memory_max_bytes") == 0)
        l->memory_max = none ? HOST_UNKNOWN_BYTES : (uint64_t)v;
    else if (strcmp(key, "memory_high_bytes") == 0)
        l->memory_high = none ? HOST_UNKNOWN_BYTES : (uint64_t)v;
    else
        return false;
    return true;
}

/* A measurement that was never made, or another value of one that was: SI unit of its kind. */
static kt_status set_measurement(struct plan_args *a, const char *id, const char *value,
                                 kt_err *err)
{
    double v;
    if (!number(value, &v) || v <= 0)
        return bad_set(id, err);
    json_t *all = json_object_get(a->profile->root, "measurements"), *m = NULL;
    for (size_t i = 0; i < json_array_size(all); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(all, i), "id")), id) == 0)
            m = json_array_get(all, i);
    if (m == NULL) {
        m = json_pack("{s:s,s:s,s:{s:n,s:[],s:n},s:{}}", "id", id, "what", "what-if", "where",
                      "cpus", "mem", "gpu", "params");
        json_array_append_new(all, m);
    }
    static const char *const keys[] = {"median", "q1", "q3", "min", "max"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        json_object_set_new(m, keys[i], json_real(v));
    json_object_set_new(m, "status", json_string("ok"));
    json_object_set_new(m, "x_what_if", json_true());
    return profile_refresh(a->profile, err);
}

static kt_status apply(struct plan_args *a, const char *set, kt_err *err)
{
    const char *equals = strchr(set, '=');
    char key[128];
    if (equals == NULL || equals == set || (size_t)(equals - set) >= sizeof key)
        return bad_set(set, err);
    snprintf(key, sizeof key, "%.*s", (int)(equals - set), set);
    bool ok = true;
    if (strncmp(key, "limits.", 7) == 0)
        ok = set_limit(a->host, key + 7, equals + 1);
    else if (strncmp(key, "node", 4) == 0 || strncmp(key, "gpu", 3) == 0)
        ok = strchr(key, ':') == NULL && set_size(a->host, key, equals + 1);
    else if (strchr(key, ':') == NULL && strcmp(key, "sync.wake") != 0)
        ok = false;
    if (strchr(key, ':') != NULL || strcmp(key, "sync.wake") == 0)
        return set_measurement(a, key, equals + 1, err);
    return ok ? KT_OK : bad_set(set, err);
}

/* A profile without measurements, for what-ifs on a bare topology. */
static kt_status bare_profile(struct plan_args *a, kt_err *err)
{
    struct profile_tool tool = {0};
    kern_abi(tool.kernel_abi);
    return profile_build(a->host, &tool, &a->profile, err);
}

static kt_status make_plan(struct plan_args *a, kt_err *err)
{
    struct plan_opts po;
    struct profile *p = a->profile;
    uint32_t n = p != NULL ? p->n_knees : 0;
    struct plan_measured *m = mem_calloc(n + (size_t)1, sizeof *m);
    if (m == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    for (uint32_t i = 0; i < n; i++) {
        const struct profile_knee *k = &p->knees[i];
        m[i] = (struct plan_measured){k->node,
                                      k->knee_threads,
                                      k->knee_bytes_per_second,
                                      k->read_bytes_per_second,
                                      k->best_threads,
                                      (const char *const *)k->because,
                                      k->n_because};
    }
    plan_opts_init(&po);
    po.threads = a->threads;
    po.reserve = a->reserve;
    po.measured = m;
    po.n_measured = n;
    kt_status st = plan_host(a->host, &po, &a->plan, err);
    if (st == KT_OK && plan_tuned_opts(a, a->plan, &po)) {
        plan_free(a->plan);
        a->plan = NULL;
        st = plan_host(a->host, &po, &a->plan, err);
    }
    if (st == KT_OK)
        st = plan_tuned_say(a, a->plan, err);
    mem_free(m);
    return st;
}

kt_status plan_args_open(struct plan_args *a, kt_err *err)
{
    if ((a->profile_path == NULL) == (a->topology == NULL))
        KT_FAIL(err, KT_E_INVALID, "give one of --profile FILE and --topology SPEC");
    if (a->profile_path != NULL) {
        KT_TRY(profile_read(a->profile_path, &a->profile, err));
        KT_TRY(profile_host(a->profile, &a->host, err));
    } else {
        KT_TRY(host_read(a->topology, &a->host, err));
        if (a->n_set > 0)
            KT_TRY(bare_profile(a, err));
    }
    for (uint32_t i = 0; i < a->n_set; i++)
        KT_TRY(apply(a, a->set[i], err));
    if (!host_limits_apply(a->host))
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    if (a->host->limits.cores_allowed == 0)
        KT_FAIL(err, KT_E_INVALID, "these limits leave no core to work with");
    return make_plan(a, err);
}

void plan_args_close(struct plan_args *a)
{
    plan_free(a->plan);
    host_free(a->host);
    profile_close(a->profile);
    a->plan = NULL;
    a->host = NULL;
    a->profile = NULL;
}
