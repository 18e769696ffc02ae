/* bench_model.c - kttune bench model: tokens per second and the share of the hardware's ceilings,
 * in paired rounds.
 *
 * A round times, in random order, the read ceiling, the two compute ceilings, a decode run and a
 * prefill run; ratios are taken inside a round, so a machine that slows down slows both sides.
 * Bytes are those of the weight rows a step must read in the file's format (distinct experts,
 * attention, head; not the embedding table, not padding) and of the keys and values that attention
 * reads; operations are 2 per multiply-accumulate
 * of a weight with a token row. Token ids are random and never fed back.
 */
#define _GNU_SOURCE /* sched_getcpu */
#include "bench.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "bench_args.h"
#include "bench_rounds.h"
#include "ceiling.h"
#include "cmds.h"
#include "host/host.h"
#include "kern.h"
#include "load_show.h"
#include "measure.h"

enum { FMA = N_CEILINGS, DECODE, PREFILL, N_ITEMS };

struct bench {
    kt_engine_opts engine;
    uint32_t batch, prompt, context, gen, seed;
    struct rounds rounds;
    bool quiet;
    bool json, paced;
    kt_engine *e;
    kt_engine_info info;
    struct ceilings ceilings;
    uint64_t llc_bytes;
    int *cpus; /* one of each allowed core */
    uint32_t n_cpus;
    kt_seq **seq;        /* [batch] */
    kt_batch_item *item; /* [batch] */
    int32_t *ids;        /* [batch_tokens] */
    float *logits;       /* [batch][V] */
    double decode_attn[ROUNDS_MOST], decode_moe[ROUNDS_MOST],
        decode_other[ROUNDS_MOST]; /* seconds of a step */
    double decode_tok[ROUNDS_MOST], decode_bps[ROUNDS_MOST], decode_ratio[ROUNDS_MOST];
    double decode_bytes, kv_bytes; /* of a step: weights with keys and values, these alone */
    double prefill_attn[ROUNDS_MOST], prefill_attend[ROUNDS_MOST]; /* seconds */
    double fma_ops[ROUNDS_MOST];
    kt_engine_stats did[ROUNDS_MOST]; /* of the prefill run: the macs */
    double prefill_products[ROUNDS_MOST], prefill_all[ROUNDS_MOST];
    double prefill_tok[ROUNDS_MOST], prefill_ops[ROUNDS_MOST], prefill_ratio[ROUNDS_MOST],
        prefill_scaled[ROUNDS_MOST];
};

static void random_ids(struct bench *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        b->ids[i] = (int32_t)((m_random(&b->rounds.rng) >> 33) % b->info.vocab);
}

/* One sequence takes b->prompt random tokens, in steps of at most batch_tokens; logits of the last
 * token only. */
static kt_status feed(struct bench *b, kt_seq *seq, float *logits, kt_err *err)
{
    for (uint32_t at = 0; at < b->prompt;) {
        uint32_t n = b->prompt - at < b->info.batch_tokens ? b->prompt - at : b->info.batch_tokens;
        random_ids(b, n);
        kt_batch_item it = {
            .seq = seq, .ids = b->ids, .n = n, .logits = at + n == b->prompt ? logits : NULL};
        KT_TRY(kt_step(b->e, &it, 1, err));
        at += n;
    }
    return KT_OK;
}

static kt_status time_prefill(struct bench *b, uint32_t round, kt_err *err)
{
    kt_seq *seq;
    kt_engine_stats s0, s1;
    KT_TRY(kt_seq_open(b->e, b->prompt, &seq, err));
    kt_engine_get_stats(b->e, &s0);
    uint64_t t = clock_ns();
    kt_status s = feed(b, seq, b->logits, err);
    double seconds = (double)(clock_ns() - t) * 1e-9;
    kt_engine_get_stats(b->e, &s1);
    kt_seq_close(seq);
    b->prefill_tok[round] = b->prompt / seconds;
    b->prefill_attn[round] = (double)(s1.attn_ns - s0.attn_ns) * 1e-9;
    b->prefill_attend[round] = (double)(s1.attend_ns - s0.attend_ns) * 1e-9;
    b->did[round].weight_macs = s1.weight_macs - s0.weight_macs;
    b->did[round].row_macs = s1.row_macs - s0.row_macs;
    b->did[round].float_macs = s1.float_macs - s0.float_macs;
    b->did[round].attn_macs = s1.attn_macs - s0.attn_macs;
    b->prefill_ops[round] = 2 * (double)b->did[round].weight_macs / seconds;
    return s;
}

