/* pack_panel.c - sixteen whole rows into one panel at memory speed, for the formats of pack.c.
 *
 * A panel is a transpose of 4-byte words (rows become lanes), which SSE2, part of every x86-64,
 * does four rows at a time; so no ISA flags are needed. Bits of a code that stand in several words
 * are exchanged between them (swap_bits), 6-bit scales are put together after their bytes were
 * transposed, sixteen rows at once. Sources are walked block by block down the sixteen rows: every
 * cache line is used up before its set is wanted again. From cache to cache one core of a Zen 4
 * packs 18 to 40 GB/s; loops of a few vectors are unrolled, or those would live in memory (half the
 * rate). Bytes equal those of pack.c's row-by-row path, which stays the definition, takes short
 * panels, and names the row of a forbidden value: here a forbidden value, or a width without code
 * here, only gives false. Pure; any thread.
 */
#include "pack.h"

#include "blocks.h"

#if defined(__SSE2__)
#include <emmintrin.h>

/* every format is compiled for its constants */
#define IN static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

struct four {
    __m128i v[4];
};

IN __m128i load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

IN void store16(uint8_t *p, __m128i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, v);
}

/* Words of four rows to four vectors, one per word, whose lanes are the rows. */
IN struct four flip(struct four a)
{
    __m128i lo0 = _mm_unpacklo_epi32(a.v[0], a.v[1]), hi0 = _mm_unpackhi_epi32(a.v[0], a.v[1]),
            lo1 = _mm_unpacklo_epi32(a.v[2], a.v[3]), hi1 = _mm_unpackhi_epi32(a.v[2], a.v[3]);
    return (struct four){{_mm_unpacklo_epi64(lo0, lo1), _mm_unpackhi_epi64(lo0, lo1),
                          _mm_unpacklo_epi64(hi0, hi1), _mm_unpackhi_epi64(hi0, hi1)}};
}

IN struct four load_rows(const uint8_t *s, size_t row)
{
    return (struct four){{load16(s), load16(s + row), load16(s + 2 * row), load16(s + 3 * row)}};
}

IN void store_words(uint8_t *d, struct four a)
{
    UNROLL for (int i = 0; i < 4; i++) store16(d + 64 * i, a.v[i]);
}

/* 16 bytes of each of 16 rows to four 64-byte vectors. */
IN void move_words(const uint8_t *s, size_t row, uint8_t *d)
{
    UNROLL for (size_t q = 0; q < 4; q++)
        store_words(d + 16 * q, flip(load_rows(s + 4 * q * row, row)));
}

/* Sixteen bits of each of 16 rows. Through registers: a load behind narrow stores would wait for
 * them. */
struct pair {
    __m128i v[2];
};

IN struct pair gather16(const uint8_t *s, size_t row)
{
    struct pair p = {{_mm_setzero_si128(), _mm_setzero_si128()}};
#define PUT(i)                                                                                     \
    p.v[0] = _mm_insert_epi16(p.v[0], load_u16(s + (i)*row), i);                                   \
    p.v[1] = _mm_insert_epi16(p.v[1], load_u16(s + (i + 8) * row), i)
    PUT(0);
    PUT(1);
    PUT(2);
    PUT(3);
    PUT(4);
    PUT(5);
    PUT(6);
    PUT(7);
#undef PUT
    return p;
}

/* One 16-bit float of each row; top: the bits of its exponent. false: one is NaN or infinite. */
IN bool move_halves(const uint8_t *s, size_t row, uint16_t top, uint8_t *d)
{
    const __m128i t = _mm_set1_epi16((short)top);
    struct pair p = gather16(s, row);
    __m128i bad = _mm_or_si128(_mm_cmpeq_epi16(_mm_and_si128(p.v[0], t), t),
                               _mm_cmpeq_epi16(_mm_and_si128(p.v[1], t), t));
    store16(d, p.v[0]);
    store16(d + 16, p.v[1]);
    return _mm_movemask_epi8(bad) == 0;
}

