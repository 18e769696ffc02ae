/* test_engine_numeric.c - the engine on tiny models made here: a NaN or infinity in one sequence is
 * that sequence's error and nobody else's, and shapes that no published model has (odd widths, one
 * expert, no experts, 4096 sequences) give the same bits by every kernel set, thread count and
 * batch.
 *
 * How one sequence is made to fail: dimension 0 of the residual stream is zero for ordinary tokens
 * and stays so (row 0 of every output projection is zero), and large for the tokens from BAD on. A
 * weight of 3e38 in column 0 of one matrix then overflows in those tokens only.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fp.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "kern.h"
#include "kt.h"
#include "model/gguf_write.h"

struct shape {
    const char *arch; /* qwen3moe or llama */
    uint32_t layers, hidden, heads, kv, dim, inter, experts, top_k, vocab, ctx;
    enum dtype type; /* of matrices; norms and router are F32 */
};

enum poison {
    NONE,
    EMBED,
    EMBED_NAN,
    ATTN_NORM,
    Q,
    K,
    V,
    FFN_NORM,
    ROUTER,
    GATE,
    UP,
    FINAL_NORM,
    HEAD,
    N_POISONS
};

#define BAD 60 /* tokens from here on have something in dimension 0 */
#define HUGE_WEIGHT 3e38f

static char path[128];
static uint32_t seed;

static float next(void)
{
    seed = seed * 1664525 + 1013904223;
    return (float)(int32_t)seed * 0x1p-31f;
}

static void declare(struct gguf_out *g, const char *name, enum dtype t, uint64_t d0, uint64_t d1,
                    uint64_t d2)
{
    uint64_t dims[3] = {d0, d1, d2};
    gguf_out_tensor(g, name, t, d2 ? 3 : d1 ? 2 : 1, dims);
}

struct part {
    const char *name; /* after "blk.N."; with layer false the whole name */
    bool layer;
    uint64_t d0, d1, d2;
    bool plain;    /* F32 whatever the shape says */
    bool zero_row; /* row 0 of each matrix is zero */
    enum poison poisoned_by;
};

static uint32_t parts_of(const struct shape *s, struct part *p)
{
    uint32_t n = 0, qw = s->heads * s->dim, kw = s->kv * s->dim;
    bool moe = s->experts > 0;
    p[n++] = (struct part){"token_embd.weight", false, s->hidden, s->vocab, 0, false, false, EMBED};
    p[n++] = (struct part){"output_norm.weight", false, s->hidden, 0, 0, true, false, FINAL_NORM};
    p[n++] = (struct part){"output.weight", false, s->hidden, s->vocab, 0, false, false, HEAD};
    p[n++] = (struct part){"attn_norm.weight", true, s->hidden, 0, 0, true, false, ATTN_NORM};
    p[n++] = (struct part){"attn_q.weight", true, s->hidden, qw, 0, false, false, Q};
    p[n++] = (struct part){"attn_k.weight", true, s->hidden, kw, 0, false, false, K};
    p[n++] = (struct part){"attn_v.weight", true, s->hidden, kw, 0, false, false, V};
    p[n++] = (struct part){"attn_output.weight", true, qw, s->hidden, 0, false, true, NONE};
    p[n++] = (struct part){"ffn_norm.weight", true, s->hidden, 0, 0, true, false, FFN_NORM};
    if (moe) {
        p[n++] = (struct part){"attn_q_norm.weight", true, s->dim, 0, 0, true, false, NONE};
        p[n++] = (struct part){"attn_k_norm.weight", true, s->dim, 0, 0, true, false, NONE};
        p[n++] = (struct part){
            "ffn_gate_inp.weight", true, s->hidden, s->experts, 0, true, false, ROUTER};
    }
    p[n++] = (struct part){moe ? "ffn_gate_exps.weight" : "ffn_gate.weight",
                           true,
                           s->hidden,
                           s->inter,
                           s->experts,
                           false,
                           false,
                           GATE};
    p[n++] = (struct part){moe ? "ffn_up_exps.weight" : "ffn_up.weight",
                           true,
                           s->hidden,
                           s->inter,
                           s->experts,
                           false,
                           false,
                           UP};
    p[n++] = (struct part){moe ? "ffn_down_exps.weight" : "ffn_down.weight",
                           true,
                           s->inter,
                           s->hidden,
                           s->experts,
                           false,
                           true,
                           NONE};
    return n;
}

