/* verify_regret.c - `kttune verify F --regret`: the config that a tuning of the profile chose,
 * against 59 random ones of the whole space (nothing is left out by a rule), on this machine or
 * over a recorded table. Where the choice has pages, SMT or pools of its own, half of the rivals
 * have them too. Writes nothing.
 */
#include "verify_regret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmds.h"
#include "fleet.h"
#include "kern.h"
#include "profile/profile.h"
#include "regret.h"
#include "search_stats.h"
#include "timer_replay.h"
#include "tune.h"

/* ---- the config that is judged ---- */

/* Indexes of a config's values; an axis that it does not name has its default. */
static bool locate(const struct space *s, const json_t *config, uint8_t *at)
{
    for (uint32_t i = 0; i < s->n_axes; i++) {
        const json_t *v = json_object_get(config, s->axis[i].name);
        struct space_value want = {.number = json_number_value(v)};
        uint32_t axis;
        at[i] = 0;
        if (v == NULL)
            continue;
        if (json_is_string(v))
            snprintf(want.text, sizeof want.text, "%.31s", json_string_value(v));
        if (!space_find(s, s->axis[i].name, &want, &axis, &at[i]))
            return false;
    }
    return true;
}

static bool same_shape(const json_t *shape, const struct tune_job *j)
{
    const char *format = json_string_value(json_object_get(shape, "format"));
    return json_integer_value(json_object_get(shape, "experts")) == j->experts &&
           json_integer_value(json_object_get(shape, "top_k")) == j->top_k &&
           json_integer_value(json_object_get(shape, "hidden")) == j->hidden &&
           json_integer_value(json_object_get(shape, "inter")) == j->inter && format != NULL &&
           (j->format == NULL || strcmp(format, j->format) == 0);
}

/* The entry of the profile for this goal and shape; NULL: none. */
static const json_t *entry_of(const struct profile *p, const struct tune_job *j)
{
    const json_t *list = json_object_get(p->root, "tunings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        const char *goal = json_string_value(json_object_get(e, "goal")),
                   *abi = json_string_value(json_object_get(e, "kernel_abi"));
        if (strcmp(goal, j->goal) == 0 && strcmp(abi, j->abi) == 0 &&
            same_shape(json_object_get(e, "shape"), j))
            return e;
    }
    return NULL;
}

/* *out: the config to judge (a reference of the caller's). */
static kt_status chosen_of(const struct verify_regret_args *a, const struct tune_job *j,
                           json_t **out, kt_err *err)
{
    struct profile *p;
    *out = NULL;
    if (a->chosen != NULL) {
        *out = json_loads(a->chosen, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(*out))
            KT_FAIL(err, KT_E_INVALID, "--chosen takes a JSON object such as {\"threads\": 2}");
        return KT_OK;
    }
    KT_TRY(profile_read(a->profile, &p, err));
    const json_t *e = entry_of(p, j);
    if (e != NULL)
        *out = json_deep_copy(json_object_get(e, "chosen"));
    profile_close(p);
    if (e == NULL)
        KT_FAIL(err, KT_E_INVALID,
                "%s: no tuning of this model's shape for %s by this build; make one: kttune tune",
                a->profile, j->goal);
    return *out != NULL ? KT_OK : err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a config");
}

/* ---- the verdict ---- */

static void print_config(const char *label, const struct space *s, uint32_t config)
{
    struct strbuf t = {0};
    space_text(s, config, true, &t);
    printf("%-8s %s\n", label, t.data != NULL ? t.data : "");
    sb_free(&t);
}

static int verdict(const struct space *s, uint32_t chosen, const struct regret_out *r)
{
    print_config("chosen", s, chosen);
    if (r->best != UINT32_MAX)
        print_config("best", s, r->best);
    printf("rivals   %u random configurations of %u, %u failed; noise CV %.1f %%, %.0f s\n",
           r->rivals, s->n, r->failed, 100 * r->noise_cv, r->seconds);
    if (!r->complete) {
        printf("open     time was up before the fresh rounds were done; give more with --budget\n");
        return EXIT_DEADLINE;
    }
    printf("regret   %.1f %% against the best of them, at most %.1f %% (95 %%) in %u fresh paired "
           "rounds: %s\n",
           100 * r->median, 100 * r->upper, r->rounds,
           r->met ? "met, the bound is 5 %" : "NOT MET, the bound is 5 %");
    return r->met ? EXIT_OK : EXIT_NOT_MET;
}

/* ---- over a table ---- */

