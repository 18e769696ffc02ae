/* place.c - CPU affinity and memory policy without fixed sizes; see place.h. The kernel refuses a
 * buffer for CPUs that is smaller than its own set with EINVAL, so reading doubles the buffer until
 * it fits; a set to write may be as short as its highest CPU. Node masks likewise: the kernel takes
 * any length whose bits beyond its own are zero.
 */
#define _GNU_SOURCE
#include "base/place.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#define MOST_CPUS ((size_t)1 << 20)
#define WORD_BITS (8 * sizeof(unsigned long))

bool place_get(struct place_cpus *out)
{
    *out = (struct place_cpus){0};
    for (size_t cpus = 1024; cpus <= MOST_CPUS; cpus *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = mem_calloc(1, bytes);
        if (set == NULL)
            return false;
        if (sched_getaffinity(0, bytes, set) == 0) {
            *out = (struct place_cpus){set, bytes};
            return true;
        }
        int e = errno;
        mem_free(set);
        errno = e;
        if (e != EINVAL)
            break;
    }
    return false;
}

bool place_set(const struct place_cpus *c)
{
    return sched_setaffinity(0, c->bytes, c->set) == 0;
}

bool place_has(const struct place_cpus *c, uint32_t cpu)
{
    return CPU_ISSET_S(cpu, c->bytes, (const cpu_set_t *)c->set);
}

uint32_t place_count(const struct place_cpus *c)
{
    return c->set != NULL ? (uint32_t)CPU_COUNT_S(c->bytes, (const cpu_set_t *)c->set) : 0;
}

void place_free(struct place_cpus *c)
{
    mem_free(c->set);
    *c = (struct place_cpus){0};
}

static bool one_cpu(int cpu, struct place_cpus *out)
{
    out->bytes = CPU_ALLOC_SIZE((size_t)(cpu < 0 ? 0 : cpu) + 1);
    out->set = cpu >= 0 ? mem_calloc(1, out->bytes) : NULL;
    if (out->set == NULL)
        return false;
    CPU_SET_S((size_t)cpu, out->bytes, (cpu_set_t *)out->set);
    return true;
}

bool place_pin(int cpu)
{
    struct place_cpus c;
    bool ok = one_cpu(cpu, &c);
    ok = ok && place_set(&c);
    place_free(&c);
    return ok;
}

bool place_pin_attr(pthread_attr_t *attr, int cpu)
{
    struct place_cpus c;
    bool ok = one_cpu(cpu, &c);
    ok = ok && pthread_attr_setaffinity_np(attr, c.bytes, c.set) == 0;
    place_free(&c);
    return ok;
}

int place_memory(void *p, size_t bytes, enum place_policy how, const int32_t *nodes, uint32_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), words = 1;
    for (uint32_t i = 0; i < n; i++) {
        if (nodes[i] < 0)
            return EINVAL;
        if ((size_t)nodes[i] / WORD_BITS >= words)
            words = (size_t)nodes[i] / WORD_BITS + 1;
    }
    unsigned long *mask = mem_calloc(words, sizeof *mask);
    if (mask == NULL)
        return ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        mask[(size_t)nodes[i] / WORD_BITS] |= 1ul << ((size_t)nodes[i] % WORD_BITS);
    /* the kernel counts one bit more than it reads */
    long r =
        syscall(SYS_mbind, p, (bytes + page - 1) / page * page,
                how == PLACE_BIND ? MPOL_BIND : MPOL_INTERLEAVE, mask, words * WORD_BITS + 1, 0);
    int e = r == 0 ? 0 : errno;
    mem_free(mask);
    return e;
}

int place_nodes_of(void *const *pages, size_t n, int *node)
{
    return syscall(SYS_move_pages, 0, n, pages, NULL, node, 0) < 0 ? errno : 0;
}
