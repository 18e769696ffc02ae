/* wide512.h - products for many tokens with weights that become 32-bit lanes, AVX512: the tiles
 * that F32, F16, BF16 and FP8 share, and with KERN_WIDE_DP the BF16 pairs of vdpbf16ps.
 *
 * A tile is three panels (48 rows) times up to 8 tokens: 24 sums in registers, per step 3 loads of
 * weights, a broadcast per token straight from the activation rows, 24 fma. Eight row pointers, no
 * more, fit in registers. F32 and BF16 are multiplied from the panel; of F16 and FP8 the first tile
 * leaves decoded weights in scratch for the tiles after it, 128 columns at a time (24 KiB: they
 * stay in the first-level cache), beside its fma. Meanwhile what is multiplied next is asked for, a
 * few lines every 32 columns. Row sums meet in y, segments of 512 columns ascending. `t` is a
 * compile-time constant. Static inline only; included by files compiled with the AVX512 flags
 * alone.
 */
#ifndef KT_KERN_WIDE512_H
#define KT_KERN_WIDE512_H

#include "mm512.h"

#define WIDE_PANELS 3
#define WIDE_TOKENS 8  /* of a tile */
#define WIDE_BLOCK 48  /* tokens that share what is decoded */
#define WIDE_DEPTH 128 /* columns decoded at a time */
#define WIDE_ASK 32    /* columns between requests for what comes next */
#define WIDE_AHEAD 512 /* bytes between a weight and what is moved to the first-level cache */

#ifdef KERN_WIDE_DP
#define WIDE_COLUMNS 2 /* of a step: a lane holds two BF16 */
typedef uint16_t wide_x;
#else
#define WIDE_COLUMNS 1
typedef float wide_x;
#endif

/* How a tile comes by its weights. */
enum { WIDE_DIRECT, WIDE_FIRST, WIDE_AGAIN };

struct wide_scratch {
    float w[WIDE_DEPTH / WIDE_COLUMNS][WIDE_PANELS][KERN_PANEL];
    float sum[WIDE_BLOCK][WIDE_PANELS][KERN_PANEL]; /* of a segment so far */
#ifdef KERN_WIDE_DP
    uint16_t x[WIDE_BLOCK][KERN_SEGMENT + 32]; /* a segment of rows that came as fp32 alone */
#endif
} __attribute__((aligned(64)));

/* A block of tokens over columns [k0, k1) of up to three panels, inside one segment. */
struct wide_job {
    const struct kern_mm *a;
    struct wide_scratch *m;
    const uint8_t *w; /* the first panel */
    size_t panel;
    uint32_t row, t0, n, k0, k1;
    const uint8_t *next; /* what to ask for of the panels that come next, `panel` apart */
    uint32_t lines, share;
    const uint8_t *also; /* and of their activations */
    uint32_t also_lines, also_share;
};
typedef void (*wide_fn)(struct wide_job *b, uint32_t t0);

/* Where column k0 (a multiple of 128) lies in a panel. */
IN size_t wide_at(int t, uint32_t k0)
{
    return t == DT_FP8 ? fp8_block_at(k0) : (size_t)k0 * KERN_PANEL * plain_bytes(t);
}

IN void wide_ask(struct wide_job *b, const int np)
{
    for (uint32_t i = 0; i < b->share && b->lines > 0; i++, b->lines--, b->next += 64)
        UNROLL
    for (int s = 0; s < np; s++)
        _mm_prefetch((const char *)b->next + (size_t)s * b->panel, _MM_HINT_T1);
    for (uint32_t i = 0; i < b->also_share && b->also_lines > 0; i++, b->also_lines--)
        _mm_prefetch((const char *)b->also, _MM_HINT_T1), b->also += 64;
}

IN __mmask16 wide_mask(uint32_t left)
{
    return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* Where the 16 rows of column k (even) lie. */
IN const uint8_t *wide_column(int t, const uint8_t *panel, uint32_t k)
{
    return t == DT_FP8 ? panel + fp8_block_at(k) + 64 + (size_t)(k % FP8_BLOCK) * KERN_PANEL
                       : panel + (size_t)k * KERN_PANEL * plain_bytes(t);
}

#ifndef KERN_WIDE_DP
/* Column k + c of the rows in fp32; k even, at p; c 0 or 1. */
IN __m512 wide_decode(int t, const uint8_t *p, const int c, __m512 scale)
{
    if (t == DT_FP8) {
        /* a code moved into a half is 2^-8 of its value, subnormals included; the panel's scales
         * are 2^8 of the stored ones, so the product is the same number and rounds the same */
        __m256i h = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + KERN_PANEL * c)));
        h = _mm256_and_si256(_mm256_slli_epi16(h, 7), _mm256_set1_epi16((short)0xbfff));
        return _mm512_mul_ps(_mm512_cvtph_ps(h), scale);
    }
    if (t == DT_F32)
        return _mm512_loadu_ps(p + 64 * c);
    if (t == DT_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + 32 * c)));
    const __m512i v = _mm512_loadu_si512(p); /* both columns of the rows */
    return _mm512_castsi512_ps(c ? _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000))
                                 : _mm512_slli_epi32(v, 16));
}

