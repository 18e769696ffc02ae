/* plan_model.c - a model on a host, from options to the finished value: reads the fast tier's
 * specification, fits, reads the constants for the chosen split, names kernels and predicts. See
 * plan_model.h. Pure; owner: the caller.
 */
#include "plan/plan_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/mem.h"
#include "kern.h"

#define DEFAULT_CTX 8192u
#define DEFAULT_AT 1024u

void plan_model_opts_init(struct plan_model_opts *o)
{
    *o = (struct plan_model_opts){.goal = "both"};
}

static kt_status check_opts(const struct shape *s, struct plan_model_opts *o, kt_err *err)
{
    if (strcmp(o->goal, "both") != 0 && strcmp(o->goal, "decode") != 0 &&
        strcmp(o->goal, "prefill") != 0)
        KT_FAIL(err, KT_E_INVALID, "goal '%s' is none of decode, prefill, both", o->goal);
    if (o->kv_type == NULL)
        o->kv_type = "bf16";
    if (plan_kv_element(o->kv_type) <= 0)
        KT_FAIL(err, KT_E_INVALID, "KV type '%s' is none of bf16, f32, int8", o->kv_type);
    if (o->fast_tier == NULL)
        o->fast_tier = "none";
    uint32_t most = s->ctx_tokens > 0 ? s->ctx_tokens : DEFAULT_CTX;
    if (o->ctx_tokens == 0)
        o->ctx_tokens = most < DEFAULT_CTX ? most : DEFAULT_CTX;
    if (o->ctx_tokens > most)
        KT_FAIL(err, KT_E_INVALID, "%u tokens of context are more than the %u that %s was made for",
                o->ctx_tokens, most, s->name);
    if (o->parallel == 0)
        o->parallel = 1;
    if (o->chunk == 0)
        o->chunk = o->ctx_tokens < 512 ? o->ctx_tokens : 512;
    if (o->at_tokens == 0)
        o->at_tokens = o->ctx_tokens < DEFAULT_AT ? o->ctx_tokens : DEFAULT_AT;
    if (o->at_tokens > o->ctx_tokens)
        KT_FAIL(err, KT_E_INVALID, "decode at %u tokens is beyond the context of %u", o->at_tokens,
                o->ctx_tokens);
    return KT_OK;
}

/* ---- --fast-tier ---- */

static bool is_sim(const char *s)
{
    return strncmp(s, "sim", 3) == 0 || strncmp(s, "cudasim", 7) == 0;
}

static kt_status find_device(const struct host *h, const struct plan *p, struct plan_tier_ask *t,
                             kt_err *err)
{
    bool there = false;
    for (uint32_t i = 0; t->dev.gpu && i < h->n_gpus; i++)
        there = there || (h->gpus[i].index == t->dev.index && h->gpus[i].cuda);
    for (uint32_t i = 0; !t->dev.gpu && i < p->n_tiers; i++)
        there = there || (p->tiers[i].node == (int32_t)t->dev.index && p->tiers[i].usable);
    if (!there)
        KT_FAIL(err, KT_E_INVALID, "the fast tier %s%u is not there%s", t->dev.gpu ? "gpu" : "numa",
                t->dev.index,
                t->dev.gpu ? ": the host has no such CUDA device"
                           : ": a tier is a memory node without cores of its own, of known kind");
    return KT_OK;
}

/* "22GiB", "20e9", "10%"; *end is set behind it. */
static bool read_amount(const char *s, struct plan_tier_ask *t, char **end)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0},  {"TiB", 1099511627776.0}, {"GB", 1e9},
                 {"MB", 1e6},           {"G", 1073741824.0}, {"M", 1048576.0},         {"", 1}};
    double v = strtod(s, end);
    if (*end == s || !(v >= 0) || !isfinite(v))
        return false;
    t->bytes = -1;
    if (**end == '%') {
        (*end)++;
        t->percent = v;
        return v <= 100;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strncmp(*end, units[i].unit, strlen(units[i].unit)) == 0) {
            *end += strlen(units[i].unit);
            t->bytes = v * units[i].factor;
            break;
        }
    return true;
}

kt_status plan_read_tiers(const char *spec, const struct host *h, const struct plan *p,
                          struct plan_tier_ask *t, uint32_t *n, kt_err *err)
{
    char *end;
    *n = 0;
    if (strcmp(spec, "none") == 0)
        return KT_OK;
    if (strcmp(spec, "auto") == 0) {
        for (uint32_t i = 0; i < h->n_gpus && *n < PLAN_TIERS; i++)
            if (h->gpus[i].cuda && h->gpus[i].memory_bytes != HOST_UNKNOWN_BYTES)
                t[(*n)++] = (struct plan_tier_ask){{true, h->gpus[i].index}, 1e18, 0};
        return KT_OK;
    }
    for (const char *s = spec; *s != '\0'; *n += 1) {
        struct plan_tier_ask *q = &t[*n];
        size_t skip = strncmp(s, "gpu", 3) == 0 ? 3 : strncmp(s, "numa", 4) == 0 ? 4 : 0;
        if (is_sim(s))
            KT_FAIL(err, KT_E_INVALID,
                    "--fast-tier %s: simulated devices have no rates to plan with; name gpuN or "
                    "numaN",
                    spec);
        q->dev.gpu = skip == 3;
        q->dev.index = (uint32_t)strtoul(s + skip, &end, 10);
        if (skip == 0 || end == s + skip || *end != '=' || *n + 1 == PLAN_TIERS ||
            !read_amount(end + 1, q, &end) || (*end != '\0' && *end != ','))
            KT_FAIL(err, KT_E_INVALID,
                    "--fast-tier %s: expected none, auto, or gpuN=SIZE or numaN=SIZE with commas "
                    "between (SIZE: 22GiB, 20GB, 10%%)",
                    spec);
        KT_TRY(find_device(h, p, q, err));
        s = *end == ',' ? end + 1 : end;
    }
    return KT_OK;
}

