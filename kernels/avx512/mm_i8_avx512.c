/* mm_i8_avx512.c - INT8 matrices with one scale per row, AVX512 with VNNI and without: GEMV and
 * GEMM.
 *
 * y = fl32((float)dot * fl32(scale * a_scale)), dot the exact integer over the whole row, so
 * nothing but vpdpbusd is in the loop. Panels hold codes + 128; the accumulator starts at -128
 * times the sum of the activation codes, modulo 2^32, and ends exact (k is limited so that the
 * result fits). Without VNNI the codes are made signed again. GEMV: four panels, four address
 * streams, up to 4 tokens. GEMM: 24 results in registers, three panels and 8 tokens; columns in
 * blocks, so that the weights of three panels stay in L1 for all tokens of a block, whose results
 * are kept in between. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "mm512.h"
#include "tables.h"

#define GEMV_PANELS 4
#define GEMV_TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

#define PANELS 3
#define TOKENS 8
#define COLUMNS 512 /* 24 KiB of weights in L1 */
#define BLOCK 48    /* tokens that share them */

IN __m512i start(const struct kern_mm *a, size_t at)
{
    return VNNI ? _mm512_set1_epi32((int32_t)(0u - 128u * (uint32_t)a->sum[at * a->ldg]))
                : _mm512_setzero_si512();
}

/* 16 rows times 4 columns. */
IN __m512i codes(const uint8_t *p)
{
    const __m512i v = _mm512_loadu_si512(p);
    return VNNI ? v : _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

IN __m512i dot(__m512i acc, __m512i w, __m512i x)
{
    __m512i sum;
    dot4(1, 0, &acc, &sum, w, x);
    return acc;
}

/* Results of token i and panel s (at w, from row r) to y. */
IN void finish(const struct kern_mm *a, uint32_t i, uint32_t r, const uint8_t *w, __m512i acc)
{
    const __m512 scale = _mm512_set1_ps(a->scale[token(a, i) * a->ldg]);
    put512(a->y + i * a->ldy + r, lanes_of(a, r),
           _mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_mul_ps(_mm512_loadu_ps(w), scale)), 1);
}

/* ---- few tokens ---- */

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void stream(const struct kern_mm *a, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const int8_t *q[GEMV_TOKENS];
    __m512i acc[GEMV_PANELS][GEMV_TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const size_t at = token(a, t0 + (uint32_t)n);
        q[n] = a->q + at * a->ldq;
        UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n] = start(a, at);
    }
    for (uint32_t k = 0; k < a->k; k += 4) {
        __m512i v[GEMV_PANELS];
        UNROLL
        for (int s = 0; s < np; s++) {
            const uint8_t *p = w + (size_t)s * panel + 64 + (size_t)k * KERN_PANEL;
            v[s] = codes(p);
            _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        }
        UNROLL
        for (int n = 0; n < nt; n++) {
            __m512i x = bcast4(q[n] + k);
            UNROLL
            for (int s = 0; s < np; s++)
                acc[s][n] = dot(acc[s][n], v[s], x);
        }
    }
    UNROLL
    for (int s = 0; s < np; s++)
        UNROLL
    for (int n = 0; n < nt; n++)
        finish(a, t0 + (uint32_t)n, r + (uint32_t)s * KERN_PANEL, w + (size_t)s * panel, acc[s][n]);
}

/* All tokens over np panels, in even tiles. */
IN void stream_all(const struct kern_mm *a, const int np, uint32_t r)
{
    const uint32_t count = (a->n + GEMV_TOKENS - 1) / GEMV_TOKENS;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        const uint32_t nt = (a->n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            stream(a, np, 1, r, t0);
            break;
        case 2:
            stream(a, np, 2, r, t0);
            break;
        case 3:
            stream(a, np, 3, r, t0);
            break;
        default:
            stream(a, np, 4, r, t0);
            break;
        }
        t0 += nt;
    }
}

static void gemv(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    for (; r + (GEMV_PANELS - 1) * KERN_PANEL < a->row1; r += GEMV_PANELS * KERN_PANEL)
        stream_all(a, GEMV_PANELS, r);
    for (; r < a->row1; r += KERN_PANEL)
        stream_all(a, 1, r);
}

/* ---- many tokens ---- */

/* A block of tokens over a block of columns of some panels. */
struct block {
    const struct kern_mm *a;
    const uint8_t *w, *next; /* first panel; the columns that come after, to ask for */
    size_t panel;
    uint32_t row, t0, n, k0, k1, lines; /* lines: of next, in each panel */
    __m512i *sum;                       /* [n][panels] between blocks of columns */
};

/* nt tokens from t; np and nt are constants. Meanwhile lines [line0, line1) of what comes next are
 * asked for, one a panel beside 16 columns. */
