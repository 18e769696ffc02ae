/* tune_space.c - axes of a live search. Only what the engine really does differently is an axis:
 * threads over all pools, kernel level (those that read the same packed weights), rows that a
 * worker claims at once, the number of activation rows from which GEMM replaces GEMV, how long a
 * waiting worker spins. Pages, pools and SMT are decided at load and are no axes. What the profile
 * measured leaves combinations out before anything is timed; it also orders the rest.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kern.h"
#include "tune.h"

/* A combination whose forecast is this much worse than the best one's is not timed: kernels reach
 * 60 to 95 % of what a forecast of bytes over bandwidth says. */
#define DOMINATED 1.6

struct prune {
    const struct space *s;
    const struct live *l;
    const struct profile *p; /* may be NULL */
    const char *abi;
    double by_threads[SPACE_VALUES], by_kernel[SPACE_VALUES]; /* relative times; 0: unknown */
    int threads_axis, kernel_axis;
};

static void thread_values(struct space_axis *a, uint32_t most, uint32_t least)
{
    uint32_t v[] = {most,         most - 1,     most * 7 / 8, most * 3 / 4, most * 5 / 8,
                    most * 1 / 2, most * 3 / 8, most / 4,     most / 8};
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        if (v[i] >= least && v[i] > 0)
            space_number(a, v[i]);
}

static void kernel_values(struct space_axis *a, const char *loaded)
{
    static const char *const name[] = {"amx",    "avx512bf16", "avx512vnni",
                                       "avx512", "avxvnni",    "avx2"};
    int have = kern_isa_by_name(loaded);
    space_word(a, loaded);
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        int mask = kern_isa_by_name(name[i]);
        if (mask > 0 && have > 0 && (mask & ~have) == 0)
            space_word(a, name[i]);
    }
}

/* First the value in use, then the others of a list. */
static void number_values(struct space *s, const char *name, uint32_t in_use, const uint32_t *v,
                          size_t n)
{
    struct space_axis *a = space_axis(s, name);
    space_number(a, in_use);
    for (size_t i = 0; i < n; i++)
        space_number(a, v[i]);
}

/* Median of a measurement that was not noisy: noise leaves nothing out. */
static bool clean_median(const struct profile *p, const char *id, double *median)
{
    const json_t *list = json_object_get(p->root, "measurements");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *m = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(m, "id")), id) == 0)
            return strcmp(json_string_value(json_object_get(m, "status")), "ok") == 0 &&
                   profile_median(p, id, median);
    }
    return false;
}

/* Relative time of a decode step at T threads: 1 / the read rate there, all pools alike. */
static double time_by_threads(const struct prune *x, double threads)
{
    double sum = 0, rate;
    char id[64];
    if (x->p == NULL || x->l->n_pools == 0)
        return 0;
    unsigned each = (unsigned)(threads / x->l->n_pools + 0.5);
    for (uint32_t i = 0; i < x->p->n_knees; i++) {
        snprintf(id, sizeof id, "mem.read:node%d.t%u", x->p->knees[i].node, each);
        if (!clean_median(x->p, id, &rate) || !(rate > 0))
            return 0;
        sum += rate;
    }
    return sum > 0 ? 1 / sum : 0;
}

static double time_by_kernel(const struct prune *x, const char *kernel)
{
    const char *format = x->l->expert_format[0] != '\0' ? x->l->expert_format : x->l->dense_format;
    bool prefill = x->l->o.goal == LIVE_PREFILL;
    char id[96];
    double rate;
    if (x->p == NULL || x->p->kernel_abi == NULL || strcmp(x->p->kernel_abi, x->abi) != 0)
        return 0;
    snprintf(id, sizeof id, "expert.%s:%s.%s.m%d", prefill ? "gemm" : "gemv", format, kernel,
             prefill ? 128 : 1);
    return clean_median(x->p, id, &rate) && rate > 0 ? 1 / rate : 0;
}

