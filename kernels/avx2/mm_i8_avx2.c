/* mm_i8_avx2.c - INT8 matrices with one scale per row, AVX2 and, with KERN_VNNI256, AVX-VNNI: GEMV
 * and GEMM.
 *
 * y = fl32((float)dot * fl32(scale * a_scale)), dot the exact integer over the whole row. vpdpbusd
 * takes the panel's codes + 128 as they are; the accumulator starts at -128 times the sum of the
 * activation codes, modulo 2^32, and ends exact. Without it few tokens multiply |w| by the
 * activation with w's sign (vpmaddubsw: 2 * 128 * 127 fits 16 bits) and many multiply words, as
 * the block formats do (gemm256.h). GEMV runs panel after panel, or (-x4) over four address
 * streams. GEMM: two halves of a panel times up to TOKENS tokens in registers, over blocks of
 * columns, so that a panel's operands stay in L1 for all tokens; sums wait in between. Bits equal
 * ref/. No symbol but the accessor. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define GEMV_PANELS 4
#define GEMV_TOKENS 4
#define AHEAD 1024 /* bytes of prefetch in each stream */

#define TOKENS (VNNI ? 6 : 4)
#define MOST_TOKENS 6
#define COLUMNS 512
#define BLOCK 64 /* tokens */
#define STRIP 16 /* panels for which activations are prepared once */

IN __m256i start(const struct kern_mm *a, size_t at)
{
    return VNNI ? _mm256_set1_epi32((int32_t)(0u - 128u * (uint32_t)a->sum[at * a->ldg]))
                : _mm256_setzero_si256();
}

/* Results of token i in both halves of the panel at w, row r. */
IN void finish(const struct kern_mm *a, uint32_t i, uint32_t r, const uint8_t *w,
               const __m256i acc[2])
{
    const __m256 as = _mm256_set1_ps(a->scale[token(a, i) * a->ldg]);
    const float *d = (const float *)w;
    __m256 f[2];
    UNROLL
    for (int h = 0; h < 2; h++)
        f[h] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h]),
                             _mm256_mul_ps(_mm256_loadu_ps(d + 8 * h), as));
    put256(a->y + i * a->ldy + r, a->row1 - r, f[0], f[1], 1);
}

/* ---- few tokens ---- */

/* np panels from row r, nt tokens from t0; np and nt are constants. */
IN void stream(const struct kern_mm *a, const int np, const int nt, uint32_t r, uint32_t t0)
{
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
    const __m256i one = _mm256_set1_epi16(1), flip = _mm256_set1_epi8(-128);
    const int8_t *q[GEMV_TOKENS];
    __m256i acc[GEMV_PANELS][GEMV_TOKENS][2];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const size_t at = token(a, t0 + (uint32_t)n);
        q[n] = a->q + at * a->ldq;
        UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n][0] = acc[s][n][1] = start(a, at);
    }
    for (uint32_t k = 0; k < a->k; k += 4)
        UNROLL
    for (int s = 0; s < np; s++) {
        const uint8_t *p = w + (size_t)s * panel + 64 + (size_t)k * KERN_PANEL;
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256i c = load32(p + 32 * h), v = _mm256_xor_si256(c, flip);
            UNROLL
            for (int n = 0; n < nt; n++)
                acc[s][n][h] = VNNI ? dot4(acc[s][n][h], c, bcast4(q[n] + k))
                                    : add32(acc[s][n][h],
                                            _mm256_madd_epi16(pairs(1, v, bcast4(q[n] + k)), one));
        }
    }
    UNROLL
    for (int s = 0; s < np; s++)
        UNROLL
    for (int n = 0; n < nt; n++)
        finish(a, t0 + (uint32_t)n, r + (uint32_t)s * KERN_PANEL, w + (size_t)s * panel, acc[s][n]);
}

static void stream_panel(const struct kern_mm *a, uint32_t r)
{
    for (uint32_t t0 = 0; t0 < a->n; t0 += GEMV_TOKENS)
        switch (a->n - t0) {
        case 1:
            stream(a, 1, 1, r, t0);
            break;
        case 2:
            stream(a, 1, 2, r, t0);
            break;
        case 3:
            stream(a, 1, 3, r, t0);
            break;
        default:
            stream(a, 1, 4, r, t0);
            break;
        }
}

