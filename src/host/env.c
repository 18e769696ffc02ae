/* env.c - the state of the machine around us: huge pages, NUMA balancing, power policy, pressure,
 * steal time, virtualisation, kernel, memory. All from text files below the root; what a source
 * does not have stays unknown (NULL, -1, HOST_UNKNOWN_BYTES). No identifying value leaves this
 * file: the boot id is hashed, serial numbers and host names are never read. One thread: the caller
 * of host_read.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "host/host_int.h"

/* "always [madvise] never" to "madvise" */
static char *bracketed(const char *root, const char *path)
{
    char *t = host_text(root, "%s", path), *a = t != NULL ? strchr(t, '[') : NULL,
         *b = a != NULL ? strchr(a, ']') : NULL;
    char *v = b != NULL ? mem_strndup(a + 1, (size_t)(b - a - 1)) : NULL;
    mem_free(t);
    return v;
}

static uint64_t meminfo_bytes(const char *text, const char *key)
{
    char *v = host_line_value(text, key);
    unsigned long long kib =
        v != NULL && v[0] >= '0' && v[0] <= '9' ? strtoull(v, NULL, 10) : ULLONG_MAX;
    mem_free(v);
    return kib < ULLONG_MAX >> 10 ? kib << 10 : HOST_UNKNOWN_BYTES;
}

/* "some avg10=1.23 ..." to 0.0123 */
static double pressure(const char *root, const char *what)
{
    char *t = host_text(root, "proc/pressure/%s", what),
         *p = t != NULL ? strstr(t, "avg10=") : NULL;
    double v = p != NULL ? strtod(p + 6, NULL) / 100 : -1;
    mem_free(t);
    return v > 1 ? 1 : v;
}

/* Share of all CPU time since boot that the hypervisor gave to others. */
static double steal(const char *root)
{
    char *t = host_text(root, "proc/stat"), *v = host_line_value(t, "cpu"), *p = v;
    double sum = 0, stolen = -1;
    for (int i = 0; p != NULL && i < 8; i++) { /* user nice system idle iowait irq softirq steal */
        char *end = p;
        double x = strtod(p, &end);
        if (end == p)
            break;
        sum += x;
        if (i == 7)
            stolen = x;
        p = end;
    }
    mem_free(v);
    mem_free(t);
    return stolen < 0 || sum <= 0 ? -1 : stolen / sum;
}

static bool read_hugetlb(struct host *h, const char *root)
{
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        char dir[4096];
        int os = h->nodes[i].os;
        snprintf(dir, sizeof dir, "%s/sys/devices/system/node/node%d/hugepages", root, os);
        DIR *d = opendir(dir);
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            struct host_hugetlb page = {.node = (uint32_t)os};
            if (strncmp(e->d_name, "hugepages-", 10) != 0)
                continue;
            page.page_bytes = strtoull(e->d_name + 10, NULL, 10) << 10;
            host_number(root, &page.total,
                        "sys/devices/system/node/node%d/hugepages/%s/nr_hugepages", os, e->d_name);
            host_number(root, &page.free,
                        "sys/devices/system/node/node%d/hugepages/%s/free_hugepages", os,
                        e->d_name);
            struct host_hugetlb *p =
                mem_realloc(h->env.hugetlb, (h->env.n_hugetlb + (size_t)1) * sizeof *p);
            if (p == NULL) {
                closedir(d);
                return false;
            }
            h->env.hugetlb = p;
            uint32_t j = h->env.n_hugetlb++; /* by node, then size: a directory has no order */
            for (; j > 0 && p[j - 1].node == page.node && p[j - 1].page_bytes > page.page_bytes;
                 j--)
                p[j] = p[j - 1];
            p[j] = page;
        }
        if (d != NULL)
            closedir(d);
    }
    return true;
}

