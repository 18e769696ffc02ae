/* json_out.h - the one JSON writer: compact, UTF-8, C locale, numbers in the fewest digits that
 * read back equal. Escapes controls, quote, backslash, DEL and U+0085, U+2028, U+2029 (line readers
 * of some clients split on them). Invalid UTF-8 becomes U+FFFD. Writes into a strbuf; commas are
 * placed by the nesting state. Owner: the caller, one thread.
 */
#ifndef KT_BASE_JSON_OUT_H
#define KT_BASE_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

#define JO_DEPTH 64

struct json_out {
    struct strbuf *b;
    uint64_t has_item; /* bit d: the container at depth d already has a member */
    int depth;
    bool after_key;
};

void jo_init(struct json_out *j, struct strbuf *b);
void jo_object(struct json_out *j);
void jo_object_end(struct json_out *j);
void jo_array(struct json_out *j);
void jo_array_end(struct json_out *j);
void jo_key(struct json_out *j, const char *key);
void jo_str(struct json_out *j, const char *s); /* NULL writes null */
void jo_strn(struct json_out *j, const char *s, size_t n);
void jo_int(struct json_out *j, int64_t v);
void jo_uint(struct json_out *j, uint64_t v);
void jo_real(struct json_out *j, double v); /* NaN and infinity write null */
void jo_bool(struct json_out *j, bool v);
void jo_null(struct json_out *j);
void jo_raw(struct json_out *j, const char *json); /* an already written value */

/* key + value in one call */
void jo_kstr(struct json_out *j, const char *key, const char *s);
void jo_kint(struct json_out *j, const char *key, int64_t v);
void jo_kuint(struct json_out *j, const char *key, uint64_t v);
void jo_kreal(struct json_out *j, const char *key, double v);
void jo_kbool(struct json_out *j, const char *key, bool v);
void jo_knull(struct json_out *j, const char *key);

#endif