static void put_values(struct gguf_out *g, const struct shape *s, const struct part *p,
                       uint32_t layer, enum poison poison)
{
    uint64_t rows = p->d1 ? p->d1 : 1, all = rows * (p->d2 ? p->d2 : 1), cols = p->d0;
    enum dtype type = p->plain ? DT_F32 : s->type;
    float *row = mem_calloc(cols, sizeof *row);
    uint8_t *out = mem_calloc(cols, sizeof *row);
    kt_err err;
    for (uint64_t r = 0; r < all; r++) {
        bool embed = p->poisoned_by == EMBED;
        for (uint64_t c = 0; c < cols; c++)
            row[c] = p->d1 == 0 ? 1 + 0.25f * next()
                                : next() * (embed ? 0.5f : 1.5f / sqrtf((float)cols));
        if (p->zero_row && r % rows == 0)
            memset(row, 0, cols * sizeof *row);
        if (embed)
            row[0] = r < BAD ? 0 : poison == EMBED ? INFINITY : 8;
        if (embed && poison == EMBED_NAN && r >= BAD)
            row[cols - 1] = NAN;
        if (p->poisoned_by == poison && poison != NONE && !embed && layer == (p->layer ? 1 : 0))
            row[0] = HUGE_WEIGHT;
        assert_true(kern_quantise(type, row, cols, out));
        assert_int_equal(gguf_out_data(g, out, dtype_row_bytes(type, cols), &err), KT_OK);
    }
    mem_free(row);
    mem_free(out);
}

static void put_number(struct gguf_out *g, const struct shape *s, const char *key, uint32_t v)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", s->arch, key);
    gguf_out_u32(g, name, v);
}

static void write_model(const struct shape *s, enum poison poison)
{
    struct gguf_out *g;
    struct part part[24];
    char name[96];
    kt_err err = {0};
    seed = 12345;
    if (gguf_out_open(&(struct gguf_out_opts){.path = path}, &g, &err) != KT_OK)
        fail_msg("%s", err.msg);
    gguf_out_str(g, "general.architecture", s->arch, strlen(s->arch));
    put_number(g, s, "block_count", s->layers);
    put_number(g, s, "context_length", s->ctx);
    put_number(g, s, "embedding_length", s->hidden);
    put_number(g, s, "feed_forward_length", s->inter);
    put_number(g, s, "attention.head_count", s->heads);
    put_number(g, s, "attention.head_count_kv", s->kv);
    put_number(g, s, "attention.key_length", s->dim);
    put_number(g, s, "attention.value_length", s->dim);
    put_number(g, s, "rope.dimension_count", s->dim);
    put_number(g, s, "vocab_size", s->vocab);
    snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", s->arch);
    gguf_out_f32(g, name, 1e-6f);
    if (s->experts > 0) {
        put_number(g, s, "expert_count", s->experts);
        put_number(g, s, "expert_used_count", s->top_k);
        put_number(g, s, "expert_feed_forward_length", s->inter);
    }
    uint32_t n = parts_of(s, part);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t l = 0; l < (part[i].layer ? s->layers : 1); l++) {
                if (part[i].layer)
                    snprintf(name, sizeof name, "blk.%u.%s", l, part[i].name);
                else
                    snprintf(name, sizeof name, "%s", part[i].name);
                if (pass == 0)
                    declare(g, name, part[i].plain ? DT_F32 : s->type, part[i].d0, part[i].d1,
                            part[i].d2);
                else
                    put_values(g, s, &part[i], l, poison);
            }
        if (pass == 0 && gguf_out_begin(g, &err) != KT_OK)
            fail_msg("%s", err.msg);
    }
    if (gguf_out_commit(g, &err) != KT_OK)
        fail_msg("%s", err.msg);
    gguf_out_close(g);
}

static kt_engine *open_tiny(const kt_engine_opts *o)
{
    kt_engine *e;
    kt_err err = {0};
    kt_status s = kt_engine_open(o, &e, &err);
    if (s == KT_E_UNSUPPORTED && o->cpu_mask != NULL)
        return NULL; /* this CPU lacks the level */
    if (s != KT_OK)
        fail_msg("%s", err.msg);
    return e;
}

