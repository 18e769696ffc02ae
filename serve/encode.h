/* encode.h - texts and messages to token ids, with refusals instead of errors. Any thread; pure
 * apart from memory.
 */
#ifndef KT_SERVE_ENCODE_H
#define KT_SERVE_ENCODE_H

#include "serve/bridge.h"

/* 0 and *ids (mem_free), *n; or -1 with *f. */
int encode_text(const kt_tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                uint32_t *n, struct kts_fail *f);
int encode_chat(const kt_tokenizer *t, const kt_chat_message *m, uint32_t n_messages, int32_t **ids,
                uint32_t *n, struct kts_fail *f);
/* Fill the prompts of a job from its request and check them against the context. longest_token:
 * bytes, to refuse hopeless texts before encoding them. */
int encode_job(const kt_tokenizer *t, struct kts_job *j, const struct kts_limits *lim,
               size_t longest_token, struct kts_fail *f);

#endif