/* "spectre_v2=Mitigation retbleed=Not": names in byte order, first word of each file */
static char *mitigations(const char *root)
{
    char dir[4096];
    struct dirent **list = NULL;
    struct strbuf b = {0};
    snprintf(dir, sizeof dir, "%s/sys/devices/system/cpu/vulnerabilities", root);
    int n = scandir(dir, &list, NULL, NULL);
    for (uint32_t done = 0; n > 0 && done < (uint32_t)n;
         done++) { /* selection by strcmp: alphasort would follow the locale */
        int least = -1;
        for (int i = 0; i < n; i++)
            if (list[i] != NULL && (least < 0 || strcmp(list[i]->d_name, list[least]->d_name) < 0))
                least = i;
        char *t =
            list[least]->d_name[0] == '.'
                ? NULL
                : host_text(root, "sys/devices/system/cpu/vulnerabilities/%s", list[least]->d_name);
        if (t != NULL)
            sb_printf(&b, "%s%s=%.*s", b.len > 0 ? " " : "", list[least]->d_name,
                      (int)strcspn(t, " :;\n"), t);
        mem_free(t);
        free(list[least]);
        list[least] = NULL;
    }
    free(list);
    return b.len > 0 ? sb_take(&b, NULL) : NULL;
}

static const char *virt_name(const struct host_isa *isa)
{
    static const char *const known[][2] = {
        {"KVMKVMKVM", "kvm"},           {"Microsoft Hv", "hyperv"}, {"VMwareVMware", "vmware"},
        {"XenVMMXenVMM", "xen"},        {"TCGTCGTCGTCG", "qemu"},   {"bhyve bhyve ", "bhyve"},
        {"VBoxVBoxVBox", "virtualbox"}, {"ACRNACRNACRN", "acrn"}};
    if (!isa->hypervisor)
        return NULL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(isa->hypervisor_id, known[i][0]) == 0)
            return known[i][1];
    return "unknown";
}

static char *container(const char *root)
{
    static const char *const marks[][2] = {{".dockerenv", "docker"},
                                           {"run/.containerenv", "podman"}};
    char *t = host_text(root, "run/systemd/container");
    for (size_t i = 0; t == NULL && i < sizeof marks / sizeof marks[0]; i++) {
        char *mark = host_text(root, "%s", marks[i][0]);
        t = mark != NULL ? mem_strdup(marks[i][1]) : NULL;
        mem_free(mark);
    }
    if (t == NULL && root[0] == '\0' && getenv("KUBERNETES_SERVICE_HOST") != NULL)
        t = mem_strdup("kubernetes");
    return t;
}

