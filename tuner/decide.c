/* decide.c - decisions of the profile that come from measurements of kernels, and the planner's
 * decisions as JSON. A measured choice replaces the static default (highest rank) only when its
 * confidence interval lies above the default's: an unproved gain keeps the default.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/mem.h"
#include "decide_rows.h"
#include "decide_streams.h"
#include "kern.h"
#include "probe.h"

#define MAX_VARIANTS 16

struct rate {
    const struct kern *row;
    char id[96], name[32];
    double median, lo, hi;
    bool noisy;
};

static const json_t *find_entry(const struct probe_run *r, const char *section, const char *id)
{
    const json_t *a = json_object_get(r->p->root, section);
    for (size_t i = 0; i < json_array_size(a); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(a, i), "id")), id) == 0)
            return json_array_get(a, i);
    return NULL;
}

/* "avx512vnni" of "gemv_mxfp4_q8_avx512vnni" */
static const char *variant_of(const struct kern *k)
{
    const char *last = strrchr(k->name, '_');
    return last != NULL ? last + 1 : k->name;
}

/* The rate of one variant, if this kernel build measured it. */
static bool rate_of(const struct probe_run *r, const struct kern *row, uint32_t tokens,
                    struct rate *out)
{
    memset(out, 0, sizeof *out);
    out->row = row;
    snprintf(out->name, sizeof out->name, "%s", variant_of(row));
    snprintf(out->id, sizeof out->id, "expert.%s:%s.%s.m%u", row->op == KERN_GEMM ? "gemm" : "gemv",
             dtype_name((enum dtype)row->dtype), out->name, tokens);
    const json_t *m = find_entry(r, "measurements", out->id), *ci = json_object_get(m, "ci95");
    const char *abi =
        json_string_value(json_object_get(json_object_get(m, "provenance"), "kernel_abi"));
    if (json_object_get(m, "median") == NULL || abi == NULL || strcmp(abi, r->abi) != 0)
        return false;
    out->median = json_number_value(json_object_get(m, "median"));
    /* fewer samples than an interval needs prove nothing */
    out->lo = json_is_array(ci) ? json_number_value(json_array_get(ci, 0)) : 0;
    out->hi = json_is_array(ci) ? json_number_value(json_array_get(ci, 1)) : (double)INFINITY;
    out->noisy = strcmp(json_string_value(json_object_get(m, "status")), "noisy") == 0;
    return out->median > 0;
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct rate *)a)->median, y = ((const struct rate *)b)->median;
    return (x < y) - (x > y);
}

static uint32_t rates_of(const struct probe_run *r, enum kern_op op, int dtype, uint32_t tokens,
                         struct rate *v)
{
    size_t n;
    const struct kern *const *table = kern_table(&n);
    uint32_t k = 0;
    for (size_t i = 0; i < n && k < MAX_VARIANTS; i++)
        if (table[i]->op == op && table[i]->dtype == dtype && (table[i]->isa & ~r->isa) == 0 &&
            rate_of(r, table[i], tokens, &v[k]))
            k++;
    qsort(v, k, sizeof *v, by_rate);
    return k;
}

static bool apart(const struct rate *a, const struct rate *b)
{
    return a->lo > b->hi || b->lo > a->hi;
}

