/* test_safetensors.c - safetensors files and checkpoint directories against damage, config.json key
 * by key. A checkpoint of one MoE layer is made here; it is cut at every byte, its header changed
 * byte by byte, its index and config broken in named ways.
 */
#include "model_files.h"

#include <fcntl.h>

#include "model/model.h"
#include "model/safetensors.h"

#define CONFIG                                                                                     \
    "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"hidden_size\":8,\"num_hidden_layers\":1,"      \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,"                                         \
    "\"head_dim\":4,\"vocab_size\":4,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-6,\"rope_" \
    "theta\":10000,\"rope_scaling\":null,"                                                         \
    "\"num_experts\":2,\"num_experts_per_tok\":1,\"moe_intermediate_size\":8,\"intermediate_"      \
    "size\":16,\"norm_topk_prob\":true,\"hidden_act\":\"silu\","                                   \
    "\"sliding_window\":null,\"tie_word_embeddings\":false,\"attention_bias\":false}"

static char dir[64], file[128], config[128];

struct tensor {
    const char *name;
    unsigned rows, cols; /* rows 0: vector */
};

static const struct tensor tiny[] = {
    {"model.embed_tokens.weight", 4, 8},
    {"model.layers.0.input_layernorm.weight", 0, 8},
    {"model.layers.0.self_attn.q_proj.weight", 8, 8},
    {"model.layers.0.self_attn.k_proj.weight", 4, 8},
    {"model.layers.0.self_attn.v_proj.weight", 4, 8},
    {"model.layers.0.self_attn.o_proj.weight", 8, 8},
    {"model.layers.0.self_attn.q_norm.weight", 0, 4},
    {"model.layers.0.self_attn.k_norm.weight", 0, 4},
    {"model.layers.0.post_attention_layernorm.weight", 0, 8},
    {"model.layers.0.mlp.gate.weight", 2, 8},
    {"model.layers.0.mlp.experts.0.gate_proj.weight", 8, 8},
    {"model.layers.0.mlp.experts.0.up_proj.weight", 8, 8},
    {"model.layers.0.mlp.experts.0.down_proj.weight", 8, 8},
    {"model.layers.0.mlp.experts.1.gate_proj.weight", 8, 8},
    {"model.layers.0.mlp.experts.1.up_proj.weight", 8, 8},
    {"model.layers.0.mlp.experts.1.down_proj.weight", 8, 8},
    {"model.norm.weight", 0, 8},
    {"lm_head.weight", 4, 8},
};
#define N_TINY (sizeof tiny / sizeof tiny[0])

