/* mem.c - allocation behind a hook that can fail. The counter is atomic: allocations may come from
 * any thread. */
#include "base/mem.h"

#include "kt.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE MEM_MAP_UNIT

static atomic_long fail_after = -1;

static int refused(void)
{
    long n = atomic_load_explicit(&fail_after, memory_order_relaxed);
    if (n < 0)
        return 0;
    if (n == 0)
        return 1;
    atomic_fetch_sub_explicit(&fail_after, 1, memory_order_relaxed);
    return 0;
}

void mem_fail_after(long n)
{
    atomic_store(&fail_after, n);
}

void *mem_alloc(size_t bytes)
{
    return refused() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_calloc(size_t n, size_t size)
{
    return refused() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *mem_realloc(void *p, size_t bytes)
{
    return refused() ? NULL : realloc(p, bytes ? bytes : 1);
}

char *mem_strndup(const char *s, size_t n)
{
    char *d = mem_alloc(n + 1);
    if (d != NULL) {
        memcpy(d, s, n);
        d[n] = '\0';
    }
    return d;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void mem_free(void *p)
{
    free(p);
}

void *mem_aligned(size_t align, size_t bytes)
{
    void *p = NULL;
    if (refused() || posix_memalign(&p, align, bytes ? bytes : align) != 0)
        return NULL;
    return p;
}

static size_t round_huge(size_t bytes)
{
    return bytes > SIZE_MAX - HUGE ? 0 : (bytes + HUGE - 1) / HUGE * HUGE;
}

static void *map_reserved(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1, 0);
    return p != MAP_FAILED ? p : NULL;
}

void *mem_map(size_t bytes)
{
    return mem_map_pages(bytes, MEM_THP);
}

void *mem_map_pages(size_t bytes, enum mem_pages pages)
{
    size_t n = round_huge(bytes ? bytes : 1);
    if (n == 0 || refused())
        return NULL;
    if (pages == MEM_HUGETLB)
        return map_reserved(n);
    /* One huge page more than asked, so that the start can be moved to a 2 MiB border and the rest
     * given back. */
    char *raw = mmap(NULL, n + HUGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t lead = (HUGE - (uintptr_t)raw % HUGE) % HUGE;
    if (lead > 0)
        munmap(raw, lead);
    if (HUGE - lead > 0)
        munmap(raw + lead + n, HUGE - lead);
    madvise(raw + lead, n, pages == MEM_4K ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    return raw + lead;
}

void mem_unmap(void *p, size_t bytes)
{
    if (p != NULL)
        munmap(p, round_huge(bytes ? bytes : 1));
}

void kt_free(void *p)
{
    mem_free(p);
}