/* Decision among variants of one operation and format. v is sorted, fastest first. */
static kt_status decide_variant(struct probe_run *r, enum kern_op op, int dtype,
                                const struct rate *v, uint32_t n, kt_err *err)
{
    const struct kern *def = kern_find(op, dtype, r->isa, NULL);
    uint32_t def_at = n;
    char id[64], why[256];
    for (uint32_t i = 0; i < n; i++)
        if (v[i].row == def)
            def_at = i;
    if (def != NULL && def_at == n)
        return KT_OK; /* without the default nothing can be proved faster than it */
    uint32_t pick = def_at == n || def_at == 0 || apart(&v[0], &v[def_at]) ? 0 : def_at;
    json_t *d = json_object(), *because = json_array(), *alts = json_array();
    double margin = (double)NAN;
    bool noisy = false;
    for (uint32_t i = 0; i < n; i++) {
        json_array_append_new(because, json_string(v[i].id));
        noisy |= v[i].noisy;
        if (i == pick)
            continue;
        double loss = v[pick].median / v[i].median - 1;
        if (isnan(margin))
            margin = loss;
        json_t *a = json_object();
        json_object_set_new(a, "value", json_string(v[i].name));
        json_object_set_new(a, "loss", json_real(loss));
        json_object_set_new(a, "distinguishable", json_boolean(apart(&v[i], &v[pick])));
        json_array_append_new(alts, a);
    }
    snprintf(id, sizeof id, "kernel.%s.%s", op == KERN_GEMM ? "gemm" : "gemv",
             dtype_name((enum dtype)dtype));
    const char *unit = op == KERN_GEMM ? "Gop/s" : "GB/s";
    if (n == 1)
        snprintf(why, sizeof why, "the only variant that was timed: %.1f %s", v[0].median / 1e9,
                 unit);
    else if (pick == 0)
        snprintf(why, sizeof why, "fastest of %u: %.1f %s, the next %.1f", n, v[0].median / 1e9,
                 unit, v[1].median / 1e9);
    else
        snprintf(why, sizeof why, "default kept: %s at %.1f %s is not proved faster than %.1f",
                 v[0].name, v[0].median / 1e9, unit, v[pick].median / 1e9);
    json_object_set_new(d, "id", json_string(id));
    json_object_set_new(d, "value", json_string(v[pick].name));
    json_object_set_new(d, "origin", json_string("measured"));
    json_object_set_new(d, "why", json_string(why));
    json_object_set_new(d, "because", because);
    json_object_set_new(d, "alternatives", alts);
    json_object_set_new(d, "margin", isnan(margin) ? json_null() : json_real(margin));
    json_object_set_new(d, "would_change_if", json_pack("[s]", "kernels or compiler change"));
    json_object_set_new(d, "confidence", json_string(noisy ? "medium" : "high"));
    json_object_set_new(d, "goal", json_string(op == KERN_GEMM ? "prefill" : "decode"));
    return profile_put_decision(r->p, d, err);
}

/* ---- formats that were not timed ---- */

/* The variant of highest rank of a format's GEMV, where the table has it with four streams too. */
static const struct kern *streamed(const struct probe_run *r, int dtype, char four[64])
{
    const struct kern *own =
        kern_has_dtype(dtype) ? kern_find(KERN_GEMV, dtype, r->isa, NULL) : NULL;
    if (own == NULL)
        return NULL;
    snprintf(four, 64, "%s" STREAMS_FOUR, variant_of(own));
    const struct kern *other = kern_find_variant(KERN_GEMV, dtype, r->isa, NULL, four);
    return strcmp(variant_of(other), four) == 0 ? own : NULL;
}

static void gemv_id(int dtype, char id[64])
{
    snprintf(id, 64, "kernel.gemv.%s", dtype_name((enum dtype)dtype));
}

/* What the timed formats say about streams goes to those that were not timed, as a quick run leaves
 * most of them. */
static kt_status carry_streams(struct probe_run *r, kt_err *err)
{
    struct streams_vote votes[DT_COUNT];
    size_t n = 0;
    char id[64], four[64], why[256];
    json_t *because = json_array();
    for (int t = 0; t < DT_COUNT; t++) {
        const struct kern *own = streamed(r, t, four);
        gemv_id(t, id);
        const json_t *d = find_entry(r, "decisions", id);
        const char *value = json_string_value(json_object_get(d, "value"));
        if (own == NULL || value == NULL)
            continue;
        votes[n++] = (struct streams_vote){dtype_name((enum dtype)t), variant_of(own), value};
        json_array_extend(because, json_object_get(d, "because"));
    }
    bool carry = decide_streams(votes, n, why, sizeof why);
    kt_status st = KT_OK;
    for (int t = 0; t < DT_COUNT && carry && st == KT_OK; t++) {
        gemv_id(t, id);
        if (streamed(r, t, four) == NULL || find_entry(r, "decisions", id) != NULL)
            continue;
        json_t *d = json_pack("{s:s,s:s,s:s,s:s,s:O,s:n,s:[s,s],s:s,s:s}", "id", id, "value", four,
                              "origin", "interpolated", "why", why, "because", because, "margin",
                              "would_change_if", "the format is timed (kttune probe)",
                              "kernels or compiler change", "confidence", "low", "goal", "decode");
        st = d != NULL ? profile_put_decision(r->p, d, err)
                       : err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a decision");
    }
    json_decref(because);
    return st;
}

