/* mm_gemm_amx.c - block-format products for many tokens with AMX-INT8 tiles.
 *
 * A group of 32 columns is one tile product: 16 tokens x 32 codes times 8 quads x 16 rows gives the
 * group's exact integer dots of 16 tokens and 16 rows. A P16 panel in vpdpbusd order is the second
 * operand as it lies. For a segment of 512 columns a panel is decoded once to signed codes, 16
 * tokens' codes are laid side by side, and the tiles leave 16 groups of dots in L1; then each token
 * goes over its 16 dots in ascending order with AVX512, as the definition says: convert, scale
 * product, fma. So bits equal ref/. 16-column scales are two products of half the depth.
 * Pure; any thread: each call configures the tiles and releases them.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__AVX512VNNI__) || !defined(__F16C__)
#error "compile with the AVX512-VNNI flags of configure"
#endif
/* gcc's names of the macros, and clang's */
#if !defined(KT_AMX_EMULATE) && (!defined(__AMX_TILE__) || !defined(__AMX_INT8__)) &&              \
    (!defined(__AMXTILE__) || !defined(__AMXINT8__))
#error "compile with the AMX flags of configure, or with KT_AMX_EMULATE"
#endif
#include "../avx512/mm512.h"
#include "tables.h"
#include "tile.h"

#define TOKENS TILE_ROWS
#define PANELS 4  /* decoded together: a gathered token serves 64 rows */
#define AT_ONCE 8 /* tokens whose sums are in registers */

enum kind { SCALE, MIN, HALVES, HALF_MINS };

/* A decoded segment of one panel: signed codes [group][quad][row][4]; u, v: minimums, or the two
 * sub-scales; m: minimum, mu, mv: its two parts. */
struct seg {
    int8_t q[SEG_GROUPS][8][64];
    float d[SEG_GROUPS][16], u[SEG_GROUPS][16], v[SEG_GROUPS][16];
    float m[SEG_GROUPS][16], mu[SEG_GROUPS][16], mv[SEG_GROUPS][16];
} __attribute__((aligned(64)));

/* A segment of up to 16 tokens: codes side by side, rows beyond the last token zero. */
struct act {
    int8_t q[TOKENS][KERN_SEGMENT];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
} __attribute__((aligned(64)));

/* Dots of a segment; HALVES: first of columns 0..15, then of 16..31. */
struct dots {
    int32_t at[2][SEG_GROUPS][TOKENS][16];
} __attribute__((aligned(64)));

IN void decode_seg(int t, const uint8_t *w, uint32_t g0, uint32_t len, struct seg *o)
{
    const struct p16 l = p16_of(t);
    const __m512i zero = _mm512_set1_epi8((char)zero_of(t));
    for (uint32_t i = 0; i < len; i++) {
        const uint8_t *p = w + p16_group_at(l, g0 + i), *head = w + p16_head_at(l, g0 + i);
        __m512i q[8];
        decode512(t, p, q);
        UNROLL
        for (int j = 0; j < 8; j++)
            _mm512_store_si512(o->q[i][j], _mm512_sub_epi8(q[j], zero));
        _mm512_store_ps(o->d[i], scale512(t, p, head));
        if (has_min(t))
            _mm512_store_ps(o->u[i], min512(t, p, head));
        if (has_halves(t)) {
            _mm512_store_ps(o->u[i], sub512(t, p, 0));
            _mm512_store_ps(o->v[i], sub512(t, p, 1));
        }
        if (has_half_mins(t)) {
            _mm512_store_ps(o->m[i], min512(t, p, head));
            _mm512_store_ps(o->mu[i], low512(p, 0));
            _mm512_store_ps(o->mv[i], low512(p, 1));
        }
    }
}

