/* test_tok.c - the tokenizer on the demo model and on small files of its own: questions with known
 * token counts, vectors that the `tokenizers` package gave (data/tok_vectors.json), round trips,
 * special tokens, bad files, failing allocations. Vocabularies of other models: test_tok_gguf.c.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tok_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char demo[512], vectors[512];

static json_t *load(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);
    if (j == NULL)
        print_error("%s: %s\n", path, e.text);
    assert_non_null(j);
    return j;
}

static json_t *demo_file(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", demo, name);
    return load(path);
}

static kt_tokenizer *open_demo(void)
{
    kt_tokenizer *t = NULL;
    kt_err err = {0};
    struct mdl m = {.path = demo, .dir = demo};
    if (tok_open(&m, NULL, &t, &err) != KT_OK)
        print_error("%s\n", err.msg);
    assert_non_null(t);
    return t;
}

static void write_json(const char *name, json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT);
    assert_non_null(text);
    tf_puts(name, text);
    free(text);
}

static struct tok_ids encode(const kt_tokenizer *t, const char *s, size_t n, unsigned flags)
{
    struct tok_ids ids = {0};
    assert_int_equal(tok_encode(t, s, n, flags, &ids, NULL), KT_OK);
    return ids;
}

/* Text of ids, control tokens left out; to be freed. */
static char *decode(const kt_tokenizer *t, const int32_t *ids, size_t n, size_t *len)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        const char *b = NULL;
        total += kt_token_bytes(t, ids[i], &b);
    }
    char *s = malloc(total + 1), *p = s;
    for (size_t i = 0; i < n; i++) {
        const char *b = NULL;
        size_t k = kt_token_bytes(t, ids[i], &b);
        if (kt_token_is_control(t, ids[i]))
            continue;
        memcpy(p, b, k);
        p += k;
    }
    *p = '\0';
    *len = (size_t)(p - s);
    return s;
}

static void demo_questions(void **state)
{
    (void)state;
    kt_tokenizer *t = open_demo();
    json_t *root = demo_file("questions.json"), *list = json_object_get(root, "questions"),
           *q = NULL;
    size_t i = 0;
    assert_true(json_array_size(list) >= 40);
    assert_int_equal(kt_tokenizer_vocab(t), 1280);
    json_array_foreach(list, i, q)
    {
        kt_chat_message m = {"user", json_string_value(json_object_get(q, "question"))};
        int32_t ids[512], want[512];
        size_t n = 0, len = 0;
        assert_int_equal(kt_chat_encode(t, &m, 1, true, ids, 512, &n, NULL), KT_OK);
        assert_int_equal(n, json_integer_value(json_object_get(q, "prompt_tokens")));
        char *text = NULL;
        assert_int_equal(kt_chat_render(t, &m, 1, true, &text, &len, NULL), KT_OK);
        struct tok_ids plain = encode(t, text, len, KT_TOK_PARSE_SPECIAL);
        assert_int_equal(plain.n, n);
        assert_memory_equal(plain.v, ids, n * sizeof *ids);
        mem_free(plain.v);
        kt_free(text);
        json_t *answer = json_object_get(q, "answer_tokens");
        n = json_array_size(answer);
        for (size_t k = 0; k < n; k++)
            want[k] = (int32_t)json_integer_value(json_array_get(answer, k));
        char *said = decode(t, want, n, &len);
        assert_string_equal(said, json_string_value(json_object_get(q, "answer")));
        if (n < 160)
            assert_true(kt_token_is_eos(t, want[n - 1]));
        struct tok_ids again = encode(
            t, said, len,
            0); /* greedy text need not be what BPE would choose, so only its text must agree */
        char *twice = decode(t, again.v, again.n, &len);
        assert_string_equal(said, twice);
        free(twice);
        free(said);
        mem_free(again.v);
    }
    json_decref(root);
    kt_tokenizer_close(t);
}

