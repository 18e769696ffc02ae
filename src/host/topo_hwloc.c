/* topo_hwloc.c - loads a topology with hwloc from one source and copies packages, cores, caches and
 * core kinds out of it. Memory is in topo_memory.c, GPUs in gpu_pci.c. hwloc's environment
 * variables fail open: a missing or damaged source silently becomes the native machine. So every
 * HWLOC_* variable that others set is removed (KT002), the source is checked before and the
 * topology after loading, and is_thissystem() must agree with the source. Changes the process
 * environment while loading: one thread only. Device plug-ins are kept out: a driver must never
 * hang this process.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "host/host_int.h"

extern char **environ;

#define XML_MAX (64u << 20)

bool host_set_from_bitmap(struct host_set *out, hwloc_const_bitmap_t b)
{
    memset(out, 0, sizeof *out);
    if (b == NULL || hwloc_bitmap_weight(b) < 0) /* absent or infinite */
        return true;
    for (int i = hwloc_bitmap_first(b); i >= 0; i = hwloc_bitmap_next(b, i))
        if (!host_set_add(out, (uint32_t)i)) {
            host_set_free(out);
            return false;
        }
    return true;
}

/* Unset every HWLOC_* variable; their names go to `names`. */
static void env_clear(struct strbuf *names)
{
    for (char **e = environ; e != NULL && *e != NULL;) {
        char name[256];
        size_t n = strcspn(*e, "=");
        if (strncmp(*e, "HWLOC_", 6) != 0 || n >= sizeof name) {
            e++;
            continue;
        }
        memcpy(name, *e, n);
        name[n] = '\0';
        sb_printf(names, "%s%s", names->len > 0 ? " " : "", name);
        unsetenv(name); /* shifts the array: look at the same place again */
        e = environ;
    }
}

static void env_set(const struct host_source *s)
{
    setenv("HWLOC_HIDE_ERRORS", "2", 1);
    setenv("HWLOC_PLUGINS_BLACKLIST",
           "hwloc_gl,hwloc_opencl,hwloc_cuda,hwloc_nvml,hwloc_rsmi,hwloc_levelzero", 1);
    if (s->fsroot != NULL) {
        setenv("HWLOC_FSROOT", s->fsroot, 1);
        setenv("HWLOC_DUMPED_HWDATA_DIR", "/var/run/hwloc",
               1); /* relative to the root: KNL facts are lost without it */
    }
    if (s->cpuid != NULL) {
        setenv("HWLOC_CPUID_PATH", s->cpuid, 1);
        setenv("HWLOC_X86_TOPOEXT_NUMANODES", "1", 1);
    }
    if (s->kind == HOST_FSROOT)
        setenv("HWLOC_COMPONENTS", "linux,stop", 1);
    else if (s->kind == HOST_CPUID)
        setenv("HWLOC_COMPONENTS", "x86,stop", 1);
    else if (s->kind == HOST_FSROOT_CPUID)
        setenv("HWLOC_COMPONENTS", "linux,x86,stop", 1);
    else if (s->kind == HOST_NATIVE)
        setenv("HWLOC_COMPONENTS", "-gl,-opencl,-cuda,-nvml,-rsmi,-levelzero", 1);
}

/* A tree that describes no CPU would make hwloc ask the running machine. */
static kt_status check_fsroot(const char *dir, kt_err *err)
{
    char *cpuinfo = NULL;
    if (!host_is_dir(dir, "."))
        KT_FAIL(err, KT_E_NOT_FOUND,
                "fsroot:%s: no such directory; give the folder that holds sys/ and proc/", dir);
    bool ok = host_is_dir(dir, "sys/devices/system/cpu/cpu0") ||
              host_is_dir(dir, "sys/devices/system/cpu/cpu1") ||
              host_is_dir(dir, "sys/bus/cpu/devices/cpu0");
    if (!ok) {
        cpuinfo = host_text(dir, "proc/cpuinfo");
        ok = cpuinfo != NULL && strstr(cpuinfo, "processor") != NULL;
        mem_free(cpuinfo);
    }
    if (!ok)
        KT_FAIL(err, KT_E_FORMAT,
                "fsroot:%s: describes no CPU (no sys/devices/system/cpu/cpuN and no proc/cpuinfo); "
                "gather it again",
                dir);
    return KT_OK;
}

