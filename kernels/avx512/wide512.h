/* wide512.h - products for many tokens with weights that become 32-bit lanes, AVX512: the tiles
 * that F32, F16, BF16 and FP8 share, and with KERN_WIDE_DP the BF16 pairs of vdpbf16ps.
 *
 * A tile is two panels (32 rows) times up to 12 tokens, 24 sums in registers, over one segment of
 * 512 columns: per step 2 loads of weights, a broadcast per token, 24 fma. The first tile of a
 * pair of panels decodes the weights and leaves them in scratch for the tiles after it; the first
 * pair of a segment copies the tokens' columns into scratch the same way, 16 steps of all tokens of
 * a tile side by side (rows as they lie, often 8 KiB apart, would share one set of the first-level
 * cache). So neither is a phase of its own: both are done beside the fma. Meanwhile what is
 * multiplied next is asked for, a few lines every 16 steps. Row sums meet in y, segments ascending.
 * `t` is a compile-time constant. Static inline only; included by files compiled with the AVX512
 * flags alone.
 */
#ifndef KT_KERN_WIDE512_H
#define KT_KERN_WIDE512_H

#include "mm512.h"

#ifdef __clang__
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

#define WIDE_PANELS 2
#define WIDE_TOKENS 12 /* of a tile */
#define WIDE_BLOCK 60  /* tokens in scratch: 5 tiles */
#define WIDE_STEPS 16  /* steps whose activations lie side by side */

#ifdef KERN_WIDE_DP
#define WIDE_COLUMNS 2 /* of a step: a lane holds two BF16 */
#else
#define WIDE_COLUMNS 1
#endif
#define WIDE_MOST (KERN_SEGMENT / WIDE_COLUMNS) /* steps of a segment */

struct wide_scratch {
    float x[WIDE_BLOCK * WIDE_MOST]; /* tile after tile: [steps / 16][tokens][16] */
    float w[WIDE_MOST][WIDE_PANELS][KERN_PANEL];
} __attribute__((aligned(64)));

/* A tile; panels and what comes after them are the same for all tiles of a pair. */
struct wide_job {
    const struct kern_mm *a;
    float (*w)[WIDE_PANELS][KERN_PANEL];
    float *x;
    uint32_t t0, row, k0, len;         /* tokens from t0; columns [k0, k0 + len) */
    bool pack;                         /* x is not there yet */
    const uint8_t *panel[WIDE_PANELS]; /* packed weights at k0 */
    const uint8_t *next[WIDE_PANELS];  /* what to ask for */
    uint32_t lines, share;             /* of each, and how many of them per 16 steps */
};
typedef void (*wide_fn)(struct wide_job *b);

/* Where column k0 (a multiple of 512) lies in a panel. */
IN size_t wide_at(int t, uint32_t k0)
{
    return t == DT_FP8 ? fp8_block_at(k0) : (size_t)k0 * KERN_PANEL * plain_bytes(t);
}

IN void wide_ask(struct wide_job *b, const int np)
{
    for (uint32_t i = 0; i < b->share && b->lines > 0; i++, b->lines--)
        UNROLL
    for (int s = 0; s < np; s++) {
        _mm_prefetch((const char *)b->next[s], _MM_HINT_T1);
        b->next[s] += 64;
    }
}

IN __mmask16 wide_mask(uint32_t left)
{
    return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

/* Steps [i, i + 16) of nt tokens; zeros behind the last column. A loop as it stands: unrolled, its
 * addresses would not fit in registers. */
IN void wide_pack(const struct wide_job *b, const float *const *src, const int nt, uint32_t i)
{
    const uint32_t k = i * WIDE_COLUMNS, left = b->len - k;
    const __mmask16 m = wide_mask(left);
    float *to = b->x + (size_t)i * (uint32_t)nt;
#ifdef KERN_WIDE_DP
    const __mmask16 m2 = left > 16 ? wide_mask(left - 16) : 0;
#endif
    NO_UNROLL
    for (int n = 0; n < nt; n++, to += 16) {
        const float *p = src[n] + k;
        __m512 v = _mm512_maskz_loadu_ps(m, p);
#ifdef KERN_WIDE_DP
        v = (__m512)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(m2, p + 16), v);
#endif
        _mm512_store_ps(to, v);
    }
}

