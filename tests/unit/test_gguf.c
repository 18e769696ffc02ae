/* test_gguf.c - the GGUF reader against broken files: cut at every byte, every header field
 * changed, every rule by its own case, split models, and failing allocations. Never a crash, always
 * a message that names the file, never an allocation beyond what the file justifies.
 *
 * The allocation functions of base are wrapped by the linker (--wrap) and the largest request is
 * noted.
 */
#include "model_files.h"

#include <fcntl.h>

#include "model/gguf.h"
#include "model/gguf_write.h"
#include "model/model.h"

static size_t largest;

void *__real_mem_alloc(size_t n);
void *__real_mem_calloc(size_t n, size_t size);
void *__real_mem_realloc(void *p, size_t n);
void *__wrap_mem_alloc(size_t n);
void *__wrap_mem_calloc(size_t n, size_t size);
void *__wrap_mem_realloc(void *p, size_t n);

static void seen(size_t n)
{
    largest = n > largest ? n : largest;
}

void *__wrap_mem_alloc(size_t n)
{
    seen(n);
    return __real_mem_alloc(n);
}

void *__wrap_mem_calloc(size_t n, size_t size)
{
    seen(n * size);
    return __real_mem_calloc(n, size);
}

void *__wrap_mem_realloc(void *p, size_t n)
{
    seen(n);
    return __real_mem_realloc(p, n);
}

static char path[64];

/* Read every byte that the weight map hands out: a slice outside the mapping would fault. */
static uint64_t touch_all(const struct mdl *m)
{
    uint64_t sum = 0;
    struct mdl_slice s;
    for (uint32_t l = 0; l < m->t.n_layers; l++)
        for (int r = 0; r < MDL_ROLE_COUNT; r++)
            for (uint32_t e = 0; e < (m->t.n_experts > 0 ? m->t.n_experts : 1); e++)
                if (mdl_weight(m, (enum mdl_role)r, l, e, &s))
                    for (uint64_t i = 0; i < mdl_file_row_bytes(&s) * s.rows; i++)
                        sum += s.data[i];
    return sum;
}

/* Open, judge, close. Returns the status; a success must be usable. */
static kt_status try_open(kt_err *err)
{
    struct mdl *m;
    largest = 0;
    memset(err, 0, sizeof *err);
    kt_status st = mdl_open(path, &m, err);
    if (largest > 65536)
        fail_msg("an allocation of %zu bytes for a file of a few kilobytes", largest);
    if (st == KT_OK) {
        touch_all(m);
        mdl_close(m);
        return st;
    }
    assert_null(m);
    assert_int_equal(err->code, st);
    if (strstr(err->msg, path) == NULL || strlen(err->msg) < strlen(path) + 10)
        fail_msg("the message does not name the file: %s", err->msg);
    return st;
}