/* One word of each of four rows. */
IN __m128i gather32(const uint8_t *s, size_t row)
{
    __m128i a = _mm_cvtsi32_si128((int)load_u32(s)), b = _mm_cvtsi32_si128((int)load_u32(s + row)),
            c = _mm_cvtsi32_si128((int)load_u32(s + 2 * row)),
            e = _mm_cvtsi32_si128((int)load_u32(s + 3 * row));
    return _mm_unpacklo_epi64(_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, e));
}

/* Exchanges the bits of *a above `shift` with those of *b under the mask. With a = b inside one
 * word it exchanges bits that lie `shift` apart. */
IN void swap_bits(__m128i *a, __m128i *b, int shift, __m128i mask)
{
    __m128i t = _mm_and_si128(_mm_xor_si128(_mm_srli_epi32(*a, shift), *b), mask);
    *b = _mm_xor_si128(*b, t);
    *a = _mm_xor_si128(*a, _mm_slli_epi32(t, shift));
}

/* sixteen rows of sixteen bytes, transposed in place */
IN void flip_bytes(__m128i a[16])
{
    __m128i b[16];
    UNROLL for (int round = 0; round < 4; round++)
    {
        UNROLL for (int i = 0; i < 8; i++)
        {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
        UNROLL for (int i = 0; i < 16; i++) a[i] = b[i];
    }
}

/* Fifth bits as spread5 of pack.c, four rows at once: bit number (j2 j1 j0 i1 i0) moves to (i1 i0
 * j2 j1 j0), by exchanging two digits of the number at a time. */
IN __m128i spread5_rows(__m128i h)
{
    static const struct {
        int shift;
        uint32_t mask;
    } step[4] = {{14, 0x0000cccc}, {7, 0x00aa00aa}, {2, 0x0c0c0c0c}, {1, 0x22222222}};
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m128i t = _mm_and_si128(_mm_xor_si128(_mm_srli_epi32(h, step[i].shift), h),
                                  _mm_set1_epi32((int)step[i].mask));
        h = _mm_xor_si128(h, _mm_xor_si128(t, _mm_slli_epi32(t, step[i].shift)));
    }
    return h;
}

/* Formats of one block per group. */
IN bool panel_block32(enum dtype t, const uint8_t *s, size_t row, uint32_t groups, uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t block = dtype_info(t)->block_bytes, gb = p16_group_bytes(f);
    const uint32_t n_codes = f.codes / 256;
    bool ok = true;
    for (uint32_t g = 0; g < groups; g++, s += block, d += gb) {
        const uint8_t *b = s;
        uint8_t *o = d;
        if (t == DT_MXFP4) {
            const __m128i low = _mm_set1_epi16(255);
            struct pair p = gather16(b, row); /* the codes behind are masked away */
            __m128i e = _mm_packus_epi16(_mm_and_si128(p.v[0], low), _mm_and_si128(p.v[1], low));
            ok &= _mm_movemask_epi8(_mm_cmpeq_epi8(e, _mm_set1_epi8(-1))) == 0;
            store16(o, e);
            b += 1;
            o += 16;
        } else {
            ok &= move_halves(b, row, t == DT_INT4 ? 0x7f80 : 0x7c00, o);
            b += 2;
            o += 32;
        }
        if (f.min) {
            ok &= move_halves(b, row, 0x7c00, o);
            b += 2;
            o += 32;
        }
        if (f.high) {
            UNROLL for (size_t q = 0; q < 4; q++)
                store16(o + 16 * q, spread5_rows(gather32(b + 4 * q * row, row)));
            b += 4;
            o += 64;
        }
        for (uint32_t v = 0; v < n_codes; v++)
            move_words(b + 16 * v, row, o + 256 * v);
    }
    return ok;
}

/* Sixteen bytes of each row: vector i becomes byte i of the 16 rows. */
IN void byte_planes(const uint8_t *s, size_t row, __m128i a[16])
{
    UNROLL for (size_t r = 0; r < 16; r++) a[r] = load16(s + r * row);
    flip_bytes(a);
}

/* The f16 of 16 rows from its two byte planes. */
IN bool join_halves(__m128i low, __m128i high, uint8_t *d)
{
    const __m128i top = _mm_set1_epi8(0x7c);
    store16(d, _mm_unpacklo_epi8(low, high));
    store16(d + 16, _mm_unpackhi_epi8(low, high));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_and_si128(high, top), top)) == 0;
}

