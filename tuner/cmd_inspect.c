/* cmd_inspect.c - kttune inspect: what is in a model file or directory, whatever its architecture;
 * what it needs in memory; and if this version cannot serve it, why. Reads containers and metadata
 * only, no tensor data. The JSON form is in inspect_json.c.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cmds.h"
#include "inspect.h"

static const char *const part_name[PART_COUNT] = {"embedding", "attention",      "norms",
                                                  "router",    "routed experts", "shared experts",
                                                  "dense FFN", "head",           "other"};

const char *inspect_part_name(enum inspect_part p)
{
    return part_name[p];
}

/* By name, so that it works for architectures that nobody here computes. */
static enum inspect_part part_of(const char *n)
{
    static const struct {
        const char *text;
        enum inspect_part part;
    } by[] = {
        {"norm", PART_NORMS},           {"shexp", PART_SHARED},
        {"shared_expert", PART_SHARED}, {"_exps", PART_EXPERTS},
        {".experts.", PART_EXPERTS},    {"gate_inp", PART_ROUTER},
        {"mlp.gate.", PART_ROUTER},     {"exp_probs_b", PART_ROUTER},
        {"router", PART_ROUTER},        {"moe.gate.", PART_ROUTER},
        {"token_embd", PART_EMBEDDING}, {"embed_tokens", PART_EMBEDDING},
        {"lm_head", PART_HEAD},         {"attn", PART_ATTENTION},
        {"ffn_", PART_DENSE},           {".mlp.", PART_DENSE},
        {"feed_forward", PART_DENSE},
    };
    if (strcmp(n, "output.weight") == 0)
        return PART_HEAD;
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++)
        if (strstr(n, by[i].text) != NULL)
            return by[i].part;
    return PART_OTHER;
}

void inspect_sum(struct inspect *in)
{
    for (uint32_t i = 0; i < in->files->n_tensors; i++) {
        const struct mdl_tensor *t = &in->files->tensors[i];
        struct inspect_sum *s = &in->part[part_of(t->name)];
        s->tensors++;
        s->bytes += t->bytes;
        s->by_type[t->type] += t->bytes;
        in->bytes += t->bytes;
    }
}

uint64_t inspect_kv_bytes(const struct mdl_traits *t, uint32_t element)
{
    return (uint64_t)2 * t->n_layers * t->n_kv_heads * t->head_dim * element;
}

static const char *size_text(uint64_t n, char buf[32])
{
    if (n < 10000)
        snprintf(buf, 32, "%llu B", (unsigned long long)n);
    else if (n < 10000000)
        snprintf(buf, 32, "%.1f kB", (double)n / 1e3);
    else if (n < 10000000000u)
        snprintf(buf, 32, "%.1f MB", (double)n / 1e6);
    else
        snprintf(buf, 32, "%.1f GB", (double)n / 1e9);
    return buf;
}

static void print_traits(const struct mdl_traits *t)
{
    static const char *const scaling[] = {"none", "linear", "yarn", "llama3", "table"};
    printf("\n  architecture   %s\n", t->arch);
    printf("  layers         %u, of these %u MoE\n", t->n_layers, t->n_moe_layers);
    printf("  hidden size    %u\n", t->hidden);
    printf("  vocabulary     %u\n", t->vocab);
    printf("  context        %u tokens\n", t->ctx_tokens);
    printf("  attention      %u heads, %u key-value heads, head size %u%s\n", t->n_heads,
           t->n_kv_heads, t->head_dim, t->qk_norm ? ", q and k normalised" : "");
    printf("  rope           base %g, %u dimensions, %s, scaling %s", t->rope.base, t->rope.dims,
           t->rope.interleaved ? "interleaved pairs" : "halves", scaling[t->rope.scaling]);
    if (t->rope.scaling != MDL_ROPE_NONE && t->rope.scaling != MDL_ROPE_TABLE)
        printf(" (factor %g)", t->rope.factor);
    if (t->n_experts > 0)
        printf("\n  experts        %u per MoE layer, %u used per token, width %u%s", t->n_experts,
               t->top_k, t->expert_inter, t->renorm ? ", weights renormalised" : "");
    if (t->dense_inter > 0)
        printf("\n  dense FFN      width %u", t->dense_inter);
    printf("\n  norm epsilon   %g\n  head           %s\n", (double)t->norm_eps,
           t->tied_head ? "tied to the embedding" : "separate");
}

static void print_formats(const struct inspect_sum *s)
{
    const char *sep = "";
    char b[32];
    for (int t = 0; t < DT_COUNT; t++)
        if (s->by_type[t] == s->bytes && s->bytes > 0)
            printf("%s", dtype_name((enum dtype)t));
        else if (s->by_type[t] > 0) {
            printf("%s%s %s", sep, dtype_name((enum dtype)t), size_text(s->by_type[t], b));
            sep = ", ";
        }
    printf("\n");
}

static void print_parts(const struct inspect *in)
{
    char b[32];
    printf("\n  %-15s %8s %12s  %s\n", "part", "tensors", "bytes", "formats");
    for (int p = 0; p < PART_COUNT; p++) {
        const struct inspect_sum *s = &in->part[p];
        if (s->tensors == 0)
            continue;
        printf("  %-15s %8u %12s  ", part_name[p], s->tensors, size_text(s->bytes, b));
        print_formats(s);
    }
    printf("  %-15s %8u %12s\n", "total", in->files->n_tensors, size_text(in->bytes, b));
}

