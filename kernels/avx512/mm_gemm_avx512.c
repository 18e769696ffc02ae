/* mm_gemm_avx512.c - block-format products for many tokens, AVX512 with VNNI and without.
 *
 * For up to BLOCK tokens and each segment of 512 columns, panel after panel: a group's weights are
 * decoded into 8 registers and all tokens of the block pass over them, a few at a time, each adding
 * to its own line of sums in L1. With VNNI two panels go side by side where the registers hold
 * them: half the broadcasts of activations. So decoded weights are never stored, and out-of-order
 * execution decodes a group beside the products of the one before; an instruction stream of 8 dot
 * products with broadcast operands, convert, multiply, fma stays at 95 % and more of what it takes
 * in registers alone. Row sums meet in y, segment after segment in ascending order. Q2_K and Q3_K
 * fold their sub-scales into the codes, because the products still fit a byte. Bits equal ref/.
 * Pure; any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__F16C__)
#error "compile with the AVX512 flags of configure"
#endif
#include "mm512.h"
#include "tables.h"

#define BLOCK 64 /* their codes of a segment and what side holds of them: about L1 */
#define STEP 4   /* tokens with accumulators in registers at a time */
#define STRIP 16 /* panels for which activations are prepared once */
#define PAIR 2   /* panels that share broadcasts: at most */

/* Q2_K and Q3_K with sub-scales folded into the codes: code times sub-scale is a byte (0..3 times
 * 0..15, and -4..3 times -32..31, which is -124..128 and unsigned after 124 is added). Not where
 * products must fit 16 bits. */
IN int folds(int t)
{
    return (t == DT_Q2_K || t == DT_Q3_K) && lump_of(t) == 8;
}

#define Q3_ZERO 124

/* Two dot products a group, each times its sub-scale. */
IN int two_dots(int t)
{
    return has_halves(t) && !folds(t);
}

IN int start_of(int t)
{
    return t == DT_Q3_K && folds(t) ? Q3_ZERO : zero_of(t);
}

/* A token in the segment: accumulator starts, activation scales, the sums that minimums take
 * (has_min: float; Q2_K: two int16, of 16 columns each) or the starts of columns 16..31, and the
 * results. One line each, side by side: lines of all tokens spread over the whole of L1. */
struct tok {
    int32_t a[SEG_GROUPS];
    float scale[SEG_GROUPS];
    int32_t b[SEG_GROUPS];
    float f[PAIR][KERN_PANEL];
} __attribute__((aligned(64)));

/* The tokens of a block. Codes of groups 2i and 2i + 1 begin at q[n] + i * stride: in the caller's
 * rows, or in copy, line after line in the order of the loops; without gaps, because lines a power
 * of two apart would crowd into half of the cache sets. */
struct side {
    struct tok x[BLOCK];
    const int8_t *q[BLOCK];
    size_t stride;
    int8_t copy[SEG_GROUPS / 2 * BLOCK][2 * KERN_GROUP] __attribute__((aligned(64)));
} __attribute__((aligned(64)));

/* Panels of type t side by side where the registers hold both: each broadcast serves both. */
IN int most_panels(int t)
{
    return VNNI && !has_halves(t) ? PAIR : 1;
}

/* Tokens with accumulators in registers at a time, np panels each: what was fastest on Zen 4. */
IN uint32_t step_of(int t, int np)
{
    return np > 1 && !has_min(t) ? STEP / 2 : STEP;
}

/* What a segment of one panel, or of some side by side, needs. */
struct job {
    struct side *x;
    const uint8_t *w, *next;    /* panel; what comes after this segment, to ask for */
    size_t panel;               /* bytes */
    uint32_t n, g0, len, bytes; /* bytes: of a panel's segment */
    uint32_t ask;               /* lines of next per step */
    uint8_t lo, hi;             /* weight exponents that can be added (adds) */
};

/* A decoded group. m: minimum; u, v: the two sub-scales; low: pairs of integer minimums as
 * int16 (Q2_K). */
struct group {
    __m512i q[8];
    __m512 d, m, u, v;
    __m512i low;
};

