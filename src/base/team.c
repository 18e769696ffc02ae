/* team.c - generation-counted barrier. Each waiter spins on one shared word for spin_ns, then
 * sleeps on it as a futex; whoever completes the barrier bumps the word and wakes sleepers only if
 * there are some. Starting and ending a run are the same barrier, so a run costs two. With more
 * workers than CPUs allowed to the process spinning would only delay the others: then the spin time
 * is 0.
 */
#define _GNU_SOURCE
#include "base/team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"

struct worker {
    struct team *team;
    uint32_t index;
    pthread_t thread;
};

struct team {
    /* guarded by the barrier protocol */
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint generation;
    _Alignas(64) atomic_uint sleepers;
    _Alignas(64) void (*fn)(void *, uint32_t); /* written by worker 0 before the start barrier */
    void *ctx;
    bool stop;
    atomic_uint n; /* written again only when a thread cannot be started */
    uint32_t spin_ns, started;
    uint32_t unpinned;             /* workers whose CPU the kernel refused */
    struct place_cpus caller_cpus; /* what the caller was allowed before it was pinned; none: it was
                                      not */
    int *cpu;
    struct worker *workers;
    char name[11];
};

static void futex_wait(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void team_barrier(struct team *t, uint32_t worker)
{
    (void)worker;
    unsigned gen = atomic_load_explicit(&t->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 ==
        atomic_load_explicit(&t->n, memory_order_relaxed)) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store(&t->generation, gen + 1);
        if (atomic_load(&t->sleepers) > 0)
            futex_wake_all(&t->generation);
        return;
    }
    uint64_t start = 0;
    for (unsigned spins = 1;; spins++) {
        if (atomic_load_explicit(&t->generation, memory_order_acquire) != gen)
            return;
        relax();
        if (spins % 64 == 0) {
            uint64_t now = clock_ns();
            if (start == 0)
                start = now;
            else if (now - start >= t->spin_ns)
                break;
        }
    }
    /* sleepers is raised before the last look at generation: the waker stores generation first and
     * reads sleepers after (both seq_cst). */
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(&t->generation) == gen)
        futex_wait(&t->generation, gen);
    atomic_fetch_sub(&t->sleepers, 1);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct team *t = w->team;
    char name[16];
    snprintf(name, sizeof name, "%s%u", t->name, w->index % 10000);
    pthread_setname_np(pthread_self(), name);
    for (;;) {
        team_barrier(t, w->index);
        if (t->stop)
            return NULL;
        t->fn(t->ctx, w->index);
        team_barrier(t, w->index);
    }
}

uint32_t team_size(const struct team *t)
{
    return t->n;
}

void team_run(struct team *t, void (*fn)(void *ctx, uint32_t worker), void *ctx)
{
    t->fn = fn;
    t->ctx = ctx;
    team_barrier(t, 0);
    fn(ctx, 0);
    team_barrier(t, 0);
}

void team_close(struct team *t)
{
    if (t == NULL)
        return;
    if (t->started == t->n) {
        t->stop = true;
        team_barrier(t, 0);
    }
    for (uint32_t i = 1; i < t->started; i++)
        pthread_join(t->workers[i].thread, NULL);
    if (t->caller_cpus.set != NULL)
        (void)place_set(&t->caller_cpus);
    place_free(&t->caller_cpus);
    mem_free(t->workers);
    mem_free(t->cpu);
    mem_free(t);
}

/* Create worker i on its CPU from its first instruction on, so that its stack is near it too. A CPU
 * that the kernel refuses (switched off, or outside the cpuset) is not worth a failure: the thread
 * runs unpinned and is counted. */
static int start_worker(struct team *t, uint32_t i)
{
    pthread_attr_t attr;
    bool wanted = t->cpu != NULL && t->cpu[i] >= 0, pinned = false;
    int e = pthread_attr_init(&attr);
    if (e != 0)
        return e;
    pinned = wanted && place_pin_attr(&attr, t->cpu[i]);
    e = pthread_create(&t->workers[i].thread, &attr, worker_main, &t->workers[i]);
    pthread_attr_destroy(&attr);
    if (e == EINVAL && pinned) {
        pinned = false;
        e = pthread_create(&t->workers[i].thread, NULL, worker_main, &t->workers[i]);
    }
    t->unpinned += e == 0 && wanted && !pinned;
    return e;
}

static void pin_caller(struct team *t)
{
    if (place_get(&t->caller_cpus) && place_pin(t->cpu[0]))
        return;
    place_free(&t->caller_cpus);
    t->unpinned++;
}

uint32_t team_unpinned(const struct team *t)
{
    return t->unpinned;
}

kt_status team_open(const struct team_opts *o, struct team **out, kt_err *err)
{
    *out = NULL;
    if (o->n == 0)
        KT_FAIL(err, KT_E_INVALID, "a team needs at least one worker");
    struct team *t = mem_aligned(64, sizeof *t);
    if (t == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a team of %u threads", o->n);
    memset(t, 0, sizeof *t);
    t->n = o->n;
    t->spin_ns = o->spin_ns ? o->spin_ns : 50000;
    struct place_cpus allowed;
    if (place_get(&allowed) && place_count(&allowed) < o->n)
        t->spin_ns = 0;
    place_free(&allowed);
    snprintf(t->name, sizeof t->name, "%s", o->name ? o->name : "kt");
    t->workers = mem_calloc(o->n, sizeof *t->workers);
    t->cpu = o->cpu != NULL ? mem_calloc(o->n, sizeof *t->cpu) : NULL;
    if (t->workers == NULL || (o->cpu != NULL && t->cpu == NULL)) {
        team_close(t);
        KT_FAIL(err, KT_E_NOMEM, "no memory for a team of %u threads", o->n);
    }
    if (o->cpu != NULL)
        memcpy(t->cpu, o->cpu, o->n * sizeof *t->cpu);
    t->started = 1;
    for (uint32_t i = 1; i < o->n; i++) {
        t->workers[i] = (struct worker){.team = t, .index = i};
        int e = start_worker(t, i);
        if (e != 0) {
            /* the workers that exist wait at the start barrier for a full house: shrink the team to
             * them, then end it */
            t->n = t->started;
            t->stop = true;
            team_barrier(t, 0);
            for (uint32_t j = 1; j < t->started; j++)
                pthread_join(t->workers[j].thread, NULL);
            t->started = 0;
            team_close(t);
            return err_set(
                err, KT_E_LIMIT, e, __func__,
                "cannot start worker thread %u of %u: %s; raise the limit on threads or use fewer",
                i, o->n, strerror(e));
        }
        t->started++;
    }
    if (o->pin_caller && o->cpu != NULL && o->cpu[0] >= 0)
        pin_caller(t);
    *out = t;
    return KT_OK;
}
