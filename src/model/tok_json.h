/* tok_json.h - inside of the tokenizer.json loader: its state, and the parts in other files. One
 * struct lives for one load, on one thread. The jansson trees stay open until the tokenizer is
 * built, so texts in struct tok_source may point into them.
 */
#ifndef KT_TOK_JSON_H
#define KT_TOK_JSON_H

#include <jansson.h>

#include "model/tok_priv.h"

struct tok_json {
    kt_tokenizer *t;
    char *path; /* of tokenizer.json, for messages */
    json_t *root;
    const json_t *vocab;
    struct tok_source src;
    bool byte_level; /* a ByteLevel step was seen */
    bool template;   /* a TemplateProcessing was seen: it says what goes around a text */
};

/* DIR/NAME parsed; *out NULL (and KT_OK) when there is no such file and it is optional. */
kt_status tok_json_read(const char *dir, const char *name, bool optional, char **path, json_t **out,
                        kt_err *err);
/* Member that is missing or null gives *out = def; another type is KT_E_FORMAT. */
kt_status tok_json_bool(const json_t *o, const char *key, bool def, const char *file, bool *out,
                        kt_err *err);
/* *out NULL when missing or null */
kt_status tok_json_str(const json_t *o, const char *key, const char *file, const char **out,
                       kt_err *err);

/* normalizer, pre_tokenizer, post_processor, decoder. After the vocabulary, except that the
 * normaliser comes first. */
kt_status tok_json_normalizer(struct tok_json *j, const json_t *v, int depth, kt_err *err);
kt_status tok_json_pre_tokenizer(struct tok_json *j, const json_t *v, int depth, kt_err *err);
kt_status tok_json_post_processor(struct tok_json *j, const json_t *v, int depth, kt_err *err);
kt_status tok_json_decoder(struct tok_json *j, const json_t *v, int depth, kt_err *err);

/* tokenizer_config.json, chat_template.jinja, generation_config.json, config.json beside it:
 * special tokens, chat template, end tokens, sampling. */
kt_status tok_json_configs(struct tok_json *j, const struct mdl *m, const char *chat_override,
                           kt_err *err);

#endif
