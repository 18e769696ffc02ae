/* norm.h - normalisers of tokenizer.json: a sequence of text transformations before splitting.
 * Bytes that are no UTF-8 pass unchanged, and nothing composes across them. Immutable after
 * building, any thread.
 */
#ifndef KT_NORM_H
#define KT_NORM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/strbuf.h"

struct pretok_regex;

enum norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_PREPEND,
    NORM_REPLACE
};

struct norm_step {
    enum norm_kind kind;
    char *text;                /* PREPEND: what; REPLACE: with what */
    struct pretok_regex *find; /* REPLACE: the expression */
};

#define NORM_STEPS 8
struct norm {
    struct norm_step step[NORM_STEPS];
    size_t n;
};

/* Adds a step. text is copied; find becomes n's, also after an error. */
kt_status norm_add(struct norm *n, enum norm_kind kind, const char *text, struct pretok_regex *find,
                   kt_err *err);
void norm_free(struct norm *n);
/* Is it exactly nothing, or exactly NFC? */
bool norm_is(const struct norm *n, bool nfc);
/* True when the text would come out unchanged (a quick, one-sided test). */
bool norm_unchanged(const struct norm *n, const char *s, size_t len);
/* Result replaces out. */
kt_status norm_run(const struct norm *n, const char *s, size_t len, struct strbuf *out,
                   kt_err *err);

#endif
