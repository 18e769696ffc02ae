/* cost.h - what a step costs on given rates: one formula for decode, one for prefill. Planner,
 * placement and replay all call these, so a predicted gain means the same thing everywhere. Pure
 * functions of their arguments: no I/O, no clock, no allocation, no state; any thread. Nothing is
 * chosen here except the split that the formulas themselves minimise over (q and j below).
 *
 * Words: an expert is *resident* when it lies in the fast tier, *missing* when it lies in DRAM and
 * runs on the CPU, *fetched* when a missing one is copied to the fast tier for this step. Fast
 * side, CPU side and link work at the same time; a layer takes as long as the slowest of them.
 */
#ifndef KT_COST_H
#define KT_COST_H

#include <stdint.h>

/* Constants of a host for one expert format. Bytes, operations and seconds. */
struct cost_rates {
    double cpu_bytes_per_second;  /* B_C: experts read by the CPU, all pools together */
    double cpu_ops_per_second;    /* P_C: 2 per multiply-add */
    double dram_bytes_per_second; /* B_D: peak of the memory, all nodes; 0: copies disturb nobody */
    double link_bytes_per_second; /* B_P: host to device; 0: there is no link */
    double fast_bytes_per_second; /* B_G: experts read in the fast tier; INFINITY: free */
    double fast_ops_per_second;   /* P_G; INFINITY: free */
    double overlap;               /* eta: share of the link's rate that the CPU loses */
    double join_seconds;          /* s: once per layer with at least one CPU expert */
    double launch_seconds;        /* g0: of the fast side's grouped kernel, once per layer */
    double merge_seconds;         /* mrg: the results of both sides meet */
};

struct cost_expert {
    double bytes;         /* b, as stored where it is read */
    double ops_per_token; /* F = 2 * parameters */
};

/* Distinct routed experts of one layer and step; real numbers, because expectations are taken. */
struct cost_load {
    double resident; /* h */
    double missing;  /* m */
    double fetched;  /* q <= m of the missing ones */
    double tokens;   /* n_e: tokens of each of these experts, >= 1 */
};

/* Where the time of a layer goes. base + max(fast, cpu, link) + merge = total. */
struct cost_terms {
    double base, fast, cpu, link, merge, total;
};

/* Effective read rate of the CPU while experts are fetched: DMA reads share the memory. */
double cost_cpu_rate(const struct cost_rates *r, int fetching);

/* Decode, one layer:
 *   a + max(g0 + h*b/B_G, [m>q]*(s + (m-q)*b/B_C'), q*b/B_P + q*b/B_G) + [m>0]*mrg
 * where b/B becomes max(b/B, n_e*F/P). `a` is the rest of the layer. t may be NULL. */
double cost_layer_time(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_load *l, struct cost_terms *t);
/* The q in [0, m] with the least cost_layer_time (l->fetched is ignored): the integers around the
 * point where CPU and link end together, 0 and m are compared; ties go to the smaller q. 0 without
 * a link. */
uint32_t cost_best_fetch(const struct cost_rates *r, const struct cost_expert *x, double a,
                         const struct cost_load *l);
/* Expected time of a layer when each of `distinct` experts (>= 0; a fraction is interpolated) is
 * resident with probability f, independently. t (may be NULL) gets expected terms. */
double cost_layer_expected(const struct cost_rates *r, const struct cost_expert *x, double a,
                           const struct cost_load *l, struct cost_terms *t);
/* Distinct experts of E that n tokens with k each reach when routing is uniform: an upper bound for
 * real routing. */
double cost_distinct(double experts, double k, double tokens);

/* Prefill, one layer, one chunk: tokens per expert of the resident and of the missing ones, the
 * latter descending. Experts with 0 tokens do not count. */
struct cost_chunk {
    const uint32_t *resident, *missing;
    uint32_t n_resident, n_missing;
};
/*   a + max(g0 + sum over resident and the first j of max(b/B_G, n_e*F/P_G),
 *           [rest]*(s + sum over the rest of max(b/B_C', n_e*F/P_C)), j*b/B_P) + [missing]*mrg
 * for one j <= n_missing. */
double cost_chunk_time(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_chunk *c, uint32_t j);
/* The least of it over j, by one pass; the smallest such j in *best. Without a link j is 0. */
double cost_chunk_best(const struct cost_rates *r, const struct cost_expert *x, double a,
                       const struct cost_chunk *c, uint32_t *best);
/* n* = P_C*b/(F*B_P): with more tokens than this on an expert, copying it beats computing it. */
double cost_copy_tokens(const struct cost_rates *r, const struct cost_expert *x);

#endif