static void demo_facts(void **state)
{
    (void)state;
    kt_tokenizer *t = open_demo();
    kt_sampling p = {.temperature = 9};
    const char *b = NULL;
    assert_string_equal(tok_pre_name(t), "qwen2");
    kt_sampling_defaults(t, &p); /* do_sample false */
    assert_true(p.temperature == 0 && p.top_k == 0 && p.top_p == 1 && p.min_p == 0);
    assert_true(kt_token_is_eos(t, 1279) && kt_token_is_eos(t, 1277));
    assert_false(kt_token_is_eos(t, 1278) || kt_token_is_eos(t, 5) || kt_token_is_eos(t, -1));
    assert_true(kt_token_is_control(t, 1278));
    assert_false(kt_token_is_control(t, 0) || kt_token_is_control(t, -1) ||
                 kt_token_is_control(t, 1280));
    assert_int_equal(kt_token_bytes(t, 1279, &b), 10);
    assert_memory_equal(b, "<|im_end|>", 10);
    assert_int_equal(kt_token_bytes(t, 1280, &b), 0);
    assert_int_equal(kt_token_bytes(t, -1, &b), 0);
    assert_non_null(strstr(kt_chat_template(t), "<|im_start|>"));
    kt_tokenizer_close(t);
}

/* the parts of a group of vectors in place of the demo's own */
static kt_tokenizer *open_group(json_t *base, json_t *g)
{
    static const char *const part[] = {"normalizer", "pre_tokenizer", "added_tokens"};
    kt_tokenizer *t = NULL;
    kt_err err = {0};
    for (size_t i = 0; i < 3; i++)
        json_object_set(base, part[i], json_object_get(g, part[i]));
    json_object_set(json_object_get(base, "model"), "ignore_merges",
                    json_object_get(g, "ignore_merges"));
    write_json("tokenizer.json", base);
    if (tf_open(NULL, &t, &err) != KT_OK)
        print_error("%s: %s\n", json_string_value(json_object_get(g, "name")), err.msg);
    assert_non_null(t);
    return t;
}

static void library_vectors(void **state)
{
    (void)state;
    json_t *base = demo_file("tokenizer.json"), *groups = load(vectors), *g = NULL, *c = NULL;
    size_t i = 0, k = 0;
    json_array_foreach(groups, i, g)
    {
        kt_tokenizer *t = open_group(base, g);
        const char *pre = json_string_value(json_object_get(g, "pre")),
                   *name = json_string_value(json_object_get(g, "name"));
        if (pre == NULL)
            assert_null(tok_pre_name(t));
        else
            assert_string_equal(tok_pre_name(t), pre);
        json_array_foreach(json_object_get(g, "cases"), k, c)
        {
            json_t *text = json_array_get(c, 0), *want = json_array_get(c, 1);
            struct tok_ids ids =
                encode(t, json_string_value(text), json_string_length(text), KT_TOK_PARSE_SPECIAL);
            bool same = ids.n == json_array_size(want);
            for (size_t x = 0; same && x < ids.n; x++)
                same = ids.v[x] == json_integer_value(json_array_get(want, x));
            if (!same)
                print_error("%s, case %zu: %s\n", name, k, json_string_value(text));
            assert_true(same);
            mem_free(ids.v);
        }
        kt_tokenizer_close(t);
    }
    json_decref(groups);
    json_decref(base);
}

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static void random_bytes_come_back(void **state)
{
    (void)state;
    json_t *base = demo_file("tokenizer.json");
    json_object_set_new(base, "normalizer", json_null());
    write_json("tokenizer.json", base);
    json_decref(base);
    kt_tokenizer *t = NULL;
    assert_int_equal(tf_open(NULL, &t, NULL), KT_OK);
    uint32_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char text[96];
        size_t n = next_random(&seed) % sizeof text, len = 0;
        for (size_t i = 0; i < n; i++)
            text[i] = (char)(next_random(&seed) % (round % 2 ? 256 : 128));
        struct tok_ids ids = encode(t, text, n, 0);
        char *back = decode(t, ids.v, ids.n, &len);
        assert_int_equal(len, n);
        assert_memory_equal(back, text, n);
        for (size_t i = 0; i < ids.n; i++)
            assert_false(kt_token_is_control(t, ids.v[i]));
        free(back);
        mem_free(ids.v);
    }
    kt_tokenizer_close(t);
}