static void print_tensors(const struct mdl *m)
{
    char b[32];
    printf("\n  %-56s %-8s %12s  shape\n", "tensor", "format", "bytes");
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct mdl_tensor *t = &m->tensors[i];
        printf("  %-56s %-8s %12s  ", t->name, dtype_name(t->type), size_text(t->bytes, b));
        for (uint32_t d = 0; d < t->n_dims; d++)
            printf("%s%llu", d > 0 ? " x " : "", (unsigned long long)t->dims[d]);
        printf("\n");
    }
}

static void print_string(struct gguf_str s)
{
    putchar('"');
    for (uint64_t i = 0; i < s.len && i < 60; i++) {
        unsigned char c = (unsigned char)s.s[i];
        if (c == '\n')
            fputs("\\n", stdout);
        else
            putchar(c < 0x20 || c == 0x7f ? '?' : c);
    }
    printf(s.len > 60 ? "..\" (%llu bytes)" : "\"", (unsigned long long)s.len);
}

static void print_metadata(const struct gguf *g)
{
    uint64_t n;
    const struct gguf_kv *kv = gguf_kvs(g, &n);
    printf("\n  metadata\n");
    for (uint64_t i = 0; i < n; i++) {
        int width = kv[i].key.len < 200 ? (int)kv[i].key.len : 200;
        const uint8_t *p = kv[i].data;
        printf("    %.*s%*s = ", width, kv[i].key.s, width < 44 ? 44 - width : 0, "");
        if (kv[i].is_array)
            printf("[%llu x %s]", (unsigned long long)kv[i].count, inspect_type_name(kv[i].type));
        else if (kv[i].type == GGUF_STRING)
            print_string(gguf_next_str(&p));
        else if (kv[i].type == GGUF_BOOL)
            printf("%s", kv[i].data[0] ? "true" : "false");
        else if (kv[i].type == GGUF_F32 || kv[i].type == GGUF_F64)
            printf("%.9g", gguf_float_at(&kv[i], 0));
        else if (kv[i].type == GGUF_U64)
            printf("%llu", (unsigned long long)gguf_int_at(&kv[i], 0));
        else
            printf("%lld", (long long)gguf_int_at(&kv[i], 0));
        printf("\n");
    }
}

const char *inspect_type_name(enum gguf_type t)
{
    static const char *const name[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                       "bool", "string", "array", "u64", "i64", "f64"};
    return name[t];
}

static void print_memory(const struct inspect *in)
{
    char b[32], c[32], d[32];
    const struct mdl_traits *t = &in->model->t;
    printf("\n  memory         weights %s\n", size_text(in->bytes, b));
    printf("                 KV cache per token: %s (bf16), %s (f32)\n",
           size_text(inspect_kv_bytes(t, 2), b), size_text(inspect_kv_bytes(t, 4), c));
    printf("                 with one sequence of %u tokens: %s (bf16)\n", t->ctx_tokens,
           size_text(in->bytes + inspect_kv_bytes(t, 2) * t->ctx_tokens, d));
}

static void print_text(const struct inspect *in, int tensors)
{
    const struct mdl *m = in->files;
    char b[32];
    printf("%s: ", m->path);
    if (m->is_gguf)
        printf("GGUF version %u, %u file%s", gguf_version(m->gguf), gguf_shards(m->gguf),
               gguf_shards(m->gguf) == 1 ? "" : "s");
    else
        printf("safetensors checkpoint");
    printf(", %u tensors, %s\n", m->n_tensors, size_text(in->bytes, b));
    if (in->model != NULL)
        print_traits(&in->model->t);
    if (m->n_tensors > 0)
        print_parts(in);
    if (in->model != NULL)
        print_memory(in);
    if (m->is_gguf)
        print_metadata(m->gguf);
    if (tensors)
        print_tensors(m);
    if (in->model == NULL)
        printf("\n  cannot be served by this version: %s\n", in->why.msg);
}

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: kttune inspect PATH [--json] [--tensors]\n\n"
        "Show what is in a GGUF file or a checkpoint directory, and what it needs in memory.\n\n"
        "  --json      everything as one JSON object\n"
        "  --tensors   also list every tensor\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

int cmd_inspect(int argc, char **argv)
{
    static const struct option longs[] = {{"json", 0, NULL, 'j'},
                                          {"tensors", 0, NULL, 't'},
                                          {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c, json = 0, tensors = 0, code = EXIT_OK;
    struct inspect in = {0};
    kt_err err = {0};
    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
        switch (c) {
        case 'j':
            json = 1;
            break;
        case 't':
            tensors = 1;
            break;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
    if (optind == argc)
        return cmd_usage("inspect", "PATH is missing", NULL);
    if (optind + 1 != argc)
        return cmd_usage("inspect", "unexpected ", argv[optind + 1]);
    if (mdl_open_files(argv[optind], &in.files, &err) != KT_OK)
        return cmd_fail("inspect", &err, 1);
    kt_status st = mdl_open(argv[optind], &in.model, &in.why);
    if (st != KT_OK && st != KT_E_UNSUPPORTED && in.files->n_tensors > 0)
        code = EXIT_MODEL;
    inspect_sum(&in);
    if (json)
        code = inspect_print_json(&in) ? code : EXIT_REFUSED;
    else
        print_text(&in, tensors);
    mdl_close(in.model);
    mdl_close(in.files);
    return code;
}
