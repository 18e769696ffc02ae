/* tuned.c - what a profile's tunings change about an engine, and how the plan tells it.
 *
 * Values that serve decoding (threads, how workers claim and wait, the kernel level) come from the
 * tuning for "decode", else from that for "both"; those of prefill (when GEMM replaces GEMV, its
 * claims) from "prefill", else "both"; where only prefill was tuned, threads and level are its own.
 * The user's flags come first, a configuration file's values last. A tuning that is not proved, or
 * that asks for more threads than the plan now has, changes nothing, and the plan says so. Engine
 * thread, while an engine opens.
 */
#include "tuned.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* Shape and format that tunings are looked up by; false where there is no model file. */
static bool shape_of(const struct kt_engine *e, struct profile_shape *out)
{
    const struct mdl_traits *t = &e->model->t;
    bool dense = t->n_experts == 0;
    struct mdl_slice s;
    uint32_t layer = 0;
    while (!dense && layer + 1 < t->n_layers && !t->layer_is_moe[layer])
        layer++;
    if (e->model->n_tensors == 0 || e->strict ||
        !mdl_weight(e->model, dense ? MDL_Q : MDL_GATE, layer, 0, &s))
        return false;
    int quant = dense ? e->quant_dense : e->quant;
    *out = (struct profile_shape){dense ? 1 : t->n_experts, dense ? 1 : t->top_k, t->hidden,
                                  dense ? t->dense_inter : t->expert_inter,
                                  dtype_name(quant >= 0 ? (enum dtype)quant : s.type)};
    return true;
}

static int page_kind(const char *name)
{
    static const char *const word[] = {"thp", "4k", "hugetlb"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, word[i]) == 0)
            return i; /* as enum mem_pages */
    return -1;
}

/* One line when a value of the configuration file gives way. */
static void give_way(const struct eng_tuned *t, const char *option, const char *file,
                     const char *tuned)
{
    if (file != NULL && tuned != NULL && strcmp(file, tuned) != 0)
        log_info("%s: %s, tuned on %s, instead of %s of the configuration file; --%s %s keeps the "
                 "file's",
                 option, tuned, t->created, file, option, file);
}

kt_status eng_tuned_places(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                           struct plan_opts *po, kt_err *err)
{
    const char *pages = t->pages != NULL ? t->pages : o->pages,
               *smt = t->smt != NULL ? t->smt : o->smt;
    int kind = pages != NULL ? page_kind(pages) : MEM_THP,
        mode = smt != NULL ? plan_smt_by_name(smt) : PLAN_SMT_OFF;
    if (kind < 0)
        KT_FAIL(err, KT_E_INVALID, "--pages %s: must be thp, 4k or hugetlb", pages);
    if (mode < 0)
        KT_FAIL(err, KT_E_INVALID, "--smt %s: must be off, server or on", smt);
    give_way(t, "pages", o->pages, t->pages);
    give_way(t, "smt", o->smt, t->smt);
    e->page_kind = (enum mem_pages)kind;
    po->smt = (enum plan_smt)mode;
    po->pools = t->pools > 0 ? t->pools : o->pools;
    po->pages = pages;
    po->smt_why = t->smt != NULL ? "by the tuning below" : NULL;
    po->pages_why = t->pages != NULL ? "by the tuning below" : NULL;
    e->pages_tuned = t->pages != NULL;
    return KT_OK;
}

