/* bench_host.c - see bench_host.h. The threads are the plan's, not a count of CPUs: a benchmark
 * that uses other cores than the server would measure another machine.
 */
#include "bench_host.h"

#include <string.h>

#include "base/mem.h"
#include "host/host.h"
#include "plan/plan.h"

#define COLD_LEAST ((uint64_t)256 << 20)

static kt_status take_cpus(const struct plan *p, struct bench_host *out, kt_err *err)
{
    out->cpus = mem_calloc(p->n_threads > 0 ? p->n_threads : 1, sizeof *out->cpus);
    if (out->cpus == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of CPUs");
    for (uint32_t i = 0; i < p->n_pools; i++) {
        const struct plan_pool *pool = &p->pools[i];
        for (uint32_t t = 0; t < pool->threads && t < pool->n_cpus; t++)
            out->cpus[out->n_threads++] = pool->cpus[t];
    }
    if (out->n_threads == 0)
        KT_FAIL(err, KT_E_INVALID, "the plan of this host has no threads");
    return KT_OK;
}

kt_status bench_host_read(uint32_t threads, struct bench_host *out, kt_err *err)
{
    struct host *h;
    struct plan *p;
    struct plan_opts o;
    memset(out, 0, sizeof *out);
    KT_TRY(host_read(NULL, &h, err));
    for (uint32_t i = 0; i < h->n_l3; i++)
        out->llc_bytes += h->l3[i].bytes;
    out->cold_bytes = 4 * out->llc_bytes > COLD_LEAST ? 4 * out->llc_bytes : COLD_LEAST;
    plan_opts_init(&o);
    o.threads = threads;
    kt_status s = plan_host(h, &o, &p, err);
    if (s == KT_OK) {
        s = take_cpus(p, out, err);
        plan_free(p);
    }
    host_free(h);
    return s;
}

void bench_host_free(struct bench_host *h)
{
    mem_free(h->cpus);
    memset(h, 0, sizeof *h);
}