/* Tensors [from, to) of the tiny model in BF16. */
static void build(struct strbuf *out, size_t from, size_t to)
{
    struct strbuf h = {0};
    unsigned long at = 0;
    sb_puts(&h, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = from; i < to; i++) {
        unsigned n = (tiny[i].rows ? tiny[i].rows : 1) * tiny[i].cols * 2;
        sb_printf(&h, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", tiny[i].name);
        if (tiny[i].rows)
            sb_printf(&h, "%u,", tiny[i].rows);
        sb_printf(&h, "%u],\"data_offsets\":[%lu,%lu]}", tiny[i].cols, at, at + n);
        at += n;
    }
    sb_puts(&h, "}");
    while (h.len % 8 != 0)
        sb_putc(&h, ' ');
    le(out, h.len, 8);
    sb_add(out, h.data, h.len);
    for (unsigned long i = 0; i < at; i++)
        sb_putc(out, i % 2 ? 0x3c : 0);
    sb_free(&h);
    assert_true(sb_ok(out));
}

static kt_status try_open(kt_err *err)
{
    struct mdl *m;
    struct mdl_slice s;
    uint64_t sum = 0;
    memset(err, 0, sizeof *err);
    kt_status st = mdl_open(dir, &m, err);
    if (st != KT_OK) {
        assert_null(m);
        if (strstr(err->msg, dir) == NULL || strlen(err->msg) < strlen(dir) + 10)
            fail_msg("the message does not name the place: %s", err->msg);
        return st;
    }
    for (int r = 0; r < MDL_ROLE_COUNT; r++)
        for (uint32_t e = 0; e < m->t.n_experts; e++)
            if (mdl_weight(m, (enum mdl_role)r, 0, e, &s))
                for (uint64_t i = 0; i < mdl_file_row_bytes(&s) * s.rows; i++)
                    sum += s.data[i];
    assert_true(sum > 0);
    mdl_close(m);
    return st;
}

static void write_tiny(void)
{
    struct strbuf f = {0};
    build(&f, 0, N_TINY);
    put_file(file, f.data, f.len);
    put_file(config, CONFIG, strlen(CONFIG));
    sb_free(&f);
}

static void tiny_loads(void **state)
{
    (void)state;
    kt_err err;
    write_tiny();
    if (try_open(&err) != KT_OK)
        fail_msg("%s", err.msg);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    kt_err err;
    struct stat sb;
    write_tiny();
    assert_int_equal(stat(file, &sb), 0);
    for (off_t n = sb.st_size; n-- > 0;) {
        assert_int_equal(truncate(file, n), 0);
        if (try_open(&err) != KT_E_FORMAT)
            fail_msg("cut at %ld: %d %s", (long)n, err.code, err.msg);
    }
    write_tiny();
    size_t len = strlen(CONFIG);
    while (len-- > 0) {
        assert_int_equal(truncate(config, (off_t)len), 0);
        if (try_open(&err) != KT_E_FORMAT)
            fail_msg("config cut at %zu: %d %s", len, err.code, err.msg);
    }
}

static void every_header_byte_changed(void **state)
{
    (void)state;
    static const uint8_t flip[] = {0x01, 0x80, 0x20, 0x0f};
    struct strbuf f = {0};
    kt_err err;
    unsigned ok = 0, all = 0;
    write_tiny();
    build(&f, 0, N_TINY);
    size_t n = 8 + (size_t)load_u64(f.data);
    int fd = open(file, O_WRONLY);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof flip; k++) {
            char c = (char)(f.data[i] ^ flip[k]);
            assert_int_equal(pwrite(fd, &c, 1, (off_t)i), 1);
            ok += try_open(&err) == KT_OK;
            all++;
        }
        assert_int_equal(pwrite(fd, f.data + i, 1, (off_t)i), 1);
    }
    close(fd);
    assert_true(ok * 20 < all); /* spaces of the padding, the metadata text */
    sb_free(&f);
}

/* Headers over 16 bytes of data, through the file reader. */
static void header_rules(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        kt_status status;
        const char *says;
    } rule[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", KT_OK, ""},
        {" {\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "must begin with {"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"e\":{\"dtype\":\"I8\","
         "\"shape\":[0,5],\"data_offsets\":[4,4]},"
         "\"b\":{\"dtype\":\"I32\",\"shape\":[3,1],\"data_offsets\":[4,16]}}  ",
         KT_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", KT_E_FORMAT,
         "4 bytes follow the last tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}", KT_E_FORMAT, "gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},\"b\":{\"dtype\":"
         "\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         KT_E_FORMAT, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\","
         "\"shape\":[2],\"data_offsets\":[8,16]}}",
         KT_E_FORMAT, "a appears twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
         KT_E_FORMAT, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}", KT_E_FORMAT,
         "past the end of the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", KT_E_FORMAT,
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,32]}}", KT_E_FORMAT,
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "shape entry 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "shape entry 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,16]}}",
         KT_E_FORMAT, "overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,16]}}",
         KT_E_FORMAT, "a"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[32],\"data_offsets\":[0,16]}}", KT_E_UNSUPPORTED,
         "F4"},
        {"{\"a\":{\"dtype\":\"F8_E4M3FNUZ\",\"shape\":[16],\"data_offsets\":[0,16]}}",
         KT_E_UNSUPPORTED, "F8_E4M3FNUZ"},
        {"{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", KT_E_FORMAT, "no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", KT_E_FORMAT, "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]}}",
         KT_E_UNSUPPORTED, "9 dimensions"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "empty name"},
        {"{\"a\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "control byte"},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", KT_E_FORMAT,
         "valid JSON string"},
        {"{\"__metadata__\":{\"k\":1},\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,"
         "16]}}",
         KT_E_FORMAT, "not a string"},
        {"{\"a\":[1]}", KT_E_FORMAT, "expected an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}} x", KT_E_FORMAT,
         "after the closing brace"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},}", KT_E_FORMAT,
         "name in double quotes"},
        {"{}", KT_E_FORMAT, "16 bytes follow"},
        {"[]", KT_E_FORMAT, "must begin with {"},
    };
    kt_err err;
    struct st *st;
    for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
        struct strbuf f = {0};
        le(&f, strlen(rule[i].header), 8);
        sb_puts(&f, rule[i].header);
        sb_add(&f, "0123456789abcdef", 16);
        put_file(file, f.data, f.len);
        kt_status got = st_open_file(file, &st, &err);
        if (got != rule[i].status || (got != KT_OK && (strstr(err.msg, rule[i].says) == NULL ||
                                                       strstr(err.msg, file) == NULL)))
            fail_msg("%s: %d '%s', expected %d '%s'", rule[i].header, got, err.msg, rule[i].status,
                     rule[i].says);
        if (got == KT_OK) {
            assert_non_null(st_find(st, "a"));
            assert_null(st_find(st, "zz"));
        }
        st_close(st);
        sb_free(&f);
    }
}