static void tiny_loads(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    g_tiny(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    if (try_open(&err) != KT_OK)
        fail_msg("%s", err.msg);
    sb_free(&f);
    free(g);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    g_tiny(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    for (size_t n = f.len; n-- > 0;) {
        assert_int_equal(truncate(path, (off_t)n), 0);
        if (try_open(&err) != KT_E_FORMAT)
            fail_msg("cut at %zu: %d %s", n, err.code, err.msg);
    }
    sb_free(&f);
    free(g);
}

static void put_le(char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (char)(v >> (8 * i));
}

static uint64_t get_le(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)(uint8_t)p[i] << (8 * i);
    return v;
}

static void every_field_changed(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    unsigned failed = 0, tried = 0;
    g_tiny(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    int fd = open(path, O_WRONLY);
    for (size_t i = 0; i < g->n_fields; i++) {
        const struct gfield *x = &g->field[i];
        uint64_t old = get_le(f.data + x->at, x->bytes);
        uint64_t values[] = {0,
                             1,
                             2,
                             3,
                             5,
                             7,
                             9,
                             13,
                             28,
                             31,
                             33,
                             36,
                             64,
                             65,
                             99,
                             100,
                             255,
                             65535,
                             65536,
                             0x7fffffff,
                             0x80000000,
                             0xffffffff,
                             old + 1,
                             old - 1,
                             old * 2,
                             f.len,
                             f.len * 16,
                             0x100000000u,
                             (uint64_t)1 << 40,
                             ((uint64_t)1 << 62),
                             ((uint64_t)1 << 63) - 1,
                             (uint64_t)1 << 63,
                             UINT64_MAX,
                             UINT64_MAX - 7,
                             UINT64_MAX - 31,
                             UINT64_MAX - old,
                             UINT64_MAX / 4,
                             UINT64_MAX / 8 + 1};
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            char now[8];
            put_le(now, values[k], x->bytes);
            if (memcmp(now, f.data + x->at, (size_t)x->bytes) == 0)
                continue;
            assert_int_equal(pwrite(fd, now, (size_t)x->bytes, (off_t)x->at), x->bytes);
            tried++;
            failed += try_open(&err) != KT_OK;
        }
        assert_int_equal(pwrite(fd, f.data + x->at, (size_t)x->bytes, (off_t)x->at), x->bytes);
    }
    close(fd);
    assert_true(tried > 3000);
    assert_true(failed > tried * 8 / 10); /* a context length, say, may be nearly anything */
    sb_free(&f);
    free(g);
}

static void every_byte_changed(void **state)
{
    (void)state;
    static const uint8_t flip[] = {0x01, 0x80, 0xff, 0x20};
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    g_tiny(g);
    size_t data = g->data.len;
    g_join(g, &f);
    put_file(path, f.data, f.len);
    int fd = open(path, O_WRONLY);
    for (size_t i = 0; i < f.len - data; i++) {
        for (size_t k = 0; k < sizeof flip; k++) {
            char c = (char)(f.data[i] ^ flip[k]);
            assert_int_equal(pwrite(fd, &c, 1, (off_t)i), 1);
            try_open(&err);
        }
        assert_int_equal(pwrite(fd, f.data + i, 1, (off_t)i), 1);
    }
    close(fd);
    if (try_open(&err) != KT_OK)
        fail_msg("%s", err.msg);
    sb_free(&f);
    free(g);
}

int fuzz_model(const uint8_t *data, size_t size);

/* Several bytes at once, from a fixed sequence, through the fuzz target. */
static void random_damage(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    uint64_t rng = 1;
    g_tiny(g);
    size_t data = g->data.len;
    g_join(g, &f);
    uint8_t *copy = malloc(f.len);
    for (int i = 0; i < 5000; i++) {
        memcpy(copy, f.data, f.len);
        for (int k = 0; k <= i % 6; k++) {
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            copy[(rng >> 33) % (f.len - data)] = (uint8_t)(rng >> 20);
        }
        fuzz_model(copy, f.len);
    }
    free(copy);
    sb_free(&f);
    free(g);
}

/* One rule per row: a field of the tiny file set to a value, the status, and what the message must
 * say. */
struct rule {
    const char *field;
    uint64_t value;
    kt_status status;
    const char *says;
};

static void hold(const struct rule *rule, size_t n)
{
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    g_tiny(g);
    g_join(g, &f);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < g->n_fields && strcmp(g->field[k].what, rule[i].field) != 0)
            k++;
        if (k == g->n_fields)
            fail_msg("no field '%s'", rule[i].field);
        char old[8];
        memcpy(old, f.data + g->field[k].at, (size_t)g->field[k].bytes);
        put_le(f.data + g->field[k].at, rule[i].value, g->field[k].bytes);
        put_file(path, f.data, f.len);
        kt_status st = try_open(&err);
        if (st != rule[i].status || (st != KT_OK && strstr(err.msg, rule[i].says) == NULL))
            fail_msg("%s = %llu: %d '%s', expected %d '%s'", rule[i].field,
                     (unsigned long long)rule[i].value, st, err.msg, rule[i].status, rule[i].says);
        memcpy(f.data + g->field[k].at, old, (size_t)g->field[k].bytes);
    }
    sb_free(&f);
    free(g);
}

