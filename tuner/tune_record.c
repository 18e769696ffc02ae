/* tune_record.c - a timing table for replay: every config of the space in random interleaved rounds
 * until the deadline, written as "kt.replay/1". The default is timed directly before each sample,
 * which is scaled by it: the machine's own drift is left out of a table, a replay injects what it
 * wants to. A config that fails once is marked so; one that is clearly slow is timed a few times
 * only, because what matters is among the fast ones. Samples are kept to five digits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "timer_replay.h"
#include "tune.h"

#define ROUNDS_MOST 200
#define LIMIT_SECONDS 60.0
#define SLOW_ROUNDS 3
#define SLOW_FACTOR 1.4
#define REF_MOST 1024

struct table {
    double *v;      /* [n][ROUNDS_MOST] times over the default's */
    uint32_t *have; /* [n] samples; UINT32_MAX: failed */
    uint32_t *order;
    uint32_t rounds, n_ref;
    double ref[REF_MOST], ref_median; /* seconds of the default */
};

/* One sample of a config; false when the deadline came or the user stopped it. */
static bool take(struct kt_timer *timer, uint32_t config, uint32_t rep, double deadline,
                 const volatile sig_atomic_t *stop, double *seconds)
{
    *seconds = -1;
    if (timer->now(timer->ctx) >= deadline || (stop != NULL && *stop))
        return false;
    if (timer->limit_seconds != NULL)
        *timer->limit_seconds = LIMIT_SECONDS;
    if (timer->time(timer->ctx, config, rep, seconds) != TIMER_OK)
        *seconds = -1;
    return true;
}

/* A config whose samples all lie far above the default's. */
static bool slow(const struct table *t, uint32_t config)
{
    double least = (double)INFINITY;
    for (uint32_t i = 0; i < t->have[config]; i++)
        least = fmin(least, t->v[(size_t)config * ROUNDS_MOST + i]);
    return t->have[config] >= SLOW_ROUNDS && least > SLOW_FACTOR;
}

/* Ratios to the default; the default's own row holds its two neighbouring samples' ratio. */
static void fill(struct table *t, uint32_t n, uint64_t seed, struct kt_timer *timer,
                 double deadline, const volatile sig_atomic_t *stop)
{
    uint64_t rng = seed;
    for (uint32_t r = 0; r < ROUNDS_MOST; r++) {
        ss_shuffle(&rng, t->order, n);
        for (uint32_t k = 0; k < n; k++) {
            uint32_t c = t->order[k];
            double ref, s;
            if (t->have[c] == UINT32_MAX || slow(t, c))
                continue;
            if (!take(timer, 0, 0, deadline, stop, &ref) || ref < 0 ||
                !take(timer, c, r, deadline, stop, &s))
                return;
            t->ref[t->n_ref++ % REF_MOST] = ref;
            if (s > 0)
                t->v[(size_t)c * ROUNDS_MOST + t->have[c]++] = s / ref;
            else
                t->have[c] = UINT32_MAX;
        }
        t->rounds = r + 1;
        fprintf(stderr, "round %u, %.0f s left\n", r + 1, deadline - timer->now(timer->ctx));
    }
}

static void write_value(struct json_out *o, const struct space_value *v)
{
    if (v->text[0] != '\0')
        jo_str(o, v->text);
    else
        jo_real(o, v->number);
}

static void write_axes(struct json_out *o, const struct space *s)
{
    jo_key(o, "axes");
    jo_array(o);
    for (uint32_t i = 0; i < s->n_axes; i++) {
        jo_object(o);
        jo_kstr(o, "name", s->axis[i].name);
        jo_key(o, "values");
        jo_array(o);
        for (uint32_t k = 0; k < s->axis[i].n; k++)
            write_value(o, &s->axis[i].v[k]);
        jo_array_end(o);
        jo_object_end(o);
    }
    jo_array_end(o);
}

