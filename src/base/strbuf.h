/* strbuf.h - a growing byte string. An allocation failure is remembered, not reported at each call:
 * check sb_ok() once at the end. Owner: whoever holds the struct; zero-initialise, free with
 * sb_free. */
#ifndef KT_BASE_STRBUF_H
#define KT_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data; /* NUL-terminated when data != NULL */
    size_t len, cap;
    bool failed;
};

void sb_free(struct strbuf *b);
void sb_clear(struct strbuf *b); /* keeps the memory and the failed flag */
void sb_add(struct strbuf *b, const char *bytes, size_t n);
void sb_puts(struct strbuf *b, const char *s);
void sb_putc(struct strbuf *b, char c);
void sb_printf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool sb_ok(const struct strbuf *b)
{
    return !b->failed;
}
/* Hand the string over (mem_free it); NULL if an allocation failed. The buffer is empty after. */
char *sb_take(struct strbuf *b, size_t *len);

#endif
