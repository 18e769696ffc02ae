/* uni.h - UTF-8 by hand: strict decoding of one code point, encoding, White_Space. Used by the
 * tokenizer, where text may hold invalid bytes that must survive, so that nothing here ever
 * replaces a byte. No tables: properties beyond White_Space come from utf8proc and PCRE2. Pure
 * functions, any thread.
 */
#ifndef KT_UNI_H
#define KT_UNI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the code point at s (n > 0 bytes left), 0 if the bytes are no UTF-8: overlong,
 * surrogate, above U+10FFFF or cut. */
static inline size_t uni_decode(const char *s, size_t n, uint32_t *cp)
{
    const uint8_t *p = (const uint8_t *)s;
    uint32_t a = p[0];
    if (a < 0x80) {
        *cp = a;
        return 1;
    }
    if (a < 0xC2 || a > 0xF4 || n < 2 || (p[1] & 0xC0) != 0x80)
        return 0;
    if (a < 0xE0) {
        *cp = (a & 31) << 6 | (p[1] & 63u);
        return 2;
    }
    if (n < 3 || (p[2] & 0xC0) != 0x80)
        return 0;
    if (a < 0xF0) {
        uint32_t c = (a & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
        if (c < 0x800 || (c >= 0xD800 && c <= 0xDFFF))
            return 0;
        *cp = c;
        return 3;
    }
    if (n < 4 || (p[3] & 0xC0) != 0x80)
        return 0;
    uint32_t c = (a & 7) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
    if (c < 0x10000 || c > 0x10FFFF)
        return 0;
    *cp = c;
    return 4;
}

/* Writes 1..4 bytes of a valid code point. */
static inline size_t uni_encode(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 63));
        out[2] = (char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 63));
    out[2] = (char)(0x80 | (cp >> 6 & 63));
    out[3] = (char)(0x80 | (cp & 63));
    return 4;
}

/* Length of the valid prefix of s[0..n). */
static inline size_t uni_valid(const char *s, size_t n)
{
    size_t i = 0;
    uint32_t cp;
    while (i < n) {
        size_t k = uni_decode(s + i, n - i, &cp);
        if (k == 0)
            break;
        i += k;
    }
    return i;
}

/* The White_Space property (25 code points; U+180E is not one). */
static inline bool uni_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* Start of the code point that ends at s[end), end > 0; a byte that belongs to none counts as one
 * of its own (*cp = U+FFFD). */
static inline size_t uni_back(const char *s, size_t end, uint32_t *cp)
{
    for (size_t k = 1; k <= 4 && k <= end; k++)
        if (((uint8_t)s[end - k] & 0xC0) != 0x80) {
            if (uni_decode(s + end - k, k, cp) == k)
                return end - k;
            break;
        }
    *cp = 0xFFFD;
    return end - 1;
}

#endif
