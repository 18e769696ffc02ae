/* jobs.c - how the workers share a phase: claims from counters, and matrix products cut into runs
 * of rows.
 *
 * Each pool computes the rows it owns, so a pool's workers claim rows of their pool's parts only.
 * The limits of the claims follow from the work and the number of workers alone; a counter says
 * which claim is next.
 * All counters of a phase are zero when it starts: phase i uses counter i mod 3 and zeroes counter
 * i+1 mod 3, which everybody left behind two barriers ago.
 */
#include "engine.h"

#include <string.h>

/* The counters for the next phase, without meeting the others: the end of a run does that. */
void eng_phase_last(struct kt_engine *e, uint32_t worker)
{
    struct eng_worker *w = &e->worker[worker];
    uint32_t next = (w->phase + 1) % 3;
    if (w->index == 0)
        atomic_store_explicit(&e->pool_counter[w->pool].next[next], 0, memory_order_relaxed);
    if (worker == 0)
        atomic_store_explicit(&e->all_counter->next[next], 0, memory_order_relaxed);
    w->phase++;
}

void eng_phase_end(struct kt_engine *e, uint32_t worker)
{
    eng_phase_last(e, worker);
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

void eng_cut_begin(const struct kt_engine *e, uint32_t worker, struct eng_cut *c, uint64_t total,
                   uint64_t least, uint64_t most)
{
    *c = (struct eng_cut){.total = total,
                          .least = least,
                          .most = most,
                          .workers = e->pool_workers[e->worker[worker].pool]};
}

/* Half of an even share of what is left: long runs of memory first, and the last claims are as
 * small as the units allow, so that the workers end together whatever their speed. */
static uint64_t cut_size(const struct eng_cut *c)
{
    uint64_t left = c->total - c->start, n = c->workers > 1 ? left / (2 * c->workers) : left;
    n = n > c->most ? c->most : n;
    n = n < c->least ? c->least : n;
    return n < left ? n : left;
}

bool eng_cut_next(struct kt_engine *e, uint32_t worker, struct eng_cut *c, uint64_t *from,
                  uint64_t *to)
{
    const struct eng_worker *w = &e->worker[worker];
    uint32_t i = atomic_fetch_add_explicit(&e->pool_counter[w->pool].next[w->phase % 3], 1,
                                           memory_order_relaxed);
    if (c->at == 0)
        c->size = cut_size(c);
    /* claims of one worker only grow, and every worker computes the same limits */
    for (; c->at < i && c->start < c->total; c->at++) {
        c->start += c->size;
        c->size = cut_size(c);
    }
    *from = c->start;
    *to = c->start + c->size;
    return *from < *to;
}

void eng_count_weights(struct kt_engine *e, const struct eng_mat *m, uint32_t n)
{
    atomic_fetch_add_explicit(&e->stat.weight_bytes, m->row_file_bytes * m->rows,
                              memory_order_relaxed);
    const uint64_t macs = (uint64_t)m->rows * m->k * n;
    atomic_fetch_add_explicit(&e->stat.macs, macs, memory_order_relaxed);
    if (eng_wants_rows(m))
        atomic_fetch_add_explicit(&e->stat.row_macs, macs, memory_order_relaxed);
    else if (!eng_wants_int8(m))
        atomic_fetch_add_explicit(&e->stat.float_macs, macs, memory_order_relaxed);
}

void eng_mm(const struct mm_job *j, const struct eng_part *part, uint32_t row0, uint32_t row1,
            float *y, size_t ldy)
{
    const struct eng_act *a = j->act;
    const bool row = eng_wants_rows(j->mat);
    struct kern_mm m = {
        .w = part->w,
        .k = j->mat->k,
        .row0 = row0,
        .row1 = row1,
        .n = j->n,
        .tok = j->tok,
        .q = a->q + (row ? a->row_q : 0),
        .scale = a->scale + (row ? a->row_g : 0),
        .sum = a->sum + (row ? a->row_g : 0),
        .x = a->x,
        .b = a->b,
        .ldq = a->ldq,
        .ldg = a->ldg,
        .ldx = a->k,
        .ldb = a->ldb,
        .y = y,
        .ldy = ldy,
        .next = j->next,
        .also = a->also,
        .also_bytes = a->also_bytes,
    };
    const struct kern *k = j->n <= j->mat->gemv_rows ? j->mat->gemv : j->mat->gemm;
    k->run.mm(&m);
}

void eng_jobs_run(struct kt_engine *e, uint32_t worker, const struct mm_job *jobs, uint32_t n_jobs)
{
    uint32_t pool = e->worker[worker].pool, at = 0;
    bool stream = jobs[0].n <= jobs[0].mat->gemv_rows;
    uint64_t total = 0, first = 0, from, to;
    for (uint32_t i = 0; i < n_jobs; i++)
        total += jobs[i].mat->part[pool].rows;
    /* few rows for many workers (a router): single panels */
    uint32_t unit = total < (uint64_t)CHUNK_ROWS * e->pool_workers[pool] ? KERN_PANEL
                    : stream                                             ? CHUNK_ROWS
                                                                         : CHUNK_ROWS / 2,
             most = stream ? e->knobs.claim_rows : e->knobs.gemm_claim_rows;
    uint64_t units = 0;
    for (uint32_t i = 0; i < n_jobs; i++)
        units += (jobs[i].mat->part[pool].rows + unit - 1) / unit;
    struct eng_cut cut;
    eng_cut_begin(e, worker, &cut, units, 1, most / unit);
    while (eng_cut_next(e, worker, &cut, &from, &to))
        while (from < to) { /* a claim may span jobs */
            const struct mm_job *j = &jobs[at];
            const struct eng_part *part = &j->mat->part[pool];
            uint64_t n = (part->rows + unit - 1) / unit;
            if (from >= first + n) {
                first += n;
                at++;
                continue;
            }
            uint64_t end = to < first + n ? to : first + n;
            uint32_t row0 = (uint32_t)(from - first) * unit, row1 = (uint32_t)(end - first) * unit;
            eng_mm(j, part, row0, row1 < part->rows ? row1 : part->rows, j->y + part->row0, j->ldy);
            from = end;
        }
    for (uint32_t i = 0; worker == 0 && i < n_jobs; i++)
        eng_count_weights(e, jobs[i].mat, jobs[i].n);
}

void eng_quantise_part(struct kt_engine *e, const float *x, uint32_t n, const struct eng_act *to,
                       const struct eng_place *at)
{
    int8_t *q = to->q + at->row * to->ldq + at->col;
    float *scale = to->scale + at->row * to->ldg + at->col / KERN_GROUP;
    int32_t *sum = to->sum + at->row * to->ldg + at->col / KERN_GROUP;
    if (!e->fn.quant(x, n, q, scale, sum)) {
        atomic_store_explicit(&e->step.bad[at->token], 1, memory_order_relaxed);
        memset(q, 0, n);
        memset(scale, 0, n / KERN_GROUP * sizeof *scale);
        memset(sum, 0, n / KERN_GROUP * sizeof *sum);
    }
}

void eng_round_part(const struct eng_act *a, const float *x, uint32_t n, uint32_t row, uint32_t col)
{
    if (a->b == NULL)
        return;
    uint16_t *b = a->b + row * a->ldb + col;
    kern_round_bf16(x, n, b);
    if ((col + n) % 2 != 0) /* the end of the row: pieces are multiples of 32 */
        b[n] = 0;
}

void eng_quantise(struct kt_engine *e, const struct eng_act *a, uint32_t row, uint32_t token)
{
    const float *x = a->x + (size_t)row * a->k;
    if (a->q == NULL)
        return;
    if (e->acts & 1u << KERN_ACT_Q8)
        eng_quantise_part(e, x, a->k, a, &(struct eng_place){row, 0, token});
    int8_t *q = a->q + row * a->ldq + a->row_q;
    float *scale = a->scale + row * a->ldg + a->row_g;
    int32_t *sum = a->sum + row * a->ldg + a->row_g;
    if (a->row_q > 0 && !e->fn.quant_row(x, a->k, q, scale, sum)) {
        atomic_store_explicit(&e->step.bad[token], 1, memory_order_relaxed);
        memset(q, 0, a->k);
        *scale = 0;
        *sum = 0;
    }
}