static void write_config(struct json_out *o, const struct space *s, const struct table *t,
                         uint32_t c)
{
    jo_object(o);
    jo_key(o, "config");
    jo_object(o);
    for (uint32_t i = 0; i < s->n_axes; i++) {
        jo_key(o, s->axis[i].name);
        write_value(o, &s->axis[i].v[s->at[(size_t)c * s->n_axes + i]]);
    }
    jo_object_end(o);
    if (t->have[c] == UINT32_MAX || t->have[c] == 0) {
        jo_kbool(o, "failed", true);
    } else {
        jo_key(o, "samples");
        jo_array(o);
        for (uint32_t k = 0; k < t->have[c]; k++) {
            char text[32];
            snprintf(text, sizeof text, "%.5g", t->ref_median * t->v[(size_t)c * ROUNDS_MOST + k]);
            jo_raw(o, text);
        }
        jo_array_end(o);
    }
    jo_object_end(o);
}

static void write_table(const struct tune_job *j, const struct table *t, struct strbuf *out)
{
    struct json_out o;
    char created[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *shape = tune_shape_json(j);
    char *shape_text = shape != NULL ? json_dumps(shape, JSON_COMPACT) : NULL;
    jo_init(&o, out);
    jo_object(&o);
    jo_kstr(&o, "schema", REPLAY_SCHEMA);
    jo_kstr(&o, "host", j->host);
    jo_kstr(&o, "kernel_abi", j->abi);
    jo_kstr(&o, "model", j->model);
    jo_key(&o, "shape");
    jo_raw(&o, shape_text != NULL ? shape_text : "{}");
    jo_kstr(&o, "goal", j->goal);
    jo_kstr(&o, "created", created);
    jo_kuint(&o, "seed", j->seed);
    jo_kuint(&o, "reference", 0);
    write_axes(&o, j->space);
    jo_key(&o, "configs");
    jo_array(&o);
    for (uint32_t c = 0; c < j->space->n; c++) {
        sb_putc(out, '\n'); /* one config a line: tables are compared and reviewed */
        write_config(&o, j->space, t, c);
    }
    jo_array_end(&o);
    jo_object_end(&o);
    sb_putc(out, '\n');
    free(shape_text);
    json_decref(shape);
}

kt_status tune_record(const struct tune_job *j, struct kt_timer *timer, double seconds,
                      const volatile sig_atomic_t *stop, const char *path, kt_err *err)
{
    uint32_t n = j->space->n;
    struct strbuf text = {0};
    struct table t = {.v = mem_calloc((size_t)n * ROUNDS_MOST, sizeof(double)),
                      .have = mem_calloc(n, sizeof(uint32_t)),
                      .order = mem_calloc(n, sizeof(uint32_t))};
    kt_status s = KT_OK;
    if (t.v == NULL || t.have == NULL || t.order == NULL) {
        s = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a table of %u configurations", n);
    } else {
        for (uint32_t i = 0; i < n; i++)
            t.order[i] = i;
        fill(&t, n, j->seed, timer, timer->now(timer->ctx) + seconds, stop);
        double work[REF_MOST];
        uint32_t refs = t.n_ref < REF_MOST ? t.n_ref : REF_MOST;
        t.ref_median = ss_median(t.ref, refs, (double)INFINITY, work);
        if (t.rounds < 5)
            s = err_set(err, KT_E_TIMEOUT, 0, __func__,
                        "only %u rounds of %u configurations in %.0f s; a table needs 5: give more "
                        "time with --budget",
                        t.rounds, n, seconds);
        else
            write_table(j, &t, &text);
        if (s == KT_OK && !sb_ok(&text))
            s = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for the table");
        if (s == KT_OK)
            s = file_write_atomic(path, text.data, text.len, err);
    }
    sb_free(&text);
    mem_free(t.v);
    mem_free(t.have);
    mem_free(t.order);
    return s;
}
