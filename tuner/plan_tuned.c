/* plan_tuned.c - what tunings of a profile change about a plan made from it: threads and kernel
 * level, when they were proved by this kernel build for this shape (or the nearest); all values
 * become rows of the plan, as ktserve logs them. A tuning that asks for more threads than the plan
 * has changes nothing. Owner: the program's thread.
 */
#include <stdio.h>
#include <string.h>

#include "kern.h"
#include "plan_args.h"

/* Shape and format that tunings are looked up by; a dense model is one expert. */
static bool shape_of(const struct shape *s, struct profile_shape *out)
{
    bool dense = s->n_experts == 0;
    if (s->n_layers == 0)
        return false;
    double inter = s->layers[s->n_layers - 1].weights[SHAPE_FFN] / (3.0 * s->hidden);
    *out = (struct profile_shape){dense ? 1 : s->n_experts, dense ? 1 : s->top_k, s->hidden,
                                  dense ? (uint32_t)inter : s->expert_inter,
                                  dense ? s->dense_format : s->expert_format};
    return out->inter > 0;
}

static kt_status note(struct plan *p, const char *id, const char *text, uint32_t number,
                      const char *unit, const struct profile_tuning *t, kt_err *err)
{
    char why[200];
    if (number == 0 && text == NULL)
        return KT_OK;
    snprintf(why, sizeof why, "tuned on %s for %s: %+.1f %% over the default%s", t->created,
             t->goal, 100 * t->gain, t->exact ? "" : "; of the nearest shape that was tuned");
    return plan_note(p,
                     &(struct plan_note){id, text, number, unit,
                                         t->exact ? "measured" : "interpolated", why, t->goal,
                                         t->exact},
                     err);
}

static bool find(const struct plan_args *a, const char *goal, struct profile_tuning *t)
{
    struct profile_shape s;
    char abi[17];
    kern_abi(abi);
    return a->profile != NULL && a->shape != NULL && shape_of(a->shape, &s) &&
           (profile_find_tuning(a->profile, &s, goal, abi, t) ||
            profile_find_tuning(a->profile, &s, "both", abi, t)) &&
           t->proved;
}

bool plan_tuned_opts(const struct plan_args *a, const struct plan *p, struct plan_opts *o)
{
    struct profile_tuning t;
    if (a->threads > 0 || a->rules_only || (!find(a, "decode", &t) && !find(a, "prefill", &t)))
        return false;
    int mask = t.kernel != NULL ? kern_isa_by_name(t.kernel) : -1;
    if (t.threads > 0 && t.threads <= p->n_threads)
        o->threads = t.threads;
    if (mask >= 0)
        o->isa_mask = (uint32_t)mask;
    if (t.smt != NULL && plan_smt_by_name(t.smt) >= 0)
        o->smt = (enum plan_smt)plan_smt_by_name(t.smt);
    o->pools = t.pools;
    return o->threads > 0 || mask >= 0 || o->smt != PLAN_SMT_OFF || o->pools > 0;
}

/* When GEMM replaces GEMV, as the profile measured it for the experts' format. */
static kt_status say_rows(const struct plan_args *a, struct plan *p, kt_err *err)
{
    struct profile_shape s;
    char id[64], abi[17];
    double rows;
    kern_abi(abi);
    if (a->profile == NULL || a->shape == NULL || !shape_of(a->shape, &s) ||
        a->profile->kernel_abi == NULL || strcmp(a->profile->kernel_abi, abi) != 0)
        return KT_OK;
    snprintf(id, sizeof id, "experts.gemv_rows.%s", s.format);
    if (!profile_decision_number(a->profile, id, &rows) || !(rows >= 1 && rows <= 64))
        return KT_OK;
    return plan_note(p,
                     &(struct plan_note){id, NULL, (uint64_t)rows, "rows", "measured",
                                         profile_decision_why(a->profile, id), "prefill", true},
                     err);
}

kt_status plan_tuned_say(const struct plan_args *a, struct plan *p, kt_err *err)
{
    struct profile_tuning d = {0}, f = {0};
    bool decode = find(a, "decode", &d), prefill = find(a, "prefill", &f);
    const struct profile_tuning *first = decode ? &d : &f;
    if (!prefill || f.gemv_rows == 0)
        KT_TRY(say_rows(a, p, err));
    if (!decode && !prefill)
        return KT_OK;
    KT_TRY(note(p, "tune.threads", NULL, first->threads, "threads", first, err));
    KT_TRY(note(p, "tune.kernel", first->kernel, 0, NULL, first, err));
    KT_TRY(note(p, "tune.pages", first->pages, 0, NULL, first, err));
    KT_TRY(note(p, "tune.smt", first->smt, 0, NULL, first, err));
    KT_TRY(note(p, "tune.pools", NULL, first->pools, "pools", first, err));
    KT_TRY(note(p, "tune.claim_rows", NULL, d.claim_rows, "rows", &d, err));
    KT_TRY(note(p, "tune.spin_us", NULL, d.spin_us, "us", &d, err));
    KT_TRY(note(p, "tune.gemv_rows", NULL, f.gemv_rows, "rows", &f, err));
    return note(p, "tune.gemm_claim_rows", NULL, f.gemm_claim_rows, "rows", &f, err);
}