static void every_token_is_stable(void **state)
{
    (void)state;
    kt_tokenizer *t = open_demo();
    for (int32_t id = 0; id < 1277; id++) { /* text -> ids -> text -> ids */
        const char *b = NULL;
        size_t n = kt_token_bytes(t, id, &b), len = 0;
        struct tok_ids one = encode(t, b, n, 0);
        char *back = decode(t, one.v, one.n, &len);
        struct tok_ids two = encode(t, back, len, 0);
        assert_int_equal(one.n, two.n);
        assert_memory_equal(one.v, two.v, one.n * sizeof *one.v);
        mem_free(one.v);
        mem_free(two.v);
        free(back);
    }
    kt_tokenizer_close(t);
}

static void long_words_are_not_quadratic(void **state)
{
    (void)state;
    static const char unit[4][8] = {"a", " ", "A", "\xcc\x81\xcc\xa3"};
    kt_tokenizer *t = open_demo();
    for (int k = 0; k < 4; k++) {
        size_t u = strlen(unit[k]), n = 1000000 / u * u, len = 0;
        char *text = malloc(n + 1);
        for (size_t i = 0; i < n; i++)
            text[i] = unit[k][i % u];
        text[n] = 'x';
        clock_t start = clock();
        struct tok_ids ids = encode(t, text, n + 1, 0);
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC <
                    10); /* seconds; a quadratic step would take hours */
        char *back = decode(t, ids.v, ids.n, &len);
        assert_int_equal(len, n + 1);
        free(back);
        free(text);
        mem_free(ids.v);
    }
    kt_tokenizer_close(t);
}

static void the_call_says_how_much_it_needs(void **state)
{
    (void)state;
    kt_tokenizer *t = open_demo();
    int32_t ids[8];
    size_t n = 0, need = 0;
    assert_int_equal(kt_tokenize(t, "The capital of France", 21, 0, NULL, 0, &need, NULL), KT_OK);
    assert_true(need > 2 && need <= 8);
    ids[2] = -7;
    assert_int_equal(kt_tokenize(t, "The capital of France", 21, 0, ids, 2, &n, NULL), KT_OK);
    assert_int_equal(n, need);
    assert_int_equal(ids[2], -7);
    assert_int_equal(kt_tokenize(t, "", 0, 0, NULL, 0, &n, NULL), KT_OK);
    assert_int_equal(n, 0);
    assert_int_equal(kt_tokenize(t, "<|im_end|>", 10, KT_TOK_PARSE_SPECIAL, ids, 8, &n, NULL),
                     KT_OK);
    assert_true(n == 1 && ids[0] == 1279);
    assert_int_equal(kt_tokenize(t, "<|im_end|>", 10, 0, ids, 8, &n, NULL), KT_OK);
    assert_true(n > 1);
    kt_tokenizer_close(t);
}

static void begin_and_end_tokens(void **state)
{
    (void)state;
    static const char around[] = "{" TF_SMALL_ADDED "," TF_SMALL_PRE "," TF_SMALL_DECODER
                                 "," TF_SMALL_MODEL ",\"post_processor\":{\"type\":"
                                 "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<"
                                 "s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
                                 "\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","
                                 "\"ids\":[10],\"tokens\":[\"<s>\"]}}}}";
    kt_tokenizer *t = NULL;
    tf_puts("tokenizer.json", around);
    assert_int_equal(tf_open(NULL, &t, NULL), KT_OK);
    struct tok_ids ids = encode(t, "ab ab<s>", 8, KT_TOK_ADD_SPECIAL);
    assert_true(ids.n == 3 && ids.v[0] == 10 && ids.v[1] == 4 &&
                ids.v[2] == 5); /* bytes without token are dropped */
    mem_free(ids.v);
    kt_tokenizer_close(t);
    tf_puts("tokenizer.json", TF_SMALL);
    tf_puts("tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<|im_"
                                     "end|>\",\"add_bos_token\":true,\"add_eos_token\":true}");
    tf_puts(
        "generation_config.json",
        "{\"eos_token_id\":[10],\"temperature\":0.5,\"top_k\":20,\"top_p\":0.75,\"min_p\":0.25}");
    assert_int_equal(tf_open(NULL, &t, NULL), KT_OK);
    ids = encode(t, "", 0, KT_TOK_ADD_SPECIAL);
    assert_true(ids.n == 2 && ids.v[0] == 10 && ids.v[1] == 9);
    mem_free(ids.v);
    kt_sampling p;
    kt_sampling_defaults(t, &p);
    assert_true(p.temperature == 0.5f && p.top_k == 20 && p.top_p == 0.75f && p.min_p == 0.25f);
    assert_true(kt_token_is_eos(t, 9) && kt_token_is_eos(t, 10) && !kt_token_is_eos(t, 8));
    kt_tokenizer_close(t);
    tf_puts("tokenizer_config.json", NULL);
    tf_puts("generation_config.json", NULL);
}

