/* mm_i8_amx.c - INT8 matrices with one scale per row for many tokens, with AMX-INT8 tiles.
 *
 * y = fl32((float)dot * fl32(scale * a_scale)), dot the exact integer over the whole row. A panel
 * holds codes + 128 in quads of columns, 16 rows each: as it lies it is the unsigned operand of a
 * tile product. Two tiles of 16 tokens times two panels give four sums for four loads. 32 tokens'
 * codes are laid side by side, a stretch of columns at a time, for eight panels, whose sums wait in
 * scratch between stretches; 128 times the sum of the codes is subtracted at the end. All of it is
 * modulo 2^32, and k is limited so that the dot fits: bits equal ref/. Pure; any thread: each call
 * configures the tiles and releases them.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__AVX512VNNI__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
/* gcc's names of the macros, and clang's */
#if !defined(KT_AMX_EMULATE) && (!defined(__AMX_TILE__) || !defined(__AMX_INT8__)) &&              \
    (!defined(__AMXTILE__) || !defined(__AMXINT8__))
#error "compile with the AMX flags of configure, or with KT_AMX_EMULATE"
#endif
#include "../avx512/mm512.h"
#include "tables.h"
#include "tile.h"

#define TOKENS (2 * TILE_ROWS)
#define PANELS 8
#define STRETCH 1024 /* columns gathered at once */
#define DEPTH 64     /* columns of a product */

struct scratch {
    int8_t q[TOKENS][STRETCH]; /* zeros beyond the last token and the last column */
    int32_t sum[PANELS][TOKENS][KERN_PANEL];
    uint8_t tail[2][DEPTH][KERN_PANEL]; /* a panel's last 32 columns, zeros behind */
} __attribute__((aligned(64)));

/* Up to 32 tokens and 8 panels. */
struct job {
    const struct kern_mm *a;
    struct scratch *m;
    uint32_t t0, nt, row, np;
};

static void gather(const struct job *b, uint32_t k0, uint32_t len)
{
    const uint32_t padded = (len + DEPTH - 1) / DEPTH * DEPTH;
    for (uint32_t n = 0; n < TOKENS; n++) {
        int8_t *to = b->m->q[n];
        if (n < b->nt)
            __builtin_memcpy(to, b->a->q + token(b->a, b->t0 + n) * b->a->ldq + k0, len);
        __builtin_memset(to + (n < b->nt ? len : 0), 0, n < b->nt ? padded - len : padded);
    }
}

/* Where columns k0 + k of a panel begin; the last half operand is copied, so that no read passes
 * the panel's end. */
IN const uint8_t *operand(const struct job *b, const uint8_t *codes, int s, uint32_t k,
                          uint32_t left)
{
    if (left >= DEPTH)
        return codes + (size_t)k * KERN_PANEL;
    __builtin_memset(b->m->tail[s], 0, sizeof b->m->tail[s]);
    __builtin_memcpy(b->m->tail[s], codes + (size_t)k * KERN_PANEL, (size_t)left * KERN_PANEL);
    return b->m->tail[s][0];
}

/* Tiles 0 to 3: sums of panel s and tokens 16h.. in 2s + h; 4, 5: tokens; 6, 7: weights. */
IN void products(const struct job *b, const int np, uint32_t s0, const uint8_t *const *codes,
                 uint32_t len, int first)
{
    int32_t(*sum)[TOKENS][KERN_PANEL] = &b->m->sum[s0];
    if (first) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_sync();
        tile_load(0, sum[0][0], 64);
        tile_load(1, sum[0][TILE_ROWS], 64);
        if (np == 2) {
            tile_load(2, sum[1][0], 64);
            tile_load(3, sum[1][TILE_ROWS], 64);
        }
    }
    for (uint32_t k = 0; k < len; k += DEPTH) {
        const uint8_t *w0 = operand(b, codes[0], 0, k, len - k),
                      *w1 = np == 2 ? operand(b, codes[1], 1, k, len - k) : w0;
        tile_sync();
        tile_load(4, b->m->q[0] + k, STRETCH);
        tile_load(5, b->m->q[TILE_ROWS] + k, STRETCH);
        tile_load(6, w0, 64);
        tile_dot_s8u8(0, 4, 6);
        tile_dot_s8u8(1, 5, 6);
        if (np == 2) {
            tile_load(7, w1, 64);
            tile_dot_s8u8(2, 4, 7);
            tile_dot_s8u8(3, 5, 7);
        }
    }
    tile_store(0, sum[0][0], 64);
    tile_store(1, sum[0][TILE_ROWS], 64);
    if (np == 2) {
        tile_store(2, sum[1][0], 64);
        tile_store(3, sum[1][TILE_ROWS], 64);
    }
    tile_sync();
}

