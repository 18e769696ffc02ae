/* bench_kernels.h - what bench kernels measures, shared by its timing (bench_kernels.c) and its
 * tables (bench_kernels_out.c). Owner: the program's main thread.
 */
#ifndef KT_TUNER_BENCH_KERNELS_H
#define KT_TUNER_BENCH_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json_out.h"
#include "bench_host.h"
#include "kern.h"

#define BK_ROUNDS 100
#define BK_POINTS 256
#define BK_TOKENS 16

/* Compute ceilings: the instruction that a variant uses. */
enum { BK_AVX2, BK_AVXVNNI, BK_AVX512VNNI, BK_LEVELS };

struct bk_point { /* one kernel at one number of tokens */
    const struct kern *k;
    uint32_t tokens;
    bool shown;      /* false: timed for the crossover only */
    uint32_t times;  /* matrices of a sample */
    double *seconds; /* [rounds] of one matrix per thread */
};

struct bk { /* options, and what was measured of the format in work */
    enum dtype formats[DT_COUNT];
    uint32_t n_formats;
    uint32_t rows, k, tokens[BK_TOKENS], n_tokens, threads, rounds, isa, max_tokens;
    uint64_t rng;
    const char *kernel; /* part of a variant's name; NULL: all */
    bool json;
    struct bench_host host;
    enum dtype t;
    struct bk_point point[BK_POINTS];
    uint32_t n_points;
    double read_bps[BK_ROUNDS], int8_ops[BK_LEVELS][BK_ROUNDS], scaled_ops[BK_LEVELS][BK_ROUNDS];
    bool level_used[BK_LEVELS];
};

/* The ceiling of a variant, or -1 (its arithmetic is not int8). */
int bk_level(const struct kern *k);
uint32_t bk_level_isa(int level);
/* Least number of tokens from which the best GEMM is faster than the best GEMV at every larger
 * number that was timed; 0: nowhere, or not timed. *gain: at that number, time of GEMV / GEMM. */
uint32_t bk_crossover(const struct bk *b, double *gain);

void bk_out_begin(const struct bk *b, struct json_out *j);
void bk_out_format(const struct bk *b, struct json_out *j);
void bk_out_end(const struct bk *b, struct json_out *j);

#endif
