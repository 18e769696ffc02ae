/* check_vec_bench.c - speed of the vector ops: checkkern --bench. Figures for people, never a pass
 * or fail.
 *
 * One thread, the sizes of a model with hidden size 2048 and experts of 768. Best of the
 * repetitions: other load only adds. Attention: 8 query heads of 128 dims over one kv head, in
 * cache (1,024 keys) and from memory (32,768 keys), for one query position and for 8; GB/s are
 * bytes of keys and values, each counted once.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "check_vec.h"

enum { N = 2048, EXPERT = 768, DIM = 128, HEADS = 8, MAX_POS = 8, REPS = 7 };

struct arrays {
    float x[N], w[N], y[N], scale[N / KERN_GROUP];
    int8_t q[N];
    int32_t sum[N / KERN_GROUP];
    int64_t acc[N];
};

static uint32_t size_of(enum kern_op op)
{
    return op == KERN_SWIGLU || op == KERN_EXP ? EXPERT : op == KERN_ROPE ? DIM / 2 : N;
}

static void call(const struct kern *k, struct arrays *a, uint32_t n)
{
    switch (k->op) {
    case KERN_QUANT_ACT:
    case KERN_QUANT_ROW:
        k->run.quant(a->x, n, a->q, a->scale, a->sum);
        break;
    case KERN_RMSNORM:
        k->run.rmsnorm(a->x, a->w, n, 1e-6f, a->y);
        break;
    case KERN_SWIGLU:
        k->run.swiglu(a->x, a->w, n, a->y);
        break;
    case KERN_ADD:
        k->run.add(a->y, a->x, n);
        break;
    case KERN_EXP:
        k->run.vexp(a->x, 1.0f, n, a->y);
        break;
    case KERN_ROPE:
        k->run.rope(a->y, a->x, a->w, n, false);
        break;
    case KERN_MOE_ADD:
        k->run.moe_add(a->acc, a->x, 0.1f, n);
        break;
    default:
        k->run.moe_done(a->acc, a->y, n);
        break;
    }
}

static void bench_elements(const struct kern *k, struct arrays *a)
{
    const uint32_t n = size_of(k->op), calls = k->isa == 0 ? 100 : 2000;
    double best = INFINITY;
    for (int i = 0; i < N; i++) {
        a->x[i] = (float)((i * 37 + 11) % 201 - 100) / 64.0f;
        a->w[i] = 0.5f + (float)(i % 7) / 8.0f;
        a->y[i] = 0.0f;
        a->acc[i] = 0;
    }
    for (int r = 0; r < REPS; r++) {
        const uint64_t t = clock_ns();
        for (uint32_t i = 0; i < calls; i++)
            call(k, a, n);
        best = fmin(best, (double)(clock_ns() - t) / calls);
    }
    printf("%-24s n %5u %10.0f ns\n", k->name, n, best);
}

/* n_pos positions at the end of a sequence of `keys` keys: 1 as in decode, 8 as in prefill. */
static int bench_attention(const struct kern *k, uint32_t keys, enum kern_kv kv, uint32_t n_pos)
{
    const struct kern *join = kern_find(KERN_ATTN_JOIN, -1, k->isa, NULL);
    const uint32_t pages = (keys + KERN_KV_PAGE - 1) / KERN_KV_PAGE, rows = n_pos * HEADS;
    const size_t plane = kern_kv_plane_bytes(kv, DIM), room = 2 * pages * plane,
                 elems = (size_t)rows * DIM;
    uint32_t pos[MAX_POS];
    float x[2][DIM];
    uint8_t *kv_mem = mem_map(room);
    const void **at = mem_alloc(2 * pages * sizeof *at);
    float *q = mem_alloc(2 * elems * sizeof *q);
    struct kern_attn a = {.q = q,
                          .out = q + elems,
                          .ldq = (size_t)HEADS * DIM,
                          .ldo = (size_t)HEADS * DIM,
                          .pos = pos,
                          .n_pos = n_pos,
                          .n_q = HEADS,
                          .dim = DIM,
                          .block1 = UINT32_MAX,
                          .kv = kv,
                          .kpage = at,
                          .vpage = at + pages,
                          .scale = 0.0883883f,
                          .part = mem_aligned(64, kern_attn_part_bytes(rows, DIM, keys)),
                          .scratch = mem_aligned(64, kern_attn_scratch_bytes(rows, DIM))};
    const int bad =
        kv_mem == NULL || at == NULL || q == NULL || a.part == NULL || a.scratch == NULL;
    if (!bad) {
        for (uint32_t i = 0; i < n_pos; i++)
            pos[i] = keys - n_pos + i;
        for (uint32_t g = 0; g < 2 * pages; g++) /* keys and values of a page alternate */
            at[g] = kv_mem + (g < pages ? 2 * g : 2 * (g - pages) + 1) * plane;
        for (uint32_t j = 0; j < pages * KERN_KV_PAGE; j++) {
            for (uint32_t d = 0; d < DIM; d++) {
                x[0][d] = (float)((j * 37 + d * 11) % 201) / 64.0f - 1.5f;
                x[1][d] = (float)((j * 11 + d * 37) % 201) / 64.0f - 1.5f;
            }
            (void)kern_kv_write(kv, DIM, j % KERN_KV_PAGE, x[0], x[1],
                                kv_mem + 2 * (j / KERN_KV_PAGE) * plane,
                                kv_mem + (2 * (j / KERN_KV_PAGE) + 1) * plane);
        }
        for (size_t i = 0; i < elems; i++)
            q[i] = (float)(i % 13) / 8.0f - 0.7f;
        double best = INFINITY;
        for (int r = 0; r < (k->isa == 0 ? 1 : REPS); r++) {
            const uint32_t calls = keys > 8192 || k->isa == 0 ? 1 : 50 / n_pos;
            const uint64_t t = clock_ns();
            for (uint32_t i = 0; i < calls; i++) {
                k->run.attn(&a);
                join->run.attn(&a);
            }
            best = fmin(best, (double)(clock_ns() - t) / calls);
        }
        printf("%-20s %s keys %5u positions %u %10.0f ns  %7.2f GB/s of keys and values  %6.1f "
               "GFLOPS\n",
               k->name, kern_kv_name(kv), keys, n_pos, best, (double)room / best,
               4.0 * rows * DIM * keys / best);
    }
    mem_free(a.part);
    mem_free(a.scratch);
    mem_free(q);
    mem_free(at);
    mem_unmap(kv_mem, room);
    return bad;
}

int check_vec_bench(const struct check_opts *o)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    struct arrays *a = mem_aligned(64, sizeof *a);
    int bad = a == NULL;
    for (size_t i = 0; i < n && !bad; i++) {
        const struct kern *k = t[i];
        if (k->op == KERN_GEMV || k->op == KERN_GEMM || k->op == KERN_ATTN_JOIN ||
            !check_wants(o, k))
            continue;
        if (k->op != KERN_ATTN) {
            bench_elements(k, a);
            continue;
        }
        for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
            bad |= bench_attention(k, 1024, (enum kern_kv)kv, 1);
            if (k->isa == 0)
                continue;
            bad |= bench_attention(k, 32768, (enum kern_kv)kv, 1);
            bad |= bench_attention(k, 1024, (enum kern_kv)kv, MAX_POS);
            bad |= bench_attention(k, 32768, (enum kern_kv)kv, MAX_POS);
        }
    }
    mem_free(a);
    return bad;
}
