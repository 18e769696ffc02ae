/* selftest.c - see selftest.h. Activations of block formats are made here and not by a kernel, so a
 * broken quantiser cannot hide a broken product. */
#include "selftest.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "measure.h"

void selftest_floats(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double u = (double)(m_random(&seed) >> 40) / 8388608.0 - 1.0;
        x[i] = (float)(fabs(u) < 1e-4 ? 0.25 : u);
    }
}

bool selftest_quantised(enum dtype t)
{
    return kern_act_of(t) != KERN_ACT_F32;
}

/* Any bytes with the two upper bits of each clear: every half-precision scale in them is finite and
 * below 2. */
static void tame_bytes(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(m_random(&seed) >> 32) & 0x3f;
}

void *selftest_rows(enum dtype t, uint32_t rows, uint32_t k, uint64_t seed)
{
    uint64_t row_bytes = dtype_row_bytes(t, k);
    uint8_t *out = mem_aligned(64, (size_t)row_bytes * rows + 64);
    float *x = mem_alloc((size_t)k * sizeof *x);
    if (out != NULL && x != NULL)
        for (uint32_t r = 0; r < rows; r++) {
            selftest_floats(x, k, seed + r);
            if (!kern_quantise(t, x, k, out + r * row_bytes))
                tame_bytes(out + r * row_bytes, (size_t)row_bytes, seed + r);
        }
    else {
        mem_free(out);
        out = NULL;
    }
    mem_free(x);
    return out;
}

/* ---- products ---- */

#define ROWS 40 /* two panels and a half */
#define TOKENS 5
#define LONG_K 768 /* a segment and a half */

struct acts {
    float x[TOKENS * LONG_K], scale[TOKENS * LONG_K / 32];
    _Alignas(64) int8_t q[TOKENS * LONG_K];
    int32_t sum[TOKENS * LONG_K / 32];
};

/* group: elements under one scale. Scales and sums keep their places of every 32 (ldg). */
static void make_acts(struct acts *a, uint32_t group)
{
    uint64_t seed = 11;
    selftest_floats(a->x, sizeof a->x / sizeof *a->x, 5);
    selftest_floats(a->scale, sizeof a->scale / sizeof *a->scale, 6);
    for (size_t g = 0; g < sizeof a->sum / sizeof *a->sum; g++) {
        a->scale[g] = fabsf(a->scale[g]) * 0.01f;
        a->sum[g] = 0;
        for (size_t i = 0; i < 32; i++) {
            a->q[g * 32 + i] = (int8_t)((int)(m_random(&seed) >> 33) % 255 - 127);
            a->sum[g * 32 / group * group / 32] += a->q[g * 32 + i];
        }
    }
}

static bool multiply(const struct kern *row, const void *file_rows, const struct acts *a, float *y)
{
    enum dtype t = (enum dtype)row->dtype;
    void *w = mem_aligned(64, (size_t)kern_packed_bytes(row->layout, t, ROWS, LONG_K) + 64);
    if (w == NULL)
        return false;
    bool ok = kern_pack(row->layout, t, file_rows, ROWS, LONG_K, w) == -1;
    struct kern_mm m = {.w = w,
                        .k = LONG_K,
                        .row0 = 0,
                        .row1 = ROWS,
                        .n = TOKENS,
                        .q = a->q,
                        .scale = a->scale,
                        .sum = a->sum,
                        .x = a->x,
                        .ldq = LONG_K,
                        .ldg = LONG_K / 32,
                        .ldx = LONG_K,
                        .y = y,
                        .ldy = ROWS};
    if (ok)
        row->run.mm(&m);
    mem_free(w);
    return ok;
}

static enum selftest test_mm(const struct kern *row, const struct kern *ref)
{
    static struct acts a;
    static float want[TOKENS * ROWS], got[TOKENS * ROWS];
    void *w = selftest_rows((enum dtype)row->dtype, ROWS, LONG_K, 3);
    enum selftest result = SELFTEST_NO_MEMORY;
    make_acts(&a, kern_act_of((enum dtype)row->dtype) == KERN_ACT_ROW ? LONG_K : 32);
    memset(want, 0x5a, sizeof want);
    memset(got, 0xa5, sizeof got);
    if (w != NULL && multiply(ref, w, &a, want) && multiply(row, w, &a, got))
        result = memcmp(want, got, sizeof got) == 0 ? SELFTEST_OK : SELFTEST_WRONG;
    mem_free(w);
    return result;
}

/* ---- attention ---- */

#define DIM 64
#define HEADS 3
#define KEYS 150
#define POSITIONS 2
#define PAGES 3

static void attend(const struct kern *row, enum kern_kv kv, const void *k, const void *v,
                   float *out)
{
    const struct kern *join = kern_find(KERN_ATTN_JOIN, -1, row->isa, NULL);
    const uint32_t pos[POSITIONS] = {KEYS - 2, KEYS - 1};
    float q[POSITIONS * HEADS * DIM];
    size_t plane = kern_kv_plane_bytes(kv, DIM);
    const void *kp[PAGES], *vp[PAGES];
    for (int i = 0; i < PAGES; i++) {
        kp[i] = (const uint8_t *)k + plane * (size_t)i;
        vp[i] = (const uint8_t *)v + plane * (size_t)i;
    }
    selftest_floats(q, POSITIONS * HEADS * DIM, 21);
    struct kern_attn a = {.q = q,
                          .out = out,
                          .ldq = HEADS * DIM,
                          .ldo = HEADS * DIM,
                          .pos = pos,
                          .n_pos = POSITIONS,
                          .n_q = HEADS,
                          .dim = DIM,
                          .block1 = UINT32_MAX,
                          .kv = kv,
                          .kpage = kp,
                          .vpage = vp,
                          .scale = 0.125f};
    a.part = mem_aligned(64, kern_attn_part_bytes(POSITIONS * HEADS, DIM, KEYS) + 64);
    a.scratch = mem_aligned(64, kern_attn_scratch_bytes(POSITIONS * HEADS, DIM) + 64);
    if (a.part != NULL && a.scratch != NULL) {
        row->run.attn(&a);
        join->run.attn(&a);
    }
    mem_free(a.part);
    mem_free(a.scratch);
}

