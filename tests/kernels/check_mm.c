/* check_mm.c - every GEMV and GEMM row against its ref row, bit for bit, and the ref rows against
 * sums in double.
 *
 * Shapes have tails in rows, columns and tokens; inputs end at inaccessible pages; outputs lie in
 * poison, and everything outside the computed rows must stay poison. Values are random or extreme
 * (codes -128 and 127, zero and subnormal scales, activations all -127). One thread.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"
#include "checkkern.h"
#include "config.h"
#include "tables.h"

/* One problem: file rows, activations, the wanted bits. */
struct problem {
    enum dtype t;
    enum kern_act act;
    uint32_t group;            /* elements under one activation scale; 0: fp32 activations */
    uint32_t rows, k, n, held; /* held: activation rows that exist */
    struct check_buf file, packed, q, scale, sum, x, y;
    uint32_t tok[80];
    bool gather;
    size_t ldq, ldg, ldx, ldy;
    float *want; /* [n][rows] */
};

static void close_problem(struct problem *p)
{
    struct check_buf *all[] = {&p->file, &p->packed, &p->q, &p->scale, &p->sum, &p->x, &p->y};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_buf_close(all[i]);
    mem_free(p->want);
    p->want = NULL;
}

static uint16_t some_half(struct check_rng *r, bool extreme)
{
    static const uint16_t odd[] = {0x0000, 0x8000, 0x0001, 0x8003, 0x03ff, 0x7bff, 0xfbff, 0x3c00};
    if (extreme && check_below(r, 2))
        return odd[check_below(r, 8)];
    return f32_to_f16(check_normal(r) * 0.05f);
}

static void put16(uint8_t *b, int at, uint16_t v)
{
    memcpy(b + at, &v, 2);
}

/* Random bytes, then legal values in the fields that hold scales. */
static void fill_block(struct check_rng *r, enum dtype t, uint8_t *b, bool extreme)
{
    static const uint8_t flat[] = {0x80, 0x7f, 0xff, 0x00, 0x81, 0x88};
    uint32_t bytes = dtype_info(t)->block_bytes;
    bool same = extreme && check_below(r, 2);
    uint8_t v = flat[check_below(r, 6)];
    for (uint32_t i = 0; i < bytes; i++)
        b[i] = same ? v : (uint8_t)check_u64(r);
    switch (t) {
    case DT_FP8: /* single codes */
        if ((b[0] & 0x7f) == 0x7f)
            b[0] ^= 1;
        break;
    case DT_INT8:
        break;
    case DT_MXFP4:
        b[0] = (uint8_t)(extreme ? check_below(r, 4) * 60 + check_below(r, 3)
                                 : 110 + check_below(r, 20));
        break;
    case DT_Q4_1:
    case DT_Q5_1:
    case DT_Q4_K:
    case DT_Q5_K:
        put16(b, 2, some_half(r, extreme));
        put16(b, 0, some_half(r, extreme));
        break;
    case DT_Q6_K:
        put16(b, 208, some_half(r, extreme));
        break;
    case DT_Q3_K:
        put16(b, 108, some_half(r, extreme));
        break;
    case DT_Q2_K:
        put16(b, 80, some_half(r, extreme));
        put16(b, 82, some_half(r, extreme));
        break;
    case DT_INT4:
        put16(b, 0,
              f32_to_bf16(extreme && check_below(r, 4) == 0 ? 3e-39f : check_normal(r) * 0.05f));
        break;
    case DT_F32: {
        float f = extreme && check_below(r, 4) == 0 ? 1e-41f : check_normal(r);
        memcpy(b, &f, 4);
        break;
    }
    case DT_BF16:
        put16(b, 0, f32_to_bf16(extreme && check_below(r, 4) == 0 ? 3e-39f : check_normal(r)));
        break;
    default:
        put16(b, 0, some_half(r, extreme));
        break;
    }
}

/* Extreme: half of the problems have zero and subnormal scales; the others none, but such that the
 * products with the least scales of MXFP4 are subnormal or just not, where kernels may go two ways.
 */
