/* bench_moe.c - kttune bench moe: the mixture-of-experts operator of kt.h as a share of the
 * machine's ceilings, for given routings, formats and numbers of tokens.
 *
 * A round times, in random order, the read ceiling, the int8 loop, the group-scaled peak and the
 * operator at every number of tokens; shares divide two figures of one round. Bytes are those of
 * the distinct experts that a call takes, in the file's format; operations 2 per
 * multiply-accumulate of a token with an expert. Routing is given, so no router runs. Every expert
 * holds the same values: time does not depend on them.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "bench.h"
#include "bench_host.h"
#include "bench_moe_ids.h"
#include "ceiling.h"
#include "cmds.h"
#include "kern.h"
#include "measure.h"
#include "paced.h"
#include "selftest.h"
#include "stats.h"

#define MAX_ROUNDS 100
#define MAX_POINTS 8
#define MAX_FORMATS 24
#define SAMPLE_SECONDS 0.030
#define MAX_CALLS 64 /* different calls prepared for a point */

struct point {
    struct moe_ids ids;
    uint32_t n_calls, at, times;
    int32_t *id;        /* [n_calls][tokens][top_k] */
    uint32_t *distinct; /* [n_calls] */
    double seconds[MAX_ROUNDS], bytes[MAX_ROUNDS], ops[MAX_ROUNDS], experts[MAX_ROUNDS];
};

struct bench {
    kt_moe_opts op;
    enum moe_routing routing;
    double s;
    const char *routing_text;
    enum dtype format[MAX_FORMATS];
    uint32_t n_formats, tokens[MAX_POINTS], n_points, max_tokens, rounds;
    bool json, paced;
    uint64_t rng;
    struct bench_host host;
    struct ceiling *ceiling;
    uint32_t isa;
    /* of the running format */
    kt_moe *moe;
    kt_moe_info info;
    struct point *point; /* [n_points] */
    float *x, *y, *weight;
    double read_bps[MAX_ROUNDS], int8_ops[MAX_ROUNDS], scaled_ops[MAX_ROUNDS];
};

/* ---- one format ---- */

static kt_status load_experts(struct bench *b, enum dtype t, kt_err *err)
{
    const kt_moe_opts *o = &b->op;
    void *gate = selftest_rows(t, o->inter, o->hidden, 71);
    void *down = selftest_rows(t, o->hidden, o->inter, 72);
    kt_status s = KT_OK;
    if (gate == NULL || down == NULL)
        s = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for rows in %s", dtype_name(t));
    for (uint32_t e = 0; s == KT_OK && e < o->n_experts; e++)
        for (int m = KT_MOE_GATE; s == KT_OK && m <= KT_MOE_DOWN; m++)
            s = kt_moe_load(b->moe, e, (kt_moe_matrix)m, dtype_name(t),
                            m == KT_MOE_DOWN ? down : gate, err);
    mem_free(gate);
    mem_free(down);
    return s;
}

static kt_status make_point(struct bench *b, struct point *p, uint32_t tokens, kt_err *err)
{
    const kt_moe_opts *o = &b->op;
    uint32_t row = o->top_k * tokens, cycle = o->n_experts / o->top_k + 1;
    double *work = mem_calloc(o->n_experts, sizeof *work);
    uint8_t *seen = mem_calloc(o->n_experts, 1);
    p->ids = (struct moe_ids){b->routing, b->s, o->n_experts, o->top_k, tokens};
    p->n_calls = cycle < MAX_CALLS ? cycle : MAX_CALLS;
    p->at = 0;
    p->times = 1;
    p->id = mem_calloc((size_t)p->n_calls * row, sizeof *p->id);
    p->distinct = mem_calloc(p->n_calls, sizeof *p->distinct);
    bool ok = work != NULL && seen != NULL && p->id != NULL && p->distinct != NULL;
    for (uint32_t c = 0; ok && c < p->n_calls; c++) {
        int32_t *id = p->id + (size_t)c * row;
        moe_ids_fill(&p->ids, c, &b->rng, work, id);
        p->distinct[c] = moe_ids_distinct(&p->ids, id, seen);
    }
    mem_free(work);
    mem_free(seen);
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the routing of %u tokens", tokens);
    return KT_OK;
}

