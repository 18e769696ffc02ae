/* cmd_synth.c - kttune synth: a GGUF file of random weights in any Qwen3-MoE shape, so that a shape
 * can be timed without its weights.
 *
 * Values are normal with variance 1/columns, so activations stay finite through any number of
 * layers. One pool of random blocks is made per format and row length; tensors are filled with
 * stretches of it from random places, so the speed is that of the disk. The same seed gives the
 * same bytes.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fp.h"
#include "base/mem.h"
#include "cmds.h"
#include "gguf_model.h"
#include "kern.h"

#define POOL_ELEMS ((uint64_t)1 << 20)
#define STRETCH ((uint64_t)256 << 10) /* bytes copied from one place of the pool */
#define MAX_POOLS 16

struct opts {
    const char *config, *out;
    uint32_t layers; /* 0: as the config */
    int format;
    uint64_t seed;
};

struct pool {
    enum dtype type;
    uint32_t cols;
    double std;
    uint8_t *data;
    uint64_t bytes;
};

struct synth {
    struct pool pool[MAX_POOLS];
    uint32_t n_pools;
    uint64_t rng;
};

/* splitmix64 */
static uint64_t next(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *s)
{
    return (double)((next(s) >> 11) + 1) * 0x1p-53;
}

static void normals(uint64_t *rng, double std, uint64_t n, float *x)
{
    for (uint64_t i = 0; i < n; i += 2) { /* Box-Muller; n is even */
        double r = std * sqrt(-2 * log(uniform(rng))), a = 6.283185307179586 * uniform(rng);
        x[i] = (float)(r * cos(a));
        x[i + 1] = (float)(r * sin(a));
    }
}

/* Block formats without a quantiser: random codes; where the half-precision scale and minimum lie,
 * and their ratio for a mean near zero. */
static const struct {
    enum dtype type;
    int d, dmin;
    float ratio;
} raw[] = {
    {DT_Q2_K, 80, 82, 1.5f}, {DT_Q3_K, 108, -1, 0}, {DT_Q4_K, 0, 2, 7.5f}, {DT_Q5_K, 0, 2, 15.5f},
    {DT_Q6_K, 208, -1, 0},   {DT_IQ4_NL, 0, -1, 0}, {DT_IQ4_XS, 0, -1, 0},
};

static void put_half(uint8_t *p, float v)
{
    uint16_t h = f32_to_f16(v);
    memcpy(p, &h, 2);
}

static bool raw_blocks(struct synth *s, struct pool *p, float *x)
{
    size_t k = 0, n = sizeof raw / sizeof raw[0];
    uint32_t block = dtype_info(p->type)->block_bytes;
    float d = 1;
    while (k < n && raw[k].type != p->type)
        k++;
    if (k == n)
        return false;
    for (uint64_t i = 0; i < p->bytes; i++)
        p->data[i] = (uint8_t)next(&s->rng);
    for (int pass = 0; pass < 2;
         pass++) { /* first with scale 1 to see the spread, then with the right one */
        double sum = 0;
        for (uint64_t b = 0; b < p->bytes; b += block) {
            put_half(p->data + b + raw[k].d, d);
            if (raw[k].dmin >= 0)
                put_half(p->data + b + raw[k].dmin, d * raw[k].ratio);
        }
        if (pass == 1 || !kern_decode(p->type, p->data, POOL_ELEMS, x))
            return pass == 1;
        for (uint64_t i = 0; i < POOL_ELEMS; i++)
            sum += (double)x[i] * (double)x[i];
        d = (float)(p->std / sqrt(sum / (double)POOL_ELEMS));
    }
    return true;
}

static kt_status make_pool(struct synth *s, struct pool *p, kt_err *err)
{
    float *x = mem_alloc((size_t)POOL_ELEMS * sizeof *x);
    p->bytes = dtype_row_bytes(p->type, POOL_ELEMS);
    p->data = mem_alloc((size_t)p->bytes);
    kt_status st = x == NULL || p->data == NULL
                       ? err_set(err, KT_E_NOMEM, 0, __func__, "out of memory for random blocks")
                       : KT_OK;
    if (st == KT_OK) {
        normals(&s->rng, p->std, POOL_ELEMS, x);
        if (!kern_quantise(p->type, x, POOL_ELEMS, p->data) && !raw_blocks(s, p, x))
            st = err_set(err, KT_E_UNSUPPORTED, 0, __func__,
                         "random weights in the format %s cannot be made", dtype_name(p->type));
    }
    mem_free(x);
    return st;
}