static void fill_tokens(struct check_rng *r, struct problem *p, bool extreme)
{
    const uint32_t edge = extreme && check_below(r, 2) ? 1 + check_below(r, 2) : 0;
    for (uint32_t i = 0; i < p->held; i++) {
        for (uint32_t k = 0; k < p->k; k++)
            if (p->group == 0)
                ((float *)p->x.p)[i * p->ldx + k] =
                    check_normal(r) * (extreme && check_below(r, 8) == 0 ? 1e-30f : 1.0f);
        for (uint32_t g = 0; p->group > 0 && g < p->k / p->group; g++) {
            int32_t sum = 0, mode = extreme ? (int32_t)check_below(r, 4) : 3;
            for (uint32_t j = 0; j < p->group; j++) {
                int q = mode == 0   ? -127
                        : mode == 1 ? 127
                        : mode == 2 ? (j % 2 ? 127 : -127)
                                    : (int)check_below(r, 255) - 127;
                ((int8_t *)p->q.p)[i * p->ldq + g * p->group + j] = (int8_t)q;
                sum += q;
            }
            ((int32_t *)p->sum.p)[i * p->ldg + g] = sum;
            float s = fabsf(check_normal(r)) * 0.02f;
            if (edge > 0)
                s = (float)edge * (1 + s);
            else if (extreme && check_below(r, 4) == 0)
                s = check_below(r, 2) ? 0 : 1e-40f;
            ((float *)p->scale.p)[i * p->ldg + g] = s;
        }
    }
}

/* Buffers end exactly where the last row's last element ends, as far as alignment allows. */
static bool open_problem(struct problem *p, struct check_rng *r, enum kern_layout l, bool extreme)
{
    const struct dtype_info *info = dtype_info(p->t);
    uint64_t row = dtype_row_bytes(p->t, p->k);
    uint32_t pad = check_below(r, 3), groups = p->group > 0 ? p->k / p->group : 0;
    p->gather = check_below(r, 2);
    p->held = p->gather ? p->n + 3 : p->n;
    p->ldq = p->k + 64 * pad;
    p->ldg = groups + pad;
    p->ldx = p->k + pad;
    p->ldy = p->rows + 5 * check_below(r, 2);
    bool ok = check_buf_open(&p->file, p->rows * row, 1) &&
              check_buf_open(&p->packed, kern_packed_bytes(l, p->t, p->rows, p->k),
                             l == KERN_P16 ? 64 : 1) &&
              check_buf_open(&p->y, p->n * p->ldy * 4, 4);
    if (p->group > 0)
        ok = ok && check_buf_open(&p->q, (p->held - 1) * p->ldq + p->k, 64) &&
             check_buf_open(&p->scale, ((p->held - 1) * p->ldg + groups) * 4, 4) &&
             check_buf_open(&p->sum, ((p->held - 1) * p->ldg + groups) * 4, 4);
    else
        ok = ok && check_buf_open(&p->x, ((p->held - 1) * p->ldx + p->k) * 4, 4);
    p->want = mem_alloc((size_t)p->n * p->rows * 4);
    if (!ok || p->want == NULL)
        return false;
    for (uint32_t i = 0; i < p->rows; i++) {
        uint8_t *at = p->file.p + i * row, *end = at + row,
                *codes = at + dtype_row_scale_bytes(p->t, p->k);
        for (; at < codes; at += 4) {
            float f = extreme && check_below(r, 4) == 0 ? 1e-41f : check_normal(r) * 0.01f;
            memcpy(at, &f, 4);
        }
        for (; at < end; at += info->block_bytes)
            fill_block(r, p->t, at, extreme);
    }
    fill_tokens(r, p, extreme);
    for (uint32_t i = 0; i < p->n; i++)
        p->tok[i] = p->gather ? check_below(r, p->held) : i;
    return kern_pack(l, p->t, p->file.p, p->rows, p->k, p->packed.p) == -1;
}

static struct kern_mm args_of(const struct problem *p, const void *w, float *y, size_t ldy)
{
    return (struct kern_mm){.w = w,
                            .k = p->k,
                            .row1 = p->rows,
                            .n = p->n,
                            .tok = p->gather ? p->tok : NULL,
                            .q = (const int8_t *)p->q.p,
                            .scale = (const float *)p->scale.p,
                            .sum = (const int32_t *)p->sum.p,
                            .x = (const float *)p->x.p,
                            .ldq = p->ldq,
                            .ldg = p->ldg,
                            .ldx = p->ldx,
                            .y = y,
                            .ldy = ldy};
}