static void scale_sums(const struct job *b, const uint8_t *w, size_t panel)
{
    const struct kern_mm *a = b->a;
    for (uint32_t s = 0; s < b->np; s++) {
        const uint32_t row = b->row + s * KERN_PANEL;
        const __m512 d = _mm512_loadu_ps(w + s * panel);
        for (uint32_t n = 0; n < b->nt; n++) {
            const size_t at = token(a, b->t0 + n) * a->ldg;
            const __m512i zero = _mm512_set1_epi32((int32_t)(128u * (uint32_t)a->sum[at])),
                          dot = _mm512_sub_epi32(_mm512_load_si512(b->m->sum[s][n]), zero);
            put512(a->y + (b->t0 + n) * a->ldy + row, lanes_of(a, row),
                   _mm512_mul_ps(_mm512_cvtepi32_ps(dot),
                                 _mm512_mul_ps(d, _mm512_set1_ps(a->scale[at]))),
                   1);
        }
    }
}

static void gemm(const struct kern_mm *a)
{
    struct scratch m;
    struct tile_config c = {.palette = 1};
    const size_t panel = kern_panel_bytes(KERN_P16, DT_INT8, a->k);
    for (int i = 0; i < 8; i++) {
        c.rows[i] = 16;
        c.row_bytes[i] = 64;
    }
    tile_configure(&c);
    for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS)
        for (uint32_t r = a->row0; r < a->row1; r += PANELS * KERN_PANEL) {
            const uint32_t left = (a->row1 - r + KERN_PANEL - 1) / KERN_PANEL;
            struct job b = {a,  &m,
                            t0, a->n - t0 < TOKENS ? a->n - t0 : TOKENS,
                            r,  left < PANELS ? left : PANELS};
            const uint8_t *w = (const uint8_t *)a->w + r / KERN_PANEL * panel;
            for (uint32_t k0 = 0; k0 < a->k; k0 += STRETCH) {
                const uint32_t len = a->k - k0 < STRETCH ? a->k - k0 : STRETCH;
                gather(&b, k0, len);
                for (uint32_t s = 0; s < b.np; s += 2) {
                    const uint8_t *p = w + s * panel + 64 + (size_t)k0 * KERN_PANEL,
                                  *codes[2] = {p, p + panel};
                    if (b.np - s > 1)
                        products(&b, 2, s, codes, len, k0 == 0);
                    else
                        products(&b, 1, s, codes, len, k0 == 0);
                }
            }
            scale_sums(&b, w, panel);
        }
    tile_release();
}

#ifdef KT_AMX_EMULATE
#define TILES_NEED (KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI)
#define NAME "gemm_int8_q8row_amx_emulated"
#define TILES_TABLE kern_amx_i8_emulated
#else
#define TILES_NEED (KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI | KERN_ISA_AMX)
#define NAME "gemm_int8_q8row_amx"
#define TILES_TABLE kern_amx_i8
#endif
static const struct kern table[] = {
    {NAME, KERN_GEMM, DT_INT8, KERN_P16, TILES_NEED, TOKENS, 30, fits_row, {.mm = gemm}},
};

const struct kern *TILES_TABLE(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
