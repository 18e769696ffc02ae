/* team.h - a team of worker threads that run one function together (SPMD) and meet at barriers:
 * spin first, then park on a futex.
 *
 * The caller of team_run is worker 0; the others are created once, pinned, and wait between runs.
 * Inside a run every worker calls team_barrier the same number of times. Owner: the thread that
 * opened the team; only it may call team_run and team_close.
 */
#ifndef KT_BASE_TEAM_H
#define KT_BASE_TEAM_H

#include <stdint.h>

#include "base/status.h"

struct team;

struct team_opts {
    uint32_t n;       /* workers, worker 0 included, >= 1 */
    const int *cpu;   /* [n] OS index to pin each worker to, or -1; NULL: nobody is pinned. Worker 0
                         is the caller */
    int pin_caller;   /* pin the calling thread too, until team_close gives it its CPUs back */
    uint32_t spin_ns; /* how long a waiting worker spins before it parks; 0: 50 us */
    const char *name; /* thread name prefix, at most 10 bytes */
};

kt_status team_open(const struct team_opts *o, struct team **out, kt_err *err);
void team_close(struct team *t);
uint32_t team_size(const struct team *t);
/* Workers that were to be pinned and could not be: their CPU is off or not allowed. */
uint32_t team_unpinned(const struct team *t);
/* Run fn(ctx, worker) on every worker; returns when all have returned. Allocates nothing. */
void team_run(struct team *t, void (*fn)(void *ctx, uint32_t worker), void *ctx);
/* All workers of a run meet here; what was written before is visible to all after. */
void team_barrier(struct team *t, uint32_t worker);

#endif
