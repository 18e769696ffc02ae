/* pack.c - file rows to kernel layouts, and the value checks that loading owes (weight-formats
 * section 4). Layout: pack.h.
 *
 * Packing moves bytes and never rounds. Whole panels go through pack_panel.c where it has code for
 * the format; here a panel is filled row by row, which defines its bytes and finds the row of a bad
 * value; the moves are 4-byte words, as a VNNI operand holds four consecutive columns of a row.
 * Callers split a matrix by panels over threads. Compiled without ISA flags. Pure; any thread.
 */
#include "pack.h"

#include "blocks.h"

uint64_t kern_panel_bytes(enum kern_layout l, enum dtype t, uint32_t k)
{
    if (l == KERN_ROWS)
        return KERN_PANEL * dtype_row_bytes(t, k);
    struct p16 f = p16_of(t);
    uint32_t groups = k / KERN_GROUP;
    if (dtype_info(t)->scale_elems > 0) {
        uint64_t scales = dtype_row_scale_bytes(t, k) * KERN_PANEL;
        return (scales + (uint64_t)k * KERN_PANEL + 63) / 64 * 64;
    }
    uint64_t b = f.codes
                     ? (uint64_t)groups * p16_group_bytes(f) + (uint64_t)(groups / f.super) * f.head
                     : (t == DT_BF16 ? (k + 1ull) / 2 * 2 : k) * KERN_PANEL * plain_bytes(t);
    return (b + 63) / 64 * 64;
}

uint64_t kern_packed_bytes(enum kern_layout l, enum dtype t, uint32_t rows, uint32_t k)
{
    if (l == KERN_ROWS)
        return rows * dtype_row_bytes(t, k);
    return (rows + (uint64_t)KERN_PANEL - 1) / KERN_PANEL * kern_panel_bytes(l, t, k);
}

/* ---- checks ---- */

static bool half_ok(const uint8_t *p)
{
    return (load_u16(p) & 0x7c00) != 0x7c00;
}

/* Byte offsets of the f16 fields of a block; -1: none. */
static void half_fields(enum dtype t, int at[2])
{
    at[0] = 0;
    at[1] = -1;
    switch (t) {
    case DT_Q4_1:
    case DT_Q5_1:
    case DT_Q4_K:
    case DT_Q5_K:
        at[1] = 2;
        break;
    case DT_Q6_K:
        at[0] = 208;
        break;
    case DT_Q3_K:
        at[0] = 108;
        break;
    case DT_Q2_K:
        at[0] = 80;
        at[1] = 82;
        break;
    default:
        break;
    }
}

static bool plain_ok(enum dtype t, const uint8_t *b, uint32_t k)
{
    bool ok = true;
    if (t == DT_F32)
        for (uint32_t i = 0; i < k; i++)
            ok &= (load_u32(b + 4 * (size_t)i) & 0x7f800000u) != 0x7f800000u;
    else {
        uint32_t top = t == DT_F16 ? 0x7c00 : 0x7f80;
        for (uint32_t i = 0; i < k; i++)
            ok &= (load_u16(b + 2 * (size_t)i) & top) != top;
    }
    return ok;
}

/* Rows with their scales in front. FP8 scales are packed 2^8 times larger, which must be finite
 * too. */
static bool scaled_ok(enum dtype t, const uint8_t *b, uint32_t k)
{
    const uint64_t head = dtype_row_scale_bytes(t, k);
    bool ok = true;
    for (uint64_t i = 0; i < head; i += 4)
        ok &= (load_u32(b + i) & 0x7fffffffu) < (t == DT_FP8 ? 0x7b800000u : 0x7f800000u);
    for (uint64_t i = head; t == DT_FP8 && i < head + k; i++)
        ok &= (b[i] & 0x7f) != 0x7f;
    return ok;
}

static bool row_ok(enum dtype t, const uint8_t *b, uint32_t k)
{
    const struct dtype_info *info = dtype_info(t);
    int at[2];
    if (info->scale_elems > 0)
        return scaled_ok(t, b, k);
    if (plain_bytes(t))
        return plain_ok(t, b, k);
    half_fields(t, at);
    bool ok = true;
    for (uint32_t i = 0; i < k; i += info->block_elems, b += info->block_bytes)
        if (t == DT_MXFP4)
            ok &= b[0] != 255;
        else if (t == DT_INT4)
            ok &= (load_u16(b) & 0x7f80) != 0x7f80;
        else
            ok &= half_ok(b + at[0]) && (at[1] < 0 || half_ok(b + at[1]));
    return ok;
}

/* ---- one row into lane r of a panel ---- */

static void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static void put_plain(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *dst, uint32_t r)
{
    const uint32_t size = plain_bytes(t);
    for (uint32_t i = 0; t == DT_BF16 && i < k; i++)
        memcpy(dst + 64 * (size_t)(i / 2) + 4 * r + 2 * (i % 2), src + 2 * (size_t)i, 2);
    for (uint32_t i = 0; t != DT_BF16 && i < k; i++) {
        uint8_t *d = dst + ((size_t)i * KERN_PANEL + r) * size;
        if (size == 2)
            memcpy(d, src + 2 * (size_t)i, 2);
        else
            memcpy(d, src + 4 * (size_t)i, 4);
    }
}