static enum selftest test_attn(const struct kern *row, const struct kern *ref)
{
    enum selftest result = SELFTEST_OK;
    size_t n = (size_t)KEYS * DIM, room = PAGES * kern_kv_plane_bytes(KERN_KV_F32, DIM);
    float *x = mem_alloc(2 * n * sizeof *x), want[POSITIONS * HEADS * DIM],
          got[POSITIONS * HEADS * DIM];
    uint8_t *k = mem_aligned(64, room), *v = mem_aligned(64, room);
    if (x == NULL || k == NULL || v == NULL)
        result = SELFTEST_NO_MEMORY;
    for (int kv = 0; kv < KERN_KV_COUNT && result == SELFTEST_OK; kv++) {
        size_t plane = kern_kv_plane_bytes((enum kern_kv)kv, DIM);
        selftest_floats(x, 2 * n, 31);
        memset(k, 0, room);
        memset(v, 0, room);
        for (uint32_t j = 0; j < KEYS; j++)
            (void)kern_kv_write((enum kern_kv)kv, DIM, j % KERN_KV_PAGE, x + j * DIM,
                                x + n + j * DIM, k + j / KERN_KV_PAGE * plane,
                                v + j / KERN_KV_PAGE * plane);
        memset(want, 0x5a, sizeof want);
        memset(got, 0xa5, sizeof got);
        attend(ref, (enum kern_kv)kv, k, v, want);
        attend(row, (enum kern_kv)kv, k, v, got);
        if (memcmp(want, got, sizeof got) != 0)
            result = SELFTEST_WRONG;
    }
    mem_free(x);
    mem_free(k);
    mem_free(v);
    return result;
}

/* ---- vectors ---- */

#define N 160

static void quant(const struct kern *row, const float *x, uint8_t *out)
{
    _Alignas(64) int8_t q[N];
    float scale[N / 32] = {0};
    int32_t sum[N / 32] = {0};
    bool ok = row->run.quant(x, N, q, scale, sum);
    memcpy(out, q, sizeof q);
    memcpy(out + 256, scale, sizeof scale);
    memcpy(out + 320, sum, sizeof sum);
    out[400] = ok;
}

static void moe(const struct kern *row, const float *x, uint8_t *out)
{
    int64_t acc[N];
    float y[N];
    for (int i = 0; i < N; i++) {
        acc[i] = ((int64_t)i - 80) * ((int64_t)1 << 28);
        y[i] = x[N - 1 - i];
    }
    if (row->op == KERN_MOE_ADD)
        (void)row->run.moe_add(acc, x, 0.37f, N);
    else
        row->run.moe_done(acc, y, N);
    memcpy(out, acc, sizeof acc);
    memcpy(out + sizeof acc, y, sizeof y);
}

/* Outputs of one vector operation as bytes; `out` holds 2048. */
static void vector(const struct kern *row, const float *x, const float *w, uint8_t *out)
{
    float y[N];
    memset(out, 0x5a, 2048);
    memcpy(y, x, sizeof y);
    switch (row->op) {
    case KERN_QUANT_ACT:
    case KERN_QUANT_ROW:
        quant(row, x, out);
        return;
    case KERN_MOE_ADD:
    case KERN_MOE_DONE:
        moe(row, x, out);
        return;
    case KERN_RMSNORM:
        row->run.rmsnorm(x, w, N - 3, 1e-6f, y);
        break;
    case KERN_SWIGLU:
        row->run.swiglu(x, w, N - 3, y);
        break;
    case KERN_ADD:
        row->run.add(y, w, N - 3);
        break;
    case KERN_EXP:
        row->run.vexp(x, 0.9f, N - 3, y);
        break;
    case KERN_ROPE:
        row->run.rope(y, w, w + N / 2, N / 2, false);
        row->run.rope(y, w, w + N / 2, N / 2, true);
        break;
    default:
        break;
    }
    memcpy(out, y, sizeof y);
}

enum selftest selftest_run(const struct kern *row)
{
    static uint8_t want[2048], got[2048];
    float x[N], w[N];
    const struct kern *ref = kern_find(row->op, row->dtype, 0, NULL);
    if (ref == NULL)
        return SELFTEST_NO_REF;
    if (row->op == KERN_GEMV || row->op == KERN_GEMM)
        return test_mm(row, ref);
    if (row->op == KERN_ATTN)
        return test_attn(row, ref);
    selftest_floats(x, N, 41);
    selftest_floats(w, N, 42);
    vector(ref, x, w, want);
    vector(row, x, w, got);
    return memcmp(want, got, sizeof got) == 0 ? SELFTEST_OK : SELFTEST_WRONG;
}
