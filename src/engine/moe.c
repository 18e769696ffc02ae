/* moe.c - the expert path: tokens grouped by expert, gate and up with the activation function and
 * the re-quantisation, down with the sum over experts. Two phases, two barriers.
 *
 * A dense feed-forward runs the first phase as one expert that takes every token. The first phase
 * claims (expert, run of intermediate rows): the gate rows and the up rows of a run lie in the
 * worker's scratch, SwiGLU joins them, and groups of 32 become int8 in `mid` right there; parts of
 * gate and up are multiples of 32 rows, so a group never crosses pools. The second phase claims
 * rows of the output; the worker that owns a row adds all experts' products into its int64 sum and
 * finishes it. The sum does not depend on the order of experts (canonical arithmetic), nor does
 * anything here depend on how the rows are cut. A down format that is quantised by whole rows
 * (INT8) takes fp32 rows of `mid` (int8 false), which moe_quantise turns to int8 in a phase between
 * the two. Run by every worker; allocates nothing.
 */
#include "moe.h"

#include <string.h>

#define RUN_ROWS KERN_GROUP /* intermediate rows of a unit of the first phase */
/* Rows of down that a full batch has room for. With half of them the tokens' columns, which a call
 * brings in once, cost a tenth of the products (FP8 and BF16, 32 tokens an expert, Zen 4). */
#define DOWN_ROWS 64
#define LEAST_COST 8 /* so few tokens cost what reading the weights costs */

size_t eng_tmp_floats(const struct kt_engine *e)
{
    size_t n = (size_t)e->batch * DOWN_ROWS * 2;
    return n > 8192 ? n : 8192;
}

void moe_group(struct eng_groups *g, uint32_t n, uint32_t k, uint32_t n_experts)
{
    memset(g->first, 0, (n_experts + 1) * sizeof *g->first);
    for (uint32_t i = 0; i < n * k; i++)
        g->first[g->chosen[i] + 1]++;
    g->n_active = 0;
    for (uint32_t x = 0; x < n_experts; x++) {
        if (g->first[x + 1] > 0)
            g->active[g->n_active++] = x;
        g->first[x + 1] += g->first[x];
        g->fill[x] = g->first[x];
    }
    for (uint32_t i = 0; i < n * k; i++) {
        uint32_t slot = g->fill[g->chosen[i]]++;
        g->slot_tok[slot] = i / k;
        g->slot_weight[slot] = g->weight[i];
    }
}

static uint32_t tokens_of(const struct moe_run *r, uint32_t active)
{
    uint32_t x = r->groups->active[active];
    return r->groups->first[x + 1] - r->groups->first[x];
}

/* Relative cost of a unit of rows for n tokens. */
static uint32_t cost_of(uint32_t n)
{
    return n < LEAST_COST ? LEAST_COST : n;
}

/* Rows [row0, row1) of this pool's part of one expert: gate, up, SwiGLU, int8. */
static void gate_up_rows(struct kt_engine *e, uint32_t worker, const struct moe_run *r,
                         uint32_t active, const uint32_t row[2])
{
    struct eng_worker *w = &e->worker[worker];
    const struct eng_groups *g = r->groups;
    uint32_t x = g->active[active], slot = g->first[x], n = tokens_of(r, active);
    const struct eng_part *gate = &r->gate[x].part[w->pool], *up = &r->up[x].part[w->pool];
    const uint32_t *tok = g->slot_tok != NULL ? g->slot_tok + slot : NULL;
    uint32_t most = (uint32_t)(eng_tmp_floats(e) / (2 * (size_t)n)) / RUN_ROWS * RUN_ROWS;
    for (uint32_t r0 = row[0], r1; r0 < row[1]; r0 = r1) {
        r1 = row[1] - r0 < most ? row[1] : r0 + most;
        uint32_t rows = r1 - r0;
        float *yg = w->tmp, *yu = w->tmp + (size_t)n * rows;
        /* a kernel writes element (i, r) at y[i * ldy + r] with r counted in the part: shift so
         * that r0 lands at the start */
        const uint8_t *next = eng_row_at(&r->up[x], w->pool, r0),
                      *then = eng_row_at(&r->gate[x], w->pool, r1);
        eng_mm(&(struct mm_job){&r->gate[x], r->in, tok, n, NULL, 0, next}, gate, r0, r1,
               (float *)((uintptr_t)yg - r0 * sizeof(float)), rows);
        eng_mm(&(struct mm_job){&r->up[x], r->in, tok, n, NULL, 0, then}, up, r0, r1,
               (float *)((uintptr_t)yu - r0 * sizeof(float)), rows);
        for (uint32_t i = 0; i < n; i++) {
            float *y = yg + (size_t)i * rows;
            if (!r->int8)
                y = r->mid.x + (size_t)(slot + i) * r->mid.k + gate->row0 + r0;
            e->fn.swiglu(yg + (size_t)i * rows, yu + (size_t)i * rows, rows, y);
            if (!r->int8)
                eng_round_part(&r->mid, y, rows, slot + i, gate->row0 + r0);
            else
                eng_quantise_part(
                    e, y, rows, &r->mid,
                    &(struct eng_place){slot + i, gate->row0 + r0, tok != NULL ? tok[i] : i});
        }
    }
}

