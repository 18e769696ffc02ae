/* tune_live.c - `kttune tune` on this machine: load, search, and where the verdict goes. The
 * profile gets one entry of `tunings` and the samples behind it, written as a whole at the end,
 * also when time was up or the user interrupted (then the entry says what is missing, and a later
 * run replaces it). While the search runs its notes lie beside the profile: a killed search goes on
 * from them.
 */
#include "tune_live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmds.h"
#include "fleet.h"
#include "kern.h"
#include "tune.h"
#include "tune_state.h"

#define SAVE_SECONDS 1.0 /* between two writes of the notes: what a kill costs at most */
#define TRY_LOADS 1.3    /* a try of an outer axis: loading once more .. */
#define TRY_SAMPLES 700  /* .. and 60 rounds of up to five samples, with what is around them */

/* ---- progress ---- */

struct show {
    const struct space *space;
    struct tune_state *state;
    bool tty;
    char stage[24];
};

static void show_progress(void *user, const struct search_progress *p)
{
    struct show *s = user;
    struct strbuf best = {0};
    kt_err err;
    if (state_mark(s->state, &err) != KT_OK)
        fprintf(stderr, "kttune tune: a kill from now on costs the whole search: %s\n", err.msg);
    bool fresh = strcmp(s->stage, p->stage) != 0;
    snprintf(s->stage, sizeof s->stage, "%s", p->stage);
    if (!s->tty && !fresh)
        return;
    if (p->has_best) {
        sb_printf(&best, ", best so far %+.1f %%: ", 100 * p->best_gain);
        space_text(s->space, p->best, false, &best);
    }
    fprintf(stderr, "%s%-8s round %2u of %2u, %3u configurations%s, %.0f s left%s",
            s->tty ? "\r\033[K" : "", p->stage, p->round, p->rounds, p->live,
            best.data != NULL ? best.data : "", p->left_seconds, s->tty ? "" : "\n");
    fflush(stderr);
    sb_free(&best);
}

/* The samples of the entry that is about to be replaced. */
static void forget_samples(struct profile *p, const struct tune_job *j)
{
    json_t *ms = json_object_get(p->root, "measurements");
    char prefix[128];
    tune_sample_id(j, "", prefix, sizeof prefix);
    for (size_t i = json_array_size(ms); i-- > 0;) {
        const char *id = json_string_value(json_object_get(json_array_get(ms, i), "id"));
        if (strncmp(id, prefix, strlen(prefix)) == 0)
            json_array_remove(ms, i);
    }
}

/* Put the entry and its samples into the profile as it is now, and write it. */
static kt_status store(const struct tune_live_args *a, const struct tune_job *j,
                       const struct search_out *r, kt_err *err)
{
    struct profile *p;
    json_t *ms = json_array(), *entry = tune_entry(j, r, ms);
    if (entry == NULL) {
        json_decref(ms);
        KT_FAIL(err, KT_E_NOMEM, "no memory for the result");
    }
    if (a->json) {
        char *text = json_dumps(entry, JSON_INDENT(2));
        printf("%s\n", text != NULL ? text : "null");
        free(text);
    }
    kt_status s = profile_read(a->profile, &p, err);
    if (s == KT_OK)
        forget_samples(p, j);
    for (size_t i = 0; i < json_array_size(ms) && s == KT_OK; i++)
        s = profile_put_measurement(p, json_incref(json_array_get(ms, i)), err);
    if (s == KT_OK)
        s = profile_put_tuning(p, json_incref(entry), err);
    if (s == KT_OK)
        s = profile_write(p, a->profile, err);
    profile_close(p);
    json_decref(ms);
    json_decref(entry);
    return s;
}

/* ---- notes of a search that may be killed ---- */

