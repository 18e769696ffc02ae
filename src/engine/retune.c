/* retune.c - how an engine runs, apart from what it computes: its worker team, the kernels of each
 * matrix, and the knobs that a tuning may set.
 *
 * kt_engine_retune changes them between steps without touching a weight: every ISA level that
 * shares the packed layout is one choice of function pointers, and rows belong to pools, not to
 * threads. So a tuner can compare configurations in interleaved rounds on one loaded model, and a
 * server runs exactly what was compared. Engine thread only. Canonical arithmetic holds for every
 * choice.
 */
#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "profile/profile.h"

void eng_knobs_default(struct eng_knobs *k)
{
    *k = (struct eng_knobs){0, CHUNK_ROWS_MAX, 4 * CHUNK_ROWS, SPIN_NS};
}

/* Does this matrix take kernels that round activations to BF16, with many tokens? */
static bool rounds(const struct kt_engine *e, const struct eng_mat *m)
{
    return e->fast != 0 && !m->exact && (m->type == DT_BF16 || m->type == DT_FP8);
}

/* The variant that the profile found fastest with this build, else the one of highest rank. */
static const struct kern *kernel_of(const struct kt_engine *e, enum kern_op op,
                                    const struct eng_mat *m, uint32_t tokens)
{
    const struct kern_shape shape = {m->rows, m->k, tokens};
    const char *variant = NULL;
    char id[64];
    if (rounds(e, m))
        return kern_find(op, (int)m->type, e->isa | e->fast, &shape);
    snprintf(id, sizeof id, "kernel.%s.%s", op == KERN_GEMM ? "gemm" : "gemv", dtype_name(m->type));
    if (e->kernels_measured)
        variant = profile_decision_str(e->profile, id);
    return variant != NULL ? kern_find_variant(op, (int)m->type, e->isa, &shape, variant)
                           : kern_find(op, (int)m->type, e->isa, &shape);
}

bool eng_mat_kernels(const struct kt_engine *e, struct eng_mat *m)
{
    m->gemv = kernel_of(e, KERN_GEMV, m, 1);
    m->gemm = kernel_of(e, KERN_GEMM, m, 512);
    /* the measured number is of the canonical kernels */
    m->gemv_rows = e->knobs.gemv_rows > 0                       ? e->knobs.gemv_rows
                   : e->gemv_rows[m->type] > 0 && !rounds(e, m) ? e->gemv_rows[m->type]
                   : m->gemv != NULL                            ? m->gemv->tok_tile
                                                                : 0;
    return m->gemv != NULL && m->gemm != NULL && m->gemv->layout == m->layout &&
           m->gemm->layout == m->layout;
}

/* Workers: pool after pool in plan order; worker 0, the engine thread, belongs to the first pool.
 */
