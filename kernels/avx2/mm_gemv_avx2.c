/* mm_gemv_avx2.c - block-format products for few tokens, AVX2: streams the packed weights once for
 * up to 4 tokens.
 *
 * Per panel half, token and group: f = fma((float)dot, fl32(d * a_scale), f). One token has four
 * panels in flight, several tokens have two, each prefetching its own address stream. A weight
 * group is decoded once for all tokens of the tile. Bits equal ref/. No symbol but the accessor.
 * Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define PANELS 4
#define TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

struct tile {
    const uint8_t *w[PANELS];
    const int8_t *q[TOKENS];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
};

/* Group g (index in the row) of panel s, i its index in the segment; both halves. */
IN void step(int t, int nt, const struct tile *x, int s, uint32_t g, uint32_t i,
             __m256 f[TOKENS][2])
{
    const struct p16 l = p16_of(t);
    const uint8_t *p = x->w[s] + p16_group_at(l, g), *head = x->w[s] + p16_head_at(l, g);
    const int lump = lump_of(t), start = zero_of(t) != 0;
    UNROLL
    for (uint32_t b = 0; b < p16_group_bytes(l); b += 64)
        _mm_prefetch((const char *)p + AHEAD + b, _MM_HINT_T0);
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
            step(t, nt, &x, s, g0 + i, i, f[s]);
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

/* wide: four panels from r, else one. */
IN void tokens(const struct kern_mm *a, int t, const int wide, uint32_t r)
{
    const int np = wide ? 2 : 1;
    for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS)
        for (uint32_t s = 0; s < (wide ? 4u : 1u); s += (uint32_t)np) {
            const uint32_t row = r + s * KERN_PANEL;
            switch (a->n - t0) {
            case 1:
                if (s == 0)
                    tile(a, t, wide ? 4 : 1, 1, r, t0);
                break;
            case 2:
                tile(a, t, np, 2, row, t0);
                break;
            case 3:
                tile(a, t, np, 3, row, t0);
                break;
            default:
                tile(a, t, np, 4, row, t0);
                break;
            }
        }
}

IN void gemv(const struct kern_mm *a, int t)
{
    uint32_t r = a->row0;
    for (; r + (PANELS - 1) * KERN_PANEL < a->row1; r += PANELS * KERN_PANEL)
        tokens(a, t, 1, r);
    for (; r < a->row1; r += KERN_PANEL)
        tokens(a, t, 0, r);
}

#define RUN(name, T, fits)                                                                         \
    static void gemv_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemv(a, T);                                                                                \
    }
BLOCK_TYPES(RUN)

#define ROW(name, T, fits)                                                                         \
    {"gemv_" #name "_q8_avx2", KERN_GEMV, T, KERN_P16, KERN_ISA_AVX2, TOKENS, 10, fits,            \
     {.mm = gemv_##name}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *kern_avx2_mm(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
