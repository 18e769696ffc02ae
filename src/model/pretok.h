/* pretok.h - pre-tokenisers: a sequence of splits that cuts text into the words which BPE then
 * encodes, each split working inside the pieces of the one before. Splits are regular expressions
 * run by PCRE2 in the dialect of the `tokenizers` library (pretok_pattern.c translates), except two
 * that are cheaper or safer by hand. Not here: normalisation, added tokens, BPE.
 *
 * Immutable after building, any number of threads run it. Text may hold invalid UTF-8: such bytes
 * count as U+0001 for the expressions (neither space, letter, digit nor punctuation) and come out
 * unchanged. Patterns are untrusted: matching has step, depth and heap limits.
 */
#ifndef KT_PRETOK_H
#define KT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

enum split_mode { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_CONTIGUOUS, SPLIT_PREVIOUS, SPLIT_NEXT };

struct pretok;

/* A known pre-tokeniser by the name that GGUF files state. */
struct pretok_known {
    const char *name;
    const char *const *patterns; /* NULL-terminated, each isolates its matches */
    bool nfc, ignore_merges;
    bool add_bos; /* what absence of add_bos_token means */
};
const struct pretok_known *pretok_by_name(const char *name, size_t len);
/* The first known one with exactly these isolating patterns and flags, or NULL. */
const struct pretok_known *pretok_by_patterns(const struct pretok *p, bool nfc, bool ignore_merges);
/* GPT-2's expression, which ByteLevel{use_regex} means. */
extern const char pretok_gpt2_pattern[];

kt_status pretok_new(struct pretok **out, kt_err *err);
/* pattern is in the library's dialect. KT_E_FORMAT: not a regular expression; KT_E_UNSUPPORTED: a
 * construct that would mean something else here. */
kt_status pretok_add_regex(struct pretok *p, const char *pattern, enum split_mode mode, bool invert,
                           kt_err *err);
kt_status pretok_add_literal(struct pretok *p, const char *text, enum split_mode mode, bool invert,
                             kt_err *err);
/* Put a space before every piece that does not start with one. */
kt_status pretok_add_prefix_space(struct pretok *p, kt_err *err);
void pretok_free(struct pretok *p);
size_t pretok_steps(const struct pretok *p);
/* Is step i the isolating expression `pattern` (which spells non-ASCII as \x{HEX}, capital digits)?
 */
bool pretok_step_is(const struct pretok *p, size_t i, const char *pattern);

struct pretok_sink {
    kt_status (*word)(void *user, const char *bytes, size_t n, kt_err *err);
    void *user;
};
struct pretok_run; /* match state of one thread */
kt_status pretok_run_new(const struct pretok *p, struct pretok_run **out, kt_err *err);
/* Hand every word of the text to the sink, in order. The sink's error ends the run. */
kt_status pretok_split(struct pretok_run *r, const char *text, size_t n,
                       const struct pretok_sink *sink, kt_err *err);
void pretok_run_free(struct pretok_run *r);

/* ---- shared with the normaliser ---- */
struct pretok_regex; /* a compiled expression */
kt_status pretok_regex_new(const char *pattern, struct pretok_regex **out, kt_err *err);
void pretok_regex_free(struct pretok_regex *x);
/* Append s, matches replaced by `with`. s is valid UTF-8. */
kt_status pretok_regex_replace(const struct pretok_regex *x, const char *s, size_t n,
                               const char *with, struct strbuf *out, kt_err *err);

/* Translate a pattern of the library (Oniguruma, Unicode, lines end at LF) into PCRE2's syntax with
 * UTF | UCP. Non-ASCII is written as \x{}. */
kt_status pretok_translate(const char *pattern, struct strbuf *out, kt_err *err);

#endif
