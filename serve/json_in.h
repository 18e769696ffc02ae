/* json_in.h - JSON from clients: limits first, then jansson.
 * A pre-scan without recursion enforces depth, number of members and elements, length of number
 * texts and of keys, and turns lone surrogate escapes into U+FFFD. Duplicate keys, NUL, invalid
 * UTF-8, byte order marks and numbers beyond int64 or double are errors with their byte offset.
 * Pure; any thread.
 */
#ifndef KT_SERVE_JSON_IN_H
#define KT_SERVE_JSON_IN_H

#include <jansson.h>
#include <stddef.h>

#include "base/status.h"

#define JSON_IN_DEPTH 64
#define JSON_IN_MEMBERS 1000000
#define JSON_IN_NUMBER 64
#define JSON_IN_KEY 65536

/* Parse one JSON text. KT_OK and *out (json_decref it); KT_E_FORMAT or KT_E_LIMIT with a message
 * that has the byte offset; KT_E_NOMEM. */
kt_status json_in_parse(const char *text, size_t len, json_t **out, kt_err *err);
/* The pre-scan alone, in place. */
kt_status json_in_scan(char *text, size_t len, kt_err *err);

#endif