/* Magic, version, value and tensor types. */
static void identity_and_types(void **state)
{
    (void)state;
    static const struct rule rule[] = {
        {"magic", 0x46554746, KT_E_FORMAT, "47 47 55 46"},
        {"version", 1, KT_E_UNSUPPORTED, "version 1"},
        {"version", 4, KT_E_UNSUPPORTED, "version 4"},
        {"version", 0x03000000, KT_E_UNSUPPORTED, "big-endian"},
        {"element type of general.numbers", 9, KT_E_UNSUPPORTED, "arrays of arrays"},
        {"element type of general.numbers", 99, KT_E_FORMAT, "value type 99"},
        {"type of blk.0.attn_q.weight", 4, KT_E_UNSUPPORTED, "removed"},
        {"type of blk.0.attn_q.weight", 9, KT_E_UNSUPPORTED, "Q8_1"},
        {"type of blk.0.attn_q.weight", 36, KT_E_UNSUPPORTED, "ik_llama.cpp"},
        {"type of blk.0.attn_q.weight", 140, KT_E_UNSUPPORTED, "ik_llama.cpp"},
        {"type of blk.0.attn_q.weight", 1000, KT_E_UNSUPPORTED, "unknown"},
        {"type of blk.0.attn_q.weight", 2, KT_E_FORMAT, "whole q4_0 blocks of 32"},
        {"type of blk.0.ffn_gate_inp.weight", 24, KT_E_UNSUPPORTED,
         "blk.0.ffn_gate_inp.weight (router) has the type i8"},
        {"type of blk.0.attn_q.weight", 26, KT_E_UNSUPPORTED, "has the type i32"},
    };
    hold(rule, sizeof rule / sizeof rule[0]);
}

/* Counts, lengths and dimensions up to 2^64 - 1: an error, and no allocation above what the file
 * justifies. */
static void security_counts_and_sizes(void **state)
{
    (void)state;
    static const struct rule rule[] = {
        {"tensor count", UINT64_MAX, KT_E_FORMAT, "18446744073709551615 tensors"},
        {"tensor count", (uint64_t)1 << 60, KT_E_FORMAT, "cannot fit"},
        {"kv count", UINT64_MAX / 13, KT_E_FORMAT, "cannot fit"},
        {"kv count", (uint64_t)1 << 63, KT_E_FORMAT, "cannot fit"},
        {"key length of qwen3moe.block_count", UINT64_MAX, KT_E_FORMAT, "65535"},
        {"key length of qwen3moe.block_count", 0, KT_E_FORMAT, "empty"},
        {"key length of qwen3moe.block_count", 65535, KT_E_FORMAT, "ends after"},
        {"type of qwen3moe.block_count", 13, KT_E_FORMAT, "value type 13"},
        {"type of qwen3moe.block_count", 6, KT_E_FORMAT,
         "qwen3moe.block_count has the value type f32"},
        {"string length of general.architecture", UINT64_MAX - 7, KT_E_FORMAT,
         "general.architecture"},
        {"string length of general.architecture", (uint64_t)1 << 30, KT_E_FORMAT, "ends after"},
        {"string length of general.architecture", 0, KT_E_FORMAT, "key"},
        {"array length of general.numbers", UINT64_MAX, KT_E_FORMAT, "general.numbers"},
        {"array length of general.numbers", (uint64_t)1 << 30, KT_E_FORMAT, "general.numbers"},
        {"array length of general.tags", (uint64_t)1 << 29, KT_E_FORMAT, "general.tags"},
        {"name length of blk.0.attn_q.weight", 65, KT_E_FORMAT, "at most 64"},
        {"name length of blk.0.attn_q.weight", 0, KT_E_FORMAT, "empty"},
        {"dimension count of blk.0.attn_q.weight", 0, KT_E_FORMAT,
         "blk.0.attn_q.weight: it has 0 dimensions"},
        {"dimension count of blk.0.attn_q.weight", 5, KT_E_FORMAT, "5 dimensions"},
        {"dimension count of blk.0.attn_q.weight", UINT32_MAX, KT_E_FORMAT,
         "4294967295 dimensions"},
        {"dimension of blk.0.attn_q.weight", 0, KT_E_FORMAT, "dimension 0 is 0"},
        {"dimension of blk.0.attn_q.weight", (uint64_t)1 << 62, KT_E_FORMAT, "2^63"},
        {"dimension of blk.0.attn_q.weight", (uint64_t)1 << 59, KT_E_FORMAT, "2^64"},
        {"dimension of blk.0.attn_q.weight", 7, KT_E_FORMAT, "shape"},
    };
    hold(rule, sizeof rule / sizeof rule[0]);
}