static kt_status time_decode(struct bench *b, uint32_t round, kt_err *err)
{
    kt_engine_stats s0, s1;
    kt_status s = KT_OK;
    uint32_t open = 0, context = b->context > 0 ? b->context : b->prompt;
    double seconds = 0;
    for (; s == KT_OK && open < b->batch; open++) {
        s = kt_seq_open(b->e, context + b->gen, &b->seq[open], err);
        if (s == KT_OK)
            s = b->context > 0 ? kt_seq_fill(b->seq[open], context, err)
                               : feed(b, b->seq[open], NULL, err);
    }
    kt_engine_get_stats(b->e, &s0);
    uint64_t t = clock_ns();
    for (uint32_t g = 0; s == KT_OK && g < b->gen; g++) {
        random_ids(b, b->batch);
        for (uint32_t i = 0; i < b->batch; i++)
            b->item[i] = (kt_batch_item){.seq = b->seq[i],
                                         .ids = &b->ids[i],
                                         .n = 1,
                                         .logits = b->logits + (size_t)i * b->info.vocab};
        s = kt_step(b->e, b->item, b->batch, err);
    }
    seconds = (double)(clock_ns() - t) * 1e-9;
    kt_engine_get_stats(b->e, &s1);
    for (uint32_t i = 0; i < open; i++)
        kt_seq_close(b->seq[i]);
    b->decode_tok[round] = (double)b->gen * b->batch / seconds;
    b->decode_attn[round] = (double)(s1.attn_ns - s0.attn_ns) * 1e-9 / b->gen;
    b->decode_moe[round] = (double)(s1.moe_ns - s0.moe_ns) * 1e-9 / b->gen;
    b->decode_other[round] = (double)(s1.other_ns - s0.other_ns) * 1e-9 / b->gen;
    b->kv_bytes = (double)(s1.kv_read_bytes - s0.kv_read_bytes) / b->gen;
    b->decode_bytes = b->kv_bytes + (double)(s1.weight_read_bytes - s0.weight_read_bytes) / b->gen;
    b->decode_bps[round] = b->decode_bytes * b->gen / seconds;
    return s;
}

static kt_status one_item(void *ctx, uint32_t item, uint32_t round, kt_err *err)
{
    struct bench *b = ctx;
    if (item == DECODE)
        return time_decode(b, round, err);
    if (item == PREFILL)
        return time_prefill(b, round, err);
    if (item == FMA)
        b->fma_ops[round] = ceiling_fma(b->ceilings.c, b->ceilings.isa);
    else
        ceilings_sample(&b->ceilings, item, round);
    return KT_OK;
}

/* Seconds that a prefill run would take with every part at its own ceiling: products in groups at
 * the group-scaled peak, INT8 per row at the int8 loop, fp32 products and attention at the fma
 * loop. Nothing is taken off for norms, activation functions, sums or reading weights. */
static double ideal_seconds(const struct bench *b, uint32_t round)
{
    const kt_engine_stats *s = &b->did[round];
    const struct ceilings *c = &b->ceilings;
    const double rows = (double)s->row_macs, floats = (double)s->float_macs,
                 groups = (double)s->weight_macs - rows - floats;
    return 2 * ((groups > 0 ? groups / c->scaled_ops[round] : 0) +
                (rows > 0 ? rows / c->int8_ops[round] : 0) +
                (floats + (double)s->attn_macs) / b->fma_ops[round]);
}

