/* test_tok_gguf.c - vocabularies of published models in GGUF form: the 47 cases of each BPE
 * vocabulary in KT_FIXTURES/tokenizers, ids byte for byte; a SentencePiece one, which must be
 * refused clearly; and, where KT_SMOLLM2 names the file, the prompts and the chat of
 * SmolLM2-135M-Instruct. Without the fixtures the program skips (77).
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tok_files.h"

#define CASES 47
static const char separator[] = "\n__ggml_vocab_test__\n";
static char dir[400], golden[400];

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return NULL;
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static kt_tokenizer *open_file(const char *path)
{
    kt_tokenizer *t = NULL;
    kt_err err = {0};
    if (kt_tokenizer_open(path, NULL, &t, &err) != KT_OK)
        print_error("%s\n", err.msg);
    assert_non_null(t);
    return t;
}

/* ids of one line "1 2 3"; returns how many */
static size_t read_line(char **p, int32_t *want, size_t cap)
{
    size_t n = 0;
    while (**p != '\n' && **p != '\0') {
        char *end = *p;
        long v = strtol(*p, &end, 10);
        if (end == *p) {
            ++*p;
            continue;
        }
        assert_true(n < cap);
        want[n++] = (int32_t)v;
        *p = end;
    }
    if (**p == '\n')
        ++*p;
    return n;
}

static void one_vocabulary(const char *name)
{
    char path[500];
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf", dir, name);
    kt_tokenizer *t = open_file(path);
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf.inp", dir, name);
    char *in = slurp(path);
    snprintf(path, sizeof path, "%s/ggml-vocab-%s.gguf.out", dir, name);
    char *out = slurp(path), *line = out, *text = in;
    assert_true(in != NULL && out != NULL);
    int cases = 0, bad = 0;
    while (text != NULL) {
        int32_t want[512], got[512];
        char *next = strstr(text, separator);
        size_t len = next != NULL ? (size_t)(next - text) : strlen(text), n = 0,
               n_want = read_line(&line, want, 512);
        assert_int_equal(kt_tokenize(t, text, len, 0, got, 512, &n, NULL), KT_OK);
        if (n != n_want || memcmp(got, want, n * sizeof *got) != 0) {
            print_error("%s, case %d: %.*s\n", name, cases, (int)len, text);
            bad++;
        }
        cases++;
        text = next != NULL ? next + sizeof separator - 1 : NULL;
    }
    assert_int_equal(bad, 0);
    assert_int_equal(cases, CASES);
    free(in);
    free(out);
    kt_tokenizer_close(t);
}

static void published_vocabularies(void **state)
{
    (void)state;
    static const char *const name[] = {"deepseek-llm", "gpt-2", "mpt", "refact", "starcoder"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        one_vocabulary(name[i]);
}

static void sentencepiece_is_refused(void **state)
{
    (void)state;
    char path[500];
    kt_tokenizer *t = NULL;
    kt_err err = {0};
    snprintf(path, sizeof path, "%s/ggml-vocab-llama-spm.gguf", dir);
    assert_int_equal(kt_tokenizer_open(path, NULL, &t, &err), KT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "SentencePiece"));
    assert_null(t);
}

/* user-defined tokens match in text also when special tokens are not parsed */
static void user_defined_tokens(void **state)
{
    (void)state;
    char path[500];
    int32_t ids[8];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/ggml-vocab-mpt.gguf", dir);
    kt_tokenizer *t = open_file(path);
    assert_int_equal(kt_tokenize(t, "[PAD50277]", 10, 0, ids, 8, &n, NULL), KT_OK);
    assert_true(n == 1 && ids[0] == 50277);
    assert_int_equal(kt_tokenize(t, "<|endoftext|>", 13, 0, ids, 8, &n, NULL), KT_OK);
    assert_true(n > 1);
    assert_int_equal(kt_tokenize(t, "<|endoftext|>", 13, KT_TOK_PARSE_SPECIAL, ids, 8, &n, NULL),
                     KT_OK);
    assert_true(n == 1 && ids[0] == 0);
    kt_tokenizer_close(t);
    snprintf(path, sizeof path, "%s/ggml-vocab-deepseek-llm.gguf", dir);
    t = open_file(path);
    assert_int_equal(kt_tokenize(t, "a", 1, KT_TOK_ADD_SPECIAL, ids, 8, &n, NULL),
                     KT_OK); /* add_bos_token is true there */
    assert_true(n == 2 && ids[0] == 100000);
    kt_tokenizer_close(t);
}

static void smollm2(void **state)
{
    (void)state;
    const char *file = getenv("KT_SMOLLM2");
    json_t *root = json_load_file(golden, 0, NULL), *g = NULL;
    if (file == NULL || root == NULL) {
        json_decref(root);
        skip();
    }
    kt_tokenizer *t = open_file(file);
    size_t i = 0, n = 0, len = 0;
    int32_t ids[256];
    assert_string_equal(tok_pre_name(t), "smollm");
    json_array_foreach(json_object_get(root, "greedy"), i, g)
    {
        const char *prompt = json_string_value(json_object_get(g, "prompt"));
        json_t *want = json_object_get(g, "ids"), *greedy = json_object_get(g, "greedy");
        assert_int_equal(
            kt_tokenize(t, prompt, strlen(prompt), KT_TOK_ADD_SPECIAL, ids, 256, &n, NULL), KT_OK);
        assert_int_equal(n, json_array_size(want));
        for (size_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(want, k)));
        char text[1024] = "";
        for (size_t k = 0; k < json_array_size(greedy); k++) {
            const char *b = NULL;
            size_t m =
                kt_token_bytes(t, (int32_t)json_integer_value(json_array_get(greedy, k)), &b);
            strncat(text, b, m);
        }
        assert_string_equal(text, json_string_value(json_object_get(g, "text")));
    }
    json_t *chat = json_object_get(root, "chat"),
           *first = json_array_get(json_object_get(chat, "messages"), 0);
    kt_chat_message m = {json_string_value(json_object_get(first, "role")),
                         json_string_value(json_object_get(first, "content"))};
    char *text = NULL;
    assert_int_equal(kt_chat_render(t, &m, 1, true, &text, &len, NULL), KT_OK);
    assert_string_equal(text, json_string_value(json_object_get(chat, "rendered")));
    kt_free(text);
    assert_true(kt_token_is_eos(t, 2));
    kt_tokenizer_close(t);
    json_decref(root);
}

int main(void)
{
    const char *fixtures = getenv("KT_FIXTURES");
    fixtures = fixtures != NULL ? fixtures : "../shared/fixtures";
    snprintf(dir, sizeof dir, "%s/tokenizers", fixtures);
    snprintf(golden, sizeof golden, "%s/golden/smollm2/expected.json", fixtures);
    if (access(dir, R_OK) != 0) {
        printf("skipped: no %s\n", dir);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vocabularies),
        cmocka_unit_test(sentencepiece_is_refused),
        cmocka_unit_test(user_defined_tokens),
        cmocka_unit_test(smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
