/* kern_set.c - see kern_set.h. Copies of one packed matrix: what is read differs in place only.
 * Each thread fills its own share, so its pages are near it.
 */
#include "kern_set.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "measure.h"
#include "selftest.h"

struct kern_set {
    struct kern_set_opts o;
    struct team *team;
    uint8_t *packed, **data; /* one matrix; [n_threads] copies of it */
    uint64_t matrix_bytes;
    uint32_t n_matrices; /* of each thread */
    uint32_t *at;        /* [n_threads] the next matrix; written by its thread */
    float **y;           /* [n_threads] [max_tokens][rows] */
    float *x, *scale;    /* activations: [max_tokens][k], [max_tokens][k/32] */
    int8_t *q;
    int32_t *sum;
    /* of the running product */
    const struct kern *row;
    uint32_t tokens, times;
    uint64_t start_ns, end_ns;
};

static void fill(void *ctx, uint32_t w)
{
    struct kern_set *s = ctx;
    for (uint32_t i = 0; i < s->n_matrices; i++)
        memcpy(s->data[w] + s->matrix_bytes * i, s->packed, s->matrix_bytes);
    memset(s->y[w], 0, (size_t)s->o.max_tokens * s->o.rows * sizeof **s->y);
}

static void run(void *ctx, uint32_t w)
{
    struct kern_set *s = ctx;
    struct kern_mm m = {.k = s->o.k,
                        .row1 = s->o.rows,
                        .n = s->tokens,
                        .q = s->q,
                        .scale = s->scale,
                        .sum = s->sum,
                        .x = s->x,
                        .ldq = s->o.k,
                        .ldg = s->o.k / KERN_GROUP,
                        .ldx = s->o.k,
                        .y = s->y[w],
                        .ldy = s->o.rows};
    uint32_t at = s->at[w];
    team_barrier(s->team, w);
    if (w == 0)
        s->start_ns = clock_ns();
    for (uint32_t i = 0; i < s->times; i++) {
        m.w = s->data[w] + s->matrix_bytes * at;
        s->row->run.mm(&m);
        at = at + 1 < s->n_matrices ? at + 1 : 0;
    }
    team_barrier(s->team, w);
    if (w == 0)
        s->end_ns = clock_ns();
    s->at[w] = at;
}

double kern_set_run(struct kern_set *s, const struct kern *row, uint32_t tokens, uint32_t times)
{
    s->row = row;
    s->tokens = tokens;
    s->times = times;
    team_run(s->team, run, s);
    return (double)(s->end_ns - s->start_ns) * 1e-9;
}

/* Random codes with their sums, scales of ordinary size; the same values as floats. */
static void make_acts(struct kern_set *s)
{
    uint64_t seed = 9;
    size_t n = (size_t)s->o.max_tokens * s->o.k;
    memset(s->sum, 0, (n / KERN_GROUP + 1) * sizeof *s->sum);
    for (size_t i = 0; i < n; i++) {
        int q = (int)(m_random(&seed) >> 33) % 255 - 127;
        s->q[i] = (int8_t)q;
        s->x[i] = 0.01f * (float)q;
        s->sum[i / KERN_GROUP] += q;
        s->scale[i / KERN_GROUP] = 0.01f;
    }
}

static bool take_memory(struct kern_set *s)
{
    const struct kern_set_opts *o = &s->o;
    size_t n = (size_t)o->max_tokens * o->k;
    s->matrix_bytes = (kern_packed_bytes(o->layout, o->type, o->rows, o->k) + 63) / 64 * 64;
    s->n_matrices = (uint32_t)(o->bytes / o->n_threads / s->matrix_bytes) + 1;
    s->packed = mem_aligned(64, s->matrix_bytes);
    s->data = mem_calloc(o->n_threads, sizeof *s->data);
    s->at = mem_calloc(o->n_threads, sizeof *s->at);
    s->y = mem_calloc(o->n_threads, sizeof *s->y);
    s->x = mem_aligned(64, n * sizeof *s->x);
    s->q = mem_aligned(64, n);
    s->scale = mem_aligned(64, (n / KERN_GROUP + 1) * sizeof *s->scale);
    s->sum = mem_aligned(64, (n / KERN_GROUP + 1) * sizeof *s->sum);
    bool ok = s->packed != NULL && s->data != NULL && s->at != NULL && s->y != NULL &&
              s->x != NULL && s->q != NULL && s->scale != NULL && s->sum != NULL;
    for (uint32_t i = 0; ok && i < o->n_threads; i++) {
        /* a page beyond the end: kernels prefetch there */
        s->data[i] = mem_map(s->matrix_bytes * s->n_matrices + 4096);
        s->y[i] = mem_aligned(64, (size_t)o->max_tokens * o->rows * sizeof **s->y);
        ok = s->data[i] != NULL && s->y[i] != NULL;
    }
    return ok;
}

kt_status kern_set_open(const struct kern_set_opts *o, struct kern_set **out, kt_err *err)
{
    *out = NULL;
    struct kern_set *s = mem_calloc(1, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a set of weights");
    s->o = *o;
    void *file = selftest_rows(o->type, o->rows, o->k, 51);
    kt_status st = KT_OK;
    if (file == NULL || !take_memory(s))
        st = err_set(err, KT_E_NOMEM, 0, __func__,
                     "no memory for %llu MB of weights: choose a smaller --rows or --k",
                     (unsigned long long)(o->bytes >> 20));
    else if (kern_pack(o->layout, o->type, file, o->rows, o->k, s->packed) != -1)
        st = err_set(err, KT_E_INTERNAL, 0, __func__, "test weights in %s could not be packed",
                     dtype_name(o->type));
    mem_free(file);
    if (st == KT_OK)
        st = team_open(&(struct team_opts){.n = o->n_threads,
                                           .cpu = o->cpus,
                                           .pin_caller = 1,
                                           .spin_ns = 200000,
                                           .name = "kt-kern"},
                       &s->team, err);
    if (st != KT_OK) {
        kern_set_close(s);
        return st;
    }
    make_acts(s);
    team_run(s->team, fill, s);
    *out = s;
    return KT_OK;
}

void kern_set_close(struct kern_set *s)
{
    if (s == NULL)
        return;
    team_close(s->team);
    for (uint32_t i = 0; i < s->o.n_threads; i++) {
        if (s->data != NULL)
            mem_unmap(s->data[i], s->matrix_bytes * s->n_matrices + 4096);
        if (s->y != NULL)
            mem_free(s->y[i]);
    }
    mem_free(s->packed);
    mem_free(s->data);
    mem_free(s->at);
    mem_free(s->y);
    mem_free(s->x);
    mem_free(s->q);
    mem_free(s->scale);
    mem_free(s->sum);
    mem_free(s);
}
