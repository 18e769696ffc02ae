/* cmd_tune.c - `kttune tune`: options, progress, and where a verdict goes. Live: the profile of
 * this host gets one entry of `tunings` and the samples behind it, written as a whole at the end,
 * also when time was up or the user interrupted (then the entry says what is missing, and a later
 * run replaces it). Replay: a recorded table takes the place of the machine; nothing is written.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmds.h"
#include "kern.h"
#include "model/model.h"
#include "tune.h"
#include "tune_replay.h"

struct args {
    const char *profile, *record;
    struct tune_replay_args replay;
    struct live_opts live;
    const char *goal;
    double budget;
    uint32_t seed;
    bool json;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static int usage(FILE *to)
{
    fprintf(
        to,
        "usage: kttune tune --profile FILE -m MODEL [options]\n"
        "       kttune tune --backend replay:TABLE [--drift X] [--outliers P] [--seeds N] "
        "[options]\n\n"
        "Search how the engine runs a model fastest on this host, and write what is proved to the "
        "profile.\n\n"
        "  --profile FILE     host profile of this machine (kttune probe), read and written\n"
        "  -m, --model MODEL  GGUF file or checkpoint directory\n"
        "  --goal G           decode (default), prefill or both\n"
        "  --budget S         seconds for everything, loading included (default 120)\n"
        "  --seed N           order of the samples (default 1)\n"
        "  --batch N          sequences decoded together (default 1, at most 8)\n"
        "  --prompt N         tokens of a prefill sample (default 512)\n"
        "  --sample MS        least length of a sample in milliseconds (default 25)\n"
        "  --quant F, --quant-dense F, --kv-type T   as ktserve has them\n"
        "  --record TABLE     instead of searching, time every configuration in rounds and write "
        "a table for replay\n"
        "  --backend B        live (default) or replay:TABLE\n"
        "  --drift X          replay: the machine slows down by this share while the search runs "
        "(0.05)\n"
        "  --outliers P       replay: this share of samples takes ten times as long\n"
        "  --slow X           replay: the clock changes between two speeds, X apart (1.3)\n"
        "  --noise CV         replay: scale the table's noise to this (0.03)\n"
        "  --seeds N          replay: search with N seeds and report the regret\n"
        "  --json             print the entry\n\n"
        "Exit code: 0 done, 2 cut by the budget or an interruption (the file is valid and says "
        "what is missing), 4 the profile is invalid or of another host, 6 the model is invalid.\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static bool real_option(const char *text, double min, double max, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= min && v <= max))
        return false;
    *out = v;
    return true;
}

enum {
    PROFILE = 256,
    GOAL,
    BUDGET,
    SEED,
    BATCH,
    PROMPT,
    SAMPLE,
    QUANT,
    QUANT_DENSE,
    KV,
    RECORD,
    BACKEND,
    DRIFT,
    OUTLIERS,
    SLOW,
    NOISE,
    SEEDS,
    JSON
};

static const struct option longs[] = {{"profile", 1, 0, PROFILE},
                                      {"model", 1, 0, 'm'},
                                      {"goal", 1, 0, GOAL},
                                      {"budget", 1, 0, BUDGET},
                                      {"seed", 1, 0, SEED},
                                      {"batch", 1, 0, BATCH},
                                      {"prompt", 1, 0, PROMPT},
                                      {"sample", 1, 0, SAMPLE},
                                      {"quant", 1, 0, QUANT},
                                      {"quant-dense", 1, 0, QUANT_DENSE},
                                      {"kv-type", 1, 0, KV},
                                      {"record", 1, 0, RECORD},
                                      {"backend", 1, 0, BACKEND},
                                      {"drift", 1, 0, DRIFT},
                                      {"outliers", 1, 0, OUTLIERS},
                                      {"slow", 1, 0, SLOW},
                                      {"noise", 1, 0, NOISE},
                                      {"seeds", 1, 0, SEEDS},
                                      {"json", 0, 0, JSON},
                                      {"help", 0, 0, 'h'},
                                      {0, 0, 0, 0}};

static bool goal_option(const char *text, struct args *a)
{
    static const char *const name[] = {"decode", "prefill", "both"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, name[i]) == 0) {
            a->goal = name[i];
            a->live.goal = (enum live_goal)i;
            return true;
        }
    return false;
}

static bool backend_option(const char *text, struct args *a)
{
    if (strncmp(text, "replay:", 7) == 0 && text[7] != '\0')
        a->replay.path = text + 7;
    return a->replay.path != NULL || strcmp(text, "live") == 0;
}

static bool take_option(int c, struct args *a)
{
    struct live_opts *l = &a->live;
    switch (c) {
    case 'm':
        l->engine.model_path = optarg;
        return true;
    case PROFILE:
        a->profile = optarg;
        return true;
    case GOAL:
        return goal_option(optarg, a);
    case BUDGET:
        return real_option(optarg, 1, 86400, &a->budget);
    case SEED:
        return cmd_number(optarg, 0, UINT32_MAX, &a->seed);
    case BATCH:
        return cmd_number(optarg, 1, 8, &l->batch);
    case PROMPT:
        return cmd_number(optarg, 2, 8192, &l->prefill);
    case SAMPLE:
        if (!real_option(optarg, 1, 10000, &l->sample_seconds))
            return false;
        l->sample_seconds *= 1e-3;
        return true;
    case QUANT:
        l->engine.quant = optarg;
        return true;
    case QUANT_DENSE:
        l->engine.quant_dense = optarg;
        return true;
    case KV:
        l->engine.kv_type = optarg;
        return true;
    case RECORD:
        a->record = optarg;
        return true;
    case BACKEND:
        return backend_option(optarg, a);
    case DRIFT:
        return real_option(optarg, 0, 1, &a->replay.drift);
    case OUTLIERS:
        return real_option(optarg, 0, 1, &a->replay.outliers);
    case SLOW:
        return real_option(optarg, 1, 10, &a->replay.slow);
    case NOISE:
        return real_option(optarg, 0, 1, &a->replay.noise_cv);
    case SEEDS:
        return cmd_number(optarg, 1, 100000, &a->replay.seeds);
    case JSON:
        a->json = true;
        return true;
    default:
        return false;
    }
}

static int parse(int argc, char **argv, struct args *a)
{
    int c;
    kt_engine_opts_init(&a->live.engine);
    a->goal = "decode";
    a->budget = 120;
    a->seed = 1;
    a->live.batch = 1;
    a->live.prompt = 64;
    a->live.prefill = 512;
    a->live.sample_seconds = 0.025;
    optind = 1;
    while ((c = getopt_long(argc, argv, "m:h", longs, NULL)) != -1) {
        if (c == 'h')
            return usage(stdout);
        if (!take_option(c, a)) {
            if (c != '?')
                fprintf(stderr, "kttune tune: '%s' is not a value of its option\n", optarg);
            return usage(stderr);
        }
    }
    bool live = a->replay.path == NULL;
    if (optind != argc || (live && a->live.engine.model_path == NULL) ||
        (live && a->profile == NULL && a->record == NULL))
        return usage(stderr);
    a->live.seed = a->seed;
    return -1;
}

/* ---- progress ---- */

