/* sync_time.c - see sync_time.h. The wake-up is timed from before the system call to the sleeper's
 * first clock reading, so it holds what a parked worker costs a step. A sleeper that does not come
 * back within 100 ms counts as 100 ms: the caller never hangs.
 */
#define _GNU_SOURCE
#include "base/sync_time.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"

#define BARRIERS 500
#define LONGEST_WAKE_NS 100000000u

struct meeting {
    struct team *team;
};

static void meet(void *ctx, uint32_t worker)
{
    struct meeting *m = ctx;
    for (int i = 0; i < BARRIERS; i++)
        team_barrier(m->team, worker);
}

double sync_barrier_seconds(struct team *t)
{
    struct meeting m = {t};
    uint64_t start = clock_ns();
    team_run(t, meet, &m); /* a run starts and ends with one barrier more */
    return (double)(clock_ns() - start) * 1e-9 / (BARRIERS + 2);
}

struct sync_wake {
    atomic_uint word, stop;
    atomic_ullong woken_at;
    pthread_t thread;
    int cpu;
};

static void *sleeper(void *ctx)
{
    struct sync_wake *s = ctx;
    if (s->cpu >= 0)
        (void)place_pin(s->cpu);
    for (unsigned seen = 0; !atomic_load(&s->stop); seen = atomic_load(&s->word)) {
        while (atomic_load(&s->word) == seen && !atomic_load(&s->stop))
            syscall(SYS_futex, &s->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        atomic_store(&s->woken_at, clock_ns());
    }
    return NULL;
}

kt_status sync_wake_open(int cpu, struct sync_wake **out, kt_err *err)
{
    struct sync_wake *s = *out = mem_calloc(1, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory to time a wake-up");
    s->cpu = cpu;
    if (pthread_create(&s->thread, NULL, sleeper, s) != 0) {
        mem_free(s);
        *out = NULL;
        KT_FAIL(err, KT_E_IO, "cannot start a thread to time its wake-up; raise ulimit -u");
    }
    return KT_OK;
}

static void wake(struct sync_wake *s)
{
    atomic_fetch_add(&s->word, 1);
    syscall(SYS_futex, &s->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

double sync_wake_seconds(struct sync_wake *s)
{
    struct timespec idle = {0, 1000000};
    nanosleep(&idle, NULL);
    atomic_store(&s->woken_at, 0);
    uint64_t start = clock_ns(), woken;
    wake(s);
    while ((woken = atomic_load(&s->woken_at)) == 0)
        if (clock_ns() - start > LONGEST_WAKE_NS)
            return LONGEST_WAKE_NS * 1e-9;
    return woken > start ? (double)(woken - start) * 1e-9 : 1e-9;
}

void sync_wake_close(struct sync_wake *s)
{
    if (s == NULL)
        return;
    atomic_store(&s->stop, 1);
    wake(s);
    pthread_join(s->thread, NULL);
    mem_free(s);
}
