/* jobs.c - how the workers share a phase: claims from counters, and matrix jobs cut into chunks of
 * panels.
 *
 * Each pool computes the rows it owns, so a pool's workers claim chunks of their pool's parts only.
 * All counters of a phase are zero when it starts: phase i uses counter i mod 3 and zeroes counter
 * i+1 mod 3, which everybody left behind two barriers ago.
 */
#include "engine.h"

#include <string.h>

void eng_phase_end(struct kt_engine *e, uint32_t worker)
{
    struct eng_worker *w = &e->worker[worker];
    uint32_t next = (w->phase + 1) % 3;
    if (w->index == 0)
        atomic_store_explicit(&e->pool_counter[w->pool].next[next], 0, memory_order_relaxed);
    if (worker == 0)
        atomic_store_explicit(&e->all_counter->next[next], 0, memory_order_relaxed);
    w->phase++;
    team_barrier(e->team, worker);
}

bool eng_claim(struct kt_engine *e, uint32_t worker, uint32_t n_items, uint32_t *item)
{
    uint32_t i = atomic_fetch_add_explicit(&e->all_counter->next[e->worker[worker].phase % 3], 1,
                                           memory_order_relaxed);
    *item = i;
    return i < n_items;
}

bool eng_claim_pool(struct kt_engine *e, uint32_t worker, uint32_t n_items, uint32_t *item)
{
    const struct eng_worker *w = &e->worker[worker];
    uint32_t i = atomic_fetch_add_explicit(&e->pool_counter[w->pool].next[w->phase % 3], 1,
                                           memory_order_relaxed);
    *item = i;
    return i < n_items;
}

void eng_job_add(struct kt_engine *e, const struct mm_job *j)
{
    e->step.jobs[e->step.n_jobs++] = *j;
}

uint32_t eng_chunk_rows(const struct kt_engine *e, uint64_t rows, uint32_t n)
{
    if (n > e->knobs.gemv_rows)
        return e->knobs.gemm_claim_rows;
    uint64_t each = rows / ((uint64_t)e->n_workers * 8) / CHUNK_ROWS * CHUNK_ROWS;
    if (each > e->knobs.claim_rows)
        return e->knobs.claim_rows;
    return each < CHUNK_ROWS ? CHUNK_ROWS : (uint32_t)each;
}

void eng_count_weights(struct kt_engine *e, const struct eng_mat *m, uint32_t n)
{
    atomic_fetch_add_explicit(&e->stat.weight_bytes, m->row_file_bytes * m->rows,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&e->stat.macs, (uint64_t)m->rows * m->k * n, memory_order_relaxed);
}

void eng_jobs_prepare(struct kt_engine *e)
{
    struct eng_step *s = &e->step;
    uint32_t stride = 2 * (e->model->t.n_experts > 2 ? e->model->t.n_experts : 2) + 1;
    uint64_t rows = 0;
    uint32_t most = 0;
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        rows += s->jobs[i].mat->rows;
        most = s->jobs[i].n > most ? s->jobs[i].n : most;
    }
    s->job_rows = eng_chunk_rows(e, rows, most);
    for (uint32_t p = 0; p < e->n_pools; p++) {
        uint32_t *first = s->job_first + (size_t)p * stride;
        first[0] = 0;
        for (uint32_t i = 0; i < s->n_jobs; i++)
            first[i + 1] =
                first[i] + (s->jobs[i].mat->part[p].rows + s->job_rows - 1) / s->job_rows;
    }
    for (uint32_t i = 0; i < s->n_jobs; i++)
        eng_count_weights(e, s->jobs[i].mat, s->jobs[i].n);
}

void eng_mm(const struct mm_job *j, const struct eng_part *part, uint32_t row0, uint32_t row1,
            float *y, size_t ldy)
{
    const struct eng_act *a = j->act;
    struct kern_mm m = {
        .w = part->w,
        .k = j->mat->k,
        .row0 = row0,
        .row1 = row1,
        .n = j->n,
        .tok = j->tok,
        .q = a->q,
        .scale = a->scale,
        .sum = a->sum,
        .x = a->x,
        .ldq = a->ldq,
        .ldg = a->ldg,
        .ldx = a->k,
        .y = y,
        .ldy = ldy,
    };
    const struct kern *k = j->n <= j->mat->gemv_rows ? j->mat->gemv : j->mat->gemm;
    k->run.mm(&m);
}

void eng_jobs_run(struct kt_engine *e, uint32_t worker)
{
    struct eng_step *s = &e->step;
    uint32_t pool = e->worker[worker].pool, item, at = 0;
    uint32_t stride = 2 * (e->model->t.n_experts > 2 ? e->model->t.n_experts : 2) + 1;
    const uint32_t *first = s->job_first + (size_t)pool * stride;
    while (eng_claim_pool(e, worker, first[s->n_jobs], &item)) {
        while (item >= first[at + 1]) /* claims of one worker only grow */
            at++;
        const struct mm_job *j = &s->jobs[at];
        const struct eng_part *part = &j->mat->part[pool];
        uint32_t row0 = (item - first[at]) * s->job_rows, row1 = row0 + s->job_rows;
        if (row1 > part->rows)
            row1 = part->rows;
        eng_mm(j, part, row0, row1, j->y + part->row0, j->ldy);
    }
}

void eng_quantise(struct kt_engine *e, struct eng_act *a, uint32_t row, uint32_t token)
{
    if (a->q == NULL)
        return;
    int8_t *q = a->q + row * a->ldq;
    float *scale = a->scale + row * a->ldg;
    int32_t *sum = a->sum + row * a->ldg;
    if (!e->fn.quant(a->x + (size_t)row * a->k, a->k, q, scale, sum)) {
        atomic_store_explicit(&e->step.bad[token], 1, memory_order_relaxed);
        memset(q, 0, a->k);
        memset(scale, 0, a->k / KERN_GROUP * sizeof *scale);
        memset(sum, 0, a->k / KERN_GROUP * sizeof *sum);
    }
}
