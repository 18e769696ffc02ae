/* bench_kernels_out.c - the table and the JSON of bench kernels. Every figure is the median of the
 * rounds with its quartiles; a share divides two figures of the same round.
 */
#include <math.h>
#include <stdio.h>

#include "bench_kernels.h"
#include "ceiling.h"

/* What one point gives in one round. */
struct figures {
    double gb_s, gops, read, loop, scaled; /* the last three: shares, NAN where there is none */
};

static struct figures figures_of(const struct bk *b, const struct bk_point *p, uint32_t r)
{
    int level = bk_level(p->k);
    double bytes =
               (double)(dtype_row_bytes(b->t, b->k) * b->rows) * b->host.n_threads / p->seconds[r],
           ops = 2.0 * b->rows * b->k * p->tokens * b->host.n_threads / p->seconds[r];
    return (struct figures){bytes * 1e-9, ops * 1e-9, bytes / b->read_bps[r],
                            level >= 0 ? ops / b->loop_ops[level][r] : (double)NAN,
                            level >= 0 && level < BK_FMA256 ? ops / b->scaled_ops[level][r]
                                                            : (double)NAN};
}

struct summary {
    struct stats gb_s, gops, read, loop, scaled;
};

static void summarise(const struct bk *b, const struct bk_point *p, struct summary *s)
{
    double v[5][ROUNDS_MOST];
    for (uint32_t r = 0; r < b->rounds.n; r++) {
        struct figures f = figures_of(b, p, r);
        v[0][r] = f.gb_s, v[1][r] = f.gops, v[2][r] = f.read, v[3][r] = f.loop, v[4][r] = f.scaled;
    }
    stats_of(v[0], b->rounds.n, &s->gb_s);
    stats_of(v[1], b->rounds.n, &s->gops);
    stats_of(v[2], b->rounds.n, &s->read);
    stats_of(v[3], b->rounds.n, &s->loop);
    stats_of(v[4], b->rounds.n, &s->scaled);
}

static void put_series(struct json_out *j, const char *key, const double *v, uint32_t n)
{
    struct stats s = rounds_stats(v, NULL, n);
    rounds_put(j, key, &s, 1e-9);
}

static double median(const double *v, uint32_t n)
{
    return rounds_stats(v, NULL, n).median;
}

static void share(const struct stats *s, bool quartiles)
{
    if (isnan(s->median))
        printf(quartiles ? "      -              " : "      -");
    else if (quartiles)
        printf("  %5.1f (%5.1f-%5.1f)", 100 * s->median, 100 * s->q1, 100 * s->q3);
    else
        printf("  %5.1f", 100 * s->median);
}

void bk_out_begin(const struct bk *b, struct json_out *j)
{
    jo_object(j);
    jo_kuint(j, "threads", b->host.n_threads);
    jo_kstr(j, "cpu_mask", kern_isa_level_name(b->isa));
    jo_kuint(j, "rows", b->rows);
    jo_kuint(j, "k", b->k);
    jo_kuint(j, "rounds", b->rounds.n);
    jo_kuint(j, "set_bytes", b->host.cold_bytes);
    jo_kuint(j, "llc_bytes", b->host.llc_bytes);
    jo_key(j, "formats");
    jo_array(j);
    if (!b->json)
        printf("matrices of %u x %u, %u threads, %.0f MB of weights (last-level cache %.0f MB), %u "
               "paired rounds; medians, quartiles in brackets\n",
               b->rows, b->k, b->host.n_threads, (double)b->host.cold_bytes * 1e-6,
               (double)b->host.llc_bytes * 1e-6, b->rounds.n);
}

/* Ceilings of the format's rounds: a heading for people, objects for programs. */
static void ceilings(const struct bk *b, struct json_out *j)
{
    put_series(j, "read_gb_s", b->read_bps, b->rounds.n);
    jo_key(j, "ceilings");
    jo_array(j);
    if (!b->json)
        printf("\n%s: read %.1f GB/s", dtype_name(b->t), median(b->read_bps, b->rounds.n) * 1e-9);
    for (int l = 0; l < BK_LEVELS; l++) {
        if (!b->level_used[l])
            continue;
        const bool fma = l >= BK_FMA256;
        const char *name =
            fma ? ceiling_fma_name(bk_level_isa(l)) : ceiling_int8_name(bk_level_isa(l));
        jo_object(j);
        jo_kstr(j, "instruction", name);
        put_series(j, fma ? "fma_gops" : "int8_gops", b->loop_ops[l], b->rounds.n);
        if (!fma)
            put_series(j, "scaled_gops", b->scaled_ops[l], b->rounds.n);
        jo_object_end(j);
        if (b->json)
            continue;
        if (fma)
            printf("; %s: fp32 loop %.0f GOPS", name, median(b->loop_ops[l], b->rounds.n) * 1e-9);
        else
            printf("; %s: int8 loop %.0f, group-scaled %.0f GOPS", name,
                   median(b->loop_ops[l], b->rounds.n) * 1e-9,
                   median(b->scaled_ops[l], b->rounds.n) * 1e-9);
    }
    jo_array_end(j);
}

void bk_out_format(const struct bk *b, struct json_out *j)
{
    const bool fma = kern_act_of(b->t) == KERN_ACT_F32;
    double gain = 0;
    jo_object(j);
    jo_kstr(j, "format", dtype_name(b->t));
    ceilings(b, j);
    jo_key(j, "kernels");
    jo_array(j);
    if (!b->json)
        printf("\n  %-28s %6s %8s %8s  %-20s  %-20s  %s\n", "kernel", "tokens", "GB/s", "GOPS",
               "% read", "% group-scaled", fma ? "% fp32" : "% int8");
    for (uint32_t i = 0; i < b->n_points; i++) {
        const struct bk_point *p = &b->point[i];
        struct summary s;
        if (!p->shown)
            continue;
        summarise(b, p, &s);
        jo_object(j);
        jo_kstr(j, "kernel", p->k->name);
        jo_kstr(j, "op", p->k->op == KERN_GEMV ? "gemv" : "gemm");
        jo_kuint(j, "tokens", p->tokens);
        rounds_put(j, "gb_s", &s.gb_s, 1);
        rounds_put(j, "gops", &s.gops, 1);
        rounds_put(j, "read_ratio", &s.read, 1);
        rounds_put(j, "scaled_ratio", &s.scaled, 1);
        rounds_put(j, fma ? "fma_ratio" : "int8_ratio", &s.loop, 1);
        jo_object_end(j);
        if (b->json)
            continue;
        printf("  %-28s %6u %8.2f %8.1f", p->k->name, p->tokens, s.gb_s.median, s.gops.median);
        share(&s.read, true);
        share(&s.scaled, true);
        share(&s.loop, false);
        printf("\n");
    }
    jo_array_end(j);
    uint32_t from = bk_crossover(b, &gain);
    if (from > 0)
        jo_kuint(j, "gemm_from_tokens", from);
    else
        jo_knull(j, "gemm_from_tokens");
    jo_object_end(j);
    if (!b->json && from > 0)
        printf("  GEMM is faster from %u tokens on (there %.2f times)\n", from, gain);
    if (!b->json)
        fflush(stdout);
}

void bk_out_end(const struct bk *b, struct json_out *j)
{
    (void)b;
    jo_array_end(j);
    jo_object_end(j);
}
