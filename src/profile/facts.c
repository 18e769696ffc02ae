/* facts.c - struct host as the fact sections of host.json. Only renaming and null for what is not
 * known: no choice is made here. Privacy: device uuids and host names never enter; the boot id is a
 * hash already. */
#include "profile/facts.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define MAX_INTEGER 9007199254740991ULL

json_t *facts_text(const char *s)
{
    if (s == NULL || *s == '\0')
        return json_null();
    size_t n = strlen(s);
    while (n > 1024 && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--;
    json_t *v = json_stringn(s, n > 1024 ? 1024 : n);
    return v != NULL ? v : json_string("(not UTF-8)");
}

json_t *facts_bytes(uint64_t bytes)
{
    if (bytes == HOST_UNKNOWN_BYTES)
        return json_null();
    return json_integer((json_int_t)(bytes > MAX_INTEGER ? MAX_INTEGER : bytes));
}

json_t *facts_flag(int v)
{
    return v < 0 ? json_null() : json_boolean(v);
}

json_t *facts_set(const struct host_set *s)
{
    char *text = host_set_format(s);
    json_t *v = text != NULL ? json_string(text) : NULL;
    mem_free(text);
    return v;
}

static json_t *number_or_null(double v, bool known)
{
    return known ? json_real(v) : json_null();
}

/* v if it is one of the words, else null: the kernel may grow new words before the schema does. */
static json_t *word(const char *v, const char *const *words)
{
    for (int i = 0; v != NULL && words[i] != NULL; i++)
        if (strcmp(v, words[i]) == 0)
            return json_string(v);
    return json_null();
}

/* ---- isa ---- */

static const char *const kernel_flags[] = {
    "amxbf16", "amxint8",  "amxtile",    "avx2",    "avx512bf16", "avx512bw", "avx512dq",
    "avx512f", "avx512vl", "avx512vnni", "avxvnni", "f16c",       "fma"};

static bool enabled(const struct host *h, const char *flag)
{
    uint64_t x = h->isa.xcr0, need = 0x6;
    if (strncmp(flag, "avx512", 6) == 0)
        need = 0xe6;
    if (strncmp(flag, "amx", 3) == 0)
        need = 0x60000;
    return x == 0 ? need != 0x60000 : (x & need) == need;
}

json_t *facts_usable_isa(const struct host *h)
{
    json_t *a = json_array();
    for (size_t k = 0; k < sizeof kernel_flags / sizeof *kernel_flags; k++)
        for (uint32_t i = 0; i < h->isa.n_cpuid; i++)
            if (strcmp(h->isa.cpuid[i], kernel_flags[k]) == 0) {
                if (enabled(h, kernel_flags[k]))
                    json_array_append_new(a, json_string(kernel_flags[k]));
                break;
            }
    return a;
}

bool facts_isa(const struct host *h, json_t *root)
{
    json_t *isa = json_object(), *flags = json_array(), *amx = json_object();
    char xcr0[24];
    for (uint32_t i = 0; i < h->isa.n_cpuid; i++)
        json_array_append_new(flags, json_string(h->isa.cpuid[i]));
    snprintf(xcr0, sizeof xcr0, "0x%llx", (unsigned long long)h->isa.xcr0);
    json_object_set_new(isa, "arch", json_string(h->isa.arch[0] ? h->isa.arch : "unknown"));
    json_object_set_new(isa, "cpuid", flags);
    json_object_set_new(isa, "usable", facts_usable_isa(h));
    json_object_set_new(isa, "xcr0", h->isa.xcr0 != 0 ? json_string(xcr0) : json_null());
    json_object_set_new(amx, "cpuid", json_boolean(h->isa.amx_cpuid));
    json_object_set_new(amx, "kernel", json_boolean(h->isa.amx_kernel));
    json_object_set_new(
        amx, "permission",
        json_string(h->isa.amx_permission != NULL ? h->isa.amx_permission : "not_asked"));
    json_object_set_new(amx, "selftest", json_string("skipped"));
    json_object_set_new(isa, "amx", amx);
    json_object_set_new(isa, "variants", json_array());
    if (h->isa.brand[0] != '\0')
        json_object_set_new(isa, "x_brand", facts_text(h->isa.brand));
    return json_object_set_new(root, "isa", isa) == 0;
}

/* ---- environment ---- */

static json_t *limits(const struct host *h)
{
    const struct host_limits *l = &h->limits;
    json_t *o = json_object();
    json_object_set_new(o, "cgroup", json_string(l->cgroup != NULL ? l->cgroup : "none"));
    json_object_set_new(o, "affinity", facts_set(&l->affinity));
    json_object_set_new(o, "cpuset_cpus", l->has_cpuset ? facts_set(&l->cpuset_cpus) : json_null());
    json_object_set_new(o, "cpuset_mems", l->has_cpuset ? facts_set(&l->cpuset_mems) : json_null());
    json_object_set_new(o, "cpu_quota_cores", number_or_null(l->quota_cores, l->quota_cores > 0));
    json_object_set_new(o, "memory_max_bytes", facts_bytes(l->memory_max));
    json_object_set_new(o, "memory_high_bytes", facts_bytes(l->memory_high));
    json_object_set_new(o, "memlock_bytes", facts_bytes(l->memlock));
    json_object_set_new(o, "cores_allowed",
                        json_integer(l->cores_allowed > 0 ? l->cores_allowed : 1));
    json_object_set_new(o, "cores_budget", json_integer(l->cores_budget > 0 ? l->cores_budget : 1));
    json_object_set_new(
        o, "throttled_periods",
        facts_bytes(l->throttled_periods == HOST_UNKNOWN_BYTES ? 0 : l->throttled_periods));
    json_object_set_new(o, "throttled_seconds",
                        json_real(l->throttled_seconds > 0 ? l->throttled_seconds : 0));
    return o;
}

static json_t *ratio(double v)
{
    return v < 0 ? json_null() : json_real(v > 1 ? 1 : v);
}

bool facts_environment(const struct host *h, json_t *root)
{
    static const char *const enabled_words[] = {"always", "madvise", "never", NULL};
    static const char *const defrag_words[] = {"always",  "defer", "defer+madvise",
                                               "madvise", "never", NULL};
    const struct host_env *v = &h->env;
    json_t *e = json_object(), *power = json_object(), *thp = json_object(), *huge = json_array(),
           *psi = json_object();
    json_object_set_new(e, "identity", json_string(h->isa.masked ? "masked" : "native"));
    json_object_set_new(e, "virt", facts_text(v->virt));
    json_object_set_new(e, "container", facts_text(v->container));
    json_object_set_new(e, "limits", limits(h));
    json_object_set_new(power, "governor", facts_text(v->governor));
    json_object_set_new(power, "boost", facts_flag(v->boost));
    json_object_set_new(power, "epp", facts_text(v->epp));
    json_object_set_new(power, "throttled", facts_flag(v->throttled));
    json_object_set_new(e, "power", power);
    json_object_set_new(thp, "enabled", word(v->thp_enabled, enabled_words));
    json_object_set_new(thp, "defrag", word(v->thp_defrag, defrag_words));
    json_object_set_new(e, "thp", thp);
    for (uint32_t i = 0; i < v->n_hugetlb; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "node", json_integer(v->hugetlb[i].node));
        json_object_set_new(o, "page_bytes", facts_bytes(v->hugetlb[i].page_bytes));
        json_object_set_new(o, "total", facts_bytes(v->hugetlb[i].total));
        json_object_set_new(o, "free", facts_bytes(v->hugetlb[i].free));
        json_array_append_new(huge, o);
    }
    json_object_set_new(e, "hugetlb", huge);
    json_object_set_new(e, "numa_balancing",
                        v->numa_balancing >= 0 && v->numa_balancing <= 3
                            ? json_integer(v->numa_balancing)
                            : json_null());
    json_object_set_new(e, "perf_event_paranoid",
                        v->perf_event_paranoid != INT_MIN ? json_integer(v->perf_event_paranoid)
                                                          : json_null());
    if (v->psi_cpu >= 0)
        json_object_set_new(psi, "cpu", ratio(v->psi_cpu));
    if (v->psi_memory >= 0)
        json_object_set_new(psi, "memory", ratio(v->psi_memory));
    if (v->psi_io >= 0)
        json_object_set_new(psi, "io", ratio(v->psi_io));
    json_object_set_new(e, "psi", psi);
    json_object_set_new(e, "steal_ratio", ratio(v->steal_ratio));
    json_object_set_new(e, "load1", number_or_null(v->load1, v->load1 >= 0));
    json_object_set_new(e, "boot", facts_text(v->boot_sha256));
    return json_object_set_new(root, "environment", e) == 0;
}