static void gemv_from(const struct kern_mm *a, uint32_t r)
{
    for (; r < a->row1; r += KERN_PANEL)
        stream_panel(a, r);
}

static void gemv(const struct kern_mm *a)
{
    gemv_from(a, a->row0);
}

static void gemv_x4(const struct kern_mm *a)
{
    uint32_t r = a->row0;
    if (a->n == 1)
        for (; r + (GEMV_PANELS - 1) * KERN_PANEL < a->row1; r += GEMV_PANELS * KERN_PANEL)
            stream(a, GEMV_PANELS, 1, r, 0);
    gemv_from(a, r);
}

/* ---- many tokens ---- */

/* A block of tokens over a block of columns. An operand is 64 bytes of weights and 4 of a token:
 * four columns as bytes, or two as words. */
struct block {
    const struct kern_mm *a;
    const uint8_t *w, *panel, *next; /* operands; the panel; what comes next, to ask for */
    const int8_t *q[BLOCK];
    int32_t (*sum)[KERN_PANEL];                /* of the panel, [n] */
    uint32_t row, t0, n, k0, k1, steps, lines; /* lines: of next, not yet asked for */
#if !VNNI
    int16_t words[BLOCK][COLUMNS + 16] __attribute__((aligned(64))); /* skewed: see gemm256.h */
    uint8_t wide[COLUMNS / 2][64] __attribute__((aligned(64)));
#endif
} __attribute__((aligned(64)));

/* nt tokens from i0 of the block; nt is a constant. */
IN void tile(struct block *b, const int nt, uint32_t i0)
{
    const struct kern_mm *a = b->a;
    const bool last = b->k1 == a->k;
    const int8_t *q[MOST_TOKENS];
    __m256i acc[MOST_TOKENS][2];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const int32_t *sum = b->sum[i0 + (uint32_t)n];
        q[n] = b->q[i0 + (uint32_t)n];
        if (b->k0 > 0)
            acc[n][0] = load32(sum), acc[n][1] = load32(sum + 8);
        else
            acc[n][0] = acc[n][1] = start(a, token(a, b->t0 + i0 + (uint32_t)n));
    }
    for (uint32_t j = 0; j < b->steps; j++) {
        const uint8_t *w = b->w + (size_t)j * 64;
        const __m256i w0 = held(load32(w)), w1 = held(load32(w + 32));
        if (j % 16 == 0 && b->lines > 0) {
            _mm_prefetch((const char *)b->next, _MM_HINT_T1);
            b->next += 64;
            b->lines--;
        }
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256i v = bcast4(q[n] + 4 * (size_t)j);
            acc[n][0] = VNNI ? dot4(acc[n][0], w0, v) : add32(acc[n][0], _mm256_madd_epi16(w0, v));
            acc[n][1] = VNNI ? dot4(acc[n][1], w1, v) : add32(acc[n][1], _mm256_madd_epi16(w1, v));
        }
    }
    UNROLL
    for (int n = 0; n < nt; n++) {
        int32_t *sum = b->sum[i0 + (uint32_t)n];
        if (last) {
            finish(a, b->t0 + i0 + (uint32_t)n, b->row, b->panel, acc[n]);
        } else {
            store32(sum, acc[n][0]);
            store32(sum + 8, acc[n][1]);
        }
    }
}

/* All tokens of the block, in even tiles. */
static __attribute__((noinline)) void tiles(struct block *b)
{
    const uint32_t count = (b->n + TOKENS - 1) / TOKENS;
    for (uint32_t c = 0, i = 0; c < count; c++) {
        const uint32_t nt = (b->n - i + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(b, 1, i);
            break;
        case 2:
            tile(b, 2, i);
            break;
        case 3:
            tile(b, 3, i);
            break;
        case 4:
            tile(b, 4, i);
            break;
        case 5:
            tile(b, 5, i);
            break;
        default:
            tile(b, 6, i);
            break;
        }
        i += nt;
    }
}

