/* tune_state.h - the notes of a running search as a file, so that a search that was killed goes on
 * instead of beginning anew. Written as a whole (temporary file, fsync, rename) between rounds: a
 * kill costs the round that was running. The file is one JSON object whose last member is a digest
 * of all bytes before it. Its key says what the notes belong to: host, kernel build, model, goal,
 * seed, space and all that changes a sample; notes with another key are not used, and the reason is
 * told. Owner: one thread.
 */
#ifndef KT_TUNER_TUNE_STATE_H
#define KT_TUNER_TUNE_STATE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"
#include "space.h"
#include "timer_journal.h"

#define STATE_SCHEMA "kt.tune-state/1"

struct tune_state {
    const char *path; /* NULL: nothing is kept; the caller's */
    json_t *key;      /* object of texts and numbers; the caller's */
    double every;     /* seconds between two writes; 0: before each round */
    /* what the search was given; state_begin overwrites them with those of the file it takes */
    uint32_t repeats; /* steps of a sample */
    double budget;    /* of the user */
    double seconds;   /* of it for the search, without loading */
    /* result of state_begin */
    struct journal journal; /* journal.timer is the search's */
    bool resumed;
    char reason[256]; /* why an existing file is not used; "" */
    bool complete;    /* free for the caller */
    /* private */
    double saved;
    bool failed; /* a write failed: said once */
};

/* Put a journal before `inner`, with the notes of an earlier process if `path` holds any that fit.
 * Only a lack of memory is an error. state_end accepts a failed or zeroed one. */
kt_status state_begin(struct tune_state *s, struct kt_timer *inner, bool is_virtual, kt_err *err);
/* Between rounds: write when it is time. KT_E_IO and _NOMEM once; then nothing is written any more.
 */
kt_status state_mark(struct tune_state *s, kt_err *err);
/* The search has ended; when it is complete, the file has served and is removed. */
void state_end(struct tune_state *s, bool complete);
/* Digest of axes, values and configs: "sha256:..", 72 bytes. */
kt_status state_space_id(const struct space *s, char out[72], kt_err *err);

#endif
