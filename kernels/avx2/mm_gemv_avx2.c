/* mm_gemv_avx2.c - block-format products for few tokens, AVX2: streams the packed weights once for
 * up to 4 tokens.
 *
 * Per panel half, token and group: f = fma((float)dot, fl32(d * a_scale), f). A weight group is
 * decoded once for all tokens of the tile. One panel after the other is one address stream; the
 * variant -x4 has four in flight for one token. Which is faster is the memory's affair:
 * mm_gemv_avx512.c has the figures. Bits equal ref/. No symbol but the accessor. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define PANELS 4
#define TOKENS 4
#define AHEAD 2048 /* bytes of prefetch of a lone stream, and of each of four */
#define AHEAD_X4 1024

struct tile {
    const uint8_t *w[PANELS];
    const int8_t *q[TOKENS];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
};

/* Group g (index in the row) of panel s, i its index in the segment; both halves. */
IN void step(int t, int np, int nt, const struct tile *x, int s, uint32_t g, uint32_t i,
             __m256 f[TOKENS][2])
{
    const struct p16 l = p16_of(t);
    const uint8_t *p = x->w[s] + p16_group_at(l, g), *head = x->w[s] + p16_head_at(l, g);
    const int lump = lump_of(t), start = zero_of(t) != 0;
    UNROLL
    for (uint32_t b = 0; b < p16_group_bytes(l); b += 64)
        _mm_prefetch((const char *)p + (np > 1 ? AHEAD_X4 : AHEAD) + b, _MM_HINT_T0);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i q[8];
        decode256(t, p, h, q);
        __m256 d = scale256(t, p, head, h);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const int8_t *a = x->q[n] + (size_t)g * KERN_GROUP;
            __m256i lo = start ? _mm256_set1_epi32(x->prep[n].a[i]) : _mm256_setzero_si256();
            __m256 dot;
            if (has_halves(t)) {
                __m256i hi = dot256(lump, q, a, 4, 8, _mm256_set1_epi32(x->prep[n].b[i]));
                lo = dot256(lump, q, a, 0, 4, lo);
                dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(lo), sub256(t, p, 0, h),
                                      _mm256_mul_ps(_mm256_cvtepi32_ps(hi), sub256(t, p, 1, h)));
            } else {
                dot = _mm256_cvtepi32_ps(dot256(lump, q, a, 0, 8, lo));
            }
            __m256 as = _mm256_set1_ps(x->scale[n][g]);
            f[n][h] = _mm256_fmadd_ps(dot, _mm256_mul_ps(d, as), f[n][h]);
            if (has_min(t))
                f[n][h] = _mm256_fmadd_ps(_mm256_set1_ps(x->prep[n].sum[i]),
                                          _mm256_mul_ps(min256(t, p, head, h), as), f[n][h]);
            if (has_half_mins(t))
                f[n][h] =
                    _mm256_fmadd_ps(half_mins(&x->prep[n], i, low256(p, 0, h), low256(p, 1, h)),
                                    _mm256_mul_ps(min256(t, p, head, h), as), f[n][h]);
        }
    }
}

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, int t, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    struct tile x;
    for (int s = 0; s < np; s++)
        x.w[s] = (const uint8_t *)a->w + (r / KERN_PANEL + (uint32_t)s) * panel;
    for (int n = 0; n < nt; n++) {
        size_t at = token(a, t0 + (uint32_t)n);
        x.q[n] = a->q + at * a->ldq;
        x.scale[n] = a->scale + at * a->ldg;
    }
    for (uint32_t g0 = 0; g0 < groups; g0 += SEG_GROUPS) {
        uint32_t len = groups - g0 < SEG_GROUPS ? groups - g0 : SEG_GROUPS;
        __m256 f[PANELS][TOKENS][2];
        UNROLL
        for (int s = 0; s < np; s++)
            UNROLL
        for (int n = 0; n < nt; n++)
            f[s][n][0] = f[s][n][1] = _mm256_setzero_ps();
        for (int n = 0; n < nt; n++)
            prep256(zero_of(t), has_halves(t), &x.prep[n], x.q[n] + (size_t)g0 * KERN_GROUP,
                    a->sum + token(a, t0 + (uint32_t)n) * a->ldg + g0, len);
        for (uint32_t i = 0; i < len; i++)
            UNROLL
        for (int s = 0; s < np; s++)
            step(t, np, nt, &x, s, g0 + i, i, f[s]);
        UNROLL
        for (int s = 0; s < np; s++) {
            uint32_t row = r + (uint32_t)s * KERN_PANEL;
            UNROLL
            for (int n = 0; n < nt; n++)
                put256(a->y + (t0 + (uint32_t)n) * a->ldy + row, a->row1 - row, f[s][n][0],
                       f[s][n][1], g0 == 0);
        }
    }
}

/* All tokens over one panel. */
IN void tokens(const struct kern_mm *a, int t, uint32_t r)
{
    for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS)
        switch (a->n - t0) {
        case 1:
            tile(a, t, 1, 1, r, t0);
            break;
        case 2:
            tile(a, t, 1, 2, r, t0);
            break;
        case 3:
            tile(a, t, 1, 3, r, t0);
            break;
        default:
            tile(a, t, 1, 4, r, t0);
            break;
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
                tile(a, T, PANELS, 1, r, 0);                                                       \
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
