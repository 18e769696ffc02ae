/* numa.c - which memory node the engine's pages are on: policy before the first touch, and a look
 * at every page of the packed weights after packing. Choosing nodes is the plan's work, touching
 * pages the loader's; this file says what the kernel shall do and finds out what it did.
 *
 * - Packed weights of a pool: bound (MPOL_BIND) to the pool's nodes. Bound memory is also left
 *   alone by automatic NUMA balancing.
 * - KV pages and the shared scratch: interleaved over the nodes of all pools, never others. Any
 *   worker may attend to any sequence, so every node's bandwidth counts and none is the wrong one.
 *   They fall back to other nodes when one is full, as a sequence must not end the process.
 * - What only one pool's workers use of the scratch: interleaved over that pool's nodes.
 *
 * On hosts with one node nothing is done. Where a container forbids mbind, packing by pinned
 * workers places pages by first touch; where it forbids move_pages too, placement is unknown, and
 * both are said. Load time only; engine thread, the check on all workers.
 */
#include "engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/place.h"
#include "profile/profile.h"

#define BATCH 512 /* pages of one question to the kernel */

static bool has_choice(const struct kt_engine *e)
{
    return e->host->this_system && e->host->n_nodes > 1;
}

static bool forbidden(int e)
{
    return e == EPERM || e == ENOSYS || e == EACCES;
}

static void say_forbidden(struct kt_engine *e, int code)
{
    if (!e->bind_forbidden)
        log_warn("cannot bind memory to nodes (mbind: %s): weight pages stay where pinned workers "
                 "touch them first. Remedy: allow mbind and move_pages (docker run --cap-add "
                 "SYS_NICE, or a seccomp profile that has them)",
                 strerror(code));
    e->bind_forbidden = true;
}

/* Sum of the numbers that follow `key` in [text, end). */
static uint64_t sum_after(const char *text, const char *end, const char *key)
{
    uint64_t sum = 0;
    for (const char *at = text; (at = strstr(at, key)) != NULL && at < end;) {
        at += strlen(key);
        sum += strtoull(at, NULL, 10);
    }
    return sum;
}