/* Step i of a panel's 16 rows, in fp32. */
#ifndef KERN_WIDE_DP
IN __m512 wide_decode(int t, const uint8_t *p, uint32_t i, uint32_t len, __m512 scale)
{
    (void)len;
    if (t == DT_FP8) {
        /* a code moved into a half is 2^-8 of its value, subnormals included; the panel's scales
         * are 2^8 of the stored ones, so the product is the same number and rounds the same */
        __m256i h = _mm256_cvtepi8_epi16(_mm_loadu_si128(
            (const __m128i *)(p + (size_t)i * KERN_PANEL + 64 * (i / FP8_BLOCK + 1))));
        h = _mm256_and_si256(_mm256_slli_epi16(h, 7), _mm256_set1_epi16((short)0xbfff));
        return _mm512_mul_ps(_mm512_cvtph_ps(h), scale);
    }
    p += (size_t)i * KERN_PANEL * plain_bytes(t);
    if (t == DT_F32)
        return _mm512_loadu_ps(p);
    __m256i h = _mm256_loadu_si256((const __m256i *)p);
    if (t == DT_F16)
        return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

IN __m512 wide_mac(__m512 f, __m512 w, __m512 x)
{
    return _mm512_fmadd_ps(w, x, f);
}
#else
/* Columns 2i and 2i + 1 in BF16; a last odd column has a zero beside it. FP8 codes are exact in
 * BF16, 2^-8 of their value as above; the scales wait for the sums. */
IN __m512 wide_decode(int t, const uint8_t *p, uint32_t i, uint32_t len, __m512 scale)
{
    const __m512i beside =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    (void)scale;
    if (t == DT_FP8) {
        p += (size_t)2 * i * KERN_PANEL + 64 * (2 * i / FP8_BLOCK + 1);
        __m512i h = _mm512_permutexvar_epi16(
            beside, _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)));
        h = _mm512_and_si512(_mm512_slli_epi16(h, 7), _mm512_set1_epi16((short)0xbfff));
        return (__m512)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)),
                                           _mm512_cvtph_ps(_mm512_castsi512_si256(h)));
    }
    p += (size_t)i * 64;
    const __m512i v = 2 * i + 1 < len
                          ? _mm512_loadu_si512(p)
                          : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(beside, v));
}

IN __m512 wide_mac(__m512 f, __m512 w, __m512 x)
{
    return _mm512_dpbf16_ps(f, (__m512bh)w, (__m512bh)x);
}
#endif

/* What FP8 in pairs keeps beside the registers. */
struct wide_sums {
    float at[WIDE_PANELS][WIDE_TOKENS][KERN_PANEL];
} __attribute__((aligned(64)));

/* The panel's scales times the sums of a block, added to those before it (i: the step after
 * it). */
IN void wide_scale(struct wide_sums *o, const uint8_t *panel, const int s, const int nt, uint32_t i,
                   __m512 *f)
{
    const uint32_t block = (i * WIDE_COLUMNS - 1) / FP8_BLOCK;
    const __m512 scale = _mm512_loadu_ps(panel + (size_t)block * (64 + FP8_BLOCK * KERN_PANEL));
    UNROLL
    for (int n = 0; n < nt; n++) {
        _mm512_store_ps(o->at[s][n], _mm512_fmadd_ps(f[n], scale, _mm512_load_ps(o->at[s][n])));
        f[n] = _mm512_setzero_ps();
    }
}

