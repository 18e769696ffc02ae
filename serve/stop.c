/* stop.c - stop strings and UTF-8 hold-back (see stop.h).
 * "First complete match" makes the result independent of token borders: the text is looked at byte
 * by byte, so that a token of many bytes and the same bytes one at a time end at the same place.
 */
#include "serve/stop.h"

#include <string.h>

/* Length of the well-formed character at p, 0 if broken; *part is the length of the longest
 * well-formed beginning (>= 1 byte consumed). */
static size_t char_len(const unsigned char *p, size_t n, size_t *part)
{
    unsigned char lo = 0x80, hi = 0xbf;
    size_t want;
    *part = 1;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        want = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        want = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        want = 4;
    else
        return 0;
    if (p[0] == 0xe0)
        lo = 0xa0;
    else if (p[0] == 0xed)
        hi = 0x9f;
    else if (p[0] == 0xf0)
        lo = 0x90;
    else if (p[0] == 0xf4)
        hi = 0x8f;
    for (size_t i = 1; i < want; i++) {
        if (i >= n || p[i] < lo || p[i] > hi)
            return 0;
        *part = i + 1;
        lo = 0x80;
        hi = 0xbf;
    }
    return want;
}

void utf8_clean(const char *bytes, size_t n, struct strbuf *out)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t part, good = 0;
    for (size_t i = 0; i < n;) {
        size_t len = char_len(p + i, n - i, &part);
        if (len > 0) {
            good += len;
            i += len;
            continue;
        }
        sb_add(out, bytes + i - good, good);
        good = 0;
        sb_puts(out, "\xef\xbf\xbd");
        i += part;
    }
    sb_add(out, bytes + n - good, good);
}

size_t utf8_unfinished(const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t part;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = p[n - back];
        if (c < 0x80)
            return 0;
        if (c >= 0xc0) /* a lead byte: unfinished if all that follows fits but the character needs
                          more */
            return char_len(p + n - back, back, &part) == 0 && part == back && c >= 0xc2 &&
                           c <= 0xf4
                       ? back
                       : 0;
    }
    return 0;
}

void stop_init(struct stop_state *s, const struct stop_set *set)
{
    memset(s, 0, sizeof *s);
    s->matched = -1;
    if (set != NULL)
        s->set = *set;
}

void stop_free(struct stop_state *s)
{
    sb_free(&s->held);
}

static void release(struct stop_state *s, size_t n, struct strbuf *out)
{
    if (n == 0)
        return;
    utf8_clean(s->held.data, n, out);
    s->released += n;
    memmove(s->held.data, s->held.data + n, s->held.len - n);
    s->held.len -= n;
    s->held.data[s->held.len] = '\0';
}

/* The longest stop string that ends exactly at byte `end` of the held text, or -1. */
static int match_at(const struct stop_state *s, size_t end)
{
    int best = -1;
    for (uint32_t k = 0; k < s->set.n; k++) {
        size_t len = s->set.len[k];
        if (len <= end && memcmp(s->held.data + end - len, s->set.text[k], len) == 0 &&
            (best < 0 || len > s->set.len[best]))
            best = (int)k;
    }
    return best;
}

/* Bytes at the end of the held text that are a proper beginning of some stop string. */
static size_t possible_start(const struct stop_state *s)
{
    size_t most = 0;
    for (uint32_t k = 0; k < s->set.n; k++) {
        size_t n = s->set.len[k] - 1 < s->held.len ? s->set.len[k] - 1 : s->held.len;
        for (; n > most; n--)
            if (memcmp(s->held.data + s->held.len - n, s->set.text[k], n) == 0)
                most = n;
    }
    return most;
}

bool stop_feed(struct stop_state *s, const char *bytes, size_t n, struct strbuf *out)
{
    size_t before = s->held.len;
    sb_add(&s->held, bytes, n);
    if (n == 0 || !sb_ok(&s->held))
        return false;
    for (size_t end = before + 1; end <= s->held.len && s->set.n > 0; end++) {
        int k = match_at(s, end);
        if (k >= 0) {
            s->matched = k;
            release(s, end - s->set.len[k], out);
            sb_clear(&s->held);
            return true;
        }
    }
    size_t keep = possible_start(s), free_bytes = s->held.len - keep;
    release(s, free_bytes - utf8_unfinished(s->held.data, free_bytes), out);
    return false;
}

void stop_flush(struct stop_state *s, struct strbuf *out)
{
    release(s, s->held.len, out);
}
