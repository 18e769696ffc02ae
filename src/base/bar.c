/* bar.c - see bar.h. The rate is the average since the first step: a load has no phases that differ
 * for long, and the time left should not jump. */
#include "base/bar.h"

#include <stdio.h>
#include <string.h>

#define CELLS 30
#define TTY_NS 100000000u   /* between two pictures of the bar */
#define LINE_NS 5000000000u /* between two plain lines */
#define CLEAR "\r\033[K"

void bar_open(struct bar *b, const char *what, bool tty)
{
    memset(b, 0, sizeof *b);
    b->what = what;
    b->tty = tty;
}

/* 75 s as "1:15", 4000 s as "1:06:40" */
static void clock_text(double seconds, char out[24])
{
    unsigned long s = seconds < 3e6 ? (unsigned long)(seconds + 0.5) : 3000000;
    if (s >= 3600)
        snprintf(out, 24, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 24, "%lu:%02lu", s / 60, s % 60);
}

const char *bar_step(struct bar *b, uint64_t done, uint64_t total, uint64_t now_ns)
{
    char cells[CELLS + 1], left[24];
    if (b->start_ns == 0)
        b->start_ns = b->last_ns = now_ns;
    uint64_t since = now_ns - b->last_ns;
    if (b->tty && done >= total)
        return CLEAR;
    if (done >= total || total == 0 || since < (b->tty ? TTY_NS : LINE_NS))
        return "";
    b->last_ns = now_ns;
    double part = (double)done / (double)total, s = (double)(now_ns - b->start_ns) * 1e-9;
    double rate = (double)done / s;
    clock_text(rate > 0 ? (double)(total - done) / rate : 0, left);
    for (int i = 0; i < CELLS; i++)
        cells[i] = i < (int)(part * CELLS) ? '#' : '.';
    cells[CELLS] = '\0';
    snprintf(b->text, sizeof b->text,
             b->tty ? "%s%s [%s] %3.0f %%  %.2f of %.2f GB  %.2f GB/s  %s left"
                    : "%s%s%s %3.0f %%, %.2f of %.2f GB, %.2f GB/s, %s left\n",
             b->tty ? CLEAR : "", b->what, b->tty ? cells : "", 100 * part, (double)done * 1e-9,
             (double)total * 1e-9, rate * 1e-9, left);
    return b->text;
}
