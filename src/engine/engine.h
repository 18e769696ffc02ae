/* engine.h - private structures of the engine: a loaded model, its worker team, KV pages and the
 * scratch of a step.
 *
 * owner: the engine thread, except where a field says otherwise. Workers run only inside team_run
 * and touch what the running phase gives them. Shapes are written behind every pointer; H hidden, E
 * experts, K experts per token, I width of an expert or dense FFN, D head dim, V vocabulary, B
 * batch_tokens. Everything is sized in kt_engine_open; a step allocates nothing.
 */
#ifndef KT_ENGINE_H
#define KT_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/team.h"
#include "host/host.h"
#include "kern.h"
#include "kt.h"
#include "model/model.h"
#include "plan/plan.h"

struct profile;

/* What one pool owns of a matrix: rows [row0, row0 + rows) of it. */
struct eng_part {
    uint8_t *w; /* packed, in the pool's memory */
    uint32_t row0, rows;
};

struct eng_mat {
    enum dtype type; /* as packed */
    enum kern_layout layout;
    uint32_t rows, k;
    uint64_t panel_bytes;
    const struct kern *gemv, *gemm;
    bool exact;              /* canonical whatever is permitted: the router, whose choices a rounded
                                input would change */
    uint32_t gemv_rows;      /* up to so many rows of activations gemv runs, above it gemm */
    struct eng_part *part;   /* [n_pools] */
    uint64_t row_file_bytes; /* bytes of a row in the packed dtype's file form: what bandwidth
                                figures count */
};

/* Row r of a part; r a multiple of KERN_PANEL. */
static inline const uint8_t *eng_row_at(const struct eng_mat *m, uint32_t pool, uint32_t r)
{
    return m->part[pool].w + r / KERN_PANEL * m->panel_bytes;
}

struct eng_layer {
    bool moe;
    const float *attn_norm, *ffn_norm; /* [H] */
    const float *q_norm, *k_norm;      /* [D] or NULL */
    struct eng_mat q, k, v, o;
    struct eng_mat router;            /* [E][H] */
    struct eng_mat *gate, *up, *down; /* [E] on MoE layers, [1] on dense layers */
    uint32_t moe_index;               /* among MoE layers */
};

/* Activation rows in fp32 and int8 groups, and rounded to BF16 where fast products read that. */
struct eng_act {
    uint32_t k;
    float *x;     /* [rows][k] */
    int8_t *q;    /* [rows][ldq] */
    float *scale; /* [rows][ldg] */
    int32_t *sum; /* [rows][ldg] */
    size_t ldq, ldg;
    /* the same row with one scale lies behind it: codes at q + row_q, scale and sum at + row_g; 0
     * where no weight wants it */
    size_t row_q, row_g;
    uint16_t *b; /* [rows][ldb] x in BF16, a zero behind an odd last column; or NULL */
    size_t ldb;
    const void *also; /* rows that this worker takes after these, to ask for meanwhile; or NULL */
    size_t also_bytes;
};

struct mm_job {
    const struct eng_mat *mat;
    const struct eng_act *act;
    const uint32_t *tok; /* rows of act, or NULL */
    uint32_t n;
    float *y;
    size_t ldy;
    const uint8_t *next; /* packed rows that this worker multiplies after these, or NULL */
};

/* Claim counters of one pool; three in rotation so that the next phase's is zero when the phase
 * starts. */
struct eng_counter {
    _Alignas(64) atomic_uint next[3];
};

/* The tokens of a layer by expert: slots are (token, expert) pairs, an expert's slots are
 * contiguous. */
struct eng_groups {
    int32_t *chosen; /* [B][K] ascending */
    float *weight;   /* [B][K] */
    float *gap; /* [B] relative distance of the last chosen to the best left out; filled only for a
                   tap */
    uint32_t *slot_tok; /* [B*K] */
    float *slot_weight; /* [B*K] */
    uint32_t *first;    /* [E+1] first slot of each expert */
    uint32_t *active;   /* [E] experts with at least one slot */
    uint32_t n_active;
    uint32_t *fill; /* [E] scratch of the grouping */
};

/* A piece of a step's attention, for every kv head: n positions of one sequence from `token` on, or
 * a range of the blocks of one position, whose part sums are in slots `slot` + kv head. */
