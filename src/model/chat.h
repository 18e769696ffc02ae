/* chat.h - chat shapes: which of the built-in prompts a model's template is, and writing that
 * prompt. Two are built in: plain ChatML, and ChatML that starts with a default system message, a
 * literal of the template, when the first message is not a system message. A template counts as one
 * of them only when all of it is, apart from white space inside tags; there is no template engine
 * here. Immutable after chat_set, any thread.
 */
#ifndef KT_CHAT_H
#define KT_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "model/tok_added.h"

enum chat_shape { CHAT_NONE, CHAT_UNKNOWN, CHAT_CHATML, CHAT_CHATML_SYSTEM };

struct chat {
    enum chat_shape shape;
    char *source; /* the model's template or NULL */
    char *system; /* default system message of CHAT_CHATML_SYSTEM */
};

/* source may be NULL (and is copied); override NULL or "chatml", which makes it plain ChatML
 * whatever the source is. KT_E_INVALID: another override; a template of another shape is no error
 * here. */
kt_status chat_set(struct chat *c, const char *source, const char *override, kt_err *err);
void chat_free(struct chat *c);
bool chat_is_chatml(const struct chat *c);
kt_status chat_supported(const struct chat *c, kt_err *err);
/* Append the prompt. ranges, if not NULL, has room for 2n: the parts that came from the messages,
 * ascending; *n_ranges says how many. */
kt_status chat_render(const struct chat *c, const kt_chat_message *m, size_t n,
                      bool add_generation_prompt, struct strbuf *out, struct tok_range *ranges,
                      size_t *n_ranges, kt_err *err);

#endif
