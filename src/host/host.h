/* host.h - facts about a machine: this one, or one described by a stored topology. Read once, then
 * immutable. Decides nothing, times nothing, writes nothing. Every index is an OS index (P#). Facts
 * that the source does not have are marked, never guessed. Sources: hwloc for topology, sysfs,
 * procfs and cgroup files for limits and environment, CPUID and XCR0 for the ISA, PCI for GPUs.
 */
#ifndef KT_HOST_H
#define KT_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define HOST_UNKNOWN_BYTES UINT64_MAX /* capacity, limit or size is not known or not set */

/* Bits of host_isa.kern_isa. The same values as KERN_ISA_* of kernels/kern.h, which this room may
 * not include: plan, which sees both headers, asserts at compile time that they are equal. */
enum {
    HOST_ISA_AVX2 = 1 << 0,   /* AVX2 + FMA + F16C */
    HOST_ISA_AVX512 = 1 << 1, /* F, BW, DQ, VL */
    HOST_ISA_AVX512VNNI = 1 << 2,
    HOST_ISA_AVX512BF16 = 1 << 3,
    HOST_ISA_AVXVNNI = 1 << 4,
    HOST_ISA_AMX = 1 << 5, /* INT8 and BF16 tiles, permission granted */
};

/* A growing set of OS indexes; zero-initialised is empty. */
struct host_set {
    uint64_t *bits;
    uint32_t n_words;
};
/* These four return false when memory is short; the set is unchanged then. */
bool host_set_add(struct host_set *s, uint32_t i);
bool host_set_or(struct host_set *s, const struct host_set *t);
bool host_set_copy(struct host_set *dst,
                   const struct host_set *src); /* dst is overwritten, not freed */
void host_set_and(struct host_set *s, const struct host_set *t);
void host_set_minus(struct host_set *s, const struct host_set *t);
bool host_set_meets(const struct host_set *s, const struct host_set *t); /* have a common member */
bool host_set_equal(const struct host_set *s, const struct host_set *t);
bool host_set_has(const struct host_set *s, uint32_t i);
uint32_t host_set_count(const struct host_set *s);
int32_t host_set_next(const struct host_set *s, int32_t after); /* first member > after, or -1 */
/* Linux list form "0-3,8"; the caller frees it with mem_free. NULL when memory is short. */
char *host_set_format(const struct host_set *s);
/* *out is overwritten. false if the text is no list, has an index above 1048575, or memory is
 * short; *out is empty then. */
bool host_set_parse(const char *text, struct host_set *out);
void host_set_free(struct host_set *s);

enum host_tier { HOST_DRAM, HOST_HBM, HOST_CXL, HOST_NVM, HOST_GPU, HOST_TIER_UNKNOWN };
const char *host_tier_name(enum host_tier t);

struct host_core {
    uint32_t n_pus;
    int32_t first_pu; /* lowest allowed PU, or lowest PU if none is allowed */
    bool allowed;     /* has an allowed PU */
    struct host_set pus;
    int32_t kind; /* index into kinds, -1 */
    int32_t l3;   /* index into l3 of the cache to block for, -1 */
};

struct host_claim { /* what firmware or a stored topology says; never a measurement */
    bool present, firmware;
    int32_t access; /* 0, 1 or -1 */
    int32_t *initiators;
    uint32_t n_initiators;
    double read_bytes_per_second, write_bytes_per_second, read_seconds,
        write_seconds; /* 0: not stated */
};

struct host_node {
    int32_t os, logical;
    bool allowed;           /* in cpuset mems */
    struct host_set cpus;   /* all PUs near it, allowed or not */
    struct host_set around; /* of a node without CPUs: PUs of the smallest part of the machine that
                               it is in; empty when that is all of it */
    uint32_t cores;         /* cores with a PU in cpus */
    uint64_t bytes;         /* HOST_UNKNOWN_BYTES when the source has no memory facts */
    bool clamped;           /* bytes were impossible and were cut (KT007) */
    enum host_tier tier;
    char *subtype; /* as hwloc says, or NULL */
    uint64_t memcache_bytes;
    struct host_claim claim;
};

struct host_cache {
    struct host_set cpus;
    uint64_t bytes;
    bool memory_side;
};

struct host_kind {
    struct host_set cpus;
    int32_t rank;     /* -1 unranked */
    uint32_t klass;   /* after merging kinds within 10 %; 0 is the fastest */
    double max_hz;    /* 0 unknown */
    int64_t capacity; /* -1 unknown */
    char *core_type;
};

struct host_gpu {
    uint32_t index;
    bool cuda; /* vendor 0x10de */
    char *name, *uuid;
    char pci[20];
    uint32_t vendor, device, klass;
    uint64_t memory_bytes;
    int32_t sm; /* -1 */
    int32_t node;
    const char *node_origin; /* "nvml", "sysfs", "hwloc", "unknown" */
    int32_t gen_now, gen_max, width_now,
        width_max; /* -1: null; all four -1 and no_link: link is null */
    bool no_link, node_forbidden;
};

struct host_gpu_link { /* a direct link between two GPUs as the source claims it; never a
                          measurement */
    uint32_t a, b;     /* indexes into gpus, a < b */
    double bytes_per_second;
};

