/* bar.h - what a program shows while many bytes are moved: a bar with rate and time left on a
 * terminal, a plain line every few seconds elsewhere. Makes the text; the program writes it. Owner:
 * whoever moves the bytes; one thread.
 */
#ifndef KT_BASE_BAR_H
#define KT_BASE_BAR_H

#include <stdbool.h>
#include <stdint.h>

#define BAR_TEXT 160

struct bar {
    bool tty;
    const char *what; /* "loading", static */
    uint64_t start_ns, last_ns;
    char text[BAR_TEXT];
};

void bar_open(struct bar *b, const char *what, bool tty);
/* Text to write now, or "" when it is not yet time. On a terminal it begins by clearing the line
 * and has no newline; the last one (done == total) only clears the line. Elsewhere it is a whole
 * line.
 */
const char *bar_step(struct bar *b, uint64_t done, uint64_t total, uint64_t now_ns);

#endif
