/* tune_prune.c - see tune_prune.h. In this order:
 *   load       pages, SMT, pools and more threads than at open: fixed in a loaded engine, tried by
 *              the outer level
 *   selftest   a kernel level that gave wrong results in the profile
 *   knee       more threads than one step of the axis past the knee of the read curve
 *   blocking   claim_rows above half of an even share of the largest phase: such claims are never
 *              made; gemm_claim_rows whose packed rows do not fit half of a worker's share of the
 *              last-level cache, where they stay while tokens pass in tiles
 *   roofline   max(bytes / BW(T), ops / peak(T)) + joins * barrier(T) is 1.6 times the least:
 *              kernels reach 60 to 95 % of what such a forecast says
 * Noisy measurements rule nothing out.
 */
#include "tune_prune.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "cost/rates.h"

#define DOMINATED 1.6
#define MOE_BARRIERS 6.0 /* of a MoE layer in decode */
#define CACHE_SHARE 0.5

static int axis_of(const struct space *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_axes; i++)
        if (strcmp(s->axis[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Median of a measurement that was not noisy: noise leaves nothing out. */
static bool clean_median(const struct profile *p, const char *id, double *median, double *threads)
{
    const json_t *list = json_object_get(p->root, "measurements");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *m = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(m, "id")), id) != 0)
            continue;
        double t = json_number_value(json_object_get(json_object_get(m, "params"), "threads"));
        if (threads != NULL)
            *threads = t;
        return strcmp(json_string_value(json_object_get(m, "status")), "ok") == 0 &&
               profile_median(p, id, median);
    }
    return false;
}

static const char *format_of(const struct tune_prune *x)
{
    return x->l->expert_format[0] != '\0' ? x->l->expert_format : x->l->dense_format;
}

/* ---- the roofline ---- */

/* Read rate of all pools with so many threads; 0 when a point of it is missing or noisy. */
static double read_rate(const struct tune_prune *x, double threads)
{
    double sum = 0, clean;
    char id[64];
    uint32_t pools = x->l->n_pools > 0 ? x->l->n_pools : 1;
    uint32_t each = (uint32_t)(threads / pools + 0.5);
    for (uint32_t i = 0; i < x->p->n_knees; i++) {
        double rate = cost_node_read(x->p, x->p->knees[i].node, each > 0 ? each : 1, id);
        if (!(rate > 0) || !clean_median(x->p, id, &clean, NULL))
            return 0;
        sum += rate;
    }
    return sum;
}

/* Rate of a level for this goal, scaled to so many threads: bytes or operations per second. */
static double kernel_rate(const struct tune_prune *x, const char *kernel, double threads)
{
    static const int gemm_rows[] = {128, 64, 32};
    bool prefill = x->l->o.goal == LIVE_PREFILL;
    char id[96];
    double rate, n = 0;
    if (x->p->kernel_abi == NULL || strcmp(x->p->kernel_abi, x->j->abi) != 0)
        return 0;
    for (int i = 0; i < 3; i++) {
        snprintf(id, sizeof id, "expert.%s:%s.%s.m%d", prefill ? "gemm" : "gemv", format_of(x),
                 kernel, prefill ? gemm_rows[i] : 1);
        if (clean_median(x->p, id, &rate, &n) && rate > 0 && n > 0)
            return rate * threads / n;
    }
    return 0;
}

static double barrier_seconds(const struct tune_prune *x, double threads)
{
    struct cost_rates r;
    struct cost_source source[COST_CONSTANTS];
    struct cost_pool pool = {x->p->n_knees > 0 ? x->p->knees[0].node : 0, (uint32_t)threads};
    struct cost_ask ask = {.p = x->p, .pools = &pool, .n_pools = 1, .format = format_of(x)};
    cost_rates_read(&ask, &r, source);
    return source[COST_BARRIER].origin == COST_MEASURED ? source[COST_BARRIER].value : 0;
}

static double expert_bytes(const struct tune_prune *x)
{
    int t = dtype_by_name(format_of(x));
    double values = 3.0 * x->j->hidden * x->j->inter;
    return t >= 0 ? values * dtype_info((enum dtype)t)->block_bytes /
                        dtype_info((enum dtype)t)->block_elems
                  : 0;
}

