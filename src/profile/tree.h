/* tree.h - checks and text of a profile's document, shared by read.c, build.c and write.c. Internal
 * to src/profile; no state. */
#ifndef KT_PROFILE_TREE_H
#define KT_PROFILE_TREE_H

#include <jansson.h>

#include "base/status.h"
#include "base/strbuf.h"

/* Version, schema and rules between fields. */
kt_status profile_check_tree(const json_t *root, const char *name, kt_err *err);
/* Any JSON value as text: two-level indent for the sections and their entries, one line for what is
 * inside an entry. Real numbers have the fewest digits that read back equal. */
void tree_print(const json_t *v, struct strbuf *out);

#endif
