/* fuzz_keys.c - fuzz target: the key file parser ends with keys or a message, and what it accepts
 * it finds again. Input: the text of a key file. Linked with libFuzzer, or called by test_http1.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/keys.h"

int fuzz_keys(const uint8_t *data, size_t size);

int fuzz_keys(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), err[200] = "";
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    struct keys k = {0};
    if (keys_parse(text, "file", &k, err, sizeof err) == 0) {
        if (k.n == 0 || k.n > KEYS_MAX)
            abort();
        for (uint32_t i = 0; i < k.n; i++)
            if (k.list[i].name[0] == '\0' || k.list[i].scope > HTTP_METRICS)
                abort();
        keys_find(&k, "key");
    } else if (err[0] == '\0' || k.list != NULL) {
        abort();
    }
    keys_free(&k);
    free(text);
    return 0;
}

#ifdef KT_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_keys(data, size);
}
#endif
