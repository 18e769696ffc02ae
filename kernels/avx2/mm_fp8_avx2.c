/* mm_fp8_avx2.c - FP8 (E4M3) matrices with fp32 activations, AVX2: GEMV and GEMM.
 *
 * w = fl32(code * scale), then acc = fma(w, x, acc), k ascending, segments of 512; lanes are rows,
 * a panel is two halves. A code becomes a half by moving its bits, which gives 2^-8 of its value;
 * the panel's scales are 2^8 of the stored ones. One token runs over four panels at a time; more
 * tokens, and GEMM, decode a segment of a panel to fp32 once and pass over it. Bits equal ref/.
 * Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define PANELS 4
#define MAX_TOKENS 6
#define AHEAD 1024 /* bytes of prefetch in each stream */

/* One column of the 16 rows. */
IN void column(const uint8_t *p, const __m256 scale[2], __m256 w[2])
{
    __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    v = _mm256_and_si256(_mm256_slli_epi16(v, 7), _mm256_set1_epi16((short)0xbfff));
    w[0] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(v)), scale[0]);
    w[1] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)), scale[1]);
}

IN void load_scales(const uint8_t *p, __m256 scale[2])
{
    scale[0] = _mm256_loadu_ps((const float *)p);
    scale[1] = _mm256_loadu_ps((const float *)p + 8);
}

/* One token over four panels from row r. */
static void one_token(const struct kern_mm *a, uint32_t r, uint32_t t)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_FP8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const float *x = a->x + token(a, t) * a->ldx;
    __m256 f[PANELS][2];
    UNROLL
    for (int s = 0; s < PANELS; s++)
        f[s][0] = f[s][1] = _mm256_setzero_ps();
    for (uint32_t k0 = 0; k0 < a->k; k0 += FP8_BLOCK) {
        const uint32_t left = a->k - k0, len = left < FP8_BLOCK ? left : FP8_BLOCK;
        const bool last = left <= FP8_BLOCK || (k0 + FP8_BLOCK) % KERN_SEGMENT == 0;
        __m256 scale[PANELS][2];
        UNROLL
        for (int s = 0; s < PANELS; s++)
            load_scales(w + (size_t)s * panel + fp8_block_at(k0), scale[s]);
        for (uint32_t k = 0; k < len; k++) {
            const __m256 v = _mm256_set1_ps(x[k0 + k]);
            UNROLL
            for (int s = 0; s < PANELS; s++) {
                const uint8_t *p =
                    w + (size_t)s * panel + fp8_block_at(k0) + 64 + (size_t)k * KERN_PANEL;
                __m256 c[2];
                if (k % 4 == 0)
                    _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
                column(p, scale[s], c);
                f[s][0] = _mm256_fmadd_ps(c[0], v, f[s][0]);
                f[s][1] = _mm256_fmadd_ps(c[1], v, f[s][1]);
            }
        }
        UNROLL
        for (int s = 0; s < PANELS && last; s++) {
            const uint32_t row = r + (uint32_t)s * KERN_PANEL;
            put256(a->y + t * a->ldy + row, a->row1 - row, f[s][0], f[s][1], k0 < KERN_SEGMENT);
            f[s][0] = f[s][1] = _mm256_setzero_ps();
        }
    }
}

/* A decoded segment of a panel: 32 KiB. */
struct seg {
    float w[KERN_SEGMENT][KERN_PANEL];
} __attribute__((aligned(64)));

struct job {
    const struct kern_mm *a;
    const struct seg *w;
    uint32_t row, k0, len;
};

static void decode_seg(const uint8_t *panel, uint32_t k0, uint32_t len, struct seg *out)
{
    for (uint32_t k = 0; k < len; k++) {
        const uint8_t *p = panel + fp8_block_at(k0 + k);
        __m256 scale[2], w[2];
        load_scales(p, scale);
        column(p + 64 + (size_t)(k % FP8_BLOCK) * KERN_PANEL, scale, w);
        _mm256_store_ps(out->w[k], w[0]);
        _mm256_store_ps(out->w[k] + 8, w[1]);
    }
}

IN void pass(const struct job *b, const int nt, uint32_t t0)
{
    const struct kern_mm *a = b->a;
    const float *x[MAX_TOKENS];
    __m256 f[MAX_TOKENS][2];
    UNROLL
    for (int n = 0; n < nt; n++) {
        x[n] = a->x + token(a, t0 + (uint32_t)n) * a->ldx + b->k0;
        f[n][0] = f[n][1] = _mm256_setzero_ps();
    }
    for (uint32_t k = 0; k < b->len; k++) {
        const __m256 w0 = _mm256_load_ps(b->w->w[k]), w1 = _mm256_load_ps(b->w->w[k] + 8);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256 v = _mm256_set1_ps(x[n][k]);
            f[n][0] = _mm256_fmadd_ps(w0, v, f[n][0]);
            f[n][1] = _mm256_fmadd_ps(w1, v, f[n][1]);
        }
    }
    UNROLL
    for (int n = 0; n < nt; n++)
        put256(a->y + (t0 + (uint32_t)n) * a->ldy + b->row, a->row1 - b->row, f[n][0], f[n][1],
               b->k0 == 0);
}

/* All tokens over a decoded segment, in even tiles. */
static void passes(const struct job *b)
{
    const uint32_t n = b->a->n, count = (n + MAX_TOKENS - 1) / MAX_TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        uint32_t nt = (n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            pass(b, 1, t0);
            break;
        case 2:
            pass(b, 2, t0);
            break;
        case 3:
            pass(b, 3, t0);
            break;
        case 4:
            pass(b, 4, t0);
            break;
        case 5:
            pass(b, 5, t0);
            break;
        default:
            pass(b, 6, t0);
            break;
        }
        t0 += nt;
    }
}

static void panel_rows(const struct kern_mm *a, uint32_t r)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_FP8, a->k);
    struct seg w;
    for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
        struct job b = {a, &w, r, k0, a->k - k0 < KERN_SEGMENT ? a->k - k0 : KERN_SEGMENT};
        decode_seg((const uint8_t *)a->w + r / KERN_PANEL * panel, k0, b.len, &w);
        passes(&b);
    }
}

static void gemm(const struct kern_mm *a)
{
    for (uint32_t r = a->row0; r < a->row1; r += KERN_PANEL)
        panel_rows(a, r);
}

static void gemv(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    if (a->n == 1)
        for (; r + (PANELS - 1) * KERN_PANEL < a->row1; r += PANELS * KERN_PANEL)
            one_token(a, r, 0);
    for (; r < a->row1; r += KERN_PANEL)
        panel_rows(a, r);
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_fp8_f32_avx2", KERN_GEMV, DT_FP8, KERN_P16, KERN_ISA_AVX2, MAX_TOKENS, 10, NULL, {.mm = gemv}},
    {"gemm_fp8_f32_avx2", KERN_GEMM, DT_FP8, KERN_P16, KERN_ISA_AVX2, MAX_TOKENS, 10, NULL, {.mm = gemm}},
};
/* clang-format on */

const struct kern *kern_avx2_fp8(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