/* Tensors that leave the file, overlap, or whose end overflows. */
static void security_extents(void **state)
{
    (void)state;
    static const struct rule rule[] = {
        {"value of general.alignment", 0x80000000, KT_E_FORMAT, "past the end"},
        {"dimension of blk.0.attn_q.weight", 16, KT_E_FORMAT, "overlaps"},
        {"dimension of blk.0.ffn_down_exps.weight", 1 << 20, KT_E_FORMAT,
         "past the end of the file"},
        {"offset of blk.0.attn_q.weight", 1, KT_E_FORMAT, "not a multiple of the alignment"},
        {"offset of blk.0.attn_q.weight", UINT64_MAX - 31, KT_E_FORMAT, "2^64"},
        {"offset of blk.0.attn_q.weight", (uint64_t)1 << 40, KT_E_FORMAT,
         "past the end of the file"},
        {"offset of blk.0.attn_q.weight", 0, KT_E_FORMAT, "overlaps"},
    };
    hold(rule, sizeof rule / sizeof rule[0]);
}

/* Numbers that others divide by, and values of the wrong type. */
static void security_zeros_and_wrong_types(void **state)
{
    (void)state;
    static const struct rule rule[] = {
        {"value of general.alignment", 0, KT_E_FORMAT, "general.alignment is 0"},
        {"value of general.alignment", 4, KT_E_FORMAT, "power of two"},
        {"value of general.alignment", 48, KT_E_FORMAT, "power of two"},
        {"type of general.alignment", 5, KT_E_FORMAT, "must be u32"},
        {"value of general.quantization_version", 1, KT_OK, ""},
        {"value of qwen3moe.block_count", 0, KT_E_FORMAT, "qwen3moe.block_count is 0"},
        {"value of qwen3moe.block_count", 2, KT_E_FORMAT, "layer 1 has no"},
        {"value of qwen3moe.block_count", 65536, KT_E_FORMAT, "only 15 tensors"},
        {"value of qwen3moe.block_count", UINT32_MAX, KT_E_FORMAT, "4294967295"},
        {"value of qwen3moe.attention.head_count", 0, KT_E_FORMAT, "head_count is 0"},
        {"value of qwen3moe.attention.head_count", 3, KT_E_FORMAT, "shape"},
        {"value of qwen3moe.attention.head_count_kv", 0, KT_E_FORMAT, "head_count_kv is 0"},
        {"value of qwen3moe.attention.head_count_kv", 3, KT_E_FORMAT, "share"},
        {"value of qwen3moe.attention.key_length", 0, KT_E_FORMAT, "key_length is 0"},
        {"value of qwen3moe.attention.value_length", 8, KT_E_UNSUPPORTED, "value_length"},
        {"value of qwen3moe.embedding_length", 0, KT_E_FORMAT, "embedding_length is 0"},
        {"value of qwen3moe.embedding_length", 16, KT_E_FORMAT, "shape"},
        {"value of qwen3moe.expert_count", 0, KT_E_FORMAT, "expert_count is 0"},
        {"value of qwen3moe.expert_count", 3, KT_E_FORMAT, "shape"},
        {"value of qwen3moe.expert_used_count", 3, KT_E_FORMAT, "3 of 2 experts"},
        {"value of qwen3moe.expert_used_count", 0, KT_E_FORMAT, "expert_used_count is 0"},
        {"value of qwen3moe.rope.dimension_count", 3, KT_E_FORMAT, "even"},
        {"value of qwen3moe.rope.dimension_count", 6, KT_E_FORMAT, "dimension_count is 6"},
        {"value of qwen3moe.rope.freq_base", 0x7fc00000, KT_E_FORMAT, "finite"},
        {"value of qwen3moe.rope.freq_base", 0, KT_E_FORMAT, "rope base"},
        {"value of qwen3moe.attention.layer_norm_rms_epsilon", 0, KT_E_FORMAT, "epsilon"},
        {"value of qwen3moe.vocab_size", 5, KT_E_FORMAT, "vocab_size is 5"},
        {"value of qwen3moe.context_length", 0, KT_E_FORMAT, "context_length is 0"},
    };
    hold(rule, sizeof rule / sizeof rule[0]);
}