/* Number of readable puN files; hwloc falls back to the running CPU when it cannot read them. */
static uint32_t count_pu_files(const char *dir)
{
    uint32_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        n += strncmp(e->d_name, "pu", 2) == 0 && e->d_name[2] >= '0' && e->d_name[2] <= '9';
    if (d != NULL)
        closedir(d);
    return n;
}

static kt_status check_cpuid(const char *dir, kt_err *err)
{
    if (!host_is_dir(dir, "."))
        KT_FAIL(err, KT_E_NOT_FOUND,
                "cpuid:%s: no such directory; give a folder with hwloc-cpuid-info and puN files",
                dir);
    char *info = host_text(dir, "hwloc-cpuid-info"), *pu = host_text(dir, "pu0");
    bool ok = info != NULL && strstr(info, "Architecture: x86") != NULL && pu != NULL &&
              strstr(pu, "=>") != NULL;
    mem_free(info);
    mem_free(pu);
    if (!ok)
        KT_FAIL(err, KT_E_FORMAT,
                "cpuid:%s: hwloc-cpuid-info or pu0 is missing or malformed; gather it again with "
                "hwloc-gather-cpuid",
                dir);
    return KT_OK;
}

static kt_status set_source(hwloc_topology_t t, const struct host_source *s, kt_err *err)
{
    struct stat st;
    switch (s->kind) {
    case HOST_XML:
        if (stat(s->text, &st) != 0 || !S_ISREG(st.st_mode))
            KT_FAIL(err, KT_E_NOT_FOUND, "xml:%s: no such file", s->text);
        if (st.st_size == 0 || st.st_size > XML_MAX)
            KT_FAIL(err, KT_E_FORMAT, "xml:%s: is empty or larger than 64 MiB", s->text);
        if (hwloc_topology_set_xml(t, s->text) != 0)
            KT_FAIL(err, KT_E_FORMAT,
                    "xml:%s: hwloc cannot read it (damaged, or newer than this hwloc: version 1 "
                    "and 2 are read)",
                    s->text);
        return KT_OK;
    case HOST_SYNTHETIC:
        if (hwloc_topology_set_synthetic(t, s->text) != 0)
            KT_FAIL(err, KT_E_FORMAT,
                    "syn:%s: is no synthetic topology such as \"pack:2 [numa(memory=64GB)] core:8 "
                    "pu:2\"",
                    s->text);
        return KT_OK;
    case HOST_FSROOT:
        return check_fsroot(s->fsroot, err);
    case HOST_CPUID:
        return check_cpuid(s->cpuid, err);
    case HOST_FSROOT_CPUID:
        KT_TRY(check_fsroot(s->fsroot, err));
        return check_cpuid(s->cpuid, err);
    case HOST_NATIVE:
        break;
    }
    return KT_OK;
}

static kt_status load(hwloc_topology_t t, const struct host_source *s, kt_err *err)
{
    KT_TRY(set_source(t, s, err));
    hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    hwloc_topology_set_type_filter(t, HWLOC_OBJ_MEMCACHE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    errno = 0;
    if (hwloc_topology_load(t) != 0)
        KT_FAIL_OS(err, KT_E_FORMAT, "topology cannot be loaded by hwloc (%s); check the source",
                   strerror(errno));
    bool native = s->kind == HOST_NATIVE;
    if ((hwloc_topology_is_thissystem(t) != 0) != native)
        KT_FAIL(err, KT_E_FORMAT, "topology source was not used: hwloc loaded %s instead",
                native ? "another machine" : "the running machine");
    int n_pus = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    if (n_pus < 1 || hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE) < 1)
        KT_FAIL(err, KT_E_FORMAT, "topology has no CPU or no memory node");
    if (s->kind == HOST_CPUID && (uint32_t)n_pus != count_pu_files(s->cpuid))
        KT_FAIL(err, KT_E_FORMAT,
                "cpuid:%s: %d CPUs were loaded but %u are described; gather it again", s->cpuid,
                n_pus, count_pu_files(s->cpuid));
    return KT_OK;
}

