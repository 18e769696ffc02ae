/* bench_kernels.c - kttune bench kernels: every variant of a weight format on cold weights, as
 * shares of the ceilings that are measured in the same rounds.
 *
 * A round times, in random order, the read ceiling, the compute ceilings of the instructions in
 * use, and every variant at every number of tokens; ratios are taken inside a round. Bytes are
 * those of the file's format, operations 2 per multiply-accumulate. The best GEMV and GEMM are also
 * timed at small numbers of tokens, where one overtakes the other.
 */
#include "bench_kernels.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "bench.h"
#include "ceiling.h"
#include "cmds.h"
#include "kern_set.h"
#include "measure.h"
#include "stats.h"

#define SAMPLE_SECONDS 0.010
#define GEMV_MOST 16 /* tokens: a GEMV of more is nobody's choice */

static const uint32_t crossover_tokens[] = {1, 2, 3, 4, 5, 6, 8, 12, 16};
#define N_CROSSOVER (sizeof crossover_tokens / sizeof crossover_tokens[0])

int bk_level(const struct kern *k)
{
    if (kern_act_of((enum dtype)k->dtype) == KERN_ACT_F32 || k->isa == 0)
        return -1;
    return k->isa & KERN_ISA_AVX512VNNI ? BK_AVX512VNNI
           : k->isa & KERN_ISA_AVXVNNI  ? BK_AVXVNNI
                                        : BK_AVX2;
}