static void shares(void *ctx, uint32_t round)
{
    struct bench *b = ctx;
    const struct ceilings *c = &b->ceilings;
    double int8 = c->int8_ops[round], scaled = c->scaled_ops[round];
    b->decode_ratio[round] = b->decode_bps[round] / c->read_bps[round];
    b->prefill_ratio[round] = int8 > 0 ? b->prefill_ops[round] / int8 : (double)NAN;
    b->prefill_scaled[round] = scaled > 0 ? b->prefill_ops[round] / scaled : (double)NAN;
    const double seconds = b->prompt / b->prefill_tok[round];
    b->prefill_products[round] =
        b->prefill_scaled[round] * seconds / (seconds - b->prefill_attend[round]);
    b->prefill_all[round] =
        int8 > 0 && b->fma_ops[round] > 0 ? ideal_seconds(b, round) / seconds : (double)NAN;
}

static void report(void *ctx)
{
    const struct bench *b = ctx;
    const struct ceilings *c = &b->ceilings;
    const bool small = b->decode_bytes < 4.0 * (double)b->llc_bytes;
    const struct rounds_line line[] = {
        {"decode_tok_s", "decode", "tokens/s", b->decode_tok, 1, false},
        {"decode_gb_s", "decode, weights and KV", "GB/s", b->decode_bps, 1e-9, false},
        {"read_gb_s", "read ceiling", "GB/s", c->read_bps, 1e-9, false},
        {"decode_bandwidth_ratio", "decode / read ceiling", "%", b->decode_ratio, 1, true},
        {"decode_attention_ms", "  attention", "ms/step", b->decode_attn, 1e3, false},
        {"decode_ffn_ms", "  experts", "ms/step", b->decode_moe, 1e3, false},
        {"decode_head_ms", "  embedding, head", "ms/step", b->decode_other, 1e3, false},
        {"prefill_tok_s", "prefill", "tokens/s", b->prefill_tok, 1, false},
        {"prefill_attention_ms", "  attention", "ms", b->prefill_attn, 1e3, false},
        {"prefill_attend_ms", "    without its products", "ms", b->prefill_attend, 1e3, false},
        {"prefill_gops", "prefill", "GOPS", b->prefill_ops, 1e-9, false},
        {"int8_gops", "int8 ceiling", "GOPS", c->int8_ops, 1e-9, false},
        {"scaled_gops", "group-scaled ceiling", "GOPS", c->scaled_ops, 1e-9, false},
        {"prefill_int8_ratio", "prefill / int8 ceiling", "%", b->prefill_ratio, 1, true},
        {"prefill_scaled_ratio", "prefill / group-scaled", "%", b->prefill_scaled, 1, true},
        {"prefill_products_ratio", "  time but attention's", "%", b->prefill_products, 1, true},
        {"fma_gflops", "fma ceiling", "GFLOPS", b->fma_ops, 1e-9, false},
        {"prefill_ceilings_ratio", "each part at its ceiling", "%", b->prefill_all, 1, true},
    };
    char why[160];
    snprintf(why, sizeof why,
             "a step reads %.1f MB, less than 4 times the last-level cache of %.1f MB: it would "
             "time the cache",
             b->decode_bytes * 1e-6, (double)b->llc_bytes * 1e-6);
    struct strbuf text = {0};
    struct json_out j;
    jo_init(&j, &text);
    jo_object(&j);
    jo_kstr(&j, "model", b->info.model_name);
    jo_kstr(&j, "dense_format", b->info.dense_format);
    jo_kstr(&j, "expert_format", b->info.expert_format);
    jo_kstr(&j, "kernel", b->info.kernel);
    jo_kstr(&j, "int8_instruction", ceiling_int8_name(c->isa));
    jo_kuint(&j, "threads", b->info.n_threads);
    jo_kuint(&j, "batch", b->batch);
    jo_kuint(&j, "prompt", b->prompt);
    jo_kuint(&j, "context", b->context > 0 ? b->context : b->prompt);
    jo_kstr(&j, "kv_type", b->info.kv_type);
    jo_kuint(&j, "gen", b->gen);
    jo_kuint(&j, "rounds", b->rounds.n);
    jo_kreal(&j, "bytes_per_step", b->decode_bytes);
    jo_kreal(&j, "kv_bytes_per_step", b->kv_bytes);
    if (!b->json)
        printf("%s: dense %s, experts %s, %s kernels, %s KV, %u threads; batch %u, context %u, "
               "prompt %u, %u steps, "
               "%u paired rounds\n\n  %-26s %10s %10s %10s\n",
               b->info.model_name, b->info.dense_format, b->info.expert_format, b->info.kernel,
               b->info.kv_type, b->info.n_threads, b->batch,
               b->context > 0 ? b->context : b->prompt, b->prompt, b->gen, b->rounds.n, "",
               "median", "q1", "q3");
    for (size_t i = 0; i < sizeof line / sizeof line[0]; i++)
        rounds_line(&line[i], b->rounds.n, small && line[i].share, b->json ? 0 : 26, &j);
    if (!b->json)
        printf("\n  Shares of prefill: operations of the weights' products over all of its time; "
               "over its time without\n  attention (rotation, keys, values, scores); time with "
               "products, fp32 products and attention each at\n  the ceiling of its arithmetic, "
               "over its time.\n");
    if (small)
        jo_kstr(&j, "reason", why);
    jo_object_end(&j);
    if (b->json && sb_ok(&text))
        printf("%s\n", text.data);
    else if (small)
        printf("\n  no ratios: %s\n", why);
    sb_free(&text);
}