IN __m512 wide_x_of(const wide_x *x)
{
    return _mm512_set1_ps(*x);
}

IN __m512 wide_mac(__m512 f, __m512 w, __m512 x)
{
    return _mm512_fmadd_ps(w, x, f);
}
#else
/* Columns k and k + 1 in BF16; a last odd column has a zero beside it. FP8 codes are exact in BF16,
 * 2^-8 of their value as above; the scales wait for the sums. */
IN __m512 wide_decode(int t, const uint8_t *p, const int c, __m512 scale)
{
    const __m512i beside =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    (void)c;
    (void)scale;
    if (t == DT_FP8) {
        __m512i h = _mm512_permutexvar_epi16(
            beside, _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)));
        h = _mm512_and_si512(_mm512_slli_epi16(h, 7), _mm512_set1_epi16((short)0xbfff));
        return (__m512)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)),
                                           _mm512_cvtph_ps(_mm512_castsi512_si256(h)));
    }
    return _mm512_loadu_ps(p);
}

IN __m512 wide_x_of(const wide_x *x)
{
    int32_t v;
    __builtin_memcpy(&v, x, 4);
    return _mm512_castsi512_ps(_mm512_set1_epi32(v));
}

IN __m512 wide_mac(__m512 f, __m512 w, __m512 x)
{
    return _mm512_dpbf16_ps(f, (__m512bh)w, (__m512bh)x);
}

/* A segment of n tokens in BF16, zeros behind the last column. */
static __attribute__((noinline)) void wide_round(const struct kern_mm *a, struct wide_scratch *m,
                                                 uint32_t t0, uint32_t n, uint32_t k0)
{
    const uint32_t end = a->k - k0 < KERN_SEGMENT ? a->k - k0 : KERN_SEGMENT;
    for (uint32_t i = 0; i < n; i++) {
        const float *x = a->x + token(a, t0 + i) * a->ldx + k0;
        for (uint32_t k = 0; k < end; k += 32) {
            const __mmask16 lo = wide_mask(end - k),
                            hi = end - k > 16 ? wide_mask(end - k - 16) : 0;
            const __m512bh v = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, x + k + 16),
                                                   _mm512_maskz_loadu_ps(lo, x + k));
            _mm512_store_si512(m->x[i] + k, (__m512i)v);
        }
    }
}
#endif

/* Column k0 of token t of the call. */
IN const wide_x *wide_row(const struct wide_job *b, uint32_t t)
{
#ifdef KERN_WIDE_DP
    if (b->a->b == NULL)
        return b->m->x[t - b->t0] + b->k0 % KERN_SEGMENT;
    return b->a->b + token(b->a, t) * b->a->ldb + b->k0;
#else
    return b->a->x + token(b->a, t) * b->a->ldx + b->k0;
#endif
}

/* What a tile is compiled for. */
struct wide_form {
    int t, how, np, nt;
};

/* Where a tile reads: column k0 of the first panel, decoded weights, activation rows. */
struct wide_from {
    const uint8_t *w;
    size_t panel;
    float (*decoded)[WIDE_PANELS][KERN_PANEL];
    const wide_x *x[WIDE_TOKENS];
    __m512 scale[WIDE_PANELS];
};

/* Column k0 + i + c, or both columns of a pair; i even. */
IN void wide_step(const struct wide_from *from, const struct wide_form o, uint32_t i, const int c,
                  __m512 f[WIDE_PANELS][WIDE_TOKENS])
{
    const uint32_t bytes = KERN_PANEL * (o.t == DT_FP8 ? 1 : plain_bytes(o.t)),
                   at = (i + (uint32_t)c) / WIDE_COLUMNS;
    __m512 w[WIDE_PANELS];
    UNROLL
    for (int s = 0; s < o.np; s++) {
        const uint8_t *p = from->w + (size_t)s * from->panel + (size_t)i * bytes;
        if (o.how == WIDE_AGAIN)
            w[s] = _mm512_load_ps(from->decoded[at][s]);
        else
            w[s] = wide_decode(o.t, p, c, from->scale[s]);
        if (o.how == WIDE_FIRST)
            _mm512_store_ps(from->decoded[at][s], w[s]);
        if (o.how == WIDE_DIRECT && (bytes == 64 || c == 0))
            _mm_prefetch((const char *)p + 64 * c + WIDE_AHEAD, _MM_HINT_T0);
    }
    UNROLL
    for (int n = 0; n < o.nt; n++) {
        const __m512 v = wide_x_of(from->x[n] + i + c);
        UNROLL
        for (int s = 0; s < o.np; s++)
            f[s][n] = wide_mac(f[s][n], w[s], v);
    }
}

