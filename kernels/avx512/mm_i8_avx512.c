/* mm_i8_avx512.c - INT8 matrices with one scale per row, AVX512 with VNNI and without: GEMV and
 * GEMM.
 *
 * y = fl32((float)dot * fl32(scale * a_scale)), dot the exact integer over the whole row, so
 * nothing but vpdpbusd is in the loop. Panels hold codes + 128; the accumulator starts at -128
 * times the sum of the activation codes, modulo 2^32, and ends exact (k is limited so that the
 * result fits). Without VNNI the codes are made signed again. GEMV: four panels, four address
 * streams, up to 4 tokens. GEMM: two panels and 8 tokens, 16 results in registers; the weights of
 * two panels stay in the second-level cache for all tokens. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "mm512.h"
#include "tables.h"

#define MAX_PANELS 4
#define MAX_TOKENS 8
#define AHEAD 1024 /* bytes of prefetch in each stream */

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const int8_t *q[MAX_TOKENS];
    __m512i acc[MAX_PANELS][MAX_TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const size_t at = token(a, t0 + (uint32_t)n);
        q[n] = a->q + at * a->ldq;
        UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n] =
                VNNI ? _mm512_set1_epi32((int32_t)(0u - 128u * (uint32_t)a->sum[at * a->ldg]))
                     : _mm512_setzero_si512();
    }
    for (uint32_t k = 0; k < a->k; k += 4) {
        __m512i v[MAX_PANELS];
        UNROLL
        for (int s = 0; s < np; s++) {
            const uint8_t *p = w + (size_t)s * panel + 64 + (size_t)k * KERN_PANEL;
            v[s] = _mm512_loadu_si512(p);
            if (!VNNI)
                v[s] = _mm512_xor_si512(v[s], _mm512_set1_epi8(-128));
            _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        }
        UNROLL
        for (int n = 0; n < nt; n++) {
            __m512i x = bcast4(q[n] + k);
            UNROLL
            for (int s = 0; s < np; s++) {
                __m512i sum;
                dot4(1, 0, &acc[s][n], &sum, v[s], x);
            }
        }
    }
    UNROLL
    for (int s = 0; s < np; s++) {
        const uint32_t row = r + (uint32_t)s * KERN_PANEL;
        const __m512 d = _mm512_loadu_ps(w + (size_t)s * panel);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const float as = a->scale[token(a, t0 + (uint32_t)n) * a->ldg];
            put512(
                a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row),
                _mm512_mul_ps(_mm512_cvtepi32_ps(acc[s][n]), _mm512_mul_ps(d, _mm512_set1_ps(as))),
                1);
        }
    }
}

/* All tokens over np panels, in even tiles of at most `most`. */
IN void tokens(const struct kern_mm *a, const int np, const uint32_t most, uint32_t r)
{
    const uint32_t count = (a->n + most - 1) / most;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        uint32_t nt = (a->n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(a, np, 1, r, t0);
            break;
        case 2:
            tile(a, np, 2, r, t0);
            break;
        case 3:
            tile(a, np, 3, r, t0);
            break;
        case 4:
            tile(a, np, 4, r, t0);
            break;
        case 5:
            if (most > 4)
                tile(a, np, 5, r, t0);
            break;
        case 6:
            if (most > 4)
                tile(a, np, 6, r, t0);
            break;
        case 7:
            if (most > 4)
                tile(a, np, 7, r, t0);
            break;
        default:
            if (most > 4)
                tile(a, np, 8, r, t0);
            break;
        }
        t0 += nt;
    }
}

static void gemv(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    for (; r + (MAX_PANELS - 1) * KERN_PANEL < a->row1; r += MAX_PANELS * KERN_PANEL)
        tokens(a, MAX_PANELS, 4, r);
    for (; r < a->row1; r += KERN_PANEL)
        tokens(a, 1, 4, r);
}

static void gemm(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    for (; r + KERN_PANEL < a->row1; r += 2 * KERN_PANEL)
        tokens(a, 2, MAX_TOKENS, r);
    for (; r < a->row1; r += KERN_PANEL)
        tokens(a, 1, MAX_TOKENS, r);
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_int8_q8row_" VARIANT, KERN_GEMV, DT_INT8, KERN_P16, NEEDS, 4, RANK, fits_row, {.mm = gemv}},
    {"gemm_int8_q8row_" VARIANT, KERN_GEMM, DT_INT8, KERN_P16, NEEDS, MAX_TOKENS, RANK, fits_row, {.mm = gemm}},
};
/* clang-format on */

const struct kern *ACCESSOR(i8)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