struct bad {
    const char *text;
    kt_status status;
    const char *says;
};

static void bad_files_are_errors(void **state)
{
    (void)state;
#define WITH(part) "{" TF_SMALL_ADDED "," TF_SMALL_DECODER "," TF_SMALL_MODEL "," part "}"
#define MODEL(text) "{" TF_SMALL_PRE "," TF_SMALL_DECODER ",\"model\":{" text "}}"
#define SPLIT(rx)                                                                                  \
    WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" rx                      \
         "\"},\"behavior\":\"Isolated\"}")
    static const struct bad bad[] = {
        {"", KT_E_FORMAT, "tokenizer.json"},
        {"[]", KT_E_FORMAT, "not a JSON object"},
        {"{}", KT_E_FORMAT, "model"},
        {"{\"model\":{\"type\":\"Unigram\"}}", KT_E_UNSUPPORTED, "Unigram"},
        {"{\"model\":{}}", KT_E_UNSUPPORTED, "(none)"},
        {MODEL("\"type\":\"BPE\",\"vocab\":[],\"merges\":[]"), KT_E_FORMAT, "vocab"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{},\"merges\":[]"), KT_E_FORMAT, "0 tokens"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}"), KT_E_FORMAT, "merges"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]"), KT_E_FORMAT, "id of token"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]"), KT_E_FORMAT,
         "id of token"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]"), KT_E_FORMAT,
         "id of token"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), KT_E_FORMAT,
         "share the id"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]"), KT_E_FORMAT,
         "merge 0"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"ab\"]"),
         KT_E_FORMAT, "merge 0"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\"]]"),
         KT_E_FORMAT, "merge 0"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[7]"), KT_E_FORMAT,
         "merge 0"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\""),
         KT_E_FORMAT, "unk_token"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"),
         KT_E_UNSUPPORTED, "dropout"},
        {MODEL(
             "\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""),
         KT_E_UNSUPPORTED, "end_of_word_suffix"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":true"),
         KT_E_UNSUPPORTED, "byte_fallback"},
        {MODEL("\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"ignore_merges\":1"),
         KT_E_FORMAT, "ignore_merges"},
        {WITH("\"pre_tokenizer\":null"), KT_E_UNSUPPORTED, "ByteLevel"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\"}"), KT_E_UNSUPPORTED, "Metaspace"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Sequence\"}"), KT_E_FORMAT, "pretokenizers"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}"), KT_E_FORMAT,
         "pattern"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
              "\"X\"}"),
         KT_E_UNSUPPORTED, "X"},
        {SPLIT("a("), KT_E_FORMAT, "a("},
        {SPLIT("[a-z&&[b]]"), KT_E_UNSUPPORTED, "&&"},
        {SPLIT("\\\\h"), KT_E_UNSUPPORTED, "\\h"},
        {SPLIT("(?<n>a)"), KT_E_UNSUPPORTED, "(?<n"},
        {SPLIT("(*FAIL)"), KT_E_UNSUPPORTED, "(*"},
        {SPLIT("\\\\p{Nowhere}"), KT_E_FORMAT, "Nowhere"},
        {WITH(TF_SMALL_PRE ",\"normalizer\":{\"type\":\"BertNormalizer\"}"), KT_E_UNSUPPORTED,
         "BertNormalizer"},
        {WITH(TF_SMALL_PRE ",\"post_processor\":{\"type\":\"RobertaProcessing\"}"),
         KT_E_UNSUPPORTED, "RobertaProcessing"},
        {WITH(TF_SMALL_PRE ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                           "\"SpecialToken\":{\"id\":\"x\"}}]}"),
         KT_E_FORMAT, "ids"},
        {"{" TF_SMALL_ADDED "," TF_SMALL_PRE "," TF_SMALL_MODEL "}", KT_E_UNSUPPORTED, "decoder"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"z\"}]," TF_SMALL_PRE "," TF_SMALL_DECODER
         "," TF_SMALL_MODEL "}",
         KT_E_FORMAT, "says otherwise"},
        {"{\"added_tokens\":[{\"id\":9,\"content\":\"\"}]," TF_SMALL_PRE "," TF_SMALL_DECODER
         "," TF_SMALL_MODEL "}",
         KT_E_FORMAT, "no content"},
        {"{\"added_tokens\":[{\"id\":9.5,\"content\":\"x\"}]," TF_SMALL_PRE "," TF_SMALL_DECODER
         "," TF_SMALL_MODEL "}",
         KT_E_FORMAT, "id of token"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        kt_tokenizer *t = NULL;
        kt_err err = {0};
        tf_puts("tokenizer.json", bad[i].text);
        kt_status st = tf_open(NULL, &t, &err);
        if (st != bad[i].status || strstr(err.msg, bad[i].says) == NULL)
            print_error("case %zu: %s: %s\n", i, kt_status_name(st), err.msg);
        assert_int_equal(st, bad[i].status);
        assert_non_null(strstr(err.msg, bad[i].says));
        assert_null(t);
    }
}

