/* cmd_verify.c - `kttune verify F`: does a profile still describe this machine? Fingerprint fields
 * first, then (unless --no-measure) a spot check: the read rate of the weakest pool and the barrier
 * are measured again and must lie within 10 % of the file. Exit: 0 yes; 4 stale, of another host,
 * or invalid; 5 the fields match but a measurement does not. With --regret: verify_regret.c.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cmds.h"
#include "kern.h"
#include "probe.h"
#include "verify_regret.h"

#define TOLERANCE 0.10
#define SPOT_SECONDS 6.0

/* The pool with the lowest best read rate, as a plan of that pool alone. */
static const struct plan_pool *weakest(const struct profile *p, const struct plan *plan)
{
    const struct plan_pool *worst = plan->n_pools > 0 ? &plan->pools[0] : NULL;
    double low = (double)INFINITY;
    for (uint32_t i = 0; i < plan->n_pools; i++)
        for (uint32_t k = 0; k < p->n_knees; k++)
            if (p->knees[k].node == plan->pools[i].node &&
                p->knees[k].read_bytes_per_second < low) {
                low = p->knees[k].read_bytes_per_second;
                worst = &plan->pools[i];
            }
    return worst;
}

static const json_t *entry(const struct profile *p, const char *id)
{
    const json_t *a = json_object_get(p->root, "measurements");
    for (size_t i = 0; i < json_array_size(a); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(a, i), "id")), id) == 0)
            return json_array_get(a, i);
    return NULL;
}

/* Prints one line; returns 1 when the ids differ by more than the tolerance and by more than the
 * quartiles of both explain. */
static int compare_one(const struct profile *was, const json_t *now)
{
    const char *id = json_string_value(json_object_get(now, "id"));
    const json_t *old = entry(was, id);
    double a = json_number_value(json_object_get(old, "median")),
           b = json_number_value(json_object_get(now, "median"));
    if (json_object_get(old, "median") == NULL || json_object_get(now, "median") == NULL || a <= 0)
        return 0;
    double off = b / a - 1, old_lo = json_number_value(json_object_get(old, "q1")),
           old_hi = json_number_value(json_object_get(old, "q3"));
    double lo = json_number_value(json_object_get(now, "q1")),
           hi = json_number_value(json_object_get(now, "q3"));
    bool overlap = lo <= old_hi && hi >= old_lo;
    bool bad = fabs(off) > TOLERANCE && !overlap;
    printf("  %-28s %+6.1f %%   %s\n", id, 100 * off,
           bad                     ? "DIFFERS"
           : fabs(off) > TOLERANCE ? "within noise"
                                   : "ok");
    return bad;
}

static kt_status spot_check(const struct profile *p, const struct host *h, int *bad, kt_err *err)
{
    struct plan *plan;
    struct profile_tool tool = {0};
    KT_TRY(plan_host(h, NULL, &plan, err));
    struct plan one = {.n_pools = 1, .n_threads = plan->n_threads};
    struct plan_pool pool = {0};
    struct probe_run r = {.h = h,
                          .plan = &one,
                          .depth = PROBE_QUICK,
                          .seed = clock_ns(),
                          .isa = h->isa.kern_isa,
                          .fresh = json_object()};
    uint64_t memory = host_memory_allowed(h);
    const struct plan_pool *w = weakest(p, plan);
    kern_abi(tool.kernel_abi);
    kt_status st = w == NULL ? KT_OK : profile_build(h, &tool, &r.p, err);
    if (w != NULL && st == KT_OK) {
        pool = *w;
        one.pools = &pool;
        r.memory_bytes = memory == HOST_UNKNOWN_BYTES ? (uint64_t)1 << 30 : memory / 4;
        for (uint32_t i = 0; i < h->n_l3; i++)
            r.cache_bytes += h->l3[i].bytes != HOST_UNKNOWN_BYTES ? h->l3[i].bytes : 0;
        r.deadline_ns = clock_ns() + (uint64_t)(SPOT_SECONDS * 1e9);
        r.warmup_seconds = 0.5;
        st = probe_mem(&r, 2.5, err);
        if (st == KT_OK) {
            one.pools = plan->pools;
            one.n_pools = plan->n_pools;
            r.only = "sync.barrier";
            st = probe_sync(&r, 1.0, err);
        }
        const json_t *ms = json_object_get(r.p->root, "measurements");
        for (size_t i = 0; st == KT_OK && i < json_array_size(ms); i++)
            *bad += compare_one(p, json_array_get(ms, i));
    }
    profile_close(r.p);
    json_decref(r.fresh);
    plan_free(plan);
    return st;
}

static int verdict(const char *path, const struct profile *p, const struct host *h, bool measure)
{
    struct profile_match m;
    struct strbuf why = {0};
    kt_err err;
    int code = EXIT_OK, bad = 0;
    if (profile_match_host(p, h, &m, &err) != KT_OK)
        return cmd_fail("verify", &err, 0);
    profile_match_text(&m, &why);
    printf("%s: %s\n%s", path,
           m.state == PROFILE_MATCH ? "fields match this machine"
           : m.state == PROFILE_STALE
               ? "STALE (KT025): the same machine, set up differently; probe again"
               : "MISMATCH (KT026): another machine; probe here",
           why.data != NULL ? why.data : "");
    if (m.state != PROFILE_MATCH)
        code = EXIT_PROFILE;
    else if (measure && h->this_system) {
        printf("spot check\n");
        fflush(stdout);
        if (spot_check(p, h, &bad, &err) != KT_OK)
            code = cmd_fail("verify", &err, 0);
        else if (bad > 0)
            code = EXIT_NOT_MET;
        printf("%s\n", bad > 0
                           ? "measurements differ by more than 10 %: another load, or probe again"
                           : "measurements agree");
    }
    sb_free(&why);
    profile_match_free(&m);
    return code;
}