/* a in the low and b in the high 16 bits. */
IN __m512i pair16(__m512i a, __m512i b)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
}

/* q[j] times the sub-scales. The products of a pair of bytes do not borrow from each other, once
 * Q3_K's are above zero: the whole 16-bit number is exact. */
IN void fold512(int t, const uint8_t *p, __m512i q[8])
{
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i s = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * h)));
        s = t == DT_Q2_K ? _mm512_and_si512(s, _mm512_set1_epi32(15)) : s;
        s = pair16(s, s);
        /* the bias of codes is 4, so 4 s comes off each byte */
        __m512i up = _mm512_sub_epi16(_mm512_set1_epi16(257 * Q3_ZERO),
                                      _mm512_mullo_epi16(s, _mm512_set1_epi16(257 * 4)));
        UNROLL
        for (int j = 4 * h; j < 4 * h + 4; j++) {
            q[j] = _mm512_mullo_epi16(q[j], s);
            if (t == DT_Q3_K)
                q[j] = _mm512_add_epi16(q[j], up);
        }
    }
}

IN void decode_group(int t, const uint8_t *p, const uint8_t *head, struct group *o)
{
    decode512(t, p, o->q);
    o->d = scale512(t, p, head);
    if (has_min(t) || has_half_mins(t))
        o->m = min512(t, p, head);
    if (two_dots(t)) {
        o->u = sub512(t, p, 0);
        o->v = sub512(t, p, 1);
    }
    if (folds(t))
        fold512(t, p, o->q);
    if (has_half_mins(t)) {
        __m512i s0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)),
                s1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 16)));
        o->low = pair16(_mm512_srli_epi32(s0, 4), _mm512_srli_epi32(s1, 4));
    }
}

/* The scale of MXFP4 weights is a power of two: where the exponents of the product with any
 * activation scale of the segment are of normal numbers, adding them is exact. */
IN int adds(int t)
{
    return VNNI && t == DT_MXFP4;
}

/* Whether that holds for the group at p. */
IN bool may_add(const struct job *b, const uint8_t *p)
{
    const __m128i e = _mm_loadu_si128((const __m128i *)p),
                  out = _mm_or_si128(_mm_subs_epu8(_mm_set1_epi8((char)b->lo), e),
                                     _mm_subs_epu8(e, _mm_set1_epi8((char)b->hi)));
    return _mm_testz_si128(out, out);
}

/* What is added then. */
IN __m512 exponents(const uint8_t *p)
{
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(128)), 23));
}

/* What is constant in a step: type, panels side by side, tokens, whether scales are added. */
struct kind {
    int t, np, nt, add;
};

/* Tokens from n0 over group i. */
IN void step(const struct kind c, struct side *s, uint32_t n0, uint32_t i, const struct group *w)
{
    const int t = c.t;
    const size_t at = i / 2 * s->stride + i % 2 * KERN_GROUP;
    const __mmask16 begun = i == 0 ? 0 : 0xffff;
    __m512i acc[PAIR][STEP], acc2[PAIR][STEP], sum[PAIR][STEP];
    const int8_t *q[STEP];
    UNROLL
    for (int n = 0; n < c.nt; n++) {
        const struct tok *x = &s->x[n0 + (uint32_t)n];
        q[n] = s->q[n0 + (uint32_t)n] + at;
        UNROLL
        for (int h = 0; h < c.np; h++) {
            acc[h][n] = acc2[h][n] = _mm512_setzero_si512();
            if (start_of(t) != 0)
                acc[h][n] = _mm512_set1_epi32(x->a[i]);
            if (start_of(t) != 0 && two_dots(t))
                acc2[h][n] = _mm512_set1_epi32(x->b[i]);
        }
    }
    UNROLL
    for (int j = 0; j < 8; j++)
        UNROLL
    for (int n = 0; n < c.nt; n++) {
        const __m512i x = bcast4(q[n] + 4 * j);
        UNROLL
        for (int h = 0; h < c.np; h++)
            dot4(lump_of(t), j, two_dots(t) && j >= 4 ? &acc2[h][n] : &acc[h][n], &sum[h][n],
                 w[h].q[j], x);
    }
    UNROLL
    for (int n = 0; n < c.nt; n++) {
        struct tok *x = &s->x[n0 + (uint32_t)n];
        const __m512 as = _mm512_set1_ps(x->scale[i]);
        UNROLL
        for (int h = 0; h < c.np; h++) {
            const struct group *g = &w[h];
            __m512 dot = _mm512_cvtepi32_ps(acc[h][n]), f = _mm512_maskz_load_ps(begun, x->f[h]);
            __m512 d = c.add ? _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(g->d),
                                                                    _mm512_castps_si512(as)))
                             : _mm512_mul_ps(g->d, as);
            if (two_dots(t))
                dot =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc2[h][n]), g->v, _mm512_mul_ps(dot, g->u));
            f = _mm512_fmadd_ps(dot, d, f);
            if (has_min(t))
                f = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(x->b[i])),
                                    _mm512_mul_ps(g->m, as), f);
            if (has_half_mins(t))
                f = _mm512_fmadd_ps(
                    _mm512_cvtepi32_ps(_mm512_madd_epi16(g->low, _mm512_set1_epi32(x->b[i]))),
                    _mm512_mul_ps(g->m, as), f);
            _mm512_store_ps(x->f[h], f);
        }
    }
}

