/* decide_rows.h - from how many activation rows on GEMM replaces GEMV, out of times measured in
 * common rounds. Pure. */
#ifndef KT_TUNER_DECIDE_ROWS_H
#define KT_TUNER_DECIDE_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rows_point { /* seconds of an expert with so many rows: median and interval */
    uint32_t rows;
    double gemv, gemv_lo, gemv_hi, gemm, gemm_lo, gemm_hi;
};

struct rows_choice {
    uint32_t rows; /* up to so many: GEMV */
    bool own;      /* the kernel's own number was kept */
    char why[200];
};

/* Points ascending by rows; own: the kernel's number. False: fewer than two points. */
bool decide_rows(const struct rows_point *p, size_t n, uint32_t own, struct rows_choice *out);

#endif