/* All that a sample and the order of samples depend on. */
static json_t *key_of(const struct tune_live_args *a, const struct tune_job *j,
                      const struct profile *p, const char *space)
{
    const kt_engine_opts *e = &a->live.engine;
    json_t *o = json_object();
    json_object_set_new(o, "backend", json_string("live"));
    json_object_set_new(o, "host", json_string(j->host));
    json_object_set_new(o, "soft", json_string(p != NULL ? p->soft_id : ""));
    json_object_set_new(o, "kernel_abi", json_string(j->abi));
    json_object_set_new(o, "model", json_string(j->model));
    json_object_set_new(o, "shape", tune_shape_json(j));
    json_object_set_new(o, "goal", json_string(j->goal));
    json_object_set_new(o, "seed", json_integer((json_int_t)j->seed));
    json_object_set_new(o, "quant", json_string(e->quant != NULL ? e->quant : "none"));
    json_object_set_new(o, "quant-dense",
                        json_string(e->quant_dense != NULL ? e->quant_dense : "none"));
    json_object_set_new(o, "kv-type", json_string(e->kv_type != NULL ? e->kv_type : "bf16"));
    json_object_set_new(o, "batch", json_integer(a->live.batch));
    json_object_set_new(o, "prompt", json_integer(a->live.prefill));
    json_object_set_new(o, "sample", json_real(a->live.sample_seconds));
    json_object_set_new(o, "space", json_string(space));
    return o;
}

static void tell_state(const struct tune_state *s)
{
    if (s->resumed)
        fprintf(stderr, "goes on from %s: %u samples, %.0f s of search are there already\n",
                s->path, s->journal.known, s->journal.note[s->journal.known - 1].end);
    else if (s->reason[0] != '\0')
        fprintf(stderr, "%s is not used: %s\n", s->path, s->reason);
}

/* Notes beside the profile, unless the user names another place. */
static kt_status begin_state(const struct tune_live_args *a, struct fleet *f, struct tune_state *s,
                             kt_err *err)
{
    if (a->restart)
        (void)unlink(s->path);
    KT_TRY(state_begin(s, &f->timer, false, err));
    f->slot[0].repeats = s->repeats;
    tell_state(s);
    if (s->resumed && s->journal.note[s->journal.known - 1].end >= s->seconds)
        fprintf(stderr,
                "the budget of %.0f s is used up: a greater --budget goes on, --restart "
                "begins anew\n",
                a->budget);
    return KT_OK;
}

/* The fleet's reason is better than the search's. */
static void explain_failures(struct tune_job *j, const struct fleet *f)
{
    for (uint32_t i = 0; i < j->n_tries; i++)
        if (j->tries[i].fate == OUTER_FAILED && f->reason[0] != '\0')
            snprintf(j->tries[i].reason, sizeof j->tries[i].reason, "%s", f->reason);
}

static kt_status conclude(const struct tune_live_args *a, struct tune_job *j,
                          const struct search_out *r, struct tune_state *state, int *code,
                          kt_err *err)
{
    if (!a->json)
        tune_print(j, r);
    KT_TRY(store(a, j, r, err));
    if (!a->json)
        printf("written  %s\n", a->profile);
    state->complete = r->missing[0] == '\0';
    if (state->complete)
        return KT_OK;
    *code = EXIT_DEADLINE;
    if (!a->json)
        printf("notes    %s: the same command with a greater --budget goes on\n", state->path);
    return KT_OK;
}

static kt_status search_live(const struct tune_live_args *a, struct tune_job *j, struct fleet *f,
                             const struct tune_layouts *facts, struct tune_state *state, int *code,
                             kt_err *err)
{
    struct show show = {.space = j->space, .state = state, .tty = isatty(2)};
    struct tune_layout_ctx layout = {j->space, facts};
    struct search_out r;
    KT_TRY(begin_state(a, f, state, err));
    struct outer_in in = {.search = {.n = j->space->n,
                                     .reference = 0,
                                     .rank = j->space->rank,
                                     .prior = j->space->prior,
                                     .budget_seconds = state->seconds,
                                     .seed = a->seed,
                                     .stop = a->stop,
                                     .progress = show_progress,
                                     .user = &show},
                          .try_seconds = TRY_LOADS * f->slot[0].load_seconds +
                                         TRY_SAMPLES * a->live.sample_seconds,
                          .configs = tune_layout_configs,
                          .rank = tune_layout_rank,
                          .ctx = &layout};
    KT_TRY(outer_run(&in, j->tries, j->n_tries, &state->journal.timer, &r, err));
    if (show.tty)
        fprintf(stderr, "\r\033[K");
    explain_failures(j, f);
    kt_status s = conclude(a, j, &r, state, code, err);
    search_free(&r);
    return s;
}

