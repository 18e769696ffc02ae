/* bench_kernels.h - what bench kernels measures, shared by its timing (bench_kernels.c) and its
 * tables (bench_kernels_out.c). Owner: the program's main thread.
 */
#ifndef KT_TUNER_BENCH_KERNELS_H
#define KT_TUNER_BENCH_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json_out.h"
#include "bench_args.h"
#include "bench_host.h"
#include "bench_rounds.h"
#include "kern.h"

#define BK_POINTS 256

/* Compute ceilings: the instruction that a variant uses. From BK_FMA256 on fp32. */
enum { BK_AVX2, BK_AVXVNNI, BK_AVX512, BK_AVX512VNNI, BK_FMA256, BK_FMA512, BK_LEVELS };

struct bk_point { /* one kernel at one number of tokens */
    const struct kern *k;
    uint32_t tokens;
    bool shown;      /* false: timed for the crossover only */
    uint32_t times;  /* matrices of a sample */
    double *seconds; /* [rounds.n] of one matrix per thread */
};

struct bk { /* options, and what was measured of the format in work */
    struct bench_formats formats;
    struct bench_tokens tokens;
    uint32_t rows, k, threads, isa, max_tokens, seed;
    struct rounds rounds;
    const char *kernel; /* part of a variant's name; NULL: all */
    bool json;
    struct bench_host host;
    enum dtype t;
    struct bk_point point[BK_POINTS];
    uint32_t n_points;
    double read_bps[ROUNDS_MOST], loop_ops[BK_LEVELS][ROUNDS_MOST], /* int8 or fp32 alone */
        scaled_ops[BK_LEVELS][ROUNDS_MOST];                         /* int8 levels only */
    bool level_used[BK_LEVELS];
};

/* The ceiling of a variant, or -1 (ref). */
int bk_level(const struct kern *k);
uint32_t bk_level_isa(int level);
/* Least number of tokens from which the best GEMM is faster than the best GEMV at every larger
 * number that was timed; 0: nowhere, or not timed. *gain: at that number, time of GEMV / GEMM. */
uint32_t bk_crossover(const struct bk *b, double *gain);

void bk_out_begin(const struct bk *b, struct json_out *j);
void bk_out_format(const struct bk *b, struct json_out *j);
void bk_out_end(const struct bk *b, struct json_out *j);

#endif
