/* tune_space.c - axes of a live search. Only what the engine really does differently is an axis:
 * threads over all pools, kernel level (those that read the same packed weights), rows that a
 * worker claims at once, the number of activation rows from which GEMM replaces GEMV, how long a
 * waiting worker spins; pages, SMT and pools, which are fixed at load, where the host offers a
 * choice. tune_prune.c leaves combinations out before anything is timed, and orders the rest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet.h"
#include "kern.h"
#include "model/model.h"
#include "tune.h"
#include "tune_prune.h"

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

/* The default of an axis that is fixed at load, and the values that this host offers. */
static void load_values(struct space *s, const struct tune_job *j, const char *name,
                        const char *word, double number)
{
    struct space_axis *a = NULL;
    for (uint32_t i = 0; i < j->n_tries; i++) {
        const struct outer_try *t = &j->tries[i];
        if (strcmp(t->axis, name) != 0 || t->fate != OUTER_OPEN)
            continue;
        if (a == NULL && (a = space_axis(s, name)) != NULL) {
            a->apart = true;
            if (word != NULL)
                space_word(a, word);
            else
                space_number(a, number);
        }
        if (a != NULL && word != NULL)
            space_word(a, t->value);
        else if (a != NULL)
            space_number(a, strtod(t->value, NULL));
    }
}

kt_status tune_space(const struct live *l, const struct profile *p, struct tune_job *j,
                     struct space *out, kt_err *err)
{
    static const uint32_t claim[] = {64, 128, 256, 512, 1024, 2048}, gemm_claim[] = {64, 128, 256},
                          rows[] = {1, 2, 4, 8, 16}, spin[] = {1, 50, 1000};
    const struct live_config *b = &l->built_in;
    struct tune_prune x;
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
    load_values(out, j, "pages", "thp", 0);
    load_values(out, j, "smt", "off", 0);
    load_values(out, j, "pools", NULL, l->n_pools);
    for (uint32_t i = 0; i < j->n_tries; i++) /* what their engines have */
        if (j->tries[i].fate == OUTER_OPEN && j->tries[i].threads > 0) {
            space_number(&out->axis[0], j->tries[i].threads);
            if (j->tries[i].threads > b->threads)
                space_number(&out->axis[0], (j->tries[i].threads + b->threads) / 2);
        }
    tune_prune_begin(&x, out, l, p, j, &j->pruned);
    return space_build(out, tune_prune_keep, &x, err);
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
    bool other = departs(s, config, "smt") != NULL || departs(s, config, "pools") != NULL;
    uint32_t threads = (uint32_t)space_get_number(s, config, "threads", 0);
    *out = (struct live_config){.threads = other ? threads : number_if(s, config, "threads"),
                                .gemv_rows = number_if(s, config, "gemv_rows"),
                                .claim_rows = number_if(s, config, "claim_rows"),
                                .gemm_claim_rows = number_if(s, config, "gemm_claim_rows"),
                                .spin_us = number_if(s, config, "spin_us")};
    if (k != NULL)
        snprintf(out->kernel, sizeof out->kernel, "%s", k->text);
}

void tune_layout(const struct space *s, uint32_t config, struct fleet_layout *out)
{
    const struct space_value *pages = departs(s, config, "pages"), *smt = departs(s, config, "smt");
    memset(out, 0, sizeof *out);
    if (pages != NULL)
        snprintf(out->pages, sizeof out->pages, "%.11s", pages->text);
    if (smt != NULL)
        snprintf(out->smt, sizeof out->smt, "%.11s", smt->text);
    out->pools = number_if(s, config, "pools");
}

void tune_fleet_config(void *ctx, uint32_t config, struct fleet_layout *layout,
                       struct live_config *out)
{
    tune_config(ctx, config, out);
    tune_layout(ctx, config, layout);
}

kt_status tune_read_shape(const char *model_path, struct tune_job *j, kt_err *err)
{
    struct mdl *m;
    KT_TRY(mdl_open(model_path, &m, err));
    bool dense = m->t.n_experts == 0;
    j->experts = dense ? 1 : m->t.n_experts;
    j->top_k = dense ? 1 : m->t.top_k;
    j->hidden = m->t.hidden;
    j->inter = dense ? m->t.dense_inter : m->t.expert_inter;
    j->layers = m->t.n_layers;
    mdl_close(m);
    return KT_OK;
}