struct eng_attn_item {
    uint32_t token, n, block0, block1, ranges, slot;
};

struct eng_worker {
    uint32_t pool, index;           /* index inside the pool */
    void *attn_part, *attn_scratch; /* of attn_positions positions */
    float *q;                       /* [heads of a kv head][D] rotated, of a split position */
    float *tmp;                     /* [eng_tmp_floats] products of a claim */
    int64_t *acc;                   /* [eng_tmp_floats / 2] expert sums of a claim; zero between */
    const void **kpages, **vpages;  /* [pages of the longest sequence] */
    uint32_t phase;                 /* how many phases this worker has passed in the running step */
    bool pending;                   /* obuf is not yet in this worker's x; the same for all */
    /* A step of few tokens (F = FEW_TOKENS): what every worker computes for itself, so that nobody
     * waits for it */
    float *x;                 /* [F][H] residual stream; worker 0: the engine's */
    struct eng_act norm;      /* [F][H] */
    struct eng_groups groups; /* of F tokens */
    float *probs;             /* [E] */
};

/* Units of work cut into claims, large ones first: one worker's view. */
struct eng_cut {
    uint64_t total, least, most;
    uint32_t workers, at;
    uint64_t start, size; /* of claim `at` */
};

/* What the check of a pool's weight pages found. */
struct eng_pages {
    _Atomic uint64_t there, misplaced;
    atomic_int refused; /* errno of the kernel's refusal to answer */
};

struct eng_kernels {
    kern_quant_fn quant, quant_row;
    kern_rmsnorm_fn rmsnorm;
    kern_swiglu_fn swiglu;
    kern_add_fn add;
    kern_exp_fn vexp;
    kern_rope_fn rope;
    kern_attn_fn attn, attn_join;
    kern_moe_add_fn moe_add;
    kern_moe_done_fn moe_done;
};

struct kt_seq {
    struct kt_engine *e;
    uint32_t *pages; /* [max_pages] ids of reserved pages */
    uint32_t n_pages, len, slot;
    bool open;
};

/* One step's work, filled by kt_step before the team runs. */
struct eng_step {
    kt_batch_item *items;
    uint32_t n_items, n;
    bool single;       /* every item has one token: attention needs no barrier after the KV write */
    kt_seq **seq;      /* [B] */
    uint32_t *pos;     /* [B] */
    int32_t *id;       /* [B] */
    uint32_t *item;    /* [B] index of the token's item */
    atomic_uchar *bad; /* [B] a numeric error in this token's row */
    uint32_t n_out;
    uint32_t *out_tok;          /* [B] tokens whose logits are wanted */
    float **out_ptr;            /* [B] where they go */
    bool few;                   /* at most FEW_TOKENS */
    struct eng_attn_item *attn; /* [max_attn] */
    uint32_t n_attn;
    atomic_uint *slot_left; /* [n_slots] ranges that are not done; full again when all are */
    uint64_t kv_read;       /* bytes of keys and values that the step's items read */
    uint64_t attn_macs;     /* multiply-accumulates of its attention */
    struct eng_groups groups;
};

/* What a tuning may set. Results never depend on these. */
struct eng_knobs {
    uint32_t gemv_rows;  /* up to so many rows of activations a product streams its weights once;
                            0: as many as the matrix' kernel says (tok_tile) */
    uint32_t claim_rows; /* most rows of one claim when weights are streamed: a multiple of
                            CHUNK_ROWS, at most CHUNK_ROWS_MOST */
    uint32_t gemm_claim_rows; /* rows of one claim otherwise: the same */
    uint32_t spin_ns;         /* how long a waiting worker spins before it parks */
};

/* A measurement of the profile, taken again at the start. */
struct eng_spot {
    kt_spot pub;
    char id[64];
};
#define ENG_SPOTS 3

