/* check_bench.c - speed of the GEMV and GEMM rows: checkkern --bench. Figures for people, never a
 * pass or fail.
 *
 * One thread per CPU the process may use, rows divided between them. GEMV: one token over a matrix
 * far beyond the caches, GB/s of packed bytes. GEMM: 512 tokens, GOPS (two operations per
 * multiply-add). Best of the repetitions. Before each repetition of a GEMV the same threads read
 * the same bytes and do nothing else: that is the ceiling, in GB/s and as a share, under the load
 * that the machine has at that moment.
 */
#include "config.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"
#include "checkkern.h"

#define MAX_THREADS 64
#define K 4096
#define REPS 9

struct bench {
    const struct kern *k;
    struct kern_mm a;
    size_t words; /* of the weights, for the ceiling; 0: not measured */
    uint64_t sink;
    unsigned threads;
    pthread_barrier_t bar;
    double best, best_read; /* seconds */
};
struct worker {
    struct bench *b;
    unsigned id;
};

static uint64_t read_words(const uint64_t *p, size_t n)
{
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] ^= p[i + j];
    return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static void *work(void *v)
{
    struct worker *w = v;
    struct bench *b = w->b;
    struct kern_mm a = b->a;
    uint32_t panels = a.row1 / KERN_PANEL;
    a.row0 = panels * w->id / b->threads * KERN_PANEL;
    a.row1 = panels * (w->id + 1) / b->threads * KERN_PANEL;
    size_t part = b->words / b->threads;
    for (int r = 0; r < 2 * REPS; r++) {
        bool read = r % 2 == 0;
        if (read && b->words == 0)
            continue;
        pthread_barrier_wait(&b->bar);
        uint64_t t = clock_ns();
        if (read)
            __atomic_xor_fetch(&b->sink, read_words((const uint64_t *)b->a.w + w->id * part, part),
                               __ATOMIC_RELAXED);
        else
            b->k->run.mm(&a);
        pthread_barrier_wait(&b->bar);
        double s = (double)(clock_ns() - t) * 1e-9, *best = read ? &b->best_read : &b->best;
        if (w->id == 0 && (*best == 0 || s < *best))
            *best = s;
    }
    return NULL;
}

static void measure(struct bench *b)
{
    pthread_t t[MAX_THREADS];
    struct worker w[MAX_THREADS];
    pthread_barrier_init(&b->bar, NULL, b->threads);
    for (unsigned i = 0; i < b->threads; i++) {
        w[i] = (struct worker){b, i};
        pthread_create(&t[i], NULL, work, &w[i]);
    }
    for (unsigned i = 0; i < b->threads; i++)
        pthread_join(t[i], NULL);
    pthread_barrier_destroy(&b->bar);
}

static void fill(void *p, size_t bytes, uint64_t seed)
{
    struct check_rng r = {seed};
    uint64_t *w = p;
    for (size_t i = 0; i < bytes / 8; i++)
        w[i] = check_u64(&r) & 0x3f3f3f3f3f3f3f3fu; /* every f16, bf16 and f32 in it is finite */
}

static int bench_row(const struct kern *k, unsigned threads, void *w, size_t room)
{
    enum { N = 512 };
    bool gemv = k->op == KERN_GEMV;
    struct bench b = {.k = k, .threads = threads};
    uint64_t panel = kern_panel_bytes(k->layout, (enum dtype)k->dtype, K);
    uint32_t n = gemv     ? 1
                 : k->isa ? N
                          : 16,
             rows = k->isa == 0 ? 128
                    : gemv      ? (uint32_t)(room / panel) * KERN_PANEL
                                : 2048;
    int8_t *q = mem_aligned(64, (size_t)n * K);
    float *x = mem_aligned(64, (size_t)n * K * 4), *scale = mem_aligned(64, (size_t)n * K / 8),
          *y = mem_aligned(64, (size_t)n * rows * 4);
    int32_t *sum = mem_aligned(64, (size_t)n * K / 8);
    int bad = q == NULL || x == NULL || scale == NULL || y == NULL || sum == NULL;
    if (!bad) {
        fill(q, (size_t)n * K, 1);
        memset(sum, 0, (size_t)n * K / 8);
        for (size_t i = 0; i < (size_t)n * K; i++)
            x[i] = 0.5f;
        for (size_t i = 0; i < (size_t)n * K / 32; i++)
            scale[i] = 0.01f;
        memset(y, 0, (size_t)n * rows * 4);
        b.a = (struct kern_mm){.w = w,
                               .k = K,
                               .row1 = rows,
                               .n = n,
                               .q = q,
                               .scale = scale,
                               .sum = sum,
                               .x = x,
                               .ldq = K,
                               .ldg = K / 32,
                               .ldx = K,
                               .y = y,
                               .ldy = rows};
        uint64_t bytes = rows / KERN_PANEL * panel;
        b.words = gemv && k->isa ? bytes / 8 : 0;
        measure(&b);
        printf("%-32s %8.2f GB/s %8.1f GOPS  n %u", k->name, (double)bytes / b.best * 1e-9,
               2e-9 * rows * (double)K * n / b.best, n);
        if (b.best_read > 0)
            printf("  read %.2f GB/s: %.0f %%", (double)bytes / b.best_read * 1e-9,
                   100 * b.best_read / b.best);
        printf("\n");
    }
    mem_free(q);
    mem_free(x);
    mem_free(scale);
    mem_free(sum);
    mem_free(y);
    return bad;
}

int check_mm_bench(const struct check_opts *o)
{
    size_t n, room = (size_t)256 << 20;
    const struct kern *const *t = kern_table(&n);
    struct place_cpus allowed;
    unsigned threads = place_get(&allowed) ? place_count(&allowed) : 1;
    place_free(&allowed);
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    void *w = mem_map(room);
    int bad = w == NULL;
    if (bad)
        return 1;
    fill(w, room, 7);
    printf("%u threads\n", threads);
    for (size_t i = 0; i < n; i++)
        if ((t[i]->op == KERN_GEMV || t[i]->op == KERN_GEMM) && check_wants(o, t[i]))
            bad |= bench_row(t[i], threads, w, room);
    mem_unmap(w, room);
    return bad;
}