/* One tile, tokens from t0. t, how, np and nt are constants. */
IN void wide_tile(struct wide_job *b, const struct wide_form o, uint32_t t0)
{
    const struct kern_mm *a = b->a;
    const uint32_t len = b->k1 - b->k0;
    const bool scaled = o.t == DT_FP8 && WIDE_COLUMNS == 2, start = b->k0 % KERN_SEGMENT == 0,
               last = b->k1 == a->k || b->k1 % KERN_SEGMENT == 0;
    float(*sum)[WIDE_PANELS][KERN_PANEL] = b->m->sum + (t0 - b->t0);
    struct wide_from from = {
        .w = wide_column(o.t, b->w, b->k0), .panel = b->panel, .decoded = b->m->w};
    __m512 f[WIDE_PANELS][WIDE_TOKENS];
    UNROLL
    for (int n = 0; n < o.nt; n++) {
        from.x[n] = wide_row(b, t0 + (uint32_t)n);
        UNROLL
        for (int s = 0; s < o.np; s++)
            f[s][n] = start || scaled ? _mm512_setzero_ps() : _mm512_load_ps(sum[n][s]);
    }
    UNROLL
    for (int s = 0; s < o.np; s++)
        from.scale[s] = o.t == DT_FP8 ? _mm512_loadu_ps(from.w + (size_t)s * b->panel - 64)
                                      : _mm512_setzero_ps();
    for (uint32_t i0 = 0; i0 < len; i0 += WIDE_ASK) {
        const uint32_t i1 = len - i0 < WIDE_ASK ? len : i0 + WIDE_ASK;
        uint32_t i = i0;
        wide_ask(b, o.np);
        for (; i + 2 <= i1; i += 2) {
            wide_step(&from, o, i, 0, f);
            if (WIDE_COLUMNS == 1)
                wide_step(&from, o, i, 1, f);
        }
        if (i < i1)
            wide_step(&from, o, i, 0, f);
    }
    UNROLL
    for (int n = 0; n < o.nt; n++)
        UNROLL
    for (int s = 0; s < o.np; s++) {
        const uint32_t row = b->row + (uint32_t)s * KERN_PANEL;
        if (scaled)
            f[s][n] = start ? _mm512_mul_ps(f[s][n], from.scale[s])
                            : _mm512_fmadd_ps(f[s][n], from.scale[s], _mm512_load_ps(sum[n][s]));
        if (last)
            put512(a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row), f[s][n],
                   b->k0 < KERN_SEGMENT);
        else
            _mm512_store_ps(sum[n][s], f[s][n]);
    }
}

/* Tiles of 1 to 8 tokens over 1 to 3 panels: WIDE_TILES(name, type, how) makes name[3][8]. */
#define WIDE_TILE(name, T, how, np, nt)                                                            \
    static __attribute__((noinline)) void name##_##np##_##nt(struct wide_job *b, uint32_t t0)      \
    {                                                                                              \
        wide_tile(b, (struct wide_form){T, how, np, nt}, t0);                                      \
    }
#define WIDE_TILES_OF(name, T, how, np)                                                            \
    WIDE_TILE(name, T, how, np, 1)                                                                 \
    WIDE_TILE(name, T, how, np, 2)                                                                 \
    WIDE_TILE(name, T, how, np, 3)                                                                 \
    WIDE_TILE(name, T, how, np, 4)                                                                 \
    WIDE_TILE(name, T, how, np, 5)                                                                 \
    WIDE_TILE(name, T, how, np, 6)                                                                 \
    WIDE_TILE(name, T, how, np, 7)                                                                 \
    WIDE_TILE(name, T, how, np, 8)
#define WIDE_NAMES(name, np)                                                                       \
    {                                                                                              \
        name##_##np##_1, name##_##np##_2, name##_##np##_3, name##_##np##_4, name##_##np##_5,       \
            name##_##np##_6, name##_##np##_7, name##_##np##_8                                      \
    }
