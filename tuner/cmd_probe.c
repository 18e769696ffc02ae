/* cmd_probe.c - `kttune probe`: facts, then measuring stages under one hard deadline, then
 * decisions. After every stage the file is a valid profile with complete:false, so a run that is
 * killed leaves something usable. A file of another host is never overwritten without --force.
 * Stages are rows of a table; each has its share of the time at each depth.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmds.h"
#include "config.h"
#include "kern.h"
#include "probe.h"
#include "progress.h"
#include "show.h"

#define FINISH_SECONDS 0.4 /* kept for decisions and the last write */

static const char *const depth_names[] = {"topology", "quick", "default", "deep"};

struct args {
    enum probe_depth depth;
    /* of the file: the depth's name, or that of a deeper run whose entries are kept */
    const char *stage;
    const char *out, *topology;
    char *only;
    bool json, force;
    uint64_t seed;
    const char *flags[16];
    uint32_t n_flags;
    double limit_seconds;
};

static int usage(FILE *to)
{
    fprintf(to,
            "usage: kttune probe [--quick | --deep] [--only IDS] [--topology SPEC | "
            "--topology-only] [--json] [--force] [--seed N] [-o FILE]\n\n"
            "Measure this machine and write a host profile (default host.json).\n\n"
            "  --quick           at most 10 s: limits, self-tests, read bandwidth, barriers, a few "
            "expert formats\n"
            "  --deep            at most 15 min; without either at most 120 s\n"
            "  --only IDS        measure these ids only, separated by commas: mem.*,sync.barrier\n"
            "  --topology-only   facts and plan, no measurement\n"
            "  --topology SPEC   facts and plan of another machine: xml:FILE, syn:DESCRIPTION, "
            "fsroot:DIR, cpuid:DIR (no measurement)\n"
            "  --json            print the profile; without -o no file is written\n"
            "  --force           overwrite a file that is no profile, or of another host\n"
            "  --seed N          order of the samples\n"
            "  -o FILE           where to write\n\n"
            "Exit code: 0 done, 1 usage or I/O, 2 stages missing at the deadline, 3 refused by "
            "limits, 4 the existing file is of another host.\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static const struct option longs[] = {
    {"quick", no_argument, NULL, 'q'},
    {"deep", no_argument, NULL, 'd'},
    {"only", required_argument, NULL, 'i'},
    {"topology", required_argument, NULL, 't'},
    {"topology-only", no_argument, NULL, 'T'},
    {"json", no_argument, NULL, 'j'},
    {"force", no_argument, NULL, 'f'},
    {"seed", required_argument, NULL, 's'},
    {"output", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void remember(struct args *a, const char *flag)
{
    if (a->n_flags < sizeof a->flags / sizeof *a->flags)
        a->flags[a->n_flags++] = flag;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct args *a)
{
    int c;
    bool topology_only = false;
    optind = 1;
    a->depth = PROBE_DEFAULT;
    a->seed = clock_ns();
    while ((c = getopt_long(argc, argv, "ho:", longs, NULL)) != -1) {
        char *end;
        switch (c) {
        case 'q':
        case 'd':
            if (a->depth != PROBE_DEFAULT && (a->depth == PROBE_QUICK) != (c == 'q'))
                return cmd_usage("probe", "--quick or --deep, not both", NULL);
            a->depth = c == 'q' ? PROBE_QUICK : PROBE_DEEP;
            remember(a, c == 'q' ? "--quick" : "--deep");
            break;
        case 'i':
            mem_free(a->only);
            a->only = mem_strdup(optarg);
            for (char *p = a->only; p != NULL && *p != '\0'; p++)
                if (*p == ',')
                    *p = ' ';
            remember(a, "--only");
            break;
        case 't':
            a->topology = optarg;
            break;
        case 'T':
            topology_only = true;
            remember(a, "--topology-only");
            break;
        case 'j':
            a->json = true;
            break;
        case 'f':
            a->force = true;
            break;
        case 's':
            errno = 0;
            a->seed = strtoull(optarg, &end, 10);
            if (errno != 0 || *end != '\0' || *optarg == '\0') {
                fprintf(stderr, "kttune probe: --seed takes a number, not '%s'\n", optarg);
                return EXIT_USAGE;
            }
            break;
        case 'o':
            a->out = optarg;
            break;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "kttune probe: '%s' is no option\n", argv[optind]);
        return EXIT_USAGE;
    }
    if (topology_only || (a->topology != NULL && strcmp(a->topology, "native") != 0))
        a->depth = PROBE_TOPOLOGY;
    a->stage = depth_names[a->depth];
    a->limit_seconds = a->depth == PROBE_QUICK ? 10 : a->depth == PROBE_DEEP ? 900 : 120;
    if (a->out == NULL && !a->json && a->topology == NULL)
        a->out = "host.json";
    return -1;
}

/* ---- the existing file ---- */

/* Takes over what an older profile of this host knows and this run does not measure again. -1: go
 * on; else the exit code. */
static int take_over(struct args *a, const struct host *h, struct profile *p, kt_err *err)
{
    struct profile *old = NULL;
    struct profile_match m;
    kt_status st = profile_read(a->out, &old, err);
    if (st == KT_E_NOT_FOUND)
        return -1;
    if (st != KT_OK) {
        if (a->force)
            return -1;
        fprintf(stderr, "kttune probe: %s\nkttune probe: %s is kept; --force overwrites it\n",
                err->msg, a->out);
        return st == KT_E_IO ? EXIT_USAGE : EXIT_PROFILE;
    }
    if (profile_match_host(old, h, &m, err) != KT_OK) {
        profile_close(old);
        return cmd_fail("probe", err, 0);
    }
    int code = -1;
    if (m.state == PROFILE_MISMATCH && !a->force) {
        struct strbuf why = {0};
        profile_match_text(&m, &why);
        fprintf(stderr,
                "kttune probe: %s belongs to another host and is kept; --force overwrites it\n%s",
                a->out, why.data != NULL ? why.data : "");
        sb_free(&why);
        code = EXIT_PROFILE;
    } else if (m.state != PROFILE_MISMATCH && !m.aged) {
        const json_t *ms = json_object_get(old->root, "measurements");
        for (size_t i = 0; i < json_array_size(ms) && code < 0; i++) {
            json_t *e = json_array_get(ms, i);
            bool affected = false;
            for (uint32_t k = 0; k < m.n_diffs; k++)
                affected |= profile_affects(m.diffs[k].affects,
                                            json_string_value(json_object_get(e, "id")));
            if (!affected && profile_put_measurement(p, json_incref(e), err) != KT_OK)
                code = cmd_fail("probe", err, 0);
        }
        for (int d = PROBE_TOPOLOGY; d <= PROBE_DEEP && m.state == PROFILE_MATCH && old->complete;
             d++)
            if (strcmp(old->stage, depth_names[d]) == 0 && d > (int)a->depth)
                a->stage = depth_names[d]; /* its deeper entries stay */
        if (code < 0 && profile_keep_tunings(p, old, err) != KT_OK)
            code = cmd_fail("probe", err, 0);
        json_object_set(json_object_get(p->root, "isa"), "variants",
                        json_object_get(json_object_get(old->root, "isa"), "variants"));
        json_object_set(p->root, "counters", json_object_get(old->root, "counters"));
    }
    profile_match_free(&m);
    profile_close(old);
    return code;
}

/* ---- stages ---- */

static kt_status stage_isa(struct probe_run *r, double seconds, kt_err *err)
{
    (void)seconds;
    return probe_isa(r, err);
}

static kt_status stage_devices(struct probe_run *r, double seconds, kt_err *err)
{
    (void)seconds;
    KT_TRY(probe_papi(r, NULL, err));
    return probe_gpu(r, err);
}

/* Seconds at quick, default and deep; 0: not at this depth. `id` decides under --only. */
static const struct stage {
    const char *name, *id;
    double seconds[3];
    kt_status (*run)(struct probe_run *r, double seconds, kt_err *err);
} stages[] = {
    {"kernel self-tests", "isa", {1.5, 10, 20}, stage_isa},
    {"read bandwidth", "mem.read", {2.2, 30, 120}, probe_mem},
    {"joins", "sync", {0.6, 3, 6}, probe_sync},
    {"noise", "noise", {0.5, 2, 4}, probe_noise},
    {"counters and devices", "gpu", {0.5, 3, 10}, stage_devices},
    {"experts", "expert", {2.4, 90, 600}, probe_expert},
    {"repeat of the first probe", "mem.read", {0.4, 2, 4}, probe_repeat},
};
#define N_STAGES (sizeof stages / sizeof *stages)

static bool stage_matches(const char *only, const struct stage *s)
{
    /* patterns may name a whole stage ("expert.*") or ids inside it ("expert.gemv:mxfp4.*") */
    return strstr(only, s->id) != NULL || profile_affects(only, s->id);
}

static bool stage_wanted(const struct probe_run *r, const struct stage *s)
{
    /* self-tests always: later stages run only what passed */
    return s->run == stage_isa || r->only == NULL || stage_matches(r->only, s);
}

/* Every pattern of --only has a stage; else says which has none. */
static bool only_known(const char *only)
{
    char one[128];
    for (const char *p = only; p != NULL && *p != '\0';) {
        size_t n = strcspn(p, " "), i = 0;
        snprintf(one, sizeof one, "%.*s", (int)n, p);
        while (n > 0 && i < N_STAGES && !stage_matches(one, &stages[i]))
            i++;
        if (i == N_STAGES) {
            fprintf(stderr,
                    "kttune probe: --only %s: nothing that is measured has such an id; ids begin "
                    "with isa, mem.read, sync, noise, gpu or expert (kttune probe --help)\n",
                    one);
            return false;
        }
        p += n + (p[n] == ' ');
    }
    return true;
}

/* What the stages after this one ask for: experts would fill any time. */
static double seconds_after(const struct probe_run *r, size_t stage)
{
    double sum = 0;
    for (size_t i = stage + 1; i < N_STAGES; i++)
        if (stage_wanted(r, &stages[i]))
            sum += stages[i].seconds[r->depth - PROBE_QUICK];
    return sum;
}

/* Plan again with what is measured by now, and put its decisions. */
static kt_status replan(struct probe_run *r, kt_err *err)
{
    struct plan_opts o;
    struct plan *plan;
    plan_opts_init(&o);
    struct plan_measured *m = mem_calloc(r->p->n_knees + 1, sizeof *m);
    if (m == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a plan");
    for (uint32_t i = 0; i < r->p->n_knees; i++) {
        const struct profile_knee *k = &r->p->knees[i];
        m[i] = (struct plan_measured){k->node,
                                      k->knee_threads,
                                      k->knee_bytes_per_second,
                                      k->read_bytes_per_second,
                                      k->best_threads,
                                      k->because,
                                      k->n_because};
    }
    o.measured = m;
    o.n_measured = r->p->n_knees;
    kt_status st = plan_host(r->h, &o, &plan, err);
    mem_free(m);
    KT_TRY(st);
    st = decide_plan(r, plan, err);
    plan_free(plan);
    return st == KT_OK && r->depth != PROBE_TOPOLOGY ? decide_kernels(r, err) : st;
}

static kt_status save(struct probe_run *r, const struct args *a, bool complete, kt_err *err)
{
    KT_TRY(profile_refresh(r->p, err));
    KT_TRY(replan(r, err));
    profile_stage(r->p, a->stage, complete);
    return a->out != NULL ? profile_write(r->p, a->out, err) : KT_OK;
}

static kt_status run_stages(struct probe_run *r, const struct args *a, struct progress *pg,
                            kt_err *err)
{
    for (size_t i = 0; i < N_STAGES; i++) {
        const struct stage *s = &stages[i];
        double seconds = s->seconds[r->depth - PROBE_QUICK],
               later = s->run == probe_expert ? seconds_after(r, i) : 0,
               room = fmax(probe_time_left(r) - later, 0);
        bool affordable = probe_time_left(r) > 0.15;
        if (!stage_wanted(r, s))
            continue;
        progress_stage(pg, s->name);
        if (!affordable) {
            r->n_missing++;
            progress_done(pg, "no time was left");
            continue;
        }
        uint32_t missing = r->n_missing;
        KT_TRY(s->run(r, fmin(seconds, room), err));
        if (s->run == probe_expert && r->depth == PROBE_QUICK)
            r->n_missing = missing; /* an extra of the quick run, whose decisions do not need it */
        KT_TRY(save(r, a, false, err));
        progress_done(pg, NULL);
    }
    return KT_OK;
}

static uint64_t last_level_cache(const struct host *h)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < h->n_l3; i++)
        sum += h->l3[i].bytes != HOST_UNKNOWN_BYTES ? h->l3[i].bytes : 0;
    for (uint32_t i = 0; i < h->n_nodes; i++)
        sum += h->nodes[i].memcache_bytes != HOST_UNKNOWN_BYTES ? h->nodes[i].memcache_bytes : 0;
    return sum;
}

static kt_status measure_all(struct probe_run *r, const struct args *a, uint64_t start, kt_err *err)
{
    struct progress pg;
    uint64_t memory = host_memory_allowed(r->h);
    r->memory_bytes = memory == HOST_UNKNOWN_BYTES ? (uint64_t)1 << 30 : memory / 4;
    r->cache_bytes = last_level_cache(r->h);
    r->deadline_ns = start + (uint64_t)((a->limit_seconds - FINISH_SECONDS) * 1e9);
    r->warmup_seconds = a->depth == PROBE_QUICK ? 0.5 : 2.0;
    progress_open(&pg, a->limit_seconds, start);
    r->progress = progress_step;
    r->progress_ctx = &pg;
    kt_status st = run_stages(r, a, &pg, err);
    progress_close(&pg);
    return st;
}

/* ---- the command ---- */

static int print_result(const struct probe_run *r, const struct args *a)
{
    struct strbuf b = {0};
    kt_err err;
    kt_status st = KT_OK;
    if (a->json)
        st = profile_text(r->p, &b, &err);
    else
        show_profile(r->p, NULL, isatty(STDOUT_FILENO) == 1, &b);
    if (st == KT_OK && sb_ok(&b))
        fwrite(b.data, 1, b.len, stdout);
    if (!a->json && a->out != NULL)
        printf("\nwritten to %s\n", a->out);
    if (r->n_missing > 0)
        fprintf(stderr,
                "kttune probe: %u measurement%s missing at the deadline; the profile is valid and "
                "says which\n",
                r->n_missing, r->n_missing == 1 ? " is" : "s are");
    sb_free(&b);
    if (fflush(stdout) != 0)
        return EXIT_USAGE;
    return r->n_missing > 0 ? EXIT_DEADLINE : EXIT_OK;
}

static int probe_host(struct args *a, const struct host *h, uint64_t start)
{
    kt_err err = {0};
    struct profile_tool tool = {.git = strcmp(KT_GIT, "unknown") != 0 ? KT_GIT : NULL,
                                .flags = a->flags,
                                .n_flags = a->n_flags};
    struct probe_run r = {.h = h,
                          .depth = a->depth,
                          .only = a->only,
                          .seed = a->seed,
                          .isa = h->isa.kern_isa,
                          .fresh = json_object()};
    struct plan *plan = NULL;
    int code = -1;
    kern_abi(tool.kernel_abi);
    memcpy(r.abi, tool.kernel_abi, sizeof r.abi);
    kt_status st = profile_build(h, &tool, &r.p, &err);
    if (st == KT_OK && a->out != NULL)
        code = take_over(a, h, r.p, &err);
    if (st == KT_OK && code < 0)
        st = plan_host(h, NULL, &plan, &err);
    r.plan = plan;
    if (st == KT_OK && code < 0 && !h->this_system)
        st = profile_warn(r.p, "KT003", "info", "topology.source", "probe on the machine itself",
                          "not this system: facts and plan only, nothing is measured", &err);
    if (st == KT_OK && code < 0)
        st = save(&r, a, a->depth == PROBE_TOPOLOGY, &err);
    if (st == KT_OK && code < 0 && a->depth != PROBE_TOPOLOGY) {
        st = measure_all(&r, a, start, &err);
        if (st == KT_OK)
            st = save(&r, a, r.n_missing == 0, &err);
    }
    if (code < 0)
        code = st != KT_OK ? cmd_fail("probe", &err, 0) : print_result(&r, a);
    plan_free(plan);
    profile_close(r.p);
    json_decref(r.fresh);
    return code;
}

int cmd_probe(int argc, char **argv)
{
    uint64_t start = clock_ns();
    struct args a = {0};
    struct host *h;
    kt_err err;
    int code = parse(argc, argv, &a);
    if (code < 0 && !only_known(a.only))
        code = EXIT_USAGE;
    if (code < 0) {
        kt_status st = host_read(a.topology, &h, &err);
        if (st != KT_OK) {
            code = cmd_fail("probe", &err, 0);
            code = code == EXIT_PROFILE
                       ? EXIT_USAGE
                       : code; /* a bad topology source is an input error, not a profile */
        } else {
            code = probe_host(&a, h, start);
            host_free(h);
        }
    }
    mem_free(a.only);
    return code;
}
