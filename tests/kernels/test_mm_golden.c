/* test_mm_golden.c - the matrix products, from fp32 activations to results, against bits that numpy
 * computed (mm_golden.h, made by mm_golden.py).
 *
 * checkkern compares variants with ref; this test is what holds ref, packing and all variants that
 * this CPU runs to the definition. Plain program, one thread: 0 pass, 1 fail, 99 no memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"
#include "kern.h"
#include "mm_golden.h"

enum { ROWS = 19, N = 3 };

static uint32_t state;

static uint32_t word(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float number(void)
{
    return (float)word() * 0x1p-24f - 0.5f;
}

static void *take(size_t bytes)
{
    void *p = mem_aligned(64, bytes);
    if (p == NULL)
        exit(99);
    return p;
}

static void fill_blocks(enum dtype t, uint8_t *b, size_t blocks)
{
    static const struct {
        enum dtype t;
        int at[2];
    } halves[] = {{DT_Q8_0, {0, -1}},   {DT_Q4_0, {0, -1}},   {DT_Q4_1, {0, 2}},
                  {DT_Q5_0, {0, -1}},   {DT_Q5_1, {0, 2}},    {DT_IQ4_NL, {0, -1}},
                  {DT_Q4_K, {0, 2}},    {DT_Q6_K, {208, -1}}, {DT_Q5_K, {0, 2}},
                  {DT_IQ4_XS, {0, -1}}, {DT_Q3_K, {108, -1}}, {DT_Q2_K, {80, 82}}};
    size_t size = dtype_info(t)->block_bytes;
    for (size_t i = 0; i < blocks * size; i++)
        b[i] = (uint8_t)(word() >> 16);
    for (size_t i = 0; i < blocks; i++, b += size) {
        for (size_t h = 0; h < sizeof halves / sizeof halves[0]; h++)
            for (int j = 0; j < 2 && halves[h].t == t; j++)
                if (halves[h].at[j] >= 0) {
                    b[halves[h].at[j]] = (uint8_t)(word() >> 16);
                    b[halves[h].at[j] + 1] = (uint8_t)(0x2c + (word() >> 23));
                }
        if (t == DT_MXFP4)
            b[0] = 96 + b[0] % 32;
        if (t == DT_INT4) {
            b[0] = (uint8_t)(word() >> 16);
            b[1] = (uint8_t)(0x3c + (word() >> 23));
        }
    }
}

static void fill_plain(enum dtype t, uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v = fp_bits(number());
        if (t == DT_F32) {
            memcpy(b + 4 * i, &v, 4);
            continue;
        }
        float w = fp_from_bits(v) * 1024.0f;
        int fl = (int)w - (w < (float)(int)w); /* floor */
        uint16_t h = t == DT_BF16 ? (uint16_t)(v >> 16) : f32_to_f16((float)fl / 1024.0f);
        memcpy(b + 2 * i, &h, 2);
    }
}

/* Scales in front of the codes: FP8 one per 128 columns, INT8 one. */
static void fill_rows(enum dtype t, uint8_t *b, uint32_t k)
{
    const uint32_t scales = t == DT_FP8 ? (k + 127) / 128 : 1;
    for (int r = 0; r < ROWS; r++) {
        for (uint32_t i = 0; i < scales; i++, b += 4) {
            float s = number() + 1.0f;
            memcpy(b, &s, 4);
        }
        for (uint32_t i = 0; i < k; i++, b++) {
            *b = (uint8_t)(word() >> 16);
            if (t == DT_FP8 && (*b & 127) == 127) /* no NaN */
                *b ^= 1;
        }
    }
}

static void fill(enum dtype t, uint8_t *b, uint32_t k)
{
    state = 7;
    if (t == DT_FP8 || t == DT_INT8)
        fill_rows(t, b, k);
    else if (dtype_info(t)->block_elems == 1)
        fill_plain(t, b, (size_t)ROWS * k);
    else
        fill_blocks(t, b, (size_t)ROWS * k / dtype_info(t)->block_elems);
}

static int check(const struct kern *k, const void *file, const struct kern_mm *base,
                 const uint32_t first[4], uint64_t hash)
{
    float *y = take(ROWS * N * 4);
    void *w = take(kern_packed_bytes(k->layout, (enum dtype)k->dtype, ROWS, base->k));
    struct kern_mm a = *base;
    int bad = kern_pack(k->layout, (enum dtype)k->dtype, file, ROWS, a.k, w) != -1;
    a.w = w;
    a.y = y;
    memset(y, 0xff, ROWS * N * 4);
    k->run.mm(&a);
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < ROWS * N * 4; i++)
        h = (h ^ ((const uint8_t *)y)[i]) * 0x100000001b3u;
    for (int i = 0; i < 4; i++)
        if (fp_bits(y[i]) != first[i]) {
            printf("FAIL %s: row %d has bits %08x, numpy %08x\n", k->name, i, fp_bits(y[i]),
                   first[i]);
            bad = 1;
        }
    if (h != hash && !bad) {
        printf("FAIL %s: first four results equal numpy's, a later one does not\n", k->name);
        bad = 1;
    }
    mem_free(y);
    mem_free(w);
    return bad;
}

/* Every row of the type that this CPU runs; *ran counts them. */
static int test_type(enum dtype t, uint32_t k, const uint32_t first[4], uint64_t hash, int *ran)
{
    const enum kern_act act = kern_act_of(t);
    const struct kern *quant =
        kern_find(act == KERN_ACT_ROW ? KERN_QUANT_ROW : KERN_QUANT_ACT, -1, 0, NULL);
    uint32_t groups = act == KERN_ACT_ROW ? 1 : k / KERN_GROUP;
    uint8_t *file = take(ROWS * dtype_row_bytes(t, k));
    float *x = take(4 * (size_t)N * k), *scale = take(4 * (size_t)N * (groups + 1));
    int8_t *q = take((size_t)N * k);
    int32_t *sum = take(4 * (size_t)N * (groups + 1));
    size_t rows;
    const struct kern *const *table = kern_table(&rows);
    int bad = 0;
    fill(t, file, k);
    for (uint32_t i = 0; i < N * k; i++)
        x[i] = number();
    for (uint32_t i = 0; i < N && act != KERN_ACT_F32; i++)
        if (quant == NULL || !quant->run.quant(x + (size_t)i * k, k, q + (size_t)i * k,
                                               scale + i * groups, sum + i * groups))
            bad = 1;
    struct kern_mm a = {.k = k,
                        .row1 = ROWS,
                        .n = N,
                        .q = q,
                        .scale = scale,
                        .sum = sum,
                        .x = x,
                        .ldq = k,
                        .ldg = groups,
                        .ldx = k,
                        .ldy = ROWS};
    for (size_t i = 0; i < rows && !bad; i++)
        if ((table[i]->op == KERN_GEMV || table[i]->op == KERN_GEMM) && table[i]->dtype == (int)t &&
            (table[i]->isa & ~kern_isa_host()) == 0) {
            bad |= check(table[i], file, &a, first, hash);
            ++*ran;
        }
    mem_free(file);
    mem_free(x);
    mem_free(scale);
    mem_free(q);
    mem_free(sum);
    return bad;
}

int main(void)
{
    int bad = 0, ran = 0;
#define RUN(t, k, a, b, c, d, h)                                                                   \
    bad |= test_type(DT_##t, k, (const uint32_t[]){a, b, c, d}, h, &ran);
    MM_GOLDEN(RUN)
    printf("%d rows compared with numpy, %s\n", ran, bad ? "some differ" : "all equal");
    return bad || ran < 38;
}
