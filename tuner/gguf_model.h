/* gguf_model.h - what kttune convert and kttune synth share: the GGUF metadata of a model's traits,
 * the list of its tensors, and a progress bar. One thread.
 */
#ifndef KT_TUNER_GGUF_MODEL_H
#define KT_TUNER_GGUF_MODEL_H

#include "model/gguf_write.h"
#include "model/model.h"

/* One tensor to write. */
struct gguf_part {
    char name[64];
    enum mdl_role role;
    uint32_t layer;
    uint32_t stack; /* experts in the tensor; 0: not stacked */
    uint32_t rows, cols;
    enum dtype type;
};

struct gguf_parts {
    struct gguf_part *v; /* mem_free */
    uint32_t n;
};

/* Type of a tensor that is about to be written: for norms and routers it is not asked (F32). */
typedef kt_status (*gguf_type_fn)(void *user, const struct gguf_part *p, enum dtype *type,
                                  kt_err *err);

/* The tensors of a model in file order, with their types; each matrix' rows are checked to be whole
 * blocks. */
kt_status gguf_model_parts(const struct mdl_traits *t, gguf_type_fn type_of, void *user,
                           struct gguf_parts *out, kt_err *err);
/* Declare them all. */
void gguf_model_declare(struct gguf_out *o, const struct gguf_parts *parts);
/* Metadata except the tokenizer. KT_E_UNSUPPORTED when a trait cannot be said in GGUF. */
kt_status gguf_model_metadata(struct gguf_out *o, const struct mdl_traits *t, const char *name,
                              kt_err *err);
/* gguf_out_opts.progress: a bar on standard error if it is a terminal; user is the command's name.
 */
void gguf_model_progress(void *user, uint64_t done, uint64_t total);

#endif