static void config_rules(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        kt_status status;
        const char *says;
    } rule[] = {
        {"\"hidden_size\":8", "\"hidden_size\":0", KT_E_FORMAT, "hidden_size is 0"},
        {"\"hidden_size\":8", "\"hidden_size\":\"8\"", KT_E_FORMAT,
         "hidden_size is not an integer"},
        {"\"hidden_size\":8,", "", KT_E_FORMAT, "hidden_size is missing"},
        {"\"hidden_size\":8", "\"hidden_size\":16", KT_E_FORMAT,
         "has the shape [4 x 8], the model's numbers need [4 x 16]"},
        {"\"hidden_size\":8", "\"hidden_size\":8,\"hidden_size\":8", KT_E_FORMAT, "duplicate"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":2", KT_E_FORMAT, "layer 1 has no"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":9999", KT_E_FORMAT, "9999 layers"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":-1", KT_E_FORMAT,
         "num_hidden_layers is -1"},
        {"\"num_attention_heads\":2", "\"num_attention_heads\":0", KT_E_FORMAT,
         "num_attention_heads is 0"},
        {"\"num_key_value_heads\":1", "\"num_key_value_heads\":4", KT_E_FORMAT, "share"},
        {"\"num_experts\":2", "\"num_experts\":3", KT_E_FORMAT, "shape"},
        {"\"num_experts\":2", "\"num_experts\":60000", KT_E_FORMAT, "180000 tensors"},
        {"\"num_experts\":2", "\"num_local_experts\":2", KT_OK, ""},
        {"\"num_experts_per_tok\":1", "\"num_experts_per_tok\":3", KT_E_FORMAT, "3 of 2 experts"},
        {"\"vocab_size\":4", "\"vocab_size\":5", KT_E_FORMAT, "model.embed_tokens.weight"},
        {"\"attention_bias\":false", "\"attention_bias\":true", KT_E_UNSUPPORTED,
         "attention_bias is true"},
        {"\"hidden_act\":\"silu\"", "\"hidden_act\":\"gelu\"", KT_E_UNSUPPORTED,
         "hidden_act is \"gelu\""},
        {"\"sliding_window\":null", "\"use_sliding_window\":true,\"sliding_window\":4096",
         KT_E_UNSUPPORTED, "use_sliding_window"},
        {"\"sliding_window\":null", "\"use_sliding_window\":false,\"sliding_window\":4096", KT_OK,
         ""},
        {"\"sliding_window\":null", "\"quantization_config\":{\"quant_method\":\"gptq\"}",
         KT_E_UNSUPPORTED, "quant_method gptq"},
        {"\"sliding_window\":null", "\"layer_types\":[\"sliding_attention\"]", KT_E_UNSUPPORTED,
         "sliding_attention"},
        {"\"sliding_window\":null", "\"layer_types\":[\"full_attention\"]", KT_OK, ""},
        {"\"sliding_window\":null", "\"shared_expert_intermediate_size\":64", KT_E_UNSUPPORTED,
         "shared_expert_intermediate_size is 64"},
        {"\"sliding_window\":null", "\"decoder_sparse_step\":2", KT_E_UNSUPPORTED, "mlp.gate"},
        {"\"sliding_window\":null", "\"mlp_only_layers\":[0]", KT_E_UNSUPPORTED, "not part of"},
        {"\"sliding_window\":null", "\"mlp_only_layers\":[1]", KT_E_FORMAT, "mlp_only_layers"},
        {"\"sliding_window\":null", "\"decoder_sparse_step\":0", KT_E_FORMAT,
         "decoder_sparse_step is 0"},
        {"\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true", KT_OK, ""},
        {"Qwen3MoeForCausalLM", "GlmForCausalLM", KT_E_UNSUPPORTED, "GlmForCausalLM"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}", KT_OK, ""},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\"}", KT_E_FORMAT, "factor"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0}", KT_E_FORMAT,
         "factor is 0"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", KT_OK, ""},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}",
         KT_E_UNSUPPORTED, "dynamic"},
        {"\"rope_scaling\":null", "\"rope_scaling\":3", KT_E_FORMAT,
         "rope_scaling is not an object"},
        {"\"rope_theta\":10000,\"rope_scaling\":null",
         "\"rope_parameters\":{\"rope_theta\":5000,\"rope_type\":\"default\"}", KT_OK, ""},
        {"\"rope_theta\":10000", "\"rope_theta\":0", KT_E_FORMAT, "rope base"},
        {"\"rms_norm_eps\":1e-6", "\"rms_norm_eps\":0", KT_E_FORMAT, "epsilon"},
        {"\"head_dim\":4", "\"head_dim\":null", KT_OK, ""},
        {"\"head_dim\":4", "\"head_dim\":3", KT_E_FORMAT, "even"},
        {"\"head_dim\":4", "\"head_dim\":4,\"partial_rotary_factor\":0.5", KT_OK, ""},
        {"\"head_dim\":4", "\"head_dim\":4,\"partial_rotary_factor\":0", KT_E_FORMAT,
         "partial_rotary_factor"},
        {"\"head_dim\":4", "\"head_dim\":4,\"some_new_key\":[1,{}]", KT_OK, ""},
    };
    kt_err err;
    write_tiny();
    for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
        struct strbuf c = {0};
        static const char whole[] = CONFIG;
        const char *at = strstr(whole, rule[i].from);
        assert_non_null(at);
        sb_add(&c, whole, (size_t)(at - whole));
        sb_puts(&c, rule[i].to);
        sb_puts(&c, at + strlen(rule[i].from));
        put_file(config, c.data, c.len);
        kt_status st = try_open(&err);
        if (st != rule[i].status || (st != KT_OK && strstr(err.msg, rule[i].says) == NULL))
            fail_msg("%s: %d '%s', expected %d '%s'", rule[i].to, st, err.msg, rule[i].status,
                     rule[i].says);
        sb_free(&c);
    }
}

