/* mm_bf16_amx.c - BF16 and FP8 matrices for many tokens with AMX-BF16 tiles: activations rounded to
 * BF16, subnormals taken as zero.
 *
 * Not canonical: the bits differ from ref/, so the rows need the permission KERN_FAST_BF16. For a
 * segment of 512 columns up to 64 tokens are rounded side by side; then pair of panels after pair
 * is decoded to BF16 pairs of columns (wide512.h), and two tiles of 16 tokens times the two panels
 * give four sums for four loads. FP8 codes are BF16 numbers; a scale multiplies the sum of its 128
 * columns. Segments meet in y as in the definition. Pure; any thread: each call configures the
 * tiles and releases them.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) ||                   \
    !defined(__AVX512BF16__)
#error "compile with the AVX512-BF16 flags of configure"
#endif
/* gcc's names of the macros, and clang's */
#if !defined(KT_AMX_EMULATE) && (!defined(__AMX_TILE__) || !defined(__AMX_BF16__)) &&              \
    (!defined(__AMXTILE__) || !defined(__AMXBF16__))
#error "compile with the AMX flags of configure, or with KT_AMX_EMULATE"
#endif
#define KERN_WIDE_DP
#include "../avx512/wide512.h"
#include "tables.h"
#include "tile.h"

#define TOKENS (2 * TILE_ROWS) /* of a product */
#define BLOCK (2 * TOKENS)
#define DEPTH 16 /* pairs of columns of a product */
#define PAIRS (KERN_SEGMENT / 2)

struct scratch {
    uint16_t x[BLOCK][KERN_SEGMENT]; /* zeros beyond the last token and the last column */
    float w[2][PAIRS][KERN_PANEL];   /* pairs of BF16; zeros beyond the last column */
    float sum[2][TOKENS][KERN_PANEL], part[2][TOKENS][KERN_PANEL];
} __attribute__((aligned(64)));

/* A segment of a block of tokens and up to two panels. */
struct job {
    const struct kern_mm *a;
    struct scratch *m;
    uint32_t t0, nt, row, np, k0, len;
    const uint8_t *panel[2]; /* packed weights at k0 */
};

static void gather(const struct job *b)
{
    for (uint32_t n = 0; n < BLOCK; n++) {
        if (n >= b->nt) {
            __builtin_memset(b->m->x[n], 0, sizeof b->m->x[n]);
            continue;
        }
        const float *x = b->a->x + token(b->a, b->t0 + n) * b->a->ldx + b->k0;
        for (uint32_t k = 0; k < KERN_SEGMENT; k += 32) {
            const uint32_t left = b->len > k ? b->len - k : 0;
            const __m512bh v = _mm512_cvtne2ps_pbh(
                _mm512_maskz_loadu_ps(left > 16 ? wide_mask(left - 16) : 0, x + k + 16),
                _mm512_maskz_loadu_ps(wide_mask(left), x + k));
            _mm512_store_si512(b->m->x[n] + k, (__m512i)v);
        }
    }
}

IN void decode(const struct job *b, int t)
{
    const uint32_t pairs = (b->len + 1) / 2, padded = (pairs + DEPTH - 1) / DEPTH * DEPTH;
    for (uint32_t s = 0; s < b->np; s++) {
        for (uint32_t i = 0; i < pairs; i++)
            _mm512_store_ps(b->m->w[s][i], wide_decode(t, wide_column(t, b->panel[s], 2 * i), 0,
                                                       _mm512_setzero_ps()));
        for (uint32_t i = pairs; i < padded; i++)
            _mm512_store_ps(b->m->w[s][i], _mm512_setzero_ps());
    }
}

/* Pairs [i0, i1) of tokens n0.. of the block into `to`. Tiles 0 to 3: sums of panel s and tokens
 * 16h.. in 2s + h; 4, 5: tokens; 6, 7: weights. */
IN void products(const struct job *b, const int np, uint32_t n0, uint32_t i0, uint32_t i1,
                 float (*to)[TOKENS][KERN_PANEL])
{
    const struct scratch *m = b->m;
    tile_sync();
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    for (uint32_t i = i0; i < i1; i += DEPTH) {
        tile_load(4, m->x[n0] + (size_t)2 * i, sizeof m->x[0]);
        tile_load(5, m->x[n0 + TILE_ROWS] + (size_t)2 * i, sizeof m->x[0]);
        tile_load(6, m->w[0][i], 64);
        tile_dot_bf16(0, 4, 6);
        tile_dot_bf16(1, 5, 6);
        if (np == 2) {
            tile_load(7, m->w[1][i], 64);
            tile_dot_bf16(2, 4, 7);
            tile_dot_bf16(3, 5, 7);
        }
    }
    tile_store(0, to[0][0], 64);
    tile_store(1, to[0][TILE_ROWS], 64);
    if (np == 2) {
        tile_store(2, to[1][0], 64);
        tile_store(3, to[1][TILE_ROWS], 64);
    }
    tile_sync();
}

