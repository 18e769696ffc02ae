/* tune_json.c - the verdict of a search as an entry of `tunings`, with the paired samples that it
 * rests on as measurements: unit "ratio", a config's time over the default's in the same round.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "measure.h"
#include "tune.h"

json_t *tune_shape_json(const struct tune_job *j)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:s}", "experts", (json_int_t)j->experts, "top_k",
                     (json_int_t)j->top_k, "hidden", (json_int_t)j->hidden, "inter",
                     (json_int_t)j->inter, "layers", (json_int_t)j->layers, "format", j->format);
}

static void now_text(char out[32])
{
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *span_json(const struct span *s)
{
    return json_pack("[f,f]", s->lo, s->hi);
}

/* "tune.decode:e128.k8.h2048.i768.mxfp4.rival1" */
void tune_sample_id(const struct tune_job *j, const char *who, char *out, size_t n)
{
    snprintf(out, n, "tune.%s:e%u.k%u.h%u.i%u.%s.%s", j->goal, j->experts, j->top_k, j->hidden,
             j->inter, j->format, who);
}

/* Ratios of one finalist as a measurement: the fresh rounds if there are any. */
static json_t *samples(const struct tune_job *j, const struct search_finalist *f, const char *id)
{
    struct m_record rec[SEARCH_ROUNDS_MOST] = {0};
    struct m_result r = {.records = rec, .end = M_DONE};
    struct strbuf what = {0};
    json_t *list = json_array();
    bool fresh = f->proof.n > 0;
    uint32_t n = fresh ? f->n_proof : f->n_choice;
    for (uint32_t i = 0; i < n; i++) {
        double v = fresh ? f->proof_log[i] : f->choice_log[i];
        if (isnan(v))
            continue;
        rec[r.n++] = (struct m_record){.kind = M_SAMPLE, .value = exp(v)};
        json_array_append_new(list, json_real(exp(v)));
    }
    sb_printf(&what, "time of a %s sample over the default's: ", j->goal);
    space_text(j->space, f->config, false, &what);
    now_text(r.started);
    struct m_desc d = {.id = id,
                       .what = what.data != NULL ? what.data : j->goal,
                       .params = space_json(j->space, f->config),
                       .unit = "ratio",
                       .method = fresh
                                     ? "paired rounds in random order, the default first and "
                                       "last; not those that chose the config"
                                     : "paired rounds in random order, the default first and last",
                       .kernel_abi = j->abi};
    json_t *m = r.n > 0 ? m_json(&d, &r, 0) : m_json_none(&d, "failed", "no round was finished");
    if (m != NULL && r.n > 0)
        json_object_set(m, "samples", list);
    json_decref(list);
    sb_free(&what);
    return m;
}

/* One decision for each axis on which the choice departs from the default. */
static json_t *decisions(const struct tune_job *j, const struct search_out *r, const char *because,
                         const struct search_finalist *rival)
{
    json_t *list = json_array();
    struct strbuf all = {0};
    char id[64], why[256];
    space_text(j->space, r->chosen, false, &all);
    for (uint32_t i = 0; i < j->space->n_axes && r->proved; i++) {
        const char *name = j->space->axis[i].name;
        const struct space_value *v = space_get(j->space, r->chosen, name),
                                 *d = space_get(j->space, 0, name);
        if (v->number == d->number && strcmp(v->text, d->text) == 0)
            continue;
        snprintf(id, sizeof id, "tune.%s", name);
        snprintf(why, sizeof why, "%s: %.1f %% faster than the default in %u fresh paired rounds",
                 all.data != NULL ? all.data : "", 100 * r->gain.median, r->gain.n);
        json_t *alts = json_array();
        json_array_append_new(alts, json_pack("{s:o,s:f,s:b}", "value", space_value_json(d), "loss",
                                              r->gain.median, "distinguishable", 1));
        const struct space_value *o =
            rival != NULL ? space_get(j->space, rival->config, name) : NULL;
        if (o != NULL && (o->number != v->number || strcmp(o->text, v->text) != 0) &&
            (o->number != d->number || strcmp(o->text, d->text) != 0))
            json_array_append_new(
                alts,
                json_pack("{s:o,s:f,s:b}", "value", space_value_json(o), "loss",
                          exp(rival->behind.median) - 1, "distinguishable",
                          rival->behind.has_ci && (rival->behind.lo > 0 || rival->behind.hi < 0)));
        json_array_append_new(
            list, json_pack("{s:s,s:o,s:s,s:s,s:[s],s:o,s:f,s:s,s:s}", "id", id, "value",
                            space_value_json(v), "origin", "measured", "why", why, "because",
                            because, "alternatives", alts, "margin",
                            rival != NULL ? exp(rival->behind.median) - 1 : r->gain.median,
                            "confidence", r->noise_cv > 0.05 ? "medium" : "high", "goal", j->goal));
    }
    sb_free(&all);
    return list;
}