void moe_gate_up(struct kt_engine *e, uint32_t worker, const struct moe_run *r)
{
    uint32_t rows = r->gate[0].part[e->worker[worker].pool].rows, n_active = r->groups->n_active,
             units = (rows + RUN_ROWS - 1) / RUN_ROWS, at = 0, least = UINT32_MAX;
    uint64_t all = 0, first = 0, from, to;
    for (uint32_t a = 0; a < n_active; a++) {
        uint32_t cost = cost_of(tokens_of(r, a));
        all += cost;
        least = cost < least ? cost : least;
    }
    /* many tokens an expert: runs as long as other GEMM phases claim, because every claim prepares
     * the tokens' columns for its gate and up rows */
    uint64_t most = (uint64_t)e->knobs.claim_rows / RUN_ROWS * LEAST_COST,
             tiles = n_active > 0 ? all / n_active * (e->knobs.gemm_claim_rows / RUN_ROWS) : 0;
    struct eng_cut cut;
    eng_cut_begin(e, worker, &cut, units * all, least, most > tiles ? most : tiles);
    /* unit u of the active expert `at` starts at first + u * cost, and belongs to the claim in
     * which it starts */
    while (eng_cut_next(e, worker, &cut, &from, &to))
        while (at < n_active) {
            uint32_t cost = cost_of(tokens_of(r, at));
            uint64_t end = first + (uint64_t)units * cost,
                     u0 = from > first ? (from - first + cost - 1) / cost : 0,
                     u1 = to < end ? (to - first + cost - 1) / cost : units;
            if (u0 < u1) {
                uint32_t row[2] = {(uint32_t)u0 * RUN_ROWS, (uint32_t)u1 * RUN_ROWS};
                row[1] = row[1] < rows ? row[1] : rows;
                gate_up_rows(e, worker, r, at, row);
            }
            if (to < end)
                break;
            first = end;
            at++;
        }
}

void moe_quantise(struct kt_engine *e, uint32_t worker, const struct moe_run *r)
{
    const struct eng_groups *g = r->groups;
    uint32_t slots = g->first[g->active[g->n_active - 1] + 1], i;
    while (eng_claim(e, worker, slots, &i))
        eng_quantise(e, &r->mid, i, g->slot_tok != NULL ? g->slot_tok[i] : i);
    eng_phase_end(e, worker);
}

/* All experts' products of some rows of this pool's part of down, summed and finished. */
static void down_rows(struct kt_engine *e, uint32_t worker, const struct moe_run *r, uint32_t row0,
                      uint32_t row1)
{
    struct eng_worker *w = &e->worker[worker];
    const struct eng_groups *g = r->groups;
    uint32_t rows = row1 - row0, out0 = r->down[0].part[w->pool].row0 + row0;
    for (uint32_t a = 0; a < g->n_active; a++) {
        uint32_t x = g->active[a], slot = g->first[x], n = tokens_of(r, a);
        struct eng_act act = r->mid;
        act.x += (size_t)slot * act.k;
        if (act.b != NULL)
            act.b += slot * act.ldb;
        if (!r->int8 && a + 1 < g->n_active) { /* the next expert's rows lie behind these */
            const size_t then = tokens_of(r, a + 1);
            act.also =
                act.b != NULL ? (void *)(act.b + n * act.ldb) : (void *)(act.x + (size_t)n * act.k);
            act.also_bytes = then * (act.b != NULL ? 2 * act.ldb : sizeof(float) * act.k);
        }
        if (act.q != NULL) {
            act.q += slot * act.ldq;
            act.scale += slot * act.ldg;
            act.sum += slot * act.ldg;
        }
        const uint8_t *next =
            a + 1 < g->n_active ? eng_row_at(&r->down[g->active[a + 1]], w->pool, row0) : NULL;
        eng_mm(&(struct mm_job){&r->down[x], &act, NULL, n, NULL, 0, next},
               &r->down[x].part[w->pool], row0, row1,
               (float *)((uintptr_t)w->tmp - row0 * sizeof(float)), rows);
        for (uint32_t i = 0; i < n; i++)
            if (!e->fn.moe_add(w->acc + (size_t)g->slot_tok[slot + i] * rows,
                               w->tmp + (size_t)i * rows, g->slot_weight[slot + i], rows))
                atomic_store_explicit(&e->step.bad[g->slot_tok[slot + i]], 1, memory_order_relaxed);
    }
    for (uint32_t t = 0; t < r->n; t++) {
        float *y = r->out + (size_t)t * r->ldo + out0;
        if (!r->add)
            memset(y, 0, rows * sizeof *y);
        e->fn.moe_done(w->acc + (size_t)t * rows, y, rows); /* leaves zeros in acc */
    }
}

void moe_down(struct kt_engine *e, uint32_t worker, const struct moe_run *r)
{
    uint32_t rows = r->down[0].part[e->worker[worker].pool].rows,
             unit = r->n <= r->down[0].gemv_rows ? CHUNK_ROWS : CHUNK_ROWS / 2;
    /* a claim's sums lie in acc [n][rows], one expert's products in tmp [n][rows] */
    uint32_t most = (uint32_t)(eng_tmp_floats(e) / 2 / r->n) / KERN_PANEL * KERN_PANEL;
    uint64_t from, to;
    struct eng_cut cut;
    eng_cut_begin(e, worker, &cut, (rows + unit - 1) / unit, 1, e->knobs.claim_rows / unit);
    while (eng_cut_next(e, worker, &cut, &from, &to)) {
        uint32_t r0 = (uint32_t)from * unit, end = (uint32_t)to * unit;
        end = end < rows ? end : rows;
        for (uint32_t r1; r0 < end; r0 = r1) {
            r1 = end - r0 < most ? end : r0 + most;
            down_rows(e, worker, r, r0, r1);
        }
    }
    if (worker == 0)
        for (uint32_t a = 0; a < r->groups->n_active; a++) {
            uint32_t x = r->groups->active[a], n = tokens_of(r, a);
            eng_count_weights(e, &r->gate[x], n);
            eng_count_weights(e, &r->up[x], n);
            eng_count_weights(e, &r->down[x], n);
        }
}