/* Lines of what comes next, a few beside each step: all at once they would fill the miss buffers
 * and stop the pipeline. */
IN uint32_t ask(const struct job *b, int np, uint32_t at)
{
    for (uint32_t c = 0; c < b->ask && at < b->bytes; c++, at += 64) {
        _mm_prefetch((const char *)b->next + at, _MM_HINT_T1);
        if (np > 1)
            _mm_prefetch((const char *)b->next + b->panel + at, _MM_HINT_T1);
    }
    return at;
}

/* All tokens over group i. at: how far next is asked for; the same afterwards. */
IN uint32_t steps(const struct kind c, const struct job *b, uint32_t i, const struct group *w,
                  uint32_t at)
{
    const uint32_t size = step_of(c.t, c.np);
    uint32_t n = 0;
    for (; n + size <= b->n; n += size) {
        at = ask(b, c.np, at);
        step((struct kind){c.t, c.np, (int)size, c.add}, b->x, n, i, w);
    }
    if (n < b->n)
        at = ask(b, c.np, at);
    if (size > 3 && b->n - n == 3)
        step((struct kind){c.t, c.np, 3, c.add}, b->x, n, i, w);
    if (size > 2 && b->n - n == 2)
        step((struct kind){c.t, c.np, 2, c.add}, b->x, n, i, w);
    if (b->n - n == 1)
        step((struct kind){c.t, c.np, 1, c.add}, b->x, n, i, w);
    return at;
}

/* A segment of np panels side by side; t and np are constants. */
IN void segment(const struct job *b, int t, int np)
{
    const struct p16 l = p16_of(t);
    for (uint32_t i = 0, at = 0; i < b->len; i++) {
        const uint8_t *p = b->w + p16_group_at(l, b->g0 + i),
                      *head = b->w + p16_head_at(l, b->g0 + i);
        struct group w[PAIR];
        decode_group(t, p, head, &w[0]);
        if (np > 1)
            decode_group(t, p + b->panel, head + b->panel, &w[1]);
        if (adds(t) && may_add(b, p) && (np == 1 || may_add(b, p + b->panel))) {
            w[0].d = exponents(p);
            if (np > 1)
                w[1].d = exponents(p + b->panel);
            at = steps((struct kind){t, np, 0, 1}, b, i, w, at);
        } else {
            at = steps((struct kind){t, np, 0, 0}, b, i, w, at);
        }
    }
}

/* Panels of a call from which on copying the codes pays. */
#define COPY_PANELS 6

/* Weight exponents whose sums with those of activation scales, from the least to the most (as bits,
 * so that a sign counts as a very large one), lie within 1..254. Zero and subnormal scales have
 * exponent 0: none then. */
IN void range(struct job *b, uint32_t least, uint32_t most)
{
    const int lo = 129 - (int)(least >> 23), hi = 382 - (int)(most >> 23);
    const bool none = least >> 23 == 0 || most >> 23 >= 255 || hi < 0 || lo > hi;
    b->lo = none ? 255 : lo < 0 ? 0 : (uint8_t)lo;
    b->hi = none ? 0 : hi > 255 ? 255 : (uint8_t)hi;
}

