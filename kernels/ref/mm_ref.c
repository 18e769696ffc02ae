/* mm_ref.c - the matrix products in plain C on file rows: the definition of every variant's bits
 * ("Canonical arithmetic"), complete and always built.
 *
 * Block formats, per row and token: dot_g is the exact integer dot product of group g; acc =
 * fma((float)dot_g, fl32(d_g * a_scale_g), acc), and where the format has minimums acc =
 * fma((float)sum_g, fl32(m_g * a_scale_g), acc) directly after; g ascends from acc = 0 inside a
 * segment of 16 groups; segment results are added in ascending order, beginning with the first one
 * itself. Plain formats: acc = fma(w_k, x_k, acc), the same segments. Clarity before speed; each
 * weight group is decoded once for up to 16 tokens. Compiled without ISA flags. Pure; any thread.
 */
#include <math.h>

#include "blocks.h"
#include "kern.h"
#include "tables.h"

#define TOKENS 16

/* One group of 32 of a row. Types without sub-scales have sub = {1, 1}. */
struct group {
    int32_t c[32];
    int32_t sub[2]; /* integer scales of columns 0..15 and 16..31 */
    int32_t low[2]; /* Q2_K: integer minimums of both */
    float d, m;
};

static void nibbles(const uint8_t *q, const int8_t *table, int zero, int32_t *c)
{
    for (int j = 0; j < 16; j++) {
        c[j] = table ? table[q[j] & 15] : (q[j] & 15) - zero;
        c[j + 16] = table ? table[q[j] >> 4] : (q[j] >> 4) - zero;
    }
}

static void fifth(uint32_t h, int32_t *c)
{
    for (int i = 0; i < 32; i++)
        c[i] += (int32_t)((h >> i) & 1) << 4;
}

/* Q4_K (qh NULL) and Q5_K */
static void group_k45(const uint8_t *b, const uint8_t *qh, const uint8_t *qs, uint32_t j,
                      struct group *o)
{
    uint8_t sc, mn;
    kq_scale_min(b + 4, (int)j, &sc, &mn);
    o->d = load_half(b) * (float)sc;
    o->m = -(load_half(b + 2) * (float)mn);
    for (int l = 0; l < 32; l++)
        o->c[l] = ((qs[32 * (j / 2) + (uint32_t)l] >> 4 * (j % 2)) & 15) |
                  (qh ? (qh[l] >> j & 1) << 4 : 0);
}

static void group_q6_k(const uint8_t *b, uint32_t j, struct group *o)
{
    o->d = load_half(b + 208);
    o->sub[0] = (int8_t)b[192 + 2 * j];
    o->sub[1] = (int8_t)b[193 + 2 * j];
    for (int l = 0; l < 32; l++)
        o->c[l] = q6k_code(b, (int)(32 * j) + l) - 32;
}

static void group_q3_k(const uint8_t *b, uint32_t j, struct group *o)
{
    o->d = load_half(b + 108);
    o->sub[0] = q3k_scale(b + 96, (int)(2 * j));
    o->sub[1] = q3k_scale(b + 96, (int)(2 * j + 1));
    for (uint32_t l = 0; l < 32; l++)
        o->c[l] = ((b[32 + 32 * (j / 4) + l] >> 2 * (j % 4)) & 3) + 4 * ((b[l] >> j) & 1) - 4;
}

static void group_q2_k(const uint8_t *b, uint32_t j, struct group *o)
{
    o->d = load_half(b + 80);
    o->m = -load_half(b + 82);
    for (uint32_t h = 0; h < 2; h++) {
        o->sub[h] = b[2 * j + h] & 15;
        o->low[h] = b[2 * j + h] >> 4;
    }
    for (uint32_t l = 0; l < 32; l++)
        o->c[l] = (b[16 + 32 * (j / 4) + l] >> 2 * (j % 4)) & 3;
}