static int guarded(const struct kern *k, const struct kern_mm *a)
{
    volatile int sig = sigsetjmp(check_trap, 1);
    if (sig == 0) {
        check_armed = true;
        k->run.mm(a);
        check_armed = false;
    }
    return sig;
}

/* Rows [row0, row1) hold the wanted bits, everything else poison. */
static bool right(const struct problem *p, uint32_t row0, uint32_t row1, char what[static 160])
{
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t r = 0; r < p->ldy; r++) {
            const uint8_t *at = p->y.p + 4 * (i * p->ldy + r);
            uint32_t got = load_u32(at), want = 0;
            if (r >= row0 && r < row1)
                want = fp_bits(p->want[i * p->rows + r]);
            else
                for (size_t b = 0; b < 4; b++)
                    want |= (uint32_t)(uint8_t)(0xa5 ^ (4 * (i * p->ldy + r) + b) * 29) << 8 * b;
            if (got == want)
                continue;
            snprintf(what, 160,
                     "rows %u (%u..%u) k %u n %u: token %u row %u has bits %08x, expected %08x%s",
                     p->rows, row0, row1, p->k, p->n, i, r, got, want,
                     r >= row0 && r < row1 ? "" : " (a place that must not be written)");
            return false;
        }
    return true;
}

/* The sum in double over decoded weights and activations: |difference| <= c * eps * K * sum |w||a|,
 * plus what subnormal scale products lose. */
static bool near_double(const struct problem *p, char what[static 160])
{
    float *w = mem_alloc(p->k * sizeof *w);
    bool ok = w != NULL;
    for (uint32_t r = 0; ok && r < p->rows; r++) {
        kern_decode(p->t, p->file.p + r * dtype_row_bytes(p->t, p->k), p->k, w);
        for (uint32_t i = 0; i < p->n && ok; i++) {
            double s = 0, mag = 0, y = (double)p->want[i * p->rows + r];
            for (uint32_t k = 0; k < p->k; k++) {
                size_t x = p->tok[i];
                double a = p->group > 0
                               ? ((const int8_t *)p->q.p)[x * p->ldq + k] *
                                     (double)((const float *)p->scale.p)[x * p->ldg + k / p->group]
                               : (double)((const float *)p->x.p)[x * p->ldx + k];
                s += (double)w[k] * a;
                mag += fabs((double)w[k] * a);
            }
            /* minimums: decoded values are rounded sums, which adds a rounding of the larger term:
             * c = 4 */
            double bound = 4 * 0x1p-24 * p->k * mag + p->k * 0x1p-135;
            ok = fabs(y - s) <= bound;
            if (!ok)
                snprintf(what, 160,
                         "rows %u k %u n %u: token %u row %u is %.9g, the sum in double %.17g",
                         p->rows, p->k, p->n, i, r, y, s);
        }
    }
    mem_free(w);
    return ok;
}

/* One shape. The row range is computed in two calls with a random cut, then a random range alone.
 */
static const char *one(const struct check_opts *o, const struct kern *k, struct check_rng *r,
                       struct problem *p, bool extreme)
{
    static char what[160];
    const struct kern *ref = kern_find(k->op, k->dtype, 0, NULL);
    int sig;
    if (!open_problem(p, r, k->layout, extreme))
        return "no memory, or legal weights were refused";
    struct kern_mm a = args_of(p, p->file.p, p->want, p->rows);
    ref->run.mm(&a);
    if (k == ref && !extreme && !near_double(p, what))
        return what;
    for (int pass = 0; pass < 2; pass++) {
        uint32_t panels = (p->rows + KERN_PANEL - 1) / KERN_PANEL,
                 cut = check_below(r, panels) * KERN_PANEL;
        uint32_t row0 = pass ? cut : 0,
                 row1 = pass ? row0 + 1 + check_below(r, p->rows - row0) : p->rows;
        a = args_of(p, p->packed.p, (float *)p->y.p, p->ldy);
        check_poison(p->y.p, p->y.bytes);
        if (pass == 0 && cut > 0) {
            a.row1 = cut;
            if ((sig = guarded(k, &a)) != 0)
                break;
        }
        a.row0 = cut;
        a.row1 = row1;
        if ((sig = guarded(k, &a)) != 0)
            break;
        check_break(o, k, p->y.p + 4 * row0, 4 * (row1 - row0));
        if (!right(p, row0, row1, what))
            return what;
    }
    if (sig == 0)
        return NULL;
    snprintf(what, sizeof what, "signal %d at rows %u k %u n %u", sig, p->rows, p->k, p->n);
    return what;
}

