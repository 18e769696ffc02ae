/* mm_gemm_avx512.c - block-format products for many tokens, AVX512 with VNNI and without.
 *
 * For up to BLOCK tokens and each segment of 512 columns, panel after panel: a group's weights are
 * decoded into 8 registers and all tokens of the block pass over them, STEP at a time, each adding
 * to its own line of sums in L1. So decoded weights are never stored, and out-of-order execution
 * decodes a group beside the products of the one before; an instruction stream of 8 dot products
 * with broadcast operands, convert, multiply, fma stays at 95 % and more of what it takes in
 * registers alone. Row sums meet in y, segment after segment in ascending order. Q2_K and Q3_K fold
 * their sub-scales into the codes, because the products still fit a byte. Bits equal ref/. Pure;
 * any thread.
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
    float f[KERN_PANEL];
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

/* What a panel's segment needs. */
struct job {
    struct side *x;
    const uint8_t *w, *next;  /* panel; what comes after this segment, to ask for */
    uint32_t n, g0, len, ask; /* ask: lines of next per step */
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

/* Tokens [n0, n0 + nt) over group i; t and nt are constants. */
IN void step(const int t, const int nt, struct side *s, uint32_t n0, uint32_t i,
             const struct group *w)
{
    const size_t at = i / 2 * s->stride + i % 2 * KERN_GROUP;
    const __mmask16 begun = i == 0 ? 0 : 0xffff;
    __m512i acc[STEP], acc2[STEP], sum[STEP];
    const int8_t *q[STEP];
    UNROLL
    for (int n = 0; n < nt; n++) {
        const struct tok *x = &s->x[n0 + (uint32_t)n];
        q[n] = s->q[n0 + (uint32_t)n] + at;
        acc[n] = acc2[n] = _mm512_setzero_si512();
        if (start_of(t) != 0)
            acc[n] = _mm512_set1_epi32(x->a[i]);
        if (start_of(t) != 0 && two_dots(t))
            acc2[n] = _mm512_set1_epi32(x->b[i]);
    }
    UNROLL
    for (int j = 0; j < 8; j++)
        UNROLL
    for (int n = 0; n < nt; n++)
        dot4(lump_of(t), j, two_dots(t) && j >= 4 ? &acc2[n] : &acc[n], &sum[n], w->q[j],
             bcast4(q[n] + 4 * j));
    UNROLL
    for (int n = 0; n < nt; n++) {
        struct tok *x = &s->x[n0 + (uint32_t)n];
        __m512 as = _mm512_set1_ps(x->scale[i]), dot = _mm512_cvtepi32_ps(acc[n]),
               f = _mm512_maskz_load_ps(begun, x->f);
        if (two_dots(t))
            dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc2[n]), w->v, _mm512_mul_ps(dot, w->u));
        f = _mm512_fmadd_ps(dot, _mm512_mul_ps(w->d, as), f);
        if (has_min(t))
            f = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(x->b[i])),
                                _mm512_mul_ps(w->m, as), f);
        if (has_half_mins(t))
            f = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(_mm512_madd_epi16(w->low, _mm512_set1_epi32(x->b[i]))),
                _mm512_mul_ps(w->m, as), f);
        _mm512_store_ps(x->f, f);
    }
}

/* A panel's segment; t is a constant. What comes next is asked for a few lines beside each step:
 * all at once they would fill the miss buffers and stop the pipeline. */
IN void segment(const struct job *b, int t)
{
    const struct p16 l = p16_of(t);
    const uint8_t *next = b->next;
    struct side *x = b->x;
    for (uint32_t i = 0; i < b->len; i++) {
        struct group w;
        uint32_t n = 0;
        decode_group(t, b->w + p16_group_at(l, b->g0 + i), b->w + p16_head_at(l, b->g0 + i), &w);
        for (; n + STEP <= b->n; n += STEP) {
            for (uint32_t c = 0; c < b->ask; c++, next += 64)
                _mm_prefetch((const char *)next, _MM_HINT_T1);
            step(t, STEP, x, n, i, &w);
        }
        if (n < b->n)
            for (uint32_t c = 0; c < b->ask; c++, next += 64)
                _mm_prefetch((const char *)next, _MM_HINT_T1);
        switch (b->n - n) {
        case 3:
            step(t, 3, x, n, i, &w);
            break;
        case 2:
            step(t, 2, x, n, i, &w);
            break;
        case 1:
            step(t, 1, x, n, i, &w);
            break;
        default:
            break;
        }
    }
}

