/* pack_panel.c - sixteen whole rows into one panel at memory speed, for the formats of pack.c.
 *
 * A panel is a transpose of 4-byte words (rows become lanes), which SSE2, part of every x86-64,
 * does four rows at a time; so no ISA flags are needed, and packing keeps up with what two memory
 * channels deliver. Sources are walked block by block down the sixteen rows: every cache line is
 * used up before its set is wanted again. Bytes equal those of pack.c's row-by-row path, which
 * stays the definition, takes short panels, and names the row of a forbidden value: here a
 * forbidden value, or a format without code here, only gives false. Pure; any thread.
 */
#include "pack.h"

#include "blocks.h"

#if defined(__SSE2__)
#include <emmintrin.h>

struct four {
    __m128i v[4];
};

static inline __m128i load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline void store16(uint8_t *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, v);
}

/* Words of four rows to four vectors, one per word, whose lanes are the rows. */
static inline struct four flip(struct four a)
{
    __m128i lo0 = _mm_unpacklo_epi32(a.v[0], a.v[1]), hi0 = _mm_unpackhi_epi32(a.v[0], a.v[1]),
            lo1 = _mm_unpacklo_epi32(a.v[2], a.v[3]), hi1 = _mm_unpackhi_epi32(a.v[2], a.v[3]);
    return (struct four){{_mm_unpacklo_epi64(lo0, lo1), _mm_unpackhi_epi64(lo0, lo1),
                          _mm_unpacklo_epi64(hi0, hi1), _mm_unpackhi_epi64(hi0, hi1)}};
}

static inline struct four load_rows(const uint8_t *s, size_t row)
{
    return (struct four){{load16(s), load16(s + row), load16(s + 2 * row), load16(s + 3 * row)}};
}

static inline void store_words(uint8_t *d, struct four a)
{
    for (int i = 0; i < 4; i++)
        store16(d + 64 * i, a.v[i]);
}

/* 16 bytes of each of 16 rows to four 64-byte vectors. */
static inline void move_words(const uint8_t *s, size_t row, uint8_t *d)
{
    for (size_t q = 0; q < 4; q++)
        store_words(d + 16 * q, flip(load_rows(s + 4 * q * row, row)));
}

/* One f16 of each row. false: one of them is NaN or infinite. */
static inline bool move_halves(const uint8_t *s, size_t row, uint8_t *d)
{
    const __m128i top = _mm_set1_epi16(0x7c00);
    for (size_t r = 0; r < 16; r++)
        memcpy(d + 2 * r, s + r * row, 2);
    __m128i bad = _mm_or_si128(_mm_cmpeq_epi16(_mm_and_si128(load16(d), top), top),
                               _mm_cmpeq_epi16(_mm_and_si128(load16(d + 16), top), top));
    return _mm_movemask_epi8(bad) == 0;
}

/* sixteen rows of sixteen bytes, transposed in place */
static void flip_bytes(__m128i a[16])
{
    __m128i b[16];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
        for (int i = 0; i < 16; i++)
            a[i] = b[i];
    }
}

/* Fifth bits as spread5 of pack.c, four rows at once. */
static inline __m128i spread5_rows(__m128i h)
{
    __m128i out = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) {
        __m128i x = _mm_and_si128(_mm_srli_epi32(h, i), _mm_set1_epi32(0x11111111));
        x = _mm_and_si128(_mm_or_si128(x, _mm_srli_epi32(x, 3)), _mm_set1_epi32(0x03030303));
        x = _mm_and_si128(_mm_or_si128(x, _mm_srli_epi32(x, 6)), _mm_set1_epi32(0x000f000f));
        x = _mm_and_si128(_mm_or_si128(x, _mm_srli_epi32(x, 12)), _mm_set1_epi32(0xff));
        out = _mm_or_si128(out, _mm_slli_epi32(x, 8 * i));
    }
    return out;
}

