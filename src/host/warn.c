/* warn.c - the list of warning codes: severity, meaning and what to do about each. Texts with
 * numbers are written where the fact is found; this table gives the severity and the fix, so that
 * one code always has one remedy. Any thread; the table is constant.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "host/host_int.h"

static const struct host_code codes[] = {
    {"KT001", "info", "CPU identity is masked",
     "measure again after moving the virtual machine; pass the host CPU through for a stable "
     "identity"},
    {"KT002", "warning", "HWLOC_* environment variables were set by others",
     "unset them: they can replace the machine by another one"},
    {"KT003", "info", "not this system", "run on the described machine to measure it"},
    {"KT004", "warning", "memory node of unknown kind",
     "measure it (kttune probe --only mem.matrix) or name it with --fast-tier"},
    {"KT005", "info", "CPUs without local memory",
     "they serve the server threads; widen cpuset.mems to use them for work"},
    {"KT006", "warning", "only remote memory is allowed",
     "allow a memory node near the allowed CPUs (cpuset.mems)"},
    {"KT007", "warning", "impossible memory size was clamped",
     "update the firmware or kernel that reports it"},
    {"KT008", "warning", "CPU quota is below the allowed cores",
     "raise the quota (cpu.max, --cpus) or give whole cores with a cpuset"},
    {"KT009", "warning", "throttled while measuring", "raise the CPU quota and measure again"},
    {"KT010", "warning", "noise or drift while measuring", "repeat on an idle machine"},
    {"KT011", "warning", "locked-memory limit is small",
     "raise it: ulimit -l unlimited, LimitMEMLOCK=infinity"},
    {"KT012", "error", "memory limit below the plan",
     "raise the memory limit or choose a smaller model or context"},
    {"KT014", "warning", "core kinds are unranked", "measure the core classes: kttune probe"},
    {"KT015", "info", "no huge pages",
     "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"},
    {"KT016", "warning", "memory-side cache",
     "keep the working set below its size, or boot in flat mode"},
    {"KT017", "warning", "automatic NUMA balancing is on", "sysctl kernel.numa_balancing=0"},
    {"KT018", "warning", "GPU node is disputed", "measure host to device copies: kttune probe"},
    {"KT019", "warning", "GPU link is slower than it could be",
     "check slot and riser; measure again under load"},
    {"KT020", "info", "no hardware counters",
     "install libpapi and set kernel.perf_event_paranoid to 2 or less"},
    {"KT021", "warning", "AMX is not permitted",
     "Linux 5.16 or later is needed, and no small alternate signal stack"},
    {"KT022", "error", "a kernel variant failed its self-test",
     "report it; the variant is not used"},
    {"KT023", "warning", "CPU frequency governor saves power",
     "cpupower frequency-set -g performance"},
    {"KT024", "warning", "time is stolen by the hypervisor", "use dedicated CPUs"},
    {"KT025", "warning", "profile is stale", "kttune probe"},
    {"KT026", "warning", "profile is of another host", "kttune probe"},
    {"KT027", "warning", "memory capacity is unknown", "use a source that has memory facts"},
    {"KT028", "info", "DAX device that is not memory yet",
     "daxctl reconfigure-device --mode=system-ram DEVICE"},
    {"KT029", "warning", "slow peer path between GPUs", "check IOMMU and ACS settings"},
    {"KT030", "warning", "GPU is near a forbidden memory node", "allow that node (cpuset.mems)"},
    {"KT031", "warning", "a probe ran out of time",
     "look for a hung driver; measure that id again"},
};

const struct host_code *host_code(const char *code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].code, code) == 0)
            return &codes[i];
    return NULL;
}

void host_warning_free(struct host_warning *w)
{
    mem_free(w->text);
    mem_free(w->fix);
    mem_free(w->about);
    memset(w, 0, sizeof *w);
}

bool host_warning_add(struct host_warning **list, uint32_t *n, const struct host_warning *in)
{
    struct host_warning *p = mem_realloc(*list, (*n + (size_t)1) * sizeof *p);
    if (p == NULL)
        return false;
    *list = p;
    struct host_warning w = *in;
    w.text = mem_strdup(in->text);
    w.fix = in->fix != NULL ? mem_strdup(in->fix) : NULL;
    w.about = in->about != NULL ? mem_strdup(in->about) : NULL;
    if (w.text == NULL || (in->fix != NULL && w.fix == NULL) ||
        (in->about != NULL && w.about == NULL)) {
        host_warning_free(&w);
        return false;
    }
    p[(*n)++] = w;
    return true;
}

bool host_warn(struct host *h, const char *code, const char *severity, const char *about,
               const char *fix, const char *text)
{
    char about_copy[256] = "", fix_copy[512] = "", text_copy[1024] = "";
    struct host_warning w = {.severity = severity, .text = text_copy};
    strncpy(w.code, code, sizeof w.code - 1);
    strncpy(text_copy, text, sizeof text_copy - 1);
    if (about != NULL) {
        strncpy(about_copy, about, sizeof about_copy - 1);
        w.about = about_copy;
    }
    if (fix != NULL) {
        strncpy(fix_copy, fix, sizeof fix_copy - 1);
        w.fix = fix_copy;
    }
    return host_warning_add(&h->warnings, &h->n_warnings, &w);
}

bool host_warnf(struct host *h, const char *code, const char *about, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const struct host_code *c = host_code(code);
    return n >= 0 && host_warn(h, code, c != NULL ? c->severity : "warning", about,
                               c != NULL ? c->fix : NULL, text);
}
