/* cmd_plan.c - `kttune plan`: a model on a host that need not be here, what fits where, how fast it
 * should be and why. Pure: the same inputs print the same bytes. Exit 3 when it does not fit, with
 * the three cheapest ways to make it fit.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cmds.h"
#include "plan_args.h"

static const char help[] =
    "usage: kttune plan (--profile FILE | --topology SPEC) -m MODEL [options]\n\n"
    "Tell what of a model lies where on a host, whether it fits, and the speed to expect.\n"
    "MODEL is a checkpoint directory, a GGUF file, or a config.json alone: no weights are read.\n\n"
    "  --profile FILE     host.json of this or any other host, or one of profiles/\n"
    "  --topology SPEC    native, xml:FILE, syn:TEXT, fsroot:DIR, cpuid:DIR: sizes only\n"
    "  -m, --model MODEL\n"
    "  --goal G           decode, prefill or both (default)\n"
    "  --ctx N            tokens of one sequence (default: the model's, at most 8192)\n"
    "  --parallel N       sequences at once (default 1)\n"
    "  --at N             context length that decode is predicted at (default 1024)\n"
    "  --batch N          tokens of a prefill step (default 512)\n"
    "  --format F         experts in another weight format: mxfp4, q8_0, q4_k_m, fp8 ..\n"
    "  --format-dense F   the other matrices\n"
    "  --kv-type T        bf16 (default), f32 or int8\n"
    "  --fast-tier SPEC   none (default), auto, or gpuN=SIZE|PERCENT, numaN=SIZE; planned only\n"
    "  --no-fetch         decode copies no expert to the fast tier on demand\n"
    "  --threads N        worker threads (default: by the rules)\n"
    "  --reserve N        cores kept for the server\n"
    "  --set KEY=VALUE    what if: limits.cpu_quota_cores=4, limits.memory_max_bytes=64GiB,\n"
    "                     node0.bytes=1TiB, mem.read:node0.t8=150e9; may be repeated\n"
    "  --json             one JSON object\n"
    "  --html FILE        also write one page with bars\n\n"
    "Exit code: 0 it fits, 1 usage, 3 it does not fit, 4 profile invalid, 6 model invalid.\n";

struct args {
    struct plan_args host;
    struct plan_model_opts o;
    const char *model, *format, *dense, *html;
    bool json;
};

enum {
    OPT_PROFILE = 256,
    OPT_TOPOLOGY,
    OPT_GOAL,
    OPT_CTX,
    OPT_PARALLEL,
    OPT_AT,
    OPT_BATCH,
    OPT_FORMAT,
    OPT_DENSE,
    OPT_KV,
    OPT_FAST,
    OPT_THREADS,
    OPT_RESERVE,
    OPT_SET,
    OPT_JSON,
    OPT_NO_FETCH,
    OPT_HTML
};

/* Ranges of those that take a number. */
static const struct range {
    int option;
    uint32_t min, max;
} ranges[] = {{OPT_CTX, 1, 1u << 30}, {OPT_PARALLEL, 1, 4096}, {OPT_AT, 1, 1u << 30},
              {OPT_BATCH, 1, 8192},   {OPT_THREADS, 1, 65535}, {OPT_RESERVE, 0, 65535}};

static const struct range *range_of(int c)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (ranges[i].option == c)
            return &ranges[i];
    return NULL;
}

static int bad_number(const struct option *longs, int c)
{
    const struct range *r = range_of(c);
    while (longs->val != c)
        longs++;
    fprintf(stderr, "kttune plan: --%s %s: must be a number from %u to %u\n", longs->name, optarg,
            r->min, r->max);
    return EXIT_USAGE;
}

/* The options that take a number; false: not one of them or a bad number. */
static bool number_option(struct args *a, int c)
{
    const struct range *r = range_of(c);
    uint32_t v;
    if (r == NULL || !cmd_number(optarg, r->min, r->max, &v))
        return false;
    if (c == OPT_RESERVE)
        a->host.reserve = (int)v;
    else
        *(c == OPT_CTX        ? &a->o.ctx_tokens
          : c == OPT_PARALLEL ? &a->o.parallel
          : c == OPT_AT       ? &a->o.at_tokens
          : c == OPT_BATCH    ? &a->o.chunk
                              : &a->host.threads) = v;
    return true;
}