IN void tile(const struct block *b, const int np, const int nt, uint32_t t, const uint32_t line[2])
{
    const struct kern_mm *a = b->a;
    const int8_t *q[TOKENS];
    __m512i acc[PANELS][TOKENS], *sum = b->sum + (size_t)(t - b->t0) * (size_t)np;
    uint32_t ask = line[0];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const size_t at = token(a, t + (uint32_t)n);
        q[n] = a->q + at * a->ldq;
        UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n] = b->k0 > 0 ? _mm512_load_si512(sum + n * np + s) : start(a, at);
    }
    for (uint32_t k = b->k0; k < b->k1; k += 4) {
        __m512i v[PANELS];
        if (k % 16 == 0 && ask < line[1]) {
            UNROLL
            for (int s = 0; s < np; s++)
                _mm_prefetch((const char *)b->next + (size_t)s * b->panel + (size_t)ask * 64,
                             _MM_HINT_T0);
            ask++;
        }
        UNROLL
        for (int s = 0; s < np; s++)
            v[s] = codes(b->w + (size_t)s * b->panel + 64 + (size_t)k * KERN_PANEL);
        UNROLL
        for (int n = 0; n < nt; n++) {
            __m512i x = bcast4(q[n] + k);
            UNROLL
            for (int s = 0; s < np; s++)
                acc[s][n] = dot(acc[s][n], v[s], x);
        }
    }
    UNROLL
    for (int n = 0; n < nt; n++)
        UNROLL
    for (int s = 0; s < np; s++)
        if (b->k1 < a->k)
            _mm512_store_si512(sum + n * np + s, acc[s][n]);
        else
            finish(a, t + (uint32_t)n, b->row + (uint32_t)s * KERN_PANEL,
                   b->w + (size_t)s * b->panel, acc[s][n]);
}

/* In even tiles: 9 tokens are 5 + 4, not 8 + 1. */
IN void tiles(const struct block *b, const int np)
{
    const uint32_t count = (b->n + TOKENS - 1) / TOKENS, end = b->t0 + b->n;
    for (uint32_t c = 0, t = b->t0; c < count; c++) {
        const uint32_t nt = (end - t + count - c - 1) / (count - c),
                       line[2] = {b->lines * c / count, b->lines * (c + 1) / count};
        switch (nt) {
        case 1:
            tile(b, np, 1, t, line);
            break;
        case 2:
            tile(b, np, 2, t, line);
            break;
        case 3:
            tile(b, np, 3, t, line);
            break;
        case 4:
            tile(b, np, 4, t, line);
            break;
        case 5:
            tile(b, np, 5, t, line);
            break;
        case 6:
            tile(b, np, 6, t, line);
            break;
        case 7:
            tile(b, np, 7, t, line);
            break;
        default:
            tile(b, np, 8, t, line);
            break;
        }
        t += nt;
    }
}

#define TILES(np)                                                                                  \
    static __attribute__((noinline)) void tiles_##np(const struct block *b)                        \
    {                                                                                              \
        tiles(b, np);                                                                              \
    }
TILES(1)
TILES(2)
TILES(3)

/* n tokens from t0 over np panels from row r; then come the rows at `then`. */
static void panels(struct block *b, uint32_t np, const uint8_t *then)
{
    const uint32_t k = b->a->k;
    b->w = (const uint8_t *)b->a->w + b->row / KERN_PANEL * b->panel;
    for (b->k0 = 0; b->k0 < k; b->k0 = b->k1) {
        const bool last = k - b->k0 <= COLUMNS;
        b->k1 = last ? k : b->k0 + COLUMNS;
        const uint32_t left = last ? k : k - b->k1;
        b->next = last ? then : b->w + 64 + (size_t)b->k1 * KERN_PANEL;
        b->lines = (left < COLUMNS ? left : COLUMNS) / 4 + last; /* with the line of scales */
        if (np == 1)
            tiles_1(b);
        else if (np == 2)
            tiles_2(b);
        else
            tiles_3(b);
    }
}

/* Weights stay in L1 for a block of tokens, the block's activations in L2 for all rows. */
static void gemm(const struct kern_mm *a)
{
    __m512i sum[BLOCK * PANELS];
    struct block b = {.a = a, .panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k), .sum = sum};
    const uint32_t count = (a->n + BLOCK - 1) / BLOCK;
    const uint8_t *first = (const uint8_t *)a->w + a->row0 / KERN_PANEL * b.panel;
    for (uint32_t c = 0; c < count; c++, b.t0 += b.n) {
        b.n = (a->n - b.t0 + count - c - 1) / (count - c);
        for (uint32_t np, r = a->row0; r < a->row1; r += np * KERN_PANEL) {
            const uint32_t left = (a->row1 - r + KERN_PANEL - 1) / KERN_PANEL;
            np = left == 4 ? 2 : left < PANELS ? left : PANELS;
            b.row = r;
            panels(&b, np,
                   np < left         ? first + ((r - a->row0) / KERN_PANEL + np) * b.panel
                   : c + 1 < count   ? first
                   : a->next != NULL ? a->next
                                     : first + ((r - a->row0) / KERN_PANEL + np) * b.panel);
        }
    }
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_int8_q8row_" VARIANT, KERN_GEMV, DT_INT8, KERN_P16, NEEDS, 4, RANK, fits_row, {.mm = gemv}},
    {"gemm_int8_q8row_" VARIANT, KERN_GEMM, DT_INT8, KERN_P16, NEEDS, TOKENS, RANK, fits_row, {.mm = gemm}},
};
/* clang-format on */

const struct kern *ACCESSOR(i8)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