/* NULL, or what is wrong with a shape. */
static const char *check_shape(const struct check_opts *o, const struct kern *k,
                               struct check_rng *r, const struct kern_shape *s)
{
    struct problem p = {.t = (enum dtype)k->dtype,
                        .act = kern_act_of((enum dtype)k->dtype),
                        .rows = s->rows,
                        .k = s->k,
                        .n = s->n};
    p.group = p.act == KERN_ACT_ROW ? p.k : p.act == KERN_ACT_Q8 ? KERN_GROUP : 0;
    const char *what = k->fits != NULL && !k->fits(s) ? "fits() refuses a shape of the format"
                                                      : one(o, k, r, &p, check_below(r, 3) == 0);
    close_problem(&p);
    return what;
}

static int check_kernel(const struct check_opts *o, const struct kern *k)
{
    static const uint32_t rows[] = {1, 15, 16, 17, 33, 64, 81},
                          tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 17, 26, 61};
    static const uint32_t k32[] = {32, 64, 480, 512, 544, 1536}, k256[] = {256, 512, 768, 1536},
                          k1[] = {1, 31, 64, 511, 512, 513, 1536};
    uint32_t block = dtype_info((enum dtype)k->dtype)->block_elems;
    bool whole = kern_act_of((enum dtype)k->dtype) != KERN_ACT_F32;
    const uint32_t *ks = block == 256 ? k256 : whole ? k32 : k1;
    size_t nk = block == 256 ? 4 : whole ? 6 : 7;
    /* the last: more than a call's scratch holds */
    size_t nt = sizeof tokens / sizeof tokens[0] - (k->op == KERN_GEMV || (whole && block > 1));
    struct check_rng r = {o->seed};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t j = 0; j < nk; j++)
            for (size_t t = 0; t < nt; t++) {
                const char *what =
                    check_shape(o, k, &r, &(struct kern_shape){rows[i], ks[j], tokens[t]});
                if (what != NULL)
                    return check_row(o, k, what);
            }
    /* more panels and tokens than GEMM kernels take at once, wherever rows are cut; two segments */
    struct kern_shape many = {561, block == 256 ? 768 : 544, 67};
    return check_row(o, k, k->op == KERN_GEMM ? check_shape(o, k, &r, &many) : NULL);
}

/* Rows over a model of instructions that few CPUs have, or over another encoding of them: the logic
 * of kernels that the table can only offer elsewhere. */
static int check_emulated(const struct check_opts *o)
{
    int bad = 0;
#if KT_HAVE_AVX512
    const struct kern *(*const table[])(size_t *) = {kern_amx_gemm_emulated, kern_amx_i8_emulated,
                                                     kern_avxvnni_evex_mm, kern_avxvnni_evex_gemm,
                                                     kern_avxvnni_evex_i8};
    for (size_t x = 0; x < sizeof table / sizeof table[0]; x++) {
        size_t n;
        const struct kern *t = table[x](&n);
        for (size_t i = 0; i < n; i++)
            if (check_wants(o, &t[i]))
                bad |= check_kernel(o, &t[i]);
    }
#else
    (void)o;
#endif
    return bad;
}

int check_mm(const struct check_opts *o)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        if ((t[i]->op == KERN_GEMV || t[i]->op == KERN_GEMM) && check_wants(o, t[i]))
            bad |= check_kernel(o, t[i]);
    return bad | check_emulated(o);
}
