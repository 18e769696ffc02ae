/* fuzz_tokenizer.c - libFuzzer entry: the bytes are a tokenizer.json. What loads must encode and
 * decode without a fault, and stay inside its vocabulary. The file goes through a scratch directory
 * because the loader takes files. test_tok.c replays the corpus and mutations of it.
 */
#include <stdint.h>

#include "../unit/tok_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "ab  cab<|im_start|>\n abc 12\xff\xc3\xa9 <s>\xe2\x82";
    kt_tokenizer *t = NULL;
    kt_err err;
    tf_write("tokenizer.json", (const char *)data, size);
    if (tf_open("chatml", &t, &err) != KT_OK)
        return 0;
    for (unsigned flags = 0; flags < 4; flags++) {
        struct tok_ids ids = {0};
        if (tok_encode(t, text, sizeof text - 1, flags, &ids, &err) == KT_OK)
            for (size_t i = 0; i < ids.n; i++) {
                const char *bytes = NULL;
                if (ids.v[i] < 0 || (uint32_t)ids.v[i] >= kt_tokenizer_vocab(t))
                    abort();
                kt_token_bytes(t, ids.v[i], &bytes);
            }
        mem_free(ids.v);
    }
    kt_tokenizer_close(t);
    return 0;
}