/* Tokens [t0, t0 + n) in the segment from group g0. */
IN void prepare(const struct kern_mm *a, int t, uint32_t t0, struct job *b)
{
    struct side *s = b->x;
    const bool copy = a->row1 - a->row0 >= COPY_PANELS * KERN_PANEL;
    const __mmask16 m = (__mmask16)((1u << b->len) - 1);
    __m512i least = _mm512_set1_epi32(-1), most = _mm512_setzero_si512();
    s->stride = copy ? b->n * sizeof s->copy[0] : 2 * KERN_GROUP;
    for (uint32_t i = 0; i < b->n; i++) {
        const size_t at = token(a, t0 + i), g = at * a->ldg + b->g0;
        const int8_t *q = a->q + at * a->ldq + (size_t)b->g0 * KERN_GROUP;
        struct tok *x = &s->x[i];
        struct prep p;
        s->q[i] = copy ? s->copy[i] : q;
        for (uint32_t j = 0; copy && j < b->len; j += 2)
            _mm512_store_si512(
                s->copy[j / 2 * b->n + i],
                _mm512_maskz_loadu_epi8(b->len - j >= 2 ? ~(__mmask64)0 : 0xffffffffu, q + 32 * j));
        const __m512i scale = _mm512_maskz_loadu_epi32(m, a->scale + g);
        _mm512_store_si512(x->scale, scale);
        least = _mm512_mask_min_epu32(least, m, least, scale);
        most = _mm512_max_epu32(most, scale);
        if (two_dots(t) && !has_half_mins(t)) {
            prep_halves(&p, q, b->len, zero_of(t));
            _mm512_store_si512(x->a, _mm512_loadu_si512(p.a));
            _mm512_store_si512(x->b, _mm512_loadu_si512(p.b));
        } else if (has_half_mins(t)) {
            /* minus the sums, in 16 bits */
            const __m512i none = _mm512_setzero_si512();
            prep_halves(&p, q, b->len, 1);
            __m512i s0 = _mm512_sub_epi32(none, _mm512_loadu_si512(p.a)),
                    s1 = _mm512_sub_epi32(none, _mm512_loadu_si512(p.b));
            _mm512_store_si512(x->b, pair16(s0, s1));
        } else {
            __m512i sum = _mm512_maskz_loadu_epi32(m, a->sum + g);
            _mm512_store_si512(x->a, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-start_of(t))));
            if (has_min(t))
                _mm512_store_ps((float *)x->b, _mm512_cvtepi32_ps(sum));
        }
    }
    if (adds(t))
        range(b, _mm512_reduce_min_epu32(least), _mm512_reduce_max_epu32(most));
}

/* segment() of a type, for one panel and for PAIR. */
typedef void (*segment_fn)(const struct job *b);

/* A panel's sums of one segment join those before it; with the last one they are rows of y. Sums
 * wait side by side, not in y: its rows lie far apart, often in the same cache sets. */
IN void join(const struct kern_mm *a, const struct job *b, uint32_t t0, uint32_t row,
             float (*sum)[KERN_PANEL], int h)
{
    const __mmask16 lanes = lanes_of(a, row);
    const bool last = b->g0 + b->len == a->k / KERN_GROUP;
    for (uint32_t i = 0; i < b->n; i++) {
        __m512 f = _mm512_load_ps(b->x->x[i].f[h]);
        if (b->g0 > 0)
            f = _mm512_add_ps(_mm512_load_ps(sum[i]), f);
        if (last)
            _mm512_mask_storeu_ps(a->y + (size_t)(t0 + i) * a->ldy + row, lanes, f);
        else
            _mm512_store_ps(sum[i], f);
    }
}

/* Tokens [t0, t0 + n) over rows [row0, row1), at most STRIP panels; after: what will be read when
 * they are done. */