static kt_status over_table(const struct verify_regret_args *a, int *code, kt_err *err)
{
    struct replay r;
    struct virtual_timer t;
    struct virtual_faults f;
    json_t *config = NULL;
    uint8_t at[SPACE_AXES];
    KT_TRY(replay_read(a->replay, &r, err));
    struct virtual_source src = replay_source(&r);
    const json_t *shape = json_object_get(r.root, "shape");
    struct tune_job j = {.goal = r.goal,
                         .abi = r.kernel_abi,
                         .experts = (uint32_t)json_integer_value(json_object_get(shape, "experts")),
                         .top_k = (uint32_t)json_integer_value(json_object_get(shape, "top_k")),
                         .hidden = (uint32_t)json_integer_value(json_object_get(shape, "hidden")),
                         .inter = (uint32_t)json_integer_value(json_object_get(shape, "inter")),
                         .format = json_string_value(json_object_get(shape, "format"))};
    virtual_faults_none(&f);
    virtual_open(&t, &src, &f, a->seed);
    kt_status s = chosen_of(a, &j, &config, err);
    uint32_t chosen = UINT32_MAX;
    if (s == KT_OK && locate(&r.space, config, at))
        for (uint32_t i = 0; i < r.space.n; i++)
            if (memcmp(r.space.at + (size_t)i * r.space.n_axes, at, r.space.n_axes) == 0)
                chosen = i;
    if (s == KT_OK && chosen == UINT32_MAX)
        s = err_set(err, KT_E_INVALID, 0, __func__, "%s does not hold the chosen configuration",
                    a->replay);
    if (s == KT_OK) {
        struct regret_in in = {
            .n = r.space.n, .chosen = chosen, .budget_seconds = a->budget, .seed = a->seed};
        struct regret_out out;
        in.n_rivals = regret_draw(in.n, chosen, a->seed, in.rival);
        s = regret_run(&in, &t.timer, &out, err);
        if (s == KT_OK)
            *code = verdict(&r.space, chosen, &out);
    }
    json_decref(config);
    replay_free(&r);
    return s;
}

/* ---- live ---- */

/* Axes that are fixed at load, with the value that the choice has. */
static void layout_axes(const json_t *config, struct tune_job *j)
{
    static const char *const axis[] = {"pages", "smt", "pools"};
    static const char *const def[] = {"thp", "off", ""};
    for (int i = 0; i < 3; i++) {
        const json_t *v = json_object_get(config, axis[i]);
        if (v == NULL || (json_is_string(v) && strcmp(json_string_value(v), def[i]) == 0))
            continue;
        struct outer_try *t = &j->tries[j->n_tries++];
        *t = (struct outer_try){
            .threads = (uint32_t)json_integer_value(json_object_get(config, "threads"))};
        snprintf(t->axis, sizeof t->axis, "%s", axis[i]);
        if (json_is_string(v))
            snprintf(t->value, sizeof t->value, "%.15s", json_string_value(v));
        else
            snprintf(t->value, sizeof t->value, "%lld", (long long)json_integer_value(v));
    }
}

/* Half of the rivals get what the choice has of pages, SMT and pools. */
static void mix_layouts(struct space *s, const uint8_t *chosen, uint64_t seed, struct regret_in *in)
{
    uint8_t at[SPACE_AXES];
    for (uint32_t i = 0; i < in->n_rivals; i++) {
        bool other = false;
        if (ss_below(&seed, 2) == 0)
            continue;
        memcpy(at, s->at + (size_t)in->rival[i] * s->n_axes, s->n_axes);
        for (uint32_t k = 0; k < s->n_axes; k++)
            if (s->axis[k].apart && at[k] != chosen[k]) {
                at[k] = chosen[k];
                other = true;
            }
        uint32_t config = other ? space_add(s, at) : UINT32_MAX;
        if (config != UINT32_MAX && config != in->chosen)
            in->rival[i] = config;
    }
}

static kt_status judge_live(const struct verify_regret_args *a, struct fleet *f, struct space *s,
                            const json_t *config, int *code, kt_err *err)
{
    uint8_t at[SPACE_AXES];
    struct regret_out out;
    if (!locate(s, config, at))
        KT_FAIL(err, KT_E_INVALID,
                "the chosen configuration does not exist on this host: limits or build changed");
    uint32_t built = s->n;
    struct regret_in in = {
        .chosen = space_add(s, at), .budget_seconds = a->budget, .seed = a->seed};
    in.n_rivals = regret_draw(built, in.chosen, a->seed, in.rival);
    mix_layouts(s, at, a->seed, &in);
    in.n = s->n;
    f->config = tune_fleet_config;
    f->ctx = s;
    KT_TRY(regret_run(&in, &f->timer, &out, err));
    *code = verdict(s, in.chosen, &out);
    return KT_OK;
}

static kt_status live(struct verify_regret_args *a, int *code, kt_err *err)
{
    char abi[17];
    struct fleet f = {0};
    struct space space = {0};
    json_t *config = NULL;
    struct tune_job j = {.goal = a->goal, .abi = abi};
    kern_abi(abi);
    KT_TRY(tune_read_shape(a->live.engine.model_path, &j, err));
    KT_TRY(chosen_of(a, &j, &config, err)); /* before loading: it may be missing */
    layout_axes(config, &j);
    a->live.engine.profile_path = a->profile;
    a->live.engine.ignore_tunings = true;
    fprintf(stderr, "loading %s\n", a->live.engine.model_path);
    kt_status s = fleet_open(&f, &a->live, err);
    if (s == KT_OK)
        s = tune_space(&f.slot[0], NULL, &j, &space, err);
    if (s == KT_OK)
        s = judge_live(a, &f, &space, config, code, err);
    fleet_close(&f);
    space_free(&space);
    json_decref(config);
    return s;
}

int verify_regret(struct verify_regret_args *a)
{
    int code = EXIT_OK;
    kt_err err = {0};
    if (a->goal == NULL)
        a->goal = "decode";
    a->live.goal = strcmp(a->goal, "prefill") == 0 ? LIVE_PREFILL
                   : strcmp(a->goal, "both") == 0  ? LIVE_BOTH
                                                   : LIVE_DECODE;
    kt_status s = a->replay != NULL ? over_table(a, &code, &err) : live(a, &code, &err);
    return s == KT_OK ? code : cmd_fail("verify", &err, err.code == KT_E_FORMAT);
}
