/* stats.h - what is reported about a set of samples: median, quartiles, extremes, a confidence
 * interval of the median, and how the samples hang together in time. Never a mean. Pure functions;
 * any thread.
 */
#ifndef KT_TUNER_STATS_H
#define KT_TUNER_STATS_H

#include <stdbool.h>
#include <stddef.h>

struct stats {
    size_t n;
    double median, q1, q3, min, max;
    bool has_ci;         /* n >= 6 */
    double ci_lo, ci_hi; /* order statistics that hold the true median with >= 95 % */
};

/* n >= 1; v is sorted in place. Quartiles by linear interpolation between order statistics. */
void stats_of(double *v, size_t n, struct stats *out);
/* Order statistic (1-based) l such that x(l)..x(n+1-l) holds the median with >= 95 %; 0 when there
 * is none (n < 6). */
size_t stats_ci_rank(size_t n);
/* Correlation of neighbours in time order; 0 for n < 3 or constant samples. */
double stats_lag1(const double *v, size_t n);
/* |median of the last third / median of the first third - 1| in time order; 0 for n < 3. `work`
 * holds n values. */
double stats_drift(const double *v, size_t n, double *work);
/* (q3 - q1) / median; 0 when the median is 0. */
double stats_spread(const struct stats *s);

#endif
