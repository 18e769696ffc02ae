/* mm_gemm_avx512.c - block-format products for many tokens, AVX512 with VNNI and without.
 *
 * For two panels at a time and each segment of 512 columns the weights are decoded once into VNNI
 * operands in L1 (9-13 KiB a panel), then all tokens pass over them in tiles of 6, with the 12
 * results in registers: 12 vpdpbusd per 8 loads. Row sums meet in y, segment after segment in
 * ascending order. The inner loop knows a few kinds (plain scale, with minimum, with halves, with
 * halves and their minimums), not the formats. Bits equal ref/. Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "mm512.h"
#include "tables.h"

#define PANELS 2
#define TOKENS 6
#define TOKENS_HALVES 4 /* one more register per result there */

enum kind { SCALE, AHEAD /* SCALE, the next segment on its way */, MIN, HALVES, HALF_MINS };

/* A decoded segment of one panel. u, v: minimums, or the two sub-scales; m: minimum, mu, mv: its
 * two parts. */
struct seg {
    uint8_t q[SEG_GROUPS][8][64];
    float d[SEG_GROUPS][16], u[SEG_GROUPS][16], v[SEG_GROUPS][16];
    float m[SEG_GROUPS][16], mu[SEG_GROUPS][16], mv[SEG_GROUPS][16];
} __attribute__((aligned(64)));

IN int kind_of(int t)
{
    return has_half_mins(t)                   ? HALF_MINS
           : has_halves(t)                    ? HALVES
           : has_min(t)                       ? MIN
           : p16_group_bytes(p16_of(t)) > 320 ? AHEAD
                                              : SCALE;
}

/* next: what will be decoded after the tokens have passed; asked for here, except for
 * wide formats (AHEAD): see tile(). */
IN void decode_seg(int t, const uint8_t *w, uint32_t g0, uint32_t len, const uint8_t *next,
                   struct seg *o)
{
    const struct p16 l = p16_of(t);
    for (uint32_t i = 0; i < len; i++) {
        const uint8_t *p = w + p16_group_at(l, g0 + i), *head = w + p16_head_at(l, g0 + i);
        __m512i q[8];
        decode512(t, p, q);
        UNROLL
        for (int j = 0; j < 8; j++)
            _mm512_store_si512(o->q[i][j], q[j]);
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
        if (kind_of(t) == AHEAD)
            continue;
        UNROLL
        for (uint32_t b = 0; b < p16_group_bytes(l); b += 64)
            _mm_prefetch((const char *)next + i * p16_group_bytes(l) + b, _MM_HINT_T1);
    }
}

/* What the inner loop needs of a call's segment. */
struct job {
    const struct kern_mm *a;
    const struct seg *w; /* [np] */
    uint32_t row, g0, len;
    int zero;
    const uint8_t *next[PANELS]; /* what will be decoded after this segment */
    uint32_t next_lines;         /* cache lines of it, per panel */
};

/* nt tokens from t0 over np decoded panels; kind, lump, np and nt are constants. Meanwhile lines
 * [line0, line1) of the next segment are asked for, a few beside each group: all at once they would
 * fill the miss buffers and stop the pipeline (Q8_0, 32 tokens, Zen 4: 61 % of the group-scaled
 * peak in a burst, 77 % spread). */