/* Seconds of the routed experts of one token (decode) or of one prompt; 0: not known. */
static double forecast(const struct tune_prune *x, double threads, const char *kernel)
{
    bool prefill = x->l->o.goal == LIVE_PREFILL;
    double bw = read_rate(x, threads), peak = kernel_rate(x, kernel, threads), w = expert_bytes(x),
           layers = x->j->layers > 0 ? x->j->layers : 1, tokens = prefill ? x->l->o.prefill : 1;
    if (!(bw > 0) || !(w > 0))
        return 0;
    double bytes = layers * w * cost_distinct(x->j->experts, x->j->top_k, tokens);
    double work = prefill ? layers * tokens * x->j->top_k * 6.0 * x->j->hidden * x->j->inter
                          : bytes; /* GEMV rates are bytes of weights per second */
    double compute = peak > 0 ? work / peak : 0;
    return fmax(bytes / bw, compute) +
           (prefill ? 0 : layers * MOE_BARRIERS * barrier_seconds(x, threads));
}

static void fill_forecasts(struct tune_prune *x)
{
    const struct space *s = x->s;
    if (x->p == NULL || x->threads < 0 || x->kernel < 0)
        return;
    const struct space_axis *t = &s->axis[x->threads], *k = &s->axis[x->kernel];
    bool all_kernels = true;
    for (uint32_t i = 0; i < k->n; i++)
        all_kernels = all_kernels && kernel_rate(x, k->v[i].text, 1) > 0;
    for (uint32_t a = 0; a < t->n; a++)
        for (uint32_t b = 0; b < k->n; b++) {
            double f = forecast(x, t->v[a].number, all_kernels ? k->v[b].text : "");
            x->forecast[a][b] = f;
            if (f > 0 && (x->least == 0 || f < x->least))
                x->least = f;
        }
    snprintf(x->out->why[TUNE_ROOFLINE], sizeof x->out->why[0],
             "%.1f times the least forecast, %.3g ms of experts a %s", DOMINATED, 1e3 * x->least,
             x->l->o.goal == LIVE_PREFILL ? "prompt" : "token");
}

/* ---- the other rules ---- */

static void find_knee(struct tune_prune *x)
{
    double knee = 0, step = 0;
    if (x->p == NULL || x->threads < 0 || x->l->o.goal == LIVE_PREFILL || x->p->n_knees == 0)
        return;
    for (uint32_t i = 0; i < x->p->n_knees; i++) {
        if (x->p->knees[i].knee_threads == 0)
            return;
        knee += x->p->knees[i].knee_threads;
    }
    const struct space_axis *t = &x->s->axis[x->threads];
    for (uint32_t i = 0; i < t->n; i++)
        if (t->v[i].number > knee && (step == 0 || t->v[i].number < step))
            step = t->v[i].number;
    x->step_above_knee = step;
    snprintf(x->out->why[TUNE_KNEE], sizeof x->out->why[0],
             "%.0f threads give 97 %% of the best read rate; %.0f is one step past it", knee, step);
}

static void find_self_tests(struct tune_prune *x)
{
    const json_t *list =
        x->p != NULL ? json_object_get(json_object_get(x->p->root, "isa"), "variants") : NULL;
    for (uint32_t k = 0; x->kernel >= 0 && k < x->s->axis[x->kernel].n; k++)
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *v = json_array_get(list, i);
            const char *name = json_string_value(json_object_get(v, "name")),
                       *result = json_string_value(json_object_get(v, "selftest")),
                       *level = name != NULL ? strrchr(name, '_') : NULL;
            const char *kernel = x->s->axis[x->kernel].v[k].text;
            if (level == NULL || result == NULL ||
                (strcmp(result, "wrong") != 0 && strcmp(result, "signal") != 0) ||
                strcmp(level + 1, kernel) != 0)
                continue;
            x->failed[k] = true;
            snprintf(x->out->why[TUNE_SELFTEST], sizeof x->out->why[0], "%.60s: %.20s", name,
                     result);
        }
}

/* Share of the last-level cache of one of so many workers; 0: unknown. */
static double cache_share(const struct tune_prune *x)
{
    const json_t *l3 =
        x->p != NULL ? json_object_get(json_object_get(x->p->root, "topology"), "l3") : NULL;
    double sum = 0;
    for (size_t i = 0; i < json_array_size(l3); i++)
        sum += json_number_value(json_object_get(json_array_get(l3, i), "bytes"));
    return x->l->built_in.threads > 0 ? sum / x->l->built_in.threads : 0;
}