struct kt_engine {
    struct mdl *model;
    struct host *host;
    struct plan *plan;
    struct profile *profile;
    struct team *team;
    struct eng_worker *worker; /* [n_workers] */
    uint32_t n_workers, n_pools;
    uint32_t max_workers;   /* workers with scratch: kt_engine_retune may run fewer */
    uint32_t *open_threads; /* [n_pools] of each pool at open */
    uint32_t loaded_isa;    /* what the packed layout was chosen for; isa is inside it */
    struct eng_knobs knobs;
    uint8_t gemv_rows[DT_COUNT]; /* measured on this host with this build; 0: the kernel's own */
    bool kernels_measured;       /* the profile timed this build's kernels: its choices count */
    uint32_t *pool_workers;      /* [n_pools] */
    struct eng_counter *pool_counter, *all_counter; /* [n_pools], [1] */
    struct eng_kernels fn;
    uint32_t isa;
    enum mem_pages page_kind; /* of packed weights */
    bool pages_tuned;         /* a tuning chose it: not worth an error */
    bool spot_check;          /* take measurements of the profile again */
    uint32_t fast; /* isa bits that rows of other bits than ref's need; 0: canonical only */
    bool strict;
    enum kern_kv kv_type;
    int quant, quant_dense; /* dtype or -1 */
    uint32_t acts;          /* bits 1 << kern_act of all matrices */
    uint32_t max_seqs, ctx, batch;
    uint64_t memory_limit;

    /* model */
    struct eng_layer *layer; /* [n_layers] */
    struct mdl_slice embed;
    struct eng_mat head;
    const float *final_norm;
    float *vectors; /* all norm weights */
    size_t n_vectors;
    struct eng_mat *mats; /* storage of the per-expert matrices */
    struct eng_part *parts;
    uint8_t **arena; /* [n_pools] packed weights */
    uint64_t *arena_bytes;
    struct eng_pages *pages;            /* [n_pools] where the arenas' pages were after packing */
    bool bind_forbidden, pages_unknown; /* by the container: mbind, move_pages */
    float *rope_cos, *rope_sin;         /* [ctx][R/2] */

    /* KV: page p of layer l, kv head h: keys at kv + p*page_bytes + ((l*n_kv + h)*2) * plane_bytes,
     * values one plane later */
    uint8_t *kv;
    uint64_t kv_pages, page_bytes, plane_bytes;
    uint32_t *free_pages; /* stack */
    uint64_t n_free;
    kt_seq *seqs;        /* [max_seqs] */
    uint32_t *seq_pages; /* [max_seqs][max_pages] */
    uint32_t max_pages;  /* of one sequence */

    /* how attention may be divided (attn_plan.c) */
    uint32_t attn_positions, max_attn, n_slots;
    uint64_t slot_bytes;
    uint8_t *slots; /* [n_slots][slot_bytes] part sums of split positions */

    /* scratch of a step */
    uint8_t *scratch;
    uint64_t scratch_bytes;
    uint64_t *own_at;       /* [n_pools+1] borders of what only one pool's workers use of it */
    struct eng_worker *own; /* [max_workers] at open: each pool's workers' scratch in order */
    struct eng_step step;
    float *x;                  /* [B][H] residual stream */
    struct eng_act norm;       /* [B][H] normalised rows */
    float *qbuf, *kbuf, *vbuf; /* [B][heads*D], [B][kv*D] */
    struct eng_act attn;       /* [B][heads*D] */
    float *obuf;               /* [B][H] what a half of a layer adds to x */
    float *rlogits;            /* [B][E] */
    struct eng_act mid;        /* [S][I], S = B*K slots or B tokens of a dense layer */
    struct eng_act out;        /* [out_rows][H] */
    float *logits;             /* [out_rows][V] */
    uint32_t out_rows;
    uint32_t step_base; /* first output row of the running head pass */
    uint32_t step_rows;
    kt_tap_fn tap;
    void *tap_user;

    _Atomic uint64_t *counts; /* [n_moe_layers][E], relaxed */
    struct {
        _Atomic uint64_t steps, tokens, decode, prefill, weight_bytes, kv_bytes, macs, row_macs,
            float_macs, attn_macs, attn_ns, attend_ns, moe_ns, other_ns, expert_tokens, pages_used;
    } stat;
    /* info strings */
    char *plan_text, *profile_id;
    struct eng_spot spot[ENG_SPOTS];
    uint32_t n_spots;
    double predicted_decode; /* seconds of a step of one stream; 0: not predicted */
    const char *profile_state, *dense_format, *expert_format, *pack_cache;
    uint64_t weight_bytes, kv_bytes, expert_bytes;
    double load_seconds, pack_seconds;
    uint64_t load_bytes;
};

