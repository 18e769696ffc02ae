/* rehost.c - facts of a stored profile as a struct host, so that the planner works for machines
 * that are not here. The document counts cores per node but does not list their threads: siblings
 * are taken as Linux numbers them (thread k of core i is the i-th CPU of the k-th part of the
 * node's list; neighbours when cores differ in threads). What a profile does not hold (memory in
 * use, GPU ids) stays unknown. this_system is false: nothing can be measured or bound on it.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "profile/profile.h"

struct maker {
    const json_t *root;
    struct host *h;
    bool oom;
};

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static char *copy(struct maker *m, const char *s)
{
    char *c = s != NULL ? mem_strdup(s) : NULL;
    m->oom = m->oom || (s != NULL && c == NULL);
    return c;
}

static uint64_t bytes_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : HOST_UNKNOWN_BYTES;
}

static int32_t index_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (int32_t)json_integer_value(v) : -1;
}

static void set_of(struct maker *m, const json_t *o, const char *key, struct host_set *out)
{
    const char *s = text(o, key);
    if (s != NULL && s[0] != '\0' && !host_set_parse(s, out))
        m->oom = true;
}

static void *array(struct maker *m, size_t n, size_t size)
{
    void *p = mem_calloc(n > 0 ? n : 1, size);
    m->oom = m->oom || p == NULL;
    return p;
}

static enum host_tier tier_of(const char *name)
{
    for (int t = HOST_DRAM; t <= HOST_TIER_UNKNOWN; t++)
        if (name != NULL && strcmp(host_tier_name((enum host_tier)t), name) == 0)
            return (enum host_tier)t;
    return HOST_TIER_UNKNOWN;
}

static void make_nodes(struct maker *m, const json_t *topo)
{
    const json_t *a = json_object_get(topo, "nodes");
    struct host *h = m->h;
    size_t n = json_array_size(a);
    h->nodes = array(m, n, sizeof *h->nodes);
    for (size_t i = 0; i < n && !m->oom; i++, h->n_nodes++) {
        const json_t *o = json_array_get(a, i);
        struct host_node *d = &h->nodes[i];
        d->os = index_of(o, "os");
        d->logical = index_of(o, "logical");
        d->allowed = json_is_true(json_object_get(o, "allowed"));
        set_of(m, o, "cpuset", &d->cpus);
        d->cores = (uint32_t)json_integer_value(json_object_get(o, "cores"));
        d->bytes = bytes_of(o, "bytes");
        d->tier = tier_of(text(o, "tier"));
        d->subtype = copy(m, text(o, "subtype"));
        d->memcache_bytes = bytes_of(o, "memcache_bytes");
        if (d->allowed && !host_set_add(&h->limits.cpuset_mems, (uint32_t)d->os))
            m->oom = true;
    }
}

static void new_core(struct maker *m, const uint32_t *pus, uint32_t n, uint32_t step)
{
    struct host *h = m->h;
    struct host_core *c = &h->cores[h->n_cores++];
    c->kind = c->l3 = -1;
    c->n_pus = n;
    for (uint32_t i = 0; i < n; i++)
        m->oom = !host_set_add(&c->pus, pus[i * step]) || m->oom;
    c->first_pu = (int32_t)pus[0];
    for (uint32_t k = 0; k < h->n_kinds; k++)
        if (host_set_meets(&c->pus, &h->kinds[k].cpus))
            c->kind = (int32_t)k;
    for (uint32_t k = 0; k < h->n_l3; k++)
        if (!h->l3[k].memory_side && host_set_meets(&c->pus, &h->l3[k].cpus))
            c->l3 = (int32_t)k;
}

/* Cores of one node from its list of CPUs that no core has yet. */
static void cores_of_node(struct maker *m, const struct host_node *d, struct host_set *done,
                          uint32_t most)
{
    uint32_t *pus = array(m, host_set_count(&d->cpus), sizeof *pus), n = 0, cores = d->cores;
    for (int32_t i = host_set_next(&d->cpus, -1); i >= 0 && pus != NULL;
         i = host_set_next(&d->cpus, i))
        if (!host_set_has(done, (uint32_t)i)) {
            pus[n++] = (uint32_t)i;
            m->oom = !host_set_add(done, (uint32_t)i) || m->oom;
        }
    if (n > 0 && cores == 0)
        cores = n;
    cores = cores < n ? cores : n;
    if (n > 0 && n % cores == 0) {
        for (uint32_t c = 0; c < cores && m->h->n_cores < most && !m->oom; c++)
            new_core(m, pus + c, n / cores, cores);
    } else { /* the first cores have two threads each, the others one */
        for (uint32_t at = 0, two = n - cores; at < n && m->h->n_cores < most && !m->oom;) {
            uint32_t take = two > 0 && at + 2 <= n ? 2 : 1;
            two -= take == 2;
            new_core(m, pus + at, take, 1);
            at += take;
        }
    }
    mem_free(pus);
}

