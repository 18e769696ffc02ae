/* timer_journal.c - see timer_journal.h. */
#include "timer_journal.h"

#include <string.h>

#include "base/mem.h"

#define WARM_UPS 3 /* samples thrown away where an interrupted search goes on */

bool journal_room(struct journal *j, uint32_t n)
{
    if (j->n + n <= j->room)
        return true;
    uint32_t room = j->room < 256 ? 256 : j->room;
    while (room < j->n + n)
        room *= 2;
    struct journal_note *note = mem_realloc(j->note, room * sizeof *note);
    if (note == NULL)
        return false;
    j->note = note;
    j->room = room;
    return true;
}

static enum timer_result ask(struct journal *j, uint32_t config, uint32_t rep, double *seconds)
{
    if (j->inner->limit_seconds != NULL)
        *j->inner->limit_seconds = j->limit;
    return j->inner->time(j->inner->ctx, config, rep, seconds);
}

/* The first sample that is really taken: time goes on from the last note. */
static void wake(struct journal *j)
{
    double ignored;
    j->awake = true;
    for (int i = 0; i < WARM_UPS && j->at > 0 && !j->is_virtual; i++)
        (void)ask(j, j->reference, 0, &ignored);
    j->base = j->inner->now(j->inner->ctx) - j->now;
}

static enum timer_result take(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct journal *j = ctx;
    if (j->at < j->known && j->note[j->at].config == config) {
        const struct journal_note *k = &j->note[j->at++];
        double ignored;
        if (j->is_virtual)
            (void)ask(j, config, rep, &ignored);
        *seconds = k->seconds;
        j->now = k->end;
        return k->result;
    }
    if (!j->awake) {
        j->left = j->known - j->at;
        j->known = j->n = j->at;
        wake(j);
    }
    enum timer_result r = ask(j, config, rep, seconds);
    j->now = j->inner->now(j->inner->ctx) - j->base;
    j->lost = j->lost || !journal_room(j, 1);
    if (!j->lost)
        j->note[j->n++] = (struct journal_note){config, r, r == TIMER_OK ? *seconds : 0, j->now};
    return r;
}

static double now(void *ctx)
{
    return ((const struct journal *)ctx)->now;
}

void journal_open(struct journal *j, struct kt_timer *inner, bool is_virtual)
{
    memset(j, 0, sizeof *j);
    j->inner = inner;
    j->is_virtual = is_virtual;
    j->timer = (struct kt_timer){j, take, now, inner->limit_seconds != NULL ? &j->limit : NULL};
}

void journal_close(struct journal *j)
{
    mem_free(j->note);
    j->note = NULL;
}