IN void tile(const struct job *b, const int kind, const int lump, const int np, const int nt,
             uint32_t t0, uint32_t line0, uint32_t line1)
{
    const uint32_t lines = (line1 - line0 + b->len - 1) / b->len;
    const struct kern_mm *a = b->a;
    const int8_t *q[TOKENS];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
    __m512 f[PANELS][TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++) {
        size_t at = token(a, t0 + (uint32_t)n);
        q[n] = a->q + at * a->ldq + (size_t)b->g0 * KERN_GROUP;
        scale[n] = a->scale + at * a->ldg + b->g0;
        if (kind == HALF_MINS)
            prep_half_mins(&prep[n], q[n], b->len);
        else if (kind == HALVES)
            prep_halves(&prep[n], q[n], b->len, b->zero);
        else
            prep512(1, kind == MIN, 0, &prep[n], q[n], a->sum + at * a->ldg + b->g0, b->len);
        if (kind <= AHEAD)
            _mm512_storeu_si512(prep[n].a, _mm512_mullo_epi32(_mm512_loadu_si512(prep[n].a),
                                                              _mm512_set1_epi32(b->zero)));
        UNROLL
        for (int s = 0; s < np; s++)
            f[s][n] = _mm512_setzero_ps();
    }
    for (uint32_t i = 0; i < b->len; i++) {
        __m512i acc[PANELS][TOKENS], sum[PANELS][TOKENS];
        __m512 part[PANELS][TOKENS];
        for (uint32_t l = 0; kind == AHEAD && l < lines && line0 < line1; l++, line0++)
            UNROLL
        for (int s = 0; s < np; s++)
            _mm_prefetch((const char *)b->next[s] + (size_t)line0 * 64, _MM_HINT_T1);
        UNROLL
        for (int n = 0; n < nt; n++)
            UNROLL
        for (int s = 0; s < np; s++)
            acc[s][n] = kind == MIN ? _mm512_setzero_si512() : _mm512_set1_epi32(prep[n].a[i]);
        UNROLL
        for (int j = 0; j < 8; j++) {
            if (kind >= HALVES && j == 4) {
                UNROLL
                for (int n = 0; n < nt; n++)
                    UNROLL
                for (int s = 0; s < np; s++) {
                    part[s][n] =
                        _mm512_mul_ps(_mm512_cvtepi32_ps(acc[s][n]), _mm512_load_ps(b->w[s].u[i]));
                    acc[s][n] = _mm512_set1_epi32(prep[n].b[i]);
                }
            }
            __m512i w[PANELS];
            UNROLL
            for (int s = 0; s < np; s++)
                w[s] = _mm512_load_si512(b->w[s].q[i][j]);
            UNROLL
            for (int n = 0; n < nt; n++) {
                __m512i x = bcast4(q[n] + (size_t)i * KERN_GROUP + 4 * j);
                UNROLL
                for (int s = 0; s < np; s++)
                    dot4(lump, j, &acc[s][n], &sum[s][n], w[s], x);
            }
        }
        UNROLL
        for (int s = 0; s < np; s++) {
            __m512 d = _mm512_load_ps(b->w[s].d[i]);
            UNROLL
            for (int n = 0; n < nt; n++) {
                __m512 as = _mm512_set1_ps(scale[n][i]), dot = _mm512_cvtepi32_ps(acc[s][n]);
                if (kind >= HALVES)
                    dot = _mm512_fmadd_ps(dot, _mm512_load_ps(b->w[s].v[i]), part[s][n]);
                f[s][n] = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, as), f[s][n]);
                if (kind == MIN)
                    f[s][n] =
                        _mm512_fmadd_ps(_mm512_set1_ps(prep[n].sum[i]),
                                        _mm512_mul_ps(_mm512_load_ps(b->w[s].u[i]), as), f[s][n]);
                if (kind == HALF_MINS)
                    f[s][n] =
                        _mm512_fmadd_ps(half_mins(&prep[n], i, _mm512_load_ps(b->w[s].mu[i]),
                                                  _mm512_load_ps(b->w[s].mv[i])),
                                        _mm512_mul_ps(_mm512_load_ps(b->w[s].m[i]), as), f[s][n]);
            }
        }
    }
    UNROLL
    for (int s = 0; s < np; s++) {
        uint32_t r = b->row + (uint32_t)s * KERN_PANEL;
        UNROLL
        for (int n = 0; n < nt; n++)
            put512(a->y + (t0 + (uint32_t)n) * a->ldy + r, lanes_of(a, r), f[s][n], b->g0 == 0);
    }
}