/* A tiny file with something added. */
static kt_status with(void (*add)(struct gfile *g), kt_err *err)
{
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    g_tiny(g);
    add(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    kt_status st = try_open(err);
    sb_free(&f);
    free(g);
    return st;
}

static void twice_a_key(struct gfile *g)
{
    g_u32(g, "qwen3moe.block_count", 1);
}

static void twice_a_tensor(struct gfile *g)
{
    g_f32_tensor(g, "output.weight", 8, 4, 0);
}

static void a_foreign_tensor(struct gfile *g)
{
    g_f32_tensor(g, "blk.0.attn_sinks.weight", 2, 0, 0);
}

static void a_layer_too_many(struct gfile *g)
{
    g_f32_tensor(g, "blk.1.attn_norm.weight", 8, 0, 0);
}

static void a_window(struct gfile *g)
{
    g_u32(g, "qwen3moe.attention.sliding_window", 128);
}

static void a_shared_expert(struct gfile *g)
{
    g_u32(g, "qwen3moe.expert_shared_count", 1);
}

static void longrope(struct gfile *g)
{
    g_str(g, "qwen3moe.rope.scaling.type", "longrope");
    g_f32(g, "qwen3moe.rope.scaling.factor", 4);
}

static void yarn_without_factor(struct gfile *g)
{
    g_str(g, "qwen3moe.rope.scaling.type", "yarn");
}

static void a_bad_bool(struct gfile *g)
{
    g_key(g, "general.flag", 7);
    le(&g->kv, 2, 1);
}

static void too_many_tokens(struct gfile *g)
{
    g_array(g, "tokenizer.ggml.tokens", 8, 5);
    for (int i = 0; i < 5; i++)
        gstr(&g->kv, "x");
}

static void unknown_keys_and_widths(struct gfile *g)
{
    g_key(g, "general.odd", 10);
    le(&g->kv, 7, 8);
    g_u32(g, "qwen3moe.some.new.key", 3);
}

static void rules_by_addition(void **state)
{
    (void)state;
    static const struct {
        void (*add)(struct gfile *g);
        kt_status status;
        const char *says;
    } rule[] = {
        {twice_a_key, KT_E_FORMAT, "key qwen3moe.block_count appears twice"},
        {twice_a_tensor, KT_E_FORMAT, "tensor output.weight appears twice"},
        {a_foreign_tensor, KT_E_UNSUPPORTED, "blk.0.attn_sinks.weight"},
        {a_layer_too_many, KT_E_FORMAT, "blk.1.attn_norm.weight"},
        {a_window, KT_E_UNSUPPORTED, "attention.sliding_window is 128"},
        {a_shared_expert, KT_E_UNSUPPORTED, "expert_shared_count"},
        {longrope, KT_E_UNSUPPORTED, "longrope"},
        {yarn_without_factor, KT_E_FORMAT, "rope.scaling.factor is missing"},
        {a_bad_bool, KT_E_FORMAT, "general.flag"},
        {too_many_tokens, KT_E_FORMAT, "tokenizer.ggml.tokens"},
        {unknown_keys_and_widths, KT_OK, ""},
    };
    kt_err err;
    for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
        kt_status st = with(rule[i].add, &err);
        if (st != rule[i].status || (st != KT_OK && strstr(err.msg, rule[i].says) == NULL))
            fail_msg("case %zu: %d '%s', expected %d '%s'", i, st, err.msg, rule[i].status,
                     rule[i].says);
    }
}

/* Valid for the container, useless as a weight: the loader says so, it does not leave it to a
 * kernel that does not exist. */
static void types_without_kernel(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    g->router_type = 28;
    g_tiny(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    assert_int_equal(try_open(&err), KT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "blk.0.ffn_gate_inp.weight (router) has the type f64"));
    sb_free(&f);
    free(g);
}

/* A dense llama with fused q, k, v, rope divisors, tied head, values numbered so that slices can be
 * told apart. */
