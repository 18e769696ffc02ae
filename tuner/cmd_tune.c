/* cmd_tune.c - `kttune tune`: options. tune_live.c asks this machine, tune_replay.c a recorded
 * table. Either ends by itself when time is up or the user interrupts.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmds.h"
#include "tune_live.h"
#include "tune_replay.h"

struct args {
    struct tune_replay_args replay;
    struct tune_live_args live;
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
        "  --state FILE       notes of the running search, from which a killed one goes on "
        "(default "
        "PROFILE.tune-GOAL; replay: none)\n"
        "  --restart          begin anew, whatever the notes say\n"
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
    STATE,
    RESTART,
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
                                      {"state", 1, 0, STATE},
                                      {"restart", 0, 0, RESTART},
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
            a->live.goal = name[i];
            a->live.live.goal = (enum live_goal)i;
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
    struct live_opts *l = &a->live.live;
    switch (c) {
    case 'm':
        l->engine.model_path = optarg;
        return true;
    case PROFILE:
        a->live.profile = optarg;
        return true;
    case GOAL:
        return goal_option(optarg, a);
    case BUDGET:
        return real_option(optarg, 1, 86400, &a->live.budget);
    case SEED:
        return cmd_number(optarg, 0, UINT32_MAX, &a->live.seed);
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
        a->live.record = optarg;
        return true;
    case STATE:
        a->live.state = optarg;
        return true;
    case RESTART:
        a->live.restart = true;
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
        a->live.json = true;
        return true;
    default:
        return false;
    }
}

static int parse(int argc, char **argv, struct args *a)
{
    int c;
    struct live_opts *l = &a->live.live;
    kt_engine_opts_init(&l->engine);
    a->live.goal = "decode";
    a->live.budget = 120;
    a->live.seed = 1;
    l->batch = 1;
    l->prompt = 64;
    l->prefill = 512;
    l->sample_seconds = 0.025;
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
    if (optind != argc || (live && l->engine.model_path == NULL) ||
        (live && a->live.profile == NULL && a->live.record == NULL))
        return usage(stderr);
    l->seed = a->live.seed;
    return -1;
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
    a.live.stop = &interrupted;
    if (a.replay.path == NULL)
        return tune_live(&a.live);
    a.replay.budget = a.live.budget;
    a.replay.seed = a.live.seed;
    a.replay.json = a.live.json;
    a.replay.state = a.live.state;
    a.replay.restart = a.live.restart;
    return tune_replay(&a.replay);
}