#define CHUNK_ROWS                                                                                 \
    (4 * KERN_PANEL) /* least rows of one claim: the kernels keep four panels in flight */
/* Defaults of eng_knobs. Memory is read best in long runs, but the workers must end together; with
 * many tokens a claim is one strip of the GEMM kernels (mm_gemm_avx512.c). */
#define CHUNK_ROWS_MAX (32 * KERN_PANEL)
#define CHUNK_ROWS_MOST (128 * KERN_PANEL)
#define FEW_TOKENS 4 /* a step of so many tokens: norms, routing by every worker, no barrier */
#define SPIN_NS 50000
#define SLOTS_PER_WORKER 4 /* (split position, kv head) pairs of a step */

/* load.c */
kt_status eng_load_layout(struct kt_engine *e,
                          kt_err *err); /* matrices, parts and arena sizes; no weight is read */
/* Which type a weight passes through (the quantisation asked for, or -1) and which is packed. */
void eng_choose_type(const struct kt_engine *e, enum mdl_role role, bool expert, enum dtype src,
                     int *through, enum dtype *packed);
size_t eng_count_mats(const struct mdl_traits *t);
/* Every matrix of a loaded layout once, in a fixed order. */
typedef void (*eng_mat_fn)(void *ctx, struct eng_mat *m, enum mdl_role role, uint32_t layer,
                           uint32_t expert);
void eng_each_mat(const struct kt_engine *e, eng_mat_fn fn, void *ctx);
/* packing.c */
void eng_zero_counters(struct kt_engine *e); /* no worker runs */
kt_status eng_load_weights(struct kt_engine *e, const kt_engine_opts *o, kt_err *err);
/* Layout, kernels and the pools' rows of a matrix whose type, rows and k are set, in multiples of
 * `unit` rows; offsets in the arenas, which grow. false: no kernel pair with one layout. */
bool eng_lay_out_rows(struct kt_engine *e, struct eng_mat *mat, uint32_t unit);
/* predict.c */
double eng_predict_decode(struct kt_engine *e, const kt_engine_opts *o);
/* spot.c */
kt_status eng_spot_check(kt_engine *e, kt_err *err);
/* memory.c */
kt_status eng_settle_pages(struct kt_engine *e, kt_err *err); /* before eng_budget */
kt_status eng_budget(struct kt_engine *e, const kt_engine_opts *o, kt_err *err);
kt_status eng_take_memory(struct kt_engine *e, kt_err *err);
kt_status eng_take_moe_memory(struct kt_engine *e,
                              kt_err *err); /* arenas, and what the expert path needs */
void eng_free_memory(struct kt_engine *e);
/* numa.c */
kt_status eng_numa_bind(struct kt_engine *e, uint32_t pool, void *p, uint64_t bytes,
                        kt_err *err); /* to the pool's nodes, before the first touch */
kt_status eng_numa_spread(struct kt_engine *e, void *p, uint64_t bytes,
                          kt_err *err); /* over the nodes of all pools */
void eng_numa_own(struct kt_engine *e, uint32_t pool, void *p, uint64_t bytes);
kt_status
eng_numa_check(struct kt_engine *e,
               kt_err *err); /* after packing: count misplaced pages, complete plan_text */
bool eng_pool_info(const struct kt_engine *e, uint32_t pool, kt_pool_info *info);
/* jobs.c */
void eng_phase_end(struct kt_engine *e, uint32_t worker);
void eng_phase_last(struct kt_engine *e, uint32_t worker); /* of a run: no barrier */
bool eng_claim(struct kt_engine *e, uint32_t worker, uint32_t n_items,
               uint32_t *item); /* one of n_items, over all workers */
bool eng_claim_pool(struct kt_engine *e, uint32_t worker, uint32_t n_items, uint32_t *item);
/* Cut `total` units of this worker's pool into claims of least to most units. All workers of the
 * pool begin the same cut in a phase, at most one cut a phase. */
void eng_cut_begin(const struct kt_engine *e, uint32_t worker, struct eng_cut *c, uint64_t total,
                   uint64_t least, uint64_t most);
bool eng_cut_next(struct kt_engine *e, uint32_t worker, struct eng_cut *c, uint64_t *from,
                  uint64_t *to);