static void get_group(enum dtype t, const uint8_t *row, uint32_t g, struct group *o)
{
    const struct dtype_info *info = dtype_info(t);
    uint32_t per = info->block_elems / KERN_GROUP;
    const uint8_t *b = row + (size_t)(g / per) * info->block_bytes;
    o->sub[0] = o->sub[1] = 1;
    o->low[0] = o->low[1] = 0;
    o->m = 0;
    o->d = t == DT_MXFP4 ? e8m0_half(b[0]) : t == DT_INT4 ? bf16_to_f32(load_u16(b)) : load_half(b);
    switch (t) {
    case DT_Q8_0:
        for (int i = 0; i < 32; i++)
            o->c[i] = (int8_t)b[2 + i];
        break;
    case DT_Q4_0:
    case DT_INT4:
        nibbles(b + 2, NULL, 8, o->c);
        break;
    case DT_IQ4_NL:
        nibbles(b + 2, code_iq4, 0, o->c);
        break;
    case DT_MXFP4:
        nibbles(b + 1, code_e2m1x2, 0, o->c);
        break;
    case DT_Q4_1:
        o->m = load_half(b + 2);
        nibbles(b + 4, NULL, 0, o->c);
        break;
    case DT_Q5_0:
        nibbles(b + 6, NULL, 16, o->c);
        fifth(load_u32(b + 2), o->c);
        break;
    case DT_Q5_1:
        o->m = load_half(b + 2);
        nibbles(b + 8, NULL, 0, o->c);
        fifth(load_u32(b + 4), o->c);
        break;
    case DT_Q4_K:
        group_k45(b, NULL, b + 16, g % 8, o);
        break;
    case DT_Q5_K:
        group_k45(b, b + 16, b + 48, g % 8, o);
        break;
    case DT_IQ4_XS:
        o->d = load_half(b) * (float)iq4xs_scale(b, (int)(g % 8));
        nibbles(b + 8 + 16 * (g % 8), code_iq4, 0, o->c);
        break;
    case DT_Q2_K:
        group_q2_k(b, g % 8, o);
        break;
    case DT_Q3_K:
        group_q3_k(b, g % 8, o);
        break;
    default:
        group_q6_k(b, g % 8, o);
        break;
    }
}

static bool has_min(enum dtype t)
{
    return t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q4_K || t == DT_Q5_K;
}

static float add_group(enum dtype t, const struct group *w, const int8_t *q, float scale,
                       int32_t sum, float acc)
{
    int32_t a = 0, b = 0, sa = 0, sb = 0;
    for (int i = 0; i < 16; i++) {
        a += w->c[i] * q[i];
        b += w->c[i + 16] * q[i + 16];
        sa += q[i];
        sb += q[i + 16];
    }
    acc = fmaf((float)(w->sub[0] * a + w->sub[1] * b), w->d * scale, acc);
    if (t == DT_Q2_K)
        return fmaf((float)(w->low[0] * sa + w->low[1] * sb), w->m * scale, acc);
    return has_min(t) ? fmaf((float)sum, w->m * scale, acc) : acc;
}

static void block_rows(const struct kern_mm *a, enum dtype t)
{
    uint32_t groups = a->k / KERN_GROUP, seg = KERN_SEGMENT / KERN_GROUP;
    size_t bytes = dtype_row_bytes(t, a->k);
    for (uint32_t r = a->row0; r < a->row1; r++)
        for (uint32_t t0 = 0; t0 < a->n; t0 += TOKENS) {
            uint32_t nt = a->n - t0 < TOKENS ? a->n - t0 : TOKENS;
            float acc[TOKENS] = {0}, total[TOKENS];
            for (uint32_t g = 0; g < groups; g++) {
                struct group w;
                get_group(t, (const uint8_t *)a->w + r * bytes, g, &w);
                for (uint32_t i = 0; i < nt; i++) {
                    size_t x = a->tok ? a->tok[t0 + i] : t0 + i;
                    acc[i] = add_group(t, &w, a->q + x * a->ldq + (size_t)g * KERN_GROUP,
                                       a->scale[x * a->ldg + g], a->sum[x * a->ldg + g], acc[i]);
                    if (g % seg == seg - 1 || g == groups - 1) {
                        total[i] = g < seg ? acc[i] : total[i] + acc[i];
                        acc[i] = 0;
                    }
                }
            }
            for (uint32_t i = 0; i < nt; i++)
                a->y[(t0 + i) * a->ldy + r] = total[i];
        }
}

/* Elements [s, s + len) of a row of k. */
static void get_plain(enum dtype t, const uint8_t *row, uint32_t k, uint32_t s, uint32_t len,
                      float *w)
{
    if (t != DT_FP8) {
        kern_decode(t, row + dtype_row_bytes(t, s), len, w);
        return;
    }
    const uint8_t *code = row + dtype_row_scale_bytes(t, k);
    for (uint32_t i = 0; i < len; i++)
        w[i] = e4m3_to_f32(code[s + i]) * row_scale(t, row, s + i);
}

static void plain_rows(const struct kern_mm *a, enum dtype t)
{
    size_t bytes = dtype_row_bytes(t, a->k);
    float w[KERN_SEGMENT];
    for (uint32_t r = a->row0; r < a->row1; r++)
        for (uint32_t s = 0; s < a->k; s += KERN_SEGMENT) {
            uint32_t len = a->k - s < KERN_SEGMENT ? a->k - s : KERN_SEGMENT;
            get_plain(t, (const uint8_t *)a->w + r * bytes, a->k, s, len, w);
            for (uint32_t i = 0; i < a->n; i++) {
                const float *x = a->x + (a->tok ? a->tok[i] : i) * a->ldx + s;
                float acc = 0, *y = &a->y[i * a->ldy + r];
                for (uint32_t k = 0; k < len; k++)
                    acc = fmaf(w[k], x[k], acc);
                *y = s == 0 ? acc : *y + acc;
            }
        }
}

