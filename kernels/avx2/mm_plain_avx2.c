/* mm_plain_avx2.c - BF16, F16 and F32 matrices with fp32 activations, AVX2: GEMV and GEMM.
 *
 * acc = fma(w_k, x_k, acc), k ascending, segments of 512, lanes are rows. A lone chain waits for
 * its fma (4 cycles a column), so one token runs over four panels (8 chains) and up to 6 tokens
 * over one (12 chains). Row sums meet in y, segments ascending. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define MAX_PANELS 4
#define MAX_TOKENS 6

/* Column k + c of eight rows from row 8h of a panel; k even, c 0 or 1. Columns of BF16 lie in
 * pairs. */
IN __m256 load_w(int t, const uint8_t *p, uint32_t k, const int c, const int h)
{
    p += (size_t)k * KERN_PANEL * plain_bytes(t);
    if (t == DT_F32)
        return _mm256_loadu_ps((const float *)(p + 64 * c + 32 * h));
    if (t == DT_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 32 * c + 16 * h)));
    const __m256i v = _mm256_loadu_si256((const __m256i *)(p + 32 * h));
    return _mm256_castsi256_ps(c ? _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000))
                                 : _mm256_slli_epi32(v, 16));
}

/* Column k + c over np panels. */
IN void column(int t, const uint8_t *w, size_t panel, const int np, const int nt, uint32_t k,
               const int c, const float *const *x, __m256 f[MAX_PANELS][MAX_TOKENS][2])
{
    UNROLL
    for (int s = 0; s < np; s++) {
        const uint8_t *p = w + (size_t)s * panel;
        const __m256 v0 = load_w(t, p, k, c, 0), v1 = load_w(t, p, k, c, 1);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256 xk = _mm256_set1_ps(x[n][k + (uint32_t)c]);
            f[s][n][0] = _mm256_fmadd_ps(v0, xk, f[s][n][0]);
            f[s][n][1] = _mm256_fmadd_ps(v1, xk, f[s][n][1]);
        }
    }
}

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void tile(const struct kern_mm *a, int t, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const uint32_t bytes = KERN_PANEL * plain_bytes(t);
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const float *x[MAX_TOKENS];
    for (int n = 0; n < nt; n++)
        x[n] = a->x + token(a, t0 + (uint32_t)n) * a->ldx;
    for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
        uint32_t k1 = a->k - k0 < KERN_SEGMENT ? a->k : k0 + KERN_SEGMENT;
        __m256 f[MAX_PANELS][MAX_TOKENS][2];
        UNROLL
        for (int s = 0; s < np; s++)
            UNROLL
        for (int n = 0; n < nt; n++)
            f[s][n][0] = f[s][n][1] = _mm256_setzero_ps();
        for (uint32_t k = k0; k < k1; k += 2) {
            UNROLL
            for (int s = 0; s < np; s++) {
                const char *p = (const char *)w + (size_t)s * panel + (size_t)k * bytes + 1024;
                _mm_prefetch(p, _MM_HINT_T0);
                if (bytes == 64)
                    _mm_prefetch(p + 64, _MM_HINT_T0);
            }
            column(t, w, panel, np, nt, k, 0, x, f);
            if (k + 1 < k1)
                column(t, w, panel, np, nt, k, 1, x, f);
        }
        UNROLL
        for (int s = 0; s < np; s++) {
            uint32_t row = r + (uint32_t)s * KERN_PANEL;
            UNROLL
            for (int n = 0; n < nt; n++)
                put256(a->y + (t0 + (uint32_t)n) * a->ldy + row, a->row1 - row, f[s][n][0],
                       f[s][n][1], k0 == 0);
        }
    }
}

/* All tokens over one panel, in even tiles. */
IN void tokens(const struct kern_mm *a, int t, uint32_t r)
{
    const uint32_t count = (a->n + MAX_TOKENS - 1) / MAX_TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        uint32_t nt = (a->n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(a, t, 1, 1, r, t0);
            break;
        case 2:
            tile(a, t, 1, 2, r, t0);
            break;
        case 3:
            tile(a, t, 1, 3, r, t0);
            break;
        case 4:
            tile(a, t, 1, 4, r, t0);
            break;
        case 5:
            tile(a, t, 1, 5, r, t0);
            break;
        default:
            tile(a, t, 1, 6, r, t0);
            break;
        }
        t0 += nt;
    }
}

IN void gemm(const struct kern_mm *a, int t)
{
    for (uint32_t r = a->row0; r < a->row1; r += KERN_PANEL)
        tokens(a, t, r);
}

IN void gemv(const struct kern_mm *a, int t)
{
    uint32_t r = a->row0;
    if (a->n == 1)
        for (; r + (MAX_PANELS - 1) * KERN_PANEL < a->row1; r += MAX_PANELS * KERN_PANEL)
            tile(a, t, MAX_PANELS, 1, r, 0);
    for (; r < a->row1; r += KERN_PANEL)
        tokens(a, t, r);
}

#define RUN(name, T)                                                                               \
    static void gemv_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemv(a, T);                                                                                \
    }                                                                                              \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemm(a, T);                                                                                \
    }
RUN(bf16, DT_BF16)
RUN(f16, DT_F16)
RUN(f32, DT_F32)

#define ROWS(name, T)                                                                              \
    {"gemv_" #name "_f32_avx2", KERN_GEMV, T, KERN_P16, KERN_ISA_AVX2, MAX_TOKENS, 10, NULL,       \
     {.mm = gemv_##name}},                                                                         \
    {                                                                                              \
        "gemm_" #name "_f32_avx2", KERN_GEMM, T, KERN_P16, KERN_ISA_AVX2, MAX_TOKENS, 10, NULL,    \
        {                                                                                          \
            .mm = gemm_##name                                                                      \
        }                                                                                          \
    }
static const struct kern table[] = {ROWS(bf16, DT_BF16), ROWS(f16, DT_F16), ROWS(f32, DT_F32)};

const struct kern *kern_avx2_plain(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