IN void gather(const struct kern_mm *a, enum kind kind, uint32_t t0, uint32_t nt, uint32_t g0,
               uint32_t len, struct act *o)
{
    for (uint32_t n = 0; n < nt; n++) {
        size_t at = token(a, t0 + n);
        const int8_t *q = a->q + at * a->ldq + (size_t)g0 * KERN_GROUP;
        __builtin_memcpy(o->q[n], q, (size_t)len * KERN_GROUP);
        o->scale[n] = a->scale + at * a->ldg + g0;
        if (kind == MIN)
            prep512(0, 1, 0, &o->prep[n], q, a->sum + at * a->ldg + g0, len);
        if (kind == HALF_MINS)
            prep_half_mins(&o->prep[n], q, len);
    }
    for (uint32_t n = nt; n < TOKENS; n++) { /* computed and thrown away */
        __builtin_memset(o->q[n], 0, sizeof o->q[n]);
        o->scale[n] = o->scale[0];
        o->prep[n] = o->prep[0];
    }
}

/* Tiles 0 and 1: results; 2, 3: tokens; 4, 5: weights. */
IN void configure(enum kind kind)
{
    const int half = kind == HALVES || kind == HALF_MINS;
    struct tile_config c = {.palette = 1};
    for (int i = 0; i < 6; i++) {
        c.rows[i] = i < 4 ? TOKENS : half ? 4 : 8;
        c.row_bytes[i] = i == 2 || i == 3 ? (half ? 16 : 32) : 64;
    }
    tile_configure(&c);
}

/* One product; `even` picks the tiles, so that neighbours do not wait for each other. */
IN void product(int even, const int8_t *act, const int8_t *w, int32_t (*to)[16])
{
    if (even) {
        tile_zero(0);
        tile_load(2, act, KERN_SEGMENT);
        tile_load(4, w, 64);
        tile_dot_s8(0, 2, 4);
        tile_store(0, to, 64);
    } else {
        tile_zero(1);
        tile_load(3, act, KERN_SEGMENT);
        tile_load(5, w, 64);
        tile_dot_s8(1, 3, 5);
        tile_store(1, to, 64);
    }
}

IN void products(enum kind kind, const struct act *x, const struct seg *w, uint32_t len,
                 struct dots *o)
{
    const int half = kind == HALVES || kind == HALF_MINS;
    tile_sync();
    for (uint32_t i = 0; i < len; i++)
        if (half) {
            product(1, x->q[0] + i * KERN_GROUP, w->q[i][0], o->at[0][i]);
            product(0, x->q[0] + i * KERN_GROUP + 16, w->q[i][4], o->at[1][i]);
        } else if (i % 2 == 0) {
            product(1, x->q[0] + i * KERN_GROUP, w->q[i][0], o->at[0][i]);
        } else {
            product(0, x->q[0] + i * KERN_GROUP, w->q[i][0], o->at[0][i]);
        }
}

/* AT_ONCE tokens from n0 over the segment's groups in ascending order. */
IN void scale_sums(enum kind kind, const struct act *x, const struct seg *w, const struct dots *o,
                   uint32_t len, uint32_t n0, __m512 f[AT_ONCE])
{
    UNROLL
    for (int n = 0; n < AT_ONCE; n++)
        f[n] = _mm512_setzero_ps();
    for (uint32_t i = 0; i < len; i++) {
        const __m512 d = _mm512_load_ps(w->d[i]);
        UNROLL
        for (int n = 0; n < AT_ONCE; n++) {
            const uint32_t t = n0 + (uint32_t)n;
            __m512 as = _mm512_set1_ps(x->scale[t][i]),
                   dot = _mm512_cvtepi32_ps(_mm512_load_si512(o->at[0][i][t]));
            if (kind == HALVES || kind == HALF_MINS)
                dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(o->at[1][i][t])),
                                      _mm512_load_ps(w->v[i]),
                                      _mm512_mul_ps(dot, _mm512_load_ps(w->u[i])));
            f[n] = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, as), f[n]);
            if (kind == MIN)
                f[n] = _mm512_fmadd_ps(_mm512_set1_ps(x->prep[t].sum[i]),
                                       _mm512_mul_ps(_mm512_load_ps(w->u[i]), as), f[n]);
            if (kind == HALF_MINS)
                f[n] = _mm512_fmadd_ps(
                    half_mins(&x->prep[t], i, _mm512_load_ps(w->mu[i]), _mm512_load_ps(w->mv[i])),
                    _mm512_mul_ps(_mm512_load_ps(w->m[i]), as), f[n]);
        }
    }
}