static kt_status search_noted(const struct tune_live_args *a, struct tune_job *j, struct fleet *f,
                              const struct tune_layouts *facts, const struct profile *p,
                              double seconds, int *code, kt_err *err)
{
    char space[72];
    struct strbuf path = {0};
    sb_printf(&path, "%s.tune-%s", a->profile, j->goal);
    if (!sb_ok(&path))
        KT_FAIL(err, KT_E_NOMEM, "no memory for a path");
    struct tune_state state = {.path = a->state != NULL ? a->state : path.data,
                               .every = SAVE_SECONDS,
                               .repeats = f->slot[0].repeats,
                               .budget = a->budget,
                               .seconds = seconds};
    kt_status s = state_space_id(j->space, space, err);
    state.key = s == KT_OK ? key_of(a, j, p, space) : NULL;
    if (s == KT_OK)
        s = search_live(a, j, f, facts, &state, code, err);
    state_end(&state, state.complete);
    json_decref(state.key);
    sb_free(&path);
    return s;
}

static kt_status with_engine(const struct tune_live_args *a, struct tune_job *j,
                             const struct profile *p, const struct host *h, int *code, kt_err *err)
{
    double deadline = clock_seconds() + a->budget;
    struct fleet f = {0};
    struct space space = {0};
    fprintf(stderr, "loading %s\n", j->model);
    kt_status s = fleet_open(&f, &a->live, err);
    const struct live *l = &f.slot[0];
    struct tune_layouts facts = {h, l->bytes, l->n_pools, l->built_in.threads};
    if (s == KT_OK) {
        tune_layout_tries(&facts, j);
        j->format = l->expert_format[0] != '\0' ? l->expert_format : l->dense_format;
        s = tune_space(l, p, j, &space, err);
    }
    if (s == KT_OK) {
        f.config = tune_fleet_config;
        f.ctx = j->space = &space;
        double left = deadline - clock_seconds();
        if (left < 1)
            s = err_set(err, KT_E_TIMEOUT, 0, __func__,
                        "loading took %.0f of %.0f s; give more with --budget", l->load_seconds,
                        a->budget);
        else if (a->record != NULL)
            s = tune_record(j, &f.timer, left, a->stop, a->record, err);
        else
            s = search_noted(a, j, &f, &facts, p, left, code, err);
    }
    fleet_close(&f);
    space_free(&space);
    return s;
}

int tune_live(struct tune_live_args *a)
{
    char abi[17];
    struct profile *p = NULL;
    struct profile_match m = {0};
    struct host *h;
    kt_err err;
    int code = EXIT_OK;
    if (host_read(NULL, &h, &err) != KT_OK)
        return cmd_fail("tune", &err, 0);
    kt_status s =
        a->profile != NULL ? profile_open_for_host(a->profile, h, false, &p, &m, &err) : KT_OK;
    if (s != KT_OK || m.state == PROFILE_MISMATCH) {
        code = s != KT_OK ? cmd_fail("tune", &err, 0) : EXIT_PROFILE;
        if (s == KT_OK)
            fprintf(stderr,
                    "kttune tune: %s is of another machine (KT026); measure this one: "
                    "kttune probe -o FILE\n",
                    a->profile);
    } else {
        struct tune_job j = {.goal = a->goal,
                             .model = a->live.engine.model_path,
                             .host = p != NULL ? p->hard_id : "sha256:unknown",
                             .abi = abi,
                             .stage = a->budget <= 30    ? "quick"
                                      : a->budget <= 300 ? "default"
                                                         : "deep",
                             .seed = a->seed};
        const char *name = strrchr(j.model, '/');
        j.model = name != NULL && name[1] != '\0' ? name + 1 : j.model;
        kern_abi(abi);
        a->live.engine.profile_path = a->profile;
        a->live.engine.ignore_tunings = true;
        s = tune_read_shape(a->live.engine.model_path, &j, &err);
        if (s != KT_OK)
            code = cmd_fail("tune", &err, 1);
        else if (with_engine(a, &j, p, h, &code, &err) != KT_OK)
            code = cmd_fail("tune", &err, err.code == KT_E_FORMAT);
    }
    profile_match_free(&m);
    profile_close(p);
    host_free(h);
    return code;
}
