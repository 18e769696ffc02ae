/* cmd_tune.c - `kttune tune`: options. tune_live.c asks this machine, tune_replay.c a recorded
 * table. Either ends by itself when time is up or the user interrupts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_args.h"
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

static bool take_goal(void *live, const char *text)
{
    static const char *const name[] = {"decode", "prefill", "both"};
    struct tune_live_args *a = live;
    for (int i = 0; i < 3; i++)
        if (strcmp(text, name[i]) == 0) {
            a->goal = name[i];
            a->live.goal = (enum live_goal)i;
            return true;
        }
    return false;
}

static bool take_backend(void *replay, const char *text)
{
    struct tune_replay_args *a = replay;
    if (strncmp(text, "replay:", 7) == 0 && text[7] != '\0')
        a->path = text + 7;
    return a->path != NULL || strcmp(text, "live") == 0;
}

/* What changes a replayed machine has no meaning on this one. */
static const char *only_for_replay(const struct tune_replay_args *r)
{
    return r->drift > 0      ? "--drift"
           : r->outliers > 0 ? "--outliers"
           : r->slow > 0     ? "--slow"
           : r->noise_cv > 0 ? "--noise"
           : r->seeds > 0    ? "--seeds"
                             : NULL;
}

static int parse(int argc, char **argv, struct args *a)
{
    struct live_opts *l = &a->live.live;
    struct tune_replay_args *r = &a->replay;
    double sample_ms = 25;
    const struct bench_opt table[] = {
        OPT_TEXT("profile", &a->live.profile),
        OPT_MODEL(&l->engine.model_path),
        OPT_CALL("goal", &a->live, take_goal),
        OPT_REAL("budget", &a->live.budget, 1, 86400),
        OPT_SEED(&a->live.seed),
        OPT_NUMBER("batch", &l->batch, 1, 8),
        OPT_NUMBER("prompt", &l->prefill, 2, 8192),
        OPT_REAL("sample", &sample_ms, 1, 10000),
        OPT_QUANTS(&l->engine),
        OPT_TEXT("kv-type", &l->engine.kv_type),
        OPT_TEXT("record", &a->live.record),
        OPT_TEXT("state", &a->live.state),
        OPT_FLAG("restart", &a->live.restart),
        OPT_CALL("backend", r, take_backend),
        OPT_REAL("drift", &r->drift, 0, 1),
        OPT_REAL("outliers", &r->outliers, 0, 1),
        OPT_REAL("slow", &r->slow, 1, 10),
        OPT_REAL("noise", &r->noise_cv, 0, 1),
        OPT_NUMBER("seeds", &r->seeds, 1, 100000),
        OPT_FLAG("json", &a->live.json),
    };
    struct bench_args args = {.command = "tune", .opt = table, .n = N_OPTS(table), .usage = usage};
    kt_engine_opts_init(&l->engine);
    a->live.goal = "decode";
    a->live.budget = 120;
    a->live.seed = 1;
    l->batch = 1;
    l->prompt = 64;
    l->prefill = 512;
    int code = bench_args_read(&args, argc, argv);
    if (code >= 0)
        return code;
    l->sample_seconds = sample_ms * 1e-3;
    l->seed = a->live.seed;
    if (r->path != NULL)
        return a->live.record == NULL
                   ? -1
                   : cmd_usage("tune", "--record times this machine, not a recorded table", NULL);
    if (only_for_replay(r) != NULL)
        return cmd_usage("tune", only_for_replay(r), " needs --backend replay:TABLE");
    if (l->engine.model_path == NULL)
        return bench_args_missing(&args, "--model");
    if (a->live.profile == NULL && a->live.record == NULL)
        return bench_args_missing(&args, "--profile");
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