kt_status eng_tuned_pages_gone(struct kt_engine *e, const char *why, kt_err *err)
{
    struct strbuf text = {0};
    log_warn("pages of the weights: transparent huge pages instead of reserved ones as tuned: %s",
             why);
    e->page_kind = MEM_THP;
    plan_forget(e->plan, "pages");
    plan_forget(e->plan, "tune.pages");
    KT_TRY(plan_note(
        e->plan, &(struct plan_note){"pages", "thp", 0, NULL, "limit", why, "both", true}, err));
    plan_print(e->plan, &text);
    char *now = sb_take(&text, NULL);
    if (now == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the plan's text");
    mem_free(e->plan_text);
    e->plan_text = now;
    return KT_OK;
}

kt_status eng_tuned_rows(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                         kt_err *err)
{
    char file[16], tuned[16], id[64];
    double rows;
    if (o->gemv_rows > 64)
        KT_FAIL(err, KT_E_INVALID, "--gemv-rows %u: must be at most 64", o->gemv_rows);
    for (int i = 0; i < DT_COUNT && e->kernels_measured; i++) {
        snprintf(id, sizeof id, "experts.gemv_rows.%s", dtype_name((enum dtype)i));
        if (profile_decision_number(e->profile, id, &rows) && rows >= 1 && rows <= 64)
            e->gemv_rows[i] = (uint8_t)rows;
    }
    if (o->gemv_rows > 0 && (!o->gemv_rows_yield || t->prefill.gemv_rows == 0))
        e->knobs.gemv_rows = o->gemv_rows;
    snprintf(file, sizeof file, "%u", o->gemv_rows);
    snprintf(tuned, sizeof tuned, "%u", t->prefill.gemv_rows);
    give_way(t, "gemv-rows", o->gemv_rows > 0 ? file : NULL,
             o->gemv_rows_yield && t->prefill.gemv_rows > 0 ? tuned : NULL);
    return KT_OK;
}

kt_status eng_rows_say(struct kt_engine *e, const kt_engine_opts *o, const struct eng_tuned *t,
                       kt_err *err)
{
    struct profile_shape shape;
    char id[64];
    if (o->gemv_rows > 0 && e->knobs.gemv_rows == o->gemv_rows)
        return plan_note(e->plan,
                         &(struct plan_note){"experts.gemv_rows", NULL, o->gemv_rows, "rows",
                                             "user", "asked for", "prefill", true},
                         err);
    if (t->prefill.gemv_rows > 0 || e->model == NULL || !shape_of(e, &shape))
        return KT_OK; /* the tuning's row tells */
    int type = dtype_by_name(shape.format);
    if (type < 0 || e->gemv_rows[type] == 0)
        return KT_OK;
    snprintf(id, sizeof id, "experts.gemv_rows.%s", shape.format);
    return plan_note(e->plan,
                     &(struct plan_note){id, NULL, e->gemv_rows[type], "rows", "measured",
                                         profile_decision_why(e->profile, id), "prefill", true},
                     err);
}

void eng_tuned_find(const struct kt_engine *e, const kt_engine_opts *o, const char *abi,
                    struct eng_tuned *t)
{
    struct profile_shape shape;
    memset(t, 0, sizeof *t);
    if (e->profile == NULL || o->ignore_tunings || !shape_of(e, &shape))
        return;
    t->has_decode = profile_find_tuning(e->profile, &shape, "decode", abi, &t->decode) ||
                    profile_find_tuning(e->profile, &shape, "both", abi, &t->decode);
    t->has_prefill = profile_find_tuning(e->profile, &shape, "prefill", abi, &t->prefill) ||
                     profile_find_tuning(e->profile, &shape, "both", abi, &t->prefill);
    const struct profile_tuning *first =
        !t->has_decode && t->has_prefill ? &t->prefill : &t->decode;
    t->threads = first->threads;
    t->kernel = first->kernel;
    t->pages = first->pages;
    t->smt = first->smt;
    t->pools = first->pools;
    t->created = first->created;
    if (o->threads > 0 && !o->threads_yield)
        t->threads = 0;
    if ((o->pages != NULL && !o->pages_yield) || (t->pages != NULL && page_kind(t->pages) < 0))
        t->pages = NULL;
    if ((o->smt != NULL && !o->smt_yield) || (t->smt != NULL && plan_smt_by_name(t->smt) < 0))
        t->smt = NULL;
    if (o->pools > 0 && !o->pools_yield)
        t->pools = 0;
    if (o->gemv_rows > 0 && !o->gemv_rows_yield)
        t->prefill.gemv_rows = 0;
    if ((o->cpu_mask != NULL && !o->cpu_mask_yield) ||
        (t->kernel != NULL && kern_isa_by_name(t->kernel) < 0))
        t->kernel = NULL;
}

void eng_tuned_knobs(const struct eng_tuned *t, struct eng_knobs *k)
{
    struct eng_knobs in = *k;
    const struct profile_tuning *d = &t->decode, *p = &t->prefill;
    /* the ranges are those of kt_engine_retune; a value outside is of another version */
    if (d->claim_rows > 0 && d->claim_rows % CHUNK_ROWS == 0 && d->claim_rows <= CHUNK_ROWS_MOST)
        in.claim_rows = d->claim_rows;
    if (d->spin_us > 0 && d->spin_us <= 1000000)
        in.spin_ns = d->spin_us * 1000;
    if (p->gemv_rows > 0 && p->gemv_rows <= 64)
        in.gemv_rows = p->gemv_rows;
    if (p->gemm_claim_rows > 0 && p->gemm_claim_rows % CHUNK_ROWS == 0 &&
        p->gemm_claim_rows <= CHUNK_ROWS_MOST)
        in.gemm_claim_rows = p->gemm_claim_rows;
    *k = in;
}

struct row {
    const char *id, *text, *unit;
    uint64_t number;
};

/* One row of the plan for each value that a tuning sets. */
static kt_status say(struct plan *plan, const struct profile_tuning *t, const struct row *rows,
                     size_t n, kt_err *err)
{
    struct strbuf why = {0};
    kt_status s = KT_OK;
    bool any = false;
    char from[96] = "";
    if (!t->exact)
        snprintf(from, sizeof from, "; nearest shape tuned: %u experts, hidden %u",
                 t->shape.experts, t->shape.hidden);
    sb_printf(&why, "measured here on %s for %s: %+.1f %% over the default%s", t->created, t->goal,
              100 * t->gain, from);
    for (size_t i = 0; i < n && s == KT_OK; i++) {
        if (rows[i].number == 0 && rows[i].text == NULL)
            continue;
        any = true;
        s = plan_note(plan,
                      &(struct plan_note){rows[i].id, rows[i].text, rows[i].number, rows[i].unit,
                                          t->exact ? "measured" : "interpolated", why.data, t->goal,
                                          t->exact},
                      err);
    }
    if (!any && s == KT_OK) {
        sb_clear(&why);
        sb_printf(&why,
                  t->proved ? "tuned on %s for %s; what it found is set otherwise here"
                            : "searched on %s for %s: nothing was proved faster than the default",
                  t->created, t->goal);
        char id[32];
        snprintf(id, sizeof id, "tune.%s", t->goal);
        s = plan_note(
            plan,
            &(struct plan_note){id, "default", 0, NULL, "default", why.data, t->goal, t->exact},
            err);
    }
    sb_free(&why);
    return s;
}

kt_status eng_tuned_say(const struct eng_tuned *t, struct plan *plan, kt_err *err)
{
    const struct profile_tuning *d = &t->decode, *p = &t->prefill;
    bool alone = !t->has_decode && t->has_prefill,
         both = t->has_decode && t->has_prefill && d->goal == p->goal;
    /* the rows of decoding, then those of prefill; one entry for both goals has all of them */
    const struct row row[] = {{"tune.threads", NULL, "threads", t->threads},
                              {"tune.kernel", t->kernel, NULL, 0},
                              {"tune.pages", t->pages, NULL, 0},
                              {"tune.smt", t->smt, NULL, 0},
                              {"tune.pools", NULL, "pools", t->pools},
                              {"tune.claim_rows", NULL, "rows", d->claim_rows},
                              {"tune.spin_us", NULL, "us", d->spin_us},
                              {"tune.gemv_rows", NULL, "rows", p->gemv_rows},
                              {"tune.gemm_claim_rows", NULL, "rows", p->gemm_claim_rows}};
    if (alone || both)
        return say(plan, p, row, 9, err);
    if (t->has_decode)
        KT_TRY(say(plan, d, row, 7, err));
    if (t->has_prefill)
        KT_TRY(say(plan, p, row + 7, 2, err));
    return KT_OK;
}