static void read_power(struct host_env *e, const char *root)
{
    uint64_t v;
    e->governor = host_text(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    e->epp = host_text(root, "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference");
    if (host_number(root, &v, "sys/devices/system/cpu/cpufreq/boost"))
        e->boost = v != 0;
    else if (host_number(root, &v, "sys/devices/system/cpu/intel_pstate/no_turbo"))
        e->boost = v == 0;
}

static void read_numbers(struct host_env *e, const char *root)
{
    uint64_t v;
    if (host_number(root, &v, "proc/sys/kernel/numa_balancing") && v <= 3)
        e->numa_balancing = (int)v;
    char *t = host_text(root, "proc/sys/kernel/perf_event_paranoid");
    if (t != NULL && t[0] != '\0')
        e->perf_event_paranoid = (int)strtol(t, NULL, 10);
    mem_free(t);
    e->psi_cpu = pressure(root, "cpu");
    e->psi_memory = pressure(root, "memory");
    e->psi_io = pressure(root, "io");
    e->steal_ratio = steal(root);
    t = host_text(root, "proc/loadavg");
    if (t != NULL && t[0] >= '0' && t[0] <= '9')
        e->load1 = strtod(t, NULL);
    mem_free(t);
    t = host_text(root, "proc/meminfo");
    e->mem_total = meminfo_bytes(t, "MemTotal");
    e->mem_available = meminfo_bytes(t, "MemAvailable");
    mem_free(t);
    t = host_text(root, "proc/sys/kernel/random/boot_id");
    if (t != NULL) {
        char hex[65];
        sha256_hex(t, strlen(t), hex);
        snprintf(e->boot_sha256, sizeof e->boot_sha256, "sha256:%s", hex);
    }
    mem_free(t);
}

static char *kernel_release(const char *root)
{
    char *t = host_text(root, "proc/sys/kernel/osrelease");
    if (t != NULL)
        return t;
    t = host_text(root, "proc/version"); /* "Linux version 5.14.0 (..." */
    char *v = t != NULL && strncmp(t, "Linux version ", 14) == 0
                  ? mem_strndup(t + 14, strcspn(t + 14, " "))
                  : NULL;
    mem_free(t);
    return v;
}

static bool warn(struct host *h)
{
    const struct host_env *e = &h->env;
    bool ok = true, pool = false;
    for (uint32_t i = 0; i < e->n_hugetlb; i++)
        pool = pool || e->hugetlb[i].free > 0;
    if (e->thp_enabled != NULL && strcmp(e->thp_enabled, "never") == 0 && !pool)
        ok = host_warnf(h, "KT015", "environment.thp",
                        "transparent huge pages are off and no huge page is reserved") &&
             ok;
    if (e->numa_balancing > 0 && h->n_nodes > 1)
        ok = host_warnf(h, "KT017", "environment.numa_balancing",
                        "numa_balancing is %d: the kernel may move weight pages",
                        e->numa_balancing) &&
             ok;
    if (e->governor != NULL &&
        (strcmp(e->governor, "powersave") == 0 || strcmp(e->governor, "conservative") == 0) &&
        (e->epp == NULL || strcmp(e->epp, "power") == 0))
        ok = host_warnf(h, "KT023", "environment.power", "frequency governor is %s", e->governor) &&
             ok;
    if (e->steal_ratio > 0.01)
        ok = host_warnf(h, "KT024", "environment.steal_ratio",
                        "%.1f %% of CPU time since boot went to other guests",
                        e->steal_ratio * 100) &&
             ok;
    bool cuda = false;
    for (uint32_t i = 0; i < h->n_gpus; i++)
        cuda = cuda || h->gpus[i].cuda;
    if (cuda && h->limits.memlock < UINT64_C(1) << 30)
        ok = host_warnf(h, "KT011", "environment.limits",
                        "only %llu bytes may be locked: staging buffers for GPUs may not be pinned",
                        (unsigned long long)h->limits.memlock) &&
             ok;
    return ok;
}

kt_status host_env_read(struct host *h, const char *root, kt_err *err)
{
    struct host_env *e = &h->env;
    e->boost = e->throttled = e->numa_balancing = -1;
    e->perf_event_paranoid = INT_MIN;
    e->psi_cpu = e->psi_memory = e->psi_io = e->steal_ratio = e->load1 = -1;
    e->mem_total = e->mem_available = HOST_UNKNOWN_BYTES;
    const char *virt = virt_name(&h->isa);
    if (virt != NULL && (e->virt = mem_strdup(virt)) == NULL)
        KT_FAIL(err, KT_E_NOMEM, "environment: out of memory");
    if (root == NULL)
        return KT_OK;
    e->container = container(root);
    read_power(e, root);
    e->thp_enabled = bracketed(root, "sys/kernel/mm/transparent_hugepage/enabled");
    e->thp_defrag = bracketed(root, "sys/kernel/mm/transparent_hugepage/defrag");
    e->kernel = kernel_release(root);
    e->bios = host_text(root, "sys/class/dmi/id/bios_version");
    e->mitigations = mitigations(root);
    read_numbers(e, root);
    if (!read_hugetlb(h, root) || !warn(h))
        KT_FAIL(err, KT_E_NOMEM, "environment: out of memory");
    return KT_OK;
}