/* What the kernel keeps of a node's memory for itself: the "low" marks of its zones, in bytes. */
static uint64_t node_kept(int32_t node)
{
    char *text, key[32];
    size_t len;
    uint64_t pages = 0;
    if (file_read("/proc/zoneinfo", (size_t)64 << 20, &text, &len, NULL) != KT_OK)
        return 0;
    snprintf(key, sizeof key, "Node %d, zone", node);
    for (const char *zone = text; (zone = strstr(zone, key)) != NULL;) {
        zone += strlen(key);
        const char *next = strstr(zone, "Node "), *low = strstr(zone, " low ");
        if (low != NULL && (next == NULL || low < next))
            pages += strtoull(low + 5, NULL, 10);
    }
    mem_free(text);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What a node could give: free memory and caches, less what the kernel keeps of both, as it reckons
 * MemAvailable of a whole machine. UINT64_MAX when the node does not say. */
static uint64_t node_room(int32_t node)
{
    static const char *const cached[] = {" Active(file):", " Inactive(file):", " SReclaimable:"};
    char path[80], *text;
    size_t len;
    uint64_t free_bytes, cache = 0, kept = node_kept(node);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
    if (file_read(path, 65536, &text, &len, NULL) != KT_OK)
        return UINT64_MAX;
    bool said = strstr(text, " MemFree:") != NULL;
    free_bytes = sum_after(text, text + len, " MemFree:") << 10;
    for (int i = 0; i < 3; i++)
        cache += sum_after(text, text + len, cached[i]) << 10;
    mem_free(text);
    cache -= cache / 2 < kept ? cache / 2 : kept;
    return !said ? UINT64_MAX : (free_bytes > kept ? free_bytes - kept : 0) + cache;
}

/* Bound memory that its nodes cannot give ends the process by the kernel's hand, in the middle of
 * packing: refuse before. */
static kt_status check_room(const struct plan_pool *q, uint64_t bytes, kt_err *err)
{
    uint64_t room = 0;
    for (uint32_t i = 0; i < q->n_mems; i++) {
        uint64_t more = node_room(q->mems[i]);
        room = more > UINT64_MAX - room ? UINT64_MAX : room + more;
    }
    if (bytes > room)
        KT_FAIL(err, KT_E_LIMIT,
                "node %d can give %.3f GiB, and the weights of its pool (%.0f %% of the rows) need "
                "%.3f GiB. Remedies: free memory on that node (numactl -H), smaller weights "
                "(--quant mxfp4, --quant-dense q8_0), or fewer --threads than pools, which leaves "
                "the weakest node out",
                q->mems[0], (double)room / (1u << 30), q->share * 100, (double)bytes / (1u << 30));
    return KT_OK;
}

kt_status eng_numa_bind(struct kt_engine *e, uint32_t pool, void *p, uint64_t bytes, kt_err *err)
{
    const struct plan_pool *q = &e->plan->pools[pool];
    if (!has_choice(e) || q->n_mems == 0)
        return KT_OK;
    /* to the end of the mapping: a policy cannot end inside a reserved page */
    const uint64_t whole = (bytes + MEM_MAP_UNIT - 1) / MEM_MAP_UNIT * MEM_MAP_UNIT;
    int code = place_memory(p, whole, PLACE_BIND, q->mems, q->n_mems);
    if (code == 0) /* reserved pages are not among a node's free ones; eng_settle_pages has them */
        return e->page_kind == MEM_HUGETLB ? KT_OK : check_room(q, bytes, err);
    if (forbidden(code))
        say_forbidden(e, code);
    else
        return err_set(err, KT_E_LIMIT, code, __func__,
                       "cannot bind memory to node %d: %s; is the node online and in this "
                       "process' cpuset (cpuset.mems)?",
                       q->mems[0], strerror(code));
    return KT_OK;
}

/* A preference: pages go elsewhere when it cannot be met, so refusals are no errors. */
static void interleave(struct kt_engine *e, void *p, uint64_t bytes, const int32_t *nodes,
                       uint32_t n)
{
    int code = n > 0 ? place_memory(p, bytes, PLACE_INTERLEAVE, nodes, n) : 0;
    if (forbidden(code))
        say_forbidden(e, code);
    else if (code != 0)
        log_warn("cannot spread %.1f MB over the nodes of the pools: %s", (double)bytes * 1e-6,
                 strerror(code));
}

kt_status eng_numa_spread(struct kt_engine *e, void *p, uint64_t bytes, kt_err *err)
{
    uint32_t n = 0, at = 0;
    if (!has_choice(e))
        return KT_OK;
    for (uint32_t i = 0; i < e->n_pools; i++)
        n += e->plan->pools[i].n_mems;
    int32_t *nodes = mem_calloc(n, sizeof *nodes);
    if (nodes == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of %u nodes", n);
    for (uint32_t i = 0; i < e->n_pools; i++)
        for (uint32_t k = 0; k < e->plan->pools[i].n_mems; k++)
            nodes[at++] = e->plan->pools[i].mems[k];
    interleave(e, p, bytes, nodes, n);
    mem_free(nodes);
    return KT_OK;
}

void eng_numa_own(struct kt_engine *e, uint32_t pool, void *p, uint64_t bytes)
{
    if (has_choice(e) && bytes > 0)
        interleave(e, p, bytes, e->plan->pools[pool].mems, e->plan->pools[pool].n_mems);
}

/* ---- what the kernel did ---- */

static bool is_home(const struct plan_pool *q, int node)
{
    for (uint32_t i = 0; i < q->n_mems; i++)
        if (q->mems[i] == node)
            return true;
    return false;
}

/* Every worker looks at its part of its pool's arena. Pages that do not exist (the unused end of
 * the last huge page) are on no node and do not count. */
static void check_worker(void *ctx, uint32_t worker)
{
    struct kt_engine *e = ctx;
    const struct eng_worker *w = &e->worker[worker];
    const struct plan_pool *q = &e->plan->pools[w->pool];
    struct eng_pages *seen = &e->pages[w->pool];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE),
             n = (e->arena_bytes[w->pool] + page - 1) / page, workers = e->pool_workers[w->pool],
             first = n * w->index / workers, end = n * (w->index + 1) / workers, there = 0,
             wrong = 0;
    void *address[BATCH];
    int node[BATCH];
    for (uint64_t i = first; i < end; i += BATCH) {
        size_t m = end - i < BATCH ? (size_t)(end - i) : BATCH;
        for (size_t k = 0; k < m; k++)
            address[k] = e->arena[w->pool] + (i + k) * page;
        int code = place_nodes_of(address, m, node);
        if (code != 0) {
            atomic_store_explicit(&seen->refused, code, memory_order_relaxed);
            return;
        }
        for (size_t k = 0; k < m; k++) {
            there += node[k] >= 0;
            wrong += node[k] >= 0 && !is_home(q, node[k]);
        }
    }
    atomic_fetch_add_explicit(&seen->there, there, memory_order_relaxed);
    atomic_fetch_add_explicit(&seen->misplaced, wrong, memory_order_relaxed);
}

static void report_pool(struct kt_engine *e, uint32_t pool, struct strbuf *text)
{
    const struct plan_pool *q = &e->plan->pools[pool];
    unsigned long long there = e->pages[pool].there, wrong = e->pages[pool].misplaced;
    char name[24] = "all nodes";
    if (q->node >= 0)
        snprintf(name, sizeof name, "node%d", q->node);
    sb_printf(text, "%s%s: %llu weight pages, %llu misplaced", pool == 0 ? "pages  " : "; ", name,
              there, wrong);
    if (wrong > 0)
        log_warn("%s: %llu of %llu weight pages lie on other nodes, so the pool reads across the "
                 "link. Remedy: free memory on that node (numactl -H; echo 3 > "
                 "/proc/sys/vm/drop_caches)%s, then load again",
                 name, wrong, there,
                 e->bind_forbidden ? " and allow mbind (docker run --cap-add SYS_NICE)" : "");
}

kt_status eng_numa_check(struct kt_engine *e, kt_err *err)
{
    struct strbuf text = {0};
    uint64_t start = clock_ns(), total = 0;
    int refused = 0;
    if (team_unpinned(e->team) > 0)
        log_warn("%u of %u workers could not be pinned to their CPUs; did the cpuset or the set of "
                 "online CPUs change? Load again",
                 team_unpinned(e->team), e->n_workers);
    if (!has_choice(e))
        return KT_OK;
    for (uint32_t p = 0; p < e->n_pools; p++)
        memset(&e->pages[p], 0, sizeof e->pages[p]);
    team_run(e->team, check_worker, e);
    for (uint32_t p = 0; p < e->n_pools; p++) {
        refused = e->pages[p].refused != 0 ? e->pages[p].refused : refused;
        total += e->pages[p].there;
    }
    e->pages_unknown = refused != 0;
    sb_puts(&text, e->plan_text);
    if (refused != 0) {
        log_warn("cannot see which nodes weight pages are on (move_pages: %s). Remedy: docker run "
                 "--cap-add SYS_NICE, or a seccomp profile that has move_pages",
                 strerror(refused));
        sb_printf(&text, "pages  unknown: move_pages is not allowed here\n");
    } else {
        for (uint32_t p = 0; p < e->n_pools; p++)
            report_pool(e, p, &text);
        sb_puts(&text, e->kv_bytes > 0 ? "\nkv     interleaved over the nodes of all pools: any "
                                         "worker may attend to any sequence\n"
                                       : "\n");
        log_info("checked the nodes of %llu weight pages in %.2f s", (unsigned long long)total,
                 (double)(clock_ns() - start) * 1e-9);
    }
    char *longer = sb_take(&text, NULL);
    if (longer == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the plan's text");
    mem_free(e->plan_text);
    e->plan_text = longer;
    return KT_OK;
}

bool eng_pool_info(const struct kt_engine *e, uint32_t pool, kt_pool_info *info)
{
    memset(info, 0, sizeof *info);
    if (pool >= e->plan->n_pools)
        return false;
    const struct plan_pool *q = &e->plan->pools[pool];
    info->node = q->node;
    info->threads = q->threads;
    info->row_share = q->share;
    if (e->arena_bytes == NULL)
        return true;
    info->weight_bytes = e->arena_bytes[pool];
    info->weight_pages = e->pages[pool].there;
    info->pages_misplaced = e->pages[pool].misplaced;
    info->pages_known = !e->pages_unknown;
    return true;
}

bool kt_engine_get_pool(const kt_engine *e, uint32_t pool, kt_pool_info *info)
{
    if (!eng_pool_info(e, pool, info))
        return false;
    for (uint32_t i = 0; e->profile != NULL && i < e->profile->n_knees; i++)
        if (e->profile->knees[i].node == info->node)
            info->read_bytes_per_second = e->profile->knees[i].read_bytes_per_second;
    return true;
}
