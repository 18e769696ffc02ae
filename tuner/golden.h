/* golden.h - a file of expected results for a model: prompts with reference logits, hidden states
 * and chosen experts, or exact bits. The format is described in docs/TESTING.md. Immutable after
 * golden_open; pointers are into memory of the object.
 */
#ifndef KT_TUNER_GOLDEN_H
#define KT_TUNER_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct golden_prompt {
    uint32_t n;        /* T tokens */
    int32_t *ids;      /* [T] */
    uint32_t n_rows;   /* positions whose logits are given */
    uint32_t *rows;    /* [n_rows] */
    float *logits;     /* [n_rows][V] */
    float **hidden;    /* [n_layers]: [T][H], or NULL where the file has none */
    int32_t **experts; /* [n_layers]: [T][K], or NULL */
    uint32_t n_greedy;
    int32_t *greedy;      /* [n_greedy] */
    float *greedy_margin; /* [n_greedy] */
};

struct golden {
    uint32_t n_prompts, n_layers, vocab, hidden, top_k;
    struct golden_prompt *prompt;
};

/* Shapes must fit the model's numbers given in *want (vocab, hidden, n_layers, top_k); KT_E_FORMAT
 * names the tensor otherwise. */
kt_status golden_open(const char *path, const struct golden *want, struct golden **out,
                      kt_err *err);
void golden_close(struct golden *g);

#endif
