/* tune_replay.c - the command's side of a replay: one search reported in full, or many seeds and
 * the distribution of their regret. The table is never written. */
#include "tune_replay.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "cmds.h"
#include "tune.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Many seeds: the distribution of regret, and how often something else was chosen. */
static int many(struct replay *r, const struct tune_replay_args *a)
{
    kt_err err;
    uint32_t proved = 0, above2 = 0;
    double cv = 0, *v = mem_calloc(a->seeds, sizeof *v);
    kt_status s = v != NULL ? KT_OK : KT_E_NOMEM;
    snprintf(err.msg, sizeof err.msg, "no memory for %u seeds", a->seeds);
    err.code = KT_E_NOMEM;
    for (uint32_t i = 0; i < a->seeds && s == KT_OK; i++) {
        struct search_out out;
        s = tune_replay_once(r, a, a->seed + i, &out, &err);
        if (s != KT_OK)
            break;
        v[i] = tune_replay_regret(r, out.chosen);
        proved += out.proved;
        above2 += v[i] > 0.02;
        cv += out.noise_cv / a->seeds;
        search_free(&out);
    }
    if (s != KT_OK) {
        mem_free(v);
        return cmd_fail("tune", &err, 0);
    }
    qsort(v, a->seeds, sizeof *v, ascending);
    double median = v[a->seeds / 2], upper = v[(uint32_t)(0.95 * (a->seeds - 1))];
    if (a->json)
        printf("{\"seeds\":%u,\"noise_cv\":%.4f,\"regret_median\":%.5f,\"regret_upper95\":%.5f,"
               "\"regret_max\":%.5f,\"above_2_percent\":%u,\"proved\":%u}\n",
               a->seeds, cv, median, upper, v[a->seeds - 1], above2, proved);
    else
        printf("%u seeds, noise CV %.1f %%: regret median %.2f %%, 95 %% of the runs within "
               "%.2f %%, worst %.2f %%; %u above 2 %%; %u proved a gain\n",
               a->seeds, 100 * cv, 100 * median, 100 * upper, 100 * v[a->seeds - 1], above2,
               proved);
    mem_free(v);
    return EXIT_OK;
}

static void print_json(const struct replay *r, const struct search_out *o)
{
    struct strbuf b = {0};
    struct json_out j;
    json_t *c = space_json(&r->space, o->chosen);
    char *text = c != NULL ? json_dumps(c, JSON_COMPACT) : NULL;
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "goal", r->goal);
    jo_kstr(&j, "stop", search_stop_name(o->stop));
    jo_kbool(&j, "proved", o->proved);
    jo_key(&j, "chosen");
    jo_raw(&j, text != NULL ? text : "null");
    jo_kreal(&j, "gain", o->gain.n > 0 ? o->gain.median : (double)NAN);
    jo_kreal(&j, "gain_lo", o->gain.n > 0 ? o->gain.lo : (double)NAN);
    jo_kreal(&j, "gain_hi", o->gain.n > 0 ? o->gain.hi : (double)NAN);
    jo_kreal(&j, "noise_cv", o->noise_cv);
    jo_kreal(&j, "regret", tune_replay_regret(r, o->chosen));
    jo_kuint(&j, "samples", o->samples);
    jo_kreal(&j, "virtual_seconds", o->elapsed_seconds);
    jo_kuint(&j, "configs", r->space.n);
    jo_kuint(&j, "timed", o->timed);
    jo_kuint(&j, "failed", o->failed);
    jo_kstr(&j, "missing", o->missing);
    jo_object_end(&j);
    printf("%s\n", b.data != NULL ? b.data : "null");
    free(text);
    json_decref(c);
    sb_free(&b);
}

static void tell_state(const struct tune_replay_args *a, const struct tune_replay_state *t)
{
    if (t->resumed > 0)
        fprintf(stderr, "kttune tune: goes on from %s: %u samples are there already\n", a->state,
                t->resumed);
    else if (t->reason[0] != '\0')
        fprintf(stderr, "kttune tune: %s is not used: %s\n", a->state, t->reason);
}

int tune_replay(const struct tune_replay_args *a)
{
    struct replay r;
    struct search_out out;
    struct tune_replay_state told = {0};
    kt_err err;
    if (replay_read(a->path, &r, &err) != KT_OK)
        return cmd_fail("tune", &err, 0);
    int code = EXIT_OK;
    if (a->noise_cv > 0 && replay_cv(&r) > 0)
        r.noise = a->noise_cv / replay_cv(&r);
    if (a->seeds > 0) {
        code = many(&r, a);
    } else if (tune_replay_resume(&r, a, a->seed, &out, &told, &err) != KT_OK) {
        code = cmd_fail("tune", &err, 0);
    } else {
        tell_state(a, &told);
        struct tune_job j = {.goal = r.goal, .space = &r.space};
        if (a->json) {
            print_json(&r, &out);
        } else {
            printf("replay   %s, %s of %s, %u configurations of %s\n", a->path, r.goal, r.model,
                   r.space.n, r.created);
            tune_print(&j, &out);
            printf("truth    %.2f %% slower than the table's best\n",
                   100 * tune_replay_regret(&r, out.chosen));
        }
        if (out.missing[0] != '\0')
            code = EXIT_DEADLINE;
        search_free(&out);
    }
    replay_free(&r);
    return code;
}