/* Products that lie in one phase, on the parts of this worker's pool. Every worker calls it. */
void eng_jobs_run(struct kt_engine *e, uint32_t worker, const struct mm_job *jobs, uint32_t n_jobs);
void eng_count_weights(struct kt_engine *e, const struct eng_mat *m,
                       uint32_t n); /* m's rows are read once for n tokens */
void eng_mm(const struct mm_job *j, const struct eng_part *part, uint32_t row0, uint32_t row1,
            float *y, size_t ldy);
/* packing.c: rows to fp32 and back, one by one, as kern_decode and kern_quantise want rows. */
void eng_decode_rows(enum dtype t, const uint8_t *src, uint32_t n, uint32_t k, float *dst);
void eng_quantise_rows(enum dtype t, const float *src, uint32_t n, uint32_t k, uint8_t *dst);
/* Elements [col, col + n) of row `row` of an activation in int8 form, from x; col and n multiples
 * of KERN_GROUP. NaN or infinity marks the token as bad and leaves zeros. */
struct eng_place {
    uint32_t row, col, token;
};
void eng_quantise_part(struct kt_engine *e, const float *x, uint32_t n, const struct eng_act *to,
                       const struct eng_place *at);
/* Elements [col, col + n) of row `row` in BF16, from x; col even. Nothing where a has none. */
void eng_round_part(const struct eng_act *a, const float *x, uint32_t n, uint32_t row,
                    uint32_t col);
/* A whole row, in every int8 form that the model's weights take. */
void eng_quantise(struct kt_engine *e, const struct eng_act *a, uint32_t row, uint32_t token);
static inline bool eng_wants_int8(const struct eng_mat *m)
{
    return kern_act_of(m->type) != KERN_ACT_F32;
}
/* Its activations may be quantised group by group, as pieces of a row are ready. */
static inline bool eng_wants_groups(const struct eng_mat *m)
{
    return kern_act_of(m->type) == KERN_ACT_Q8;
}
static inline bool eng_wants_rows(const struct eng_mat *m)
{
    return kern_act_of(m->type) == KERN_ACT_ROW;
}
/* retune.c */
/* Kernels of a matrix whose type, shape and layout are known; false when the ISA has no pair with
 * that layout. */
bool eng_mat_kernels(const struct kt_engine *e, struct eng_mat *m);
void eng_knobs_default(struct eng_knobs *k);
/* Give every worker its pool from the plan and start the team: e->n_workers of e->max_workers. */
kt_status eng_start_team(struct kt_engine *e, kt_err *err);
/* engine.c */
/* Facts, profile, plan and kernels for the options' profile, threads and cpu_mask. */
kt_status eng_prepare(struct kt_engine *e, const kt_engine_opts *o, kt_err *err);
kt_status eng_start_workers(struct kt_engine *e, kt_err *err);
void eng_release(struct kt_engine *e); /* everything but the model and e itself */
kt_status eng_find_kernels(struct kt_engine *e, kt_err *err);
/* The keys of one kv head of a layer in a page; its values are plane_bytes later. */
static inline uint8_t *eng_kv_plane(const struct kt_engine *e, uint32_t page, uint32_t layer,
                                    uint32_t kv_head)
{
    return e->kv + page * e->page_bytes +
           ((uint64_t)layer * e->model->t.n_kv_heads + kv_head) * 2 * e->plane_bytes;
}
/* attn_plan.c */
void eng_attn_sizes(struct kt_engine *e); /* from model, ctx, batch and workers */
void eng_attn_plan(struct kt_engine *e);  /* the items of the step that is laid out */
/* layer_attn.c, layer_ffn.c: one layer's halves, run by every worker */
void eng_attention(struct kt_engine *e, uint32_t worker, uint32_t layer);
void eng_ffn(struct kt_engine *e, uint32_t worker, uint32_t layer);
/* step.c */
/* What is pending into x, then the norm of every row, as the activations of this worker's next
 * products: its own copy in a step of few tokens, else e->norm behind a barrier. */
const struct eng_act *eng_norm_rows(struct kt_engine *e, uint32_t worker, const float *norm,
                                    bool int8);
/* moe.c */
size_t eng_tmp_floats(const struct kt_engine *e);

#endif
