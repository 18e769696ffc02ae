/* bench_host.h - where a benchmark runs: the CPUs of the plan's threads and how large a set of
 * weights must be to come from memory. Read it before any thread is pinned: a pinned process sees
 * one allowed core. Owner: the program's main thread.
 */
#ifndef KT_TUNER_BENCH_HOST_H
#define KT_TUNER_BENCH_HOST_H

#include <stdint.h>

#include "base/status.h"

struct bench_host {
    int *cpus; /* [n_threads] one PU of each core that the plan gives a thread; pool after pool */
    uint32_t n_threads;
    uint64_t llc_bytes;  /* all last-level caches together; 0: unknown */
    uint64_t cold_bytes; /* a set of weights that no cache keeps: 4 times that, 256 MiB at least */
};

/* threads: 0 for the plan's. Free with bench_host_free, also after an error. */
kt_status bench_host_read(uint32_t threads, struct bench_host *out, kt_err *err);
void bench_host_free(struct bench_host *h);

#endif
