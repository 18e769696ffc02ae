/* search_stats.h - order statistics that the search needs: medians that a wild sample cannot move,
 * confidence intervals at a chosen level, a robust coefficient of variation, random numbers. Pure;
 * any thread. `work` always holds n values and is overwritten.
 */
#ifndef KT_TUNER_SEARCH_STATS_H
#define KT_TUNER_SEARCH_STATS_H

#include <stdbool.h>
#include <stdint.h>

struct span {
    double median, lo, hi;
    uint32_t n;
    bool has_ci; /* n is large enough for the level */
};

/* Median of the values that are not NaN; NAN when there is none. When the two middle values of an
 * even number are further apart than `apart`, the lower one: a disturbance only ever adds time. */
double ss_median(const double *v, uint32_t n, double apart, double *work);
/* Median and the order statistics that hold it with a probability of at least 1 - alpha, of the
 * values that are not NaN. */
struct span ss_span(const double *v, uint32_t n, double alpha, double *work);
/* 1.4826 times the median distance from the median: the standard deviation where the noise is
 * normal, and not moved by a few wild samples. */
double ss_mad(const double *v, uint32_t n, double *work);

/* SplitMix64: every state is a good seed. */
uint64_t ss_random(uint64_t *state);
/* Uniform in [0, 1). */
double ss_uniform(uint64_t *state);
/* Uniform in 0..n-1, n >= 1. */
uint32_t ss_below(uint64_t *state, uint32_t n);
void ss_shuffle(uint64_t *state, uint32_t *v, uint32_t n);

#endif
