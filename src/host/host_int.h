/* host_int.h - what the files of this room share: the source that is being read, and readers of
 * small text files below a root. Every reader of procfs, sysfs and cgroup files goes through
 * `root`, so that a stored tree answers exactly like a machine:
 * "" is this machine, a directory is a stored tree, NULL means that the source has no files at all
 * (XML, synthetic, CPUID dump). Not for other rooms. One thread: the caller of host_read.
 */
#ifndef KT_HOST_INT_H
#define KT_HOST_INT_H

#include <hwloc.h>

#include "host/host.h"

enum host_source_kind {
    HOST_NATIVE,
    HOST_XML,
    HOST_SYNTHETIC,
    HOST_FSROOT,
    HOST_CPUID,
    HOST_FSROOT_CPUID
};
struct host_source {
    enum host_source_kind kind;
    char *text;   /* XML path or synthetic description; owned */
    char *fsroot; /* owned */
    char *cpuid;  /* owned */
};
/* Root for text readers: "", a directory, or NULL. */
const char *host_source_root(const struct host_source *s);

/* Text of root/path without trailing white space, mem_free it; NULL when absent, unreadable or
 * above 4 MiB. path has no leading slash. */
char *host_text(const char *root, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A number that is the whole file (after "0x" or decimal digits). */
bool host_number(const char *root, uint64_t *v, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool host_is_dir(const char *root, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Value of "key: value" or "key value" lines, NULL when absent; mem_free it. */
char *host_line_value(const char *text, const char *key);

/* topo_hwloc.c, topo_memory.c */
kt_status host_topo_load(struct host *h, const struct host_source *s, hwloc_topology_t *out,
                         kt_err *err);
kt_status host_topo_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err);
kt_status host_memory_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err);
bool host_set_from_bitmap(struct host_set *out, hwloc_const_bitmap_t b);
/* gpu_pci.c */
kt_status host_gpu_facts(struct host *h, const char *root, hwloc_topology_t t, kt_err *err);
/* limits.c: needs topology facts (allowed sets of hwloc are in limits.affinity and
 * limits.cpuset_mems already) */
kt_status host_limits_read(struct host *h, const char *root, kt_err *err);
/* cpuid.c */
kt_status host_isa_read(struct host *h, const struct host_source *s, hwloc_topology_t t,
                        kt_err *err);
/* env.c */
kt_status host_env_read(struct host *h, const char *root, kt_err *err);

/* warn.c: a warning with the severity and fix of its code */
bool host_warnf(struct host *h, const char *code, const char *about, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#endif