static void put_scaled(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel, uint32_t r)
{
    const uint8_t *code = src + dtype_row_scale_bytes(t, k);
    if (t == DT_INT8) {
        memcpy(panel + 4 * r, src, 4);
        for (uint32_t i = 0; i < k; i++)
            panel[64 + i / 4 * 64 + 4 * r + i % 4] = code[i] ^ 0x80;
        return;
    }
    for (uint32_t i = 0; i < k; i++) {
        uint8_t *b = panel + fp8_block_at(i);
        float scale = row_scale(t, src, i) * 256.0f;
        if (i % FP8_BLOCK == 0)
            memcpy(b + 4 * r, &scale, 4);
        b[64 + i % FP8_BLOCK * KERN_PANEL + r] = code[i];
    }
}

/* Fifth bits: bit 4j+i of h becomes bit j of byte i. */
static uint32_t spread5(uint32_t h)
{
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t x = (h >> i) & 0x11111111u;
        x = (x | x >> 3) & 0x03030303u;
        x = (x | x >> 6) & 0x000f000fu;
        x = (x | x >> 12) & 0xffu;
        out |= x << 8 * i;
    }
    return out;
}

/* Formats of one block per group: nibbles are already in the panel's order. */
static void put_block32(enum dtype t, const uint8_t *b, struct p16 f, uint8_t *g, uint32_t r)
{
    if (t == DT_MXFP4) {
        g[r] = b[0];
        b += 1;
    } else {
        memcpy(g + 2 * r, b, 2);
        b += 2;
    }
    if (f.min) {
        memcpy(g + f.scale + 2 * r, b, 2);
        b += 2;
    }
    if (f.high) {
        put_u32(g + f.scale + f.min + 4 * r, spread5(load_u32(b)));
        b += 4;
    }
    uint8_t *c = g + f.scale + f.min + f.high + 4 * r;
    for (uint32_t j = 0; j < f.codes / 64u; j++)
        memcpy(c + 64 * j, b + 4 * j, 4);
}

/* Q4_K and Q5_K; the latter has fifth bits at 16, bit j of byte l for column l of group j. */
static void put_k45(enum dtype t, const uint8_t *b, uint8_t *head, uint8_t *g, uint32_t r)
{
    const struct p16 f = p16_of(t);
    const uint8_t *qs = b + (t == DT_Q5_K ? 48 : 16);
    memcpy(head + 2 * r, b, 2);
    memcpy(head + 32 + 2 * r, b + 2, 2);
    for (int j = 0; j < 8; j++, g += p16_group_bytes(f)) {
        uint8_t *c = g + f.scale + f.min + f.high + 4 * r;
        kq_scale_min(b + 4, j, &g[r], &g[16 + r]);
        for (int v = 0; v < 4; v++) {
            uint32_t lo = load_u32(qs + 32 * (j / 2) + 4 * v),
                     hi = load_u32(qs + 16 + 32 * (j / 2) + 4 * v);
            uint32_t w = j % 2 ? ((lo >> 4) & 0x0f0f0f0fu) | (hi & 0xf0f0f0f0u)
                               : (lo & 0x0f0f0f0fu) | (hi & 0x0f0f0f0fu) << 4;
            put_u32(c + 64 * v, w);
        }
        uint32_t h = 0;
        for (int q = 0; q < 8 && f.high; q++)
            h |= ((load_u32(b + 16 + 4 * q) >> j) & 0x01010101u) << q;
        if (f.high)
            put_u32(g + f.scale + f.min + 4 * r, h);
    }
}

static void put_iq4_xs(const uint8_t *b, uint8_t *head, uint8_t *g, uint32_t gb, uint32_t r)
{
    memcpy(head + 2 * r, b, 2);
    for (int j = 0; j < 8; j++, g += gb) {
        g[r] = (uint8_t)iq4xs_scale(b, j);
        for (int v = 0; v < 4; v++)
            memcpy(g + 16 + 64 * v + 4 * r, b + 8 + 16 * j + 4 * v, 4);
    }
}

/* Two bits from bit `up` of each of 16 columns: byte i, bits 2j..2j+1 = column 4j+i. */
static uint32_t crumbs(const uint8_t *q, int up)
{
    uint32_t w = 0;
    for (int v = 0; v < 4; v++)
        w |= ((load_u32(q + 4 * v) >> up) & 0x03030303u) << 2 * v;
    return w;
}

