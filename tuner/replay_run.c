/* replay_run.c - one search over a recorded table, and how far its choice is from the table's best.
 * Truth is the table's median of each config: the search sees single samples in the order of its
 * own rounds. The clock is virtual, so the same table, seed and disturbances give the same bytes on
 * every machine. Prints nothing.
 */
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "tune_replay.h"
#include "tune_state.h"

#define DWELL_SAMPLES 60 /* mean number of samples between two changes of speed */

double tune_replay_regret(const struct replay *r, uint32_t chosen)
{
    double best = r->median[r->reference];
    for (uint32_t i = 0; i < r->space.n; i++) {
        double m = r->median[i];
        if (m > 0 && m < best)
            best = m;
    }
    return 1 - best / r->median[chosen];
}

/* What a sample depends on, beside its config. */
static json_t *key_of(const struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                      const char *space)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:f,s:f,s:f,s:f}", "backend", "replay", "host",
                     r->host, "kernel_abi", r->kernel_abi, "model", r->model, "goal", r->goal,
                     "space", space, "seed", (json_int_t)seed, "drift", a->drift, "outliers",
                     a->outliers, "slow", a->slow, "noise", r->noise);
}

static void mark(void *user, const struct search_progress *p)
{
    (void)p;
    (void)state_mark(user, NULL);
}

kt_status tune_replay_resume(struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                             struct search_out *out, struct tune_replay_state *told, kt_err *err)
{
    struct virtual_timer t;
    struct virtual_faults f;
    struct virtual_source src = replay_source(r);
    struct tune_state state = {
        .path = a->state, .repeats = 1, .budget = a->budget, .seconds = a->budget};
    char space[72];
    double each = r->median[r->reference];
    virtual_faults_none(&f);
    f.drift = a->drift;
    f.drift_seconds = a->drift > 0 ? fmin(a->budget, each * (3.0 * r->space.n + 400)) : 0;
    f.outliers = a->outliers;
    f.slow_factor = a->slow;
    f.dwell_seconds = DWELL_SAMPLES * each;
    virtual_open(&t, &src, &f, seed);
    KT_TRY(state_space_id(&r->space, space, err));
    state.key = key_of(r, a, seed, space);
    if (state.key == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the key of a search");
    if (a->state != NULL && a->restart)
        (void)unlink(a->state);
    kt_status s = state_begin(&state, &t.timer, true, err);
    if (told != NULL) {
        *told = (struct tune_replay_state){.resumed = state.journal.known};
        snprintf(told->reason, sizeof told->reason, "%s", state.reason);
    }
    struct search_in in = {.n = r->space.n,
                           .reference = r->reference,
                           .rank = r->space.rank,
                           .budget_seconds = state.seconds,
                           .seed = seed,
                           .progress = mark,
                           .user = &state};
    if (s == KT_OK)
        s = search_run(&in, &state.journal.timer, out, err);
    state_end(&state, s == KT_OK && out->missing[0] == '\0');
    json_decref(state.key);
    return s;
}

kt_status tune_replay_once(struct replay *r, const struct tune_replay_args *a, uint64_t seed,
                           struct search_out *out, kt_err *err)
{
    return tune_replay_resume(r, a, seed, out, NULL, err);
}