static bool option(struct args *a, int c)
{
    switch (c) {
    case OPT_PROFILE:
        a->host.profile_path = optarg;
        return true;
    case OPT_TOPOLOGY:
        a->host.topology = optarg;
        return true;
    case 'm':
        a->model = optarg;
        return true;
    case OPT_GOAL:
        a->o.goal = optarg;
        return true;
    case OPT_FORMAT:
        a->format = optarg;
        return true;
    case OPT_DENSE:
        a->dense = optarg;
        return true;
    case OPT_KV:
        a->o.kv_type = optarg;
        return true;
    case OPT_FAST:
        a->o.fast_tier = optarg;
        return true;
    case OPT_JSON:
        return a->json = true;
    case OPT_HTML:
        a->html = optarg;
        return true;
    case OPT_NO_FETCH:
        return a->o.no_fetch = true;
    case OPT_SET:
        if (a->host.n_set == PLAN_SETS)
            return false;
        a->host.set[a->host.n_set++] = optarg;
        return true;
    default:
        return number_option(a, c);
    }
}

static kt_status write_page(const struct args *a, const struct plan_model *m, kt_err *err)
{
    struct strbuf page = {0};
    plan_model_html(m, a->host.host, &page);
    kt_status st = sb_ok(&page) ? file_write_atomic(a->html, page.data, page.len, err)
                                : err_set(err, KT_E_NOMEM, 0, __func__, "plan: out of memory");
    sb_free(&page);
    return st;
}

static int run(struct args *a)
{
    struct shape *s = NULL;
    struct plan_model *m = NULL;
    struct strbuf out = {0};
    kt_err err = {0};
    int code = EXIT_OK;
    if (shape_open(a->model, a->format, a->dense, &s, &err) != KT_OK)
        return cmd_fail("plan", &err, 1);
    a->host.shape = s;
    if (plan_args_open(&a->host, &err) != KT_OK ||
        plan_model(s, a->host.host, a->host.plan, a->host.profile, &a->o, &m, &err) != KT_OK) {
        code = cmd_fail("plan", &err, 0);
    } else {
        if (a->json)
            plan_model_json(m, a->host.host, &out);
        else
            plan_model_print(m, a->host.host, isatty(STDOUT_FILENO) == 1, &out);
        kt_status st = a->html != NULL ? write_page(a, m, &err) : KT_OK;
        bool ok =
            sb_ok(&out) && fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
        code = st != KT_OK ? cmd_fail("plan", &err, 0)
               : !ok       ? EXIT_USAGE
               : m->fits   ? EXIT_OK
                           : EXIT_REFUSED;
    }
    sb_free(&out);
    plan_model_free(m);
    plan_args_close(&a->host);
    shape_close(s);
    return code;
}

int cmd_plan(int argc, char **argv)
{
    static const struct option longs[] = {{"profile", 1, NULL, OPT_PROFILE},
                                          {"topology", 1, NULL, OPT_TOPOLOGY},
                                          {"model", 1, NULL, 'm'},
                                          {"goal", 1, NULL, OPT_GOAL},
                                          {"ctx", 1, NULL, OPT_CTX},
                                          {"parallel", 1, NULL, OPT_PARALLEL},
                                          {"at", 1, NULL, OPT_AT},
                                          {"batch", 1, NULL, OPT_BATCH},
                                          {"format", 1, NULL, OPT_FORMAT},
                                          {"format-dense", 1, NULL, OPT_DENSE},
                                          {"kv-type", 1, NULL, OPT_KV},
                                          {"fast-tier", 1, NULL, OPT_FAST},
                                          {"threads", 1, NULL, OPT_THREADS},
                                          {"reserve", 1, NULL, OPT_RESERVE},
                                          {"set", 1, NULL, OPT_SET},
                                          {"json", 0, NULL, OPT_JSON},
                                          {"html", 1, NULL, OPT_HTML},
                                          {"no-fetch", 0, NULL, OPT_NO_FETCH},
                                          {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct args a = {0};
    int c;
    plan_args_init(&a.host);
    plan_model_opts_init(&a.o);
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":m:h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (!option(&a, c)) {
            return c == '?'       ? cmd_usage("plan", "no option ", argv[optind - 1])
                   : c == ':'     ? cmd_usage("plan", "a value is needed after ", argv[optind - 1])
                   : c == OPT_SET ? cmd_usage("plan", "too many --set", NULL)
                                  : bad_number(longs, c);
        }
    }
    if (optind != argc)
        return cmd_usage("plan", "unexpected ", argv[optind]);
    if (a.model == NULL)
        return cmd_usage("plan", "-m MODEL is missing", NULL);
    return run(&a);
}