struct show {
    const struct space *space;
    bool tty;
    char stage[24];
};

static void show_progress(void *user, const struct search_progress *p)
{
    struct show *s = user;
    struct strbuf best = {0};
    bool fresh = strcmp(s->stage, p->stage) != 0;
    snprintf(s->stage, sizeof s->stage, "%s", p->stage);
    if (!s->tty && !fresh)
        return;
    if (p->has_best) {
        sb_printf(&best, ", best so far %+.1f %%: ", 100 * p->best_gain);
        space_text(s->space, p->best, false, &best);
    }
    fprintf(stderr, "%s%-8s round %2u of %2u, %3u configurations%s, %.0f s left%s",
            s->tty ? "\r\033[K" : "", p->stage, p->round, p->rounds, p->live,
            best.data != NULL ? best.data : "", p->left_seconds, s->tty ? "" : "\n");
    fflush(stderr);
    sb_free(&best);
}

/* ---- result ---- */

void tune_print(const struct tune_job *j, const struct search_out *r)
{
    struct strbuf t = {0};
    space_text(j->space, 0, true, &t);
    sb_puts(&t, "\nchosen   ");
    space_text(j->space, r->chosen, false, &t);
    printf("default  %s\n", t.data != NULL ? t.data : "");
    if (r->proved)
        printf("         %+.1f %% (95 %%: %+.1f to %+.1f) over the default in %u fresh paired "
               "rounds\n",
               100 * r->gain.median, 100 * r->gain.lo, 100 * r->gain.hi, r->gain.n);
    else
        printf("         the default stays: %s\n",
               r->stop == SEARCH_EQUIVALENT  ? "the best of the others is within 1 %"
               : r->stop == SEARCH_TOO_NOISY ? "too noisy to rank what is less than 5 % apart"
               : r->stop == SEARCH_BUDGET    ? "time was up before anything was proved"
                                             : "nothing was proved faster");
    for (uint32_t i = 0; i < r->n_finalists; i++) {
        const struct search_finalist *f = &r->finalist[i];
        if (f->config == r->chosen || f->behind.n == 0)
            continue;
        sb_clear(&t);
        space_text(j->space, f->config, false, &t);
        printf("rival    %s: %+.1f %% slower (95 %%: %+.1f to %+.1f)\n",
               t.data != NULL ? t.data : "", 100 * (exp(f->behind.median) - 1),
               100 * (exp(f->behind.lo) - 1), 100 * (exp(f->behind.hi) - 1));
    }
    if (r->regret.n > 0)
        printf("regret   %.1f %%, at most %.1f %% (95 %%) against %u rivals\n",
               100 * r->regret.median, 100 * r->regret.hi, r->regret.n);
    printf("noise    CV %.1f %%; %u of %u configurations timed, %u left out, %u failed; %u samples "
           "in %.0f s\n",
           100 * r->noise_cv, r->timed, j->space->n, j->space->total - j->space->n,
           r->failed + r->hung, r->samples, r->elapsed_seconds);
    if (r->missing[0] != '\0')
        printf("missing  %s\n", r->missing);
    sb_free(&t);
}