static void dense_llama(void **state)
{
    (void)state;
    static const char *const plain[][2] = {{"attn_output.weight", "8x8"},
                                           {"ffn_gate.weight", "8x12"},
                                           {"ffn_up.weight", "8x12"},
                                           {"ffn_down.weight", "12x8"}};
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    struct mdl *m;
    struct mdl_slice q, k, v;
    kt_err err;
    char name[64];
    float fr[2];
    g_str(g, "general.architecture", "llama");
    g_u32(g, "llama.block_count", 1);
    g_u32(g, "llama.context_length", 64);
    g_u32(g, "llama.embedding_length", 8);
    g_key(g, "llama.feed_forward_length", 5);
    le(&g->kv, 12, 4);
    g_array(g, "llama.attention.head_count", 4, 1);
    le(&g->kv, 2, 4);
    g_key(g, "llama.attention.head_count_kv", 2);
    le(&g->kv, 1, 2);
    g_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    g_u32(g, "llama.expert_count", 0);
    g_f32_tensor(g, "token_embd.weight", 8, 4, 0);
    g_f32_tensor(g, "output_norm.weight", 8, 0, 0);
    g_f32_tensor(g, "rope_freqs.weight", 2, 0, 0);
    g_f32_tensor(g, "blk.0.attn_norm.weight", 8, 0, 0);
    g_f32_tensor(g, "blk.0.ffn_norm.weight", 8, 0, 0);
    g_f32_tensor(g, "blk.0.attn_qkv.weight", 8, 16, 0);
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "blk.0.%s", plain[i][0]);
        g_f32_tensor(g, name, i == 3 ? 12 : 8, i == 0 || i == 3 ? 8 : 12, 0);
    }
    g_join(g, &f);
    put_file(path, f.data, f.len);
    if (mdl_open(path, &m, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_true(m->t.tied_head && m->t.rope.interleaved && !m->t.qk_norm && m->t.n_experts == 0);
    assert_int_equal(m->t.head_dim, 4);
    assert_int_equal(m->t.dense_inter, 12);
    assert_int_equal(m->t.rope.scaling, MDL_ROPE_TABLE);
    mdl_rope_freqs(&m->t.rope, fr);
    assert_true(fr[0] == (float)(1 / 0.0078125) &&
                fr[1] == (float)(0.01 / 0.0078125)); /* the bytes 00 00 00 3c */
    assert_true(mdl_weight(m, MDL_Q, 0, 0, &q) && mdl_weight(m, MDL_K, 0, 0, &k) &&
                mdl_weight(m, MDL_V, 0, 0, &v));
    assert_int_equal(k.data - q.data, 8 * 8 * 4);
    assert_int_equal(v.data - k.data, 4 * 8 * 4);
    assert_int_equal(v.rows, 4);
    assert_false(mdl_weight(m, MDL_Q_NORM, 0, 0, &q));
    assert_false(mdl_weight(m, MDL_ROUTER, 0, 0, &q));
    mdl_close(m);
    sb_free(&f);
    free(g);
}

/* gate and up of all experts in one tensor: rows of gate first, expert by expert. */
static void fused_gate_up(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    struct mdl *m;
    struct mdl_slice a, b, c;
    kt_err err;
    g_tiny(g);
    /* the up tensor takes the fused name, one of the same length is left over and ignored */
    for (size_t i = 0; i + 26 < g->info.len; i++)
        if (memcmp(g->info.data + i, "blk.0.ffn_gate_exps.weight", 26) == 0)
            memcpy(g->info.data + i, "blk.0.rotary_emb.inv_freqs", 26);
        else if (memcmp(g->info.data + i, "blk.0.ffn_up_exps.weight", 24) == 0)
            memcpy(g->info.data + i, "x0.rotary_emb.inv_freq.w", 24);
    g_f32_tensor(g, "blk.0.ffn_gate_up_exps.weight", 8, 16, 2);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    if (mdl_open(path, &m, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_true(mdl_weight(m, MDL_GATE, 0, 0, &a) && mdl_weight(m, MDL_UP, 0, 0, &b) &&
                mdl_weight(m, MDL_GATE, 0, 1, &c));
    assert_string_equal(a.tensor, "blk.0.ffn_gate_up_exps.weight");
    assert_int_equal(b.data - a.data, 8 * 8 * 4);
    assert_int_equal(c.data - a.data, 16 * 8 * 4);
    assert_int_equal(b.rows, 8);
    mdl_close(m);
    sb_free(&f);
    free(g);
}

/* The tiny model in two files. change: what to do wrong. */
enum split_fault {
    SPLIT_FINE,
    SPLIT_WRONG_NO,
    SPLIT_WRONG_COUNT,
    SPLIT_WRONG_TOTAL,
    SPLIT_TWICE,
    SPLIT_MISSING
};

static void write_split(const char *dir, enum split_fault fault)
{
    for (int part = 0; part < 2; part++) {
        struct gfile *g = calloc(1, sizeof *g);
        struct strbuf f = {0};
        char name[128];
        snprintf(name, sizeof name, "%s/m-%05d-of-00002.gguf", dir, part + 1);
        if (part == 0) {
            g_tiny(g);
            g_u32(g, "split.tensors.count", fault == SPLIT_WRONG_TOTAL ? 17 : 16);
            /* the down projection moves to part 2 under its name; here it becomes a rope table that
             * is not used */
            size_t at = g->info.len - 26 - 4 - 3 * 8 - 4 - 8;
            assert_memory_equal(g->info.data + at, "blk.0.ffn_down_exps.weight", 26);
            memcpy(g->info.data + at, "blk.0.rotary_emb.inv_freqs", 26);
        }
        g_key(g, "split.no", 2);
        le(&g->kv, (uint64_t)(part == 1 && fault == SPLIT_WRONG_NO ? 0 : part), 2);
        g_key(g, "split.count", 2);
        le(&g->kv, part == 1 && fault == SPLIT_WRONG_COUNT ? 3 : 2, 2);
        if (part == 1)
            g_f32_tensor(g, fault == SPLIT_TWICE ? "output.weight" : "blk.0.ffn_down_exps.weight",
                         8, 8, 2);
        g_join(g, &f);
        if (part == 1 && fault == SPLIT_MISSING)
            unlink(name);
        else
            put_file(name, f.data, f.len);
        sb_free(&f);
        free(g);
    }
}

static void split_models(void **state)
{
    (void)state;
    static const char *const says[] = {"",
                                       "split.no is 0, expected 1",
                                       "split.count is 3",
                                       "split.tensors.count is 17",
                                       "output.weight appears twice",
                                       "part 2 of 2 is missing"};
    char dir[] = "/tmp/kt-split-XXXXXX", one[64], two[64];
    kt_err err;
    assert_non_null(mkdtemp(dir));
    snprintf(one, sizeof one, "%s/m-00001-of-00002.gguf", dir);
    snprintf(two, sizeof two, "%s/m-00002-of-00002.gguf", dir);
    for (int fault = SPLIT_FINE; fault <= SPLIT_MISSING; fault++) {
        struct mdl *m;
        write_split(dir, (enum split_fault)fault);
        kt_status st = mdl_open(one, &m, &err);
        if (fault != SPLIT_FINE) {
            if (st == KT_OK || strstr(err.msg, says[fault]) == NULL)
                fail_msg("fault %d: %d %s", fault, st, err.msg);
            continue;
        }
        for (int k = 0; k < 3; k++) { /* by either part, or by the directory */
            if (k > 0)
                st = mdl_open(k == 1 ? two : dir, &m, &err);
            if (st != KT_OK)
                fail_msg("%s", err.msg);
            if (k < 2)
                assert_string_equal(m->name, "m");
            assert_int_equal(gguf_shards(m->gguf), 2);
            struct mdl_slice s;
            assert_true(mdl_weight(m, MDL_DOWN, 0, 1, &s));
            assert_string_equal(s.file, two);
            mdl_close(m);
        }
    }
    unlink(one);
    rmdir(dir);
}

static void failing_allocations(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    kt_err err;
    struct mdl *m = NULL;
    long n = 0;
    g_tiny(g);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    for (;; n++) {
        mem_fail_after(n);
        kt_status st = mdl_open(path, &m, &err);
        mem_fail_after(-1);
        if (st == KT_OK)
            break;
        assert_int_equal(st, KT_E_NOMEM);
        assert_null(m);
    }
    assert_true(n > 20);
    mdl_close(m);
    sb_free(&f);
    free(g);
}

static void metadata_reads(void **state)
{
    (void)state;
    struct gfile *g = calloc(1, sizeof *g);
    struct strbuf f = {0};
    struct gguf *r;
    kt_err err;
    uint64_t u;
    double d;
    bool b;
    struct gguf_str s;
    g_tiny(g);
    g_key(g, "a.i64", 11);
    le(&g->kv, (uint64_t)-5, 8);
    g_key(g, "a.u8", 0);
    le(&g->kv, 200, 1);
    g_key(g, "a.u64", 10);
    le(&g->kv, UINT64_MAX, 8);
    g_key(g, "a.f64", 12);
    le(&g->kv, 0x3ff8000000000000u, 8);
    g_join(g, &f);
    put_file(path, f.data, f.len);
    assert_int_equal(gguf_open(path, &r, &err), KT_OK);
    assert_int_equal(gguf_get_u64(r, "a.i64", 0, &u, &err), KT_E_FORMAT);
    assert_non_null(strstr(err.msg, "a.i64 is -5"));
    assert_int_equal(gguf_get_u64(r, "a.u8", 0, &u, &err), KT_OK);
    assert_int_equal(u, 200);
    assert_int_equal(gguf_get_u64(r, "a.u64", 0, &u, &err), KT_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(gguf_get_u64(r, "a.none", 42, &u, &err), KT_OK);
    assert_int_equal(u, 42);
    assert_int_equal(gguf_get_f64(r, "a.f64", 0, &d, &err), KT_OK);
    assert_true(d == 1.5);
    assert_int_equal(gguf_get_f64(r, "a.u8", 0, &d, &err), KT_OK);
    assert_true(d == 200);
    assert_int_equal(gguf_get_bool(r, "a.u8", false, &b, &err), KT_E_FORMAT);
    assert_int_equal(gguf_get_bool(r, "qwen3moe.expert_weights_norm", false, &b, &err), KT_OK);
    assert_true(b);
    assert_int_equal(gguf_get_str(r, "tokenizer.ggml.model", &s, &err), KT_OK);
    assert_memory_equal(s.s, "no_vocab", 8);
    const struct gguf_kv *kv = gguf_find(r, "general.tags");
    const uint8_t *cursor = kv->data;
    assert_int_equal(kv->count, 2);
    gguf_next_str(&cursor);
    s = gguf_next_str(&cursor);
    assert_memory_equal(s.s, "two", 3);
    assert_int_equal(gguf_int_at(gguf_find(r, "general.numbers"), 2), 2);
    gguf_close(r);
    sb_free(&f);
    free(g);
}

static void writer_and_reader_agree(void **state)
{
    (void)state;
    struct gguf_out *o;
    struct gguf *r;
    kt_err err;
    uint64_t n, dims[3] = {64, 3, 2};
    uint8_t row[2 * 3 * 2 * 34];
    float three[3] = {1, 2, 3};
    for (size_t i = 0; i < sizeof row; i++)
        row[i] = (uint8_t)i;
    unlink(path);
    for (int pass = 0; pass < 2; pass++) { /* first without commit: nothing may appear */
        struct gguf_out_opts opts = {.path = path, .alignment = 64};
        assert_int_equal(gguf_out_open(&opts, &o, &err), KT_OK);
        gguf_out_str(o, "general.architecture", "test", 4);
        gguf_out_array(o, "x.words", GGUF_STRING, 2);
        gguf_out_item_str(o, "a b", 3);
        gguf_out_item_str(o, "", 0);
        gguf_out_bool(o, "x.flag", true);
        gguf_out_f32(o, "x.real", 0.5f);
        gguf_out_tensor(o, "x.q", DT_Q8_0, 3, dims);
        dims[0] = 3;
        gguf_out_tensor(o, "x.v", DT_F32, 1, dims);
        dims[0] = 64;
        assert_int_equal(gguf_out_begin(o, &err), KT_OK);
        for (size_t i = 0; i < sizeof row; i += 51)
            assert_int_equal(gguf_out_data(o, row + i, 51, &err), KT_OK);
        assert_int_equal(gguf_out_data(o, three, sizeof three, &err), KT_OK);
        if (pass == 1)
            assert_int_equal(gguf_out_commit(o, &err), KT_OK);
        gguf_out_close(o);
        assert_int_equal(have(path), pass);
    }
    if (gguf_open(path, &r, &err) != KT_OK)
        fail_msg("%s", err.msg);
    const struct gguf_tensor *t = gguf_tensors(r, &n);
    assert_int_equal(n, 2);
    assert_int_equal(t[0].bytes, sizeof row);
    assert_memory_equal(t[0].data, row, sizeof row);
    assert_memory_equal(t[1].data, three, sizeof three);
    assert_int_equal(t[1].offset % 64, 0);
    assert_int_equal(gguf_find(r, "x.words")->count, 2);
    gguf_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_loads),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(every_field_changed),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(random_damage),
        cmocka_unit_test(identity_and_types),
        cmocka_unit_test(security_counts_and_sizes),
        cmocka_unit_test(security_extents),
        cmocka_unit_test(security_zeros_and_wrong_types),
        cmocka_unit_test(rules_by_addition),
        cmocka_unit_test(types_without_kernel),
        cmocka_unit_test(dense_llama),
        cmocka_unit_test(fused_gate_up),
        cmocka_unit_test(split_models),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(metadata_reads),
        cmocka_unit_test(writer_and_reader_agree),
    };
    snprintf(path, sizeof path, "/tmp/kt-gguf-%ld.gguf", (long)getpid());
    int bad = cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
    unlink(path);
    return bad;
}
