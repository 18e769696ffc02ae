/* sync_time.h - how long threads take to meet: one barrier of a team, one futex wake of a sleeping
 * thread. Used by kttune probe, and by the check at an engine's start that a profile still tells
 * the truth: both must time the same thing the same way.
 */
#ifndef KT_BASE_SYNC_TIME_H
#define KT_BASE_SYNC_TIME_H

#include "base/status.h"
#include "base/team.h"

/* Seconds of one barrier of all workers, from a run of 500. The team's owner calls it; the team
 * should spin for longer than a barrier lasts. */
double sync_barrier_seconds(struct team *t);

/* A thread that sleeps on a futex, to be woken and timed. */
struct sync_wake;
/* cpu: where the sleeper is pinned, -1: nowhere. KT_E_NOMEM; KT_E_IO when no thread starts. */
kt_status sync_wake_open(int cpu, struct sync_wake **out, kt_err *err);
/* Lets the sleeper sleep for 1 ms, wakes it, and returns the seconds until it ran. Owner only. */
double sync_wake_seconds(struct sync_wake *s);
void sync_wake_close(struct sync_wake *s); /* NULL is fine */

#endif
