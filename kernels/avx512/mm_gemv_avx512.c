/* mm_gemv_avx512.c - block-format products for few tokens, AVX512 with VNNI and without: streams
 * the packed weights once for up to 12 tokens.
 *
 * Per panel, token and group: f = fma((float)dot, fl32(d * a_scale), f). A weight group is decoded
 * into registers once for all tokens of a tile, so nothing is stored and the decoding runs beside
 * the products: at 8 tokens that beats decoding into a buffer first (bench kernels shows both).
 *
 * How many panels are in flight is the memory's affair, so there are two variants. One panel after
 * the other is a single address stream: on Zen 4 100 % of the read bandwidth, and four streams 62
 * to 93 %, the more it has to give the worse. Four panels at once (x4, one token only): 92 % on
 * Emerald Rapids, where one stream gets 51 to 80 %. The rank prefers one stream; a profile that
 * measured both decides. Bits equal ref/. No symbol but the accessor. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "mm512.h"
#include "tables.h"

#define PANELS 4
#define TOKENS 12
/* Bytes of prefetch. With several tokens a group takes longer than its bytes, the processor's own
 * prefetch falls behind and 2 KiB ahead is worth a third (8 tokens: 74 % of the peak at 1 KiB, 52 %
 * without); a lone stream and one token do not need it. Four streams are 1 KiB ahead each. */
#define AHEAD 2048
#define AHEAD_X4 1024

struct tile {
    const uint8_t *w[PANELS];
    const int8_t *q[TOKENS];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
};

/* Group g (index in the row) of panel s, i its index in the segment. */
IN void step(int t, int np, int nt, const struct tile *x, int s, uint32_t g, uint32_t i,
             __m512 f[TOKENS])
{
    const struct p16 l = p16_of(t);
    const uint8_t *p = x->w[s] + p16_group_at(l, g), *head = x->w[s] + p16_head_at(l, g);
    const int zero = zero_of(t), lump = lump_of(t) < 4 ? lump_of(t) : 4;
    __m512i q[8];
    UNROLL
    for (uint32_t b = 0; b < p16_group_bytes(l); b += 64)
        _mm_prefetch((const char *)p + (np > 1 ? AHEAD_X4 : AHEAD) + b, _MM_HINT_T0);
    decode512(t, p, q);
    __m512 d = scale512(t, p, head);
    UNROLL
    for (int n = 0; n < nt; n++) {
        const int8_t *a = x->q[n] + (size_t)g * KERN_GROUP;
        __m512i lo = zero ? _mm512_set1_epi32(x->prep[n].a[i]) : _mm512_setzero_si512();
        __m512i hi = has_halves(t) ? _mm512_set1_epi32(x->prep[n].b[i]) : _mm512_setzero_si512();
        __m512i lo16, hi16;
        UNROLL
        for (int j = 0; j < 4; j++) {
            dot4(lump, j, &lo, &lo16, q[j], bcast4(a + 4 * j));
            dot4(lump, j, &hi, &hi16, q[j + 4], bcast4(a + 16 + 4 * j));
        }
        __m512 dot;
        if (has_halves(t))
            dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(lo), sub512(t, p, 0),
                                  _mm512_mul_ps(_mm512_cvtepi32_ps(hi), sub512(t, p, 1)));
        else
            dot = _mm512_cvtepi32_ps(_mm512_add_epi32(lo, hi));
        __m512 as = _mm512_set1_ps(x->scale[n][g]);
        f[n] = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, as), f[n]);
        if (has_min(t))
            f[n] = _mm512_fmadd_ps(_mm512_set1_ps(x->prep[n].sum[i]),
                                   _mm512_mul_ps(min512(t, p, head), as), f[n]);
        if (has_half_mins(t))
            f[n] = _mm512_fmadd_ps(half_mins(&x->prep[n], i, low512(p, 0), low512(p, 1)),
                                   _mm512_mul_ps(min512(t, p, head), as), f[n]);
    }
}

/* np panels from row r, `real` tokens from t0 in a tile of nt, np and nt being constants: the last
 * token fills up the tile. */
