/* mm_fp8_avx512.c - FP8 (E4M3) matrices with fp32 activations, AVX512: GEMV and GEMM.
 *
 * w = fl32(code * scale), then acc = fma(w, x, acc), k ascending, segments of 512; lanes are rows.
 * A code becomes a half by moving its bits, which gives 2^-8 of its value, subnormals included;
 * the panel's scales are 2^8 of the stored ones, so the product is the same number and rounds the
 * same. GEMV decodes for up to 4 tokens over four panels; GEMM is the tiles of wide512.h, which
 * decode once for all tokens. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "tables.h"
#include "wide512.h"

#define MAX_PANELS 4
#define MAX_TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

/* Columns k and k + 1 of the 16 rows, as halves of 2^-8 their value. */
IN __m512i halves(const uint8_t *p)
{
    __m512i v = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_and_si512(_mm512_slli_epi16(v, 7), _mm512_set1_epi16((short)0xbfff));
}

IN __m512 first_of(__m512i h, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(h)), scale);
}

IN __m512 second_of(__m512i h, __m512 scale)
{
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)), scale);
}

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_FP8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const float *x[MAX_TOKENS];
    __m512 f[MAX_PANELS][MAX_TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++) {
        x[n] = a->x + token(a, t0 + (uint32_t)n) * a->ldx;
        UNROLL
        for (int s = 0; s < np; s++)
            f[s][n] = _mm512_setzero_ps();
    }
    for (uint32_t k0 = 0; k0 < a->k; k0 += FP8_BLOCK) {
        const uint32_t left = a->k - k0, len = left < FP8_BLOCK ? left : FP8_BLOCK;
        const bool last = left <= FP8_BLOCK || (k0 + FP8_BLOCK) % KERN_SEGMENT == 0;
        __m512 scale[MAX_PANELS];
        UNROLL
        for (int s = 0; s < np; s++)
            scale[s] = _mm512_loadu_ps(w + (size_t)s * panel + fp8_block_at(k0));
        const uint8_t *codes = w + fp8_block_at(k0) + 64;
        for (uint32_t k = 0; k < len; k += 2) {
            UNROLL
            for (int s = 0; s < np; s++) {
                const uint8_t *p = codes + (size_t)s * panel + (size_t)k * KERN_PANEL;
                if (k % 4 == 0)
                    _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
                __m512i h = halves(p);
                __m512 v = first_of(h, scale[s]);
                UNROLL
                for (int n = 0; n < nt; n++)
                    f[s][n] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[n][k0 + k]), f[s][n]);
                if (k + 1 == len)
                    continue;
                v = second_of(h, scale[s]);
                UNROLL
                for (int n = 0; n < nt; n++)
                    f[s][n] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[n][k0 + k + 1]), f[s][n]);
            }
        }
        UNROLL
        for (int s = 0; s < np && last; s++) {
            const uint32_t row = r + (uint32_t)s * KERN_PANEL;
            UNROLL
            for (int n = 0; n < nt; n++) {
                put512(a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row), f[s][n],
                       k0 < KERN_SEGMENT);
                f[s][n] = _mm512_setzero_ps();
            }
        }
    }
}

IN void few(const struct kern_mm *a, const int np, uint32_t r)
{
    for (uint32_t t0 = 0; t0 < a->n; t0 += 4)
        switch (a->n - t0) {
        case 1:
            tile(a, np, 1, r, t0);
            break;
        case 2:
            tile(a, np, 2, r, t0);
            break;
        case 3:
            tile(a, np, 3, r, t0);
            break;
        default:
            tile(a, np, 4, r, t0);
            break;
        }
}

static void gemv(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    for (; r + (MAX_PANELS - 1) * KERN_PANEL < a->row1; r += MAX_PANELS * KERN_PANEL)
        few(a, MAX_PANELS, r);
    for (; r < a->row1; r += KERN_PANEL)
        few(a, 1, r);
}

WIDE_TILES(first, DT_FP8, WIDE_FIRST)
WIDE_TILES(again, DT_FP8, WIDE_AGAIN)

static void gemm(const struct kern_mm *a)
{
    wide_gemm(a, DT_FP8, first, again);
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_fp8_f32_avx512", KERN_GEMV, DT_FP8, KERN_P16, NEEDS, 4, 20, NULL, {.mm = gemv}},
    {"gemm_fp8_f32_avx512", KERN_GEMM, DT_FP8, KERN_P16, NEEDS, WIDE_TOKENS, 20, NULL, {.mm = gemm}},
};
/* clang-format on */

const struct kern *kern_avx512_fp8(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
