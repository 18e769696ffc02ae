/* tile.h - the tile instructions that the AMX kernels use, by names of our own: the processor's, or
 * with KT_AMX_EMULATE a model of them in plain C, so that the kernels' logic is tested on CPUs
 * without AMX.
 *
 * The model keeps the tile file per thread and follows the instruction reference: a load fills the
 * configured rows and clears the rest, a dot product needs shapes that fit each other. Misuse that
 * the processor answers with #UD is an abort() in the model. Included by files that are compiled
 * with the AVX512 (and, for the real one, AMX) flags alone. Tile numbers are constants 0..7.
 */
#ifndef KT_KERN_AMX_TILE_H
#define KT_KERN_AMX_TILE_H

#include <stdint.h>
#include <string.h>

#define TILE_ROWS 16      /* most rows of a tile */
#define TILE_ROW_BYTES 64 /* most bytes of a row */

/* Memory form of the tile configuration, palette 1. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "as LDTILECFG reads it");

#ifndef KT_AMX_EMULATE

#include <immintrin.h>

/* The compiler's macros do not say that they read memory: what was written before must be there. */
#define tile_sync() __asm__ volatile("" : : : "memory")
#define tile_configure(c)                                                                          \
    (__extension__({                                                                               \
        tile_sync();                                                                               \
        _tile_loadconfig(c);                                                                       \
    }))
#define tile_release() _tile_release()
#define tile_zero(t) _tile_zero(t)
#define tile_load(t, p, stride) _tile_loadd(t, p, stride)
#define tile_store(t, p, stride) _tile_stored(t, p, stride)
/* acc[m][n] += sum over k and 4 bytes of a[m][k] * b[k][n], signed bytes */
#define tile_dot_s8(acc, a, b) _tile_dpbssd(acc, a, b)
/* the same with unsigned bytes in b */
#define tile_dot_s8u8(acc, a, b) _tile_dpbsud(acc, a, b)
/* acc[m][n] += sum over k and 2 of a[m][k] * b[k][n], BF16 pairs, fp32 sums */
#define tile_dot_bf16(acc, a, b) _tile_dpbf16ps(acc, a, b)

#else

#include <math.h>
#include <stdlib.h>

#include "base/fp.h"

#define tile_sync() ((void)0)

struct tile {
    uint8_t row[TILE_ROWS][TILE_ROW_BYTES];
};
static _Thread_local struct {
    struct tile_config c; /* palette 0: not configured */
    struct tile t[8];
} tile_file;

static inline void tile_must(int ok)
{
    if (!ok)
        abort();
}

static inline void tile_configure(const struct tile_config *c)
{
    tile_must(c->palette == 1 && c->start_row == 0);
    for (int i = 0; i < 14; i++)
        tile_must(c->reserved[i] == 0);
    for (int i = 0; i < 16; i++)
        tile_must(c->rows[i] <= TILE_ROWS && c->row_bytes[i] <= TILE_ROW_BYTES &&
                  (c->rows[i] == 0) == (c->row_bytes[i] == 0) && (i < 8 || c->rows[i] == 0));
    memset(&tile_file, 0, sizeof tile_file);
    tile_file.c = *c;
}

static inline void tile_release(void)
{
    memset(&tile_file, 0, sizeof tile_file);
}

static inline void tile_used(int t)
{
    tile_must(tile_file.c.palette == 1 && tile_file.c.rows[t] > 0);
}

static inline void tile_zero(int t)
{
    tile_used(t);
    memset(&tile_file.t[t], 0, sizeof tile_file.t[t]);
}

static inline void tile_load(int t, const void *p, size_t stride)
{
    tile_zero(t);
    for (int r = 0; r < tile_file.c.rows[t]; r++)
        memcpy(tile_file.t[t].row[r], (const uint8_t *)p + (size_t)r * stride,
               tile_file.c.row_bytes[t]);
}

static inline void tile_store(int t, void *p, size_t stride)
{
    tile_used(t);
    for (int r = 0; r < tile_file.c.rows[t]; r++)
        memcpy((uint8_t *)p + (size_t)r * stride, tile_file.t[t].row[r], tile_file.c.row_bytes[t]);
}

static inline void tile_fit(int acc, int a, int b)
{
    const struct tile_config *c = &tile_file.c;
    tile_used(acc), tile_used(a), tile_used(b);
    tile_must(acc != a && acc != b && a != b);
    tile_must(c->rows[acc] == c->rows[a] && c->row_bytes[acc] == c->row_bytes[b] &&
              c->row_bytes[a] == 4 * c->rows[b]);
}

static inline void tile_dot_s8(int acc, int a, int b)
{
    const struct tile_config *c = &tile_file.c;
    tile_fit(acc, a, b);
    for (int m = 0; m < c->rows[acc]; m++)
        for (int n = 0; n < c->row_bytes[acc] / 4; n++) {
            int32_t s;
            memcpy(&s, tile_file.t[acc].row[m] + 4 * n, 4);
            for (int k = 0; k < c->rows[b]; k++)
                for (int i = 0; i < 4; i++)
                    s += (int8_t)tile_file.t[a].row[m][4 * k + i] *
                         (int8_t)tile_file.t[b].row[k][4 * n + i];
            memcpy(tile_file.t[acc].row[m] + 4 * n, &s, 4);
        }
}

/* Sums wrap at 2^32. */
static inline void tile_dot_s8u8(int acc, int a, int b)
{
    const struct tile_config *c = &tile_file.c;
    tile_fit(acc, a, b);
    for (int m = 0; m < c->rows[acc]; m++)
        for (int n = 0; n < c->row_bytes[acc] / 4; n++) {
            uint32_t s;
            memcpy(&s, tile_file.t[acc].row[m] + 4 * n, 4);
            for (int k = 0; k < c->rows[b]; k++)
                for (int i = 0; i < 4; i++)
                    s += (uint32_t)((int8_t)tile_file.t[a].row[m][4 * k + i] *
                                    tile_file.t[b].row[k][4 * n + i]);
            memcpy(tile_file.t[acc].row[m] + 4 * n, &s, 4);
        }
}

/* Subnormal operands count as zero of their sign, and subnormal results become it. */
static inline float tile_flush(float f)
{
    return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

static inline float tile_bf16(int t, int row, int i)
{
    uint16_t h;
    memcpy(&h, tile_file.t[t].row[row] + 2 * i, 2);
    return tile_flush(bf16_to_f32(h));
}

/* The even and the odd columns have a sum each, by fma, nearest even; the two are added, and the
 * result to acc. */
static inline void tile_dot_bf16(int acc, int a, int b)
{
    const struct tile_config *c = &tile_file.c;
    tile_fit(acc, a, b);
    for (int m = 0; m < c->rows[acc]; m++)
        for (int n = 0; n < c->row_bytes[acc] / 4; n++) {
            float s, even = 0, odd = 0;
            for (int k = 0; k < c->rows[b]; k++) {
                even = tile_flush(fmaf(tile_bf16(a, m, 2 * k), tile_bf16(b, k, 2 * n), even));
                odd = tile_flush(fmaf(tile_bf16(a, m, 2 * k + 1), tile_bf16(b, k, 2 * n + 1), odd));
            }
            memcpy(&s, tile_file.t[acc].row[m] + 4 * n, 4);
            s = tile_flush(tile_flush(s) + tile_flush(even + odd));
            memcpy(tile_file.t[acc].row[m] + 4 * n, &s, 4);
        }
}

#endif
#endif
