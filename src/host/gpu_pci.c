/* gpu_pci.c - GPU candidates: PCI devices of vendor 0x10de with base class 0x03 or 0x12 have a CUDA
 * back end; those of other vendors are listed without one; the board's own VGA chip is never a GPU.
 * Order is the PCI address, never the order of /dev/dri cards. The node is the one that the PCI
 * object hangs below, when that is one node; memory, SM count, uuid come from NVML and are filled
 * by the probe. Links to the host come from sysfs only; a source without them leaves the link null.
 * One thread: the caller of host_read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "host/host_int.h"

static bool is_gpu(const struct hwloc_pcidev_attr_s *p)
{
    static const uint32_t board_vga[] = {0x1a03, 0x102b, 0x1013, 0x1234, 0x15ad, 0x1af4,
                                         0x1b36, 0x80ee, 0x1711, 0x19e5, 0x1414};
    uint32_t base = p->class_id >> 8;
    if (base != 0x03 && base != 0x12)
        return false;
    for (size_t i = 0; i < sizeof board_vga / sizeof board_vga[0]; i++)
        if (p->vendor_id == board_vga[i])
            return false;
    return true;
}

/* "8.0 GT/s PCIe" to 3; -1 when unknown */
static int32_t generation(const char *root, const char *pci, const char *file)
{
    static const double gts[] = {2.5, 5, 8, 16, 32, 64, 128};
    char *t = host_text(root, "sys/bus/pci/devices/%s/%s", pci, file);
    double v = t != NULL ? strtod(t, NULL) : 0;
    mem_free(t);
    for (size_t i = 0; i < sizeof gts / sizeof gts[0]; i++)
        if (v > gts[i] * 0.99 && v < gts[i] * 1.01)
            return (int32_t)i + 1;
    return -1;
}

static int32_t width(const char *root, const char *pci, const char *file)
{
    uint64_t v;
    return host_number(root, &v, "sys/bus/pci/devices/%s/%s", pci, file) && v > 0 && v <= 64
               ? (int32_t)v
               : -1;
}

/* One node, or several of which one is the plain memory of the same CPUs (DRAM beside HBM): that
 * one. Otherwise nobody knows. */
static int32_t local_node(const struct host *h, hwloc_obj_t pci, hwloc_topology_t t)
{
    struct host_set near = {0};
    hwloc_obj_t a = hwloc_get_non_io_ancestor_obj(t, pci);
    const struct host_node *best = NULL;
    bool one = true;
    if (a == NULL || !host_set_from_bitmap(&near, a->nodeset))
        return -1;
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        const struct host_node *n = &h->nodes[i];
        if (!host_set_has(&near, (uint32_t)n->os) || n->bytes == 0 || host_set_count(&n->cpus) == 0)
            continue;
        if (best == NULL)
            best = n;
        else if (!host_set_equal(&best->cpus, &n->cpus))
            one = false;
        else if (n->tier == HOST_DRAM && best->tier != HOST_DRAM)
            best = n;
    }
    host_set_free(&near);
    return best != NULL && one ? best->os : -1;
}

static int order(const void *a, const void *b)
{
    return strcmp(((const struct host_gpu *)a)->pci, ((const struct host_gpu *)b)->pci);
}

static void pci_address(char *out, size_t cap, const struct hwloc_pcidev_attr_s *p)
{
    snprintf(out, cap, "%04x:%02x:%02x.%01x", (unsigned)p->domain, p->bus, p->dev, p->func & 7u);
}

/* Index of the GPU whose OS device this is (nvml0, cuda0); -1 for anything else. */
static int64_t gpu_of(const struct host *h, hwloc_obj_t o)
{
    char pci[20];
    while (o != NULL && o->type != HWLOC_OBJ_PCI_DEVICE)
        o = o->parent;
    if (o == NULL)
        return -1;
    pci_address(pci, sizeof pci, &o->attr->pcidev);
    for (uint32_t i = 0; i < h->n_gpus; i++)
        if (strcmp(h->gpus[i].pci, pci) == 0)
            return i;
    return -1;
}

/* NVLink matrix of a stored topology: MB/s, 0 where there is no link; packages may be among its
 * objects. */
static bool read_links(struct host *h, hwloc_topology_t t)
{
    struct hwloc_distances_s *d = NULL;
    unsigned n = 1;
    bool ok = true;
    if (hwloc_distances_get_by_name(t, "NVLinkBandwidth", &n, &d, 0) != 0 || n == 0 || d == NULL)
        return true;
    for (unsigned i = 0; i < d->nbobjs; i++)
        for (unsigned k = 0; k < d->nbobjs; k++) {
            int64_t a = gpu_of(h, d->objs[i]), b = gpu_of(h, d->objs[k]);
            hwloc_uint64_t v = d->values[(size_t)i * d->nbobjs + k];
            if (a < 0 || b <= a || v == 0)
                continue;
            struct host_gpu_link *p =
                mem_realloc(h->gpu_links, (h->n_gpu_links + (size_t)1) * sizeof *p);
            if (p == NULL) {
                ok = false;
                break;
            }
            h->gpu_links = p;
            p[h->n_gpu_links++] = (struct host_gpu_link){(uint32_t)a, (uint32_t)b, (double)v * 1e6};
        }
    hwloc_distances_release(t, d);
    return ok;
}

kt_status host_gpu_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_pcidev(t, o)) != NULL;) {
        const struct hwloc_pcidev_attr_s *p = &o->attr->pcidev;
        if (!is_gpu(p))
            continue;
        struct host_gpu *list = mem_realloc(h->gpus, (h->n_gpus + (size_t)1) * sizeof *list);
        if (list == NULL)
            KT_FAIL(err, KT_E_NOMEM, "GPUs: out of memory");
        h->gpus = list;
        struct host_gpu *g = &list[h->n_gpus++];
        memset(g, 0, sizeof *g);
        g->cuda = p->vendor_id == 0x10de;
        g->vendor = p->vendor_id;
        g->device = p->device_id;
        g->klass = p->class_id;
        g->memory_bytes = HOST_UNKNOWN_BYTES;
        g->sm = -1;
        pci_address(g->pci, sizeof g->pci, p);
        const char *name = hwloc_obj_get_info_by_name(o, "PCIDevice");
        if (name != NULL && (g->name = mem_strdup(name)) == NULL)
            KT_FAIL(err, KT_E_NOMEM, "GPUs: out of memory");
        g->node = local_node(h, o, t);
        g->node_origin = g->node < 0 ? "unknown" : root != NULL ? "sysfs" : "hwloc";
        g->gen_now = generation(root, g->pci, "current_link_speed");
        g->gen_max = generation(root, g->pci, "max_link_speed");
        g->width_now = width(root, g->pci, "current_link_width");
        g->width_max = width(root, g->pci, "max_link_width");
        g->no_link = g->gen_now < 0 && g->gen_max < 0 && g->width_now < 0 && g->width_max < 0;
    }
    if (h->n_gpus > 1)
        qsort(h->gpus, h->n_gpus, sizeof *h->gpus, order);
    for (uint32_t i = 0; i < h->n_gpus; i++)
        h->gpus[i].index = i;
    if (!read_links(h, t))
        KT_FAIL(err, KT_E_NOMEM, "GPUs: out of memory");
    return KT_OK;
}
