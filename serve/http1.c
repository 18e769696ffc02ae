/* http1.c - see http1.h. A state machine over single bytes with one class table; body bytes are
 * passed in pieces, not one by one. Syntax is checked byte by byte, so an error does not depend on
 * how the input was cut. What needs the whole head (Host, framing, target) is checked at the empty
 * line that ends it. Leniency is what smuggling lives on: nothing is repaired, nothing is guessed.
 * Invariants: head.data holds only NUL-terminated pieces once HTTP1_HEAD was returned; after
 * S_ERROR no byte is taken any more.
 */
#include "serve/http1.h"

#include <stdint.h>
#include <string.h>

const struct http1_limits http1_limits_default = {
    .line_bytes = 8192,
    .field_bytes = 8192,
    .block_bytes = 16384,
    .fields = HTTP1_MAX_FIELDS,
    .extension_bytes = 256,
    .body_bytes = 32u << 20,
    .ignored_body_bytes = 16384,
};

/* Byte classes: token character, request target, field value, hex digit, digit, unreserved (RFC
 * 3986). */
enum { C_TOKEN = 1, C_TARGET = 2, C_VALUE = 4, C_HEX = 8, C_DIGIT = 16, C_UNRESERVED = 32 };
/* clang-format off */
static const uint8_t classes[128] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 00 */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 10 */
    0x04, 0x07, 0x06, 0x05, 0x07, 0x07, 0x07, 0x07, 0x06, 0x06, 0x07, 0x07, 0x06, 0x27, 0x27, 0x06, /* 20 */
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x06, 0x06, 0x06, 0x06, 0x06, 0x06, /* 30 */
    0x06, 0x2f, 0x2f, 0x2f, 0x2f, 0x2f, 0x2f, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, /* 40 */
    0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x06, 0x04, 0x06, 0x07, 0x27, /* 50 */
    0x07, 0x2f, 0x2f, 0x2f, 0x2f, 0x2f, 0x2f, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, /* 60 */
    0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x27, 0x06, 0x07, 0x06, 0x27, 0x00, /* 70 */
};
/* clang-format on */

enum state {
    S_START,
    S_START_LF,
    S_METHOD,
    S_TARGET,
    S_VERSION,
    S_VERSION_LF,
    S_FIELD,
    S_NAME,
    S_VALUE_OWS,
    S_VALUE,
    S_VALUE_LF,
    S_HEAD_LF,
    S_SIZE,
    S_EXT_NAME,
    S_EXT_NAME_MORE,
    S_EXT_VALUE,
    S_EXT_VALUE_MORE,
    S_SIZE_LF,
    S_DATA_CR,
    S_DATA_LF,
    S_TRAILER,
    S_TRAILER_NAME,
    S_TRAILER_VALUE,
    S_TRAILER_LF,
    S_END_LF,
    S_BODY,
    S_DONE,
    S_ERROR
};