IN void tile(const struct kern_mm *a, int t, const int np, const int nt, uint32_t r, uint32_t t0,
             uint32_t real)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    struct tile x;
    for (int s = 0; s < np; s++)
        x.w[s] = (const uint8_t *)a->w + (r / KERN_PANEL + (uint32_t)s) * panel;
    const int32_t *sum[TOKENS];
    for (uint32_t n = 0; n < (uint32_t)nt; n++) {
        size_t at = token(a, t0 + (n < real ? n : real - 1));
        x.q[n] = a->q + at * a->ldq;
        x.scale[n] = a->scale + at * a->ldg;
        sum[n] = a->sum + at * a->ldg;
    }
    for (uint32_t g0 = 0; g0 < groups; g0 += SEG_GROUPS) {
        uint32_t len = groups - g0 < SEG_GROUPS ? groups - g0 : SEG_GROUPS;
        __m512 f[PANELS][TOKENS];
        UNROLL
        for (int s = 0; s < np; s++)
            UNROLL
        for (int n = 0; n < nt; n++)
            f[s][n] = _mm512_setzero_ps();
        for (int n = 0; n < nt; n++)
            prep512(zero_of(t), has_min(t), has_halves(t), &x.prep[n],
                    x.q[n] + (size_t)g0 * KERN_GROUP, sum[n] + g0, len);
        for (uint32_t i = 0; i < len; i++)
            UNROLL
        for (int s = 0; s < np; s++)
            step(t, np, nt, &x, s, g0 + i, i, f[s]);
        UNROLL
        for (int s = 0; s < np; s++) {
            uint32_t row = r + (uint32_t)s * KERN_PANEL;
            UNROLL
            for (int n = 0; n < nt; n++)
                if ((uint32_t)n < real)
                    put512(a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row), f[s][n],
                           g0 == 0);
        }
    }
}

/* All tokens over one panel, in even tiles. */
IN void tokens(const struct kern_mm *a, int t, uint32_t r)
{
    const uint32_t count = (a->n + TOKENS - 1) / TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        const uint32_t nt = (a->n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(a, t, 1, 1, r, t0, 1);
            break;
        case 2:
            tile(a, t, 1, 2, r, t0, 2);
            break;
        case 3:
            tile(a, t, 1, 3, r, t0, 3);
            break;
        case 4:
            tile(a, t, 1, 4, r, t0, 4);
            break;
        case 5:
        case 6:
            tile(a, t, 1, 6, r, t0, nt);
            break;
        case 7:
        case 8:
            tile(a, t, 1, 8, r, t0, nt);
            break;
        case 9:
        case 10:
            tile(a, t, 1, 10, r, t0, nt);
            break;
        default:
            tile(a, t, 1, TOKENS, r, t0, nt);
            break;
        }
        t0 += nt;
    }
}

#define RUN(name, T, fits)                                                                         \
    static __attribute__((noinline)) void gemv_##name##_from(const struct kern_mm *a, uint32_t r)  \
    {                                                                                              \
        for (; r < a->row1; r += KERN_PANEL)                                                       \
            tokens(a, T, r);                                                                       \
    }                                                                                              \
    static void gemv_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemv_##name##_from(a, a->row0);                                                            \
    }                                                                                              \
    static void gemv_##name##_x4(const struct kern_mm *a)                                          \
    {                                                                                              \
        uint32_t r = a->row0;                                                                      \
        if (a->n == 1)                                                                             \
            for (; r + (PANELS - 1) * KERN_PANEL < a->row1; r += PANELS * KERN_PANEL)              \
                tile(a, T, PANELS, 1, r, 0, 1);                                                    \
        gemv_##name##_from(a, r);                                                                  \
    }
BLOCK_TYPES(RUN)

#define ROW(name, T, fits)                                                                         \
    {"gemv_" #name "_q8_" VARIANT, KERN_GEMV, T, KERN_P16, NEEDS, TOKENS, RANK, fits,              \
     {.mm = gemv_##name}},                                                                         \
        {"gemv_" #name "_q8_" VARIANT "-x4",                                                       \
         KERN_GEMV,                                                                                \
         T,                                                                                        \
         KERN_P16,                                                                                 \
         NEEDS,                                                                                    \
         TOKENS,                                                                                   \
         RANK - 1,                                                                                 \
         fits,                                                                                     \
         {.mm = gemv_##name##_x4}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *ACCESSOR(mm)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
