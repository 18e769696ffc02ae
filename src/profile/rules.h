/* rules.h - what the schema cannot say: limits on the text before it is parsed, and rules between
 * fields (host-profile rules for host.json). Each check stops at the first failure with KT_E_FORMAT
 * and "NAME: PATH: reason". Internal to src/profile; no state. */
#ifndef KT_PROFILE_RULES_H
#define KT_PROFILE_RULES_H

#include <jansson.h>

#include "base/status.h"

/* Size and nesting, before any parser sees the text. */
kt_status rules_text(const char *text, size_t len, const char *name, kt_err *err);
/* `schema` names a major version that we know. KT_E_UNSUPPORTED for a newer one. */
kt_status rules_version(const json_t *root, const char *name, kt_err *err);
/* Rules between fields; the document has passed the schema. */
kt_status rules_document(const json_t *root, const char *name, kt_err *err);

#endif