static bool is(unsigned char c, int mask)
{
    return ((c < 128 ? classes[c] : C_VALUE) & mask) != 0;
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

static int hex_value(unsigned char c)
{
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

static enum http1_event fail(struct http1 *p, int status, const char *reason)
{
    p->state = S_ERROR;
    p->status = status;
    p->reason = reason;
    return HTTP1_ERROR;
}

static enum http1_event go(struct http1 *p, enum state s)
{
    p->state = (int)s;
    return HTTP1_MORE;
}

/* ---- text helpers */

static bool equal_n(const char *a, size_t n, const char *b)
{
    for (size_t i = 0; i < n; i++)
        if (b[i] == '\0' || lower(a[i]) != lower(b[i]))
            return false;
    return b[n] == '\0';
}

bool http1_text_equal(const char *a, const char *b)
{
    return equal_n(a, strlen(a), b);
}

bool http1_list_has(const char *list, const char *token)
{
    while (*list != '\0') {
        list += strspn(list, " \t,");
        size_t n = strcspn(list, ",");
        size_t trimmed = n;
        while (trimmed > 0 && (list[trimmed - 1] == ' ' || list[trimmed - 1] == '\t'))
            trimmed--;
        if (trimmed > 0 && equal_n(list, trimmed, token))
            return true;
        list += n;
    }
    return false;
}

bool http1_split_host(const char *value, size_t *host_len)
{
    size_t n = 0;
    if (value[0] == '[') {
        for (n = 1; is((unsigned char)value[n], C_HEX) || value[n] == ':' || value[n] == '.'; n++)
            ;
        if (n < 4 || value[n] != ']')
            return false;
        n++;
    } else {
        while (is((unsigned char)value[n], C_UNRESERVED))
            n++;
        if (n == 0)
            return false;
    }
    *host_len = n;
    if (n > 255)
        return false;
    if (value[n] == '\0')
        return true;
    if (value[n] != ':')
        return false;
    const char *port = value + n + 1;
    unsigned number = 0;
    size_t digits = 0;
    for (; is((unsigned char)port[digits], C_DIGIT) && digits < 6; digits++)
        number = number * 10 + (unsigned)(port[digits] - '0');
    return digits >= 1 && digits <= 5 && port[digits] == '\0' && number <= 65535;
}

static bool utf8_valid(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s != 0) {
        unsigned char c = *s++;
        if (c < 0x80)
            continue;
        int more = c >= 0xc2 && c <= 0xdf   ? 1
                   : c >= 0xe0 && c <= 0xef ? 2
                   : c >= 0xf0 && c <= 0xf4 ? 3
                                            : 0;
        if (more == 0)
            return false;
        /* the second byte excludes overlong forms, surrogates and code points above U+10FFFF */
        unsigned low = c == 0xe0   ? 0xa0
                       : c == 0xf0 ? 0x90
                                   : 0x80,
                 high = c == 0xed   ? 0x9f
                        : c == 0xf4 ? 0x8f
                                    : 0xbf;
        for (; more > 0; more--, s++, low = 0x80, high = 0xbf)
            if (*s < low || *s > high)
                return false;
    }
    return true;
}

/* ---- the head as a whole */

static const char *text_at(const struct http1 *p, size_t offset)
{
    return p->head.data + offset;
}

static const struct {
    const char *name;
    enum http_method method;
} methods[] = {
    {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD},     {"POST", HTTP_POST},
    {"PUT", HTTP_PUT}, {"DELETE", HTTP_DELETE}, {"OPTIONS", HTTP_OPTIONS},
};

static enum http1_event finish_request_line(struct http1 *p)
{
    if (!sb_ok(&p->head))
        return fail(p, 503, "out of memory");
    const char *method = text_at(p, 0), *version = text_at(p, p->version);
    if (strlen(version) != 8 || memcmp(version, "HTTP/", 5) != 0 ||
        !is((unsigned char)version[5], C_DIGIT) || version[6] != '.' ||
        !is((unsigned char)version[7], C_DIGIT))
        return fail(p, 400, "malformed HTTP version");
    if (strcmp(method, "PRI") == 0)
        return fail(p, 400, "HTTP/2 is not spoken here");
    if (version[5] != '1' || version[7] > '1')
        return fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are supported");
    p->minor = version[7] - '0';
    if (strcmp(method, "CONNECT") == 0 || strcmp(method, "TRACE") == 0)
        return fail(p, 405, "method not allowed");
    p->method = 0;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(method, methods[i].name) == 0)
            p->method = methods[i].method;
    if (p->method == 0)
        return fail(p, 501, "method not implemented");
    p->line = 0;
    return go(p, S_FIELD);
}

/* Fields of which a second one is an attack or a mistake. */
static const char *const single_fields[] = {
    "host",   "content-length", "transfer-encoding", "authorization", "x-api-key", "content-type",
    "origin", "expect",         "content-encoding",
};

static const char *find_duplicate(const struct http1 *p)
{
    for (size_t s = 0; s < sizeof single_fields / sizeof single_fields[0]; s++) {
        int n = 0;
        for (uint32_t i = 0; i < p->n_fields; i++)
            n += http1_text_equal(text_at(p, p->field[i].name), single_fields[s]);
        if (n > 1)
            return single_fields[s];
    }
    return NULL;
}