/* ---- one sequence fails, the others keep their bits ---- */

#define PROMPT 9
#define STEPS 4
#define MAX_V 101

struct stream {
    int32_t id[PROMPT + STEPS];
    float alone[1 + STEPS][MAX_V], got[1 + STEPS][MAX_V];
    kt_seq *seq;
};

static void fill(struct stream *s, uint32_t with)
{
    seed = with;
    for (int i = 0; i < PROMPT + STEPS; i++)
        s->id[i] = (int32_t)((next() + 1) * 0.5f * (BAD - 1));
}

static void open_stream(kt_engine *e, struct stream *s)
{
    kt_err err;
    assert_int_equal(kt_seq_open(e, PROMPT + STEPS, &s->seq, &err), KT_OK);
}

static kt_batch_item item_of(struct stream *s, uint32_t step, float *logits)
{
    return step == 0
               ? (kt_batch_item){.seq = s->seq, .ids = s->id, .n = PROMPT, .logits = logits}
               : (kt_batch_item){
                     .seq = s->seq, .ids = s->id + PROMPT + step - 1, .n = 1, .logits = logits};
}

static void run_alone(kt_engine *e, struct stream *s)
{
    kt_err err;
    open_stream(e, s);
    for (uint32_t step = 0; step <= STEPS; step++) {
        kt_batch_item it = item_of(s, step, s->alone[step]);
        assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
        assert_int_equal(it.result, KT_OK);
    }
    kt_seq_close(s->seq);
}

/* Streams 0, 1 and 2 go together; stream 1 fails in step `at` (0: at `place` of its prompt), is
 * closed, and stream 3 takes its pages. */
static void one_fails(kt_engine *e, struct stream s[4], uint32_t at, uint32_t place,
                      size_t row_bytes, const char *what)
{
    kt_err err;
    int32_t *bad = &s[1].id[at == 0 ? place : PROMPT + at - 1], good = *bad;
    uint32_t late = 0; /* next step of stream 3 */
    bool closed = false;
    *bad = BAD + 1;
    for (int i = 0; i < 3; i++)
        open_stream(e, &s[i]);
    for (uint32_t step = 0; step <= STEPS; step++) {
        kt_batch_item it[3] = {
            item_of(&s[0], step, s[0].got[step]), {0}, item_of(&s[2], step, s[2].got[step])};
        it[1] =
            closed ? item_of(&s[3], late, s[3].got[late]) : item_of(&s[1], step, s[1].got[step]);
        assert_int_equal(kt_step(e, it, 3, &err), KT_OK);
        assert_int_equal(it[0].result, KT_OK);
        assert_int_equal(it[2].result, KT_OK);
        if (it[1].result != (!closed && step == at ? KT_E_NUMERIC : KT_OK))
            fail_msg("%s, failing at %u, step %u: %s", what, at, step,
                     kt_status_name(it[1].result));
        if (closed) {
            assert_memory_equal(s[3].got[late], s[3].alone[late], row_bytes);
            late++;
        } else if (step < at) {
            assert_memory_equal(s[1].got[step], s[1].alone[step], row_bytes);
        } else {
            kt_seq_close(s[1].seq);
            open_stream(e, &s[3]);
            closed = true;
        }
        assert_memory_equal(s[0].got[step], s[0].alone[step], row_bytes);
        assert_memory_equal(s[2].got[step], s[2].alone[step], row_bytes);
    }
    for (int i = 0; i < 4; i++)
        if (i != 1)
            kt_seq_close(s[i].seq);
    *bad = good;
}

static const char *const levels[] = {"ref", "avx2", "avx512", "avx512vnni"};

