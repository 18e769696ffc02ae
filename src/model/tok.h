/* tok.h - tokenizer of a model: byte-level BPE from tokenizer.json or a GGUF vocabulary, chat
 * shape, end tokens, sampling defaults. Immutable after open; any thread may encode (each call
 * brings its own scratch). The public face is kt_tokenizer in kt.h, which is this struct.
 */
#ifndef KT_TOK_H
#define KT_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct mdl;

struct tok_ids {
    int32_t *v; /* mem_free */
    size_t n, cap;
};

/* From an opened model's files (mdl_open_files is enough). chat_override NULL or "chatml". */
kt_status tok_open(const struct mdl *m, const char *chat_override, kt_tokenizer **out, kt_err *err);
void tok_close(kt_tokenizer *t);
/* Appends to ids. flags as kt_tokenize. */
kt_status tok_encode(const kt_tokenizer *t, const char *text, size_t len, unsigned flags,
                     struct tok_ids *ids, kt_err *err);
/* Appends the ids of the chat prompt: as encoding the rendered text with KT_TOK_PARSE_SPECIAL,
 * except that roles and contents never become control tokens, whatever they say. */
kt_status tok_encode_chat(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                          bool add_generation_prompt, struct tok_ids *ids, kt_err *err);
/* Name of the pre-tokeniser ("qwen2", ..) that GGUF writers state, NULL if the split pattern is
 * none of the known ones. */
const char *tok_pre_name(const kt_tokenizer *t);

/* Append one id. KT_E_NOMEM, or KT_E_INVALID beyond 2^31-1. */
kt_status tok_ids_push(struct tok_ids *ids, int32_t id, kt_err *err);

#endif