static enum http1_event check_framing(struct http1 *p)
{
    const char *length = http1_header(p, "content-length"),
               *coding = http1_header(p, "transfer-encoding");
    bool takes_body = p->method == HTTP_POST || p->method == HTTP_PUT;
    if (length != NULL && coding != NULL)
        return fail(p, 400, "Content-Length together with Transfer-Encoding");
    if (coding != NULL) {
        if (p->minor == 0)
            return fail(p, 400, "Transfer-Encoding in HTTP/1.0");
        if (*coding == '\0')
            return fail(p, 400, "empty Transfer-Encoding");
        if (!http1_text_equal(coding, "chunked"))
            return fail(p, 501, "only the chunked transfer coding is supported");
        p->chunked = p->has_body = true;
    } else if (length != NULL) {
        size_t n = strlen(length);
        if (n < 1 || n > 19)
            return fail(p, 400, "malformed Content-Length");
        for (size_t i = 0; i < n; i++) {
            if (!is((unsigned char)length[i], C_DIGIT))
                return fail(p, 400, "malformed Content-Length");
            p->content_length = p->content_length * 10 + (uint64_t)(length[i] - '0');
        }
        p->has_body = p->content_length > 0;
        if (p->content_length > (takes_body ? p->limits.body_bytes : p->limits.ignored_body_bytes))
            p->length_status = 413;
    } else if (takes_body) {
        p->length_status = 411;
    }
    return HTTP1_MORE;
}

/* Decode [from, from + n) of the target behind the head text; checks what only the decoded path
 * shows. */
