/* plan_model.h - a model on a host: what lies where in bytes, whether it fits, how fast it should
 * be and why. Pure: shape, host, plan of the host, profile and options in; one value out, the same
 * bytes every time. Nothing of the machine that runs it is looked at, so it answers for hosts that
 * are not here and models that were never downloaded.
 *
 * The fast tier's hit rate is a uniform f (share of the experts that lie in it): routing counts do
 * not exist before a model has run. Owner: the caller; free with plan_model_free.
 */
#ifndef KT_PLAN_MODEL_H
#define KT_PLAN_MODEL_H

#include "cost/rates.h"
#include "model/shape.h"
#include "plan/plan.h"
#include "profile/profile.h"

struct plan_model_opts {
    const char *goal;      /* "decode", "prefill" or "both" */
    uint32_t ctx_tokens;   /* of one sequence; 0: the model's, at most 8192 */
    uint32_t parallel;     /* sequences at once; 0: 1 */
    uint32_t chunk;        /* tokens of a prefill step; 0: 512 */
    uint32_t at_tokens;    /* context length that decode is predicted at; 0: 1024 at most */
    const char *kv_type;   /* "bf16" (NULL), "f32", "int8" */
    bool no_fetch;         /* decode copies no expert to the fast tier on demand */
    const char *fast_tier; /* "none" (NULL), "auto" or DEV=SIZE|PERCENT[,..] */
};
void plan_model_opts_init(struct plan_model_opts *o);

/* One memory: a node of the CPU side, or a device of the fast tier. All in bytes. */
struct plan_place {
    char name[24]; /* "node0", "gpu0" */
    bool fast;
    double capacity, system; /* of it, kept for the operating system (GPU: for its driver) */
    double experts, dense, kv, scratch;
    double share; /* of the output rows (CPU side), or of the fast tier's experts */
};

/* A line of a prediction. Lines that are not `inside` add up to the step. */
struct plan_term {
    const char *what;
    double bytes;   /* read or copied in one step; 0: none */
    double ops;     /* 2 per multiply-add */
    bool by_ops;    /* arithmetic takes longer than reading */
    double seconds; /* of one step */
    uint32_t count; /* layers that have it; 0: once per step */
    bool inside;    /* part of the line before it: runs beside other lines of that kind */
};

#define PLAN_TERMS 16
struct plan_prediction {
    bool possible; /* false: rates are missing, see why_not */
    const char *why_not;
    uint32_t streams, tokens, at_tokens; /* tokens: of a step */
    double seconds;                      /* of a step */
    double tokens_per_second;            /* all streams together */
    struct plan_term terms[PLAN_TERMS];
    uint32_t n_terms;
    double experts_read; /* distinct experts per layer */
    uint32_t streamed;   /* prefill: experts per layer copied to the fast tier (j) */
};

/* A change, or several together, none of which can be left out or made smaller. */
struct plan_remedy {
    char action[256], price[256];
    char options[4096]; /* of this command, after its own: with them it fits. Spaces between */
    double cost;        /* order of the list; docs/COST.md has the rule */
};
#define PLAN_REMEDIES 3

struct plan_model {
    const struct shape *shape;
    const struct plan *host_plan;
    struct plan_model_opts o; /* with defaults filled in */
    struct plan_place *places;
    uint32_t n_places;
    double memory_limit; /* of the process; 0: none */
    double need, room;   /* CPU side */
    bool fits, dense_fast, drop_host_copy;
    double hit;            /* f */
    double kv_tokens_room; /* tokens that the KV memory could take */
    char refusal[256];     /* why it does not fit; "" when it does */
    struct plan_remedy remedies[PLAN_REMEDIES];
    uint32_t n_remedies;
    char gemv[64], gemm[64]; /* kernel variants of the experts, and why */
    char gemv_why[128], gemm_why[128];
    struct cost_rates rates;
    struct cost_source sources[COST_CONSTANTS];
    struct plan_prediction decode, decode_all, prefill; /* one stream; all; one chunk */
    bool datasheet;                                     /* rates come from data sheets */
};

/* profile may be NULL (topology alone): then nothing is predicted. KT_E_INVALID: an option; the
 * result of a model that does not fit is KT_OK with fits false. */
kt_status plan_model(const struct shape *s, const struct host *h, const struct plan *p,
                     const struct profile *profile, const struct plan_model_opts *o,
                     struct plan_model **out, kt_err *err);
void plan_model_free(struct plan_model *m);

/* Bytes of one element of the KV cache; 0 for an unknown type. */
double plan_kv_element(const char *kv_type);
/* For people, with color and bars when asked; as one JSON object; as one HTML page. */
void plan_model_print(const struct plan_model *m, const struct host *h, bool color,
                      struct strbuf *out);
void plan_model_json(const struct plan_model *m, const struct host *h, struct strbuf *out);
void plan_model_html(const struct plan_model *m, const struct host *h, struct strbuf *out);

/* Internal steps: plan_fit.c, plan_remedy.c and plan_predict.c */
/* Of a node, and so many bytes of the first one: kernel, page tables, programs. */
#define PLAN_SYSTEM_SHARE 0.03
#define PLAN_SYSTEM_BYTES 1.0e9
#define PLAN_TIERS 64
struct plan_tier_ask { /* a device of the fast tier and what it may hold */
    struct cost_device dev;
    double bytes;   /* < 0: by percent */
    double percent; /* of the experts */
};
/* --fast-tier; t[PLAN_TIERS] */
kt_status plan_read_tiers(const char *spec, const struct host *h, const struct plan *p,
                          struct plan_tier_ask *t, uint32_t *n, kt_err *err);
kt_status plan_fit(struct plan_model *m, const struct host *h, const struct plan_tier_ask *t,
                   uint32_t n, kt_err *err);
/* The cheapest ways to make it fit; only of a model that does not. */
kt_status plan_remedies(struct plan_model *m, const struct host *h, kt_err *err);
void plan_predict(struct plan_model *m);

#endif