static const char help[] =
    "usage: kttune verify [--no-measure] [--topology SPEC] [FILE]\n"
    "       kttune verify --regret -m MODEL [--goal G] [--budget S] [--seed N] [FILE]\n"
    "       kttune verify --regret --backend replay:TABLE [--chosen JSON] [--seed N] [FILE]\n\n"
    "Compare a host profile (default host.json) with this machine.\n"
    "--regret times what a tuning of the profile chose against 59 random configurations in paired "
    "rounds,\n"
    "on this machine or over a recorded table; --chosen judges another configuration; --goal is "
    "decode,\n"
    "prefill or both; --quant, --quant-dense, --kv-type, --batch and --prompt as kttune tune has "
    "them.\n\n"
    "Exit code: 0 it matches, or the upper 95 % bound of the regret is at most 5 %; 2 time was up "
    "before;\n"
    "4 stale, of another host or invalid; 5 a measurement differs by more than 10 %, or the bound "
    "is not met.\n";

struct args {
    const char *path, *topology;
    bool measure, regret;
    struct verify_regret_args r;
};

/* One option with a value; false: not one of ours, or not a value of it. */
static bool option(struct args *a, const char *name, const char *value)
{
    struct live_opts *l = &a->r.live;
    uint32_t n;
    if (strcmp(name, "--topology") == 0)
        a->topology = value;
    else if (strcmp(name, "-m") == 0 || strcmp(name, "--model") == 0)
        l->engine.model_path = value;
    else if (strcmp(name, "--quant") == 0)
        l->engine.quant = value;
    else if (strcmp(name, "--quant-dense") == 0)
        l->engine.quant_dense = value;
    else if (strcmp(name, "--kv-type") == 0)
        l->engine.kv_type = value;
    else if (strcmp(name, "--chosen") == 0)
        a->r.chosen = value;
    else if (strcmp(name, "--goal") == 0 &&
             (strcmp(value, "decode") == 0 || strcmp(value, "prefill") == 0 ||
              strcmp(value, "both") == 0))
        a->r.goal = value;
    else if (strcmp(name, "--backend") == 0 && strncmp(value, "replay:", 7) == 0)
        a->r.replay = value + 7;
    else if (strcmp(name, "--budget") == 0 && cmd_number(value, 1, 86400, &n))
        a->r.budget = n;
    else if (strcmp(name, "--seed") == 0)
        return cmd_number(value, 0, UINT32_MAX, &a->r.seed);
    else if (strcmp(name, "--batch") == 0)
        return cmd_number(value, 1, 8, &l->batch);
    else if (strcmp(name, "--prompt") == 0)
        return cmd_number(value, 2, 8192, &l->prefill);
    else
        return false;
    return true;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct args *a)
{
    kt_engine_opts_init(&a->r.live.engine);
    a->path = "host.json";
    a->measure = true;
    a->r.budget = 120;
    a->r.seed = 1;
    a->r.live.batch = 1;
    a->r.live.prompt = 64;
    a->r.live.prefill = 512;
    a->r.live.sample_seconds = 0.025;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--no-measure") == 0) {
            a->measure = false;
        } else if (strcmp(argv[i], "--regret") == 0) {
            a->regret = true;
        } else if (argv[i][0] != '-') {
            a->path = argv[i];
        } else if (i + 1 < argc && option(a, argv[i], argv[i + 1])) {
            i++;
        } else {
            fprintf(stderr,
                    "kttune verify: '%s%s%s': no such option, or not a value of it; kttune verify "
                    "--help tells the options\n",
                    argv[i], i + 1 < argc ? " " : "", i + 1 < argc ? argv[i + 1] : "");
            return EXIT_USAGE;
        }
    }
    if (a->regret && a->r.replay == NULL && a->r.live.engine.model_path == NULL) {
        fprintf(stderr, "kttune verify: --regret needs a model (-m) or a table (--backend)\n%s",
                help);
        return EXIT_USAGE;
    }
    a->r.profile = a->path;
    a->r.live.seed = a->r.seed;
    return -1;
}

int cmd_verify(int argc, char **argv)
{
    struct args a = {0};
    struct profile *p;
    struct host *h;
    kt_err err;
    int code = parse(argc, argv, &a);
    if (code >= 0)
        return code;
    if (a.regret)
        return verify_regret(&a.r);
    if (profile_read(a.path, &p, &err) != KT_OK)
        return cmd_fail("verify", &err, 0);
    if (host_read(a.topology, &h, &err) != KT_OK) {
        code = cmd_fail("verify", &err, 0);
    } else {
        code = verdict(a.path, p, h, a.measure);
        host_free(h);
    }
    profile_close(p);
    return code;
}
