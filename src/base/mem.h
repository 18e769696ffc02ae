/* mem.h - the only place that takes memory from the system.
 * Small objects: mem_alloc / mem_free. Model-sized blocks: mem_map (anonymous pages, huge pages
 * advised, bound by the caller before first touch). Tests make the Nth allocation fail with
 * mem_fail_after. Any thread.
 */
#ifndef KT_BASE_MEM_H
#define KT_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* All return NULL when memory is short (or by mem_fail_after). mem_calloc zeroes and checks n *
 * size. */
void *mem_alloc(size_t bytes);
void *mem_calloc(size_t n, size_t size);
void *mem_realloc(void *p, size_t bytes);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_free(void *p);

/* Aligned block; align a power of two >= 16. Free with mem_free. */
void *mem_aligned(size_t align, size_t bytes);

#define MEM_MAP_UNIT ((size_t)2 << 20) /* a huge page */
/* Anonymous private mapping of at least `bytes` (rounded up to that), zero pages, not yet touched;
 * transparent huge pages advised. NULL when refused. Unmap with the same `bytes`. */
void *mem_map(size_t bytes);
/* The same with the pages that are wanted: MEM_4K forbids huge pages, MEM_HUGETLB takes reserved
 * ones of 2 MiB (NULL when there are too few). */
enum mem_pages { MEM_THP, MEM_4K, MEM_HUGETLB };
void *mem_map_pages(size_t bytes, enum mem_pages pages);
void mem_unmap(void *p, size_t bytes);

/* Tests: let n allocations pass, then fail every one (n < 0: never fail, the default). Counts all
 * calls above. */
void mem_fail_after(long n);

#endif