/* Bits [from, from + n) of every byte, moved to bit `to`. */
IN __m128i bits(__m128i v, int from, int n, int to)
{
    const __m128i m = _mm_set1_epi8((char)(((1 << n) - 1) << to));
    return _mm_and_si128(from > to ? _mm_srli_epi16(v, from - to) : _mm_slli_epi16(v, to - from),
                         m);
}

/* Nibbles of 32 bytes: group a takes the low ones, group b the high ones; columns 16.. of a group
 * are its high nibbles. */
IN void move_nibbles(const uint8_t *s, size_t row, uint8_t *a, uint8_t *b)
{
    const __m128i low = _mm_set1_epi8(15);
    UNROLL for (size_t q = 0; q < 4; q++)
    {
        struct four x = load_rows(s + 4 * q * row, row), y = load_rows(s + 4 * q * row + 16, row);
        UNROLL for (int i = 0; i < 4; i++) swap_bits(&x.v[i], &y.v[i], 4, low);
        store_words(a + 16 * q, flip(x));
        store_words(b + 16 * q, flip(y));
    }
}

/* Eight words of a row, one bit of each column for each of 8 groups: word i, bit j of every byte
 * becomes bit i of the word of group j. */
IN void move_ones(const uint8_t *s, size_t row, uint8_t *d, uint32_t gb)
{
    const __m128i m1 = _mm_set1_epi8(0x55), m2 = _mm_set1_epi8(0x33), m4 = _mm_set1_epi8(15);
    UNROLL for (size_t q = 0; q < 4; q++)
    {
        struct four lo = flip(load_rows(s + 4 * q * row, row)),
                    hi = flip(load_rows(s + 4 * q * row + 16, row));
        __m128i w[8] = {lo.v[0], lo.v[1], lo.v[2], lo.v[3], hi.v[0], hi.v[1], hi.v[2], hi.v[3]};
        UNROLL for (int i = 0; i < 4; i++) swap_bits(&w[i], &w[i + 4], 4, m4);
        UNROLL for (int i = 0; i < 8; i += 4)
        {
            swap_bits(&w[i], &w[i + 2], 2, m2);
            swap_bits(&w[i + 1], &w[i + 3], 2, m2);
        }
        UNROLL for (int i = 0; i < 8; i += 2) swap_bits(&w[i], &w[i + 1], 1, m1);
        UNROLL for (int j = 0; j < 8; j++) store16(d + (size_t)j * gb + 16 * q, w[j]);
    }
}

/* The same for 32 bytes with two bits of each column for each of 4 groups: words 4h..4h+3 become
 * one word of each group. */
IN void move_twos(const uint8_t *s, size_t row, uint8_t *d, uint32_t gb)
{
    const __m128i m2 = _mm_set1_epi8(0x33), m4 = _mm_set1_epi8(15);
    for (size_t h = 0; h < 2; h++)
        UNROLL for (size_t q = 0; q < 4; q++)
        {
            struct four a = flip(load_rows(s + 4 * q * row + 16 * h, row));
            swap_bits(&a.v[0], &a.v[2], 4, m4);
            swap_bits(&a.v[1], &a.v[3], 4, m4);
            swap_bits(&a.v[0], &a.v[1], 2, m2);
            swap_bits(&a.v[2], &a.v[3], 2, m2);
            UNROLL for (int j = 0; j < 4; j++)
                store16(d + (size_t)j * gb + 64 * h + 16 * q, a.v[j]);
        }
}

/* ---- formats of 256 columns under one head: s and d are one block of 16 rows and its 8 groups
 * ----
 */