static void errors_stay_with(const struct shape *shape, enum poison poison, const char *quant)
{
    static struct stream s[4];
    /* what overflows late in the last layer is seen by no later token: only at the prompt's end
     * does it reach anything */
    bool last = poison != EMBED && poison != EMBED_NAN && poison != K && poison != V;
    char what[120];
    write_model(shape, poison);
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        kt_engine_opts o;
        kt_engine_opts_init(&o);
        o.model_path = path;
        o.max_seqs = 3;
        o.kv_tokens = 3 * 64; /* a page each: the late stream gets the page of the failed one */
        o.batch_tokens = 64;
        o.cpu_mask = levels[l];
        o.kv_type = poison % 2 == 0 ? "f32" : "bf16";
        o.quant = o.quant_dense = quant;
        kt_engine *e = open_tiny(&o);
        if (e == NULL)
            continue;
        snprintf(what, sizeof what, "%s %s, poison %d, quant %s, %s", shape->arch,
                 dtype_name(shape->type), (int)poison, quant != NULL ? quant : "none", levels[l]);
        for (uint32_t i = 0; i < 4; i++) {
            fill(&s[i], 7 + i);
            run_alone(e, &s[i]);
        }
        for (uint32_t at = 0; at <= 2; at += 2)
            one_fails(e, s, at, last ? PROMPT - 1 : PROMPT / 2, shape->vocab * sizeof(float), what);
        kt_engine_close(e);
    }
}

static void plain_experts(void **state)
{
    static const struct shape s = {"qwen3moe", 2, 64, 4, 2, 16, 32, 4, 2, 97, 64, DT_F32};
    struct shape b = s;
    (void)state;
    b.type = DT_BF16;
    for (enum poison p = EMBED; p < N_POISONS; p++) {
        errors_stay_with(&s, p, NULL);
        errors_stay_with(&b, p, NULL);
    }
}

static void plain_dense(void **state)
{
    static const struct shape s = {"llama", 2, 44, 4, 2, 10, 33, 0, 0, 77, 64, DT_BF16};
    (void)state;
    for (enum poison p = EMBED; p < N_POISONS; p++)
        if (p != ROUTER)
            errors_stay_with(&s, p, NULL);
}

/* Block formats hold no weight that overflows in one product: norms do it, and the embedding, also
 * when it is quantised row by row. */
static void block_formats(void **state)
{
    static const enum poison by[] = {ATTN_NORM, FFN_NORM, FINAL_NORM};
    static const char *const quant[] = {"q8_0", "q4_0", "mxfp4", "int4", "int8", "fp8"};
    static const struct shape s = {"qwen3moe", 2, 64, 4, 2, 16, 32, 4, 2, 97, 64, DT_BF16};
    struct shape stored = s;
    (void)state;
    stored.type = DT_Q8_0;
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++)
        errors_stay_with(&stored, by[i], NULL);
    for (size_t q = 0; q < sizeof quant / sizeof quant[0]; q++) {
        errors_stay_with(&s, EMBED, quant[q]);
        errors_stay_with(&s, EMBED_NAN, quant[q]);
        errors_stay_with(&s, ATTN_NORM, quant[q]);
    }
}

/* ---- odd shapes ---- */

static const char *experts_as; /* --quant of logits_of */

static void logits_of(const struct shape *s, const char *mask, uint32_t threads, uint32_t batch,
                      float *all)
{
    kt_engine_opts o;
    kt_err err;
    kt_seq *q;
    int32_t id[70];
    kt_engine_opts_init(&o);
    o.model_path = path;
    o.max_seqs = 1;
    o.cpu_mask = mask;
    o.threads = threads;
    o.batch_tokens = batch;
    o.quant = experts_as;
    kt_engine *e = open_tiny(&o);
    if (e == NULL)
        return;
    seed = 99;
    for (int i = 0; i < 70; i++)
        id[i] = (int32_t)((next() + 1) * 0.5f * (float)(s->vocab - 1));
    assert_int_equal(kt_seq_open(e, 70, &q, &err), KT_OK);
    for (uint32_t at = 0; at < 70; at += batch) {
        uint32_t n = 70 - at < batch ? 70 - at : batch;
        kt_batch_item it = {.seq = q,
                            .ids = id + at,
                            .n = n,
                            .logits = all + (size_t)at * s->vocab,
                            .all_logits = true};
        assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
        assert_int_equal(it.result, KT_OK);
    }
    kt_seq_close(q);
    kt_engine_close(e);
}