/* Forecasts relative to the best value of their axis; all 0 when one value is unknown. */
static void relative(double *v, uint32_t n)
{
    double least = (double)INFINITY;
    for (uint32_t i = 0; i < n; i++)
        least = v[i] < least ? v[i] : least;
    for (uint32_t i = 0; i < n; i++)
        v[i] = least > 0 ? v[i] / least : 0;
}

static bool keep(void *ctx, const uint8_t *at, double *prior)
{
    const struct prune *x = ctx;
    double t = x->threads_axis >= 0 ? x->by_threads[at[x->threads_axis]] : 0,
           k = x->kernel_axis >= 0 ? x->by_kernel[at[x->kernel_axis]] : 0;
    bool decode = x->l->o.goal != LIVE_PREFILL;
    *prior = (decode && t > 0 ? t : 1) * (k > 0 ? k : 1);
    return *prior < DOMINATED;
}

static void forecast(struct prune *x)
{
    const struct space *s = x->s;
    x->threads_axis = x->kernel_axis = -1;
    for (uint32_t i = 0; i < s->n_axes; i++) {
        const struct space_axis *a = &s->axis[i];
        if (strcmp(a->name, "threads") == 0) {
            x->threads_axis = (int)i;
            for (uint32_t k = 0; k < a->n; k++)
                x->by_threads[k] = time_by_threads(x, a->v[k].number);
            relative(x->by_threads, a->n);
        } else if (strcmp(a->name, "kernel") == 0) {
            x->kernel_axis = (int)i;
            for (uint32_t k = 0; k < a->n; k++)
                x->by_kernel[k] = time_by_kernel(x, a->v[k].text);
            relative(x->by_kernel, a->n);
        }
    }
}

kt_status tune_space(const struct live *l, const struct profile *p, const char *abi,
                     struct space *out, kt_err *err)
{
    static const uint32_t claim[] = {64, 128, 256, 512, 1024, 2048}, gemm_claim[] = {64, 128, 256},
                          rows[] = {1, 2, 4, 8, 16}, spin[] = {1, 50, 1000};
    const struct live_config *b = &l->built_in;
    struct prune x = {.s = out, .l = l, .p = p, .abi = abi};
    memset(out, 0, sizeof *out);
    thread_values(space_axis(out, "threads"), b->threads, l->n_pools);
    kernel_values(space_axis(out, "kernel"), b->kernel);
    if (l->o.goal != LIVE_PREFILL) {
        number_values(out, "claim_rows", b->claim_rows, claim, 6);
        number_values(out, "spin_us", b->spin_us, spin, 3);
    }
    if (l->o.goal != LIVE_DECODE) {
        number_values(out, "gemv_rows", b->gemv_rows, rows, 5);
        number_values(out, "gemm_claim_rows", b->gemm_claim_rows, gemm_claim, 3);
    }
    forecast(&x);
    return space_build(out, keep, &x, err);
}

/* The value of an axis when it is not the default. */
static const struct space_value *departs(const struct space *s, uint32_t config, const char *axis)
{
    const struct space_value *v = space_get(s, config, axis), *d = space_get(s, 0, axis);
    return v != NULL && (v->number != d->number || strcmp(v->text, d->text) != 0) ? v : NULL;
}

static uint32_t number_if(const struct space *s, uint32_t config, const char *axis)
{
    const struct space_value *v = departs(s, config, axis);
    return v != NULL ? (uint32_t)v->number : 0;
}

void tune_config(const struct space *s, uint32_t config, struct live_config *out)
{
    const struct space_value *k = departs(s, config, "kernel");
    *out = (struct live_config){.threads = number_if(s, config, "threads"),
                                .gemv_rows = number_if(s, config, "gemv_rows"),
                                .claim_rows = number_if(s, config, "claim_rows"),
                                .gemm_claim_rows = number_if(s, config, "gemm_claim_rows"),
                                .spin_us = number_if(s, config, "spin_us")};
    if (k != NULL)
        snprintf(out->kernel, sizeof out->kernel, "%s", k->text);
}