/* All tokens over a decoded segment. Tiles are made even: 8 tokens are 4 + 4, not 6 + 2. */
IN void tiles(const struct job *b, const int kind, const int lump, const int np)
{
    const uint32_t most = kind >= HALVES ? TOKENS_HALVES : TOKENS, n = b->a->n,
                   count = (n + most - 1) / most;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        const uint32_t nt = (n - t0 + count - c - 1) / (count - c),
                       l0 = (uint32_t)((uint64_t)b->next_lines * c / count),
                       l1 = (uint32_t)((uint64_t)b->next_lines * (c + 1) / count);
        switch (nt) {
        case 1:
            tile(b, kind, lump, np, 1, t0, l0, l1);
            break;
        case 2:
            tile(b, kind, lump, np, 2, t0, l0, l1);
            break;
        case 3:
            tile(b, kind, lump, np, 3, t0, l0, l1);
            break;
        case 4:
            tile(b, kind, lump, np, 4, t0, l0, l1);
            break;
        case 5:
            if (kind < HALVES)
                tile(b, kind, lump, np, 5, t0, l0, l1);
            break;
        default:
            if (kind < HALVES)
                tile(b, kind, lump, np, 6, t0, l0, l1);
            break;
        }
        t0 += nt;
    }
}

/* Inner loops by kind and by products that add up in 16 bits. */
/* clang-format off */
#if VNNI
#define KINDS(X)                                                                                   \
    X(scale, SCALE, 8) X(ahead, AHEAD, 8)                                                          \
    X(min, MIN, 8)                                                                                 \
    X(halves, HALVES, 8)                                                                           \
    X(half_mins, HALF_MINS, 8)
#else
#define KINDS(X)                                                                                   \
    X(scale_1, SCALE, 1) X(scale_4, SCALE, 4) X(scale_8, SCALE, 8)                                 \
    X(ahead_1, AHEAD, 1) X(ahead_4, AHEAD, 4)                                                      \
    X(min_4, MIN, 4) X(min_8, MIN, 8)                                                              \
    X(halves_2, HALVES, 2) X(halves_4, HALVES, 4)                                                  \
    X(half_mins_4, HALF_MINS, 4)
#endif
/* clang-format on */

#define TILES(name, kind, lump)                                                                    \
    static __attribute__((noinline)) void tiles_##name##_1(const struct job *b)                    \
    {                                                                                              \
        tiles(b, kind, lump, 1);                                                                   \
    }                                                                                              \
    static __attribute__((noinline)) void tiles_##name##_2(const struct job *b)                    \
    {                                                                                              \
        tiles(b, kind, lump, 2);                                                                   \
    }
KINDS(TILES)

#define PICK(name, want, most)                                                                     \
    if (kind == (want) && lump == (most))                                                          \
        np == 1 ? tiles_##name##_1(b) : tiles_##name##_2(b);

/* kind and lump are constants: one call is left of all. */
IN void inner(const struct job *b, const int kind, const int lump, uint32_t np){KINDS(PICK)}

IN void gemm(const struct kern_mm *a, int t)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const struct p16 l = p16_of(t);
    struct seg w[PANELS];
    for (uint32_t r = a->row0; r < a->row1; r += PANELS * KERN_PANEL) {
        const uint32_t np = a->row1 - r > KERN_PANEL ? 2 : 1;
        const uint8_t *p = (const uint8_t *)a->w + r / KERN_PANEL * panel;
        for (uint32_t g0 = 0; g0 < groups; g0 += SEG_GROUPS) {
            struct job b = {.a = a, .w = w, .row = r, .g0 = g0, .zero = zero_of(t)};
            b.len = groups - g0 < SEG_GROUPS ? groups - g0 : SEG_GROUPS;
            b.next_lines = (uint32_t)((b.len * p16_group_bytes(l) + 63) / 64);
            for (uint32_t s = 0; s < np; s++) {
                const uint8_t *at = p + s * panel;
                b.next[s] = g0 + SEG_GROUPS < groups ? at + p16_head_at(l, g0 + SEG_GROUPS)
                                                     : at + PANELS * panel;
                decode_seg(t, at, g0, b.len, b.next[s], &w[s]);
            }
            inner(&b, kind_of(t), lump_of(t), np);
        }
    }
}

#define RUN(name, T, fits)                                                                         \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemm(a, T);                                                                                \
    }
BLOCK_TYPES(RUN)

#define ROW(name, T, fits)                                                                         \
    {"gemm_" #name "_q8_" VARIANT, KERN_GEMM, T, KERN_P16, NEEDS, TOKENS, RANK, fits,              \
     {.mm = gemm_##name}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *ACCESSOR(gemm)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
