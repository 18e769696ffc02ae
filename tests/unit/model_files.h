/* model_files.h - for the tests of src/model: where fixtures are, temp files, and a builder of
 * small GGUF files byte by byte. The builder knows nothing of the reader: it writes what it is
 * told, right or wrong. Tests only; one thread.
 */
#ifndef KT_TEST_MODEL_FILES_H
#define KT_TEST_MODEL_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fp.h"
#include "base/mem.h"
#include "base/strbuf.h"

static inline const char *fixtures(const char *rest)
{
    static char path[4096];
    const char *root = getenv("KT_FIXTURES");
    snprintf(path, sizeof path, "%s/%s", root != NULL ? root : "../shared/fixtures", rest);
    return path;
}

static inline const char *source(const char *rest)
{
    static char path[4096];
    const char *root = getenv("KT_SRCDIR");
    snprintf(path, sizeof path, "%s/%s", root != NULL ? root : ".", rest);
    return path;
}

static inline int have(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0;
}

static inline void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void le(struct strbuf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        sb_putc(b, (char)(v >> (8 * i)));
}

static inline void gstr(struct strbuf *b, const char *s)
{
    le(b, strlen(s), 8);
    sb_puts(b, s);
}

/* A GGUF file under construction. Every length, count, type, dimension and offset that is written
 * is noted, so that tests can change each. */
struct gfield {
    size_t at; /* byte in `head` order; see gfile_join */
    int bytes;
    char what[80];
};

struct gfile {
    struct strbuf kv, info, data;
    uint64_t n_kv, n_t, align;
    uint32_t router_type; /* g_tiny: type of the router; 0 is F32, 28 F64 */
    struct gfield field[400];
    size_t n_fields;
};

/* part: 0 kv, 1 info; the position is made absolute by gfile_join */
static inline void note(struct gfile *g, int part, int bytes, const char *what, const char *name)
{
    struct gfield *f = &g->field[g->n_fields++];
    assert_true(g->n_fields < sizeof g->field / sizeof g->field[0]);
    f->at = part == 0 ? g->kv.len : g->info.len | (size_t)1 << 40;
    f->bytes = bytes;
    snprintf(f->what, sizeof f->what, "%s of %s", what, name);
}

static inline void g_key(struct gfile *g, const char *key, uint32_t type)
{
    note(g, 0, 8, "key length", key);
    gstr(&g->kv, key);
    note(g, 0, 4, "type", key);
    le(&g->kv, type, 4);
    g->n_kv++;
}

static inline void g_u32(struct gfile *g, const char *key, uint32_t v)
{
    g_key(g, key, 4);
    note(g, 0, 4, "value", key);
    le(&g->kv, v, 4);
}

static inline void g_f32(struct gfile *g, const char *key, float v)
{
    g_key(g, key, 6);
    note(g, 0, 4, "value", key);
    le(&g->kv, fp_bits(v), 4);
}

static inline void g_str(struct gfile *g, const char *key, const char *v)
{
    g_key(g, key, 8);
    note(g, 0, 8, "string length", key);
    gstr(&g->kv, v);
}

/* Array head; elements follow by le(&g->kv, ..) */
static inline void g_array(struct gfile *g, const char *key, uint32_t type, uint64_t n)
{
    g_key(g, key, 9);
    note(g, 0, 4, "element type", key);
    le(&g->kv, type, 4);
    note(g, 0, 8, "array length", key);
    le(&g->kv, n, 8);
}

/* A tensor of `bytes` bytes with values that are small floats in F32 and F16 alike. */
static inline void g_tensor(struct gfile *g, const char *name, uint32_t n_dims,
                            const uint64_t *dims, uint32_t type, uint64_t bytes)
{
    if (g->align == 0)
        g->align = 32;
    while (g->data.len % g->align != 0)
        sb_putc(&g->data, 0);
    note(g, 1, 8, "name length", name);
    gstr(&g->info, name);
    note(g, 1, 4, "dimension count", name);
    le(&g->info, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        note(g, 1, 8, "dimension", name);
        le(&g->info, dims[i], 8);
    }
    note(g, 1, 4, "type", name);
    le(&g->info, type, 4);
    note(g, 1, 8, "offset", name);
    le(&g->info, g->data.len, 8);
    for (uint64_t i = 0; i < bytes; i++)
        sb_putc(&g->data, i % 4 == 3 ? 0x3c : 0);
    g->n_t++;
}

static inline void g_f32_tensor(struct gfile *g, const char *name, uint64_t d0, uint64_t d1,
                                uint64_t d2)
{
    uint64_t d[3] = {d0, d1, d2}, n = d0 * (d1 ? d1 : 1) * (d2 ? d2 : 1);
    g_tensor(g, name, d2 ? 3 : d1 ? 2 : 1, d, 0, n * 4);
}

