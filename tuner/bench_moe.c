/* bench_moe.c - kttune bench moe: the mixture-of-experts operator of kt.h as a share of the
 * machine's ceilings, for given routings, formats and numbers of tokens.
 *
 * A round times, in random order, the read ceiling, the int8 loop, the group-scaled peak and the
 * operator at every number of tokens; shares divide two figures of one round. Bytes are those of
 * the distinct experts that a call takes, in the file's format; operations 2 per
 * multiply-accumulate of a token with an expert. Routing is given, so no router runs. Every expert
 * holds the same values: time does not depend on them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "bench.h"
#include "bench_args.h"
#include "bench_host.h"
#include "bench_moe_ids.h"
#include "bench_rounds.h"
#include "ceiling.h"
#include "cmds.h"
#include "kern.h"
#include "selftest.h"

#define MAX_POINTS 8
#define SAMPLE_SECONDS 0.030
#define MAX_CALLS 64 /* different calls prepared for a point */

struct point {
    struct moe_ids ids;
    uint32_t n_calls, at, times;
    int32_t *id;        /* [n_calls][tokens][top_k] */
    uint32_t *distinct; /* [n_calls] */
    double seconds[ROUNDS_MOST], bytes[ROUNDS_MOST], ops[ROUNDS_MOST], experts[ROUNDS_MOST];
};

