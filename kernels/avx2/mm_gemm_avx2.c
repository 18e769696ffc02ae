/* mm_gemm_avx2.c - block-format products for many tokens, AVX2 and, with KERN_VNNI256, AVX-VNNI.
 *
 * For up to BLOCK tokens, and each segment of 512 columns, panel after panel: the panel's weights
 * are decoded once to operands in L1 (gemm256.h), then all tokens pass over them in tiles whose
 * sums of a group are in registers: two halves of 8 rows times up to TOKENS tokens, so that a load
 * of weights serves all tokens and a broadcast of activations both halves. What the row sums need
 * of a token in a segment is prepared once for STRIP panels. Row sums wait side by side until the
 * last segment, then they are rows of y. The inner loops know how many products may be added in 16
 * bits and what happens to a group's sum, but not the formats. Bits equal ref/. No symbol but the
 * accessor. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with the AVX2 flags of configure"
#endif
#include "gemm256.h"
#include "tables.h"

/* Tokens [0, nt) of x over group i; kind, lump and nt are constants. Sums of the products in 16
 * bits; then multiplied by ones, or by the sub-scales, and added in 32 bits. */
IN void products(const struct seg *w, uint32_t i, const int lump, const int kind, const int nt,
                 const struct tok *x, const int8_t *const *q, __m256i acc[TOKENS][2])
{
    UNROLL
    for (int j0 = 0; j0 < 8; j0 += lump) {
        __m256i s[TOKENS][2];
        UNROLL
        for (int j = j0; j < j0 + lump; j++) {
            const __m256i w0 = load32(w->q[i][j]), w1 = load32(w->q[i][j] + 32);
            UNROLL
            for (int n = 0; n < nt; n++) {
                const __m256i v = bcast4(q[n] + 4 * j);
                const __m256i p0 = _mm256_maddubs_epi16(w0, v), p1 = _mm256_maddubs_epi16(w1, v);
                s[n][0] = j == j0 ? p0 : add16(s[n][0], p0);
                s[n][1] = j == j0 ? p1 : add16(s[n][1], p1);
            }
        }
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256i u =
                kind >= HALVES ? load32(w->u[i][j0 / 4] + 8 * h) : _mm256_set1_epi16(1);
            UNROLL
            for (int n = 0; n < nt; n++) {
                const __m256i p = _mm256_madd_epi16(s[n][h], u);
                if (j0 > 0)
                    acc[n][h] = add32(acc[n][h], p);
                else if (kind == SCALE)
                    acc[n][h] = add32(p, _mm256_set1_epi32(x[n].a[i]));
                else if (kind == HALVES)
                    acc[n][h] = add32(p, _mm256_madd_epi16(load32(w->z[i] + 8 * h),
                                                           _mm256_set1_epi32(x[n].b[i])));
                else
                    acc[n][h] = p;
            }
        }
    }
}

/* The same with weights and activations in 16 bits (kind WORDS): 32 operands of two columns. */
IN void word_products(const struct seg *w, uint32_t i, const int nt, const int8_t *const *q,
                      __m256i acc[TOKENS][2])
{
    UNROLL
    for (int j = 0; j < 16; j++) {
        const __m256i w0 = held(load32(w->q[i][j])), w1 = held(load32(w->q[i][j] + 32));
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256i v = bcast4(q[n] + 4 * j);
            const __m256i p0 = _mm256_madd_epi16(w0, v), p1 = _mm256_madd_epi16(w1, v);
            acc[n][0] = j == 0 ? p0 : add32(acc[n][0], p0);
            acc[n][1] = j == 0 ? p1 : add32(acc[n][1], p1);
        }
    }
}

/* vpdpbusd over operands [j0, j1). */
IN void dots(const struct seg *w, uint32_t i, const int nt, const int8_t *const *q, const int j0,
             const int j1, __m256i acc[TOKENS][2])
{
    UNROLL
    for (int j = j0; j < j1; j++) {
        const __m256i w0 = load32(w->q[i][j]), w1 = load32(w->q[i][j] + 32);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256i v = bcast4(q[n] + 4 * j);
            acc[n][0] = dot4(acc[n][0], w0, v);
            acc[n][1] = dot4(acc[n][1], w1, v);
        }
    }
}