/* The samples of the entry that is about to be replaced. */
static void forget_samples(struct profile *p, const struct tune_job *j)
{
    json_t *ms = json_object_get(p->root, "measurements");
    char prefix[128];
    tune_sample_id(j, "", prefix, sizeof prefix);
    for (size_t i = json_array_size(ms); i-- > 0;) {
        const char *id = json_string_value(json_object_get(json_array_get(ms, i), "id"));
        if (strncmp(id, prefix, strlen(prefix)) == 0)
            json_array_remove(ms, i);
    }
}

/* Put the entry and its samples into the profile as it is now, and write it. */
static kt_status store(const struct args *a, const struct tune_job *j, const struct search_out *r,
                       kt_err *err)
{
    struct profile *p;
    json_t *ms = json_array(), *entry = tune_entry(j, r, ms);
    if (entry == NULL) {
        json_decref(ms);
        KT_FAIL(err, KT_E_NOMEM, "no memory for the result");
    }
    if (a->json) {
        char *text = json_dumps(entry, JSON_INDENT(2));
        printf("%s\n", text != NULL ? text : "null");
        free(text);
    }
    kt_status s = profile_read(a->profile, &p, err);
    if (s == KT_OK)
        forget_samples(p, j);
    for (size_t i = 0; i < json_array_size(ms) && s == KT_OK; i++)
        s = profile_put_measurement(p, json_incref(json_array_get(ms, i)), err);
    if (s == KT_OK)
        s = profile_put_tuning(p, json_incref(entry), err);
    if (s == KT_OK)
        s = profile_write(p, a->profile, err);
    profile_close(p);
    json_decref(ms);
    json_decref(entry);
    return s;
}

static kt_status search_live(const struct args *a, struct tune_job *j, struct live *l,
                             double deadline, int *code, kt_err *err)
{
    struct show show = {.space = j->space, .tty = isatty(2)};
    struct search_out r;
    struct search_in in = {.n = j->space->n,
                           .reference = 0,
                           .rank = j->space->rank,
                           .prior = j->space->prior,
                           .budget_seconds = deadline - clock_seconds(),
                           .seed = a->seed,
                           .stop = &interrupted,
                           .progress = show_progress,
                           .user = &show};
    KT_TRY(search_run(&in, &l->timer, &r, err));
    if (show.tty)
        fprintf(stderr, "\r\033[K");
    if (!a->json)
        tune_print(j, &r);
    kt_status s = store(a, j, &r, err);
    if (s == KT_OK && !a->json)
        printf("written  %s\n", a->profile);
    if (r.missing[0] != '\0')
        *code = EXIT_DEADLINE;
    search_free(&r);
    return s;
}