/* FP8: the blocks of 128 columns, each times its scales. */
IN void scaled_products(const struct job *b, const int np, uint32_t n0)
{
    struct scratch *m = b->m;
    const uint32_t pairs = (b->len + 1) / 2, step = FP8_BLOCK / 2;
    for (uint32_t i = 0; i < pairs; i += step) {
        products(b, np, n0, i, pairs - i < step ? pairs : i + step, m->part);
        for (int s = 0; s < np; s++) {
            const __m512 scale = _mm512_loadu_ps(b->panel[s] + fp8_block_at(2 * i));
            for (uint32_t n = 0; n < TOKENS; n++) {
                const __m512 sum = i == 0 ? _mm512_setzero_ps() : _mm512_load_ps(m->sum[s][n]);
                _mm512_store_ps(m->sum[s][n],
                                _mm512_fmadd_ps(_mm512_load_ps(m->part[s][n]), scale, sum));
            }
        }
    }
}

IN void all_tokens(const struct job *b, int t, const int np)
{
    const struct kern_mm *a = b->a;
    for (uint32_t n0 = 0; n0 < b->nt; n0 += TOKENS) {
        if (t == DT_FP8)
            scaled_products(b, np, n0);
        else
            products(b, np, n0, 0, (b->len + 1) / 2, b->m->sum);
        for (int s = 0; s < np; s++) {
            const uint32_t row = b->row + (uint32_t)s * KERN_PANEL;
            for (uint32_t n = n0; n < b->nt && n < n0 + TOKENS; n++)
                put512(a->y + (b->t0 + n) * a->ldy + row, lanes_of(a, row),
                       _mm512_load_ps(b->m->sum[s][n - n0]), b->k0 == 0);
        }
    }
}

IN void gemm(const struct kern_mm *a, int t)
{
    struct scratch m;
    struct tile_config c = {.palette = 1};
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    for (int i = 0; i < 8; i++) {
        c.rows[i] = 16;
        c.row_bytes[i] = 64;
    }
    tile_configure(&c);
    for (uint32_t t0 = 0; t0 < a->n; t0 += BLOCK)
        for (uint32_t k0 = 0; k0 < a->k; k0 += KERN_SEGMENT) {
            struct job b = {.a = a, .m = &m, .t0 = t0, .k0 = k0};
            b.nt = a->n - t0 < BLOCK ? a->n - t0 : BLOCK;
            b.len = a->k - k0 < KERN_SEGMENT ? a->k - k0 : KERN_SEGMENT;
            gather(&b);
            for (b.row = a->row0; b.row < a->row1; b.row += 2 * KERN_PANEL) {
                b.np = a->row1 - b.row > KERN_PANEL ? 2 : 1;
                b.panel[0] = (const uint8_t *)a->w + b.row / KERN_PANEL * panel + wide_at(t, k0);
                b.panel[1] = b.panel[0] + panel;
                decode(&b, t);
                if (b.np == 2)
                    all_tokens(&b, t, 2);
                else
                    all_tokens(&b, t, 1);
            }
        }
    tile_release();
}

static void gemm_bf16(const struct kern_mm *a)
{
    gemm(a, DT_BF16);
}

static void gemm_fp8(const struct kern_mm *a)
{
    gemm(a, DT_FP8);
}

#define AVX (KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16 | KERN_FAST_BF16)
#ifdef KT_AMX_EMULATE
#define TILES_NEED AVX
#define NAME(type) "gemm_" type "_bf16_amx_emulated"
#define TILES_TABLE kern_amx_bf16_emulated
#else
#define TILES_NEED (AVX | KERN_ISA_AMX)
#define NAME(type) "gemm_" type "_bf16_amx"
#define TILES_TABLE kern_amx_bf16
#endif
/* clang-format off */
static const struct kern table[] = {
    {NAME("bf16"), KERN_GEMM, DT_BF16, KERN_P16, TILES_NEED, TOKENS, 50, NULL, {.mm = gemm_bf16}},
    {NAME("fp8"), KERN_GEMM, DT_FP8, KERN_P16, TILES_NEED, TOKENS, 50, NULL, {.mm = gemm_fp8}},
};
/* clang-format on */

const struct kern *TILES_TABLE(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
