/* test_tok_vocab.c - small GGUF vocabularies made here: a good one, then one thing wrong at a time,
 * each an error that names the key; every numeric field set to extreme values, which must never
 * crash; allocations that fail while loading.
 */
#include "model_files.h"

#include "kt.h"

static char path[] = "/tmp/kt-vocab-XXXXXX";

enum what {
    GOOD,
    NO_MODEL,
    LLAMA,
    BERT,
    NO_PRE,
    OTHER_PRE,
    NO_TOKENS,
    FEW_TYPES,
    TYPE_9,
    FLOAT_TYPES,
    NO_MERGES,
    LOST_MERGE,
    ONE_PART,
    EOS_11,
    BAD_BYTE,
    HOT
};

static void strings(struct gfile *g, const char *key, const char *const *s, uint64_t n)
{
    g_array(g, key, 8, n);
    for (uint64_t i = 0; i < n; i++) {
        note(g, 0, 8, "string length", key);
        gstr(&g->kv, s[i]);
    }
}

static void build(struct gfile *g, enum what w)
{
    static const char *const token[] = {"a",
                                        "b",
                                        "\xc4\xa0",
                                        "ab",
                                        ("\xc4\xa0"
                                         "ab"),
                                        "<0x0A>",
                                        "<|im_start|>",
                                        "<|im_end|>",
                                        "user text",
                                        "<s>"};
    static const char *const merge[] = {"a b", "\xc4\xa0 ab"}, *const lost[] = {"a b", "b b"},
                             *const one[] = {"a b", "ab"};
    static const char *const bad_byte[] = {"a",
                                           "b",
                                           "\xc4\xa0",
                                           "ab",
                                           ("\xc4\xa0"
                                            "ab"),
                                           "<0x-1>",
                                           "<|im_start|>",
                                           "<|im_end|>",
                                           "user text",
                                           "<s>"};
    static const uint32_t type[] = {1, 1, 1, 1, 1, 6, 3, 4, 4, 3};
    g_str(g, "general.architecture", "llama");
    if (w != NO_MODEL)
        g_str(g, "tokenizer.ggml.model", w == LLAMA ? "llama" : w == BERT ? "bert" : "gpt2");
    if (w != NO_PRE)
        g_str(g, "tokenizer.ggml.pre", w == OTHER_PRE ? "nobody" : "llama-bpe");
    if (w != NO_TOKENS)
        strings(g, "tokenizer.ggml.tokens", w == BAD_BYTE ? bad_byte : token, 10);
    g_array(g, "tokenizer.ggml.token_type", w == FLOAT_TYPES ? 6 : 5, w == FEW_TYPES ? 9 : 10);
    for (int i = 0; i < (w == FEW_TYPES ? 9 : 10); i++)
        le(&g->kv, w == TYPE_9 && i == 3 ? 9 : type[i], 4);
    if (w != NO_MERGES)
        strings(g, "tokenizer.ggml.merges",
                w == LOST_MERGE ? lost
                : w == ONE_PART ? one
                                : merge,
                2);
    g_u32(g, "tokenizer.ggml.bos_token_id", 9);
    g_u32(g, "tokenizer.ggml.eos_token_id", w == EOS_11 ? 11 : 7);
    g_f32(g, "general.sampling.temp", w == HOT ? 99.0f : 0.25f);
    g_str(g, "tokenizer.chat_template", "{{ x }}");
}

static void write_file(struct gfile *g, struct strbuf *out)
{
    g_join(g, out);
    assert_true(sb_ok(out));
    put_file(path, out->data, out->len);
}

static void good_vocabulary(void **state)
{
    (void)state;
    struct gfile g = {0};
    struct strbuf b = {0};
    kt_tokenizer *t = NULL;
    kt_err err = {0};
    int32_t ids[16];
    size_t n = 0;
    const char *s = NULL;
    build(&g, GOOD);
    write_file(&g, &b);
    if (kt_tokenizer_open(path, NULL, &t, &err) != KT_OK)
        print_error("%s\n", err.msg);
    assert_non_null(t);
    assert_int_equal(kt_tokenize(t, "ab ab\n", 6, KT_TOK_ADD_SPECIAL, ids, 16, &n, NULL), KT_OK);
    assert_true(n == 4 && ids[0] == 9 && ids[1] == 3 && ids[2] == 4 &&
                ids[3] == 5); /* llama-bpe adds the begin token by default */
    assert_true(kt_token_bytes(t, 5, &s) == 1 && *s == '\n');
    assert_true(kt_token_is_control(t, 7)); /* a chat marker, whatever the file calls it */
    assert_true(kt_token_is_eos(t, 7) && !kt_token_is_control(t, 8));
    assert_int_equal(kt_tokenize(t, "user text", 9, 0, ids, 16, &n, NULL), KT_OK);
    assert_true(n == 1 && ids[0] == 8);
    kt_sampling p;
    kt_sampling_defaults(t, &p);
    assert_true(p.temperature == 0.25f);
    kt_tokenizer_close(t);
    sb_free(&b);
}

