/* mm_gemm_bf16.c - BF16 matrices for many tokens with vdpbf16ps: activations rounded to BF16, two
 * columns at a time, subnormals taken as zero.
 *
 * Twice the rate of fp32, and not canonical: the bits differ from ref/, so its row needs the
 * permission KERN_FAST_BF16, which only --fast-bf16 grants. For two panels and each segment of 512
 * columns the weights are laid out in column pairs once, then all tokens pass over them in tiles of
 * 6, each token's segment rounded to pairs before. Segments meet in y as in the definition.
 * Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) ||                   \
    !defined(__AVX512BF16__)
#error "compile with the AVX512-BF16 flags of configure"
#endif
#include "../avx512/mm512.h"
#include "tables.h"

#define PANELS 2
#define TOKENS 6
#define PAIRS (KERN_SEGMENT / 2)

/* A segment of one panel: [pair][row][2]. */
struct seg {
    uint16_t w[PAIRS][KERN_PANEL][2];
} __attribute__((aligned(64)));

/* Columns k0.. of one panel, `len` of them; a last odd column gets a zero beside it. */
IN void pair_up(const uint8_t *p, uint32_t len, struct seg *o)
{
    for (uint32_t k = 0; k < len; k += 2) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(p + 32 * (size_t)k)),
                      b = k + 1 < len
                              ? _mm256_loadu_si256((const __m256i *)(p + 32 * (size_t)k + 32))
                              : _mm256_setzero_si256();
        const __m512i lo = _mm512_cvtepu16_epi32(a),
                      hi = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
        _mm512_store_si512(o->w[k / 2], _mm512_or_si512(lo, hi));
        _mm_prefetch((const char *)p + 32 * (size_t)k + 2048, _MM_HINT_T0);
    }
}

/* A token's columns rounded to BF16, zeros behind them up to a multiple of 32. */
IN void round_to_bf16(const float *x, uint32_t len, uint16_t *o)
{
    for (uint32_t k = 0; k < len; k += 32) {
        const uint32_t left = len - k;
        const __mmask16 lo = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1),
                        hi = left >= 32   ? 0xffff
                             : left <= 16 ? 0
                                          : (__mmask16)((1u << (left - 16)) - 1);
        const __m512bh v = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, x + k + 16),
                                               _mm512_maskz_loadu_ps(lo, x + k));
        _mm512_store_si512(o + k, (__m512i)v);
    }
}

struct job {
    const struct kern_mm *a;
    const struct seg *w; /* [np] */
    uint32_t row, k0, len;
};

IN void tile(const struct job *b, const int np, const int nt, uint32_t t0)
{
    const struct kern_mm *a = b->a;
    uint16_t x[TOKENS][KERN_SEGMENT] __attribute__((aligned(64)));
    __m512 f[PANELS][TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++) {
        round_to_bf16(a->x + token(a, t0 + (uint32_t)n) * a->ldx + b->k0, b->len, x[n]);
        UNROLL
        for (int s = 0; s < np; s++)
            f[s][n] = _mm512_setzero_ps();
    }
    for (uint32_t i = 0; i < (b->len + 1) / 2; i++) {
        __m512bh w[PANELS];
        UNROLL
        for (int s = 0; s < np; s++)
            w[s] = (__m512bh)_mm512_load_si512(b->w[s].w[i]);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m512bh v = (__m512bh)bcast4((const int8_t *)&x[n][2 * i]);
            UNROLL
            for (int s = 0; s < np; s++)
                f[s][n] = _mm512_dpbf16_ps(f[s][n], w[s], v);
        }
    }
    UNROLL
    for (int s = 0; s < np; s++) {
        const uint32_t row = b->row + (uint32_t)s * KERN_PANEL;
        UNROLL
        for (int n = 0; n < nt; n++)
            put512(a->y + (t0 + (uint32_t)n) * a->ldy + row, lanes_of(a, row), f[s][n], b->k0 == 0);
    }
}

/* All tokens over a segment, in even tiles. */
IN void all_tokens(const struct job *b, const int np)
{
    const uint32_t n = b->a->n, count = (n + TOKENS - 1) / TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        const uint32_t nt = (n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(b, np, 1, t0);
            break;
        case 2:
            tile(b, np, 2, t0);
            break;
        case 3:
            tile(b, np, 3, t0);
            break;
        case 4:
            tile(b, np, 4, t0);
            break;
        case 5:
            tile(b, np, 5, t0);
            break;
        default:
            tile(b, np, 6, t0);
            break;
        }
        t0 += nt;
    }
}

static void gemm_bf16(const struct kern_mm *a)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_BF16, a->k);
    struct seg w[PANELS];
    for (uint32_t r = a->row0; r < a->row1; r += PANELS * KERN_PANEL) {
        const uint32_t np = a->row1 - r > KERN_PANEL ? 2 : 1;
        const uint8_t *p = (const uint8_t *)a->w + r / KERN_PANEL * panel;
        for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
            struct job b = {a, w, r, k0, a->k - k0 < KERN_SEGMENT ? a->k - k0 : KERN_SEGMENT};
            for (uint32_t s = 0; s < np; s++)
                pair_up(p + s * panel + 32 * (size_t)k0, b.len, &w[s]);
            if (np == 2)
                all_tokens(&b, 2);
            else
                all_tokens(&b, 1);
        }
    }
}

static const struct kern table[] = {
    {"gemm_bf16_bf16_avx512bf16",
     KERN_GEMM,
     DT_BF16,
     KERN_P16,
     KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16 | KERN_FAST_BF16,
     TOKENS,
     40,
     NULL,
     {.mm = gemm_bf16}},
};

const struct kern *kern_avx512bf16_mm(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