kt_status eng_start_team(struct kt_engine *e, kt_err *err)
{
    int *cpu = mem_calloc(e->max_workers, sizeof *cpu);
    uint32_t n = 0, own = 0; /* own: first scratch of the pool, handed out at open */
    if (cpu == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u workers", e->max_workers);
    memset(e->pool_counter, 0, e->n_pools * sizeof *e->pool_counter);
    memset(e->all_counter, 0, sizeof *e->all_counter);
    for (uint32_t p = 0; p < e->n_pools; p++) {
        const struct plan_pool *pool = &e->plan->pools[p];
        uint32_t places = pool->n_places > pool->n_cpus ? pool->n_places : pool->n_cpus;
        e->pool_workers[p] = pool->threads;
        for (uint32_t i = 0; i < pool->threads; i++, n++) {
            e->worker[n] = e->own[own + i];
            e->worker[n].pool = p;
            e->worker[n].index = i;
            e->worker[n].phase = 0;
            cpu[n] = places > 0 ? pool->cpus[i % places] : -1;
        }
        own += e->open_threads[p];
    }
    struct team_opts to = {.n = e->n_workers,
                           .cpu = e->host->this_system ? cpu : NULL,
                           .pin_caller = 1,
                           .spin_ns = e->knobs.spin_ns,
                           .name = "kt-work"};
    kt_status s = team_open(&to, &e->team, err);
    mem_free(cpu);
    return s;
}

void kt_tuning_init(kt_tuning *t)
{
    memset(t, 0, sizeof *t);
    t->size = sizeof *t;
}

void kt_engine_get_tuning(const kt_engine *e, kt_tuning *t)
{
    *t = (kt_tuning){.size = sizeof *t,
                     .threads = e->n_workers,
                     .kernel = kern_isa_level_name(e->isa),
                     .gemv_rows = e->knobs.gemv_rows,
                     .claim_rows = e->knobs.claim_rows,
                     .gemm_claim_rows = e->knobs.gemm_claim_rows,
                     .spin_us = e->knobs.spin_ns / 1000};
}

static bool rows_ok(uint32_t rows)
{
    return rows % CHUNK_ROWS == 0 && rows <= CHUNK_ROWS_MOST;
}

static kt_status knobs_of(const kt_tuning *t, struct eng_knobs *k, kt_err *err)
{
    eng_knobs_default(k);
    if (t->gemv_rows > 64 || !rows_ok(t->claim_rows) || !rows_ok(t->gemm_claim_rows) ||
        t->spin_us > 1000000)
        KT_FAIL(err, KT_E_INVALID,
                "tuning: gemv_rows %u must be at most 64, claim_rows %u and gemm_claim_rows %u "
                "multiples of %u up to %u, spin_us %u at most 1000000",
                t->gemv_rows, t->claim_rows, t->gemm_claim_rows, CHUNK_ROWS, CHUNK_ROWS_MOST,
                t->spin_us);
    if (t->gemv_rows > 0)
        k->gemv_rows = t->gemv_rows;
    if (t->claim_rows > 0)
        k->claim_rows = t->claim_rows;
    if (t->gemm_claim_rows > 0)
        k->gemm_claim_rows = t->gemm_claim_rows;
    if (t->spin_us > 0)
        k->spin_ns = t->spin_us * 1000;
    return KT_OK;
}

/* Threads of each pool out of `total`: in proportion to what the pool had at open, each at least
 * one, none above its share at open. The largest remainder gets the next one; ties to the lower
 * pool. */
static void spread_threads(struct kt_engine *e, uint32_t total)
{
    uint32_t given = 0;
    for (uint32_t p = 0; p < e->n_pools; p++)
        given += e->plan->pools[p].threads = 1;
    for (; given < total; given++) {
        uint32_t best = 0;
        double need = -1;
        for (uint32_t p = 0; p < e->n_pools; p++) {
            double lack =
                (double)e->open_threads[p] * total / e->max_workers - e->plan->pools[p].threads;
            if (e->plan->pools[p].threads < e->open_threads[p] && lack > need) {
                need = lack;
                best = p;
            }
        }
        e->plan->pools[best].threads++;
    }
}

/* All matrices to the kernels of e->isa and the crossover of e->knobs; false as soon as one has
 * none with its layout. */
static bool use_kernels(struct kt_engine *e)
{
    const struct mdl_traits *t = &e->model->t;
    bool ok = eng_mat_kernels(e, &e->head);
    for (uint32_t i = 0; ok && i < t->n_layers; i++) {
        struct eng_layer *l = &e->layer[i];
        struct eng_mat *five[5] = {&l->q, &l->k, &l->v, &l->o, &l->router};
        for (int r = 0; ok && r < (l->moe ? 5 : 4); r++)
            ok = eng_mat_kernels(e, five[r]);
        for (uint32_t x = 0; ok && x < (l->moe ? t->n_experts : 1); x++)
            ok = eng_mat_kernels(e, &l->gate[x]) && eng_mat_kernels(e, &l->up[x]) &&
                 eng_mat_kernels(e, &l->down[x]);
    }
    return ok;
}

static kt_status switch_kernels(struct kt_engine *e, uint32_t isa, const char *name, kt_err *err)
{
    uint32_t was = e->isa;
    e->isa = isa;
    kt_status s = KT_OK;
    if (!use_kernels(e))
        s = err_set(err, KT_E_INVALID, 0, __func__,
                    "kernel level %s reads weights that are packed otherwise; open the engine "
                    "with cpu_mask %s instead",
                    name, name);
    if (s == KT_OK)
        s = eng_find_kernels(e, err);
    if (s != KT_OK) {
        e->isa = was;
        (void)use_kernels(e);
        (void)eng_find_kernels(e, NULL);
    }
    return s;
}

kt_status kt_engine_retune(kt_engine *e, const kt_tuning *t, kt_err *err)
{
    struct eng_knobs knobs, was = e->knobs;
    uint32_t threads = t->threads > 0 ? t->threads : e->max_workers;
    int mask = t->kernel != NULL ? kern_isa_by_name(t->kernel) : (int)e->loaded_isa;
    if (t->size != sizeof *t)
        KT_FAIL(err, KT_E_INVALID, "kt_tuning has size %zu, this library knows %zu", t->size,
                sizeof *t);
    if (e->kv == NULL)
        KT_FAIL(err, KT_E_INVALID, "the engine was opened for metadata only");
    if (threads > e->max_workers || threads < e->n_pools)
        KT_FAIL(err, KT_E_INVALID, "tuning: %u threads: must be %u (one a pool) to %u (as at open)",
                threads, e->n_pools, e->max_workers);
    if (mask < 0)
        KT_FAIL(err, KT_E_INVALID, "tuning: kernel level %s is unknown", t->kernel);
    KT_TRY(knobs_of(t, &knobs, err));
    uint32_t isa = (uint32_t)mask & e->loaded_isa;
    e->knobs = knobs;
    kt_status s = KT_OK; /* looking the kernels of every expert up takes some milliseconds */
    if (isa != e->isa || knobs.gemv_rows != was.gemv_rows)
        s = switch_kernels(e, isa, t->kernel != NULL ? t->kernel : "", err);
    if (s != KT_OK) {
        e->knobs = was;
        return s;
    }
    if (threads == e->n_workers && knobs.spin_ns == was.spin_ns)
        return KT_OK;
    team_close(e->team);
    e->team = NULL;
    spread_threads(e, threads);
    e->n_workers = e->plan->n_threads = threads;
    return eng_start_team(e, err);
}
