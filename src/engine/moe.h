/* moe.h - the expert path that the engine's step and the public operator share: see moe.c. Private
 * to the engine. Every worker calls these functions with equal arguments; phases end outside.
 */
#ifndef KT_ENGINE_MOE_H
#define KT_ENGINE_MOE_H

#include "engine.h"

/* One run of the path over the tokens of a step. */
struct moe_run {
    const struct eng_mat *gate, *up, *down; /* [E]; a dense layer has one and no down here */
    const struct eng_groups *groups;        /* slot_tok NULL: slot i is token i */
    const struct eng_act *in;               /* [n][H] */
    struct eng_act mid;                     /* [slots][I] */
    bool int8; /* down takes int8 groups: quantised in the first phase */
    uint32_t n;
    float *out; /* [n][ldo] */
    size_t ldo;
    bool add; /* out += sum, else out = sum */
};

/* layer_ffn.c: both phases of a layer over the step's tokens, with their barriers; the sums are
 * added to x, or pending in obuf in a step of few tokens. */
void eng_experts(struct kt_engine *e, uint32_t worker, const struct eng_layer *l,
                 const struct eng_act *x, const struct eng_groups *g);
/* Counting sort of (token, expert) pairs by expert: chosen and weight to slots. */
void moe_group(struct eng_groups *g, uint32_t n, uint32_t k, uint32_t n_experts);
/* First phase: `in` to `mid`. */
void moe_gate_up(struct kt_engine *e, uint32_t worker, const struct moe_run *r);
/* Between them where down takes rows with one scale, which need all of a row; a phase of its own.
 */
void moe_quantise(struct kt_engine *e, uint32_t worker, const struct moe_run *r);
/* Second phase: `mid` to `out`; worker 0 counts the weights of both. */
void moe_down(struct kt_engine *e, uint32_t worker, const struct moe_run *r);

#endif
