/* host.c - reads a host: parses the source, loads the topology, runs the readers in their order,
 * and frees everything again. Order matters: cores before caches and kinds, memory before GPUs (a
 * GPU names a node), topology before limits (limits mark cores), limits and ISA before the
 * environment (which warns about both). One thread; a host is immutable after host_read.
 */
#include <string.h>

#include "base/mem.h"
#include "host/host_int.h"

static const char *const source_names[] = {"native", "xml",   "synthetic",
                                           "fsroot", "cpuid", "fsroot+cpuid"};

const char *host_source_root(const struct host_source *s)
{
    return s->kind == HOST_NATIVE ? "" : s->fsroot;
}

static void source_free(struct host_source *s)
{
    mem_free(s->text);
    mem_free(s->fsroot);
    mem_free(s->cpuid);
}

static kt_status source_parse(const char *spec, struct host_source *s, kt_err *err)
{
    const char *second;
    if (spec == NULL || strcmp(spec, "native") == 0) {
        s->kind = HOST_NATIVE;
        return KT_OK;
    }
    if (strncmp(spec, "xml:", 4) == 0) {
        s->kind = HOST_XML;
        s->text = mem_strdup(spec + 4);
    } else if (strncmp(spec, "syn:", 4) == 0) {
        s->kind = HOST_SYNTHETIC;
        s->text = mem_strdup(spec + 4);
    } else if (strncmp(spec, "cpuid:", 6) == 0) {
        s->kind = HOST_CPUID;
        s->cpuid = mem_strdup(spec + 6);
    } else if (strncmp(spec, "fsroot:", 7) == 0) {
        second = strstr(spec, ",cpuid:");
        s->kind = second != NULL ? HOST_FSROOT_CPUID : HOST_FSROOT;
        s->fsroot = second != NULL ? mem_strndup(spec + 7, (size_t)(second - spec - 7))
                                   : mem_strdup(spec + 7);
        s->cpuid = second != NULL ? mem_strdup(second + 7) : NULL;
    } else {
        KT_FAIL(err, KT_E_INVALID,
                "topology \"%.200s\" is none of native, xml:FILE, syn:TEXT, fsroot:DIR, cpuid:DIR, "
                "fsroot:DIR,cpuid:DIR",
                spec);
    }
    const char *first = s->text != NULL ? s->text : s->fsroot != NULL ? s->fsroot : s->cpuid;
    if (first == NULL || (s->kind == HOST_FSROOT_CPUID && s->cpuid == NULL))
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    if (first[0] == '\0' || (s->cpuid != NULL && s->cpuid[0] == '\0'))
        KT_FAIL(err, KT_E_INVALID, "topology \"%.200s\" names nothing after the colon", spec);
    return KT_OK;
}

static kt_status read_all(struct host *h, const struct host_source *s, kt_err *err)
{
    const char *root = host_source_root(s);
    hwloc_topology_t t = NULL;
    h->source = source_names[s->kind];
    KT_TRY(host_topo_load(h, s, &t, err));
    kt_status st = host_topo_facts(h, root, t, err);
    if (st == KT_OK)
        st = host_gpu_facts(h, root, t, err);
    if (st == KT_OK)
        st = host_limits_read(h, root, err);
    if (st == KT_OK)
        st = host_isa_read(h, s, t, err);
    if (st == KT_OK)
        st = host_env_read(h, root, err);
    hwloc_topology_destroy(t);
    return st;
}

kt_status host_read(const char *spec, struct host **out, kt_err *err)
{
    struct host_source s = {0};
    *out = NULL;
    struct host *h = mem_calloc(1, sizeof *h);
    if (h == NULL)
        KT_FAIL(err, KT_E_NOMEM, "host: out of memory");
    kt_status st = source_parse(spec, &s, err);
    if (st == KT_OK)
        st = read_all(h, &s, err);
    source_free(&s);
    if (st != KT_OK) {
        host_free(h);
        return st;
    }
    *out = h;
    return KT_OK;
}

static void free_topology(struct host *h)
{
    for (uint32_t i = 0; h->cores != NULL && i < h->n_cores; i++)
        host_set_free(&h->cores[i].pus);
    for (uint32_t i = 0; h->nodes != NULL && i < h->n_nodes; i++) {
        host_set_free(&h->nodes[i].cpus);
        host_set_free(&h->nodes[i].around);
        mem_free(h->nodes[i].subtype);
        mem_free(h->nodes[i].claim.initiators);
    }
    for (uint32_t i = 0; h->l3 != NULL && i < h->n_l3; i++)
        host_set_free(&h->l3[i].cpus);
    for (uint32_t i = 0; h->kinds != NULL && i < h->n_kinds; i++) {
        host_set_free(&h->kinds[i].cpus);
        mem_free(h->kinds[i].core_type);
    }
    for (uint32_t i = 0; h->gpus != NULL && i < h->n_gpus; i++) {
        mem_free(h->gpus[i].name);
        mem_free(h->gpus[i].uuid);
    }
    for (uint32_t i = 0; h->distances != NULL && i < h->n_distances; i++) {
        mem_free(h->distances[i].name);
        mem_free(h->distances[i].unit);
        mem_free(h->distances[i].nodes);
        mem_free(h->distances[i].values);
    }
    for (uint32_t i = 0; h->devdax != NULL && i < h->n_devdax; i++)
        mem_free(h->devdax[i]);
    mem_free(h->cores);
    mem_free(h->nodes);
    mem_free(h->l3);
    mem_free(h->kinds);
    mem_free(h->gpus);
    mem_free(h->gpu_links);
    mem_free(h->distances);
    mem_free(h->devdax);
}

void host_free(struct host *h)
{
    if (h == NULL)
        return;
    free_topology(h);
    struct host_limits *l = &h->limits;
    host_set_free(&l->affinity);
    host_set_free(&l->cpuset_cpus);
    host_set_free(&l->cpuset_mems);
    host_set_free(&l->allowed_pus);
    struct host_env *e = &h->env;
    char *texts[] = {e->virt,       e->container, e->governor, e->epp,        e->thp_enabled,
                     e->thp_defrag, e->kernel,    e->bios,     e->mitigations};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        mem_free(texts[i]);
    mem_free(e->hugetlb);
    mem_free(h->isa.cpuid);
    for (uint32_t i = 0; i < h->n_warnings; i++)
        host_warning_free(&h->warnings[i]);
    mem_free(h->warnings);
    mem_free(h->hwloc_version);
    mem_free(h);
}

uint64_t host_memory_allowed(const struct host *h)
{
    uint64_t least = h->env.mem_available, nodes = 0;
    bool partial =
        least ==
        HOST_UNKNOWN_BYTES; /* node sizes count where they say more than MemAvailable: guests exist
                               whose nodes report less memory than the machine has */
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        partial = partial || !h->nodes[i].allowed;
        if (h->nodes[i].allowed && h->nodes[i].bytes != HOST_UNKNOWN_BYTES)
            nodes += h->nodes[i].bytes;
    }
    if (partial && nodes > 0 && nodes < least)
        least = nodes;
    if (h->limits.memory_max < least)
        least = h->limits.memory_max;
    return h->limits.memory_high < least ? h->limits.memory_high : least;
}
