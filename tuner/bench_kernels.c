/* bench_kernels.c - kttune bench kernels: every variant of a weight format on cold weights, as
 * shares of the ceilings that are measured in the same rounds.
 *
 * A round times, in random order, the read ceiling, the compute ceilings of the instructions in
 * use, and every variant at every number of tokens; ratios are taken inside a round. Bytes are
 * those of the file's format, operations 2 per multiply-accumulate. The best GEMV and GEMM are also
 * timed at small numbers of tokens, where one overtakes the other.
 */
#include "bench_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "bench.h"
#include "ceiling.h"
#include "cmds.h"
#include "kern_set.h"

#define SAMPLE_SECONDS 0.010
#define GEMV_MOST 16 /* tokens: a GEMV of more is nobody's choice */

static const uint32_t crossover_tokens[] = {1, 2, 3, 4, 5, 6, 8, 12, 16};
#define N_CROSSOVER (sizeof crossover_tokens / sizeof crossover_tokens[0])

int bk_level(const struct kern *k)
{
    if (k->isa == 0)
        return -1;
    if (kern_act_of((enum dtype)k->dtype) == KERN_ACT_F32)
        return k->isa & KERN_ISA_AVX512 ? BK_FMA512 : BK_FMA256;
    return k->isa & KERN_ISA_AVX512VNNI ? BK_AVX512VNNI
           : k->isa & KERN_ISA_AVX512   ? BK_AVX512
           : k->isa & KERN_ISA_AVXVNNI  ? BK_AVXVNNI
                                        : BK_AVX2;
}

uint32_t bk_level_isa(int level)
{
    return level == BK_AVX512VNNI                     ? KERN_ISA_AVX512VNNI
           : level == BK_AVX512 || level == BK_FMA512 ? KERN_ISA_AVX512
           : level == BK_AVXVNNI                      ? KERN_ISA_AVXVNNI
                                                      : KERN_ISA_AVX2;
}

/* ---- one format ---- */