/* ---- topology ---- */

static json_t *claim(const struct host_claim *c)
{
    json_t *o = json_object(), *init = json_array();
    const struct {
        const char *key;
        double v;
    } rates[] = {{"read_bytes_per_second", c->read_bytes_per_second},
                 {"write_bytes_per_second", c->write_bytes_per_second},
                 {"read_seconds", c->read_seconds},
                 {"write_seconds", c->write_seconds}};
    json_object_set_new(o, "origin", json_string(c->firmware ? "firmware" : "stored"));
    json_object_set_new(o, "access",
                        c->access == 0 || c->access == 1 ? json_integer(c->access) : json_null());
    for (uint32_t i = 0; i < c->n_initiators; i++)
        json_array_append_new(init, json_integer(c->initiators[i]));
    json_object_set_new(o, "initiators", init);
    for (int i = 0; i < 4; i++)
        if (rates[i].v > 0)
            json_object_set_new(o, rates[i].key, json_real(rates[i].v));
    return o;
}

static json_t *nodes(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        const struct host_node *n = &h->nodes[i];
        json_t *o = json_object();
        json_object_set_new(o, "os", json_integer(n->os));
        json_object_set_new(o, "logical", json_integer(n->logical >= 0 ? n->logical : 0));
        json_object_set_new(o, "allowed", json_boolean(n->allowed));
        json_object_set_new(o, "cpuset", facts_set(&n->cpus));
        json_object_set_new(o, "cores", json_integer(n->cores));
        json_object_set_new(o, "bytes", facts_bytes(n->bytes));
        json_object_set_new(o, "tier", json_string(host_tier_name(n->tier)));
        json_object_set_new(o, "subtype", facts_text(n->subtype));
        json_object_set_new(
            o, "memcache_bytes",
            facts_bytes(n->memcache_bytes == HOST_UNKNOWN_BYTES ? 0 : n->memcache_bytes));
        if (n->claim.present)
            json_object_set_new(o, "claims", claim(&n->claim));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *index_or_null(int32_t v)
{
    return v < 0 ? json_null() : json_integer(v);
}

static json_t *gpus(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_gpus; i++) {
        const struct host_gpu *g = &h->gpus[i];
        json_t *o = json_object(), *link = g->no_link ? json_null() : json_object();
        json_object_set_new(o, "index", json_integer(g->index));
        json_object_set_new(o, "backend", json_string(g->cuda ? "cuda" : "none"));
        json_object_set_new(o, "name", facts_text(g->name));
        json_object_set_new(o, "pci", json_string(g->pci));
        json_object_set_new(
            o, "memory_bytes",
            facts_bytes(g->memory_bytes > 0 ? g->memory_bytes : HOST_UNKNOWN_BYTES));
        json_object_set_new(o, "sm", g->sm > 0 ? json_integer(g->sm) : json_null());
        json_object_set_new(o, "node", index_or_null(g->node));
        json_object_set_new(o, "node_origin",
                            json_string(g->node_origin != NULL ? g->node_origin : "unknown"));
        if (!g->no_link) {
            json_object_set_new(link, "gen_now", index_or_null(g->gen_now));
            json_object_set_new(link, "gen_max", index_or_null(g->gen_max));
            json_object_set_new(link, "width_now", index_or_null(g->width_now));
            json_object_set_new(link, "width_max", index_or_null(g->width_max));
        }
        json_object_set_new(o, "link", link);
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *caches(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_l3; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "cpus", facts_set(&h->l3[i].cpus));
        json_object_set_new(o, "bytes",
                            facts_bytes(h->l3[i].bytes == HOST_UNKNOWN_BYTES ? 0 : h->l3[i].bytes));
        if (h->l3[i].memory_side)
            json_object_set_new(o, "memory_side", json_true());
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *kinds(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_kinds; i++) {
        const struct host_kind *k = &h->kinds[i];
        json_t *o = json_object();
        json_object_set_new(o, "cpus", facts_set(&k->cpus));
        json_object_set_new(o, "rank", index_or_null(k->rank));
        json_object_set_new(o, "class", json_integer(k->klass));
        json_object_set_new(o, "max_hz", number_or_null(k->max_hz, k->max_hz > 0));
        json_object_set_new(o, "capacity",
                            k->capacity >= 0 ? json_integer(k->capacity) : json_null());
        json_object_set_new(o, "core_type", facts_text(k->core_type));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *distances(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_distances; i++) {
        const struct host_distances *d = &h->distances[i];
        json_t *o = json_object(), *ids = json_array(), *rows = json_array();
        for (uint32_t r = 0; r < d->n; r++) {
            json_t *row = json_array();
            json_array_append_new(ids, json_integer(d->nodes[r]));
            for (uint32_t c = 0; c < d->n; c++)
                json_array_append_new(row, json_real(d->values[(size_t)r * d->n + c]));
            json_array_append_new(rows, row);
        }
        json_object_set_new(o, "name",
                            json_string(d->name != NULL && d->name[0] ? d->name : "unnamed"));
        json_object_set_new(o, "unit", json_string(d->unit != NULL ? d->unit : "relative"));
        json_object_set_new(o, "origin", json_string(d->stored ? "stored" : "firmware"));
        json_object_set_new(o, "nodes", ids);
        json_object_set_new(o, "values", rows);
        json_array_append_new(a, o);
    }
    return a;
}

bool facts_topology(const struct host *h, json_t *root)
{
    json_t *t = json_object();
    json_object_set_new(t, "source", json_string(h->source));
    json_object_set_new(t, "this_system", json_boolean(h->this_system));
    json_object_set_new(t, "packages", json_integer(h->packages));
    json_object_set_new(t, "cores", json_integer(h->n_cores > 0 ? h->n_cores : 1));
    json_object_set_new(t, "pus", json_integer(h->n_pus > 0 ? h->n_pus : 1));
    json_object_set_new(t, "smt", json_integer(h->smt > 0 ? h->smt : 1));
    json_object_set_new(t, "nodes", nodes(h));
    json_object_set_new(t, "l3", caches(h));
    json_object_set_new(t, "cpukinds", kinds(h));
    json_object_set_new(t, "gpus", gpus(h));
    json_object_set_new(t, "distances", distances(h));
    return json_object_set_new(root, "topology", t) == 0;
}