static void bad_config_files_are_errors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct bad b;
    } bad[] = {
        {"tokenizer_config.json", {"{", KT_E_FORMAT, "tokenizer_config.json"}},
        {"tokenizer_config.json", {"{\"eos_token\":\"nope\"}", KT_E_FORMAT, "nope"}},
        {"tokenizer_config.json", {"{\"eos_token\":5}", KT_E_FORMAT, "eos_token"}},
        {"tokenizer_config.json", {"{\"chat_template\":5}", KT_E_FORMAT, "chat_template"}},
        {"tokenizer_config.json", {"{\"add_bos_token\":\"yes\"}", KT_E_FORMAT, "add_bos_token"}},
        {"generation_config.json", {"{\"eos_token_id\":[0,99]}", KT_E_FORMAT, "99"}},
        {"generation_config.json", {"{\"eos_token_id\":-1}", KT_E_FORMAT, "-1"}},
        {"generation_config.json", {"{\"eos_token_id\":\"x\"}", KT_E_FORMAT, "eos_token_id"}},
        {"generation_config.json", {"{\"temperature\":-1}", KT_E_FORMAT, "temperature"}},
        {"generation_config.json", {"{\"top_p\":0}", KT_E_FORMAT, "top_p"}},
        {"generation_config.json", {"{\"top_k\":1e300}", KT_E_FORMAT, "top_k"}},
        {"generation_config.json", {"{\"min_p\":\"x\"}", KT_E_FORMAT, "min_p"}},
    };
    tf_puts("tokenizer.json", TF_SMALL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        kt_tokenizer *t = NULL;
        kt_err err = {0};
        tf_puts(bad[i].name, bad[i].b.text);
        assert_int_equal(tf_open(NULL, &t, &err), bad[i].b.status);
        if (strstr(err.msg, bad[i].b.says) == NULL)
            print_error("case %zu: %s\n", i, err.msg);
        assert_non_null(strstr(err.msg, bad[i].b.says));
        tf_puts(bad[i].name, NULL);
    }
    kt_err err = {0};
    kt_tokenizer *t = NULL;
    tf_puts("tokenizer.json", NULL);
    assert_int_equal(tf_open(NULL, &t, &err), KT_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, "tokenizer.json"));
}

