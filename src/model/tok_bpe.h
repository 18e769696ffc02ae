/* tok_bpe.h - byte-level BPE on raw bytes: vocabulary by text, merge table by pair of ids, and the
 * encoding of one pre-token.
 *
 * The files spell tokens in the printable alphabet of GPT-2 (one character per byte); bpe_unmap
 * turns that into bytes once, at load, so that encoding never maps. Not here: splitting of text,
 * added tokens, files. Immutable after bpe_finish; any number of threads encode, each with its own
 * scratch. Invariant: every id in the tables is < n_vocab, every result of a merge is a token whose
 * bytes are the two parts.
 */
#ifndef KT_TOK_BPE_H
#define KT_TOK_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/tok.h"

struct bpe_pair {
    uint32_t left, right, rank; /* rank UINT32_MAX: empty slot */
};

struct bpe {
    const char *arena;      /* bytes of all tokens; borrowed from the tokenizer */
    const uint32_t *offset; /* [n_vocab + 1] into arena */
    uint32_t *slot;         /* vocabulary hash: id + 1, 0 empty */
    uint32_t slot_mask;
    struct bpe_pair *pair; /* merge hash */
    uint32_t pair_mask;
    uint32_t *result; /* [n_merges] id that a merge makes */
    uint32_t n_merges;
    uint32_t *byte_rank;  /* [256 * 256] rank of the merge of two byte tokens, UINT32_MAX if none:
                             the first look-up of every pair */
    int32_t byte_id[256]; /* token of each byte, -1 if the vocabulary has none */
    int32_t unk_id;       /* stands for a byte without token; -1: such bytes are dropped */
    bool fuse_unk, ignore_merges;
};

struct bpe_sym {
    uint32_t id, prev, next, rank; /* rank of the merge with next, UINT32_MAX if none */
};

/* A short word met before in the same call, with its tokens. */
#define BPE_CACHE_WORD 18
#define BPE_CACHE_IDS 7
struct bpe_cached {
    char word[BPE_CACHE_WORD];
    uint8_t len, n; /* len 0: free */
    int32_t id[BPE_CACHE_IDS];
};

/* Scratch of one encoding thread; zero-initialise. */
struct bpe_scratch {
    /* direct-mapped by hash; NULL until a call has met enough words to pay for it */
    struct bpe_cached *cache;
    uint32_t words;
    struct bpe_sym *sym;
    size_t sym_cap;
    uint64_t *heap; /* rank << 32 | position: lowest rank first, then leftmost */
    size_t heap_len, heap_cap;
};

/* Bytes that a token in the printable alphabet stands for; out has room for len. SIZE_MAX if a
 * character is outside the alphabet. */
size_t bpe_unmap(const char *text, size_t len, char *out);

/* Vocabulary hash for n_vocab tokens. arena and offset must outlive b. */
kt_status bpe_init(struct bpe *b, const char *arena, const uint32_t *offset, uint32_t n_vocab,
                   kt_err *err);
/* Enter token id under its bytes. Of equal texts the lowest id stays; returns false for the others.
 */
bool bpe_add_token(struct bpe *b, uint32_t id);
/* id of a token by its bytes, or -1 */
int64_t bpe_find(const struct bpe *b, const char *bytes, size_t len);
kt_status bpe_merges_begin(struct bpe *b, uint32_t n_merges, kt_err *err);
/* Merge number `rank`: bytes[0..n_left) with bytes[n_left..n). false if a part or the result is no
 * token. Of equal pairs the lowest rank stays. */
bool bpe_add_merge(struct bpe *b, uint32_t rank, const char *bytes, size_t n_left, size_t n);
/* After all merges: the table of byte pairs. */
kt_status bpe_finish(struct bpe *b, kt_err *err);
void bpe_free(struct bpe *b);

/* Append the tokens of one pre-token. */
kt_status bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t n,
                     struct tok_ids *ids, kt_err *err);
void bpe_scratch_free(struct bpe_scratch *s);

#endif
