/* mm_gemm_avx2.c - block-format products for many tokens, AVX2.
 *
 * For each panel and segment of 512 columns the weights are decoded once to bytes in L1 (9-11 KiB),
 * then all tokens pass over them in tiles of up to 4. Row sums meet in y, segment after segment in
 * ascending order. The inner loop knows how many products it may add in 16 bits, and whether there
 * are minimums or halves, but not the formats. Bits equal ref/. No symbol but the accessor. Pure;
 * any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "mm256.h"
#include "tables.h"

#define TOKENS 4

enum kind { SCALE, MIN, HALVES, HALF_MINS };

/* A decoded segment of a panel. u, v: minimums, or the two sub-scales; m: minimum, mu, mv: its two
 * parts. */
struct seg {
    uint8_t q[SEG_GROUPS][8][64];
    float d[SEG_GROUPS][16], u[SEG_GROUPS][16], v[SEG_GROUPS][16];
    float m[SEG_GROUPS][16], mu[SEG_GROUPS][16], mv[SEG_GROUPS][16];
} __attribute__((aligned(64)));

/* next: the segment that will be decoded after the tokens have passed over this one; it is asked
 * for here, so that it has come by then. */
IN void decode_seg(int t, const uint8_t *w, uint32_t g0, uint32_t len, const uint8_t *next,
                   struct seg *o)
{
    const struct p16 l = p16_of(t);
    for (uint32_t i = 0; i < len; i++) {
        const uint8_t *p = w + p16_group_at(l, g0 + i), *head = w + p16_head_at(l, g0 + i);
        UNROLL
        for (uint32_t b = 0; b < p16_group_bytes(l); b += 64)
            _mm_prefetch((const char *)next + i * p16_group_bytes(l) + b, _MM_HINT_T1);
        UNROLL
        for (int h = 0; h < 2; h++) {
            __m256i q[8];
            decode256(t, p, h, q);
            UNROLL
            for (int j = 0; j < 8; j++)
                _mm256_store_si256((__m256i *)(o->q[i][j] + 32 * h), q[j]);
            _mm256_store_ps(o->d[i] + 8 * h, scale256(t, p, head, h));
            if (has_min(t))
                _mm256_store_ps(o->u[i] + 8 * h, min256(t, p, head, h));
            if (has_halves(t)) {
                _mm256_store_ps(o->u[i] + 8 * h, sub256(t, p, 0, h));
                _mm256_store_ps(o->v[i] + 8 * h, sub256(t, p, 1, h));
            }
            if (has_half_mins(t)) {
                _mm256_store_ps(o->m[i] + 8 * h, min256(t, p, head, h));
                _mm256_store_ps(o->mu[i] + 8 * h, low256(p, 0, h));
                _mm256_store_ps(o->mv[i] + 8 * h, low256(p, 1, h));
            }
        }
    }
}

/* What the inner loop needs of a call's segment. */
struct job {
    const struct kern_mm *a;
    const struct seg *w;
    uint32_t row, g0, len;
    int zero;
};

/* The tokens of a tile. */
struct toks {
    const int8_t *q[TOKENS];
    const float *scale[TOKENS];
    struct prep prep[TOKENS];
};

/* acc = start + operands [j0, j1) of group i, both halves, nt tokens. start is read after the first
 * products: registers are short. */
IN void dots(const struct seg *w, uint32_t i, const int lump, const int nt, const struct toks *x,
             int j0, int j1, __m256i acc[TOKENS][2])
{
    const __m256i one = _mm256_set1_epi16(1);
    if (VNNI) {
        UNROLL
        for (int n = 0; n < nt; n++)
            acc[n][0] = acc[n][1] = _mm256_set1_epi32(j0 == 0 ? x->prep[n].a[i] : x->prep[n].b[i]);
        UNROLL
        for (int j = j0; j < j1; j++) {
            __m256i w0 = load32(w->q[i][j]), w1 = load32(w->q[i][j] + 32);
            UNROLL
            for (int n = 0; n < nt; n++) {
                __m256i v = bcast4(x->q[n] + (size_t)i * KERN_GROUP + 4 * j);
                acc[n][0] = dot4(acc[n][0], w0, v);
                acc[n][1] = dot4(acc[n][1], w1, v);
            }
        }
        return;
    }
    UNROLL
    for (int j = j0; j < j1; j += lump) {
        __m256i s[TOKENS][2];
        UNROLL
        for (int c = 0; c < lump; c++) {
            __m256i w0 = load32(w->q[i][j + c]), w1 = load32(w->q[i][j + c] + 32);
            UNROLL
            for (int n = 0; n < nt; n++) {
                __m256i v = bcast4(x->q[n] + (size_t)i * KERN_GROUP + 4 * (j + c));
                __m256i p0 = pairs(lump, w0, v), p1 = pairs(lump, w1, v);
                s[n][0] = c == 0 ? p0 : add16(s[n][0], p0);
                s[n][1] = c == 0 ? p1 : add16(s[n][1], p1);
            }
        }
        UNROLL
        for (int n = 0; n < nt; n++) {
            if (j == j0)
                acc[n][0] = acc[n][1] =
                    _mm256_set1_epi32(j0 == 0 ? x->prep[n].a[i] : x->prep[n].b[i]);
            acc[n][0] = add32(acc[n][0], _mm256_madd_epi16(s[n][0], one));
            acc[n][1] = add32(acc[n][1], _mm256_madd_epi16(s[n][1], one));
        }
    }
}