static void make_cores(struct maker *m, const json_t *topo)
{
    struct host *h = m->h;
    struct host_set done = {0};
    uint32_t most = (uint32_t)json_integer_value(json_object_get(topo, "pus"));
    h->cores = array(m, most, sizeof *h->cores);
    for (uint32_t i = 0; i < h->n_nodes && !m->oom; i++)
        if (h->nodes[i].tier != HOST_GPU)
            cores_of_node(m, &h->nodes[i], &done, most);
    /* CPUs of no node */
    const struct host_set *all = &h->limits.affinity;
    for (int32_t i = host_set_next(all, -1); i >= 0 && !m->oom; i = host_set_next(all, i))
        if (!host_set_has(&done, (uint32_t)i) && h->n_cores < most) {
            uint32_t pu = (uint32_t)i;
            new_core(m, &pu, 1, 1);
        }
    host_set_free(&done);
}

static void make_caches(struct maker *m, const json_t *topo)
{
    const json_t *a = json_object_get(topo, "l3"), *k = json_object_get(topo, "cpukinds");
    struct host *h = m->h;
    h->l3 = array(m, json_array_size(a), sizeof *h->l3);
    for (size_t i = 0; i < json_array_size(a) && !m->oom; i++, h->n_l3++) {
        const json_t *o = json_array_get(a, i);
        set_of(m, o, "cpus", &h->l3[i].cpus);
        h->l3[i].bytes = bytes_of(o, "bytes");
        h->l3[i].memory_side = json_is_true(json_object_get(o, "memory_side"));
    }
    h->kinds = array(m, json_array_size(k), sizeof *h->kinds);
    for (size_t i = 0; i < json_array_size(k) && !m->oom; i++, h->n_kinds++) {
        const json_t *o = json_array_get(k, i), *capacity = json_object_get(o, "capacity");
        set_of(m, o, "cpus", &h->kinds[i].cpus);
        h->kinds[i].rank = index_of(o, "rank");
        h->kinds[i].klass = (uint32_t)json_integer_value(json_object_get(o, "class"));
        h->kinds[i].max_hz = json_number_value(json_object_get(o, "max_hz"));
        h->kinds[i].capacity = json_is_integer(capacity) ? json_integer_value(capacity) : -1;
        h->kinds[i].core_type = copy(m, text(o, "core_type"));
    }
}

static void make_gpus(struct maker *m, const json_t *topo)
{
    static const char *const origins[] = {"measured", "nvml", "sysfs", "hwloc"};
    const json_t *a = json_object_get(topo, "gpus");
    struct host *h = m->h;
    h->gpus = array(m, json_array_size(a), sizeof *h->gpus);
    for (size_t i = 0; i < json_array_size(a) && !m->oom; i++, h->n_gpus++) {
        const json_t *o = json_array_get(a, i);
        const char *origin = text(o, "node_origin");
        struct host_gpu *g = &h->gpus[i];
        g->index = (uint32_t)index_of(o, "index");
        g->cuda = strcmp(text(o, "backend"), "cuda") == 0;
        g->name = copy(m, text(o, "name"));
        snprintf(g->pci, sizeof g->pci, "%s", text(o, "pci"));
        g->memory_bytes = bytes_of(o, "memory_bytes");
        g->sm = index_of(o, "sm");
        g->node = index_of(o, "node");
        g->node_origin = "unknown";
        for (size_t k = 0; k < sizeof origins / sizeof origins[0]; k++)
            if (origin != NULL && strcmp(origin, origins[k]) == 0)
                g->node_origin = origins[k];
        g->gen_now = g->gen_max = g->width_now = g->width_max = -1;
    }
}

static void make_distances(struct maker *m, const json_t *topo)
{
    const json_t *a = json_object_get(topo, "distances");
    struct host *h = m->h;
    h->distances = array(m, json_array_size(a), sizeof *h->distances);
    for (size_t i = 0; i < json_array_size(a) && !m->oom; i++, h->n_distances++) {
        const json_t *o = json_array_get(a, i), *ids = json_object_get(o, "nodes"),
                     *rows = json_object_get(o, "values");
        struct host_distances *d = &h->distances[i];
        size_t n = json_array_size(ids);
        d->name = copy(m, text(o, "name"));
        d->unit = copy(m, text(o, "unit"));
        d->nodes = array(m, n, sizeof *d->nodes);
        d->values = array(m, n * n, sizeof *d->values);
        d->n = m->oom ? 0 : (uint32_t)n;
        for (uint32_t r = 0; r < d->n; r++) {
            d->nodes[r] = (int32_t)json_integer_value(json_array_get(ids, r));
            for (uint32_t c = 0; c < d->n; c++)
                d->values[r * n + c] =
                    json_number_value(json_array_get(json_array_get(rows, r), c));
        }
    }
}

