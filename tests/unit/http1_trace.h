/* http1_trace.h - runs a byte stream through the request parser and writes what happened as text,
 * for tests and the fuzz target. The text names every event with all results (method, path, query,
 * fields, body digest, flags, status), and nothing that may depend on how the input was cut. So two
 * traces of the same bytes must be equal, whatever the pieces were.
 */
#ifndef KT_TESTS_HTTP1_TRACE_H
#define KT_TESTS_HTTP1_TRACE_H

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "serve/http1.h"

/* The length of the next piece; 0 is allowed. */
typedef size_t (*http1_cut)(void *state, size_t left);

static inline void http1_trace_head(const struct http1 *p, struct strbuf *out)
{
    sb_printf(
        out,
        "HEAD %d 1.%d %s?%s slash=%zd keep=%d chunked=%d body=%d length=%llu status=%d expect=%d%d",
        (int)p->method, p->minor, http1_path(p), http1_query(p),
        p->slash_at == SIZE_MAX ? (ssize_t)-1 : (ssize_t)p->slash_at, p->keep_alive, p->chunked,
        p->has_body, (unsigned long long)p->content_length, p->length_status, p->expect_continue,
        p->expect_unknown);
    for (uint32_t i = 0; i < p->n_fields; i++)
        sb_printf(out, " [%s=%s]", p->head.data + p->field[i].name,
                  p->head.data + p->field[i].value);
    sb_puts(out, "\n");
}

/* Every piece is copied into its own block, so that reading past it is an error for the address
 * sanitizer. */
static inline void http1_trace(const struct http1_limits *limits, const char *data, size_t len,
                               http1_cut cut, void *state, struct strbuf *out)
{
    struct http1 p;
    http1_init(&p, limits);
    struct strbuf body = {0};
    size_t at = 0;
    bool more = true;
    while (more) {
        size_t n = cut(state, len - at), done = 0;
        char *piece = malloc(n + (n == 0));
        if (n > 0)
            memcpy(piece, data + at, n);
        for (bool wait = false; more && !wait;) {
            size_t used = 0;
            enum http1_event e = http1_feed(&p, piece + done, n - done, &used);
            if (used > n - done)
                abort();
            done += used;
            switch (e) {
            case HTTP1_MORE:
                if (done != n)
                    abort();
                wait = true;
                break;
            case HTTP1_HEAD:
                http1_trace_head(&p, out);
                break;
            case HTTP1_BODY:
                if (p.body_len == 0 || p.body_len > used)
                    abort();
                sb_add(&body, p.body, p.body_len);
                break;
            case HTTP1_DONE:
                sb_printf(out, "DONE body %zu:", body.len);
                sb_add(out, body.data, body.len);
                sb_puts(out, "\n");
                sb_clear(&body);
                http1_reset(&p);
                break;
            case HTTP1_ERROR:
                sb_printf(out, "ERROR %d %s after %zu body %zu\n", p.status, p.reason, at + done,
                          body.len);
                more = false;
                break;
            }
        }
        free(piece);
        at += n;
        if (at == len && n == 0)
            break;
        if (at == len && more) { /* one empty feed at the end: it must not change a thing */
            size_t used;
            if (http1_feed(&p, "", 0, &used) != HTTP1_MORE)
                abort();
            break;
        }
    }
    if (more)
        sb_printf(out, "END idle=%d body %zu\n", http1_is_idle(&p), body.len);
    sb_free(&body);
    http1_free(&p);
}

static inline size_t http1_cut_whole(void *state, size_t left)
{
    (void)state;
    return left;
}

/* *(size_t *)state: the first piece's length; the rest in one. */
static inline size_t http1_cut_at(void *state, size_t left)
{
    size_t *first = state, n = *first < left ? *first : left;
    *first = SIZE_MAX;
    return n;
}

static inline size_t http1_cut_bytes(void *state, size_t left)
{
    (void)state;
    return left > 0;
}

#endif