static kt_status time_point(struct bench *b, struct point *p, uint32_t round, kt_err *err)
{
    uint32_t n = p->ids.tokens, row = n * p->ids.top_k;
    double experts = 0, calls = p->times;
    uint64_t t = clock_ns();
    for (uint32_t i = 0; i < p->times; i++) {
        KT_TRY(kt_moe_forward(b->moe, b->x, p->id + (size_t)p->at * row, b->weight, n, b->y, err));
        experts += p->distinct[p->at];
        p->at = (p->at + 1) % p->n_calls;
    }
    double seconds = (double)(clock_ns() - t) * 1e-9;
    p->seconds[round] = seconds / calls;
    p->experts[round] = experts / calls;
    p->bytes[round] = experts * (double)b->info.expert_bytes / seconds;
    p->ops[round] = 2.0 * 3 * b->op.hidden * b->op.inter * row * calls / seconds;
    return KT_OK;
}

/* Items: read, int8, scaled, then the points. */
static kt_status one_round(struct bench *b, uint32_t round, kt_err *err)
{
    uint32_t order[3 + MAX_POINTS], n = 3 + b->n_points;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(m_random(&b->rng) >> 33) % (i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < n; i++)
        if (order[i] == 0)
            b->read_bps[round] = ceiling_read(b->ceiling);
        else if (order[i] == 1)
            b->int8_ops[round] = ceiling_int8(b->ceiling, b->isa);
        else if (order[i] == 2)
            b->scaled_ops[round] = ceiling_scaled(b->ceiling, b->isa);
        else
            KT_TRY(time_point(b, &b->point[order[i] - 3], round, err));
    return KT_OK;
}

static void put(struct json_out *j, const char *key, const struct stats *s, double scale)
{
    jo_key(j, key);
    jo_object(j);
    jo_kreal(j, "median", s->median * scale);
    jo_kreal(j, "q1", s->q1 * scale);
    jo_kreal(j, "q3", s->q3 * scale);
    jo_object_end(j);
}

/* Median and quartiles of v, or of v / by where `by` is given and positive. */
static struct stats of(const struct bench *b, const double *v, const double *by)
{
    double r[MAX_ROUNDS];
    struct stats s;
    for (uint32_t i = 0; i < b->rounds; i++)
        r[i] = by == NULL ? v[i] : by[i] > 0 ? v[i] / by[i] : (double)NAN;
    stats_of(r, b->rounds, &s);
    return s;
}

static void print_share(const struct stats *s)
{
    if (isnan(s->median))
        printf("  %20s", "-");
    else
        printf("  %5.1f (%5.1f-%5.1f)", 100 * s->median, 100 * s->q1, 100 * s->q3);
}

static void report(const struct bench *b, enum dtype t, struct json_out *j)
{
    bool cold = b->info.weight_bytes >= 4 * b->host.llc_bytes;
    struct stats read = of(b, b->read_bps, NULL), int8 = of(b, b->int8_ops, NULL),
                 scaled = of(b, b->scaled_ops, NULL);
    jo_object(j);
    jo_kstr(j, "format", dtype_name(t));
    jo_kuint(j, "weight_bytes", b->info.weight_bytes);
    jo_kbool(j, "cold", cold);
    put(j, "read_gb_s", &read, 1e-9);
    put(j, "int8_gops", &int8, 1e-9);
    put(j, "scaled_gops", &scaled, 1e-9);
    jo_key(j, "points");
    jo_array(j);
    if (!b->json)
        printf("\n%s: %.0f MB of weights; read %.1f GB/s, int8 loop %.0f GOPS, group-scaled peak "
               "%.0f GOPS\n  %6s %8s %9s %8s %8s  %-20s  %-20s  %s\n",
               dtype_name(t), (double)b->info.weight_bytes * 1e-6, read.median * 1e-9,
               int8.median * 1e-9, scaled.median * 1e-9, "tokens", "experts", "ms", "GB/s", "GOPS",
               "% read", "% group-scaled", "% int8");
    for (uint32_t i = 0; i < b->n_points; i++) {
        const struct point *p = &b->point[i];
        struct stats s = of(b, p->seconds, NULL), bytes = of(b, p->bytes, NULL),
                     ops = of(b, p->ops, NULL), experts = of(b, p->experts, NULL),
                     on_read = of(b, p->bytes, b->read_bps), on_int8 = of(b, p->ops, b->int8_ops),
                     on_scaled = of(b, p->ops, b->scaled_ops);
        if (!cold)
            on_read.median = on_read.q1 = on_read.q3 = (double)NAN;
        jo_object(j);
        jo_kuint(j, "tokens", p->ids.tokens);
        jo_kreal(j, "experts", experts.median);
        put(j, "ms", &s, 1e3);
        put(j, "gb_s", &bytes, 1e-9);
        put(j, "gops", &ops, 1e-9);
        put(j, "read_ratio", &on_read, 1);
        put(j, "scaled_ratio", &on_scaled, 1);
        put(j, "int8_ratio", &on_int8, 1);
        jo_object_end(j);
        if (b->json)
            continue;
        printf("  %6u %8.1f %9.3f %8.2f %8.1f", p->ids.tokens, experts.median, s.median * 1e3,
               bytes.median * 1e-9, ops.median * 1e-9);
        print_share(&on_read);
        print_share(&on_scaled);
        print_share(&on_int8);
        printf("\n");
    }
    jo_array_end(j);
    jo_object_end(j);
    if (!b->json && !cold)
        printf("  no share of the read ceiling: the experts are less than 4 times the last-level "
               "cache of %.1f MB\n",
               (double)b->host.llc_bytes * 1e-6);
    if (!b->json)
        fflush(stdout);
}

