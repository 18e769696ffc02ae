/* progress.c - see progress.h. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define BAR 24

void progress_open(struct progress *p, double limit_seconds, uint64_t start_ns)
{
    memset(p, 0, sizeof *p);
    p->tty = isatty(STDERR_FILENO) == 1;
    p->limit_seconds = limit_seconds;
    p->start_ns = start_ns;
}

static double elapsed(const struct progress *p)
{
    return (double)(clock_ns() - p->start_ns) * 1e-9;
}

static void draw(const struct progress *p, const char *what)
{
    char bar[BAR + 1];
    double used = elapsed(p), part = used / p->limit_seconds;
    int full = part > 1 ? BAR : (int)(part * BAR);
    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K  [%s] %-26s %-34.34s at most %.0f s left", bar, p->stage, what,
            p->limit_seconds - used > 0 ? p->limit_seconds - used : 0);
    fflush(stderr);
}

void progress_stage(struct progress *p, const char *name)
{
    p->stage = name;
    p->stage_ns = clock_ns();
    if (p->tty)
        draw(p, "");
}

void progress_step(void *ctx, const char *what, double done)
{
    const struct progress *p = ctx;
    (void)done;
    if (p->tty && p->stage != NULL)
        draw(p, what);
}

void progress_done(struct progress *p, const char *remark)
{
    double s = (double)(clock_ns() - p->stage_ns) * 1e-9;
    fprintf(stderr, "%s  %-26s %5.1f s%s%s\n", p->tty ? "\r\033[K" : "", p->stage, s,
            remark != NULL ? "   " : "", remark != NULL ? remark : "");
    fflush(stderr);
}

void progress_close(struct progress *p)
{
    if (p->tty)
        fprintf(stderr, "\r\033[K");
    fflush(stderr);
}