static enum http1_event decode_path(struct http1 *p, size_t from, size_t n)
{
    p->path = p->head.len;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text_at(p, from)[i];
        if (c == '%') {
            if (n - i < 3 || !is((unsigned char)text_at(p, from)[i + 1], C_HEX) ||
                !is((unsigned char)text_at(p, from)[i + 2], C_HEX))
                return fail(p, 400, "malformed percent-encoding");
            c = (unsigned char)(hex_value((unsigned char)text_at(p, from)[i + 1]) * 16 +
                                hex_value((unsigned char)text_at(p, from)[i + 2]));
            i += 2;
            if (c == 0)
                return fail(p, 400, "NUL in the path");
            if (c == '/' && p->slash_at == SIZE_MAX)
                p->slash_at = p->head.len - p->path;
        }
        sb_putc(&p->head, (char)c);
        if (!sb_ok(&p->head))
            return fail(p, 503, "out of memory");
    }
    sb_putc(&p->head, '\0');
    if (!sb_ok(&p->head))
        return fail(p, 503, "out of memory");
    const char *path = http1_path(p);
    if (!utf8_valid(path))
        return fail(p, 400, "the path is not UTF-8");
    for (const char *s = path; *s != '\0';) {
        size_t len = strcspn(s, "/");
        if ((len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.'))
            return fail(p, 400, "dot segment in the path");
        s += len + (s[len] == '/');
    }
    return HTTP1_MORE;
}

static enum http1_event check_target(struct http1 *p, const char *host)
{
    size_t from = p->target;
    const char *target = text_at(p, from);
    if (strcmp(target, "*") == 0) {
        if (p->method != HTTP_OPTIONS)
            return fail(p, 400, "target * is for OPTIONS only");
    } else if (target[0] != '/') {
        size_t scheme = equal_n(target, strnlen(target, 7), "http://")    ? 7
                        : equal_n(target, strnlen(target, 8), "https://") ? 8
                                                                          : 0;
        if (scheme == 0)
            return fail(p, 400, "malformed request target");
        size_t authority = strcspn(target + scheme, "/?");
        if (!equal_n(target + scheme, authority, host))
            return fail(p, 400, "the target's authority differs from Host");
        from += scheme + authority;
    }
    size_t n = strcspn(text_at(p, from), "?");
    if (n == 0) { /* absolute form without a path */
        p->path = p->head.len;
        sb_add(&p->head, "/", 2);
        if (!sb_ok(&p->head))
            return fail(p, 503, "out of memory");
    } else if (decode_path(p, from, n) == HTTP1_ERROR) {
        return HTTP1_ERROR;
    }
    p->query = from + n + (text_at(p, from)[n] == '?');
    return HTTP1_MORE;
}

static enum http1_event finish_head(struct http1 *p)
{
    if (!sb_ok(&p->head))
        return fail(p, 503, "out of memory");
    if (find_duplicate(p) != NULL)
        return fail(p, 400, "a header field that may appear once appears twice");
    const char *host = http1_header(p, "host");
    size_t host_len;
    if (host == NULL)
        return fail(p, 400, "Host is missing");
    if (!http1_split_host(host, &host_len))
        return fail(p, 400, "malformed Host");
    if (check_framing(p) == HTTP1_ERROR || check_target(p, host) == HTTP1_ERROR)
        return HTTP1_ERROR;
    p->keep_alive = p->minor == 1;
    for (uint32_t i = 0; i < p->n_fields; i++)
        if (strcmp(text_at(p, p->field[i].name), "connection") == 0 &&
            http1_list_has(text_at(p, p->field[i].value), "close"))
            p->keep_alive = false;
    const char *expect = http1_header(p, "expect");
    if (expect != NULL && p->minor == 1) { /* RFC 9110 10.1.1: a 1.0 client cannot expect */
        p->expect_continue = http1_text_equal(expect, "100-continue");
        p->expect_unknown = !p->expect_continue;
    }
    p->left = p->content_length;
    p->state = !p->has_body ? S_DONE : p->chunked ? S_SIZE : S_BODY;
    return HTTP1_HEAD;
}

/* ---- single bytes */

static enum http1_event request_line_byte(struct http1 *p, unsigned char c)
{
    if (c != '\r' && c != '\n' && p->state >= S_METHOD && ++p->line > p->limits.line_bytes)
        return fail(p, 414, "the request line is too long");
    switch (p->state) {
    case S_START_LF:
        return c == '\n' ? go(p, S_START) : fail(p, 400, "bare CR");
    case S_METHOD:
        if (c == ' ') {
            sb_putc(&p->head, '\0');
            p->target = p->head.len;
            return go(p, S_TARGET);
        }
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed method");
        break;
    case S_TARGET:
        if (c == ' ' && p->head.len > p->target) {
            sb_putc(&p->head, '\0');
            p->version = p->head.len;
            return go(p, S_VERSION);
        }
        if (!is(c, C_TARGET))
            return fail(p, 400, "malformed request target");
        break;
    case S_VERSION:
        if (c == '\r') {
            sb_putc(&p->head, '\0');
            return go(p, S_VERSION_LF);
        }
        if (!is(c, C_TARGET) || p->head.len - p->version >= 8)
            return fail(p, 400, "malformed HTTP version");
        break;
    default: /* S_VERSION_LF */
        return c == '\n' ? finish_request_line(p) : fail(p, 400, "bare CR");
    }
    sb_putc(&p->head, (char)c);
    return HTTP1_MORE;
}

/* Count a byte of a header or trailer line. */
static bool line_fits(struct http1 *p, unsigned char c)
{
    p->block++;
    p->line = c == '\n' ? 0 : p->line + (c != '\r');
    return p->line <= p->limits.field_bytes && p->block <= p->limits.block_bytes;
}

static void end_value(struct http1 *p)
{
    size_t start = p->field[p->n_fields - 1].value;
    while (p->head.len > start &&
           (p->head.data[p->head.len - 1] == ' ' || p->head.data[p->head.len - 1] == '\t'))
        p->head.len--;
    sb_putc(&p->head, '\0');
}

static enum http1_event field_byte(struct http1 *p, unsigned char c)
{
    if (!line_fits(p, c))
        return fail(p, 431, "the header fields are too large");
    switch (p->state) {
    case S_FIELD:
        if (c == '\r')
            return go(p, S_HEAD_LF);
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed header field name");
        if (p->n_fields >= p->limits.fields)
            return fail(p, 431, "too many header fields");
        p->field[p->n_fields++].name = (uint32_t)p->head.len;
        p->state = S_NAME;
        break;
    case S_NAME:
        if (c == ':') {
            sb_putc(&p->head, '\0');
            p->field[p->n_fields - 1].value = (uint32_t)p->head.len;
            return go(p, S_VALUE_OWS);
        }
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed header field name");
        break;
    case S_VALUE_OWS:
    case S_VALUE:
        if (p->state == S_VALUE_OWS && (c == ' ' || c == '\t'))
            return HTTP1_MORE;
        p->state = S_VALUE;
        if (c == '\r') {
            end_value(p);
            return go(p, S_VALUE_LF);
        }
        if (!is(c, C_VALUE))
            return fail(p, 400, "malformed header field value");
        sb_putc(&p->head, (char)c);
        return HTTP1_MORE;
    case S_VALUE_LF:
        return c == '\n' ? go(p, S_FIELD) : fail(p, 400, "bare CR");
    default: /* S_HEAD_LF */
        return c == '\n' ? finish_head(p) : fail(p, 400, "bare CR");
    }
    sb_putc(&p->head, lower((char)c)); /* names are kept in lower case */
    return HTTP1_MORE;
}

static enum http1_event finish_chunk_line(struct http1 *p)
{
    if (p->left == 0) {
        p->line = p->block = p->digits = 0;
        return go(p, S_TRAILER);
    }
    bool takes_body = p->method == HTTP_POST || p->method == HTTP_PUT;
    uint64_t limit = takes_body ? p->limits.body_bytes : p->limits.ignored_body_bytes;
    if (p->left > limit || p->received > limit - p->left)
        return fail(p, 413, "the body is too large");
    p->received += p->left;
    return go(p, S_BODY);
}

static enum http1_event chunk_byte(struct http1 *p, unsigned char c)
{
    if (p->state >= S_EXT_NAME && p->state <= S_EXT_VALUE_MORE && c != '\r' &&
        ++p->extension > p->limits.extension_bytes)
        return fail(p, 400, "chunk extensions are too long");
    switch (p->state) {
    case S_SIZE:
        if (is(c, C_HEX)) {
            if (++p->digits > 16)
                return fail(p, 400, "malformed chunk size");
            p->left = p->left * 16 + (uint64_t)hex_value(c);
            return HTTP1_MORE;
        }
        if (p->digits == 0 || (c != ';' && c != '\r'))
            return fail(p, 400, "malformed chunk size");
        p->extension = c == ';';
        return go(p, c == ';' ? S_EXT_NAME : S_SIZE_LF);
    case S_EXT_NAME:
    case S_EXT_VALUE:
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed chunk extension");
        return go(p, p->state == S_EXT_NAME ? S_EXT_NAME_MORE : S_EXT_VALUE_MORE);
    case S_EXT_NAME_MORE:
    case S_EXT_VALUE_MORE:
        if (is(c, C_TOKEN))
            return HTTP1_MORE;
        if (c == '=' && p->state == S_EXT_NAME_MORE)
            return go(p, S_EXT_VALUE);
        if (c == ';' || c == '\r')
            return go(p, c == ';' ? S_EXT_NAME : S_SIZE_LF);
        return fail(p, 400, "malformed chunk extension");
    case S_SIZE_LF:
        return c == '\n' ? finish_chunk_line(p) : fail(p, 400, "bare CR");
    case S_DATA_CR:
        return c == '\r' ? go(p, S_DATA_LF) : fail(p, 400, "chunk data is not followed by CRLF");
    default: /* S_DATA_LF */
        p->digits = p->extension = 0;
        return c == '\n' ? go(p, S_SIZE) : fail(p, 400, "chunk data is not followed by CRLF");
    }
}

/* Trailers obey the rules of header fields and are forgotten. */
static enum http1_event trailer_byte(struct http1 *p, unsigned char c)
{
    if (!line_fits(p, c))
        return fail(p, 431, "the trailer fields are too large");
    switch (p->state) {
    case S_TRAILER:
        if (c == '\r')
            return go(p, S_END_LF);
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed trailer field name");
        if (++p->digits > p->limits.fields)
            return fail(p, 431, "too many trailer fields");
        return go(p, S_TRAILER_NAME);
    case S_TRAILER_NAME:
        if (c == ':')
            return go(p, S_TRAILER_VALUE);
        return is(c, C_TOKEN) ? HTTP1_MORE : fail(p, 400, "malformed trailer field name");
    case S_TRAILER_VALUE:
        if (c == '\r')
            return go(p, S_TRAILER_LF);
        return is(c, C_VALUE) ? HTTP1_MORE : fail(p, 400, "malformed trailer field value");
    case S_TRAILER_LF:
        return c == '\n' ? go(p, S_TRAILER) : fail(p, 400, "bare CR");
    default: /* S_END_LF */
        return c == '\n' ? go(p, S_DONE) : fail(p, 400, "bare CR");
    }
}

static enum http1_event next_byte(struct http1 *p, unsigned char c)
{
    if (p->state == S_START) {
        if (c == '\r' && !p->skipped_crlf) { /* some clients end a body with an extra CRLF */
            p->skipped_crlf = true;
            return go(p, S_START_LF);
        }
        if (!is(c, C_TOKEN))
            return fail(p, 400, "malformed method");
        p->state = S_METHOD;
    }
    if (p->state <= S_VERSION_LF)
        return request_line_byte(p, c);
    if (p->state <= S_HEAD_LF)
        return field_byte(p, c);
    return p->state <= S_DATA_LF ? chunk_byte(p, c) : trailer_byte(p, c);
}

/* ---- interface */

void http1_init(struct http1 *p, const struct http1_limits *limits)
{
    memset(p, 0, sizeof *p);
    p->limits = limits != NULL ? *limits : http1_limits_default;
    if (p->limits.fields > HTTP1_MAX_FIELDS)
        p->limits.fields = HTTP1_MAX_FIELDS;
    p->slash_at = SIZE_MAX;
}

void http1_reset(struct http1 *p)
{
    struct http1_limits limits = p->limits;
    sb_free(&p->head); /* an idle connection holds no head */
    http1_init(p, &limits);
}

void http1_free(struct http1 *p)
{
    sb_free(&p->head);
}

bool http1_is_idle(const struct http1 *p)
{
    return p->state == S_START && !p->skipped_crlf;
}

enum http1_event http1_feed(struct http1 *p, const char *data, size_t len, size_t *used)
{
    size_t i = 0;
    for (;;) {
        if (p->state == S_BODY && p->left == 0)
            p->state = p->chunked ? S_DATA_CR : S_DONE;
        bool blocked = p->length_status != 0 && p->state > S_HEAD_LF && p->state != S_ERROR;
        if (blocked)
            fail(p, p->length_status,
                 p->length_status == 411 ? "a length is required" : "the body is too large");
        *used = i;
        if (p->state == S_DONE)
            return HTTP1_DONE;
        if (p->state == S_ERROR)
            return HTTP1_ERROR;
        if (i == len)
            return HTTP1_MORE;
        if (p->state == S_BODY) {
            size_t n = p->left < len - i ? (size_t)p->left : len - i;
            p->body = data + i;
            p->body_len = n;
            p->left -= n;
            if (!p->chunked)
                p->received += n;
            *used = i + n;
            return HTTP1_BODY;
        }
        enum http1_event e = next_byte(p, (unsigned char)data[i++]);
        *used = i;
        if (e != HTTP1_MORE)
            return e;
    }
}

const char *http1_path(const struct http1 *p)
{
    return text_at(p, p->path);
}

const char *http1_query(const struct http1 *p)
{
    return text_at(p, p->query);
}

const char *http1_header(const struct http1 *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_fields; i++)
        if (http1_text_equal(text_at(p, p->field[i].name), name))
            return text_at(p, p->field[i].value);
    return NULL;
}