struct host_distances {
    char *name, *unit; /* "relative", "seconds", "bytes_per_second" */
    bool stored;
    uint32_t n;
    int32_t *nodes;
    double *values; /* [n][n] */
};

struct host_isa {
    char arch[32];
    char vendor[16];
    uint32_t family, model, stepping;
    char brand[64];
    uint32_t microcode;      /* 0 unknown */
    bool hypervisor, masked; /* masked identity: KT001 */
    char hypervisor_id[16];
    bool known; /* the source says which flags there are */
    const char *
        *cpuid; /* flags that CPUID states, sorted, lower case without separators: "avx512vnni" */
    uint32_t n_cpuid;
    uint64_t xcr0;     /* 0 when unknown */
    uint32_t kern_isa; /* CPUID and XCR0 (and AMX permission on this system) as KERN_ISA_* bits of
                          kernels/kern.h */
    bool amx_cpuid, amx_kernel;
    const char *amx_permission; /* "granted", "refused", "not_asked" */
};

struct host_limits {
    const char *cgroup; /* "none", "v1", "v2", "hybrid" */
    struct host_set affinity, cpuset_cpus, cpuset_mems, allowed_pus;
    bool has_cpuset;
    double quota_cores;                        /* 0: none */
    uint64_t memory_max, memory_high, memlock; /* HOST_UNKNOWN_BYTES: none */
    uint64_t throttled_periods;
    double throttled_seconds;
    uint32_t cores_allowed, cores_budget; /* B of host-profile section 6 */
};

struct host_hugetlb {
    uint32_t node;
    uint64_t page_bytes, total, free;
};

struct host_env {
    char *virt, *container; /* NULL: none */
    char *governor, *epp, *thp_enabled, *thp_defrag, *kernel, *bios, *mitigations;
    int boost, throttled;                    /* -1 unknown */
    int numa_balancing, perf_event_paranoid; /* -1 unknown (paranoid: INT_MIN) */
    struct host_hugetlb *hugetlb;
    uint32_t n_hugetlb;
    double psi_cpu, psi_memory, psi_io; /* -1 unknown */
    double steal_ratio, load1;          /* -1 unknown */
    char boot_sha256[72];               /* "sha256:..." or "" */
    uint64_t mem_total, mem_available;  /* /proc/meminfo; HOST_UNKNOWN_BYTES */
};

struct host_warning {
    char code[8];             /* "KT008" */
    const char *severity;     /* "info", "warning", "error" */
    char *text, *fix, *about; /* fix and about may be NULL */
};

struct host {
    const char *source; /* "native", "xml", "synthetic", "fsroot", "cpuid", "fsroot+cpuid" */
    bool this_system;
    uint32_t packages, n_cores, n_pus, smt;
    struct host_core *
        cores; /* in hwloc order: neighbours share caches. Without Core objects each PU is a core */
    struct host_node *nodes; /* by OS index */
    uint32_t n_nodes;
    struct host_cache *l3;
    uint32_t n_l3;
    struct host_kind *kinds;
    uint32_t n_kinds;
    char **devdax; /* DAX devices that no memory node has taken: "dax0.0" */
    uint32_t n_devdax;
    struct host_gpu *gpus;
    uint32_t n_gpus;
    struct host_gpu_link *gpu_links;
    uint32_t n_gpu_links;
    struct host_distances *distances;
    uint32_t n_distances;
    struct host_isa isa;
    struct host_limits limits;
    struct host_env env;
    struct host_warning *warnings;
    uint32_t n_warnings;
    char *hwloc_version;
};

/* spec: NULL or "native"; "xml:FILE", "syn:DESCRIPTION", "fsroot:DIR", "cpuid:DIR",
 * "fsroot:DIR,cpuid:DIR" (host-profile section 14). Missing or malformed sources are errors, never
 * the native machine. hwloc reads its variables from the process environment, which is changed
 * while loading (HWLOC_* of others are unset, KT002): call it before other threads start. */
kt_status host_read(const char *spec, struct host **out, kt_err *err);
void host_free(struct host *h);
/* Indexes into h->nodes in the order in which nodes take cores (host-profile section 7 rule 3);
 * order has room for n_nodes. */
void host_nodes_by_nearness(const struct host *h, uint32_t *order);
/* Recompute limits.allowed_pus, cores_allowed, cores_budget and each core's `allowed` and
 * `first_pu` after a field of limits was changed (what-if). false when memory is short: nothing
 * changed. */
bool host_limits_apply(struct host *h);
/* Take a warning over (copies the strings). false when memory is short. */
bool host_warn(struct host *h, const char *code, const char *severity, const char *about,
               const char *fix, const char *text);
/* The constant list of codes: what each means, how bad it is, what to do. NULL for an unknown code.
 */
struct host_code {
    const char *code, *severity, *meaning, *fix;
};
const struct host_code *host_code(const char *code);
/* Append a copy of *in to a list of warnings. false when memory is short. */
bool host_warning_add(struct host_warning **list, uint32_t *n, const struct host_warning *in);
void host_warning_free(struct host_warning *w);
/* Largest number of bytes that this process may use on this host: the smallest of MemAvailable and
 * the cgroup limits. */
uint64_t host_memory_allowed(const struct host *h);

#endif
