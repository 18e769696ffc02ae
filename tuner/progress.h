/* progress.h - what a long command shows while it works, on standard error: one line per stage; on
 * a terminal also a bar with the time left. Owner: the program's thread. */
#ifndef KT_TUNER_PROGRESS_H
#define KT_TUNER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool tty;
    double limit_seconds;
    uint64_t start_ns, stage_ns;
    const char *stage;
};

/* limit_seconds: the wall clock of the whole command, which began at start_ns. */
void progress_open(struct progress *p, double limit_seconds, uint64_t start_ns);
void progress_stage(struct progress *p, const char *name);
/* Shape of probe_run.progress; ctx is the struct progress. */
void progress_step(void *ctx, const char *what, double done);
/* The stage's last line; remark may be NULL. */
void progress_done(struct progress *p, const char *remark);
void progress_close(struct progress *p);

#endif