static void make_limits(struct maker *m, const json_t *env)
{
    static const char *const words[] = {"none", "v1", "v2", "hybrid"};
    const json_t *l = json_object_get(env, "limits");
    struct host_limits *h = &m->h->limits;
    const char *cgroup = text(l, "cgroup");
    h->cgroup = "none";
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (cgroup != NULL && strcmp(cgroup, words[i]) == 0)
            h->cgroup = words[i];
    set_of(m, l, "affinity", &h->affinity);
    h->has_cpuset = text(l, "cpuset_cpus") != NULL;
    set_of(m, l, "cpuset_cpus", &h->cpuset_cpus);
    h->quota_cores = json_number_value(json_object_get(l, "cpu_quota_cores"));
    h->memory_max = bytes_of(l, "memory_max_bytes");
    h->memory_high = bytes_of(l, "memory_high_bytes");
    h->memlock = bytes_of(l, "memlock_bytes");
}

static void make_isa(struct maker *m)
{
    static const struct {
        uint32_t bit;
        const char *need[5];
    } levels[] = {
        {HOST_ISA_AVX2, {"avx2", "fma", "f16c"}},
        {HOST_ISA_AVX512, {"avx512f", "avx512bw", "avx512dq", "avx512vl"}},
        {HOST_ISA_AVX512VNNI, {"avx512vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"}},
        {HOST_ISA_AVX512BF16, {"avx512bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl"}},
        {HOST_ISA_AVXVNNI, {"avxvnni", "avx2"}},
        {HOST_ISA_AMX, {"amxtile", "amxint8", "amxbf16"}},
    };
    const json_t *isa = json_object_get(m->root, "isa"), *usable = json_object_get(isa, "usable");
    struct host_isa *h = &m->h->isa;
    h->known = true;
    snprintf(h->arch, sizeof h->arch, "%.31s", text(isa, "arch"));
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        bool all = true;
        for (int k = 0; k < 5 && levels[i].need[k] != NULL; k++) {
            bool one = false;
            for (size_t f = 0; f < json_array_size(usable); f++)
                one = one ||
                      strcmp(json_string_value(json_array_get(usable, f)), levels[i].need[k]) == 0;
            all = all && one;
        }
        const json_t *amx = json_object_get(isa, "amx");
        if (levels[i].bit == HOST_ISA_AMX &&
            strcmp(text(amx, "permission") != NULL ? text(amx, "permission") : "", "granted") != 0)
            all = false;
        h->kern_isa |= all ? levels[i].bit : 0;
    }
}

kt_status profile_host(const struct profile *p, struct host **out, kt_err *err)
{
    const json_t *topo = json_object_get(p->root, "topology"),
                 *env = json_object_get(p->root, "environment");
    struct host *h = mem_calloc(1, sizeof *h);
    struct maker m = {p->root, h, h == NULL};
    *out = NULL;
    if (h != NULL) {
        h->source = "profile";
        h->packages = (uint32_t)json_integer_value(json_object_get(topo, "packages"));
        h->n_pus = (uint32_t)json_integer_value(json_object_get(topo, "pus"));
        h->smt = (uint32_t)json_integer_value(json_object_get(topo, "smt"));
        h->env.mem_total = h->env.mem_available = HOST_UNKNOWN_BYTES;
        h->env.boost = h->env.throttled = h->env.numa_balancing = -1;
        h->env.thp_enabled = copy(&m, text(json_object_get(env, "thp"), "enabled"));
        make_limits(&m, env);
        make_nodes(&m, topo);
        make_caches(&m, topo);
        make_gpus(&m, topo);
        make_distances(&m, topo);
        make_cores(&m, topo);
        make_isa(&m);
        m.oom = m.oom || !host_limits_apply(h);
    }
    if (m.oom) {
        host_free(h);
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", p->path != NULL ? p->path : "profile");
    }
    if (h->limits.cores_allowed == 0) {
        host_free(h);
        KT_FAIL(err, KT_E_FORMAT, "%s: no allowed CPU belongs to a memory node; probe again",
                p->path != NULL ? p->path : "profile");
    }
    *out = h;
    return KT_OK;
}
