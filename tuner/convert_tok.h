/* convert_tok.h - the tokenizer part of kttune convert: tokenizer.json and the small files beside
 * it as GGUF metadata. */
#ifndef KT_TUNER_CONVERT_TOK_H
#define KT_TUNER_CONVERT_TOK_H

#include "model/gguf_write.h"
#include "model/model.h"

/* Write tokenizer.* and sampling defaults of a checkpoint; "no_vocab" when it has no
 * tokenizer.json. */
kt_status convert_tokenizer(struct gguf_out *o, const struct mdl *m, kt_err *err);

#endif
