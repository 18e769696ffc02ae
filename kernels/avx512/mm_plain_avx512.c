/* mm_plain_avx512.c - BF16, F16 and F32 matrices with fp32 activations, AVX512: GEMV and GEMM.
 *
 * acc = fma(w_k, x_k, acc), k ascending, segments of 512, lanes are rows. One chain per panel and
 * token: GEMV runs four panels for up to 4 tokens, because a lone chain waits for its fma (4 cycles
 * a column); GEMM is the tiles of wide512.h. Both read two columns at a time, since those of BF16
 * lie together. Row sums meet in y, segments ascending. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "tables.h"
#include "wide512.h"

#define PANELS 4
#define TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, int t, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const uint32_t bytes = KERN_PANEL * plain_bytes(t);
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const float *x[TOKENS];
    for (int n = 0; n < nt; n++)
        x[n] = a->x + token(a, t0 + (uint32_t)n) * a->ldx;
    for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
        uint32_t k1 = a->k - k0 < KERN_SEGMENT ? a->k : k0 + KERN_SEGMENT;
        __m512 f[PANELS][TOKENS];
        UNROLL
        for (int s = 0; s < np; s++)
            UNROLL
        for (int n = 0; n < nt; n++)
            f[s][n] = _mm512_setzero_ps();
        for (uint32_t k = k0; k < k1; k += 2) {
            UNROLL
            for (int s = 0; s < np; s++) {
                const uint8_t *p = w + (size_t)s * panel + (size_t)k * bytes;
                _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
                if (bytes == 64)
                    _mm_prefetch((const char *)p + AHEAD + 64, _MM_HINT_T0);
                UNROLL
                for (int c = 0; c < 2; c++) {
                    if (c == 1 && k + 1 == k1)
                        continue;
                    const __m512 v = wide_decode(t, p, c, _mm512_setzero_ps());
                    UNROLL
                    for (int n = 0; n < nt; n++)
                        f[s][n] =
                            _mm512_fmadd_ps(v, _mm512_set1_ps(x[n][k + (uint32_t)c]), f[s][n]);
                }
            }
        }
        UNROLL
        for (int s = 0; s < np; s++) {
            uint32_t row = r + (uint32_t)s * KERN_PANEL;
            UNROLL
            for (int n = 0; n < nt; n++)
                put512(a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row), f[s][n],
                       k0 == 0);
        }
    }
}

/* All tokens over np panels, in even tiles. */
IN void tokens(const struct kern_mm *a, int t, const int np, uint32_t r)
{
    const uint32_t count = (a->n + TOKENS - 1) / TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        uint32_t nt = (a->n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(a, t, np, 1, r, t0);
            break;
        case 2:
            tile(a, t, np, 2, r, t0);
            break;
        case 3:
            tile(a, t, np, 3, r, t0);
            break;
        default:
            tile(a, t, np, 4, r, t0);
            break;
        }
        t0 += nt;
    }
}

IN void gemv(const struct kern_mm *a, int t)
{
    uint32_t r = a->row0;
    for (; r + (PANELS - 1) * KERN_PANEL < a->row1; r += PANELS * KERN_PANEL)
        tokens(a, t, PANELS, r);
    for (; r < a->row1; r += KERN_PANEL)
        tokens(a, t, 1, r);
}

WIDE_TILES(bf16, DT_BF16, WIDE_DIRECT)
WIDE_TILES(f32, DT_F32, WIDE_DIRECT)
WIDE_TILES(f16, DT_F16, WIDE_FIRST)
WIDE_TILES(f16_again, DT_F16, WIDE_AGAIN)

#define RUN(name, T, again)                                                                        \
    static void gemv_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemv(a, T);                                                                                \
    }                                                                                              \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        wide_gemm(a, T, name, again);                                                              \
    }
RUN(bf16, DT_BF16, bf16)
RUN(f16, DT_F16, f16_again)
RUN(f32, DT_F32, f32)

#define ROWS(name, T)                                                                              \
    {                                                                                              \
        "gemv_" #name "_f32_avx512", KERN_GEMV, T, KERN_P16, NEEDS, 4, 20, NULL,                   \
        {.mm = gemv_##name}},                                                                      \
    {                                                                                              \
        "gemm_" #name "_f32_avx512", KERN_GEMM, T, KERN_P16, NEEDS, WIDE_TOKENS, 20, NULL,         \
        {                                                                                          \
            .mm = gemm_##name                                                                      \
        }                                                                                          \
    }
static const struct kern table[] = {ROWS(bf16, DT_BF16), ROWS(f16, DT_F16), ROWS(f32, DT_F32)};

const struct kern *kern_avx512_plain(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