/* Tokens t0.. of a decoded segment of the panel at row r. */
IN void tile(const struct kern_mm *a, enum kind kind, const struct seg *w, struct act *x,
             uint32_t r, uint32_t g0, uint32_t len, uint32_t t0)
{
    struct dots o;
    const uint32_t nt = a->n - t0 < TOKENS ? a->n - t0 : TOKENS;
    products(kind, x, w, len, &o);
    for (uint32_t n0 = 0; n0 < nt; n0 += AT_ONCE) {
        __m512 f[AT_ONCE];
        scale_sums(kind, x, w, &o, len, n0, f);
        for (uint32_t n = n0; n < nt && n < n0 + AT_ONCE; n++)
            put512(a->y + (size_t)(t0 + n) * a->ldy + r, lanes_of(a, r), f[n - n0], g0 == 0);
    }
}

struct job {
    const struct kern_mm *a;
    const struct seg *w; /* [np] */
    uint32_t row, np, g0, len;
};

/* All tokens over np decoded panels. */
IN void all_tokens(const struct job *b, enum kind kind)
{
    const struct kern_mm *a = b->a;
    struct act x;
    if (kind == SCALE || kind == HALVES)
        __builtin_memset(&x.prep[0], 0, sizeof x.prep[0]); /* copied, never used */
    for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS) {
        const uint32_t nt = a->n - t0 < TOKENS ? a->n - t0 : TOKENS;
        gather(a, kind, t0, nt, b->g0, b->len, &x);
        for (uint32_t s = 0; s < b->np; s++)
            tile(a, kind, &b->w[s], &x, b->row + s * KERN_PANEL, b->g0, b->len, t0);
    }
}

#define KIND(name, kind)                                                                           \
    static __attribute__((noinline)) void tokens_##name(const struct job *b)                       \
    {                                                                                              \
        all_tokens(b, kind);                                                                       \
    }
KIND(scale, SCALE)
KIND(min, MIN)
KIND(halves, HALVES)
KIND(half_mins, HALF_MINS)

typedef void (*tokens_fn)(const struct job *b);
static const tokens_fn inner[] = {tokens_scale, tokens_min, tokens_halves, tokens_half_mins};

IN enum kind kind_of(int t)
{
    return has_half_mins(t) ? HALF_MINS : has_halves(t) ? HALVES : has_min(t) ? MIN : SCALE;
}

IN void gemm(const struct kern_mm *a, int t)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    struct seg w[PANELS];
    configure(kind_of(t));
    for (uint32_t r = a->row0; r < a->row1; r += PANELS * KERN_PANEL) {
        const uint32_t left = (a->row1 - r + KERN_PANEL - 1) / KERN_PANEL,
                       np = left < PANELS ? left : PANELS;
        const uint8_t *p = (const uint8_t *)a->w + r / KERN_PANEL * panel;
        for (uint32_t g0 = 0; g0 < groups; g0 += SEG_GROUPS) {
            struct job b = {a, w, r, np, g0, groups - g0 < SEG_GROUPS ? groups - g0 : SEG_GROUPS};
            for (uint32_t s = 0; s < np; s++)
                decode_seg(t, p + s * panel, g0, b.len, &w[s]);
            inner[kind_of(t)](&b);
        }
    }
    tile_release();
}

#define RUN(name, T, fits)                                                                         \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemm(a, T);                                                                                \
    }
BLOCK_TYPES(RUN)

#ifdef KT_AMX_EMULATE
#define AMX_NEEDS (KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI)
#define NAME(name) "gemm_" #name "_q8_amx_emulated"
#define AMX_ACCESSOR kern_amx_gemm_emulated
#else
#define AMX_NEEDS (KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512VNNI | KERN_ISA_AMX)
#define NAME(name) "gemm_" #name "_q8_amx"
#define AMX_ACCESSOR kern_amx_gemm
#endif

#define ROW(name, T, fits)                                                                         \
    {NAME(name), KERN_GEMM, T, KERN_P16, AMX_NEEDS, TOKENS, 30, fits, {.mm = gemm_##name}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *AMX_ACCESSOR(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