static void one_thing_wrong(void **state)
{
    (void)state;
    static const struct {
        enum what what;
        kt_status status;
        const char *says;
    } bad[] = {
        {NO_MODEL, KT_E_NOT_FOUND, "no tokenizer"},
        {LLAMA, KT_E_UNSUPPORTED, "SentencePiece"},
        {BERT, KT_E_UNSUPPORTED, "bert"},
        {NO_PRE, KT_E_UNSUPPORTED, "tokenizer.ggml.pre"},
        {OTHER_PRE, KT_E_UNSUPPORTED, "nobody"},
        {NO_TOKENS, KT_E_FORMAT, "tokenizer.ggml.tokens"},
        {FEW_TYPES, KT_E_FORMAT, "9 entries for 10 tokens"},
        {TYPE_9, KT_E_FORMAT, "type 9"},
        {FLOAT_TYPES, KT_E_FORMAT, "not an array of integers"},
        {NO_MERGES, KT_E_FORMAT, "tokenizer.ggml.merges"},
        {LOST_MERGE, KT_E_FORMAT, "merge 1"},
        {ONE_PART, KT_E_FORMAT, "merge 1"},
        {EOS_11, KT_E_FORMAT, "eos_token_id is 11"},
        {BAD_BYTE, KT_E_FORMAT, "<0x-1>"},
        {HOT, KT_E_FORMAT, "temperature is 99"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct gfile g = {0};
        struct strbuf b = {0};
        kt_tokenizer *t = NULL;
        kt_err err = {0};
        build(&g, bad[i].what);
        write_file(&g, &b);
        kt_status st = kt_tokenizer_open(path, NULL, &t, &err);
        if (st != bad[i].status || strstr(err.msg, bad[i].says) == NULL)
            print_error("case %zu: %s: %s\n", i, kt_status_name(st), err.msg);
        assert_int_equal(st, bad[i].status);
        assert_non_null(strstr(err.msg, bad[i].says));
        assert_null(t);
        sb_free(&b);
    }
}

/* Every noted field with extreme values, and the file cut everywhere: an error or a tokenizer,
 * never a fault. */
static void damaged_files(void **state)
{
    (void)state;
    static const uint64_t value[] = {0,           1,          11,         0x7fffffff,
                                     0x80000000u, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 61};
    struct gfile g = {0};
    struct strbuf b = {0};
    build(&g, GOOD);
    write_file(&g, &b);
    size_t opened = 0;
    for (size_t f = 0; f < g.n_fields; f++)
        for (size_t v = 0; v < sizeof value / sizeof value[0]; v++) {
            char old[8];
            kt_tokenizer *t = NULL;
            memcpy(old, b.data + g.field[f].at, (size_t)g.field[f].bytes);
            for (int k = 0; k < g.field[f].bytes; k++)
                b.data[g.field[f].at + (size_t)k] = (char)(value[v] >> (8 * k));
            put_file(path, b.data, b.len);
            opened += kt_tokenizer_open(path, "chatml", &t, NULL) == KT_OK;
            kt_tokenizer_close(t);
            memcpy(b.data + g.field[f].at, old, (size_t)g.field[f].bytes);
        }
    assert_true(opened < g.n_fields * sizeof value / sizeof value[0] / 2);
    for (size_t n = 0; n < b.len; n++) {
        kt_tokenizer *t = NULL;
        put_file(path, b.data, n);
        assert_int_not_equal(kt_tokenizer_open(path, NULL, &t, NULL), KT_OK);
    }
    sb_free(&b);
}

static void failing_allocations(void **state)
{
    (void)state;
    struct gfile g = {0};
    struct strbuf b = {0};
    kt_status st = KT_E_NOMEM;
    build(&g, GOOD);
    write_file(&g, &b);
    for (long n = 0; n < 2000 && st != KT_OK; n++) {
        kt_tokenizer *t = NULL;
        mem_fail_after(n);
        st = kt_tokenizer_open(path, NULL, &t, NULL);
        mem_fail_after(-1);
        if (st != KT_OK)
            assert_int_equal(st, KT_E_NOMEM);
        kt_tokenizer_close(t);
    }
    assert_int_equal(st, KT_OK);
    sb_free(&b);
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0)
        return 99;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_vocabulary),
        cmocka_unit_test(one_thing_wrong),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(failing_allocations),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
