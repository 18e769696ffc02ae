/* model_files.h - for the tests of src/model: where fixtures are, temp files, and a builder of small GGUF files byte by byte.
 * The builder knows nothing of the reader: it writes what it is told, right or wrong. Tests only; one thread.
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

static inline void kv_u32(struct strbuf *b, const char *key, uint32_t v)
{
    gstr(b, key);
    le(b, 4, 4);
    le(b, v, 4);
}

static inline void kv_f32(struct strbuf *b, const char *key, float v)
{
    gstr(b, key);
    le(b, 6, 4);
    le(b, fp_bits(v), 4);
}

static inline void kv_str(struct strbuf *b, const char *key, const char *v)
{
    gstr(b, key);
    le(b, 8, 4);
    gstr(b, v);
}

static inline void tensor_info(struct strbuf *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    gstr(b, name);
    le(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        le(b, dims[i], 8);
    le(b, type, 4);
    le(b, offset, 8);
}

#endif
