/* topo_memory.c - memory nodes: bytes, tiers, memory-side caches, what firmware claims about them,
 * and distances. Tier (host-profile section 7 rule 2): hwloc's subtype, else the MemoryTier info,
 * else dram for a node that is the nearest of some core. Firmware claims come from sysfs (access1
 * before access0, which may name a GPU or NIC) or from the memory attributes of a stored topology;
 * they are stored as claims and never as measurements. One thread: the caller of host_read.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "host/host_int.h"

#define NODE_BYTES_MAX (UINT64_C(64) << 40)

static enum host_tier tier_by_name(const char *s)
{
    if (s == NULL)
        return HOST_TIER_UNKNOWN;
    if (strcmp(s, "MCDRAM") == 0 || strcmp(s, "HBM") == 0)
        return HOST_HBM;
    if (strcmp(s, "NVM") == 0)
        return HOST_NVM;
    if (strncmp(s, "CXL", 3) == 0)
        return HOST_CXL;
    if (strcmp(s, "GPUMemory") == 0)
        return HOST_GPU;
    return strcmp(s, "DRAM") == 0 ? HOST_DRAM : HOST_TIER_UNKNOWN;
}

const char *host_tier_name(enum host_tier t)
{
    static const char *const names[] = {"dram", "hbm", "cxl", "nvm", "gpu", "unknown"};
    return names[t <= HOST_TIER_UNKNOWN ? t : HOST_TIER_UNKNOWN];
}

/* Order of rule 3: small cpusets first, then the better tier (a node without subtype counts as
 * dram), then OS index. */
static int node_order(const struct host_node *a, const struct host_node *b)
{
    uint32_t na = host_set_count(&a->cpus), nb = host_set_count(&b->cpus);
    int ta = a->tier == HOST_TIER_UNKNOWN && a->subtype == NULL ? HOST_DRAM : (int)a->tier;
    int tb = b->tier == HOST_TIER_UNKNOWN && b->subtype == NULL ? HOST_DRAM : (int)b->tier;
    if (na != nb)
        return na < nb ? -1 : 1;
    if (ta != tb)
        return ta < tb ? -1 : 1;
    return a->os < b->os ? -1 : a->os > b->os;
}