/* ---- live ---- */

static kt_status read_shape(const struct args *a, struct tune_job *j, kt_err *err)
{
    struct mdl *m;
    KT_TRY(mdl_open(a->live.engine.model_path, &m, err));
    bool dense = m->t.n_experts == 0;
    j->experts = dense ? 1 : m->t.n_experts;
    j->top_k = dense ? 1 : m->t.top_k;
    j->hidden = m->t.hidden;
    j->inter = dense ? m->t.dense_inter : m->t.expert_inter;
    j->layers = m->t.n_layers;
    mdl_close(m);
    return KT_OK;
}

static kt_status with_engine(const struct args *a, struct tune_job *j, const struct profile *p,
                             int *code, kt_err *err)
{
    double deadline = clock_seconds() + a->budget;
    struct live l = {.fd = -1};
    struct space space = {0};
    struct live_config *config = NULL;
    fprintf(stderr, "loading %s\n", j->model);
    kt_status s = live_open(&l, &a->live, err);
    if (s == KT_OK)
        s = tune_space(&l, p, j->abi, &space, err);
    if (s == KT_OK) {
        config = calloc(space.n, sizeof *config);
        if (config == NULL)
            s = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for %u configurations", space.n);
    }
    if (s == KT_OK) {
        for (uint32_t i = 0; i < space.n; i++)
            tune_config(&space, i, &config[i]);
        l.config = config;
        j->space = &space;
        j->format = l.expert_format[0] != '\0' ? l.expert_format : l.dense_format;
        double left = deadline - clock_seconds();
        if (left < 1)
            s = err_set(err, KT_E_TIMEOUT, 0, __func__,
                        "loading took %.0f of %.0f s; give more with --budget", l.load_seconds,
                        a->budget);
        else if (a->record != NULL)
            s = tune_record(j, &l.timer, left, &interrupted, a->record, err);
        else
            s = search_live(a, j, &l, deadline, code, err);
    }
    live_close(&l);
    free(config);
    space_free(&space);
    return s;
}

static int run_live(struct args *a)
{
    char abi[17];
    struct profile *p = NULL;
    struct profile_match m = {0};
    struct host *h;
    kt_err err;
    int code = EXIT_OK;
    if (host_read(NULL, &h, &err) != KT_OK)
        return cmd_fail("tune", &err, 0);
    kt_status s =
        a->profile != NULL ? profile_open_for_host(a->profile, h, false, &p, &m, &err) : KT_OK;
    if (s != KT_OK || m.state == PROFILE_MISMATCH) {
        code = s != KT_OK ? cmd_fail("tune", &err, 0) : EXIT_PROFILE;
        if (s == KT_OK)
            fprintf(stderr,
                    "kttune tune: %s is of another machine (KT026); measure this one: "
                    "kttune probe -o FILE\n",
                    a->profile);
    } else {
        struct tune_job j = {.goal = a->goal,
                             .model = a->live.engine.model_path,
                             .host = p != NULL ? p->hard_id : "sha256:unknown",
                             .abi = abi,
                             .stage = a->budget <= 30    ? "quick"
                                      : a->budget <= 300 ? "default"
                                                         : "deep",
                             .seed = a->seed};
        const char *name = strrchr(j.model, '/');
        j.model = name != NULL && name[1] != '\0' ? name + 1 : j.model;
        kern_abi(abi);
        a->live.engine.profile_path = a->profile;
        a->live.engine.ignore_tunings = true;
        s = read_shape(a, &j, &err);
        if (s != KT_OK)
            code = cmd_fail("tune", &err, 1);
        else if (with_engine(a, &j, p, &code, &err) != KT_OK)
            code = cmd_fail("tune", &err, err.code == KT_E_FORMAT);
    }
    profile_match_free(&m);
    profile_close(p);
    host_free(h);
    return code;
}

int cmd_tune(int argc, char **argv)
{
    struct args a = {0};
    int code = parse(argc, argv, &a);
    if (code >= 0)
        return code;
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    if (a.replay.path == NULL)
        return run_live(&a);
    a.replay.budget = a.budget;
    a.replay.seed = a.seed;
    a.replay.json = a.json;
    return tune_replay(&a.replay);
}
