/* rows.c - rows of a weight in the form that kernels read, whatever tensors a checkpoint keeps them
 * in.
 *
 * GGUF blocks and plain numbers lie complete in the file and are used in place. FP8, INT8 per row
 * and packed INT4 checkpoints hold codes and scales in two tensors (weight-formats 6, 8): their
 * rows are put together here, value by value, nothing rounded. Bounds were checked when the tensors
 * were joined (scales.c). Pure; any thread.
 */
#include <string.h>

#include "base/fp.h"
#include "model/model.h"

uint64_t mdl_file_row_bytes(const struct mdl_slice *s)
{
    if (s->scale.data == NULL)
        return dtype_row_bytes(s->type, s->cols);
    return s->type == DT_INT4 ? s->cols / 2 : s->cols;
}

static float scale_at(const struct mdl_scale *s, uint64_t i)
{
    switch (s->type) {
    case DT_F32:
        return fp_from_bits(load_u32(s->data + 4 * i));
    case DT_BF16:
        return bf16_to_f32(load_u16(s->data + 2 * i));
    case DT_F16:
        return f16_to_f32(load_u16(s->data + 2 * i));
    default:
        return e8m0_to_f32(s->data[i]);
    }
}

/* Element 2i of a group lies in the low nibble of byte i, 2i + 1 in the high one; blocks want j and
 * j + 16 in byte j. */
static void int4_row(const struct mdl_slice *s, const uint8_t *src, const uint8_t *scale,
                     uint8_t *dst)
{
    for (uint32_t g = 0; g < s->cols / 32; g++, src += 16, dst += 18) {
        memcpy(dst, scale + (uint64_t)g * 32 / s->scale.col_div * 2, 2);
        for (int i = 0; i < 8; i++) {
            uint8_t lo = src[i], hi = src[i + 8];
            dst[2 + 2 * i] = (uint8_t)((lo & 15) | hi << 4);
            dst[3 + 2 * i] = (uint8_t)(lo >> 4 | (hi & 0xf0));
        }
    }
}

void mdl_join_rows(const struct mdl_slice *s, const uint8_t *src, uint32_t row, uint32_t n,
                   uint8_t *dst)
{
    uint64_t stride = mdl_file_row_bytes(s), bytes = dtype_row_bytes(s->type, s->cols),
             head = dtype_row_scale_bytes(s->type, s->cols);
    for (uint32_t r = row; r < row + n; r++, src += stride, dst += bytes) {
        uint64_t first = (uint64_t)(r / s->scale.row_div) * s->scale.cols;
        if (s->type == DT_INT4) {
            int4_row(s, src, s->scale.data + first * 2, dst);
            continue;
        }
        for (uint32_t i = 0; i < head / 4; i++) {
            float f = scale_at(&s->scale, first + (uint64_t)i * 128 / s->scale.col_div);
            memcpy(dst + 4 * (uint64_t)i, &f, 4);
        }
        memcpy(dst + head, src, s->cols);
    }
}

const uint8_t *mdl_rows(const struct mdl_slice *s, uint32_t row, uint32_t n, void *buf)
{
    const uint8_t *src = s->data + row * mdl_file_row_bytes(s);
    if (s->scale.data == NULL)
        return src;
    mdl_join_rows(s, src, row, n, buf);
    return buf;
}