/* y = fl32((float)dot * fl32(scale * a_scale)), dot exact over the whole row. */
static void int8_rows(const struct kern_mm *a, enum dtype t)
{
    size_t bytes = dtype_row_bytes(t, a->k);
    for (uint32_t r = a->row0; r < a->row1; r++) {
        const uint8_t *row = (const uint8_t *)a->w + r * bytes, *code = row + 4;
        for (uint32_t i = 0; i < a->n; i++) {
            size_t x = a->tok ? a->tok[i] : i;
            const int8_t *q = a->q + x * a->ldq;
            int32_t dot = 0;
            for (uint32_t k = 0; k < a->k; k++)
                dot += (int8_t)code[k] * q[k];
            a->y[i * a->ldy + r] = (float)dot * (row_scale(t, row, 0) * a->scale[x * a->ldg]);
        }
    }
}

static bool fits_row(const struct kern_shape *s)
{
    return s->k % 32 == 0 && s->k <= KERN_ROW_MAX;
}

static bool fits_256(const struct kern_shape *s)
{
    return s->k % 256 == 0;
}

static bool fits_32(const struct kern_shape *s)
{
    return s->k % 32 == 0;
}

#define RUN(t, T, rows)                                                                            \
    static void mm_##t(const struct kern_mm *a)                                                    \
    {                                                                                              \
        rows(a, T);                                                                                \
    }
RUN(bf16, DT_BF16, plain_rows)
RUN(f16, DT_F16, plain_rows)
RUN(f32, DT_F32, plain_rows)
RUN(fp8, DT_FP8, plain_rows)
RUN(int8, DT_INT8, int8_rows)
RUN(q8_0, DT_Q8_0, block_rows)
RUN(q4_0, DT_Q4_0, block_rows)
RUN(int4, DT_INT4, block_rows)
RUN(q4_1, DT_Q4_1, block_rows)
RUN(q5_0, DT_Q5_0, block_rows)
RUN(q5_1, DT_Q5_1, block_rows)
RUN(q2_k, DT_Q2_K, block_rows)
RUN(q3_k, DT_Q3_K, block_rows)
RUN(q4_k, DT_Q4_K, block_rows)
RUN(q5_k, DT_Q5_K, block_rows)
RUN(q6_k, DT_Q6_K, block_rows)
RUN(iq4_xs, DT_IQ4_XS, block_rows)
RUN(iq4_nl, DT_IQ4_NL, block_rows)
RUN(mxfp4, DT_MXFP4, block_rows)

#define BOTH(t, T, act, fit)                                                                       \
    {"gemv_" #t "_" act "_ref", KERN_GEMV, T, KERN_ROWS, 0, 1, 0, fit, {.mm = mm_##t}},            \
    {                                                                                              \
        "gemm_" #t "_" act "_ref", KERN_GEMM, T, KERN_ROWS, 0, TOKENS, 0, fit,                     \
        {                                                                                          \
            .mm = mm_##t                                                                           \
        }                                                                                          \
    }
static const struct kern table[] = {
    BOTH(fp8, DT_FP8, "f32", NULL),          BOTH(int8, DT_INT8, "q8row", fits_row),
    BOTH(bf16, DT_BF16, "f32", NULL),        BOTH(f16, DT_F16, "f32", NULL),
    BOTH(f32, DT_F32, "f32", NULL),          BOTH(q8_0, DT_Q8_0, "q8", fits_32),
    BOTH(q4_0, DT_Q4_0, "q8", fits_32),      BOTH(q4_1, DT_Q4_1, "q8", fits_32),
    BOTH(q5_0, DT_Q5_0, "q8", fits_32),      BOTH(q5_1, DT_Q5_1, "q8", fits_32),
    BOTH(q4_k, DT_Q4_K, "q8", fits_256),     BOTH(q6_k, DT_Q6_K, "q8", fits_256),
    BOTH(iq4_nl, DT_IQ4_NL, "q8", fits_32),  BOTH(mxfp4, DT_MXFP4, "q8", fits_32),
    BOTH(int4, DT_INT4, "q8", fits_32),      BOTH(q2_k, DT_Q2_K, "q8", fits_256),
    BOTH(q3_k, DT_Q3_K, "q8", fits_256),     BOTH(q5_k, DT_Q5_K, "q8", fits_256),
    BOTH(iq4_xs, DT_IQ4_XS, "q8", fits_256),
};

const struct kern *kern_ref_mm(size_t *n)
{
    *n = sizeof table / sizeof table[0];
    return table;
}