static void odd_shapes_have_one_result(void **state)
{
    static const struct shape shape[] = {
        {"qwen3moe", 2, 52, 3, 1, 18, 21, 5, 3, 101, 128, DT_F32},
        {"qwen3moe", 2, 52, 3, 1, 18, 21, 5, 3, 101, 128, DT_F16},
        {"qwen3moe", 2, 52, 3, 1, 18, 21, 5, 3, 101, 128, DT_BF16},
        {"qwen3moe", 1, 64, 1, 1, 32, 32, 1, 1, 33, 128, DT_Q8_0}, /* one expert */
        {"qwen3moe", 1, 32, 9, 1, 32, 64, 3, 3, 65, 128,
         DT_Q4_0}, /* all experts, more than 8 query heads a kv head */
        {"llama", 2, 44, 4, 2, 10, 33, 0, 0, 77, 128, DT_BF16},
        {"llama", 1, 96, 3, 3, 64, 32, 0, 0, 1, 128,
         DT_Q8_0}, /* heads wider than the model, one word */
    };
    static float want[70 * MAX_V], got[70 * MAX_V];
    (void)state;
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        size_t bytes = 70 * shape[i].vocab * sizeof(float);
        write_model(&shape[i], NONE);
        logits_of(&shape[i], "ref", 1, 1, want);
        for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++)
            for (uint32_t batch = 1; batch <= 128; batch = batch * 5 + 2) {
                memcpy(got, want, bytes); /* a level that is missing here changes nothing */
                logits_of(&shape[i], levels[l], l == 0 ? 0 : 1, batch, got);
                assert_memory_equal(got, want, bytes);
            }
    }
}

/* ---- a checkpoint whose first layer is dense and whose experts alone are quantised ---- */

struct checkpoint {
    struct strbuf header, data;
};

static void tensor(struct checkpoint *c, const char *name, uint32_t rows, uint32_t cols)
{
    uint32_t n = rows * (cols ? cols : 1);
    sb_printf(&c->header, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%u",
              c->header.len > 1 ? "," : "", name, rows);
    if (cols > 0)
        sb_printf(&c->header, ",%u", cols);
    sb_printf(&c->header, "],\"data_offsets\":[%zu,%zu]}", c->data.len,
              c->data.len + 2 * (size_t)n);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t v = f32_to_bf16(cols == 0 ? 1 : next() * 0.25f);
        sb_add(&c->data, (const char *)&v, sizeof v);
    }
}

static void put(const char *name, const struct strbuf *a, const struct strbuf *b)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    if (b != NULL) { /* safetensors: length of the header, header, data */
        uint64_t n = a->len;
        assert_int_equal(fwrite(&n, sizeof n, 1, f), 1);
    }
    assert_int_equal(fwrite(a->data, 1, a->len, f), a->len);
    if (b != NULL)
        assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
}

static void write_checkpoint(const char *dir)
{
    static const char *const attn[] = {"q_proj", "k_proj", "v_proj", "o_proj"}, *const ffn[] = {
                                                                                    "gate_proj",
                                                                                    "up_proj",
                                                                                    "down_proj"};
    struct checkpoint c = {0};
    struct strbuf config = {0};
    char name[128];
    seed = 5;
    sb_puts(&c.header, "{");
    tensor(&c, "model.embed_tokens.weight", 40, 32);
    tensor(&c, "model.norm.weight", 32, 0);
    tensor(&c, "lm_head.weight", 40, 32);
    for (int l = 0; l < 2; l++) {
        static const char *const norm[] = {"input_layernorm", "post_attention_layernorm",
                                           "self_attn.q_norm", "self_attn.k_norm"};
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, norm[i]);
            tensor(&c, name, i < 2 ? 32 : 16, 0);
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s.weight", l, attn[i]);
            tensor(&c, name, 32, 32);
        }
        for (int i = 0; l == 0 && i < 3; i++) {
            snprintf(name, sizeof name, "model.layers.0.mlp.%s.weight", ffn[i]);
            tensor(&c, name, i < 2 ? 33 : 32, i < 2 ? 32 : 33);
        }
        if (l == 1)
            tensor(&c, "model.layers.1.mlp.gate.weight", 3, 32);
        for (int x = 0; l == 1 && x < 3; x++)
            for (int i = 0; i < 3; i++) {
                snprintf(name, sizeof name, "model.layers.1.mlp.experts.%d.%s.weight", x, ffn[i]);
                tensor(&c, name, 32, 32);
            }
    }
    sb_puts(&c.header, "}");
    sb_puts(&config, "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\","
                     "\"num_hidden_layers\":2,\"hidden_size\":32,\"vocab_size\":40,"
                     "\"max_position_embeddings\":128,\"num_attention_heads\":2,\"num_key_value_"
                     "heads\":2,\"head_dim\":16,\"num_experts\":3,"
                     "\"num_experts_per_tok\":2,\"moe_intermediate_size\":32,\"intermediate_size\":"
                     "33,\"mlp_only_layers\":[0],\"rms_norm_eps\":1e-6}");
    assert_true(sb_ok(&c.header) && sb_ok(&c.data) && sb_ok(&config));
    snprintf(name, sizeof name, "%s/config.json", dir);
    put(name, &config, NULL);
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    put(name, &c.header, &c.data);
    sb_free(&c.header);
    sb_free(&c.data);
    sb_free(&config);
}

