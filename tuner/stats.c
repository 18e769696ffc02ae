/* stats.c - see stats.h. Confidence by order statistics needs no assumption about the noise: the
 * number of samples below the true median is binomial with p = 1/2, so x(l)..x(n+1-l) misses it
 * with 2 P(B < l). For n = 20 that is x(6)..x(15) with 95.9 %.
 */
#include "stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

size_t stats_ci_rank(size_t n)
{
    if (n < 6)
        return 0;
    if (n > 1000) { /* normal approximation; 2^-n would underflow */
        double l = floor(((double)n - 1.96 * sqrt((double)n)) / 2.0);
        return l < 1 ? 1 : (size_t)l;
    }
    double term = ldexp(1.0, -(int)n), below = 0;
    size_t l = 0;
    while (l < n / 2 && 2.0 * (below + term) <= 0.05) {
        below += term;
        term = term * (double)(n - l) / (double)(l + 1);
        l++;
    }
    return l;
}

void stats_of(double *v, size_t n, struct stats *out)
{
    memset(out, 0, sizeof *out);
    out->n = n;
    if (n == 0)
        return;
    qsort(v, n, sizeof *v, ascending);
    out->min = v[0];
    out->max = v[n - 1];
    out->median = quantile(v, n, 0.5);
    out->q1 = quantile(v, n, 0.25);
    out->q3 = quantile(v, n, 0.75);
    size_t l = stats_ci_rank(n);
    out->has_ci = l > 0;
    if (l > 0) {
        out->ci_lo = v[l - 1];
        out->ci_hi = v[n - l];
    }
}

double stats_lag1(const double *v, size_t n)
{
    double mean = 0, var = 0, cov = 0;
    if (n < 3)
        return 0;
    for (size_t i = 0; i < n; i++)
        mean += v[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++)
        var += (v[i] - mean) * (v[i] - mean);
    for (size_t i = 1; i < n; i++)
        cov += (v[i] - mean) * (v[i - 1] - mean);
    return var > 1e-24 * mean * mean * (double)n ? cov / var : 0; /* below that it is rounding */
}

static double median_of(const double *v, size_t n, double *work)
{
    memcpy(work, v, n * sizeof *v);
    qsort(work, n, sizeof *work, ascending);
    return quantile(work, n, 0.5);
}

double stats_drift(const double *v, size_t n, double *work)
{
    if (n < 3)
        return 0;
    double first = median_of(v, n / 3, work), last = median_of(v + n - n / 3, n / 3, work);
    return first > 0 ? fabs(last / first - 1.0) : 0;
}

double stats_spread(const struct stats *s)
{
    return s->median > 0 ? (s->q3 - s->q1) / s->median : 0;
}
