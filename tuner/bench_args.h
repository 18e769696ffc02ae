/* bench_args.h - the options of the benchmarks, of check-model and of tune as tables: one row an
 * option, with where its value goes and which values are allowed. The text of --help stays with
 * each command. Owner: the program's main thread.
 */
#ifndef KT_TUNER_BENCH_ARGS_H
#define KT_TUNER_BENCH_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/dtype.h"

struct bench_opt {
    const char *name; /* long option; "model" is -m too */
    enum { BENCH_FLAG, BENCH_NUMBER, BENCH_TEXT, BENCH_CALL, BENCH_PARTS, BENCH_REAL } kind;
    /* FLAG bool, NUMBER uint32_t, REAL double, TEXT const char *, CALL and PARTS: handed to take */
    void *to;
    uint32_t min, max;                      /* NUMBER */
    bool (*take)(void *to, const char *at); /* CALL: the text; PARTS: each part between commas */
    double low, high;                       /* REAL */
};

#define OPT_FLAG(name, to)                                                                         \
    {                                                                                              \
        (name), BENCH_FLAG, (to), 0, 0, NULL, 0, 0                                                 \
    }
#define OPT_NUMBER(name, to, min, max)                                                             \
    {                                                                                              \
        (name), BENCH_NUMBER, (to), (min), (max), NULL, 0, 0                                       \
    }
#define OPT_REAL(name, to, low, high)                                                              \
    {                                                                                              \
        (name), BENCH_REAL, (to), 0, 0, NULL, (low), (high)                                        \
    }
#define OPT_TEXT(name, to)                                                                         \
    {                                                                                              \
        (name), BENCH_TEXT, (to), 0, 0, NULL, 0, 0                                                 \
    }
#define OPT_CALL(name, to, take)                                                                   \
    {                                                                                              \
        (name), BENCH_CALL, (to), 0, 0, (take), 0, 0                                               \
    }
#define OPT_PARTS(name, to, take)                                                                  \
    {                                                                                              \
        (name), BENCH_PARTS, (to), 0, 0, (take), 0, 0                                              \
    }
/* Options that several commands have, so that their ranges agree. */
#define OPT_THREADS(to) OPT_NUMBER("threads", to, 1, 4096)
#define OPT_ROUNDS(to) OPT_NUMBER("rounds", to, 3, ROUNDS_MOST)
#define OPT_SEED(to) OPT_NUMBER("seed", to, 0, UINT32_MAX)
#define OPT_MODEL(to) OPT_TEXT("model", to)
#define OPT_QUANTS(e) OPT_TEXT("quant", &(e)->quant), OPT_TEXT("quant-dense", &(e)->quant_dense)
#define OPT_CPU_MASK(to) OPT_TEXT("cpu-mask", to)

#define N_OPTS(table) (sizeof(table) / sizeof *(table))

struct bench_args {
    const char *command;         /* "bench moe": for messages */
    const struct bench_opt *opt; /* [n] */
    size_t n;
    int operands;           /* arguments beside the options */
    int (*usage)(FILE *to); /* prints; gives the exit code */
    int first;              /* out: index of the first operand in argv */
    char why[160];          /* out: what was refused; empty when only operands are missing */
};

/* -1: go on; else the exit code: what was refused is printed, or the usage when operands are
 * missing. Stops at the first value that is refused. */
int bench_args_read(struct bench_args *a, int argc, char **argv);
/* An option that must be there is not: says so, gives the exit code. */
int bench_args_missing(const struct bench_args *a, const char *what);
/* PARTS by hand, for a default. */
bool bench_args_parts(const char *list, bool (*take)(void *to, const char *part), void *to);

struct bench_formats { /* weight formats that have kernels */
    const char *command;
    enum dtype t[DT_COUNT];
    uint32_t n;
};
bool bench_take_format(void *formats, const char *part);

#define BENCH_TOKENS 16
struct bench_tokens {
    uint32_t v[BENCH_TOKENS], n, most; /* most: at most so many numbers */
};
bool bench_take_tokens(void *tokens, const char *part);

#endif
