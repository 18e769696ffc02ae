/* tok_files.h - helpers of the tokenizer tests: a scratch directory with the files of a model's
 * tokenizer, and short forms of the calls. Every helper fails the test when it cannot do its work.
 * One directory per process, removed by tf_done.
 */
#ifndef TEST_TOK_FILES_H
#define TEST_TOK_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/tok.h"

static char tf_dir[64];

static inline const char *tf_path(const char *name)
{
    static char path[128];
    if (tf_dir[0] == '\0') {
        strncpy(tf_dir, "/tmp/kt-tok-XXXXXX", sizeof tf_dir - 1);
        if (mkdtemp(tf_dir) == NULL)
            exit(99);
    }
    snprintf(path, sizeof path, "%s/%s", tf_dir, name);
    return path;
}

/* text NULL removes the file */
static inline void tf_write(const char *name, const char *text, size_t len)
{
    const char *path = tf_path(name);
    if (text == NULL) {
        unlink(path);
        return;
    }
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(text, 1, len, f) != len || fclose(f) != 0)
        exit(99);
}

static inline void tf_puts(const char *name, const char *text)
{
    tf_write(name, text, text != NULL ? strlen(text) : 0);
}

static inline kt_status tf_open(const char *override, kt_tokenizer **t, kt_err *err)
{
    tf_path("");
    struct mdl m = {.path = tf_dir, .dir = tf_dir};
    return tok_open(&m, override, t, err);
}

static inline void tf_done(void)
{
    static const char *const name[] = {"tokenizer.json", "tokenizer_config.json",
                                       "generation_config.json", "chat_template.jinja"};
    if (tf_dir[0] == '\0')
        return;
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        unlink(tf_path(name[i]));
    rmdir(tf_dir);
}

/* A byte-level tokenizer of a few tokens: ids 0..7, then three control tokens. */
#define TF_SMALL_MODEL                                                                             \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\xc4\xa0\":3,\"ab\":4,"      \
    "\"\xc4\xa0"                                                                                   \
    "ab\":5,\"\xc4\x8a\":6,\"bc\":7},"                                                             \
    "\"merges\":[\"a b\",[\"\xc4\xa0\",\"ab\"],\"b c\"]}"
#define TF_SMALL_ADDED                                                                             \
    "\"added_tokens\":[{\"id\":8,\"content\":\"<|im_start|>\",\"special\":true},{\"id\":9,"        \
    "\"content\":\"<|im_end|>\",\"special\":true},"                                                \
    "{\"id\":10,\"content\":\"<s>\",\"special\":true}]"
#define TF_SMALL_PRE                                                                               \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define TF_SMALL_DECODER "\"decoder\":{\"type\":\"ByteLevel\"}"
#define TF_SMALL "{" TF_SMALL_ADDED "," TF_SMALL_PRE "," TF_SMALL_DECODER "," TF_SMALL_MODEL "}"

#endif