/* nt tokens from t0 over a decoded segment; lump, kind and nt are constants. */
IN void tile(const struct job *b, const int lump, const int kind, const int nt, uint32_t t0)
{
    const struct kern_mm *a = b->a;
    struct toks x;
    __m256 f[TOKENS][2];
    for (int n = 0; n < nt; n++) {
        size_t at = token(a, t0 + (uint32_t)n);
        x.q[n] = a->q + at * a->ldq + (size_t)b->g0 * KERN_GROUP;
        x.scale[n] = a->scale + at * a->ldg + b->g0;
        prep256(b->zero, kind >= HALVES, &x.prep[n], x.q[n], a->sum + at * a->ldg + b->g0, b->len);
        f[n][0] = f[n][1] = _mm256_setzero_ps();
    }
    for (uint32_t i = 0; i < b->len; i++) {
        __m256i acc[TOKENS][2];
        __m256 part[TOKENS][2];
        dots(b->w, i, lump, nt, &x, 0, kind >= HALVES ? 4 : 8, acc);
        if (kind >= HALVES) {
            UNROLL
            for (int n = 0; n < nt; n++)
                UNROLL
            for (int h = 0; h < 2; h++)
                part[n][h] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[n][h]),
                                           _mm256_load_ps(b->w->u[i] + 8 * h));
            dots(b->w, i, lump, nt, &x, 4, 8, acc);
        }
        UNROLL
        for (int n = 0; n < nt; n++) {
            __m256 as = _mm256_set1_ps(x.scale[n][i]);
            UNROLL
            for (int h = 0; h < 2; h++) {
                __m256 dot = _mm256_cvtepi32_ps(acc[n][h]);
                if (kind >= HALVES)
                    dot = _mm256_fmadd_ps(dot, _mm256_load_ps(b->w->v[i] + 8 * h), part[n][h]);
                f[n][h] = _mm256_fmadd_ps(
                    dot, _mm256_mul_ps(_mm256_load_ps(b->w->d[i] + 8 * h), as), f[n][h]);
                if (kind == MIN)
                    f[n][h] = _mm256_fmadd_ps(_mm256_set1_ps(x.prep[n].sum[i]),
                                              _mm256_mul_ps(_mm256_load_ps(b->w->u[i] + 8 * h), as),
                                              f[n][h]);
                if (kind == HALF_MINS)
                    f[n][h] = _mm256_fmadd_ps(
                        half_mins(&x.prep[n], i, _mm256_load_ps(b->w->mu[i] + 8 * h),
                                  _mm256_load_ps(b->w->mv[i] + 8 * h)),
                        _mm256_mul_ps(_mm256_load_ps(b->w->m[i] + 8 * h), as), f[n][h]);
            }
        }
    }
    for (int n = 0; n < nt; n++)
        put256(a->y + (t0 + (uint32_t)n) * a->ldy + b->row, a->row1 - b->row, f[n][0], f[n][1],
               b->g0 == 0);
}

/* All tokens over a decoded segment, in even tiles of at most `most`. */
IN void tiles(const struct job *b, const int lump, const int kind, const uint32_t most)
{
    const uint32_t n = b->a->n, count = (n + most - 1) / most;
    for (uint32_t c = 0, t0 = 0; c < count; c++) {
        uint32_t nt = (n - t0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(b, lump, kind, 1, t0);
            break;
        case 2:
            tile(b, lump, kind, 2, t0);
            break;
        case 3:
            if (most > 2)
                tile(b, lump, kind, 3, t0);
            break;
        default:
            if (most > 3)
                tile(b, lump, kind, 4, t0);
            break;
        }
        t0 += nt;
    }
}

#define TILES(name, lump, kind, most)                                                              \
    static __attribute__((noinline)) void tiles_##name(const struct job *b)                        \
    {                                                                                              \
        tiles(b, lump, kind, most);                                                                \
    }
TILES(1_scale, 1, SCALE, 4)
TILES(2_halves, 2, HALVES, 2)
TILES(4_halves, 4, HALVES, 2)
TILES(4_half_mins, 4, HALF_MINS, 2)
TILES(4_scale, 4, SCALE, 3)
TILES(4_min, 4, MIN, 3)
TILES(8_scale, 8, SCALE, 4)
TILES(8_min, 8, MIN, 4)

IN void gemm(const struct kern_mm *a, int t)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const int lump = lump_of(t);
    struct seg w;
    for (uint32_t r = a->row0; r < a->row1; r += KERN_PANEL)
        for (uint32_t g0 = 0; g0 < groups; g0 += SEG_GROUPS) {
            struct job b = {
                a, &w, r, g0, groups - g0 < SEG_GROUPS ? groups - g0 : SEG_GROUPS, zero_of(t)};
            const uint8_t *p = (const uint8_t *)a->w + r / KERN_PANEL * panel;
            decode_seg(t, p, g0, b.len,
                       g0 + SEG_GROUPS < groups ? p + p16_head_at(p16_of(t), g0 + SEG_GROUPS)
                                                : p + panel,
                       &w);
            if (lump == 8 && has_min(t))
                tiles_8_min(&b);
            else if (lump == 8)
                tiles_8_scale(&b);
            else if (has_half_mins(t))
                tiles_4_half_mins(&b);
            else if (lump == 4 && has_halves(t))
                tiles_4_halves(&b);
            else if (lump == 4 && has_min(t))
                tiles_4_min(&b);
            else if (lump == 4)
                tiles_4_scale(&b);
            else if (lump == 2)
                tiles_2_halves(&b);
            else
                tiles_1_scale(&b);
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