/* ---- the level of the whole engine ---- */

static const char *const levels[] = {"ref", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"};
#define N_LEVELS 5

/* Rate of a level for a format: what kern_find would take with that mask. */
static bool level_rate(const struct probe_run *r, int level, int dtype, struct rate *out)
{
    int mask = kern_isa_by_name(levels[level]);
    if (mask < 0 || ((uint32_t)mask & ~r->isa) != 0)
        return false;
    const struct kern *row = kern_find(KERN_GEMV, dtype, (uint32_t)mask, NULL);
    return row != NULL && rate_of(r, row, 1, out);
}

/* Is `other` proved faster than `base` in every format that both were timed in (one at least)?
 * *gain: geometric mean of the ratios. */
static bool level_beats(const struct probe_run *r, int other, int base, double *gain,
                        json_t *because)
{
    double sum = 0;
    int n = 0;
    bool all = true;
    for (int t = 0; t < DT_COUNT; t++) {
        struct rate a, b;
        if (!kern_has_dtype(t) || !level_rate(r, other, t, &a) || !level_rate(r, base, t, &b) ||
            a.row == b.row)
            continue;
        sum += log(a.median / b.median);
        n++;
        all &= a.lo > b.hi;
        json_array_append_new(because, json_string(a.id));
        json_array_append_new(because, json_string(b.id));
    }
    *gain = n > 0 ? exp(sum / n) - 1 : 0;
    return n > 0 && all;
}

/* Seconds of one expert of the measured shape: bytes or operations over the rate. */
static bool expert_seconds(const struct probe_run *r, const struct kern *row, uint32_t tokens,
                           struct rate *v, double *work)
{
    if (!rate_of(r, row, tokens, v))
        return false;
    const json_t *params = json_object_get(find_entry(r, "measurements", v->id), "params");
    double hidden = json_number_value(json_object_get(params, "hidden")),
           inter = json_number_value(json_object_get(params, "inter"));
    const struct dtype_info *d = dtype_info((enum dtype)row->dtype);
    *work = row->op == KERN_GEMM ? 6.0 * hidden * inter * tokens
                                 : 3.0 * hidden * inter * d->block_bytes / d->block_elems;
    return *work > 0 && v->lo > 0;
}

/* From how many rows on GEMM replaces GEMV, for a format that was measured with several. */
static kt_status decide_crossover(struct probe_run *r, int dtype, kt_err *err)
{
    static const uint32_t rows[] = {2, 4, 8, 16};
    const struct kern *gemv = kern_find(KERN_GEMV, dtype, r->isa, NULL),
                      *gemm = kern_find(KERN_GEMM, dtype, r->isa, NULL);
    struct rows_point p[4];
    struct rows_choice choice;
    size_t n = 0;
    bool noisy = false;
    char id[64];
    json_t *because = json_array();
    for (int i = 0; i < 4 && gemv != NULL && gemm != NULL; i++) {
        struct rate a, b;
        double va, vb;
        if (!expert_seconds(r, gemv, rows[i], &a, &va) ||
            !expert_seconds(r, gemm, rows[i], &b, &vb))
            continue;
        p[n++] = (struct rows_point){rows[i],       va / a.median, va / a.hi, va / a.lo,
                                     vb / b.median, vb / b.hi,     vb / b.lo};
        noisy = noisy || a.noisy || b.noisy;
        json_array_append_new(because, json_string(a.id));
        json_array_append_new(because, json_string(b.id));
    }
    if (!decide_rows(p, n, gemv != NULL ? gemv->tok_tile : 0, &choice)) {
        json_decref(because);
        return KT_OK;
    }
    snprintf(id, sizeof id, "experts.gemv_rows.%s", dtype_name((enum dtype)dtype));
    json_t *d = json_pack("{s:s,s:I,s:s,s:s,s:s,s:o,s:[],s:n,s:[s],s:s,s:s}", "id", id, "value",
                          (json_int_t)choice.rows, "unit", "rows", "origin", "measured", "why",
                          choice.why, "because", because, "alternatives", "margin",
                          "would_change_if", "kernels or compiler change", "confidence",
                          noisy ? "medium" : "high", "goal", "prefill");
    if (d == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a decision");
    return profile_put_decision(r->p, d, err);
}

static kt_status decide_level(struct probe_run *r, kt_err *err)
{
    const char *top_name = kern_isa_level_name(r->isa);
    int top = 0, pick;
    double margin = (double)NAN;
    char why[256];
    json_t *because = json_array(), *alts = json_array(), *d = json_object();
    for (int i = 0; i < N_LEVELS; i++)
        if (strcmp(levels[i], top_name) == 0)
            top = i;
    pick = top;
    for (int i = top - 1; i >= 0; i--) {
        double gain;
        json_t *ids = json_array();
        bool beats = level_beats(r, i, top, &gain, ids);
        if (json_array_size(ids) > 0) {
            json_t *a = json_object();
            json_object_set_new(a, "value", json_string(levels[i]));
            json_object_set_new(a, "loss", json_real(1 / (1 + gain) - 1));
            json_object_set_new(a, "distinguishable", json_boolean(beats || gain < -0.05));
            json_array_append_new(alts, a);
            json_array_extend(because, ids);
            if (isnan(margin))
                margin = 1 / (1 + gain) - 1;
        }
        json_decref(ids);
        if (beats)
            pick = i;
    }
    bool measured = json_array_size(because) > 0;
    json_t *unique = json_object();
    for (size_t i = json_array_size(because); i-- > 0;) {
        const char *s = json_string_value(json_array_get(because, i));
        if (json_object_get(unique, s) != NULL)
            json_array_remove(because, i);
        else
            json_object_set_new(unique, s, json_true());
    }
    json_decref(unique);
    if (pick != top)
        snprintf(why, sizeof why, "proved faster than %s in every timed format", levels[top]);
    else if (measured)
        snprintf(why, sizeof why,
                 "highest level that passed its self-tests; no lower one is proved faster");
    else
        snprintf(why, sizeof why,
                 "highest level that passed its self-tests; kernels were not timed in this stage");
    json_object_set_new(d, "id", json_string("kernel.isa"));
    json_object_set_new(d, "value", json_string(levels[pick]));
    json_object_set_new(d, "origin", json_string(measured ? "measured" : "model"));
    json_object_set_new(d, "why", json_string(why));
    json_object_set_new(d, "because", because);
    json_object_set_new(d, "alternatives", alts);
    json_object_set_new(d, "margin", isnan(margin) ? json_null() : json_real(margin));
    json_object_set_new(d, "would_change_if",
                        json_pack("[s,s]", "a self-test fails", "kernels or compiler change"));
    json_object_set_new(d, "confidence", json_string(measured ? "high" : "medium"));
    json_object_set_new(d, "goal", json_string("both"));
    return profile_put_decision(r->p, d, err);
}

kt_status decide_kernels(struct probe_run *r, kt_err *err)
{
    struct rate v[MAX_VARIANTS];
    for (int t = 0; t < DT_COUNT; t++) {
        if (!kern_has_dtype(t))
            continue;
        uint32_t n = rates_of(r, KERN_GEMV, t, 1, v);
        if (n > 0)
            KT_TRY(decide_variant(r, KERN_GEMV, t, v, n, err));
        n = rates_of(r, KERN_GEMM, t, 32, v);
        if (n > 0)
            KT_TRY(decide_variant(r, KERN_GEMM, t, v, n, err));
        KT_TRY(decide_crossover(r, t, err));
    }
    KT_TRY(carry_streams(r, err));
    return decide_level(r, err);
}

/* ---- the planner's decisions ---- */

static json_t *text_list(char *const *v, uint32_t n)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(a, json_string(v[i]));
    return a;
}

static json_t *alternative(const struct plan_alternative *a)
{
    json_t *o = json_object(), *v = json_loads(a->value, JSON_DECODE_ANY, NULL);
    json_object_set_new(o, "value", v != NULL ? v : json_string(a->value));
    json_object_set_new(o, "loss", json_real(a->loss));
    json_object_set_new(o, "distinguishable", json_boolean(a->distinguishable));
    return o;
}

static kt_status put_planned(struct probe_run *r, const struct plan_decision *p, kt_err *err)
{
    json_t *d = json_object(), *because = json_array(), *alts = json_array(),
           *value = json_loads(p->value_json, JSON_DECODE_ANY, NULL);
    for (uint32_t i = 0; i < p->n_because; i++)
        if (find_entry(r, "measurements", p->because[i]) != NULL)
            json_array_append_new(because, json_string(p->because[i]));
    for (uint32_t i = 0; i < p->n_alternatives; i++)
        json_array_append_new(alts, alternative(&p->alternatives[i]));
    bool proved = strcmp(p->origin, "measured") != 0 || json_array_size(because) > 0;
    json_object_set_new(d, "id", json_string(p->id));
    json_object_set_new(d, "value", value != NULL ? value : json_string(p->value_json));
    if (p->unit != NULL)
        json_object_set_new(d, "unit", json_string(p->unit));
    json_object_set_new(d, "origin", json_string(proved ? p->origin : "model"));
    json_object_set_new(d, "why", json_string(p->why));
    json_object_set_new(d, "because", because);
    if (p->n_alternatives > 0)
        json_object_set(d, "alternatives", alts);
    json_decref(alts);
    json_object_set_new(d, "margin", isfinite(p->margin) ? json_real(p->margin) : json_null());
    if (p->n_would_change_if > 0)
        json_object_set_new(d, "would_change_if",
                            text_list(p->would_change_if, p->n_would_change_if));
    json_object_set_new(d, "confidence", json_string(p->confidence));
    json_object_set_new(d, "goal", json_string(p->goal));
    return profile_put_decision(r->p, d, err);
}

static kt_status decide_pages(struct probe_run *r, kt_err *err)
{
    const char *thp = r->h->env.thp_enabled;
    bool there = thp != NULL && strcmp(thp, "never") != 0;
    if (find_entry(r, "decisions", "pages") != NULL)
        return KT_OK;
    json_t *d =
        json_pack("{s:s,s:s,s:s,s:s,s:[],s:n,s:[s],s:s,s:s}", "id", "pages", "value",
                  there ? "thp" : "4k", "origin", "default", "why",
                  there ? "no gain is proved for reserved huge pages; transparent ones are asked "
                          "for with madvise"
                        : "transparent huge pages are off, and no gain is proved for reserved ones",
                  "because", "margin", "would_change_if", "transparent huge pages are switched",
                  "confidence", "low", "goal", "both");
    if (d == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a decision");
    return profile_put_decision(r->p, d, err);
}

kt_status decide_plan(struct probe_run *r, const struct plan *plan, kt_err *err)
{
    profile_clear(r->p, "decisions");
    for (uint32_t i = 0; i < plan->n_decisions; i++) {
        /* self-tests have the last word: decide_level states the level as kernel.isa */
        if (r->depth != PROBE_TOPOLOGY && strcmp(plan->decisions[i].id, "isa") == 0)
            continue;
        KT_TRY(put_planned(r, &plan->decisions[i], err));
    }
    for (uint32_t i = 0; i < plan->n_warnings; i++) {
        const struct host_warning *w = &plan->warnings[i];
        KT_TRY(profile_warn(r->p, w->code, w->severity, w->about, w->fix, w->text, err));
    }
    return decide_pages(r, err);
}