void host_nodes_by_nearness(const struct host *h, uint32_t *order)
{
    for (uint32_t i = 0; i < h->n_nodes;
         i++) { /* insertion sort: nodes are few and mostly sorted */
        uint32_t j = i;
        for (; j > 0 && node_order(&h->nodes[i], &h->nodes[order[j - 1]]) < 0; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

/* A node without any name of its kind is dram when it is the nearest node of a core; limits do not
 * matter here: this is a fact. */
static bool name_plain_nodes(struct host *h)
{
    uint32_t *order = mem_calloc(h->n_nodes, sizeof *order);
    bool *taken = mem_calloc(h->n_cores, sizeof *taken);
    bool ok = order != NULL && taken != NULL;
    if (ok)
        host_nodes_by_nearness(h, order);
    for (uint32_t i = 0; ok && i < h->n_nodes; i++) {
        struct host_node *n = &h->nodes[order[i]];
        bool got = false;
        for (uint32_t c = 0; c < h->n_cores && n->bytes > 0; c++)
            if (!taken[c] && host_set_has(&n->cpus, (uint32_t)host_set_next(&h->cores[c].pus, -1)))
                taken[c] = got = true;
        if (got && n->subtype == NULL && n->tier == HOST_TIER_UNKNOWN)
            n->tier = HOST_DRAM;
    }
    mem_free(order);
    mem_free(taken);
    return ok;
}

static bool clamp_bytes(struct host *h, const char *root)
{
    uint64_t most = NODE_BYTES_MAX, sum = 0;
    char *info = host_text(root, "proc/meminfo"), *total = host_line_value(info, "MemTotal");
    if (total != NULL && strtoull(total, NULL, 10) > 0 &&
        strtoull(total, NULL, 10) < (NODE_BYTES_MAX >> 10))
        most = strtoull(total, NULL, 10) << 10;
    mem_free(info);
    mem_free(total);
    bool ok = true;
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        struct host_node *n = &h->nodes[i];
        if (n->bytes > most) {
            char about[32];
            snprintf(about, sizeof about, "topology.nodes.%d", n->os);
            ok = host_warnf(h, "KT007", about, "node %d claims %llu bytes: taken as %llu", n->os,
                            (unsigned long long)n->bytes, (unsigned long long)most) &&
                 ok;
            n->bytes = most;
            n->clamped = true;
        }
        sum += n->bytes;
    }
    for (uint32_t i = 0; i < h->n_nodes && sum == 0; i++)
        h->nodes[i].bytes = HOST_UNKNOWN_BYTES;
    if (sum == 0)
        ok = host_warnf(h, "KT027", "topology.nodes",
                        "the source does not say how large any memory node is") &&
             ok;
    return ok;
}

static kt_status read_node(struct host *h, hwloc_obj_t o, kt_err *err)
{
    struct host_node *n = &h->nodes[h->n_nodes++];
    const char *tier = hwloc_obj_get_info_by_name(o, "MemoryTier");
    n->os = (int32_t)o->os_index;
    n->logical = (int32_t)o->logical_index;
    n->bytes = o->attr->numanode.local_memory;
    n->tier = tier_by_name(o->subtype);
    if (n->tier == HOST_TIER_UNKNOWN)
        n->tier = tier_by_name(tier);
    n->claim.access = -1;
    if (o->subtype != NULL && (n->subtype = mem_strdup(o->subtype)) == NULL)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    if (!host_set_from_bitmap(&n->cpus, o->cpuset))
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    hwloc_obj_t part = o->parent;
    while (part != NULL && (part->cpuset == NULL || hwloc_bitmap_iszero(part->cpuset)))
        part = part->parent;
    if (host_set_count(&n->cpus) == 0 && part != NULL && part->parent != NULL &&
        !host_set_from_bitmap(&n->around, part->cpuset))
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    for (hwloc_obj_t p = o->parent; p != NULL && p->type == HWLOC_OBJ_MEMCACHE; p = p->parent)
        if (p->attr->cache.size > n->memcache_bytes)
            n->memcache_bytes = p->attr->cache.size;
    bool plain =
        n->tier == HOST_DRAM ||
        n->tier == HOST_TIER_UNKNOWN; /* such a cache is made of HBM and never in front of HBM */
    for (uint32_t i = 0; i < h->n_l3 && plain; i++)
        if (h->l3[i].memory_side && host_set_meets(&h->l3[i].cpus, &n->cpus) &&
            h->l3[i].bytes > n->memcache_bytes)
            n->memcache_bytes = h->l3[i].bytes;
    for (uint32_t c = 0; c < h->n_cores; c++)
        n->cores += host_set_meets(&h->cores[c].pus, &n->cpus);
    return KT_OK;
}

/* ---- claims */

static bool claim_initiator(struct host_claim *c, int32_t node)
{
    int32_t *p = mem_realloc(c->initiators, (c->n_initiators + (size_t)1) * sizeof *p);
    if (p == NULL)
        return false;
    c->initiators = p;
    uint32_t j = c->n_initiators++;
    for (; j > 0 && p[j - 1] > node; j--)
        p[j] = p[j - 1];
    p[j] = node;
    return true;
}

/* sysfs: MB/s and ns */
static bool claim_sysfs(struct host_node *n, const char *root, int access)
{
    char dir[128], path[4096];
    uint64_t v;
    snprintf(dir, sizeof dir, "sys/devices/system/node/node%d/access%d/initiators", n->os, access);
    snprintf(path, sizeof path, "%s/%s", root, dir);
    DIR *d = opendir(path);
    if (d == NULL)
        return true;
    bool ok = true;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, "node", 4) == 0 && e->d_name[4] >= '0' && e->d_name[4] <= '9')
            ok = claim_initiator(&n->claim, (int32_t)strtol(e->d_name + 4, NULL, 10)) && ok;
    closedir(d);
    if (host_number(root, &v, "%s/read_bandwidth", dir))
        n->claim.read_bytes_per_second = (double)v * 1e6;
    if (host_number(root, &v, "%s/write_bandwidth", dir))
        n->claim.write_bytes_per_second = (double)v * 1e6;
    if (host_number(root, &v, "%s/read_latency", dir))
        n->claim.read_seconds = (double)v * 1e-9;
    if (host_number(root, &v, "%s/write_latency", dir))
        n->claim.write_seconds = (double)v * 1e-9;
    struct host_claim *c = &n->claim;
    c->present = c->firmware =
        c->n_initiators > 0 || c->read_bytes_per_second > 0 || c->read_seconds > 0;
    c->access = c->present ? access : -1;
    return ok;
}