/* Two files and an index, with one thing wrong at a time. */
static void index_rules(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        kt_status status;
        const char *says;
    } rule[] = {
        {"{", "{", KT_OK, ""},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":\"a.safetensors\"",
         KT_E_FORMAT, "lm_head.weight is not in a.safetensors"},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":\"../b.safetensors\"",
         KT_E_FORMAT, "plain name"},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":\"/etc/b.safetensors\"",
         KT_E_FORMAT, "plain name"},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":7", KT_E_FORMAT, "no string"},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":\"c.safetensors\"",
         KT_E_NOT_FOUND, "c.safetensors: is missing"},
        {"\"lm_head.weight\":\"b.safetensors\"", "\"lm_head.weight\":\"twice.safetensors\"",
         KT_E_FORMAT, "is also in"},
        {"\"lm_head.weight\":\"b.safetensors\"",
         "\"lm_head.weight\":\"b.safetensors\",\"extra\":\"b.safetensors\"", KT_E_FORMAT,
         "extra is not in"},
        {"\"lm_head.weight\":\"b.safetensors\"",
         "\"lm_head.weight\":\"b.safetensors\",\"lm_head.weight\":\"b.safetensors\"", KT_E_FORMAT,
         "duplicate"},
        {"weight_map", "weight_mop", KT_E_FORMAT, "weight_map is missing"},
    };
    kt_err err;
    char a[128], b[128], c[128], index[160];
    struct strbuf f = {0}, x = {0};
    snprintf(a, sizeof a, "%s/a.safetensors", dir);
    snprintf(b, sizeof b, "%s/b.safetensors", dir);
    snprintf(c, sizeof c, "%s/twice.safetensors", dir);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    write_tiny();
    unlink(file);
    build(&f, 0, 9);
    put_file(a, f.data, f.len);
    sb_clear(&f);
    build(&f, 9, N_TINY);
    put_file(b, f.data, f.len);
    if (try_open(&err) != KT_OK) /* no index: all files of the directory */
        fail_msg("%s", err.msg);
    put_file(c, f.data, f.len);
    assert_int_equal(try_open(&err), KT_E_FORMAT);
    assert_non_null(strstr(err.msg, "is also in"));
    sb_puts(&x, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (size_t i = 0; i < N_TINY; i++)
        sb_printf(&x, "%s\"%s\":\"%s.safetensors\"", i ? "," : "", tiny[i].name, i < 9 ? "a" : "b");
    sb_puts(&x, "}}");
    for (size_t i = 0; i < sizeof rule / sizeof rule[0]; i++) {
        const char *at = strstr(x.data, rule[i].from);
        assert_non_null(at);
        sb_clear(&f);
        sb_add(&f, x.data, (size_t)(at - x.data));
        sb_puts(&f, rule[i].to);
        sb_puts(&f, at + strlen(rule[i].from));
        put_file(index, f.data, f.len);
        kt_status st = try_open(&err);
        if (st != rule[i].status || (st != KT_OK && strstr(err.msg, rule[i].says) == NULL))
            fail_msg("%s: %d '%s', expected %d '%s'", rule[i].to, st, err.msg, rule[i].status,
                     rule[i].says);
    }
    put_file(index, x.data, x.len);
    for (size_t n = x.len; n-- > 1;) {
        assert_int_equal(truncate(index, (off_t)n), 0);
        assert_int_equal(try_open(&err), KT_E_FORMAT);
    }
    unlink(a);
    unlink(b);
    unlink(c);
    unlink(index);
    sb_free(&f);
    sb_free(&x);
}