/* Head: d, dmin; then 12 bytes: scales and minimums of 6 bits (kq_scale_min). */
IN bool block_k45(enum dtype t, const uint8_t *s, size_t row, uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t gb = p16_group_bytes(f);
    uint8_t *o = d + f.head;
    __m128i a[16], *p = a + 4;
    byte_planes(s, row, a);
    bool ok = join_halves(a[0], a[1], d) && join_halves(a[2], a[3], d + 32);
    UNROLL for (int j = 0; j < 4; j++)
    {
        store16(o + j * gb, bits(p[j], 0, 6, 0));
        store16(o + j * gb + 16, bits(p[j + 4], 0, 6, 0));
        store16(o + (j + 4) * gb, _mm_or_si128(bits(p[j + 8], 0, 4, 0), bits(p[j], 6, 2, 4)));
        store16(o + (j + 4) * gb + 16,
                _mm_or_si128(bits(p[j + 8], 4, 4, 0), bits(p[j + 4], 6, 2, 4)));
    }
    if (f.high)
        move_ones(s + 16, row, o + 32, gb);
    for (int j = 0; j < 4; j++)
        move_nibbles(s + (f.high ? 48 : 16) + 32 * j, row, o + 2 * j * gb + 32 + f.high,
                     o + (2 * j + 1) * gb + 32 + f.high);
    return ok;
}

/* d; upper two bits of 8 scales; their lower four. */
static bool block_iq4_xs(const uint8_t *s, size_t row, uint8_t *d)
{
    const struct p16 f = p16_of(DT_IQ4_XS);
    const uint32_t gb = p16_group_bytes(f);
    uint8_t *o = d + f.head;
    __m128i a[16];
    byte_planes(s, row, a);
    bool ok = join_halves(a[0], a[1], d);
    UNROLL for (int j = 0; j < 8; j++)
        store16(o + j * gb, _mm_sub_epi8(_mm_or_si128(bits(a[4 + j / 2], 4 * (j % 2), 4, 0),
                                                      bits(a[2 + j / 4], 2 * (j % 4), 2, 4)),
                                         _mm_set1_epi8(32)));
    for (int j = 0; j < 8; j++)
        move_words(s + 8 + 16 * j, row, o + j * gb + 16);
    return ok;
}

static bool block_q6_k(const uint8_t *s, size_t row, uint8_t *d)
{
    const struct p16 f = p16_of(DT_Q6_K);
    const uint32_t gb = p16_group_bytes(f);
    uint8_t *o = d + f.head;
    __m128i a[16];
    byte_planes(s + 192, row, a);
    UNROLL for (int j = 0; j < 16; j++) store16(o + j / 2 * gb + 16 * (j % 2), a[j]);
    for (int h = 0; h < 8; h += 4) {
        move_twos(s + 128 + 8 * h, row, o + h * gb + 32, gb);
        for (int j = h; j < h + 2; j++)
            move_nibbles(s + 16 * h + 32 * (j - h), row, o + j * gb + 160, o + (j + 2) * gb + 160);
    }
    return move_halves(s + 208, row, 0x7c00, d);
}

/* Q2_K: 16 bytes of scales and minimums, 64 of codes, d, dmin. Q3_K: 32 bytes of third bits, 64 of
 * codes, 12 of scales (q3k_scale), d. */
IN bool block_k23(enum dtype t, const uint8_t *s, size_t row, uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t gb = p16_group_bytes(f);
    uint8_t *o = d + f.head;
    const uint8_t *codes = s + (t == DT_Q2_K ? 16 : 32);
    __m128i a[16];
    byte_planes(t == DT_Q2_K ? s : s + 94, row, a);
    const __m128i *p = a + 2; /* the scales of Q3_K end a row's block but for d */
    UNROLL for (int j = 0; j < 16; j++)
    {
        __m128i v = t == DT_Q2_K ? a[j]
                                 : _mm_sub_epi8(_mm_or_si128(bits(p[j % 8], 4 * (j / 8), 4, 0),
                                                             bits(p[8 + j % 4], 2 * (j / 4), 2, 4)),
                                                _mm_set1_epi8(32));
        store16(o + j / 2 * gb + 16 * (j % 2), v);
    }
    for (int h = 0; h < 2; h++)
        move_twos(codes + 32 * h, row, o + 4 * h * gb + f.scale + f.high, gb);
    if (t == DT_Q2_K)
        return move_halves(s + 80, row, 0x7c00, d) && move_halves(s + 82, row, 0x7c00, d + 32);
    move_ones(s, row, o + f.scale, gb);
    return join_halves(a[14], a[15], d);
}

typedef bool (*block_fn)(const uint8_t *s, size_t row, uint8_t *d);

#define BLOCK(name, call)                                                                          \
    static bool name(const uint8_t *s, size_t row, uint8_t *d)                                     \
    {                                                                                              \
        return call;                                                                               \
    }
