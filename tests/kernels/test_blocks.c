/* test_blocks.c - kern_decode and kern_quantise against answers that this code did not make: the
 * table of weight-formats section 11 (always), and the block vectors of
 * fixtures/golden/blocks.safetensors (skipped with 77 where they are absent). Also the value checks
 * of kern_pack.
 *
 * Plain program: 0 pass, 1 fail, 77 the fixture is absent and all else passed.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"
#include "kern.h"

static int bad;

static void expect(bool ok, const char *what, const char *name, double got, double want)
{
    if (ok)
        return;
    bad++;
    printf("FAIL %s %s: %.17g, expected %.17g\n", what, name, got, want);
}

/* ---- known answers ---- */

struct known {
    enum dtype t;
    int d, m; /* byte offsets of d and of m or dmin; -1 none */
    double w0, w1, mid, last, sum, isum;
};
/* clang-format off */
static const struct known known[] = {
    {DT_Q4_0,   0,  -1, -0.75,   0.5,    -0.75,   0,      -5.25,    -129.5},
    {DT_Q4_1,   0,   2, 3.875,   1.125,   2.375,  3.125,   65.25,   1061.75},
    {DT_Q5_0,   0,  -1, 2.25,   -0.5,     3.5,    0.25,    3.75,    28},
    {DT_Q5_1,   0,   2, 4.875,   6.125,   4.875,  1.375,   130.25,  2041.25},
    {DT_Q8_0,   0,  -1, 21.25,   30.5,   -22.75, -12,     -44,     -2020},
    {DT_Q2_K,   80, 82, 8.25,    0,       1.875,  1.125,   514.75,  60782.5},
    {DT_Q3_K,  108, -1, 20.25,  -27,      0.5,    10.5,    239.5,   44286.25},
    {DT_Q4_K,   0,   2, 78.875, -6.375,   105.75, 12.125,  13610,   1893210},
    {DT_Q5_K,   0,   2, 202.875, -6.375,  261.75, 27.125,  29054,   4006862},
    {DT_Q6_K,  208, -1, -357.75, 424,    -87.75, -15,      1153,    196105},
    {DT_IQ4_NL, 0,  -1, -8.75,   6.25,   -8.75,   0.25,   -64.25,  -1729.75},
    {DT_IQ4_XS, 0,  -1, 16.25,  -0.25,   -146.25, -4,     -2751.25, -522783.5},
    {DT_MXFP4, -1,  -1, 0,       0.75,    0.375,  0.75,    3.125,   79.75},
    {DT_NVFP4, -1,  -1, -6,      2,      -0.09375, 0.0068359375, 0.0595703125, 112.3291015625},
};
/* clang-format on */

static void put16(uint8_t *b, int at, uint16_t v)
{
    if (at >= 0)
        memcpy(b + at, &v, 2);
}

/* ---- rows with their scales in front ---- */

