/* cmd_check_model.c - kttune check-model MODEL GOLDEN: run the prompts of a golden file and say how
 * far the engine is from the reference.
 *
 * Two questions: "is it the right model?" (errors per layer and at the logits against a reference
 * engine, judged by the row of the table in docs/TESTING.md that fits weights, mode and KV type)
 * and, with --exact, "is it canonical arithmetic?" (every bit, whatever threads, batch and
 * chunking). Exit 0 met, 5 not met.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "bench_args.h"
#include "cmds.h"
#include "golden.h"
#include "kern.h"
#include "load_show.h"

struct options {
    const char *model, *golden;
    kt_engine_opts engine;
    uint32_t chunk, copies;
    bool exact, json, quiet;
};

/* Largest and middle values of one place of comparison. */
struct figures {
    double median, worst;
    uint32_t n;
};

struct check {
    struct options o;
    kt_engine *e;
    kt_engine_info info;
    struct golden *g;
    /* the prompt that runs now */
    const struct golden_prompt *p;
    uint32_t at;       /* its position of the step's first token */
    double *layer_err; /* [n_layers][capacity] relative error of each token */
    uint32_t *layer_n; /* [n_layers] */
    uint32_t capacity;
    uint64_t experts_seen, experts_wrong, experts_excused;
    double *err, *kl; /* [positions] */
    uint32_t n, top1;
    uint32_t greedy_seen, greedy_wrong;
    float *logits; /* [longest][V] */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct figures summarise(double *v, uint32_t n)
{
    struct figures f = {0};
    if (n == 0)
        return f;
    qsort(v, n, sizeof *v, by_value);
    f.n = n;
    f.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    f.worst = v[n - 1];
    return f;
}

static double deviation(const float *v, uint64_t n)
{
    double mean = 0, sq = 0;
    for (uint64_t i = 0; i < n; i++)
        mean += (double)v[i];
    mean /= (double)n;
    for (uint64_t i = 0; i < n; i++)
        sq += ((double)v[i] - mean) * ((double)v[i] - mean);
    return sqrt(sq / (double)n);
}

static double largest_difference(const float *a, const float *b, uint32_t n)
{
    double worst = 0;
    for (uint32_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (isnan(d)) /* worse than any number, and it must stay so */
            return (double)INFINITY;
        worst = d > worst ? d : worst;
    }
    return worst;
}

/* KL(reference || ours) of two rows of logits, natural log. */
static double divergence(const float *ref, const float *our, uint32_t n)
{
    double mr = (double)ref[0], mo = (double)our[0], zr = 0, zo = 0, kl = 0;
    for (uint32_t i = 1; i < n; i++) {
        mr = fmax(mr, (double)ref[i]);
        mo = fmax(mo, (double)our[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        zr += exp((double)ref[i] - mr);
        zo += exp((double)our[i] - mo);
    }
    for (uint32_t i = 0; i < n; i++) {
        double lr = (double)ref[i] - mr - log(zr), lo = (double)our[i] - mo - log(zo);
        kl += exp(lr) * (lr - lo);
    }
    return kl > 0 ? kl : isnan(kl) ? (double)INFINITY : 0;
}

static uint32_t argmax(const float *v, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

static void see_layer(void *user, const kt_tap *t)
{
    struct check *c = user;
    const struct golden_prompt *p = c->p;
    uint32_t H = c->info.hidden, K = c->info.experts_per_token;
    if (p == NULL)
        return;
    if (p->hidden[t->layer] != NULL) {
        double std = deviation(p->hidden[t->layer], (uint64_t)p->n * H);
        for (uint32_t i = 0; i < t->n_tokens && c->layer_n[t->layer] < c->capacity; i++)
            c->layer_err[(size_t)t->layer * c->capacity + c->layer_n[t->layer]++] =
                largest_difference(t->hidden + (size_t)i * H,
                                   p->hidden[t->layer] + (size_t)(c->at + i) * H, H) /
                std;
    }
    if (t->experts != NULL && p->experts[t->layer] != NULL)
        for (uint32_t i = 0; i < t->n_tokens; i++) {
            c->experts_seen++;
            if (memcmp(t->experts + (size_t)i * K, p->experts[t->layer] + (size_t)(c->at + i) * K,
                       K * sizeof *t->experts) != 0) {
                if (t->gap[i] < 1e-5f)
                    c->experts_excused++;
                else
                    c->experts_wrong++;
            }
        }
}

/* One prompt alone, in chunks; logits of every position into c->logits. */
static kt_status run_prompt(struct check *c, const struct golden_prompt *p, kt_seq **seq,
                            uint32_t extra, kt_err *err)
{
    KT_TRY(kt_seq_open(c->e, p->n + extra, seq, err));
    for (c->at = 0; c->at < p->n;) {
        uint32_t n = p->n - c->at < c->o.chunk ? p->n - c->at : c->o.chunk;
        kt_batch_item it = {.seq = *seq,
                            .ids = p->ids + c->at,
                            .n = n,
                            .logits = c->logits + (size_t)c->at * c->info.vocab,
                            .all_logits = true};
        KT_TRY(kt_step(c->e, &it, 1, err));
        if (it.result != KT_OK)
            KT_FAIL(err, it.result,
                    "NaN or infinity in the model's activations within positions %u to %u", c->at,
                    c->at + n - 1);
        c->at += n;
    }
    return KT_OK;
}

static void judge_logits(struct check *c, const struct golden_prompt *p)
{
    uint32_t V = c->info.vocab;
    double std = deviation(p->logits, (uint64_t)p->n_rows * V);
    for (uint32_t r = 0; r < p->n_rows; r++) {
        const float *ref = p->logits + (size_t)r * V, *our = c->logits + (size_t)p->rows[r] * V;
        c->err[c->n] = largest_difference(ref, our, V) / std;
        c->kl[c->n] = divergence(ref, our, V);
        c->n++;
        c->top1 += argmax(ref, V) == argmax(our, V);
    }
}

/* Greedy continuation, compared while both sides have the same history. */
static kt_status judge_greedy(struct check *c, const struct golden_prompt *p, kt_seq *seq,
                              float limit, kt_err *err)
{
    const float *l = c->logits + (size_t)(p->n - 1) * c->info.vocab;
    c->p = NULL; /* the tap has no reference for these */
    for (uint32_t i = 0; i < p->n_greedy; i++) {
        int32_t id = (int32_t)argmax(l, c->info.vocab);
        if (p->greedy_margin[i] <= limit)
            break;
        c->greedy_seen++;
        if (id != p->greedy[i]) {
            c->greedy_wrong++;
            break;
        }
        kt_batch_item it = {.seq = seq, .ids = &id, .n = 1, .logits = c->logits};
        KT_TRY(kt_step(c->e, &it, 1, err));
        l = c->logits;
    }
    return KT_OK;
}

static kt_status compare_all(struct check *c, kt_err *err)
{
    for (uint32_t i = 0; i < c->g->n_prompts; i++) {
        kt_seq *seq = NULL;
        c->p = &c->g->prompt[i];
        kt_status s = run_prompt(c, c->p, &seq, c->p->n_greedy, err);
        const struct golden_prompt *p = &c->g->prompt[i];
        if (s == KT_OK) {
            judge_logits(c, p);
            s = judge_greedy(c, p, seq, c->info.strict ? 1e-3f : 0.25f, err);
        }
        kt_seq_close(seq);
        KT_TRY(s);
    }
    return KT_OK;
}

/* ---- the verdict: rows of docs/TESTING.md ---- */

struct verdict {
    const char *row;
    bool met;
    char text[8][120];
    int n;
};

static void require(struct verdict *v, bool ok, const char *what, double got, const char *rel,
                    double limit)
{
    snprintf(v->text[v->n], sizeof v->text[0], "%-34s %10.3g %s %-8.3g %s", what, got, rel, limit,
             ok ? "met" : "NOT MET");
    v->n++;
    v->met = v->met && ok;
}

static bool is_plain(const char *format)
{
    int t = dtype_by_name(format);
    return t < 0 || kern_act_of((enum dtype)t) == KERN_ACT_F32;
}

static void judge(const struct check *c, struct figures err, struct figures kl, double mean_kl,
                  struct verdict *v)
{
    bool plain = is_plain(c->info.dense_format) && is_plain(c->info.expert_format);
    memset(v, 0, sizeof *v);
    v->met = true;
    if (c->info.strict) {
        v->row = "strict: fp32 arithmetic, fp32 KV";
        require(v, err.worst <= 1e-4, "worst error (std of logits)", err.worst, "<=", 1e-4);
        require(v, c->experts_wrong == 0, "tokens with other experts", (double)c->experts_wrong,
                "<=", 0);
        require(v, c->greedy_wrong == 0, "greedy tokens that differ", c->greedy_wrong, "<=", 0);
    } else if (!plain && strcmp(c->info.kv_type, "f32") == 0) {
        v->row = "int8 activations, fp32 KV";
        require(v, err.median <= 0.12, "median error (std of logits)", err.median, "<=", 0.12);
        require(v, kl.median <= 1e-3, "median KL divergence", kl.median, "<=", 1e-3);
        require(v, mean_kl <= 1e-2, "mean KL divergence", mean_kl, "<=", 1e-2);
        require(v, c->top1 >= 0.88 * c->n, "top-1 equal (share of positions)",
                (double)c->top1 / c->n, ">=", 0.88);
    } else {
        v->row =
            plain ? "BF16, F16 or F32 weights, default mode" : "int8 activations, BF16 or INT8 KV";
        require(v, err.median <= 0.15, "median error (std of logits)", err.median, "<=", 0.15);
        require(v, mean_kl <= 1.5e-2, "mean KL divergence", mean_kl, "<=", 1.5e-2);
    }
}

static void print_json(struct check *c, struct figures *layer, struct figures err,
                       struct figures kl, double mean_kl, const struct verdict *v)
{
    struct strbuf b = {0};
    struct json_out j;
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "model", c->info.model_name);
    jo_kstr(&j, "kernel", c->info.kernel);
    jo_kstr(&j, "row", v->row);
    jo_kbool(&j, "met", v->met);
    jo_kuint(&j, "positions", c->n);
    jo_kreal(&j, "error_median", err.median);
    jo_kreal(&j, "error_worst", err.worst);
    jo_kreal(&j, "kl_median", kl.median);
    jo_kreal(&j, "kl_mean", mean_kl);
    jo_kreal(&j, "top1", c->n ? (double)c->top1 / c->n : 0);
    jo_kuint(&j, "experts_compared", c->experts_seen);
    jo_kuint(&j, "experts_differ", c->experts_wrong);
    jo_kuint(&j, "experts_near_ties", c->experts_excused);
    jo_kuint(&j, "greedy_compared", c->greedy_seen);
    jo_kuint(&j, "greedy_differ", c->greedy_wrong);
    jo_key(&j, "layers");
    jo_array(&j);
    for (uint32_t l = 0; l < c->info.n_layers; l++) {
        jo_object(&j);
        jo_kuint(&j, "layer", l);
        jo_kreal(&j, "error_median", layer[l].n ? layer[l].median : (double)NAN);
        jo_kreal(&j, "error_worst", layer[l].n ? layer[l].worst : (double)NAN);
        jo_object_end(&j);
    }
    jo_array_end(&j);
    jo_object_end(&j);
    if (sb_ok(&b))
        printf("%s\n", b.data);
    sb_free(&b);
}

static void print_table(struct check *c, struct figures *layer, struct figures err,
                        struct figures kl, double mean_kl, const struct verdict *v)
{
    printf("%s: dense %s, experts %s, KV %s, %s kernels%s\n\n", c->info.model_name,
           c->info.dense_format, c->info.expert_format, c->info.kv_type, c->info.kernel,
           c->info.strict ? ", strict" : "");
    printf("  %-14s %9s %12s %12s\n", "place", "tokens", "median err", "worst err");
    bool any = false;
    for (uint32_t l = 0; l < c->info.n_layers; l++)
        if (layer[l].n > 0) {
            any = true;
            printf("  layer %-8u %9u %12.3g %12.3g\n", l, layer[l].n, layer[l].median,
                   layer[l].worst);
        }
    if (!any)
        printf("  layers         not compared: the golden file has no hidden states\n");
    printf("  %-14s %9u %12.3g %12.3g   (in standard deviations of the reference)\n\n", "logits",
           c->n, err.median, err.worst);
    printf("  KL divergence: median %.3g, mean %.3g; top-1 equal at %u of %u positions\n",
           kl.median, mean_kl, c->top1, c->n);
    if (c->experts_seen > 0)
        printf("  experts: %llu of %llu tokens differ, %llu more are near ties\n",
               (unsigned long long)c->experts_wrong, (unsigned long long)c->experts_seen,
               (unsigned long long)c->experts_excused);
    else
        printf("  experts: not recorded in the golden file, or a dense model\n");
    if (c->greedy_seen > 0)
        printf("  greedy: %u of %u compared tokens differ\n", c->greedy_wrong, c->greedy_seen);
    printf("\n  %s\n", v->row);
    for (int i = 0; i < v->n; i++)
        printf("    %s\n", v->text[i]);
    printf("\n%s\n", v->met ? "met" : "NOT MET");
}

static kt_status check_reference(struct check *c, bool *met, kt_err *err)
{
    uint32_t positions = 0, longest = 0, tokens = 0;
    for (uint32_t i = 0; i < c->g->n_prompts; i++) {
        positions += c->g->prompt[i].n_rows;
        tokens += c->g->prompt[i].n;
        longest = c->g->prompt[i].n > longest ? c->g->prompt[i].n : longest;
    }
    c->capacity = tokens;
    c->layer_err = mem_calloc((size_t)c->info.n_layers * tokens, sizeof *c->layer_err);
    c->layer_n = mem_calloc(c->info.n_layers, sizeof *c->layer_n);
    c->err = mem_calloc(positions, sizeof *c->err);
    c->kl = mem_calloc(positions, sizeof *c->kl);
    c->logits = mem_calloc((size_t)longest * c->info.vocab, sizeof *c->logits);
    struct figures *layer = mem_calloc(c->info.n_layers, sizeof *layer);
    if (c->layer_err == NULL || c->layer_n == NULL || c->err == NULL || c->kl == NULL ||
        c->logits == NULL || layer == NULL) {
        mem_free(layer);
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u positions of %u logits", longest, c->info.vocab);
    }
    kt_engine_set_tap(c->e, see_layer, c);
    kt_status s = compare_all(c, err);
    kt_engine_set_tap(c->e, NULL, NULL);
    if (s == KT_OK) {
        struct verdict v;
        double mean_kl = 0;
        for (uint32_t i = 0; i < c->n; i++)
            mean_kl += c->kl[i] / c->n;
        struct figures err_f = summarise(c->err, c->n), kl_f = summarise(c->kl, c->n);
        for (uint32_t l = 0; l < c->info.n_layers; l++)
            layer[l] = summarise(c->layer_err + (size_t)l * c->capacity, c->layer_n[l]);
        judge(c, err_f, kl_f, mean_kl, &v);
        (c->o.json ? print_json : print_table)(c, layer, err_f, kl_f, mean_kl, &v);
        *met = v.met;
    }
    mem_free(layer);
    return s;
}

/* ---- bits ---- */

struct copy {
    const struct golden_prompt *p;
    uint32_t prompt, at, n; /* position, tokens in the running step */
    kt_seq *seq;
    float *logits; /* [T][V] */
};

static bool report_difference(const struct check *c, const struct copy *k)
{
    uint32_t V = c->info.vocab;
    for (uint32_t r = 0; r < k->p->n_rows; r++)
        for (uint32_t v = 0; v < V; v++) {
            uint32_t a, b;
            const float *ref = &k->p->logits[(size_t)r * V + v],
                        *our = &k->logits[(size_t)k->p->rows[r] * V + v];
            memcpy(&a, ref, 4);
            memcpy(&b, our, 4);
            if (a != b) {
                printf("prompt %u, position %u, logit %u: expected %.9g (%08x), got %.9g (%08x)\n",
                       k->prompt, k->p->rows[r], v, (double)*ref, a, (double)*our, b);
                return true;
            }
        }
    return false;
}

/* All copies advance together, each with its own chunk size, so that batches are ragged. */
static kt_status run_copies(struct check *c, struct copy *k, kt_err *err)
{
    kt_batch_item *it = mem_calloc(c->o.copies, sizeof *it);
    kt_status s = it == NULL ? err_set(err, KT_E_NOMEM, 0, __func__, "out of memory") : KT_OK;
    while (s == KT_OK) {
        uint32_t n = 0, left = c->info.batch_tokens;
        for (uint32_t i = 0; i < c->o.copies; i++) {
            uint32_t rest = k[i].p->n - k[i].at, want = c->o.chunk > i ? c->o.chunk - i : 1;
            k[i].n = rest < want ? rest : want;
            if (k[i].n > left)
                k[i].n = left;
            left -= k[i].n;
            if (k[i].n > 0)
                it[n++] = (kt_batch_item){.seq = k[i].seq,
                                          .ids = k[i].p->ids + k[i].at,
                                          .n = k[i].n,
                                          .logits = k[i].logits + (size_t)k[i].at * c->info.vocab,
                                          .all_logits = true};
        }
        if (n == 0)
            break;
        s = kt_step(c->e, it, n, err);
        for (uint32_t i = 0; i < c->o.copies; i++)
            k[i].at += k[i].n;
    }
    mem_free(it);
    return s;
}

static kt_status check_exact(struct check *c, bool *met, kt_err *err)
{
    if (c->o.copies < c->g->n_prompts)
        c->o.copies = c->g->n_prompts;
    if (c->o.copies > c->info.max_seqs)
        KT_FAIL(err, KT_E_INVALID, "%s has %u prompts, which run together: give --batch %u",
                c->o.golden, c->g->n_prompts, c->g->n_prompts);
    struct copy *k = mem_calloc(c->o.copies, sizeof *k);
    kt_status s = k == NULL ? err_set(err, KT_E_NOMEM, 0, __func__, "out of memory") : KT_OK;
    uint64_t compared = 0;
    for (uint32_t i = 0; s == KT_OK && i < c->o.copies; i++) {
        k[i].prompt = i % c->g->n_prompts;
        k[i].p = &c->g->prompt[k[i].prompt];
        k[i].logits = mem_calloc((size_t)k[i].p->n * c->info.vocab, sizeof *k[i].logits);
        s = k[i].logits == NULL ? err_set(err, KT_E_NOMEM, 0, __func__, "out of memory")
                                : kt_seq_open(c->e, k[i].p->n, &k[i].seq, err);
        compared += (uint64_t)k[i].p->n_rows * c->info.vocab;
    }
    if (s == KT_OK)
        s = run_copies(c, k, err);
    *met = s == KT_OK;
    for (uint32_t i = 0; *met && i < c->o.copies; i++)
        *met = !report_difference(c, &k[i]);
    if (s == KT_OK)
        printf("%s, %s kernels, %u threads, KV %s, batch %u, chunk %u: %llu logits, %s\n",
               c->info.model_name, c->info.kernel, c->info.n_threads, c->info.kv_type, c->o.copies,
               c->o.chunk, (unsigned long long)compared, *met ? "all bits equal" : "NOT EQUAL");
    for (uint32_t i = 0; k != NULL && i < c->o.copies; i++) {
        kt_seq_close(k[i].seq);
        mem_free(k[i].logits);
    }
    mem_free(k);
    return s;
}

static int usage(FILE *to)
{
    fprintf(to,
            "usage: kttune check-model MODEL GOLDEN.safetensors [options]\n\n"
            "  --strict             fp32 arithmetic and KV\n"
            "  --exact              compare bits instead of distances\n"
            "  --kv-type TYPE       bf16 (default), f32 or int8\n"
            "  --quant F            routed experts to mxfp4, q8_0, q4_0, int4, int8, fp8 at load\n"
            "  --quant-dense F      all other matrices\n"
            "  --cpu-mask LEVEL     ref, avx2, avxvnni, avx512, avx512vnni or amx\n"
            "  --fast-bf16          round activations of BF16 and FP8 weights to BF16 (not with "
            "--exact)\n"
            "  --threads N          worker threads\n"
            "  --chunk N            prompt tokens a step (default 512)\n"
            "  --batch N            with --exact: sequences at once\n"
            "  --pack-cache DIR     keep packed weights in DIR, or read them from there\n"
            "  --quiet              no progress\n"
            "  --json               one JSON object instead of the table\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* -1: go on; else the exit code */
static int parse(int argc, char **argv, struct options *o)
{
    kt_engine_opts *e = &o->engine;
    const struct bench_opt opt[] = {OPT_FLAG("strict", &e->strict),
                                    OPT_FLAG("exact", &o->exact),
                                    OPT_TEXT("kv-type", &e->kv_type),
                                    OPT_QUANTS(e),
                                    OPT_CPU_MASK(&e->cpu_mask),
                                    OPT_FLAG("fast-bf16", &e->fast_bf16),
                                    OPT_THREADS(&e->threads),
                                    OPT_NUMBER("chunk", &o->chunk, 1, 8192),
                                    OPT_NUMBER("batch", &o->copies, 1, 256),
                                    OPT_TEXT("pack-cache", &e->pack_cache_dir),
                                    OPT_FLAG("quiet", &o->quiet),
                                    OPT_FLAG("json", &o->json)};
    struct bench_args a = {
        .command = "check-model", .opt = opt, .n = N_OPTS(opt), .operands = 2, .usage = usage};
    kt_engine_opts_init(e);
    o->chunk = 512;
    o->copies = 1;
    int code = bench_args_read(&a, argc, argv);
    if (code >= 0)
        return code;
    o->model = argv[a.first];
    o->golden = argv[a.first + 1];
    return -1;
}

static kt_status run(struct check *c, bool *met, kt_err *err)
{
    c->o.engine.model_path = c->o.model;
    if (!c->o.quiet)
        load_show(&c->o.engine);
    c->o.engine.max_seqs = c->o.copies > 16 ? c->o.copies : 16;
    KT_TRY(kt_engine_open(&c->o.engine, &c->e, err));
    kt_engine_get_info(c->e, &c->info);
    if (c->o.chunk > c->info.batch_tokens)
        c->o.chunk = c->info.batch_tokens;
    struct golden want = {.n_layers = c->info.n_layers,
                          .vocab = c->info.vocab,
                          .hidden = c->info.hidden,
                          .top_k = c->info.experts_per_token};
    KT_TRY(golden_open(c->o.golden, &want, &c->g, err));
    return c->o.exact ? check_exact(c, met, err) : check_reference(c, met, err);
}

int cmd_check_model(int argc, char **argv)
{
    struct check c = {0};
    kt_err err;
    bool met = false;
    int code = parse(argc, argv, &c.o);
    if (code >= 0)
        return code;
    kt_status s = run(&c, &met, &err);
    mem_free(c.layer_err);
    mem_free(c.layer_n);
    mem_free(c.err);
    mem_free(c.kl);
    mem_free(c.logits);
    golden_close(c.g);
    kt_engine_close(c.e);
    if (s != KT_OK)
        return cmd_fail("check-model", &err, 1);
    return met ? EXIT_OK : EXIT_NOT_MET;
}