static kt_status add_point(struct bk *b, const struct kern *k, uint32_t tokens, bool shown,
                           kt_err *err)
{
    for (uint32_t i = 0; i < b->n_points; i++)
        if (b->point[i].k == k && b->point[i].tokens == tokens) {
            b->point[i].shown |= shown;
            return KT_OK;
        }
    if (b->n_points == BK_POINTS)
        KT_FAIL(err, KT_E_INVALID, "more than %d points: choose fewer --tokens", BK_POINTS);
    struct bk_point *p = &b->point[b->n_points];
    *p = (struct bk_point){.k = k, .tokens = tokens, .shown = shown, .times = 1};
    p->seconds = mem_calloc(b->rounds.n, sizeof *p->seconds);
    if (p->seconds == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for samples");
    b->n_points++;
    return KT_OK;
}

/* The oracle is timed only when it is what would run. */
static bool wanted(const struct bk *b, const struct kern *k)
{
    const struct kern_shape s = {b->rows, b->k, 1};
    bool mm = k->op == KERN_GEMV || k->op == KERN_GEMM;
    return mm && k->dtype == (int)b->t && (k->isa & ~b->isa) == 0 && (k->isa != 0 || b->isa == 0) &&
           (k->fits == NULL || k->fits(&s)) &&
           (b->kernel == NULL || strstr(k->name, b->kernel) != NULL);
}

static kt_status choose_points(struct bk *b, kt_err *err)
{
    size_t n;
    const struct kern *const *table = kern_table(&n);
    b->n_points = 0;
    for (size_t i = 0; i < n; i++) {
        if (!wanted(b, table[i]))
            continue;
        for (uint32_t t = 0; t < b->tokens.n; t++)
            if (table[i]->op == KERN_GEMM || b->tokens.v[t] <= GEMV_MOST)
                KT_TRY(add_point(b, table[i], b->tokens.v[t], true, err));
    }
    for (int op = KERN_GEMV; op <= KERN_GEMM; op++) {
        const struct kern *best = kern_find((enum kern_op)op, (int)b->t, b->isa, NULL);
        for (size_t t = 0; best != NULL && wanted(b, best) && t < N_CROSSOVER; t++)
            KT_TRY(add_point(b, best, crossover_tokens[t], false, err));
    }
    memset(b->level_used, 0, sizeof b->level_used);
    for (uint32_t i = 0; i < b->n_points; i++)
        if (bk_level(b->point[i].k) >= 0)
            b->level_used[bk_level(b->point[i].k)] = true;
    return KT_OK;
}

uint32_t bk_crossover(const struct bk *b, double *gain)
{
    uint32_t from = 0;
    for (size_t t = N_CROSSOVER; t-- > 0;) {
        const struct bk_point *v = NULL, *m = NULL;
        for (uint32_t i = 0; i < b->n_points; i++)
            if (b->point[i].tokens == crossover_tokens[t] &&
                b->point[i].k == kern_find(b->point[i].k->op, (int)b->t, b->isa, NULL)) {
                if (b->point[i].k->op == KERN_GEMV)
                    v = &b->point[i];
                else
                    m = &b->point[i];
            }
        if (v == NULL || m == NULL)
            return 0;
        struct stats s = rounds_stats(v->seconds, m->seconds, b->rounds.n);
        if (s.median <= 1)
            return from;
        from = crossover_tokens[t];
        *gain = s.median;
    }
    return from;
}

struct sampler {
    struct bk *b;
    struct ceiling *ceiling;
    struct kern_set *set;
};

/* Items: 0 read, then the loop and scaled ceilings of each level, then the points. */
static kt_status sample(void *ctx, uint32_t item, uint32_t round, kt_err *err)
{
    struct sampler *s = ctx;
    struct bk *b = s->b;
    (void)err;
    if (item == 0) {
        b->read_bps[round] = ceiling_read(s->ceiling);
    } else if (item <= 2 * BK_LEVELS) {
        int level = (int)(item - 1) / 2;
        if (b->level_used[level] && item % 2 == 1)
            b->loop_ops[level][round] = level >= BK_FMA256
                                            ? ceiling_fma(s->ceiling, bk_level_isa(level))
                                            : ceiling_int8(s->ceiling, bk_level_isa(level));
        else if (b->level_used[level] && level < BK_FMA256)
            b->scaled_ops[level][round] = ceiling_scaled(s->ceiling, bk_level_isa(level));
    } else {
        struct bk_point *p = &b->point[item - 1 - 2 * BK_LEVELS];
        p->seconds[round] = kern_set_run(s->set, p->k, p->tokens, p->times) / p->times;
    }
    return KT_OK;
}

/* The first round says how many matrices make a sample. */
static void size_samples(void *ctx)
{
    struct bk *b = ((struct sampler *)ctx)->b;
    for (uint32_t i = 0; i < b->n_points; i++)
        b->point[i].times = rounds_times(SAMPLE_SECONDS, b->point[i].seconds[0], 100000);
}

static kt_status one_format(struct bk *b, struct ceiling *ceiling, struct json_out *j, kt_err *err)
{
    struct sampler s = {.b = b, .ceiling = ceiling};
    KT_TRY(choose_points(b, err));
    if (b->n_points == 0)
        KT_FAIL(err, KT_E_INVALID, "no variant of %s fits %u rows of %u columns%s%s",
                dtype_name(b->t), b->rows, b->k, b->kernel != NULL ? " and is named " : "",
                b->kernel != NULL ? b->kernel : "");
    const struct kern_set_opts o = {.n_threads = b->host.n_threads,
                                    .cpus = b->host.cpus,
                                    .type = b->t,
                                    .layout = b->point[0].k->layout,
                                    .rows = b->rows,
                                    .k = b->k,
                                    .max_tokens = b->max_tokens,
                                    .bytes = b->host.cold_bytes};
    KT_TRY(kern_set_open(&o, &s.set, err));
    b->rounds = (struct rounds){.n = b->rounds.n,
                                .n_items = 1 + 2 * BK_LEVELS + b->n_points,
                                .rng = b->rounds.rng,
                                .ctx = &s,
                                .item = sample,
                                .warm_up = true,
                                .warm = size_samples};
    kt_status st = rounds_run(&b->rounds, err);
    kern_set_close(s.set);
    if (st == KT_OK)
        bk_out_format(b, j);
    return st;
}

static void drop_points(struct bk *b)
{
    for (uint32_t i = 0; i < b->n_points; i++)
        mem_free(b->point[i].seconds);
    b->n_points = 0;
}

/* ---- the command ---- */

static int usage(FILE *to)
{
    fprintf(to,
            "usage: kttune bench kernels [options]\n\n"
            "  --format F,F..     weight formats (default: all that have kernels)\n"
            "  --rows N, --k N    the matrix (default 1536 x 2048: gate and up of an expert of "
            "Qwen3-30B-A3B)\n"
            "  --tokens N,N..     activation rows (default 1,4,32,512; GEMV up to %d)\n"
            "  --kernel TEXT      only variants whose name holds TEXT\n"
            "  --cpu-mask LEVEL   ref, avx2, avxvnni, avx512, avx512vnni or amx\n"
            "  --threads N        (default: the plan's)\n"
            "  --rounds N         paired rounds, 3 to %d (default 9)\n"
            "  --seed N           of the order inside a round (default 1)\n"
            "  --json             one JSON object\n",
            GEMV_MOST, ROUNDS_MOST);
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static bool take_mask(void *to, const char *name)
{
    struct bk *b = to;
    int isa = kern_isa_by_name(name);
    if (isa < 0 || ((uint32_t)isa & ~b->isa) != 0) {
        fprintf(stderr, "kttune bench kernels: %s is no level of this CPU, which has %s\n", name,
                kern_isa_level_name(b->isa));
        return false;
    }
    b->isa = (uint32_t)isa;
    return true;
}

static void defaults(struct bk *b)
{
    if (b->formats.n == 0)
        for (int t = 0; t < DT_COUNT; t++)
            if (kern_has_dtype(t) && b->k % kern_row_unit((enum dtype)t) == 0)
                b->formats.t[b->formats.n++] = (enum dtype)t;
    if (b->tokens.n == 0)
        (void)bench_args_parts("1,4,32,512", bench_take_tokens, &b->tokens);
    b->max_tokens = crossover_tokens[N_CROSSOVER - 1];
    for (uint32_t i = 0; i < b->tokens.n; i++)
        if (b->tokens.v[i] > b->max_tokens)
            b->max_tokens = b->tokens.v[i];
}

static int parse(int argc, char **argv, struct bk *b)
{
    const struct bench_opt opt[] = {OPT_PARTS("format", &b->formats, bench_take_format),
                                    OPT_NUMBER("rows", &b->rows, 1, 1u << 20),
                                    OPT_NUMBER("k", &b->k, 1, 1u << 20),
                                    OPT_PARTS("tokens", &b->tokens, bench_take_tokens),
                                    OPT_TEXT("kernel", &b->kernel),
                                    OPT_CALL("cpu-mask", b, take_mask),
                                    OPT_THREADS(&b->threads),
                                    OPT_ROUNDS(&b->rounds.n),
                                    OPT_SEED(&b->seed),
                                    OPT_FLAG("json", &b->json)};
    struct bench_args a = {
        .command = "bench kernels", .opt = opt, .n = N_OPTS(opt), .usage = usage};
    b->rows = 1536, b->k = 2048, b->rounds.n = 9, b->seed = 1, b->isa = kern_isa_host();
    b->formats.command = "bench kernels";
    b->tokens.most = BENCH_TOKENS;
    int code = bench_args_read(&a, argc, argv);
    if (code >= 0)
        return code;
    b->rounds.rng = b->seed;
    defaults(b);
    return -1;
}

int bench_kernels(int argc, char **argv)
{
    kt_err err;
    struct ceiling *ceiling = NULL;
    struct strbuf text = {0};
    struct json_out j;
    struct bk *b = mem_calloc(1, sizeof *b);
    if (b == NULL)
        return EXIT_USAGE;
    int code = parse(argc, argv, b);
    if (code >= 0) {
        mem_free(b);
        return code;
    }
    jo_init(&j, &text);
    kt_status s = bench_host_read(b->threads, &b->host, &err);
    if (s == KT_OK)
        s = ceiling_open(b->host.n_threads, b->host.cpus, b->host.cold_bytes, &ceiling, &err);
    if (s == KT_OK)
        bk_out_begin(b, &j);
    for (uint32_t i = 0; s == KT_OK && i < b->formats.n; i++) {
        rounds_show_format(dtype_name(b->formats.t[i]), i, b->formats.n);
        b->t = b->formats.t[i];
        s = one_format(b, ceiling, &j, &err);
        drop_points(b);
    }
    if (s == KT_OK)
        bk_out_end(b, &j);
    if (s == KT_OK && b->json && sb_ok(&text))
        printf("%s\n", text.data);
    sb_free(&text);
    ceiling_close(ceiling);
    bench_host_free(&b->host);
    mem_free(b);
    return s == KT_OK ? EXIT_OK : cmd_fail("bench kernels", &err, 0);
}