static void test_rows(void)
{
    static const struct {
        uint8_t code;
        float v;
    } e4m3[] = {{0x00, 0},        {0x01, 0x1p-9f}, {0x07, 7 * 0x1p-9f}, {0x08, 0x1p-6f},
                {0x38, 1},        {0x39, 1.125f},  {0x7e, 448},         {0xb8, -1},
                {0x81, -0x1p-9f}, {0xfe, -448},    {0x40, 2},           {0x77, 240}};
    uint8_t row[2 * 4 + 130] = {0}, back[sizeof row];
    float scale[2] = {0.5f, 3}, w[130];
    memcpy(row, scale, sizeof scale);
    expect(dtype_row_bytes(DT_FP8, 130) == sizeof row, "row bytes of", "fp8", 0, 0);
    for (size_t i = 0; i < sizeof e4m3 / sizeof e4m3[0]; i++) {
        row[8 + i] = e4m3[i].code;
        row[8 + 128 + i % 2] = e4m3[i].code;
        kern_decode(DT_FP8, row, 130, w);
        expect(w[i] == e4m3[i].v * 0.5f, "E4M3 value", "fp8", (double)w[i], (double)e4m3[i].v / 2);
        expect(w[128 + i % 2] == e4m3[i].v * 3, "second scale", "fp8", (double)w[128 + i % 2],
               3 * (double)e4m3[i].v);
        expect(f32_to_e4m3(e4m3[i].v) == e4m3[i].code, "code of", "fp8", e4m3[i].code, 0);
    }
    /* ties go to the even code, everything else to the nearest, beyond 448 to 448 */
    expect(f32_to_e4m3(1.0625f) == 0x38 && f32_to_e4m3(1.1875f) == 0x3a, "tie", "fp8", 0, 0);
    expect(f32_to_e4m3(0x1p-10f) == 0 && f32_to_e4m3(3 * 0x1p-10f) == 2, "low tie", "fp8", 0, 0);
    expect(f32_to_e4m3(1e9f) == 0x7e && f32_to_e4m3(447) == 0x7e, "large", "fp8", 0, 0);
    for (int c = 0; c < 256; c++)
        if ((c & 0x7f) != 0x7f)
            expect(f32_to_e4m3(e4m3_to_f32((uint8_t)c)) == c, "round trip of", "fp8", c, c);
    for (int i = 0; i < 130; i++)
        w[i] = (float)(i - 65) / 65 * 12.7f;
    expect(kern_quantise(DT_INT8, w, 130, back), "no quantiser:", "int8", 0, 0);
    memcpy(scale, back, 4);
    expect(scale[0] == 12.7f / 127, "scale", "int8", (double)scale[0], 0.1);
    expect(back[4] == 0x81 && back[4 + 65] == 0 && back[4 + 97] == 63, "codes", "int8",
           back[4 + 97], 63);
}

static void test_known(void)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const struct known *e = &known[i];
        const struct dtype_info *info = dtype_info(e->t);
        uint8_t b[256];
        float w[256];
        double sum = 0, isum = 0;
        int n = info->block_elems;
        for (int k = 0; k < info->block_bytes; k++)
            b[k] = (uint8_t)(37 * k + 11);
        put16(b, e->d, 0x3400);
        put16(b, e->m, 0x3000);
        if (e->t == DT_MXFP4)
            b[0] = 125;
        if (e->t == DT_NVFP4)
            memcpy(b, "\x38\x3a\x08\x07", 4);
        if (!kern_decode(e->t, b, (uint64_t)n, w)) {
            expect(false, "no decoder:", info->name, 0, 0);
            continue;
        }
        for (int k = 0; k < n; k++) {
            sum += (double)w[k];
            isum += (k + 1) * (double)w[k];
        }
        expect((double)w[0] == e->w0, "w[0]", info->name, (double)w[0], e->w0);
        expect((double)w[1] == e->w1, "w[1]", info->name, (double)w[1], e->w1);
        expect((double)w[n / 2] == e->mid, "w[n/2]", info->name, (double)w[n / 2], e->mid);
        expect((double)w[n - 1] == e->last, "w[n-1]", info->name, (double)w[n - 1], e->last);
        expect(sum == e->sum, "sum", info->name, sum, e->sum);
        expect(isum == e->isum, "weighted sum", info->name, isum, e->isum);
    }
}

/* ---- value checks of the packer ---- */

static int64_t packed_bad(enum kern_layout l, enum dtype t, uint32_t k, uint32_t row, size_t at,
                          const char *bytes, size_t len)
{
    enum { ROWS = 20 };
    uint64_t rb = dtype_row_bytes(t, k);
    uint8_t *src = mem_calloc(ROWS, rb), *dst = mem_aligned(64, kern_packed_bytes(l, t, ROWS, k));
    int64_t r = -2;
    if (src && dst) {
        memcpy(src + row * rb + at, bytes, len);
        r = kern_pack(l, t, src, ROWS, k, dst);
    }
    mem_free(src);
    mem_free(dst);
    return r;
}

