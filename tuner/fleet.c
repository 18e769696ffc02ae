/* fleet.c - see fleet.h. */
#include "fleet.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

static bool same(const struct fleet_layout *a, const struct fleet_layout *b)
{
    return strcmp(a->pages, b->pages) == 0 && strcmp(a->smt, b->smt) == 0 && a->pools == b->pools;
}

/* The engine of a layout, loaded if need be; NULL: it cannot be. */
static struct live *engine_of(struct fleet *f, const struct fleet_layout *want)
{
    uint32_t at = 0;
    kt_err err;
    for (uint32_t i = 0; i < FLEET_SLOTS; i++)
        if (f->asked[i] > 0 && same(&f->layout[i], want)) {
            f->asked[i] = ++f->asks;
            return &f->slot[i];
        }
    for (uint32_t i = 1; i < FLEET_SLOTS; i++)
        if (f->asked[i] < f->asked[at])
            at = i;
    struct live_opts o = f->slot[0].o;
    if (f->asked[at] > 0)
        live_close(&f->slot[at]);
    f->asked[at] = 0;
    f->layout[at] = *want;
    o.repeats = f->slot[0].repeats;
    o.engine.pages = want->pages[0] != '\0' ? f->layout[at].pages : NULL;
    o.engine.smt = want->smt[0] != '\0' ? f->layout[at].smt : NULL;
    o.engine.pools = want->pools;
    struct live fresh;
    fprintf(stderr, "loading again%s%s%s%s\n", want->pages[0] != '\0' ? ", pages " : "",
            want->pages, want->smt[0] != '\0' ? ", smt " : "", want->smt);
    if (live_open(&fresh, &o, &err) != KT_OK) {
        snprintf(f->reason, sizeof f->reason, "%.190s", err.msg);
        return NULL;
    }
    f->slot[at] = fresh;
    f->slot[at].timer.ctx = &f->slot[at];
    f->slot[at].timer.limit_seconds = &f->slot[at].limit;
    f->asked[at] = ++f->asks;
    return &f->slot[at];
}

static enum timer_result take(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct fleet *f = ctx;
    struct fleet_layout layout = {0};
    struct live_config c = {0};
    f->config(f->ctx, config, &layout, &c);
    struct live *l = engine_of(f, &layout);
    if (l == NULL)
        return TIMER_FAILED;
    l->config = &c;
    l->limit = f->limit;
    enum timer_result r = l->timer.time(l->timer.ctx, 0, rep, seconds);
    l->config = NULL;
    return r;
}

static double now(void *ctx)
{
    (void)ctx;
    return clock_seconds();
}

kt_status fleet_open(struct fleet *f, const struct live_opts *o, kt_err *err)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < FLEET_SLOTS; i++)
        f->slot[i].fd = -1;
    f->timer = (struct kt_timer){f, take, now, &f->limit};
    KT_TRY(live_open(&f->slot[0], o, err));
    f->asked[0] = ++f->asks;
    return KT_OK;
}

void fleet_close(struct fleet *f)
{
    for (int i = 0; i < FLEET_SLOTS; i++)
        if (f->asked[i] > 0)
            live_close(&f->slot[i]);
}
