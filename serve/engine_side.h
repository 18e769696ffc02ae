/* engine_side.h - the engine thread: load the model, run the scheduler, close everything. Start and
 * join: I/O thread.
 */
#ifndef KT_SERVE_ENGINE_SIDE_H
#define KT_SERVE_ENGINE_SIDE_H

#include "serve/app.h"

/* Checks that need no weights: the model's description, the tokenizer, the profile. For
 * --check-config. */
kt_status engine_side_check(const struct options *o, kt_err *err);
int engine_side_start(struct app *a, kt_err *err); /* 0 or -1 */
/* Stop the scheduler and wait for the thread. Waits for a load that is going on. */
void engine_side_join(struct app *a);

#endif