static void test_checks(void)
{
    static const struct {
        enum dtype t;
        size_t at;
        const char *bytes, *fine;
        size_t len;
    } v[] = {
        {DT_Q8_0, 34, "\x00\x7c", "\xff\x7b", 2},
        {DT_Q4_0, 18, "\x01\xfc", "\xff\xfb", 2},
        {DT_Q4_1, 2, "\x00\xfc", "\x00\x80", 2},
        {DT_Q5_0, 0, "\x00\x7e", "\x01\x00", 2},
        {DT_Q5_1, 26, "\x00\x7e", "\x01\x00", 2},
        {DT_Q4_K, 2, "\x00\x7c", "\xff\x7b", 2},
        {DT_Q4_K, 144, "\x00\x7c", "\xff\x7b", 2},
        {DT_Q6_K, 208, "\x00\x7c", "\xff\x7b", 2},
        {DT_FP8, 4, "\x00\x00\x80\x7b", "\xff\xff\x7f\x7b", 4},
        {DT_FP8, 16 + 511, "\xff", "\xfe", 1},
        {DT_INT8, 0, "\x00\x00\x80\x7f", "\xff\xff\x7f\x7f", 4},
        {DT_INT4, 18, "\x80\x7f", "\x7f\x7f", 2},
        {DT_Q3_K, 218, "\x00\xfc", "\xff\x7b", 2},
        {DT_Q2_K, 80, "\x00\x7c", "\xff\x7b", 2},
        {DT_Q2_K, 166, "\x00\x7e", "\xff\x7b", 2},
        {DT_IQ4_NL, 0, "\x00\x7c", "\xff\x7b", 2},
        {DT_MXFP4, 17, "\xff", "\xfe", 1},
        {DT_BF16, 1022, "\x80\x7f", "\x7f\x7f", 2},
        {DT_F16, 0, "\x00\xfc", "\xff\xfb", 2},
        {DT_F32, 2044, "\x00\x00\xc0\x7f", "\xff\xff\x7f\x7f", 4},
    };
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        for (int l = KERN_ROWS; l <= KERN_P16; l++) {
            for (uint32_t row = 5; row < 20; row += 12) { /* in a whole panel and in a short one */
                int64_t r = packed_bad(l, v[i].t, 512, row, v[i].at, v[i].bytes, v[i].len);
                expect(r == row, "forbidden value not refused:", dtype_name(v[i].t), (double)r,
                       row);
                r = packed_bad(l, v[i].t, 512, row, v[i].at, v[i].fine, v[i].len);
                expect(r == -1, "fine value refused:", dtype_name(v[i].t), (double)r, -1);
            }
        }
}

/* A whole panel and a short one take different paths: fifteen rows and a row of zero bytes must
 * give the same panel as fifteen rows. The masks keep every scale finite. */
static void test_paths_of(enum dtype t, uint32_t k, uint8_t mask)
{
    uint64_t rb = dtype_row_bytes(t, k), pb = kern_panel_bytes(KERN_P16, t, k);
    uint8_t *src = mem_calloc(16, rb), *dst = mem_aligned(64, 2 * pb);
    uint32_t seed = k;
    if (src == NULL || dst == NULL)
        exit(99);
    memset(dst, 0x5a, 2 * pb);
    for (uint64_t b = 0; b < 15 * rb; b++) {
        seed = seed * 1664525u + 1013904223u;
        src[b] = (uint8_t)(seed >> 24) & mask;
    }
    for (uint64_t b = 15 * rb; t == DT_IQ4_XS && b < 16 * rb; b += dtype_info(t)->block_bytes)
        memset(src + b + 2, 0xaa, 2); /* its scales are stored less 32: make them 0 */
    for (uint64_t b = 15 * rb; t == DT_Q3_K && b < 16 * rb; b += dtype_info(t)->block_bytes)
        memset(src + b + 104, 0xaa, 4);
    if (t == DT_INT8) /* codes are packed with 128 added */
        memset(src + 15 * rb + 4, 0x80, k);
    int64_t whole = kern_pack(KERN_P16, t, src, 16, k, dst),
            part = kern_pack(KERN_P16, t, src, 15, k, dst + pb);
    expect(whole == -1 && part == -1, "fine panel refused:", dtype_name(t), (double)whole,
           (double)part);
    expect(memcmp(dst, dst + pb, pb) == 0, "the packer's two paths differ:", dtype_name(t), k, 0);
    mem_free(src);
    mem_free(dst);
}

