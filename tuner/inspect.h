/* inspect.h - what kttune inspect collects about a model; filled once, then printed as text
 * (cmd_inspect.c) or JSON (inspect_json.c). */
#ifndef KT_TUNER_INSPECT_H
#define KT_TUNER_INSPECT_H

#include "model/gguf.h"
#include "model/model.h"

enum inspect_part {
    PART_EMBEDDING,
    PART_ATTENTION,
    PART_NORMS,
    PART_ROUTER,
    PART_EXPERTS,
    PART_SHARED,
    PART_DENSE,
    PART_HEAD,
    PART_OTHER,
    PART_COUNT
};

struct inspect_sum {
    uint32_t tensors;
    uint64_t bytes, by_type[DT_COUNT];
};

struct inspect {
    struct mdl *files; /* container only */
    struct mdl *model; /* NULL: cannot be served, see why */
    kt_err why;
    struct inspect_sum part[PART_COUNT];
    uint64_t bytes;
};

void inspect_sum(struct inspect *in);
const char *inspect_part_name(enum inspect_part p);
const char *inspect_type_name(enum gguf_type t);
/* KV bytes of one token with elements of this many bytes. */
uint64_t inspect_kv_bytes(const struct mdl_traits *t, uint32_t element);
/* false: out of memory */
bool inspect_print_json(const struct inspect *in);

#endif