/* The best of the other finalists. */
static const struct search_finalist *runner_up(const struct search_out *r)
{
    const struct search_finalist *best = NULL;
    for (uint32_t i = 0; i < r->n_finalists; i++)
        if (r->finalist[i].config != r->chosen && r->finalist[i].behind.n > 0 &&
            (best == NULL || r->finalist[i].behind.median < best->behind.median))
            best = &r->finalist[i];
    return best;
}

static json_t *finalists(const struct tune_job *j, const struct search_out *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->n_finalists; i++) {
        const struct search_finalist *f = &r->finalist[i];
        json_t *o = json_object();
        json_object_set_new(o, "config", space_json(j->space, f->config));
        json_object_set_new(o, "behind_chosen",
                            f->behind.n > 0 ? json_real(exp(f->behind.median) - 1) : json_null());
        json_object_set_new(o, "rounds", json_integer(f->n_proof > 0 ? f->n_proof : f->n_choice));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *proved_parts(const struct search_out *r, json_t *o)
{
    json_t *gain = json_null(), *regret = json_null();
    if (r->gain.n > 0)
        gain = json_pack("{s:f,s:o,s:I}", "median", r->gain.median, "ci95", span_json(&r->gain),
                         "n", (json_int_t)r->gain.n);
    if (r->regret.n > 0)
        regret = json_pack("{s:f,s:f,s:I}", "median", r->regret.median, "upper95", r->regret.hi,
                           "rivals", (json_int_t)r->regret.n);
    json_object_set_new(o, "proved", json_boolean(r->proved));
    json_object_set_new(o, "gain", gain);
    json_object_set_new(o, "regret", regret);
    return o;
}

/* {"knee": {"configs": 12, "why": ".."}, ..}: configs that were not timed, by rule */
static json_t *pruned_json(const struct tune_job *j)
{
    json_t *o = json_object();
    for (int i = 0; i < TUNE_RULES; i++)
        if (j->pruned.n[i] > 0)
            json_object_set_new(o, tune_rule_name(i),
                                json_pack("{s:I,s:s}", "configs", (json_int_t)j->pruned.n[i], "why",
                                          j->pruned.why[i]));
    return o;
}

static json_t *tries_json(const struct tune_job *j)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < j->n_tries; i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "axis", j->tries[i].axis,
                                              "value", j->tries[i].value, "result",
                                              outer_fate_name(j->tries[i].fate), "reason",
                                              j->tries[i].reason));
    return list;
}

json_t *tune_entry(const struct tune_job *j, const struct search_out *r, json_t *measurements)
{
    char created[32], chosen_id[128] = "", id[128], who[16];
    const struct search_finalist *rival = runner_up(r);
    for (uint32_t i = 0, k = 0; i < r->n_finalists; i++) {
        bool chosen = r->finalist[i].config == r->chosen;
        snprintf(who, sizeof who, "rival%u", ++k);
        tune_sample_id(j, chosen ? "chosen" : who, id, sizeof id);
        if (chosen)
            snprintf(chosen_id, sizeof chosen_id, "%s", id);
        json_t *m = samples(j, &r->finalist[i], id);
        if (m == NULL || json_array_append_new(measurements, m) != 0)
            return NULL;
    }
    now_text(created);
    json_t *o = json_object();
    json_object_set_new(o, "host", json_string(j->host));
    json_object_set_new(o, "shape", tune_shape_json(j));
    json_object_set_new(o, "goal", json_string(j->goal));
    json_object_set_new(o, "kernel_abi", json_string(j->abi));
    json_object_set_new(o, "stage", json_string(j->stage));
    json_object_set_new(o, "created", json_string(created));
    json_object_set_new(o, "seed", json_integer((json_int_t)j->seed));
    json_object_set_new(o, "noise_cv", json_real(r->noise_cv));
    json_object_set_new(o, "configs_total", json_integer(j->space->total));
    json_object_set_new(o, "configs_timed", json_integer(r->timed));
    json_object_set_new(o, "stop", json_string(search_stop_name(r->stop)));
    json_object_set_new(o, "default", space_json(j->space, 0));
    json_object_set_new(o, "chosen", space_json(j->space, r->chosen));
    proved_parts(r, o);
    json_object_set_new(o, "decisions", decisions(j, r, chosen_id, rival));
    json_object_set_new(o, "x_model", json_string(j->model));
    json_object_set_new(o, "x_seconds", json_real(r->elapsed_seconds));
    json_object_set_new(o, "x_samples", json_integer(r->samples));
    json_object_set_new(o, "x_default_seconds", json_real(r->default_seconds));
    json_object_set_new(o, "x_pruned", pruned_json(j));
    json_object_set_new(o, "x_at_load", tries_json(j));
    json_object_set_new(o, "x_complete", json_boolean(r->missing[0] == '\0'));
    json_object_set_new(o, "x_failed", json_integer(r->failed + r->hung));
    json_object_set_new(o, "x_finalists", finalists(j, r));
    if (r->missing[0] != '\0')
        json_object_set_new(o, "x_missing", json_string(r->missing));
    return o;
}