/* Best value that the stored topology has for this attribute and node; its initiator's CPUs go to
 * `cpus` when asked. */
static double memattr(hwloc_topology_t t, hwloc_memattr_id_t id, hwloc_obj_t node,
                      struct host_set *cpus)
{
    struct hwloc_location where;
    hwloc_uint64_t v = 0;
    if (hwloc_memattr_get_best_initiator(t, id, node, 0, &where, &v) != 0)
        return 0;
    if (cpus != NULL && cpus->n_words == 0) {
        hwloc_const_cpuset_t set = where.type == HWLOC_LOCATION_TYPE_CPUSET
                                       ? where.location.cpuset
                                       : where.location.object->cpuset;
        host_set_from_bitmap(cpus, set);
    }
    return (double)v;
}

static bool claim_stored(struct host *h, struct host_node *n, hwloc_topology_t t, hwloc_obj_t o)
{
    struct host_set cpus = {0};
    double bw = memattr(t, HWLOC_MEMATTR_ID_BANDWIDTH, o, &cpus),
           lat = memattr(t, HWLOC_MEMATTR_ID_LATENCY, o, &cpus);
    double rbw = memattr(t, HWLOC_MEMATTR_ID_READ_BANDWIDTH, o, &cpus),
           wbw = memattr(t, HWLOC_MEMATTR_ID_WRITE_BANDWIDTH, o, &cpus);
    double rlat = memattr(t, HWLOC_MEMATTR_ID_READ_LATENCY, o, &cpus),
           wlat = memattr(t, HWLOC_MEMATTR_ID_WRITE_LATENCY, o, &cpus);
    struct host_claim *c = &n->claim;
    c->read_bytes_per_second = (rbw > 0 ? rbw : bw) * 1e6;
    c->write_bytes_per_second = wbw * 1e6;
    c->read_seconds = (rlat > 0 ? rlat : lat) * 1e-9;
    c->write_seconds = wlat * 1e-9;
    c->present = c->read_bytes_per_second > 0 || c->write_bytes_per_second > 0 ||
                 c->read_seconds > 0 || c->write_seconds > 0;
    bool ok = true;
    for (uint32_t i = 0; c->present && i < h->n_nodes; i++)
        if (h->nodes[i].tier == HOST_DRAM && host_set_meets(&h->nodes[i].cpus, &cpus))
            ok = claim_initiator(c, h->nodes[i].os) && ok;
    host_set_free(&cpus);
    return ok;
}

static kt_status read_claims(struct host *h, const char *root, hwloc_topology_t t, kt_err *err)
{
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        struct host_node *n = &h->nodes[i];
        bool ok = root == NULL || claim_sysfs(n, root, 1);
        if (ok && root != NULL && !n->claim.present)
            ok = claim_sysfs(n, root, 0);
        hwloc_obj_t o = hwloc_get_numanode_obj_by_os_index(t, (unsigned)n->os);
        if (ok && !n->claim.present && o != NULL)
            ok = claim_stored(h, n, t, o);
        if (!ok)
            KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    }
    return KT_OK;
}