/* Panels of a call from which on copying the codes pays. */
#define COPY_PANELS 6

/* Tokens [t0, t0 + n) in the segment from group g0. */
IN void prepare(const struct kern_mm *a, int t, uint32_t t0, const struct job *b)
{
    struct side *s = b->x;
    const bool copy = a->row1 - a->row0 >= COPY_PANELS * KERN_PANEL;
    const __mmask16 m = (__mmask16)((1u << b->len) - 1);
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
        _mm512_store_ps(x->scale, _mm512_maskz_loadu_ps(m, a->scale + g));
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
}

/* segment() of a type. */
typedef void (*segment_fn)(const struct job *b);

/* A panel's sums of one segment join those before it; with the last one they are rows of y. Sums
 * wait side by side, not in y: its rows lie far apart, often in the same cache sets. */
IN void join(const struct kern_mm *a, const struct job *b, uint32_t t0, uint32_t row,
             float (*sum)[KERN_PANEL], bool last)
{
    const __mmask16 lanes = lanes_of(a, row);
    for (uint32_t i = 0; i < b->n; i++) {
        __m512 f = _mm512_load_ps(b->x->x[i].f);
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
              const uint8_t *after, segment_fn run)
{
    const uint32_t groups = a->k / KERN_GROUP;
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const struct p16 l = p16_of(t);
    const uint8_t *first = (const uint8_t *)a->w + row[0] / KERN_PANEL * panel;
    float sum[STRIP * BLOCK][KERN_PANEL] __attribute__((aligned(64)));
    for (b->g0 = 0; b->g0 < groups; b->g0 += SEG_GROUPS) {
        const bool last = groups - b->g0 <= SEG_GROUPS;
        b->len = last ? groups - b->g0 : SEG_GROUPS;
        const uint32_t lines = (b->len * p16_group_bytes(l) + 63) / 64,
                       steps = b->len * ((b->n + STEP - 1) / STEP);
        b->ask = (lines + steps - 1) / steps;
        prepare(a, t, t0, b);
        b->w = first;
        for (uint32_t r = row[0], s = 0; r < row[1]; r += KERN_PANEL, s++, b->w += panel) {
            if (r + KERN_PANEL < row[1])
                b->next = b->w + panel + p16_head_at(l, b->g0);
            else if (!last)
                b->next = first + p16_head_at(l, b->g0 + SEG_GROUPS);
            else
                b->next = after != NULL ? after : b->w + panel;
            run(b);
            join(a, b, t0, r, sum + s * b->n, last);
        }
    }
}

/* Tokens [t0, t0 + n). */
IN void block(const struct kern_mm *a, int t, uint32_t t0, uint32_t n, segment_fn run)
{
    const size_t panel = kern_panel_bytes(KERN_P16, (enum dtype)t, a->k);
    const uint8_t *w = a->w;
    struct side x;
    struct job b = {.x = &x, .n = n};
    for (uint32_t r = a->row0; r < a->row1; r += STRIP * KERN_PANEL) {
        const uint32_t end = a->row1 - r < STRIP * KERN_PANEL ? a->row1 : r + STRIP * KERN_PANEL;
        const uint8_t *after = end < a->row1   ? w + end / KERN_PANEL * panel
                               : t0 + n < a->n ? w + a->row0 / KERN_PANEL * panel
                                               : a->next;
        strip(a, t, &b, t0, (uint32_t[2]){r, end}, after, run);
    }
}

/* Blocks of about the same number of tokens, whole steps but for the last. */
IN void gemm(const struct kern_mm *a, int t, segment_fn run)
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
    static __attribute__((noinline)) void segment_##name(const struct job *b)                      \
    {                                                                                              \
        segment(b, T);                                                                             \
    }                                                                                              \
    static void gemm_##name(const struct kern_mm *a)                                               \
    {                                                                                              \
        gemm(a, T, segment_##name);                                                                \
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
