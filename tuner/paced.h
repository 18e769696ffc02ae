/* paced.h - rounds of a bench that another process starts, so that two programs can be timed in
 * turn on one machine. A line on standard input starts a round; its end ends the bench.
 */
#ifndef KT_TUNER_PACED_H
#define KT_TUNER_PACED_H

#include <stdbool.h>

/* Says on standard output that a round can start (the line "ready") and waits for a line. false at
 * the end of the input. */
bool paced_wait(void);

#endif