kt_status host_topo_load(struct host *h, const struct host_source *s, hwloc_topology_t *out,
                         kt_err *err)
{
    struct strbuf foreign = {0}, own = {0};
    hwloc_topology_t t = NULL;
    kt_status st = KT_OK;
    env_clear(&foreign);
    env_set(s);
    if (hwloc_topology_init(&t) != 0)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "hwloc: out of memory");
    else
        st = load(t, s, err);
    env_clear(&own);
    if (st == KT_OK && foreign.len > 0 &&
        !host_warnf(h, "KT002", NULL, "ignored and unset: %s", foreign.data))
        st = err_set(err, KT_E_NOMEM, 0, __func__, "out of memory");
    sb_free(&foreign);
    sb_free(&own);
    if (st != KT_OK && t != NULL)
        hwloc_topology_destroy(t);
    else
        *out = t;
    return st;
}

static bool core_add_pu(struct host_core *c, hwloc_obj_t pu)
{
    c->n_pus++;
    return host_set_add(&c->pus, (uint32_t)pu->os_index);
}

/* PUs come in tree order, so the PUs of a core follow each other. */
static kt_status read_cores(struct host *h, hwloc_topology_t t, kt_err *err)
{
    hwloc_obj_t pu = NULL, last = NULL;
    h->n_pus = (uint32_t)hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    h->cores = mem_calloc(h->n_pus, sizeof *h->cores);
    if (h->cores == NULL)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    while ((pu = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PU, pu)) != NULL) {
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_CORE, pu);
        if (core == NULL || core != last || h->n_cores == 0) {
            struct host_core *c = &h->cores[h->n_cores++];
            c->kind = c->l3 = c->first_pu = -1;
        }
        last = core;
        if (!core_add_pu(&h->cores[h->n_cores - 1], pu))
            KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    }
    for (uint32_t i = 0; i < h->n_cores; i++)
        if (h->cores[i].n_pus > h->smt)
            h->smt = h->cores[i].n_pus;
    h->packages = (uint32_t)hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PACKAGE);
    return KT_OK;
}

static kt_status read_l3(struct host *h, hwloc_topology_t t, kt_err *err)
{
    hwloc_obj_t o = NULL;
    int n = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_L3CACHE);
    h->l3 = mem_calloc(n > 0 ? (size_t)n : 1, sizeof *h->l3);
    if (h->l3 == NULL)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    while (n > 0 && (o = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_L3CACHE, o)) != NULL) {
        struct host_cache *c = &h->l3[h->n_l3++];
        c->bytes = o->attr->cache.size;
        c->memory_side = o->subtype != NULL && strcmp(o->subtype, "MemorySideCache") == 0;
        if (!host_set_from_bitmap(&c->cpus, o->cpuset))
            KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
        for (uint32_t i = 0; i < h->n_cores && !c->memory_side; i++)
            if (host_set_meets(&h->cores[i].pus, &c->cpus))
                h->cores[i].l3 = (int32_t)h->n_l3 - 1;
    }
    return KT_OK;
}

static const char *kind_info(struct hwloc_info_s *infos, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(infos[i].name, name) == 0)
            return infos[i].value;
    return NULL;
}

static bool within_tenth(double fast, double slow)
{
    return fast > 0 && slow > 0 && slow >= 0.9 * fast && slow <= fast / 0.9;
}

/* Kinds whose speed differs by less than 10 % are one class: hwloc splits by the last MHz. Unranked
 * kinds are one class (KT014). */