/* Rounds in turn with another program's, of the first number of tokens: one line of JSON each. */
static kt_status paced_rounds(struct bench *b, kt_err *err)
{
    b->rounds = 1;
    while (paced_wait()) {
        KT_TRY(one_round(b, 0, err));
        const struct point *p = &b->point[0];
        bool cold = b->info.weight_bytes >= 4 * b->host.llc_bytes;
        struct strbuf text = {0};
        struct json_out j;
        jo_init(&j, &text);
        jo_object(&j);
        jo_kreal(&j, "seconds", p->seconds[0]);
        jo_kreal(&j, "gb_s", p->bytes[0] * 1e-9);
        jo_kreal(&j, "bandwidth_ratio", cold ? p->bytes[0] / b->read_bps[0] : (double)NAN);
        jo_kreal(&j, "int8_ratio", b->int8_ops[0] > 0 ? p->ops[0] / b->int8_ops[0] : (double)NAN);
        jo_kreal(&j, "scaled_ratio",
                 b->scaled_ops[0] > 0 ? p->ops[0] / b->scaled_ops[0] : (double)NAN);
        jo_object_end(&j);
        if (sb_ok(&text))
            printf("%s\n", text.data);
        sb_free(&text);
        fflush(stdout);
    }
    return KT_OK;
}

/* The first round warms up and says how many calls make a sample; the next overwrites it. */
static kt_status rounds(struct bench *b, kt_err *err)
{
    for (uint32_t r = 0; r <= (b->paced ? 0 : b->rounds); r++) {
        KT_TRY(one_round(b, r > 0 ? r - 1 : 0, err));
        for (uint32_t i = 0; r == 0 && i < b->n_points; i++) {
            double times = SAMPLE_SECONDS / b->point[i].seconds[0];
            b->point[i].times = times < 1 ? 1 : times > 10000 ? 10000 : (uint32_t)times + 1;
        }
    }
    return b->paced ? paced_rounds(b, err) : KT_OK;
}

static kt_status one_format(struct bench *b, enum dtype t, struct json_out *j, kt_err *err)
{
    b->op.format = dtype_name(t);
    b->op.max_tokens = b->max_tokens;
    KT_TRY(kt_moe_open(&b->op, &b->moe, err));
    kt_moe_get_info(b->moe, &b->info);
    b->isa = (uint32_t)kern_isa_by_name(b->info.kernel);
    kt_status s = load_experts(b, t, err);
    for (uint32_t i = 0; s == KT_OK && i < b->n_points; i++)
        s = make_point(b, &b->point[i], b->tokens[i], err);
    if (s == KT_OK)
        s = rounds(b, err);
    if (s == KT_OK && !b->paced)
        report(b, t, j);
    for (uint32_t i = 0; i < b->n_points; i++) {
        mem_free(b->point[i].id);
        mem_free(b->point[i].distinct);
        memset(&b->point[i], 0, sizeof b->point[i]);
    }
    kt_moe_close(b->moe);
    b->moe = NULL;
    return s;
}

