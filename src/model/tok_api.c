/* tok_api.c - the text section of kt.h: open, tokenize, token texts, chat, sampling defaults. Thin:
 * checks arguments, copies results into the caller's buffers. May be called from any thread; a
 * tokenizer keeps no reference to the model's files.
 */
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/tok_priv.h"

kt_status kt_tokenizer_open(const char *model_path, const char *chat_override, kt_tokenizer **out,
                            kt_err *err)
{
    struct mdl *m = NULL;
    *out = NULL;
    KT_TRY(mdl_open_files(model_path, &m, err));
    kt_status st = tok_open(m, chat_override, out, err);
    mdl_close(m);
    return st;
}

void kt_tokenizer_close(kt_tokenizer *t)
{
    tok_close(t);
}

uint32_t kt_tokenizer_vocab(const kt_tokenizer *t)
{
    return t->n_vocab;
}

/* Hand ids to the caller's buffer and free them. */
static kt_status give(kt_status st, struct tok_ids *v, int32_t *ids, size_t cap, size_t *n)
{
    *n = 0;
    if (st == KT_OK) {
        *n = v->n;
        size_t k = v->n < cap ? v->n : cap;
        if (k > 0)
            memcpy(ids, v->v, k * sizeof *ids);
    }
    mem_free(v->v);
    return st;
}

kt_status kt_tokenize(const kt_tokenizer *t, const char *text, size_t len, unsigned flags,
                      int32_t *ids, size_t cap, size_t *n, kt_err *err)
{
    struct tok_ids v = {0};
    kt_status st = tok_encode(t, text, len, flags, &v, err);
    return give(st, &v, ids, cap, n);
}

size_t kt_token_bytes(const kt_tokenizer *t, int32_t id, const char **bytes)
{
    *bytes = "";
    if (id < 0 || (uint32_t)id >= t->n_vocab)
        return 0;
    *bytes = t->arena + t->offset[id];
    return t->offset[id + 1] - t->offset[id];
}

bool kt_token_is_control(const kt_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n_vocab &&
           (t->kind[id] == TOK_CONTROL || t->kind[id] == TOK_UNKNOWN);
}

bool kt_token_is_eos(const kt_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->eos.n; i++)
        if (t->eos.v[i] == id)
            return true;
    return false;
}

kt_status kt_chat_render(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                         bool add_generation_prompt, char **text, size_t *len, kt_err *err)
{
    struct strbuf b = {0};
    *text = NULL;
    *len = 0;
    sb_puts(&b, "");
    kt_status st = chat_render(&t->chat, m, n, add_generation_prompt, &b, NULL, NULL, err);
    if (st == KT_OK)
        *text = sb_take(&b, len);
    sb_free(&b);
    return st;
}

kt_status kt_chat_encode(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                         bool add_generation_prompt, int32_t *ids, size_t cap, size_t *n_ids,
                         kt_err *err)
{
    struct tok_ids v = {0};
    kt_status st = tok_encode_chat(t, m, n, add_generation_prompt, &v, err);
    return give(st, &v, ids, cap, n_ids);
}

kt_status kt_chat_supported(const kt_tokenizer *t, kt_err *err)
{
    return chat_supported(&t->chat, err);
}

const char *kt_chat_template(const kt_tokenizer *t)
{
    return t->chat.source;
}

void kt_sampling_defaults(const kt_tokenizer *t, kt_sampling *p)
{
    *p = t->defaults;
}