static void put_q6_k(const uint8_t *b, uint8_t *head, uint8_t *g, uint32_t gb, uint32_t r)
{
    memcpy(head + 2 * r, b + 208, 2);
    for (int j = 0; j < 8; j++, g += gb) {
        const uint8_t *ql = b + 64 * (j / 4) + 32 * (j % 2), *qh = b + 128 + 32 * (j / 4);
        int up = j % 4; /* which bit pair of qh; 2 and 3 take the high nibbles of ql */
        g[r] = b[192 + 2 * j];
        g[16 + r] = b[193 + 2 * j];
        for (int v = 0; v < 4; v++) {
            uint32_t lo = load_u32(ql + 4 * v), hi = load_u32(ql + 16 + 4 * v);
            uint32_t w = up >= 2 ? ((lo >> 4) & 0x0f0f0f0fu) | (hi & 0xf0f0f0f0u)
                                 : (lo & 0x0f0f0f0fu) | (hi & 0x0f0f0f0fu) << 4;
            put_u32(g + 160 + 64 * v + 4 * r, w);
        }
        for (int h = 0; h < 2; h++)
            put_u32(g + 32 + 64 * h + 4 * r, crumbs(qh + 16 * h, 2 * up));
    }
}

static void put_k23(enum dtype t, const uint8_t *b, uint8_t *head, uint8_t *g, uint32_t r)
{
    const struct p16 f = p16_of(t);
    memcpy(head + 2 * r, b + (t == DT_Q2_K ? 80 : 108), 2);
    if (t == DT_Q2_K)
        memcpy(head + 32 + 2 * r, b + 82, 2);
    for (int j = 0; j < 8; j++, g += p16_group_bytes(f)) {
        const uint8_t *q = b + (t == DT_Q2_K ? 16 : 32) + 32 * (j / 4);
        uint32_t high = 0;
        for (int h = 0; h < 2; h++) {
            g[16 * h + (int)r] =
                t == DT_Q2_K ? b[2 * j + h] : (uint8_t)q3k_scale(b + 96, 2 * j + h);
            put_u32(g + f.scale + f.high + 64 * h + 4 * r, crumbs(q + 16 * h, 2 * (j % 4)));
        }
        for (int v = 0; v < 8 && f.high; v++)
            high |= ((load_u32(b + 4 * v) >> j) & 0x01010101u) << v;
        if (f.high)
            put_u32(g + f.scale + 4 * r, high);
    }
}

static void put_row(enum dtype t, const uint8_t *src, uint32_t k, uint8_t *panel, uint32_t r)
{
    const struct dtype_info *info = dtype_info(t);
    struct p16 f = p16_of(t);
    uint32_t gb = p16_group_bytes(f);
    if (info->scale_elems > 0) {
        put_scaled(t, src, k, panel, r);
        return;
    }
    if (plain_bytes(t)) {
        put_plain(t, src, k, panel, r);
        return;
    }
    for (uint32_t g = 0; g < k / KERN_GROUP; g += f.super, src += info->block_bytes) {
        uint8_t *head = panel + p16_head_at(f, g), *grp = panel + p16_group_at(f, g);
        if (t == DT_Q4_K || t == DT_Q5_K)
            put_k45(t, src, head, grp, r);
        else if (t == DT_IQ4_XS)
            put_iq4_xs(src, head, grp, gb, r);
        else if (t == DT_Q2_K || t == DT_Q3_K)
            put_k23(t, src, head, grp, r);
        else if (t == DT_Q6_K)
            put_q6_k(src, head, grp, gb, r);
        else
            put_block32(t, src, f, grp, r);
    }
}

/* The rows of one panel, or fewer. Returns -1 or the first bad row. */
static int64_t pack_rows(enum dtype t, const uint8_t *s, uint32_t rows, uint32_t k, uint8_t *panel)
{
    uint64_t row = dtype_row_bytes(t, k), bytes = kern_panel_bytes(KERN_P16, t, k);
    /* a short last panel has rows of zero bytes; the rounding to 64 bytes is zero everywhere */
    uint64_t from = rows < KERN_PANEL || bytes < 64 ? 0 : bytes - 64;
    memset(panel + from, 0, bytes - from);
    if (rows == KERN_PANEL && pack_panel(t, s, k, panel))
        return -1;
    for (uint32_t r = 0; r < rows; r++, s += row) {
        if (!row_ok(t, s, k))
            return r;
        put_row(t, s, k, panel, r);
    }
    return -1;
}

int64_t kern_pack(enum kern_layout l, enum dtype t, const void *src, uint32_t rows, uint32_t k,
                  void *dst)
{
    const uint8_t *s = src;
    uint8_t *d = dst;
    uint64_t row = dtype_row_bytes(t, k), panel = kern_panel_bytes(l, t, k);
    for (uint32_t r = 0; l == KERN_ROWS && r < rows; r++) {
        if (!row_ok(t, s + r * row, k))
            return r;
        memcpy(d + r * row, s + r * row, row);
    }
    for (uint32_t r = 0; l != KERN_ROWS && r < rows; r += KERN_PANEL) {
        uint32_t n = rows - r < KERN_PANEL ? rows - r : KERN_PANEL;
        int64_t bad = pack_rows(t, s + r * row, n, k, d + r / KERN_PANEL * panel);
        if (bad >= 0)
            return r + bad;
    }
    return -1;
}