static kt_status pool_for(struct synth *s, const struct gguf_part *part, struct pool **out,
                          kt_err *err)
{
    uint32_t i = 0;
    while (i < s->n_pools && (s->pool[i].type != part->type || s->pool[i].cols != part->cols))
        i++;
    *out = &s->pool[i];
    if (i < s->n_pools)
        return KT_OK;
    if (i == MAX_POOLS)
        KT_FAIL(err, KT_E_UNSUPPORTED, "the model has more than %d kinds of rows", MAX_POOLS);
    **out = (struct pool){.type = part->type, .cols = part->cols, .std = 1 / sqrt(part->cols)};
    s->n_pools++;
    return make_pool(s, *out, err);
}

static kt_status write_matrix(struct synth *s, struct gguf_out *o, const struct gguf_part *part,
                              kt_err *err)
{
    struct pool *p;
    uint64_t left = dtype_row_bytes(part->type, part->cols) * part->rows *
                    (part->stack > 0 ? part->stack : 1),
             block = dtype_info(part->type)->block_bytes;
    KT_TRY(pool_for(s, part, &p, err));
    while (left > 0) {
        uint64_t start = next(&s->rng) % (p->bytes / block) * block, n = p->bytes - start;
        n = n < STRETCH ? n : STRETCH / block * block;
        n = n < left ? n : left;
        KT_TRY(gguf_out_data(o, p->data + start, (size_t)n, err));
        left -= n;
    }
    return KT_OK;
}

static kt_status write_ones(struct gguf_out *o, uint32_t n, kt_err *err)
{
    static const float one = 1;
    for (uint32_t i = 0; i < n; i++)
        KT_TRY(gguf_out_data(o, &one, sizeof one, err));
    return KT_OK;
}

static kt_status type_of(void *user, const struct gguf_part *p, enum dtype *type, kt_err *err)
{
    (void)p, (void)err;
    *type = (enum dtype)((const struct opts *)user)->format;
    return KT_OK;
}

static kt_status write_file(struct synth *s, struct gguf_out *o, const struct mdl_traits *t,
                            struct gguf_parts *parts, const char *name, kt_err *err)
{
    KT_TRY(gguf_model_metadata(o, t, name, err));
    gguf_out_str(o, "tokenizer.ggml.model", "no_vocab", 8);
    gguf_model_declare(o, parts);
    KT_TRY(gguf_out_begin(o, err));
    for (uint32_t i = 0; i < parts->n; i++) {
        const struct gguf_part *p = &parts->v[i];
        bool vector = mdl_role_is_plain(p->role) && p->role != MDL_ROUTER;
        KT_TRY(vector ? write_ones(o, p->cols, err) : write_matrix(s, o, p, err));
    }
    return gguf_out_commit(o, err);
}

/* The first n layers only. */
static kt_status cut_layers(struct mdl_traits *t, uint32_t n, kt_err *err)
{
    if (n > t->n_layers)
        KT_FAIL(err, KT_E_INVALID, "--layers %u: the config has %u; give 1 to %u", n, t->n_layers,
                t->n_layers);
    if (n > 0)
        t->n_layers = n;
    t->n_moe_layers = 0;
    for (uint32_t i = 0; i < t->n_layers; i++)
        t->n_moe_layers += t->layer_is_moe[i];
    return KT_OK;
}

