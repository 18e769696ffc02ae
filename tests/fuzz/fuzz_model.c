/* fuzz_model.c - fuzz target: a model file ends as a model whose weights can all be read, or with a
 * message that names the place. Input: a GGUF file; or 'S', the text of a config.json, a zero byte,
 * a safetensors file. Linked with libFuzzer, or called by test_gguf with damaged small files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model.h"

int fuzz_model(const uint8_t *data, size_t size);

static char dir[64];

static void write_file(const char *name, const uint8_t *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    close(fd);
}

static void clean(void)
{
    static const char *const name[] = {"m.gguf", "model.safetensors", "config.json"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, name[i]);
        unlink(path);
    }
    rmdir(dir);
}

static uint64_t read_all(const struct mdl *m)
{
    uint64_t sum = 0;
    struct mdl_slice s;
    for (uint32_t l = 0; l < m->t.n_layers; l++)
        for (int r = 0; r < MDL_ROLE_COUNT; r++)
            for (uint32_t e = 0; e <= m->t.n_experts; e++)
                if (mdl_weight(m, (enum mdl_role)r, l, e, &s)) {
                    uint8_t *row = mem_alloc(dtype_row_bytes(s.type, s.cols));
                    for (uint32_t i = 0; row != NULL && i < s.rows; i++)
                        sum += mdl_rows(&s, i, 1, row)[0];
                    mem_free(row);
                    for (uint64_t i = 0; i < mdl_file_row_bytes(&s) * s.rows; i++)
                        sum += s.data[i];
                }
    return sum;
}

int fuzz_model(const uint8_t *data, size_t size)
{
    struct mdl *m;
    kt_err err;
    char path[128];
    if (dir[0] == '\0') {
        snprintf(dir, sizeof dir, "/tmp/kt-fuzz-XXXXXX");
        if (mkdtemp(dir) == NULL)
            abort();
        atexit(clean);
    }
    if (size > 0 && data[0] == 'S') {
        const uint8_t *zero = memchr(data, 0, size);
        size_t n = zero != NULL ? (size_t)(zero - data) : size;
        write_file("config.json", data + 1, n - 1);
        write_file("model.safetensors", data + (n < size ? n + 1 : n),
                   size - (n < size ? n + 1 : n));
        snprintf(path, sizeof path, "%s", dir);
    } else {
        write_file("m.gguf", data, size);
        snprintf(path, sizeof path, "%s/m.gguf", dir);
    }
    if (mdl_open(path, &m, &err) == KT_OK) {
        volatile uint64_t sum = read_all(m);
        (void)sum;
        mdl_close(m);
    } else if (strstr(err.msg, dir) == NULL) {
        abort(); /* every message names the place */
    }
    return 0;
}

#ifdef KT_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_model(data, size);
}
#endif