static void find_blocking(struct tune_prune *x)
{
    double rows = fmax((double)x->j->top_k * x->j->inter, fmax(x->l->vocab, 3.0 * x->j->hidden)),
           workers = x->l->built_in.threads > 0 ? x->l->built_in.threads : 1,
           share = cache_share(x);
    double row = x->j->hidden > 0 && x->j->inter > 0 ? expert_bytes(x) / (3.0 * x->j->inter)
                                                     : 0; /* packed bytes of a row of gate or up */
    if (x->l->vocab > 0)
        x->claim_most = rows / (2 * workers);
    if (share > 0 && row > 0)
        x->gemm_claim_most = CACHE_SHARE * share / row;
    if (x->claim >= 0 && x->claim_most > 0)
        snprintf(x->out->why[TUNE_BLOCKING], sizeof x->out->why[0],
                 "no claim is larger than %.0f rows, half an even share of the largest phase",
                 x->claim_most);
    else if (x->gemm_claim_most > 0)
        snprintf(x->out->why[TUNE_BLOCKING], sizeof x->out->why[0],
                 "%.0f rows of %.0f bytes fill half of a worker's %.2f MiB of last-level cache",
                 x->gemm_claim_most, row, share / 0x1p20);
}

void tune_prune_begin(struct tune_prune *x, const struct space *s, const struct live *l,
                      const struct profile *p, const struct tune_job *j, struct tune_pruned *out)
{
    *x = (struct tune_prune){.s = s, .l = l, .p = p, .j = j, .out = out};
    memset(out, 0, sizeof *out);
    x->threads = axis_of(s, "threads");
    x->kernel = axis_of(s, "kernel");
    x->claim = axis_of(s, "claim_rows");
    x->gemm_claim = axis_of(s, "gemm_claim_rows");
    x->pages = axis_of(s, "pages");
    x->smt = axis_of(s, "smt");
    x->pools = axis_of(s, "pools");
    snprintf(out->why[TUNE_LOAD], sizeof out->why[0],
             "fixed when weights are loaded: tried one by one with a second engine");
    find_knee(x);
    find_self_tests(x);
    find_blocking(x);
    fill_forecasts(x);
}

static double value(const struct tune_prune *x, int axis, const uint8_t *at)
{
    return axis >= 0 ? x->s->axis[axis].v[at[axis]].number : 0;
}

static bool departs(int axis, const uint8_t *at)
{
    return axis >= 0 && at[axis] != 0;
}

bool tune_prune_keep(void *ctx, const uint8_t *at, double *prior)
{
    struct tune_prune *x = ctx;
    double threads = value(x, x->threads, at);
    double f = x->threads >= 0 && x->kernel >= 0 ? x->forecast[at[x->threads]][at[x->kernel]] : 0;
    enum tune_rule rule = TUNE_RULES;
    *prior = f > 0 && x->least > 0 ? f / x->least : 1;
    if (departs(x->pages, at) || departs(x->smt, at) || departs(x->pools, at) ||
        threads > x->l->built_in.threads)
        rule = TUNE_LOAD;
    else if (x->kernel >= 0 && x->failed[at[x->kernel]])
        rule = TUNE_SELFTEST;
    else if (x->step_above_knee > 0 && threads > x->step_above_knee)
        rule = TUNE_KNEE;
    else if ((departs(x->claim, at) && x->claim_most > 0 &&
              value(x, x->claim, at) > fmax(x->claim_most, 64)) ||
             (departs(x->gemm_claim, at) && x->gemm_claim_most > 0 &&
              value(x, x->gemm_claim, at) > fmax(x->gemm_claim_most, 64)))
        rule = TUNE_BLOCKING;
    else if (*prior >= DOMINATED)
        rule = TUNE_ROOFLINE;
    bool is_default = true;
    for (uint32_t i = 0; i < x->s->n_axes; i++)
        is_default = is_default && at[i] == 0;
    if (rule != TUNE_RULES && !is_default)
        x->out->n[rule]++;
    return rule == TUNE_RULES;
}