static kt_status synth(const struct opts *opt, uint64_t *bytes, kt_err *err)
{
    struct synth s = {.rng = opt->seed};
    struct mdl *m = NULL;
    struct gguf_out *o = NULL;
    struct gguf_parts parts = {0};
    struct gguf_out_opts oo = {.path = opt->out,
                               .progress = gguf_model_progress,
                               .user = (void *)(uintptr_t) "kttune synth"};
    struct opts copy = *opt;
    kt_status st = mdl_open_config(opt->config, &m, err);
    if (st == KT_OK && strcmp(m->t.arch, "qwen3moe") != 0)
        st = err_set(err, KT_E_UNSUPPORTED, 0, __func__,
                     "%s: is a %s model, random weights are made for Qwen3-MoE shapes", opt->config,
                     m->t.arch);
    if (st == KT_OK)
        st = cut_layers(&m->t, opt->layers, err);
    if (st == KT_OK)
        st = gguf_model_parts(&m->t, type_of, &copy, &parts, err);
    if (st == KT_OK)
        st = gguf_out_open(&oo, &o, err);
    if (st == KT_OK)
        st = write_file(&s, o, &m->t, &parts, "synthetic", err);
    *bytes = o != NULL ? gguf_out_total(o) : 0;
    gguf_out_close(o);
    for (uint32_t i = 0; i < s.n_pools; i++)
        mem_free(s.pool[i].data);
    mem_free(parts.v);
    mdl_close(m);
    return st;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: kttune synth --config config.json [--layers N] [--format F] [--seed S] -o "
                "FILE.gguf\n\n"
                "Write random weights in the shape of a Qwen3-MoE config, for timing.\n\n"
                "  --config FILE   config.json of the shape\n"
                "  --layers N      only the first N layers (default: all)\n"
                "  --format F      format of all matrices: mxfp4, q8_0, q4_0, q4_1, q5_0, q5_1, "
                "q4_k, q6_k, bf16, f16, f32 .. (default bf16)\n"
                "  --seed S        0 to 2^64 - 1 (default 1); the same seed gives the same bytes\n"
                "  -o FILE         the GGUF file\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static int bad_value(const char *option, const char *value, const char *want)
{
    fprintf(stderr, "kttune synth: %s %s: %s\n", option, value, want);
    return EXIT_USAGE;
}

static bool number(const char *s, uint64_t max, uint64_t *v)
{
    char *end;
    if (*s < '0' || *s > '9')
        return false;
    *v = strtoull(s, &end, 10);
    return *end == '\0' && *v <= max;
}

int cmd_synth(int argc, char **argv)
{
    static const struct option longs[] = {{"config", 1, NULL, 'c'}, {"layers", 1, NULL, 'l'},
                                          {"format", 1, NULL, 'f'}, {"seed", 1, NULL, 's'},
                                          {"output", 1, NULL, 'o'}, {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct opts opt = {.format = DT_BF16, .seed = 1};
    kt_err err = {0};
    uint64_t v, bytes;
    int c;
    while ((c = getopt_long(argc, argv, "o:h", longs, NULL)) != -1)
        switch (c) {
        case 'c':
            opt.config = optarg;
            break;
        case 'l':
            if (!number(optarg, 65536, &v) || v == 0)
                return bad_value("--layers", optarg, "give a number of layers from 1");
            opt.layers = (uint32_t)v;
            break;
        case 'f':
            opt.format = dtype_by_name(optarg);
            if (opt.format < 0 || dtype_info((enum dtype)opt.format)->ggml_id < 0)
                return bad_value("--format", optarg,
                                 "no such weight format; kttune synth --help lists them");
            break;
        case 's':
            if (!number(optarg, UINT64_MAX, &opt.seed))
                return bad_value("--seed", optarg, "give a number from 0 to 2^64 - 1");
            break;
        case 'o':
            opt.out = optarg;
            break;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
    if (optind != argc)
        return cmd_usage("synth", "unexpected ", argv[optind]);
    if (opt.config == NULL || opt.out == NULL)
        return cmd_usage("synth", opt.config == NULL ? "--config FILE" : "-o FILE", " is missing");
    double t = clock_seconds();
    if (synth(&opt, &bytes, &err) != KT_OK)
        return cmd_fail("synth", &err, 1);
    t = clock_seconds() - t;
    printf("%s: %.1f MB of %s weights in %.1f s\n", opt.out, (double)bytes / 1e6,
           dtype_name((enum dtype)opt.format), t);
    return EXIT_OK;
}