static bool merge_kinds(struct host *h)
{
    uint32_t klass = 0;
    for (uint32_t i = 0; i < h->n_kinds; i++)
        if (h->kinds[i].rank < 0)
            return h->n_kinds < 2 ||
                   host_warnf(h, "KT014", "topology.cpukinds",
                              "%u kinds of cores without an order of speed: all are treated alike",
                              h->n_kinds);
    struct host_kind *leader = NULL;
    for (int32_t rank = (int32_t)h->n_kinds - 1; rank >= 0;
         rank--) /* hwloc ranks are 0..n-1, the highest is the fastest */
        for (uint32_t i = 0; i < h->n_kinds; i++) {
            struct host_kind *k = &h->kinds[i];
            if (k->rank != rank)
                continue;
            if (leader != NULL && !within_tenth((double)leader->capacity, (double)k->capacity) &&
                !within_tenth(leader->max_hz, k->max_hz)) {
                klass++;
                leader = NULL;
            }
            k->klass = klass;
            if (leader == NULL)
                leader = k;
        }
    return true;
}

static kt_status read_kinds(struct host *h, hwloc_topology_t t, kt_err *err)
{
    int n = hwloc_cpukinds_get_nr(t, 0);
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    h->kinds = mem_calloc(n > 0 ? (size_t)n : 1, sizeof *h->kinds);
    bool ok = set != NULL && h->kinds != NULL;
    for (int i = 0; ok && i < n; i++) {
        struct hwloc_info_s *infos = NULL;
        unsigned n_infos = 0;
        int rank = -1;
        struct host_kind *k = &h->kinds[h->n_kinds];
        if (hwloc_cpukinds_get_info(t, (unsigned)i, set, &rank, &n_infos, &infos, 0) != 0)
            continue;
        h->n_kinds++;
        k->rank = rank;
        const char *hz = kind_info(infos, n_infos, "FrequencyMaxMHz"),
                   *cap = kind_info(infos, n_infos, "LinuxCapacity");
        const char *type = kind_info(infos, n_infos, "CoreType");
        k->max_hz = hz != NULL ? (double)strtoul(hz, NULL, 10) * 1e6 : 0;
        k->capacity = cap != NULL ? strtol(cap, NULL, 10) : -1;
        k->core_type = type != NULL ? mem_strdup(type) : NULL;
        ok = host_set_from_bitmap(&k->cpus, set) && (type == NULL || k->core_type != NULL);
        for (uint32_t c = 0; ok && c < h->n_cores; c++)
            if (host_set_meets(&h->cores[c].pus, &k->cpus))
                h->cores[c].kind = (int32_t)h->n_kinds - 1;
    }
    hwloc_bitmap_free(set);
    if (!ok || !merge_kinds(h))
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    return KT_OK;
}

static kt_status read_devdax(struct host *h, hwloc_topology_t t, kt_err *err)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_osdev(t, o)) != NULL;) {
        if (o->name == NULL || strncmp(o->name, "dax", 3) != 0)
            continue;
        char **p = mem_realloc(h->devdax, (h->n_devdax + (size_t)1) * sizeof *p);
        if (p == NULL)
            KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
        h->devdax = p;
        p[h->n_devdax] = mem_strdup(o->name);
        if (p[h->n_devdax++] == NULL ||
            !host_warnf(h, "KT028", o->name,
                        "%s is a DAX device (%s), not a memory node: nothing is planned on it",
                        o->name, o->subtype != NULL ? o->subtype : "kind unknown"))
            KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    }
    return KT_OK;
}

kt_status host_topo_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err)
{
    char version[32];
    unsigned v = hwloc_get_api_version();
    snprintf(version, sizeof version, "%u.%u.%u", v >> 16, v >> 8 & 0xff, v & 0xff);
    h->hwloc_version = mem_strdup(version);
    h->this_system = hwloc_topology_is_thissystem(t) != 0;
    KT_TRY(read_cores(h, t, err));
    KT_TRY(read_l3(h, t, err));
    KT_TRY(read_kinds(h, t, err));
    KT_TRY(host_memory_facts(h, root, t, err));
    KT_TRY(read_devdax(h, t, err));
    if (!host_set_from_bitmap(&h->limits.affinity, hwloc_topology_get_allowed_cpuset(t)) ||
        !host_set_from_bitmap(&h->limits.cpuset_mems, hwloc_topology_get_allowed_nodeset(t)) ||
        h->hwloc_version == NULL)
        KT_FAIL(err, KT_E_NOMEM, "topology: out of memory");
    return KT_OK;
}