struct bench {
    kt_moe_opts op;
    enum moe_routing routing;
    double s;
    const char *routing_text;
    struct bench_formats formats;
    struct bench_tokens tokens;
    uint32_t max_tokens, seed;
    bool json, paced;
    struct rounds rounds;
    struct bench_host host;
    struct ceilings ceilings;
    /* of the running format */
    kt_moe *moe;
    kt_moe_info info;
    struct point *point; /* [tokens.n] */
    float *x, *y, *weight;
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
        moe_ids_fill(&p->ids, c, &b->rounds.rng, work, id);
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

/* Items: the ceilings, then the points. */
static kt_status one_item(void *ctx, uint32_t item, uint32_t round, kt_err *err)
{
    struct bench *b = ctx;
    if (item >= N_CEILINGS)
        return time_point(b, &b->point[item - N_CEILINGS], round, err);
    ceilings_sample(&b->ceilings, item, round);
    return KT_OK;
}

/* The first round says how many calls make a sample. */
static void size_samples(void *ctx)
{
    struct bench *b = ctx;
    for (uint32_t i = 0; i < b->tokens.n; i++)
        b->point[i].times = rounds_times(SAMPLE_SECONDS, b->point[i].seconds[0], 10000);
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
    const struct ceilings *c = &b->ceilings;
    const uint32_t n = b->rounds.n;
    struct stats read = rounds_stats(c->read_bps, NULL, n),
                 int8 = rounds_stats(c->int8_ops, NULL, n),
                 scaled = rounds_stats(c->scaled_ops, NULL, n);
    jo_object(j);
    jo_kstr(j, "format", dtype_name(t));
    jo_kuint(j, "weight_bytes", b->info.weight_bytes);
    jo_kbool(j, "cold", cold);
    rounds_put(j, "read_gb_s", &read, 1e-9);
    rounds_put(j, "int8_gops", &int8, 1e-9);
    rounds_put(j, "scaled_gops", &scaled, 1e-9);
    jo_key(j, "points");
    jo_array(j);
    if (!b->json)
        printf("\n%s: %.0f MB of weights; read %.1f GB/s, int8 loop %.0f GOPS, group-scaled peak "
               "%.0f GOPS\n  %6s %8s %9s %8s %8s  %-20s  %-20s  %s\n",
               dtype_name(t), (double)b->info.weight_bytes * 1e-6, read.median * 1e-9,
               int8.median * 1e-9, scaled.median * 1e-9, "tokens", "experts", "ms", "GB/s", "GOPS",
               "% read", "% group-scaled", "% int8");
    for (uint32_t i = 0; i < b->tokens.n; i++) {
        const struct point *p = &b->point[i];
        struct stats s = rounds_stats(p->seconds, NULL, n), bytes = rounds_stats(p->bytes, NULL, n),
                     ops = rounds_stats(p->ops, NULL, n),
                     experts = rounds_stats(p->experts, NULL, n),
                     on_read = rounds_stats(p->bytes, c->read_bps, n),
                     on_int8 = rounds_stats(p->ops, c->int8_ops, n),
                     on_scaled = rounds_stats(p->ops, c->scaled_ops, n);
        if (!cold)
            on_read.median = on_read.q1 = on_read.q3 = (double)NAN;
        jo_object(j);
        jo_kuint(j, "tokens", p->ids.tokens);
        jo_kreal(j, "experts", experts.median);
        jo_kuint(j, "calls", p->times);
        rounds_put(j, "ms", &s, 1e3);
        rounds_put(j, "gb_s", &bytes, 1e-9);
        rounds_put(j, "gops", &ops, 1e-9);
        rounds_put(j, "read_ratio", &on_read, 1);
        rounds_put(j, "scaled_ratio", &on_scaled, 1);
        rounds_put(j, "int8_ratio", &on_int8, 1);
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

/* Of the first number of tokens in the round that just ended, as one line. */
static void report_paced(void *ctx)
{
    const struct bench *b = ctx;
    const struct point *p = &b->point[0];
    const struct ceilings *c = &b->ceilings;
    bool cold = b->info.weight_bytes >= 4 * b->host.llc_bytes;
    struct strbuf text = {0};
    struct json_out j;
    jo_init(&j, &text);
    jo_object(&j);
    jo_kuint(&j, "calls", p->times);
    jo_kreal(&j, "seconds", p->seconds[0]);
    jo_kreal(&j, "gb_s", p->bytes[0] * 1e-9);
    jo_kreal(&j, "bandwidth_ratio", cold ? p->bytes[0] / c->read_bps[0] : (double)NAN);
    jo_kreal(&j, "int8_ratio", rounds_stats(p->ops, c->int8_ops, 1).median);
    jo_kreal(&j, "scaled_ratio", rounds_stats(p->ops, c->scaled_ops, 1).median);
    jo_object_end(&j);
    if (sb_ok(&text))
        printf("%s\n", text.data);
    sb_free(&text);
}

static kt_status one_format(struct bench *b, enum dtype t, struct json_out *j, kt_err *err)
{
    b->op.format = dtype_name(t);
    b->op.max_tokens = b->max_tokens;
    KT_TRY(kt_moe_open(&b->op, &b->moe, err));
    kt_moe_get_info(b->moe, &b->info);
    b->ceilings.isa = (uint32_t)kern_isa_by_name(b->info.kernel);
    kt_status s = load_experts(b, t, err);
    for (uint32_t i = 0; s == KT_OK && i < b->tokens.n; i++)
        s = make_point(b, &b->point[i], b->tokens.v[i], err);
    if (s == KT_OK)
        s = b->paced ? rounds_paced(&b->rounds, report_paced, err) : rounds_run(&b->rounds, err);
    if (s == KT_OK && !b->paced)
        report(b, t, j);
    for (uint32_t i = 0; i < b->tokens.n; i++) {
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
        "  --fast-bf16        round activations of BF16 and FP8 weights to BF16\n"
        "  --rounds N         paired rounds, 3 to %d (default 9)\n"
        "  --seed N           of the order inside a round and of zipf (default 1)\n"
        "  --json             one JSON object\n"
        "  --paced            wait for a line on standard input before each round and print one "
        "JSON object for\n"
        "                     it: first format, first number of tokens\n",
        ROUNDS_MOST);
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static bool take_routing(void *to, const char *text)
{
    struct bench *b = to;
    b->routing_text = text;
    return moe_routing_parse(text, &b->routing, &b->s);
}

static int parse(int argc, char **argv, struct bench *b)
{
    kt_moe_opts *o = &b->op;
    const struct bench_opt opt[] = {OPT_CALL("routing", b, take_routing),
                                    OPT_NUMBER("experts", &o->n_experts, 1, 65536),
                                    OPT_NUMBER("topk", &o->top_k, 1, 256),
                                    OPT_NUMBER("hidden", &o->hidden, 1, 65536),
                                    OPT_NUMBER("inter", &o->inter, 1, 65536),
                                    OPT_PARTS("tokens", &b->tokens, bench_take_tokens),
                                    OPT_PARTS("format", &b->formats, bench_take_format),
                                    OPT_THREADS(&o->threads),
                                    OPT_CPU_MASK(&o->cpu_mask),
                                    OPT_FLAG("fast-bf16", &o->fast_bf16),
                                    OPT_ROUNDS(&b->rounds.n),
                                    OPT_SEED(&b->seed),
                                    OPT_FLAG("json", &b->json),
                                    OPT_FLAG("paced", &b->paced)};
    struct bench_args a = {.command = "bench moe", .opt = opt, .n = N_OPTS(opt), .usage = usage};
    kt_moe_opts_init(o);
    o->n_experts = 128, o->top_k = 8, o->hidden = 2048, o->inter = 768;
    b->rounds.n = 9, b->seed = 1, b->routing_text = "balanced";
    b->formats.command = "bench moe";
    b->tokens.most = MAX_POINTS;
    int code = bench_args_read(&a, argc, argv);
    if (code >= 0)
        return code;
    if (b->formats.n == 0)
        (void)bench_take_format(&b->formats, "mxfp4");
    if (b->tokens.n == 0)
        (void)bench_args_parts("1,512", bench_take_tokens, &b->tokens);
    for (uint32_t i = 0; i < b->tokens.n; i++)
        if (b->tokens.v[i] > b->max_tokens)
            b->max_tokens = b->tokens.v[i];
    if (b->paced) {
        b->json = true;
        b->formats.n = b->tokens.n = 1;
    }
    b->rounds = (struct rounds){.n = b->rounds.n,
                                .n_items = N_CEILINGS + b->tokens.n,
                                .rng = b->seed,
                                .ctx = b,
                                .item = one_item,
                                .warm_up = true,
                                .warm = size_samples};
    return -1;
}

static kt_status prepare(struct bench *b, kt_err *err)
{
    size_t n = (size_t)b->max_tokens * b->op.hidden, k = (size_t)b->max_tokens * b->op.top_k;
    KT_TRY(bench_host_read(b->op.threads, &b->host, err));
    KT_TRY(ceiling_open(b->host.n_threads, b->host.cpus, b->host.cold_bytes, &b->ceilings.c, err));
    b->point = mem_calloc(b->tokens.n, sizeof *b->point);
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
    jo_kuint(j, "rounds", b->rounds.n);
    jo_key(j, "formats");
    jo_array(j);
    if (!b->json)
        printf("%u of %u experts a token, %s; hidden %u, inter %u; %u threads, %u paired rounds; "
               "medians, quartiles in brackets\n",
               b->op.top_k, b->op.n_experts, b->routing_text, b->op.hidden, b->op.inter,
               b->host.n_threads, b->rounds.n);
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
    for (uint32_t i = 0; s == KT_OK && i < b->formats.n; i++) {
        rounds_show_format(dtype_name(b->formats.t[i]), i, b->formats.n);
        s = one_format(b, b->formats.t[i], &j, &err);
    }
    jo_array_end(&j);
    jo_object_end(&j);
    if (s == KT_OK && b->json && !b->paced && sb_ok(&text))
        printf("%s\n", text.data);
    sb_free(&text);
    ceiling_close(b->ceilings.c);
    bench_host_free(&b->host);
    mem_free(b->point);
    mem_free(b->x);
    mem_free(b->y);
    mem_free(b->weight);
    mem_free(b);
    return s == KT_OK ? EXIT_OK : cmd_fail("bench moe", &err, 0);
}