/* Formats of one block per group. */
static inline bool panel_block32(enum dtype t, const uint8_t *s, size_t row, uint32_t groups,
                                 uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t block = dtype_info(t)->block_bytes, gb = p16_group_bytes(f);
    const uint32_t n_codes = f.codes / 256;
    bool ok = true;
    for (uint32_t g = 0; g < groups; g++, s += block, d += gb) {
        const uint8_t *b = s;
        uint8_t *o = d;
        if (t == DT_MXFP4) {
            for (size_t r = 0; r < 16; r++)
                o[r] = b[r * row];
            ok &= _mm_movemask_epi8(_mm_cmpeq_epi8(load16(o), _mm_set1_epi8(-1))) == 0;
            b += 1;
            o += 16;
        } else {
            ok &= move_halves(b, row, o);
            b += 2;
            o += 32;
        }
        if (f.min) {
            ok &= move_halves(b, row, o);
            b += 2;
            o += 32;
        }
        if (f.high) {
            for (size_t r = 0; r < 16; r++)
                memcpy(o + 4 * r, b + r * row, 4);
            for (int q = 0; q < 4; q++)
                store16(o + 16 * q, spread5_rows(load16(o + 16 * q)));
            b += 4;
            o += 64;
        }
        for (uint32_t v = 0; v < n_codes; v++)
            move_words(b + 16 * v, row, o + 256 * v);
    }
    return ok;
}

/* Scales and minimums of Q4_K and Q5_K as sixteen bytes: kq_scale_min for j = 0..7 at once. */
static inline __m128i k45_scales(const uint8_t *s)
{
    uint32_t a = load_u32(s), b = load_u32(s + 4), c = load_u32(s + 8);
    uint32_t sc1 = (c & 0x0f0f0f0fu) | ((a >> 6) & 0x03030303u) << 4,
             mn1 = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 6) & 0x03030303u) << 4;
    return _mm_set_epi32((int)mn1, (int)(b & 0x3f3f3f3fu), (int)sc1, (int)(a & 0x3f3f3f3fu));
}

/* Nibbles of 16 + 16 columns: `up` picks the high nibbles. */
static inline __m128i pair_nibbles(__m128i lo, __m128i hi, bool up)
{
    const __m128i low = _mm_set1_epi8(15);
    if (up)
        return _mm_or_si128(_mm_and_si128(_mm_srli_epi16(lo, 4), low), _mm_andnot_si128(low, hi));
    return _mm_or_si128(_mm_and_si128(lo, low), _mm_slli_epi16(_mm_and_si128(hi, low), 4));
}

/* Codes of rows [4q, 4q + 4): low nibbles from 16 bytes, high ones from the 16 behind them. */
static inline void move_nibbles(const uint8_t *s, size_t row, bool up, uint8_t *d)
{
    for (size_t q = 0; q < 4; q++) {
        struct four lo = load_rows(s + 4 * q * row, row), hi = load_rows(s + 4 * q * row + 16, row);
        for (int i = 0; i < 4; i++)
            lo.v[i] = pair_nibbles(lo.v[i], hi.v[i], up);
        store_words(d + 16 * q, flip(lo));
    }
}

/* Fifth bits of Q5_K: words 0..7 of qh, bit j of every byte, become bits 0..7 of group j. */
static inline void move_k5_high(const uint8_t *s, size_t row, uint8_t *d, uint32_t gb)
{
    const __m128i one = _mm_set1_epi8(1);
    for (size_t q = 0; q < 4; q++) {
        struct four h[2] = {flip(load_rows(s + 4 * q * row, row)),
                            flip(load_rows(s + 4 * q * row + 16, row))};
        for (int j = 0; j < 8; j++) {
            __m128i w = _mm_setzero_si128();
            for (int i = 0; i < 8; i++)
                w = _mm_or_si128(
                    w, _mm_slli_epi16(_mm_and_si128(_mm_srli_epi16(h[i / 4].v[i % 4], j), one), i));
            store16(d + (size_t)j * gb + 16 * q, w);
        }
    }
}

