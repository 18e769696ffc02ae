/* golden.c - reads a golden file (safetensors): S.ids, S.logits, and optionally S.rows, S.hidden.L,
 * S.experts.L, S.greedy, S.greedy_margin for S = 0, 1, .. as many as the file has. Every tensor's
 * type and shape is checked against the model before it is copied.
 */
#include "golden.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/safetensors.h"

struct reader {
    const struct st *st;
    const char *path;
    const struct golden *want;
};

/* Copy tensor "S.what" or "S.what.L" with exactly rows * cols elements of 4 bytes. *out = NULL when
 * it is absent. */
static kt_status take(const struct reader *r, const char *name, enum dtype type, uint64_t rows,
                      uint64_t cols, void *out, kt_err *err)
{
    const struct mdl_tensor *t = st_find(r->st, name);
    void *p = NULL;
    memcpy(out, &p, sizeof p);
    if (t == NULL)
        return KT_OK;
    uint64_t have = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        have *= t->dims[i];
    if (t->type != type || have != rows * cols || t->bytes != have * 4)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: %s must be %s [%llu, %llu] for this model, it is %s with %llu elements; is "
                "the golden file of another model?",
                r->path, name, dtype_name(type), (unsigned long long)rows, (unsigned long long)cols,
                dtype_name(t->type), (unsigned long long)have);
    p = mem_alloc(t->bytes);
    if (p == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory for %s", r->path, name);
    memcpy(p, t->data, t->bytes);
    memcpy(out, &p, sizeof p);
    return KT_OK;
}

static uint32_t length_of(const struct reader *r, const char *name)
{
    const struct mdl_tensor *t = st_find(r->st, name);
    return t != NULL && t->n_dims > 0 && t->dims[0] < 1u << 24 ? (uint32_t)t->dims[0] : 0;
}

static kt_status take_rows(const struct reader *r, uint32_t s, struct golden_prompt *p, kt_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "%u.rows", s);
    p->n_rows = st_find(r->st, name) != NULL ? length_of(r, name) : p->n;
    KT_TRY(take(r, name, DT_I32, p->n_rows, 1, &p->rows, err));
    if (p->rows == NULL) {
        p->rows = mem_calloc(p->n, sizeof *p->rows);
        if (p->rows == NULL)
            KT_FAIL(err, KT_E_NOMEM, "%s: no memory", r->path);
        for (uint32_t i = 0; i < p->n; i++)
            p->rows[i] = i;
    }
    if (p->n_rows == 0)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is empty: nothing would be compared", r->path, name);
    for (uint32_t i = 0; i < p->n_rows; i++)
        if (p->rows[i] >= p->n)
            KT_FAIL(err, KT_E_FORMAT, "%s: %s names position %u of a prompt of %u tokens", r->path,
                    name, p->rows[i], p->n);
    return KT_OK;
}

static kt_status take_prompt(const struct reader *r, uint32_t s, struct golden_prompt *p,
                             kt_err *err)
{
    const struct golden *w = r->want;
    char name[64];
    snprintf(name, sizeof name, "%u.ids", s);
    p->n = length_of(r, name);
    KT_TRY(take(r, name, DT_I32, p->n, 1, &p->ids, err));
    if (p->n == 0)
        KT_FAIL(err, KT_E_FORMAT, "%s: %s is empty", r->path, name);
    KT_TRY(take_rows(r, s, p, err));
    snprintf(name, sizeof name, "%u.logits", s);
    KT_TRY(take(r, name, DT_F32, p->n_rows, w->vocab, &p->logits, err));
    if (p->logits == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: has %u.ids but no %s", r->path, s, name);
    p->hidden = mem_calloc(w->n_layers, sizeof *p->hidden);
    p->experts = mem_calloc(w->n_layers, sizeof *p->experts);
    if (p->hidden == NULL || p->experts == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory", r->path);
    for (uint32_t l = 0; l < w->n_layers; l++) {
        snprintf(name, sizeof name, "%u.hidden.%u", s, l);
        KT_TRY(take(r, name, DT_F32, p->n, w->hidden, &p->hidden[l], err));
        snprintf(name, sizeof name, "%u.experts.%u", s, l);
        KT_TRY(take(r, name, DT_I32, p->n, w->top_k, &p->experts[l], err));
    }
    snprintf(name, sizeof name, "%u.greedy", s);
    p->n_greedy = length_of(r, name);
    KT_TRY(take(r, name, DT_I32, p->n_greedy, 1, &p->greedy, err));
    snprintf(name, sizeof name, "%u.greedy_margin", s);
    KT_TRY(take(r, name, DT_F32, p->n_greedy, 1, &p->greedy_margin, err));
    if (p->greedy == NULL || p->greedy_margin == NULL)
        p->n_greedy = 0;
    return KT_OK;
}

static kt_status read_all(const struct reader *r, struct golden *g, kt_err *err)
{
    char name[64];
    do
        snprintf(name, sizeof name, "%u.ids", g->n_prompts++);
    while (st_find(r->st, name) != NULL && g->n_prompts < 10000);
    g->n_prompts--;
    if (g->n_prompts == 0)
        KT_FAIL(err, KT_E_FORMAT, "%s: has no tensor 0.ids; it is no golden file", r->path);
    g->prompt = mem_calloc(g->n_prompts, sizeof *g->prompt);
    if (g->prompt == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory", r->path);
    for (uint32_t s = 0; s < g->n_prompts; s++)
        KT_TRY(take_prompt(r, s, &g->prompt[s], err));
    return KT_OK;
}

kt_status golden_open(const char *path, const struct golden *want, struct golden **out, kt_err *err)
{
    struct st *st;
    *out = NULL;
    KT_TRY(st_open_file(path, &st, err));
    struct golden *g = mem_calloc(1, sizeof *g);
    if (g == NULL) {
        st_close(st);
        KT_FAIL(err, KT_E_NOMEM, "%s: no memory", path);
    }
    *g = (struct golden){.n_layers = want->n_layers,
                         .vocab = want->vocab,
                         .hidden = want->hidden,
                         .top_k = want->top_k};
    kt_status s = read_all(&(struct reader){st, path, want}, g, err);
    st_close(st);
    if (s != KT_OK) {
        golden_close(g);
        return s;
    }
    *out = g;
    return KT_OK;
}

void golden_close(struct golden *g)
{
    if (g == NULL)
        return;
    for (uint32_t i = 0; g->prompt != NULL && i < g->n_prompts; i++) {
        struct golden_prompt *p = &g->prompt[i];
        for (uint32_t l = 0; l < g->n_layers; l++) {
            mem_free(p->hidden != NULL ? p->hidden[l] : NULL);
            mem_free(p->experts != NULL ? p->experts[l] : NULL);
        }
        mem_free(p->hidden);
        mem_free(p->experts);
        mem_free(p->ids);
        mem_free(p->rows);
        mem_free(p->logits);
        mem_free(p->greedy);
        mem_free(p->greedy_margin);
    }
    mem_free(g->prompt);
    mem_free(g);
}