/* The whole file; positions of fields become absolute. Once per struct. */
static inline void g_join(struct gfile *g, struct strbuf *out)
{
    sb_puts(out, "GGUF");
    le(out, 3, 4);
    le(out, g->n_t, 8);
    le(out, g->n_kv, 8);
    size_t kv = out->len, info = kv + g->kv.len;
    sb_add(out, g->kv.data, g->kv.len);
    if (g->info.len > 0)
        sb_add(out, g->info.data, g->info.len);
    while (g->n_t > 0 && out->len % g->align != 0)
        sb_putc(out, 0);
    if (g->data.len > 0)
        sb_add(out, g->data.data, g->data.len);
    for (size_t i = 0; i < g->n_fields; i++)
        g->field[i].at =
            g->field[i].at >> 40 ? info + (g->field[i].at & 0xffffffff) : kv + g->field[i].at;
    static const struct gfield head[] = {
        {0, 4, "magic"}, {4, 4, "version"}, {8, 8, "tensor count"}, {16, 8, "kv count"}};
    for (int i = 0; i < 4; i++)
        g->field[g->n_fields++] = head[i];
    assert_true(sb_ok(out));
    sb_free(&g->kv);
    sb_free(&g->info);
    sb_free(&g->data);
}

/* A whole qwen3moe model of one MoE layer, a few kilobytes. */
static inline void g_tiny(struct gfile *g)
{
    g_str(g, "general.architecture", "qwen3moe");
    g_u32(g, "general.alignment", 32);
    g_u32(g, "general.quantization_version", 2);
    g_u32(g, "qwen3moe.block_count", 1);
    g_u32(g, "qwen3moe.context_length", 64);
    g_u32(g, "qwen3moe.embedding_length", 8);
    g_u32(g, "qwen3moe.feed_forward_length", 8);
    g_u32(g, "qwen3moe.attention.head_count", 2);
    g_u32(g, "qwen3moe.attention.head_count_kv", 1);
    g_u32(g, "qwen3moe.attention.key_length", 4);
    g_u32(g, "qwen3moe.attention.value_length", 4);
    g_f32(g, "qwen3moe.attention.layer_norm_rms_epsilon", 1e-6f);
    g_f32(g, "qwen3moe.rope.freq_base", 10000);
    g_u32(g, "qwen3moe.rope.dimension_count", 4);
    g_u32(g, "qwen3moe.expert_count", 2);
    g_u32(g, "qwen3moe.expert_used_count", 1);
    g_u32(g, "qwen3moe.expert_feed_forward_length", 8);
    g_key(g, "qwen3moe.expert_weights_norm", 7);
    le(&g->kv, 1, 1);
    g_u32(g, "qwen3moe.vocab_size", 4);
    g_str(g, "tokenizer.ggml.model", "no_vocab");
    g_array(g, "general.tags", 8, 2);
    gstr(&g->kv, "one");
    gstr(&g->kv, "two");
    g_array(g, "general.numbers", 5, 3);
    for (int i = 0; i < 3; i++)
        le(&g->kv, (uint64_t)i, 4);
    g_f32_tensor(g, "token_embd.weight", 8, 4, 0);
    g_f32_tensor(g, "output_norm.weight", 8, 0, 0);
    g_f32_tensor(g, "output.weight", 8, 4, 0);
    g_f32_tensor(g, "blk.0.attn_norm.weight", 8, 0, 0);
    g_f32_tensor(g, "blk.0.attn_q.weight", 8, 8, 0);
    g_f32_tensor(g, "blk.0.attn_k.weight", 8, 4, 0);
    g_f32_tensor(g, "blk.0.attn_v.weight", 8, 4, 0);
    g_f32_tensor(g, "blk.0.attn_output.weight", 8, 8, 0);
    g_f32_tensor(g, "blk.0.attn_q_norm.weight", 4, 0, 0);
    g_f32_tensor(g, "blk.0.attn_k_norm.weight", 4, 0, 0);
    g_f32_tensor(g, "blk.0.ffn_norm.weight", 8, 0, 0);
    g_tensor(g, "blk.0.ffn_gate_inp.weight", 2, (uint64_t[]){8, 2}, g->router_type,
             g->router_type == 28 ? 128 : 64);
    g_f32_tensor(g, "blk.0.ffn_gate_exps.weight", 8, 8, 2);
    g_f32_tensor(g, "blk.0.ffn_up_exps.weight", 8, 8, 2);
    g_f32_tensor(g, "blk.0.ffn_down_exps.weight", 8, 8, 2);
}

#endif
