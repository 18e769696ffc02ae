/* schema.h - the part of JSON Schema (draft 2020-12) that profiles/host.schema.json uses,
 * interpreted over jansson values.
 *
 * The schema file itself is the single source of truth: it is compiled into the library as text and
 * read here. A keyword that this interpreter does not know is an error of ours when the schema is
 * opened, so that a rule can never be skipped silently. Annotations (title, description, format)
 * have no effect. Owner: the caller; one thread. Internal to src/profile.
 */
#ifndef KT_PROFILE_SCHEMA_H
#define KT_PROFILE_SCHEMA_H

#include <jansson.h>

#include "base/status.h"

struct schema;

/* NUL-terminated text of profiles/host.schema.json; made at build time. */
extern const unsigned char profile_schema_text[];

kt_status schema_open(const char *text, struct schema **out, kt_err *err);
void schema_close(struct schema *s);
/* KT_OK, or KT_E_FORMAT with "NAME: PATH: reason". */
kt_status schema_check(struct schema *s, const json_t *value, const char *name, kt_err *err);

#endif