static inline bool panel_k45(enum dtype t, const uint8_t *s, size_t row, uint32_t supers,
                             uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t gb = p16_group_bytes(f), block = dtype_info(t)->block_bytes;
    bool ok = true;
    for (uint32_t g = 0; g < supers; g++, s += block, d += f.head + 8 * gb) {
        const uint8_t *qs = s + (t == DT_Q5_K ? 48 : 16);
        uint8_t *o = d + f.head;
        __m128i sc[16];
        ok &= move_halves(s, row, d);
        ok &= move_halves(s + 2, row, d + 32);
        for (size_t r = 0; r < 16; r++)
            sc[r] = k45_scales(s + r * row + 4);
        flip_bytes(sc);
        if (t == DT_Q5_K)
            move_k5_high(s + 16, row, o + 32, gb);
        for (int j = 0; j < 8; j++, o += gb) {
            store16(o, sc[j]);
            store16(o + 16, sc[8 + j]);
            move_nibbles(qs + 32 * (j / 2), row, j % 2, o + 32 + f.high);
        }
    }
    return ok;
}

static inline bool panel_iq4_xs(const uint8_t *s, size_t row, uint32_t supers, uint8_t *d)
{
    const struct p16 f = p16_of(DT_IQ4_XS);
    const uint32_t gb = p16_group_bytes(f), block = dtype_info(DT_IQ4_XS)->block_bytes;
    bool ok = true;
    for (uint32_t g = 0; g < supers; g++, s += block, d += f.head + 8 * gb) {
        uint8_t *o = d + f.head;
        __m128i sc[16];
        ok &= move_halves(s, row, d);
        for (size_t r = 0; r < 16; r++) {
            uint8_t one[16] = {0};
            for (int j = 0; j < 8; j++)
                one[j] = (uint8_t)iq4xs_scale(s + r * row, j);
            sc[r] = load16(one);
        }
        flip_bytes(sc);
        for (int j = 0; j < 8; j++, o += gb) {
            store16(o, sc[j]);
            move_words(s + 8 + 16 * j, row, o + 16);
        }
    }
    return ok;
}

/* Upper two bits of Q6_K: words 4h..4h+3 of 32 bytes of qh become one word of group up = 0..3. */
static inline void move_k6_high(const uint8_t *s, size_t row, uint8_t *d, uint32_t gb)
{
    const __m128i two = _mm_set1_epi8(3);
    for (size_t q = 0; q < 4; q++)
        for (size_t h = 0; h < 2; h++) {
            struct four a = flip(load_rows(s + 4 * q * row + 16 * h, row));
            for (int up = 0; up < 4; up++) {
                __m128i w = _mm_setzero_si128();
                for (int v = 0; v < 4; v++)
                    w = _mm_or_si128(
                        w,
                        _mm_slli_epi16(_mm_and_si128(_mm_srli_epi16(a.v[v], 2 * up), two), 2 * v));
                store16(d + (size_t)up * gb + 64 * h + 16 * q, w);
            }
        }
}

static inline bool panel_q6_k(const uint8_t *s, size_t row, uint32_t supers, uint8_t *d)
{
    const struct p16 f = p16_of(DT_Q6_K);
    const uint32_t gb = p16_group_bytes(f), block = dtype_info(DT_Q6_K)->block_bytes;
    bool ok = true;
    for (uint32_t g = 0; g < supers; g++, s += block, d += f.head + 8 * gb) {
        uint8_t *o = d + f.head;
        __m128i sc[16];
        ok &= move_halves(s + 208, row, d);
        for (size_t r = 0; r < 16; r++)
            sc[r] = load16(s + r * row + 192);
        flip_bytes(sc);
        for (uint32_t h = 0; h < 2; h++)
            move_k6_high(s + 128 + 32 * h, row, o + 4 * h * gb + 32, gb);
        for (int j = 0; j < 8; j++, o += gb) {
            store16(o, sc[2 * j]);
            store16(o + 16, sc[2 * j + 1]);
            move_nibbles(s + 64 * (j / 4) + 32 * (j % 2), row, j % 4 >= 2, o + 160);
        }
    }
    return ok;
}

static inline __m128i not_finite32(__m128i v)
{
    const __m128i top = _mm_set1_epi32(0x7f800000);
    return _mm_cmpeq_epi32(_mm_and_si128(v, top), top);
}

