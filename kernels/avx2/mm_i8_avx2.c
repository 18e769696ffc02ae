/* mm_i8_avx2.c - INT8 matrices with one scale per row, AVX2: GEMV and GEMM.
 *
 * y = fl32((float)dot * fl32(scale * a_scale)), dot the exact integer over the whole row. maddubs
 * takes |w| and the activation with w's sign: 2 * 128 * 127 fits 16 bits. One token runs over four
 * panels, each its own address stream; more tokens over one panel in tiles of 4, whose 8 results
 * are in registers. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define MAX_PANELS 4
#define TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const __m256i one = _mm256_set1_epi16(1), flip = _mm256_set1_epi8(-128);
    const int8_t *q[TOKENS];
    __m256i acc[MAX_PANELS][TOKENS][2];
    UNROLL
    for (int n = 0; n < nt; n++) {
        q[n] = a->q + token(a, t0 + (uint32_t)n) * a->ldq;
        UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n][0] = acc[s][n][1] = _mm256_setzero_si256();
    }
    for (uint32_t k = 0; k < a->k; k += 4)
        UNROLL
    for (int s = 0; s < np; s++) {
        const uint8_t *p = w + (size_t)s * panel + 64 + (size_t)k * KERN_PANEL;
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256i v = _mm256_xor_si256(load32(p + 32 * h), flip);
            UNROLL
            for (int n = 0; n < nt; n++)
                acc[s][n][h] =
                    add32(acc[s][n][h], _mm256_madd_epi16(pairs(1, v, bcast4(q[n] + k)), one));
        }
    }
    UNROLL
    for (int s = 0; s < np; s++) {
        const uint32_t row = r + (uint32_t)s * KERN_PANEL;
        const float *d = (const float *)(w + (size_t)s * panel);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256 as = _mm256_set1_ps(a->scale[token(a, t0 + (uint32_t)n) * a->ldg]);
            __m256 f[2];
            UNROLL
            for (int h = 0; h < 2; h++)
                f[h] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[s][n][h]),
                                     _mm256_mul_ps(_mm256_loadu_ps(d + 8 * h), as));
            put256(a->y + (t0 + (uint32_t)n) * a->ldy + row, a->row1 - row, f[0], f[1], 1);
        }
    }
}

static void panel_rows(const struct kern_mm *a, uint32_t r)
{
    for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS)
        switch (a->n - t0) {
        case 1:
            tile(a, 1, 1, r, t0);
            break;
        case 2:
            tile(a, 1, 2, r, t0);
            break;
        case 3:
            tile(a, 1, 3, r, t0);
            break;
        default:
            tile(a, 1, 4, r, t0);
            break;
        }
}

static void gemv(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    if (a->n == 1)
        for (; r + (MAX_PANELS - 1) * KERN_PANEL < a->row1; r += MAX_PANELS * KERN_PANEL)
            tile(a, MAX_PANELS, 1, r, 0);
    for (; r < a->row1; r += KERN_PANEL)
        panel_rows(a, r);
}

static void gemm(const struct kern_mm *a)
{
    for (uint32_t r = a->row0; r < a->row1; r += KERN_PANEL)
        panel_rows(a, r);
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_int8_q8row_avx2", KERN_GEMV, DT_INT8, KERN_P16, KERN_ISA_AVX2, TOKENS, 10, fits_row, {.mm = gemv}},
    {"gemm_int8_q8row_avx2", KERN_GEMM, DT_INT8, KERN_P16, KERN_ISA_AVX2, TOKENS, 10, fits_row, {.mm = gemm}},
};
/* clang-format on */

const struct kern *kern_avx2_i8(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