/* ---- the command ---- */

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: kttune bench moe [options]\n\n"
        "  --routing R        balanced (default): experts in turn; concentrated: all tokens of "
        "a call take\n"
        "                     the same experts; zipf:S: the expert of rank r with probability "
        "~ 1 / r^S\n"
        "  --experts N, --topk N, --hidden N, --inter N\n"
        "                     the shape (default 128, 8, 2048, 768: Qwen3-30B-A3B)\n"
        "  --tokens N,N..     tokens of a call (default 1,512)\n"
        "  --format F,F..     weight formats (default mxfp4)\n"
        "  --threads N        (default: the plan's)\n"
        "  --cpu-mask LEVEL   ref, avx2, avxvnni, avx512, avx512vnni or amx\n"
        "  --fast-bf16        round activations of BF16 weights to BF16\n"
        "  --rounds N         paired rounds, 3 to %d (default 9)\n"
        "  --seed N           of the order inside a round and of zipf (default 1)\n"
        "  --json             one JSON object\n"
        "  --paced            wait for a line on standard input before each round and print one "
        "JSON object for\n"
        "                     it: first format, first number of tokens\n",
        MAX_ROUNDS);
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* Calls take() for each part between commas; false when one is refused or empty. */
static bool each_part(const char *list, bool (*take)(struct bench *b, const char *part),
                      struct bench *b)
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

static bool take_format(struct bench *b, const char *part)
{
    int t = dtype_by_name(part);
    if (t < 0 || !kern_has_dtype(t) || b->n_formats == MAX_FORMATS) {
        fprintf(stderr, "kttune bench moe: %s is no format with kernels\n", part);
        return false;
    }
    b->format[b->n_formats++] = (enum dtype)t;
    return true;
}

static bool take_tokens(struct bench *b, const char *part)
{
    if (b->n_points == MAX_POINTS || !cmd_number(part, 1, 8192, &b->tokens[b->n_points]))
        return false;
    if (b->tokens[b->n_points] > b->max_tokens)
        b->max_tokens = b->tokens[b->n_points];
    b->n_points++;
    return true;
}