#define WIDE_TILES(name, T, how)                                                                   \
    WIDE_TILES_OF(name, T, how, 1)                                                                 \
    WIDE_TILES_OF(name, T, how, 2)                                                                 \
    WIDE_TILES_OF(name, T, how, 3)                                                                 \
    static const wide_fn name[WIDE_PANELS][WIDE_TOKENS] = {                                        \
        WIDE_NAMES(name, 1), WIDE_NAMES(name, 2), WIDE_NAMES(name, 3)};

/* All tokens of a block over columns [k0, k1) of np panels, in even tiles: 9 are 5 + 4. */
IN void wide_tiles(struct wide_job *b, uint32_t np, const wide_fn (*first)[WIDE_TOKENS],
                   const wide_fn (*again)[WIDE_TOKENS])
{
    const uint32_t count = (b->n + WIDE_TOKENS - 1) / WIDE_TOKENS;
    for (uint32_t c = 0, at = 0; c < count; c++) {
        const uint32_t nt = (b->n - at + count - c - 1) / (count - c);
        (c == 0 ? first : again)[np - 1][nt - 1](b, b->t0 + at);
        at += nt;
    }
}

/* Panels from row r of a segment; then come the panels at `next`, or none. */
IN void wide_rows(struct wide_job *b, int t, uint32_t np, uint32_t k0, const uint8_t *next,
                  const wide_fn (*first)[WIDE_TOKENS], const wide_fn (*again)[WIDE_TOKENS])
{
    const uint32_t left = b->a->k - k0, len = left < KERN_SEGMENT ? left : KERN_SEGMENT,
                   depth = first == again ? KERN_SEGMENT : WIDE_DEPTH,
                   asks =
                       (b->n + WIDE_TOKENS - 1) / WIDE_TOKENS * ((len + WIDE_ASK - 1) / WIDE_ASK);
    b->w = (const uint8_t *)b->a->w + b->row / KERN_PANEL * b->panel;
    b->next = next;
    b->lines = next == NULL ? 0 : (uint32_t)((wide_at(t, KERN_SEGMENT) + 63) / 64);
    b->share = (b->lines + asks - 1) / asks;
    for (b->k0 = k0; b->k0 < k0 + len; b->k0 = b->k1) {
        b->k1 = k0 + len - b->k0 < depth ? k0 + len : b->k0 + depth;
        wide_tiles(b, np, first, again);
    }
}

/* The product. first: tiles that read t, again: those after them (the same where nothing is
 * decoded). */
IN void wide_gemm(const struct kern_mm *a, int t, const wide_fn (*first)[WIDE_TOKENS],
                  const wide_fn (*again)[WIDE_TOKENS])
{
    struct wide_scratch m;
    struct wide_job b = {.a = a,
                         .m = &m,
                         .panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k),
                         .also = a->also,
                         .also_lines = a->also == NULL ? 0 : (uint32_t)(a->also_bytes / 64)};
    const uint8_t *w = (const uint8_t *)a->w + a->row0 / KERN_PANEL * b.panel;
    const uint32_t blocks = (a->n + WIDE_BLOCK - 1) / WIDE_BLOCK,
                   all = (a->row1 - a->row0 + KERN_PANEL - 1) / KERN_PANEL;
    /* of the tiles, some are smaller than the most */
    b.also_share = b.also_lines / ((all + WIDE_PANELS - 1) / WIDE_PANELS *
                                   ((a->n + WIDE_TOKENS - 1) / WIDE_TOKENS) *
                                   ((a->k + WIDE_ASK - 1) / WIDE_ASK)) +
                   1;
    for (uint32_t c = 0; c < blocks; c++, b.t0 += b.n) {
        b.n = (a->n - b.t0 + blocks - c - 1) / (blocks - c);
        for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
#ifdef KERN_WIDE_DP
            if (a->b == NULL)
                wide_round(a, &m, b.t0, b.n, k0);
#endif
            for (uint32_t p = 0, np; p < all; p += np) {
                np = all - p == 4 ? 2 : all - p < WIDE_PANELS ? all - p : WIDE_PANELS;
                b.row = a->row0 + p * KERN_PANEL;
                wide_rows(&b, t, np, k0,
                          p + np < all               ? w + (p + np) * b.panel + wide_at(t, k0)
                          : a->k - k0 > KERN_SEGMENT ? w + wide_at(t, k0 + KERN_SEGMENT)
                          : c + 1 < blocks           ? w
                                                     : (const uint8_t *)a->next,
                          first, again);
            }
        }
    }
}

#endif