/* 33 is no multiple of 32, so the dense layer has no int8 form, and the experts beside it need one.
 */
static void dense_and_expert_widths_differ(void **state)
{
    static const struct shape s = {.vocab = 40};
    static float want[70 * 40], got[70 * 40];
    char dir[] = "test_engine_numeric.XXXXXX", name[128], model[sizeof path];
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_checkpoint(dir);
    memcpy(model, path, sizeof path);
    memcpy(path, dir, sizeof dir);
    experts_as = "q8_0";
    logits_of(&s, "ref", 1, 1, want);
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        memcpy(got, want, sizeof got);
        logits_of(&s, levels[l], 0, 33, got);
        assert_memory_equal(got, want, sizeof got);
    }
    experts_as = NULL;
    snprintf(name, sizeof name, "%s/config.json", dir);
    unlink(name);
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    unlink(name);
    rmdir(dir);
    memcpy(path, model, sizeof path);
}

/* As many sequences as an engine takes, one token each, in one step. */
static void four_thousand_sequences(void **state)
{
    static const struct shape s = {"qwen3moe", 1, 32, 2, 1, 16, 32, 4, 2, 33, 64, DT_BF16};
    enum { N = 4096 };
    kt_engine_opts o;
    kt_err err;
    kt_seq *extra;
    (void)state;
    write_model(&s, NONE);
    kt_engine_opts_init(&o);
    o.model_path = path;
    o.max_seqs = N;
    o.batch_tokens = 1; /* raised to one token for each */
    kt_engine *e = open_tiny(&o);
    kt_batch_item *it = calloc(N, sizeof *it);
    int32_t *id = calloc(N, sizeof *id);
    float *logits = calloc(N, 33 * sizeof *logits);
    assert_true(it != NULL && id != NULL && logits != NULL);
    for (uint32_t i = 0; i < N; i++) {
        id[i] = (int32_t)(i % 33);
        it[i] = (kt_batch_item){.ids = &id[i], .n = 1, .logits = logits + (size_t)i * 33};
        assert_int_equal(kt_seq_open(e, 64, &it[i].seq, &err), KT_OK);
    }
    assert_int_equal(kt_seq_open(e, 1, &extra, &err), KT_E_KV_FULL);
    for (int step = 0; step < 3; step++)
        assert_int_equal(kt_step(e, it, N, &err), KT_OK);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(it[i].result, KT_OK);
        assert_memory_equal(it[i].logits, logits + (size_t)(i % 33) * 33, 33 * sizeof *logits);
        kt_seq_close(it[i].seq);
    }
    kt_engine_close(e);
    free(it);
    free(id);
    free(logits);
}

static int remove_model(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    snprintf(path, sizeof path, "test_engine_numeric.%ld.gguf", (long)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_experts),
        cmocka_unit_test(plain_dense),
        cmocka_unit_test(block_formats),
        cmocka_unit_test(odd_shapes_have_one_result),
        cmocka_unit_test(dense_and_expert_widths_differ),
        cmocka_unit_test(four_thousand_sequences),
    };
    return cmocka_run_group_tests_name("engine numeric", tests, NULL, remove_model);
}
