/* place.h - where threads run and where memory lies, on machines of any size: sets of CPUs and
 * masks of memory nodes grow with the numbers in them, so nothing ends at 1024 CPUs or 64 nodes. A
 * thin layer over the kernel's calls; it chooses nothing and keeps no state. Numbers are OS
 * indexes. Any thread. Where the kernel refuses, the caller learns the errno and decides.
 */
#ifndef KT_BASE_PLACE_H
#define KT_BASE_PLACE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set of CPUs as large as the kernel's; {0} is none. */
struct place_cpus {
    void *set;
    size_t bytes;
};
/* What the calling thread may use; the caller frees it. false: the kernel or memory refused. */
bool place_get(struct place_cpus *out);
bool place_set(const struct place_cpus *c); /* for the calling thread */
bool place_has(const struct place_cpus *c, uint32_t cpu);
uint32_t place_count(const struct place_cpus *c);
void place_free(struct place_cpus *c);

/* The calling thread, or the thread that will be created with `attr`, on one CPU. */
bool place_pin(int cpu);
bool place_pin_attr(pthread_attr_t *attr, int cpu);

enum place_policy {
    PLACE_BIND,      /* on these nodes or nowhere */
    PLACE_INTERLEAVE /* page by page over these nodes; elsewhere when they are full */
};
/* Policy of the whole pages of [p, p + bytes), before they are touched. p on a page's border.
 * @return 0 or the errno of mbind: EPERM, ENOSYS (forbidden, as in most containers), EINVAL (no
 * such node, or not in this process' cpuset), ENOMEM */
int place_memory(void *p, size_t bytes, enum place_policy how, const int32_t *nodes, uint32_t n);
/* Node of each page, or -ENOENT where none is there yet. @return 0 or the errno of move_pages. */
int place_nodes_of(void *const *pages, size_t n, int *node);

#endif