/* ---- kernels ---- */

/* Variant of one operation for the experts' format: the profile's decision for this kernel build,
 * else the highest rank. */
static void name_kernel(const struct plan_model *m, const struct profile *p, enum kern_op op,
                        char out[64], char why[128])
{
    const char *f =
        m->shape->expert_format[0] != '\0' ? m->shape->expert_format : m->shape->dense_format;
    int t = dtype_by_name(strcmp(f, "f8_e4m3") == 0  ? "fp8"
                          : strcmp(f, "q4_k_m") == 0 ? "q4_k"
                                                     : f);
    char id[64], abi[17];
    const struct kern *k = t >= 0 ? kern_find(op, t, m->host_plan->isa, NULL) : NULL;
    snprintf(out, 64, "%s", k != NULL ? k->name : "none");
    snprintf(why, 128, "%s", k != NULL ? "highest rank that this CPU runs" : "");
    if (k == NULL) {
        snprintf(why, 128, "this version has no kernel for %s", f);
        return;
    }
    snprintf(id, sizeof id, "kernel.%s.%s", op == KERN_GEMM ? "gemm" : "gemv",
             dtype_name((enum dtype)t));
    kern_abi(abi);
    const char *level = p != NULL ? profile_decision_str(p, id) : NULL;
    if (level == NULL || *level == '\0' || p->kernel_abi == NULL || strcmp(p->kernel_abi, abi) != 0)
        return;
    size_t n;
    const struct kern *const *table = kern_table(&n);
    for (size_t i = 0; i < n; i++) {
        const char *last = strrchr(table[i]->name, '_');
        if (table[i]->op == op && table[i]->dtype == t && last != NULL &&
            strcmp(last + 1, level) == 0) {
            snprintf(out, 64, "%s", table[i]->name);
            snprintf(why, 128, "decision %s of the profile", id);
        }
    }
}

/* ---- the whole ---- */

static kt_status read_rates(struct plan_model *m, const struct profile *profile,
                            const struct plan_tier_ask *t, uint32_t n, kt_err *err)
{
    const struct plan *p = m->host_plan;
    struct cost_pool *pools = mem_calloc(p->n_pools + (size_t)1, sizeof *pools);
    struct cost_device devices[PLAN_TIERS];
    if (pools == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    for (uint32_t i = 0; i < p->n_pools; i++)
        pools[i] = (struct cost_pool){p->pools[i].node, p->pools[i].threads};
    for (uint32_t i = 0; i < n; i++)
        devices[i] = t[i].dev;
    struct cost_ask ask = {.p = profile,
                           .pools = pools,
                           .n_pools = p->n_pools,
                           .devices = devices,
                           .n_devices = n,
                           .format = m->shape->expert_format[0] != '\0' ? m->shape->expert_format
                                                                        : m->shape->dense_format};
    cost_rates_read(&ask, &m->rates, m->sources);
    mem_free(pools);
    return KT_OK;
}

kt_status plan_model(const struct shape *s, const struct host *h, const struct plan *p,
                     const struct profile *profile, const struct plan_model_opts *o,
                     struct plan_model **out, kt_err *err)
{
    struct plan_tier_ask tiers[PLAN_TIERS];
    uint32_t n;
    *out = NULL;
    struct plan_model *m = mem_calloc(1, sizeof *m);
    if (m == NULL)
        KT_FAIL(err, KT_E_NOMEM, "plan: out of memory");
    m->shape = s;
    m->host_plan = p;
    m->o = *o;
    m->datasheet = profile != NULL && profile->datasheet;
    kt_status st = check_opts(s, &m->o, err);
    if (st == KT_OK)
        st = plan_read_tiers(m->o.fast_tier, h, p, tiers, &n, err);
    if (st == KT_OK)
        st = plan_fit(m, h, tiers, n, err);
    if (st == KT_OK && !m->fits)
        st = plan_remedies(m, h, err);
    if (st == KT_OK)
        st = read_rates(m, profile, tiers, n, err);
    if (st != KT_OK) {
        plan_model_free(m);
        return st;
    }
    name_kernel(m, profile, KERN_GEMV, m->gemv, m->gemv_why);
    name_kernel(m, profile, KERN_GEMM, m->gemm, m->gemm_why);
    plan_predict(m);
    *out = m;
    return KT_OK;
}

void plan_model_free(struct plan_model *m)
{
    if (m == NULL)
        return;
    mem_free(m->places);
    mem_free(m);
}