BLOCK(block_q2_k, block_k23(DT_Q2_K, s, row, d))
BLOCK(block_q3_k, block_k23(DT_Q3_K, s, row, d))
BLOCK(block_q4_k, block_k45(DT_Q4_K, s, row, d))
BLOCK(block_q5_k, block_k45(DT_Q5_K, s, row, d))

static bool panel_256(enum dtype t, block_fn block, const uint8_t *s, uint32_t k, uint8_t *d)
{
    const struct p16 f = p16_of(t);
    const uint32_t from = dtype_info(t)->block_bytes, to = f.head + 8 * p16_group_bytes(f);
    const size_t row = (size_t)dtype_row_bytes(t, k);
    bool ok = true;
    for (uint32_t g = 0; g < k / 256; g++, s += from, d += to)
        ok &= block(s, row, d);
    return ok;
}

/* ---- rows with their scales in front ---- */

static bool panel_int8(const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    const __m128i top = _mm_set1_epi32(0x7f800000), half = _mm_set1_epi8((char)0x80);
    __m128i bad = _mm_setzero_si128();
    for (size_t q = 0; q < 4; q++) {
        __m128i v = gather32(s + 4 * q * row, row);
        bad = _mm_or_si128(bad, _mm_cmpeq_epi32(_mm_and_si128(v, top), top));
        store16(d + 16 * q, v);
    }
    s += 4;
    d += 64;
    for (uint32_t i = 0; i < k; i += 16)
        UNROLL for (size_t q = 0; q < 4; q++)
        {
            struct four a = flip(load_rows(s + i + 4 * q * row, row));
            UNROLL for (int v = 0; v < 4; v++) a.v[v] = _mm_xor_si128(a.v[v], half);
            store_words(d + 16 * (size_t)i + 16 * q, a);
        }
    return _mm_movemask_epi8(bad) == 0;
}

/* Whole blocks of 128 columns. */
static bool panel_fp8(const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    const uint8_t *code = s + dtype_row_scale_bytes(DT_FP8, k);
    const __m128i all = _mm_set1_epi32(0x7fffffff), most = _mm_set1_epi32(0x7b7fffff),
                  nan = _mm_set1_epi8(0x7f);
    __m128i bad = _mm_setzero_si128();
    for (uint32_t i = 0; i < k; i += FP8_BLOCK, s += 4, code += FP8_BLOCK) {
        for (size_t q = 0; q < 4; q++, d += 16) {
            __m128i v = gather32(s + 4 * q * row, row);
            bad = _mm_or_si128(bad, _mm_cmpgt_epi32(_mm_and_si128(v, all), most));
            v = _mm_castps_si128(_mm_mul_ps(_mm_castsi128_ps(v), _mm_set1_ps(256)));
            store16(d, v);
        }
        for (uint32_t c = 0; c < FP8_BLOCK; c += 16, d += 256) {
            __m128i a[16];
            byte_planes(code + c, row, a);
            UNROLL for (int j = 0; j < 16; j++)
            {
                bad = _mm_or_si128(bad, _mm_cmpeq_epi8(_mm_and_si128(a[j], nan), nan));
                store16(d + 16 * j, a[j]);
            }
        }
    }
    return _mm_movemask_epi8(bad) == 0;
}

/* ---- plain formats ---- */

