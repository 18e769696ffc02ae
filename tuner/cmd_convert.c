/* cmd_convert.c - kttune convert: a Qwen3-MoE checkpoint to one GGUF file, with weight formats by
 * choice.
 *
 * Values go through fp32 with the reference quantisers of the kernels, the same that the engine
 * uses for --quant at load: both ways give the same bytes of weights. Rows are shared out over a
 * team of workers; tensors are written in order.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "cmds.h"
#include "convert_tok.h"
#include "gguf_model.h"
#include "kern.h"

#define CHUNK_ELEMS ((uint64_t)4 << 20)
#define MAX_WORKERS 16u

struct opts {
    const char *dir, *out;
    int experts, dense; /* dtype, -1: as stored */
};

/* Rows [0, rows) of one slice on their way; worker w takes every n-th row block. */
struct job {
    struct team *team;
    uint32_t n_workers, cols;
    enum dtype from, to;
    const struct mdl_slice *src;
    uint32_t row0, rows;
    uint8_t *dst;
    float *scratch[MAX_WORKERS]; /* [max cols] each, and as much again for a stored row */
    uint32_t bad[MAX_WORKERS];   /* first row with a value that is not finite, + 1 */
};

struct type_ctx {
    const struct mdl *m;
    const struct opts *opt;
};

static void convert_rows(void *ctx, uint32_t w)
{
    struct job *j = ctx;
    uint64_t out = dtype_row_bytes(j->to, j->cols);
    float *x = j->scratch[w];
    for (uint32_t r = w; r < j->rows; r += j->n_workers) {
        bool finite =
            kern_decode(j->from, mdl_rows(j->src, j->row0 + r, 1, x + j->cols), j->cols, x);
        for (uint32_t i = 0; finite && i < j->cols; i++)
            finite = isfinite(x[i]);
        if (!finite || !kern_quantise(j->to, x, j->cols, j->dst + r * out)) {
            j->bad[w] = r + 1;
            return;
        }
    }
}

static kt_status put_slice(struct job *j, struct gguf_out *o, const struct mdl_slice *s,
                           enum dtype to, kt_err *err)
{
    uint64_t out = dtype_row_bytes(to, s->cols);
    uint32_t step = (uint32_t)(CHUNK_ELEMS / s->cols > 0 ? CHUNK_ELEMS / s->cols : 1);
    j->cols = s->cols;
    j->from = s->type;
    j->to = to;
    memset(j->bad, 0, sizeof j->bad);
    for (uint32_t r = 0; r < s->rows; r += step) {
        j->src = s;
        j->row0 = r;
        j->rows = s->rows - r < step ? s->rows - r : step;
        if (to == s->type) {
            KT_TRY(gguf_out_data(o, mdl_rows(s, r, j->rows, NULL), (size_t)(j->rows * out), err));
            continue;
        }
        team_run(j->team, convert_rows, j);
        for (uint32_t w = 0; w < j->n_workers; w++)
            if (j->bad[w] != 0)
                KT_FAIL(err, KT_E_FORMAT,
                        "%s: tensor %s: row %u holds a value that is not finite; the checkpoint is "
                        "damaged",
                        s->file, s->tensor, r + j->bad[w] - 1);
        KT_TRY(gguf_out_data(o, j->dst, (size_t)(j->rows * out), err));
    }
    return KT_OK;
}

static kt_status type_of(void *user, const struct gguf_part *p, enum dtype *type, kt_err *err)
{
    const struct type_ctx *c = user;
    struct mdl_slice s, other;
    int want = p->stack > 0 ? c->opt->experts : c->opt->dense;
    mdl_weight(c->m, p->role, p->layer, 0, &s);
    *type = want >= 0 ? (enum dtype)want : s.type;
    for (uint32_t e = 1; want < 0 && e < p->stack; e++)
        if (mdl_weight(c->m, p->role, p->layer, e, &other) && other.type != s.type)
            KT_FAIL(err, KT_E_UNSUPPORTED,
                    "%s: tensors %s and %s have different types, but share a GGUF tensor; choose a "
                    "format with --quant",
                    s.file, s.tensor, other.tensor);
    if (dtype_info(*type)->ggml_id < 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tensor %s has the format %s, which GGUF does not have; choose one with "
                "--quant%s",
                s.file, s.tensor, dtype_name(*type), p->stack > 0 ? "" : "-dense");
    if (s.cols % dtype_info(*type)->block_elems != 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: tensor %s: rows of %u elements do not consist of whole %s blocks of %u; "
                "choose another format with --quant%s",
                s.file, s.tensor, s.cols, dtype_name(*type), dtype_info(*type)->block_elems,
                p->stack > 0 ? "" : "-dense");
    return KT_OK;
}

static kt_status start_job(struct job *j, const struct gguf_parts *parts, kt_err *err)
{
    uint64_t cols = 1;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (uint32_t i = 0; i < parts->n; i++)
        cols = parts->v[i].cols > cols ? parts->v[i].cols : cols;
    j->n_workers = cpus < 1 ? 1 : cpus > (long)MAX_WORKERS ? MAX_WORKERS : (uint32_t)cpus;
    j->dst = mem_alloc((size_t)(CHUNK_ELEMS > cols ? CHUNK_ELEMS : cols) * sizeof(float));
    bool ok = j->dst != NULL;
    for (uint32_t w = 0; w < j->n_workers; w++) {
        j->scratch[w] = mem_alloc(((size_t)cols * 2 + 2) * sizeof(float));
        ok = ok && j->scratch[w] != NULL;
    }
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "out of memory for conversion buffers");
    struct team_opts to = {.n = j->n_workers, .name = "convert"};
    return team_open(&to, &j->team, err);
}