IN void strip(const struct kern_mm *a, int t, struct job *b, uint32_t t0, const uint32_t row[2],
              const uint8_t *after, const segment_fn *run)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const struct p16 l = p16_of(t);
    const uint8_t *first = (const uint8_t *)a->w + row[0] / KERN_PANEL * panel;
    float sum[STRIP * BLOCK][KERN_PANEL] __attribute__((aligned(64)));
    for (b->g0 = 0; b->g0 < groups; b->g0 += SEG_GROUPS) {
        const bool last = groups - b->g0 <= SEG_GROUPS;
        b->len = last ? groups - b->g0 : SEG_GROUPS;
        b->bytes = b->len * p16_group_bytes(l) + l.head;
        prepare(a, t, t0, b);
        b->w = first;
        for (uint32_t r = row[0], s = 0, np; r < row[1]; r += np * KERN_PANEL, s += np) {
            np = row[1] - r > KERN_PANEL ? (uint32_t)most_panels(t) : 1;
            const uint32_t size = step_of(t, (int)np), steps = b->len * ((b->n + size - 1) / size);
            b->ask = ((b->bytes + 63) / 64 + steps - 1) / steps;
            if (r + np * KERN_PANEL < row[1])
                b->next = b->w + np * panel + p16_head_at(l, b->g0);
            else if (!last)
                b->next = first + p16_head_at(l, b->g0 + SEG_GROUPS);
            else
                b->next = after != NULL ? after : b->w + np * panel;
            run[np - 1](b);
            for (uint32_t h = 0; h < np; h++)
                join(a, b, t0, r + h * KERN_PANEL, sum + (s + h) * b->n, (int)h);
            b->w += np * panel;
        }
    }
}

/* Tokens [t0, t0 + n). */
IN void block(const struct kern_mm *a, int t, uint32_t t0, uint32_t n, const segment_fn *run)
{
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = a->w;
    struct side x;
    struct job b = {.x = &x, .n = n, .panel = panel};
    for (uint32_t r = a->row0; r < a->row1; r += STRIP * KERN_PANEL) {
        const uint32_t end = a->row1 - r < STRIP * KERN_PANEL ? a->row1 : r + STRIP * KERN_PANEL;
        const uint8_t *after = end < a->row1   ? w + end / KERN_PANEL * panel
                               : t0 + n < a->n ? w + a->row0 / KERN_PANEL * panel
                                               : a->next;
        strip(a, t, &b, t0, (uint32_t[2]){r, end}, after, run);
    }
}

/* Blocks of about the same number of tokens, whole steps but for the last. */
IN void gemm(const struct kern_mm *a, int t, const segment_fn *run)
{
    const uint32_t count = (a->n + BLOCK - 1) / BLOCK;
    const uint8_t *first = (const uint8_t *)a->w +
                           a->row0 / KERN_PANEL * kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint32_t begin = KERN_SEGMENT / KERN_GROUP * p16_group_bytes(p16_of(t));
    for (uint32_t i = 0; i < begin; i += 64)
        _mm_prefetch((const char *)first + i, _MM_HINT_T1);
    for (uint32_t c = 0, t0 = 0, n; c < count; c++, t0 += n) {
        n = (a->n - t0 + count - c - 1) / (count - c);
        n = (n + STEP - 1) / STEP * STEP;
        n = n < a->n - t0 ? n : a->n - t0;
        block(a, t, t0, n, run);
    }
}

#define RUN(name, T, fits)                                                                         \
    static __attribute__((noinline)) void one_##name(const struct job *b)                          \
    {                                                                                              \
        segment(b, T, 1);                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) void pair_##name(const struct job *b)                         \
    {                                                                                              \
        segment(b, T, most_panels(T));                                                             \
    }                                                                                              \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemm(a, T, (const segment_fn[PAIR]){one_##name, pair_##name});                             \
    }
BLOCK_TYPES(RUN)

#define ROW(name, T, fits)                                                                         \
    {"gemm_" #name "_q8_" VARIANT, KERN_GEMM, T, KERN_P16, NEEDS, STEP, RANK, fits,                \
     {.mm = gemm_##name}},
static const struct kern table[] = {BLOCK_TYPES(ROW)};

const struct kern *ACCESSOR(gemm)(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