static int parse(int argc, char **argv, struct bench *b)
{
    enum {
        ROUTING = 256,
        EXPERTS,
        TOPK,
        HIDDEN,
        INTER,
        TOKENS,
        FORMAT,
        THREADS,
        MASK,
        FAST,
        ROUNDS,
        SEED,
        JSON,
        PACED
    };
    static const struct option longs[] = {{"routing", 1, 0, ROUTING}, {"experts", 1, 0, EXPERTS},
                                          {"topk", 1, 0, TOPK},       {"hidden", 1, 0, HIDDEN},
                                          {"inter", 1, 0, INTER},     {"tokens", 1, 0, TOKENS},
                                          {"format", 1, 0, FORMAT},   {"threads", 1, 0, THREADS},
                                          {"cpu-mask", 1, 0, MASK},   {"rounds", 1, 0, ROUNDS},
                                          {"seed", 1, 0, SEED},       {"json", 0, 0, JSON},
                                          {"fast-bf16", 0, 0, FAST},  {"paced", 0, 0, PACED},
                                          {"help", 0, 0, 'h'},        {0, 0, 0, 0}};
    int c;
    bool ok = true;
    uint32_t seed = 1;
    kt_moe_opts_init(&b->op);
    b->op.n_experts = 128, b->op.top_k = 8, b->op.hidden = 2048, b->op.inter = 768;
    b->rounds = 9, b->routing_text = "balanced";
    optind = 1;
    while (ok && (c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
        switch (c) {
        case ROUTING:
            b->routing_text = optarg;
            ok = moe_routing_parse(optarg, &b->routing, &b->s);
            break;
        case EXPERTS:
            ok = cmd_number(optarg, 1, 65536, &b->op.n_experts);
            break;
        case TOPK:
            ok = cmd_number(optarg, 1, 256, &b->op.top_k);
            break;
        case HIDDEN:
            ok = cmd_number(optarg, 1, 65536, &b->op.hidden);
            break;
        case INTER:
            ok = cmd_number(optarg, 1, 65536, &b->op.inter);
            break;
        case TOKENS:
            ok = each_part(optarg, take_tokens, b);
            break;
        case FORMAT:
            ok = each_part(optarg, take_format, b);
            break;
        case THREADS:
            ok = cmd_number(optarg, 1, 4096, &b->op.threads);
            break;
        case MASK:
            b->op.cpu_mask = optarg;
            break;
        case FAST:
            b->op.fast_bf16 = true;
            break;
        case ROUNDS:
            ok = cmd_number(optarg, 3, MAX_ROUNDS, &b->rounds);
            break;
        case SEED:
            ok = cmd_number(optarg, 0, UINT32_MAX, &seed);
            break;
        case JSON:
            b->json = true;
            break;
        case PACED:
            b->paced = b->json = true;
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
    if (b->n_formats == 0)
        (void)take_format(b, "mxfp4");
    if (b->n_points == 0)
        (void)each_part("1,512", take_tokens, b);
    if (b->paced)
        b->n_formats = b->n_points = 1;
    return -1;
}

static kt_status prepare(struct bench *b, kt_err *err)
{
    size_t n = (size_t)b->max_tokens * b->op.hidden, k = (size_t)b->max_tokens * b->op.top_k;
    KT_TRY(bench_host_read(b->op.threads, &b->host, err));
    KT_TRY(ceiling_open(b->host.n_threads, b->host.cpus, b->host.cold_bytes, &b->ceiling, err));
    b->point = mem_calloc(b->n_points, sizeof *b->point);
    b->x = mem_calloc(n, sizeof *b->x);
    b->y = mem_calloc(n, sizeof *b->y);
    b->weight = mem_calloc(k, sizeof *b->weight);
    if (b->point == NULL || b->x == NULL || b->y == NULL || b->weight == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u tokens", b->max_tokens);
    selftest_floats(b->x, n, 73);
    for (size_t i = 0; i < k; i++)
        b->weight[i] = 1.0f / (float)b->op.top_k;
    return KT_OK;
}

static void head(const struct bench *b, struct json_out *j)
{
    jo_object(j);
    jo_kstr(j, "routing", b->routing_text);
    jo_kuint(j, "experts", b->op.n_experts);
    jo_kuint(j, "topk", b->op.top_k);
    jo_kuint(j, "hidden", b->op.hidden);
    jo_kuint(j, "inter", b->op.inter);
    jo_kuint(j, "threads", b->host.n_threads);
    jo_kuint(j, "rounds", b->rounds);
    jo_key(j, "formats");
    jo_array(j);
    if (!b->json)
        printf("%u of %u experts a token, %s; hidden %u, inter %u; %u threads, %u paired rounds; "
               "medians, quartiles in brackets\n",
               b->op.top_k, b->op.n_experts, b->routing_text, b->op.hidden, b->op.inter,
               b->host.n_threads, b->rounds);
}

int bench_moe(int argc, char **argv)
{
    kt_err err;
    struct strbuf text = {0};
    struct json_out j;
    struct bench *b = mem_calloc(1, sizeof *b);
    if (b == NULL)
        return EXIT_USAGE;
    int code = parse(argc, argv, b);
    if (code >= 0) {
        mem_free(b);
        return code;
    }
    jo_init(&j, &text);
    kt_status s = prepare(b, &err);
    if (s == KT_OK)
        head(b, &j);
    for (uint32_t i = 0; s == KT_OK && i < b->n_formats; i++) {
        if (isatty(2))
            fprintf(stderr, "\r%s: %u of %u formats\r", dtype_name(b->format[i]), i + 1,
                    b->n_formats);
        s = one_format(b, b->format[i], &j, &err);
    }
    jo_array_end(&j);
    jo_object_end(&j);
    if (s == KT_OK && b->json && !b->paced && sb_ok(&text))
        printf("%s\n", text.data);
    sb_free(&text);
    ceiling_close(b->ceiling);
    bench_host_free(&b->host);
    mem_free(b->point);
    mem_free(b->x);
    mem_free(b->y);
    mem_free(b->weight);
    mem_free(b);
    return s == KT_OK ? EXIT_OK : cmd_fail("bench moe", &err, 0);
}
