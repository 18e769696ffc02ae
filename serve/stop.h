/* stop.h - from the bytes of tokens to text that may be sent: stop strings and UTF-8.
 *
 * Stop strings are matched on decoded bytes, across token borders. The match that is complete first
 * wins, the longer one on a tie; neither it nor anything after it becomes text. Bytes that could
 * begin a match, and up to 3 bytes of an unfinished character, are held back until they are
 * decided. What comes out is valid UTF-8 (U+FFFD for each maximal broken part), and the same
 * however the input was cut into tokens. Owner: one sequence on the engine thread; memory is taken
 * at init, and for long texts while feeding.
 */
#ifndef KT_SERVE_STOP_H
#define KT_SERVE_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

struct stop_set {
    const char *const *text; /* each 1..256 bytes */
    const uint32_t *len;
    uint32_t n;
};

struct stop_state {
    struct stop_set set; /* borrowed */
    struct strbuf held;  /* bytes not yet released */
    uint64_t released;   /* raw bytes released so far: text that the client has or will get */
    int matched;         /* index of the stop string that ended the text, or -1 */
};

void stop_init(struct stop_state *s, const struct stop_set *set);
void stop_free(struct stop_state *s);
/* Take more bytes; appends what may be sent to out. true: a stop string is complete, feed no more.
 */
bool stop_feed(struct stop_state *s, const char *bytes, size_t n, struct strbuf *out);
/* The end came for another reason: release what was held back. */
void stop_flush(struct stop_state *s, struct strbuf *out);

/* Append n bytes as valid UTF-8. */
void utf8_clean(const char *bytes, size_t n, struct strbuf *out);
/* How many bytes at the end are the beginning of a character (0..3). */
size_t utf8_unfinished(const char *bytes, size_t n);

#endif
