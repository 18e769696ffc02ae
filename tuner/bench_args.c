/* bench_args.c - see bench_args.h. Long options go to getopt_long as the table's row numbers; what
 * a row means is decided here once. Numbers by cmd_number: whole, decimal, in range.
 */
#include "bench_args.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cmds.h"
#include "kern.h"

#define MAX_OPTS 30
#define ROW 256 /* first value of a long option: above every letter */

bool bench_args_parts(const char *list, bool (*take)(void *to, const char *part), void *to)
{
    char part[32];
    while (true) {
        size_t n = strcspn(list, ",");
        if (n == 0 || n >= sizeof part)
            return false;
        memcpy(part, list, n);
        part[n] = '\0';
        if (!take(to, part))
            return false;
        if (list[n] == '\0')
            return true;
        list += n + 1;
    }
}

static bool take_real(const struct bench_opt *o, const char *text)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= o->low && v <= o->high))
        return false;
    *(double *)o->to = v;
    return true;
}

static bool take_row(const struct bench_opt *o, const char *text)
{
    switch (o->kind) {
    case BENCH_FLAG:
        *(bool *)o->to = true;
        return true;
    case BENCH_NUMBER:
        return cmd_number(text, o->min, o->max, o->to);
    case BENCH_REAL:
        return take_real(o, text);
    case BENCH_TEXT:
        *(const char **)o->to = text;
        return true;
    case BENCH_CALL:
        return o->take(o->to, text);
    default:
        return bench_args_parts(text, o->take, o->to);
    }
}

/* Why getopt_long or the row of the option refused; c as getopt_long gave it. */
static void refuse(struct bench_args *a, int c, char **argv)
{
    const struct bench_opt *o = c >= ROW ? &a->opt[c - ROW] : NULL;
    size_t n = sizeof a->why;
    if (c == ':')
        snprintf(a->why, n, "%s needs a value", argv[optind - 1]);
    else if (o == NULL)
        snprintf(a->why, n, "no option '%s'", argv[optind - 1]);
    else if (o->kind == BENCH_NUMBER)
        snprintf(a->why, n, "--%s %.40s: must be a number from %u to %u", o->name, optarg, o->min,
                 o->max);
    else if (o->kind == BENCH_REAL)
        snprintf(a->why, n, "--%s %.40s: must be a number from %g to %g", o->name, optarg, o->low,
                 o->high);
    else
        snprintf(a->why, n, "--%s %.60s: not a value of this option", o->name, optarg);
}

static int refused(const struct bench_args *a)
{
    fprintf(stderr, "kttune %s: %s; kttune %s --help tells the options\n", a->command, a->why,
            a->command);
    return EXIT_USAGE;
}

int bench_args_missing(const struct bench_args *a, const char *what)
{
    fprintf(stderr, "kttune %s: %s is missing; kttune %s --help tells the options\n", a->command,
            what, a->command);
    return EXIT_USAGE;
}

int bench_args_read(struct bench_args *a, int argc, char **argv)
{
    struct option longs[MAX_OPTS + 2] = {{0}};
    int c, model = -1;
    bool ok = a->n <= MAX_OPTS;
    for (size_t i = 0; ok && i < a->n; i++) {
        longs[i] =
            (struct option){a->opt[i].name, a->opt[i].kind != BENCH_FLAG, NULL, ROW + (int)i};
        if (strcmp(a->opt[i].name, "model") == 0)
            model = (int)i;
    }
    if (ok)
        longs[a->n] = (struct option){"help", 0, NULL, 'h'};
    optind = 1;
    opterr = 0;
    while (ok && (c = getopt_long(argc, argv, model >= 0 ? ":m:h" : ":h", longs, NULL)) != -1) {
        if (c == 'h')
            return a->usage(stdout);
        if (c == 'm')
            c = ROW + model;
        ok = c >= ROW && take_row(&a->opt[c - ROW], optarg);
        if (!ok)
            refuse(a, c, argv);
    }
    a->first = optind;
    if (ok && argc - optind > a->operands) {
        snprintf(a->why, sizeof a->why, "unexpected '%.60s'", argv[optind + a->operands]);
        ok = false;
    }
    return !ok && a->why[0] != '\0'      ? refused(a)
           : argc - optind < a->operands ? a->usage(stderr)
                                         : -1;
}

bool bench_take_format(void *formats, const char *part)
{
    struct bench_formats *f = formats;
    int t = dtype_by_name(part);
    if (t < 0 || !kern_has_dtype(t) || f->n == DT_COUNT) {
        fprintf(stderr, "kttune %s: %s is no format with kernels\n", f->command, part);
        return false;
    }
    f->t[f->n++] = (enum dtype)t;
    return true;
}

bool bench_take_tokens(void *tokens, const char *part)
{
    struct bench_tokens *t = tokens;
    return t->n < t->most && cmd_number(part, 1, 8192, &t->v[t->n++]);
}
