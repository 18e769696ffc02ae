/* timer_journal.h - a timer that remembers. It stands between a search and the timer that really
 * times, notes every answer, and can begin with the notes of an earlier process: a search is a pure
 * function of its inputs and of what its timer says, so it asks the same questions again, gets the
 * noted answers at once, and goes on where it stopped. Once it asks something else (another budget
 * keeps other configurations) the rest of the notes is void. Time is what the searches of all
 * processes took together: it moves with samples only, so that notes reproduce it exactly. Writes
 * no file: tune_state.h does. Owner: one thread.
 */
#ifndef KT_TUNER_TIMER_JOURNAL_H
#define KT_TUNER_TIMER_JOURNAL_H

#include <stdbool.h>

#include "timer.h"

struct journal_note {
    uint32_t config;
    enum timer_result result;
    double seconds, end; /* the sample; the journal's clock after it */
};

struct journal {
    struct kt_timer timer; /* for the search */
    struct kt_timer *inner;
    bool is_virtual;    /* inner is asked for noted samples too, so that its clock and its random
                           numbers go on where they stopped; otherwise it warms up first */
    uint32_t reference; /* what warms up */
    struct journal_note *note;
    uint32_t n, room;
    uint32_t known; /* notes of earlier processes */
    uint32_t at;    /* of them given out */
    uint32_t left;  /* notes that did not fit what the search asked */
    bool lost;      /* memory was short: there are no more notes */
    bool awake;
    double now, base, limit;
};

void journal_open(struct journal *j, struct kt_timer *inner, bool is_virtual);
void journal_close(struct journal *j);
/* Room for `n` more notes; false when memory is short. */
bool journal_room(struct journal *j, uint32_t n);

#endif
