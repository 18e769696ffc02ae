/* http1.h - strict HTTP/1.1 request parser: bytes in, events out.
 * Request side only. Pure: no sockets, no clock, no globals; memory only for the text of the head
 * (bounded by the limits). Any split of the input at any byte gives the same events and the same
 * concatenated body. One owner, any thread.
 *
 * Cycle: feed until HTTP1_HEAD (accessors valid from here to the reset), then HTTP1_BODY zero or
 * more times, then HTTP1_DONE, then http1_reset. A feed of zero bytes is allowed and returns what
 * is already known (HTTP1_DONE right after the head of a request without body). After HTTP1_ERROR
 * the connection cannot be used for another request: status and reason say what to answer.
 */
#ifndef KT_SERVE_HTTP1_H
#define KT_SERVE_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "serve/http.h"

#define HTTP1_MAX_FIELDS 100

struct http1_limits {
    uint32_t line_bytes;  /* request line without its CRLF: 8 KiB, else 414 */
    uint32_t field_bytes; /* one header line without its CRLF: 8 KiB, else 431 */
    uint32_t block_bytes; /* all header lines with their CRLF, and again all trailers: 16 KiB, else
                             431 */
    uint32_t fields;      /* at most HTTP1_MAX_FIELDS, else 431 */
    uint32_t extension_bytes;    /* extensions of one chunk: 256 B, else 400 */
    uint64_t body_bytes;         /* POST and PUT: 32 MiB, else 413 */
    uint64_t ignored_body_bytes; /* other methods: 16 KiB, else 413 */
};
extern const struct http1_limits http1_limits_default;

enum http1_event { HTTP1_MORE, HTTP1_HEAD, HTTP1_BODY, HTTP1_DONE, HTTP1_ERROR };

struct http1 {
    struct http1_limits limits;
    /* valid from HTTP1_HEAD on */
    enum http_method method;
    int minor; /* 0 or 1 */
    bool keep_alive, chunked, expect_continue, expect_unknown;
    bool has_body;           /* chunked, or Content-Length above 0 */
    uint64_t content_length; /* 0 when chunked */
    int length_status;       /* 0; 411 or 413: answer this after the gate, do not read the body */
    size_t slash_at; /* offset in the decoded path of the first '/' that was written %2F; SIZE_MAX:
                        none */
    /* with HTTP1_BODY: a piece of the caller's input */
    const char *body;
    size_t body_len;
    uint64_t received; /* decoded body bytes so far (announced chunk sizes included) */
    /* with HTTP1_ERROR */
    int status;
    const char *reason; /* a fixed English text */

    /* private */
    int state;
    bool skipped_crlf;
    uint32_t line, block, extension, n_fields, digits;
    uint64_t left;
    struct strbuf head; /* NUL-terminated pieces: method, target, name, value, ..., decoded path */
    size_t target, version, path, query;
    struct {
        uint32_t name, value;
    } field[HTTP1_MAX_FIELDS];
};

void http1_init(struct http1 *p, const struct http1_limits *limits);
void http1_reset(
    struct http1 *p); /* ready for the next request of the connection; keeps the limits */
void http1_free(struct http1 *p);

/* Take bytes until an event or the end of the input; *used says how many were taken. HTTP1_MORE:
 * all of them. */
enum http1_event http1_feed(struct http1 *p, const char *data, size_t len, size_t *used);
/* true between requests: not a byte of the next one was taken */
bool http1_is_idle(const struct http1 *p);

const char *http1_path(const struct http1 *p);  /* decoded; "*" for OPTIONS * */
const char *http1_query(const struct http1 *p); /* raw, "" when absent */
const char *http1_header(const struct http1 *p,
                         const char *name); /* case-insensitive, the first one; NULL */

/* Helpers on text, shared with the gate. */
bool http1_text_equal(const char *a, const char *b);      /* ASCII, case-insensitive */
bool http1_list_has(const char *list, const char *token); /* comma-separated, case-insensitive */
/* host[:port] of a Host field: false when the grammar is broken. host excludes the port; an IPv6
 * literal keeps its brackets. */
bool http1_split_host(const char *value, size_t *host_len);

#endif
