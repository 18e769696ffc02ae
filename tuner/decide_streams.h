/* decide_streams.h - one address stream or four, for weight formats that were not timed. How many
 * streams a core should keep is the memory's affair, not the format's, so formats that were timed
 * answer for the others, if all of them say the same. Pure.
 */
#ifndef KT_TUNER_DECIDE_STREAMS_H
#define KT_TUNER_DECIDE_STREAMS_H

#include <stdbool.h>
#include <stddef.h>

#define STREAMS_FOUR "-x4" /* what the variant's name has at its end */

struct streams_vote {
    const char *format, *own, *chosen; /* own: the variant of highest rank, one stream */
};

/* Shall the others use four streams? True only when there is a vote and every one proved it; `why`
 * names the formats. */
bool decide_streams(const struct streams_vote *v, size_t n, char *why, size_t size);

#endif
