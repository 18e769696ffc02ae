/* mapper_openai.h - from the JSON of /v1/chat/completions and /v1/completions to a request. Pure;
 * any thread.
 */
#ifndef KT_SERVE_MAPPER_OPENAI_H
#define KT_SERVE_MAPPER_OPENAI_H

#include "serve/req.h"

/* 0 and *out filled (free it), or -1 with *f; *out is then empty. */
int mapper_openai(const char *body, size_t len, enum kts_api api, const struct kts_limits *lim,
                  struct kts_req *out, struct kts_fail *f);

#endif