/* A group's dot products as floats. */
IN void group_dots(const struct seg *w, uint32_t i, const int lump, const int kind, const int nt,
                   const struct tok *x, const int8_t *const *q, __m256 dot[TOKENS][2])
{
    __m256i acc[TOKENS][2];
    __m256 part[TOKENS][2];
    if (VNNI) {
        UNROLL
        for (int n = 0; n < nt; n++)
            acc[n][0] = acc[n][1] = kind == SCALE || kind == HALVES ? _mm256_set1_epi32(x[n].a[i])
                                                                    : _mm256_setzero_si256();
        dots(w, i, nt, q, 0, kind == HALVES ? 4 : 8, acc);
        if (kind == HALVES) {
            UNROLL
            for (int n = 0; n < nt; n++)
                UNROLL
            for (int h = 0; h < 2; h++) {
                part[n][h] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[n][h]),
                                           _mm256_load_ps((const float *)w->u[i][0] + 8 * h));
                acc[n][h] = _mm256_set1_epi32(x[n].b[i]);
            }
            dots(w, i, nt, q, 4, 8, acc);
        }
    } else if (kind == WORDS) {
        word_products(w, i, nt, q, acc);
    } else {
        products(w, i, lump, kind, nt, x, q, acc);
    }
    UNROLL
    for (int n = 0; n < nt; n++)
        UNROLL
    for (int h = 0; h < 2; h++) {
        dot[n][h] = _mm256_cvtepi32_ps(acc[n][h]);
        if (VNNI && kind == HALVES)
            dot[n][h] = _mm256_fmadd_ps(
                dot[n][h], _mm256_load_ps((const float *)w->u[i][1] + 8 * h), part[n][h]);
    }
}

/* nt tokens from n0 over a decoded segment. Meanwhile what comes next is asked for, a few lines
 * beside each group: all at once they would fill the miss buffers and stop the pipeline. */
IN void tile(struct job *b, const int lump, const int kind, const int nt, uint32_t n0)
{
    const struct seg *w = b->w;
    struct tok *x = b->x->x + n0;
    const int8_t *q[TOKENS];
    UNROLL
    for (int n = 0; n < nt; n++)
        q[n] = b->x->q[n0 + (uint32_t)n];
    for (uint32_t i = 0; i < b->len; i++) {
        __m256 dot[TOKENS][2];
        for (uint32_t c = 0; c < b->ask; c++, b->next += 64)
            _mm_prefetch((const char *)b->next, _MM_HINT_T1);
        group_dots(w, i, lump, kind, nt, x, q, dot);
        UNROLL
        for (int n = 0; n < nt; n++) {
            const __m256 as = _mm256_set1_ps(x[n].scale[i]);
            q[n] += kind == WORDS ? 2 * KERN_GROUP : KERN_GROUP;
            UNROLL
            for (int h = 0; h < 2; h++) {
                __m256 f =
                    _mm256_fmadd_ps(dot[n][h], _mm256_mul_ps(_mm256_load_ps(w->d[i] + 8 * h), as),
                                    _mm256_load_ps(x[n].f + 8 * h));
                if (kind == MIN)
                    f = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_set1_epi32(x[n].b[i])),
                                        _mm256_mul_ps(_mm256_load_ps(w->m[i] + 8 * h), as), f);
                if (kind == HALF_MINS)
                    f = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(
                                            load32(w->z[i] + 8 * h), _mm256_set1_epi32(x[n].b[i]))),
                                        _mm256_mul_ps(_mm256_load_ps(w->m[i] + 8 * h), as), f);
                _mm256_store_ps(x[n].f + 8 * h, f);
            }
        }
    }
}

/* All tokens over a decoded segment, in even tiles of at most `most`. */
IN void tiles(struct job *b, const int lump, const int kind, const uint32_t most)
{
    const uint32_t n = b->n, count = (n + most - 1) / most;
    for (uint32_t c = 0, n0 = 0; c < count; c++) {
        const uint32_t nt = (n - n0 + count - c - 1) / (count - c);
        switch (nt) {
        case 1:
            tile(b, lump, kind, 1, n0);
            break;
        case 2:
            tile(b, lump, kind, 2, n0);
            break;
        case 3:
            if (most >= 3)
                tile(b, lump, kind, 3, n0);
            break;
        case 4:
            if (most >= 4)
                tile(b, lump, kind, 4, n0);
            break;
        case 5:
            if (most >= 5)
                tile(b, lump, kind, 5, n0);
            break;
        default:
            if (most >= 6)
                tile(b, lump, kind, 6, n0);
            break;
        }
        n0 += nt;
    }
}

#define TILES(name, lump, kind, most)                                                              \
    static __attribute__((noinline)) void tiles_##name(struct job *b)                              \
    {                                                                                              \
        tiles(b, lump, kind, most);                                                                \
    }
#if VNNI
TILES(scale, 8, SCALE, 6)
TILES(min, 8, MIN, 6)
TILES(halves, 8, HALVES, 4)
TILES(half_mins, 8, HALF_MINS, 6)
#else
TILES(words, 1, WORDS, 4)
TILES(2_halves, 2, HALVES, 3)
TILES(4_halves, 4, HALVES, 3)
TILES(4_half_mins, 4, HALF_MINS, 3)
TILES(4_scale, 4, SCALE, 3)
TILES(4_min, 4, MIN, 3)
TILES(8_scale, 8, SCALE, 4)
TILES(8_min, 8, MIN, 4)
#endif

typedef void (*tiles_fn)(struct job *b);

