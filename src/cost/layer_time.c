/* layer_time.c - the time of one layer, decode and prefill (see cost.h). The formulas are written
 * once, here; the regression test over public measurements and every planner call the same code.
 * Sums run in a fixed order, so the same arguments give the same bits on every host. Pure; any
 * thread.
 */
#include "cost/cost.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

double cost_cpu_rate(const struct cost_rates *r, int fetching)
{
    if (!fetching || r->dram_bytes_per_second <= 0)
        return r->cpu_bytes_per_second;
    return r->cpu_bytes_per_second *
           (1 - r->overlap * r->link_bytes_per_second / r->dram_bytes_per_second);
}

/* One expert with n tokens: read its bytes or do its arithmetic, whichever takes longer. */
static double cpu_expert(const struct cost_rates *r, const struct cost_expert *x, double n,
                         bool fetching)
{
    return fmax(x->bytes / cost_cpu_rate(r, fetching),
                n * x->ops_per_token / r->cpu_ops_per_second);
}

static double fast_expert(const struct cost_rates *r, const struct cost_expert *x, double n)
{
    return fmax(x->bytes / r->fast_bytes_per_second, n * x->ops_per_token / r->fast_ops_per_second);
}

static double finish(struct cost_terms *t)
{
    t->total = t->base + fmax(t->fast, fmax(t->cpu, t->link)) + t->merge;
    return t->total;
}

double cost_layer_time(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_load *l, struct cost_terms *t)
{
    struct cost_terms own;
    double on_cpu = l->missing - l->fetched;
    if (t == NULL)
        t = &own;
    *t = (struct cost_terms){.base = a};
    t->fast = r->launch_seconds + l->resident * fast_expert(r, x, l->tokens);
    if (on_cpu > 0)
        t->cpu = r->join_seconds + on_cpu * cpu_expert(r, x, l->tokens, l->fetched > 0);
    if (l->fetched > 0)
        t->link = l->fetched * (x->bytes / r->link_bytes_per_second + fast_expert(r, x, l->tokens));
    if (l->missing > 0)
        t->merge = r->merge_seconds;
    return finish(t);
}

uint32_t cost_best_fetch(const struct cost_rates *r, const struct cost_expert *x, double a,
                         const struct cost_load *l)
{
    uint32_t m = (uint32_t)l->missing, best = 0;
    if (m == 0 || r->link_bytes_per_second <= 0)
        return 0;
    double cpu = cpu_expert(r, x, l->tokens, true),
           link = x->bytes / r->link_bytes_per_second + fast_expert(r, x, l->tokens);
    /* s + (m - q)*cpu = q*link; without s and the fast tier's time m*B_P/(B_P + B_C') */
    double even = fmin((r->join_seconds + m * cpu) / (cpu + link), m);
    uint32_t tries[3] = {(uint32_t)floor(even), (uint32_t)ceil(even), m};
    struct cost_load at = *l;
    at.fetched = 0;
    double least = cost_layer_time(r, x, a, &at, NULL);
    for (int i = 0; i < 3; i++) { /* ascending, so that a tie keeps the smaller q */
        at.fetched = tries[i];
        double time = cost_layer_time(r, x, a, &at, NULL);
        if (time < least) {
            least = time;
            best = tries[i];
        }
    }
    return best;
}

/* Sum over m of P(m) * terms(n - m, m), m ~ Binomial(n, 1 - f), times `weight`, added to t. */
static void add_binomial(const struct cost_rates *r, const struct cost_expert *x, uint32_t n,
                         const struct cost_load *l, double weight, struct cost_terms *t)
{
    double total = l->resident + l->missing, f = total > 0 ? l->resident / total : 0;
    double ln_p = n * log(f); /* of m = 0; logarithms, because f^n may be below the least double */
    for (uint32_t m = 0; m <= n; m++) {
        double p = f <= 0 ? m == n : f >= 1 ? m == 0 : exp(ln_p);
        ln_p += log((double)(n - m) / (m + 1)) + log1p(-f) - log(f);
        struct cost_load at = {.resident = n - m, .missing = m, .tokens = l->tokens};
        struct cost_terms one;
        if (p == 0)
            continue;
        at.fetched = cost_best_fetch(r, x, 0, &at);
        (void)cost_layer_time(r, x, 0, &at, &one);
        t->fast += weight * p * one.fast;
        t->cpu += weight * p * one.cpu;
        t->link += weight * p * one.link;
        t->merge += weight * p * one.merge;
        t->total += weight * p * one.total;
    }
}

double cost_layer_expected(const struct cost_rates *r, const struct cost_expert *x, double a,
                           const struct cost_load *l, struct cost_terms *t)
{
    struct cost_terms sum = {0};
    double distinct = l->resident + l->missing, low = floor(distinct);
    add_binomial(r, x, (uint32_t)low, l, 1 - (distinct - low), &sum);
    if (distinct > low)
        add_binomial(r, x, (uint32_t)low + 1, l, distinct - low, &sum);
    sum.base = a;
    sum.total += a;
    if (t != NULL)
        *t = sum;
    return sum.total;
}

double cost_distinct(double experts, double k, double tokens)
{
    return experts > 0 ? experts * -expm1(tokens * log1p(-fmin(k / experts, 1))) : 0;
}

double cost_chunk_time(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_chunk *c, uint32_t j)
{
    struct cost_terms t = {.base = a};
    bool on_cpu = false;
    t.fast = r->launch_seconds;
    for (uint32_t i = 0; i < c->n_resident + j; i++) {
        uint32_t n = i < c->n_resident ? c->resident[i] : c->missing[i - c->n_resident];
        if (n > 0)
            t.fast += fast_expert(r, x, n);
    }
    for (uint32_t i = j; i < c->n_missing && c->missing[i] > 0; i++) {
        on_cpu = true;
        t.cpu += cpu_expert(r, x, c->missing[i], j > 0);
    }
    if (on_cpu)
        t.cpu += r->join_seconds;
    if (j > 0)
        t.link = j * x->bytes / r->link_bytes_per_second;
    if (c->n_missing > 0 && c->missing[0] > 0)
        t.merge = r->merge_seconds;
    return finish(&t);
}

double cost_chunk_best(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_chunk *c, uint32_t *best)
{
    double fast = 0, rest = 0;
    uint32_t used = 0;
    double least = cost_chunk_time(r, x, a, c, 0);
    *best = 0;
    for (uint32_t i = 0; i < c->n_resident; i++)
        if (c->resident[i] > 0)
            fast += fast_expert(r, x, c->resident[i]);
    while (used < c->n_missing && c->missing[used] > 0)
        rest += cpu_expert(r, x, c->missing[used++], true);
    for (uint32_t j = 1; j <= used && r->link_bytes_per_second > 0; j++) {
        fast += fast_expert(r, x, c->missing[j - 1]);
        rest -= cpu_expert(r, x, c->missing[j - 1], true);
        struct cost_terms t = {.base = a,
                               .fast = r->launch_seconds + fast,
                               .cpu = j < used ? r->join_seconds + fmax(rest, 0) : 0,
                               .link = j * x->bytes / r->link_bytes_per_second,
                               .merge = r->merge_seconds};
        if (finish(&t) < least) {
            least = t.total;
            *best = j;
        }
    }
    return least;
}

double cost_copy_tokens(const struct cost_rates *r, const struct cost_expert *x)
{
    return r->link_bytes_per_second > 0
               ? r->cpu_ops_per_second * x->bytes / (x->ops_per_token * r->link_bytes_per_second)
               : (double)INFINITY;
}
