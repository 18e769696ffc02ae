/* tok_priv.h - inside of a tokenizer, shared by its loaders (tok_json.c, tok_gguf.c), the encoder
 * (tok.c) and the public calls (tok_api.c). A loader fills a struct tok_source with every token as
 * its file spells it; tok_vocab_build makes bytes, hashes and the added-token trees of it.
 * Everything is immutable once tok_open has returned.
 */
#ifndef KT_TOK_PRIV_H
#define KT_TOK_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt.h"
#include "model/chat.h"
#include "model/norm.h"
#include "model/pretok.h"
#include "model/tok.h"
#include "model/tok_added.h"
#include "model/tok_bpe.h"

#define TOK_MAX_VOCAB (1u << 24)

/* What a token is; the numbers are GGUF's. */
enum tok_kind {
    TOK_HOLE = 0,
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 3,
    TOK_USER = 4,
    TOK_UNUSED = 5,
    TOK_BYTE = 6
};

struct tok_item {
    const char *text;
    size_t len;
    uint8_t kind;
    uint8_t flags; /* TOK_LSTRIP .. of tok_added.h */
};

struct tok_source {
    struct tok_item *item; /* [n] by id */
    uint32_t n;
    const char *file; /* for messages */
};

struct kt_tokenizer {
    uint32_t n_vocab;
    char *arena;      /* bytes of all tokens, one after the other */
    uint32_t *offset; /* [n_vocab + 1] */
    uint8_t *kind;    /* [n_vocab] enum tok_kind */
    struct bpe bpe;
    struct added added;
    struct norm norm;
    struct pretok *pre;
    struct tok_ids prefix, suffix; /* what KT_TOK_ADD_SPECIAL puts around a text */
    struct tok_ids eos;
    struct chat chat;
    kt_sampling defaults;
    const char *pre_name;
};

/* Bytes, kinds, vocabulary hash and added tokens; the merges come after. */
kt_status tok_vocab_build(kt_tokenizer *t, const struct tok_source *s, kt_err *err);
/* Merge number `rank`, "A B" as the file spells it (split at the first space after byte 0) or its
 * two parts. */
kt_status tok_merge_text(kt_tokenizer *t, const struct tok_source *s, uint32_t rank,
                         const char *text, size_t len, kt_err *err);
kt_status tok_merge(kt_tokenizer *t, const struct tok_source *s, uint32_t rank, const char *a,
                    size_t n_a, const char *b, size_t n_b, kt_err *err);
/* Add an end token; ids outside the vocabulary are KT_E_FORMAT naming `key`. */
kt_status tok_add_eos(kt_tokenizer *t, int64_t id, const char *file, const char *key, kt_err *err);
/* id of the added or normal token with exactly this text, or -1 */
int32_t tok_find(const kt_tokenizer *t, const char *text);
/* Splits and flags of a known pre-tokeniser. */
kt_status tok_use_known(kt_tokenizer *t, const struct pretok_known *k, kt_err *err);

kt_status tok_load_json(kt_tokenizer *t, const struct mdl *m, const char *chat_override,
                        kt_err *err);
kt_status tok_load_gguf(kt_tokenizer *t, const struct mdl *m, const char *chat_override,
                        kt_err *err);
/* Range-checked sampling default from a model file; name is kt.h's field. */
kt_status tok_set_default(kt_tokenizer *t, const char *name, double v, const char *file,
                          kt_err *err);

#endif