static void test_paths(void)
{
    static const uint32_t widths[] = {512, 1280, 35};
    for (int t = 0; t < DT_COUNT; t++)
        for (int i = 0; i < 3; i++)
            if (kern_has_dtype(t) && widths[i] % dtype_info((enum dtype)t)->block_elems == 0) {
                test_paths_of((enum dtype)t, widths[i], 0xbb);
                test_paths_of((enum dtype)t, widths[i], 0xee);
            }
}

/* ---- the fixture ---- */

struct blob {
    uint8_t *data;
    json_t *head;
    uint8_t *body;
};

static bool blob_open(struct blob *b)
{
    char path[1024];
    const char *dir = getenv("KT_FIXTURES");
    uint64_t n = 0;
    snprintf(path, sizeof path, "%s/golden/blocks.safetensors", dir ? dir : "../shared/fixtures");
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return false;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    b->data = mem_alloc((size_t)size);
    if (b->data == NULL || fread(b->data, 1, (size_t)size, f) != (size_t)size)
        exit(99);
    fclose(f);
    memcpy(&n, b->data, 8);
    b->head = json_loadb((char *)b->data + 8, n, 0, NULL);
    b->body = b->data + 8 + n;
    if (b->head == NULL)
        exit(99);
    return true;
}

static const void *tensor(const struct blob *b, const char *name, size_t *bytes)
{
    json_t *o = json_object_get(json_object_get(b->head, name), "data_offsets");
    if (o == NULL)
        return NULL;
    json_int_t from = json_integer_value(json_array_get(o, 0));
    *bytes = (size_t)(json_integer_value(json_array_get(o, 1)) - from);
    return b->body + from;
}

static int test_values(const struct blob *b)
{
    int types = 0;
    for (int t = 0; t < DT_COUNT; t++) {
        char name[64], up[32];
        const struct dtype_info *info = dtype_info((enum dtype)t);
        size_t n, vn;
        snprintf(up, sizeof up, "%s", info->name);
        for (char *c = up; *c; c++)
            *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
        snprintf(name, sizeof name, "%s.blocks", up);
        const uint8_t *blocks = tensor(b, name, &n);
        snprintf(name, sizeof name, "%s.values", up);
        const float *values = tensor(b, name, &vn);
        float got[256];
        if (blocks == NULL || !kern_decode((enum dtype)t, blocks, info->block_elems, got))
            continue;
        types++;
        for (size_t i = 0; i < n / info->block_bytes; i++) {
            kern_decode((enum dtype)t, blocks + i * info->block_bytes, info->block_elems, got);
            for (int k = 0; k < info->block_elems; k++) {
                float want;
                memcpy(&want, (const uint8_t *)values + 4 * (i * info->block_elems + (size_t)k), 4);
                expect(fp_bits(got[k]) == fp_bits(want), "value of", info->name, (double)got[k],
                       (double)want);
            }
        }
    }
    return types;
}

static int test_quantise(const struct blob *b)
{
    static const char *const names[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "BF16"};
    size_t n, qn;
    const void *in = tensor(b, "quantise.input", &n);
    float *x = mem_alloc(n);
    uint8_t *got = mem_alloc(n);
    int types = 0;
    if (in == NULL || x == NULL || got == NULL)
        exit(99);
    memcpy(x, in, n);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "quantise.%s", names[i]);
        const uint8_t *want = tensor(b, name, &qn);
        enum dtype t = (enum dtype)dtype_by_name(names[i]);
        if (want == NULL)
            continue;
        types++;
        expect(kern_quantise(t, x, n / 4, got), "no quantiser:", names[i], 0, 0);
        for (size_t k = 0; k < qn; k++)
            expect(got[k] == want[k], "quantised byte of", names[i], got[k], want[k]);
    }
    mem_free(x);
    mem_free(got);
    return types;
}

int main(void)
{
    struct blob b = {0};
    test_known();
    test_rows();
    test_checks();
    test_paths();
    if (!blob_open(&b)) {
        printf("blocks.safetensors is absent: only the known answers were checked, %d wrong\n",
               bad);
        return bad ? 1 : 77;
    }
    int d = test_values(&b), q = test_quantise(&b);
    printf("%d decoders, %d quantisers, %d wrong\n", d, q, bad);
    json_decref(b.head);
    mem_free(b.data);
    return bad || d < 13 || q < 7;
}