static void failing_allocations(void **state)
{
    (void)state;
    kt_err err;
    struct mdl *m = NULL;
    long n = 0;
    write_tiny();
    for (;; n++) {
        mem_fail_after(n);
        kt_status st = mdl_open(dir, &m, &err);
        mem_fail_after(-1);
        if (st == KT_OK)
            break;
        assert_int_equal(st, KT_E_NOMEM);
        assert_null(m);
    }
    assert_true(n > 10);
    mdl_close(m);
}

static void places(void **state)
{
    (void)state;
    kt_err err;
    struct mdl *m;
    write_tiny();
    assert_int_equal(mdl_open("/nonexistent/model", &m, &err), KT_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "/nonexistent/model"));
    assert_int_equal(mdl_open(file, &m, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "give its directory"));
    assert_int_equal(mdl_open(config, &m, &err), KT_E_FORMAT);
    assert_non_null(strstr(err.msg, "not a GGUF file"));
    assert_int_equal(mdl_open_config(config, &m, &err), KT_OK);
    assert_int_equal(m->t.n_experts, 2);
    struct mdl_slice s;
    assert_false(mdl_weight(m, MDL_Q, 0, 0, &s));
    mdl_close(m);
    unlink(config);
    assert_int_equal(mdl_open(dir, &m, &err), KT_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "config.json"));
    unlink(file);
    assert_int_equal(mdl_open(dir, &m, &err), KT_E_NOT_FOUND);
    assert_int_equal(mdl_open("/dev/null", &m, &err), KT_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_loads),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(every_header_byte_changed),
        cmocka_unit_test(header_rules),
        cmocka_unit_test(config_rules),
        cmocka_unit_test(index_rules),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(places),
    };
    snprintf(dir, sizeof dir, "/tmp/kt-st-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return 99;
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    snprintf(config, sizeof config, "%s/config.json", dir);
    int bad = cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
    unlink(file);
    unlink(config);
    rmdir(dir);
    return bad;
}