/* ---- distances */

static bool copy_distances(struct host_distances *d, hwloc_topology_t t,
                           struct hwloc_distances_s *s, bool bandwidth)
{
    const char *name = hwloc_distances_get_name(t, s);
    d->name = mem_strdup(name != NULL && name[0] != '\0' ? name : "unnamed");
    d->unit = mem_strdup(bandwidth ? "bytes_per_second" : "relative");
    d->n = s->nbobjs;
    d->stored = (s->kind & HWLOC_DISTANCES_KIND_FROM_OS) == 0;
    d->nodes = mem_calloc(d->n, sizeof *d->nodes);
    d->values = mem_calloc((size_t)d->n * d->n, sizeof *d->values);
    if (d->name == NULL || d->unit == NULL || d->nodes == NULL || d->values == NULL)
        return false;
    for (uint32_t i = 0; i < d->n; i++)
        d->nodes[i] = (int32_t)s->objs[i]->os_index;
    for (size_t i = 0; i < (size_t)d->n * d->n; i++)
        d->values[i] = (double)s->values[i] * (bandwidth ? 1e6 : 1);
    return true;
}

static kt_status read_distances(struct host *h, hwloc_topology_t t, kt_err *err)
{
    unsigned n = 0;
    if (hwloc_distances_get_by_type(t, HWLOC_OBJ_NUMANODE, &n, NULL, 0, 0) != 0 || n == 0)
        return KT_OK;
    struct hwloc_distances_s **list = mem_calloc(n, sizeof *list);
    h->distances = mem_calloc(n, sizeof *h->distances);
    bool ok = list != NULL && h->distances != NULL;
    unsigned cap = n;
    if (ok && hwloc_distances_get_by_type(t, HWLOC_OBJ_NUMANODE, &cap, list, 0, 0) == 0)
        for (unsigned i = 0; i < n && i < cap; i++) {
            ok = ok && copy_distances(&h->distances[h->n_distances++], t, list[i],
                                      (list[i]->kind & HWLOC_DISTANCES_KIND_MEANS_BANDWIDTH) != 0);
            hwloc_distances_release(t, list[i]);
        }
    mem_free(list);
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    return KT_OK;
}

kt_status host_memory_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err)
{
    int n = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
    h->nodes = mem_calloc(n > 0 ? (size_t)n : 1, sizeof *h->nodes);
    if (h->nodes == NULL)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    /* by OS index, whatever order hwloc has: logical 1 may be the HBM of node 0 */
    hwloc_const_bitmap_t set = hwloc_get_root_obj(t)->nodeset;
    for (int os = hwloc_bitmap_first(set); os >= 0 && h->n_nodes < (uint32_t)n;
         os = hwloc_bitmap_next(set, os)) {
        hwloc_obj_t o = hwloc_get_numanode_obj_by_os_index(t, (unsigned)os);
        if (o != NULL)
            KT_TRY(read_node(h, o, err));
    }
    if (!name_plain_nodes(h) || !clamp_bytes(h, root))
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    KT_TRY(read_claims(h, root, t, err));
    KT_TRY(read_distances(h, t, err));
    for (uint32_t i = 0; i < h->n_nodes; i++)
        if (h->nodes[i].memcache_bytes > 0) {
            char about[32];
            snprintf(about, sizeof about, "topology.nodes.%d", h->nodes[i].os);
            if (!host_warnf(h, "KT016", about,
                            "node %d is behind a memory-side cache of %llu bytes: bandwidth falls "
                            "when the working set exceeds it",
                            h->nodes[i].os, (unsigned long long)h->nodes[i].memcache_bytes))
                KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
        }
    return KT_OK;
}