/* One tile. decode, np and nt are constants. */
IN void wide_tile(struct wide_job *b, int t, const int decode, const int np, const int nt)
{
    const struct kern_mm *a = b->a;
    const uint32_t steps = (b->len + WIDE_COLUMNS - 1) / WIDE_COLUMNS;
    const float *src[WIDE_TOKENS];
    __m512 f[WIDE_PANELS][WIDE_TOKENS], scale[WIDE_PANELS];
    struct wide_sums sums; /* FP8 in pairs: of the blocks of 128 columns so far */
    UNROLL
    for (int n = 0; n < nt; n++) {
        src[n] = a->x + token(a, b->t0 + (uint32_t)n) * a->ldx + b->k0;
        UNROLL
        for (int s = 0; s < np; s++) {
            f[s][n] = _mm512_setzero_ps();
            if (t == DT_FP8 && WIDE_COLUMNS == 2)
                _mm512_store_ps(sums.at[s][n], f[s][n]);
        }
    }
    UNROLL
    for (int s = 0; s < np; s++)
        scale[s] = _mm512_setzero_ps();
    if (b->pack)
        wide_pack(b, src, nt, 0);
    for (uint32_t i0 = 0; i0 < steps; i0 += WIDE_STEPS) {
        const uint32_t i1 = steps - i0 < WIDE_STEPS ? steps : i0 + WIDE_STEPS;
        const float *x = b->x + (size_t)i0 * (uint32_t)nt;
        wide_ask(b, np);
        if (b->pack && i1 < steps)
            wide_pack(b, src, nt, i1);
        if (decode && t == DT_FP8 && WIDE_COLUMNS == 1 && i0 % FP8_BLOCK == 0)
            UNROLL
        for (int s = 0; s < np; s++)
            scale[s] = _mm512_loadu_ps(b->panel[s] + fp8_block_at(i0));
        for (uint32_t i = i0; i < i1; i++, x++) {
            __m512 w[WIDE_PANELS];
            UNROLL
            for (int s = 0; s < np; s++)
                if (decode) {
                    w[s] = wide_decode(t, b->panel[s], i, b->len, scale[s]);
                    _mm512_store_ps(b->w[i][s], w[s]);
                } else {
                    w[s] = _mm512_load_ps(b->w[i][s]);
                }
            UNROLL
            for (int n = 0; n < nt; n++) {
                const __m512 v = _mm512_set1_ps(x[16 * n]);
                UNROLL
                for (int s = 0; s < np; s++)
                    f[s][n] = wide_mac(f[s][n], w[s], v);
            }
        }
        if (t == DT_FP8 && WIDE_COLUMNS == 2 && (i1 * 2 % FP8_BLOCK == 0 || i1 == steps))
            UNROLL
        for (int s = 0; s < np; s++)
            wide_scale(&sums, b->panel[s], s, nt, i1, f[s]);
    }
    UNROLL
    for (int s = 0; s < np; s++) {
        const uint32_t row = b->row + (uint32_t)s * KERN_PANEL;
        UNROLL
        for (int n = 0; n < nt; n++)
            put512(a->y + (b->t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row),
                   t == DT_FP8 && WIDE_COLUMNS == 2 ? _mm512_load_ps(sums.at[s][n]) : f[s][n],
                   b->k0 == 0);
    }
}

/* Tiles of 1 to 12 tokens over 1 or 2 panels: WIDE_TILES(name, type, decode) makes name[2][12]. */
#define WIDE_TILE(name, T, decode, np, nt)                                                         \
    static __attribute__((noinline)) void name##_##np##_##nt(struct wide_job *b)                   \
    {                                                                                              \
        wide_tile(b, T, decode, np, nt);                                                           \
    }
#define WIDE_TILES_OF(name, T, decode, np)                                                         \
    WIDE_TILE(name, T, decode, np, 1)                                                              \
    WIDE_TILE(name, T, decode, np, 2)                                                              \
    WIDE_TILE(name, T, decode, np, 3)                                                              \
    WIDE_TILE(name, T, decode, np, 4)                                                              \
    WIDE_TILE(name, T, decode, np, 5)                                                              \
    WIDE_TILE(name, T, decode, np, 6)                                                              \
    WIDE_TILE(name, T, decode, np, 7)                                                              \
    WIDE_TILE(name, T, decode, np, 8)                                                              \
    WIDE_TILE(name, T, decode, np, 9)                                                              \
    WIDE_TILE(name, T, decode, np, 10)                                                             \
    WIDE_TILE(name, T, decode, np, 11)                                                             \
    WIDE_TILE(name, T, decode, np, 12)
