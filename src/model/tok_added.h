/* tok_added.h - added tokens: the tokens that are looked for in text before it is split into words.
 * Two byte trees: one for raw text, one for normalised text. A match is the leftmost, and there the
 * longest that is allowed. Not here: what a match becomes. Immutable after building, any thread.
 */
#ifndef KT_TOK_ADDED_H
#define KT_TOK_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    TOK_LSTRIP = 1,      /* swallows white space before it */
    TOK_RSTRIP = 2,      /* swallows white space after it */
    TOK_SINGLE_WORD = 4, /* only where no word character touches it */
    TOK_NORMALIZED = 8,  /* looked for in normalised text */
};
#define ADDED_MAX_LEN 1024

struct added_node {
    uint32_t child, sibling; /* 0: none */
    int32_t id;              /* -1: no token ends here */
    uint8_t byte, flags;
    bool control;
};

struct added_tree {
    struct added_node *node; /* [0] unused */
    uint32_t n, cap;
    uint32_t root[256];
};

struct added {
    struct added_tree raw, normalized;
};

/* Enter a token; of equal texts the first stays. 1 <= len <= ADDED_MAX_LEN. */
kt_status added_put(struct added_tree *t, const char *text, size_t len, int32_t id, uint8_t flags,
                    bool control, kt_err *err);
void added_free(struct added *a);

/* Byte ranges of the text that control tokens must not touch (text of a request), ascending and
 * disjoint. */
struct tok_range {
    size_t from, to;
};
struct tok_guard {
    const struct tok_range *range;
    size_t n;
    bool control; /* may control tokens match at all */
};

struct added_match {
    size_t from, to; /* with swallowed white space */
    size_t end;      /* without: where the search goes on, so white space that a token swallowed may
                        still begin the next one */
    int32_t id;
};
/* Next match after *m, whose `to` and `end` say where the last one ended (zero at first). */
bool added_next(const struct added_tree *t, const char *s, size_t n, const struct tok_guard *g,
                struct added_match *m);

#endif
