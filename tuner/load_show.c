/* load_show.c - see load_show.h. One load at a time. */
#include "load_show.h"

#include <stdio.h>
#include <unistd.h>

#include "base/bar.h"
#include "base/clock.h"

static struct bar bar;

static void step(void *user, uint64_t done, uint64_t total)
{
    const char *text = bar_step(user, done, total, clock_ns());
    if (*text != '\0') {
        fputs(text, stderr);
        fflush(stderr);
    }
}

void load_show(kt_engine_opts *o)
{
    bar_open(&bar, "loading", isatty(STDERR_FILENO) == 1);
    o->progress = step;
    o->progress_user = &bar;
}