/* One CPU of each allowed core, for the ceilings' threads; size of the last-level caches. Must come
 * before the engine is opened: that pins this thread, and then it would see one allowed core, and
 * all threads of a ceiling would share it. */
static kt_status look_at_host(struct bench *b, kt_err *err)
{
    struct host *h;
    KT_TRY(host_read(NULL, &h, err));
    for (uint32_t i = 0; i < h->n_l3; i++)
        if (h->l3[i].bytes > 0)
            b->llc_bytes += h->l3[i].bytes;
    b->cpus = mem_calloc(h->n_cores, sizeof *b->cpus);
    for (uint32_t i = 0; b->cpus != NULL && i < h->n_cores; i++)
        if (h->cores[i].allowed)
            b->cpus[b->n_cpus++] = h->cores[i].first_pu;
    host_free(h);
    if (b->cpus == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of CPUs");
    return KT_OK;
}

/* This thread is worker 0 of the engine and of the ceilings: the CPU where it is pinned comes
 * first. */
static kt_status open_ceiling(struct bench *b, kt_err *err)
{
    int here = sched_getcpu();
    for (uint32_t i = 1; i < b->n_cpus; i++)
        if (b->cpus[i] == here) {
            b->cpus[i] = b->cpus[0];
            b->cpus[0] = here;
        }
    if (b->info.n_threads > b->n_cpus)
        KT_FAIL(err, KT_E_INTERNAL, "the engine has %u threads for %u cores", b->info.n_threads,
                b->n_cpus);
    uint64_t bytes = 4 * b->llc_bytes > 512u << 20 ? 4 * b->llc_bytes : 512u << 20;
    return ceiling_open(b->info.n_threads, b->cpus, bytes, &b->ceilings.c, err);
}

static kt_status prepare(struct bench *b, kt_err *err)
{
    b->engine.max_seqs = b->batch > 1 ? b->batch : 1;
    b->engine.ctx_tokens = (b->context > b->prompt ? b->context : b->prompt) + b->gen + 1;
    if (b->batch > 1) /* every sequence takes whole pages */
        b->engine.ctx_tokens =
            (b->engine.ctx_tokens + KERN_KV_PAGE - 1) / KERN_KV_PAGE * KERN_KV_PAGE;
    b->engine.batch_tokens = b->prompt < 512 ? (b->prompt > b->batch ? b->prompt : b->batch) : 512;
    KT_TRY(look_at_host(b, err));
    KT_TRY(kt_engine_open(&b->engine, &b->e, err));
    kt_engine_get_info(b->e, &b->info);
    b->ceilings.isa = (uint32_t)kern_isa_by_name(b->info.kernel);
    b->seq = mem_calloc(b->batch, sizeof *b->seq);
    b->item = mem_calloc(b->batch, sizeof *b->item);
    b->ids = mem_calloc(b->info.batch_tokens, sizeof *b->ids);
    b->logits = mem_calloc((size_t)b->batch * b->info.vocab, sizeof *b->logits);
    if (b->seq == NULL || b->item == NULL || b->ids == NULL || b->logits == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u sequences", b->batch);
    return open_ceiling(b, err);
}

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: kttune bench model -m MODEL [options]\n\n"
        "  --threads N        worker threads (default: the plan's)\n"
        "  --batch N          sequences decoded together (default 1)\n"
        "  --prompt N         tokens of the prompt, also of the prefill run (default 512)\n"
        "  --ctx N            decode after N positions with made-up keys and values, instead of\n"
        "                     the prompt\n"
        "  --gen N            decode steps of a run (default 16)\n"
        "  --rounds N         paired rounds, 3 to 100 (default 7)\n"
        "  --quant F, --quant-dense F, --kv-type T, --cpu-mask LEVEL, --fast-bf16,\n"
        "  --profile host.json  as ktserve has them\n"
        "  --seed N           of the random token ids (default 1)\n"
        "  --pack-cache DIR   keep packed weights in DIR, or read them from there\n"
        "  --quiet            no progress\n"
        "  --json             one JSON object\n"
        "  --paced            wait for a line on standard input before each round and print "
        "one JSON object for it\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static int parse(int argc, char **argv, struct bench *b)
{
    kt_engine_opts *e = &b->engine;
    const struct bench_opt opt[] = {OPT_MODEL(&e->model_path),
                                    OPT_THREADS(&e->threads),
                                    OPT_NUMBER("batch", &b->batch, 1, 1024),
                                    OPT_NUMBER("prompt", &b->prompt, 1, 1u << 20),
                                    OPT_NUMBER("ctx", &b->context, 1, 1u << 20),
                                    OPT_NUMBER("gen", &b->gen, 1, 1u << 20),
                                    OPT_ROUNDS(&b->rounds.n),
                                    OPT_QUANTS(e),
                                    OPT_TEXT("kv-type", &e->kv_type),
                                    OPT_CPU_MASK(&e->cpu_mask),
                                    OPT_FLAG("fast-bf16", &e->fast_bf16),
                                    OPT_TEXT("profile", &e->profile_path),
                                    OPT_SEED(&b->seed),
                                    OPT_TEXT("pack-cache", &e->pack_cache_dir),
                                    OPT_FLAG("quiet", &b->quiet),
                                    OPT_FLAG("json", &b->json),
                                    OPT_FLAG("paced", &b->paced)};
    struct bench_args a = {.command = "bench model", .opt = opt, .n = N_OPTS(opt), .usage = usage};
    kt_engine_opts_init(e);
    b->batch = 1, b->prompt = 512, b->gen = 16, b->rounds.n = 7, b->seed = 1;
    int code = bench_args_read(&a, argc, argv);
    if (code >= 0)
        return code;
    if (e->model_path == NULL)
        return bench_args_missing(&a, "-m MODEL");
    b->json = b->json || b->paced;
    b->rounds = (struct rounds){.n = b->rounds.n,
                                .n_items = N_ITEMS,
                                .rng = b->seed,
                                .ctx = b,
                                .item = one_item,
                                .after = shares,
                                .warm_up = true,
                                .show = !b->quiet};
    return -1;
}

int bench_model(int argc, char **argv)
{
    struct bench b = {0};
    kt_err err;
    int code = parse(argc, argv, &b);
    if (code >= 0)
        return code;
    if (!b.quiet)
        load_show(&b.engine);
    kt_status s = prepare(&b, &err);
    if (s == KT_OK && b.paced)
        s = rounds_paced(&b.rounds, report, &err);
    else if (s == KT_OK)
        s = rounds_run(&b.rounds, &err);
    if (s == KT_OK && !b.paced)
        report(&b);
    ceiling_close(b.ceilings.c);
    mem_free(b.cpus);
    mem_free(b.seq);
    mem_free(b.item);
    mem_free(b.ids);
    mem_free(b.logits);
    kt_engine_close(b.e);
    return s == KT_OK ? EXIT_OK : cmd_fail("bench model", &err, 1);
}