/* 64 bytes of each row at a time. The columns behind the last whole word: word by word. */
static bool panel_f32(const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    __m128i bad = _mm_setzero_si128();
    uint32_t i = 0;
    for (; i + 16 <= k; i += 16)
        for (size_t q = 0; q < 4; q++)
            for (size_t c = 0; c < 4; c++) {
                struct four a = load_rows(s + 4 * q * row + 4 * (i + 4 * c), row);
                for (int v = 0; v < 4; v++)
                    bad = _mm_or_si128(bad, not_finite32(a.v[v]));
                store_words(d + 64 * (i + 4 * c) + 16 * q, flip(a));
            }
    bool ok = _mm_movemask_epi8(bad) == 0;
    for (; i < k; i++)
        for (size_t r = 0; r < 16; r++) {
            const uint8_t *at = s + r * row + 4 * (size_t)i;
            ok &= (load_u32(at) & 0x7f800000u) != 0x7f800000u;
            memcpy(d + 64 * (size_t)i + 4 * r, at, 4);
        }
    return ok;
}

/* Eight columns of eight rows of 16-bit elements. */
static inline void move_8x8(const uint8_t *s, size_t row, __m128i top, __m128i *bad, uint8_t *d)
{
    __m128i a[8], b[8];
    for (size_t r = 0; r < 8; r++) {
        a[r] = load16(s + r * row);
        *bad = _mm_or_si128(*bad, _mm_cmpeq_epi16(_mm_and_si128(a[r], top), top));
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        store16(d + 64 * i, _mm_unpacklo_epi16(a[i], a[i + 4]));
        store16(d + 64 * i + 32, _mm_unpackhi_epi16(a[i], a[i + 4]));
    }
}

static bool panel_16bit(enum dtype t, const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    const uint16_t top = t == DT_F16 ? 0x7c00 : 0x7f80;
    const __m128i tops = _mm_set1_epi16((short)top);
    __m128i bad = _mm_setzero_si128();
    uint32_t i = 0;
    for (; i + 32 <= k; i += 32)
        for (size_t h = 0; h < 2; h++)
            for (size_t c = 0; c < 4; c++)
                move_8x8(s + 8 * h * row + 2 * (i + 8 * c), row, tops, &bad,
                         d + 32 * (i + 8 * c) + 16 * h);
    bool ok = _mm_movemask_epi8(bad) == 0;
    for (; i < k; i++)
        for (size_t r = 0; r < 16; r++) {
            const uint8_t *at = s + r * row + 2 * (size_t)i;
            ok &= (load_u16(at) & top) != top;
            memcpy(d + 32 * (size_t)i + 2 * r, at, 2);
        }
    return ok;
}

bool pack_panel(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel)
{
    const size_t row = (size_t)dtype_row_bytes(t, k);
    switch (t) { /* one call per type, so that each is compiled for its constants */
    case DT_MXFP4:
        return panel_block32(DT_MXFP4, src, row, k / 32, panel);
    case DT_Q8_0:
        return panel_block32(DT_Q8_0, src, row, k / 32, panel);
    case DT_Q4_0:
    case DT_IQ4_NL:
        return panel_block32(DT_Q4_0, src, row, k / 32, panel);
    case DT_Q4_1:
        return panel_block32(DT_Q4_1, src, row, k / 32, panel);
    case DT_Q5_0:
        return panel_block32(DT_Q5_0, src, row, k / 32, panel);
    case DT_Q5_1:
        return panel_block32(DT_Q5_1, src, row, k / 32, panel);
    case DT_Q4_K:
        return panel_k45(DT_Q4_K, src, row, k / 256, panel);
    case DT_Q5_K:
        return panel_k45(DT_Q5_K, src, row, k / 256, panel);
    case DT_Q6_K:
        return panel_q6_k(src, row, k / 256, panel);
    case DT_IQ4_XS:
        return panel_iq4_xs(src, row, k / 256, panel);
    case DT_F32:
        return panel_f32(src, row, k, panel);
    case DT_F16:
    case DT_BF16:
        return panel_16bit(t, src, row, k, panel);
    default:
        return false;
    }
}

#else
bool pack_panel(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel)
{
    (void)t;
    (void)src;
    (void)k;
    (void)panel;
    return false;
}
#endif
