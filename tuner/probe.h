/* probe.h - the measuring stages of `kttune probe`. A stage takes what is left of the time, runs
 * its probes in children and puts entries into the profile; what it cannot measure becomes an entry
 * with a reason. Stages never fail for a missing device or a dead child, only for memory. Owner:
 * the program's thread.
 */
#ifndef KT_TUNER_PROBE_H
#define KT_TUNER_PROBE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "host/host.h"
#include "measure.h"
#include "plan/plan.h"
#include "profile/profile.h"

enum probe_depth { PROBE_TOPOLOGY, PROBE_QUICK, PROBE_DEFAULT, PROBE_DEEP };

struct probe_run {
    const struct host *h;
    const struct plan *plan; /* from facts alone: pools and their CPUs */
    struct profile *p;
    enum probe_depth depth;
    const char *only;     /* id patterns separated by spaces; NULL: all */
    uint64_t deadline_ns; /* of the whole run */
    uint64_t seed;
    char abi[17];
    uint32_t isa;          /* KERN_ISA_* bits whose self-tests passed */
    uint64_t cache_bytes;  /* all last-level caches and memory-side caches of the host */
    uint64_t memory_bytes; /* what a probe may take: 25 % of free memory */
    uint32_t n_missing;    /* stages or entries that the deadline cut */
    double warmup_seconds;
    json_t *fresh;     /* object: ids of this run's entries are its keys */
    double first_rate; /* median of the first probe, for its repeat at the end; 0: none */
    void (*progress)(void *ctx, const char *what, double done); /* done in 0..1 within the stage */
    void *progress_ctx;
};

double probe_time_left(const struct probe_run *r);
bool probe_wanted(const struct probe_run *r, const char *id);
void probe_progress(const struct probe_run *r, const char *what, double done);
/* Bytes of one buffer set: 4x the caches, capped by memory; *capped says so. */
uint64_t probe_buffer_bytes(const struct probe_run *r, bool *capped);
/* "0-5": the first n CPUs of a pool. mem_free it. */
char *probe_cpu_list(const struct plan_pool *pool, uint32_t n);
/* Put one entry; counts entries that the deadline cut. Steals v. */
kt_status probe_put(struct probe_run *r, json_t *v, kt_err *err);
/* Bind pages of [p, p+bytes) to nodes before first touch. false when the system refuses. */
bool probe_bind(void *p, uint64_t bytes, const int32_t *nodes, uint32_t n);

/* ---- stages ---- */
kt_status probe_isa(struct probe_run *r, kt_err *err);
kt_status probe_mem(struct probe_run *r, double seconds, kt_err *err);
/* The first probe again; drift above 5 % makes the run's entries noisy (KT010). */
kt_status probe_repeat(struct probe_run *r, double seconds, kt_err *err);
kt_status probe_sync(struct probe_run *r, double seconds, kt_err *err);
kt_status probe_noise(struct probe_run *r, double seconds, kt_err *err);
kt_status probe_expert(struct probe_run *r, double seconds, kt_err *err);
kt_status probe_gpu(struct probe_run *r, kt_err *err);
/* library NULL: the system's names of libpapi. */
kt_status probe_papi(struct probe_run *r, const char *library, kt_err *err);

/* Functional test of counters, also for tests: events that counted are written to `events` (a JSON
 * array, stolen by nobody). */
kt_status papi_test(const char *library, double seconds, json_t *events, char version[32],
                    char reason[160], kt_err *err);
/* Why there is no CUDA back end on this machine, or "" when one could be loaded; takes the plugin's
 * path or NULL for the default places. */
void gpu_loader_reason(const char *plugin, char *reason, size_t n);

/* Kernel decisions from the run's expert measurements. */
kt_status decide_kernels(struct probe_run *r, kt_err *err);
/* Decisions and warnings of a plan as entries of the profile. */
kt_status decide_plan(struct probe_run *r, const struct plan *plan, kt_err *err);

#endif
