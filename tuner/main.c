/* main.c - kttune: one table of commands, dispatch, help. Log lines go to standard error. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmds.h"
#include "config.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"probe", "measure this machine and write host.json", cmd_probe},
    {"show", "print a host profile", cmd_show},
    {"verify", "compare a host profile with this machine", cmd_verify},
    {"plan", "what of a model fits where on a host, and the speed to expect", cmd_plan},
    {"tune", "search how the engine runs a model fastest, and keep what is proved", cmd_tune},
    {"explain", "tell why a setting is what it is: the chain from flag to default", cmd_explain},
    {"diff", "compare two host profiles by id", cmd_diff},
    {"check-model", "compare a model's results with a golden file", cmd_check_model},
    {"bench", "speed against this machine's ceilings", cmd_bench},
    {"inspect", "show what is in a model and what it needs in memory", cmd_inspect},
    {"convert", "write a checkpoint as one GGUF file, quantised by choice", cmd_convert},
    {"synth", "write a GGUF file of random weights in the shape of a config", cmd_synth},
    {"report", "hot experts and skew of a running ktserve", cmd_report},
    {NULL, NULL, NULL},
};

static void log_to_stderr(void *user, kt_log_level level, const char *line)
{
    static const char *const tag[] = {"debug", "info", "warning", "error"};
    (void)user;
    if (level >= KT_LOG_WARN)
        fprintf(stderr, "kttune: %s: %s\n", tag[level], line);
}

static int usage(FILE *to)
{
    fprintf(to, "usage: kttune COMMAND [options]\n\ncommands:\n");
    for (size_t i = 0; commands[i].name != NULL; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\nkttune COMMAND --help tells the options of a command.\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

bool cmd_number(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || v < min || v > max || text[0] == '-')
        return false;
    *out = (uint32_t)v;
    return true;
}

int cmd_usage(const char *name, const char *what, const char *argument)
{
    fprintf(stderr, "kttune %s: %s%s; kttune %s --help tells the options\n", name, what,
            argument != NULL ? argument : "", name);
    return EXIT_USAGE;
}

int cmd_fail(const char *name, const kt_err *err, int model)
{
    fprintf(stderr, "kttune %s: %s\n", name, err->msg);
    switch (err->code) {
    case KT_E_LIMIT:
    case KT_E_NOMEM:
        return EXIT_REFUSED;
    case KT_E_STALE:
        return EXIT_PROFILE;
    case KT_E_FORMAT:
    case KT_E_UNSUPPORTED:
        return model ? EXIT_MODEL : EXIT_PROFILE;
    case KT_E_TIMEOUT:
        return EXIT_DEADLINE;
    default:
        return EXIT_USAGE;
    }
}

static int run(int argc, char **argv)
{
    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("kttune %s (%s)\n", PACKAGE_VERSION, KT_GIT);
        return EXIT_OK;
    }
    for (size_t i = 0; commands[i].name != NULL; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "kttune: no command '%s'; kttune --help lists them\n", argv[1]);
    return EXIT_USAGE;
}

/* What a command printed counts as done only when it went out: a full disk is no success. */
int main(int argc, char **argv)
{
    kt_log_sink(log_to_stderr, NULL);
    int code = run(argc, argv);
    errno = 0;
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return code;
    fprintf(stderr, "kttune: standard output: cannot write%s%s\n", errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "; is its disk full?");
    return code == EXIT_OK ? EXIT_USAGE : code;
}