uint32_t bk_level_isa(int level)
{
    return level == BK_AVX512VNNI ? KERN_ISA_AVX512VNNI
           : level == BK_AVXVNNI  ? KERN_ISA_AVXVNNI
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
    p->seconds = mem_calloc(b->rounds, sizeof *p->seconds);
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
        for (uint32_t t = 0; t < b->n_tokens; t++)
            if (table[i]->op == KERN_GEMM || b->tokens[t] <= GEMV_MOST)
                KT_TRY(add_point(b, table[i], b->tokens[t], true, err));
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
    double ratio[BK_ROUNDS];
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
        struct stats s;
        for (uint32_t r = 0; r < b->rounds; r++)
            ratio[r] = v->seconds[r] / m->seconds[r];
        stats_of(ratio, b->rounds, &s);
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

/* Items: 0 read, then the int8 and scaled ceilings of each level, then the points. */
static void sample(struct sampler *s, uint32_t item, uint32_t round)
{
    struct bk *b = s->b;
    if (item == 0) {
        b->read_bps[round] = ceiling_read(s->ceiling);
    } else if (item <= 2 * BK_LEVELS) {
        int level = (int)(item - 1) / 2;
        if (b->level_used[level] && item % 2 == 1)
            b->int8_ops[level][round] = ceiling_int8(s->ceiling, bk_level_isa(level));
        else if (b->level_used[level])
            b->scaled_ops[level][round] = ceiling_scaled(s->ceiling, bk_level_isa(level));
    } else {
        struct bk_point *p = &b->point[item - 1 - 2 * BK_LEVELS];
        p->seconds[round] = kern_set_run(s->set, p->k, p->tokens, p->times) / p->times;
    }
}

/* The first round warms up and says how many matrices make a sample; the next overwrites it. */
static void rounds(struct sampler *s)
{
    struct bk *b = s->b;
    uint32_t order[1 + 2 * BK_LEVELS + BK_POINTS], n = 1 + 2 * BK_LEVELS + b->n_points;
    for (uint32_t r = 0; r <= b->rounds; r++) {
        for (uint32_t i = 0; i < n; i++)
            order[i] = i;
        for (uint32_t i = n - 1; i > 0; i--) {
            uint32_t j = (uint32_t)(m_random(&b->rng) >> 33) % (i + 1), t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (uint32_t i = 0; i < n; i++)
            sample(s, order[i], r > 0 ? r - 1 : 0);
        for (uint32_t i = 0; r == 0 && i < b->n_points; i++) {
            double times = SAMPLE_SECONDS / b->point[i].seconds[0];
            b->point[i].times = times < 1 ? 1 : times > 100000 ? 100000 : (uint32_t)times + 1;
        }
    }
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
    rounds(&s);
    kern_set_close(s.set);
    bk_out_format(b, j);
    return KT_OK;
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
            GEMV_MOST, BK_ROUNDS);
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* Calls take() for each part between commas; false when one is refused or empty. */
static bool each_part(const char *list, bool (*take)(struct bk *b, const char *part), struct bk *b)
{
    char part[32];
    while (true) {
        size_t n = strcspn(list, ",");
        if (n == 0 || n >= sizeof part)
            return false;
        memcpy(part, list, n);
        part[n] = '\0';
        if (!take(b, part))
            return false;
        if (list[n] == '\0')
            return true;
        list += n + 1;
    }
}

static bool take_format(struct bk *b, const char *part)
{
    int t = dtype_by_name(part);
    if (t < 0 || !kern_has_dtype(t) || b->n_formats == DT_COUNT) {
        fprintf(stderr, "kttune bench kernels: %s is no format with kernels\n", part);
        return false;
    }
    b->formats[b->n_formats++] = (enum dtype)t;
    return true;
}

static bool take_tokens(struct bk *b, const char *part)
{
    return b->n_tokens < BK_TOKENS && cmd_number(part, 1, 8192, &b->tokens[b->n_tokens++]);
}

static bool take_mask(struct bk *b, const char *name)
{
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
    if (b->n_formats == 0)
        for (int t = 0; t < DT_COUNT; t++)
            if (kern_has_dtype(t) && b->k % kern_row_unit((enum dtype)t) == 0)
                b->formats[b->n_formats++] = (enum dtype)t;
    if (b->n_tokens == 0)
        (void)each_part("1,4,32,512", take_tokens, b);
    b->max_tokens = crossover_tokens[N_CROSSOVER - 1];
    for (uint32_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i] > b->max_tokens)
            b->max_tokens = b->tokens[i];
}

static int parse(int argc, char **argv, struct bk *b)
{
    enum { FORMAT = 256, ROWS, COLUMNS, TOKENS, KERNEL, MASK, THREADS, ROUNDS, SEED, JSON };
    static const struct option longs[] = {
        {"format", 1, 0, FORMAT},   {"rows", 1, 0, ROWS},     {"k", 1, 0, COLUMNS},
        {"tokens", 1, 0, TOKENS},   {"kernel", 1, 0, KERNEL}, {"cpu-mask", 1, 0, MASK},
        {"threads", 1, 0, THREADS}, {"rounds", 1, 0, ROUNDS}, {"seed", 1, 0, SEED},
        {"json", 0, 0, JSON},       {"help", 0, 0, 'h'},      {0, 0, 0, 0}};
    int c;
    bool ok = true;
    uint32_t seed = 1;
    b->rows = 1536, b->k = 2048, b->rounds = 9, b->isa = kern_isa_host();
    optind = 1;
    while (ok && (c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
        switch (c) {
        case FORMAT:
            ok = each_part(optarg, take_format, b);
            break;
        case ROWS:
            ok = cmd_number(optarg, 1, 1u << 20, &b->rows);
            break;
        case COLUMNS:
            ok = cmd_number(optarg, 1, 1u << 20, &b->k);
            break;
        case TOKENS:
            ok = each_part(optarg, take_tokens, b);
            break;
        case KERNEL:
            b->kernel = optarg;
            break;
        case MASK:
            ok = take_mask(b, optarg);
            break;
        case THREADS:
            ok = cmd_number(optarg, 1, 4096, &b->threads);
            break;
        case ROUNDS:
            ok = cmd_number(optarg, 3, BK_ROUNDS, &b->rounds);
            break;
        case SEED:
            ok = cmd_number(optarg, 0, UINT32_MAX, &seed);
            break;
        case JSON:
            b->json = true;
            break;
        case 'h':
            return usage(stdout);
        default:
            ok = false;
            break;
        }
    if (!ok || optind != argc)
        return usage(stderr);
    b->rng = seed;
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
    for (uint32_t i = 0; s == KT_OK && i < b->n_formats; i++) {
        if (isatty(2))
            fprintf(stderr, "\r%s: %u of %u formats\r", dtype_name(b->formats[i]), i + 1,
                    b->n_formats);
        b->t = b->formats[i];
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