static void cut_files_are_errors(void **state)
{
    (void)state;
    kt_tokenizer *t = NULL;
    for (size_t n = 0; n < sizeof TF_SMALL - 1; n++) {
        tf_write("tokenizer.json", TF_SMALL, n);
        assert_int_equal(tf_open(NULL, &t, NULL), KT_E_FORMAT);
    }
    json_t *base = demo_file("tokenizer.json");
    char *text = json_dumps(base, JSON_COMPACT);
    size_t len = strlen(text);
    for (size_t n = 0; n < len; n += len / 97) {
        tf_write("tokenizer.json", text, n);
        assert_int_equal(tf_open(NULL, &t, NULL), KT_E_FORMAT);
    }
    free(text);
    json_decref(base);
}

/* Corpus: the small file and whole pipelines; then bytes of it changed at random. */
static void fuzz_corpus_replays(void **state)
{
    (void)state;
    static const char *const seed[] = {
        TF_SMALL,
        "{" TF_SMALL_ADDED "," TF_SMALL_DECODER "," TF_SMALL_MODEL
        ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":"
        "\"Prepend\",\"prepend\":\"b\"}]},\"pre_tokenizer\":"
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}]+\"},\"behavior\":"
        "\"MergedWithNext\",\"invert\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"use_regex\":true}]}}",
    };
    uint32_t random = 1;
    for (size_t s = 0; s < 2; s++) {
        size_t n = strlen(seed[s]);
        uint8_t *copy = malloc(n);
        LLVMFuzzerTestOneInput((const uint8_t *)seed[s], n);
        for (int round = 0; round < 1500; round++) {
            memcpy(copy, seed[s], n);
            for (uint32_t k = 0; k <= next_random(&random) % 3; k++)
                copy[next_random(&random) % n] = round % 2
                                                     ? (uint8_t)next_random(&random)
                                                     : (uint8_t)seed[s][next_random(&random) % n];
            LLVMFuzzerTestOneInput(copy, n);
        }
        free(copy);
    }
}

static void failing_allocations(void **state)
{
    (void)state;
    static const char config[] = "{\"eos_token\":\"<|im_end|>\",\"chat_template\":\"{{ x }}\"}";
    static const kt_chat_message m[] = {{"user", "ab c\xcc\x81 <|im_end|>"}, {"assistant", "b"}};
    json_t *base = json_loads(TF_SMALL, 0, NULL);
    json_object_set_new(base, "normalizer", json_loads("{\"type\":\"NFC\"}", 0, NULL));
    write_json("tokenizer.json", base);
    json_decref(base);
    tf_puts("tokenizer_config.json", config);
    kt_status st = KT_E_NOMEM;
    for (long n = 0; n < 2000 && st != KT_OK; n++) {
        kt_tokenizer *t = NULL;
        int32_t ids[64];
        size_t n_ids = 0;
        mem_fail_after(n);
        st = tf_open("chatml", &t, NULL);
        if (st == KT_OK)
            st = kt_chat_encode(t, m, 2, true, ids, 64, &n_ids, NULL);
        mem_fail_after(-1);
        if (st != KT_OK)
            assert_int_equal(st, KT_E_NOMEM);
        kt_tokenizer_close(t);
    }
    assert_int_equal(st, KT_OK);
    tf_puts("tokenizer_config.json", NULL);
}

int main(void)
{
    const char *src = getenv("KT_SRCDIR");
    snprintf(demo, sizeof demo, "%s/models/demo", src != NULL ? src : ".");
    snprintf(vectors, sizeof vectors, "%s/tests/unit/data/tok_vectors.json",
             src != NULL ? src : ".");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_questions),
        cmocka_unit_test(demo_facts),
        cmocka_unit_test(library_vectors),
        cmocka_unit_test(random_bytes_come_back),
        cmocka_unit_test(every_token_is_stable),
        cmocka_unit_test(long_words_are_not_quadratic),
        cmocka_unit_test(the_call_says_how_much_it_needs),
        cmocka_unit_test(begin_and_end_tokens),
        cmocka_unit_test(bad_files_are_errors),
        cmocka_unit_test(bad_config_files_are_errors),
        cmocka_unit_test(cut_files_are_errors),
        cmocka_unit_test(fuzz_corpus_replays),
        cmocka_unit_test(failing_allocations),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tf_done();
    return failed;
}
