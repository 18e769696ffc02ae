/* search_stats.c - see search_stats.h. The interval needs no assumption about the noise: the number
 * of samples below the true median is binomial with p = 1/2.
 */
#include "search_stats.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint32_t sorted(const double *v, uint32_t n, double *work)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!isnan(v[i]))
            work[k++] = v[i];
    qsort(work, k, sizeof *work, ascending);
    return k;
}

static double middle(const double *s, uint32_t n, double apart)
{
    if (n == 0)
        return (double)NAN;
    double a = s[(n - 1) / 2], b = s[n / 2];
    return b - a > apart ? a : (a + b) / 2;
}

double ss_median(const double *v, uint32_t n, double apart, double *work)
{
    uint32_t k = sorted(v, n, work);
    return middle(work, k, apart);
}

/* Largest l with 2 P(B < l) <= alpha for B binomial(n, 1/2); 0: none. n is at most a few hundred.
 */
static uint32_t rank_of(uint32_t n, double alpha)
{
    double term = ldexp(1.0, -(int)n), below = 0;
    uint32_t l = 0;
    while (l < n / 2 && 2 * (below + term) <= alpha) {
        below += term;
        term = term * (n - l) / (l + 1);
        l++;
    }
    return l;
}

struct span ss_span(const double *v, uint32_t n, double alpha, double *work)
{
    struct span s = {0};
    s.n = sorted(v, n, work);
    s.median = middle(work, s.n, (double)INFINITY);
    uint32_t l = rank_of(s.n, alpha);
    s.has_ci = l > 0;
    s.lo = l > 0 ? work[l - 1] : -(double)INFINITY;
    s.hi = l > 0 ? work[s.n - l] : (double)INFINITY;
    return s;
}

double ss_mad(const double *v, uint32_t n, double *work)
{
    uint32_t k = sorted(v, n, work);
    double m = middle(work, k, (double)INFINITY);
    for (uint32_t i = 0; i < k; i++)
        work[i] = fabs(work[i] - m);
    qsort(work, k, sizeof *work, ascending);
    return k > 0 ? 1.4826 * middle(work, k, (double)INFINITY) : 0;
}

uint64_t ss_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double ss_uniform(uint64_t *state)
{
    return (double)(ss_random(state) >> 11) * 0x1p-53;
}

uint32_t ss_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((ss_random(state) >> 32) * n) >> 32);
}

void ss_shuffle(uint64_t *state, uint32_t *v, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = ss_below(state, i), t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}