IN tiles_fn tiles_of(int t)
{
    const int kind = kind_of(t);
#if VNNI
    return kind == SCALE    ? tiles_scale
           : kind == MIN    ? tiles_min
           : kind == HALVES ? tiles_halves
                            : tiles_half_mins;
#else
    const int lump = lump_of(t);
    return kind == WORDS       ? tiles_words
           : kind == HALF_MINS ? tiles_4_half_mins
           : kind == HALVES    ? (lump == 2 ? tiles_2_halves : tiles_4_halves)
           : kind == MIN       ? (lump == 4 ? tiles_4_min : tiles_8_min)
           : lump == 4         ? tiles_4_scale
                               : tiles_8_scale;
#endif
}

/* A panel's sums of one segment join those before it; with the last one they are rows of y. Sums
 * wait side by side, not in y: its rows lie far apart, often in the same cache sets. */
IN void join(const struct kern_mm *a, const struct job *b, uint32_t t0, uint32_t row,
             float (*sum)[KERN_PANEL], bool last)
{
    for (uint32_t i = 0; i < b->n; i++) {
        struct tok *x = &b->x->x[i];
        __m256 f0 = _mm256_load_ps(x->f), f1 = _mm256_load_ps(x->f + 8);
        _mm256_store_ps(x->f, _mm256_setzero_ps());
        _mm256_store_ps(x->f + 8, _mm256_setzero_ps());
        if (b->g0 > 0) {
            f0 = _mm256_add_ps(_mm256_load_ps(sum[i]), f0);
            f1 = _mm256_add_ps(_mm256_load_ps(sum[i] + 8), f1);
        }
        if (last) {
            put256(a->y + (size_t)(t0 + i) * a->ldy + row, a->row1 - row, f0, f1, 1);
        } else {
            _mm256_store_ps(sum[i], f0);
            _mm256_store_ps(sum[i] + 8, f1);
        }
    }
}

/* Tokens [t0, t0 + n) over rows [row0, row1), at most STRIP panels; after: what will be read when
 * they are done. */
IN void strip(const struct kern_mm *a, int t, struct job *b, uint32_t t0, const uint32_t row[2],
              const uint8_t *after)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const struct p16 l = p16_of(t);
    const uint8_t *first = (const uint8_t *)a->w + row[0] / KERN_PANEL * panel;
    float sum[STRIP][BLOCK][KERN_PANEL] __attribute__((aligned(64)));
    for (b->g0 = 0; b->g0 < groups; b->g0 += SEG_GROUPS) {
        const bool last = groups - b->g0 <= SEG_GROUPS;
        const uint8_t *w = first;
        b->len = last ? groups - b->g0 : SEG_GROUPS;
        const uint32_t lines = (b->len * p16_group_bytes(l) + 63) / 64,
                       steps = b->len * ((b->n + 3) / 4);
        b->ask = (lines + steps - 1) / steps;
        prepare(a, t, t0, b);
        for (uint32_t r = row[0], s = 0; r < row[1]; r += KERN_PANEL, s++, w += panel) {
            if (r + KERN_PANEL < row[1])
                b->next = w + panel + p16_head_at(l, b->g0);
            else if (!last)
                b->next = first + p16_head_at(l, b->g0 + SEG_GROUPS);
            else
                b->next = after != NULL ? after : w + panel;
            decode_seg(t, w, b->g0, b->len, b->w);
            tiles_of(t)(b);
            join(a, b, t0, r, sum[s], last);
        }
    }
}

/* Blocks of about the same number of tokens. */
IN void gemm(const struct kern_mm *a, int t)
{
    const uint32_t count = (a->n + BLOCK - 1) / BLOCK;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = a->w;
    struct side x;
    struct seg seg;
    struct job b = {.x = &x, .w = &seg};
    for (uint32_t i = 0; i < BLOCK; i++)
        for (uint32_t r = 0; r < KERN_PANEL; r++)
            x.x[i].f[r] = 0;
    for (uint32_t c = 0, t0 = 0; c < count; c++, t0 += b.n) {
        b.n = (a->n - t0 + count - c - 1) / (count - c);
        for (uint32_t r = a->row0; r < a->row1; r += STRIP * KERN_PANEL) {
            const uint32_t end =
                a->row1 - r < STRIP * KERN_PANEL ? a->row1 : r + STRIP * KERN_PANEL;
            const uint8_t *after = end < a->row1     ? w + end / KERN_PANEL * panel
                                   : t0 + b.n < a->n ? w + a->row0 / KERN_PANEL * panel
                                                     : a->next;
            strip(a, t, &b, t0, (uint32_t[2]){r, end}, after);
        }
    }
}

#define RUN(name, T, fits)                                                                         \
    static __attribute__((noinline)) void gemm_##name(const struct kern_mm *a)                     \
    {                                                                                              \
        gemm(a, T);                                                                                \
    }
BLOCK_TYPES(RUN)

#define ROW(name, T, fits)                                                                         \
    {"gemm_" #name "_q8_" VARIANT, KERN_GEMM, T, KERN_P16, NEEDS, 4, RANK, fits,                   \
     {.mm = gemm_##name}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *ACCESSOR(gemm)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
