/* decide_rows.c - see decide_rows.h. GEMV stays up to the greatest point where GEMM is not proved
 * faster, before the first where it is (their intervals do not meet). Between the two the times'
 * ratio is taken as a straight line. The kernel's own number is kept where it lies between them
 * too: nothing was measured that tells the two apart.
 */
#include "decide_rows.h"

#include <math.h>
#include <stdio.h>

bool decide_rows(const struct rows_point *p, size_t n, uint32_t own, struct rows_choice *out)
{
    size_t b = 0;
    if (n < 2)
        return false;
    while (b < n && !(p[b].gemm_hi < p[b].gemv_lo))
        b++;
    uint32_t low = b > 0 ? p[b - 1].rows : 1, high = b < n ? p[b].rows - 1 : p[n - 1].rows;
    if (b == n)
        low = high; /* never faster as far as it was measured */
    if (high < low)
        high = low;
    *out = (struct rows_choice){.rows = low};
    if (b == n) {
        out->own = own >= high || !(p[n - 1].gemv_hi < p[n - 1].gemm_lo);
        out->rows = out->own ? own : high;
        snprintf(out->why, sizeof out->why, "GEMM is not proved faster up to %u rows an expert",
                 p[n - 1].rows);
        return true;
    }
    if (b > 0) { /* where the line through the two ratios crosses one */
        double x = log(p[b - 1].gemv / p[b - 1].gemm), y = log(p[b].gemv / p[b].gemm);
        double part = y > x ? fmin(fmax(-x / (y - x), 0), 1) : 0;
        out->rows = low + (uint32_t)(part * (p[b].rows - low));
        out->rows = out->rows > high ? high : out->rows;
    }
    if (own >= low && own <= high) {
        out->own = true;
        out->rows = own;
    }
    snprintf(out->why, sizeof out->why, "GEMM takes %.2f of GEMV's time at %u rows an expert%s%s",
             p[b].gemm / p[b].gemv, p[b].rows, b > 0 ? ", and is not proved faster before" : "",
             out->own ? "; the kernel's own number fits" : "");
    return true;
}