IN __m128i not_finite32(__m128i v)
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
            UNROLL for (size_t c = 0; c < 4; c++)
            {
                struct four a = load_rows(s + 4 * q * row + 4 * (i + 4 * c), row);
                UNROLL for (int v = 0; v < 4; v++) bad = _mm_or_si128(bad, not_finite32(a.v[v]));
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
IN void move_8x8(const uint8_t *s, size_t row, __m128i top, __m128i *bad, uint8_t *d)
{
    __m128i a[8], b[8];
    UNROLL for (size_t r = 0; r < 8; r++)
    {
        a[r] = load16(s + r * row);
        *bad = _mm_or_si128(*bad, _mm_cmpeq_epi16(_mm_and_si128(a[r], top), top));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        store16(d + 64 * i, _mm_unpacklo_epi16(a[i], a[i + 4]));
        store16(d + 64 * i + 32, _mm_unpackhi_epi16(a[i], a[i + 4]));
    }
}

static bool panel_f16(const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    const __m128i tops = _mm_set1_epi16(0x7c00);
    __m128i bad = _mm_setzero_si128();
    uint32_t i = 0;
    for (; i + 32 <= k; i += 32)
        for (size_t h = 0; h < 2; h++)
            UNROLL for (size_t c = 0; c < 4; c++) move_8x8(
                s + 8 * h * row + 2 * (i + 8 * c), row, tops, &bad, d + 32 * (i + 8 * c) + 16 * h);
    bool ok = _mm_movemask_epi8(bad) == 0;
    for (; i < k; i++)
        for (size_t r = 0; r < 16; r++) {
            const uint8_t *at = s + r * row + 2 * (size_t)i;
            ok &= (load_u16(at) & 0x7c00) != 0x7c00;
            memcpy(d + 32 * (size_t)i + 2 * r, at, 2);
        }
    return ok;
}

/* Words of two columns; the width is even. */
static bool panel_bf16(const uint8_t *s, size_t row, uint32_t k, uint8_t *d)
{
    const __m128i top = _mm_set1_epi16(0x7f80);
    __m128i bad = _mm_setzero_si128();
    uint32_t i = 0;
    for (; i + 32 <= k; i += 32)
        for (size_t q = 0; q < 4; q++)
            UNROLL for (size_t c = 0; c < 4; c++)
            {
                struct four a = load_rows(s + 4 * q * row + 2 * (i + 8 * c), row);
                UNROLL for (int v = 0; v < 4; v++) bad =
                    _mm_or_si128(bad, _mm_cmpeq_epi16(_mm_and_si128(a.v[v], top), top));
                store_words(d + 32 * (i + 8 * c) + 16 * q, flip(a));
            }
    bool ok = _mm_movemask_epi8(bad) == 0;
    for (; i < k; i += 2)
        for (size_t r = 0; r < 16; r++) {
            const uint8_t *at = s + r * row + 2 * (size_t)i;
            ok &= (load_u16(at) & 0x7f80) != 0x7f80 && (load_u16(at + 2) & 0x7f80) != 0x7f80;
            memcpy(d + 32 * (size_t)i + 4 * r, at, 4);
        }
    return ok;
}

static bool panel_32(enum dtype t, const uint8_t *s, size_t row, uint32_t groups, uint8_t *d)
{
    switch (t) {
    case DT_MXFP4:
        return panel_block32(DT_MXFP4, s, row, groups, d);
    case DT_Q8_0:
        return panel_block32(DT_Q8_0, s, row, groups, d);
    case DT_INT4:
        return panel_block32(DT_INT4, s, row, groups, d);
    case DT_Q4_1:
        return panel_block32(DT_Q4_1, s, row, groups, d);
    case DT_Q5_0:
        return panel_block32(DT_Q5_0, s, row, groups, d);
    case DT_Q5_1:
        return panel_block32(DT_Q5_1, s, row, groups, d);
    default:
        return panel_block32(DT_Q4_0, s, row, groups, d);
    }
}

bool pack_panel(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel)
{
    static const block_fn block[DT_COUNT] = {
        [DT_Q2_K] = block_q2_k, [DT_Q3_K] = block_q3_k, [DT_Q4_K] = block_q4_k,
        [DT_Q5_K] = block_q5_k, [DT_Q6_K] = block_q6_k, [DT_IQ4_XS] = block_iq4_xs,
    };
    const size_t row = (size_t)dtype_row_bytes(t, k);
    switch (t) {
    case DT_F32:
        return panel_f32(src, row, k, panel);
    case DT_F16:
        return panel_f16(src, row, k, panel);
    case DT_BF16:
        return k % 2 == 0 && panel_bf16(src, row, k, panel);
    case DT_INT8:
        return k % KERN_GROUP == 0 && panel_int8(src, row, k, panel);
    case DT_FP8:
        return k % FP8_BLOCK == 0 && panel_fp8(src, row, k, panel);
    default:
        return block[t] != NULL ? panel_256(t, block[t], src, k, panel)
                                : panel_32(t, src, row, k / KERN_GROUP, panel);
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