#define WIDE_NAMES(name, np)                                                                       \
    {                                                                                              \
        name##_##np##_1, name##_##np##_2, name##_##np##_3, name##_##np##_4, name##_##np##_5,       \
            name##_##np##_6, name##_##np##_7, name##_##np##_8, name##_##np##_9, name##_##np##_10,  \
            name##_##np##_11, name##_##np##_12                                                     \
    }
#define WIDE_TILES(name, T, decode)                                                                \
    WIDE_TILES_OF(name, T, decode, 1)                                                              \
    WIDE_TILES_OF(name, T, decode, 2)                                                              \
    static const wide_fn name[WIDE_PANELS][WIDE_TOKENS] = {WIDE_NAMES(name, 1),                    \
                                                           WIDE_NAMES(name, 2)};

/* All tokens of a block over a pair of panels, in even tiles: 32 are 11 + 11 + 10. */
IN void wide_tiles(struct wide_job *b, float *x, uint32_t np, uint32_t n,
                   const wide_fn (*first)[WIDE_TOKENS], const wide_fn (*again)[WIDE_TOKENS])
{
    const uint32_t t0 = b->t0, count = (n + WIDE_TOKENS - 1) / WIDE_TOKENS,
                   steps = (b->len + WIDE_COLUMNS - 1) / WIDE_COLUMNS,
                   asks = count * ((steps + WIDE_STEPS - 1) / WIDE_STEPS);
    b->share = (b->lines + asks - 1) / asks;
    for (uint32_t c = 0, at = 0; c < count; c++) {
        const uint32_t nt = (n - at + count - c - 1) / (count - c);
        b->t0 = t0 + at;
        b->x = x + (size_t)at * WIDE_MOST;
        (c == 0 ? first : again)[np - 1][nt - 1](b);
        at += nt;
    }
    b->t0 = t0;
}

/* The product. first: tiles that decode t, again: tiles that do not. */
IN void wide_gemm(const struct kern_mm *a, int t, const wide_fn (*first)[WIDE_TOKENS],
                  const wide_fn (*again)[WIDE_TOKENS])
{
    struct wide_scratch m;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = (const uint8_t *)a->w + a->row0 / KERN_PANEL * panel;
    const uint32_t blocks = (a->n + WIDE_BLOCK - 1) / WIDE_BLOCK;
    for (uint32_t c = 0, t0 = 0, n; c < blocks; c++, t0 += n) {
        n = (a->n - t0 + blocks - c - 1) / (blocks - c);
        for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
            const uint32_t left = a->k - k0, len = left < KERN_SEGMENT ? left : KERN_SEGMENT;
            for (uint32_t r = a->row0; r < a->row1; r += WIDE_PANELS * KERN_PANEL) {
                const uint32_t np = a->row1 - r > KERN_PANEL ? 2 : 1;
                const uint8_t *p = w + (r - a->row0) / KERN_PANEL * panel + wide_at(t, k0),
                              *next = p + WIDE_PANELS * panel;
                if (a->row1 - r <= WIDE_PANELS * KERN_PANEL) /* the last of this segment */
                    next = left > KERN_SEGMENT ? w + wide_at(t, k0 + KERN_SEGMENT)
                           : c + 1 < blocks    ? w
                                               : (const uint8_t *)a->next;
                struct wide_job b = {
                    .a = a,
                    .w = m.w,
                    .t0 = t0,
                    .row = r,
                    .k0 = k0,
                    .len = len,
                    .pack = r == a->row0,
                    .panel = {p, p + panel},
                    .next = {next, next + panel},
                    .lines = next == NULL ? 0 : (uint32_t)((wide_at(t, KERN_SEGMENT) + 63) / 64)};
                wide_tiles(&b, m.x, np, n, first, again);
            }
        }
    }
}

#endif