/* The block's tokens in columns [k0, k1). */
static void prepare(struct block *b)
{
    const struct kern_mm *a = b->a;
    for (uint32_t n = 0; n < b->n; n++) {
        b->q[n] = a->q + token(a, b->t0 + n) * a->ldq + b->k0;
#if !VNNI
        widen(b->q[n], (b->k1 - b->k0) / KERN_GROUP, b->words[n]);
        b->q[n] = (const int8_t *)b->words[n];
#endif
    }
    b->steps = (b->k1 - b->k0) / (VNNI ? 4 : 2);
}

/* The panel's operands of the columns. */
static void operands(struct block *b)
{
    b->w = b->panel + 64 + (size_t)b->k0 * KERN_PANEL;
#if !VNNI
    for (uint32_t j = 0; j < b->steps; j += 2, b->w += 64)
        UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i v = _mm256_xor_si256(load32(b->w + 32 * h), _mm256_set1_epi8(-128));
        store32(b->wide[j] + 32 * h, even_bytes(v));
        store32(b->wide[j + 1] + 32 * h, odd_bytes(v));
    }
    b->w = b->wide[0];
#endif
}

/* The block's tokens over rows [row, end), at most STRIP panels; after: what will be read then. */
static void strip(struct block *b, uint32_t row, uint32_t end, const uint8_t *after)
{
    const struct kern_mm *a = b->a;
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint8_t *first = (const uint8_t *)a->w + row / KERN_PANEL * panel;
    int32_t sum[STRIP][BLOCK][KERN_PANEL] __attribute__((aligned(64)));
    for (b->k0 = 0; b->k0 < a->k; b->k0 = b->k1) {
        b->k1 = a->k - b->k0 <= COLUMNS ? a->k : b->k0 + COLUMNS;
        prepare(b);
        b->panel = first;
        for (uint32_t r = row, s = 0; r < end; r += KERN_PANEL, s++, b->panel += panel) {
            b->row = r;
            b->sum = sum[s];
            operands(b);
            b->lines = (b->k1 - b->k0) / 4;
            b->next = r + KERN_PANEL < end ? b->panel + panel + 64 + (size_t)b->k0 * KERN_PANEL
                      : b->k1 < a->k       ? first + 64 + (size_t)b->k1 * KERN_PANEL
                                           : after;
            tiles(b);
        }
    }
}

static void gemm(const struct kern_mm *a)
{
    const uint8_t *w = a->w;
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    const uint32_t count = (a->n + BLOCK - 1) / BLOCK;
    struct block b;
    b.a = a;
    b.t0 = 0;
    for (uint32_t c = 0; c < count; c++, b.t0 += b.n) {
        b.n = (a->n - b.t0 + count - c - 1) / (count - c);
        for (uint32_t r = a->row0; r < a->row1; r += STRIP * KERN_PANEL) {
            const uint32_t end =
                a->row1 - r < STRIP * KERN_PANEL ? a->row1 : r + STRIP * KERN_PANEL;
            strip(&b, r, end,
                  end < a->row1 || a->next == NULL ? w + (end + KERN_PANEL - 1) / KERN_PANEL * panel
                                                   : (const uint8_t *)a->next);
        }
    }
}

/* clang-format off */
static const struct kern table[] = {
    {"gemv_int8_q8row_" VARIANT, KERN_GEMV, DT_INT8, KERN_P16, NEEDS, GEMV_TOKENS, RANK, fits_row, {.mm = gemv}},
    {"gemv_int8_q8row_" VARIANT "-x4", KERN_GEMV, DT_INT8, KERN_P16, NEEDS, GEMV_TOKENS, RANK - 1, fits_row, {.mm = gemv_x4}},
    {"gemm_int8_q8row_" VARIANT, KERN_GEMM, DT_INT8, KERN_P16, NEEDS, TOKENS, RANK, fits_row, {.mm = gemm}},
};
/* clang-format on */

const struct kern *ACCESSOR(i8)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