static void stop_job(struct job *j)
{
    if (j->team != NULL)
        team_close(j->team);
    for (uint32_t w = 0; w < MAX_WORKERS; w++)
        mem_free(j->scratch[w]);
    mem_free(j->dst);
}

static kt_status write_file(const struct mdl *m, const struct gguf_parts *parts, struct gguf_out *o,
                            kt_err *err)
{
    struct job j = {0};
    struct mdl_slice s;
    kt_status st = gguf_model_metadata(o, &m->t, m->name, err);
    if (st == KT_OK)
        st = convert_tokenizer(o, m, err);
    gguf_model_declare(o, parts);
    if (st == KT_OK)
        st = start_job(&j, parts, err);
    if (st == KT_OK)
        st = gguf_out_begin(o, err);
    for (uint32_t i = 0; st == KT_OK && i < parts->n; i++) {
        const struct gguf_part *p = &parts->v[i];
        for (uint32_t e = 0; st == KT_OK && e < (p->stack > 0 ? p->stack : 1); e++) {
            mdl_weight(m, p->role, p->layer, e, &s);
            st = put_slice(&j, o, &s, p->type, err);
        }
    }
    stop_job(&j);
    return st == KT_OK ? gguf_out_commit(o, err) : st;
}

static kt_status convert(const struct opts *opt, uint64_t *bytes, kt_err *err)
{
    struct mdl *m = NULL;
    struct gguf_out *o = NULL;
    struct gguf_parts parts = {0};
    struct gguf_out_opts oo = {.path = opt->out,
                               .progress = gguf_model_progress,
                               .user = (void *)(uintptr_t) "kttune convert"};
    kt_status st = mdl_open(opt->dir, &m, err);
    if (st == KT_OK && (m->is_gguf || strcmp(m->t.arch, "qwen3moe") != 0))
        st = err_set(err, KT_E_UNSUPPORTED, 0, __func__,
                     "%s: is %s; give the directory of a Qwen3-MoE checkpoint in safetensors",
                     opt->dir, m->is_gguf ? "a GGUF file already" : "not a Qwen3-MoE model");
    struct type_ctx tc = {m, opt};
    if (st == KT_OK)
        st = gguf_model_parts(&m->t, type_of, &tc, &parts, err);
    if (st == KT_OK)
        st = gguf_out_open(&oo, &o, err);
    if (st == KT_OK)
        st = write_file(m, &parts, o, err);
    *bytes = o != NULL ? gguf_out_total(o) : 0;
    gguf_out_close(o);
    mem_free(parts.v);
    mdl_close(m);
    return st;
}

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: kttune convert HFDIR -o FILE.gguf [--quant F] [--quant-dense G]\n\n"
        "Convert a Qwen3-MoE checkpoint (safetensors, config.json, tokenizer.json) to one GGUF "
        "file.\n\n"
        "  -o FILE           the GGUF file\n"
        "  --quant F         routed experts to mxfp4, q8_0, q4_0 or none (as stored, the default)\n"
        "  --quant-dense G   all other matrices, the same values; norms and routers stay f32\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* -2: no such format */
static int quant_of(const char *s)
{
    int t = dtype_by_name(s);
    if (strcmp(s, "none") == 0)
        return -1;
    return t == DT_MXFP4 || t == DT_Q8_0 || t == DT_Q4_0 ? t : -2;
}

int cmd_convert(int argc, char **argv)
{
    static const struct option longs[] = {{"quant", 1, NULL, 'q'},
                                          {"quant-dense", 1, NULL, 'd'},
                                          {"output", 1, NULL, 'o'},
                                          {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct opts opt = {.experts = -1, .dense = -1};
    kt_err err = {0};
    uint64_t bytes;
    int c, *to;
    while ((c = getopt_long(argc, argv, "o:h", longs, NULL)) != -1)
        switch (c) {
        case 'q':
        case 'd':
            to = c == 'q' ? &opt.experts : &opt.dense;
            *to = quant_of(optarg);
            if (*to == -2) {
                fprintf(
                    stderr,
                    "kttune convert: --quant%s %s: the formats are mxfp4, q8_0, q4_0 and none\n",
                    c == 'q' ? "" : "-dense", optarg);
                return EXIT_USAGE;
            }
            break;
        case 'o':
            opt.out = optarg;
            break;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
    if (optind == argc || opt.out == NULL)
        return cmd_usage("convert", optind == argc ? "HFDIR" : "-o FILE", " is missing");
    if (optind + 1 != argc)
        return cmd_usage("convert", "unexpected ", argv[optind + 1]);
    opt.dir = argv[optind];
    double t = clock_seconds();
    if (convert(&opt, &bytes, &err) != KT_OK)
        return cmd_fail("convert", &err, 1);
    printf("%s: %.1f MB of weights in %.1f s\n", opt.out, (double)bytes / 1e6, clock_seconds() - t);
    return EXIT_OK;
}
