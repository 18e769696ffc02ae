/* plan_text.c - a plan of a model for people (aligned tables, a bar per term in a terminal) and as
 * one JSON object. Prints what the value holds and computes nothing but shares. Wording is fixed:
 * plans are compared byte for byte.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "kern.h"
#include "plan/plan_model.h"

#define BAR 20

struct page {
    struct strbuf *b;
    bool color;
};

static const char *style(const struct page *p, const char *code)
{
    return p->color ? code : "";
}

#define BOLD(p) style(p, "\033[1m")
#define DIM(p) style(p, "\033[2m")
#define RED(p) style(p, "\033[31m")
#define OFF(p) style(p, "\033[0m")

static const char *size_text(double v, char buf[16])
{
    if (!isfinite(v))
        snprintf(buf, 16, "?");
    else if (v < 1e6)
        snprintf(buf, 16, v > 0 ? "%.1f kB" : "-", v / 1e3);
    else if (v < 1e9)
        snprintf(buf, 16, "%.1f MB", v / 1e6);
    else
        snprintf(buf, 16, "%.2f GB", v / 1e9);
    return buf;
}

static const char *value_text(const struct cost_source *s, char buf[24])
{
    if (strcmp(s->unit, "bytes_per_second") == 0)
        snprintf(buf, 24, "%.1f GB/s", s->value / 1e9);
    else if (strcmp(s->unit, "ops_per_second") == 0)
        snprintf(buf, 24, "%.2f Top/s", s->value / 1e12);
    else if (strcmp(s->unit, "seconds") == 0)
        snprintf(buf, 24, "%.1f us", s->value * 1e6);
    else
        snprintf(buf, 24, "%.2f", s->value);
    return buf;
}

static void print_head(const struct page *p, const struct plan_model *m, const struct host *h)
{
    const struct shape *s = m->shape;
    char a[16];
    sb_printf(p->b, "%smodel%s   %s (%s): %u layers", BOLD(p), OFF(p), s->name, s->arch,
              s->n_layers);
    if (s->n_experts > 0)
        sb_printf(p->b, ", %u of %u experts in %u, %s", s->top_k, s->n_experts, s->n_moe,
                  s->expert_format);
    sb_printf(p->b, "; %s in all, sizes from the %s\n",
              size_text(shape_expert_bytes(s) + shape_dense_bytes(s), a), s->bytes_from);
    if (s->why_not[0] != '\0')
        sb_printf(p->b, "        %snot served by this version: %s%s\n", DIM(p), s->why_not, OFF(p));
    sb_printf(p->b, "%shost%s    %u cores in %u pool%s, %u threads, kernels %s", BOLD(p), OFF(p),
              h->n_cores, m->host_plan->n_pools, m->host_plan->n_pools == 1 ? "" : "s",
              m->host_plan->n_threads, kern_isa_level_name(m->host_plan->isa));
    sb_puts(p->b, m->datasheet ? "; all rates are from data sheets\n" : "\n");
}

static void print_pools(const struct page *p, const struct plan_model *m)
{
    for (uint32_t i = 0; i < m->host_plan->n_pools; i++) {
        const struct plan_pool *q = &m->host_plan->pools[i];
        sb_printf(p->b, "%s%s   %-9s %3u of %u cores, %5.1f %% of the rows\n", BOLD(p),
                  i == 0 ? "pools" : "     ", m->places[i].name, q->threads, q->n_cpus,
                  100 * q->share);
        if (i == 0)
            sb_puts(p->b, OFF(p));
    }
    sb_printf(p->b, "%skernels%s few tokens %s (%s)\n        many tokens %s (%s)\n", BOLD(p),
              OFF(p), m->gemv, m->gemv_why, m->gemm, m->gemm_why);
}

/* Rows that a tuning of the profile brought. */
static void print_tuned(const struct page *p, const struct plan *q)
{
    for (uint32_t i = 0; i < q->n_decisions; i++)
        if (strncmp(q->decisions[i].id, "tune.", 5) == 0)
            sb_printf(p->b, "%stuned%s   %s = %s%s%s   %s%s%s\n", BOLD(p), OFF(p),
                      q->decisions[i].id + 5, q->decisions[i].value_json,
                      q->decisions[i].unit != NULL ? " " : "",
                      q->decisions[i].unit != NULL ? q->decisions[i].unit : "", DIM(p),
                      q->decisions[i].why, OFF(p));
}

static void print_places(const struct page *p, const struct plan_model *m)
{
    char a[16], b[16], c[16], d[16], e[16], f[16];
    sb_printf(p->b, "\n%smemory   %12s %12s %12s %12s %12s %12s%s\n", BOLD(p), "experts", "dense",
              "KV", "scratch", "used", "usable", OFF(p));
    for (uint32_t i = 0; i < m->n_places; i++) {
        const struct plan_place *q = &m->places[i];
        double used = q->experts + q->dense + q->kv + q->scratch, room = q->capacity - q->system;
        sb_printf(p->b, "  %-9s%10s %12s %12s %12s %12s %s%12s%s", q->name,
                  size_text(q->experts, a), size_text(q->dense, b), size_text(q->kv, c),
                  size_text(q->scratch, d), size_text(used, e), used > room ? RED(p) : "",
                  size_text(room, f), used > room ? OFF(p) : "");
        if (isfinite(room) && room > 0)
            sb_printf(p->b, "  %3.0f %%", 100 * used / room);
        sb_puts(p->b, "\n");
    }
    if (m->memory_limit > 0)
        sb_printf(p->b, "  the process may use %s\n", size_text(m->memory_limit, a));
    sb_printf(p->b, "  KV: %u sequence%s of %u tokens in %s", m->o.parallel,
              m->o.parallel == 1 ? "" : "s", m->o.ctx_tokens, m->o.kv_type);
    if (m->fits && isfinite(m->kv_tokens_room))
        sb_printf(p->b, "; room for %.0f tokens", floor(m->kv_tokens_room));
    sb_printf(p->b, "; steps of at most %u tokens\n", m->o.chunk);
    if (m->n_places > m->host_plan->n_pools)
        sb_printf(p->b,
                  "  fast tier: %.1f %% of the experts%s%s; every expert is taken to be as likely "
                  "there (uniform f = %.3f)\n",
                  100 * m->hit, m->dense_fast ? ", attention, shared experts and KV" : "",
                  m->drop_host_copy ? ", without copies in the host's memory" : "", m->hit);
}

static void print_bar(const struct page *p, double share)
{
    int eighths = (int)(share * BAR * 8 + 0.5);
    static const char *const part[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    if (!p->color)
        return;
    sb_puts(p->b, "  \033[36m");
    for (; eighths >= 8; eighths -= 8)
        sb_puts(p->b, "█");
    sb_puts(p->b, part[eighths]);
    sb_puts(p->b, OFF(p));
}

/* What bounds the line: bytes or arithmetic. */
static const char *rate_text(const struct plan_term *t, char buf[24])
{
    if (t->by_ops)
        snprintf(buf, 24, "%.2f Top/s", t->ops / t->seconds / 1e12);
    else if (t->bytes > 0 && t->seconds > 0)
        snprintf(buf, 24, "%.1f GB/s", t->bytes / t->seconds / 1e9);
    else
        snprintf(buf, 24, "-");
    return buf;
}

static void print_terms(const struct page *p, const struct plan_prediction *q)
{
    char a[16], rate[24], each[24];
    sb_printf(p->b, "  %s%-24s %12s %12s %11s %7s %10s %7s%s\n", DIM(p), "part", "bytes", "rate",
              "us/layer", "layers", "ms", "share", OFF(p));
    for (uint32_t i = 0; i < q->n_terms; i++) {
        const struct plan_term *t = &q->terms[i];
        rate_text(t, rate);
        snprintf(each, sizeof each, t->count > 0 ? "%.1f" : "-",
                 t->count > 0 ? t->seconds * 1e6 / t->count : 0);
        sb_printf(p->b, "  %s%-*s %12s %12s %11s ", t->inside ? "  " : "", t->inside ? 22 : 24,
                  t->what, size_text(t->bytes, a), rate, each);
        if (t->count > 0)
            sb_printf(p->b, "%7u %10.3f", t->count, t->seconds * 1e3);
        else
            sb_printf(p->b, "%7s %10.3f", "-", t->seconds * 1e3);
        if (t->inside) {
            sb_printf(p->b, " %7s\n", "beside");
            continue;
        }
        sb_printf(p->b, " %5.1f %%", 100 * t->seconds / q->seconds);
        print_bar(p, t->seconds / q->seconds);
        sb_puts(p->b, "\n");
    }
}

static void print_decode(const struct page *p, const struct plan_prediction *q)
{
    sb_printf(p->b, "\n%sdecode, %u stream%s at %u tokens", BOLD(p), q->streams,
              q->streams == 1 ? "" : "s", q->at_tokens);
    if (!q->possible) {
        sb_printf(p->b, "%s: not predicted: %s\n", OFF(p), q->why_not);
        return;
    }
    sb_printf(p->b, ": %.2f tokens/s%s", q->tokens_per_second, OFF(p));
    if (q->streams > 1)
        sb_printf(p->b, " in all, %.2f each", q->tokens_per_second / q->streams);
    sb_printf(p->b, " (%.2f ms a step", q->seconds * 1e3);
    if (q->streams > 1 && q->experts_read > 0)
        sb_printf(p->b, ", %.1f experts read per layer", q->experts_read);
    sb_puts(p->b, ")\n");
    print_terms(p, q);
}

static void print_prefill(const struct page *p, const struct plan_prediction *q)
{
    if (!q->possible) {
        sb_printf(p->b, "\n%sprefill%s: not predicted: %s\n", BOLD(p), OFF(p), q->why_not);
        return;
    }
    sb_printf(p->b, "\n%sprefill, chunk of %u tokens: %.1f tokens/s%s (%.1f ms a step", BOLD(p),
              q->tokens, q->tokens_per_second, OFF(p), q->seconds * 1e3);
    if (q->streamed > 0)
        sb_printf(p->b, ", %u experts per layer are copied to the fast tier", q->streamed);
    sb_puts(p->b, ")\n");
    print_terms(p, q);
}

static void print_rates(const struct page *p, const struct plan_model *m)
{
    char v[24];
    sb_printf(p->b, "\n%srates%s\n", BOLD(p), OFF(p));
    for (int i = 0; i < COST_CONSTANTS; i++) {
        const struct cost_source *s = &m->sources[i];
        if (s->origin != COST_MISSING && s->value > 0)
            sb_printf(p->b, "  %-8s %-28s %12s   %s%-9s %s%s\n", s->symbol, s->what,
                      value_text(s, v), DIM(p), cost_origin_name(s->origin), s->from, OFF(p));
    }
}

static void print_refusal(const struct page *p, const struct plan_model *m)
{
    sb_printf(p->b, "\n%s%sdoes not fit%s: %s\n", BOLD(p), RED(p), OFF(p), m->refusal);
    for (uint32_t i = 0; i < m->n_remedies; i++)
        sb_printf(p->b, "  %u. %s%s%s\n     %s\n", i + 1, BOLD(p), m->remedies[i].action, OFF(p),
                  m->remedies[i].price);
}

void plan_model_print(const struct plan_model *m, const struct host *h, bool color,
                      struct strbuf *out)
{
    struct page p = {out, color};
    print_head(&p, m, h);
    print_pools(&p, m);
    print_tuned(&p, m->host_plan);
    print_places(&p, m);
    if (!m->fits) {
        print_refusal(&p, m);
        return;
    }
    if (strcmp(m->o.goal, "prefill") != 0) {
        print_decode(&p, &m->decode);
        if (m->o.parallel > 1)
            print_decode(&p, &m->decode_all);
    }
    if (strcmp(m->o.goal, "decode") != 0)
        print_prefill(&p, &m->prefill);
    print_rates(&p, m);
    const struct shape_layer *l = &m->shape->layers[m->shape->n_layers - 1];
    struct cost_expert x = {l->bytes[SHAPE_EXPERT], 2 * l->weights[SHAPE_EXPERT]};
    double tokens = cost_copy_tokens(&m->rates, &x);
    if (m->hit > 0 && isfinite(tokens))
        sb_printf(out,
                  "\nPrefill: an expert with more than %.0f tokens is copied to the fast tier "
                  "rather than computed here.\n",
                  tokens);
    if (m->dense_fast || m->hit > 0)
        sb_puts(out, "\nThis version serves from the CPU only: what the fast tier adds is planned, "
                     "not yet served.\n");
}

/* ---- JSON ---- */

static void json_prediction(struct json_out *j, const char *key, const struct plan_prediction *q)
{
    jo_key(j, key);
    jo_object(j);
    jo_kbool(j, "possible", q->possible);
    if (!q->possible) {
        jo_kstr(j, "why_not", q->why_not);
        jo_object_end(j);
        return;
    }
    jo_kuint(j, "streams", q->streams);
    jo_kuint(j, "step_tokens", q->tokens);
    jo_kuint(j, "at_tokens", q->at_tokens);
    jo_kreal(j, "seconds", q->seconds);
    jo_kreal(j, "tokens_per_second", q->tokens_per_second);
    jo_kreal(j, "experts_per_layer", q->experts_read);
    jo_kuint(j, "streamed_per_layer", q->streamed);
    jo_key(j, "terms");
    jo_array(j);
    for (uint32_t i = 0; i < q->n_terms; i++) {
        const struct plan_term *t = &q->terms[i];
        jo_object(j);
        jo_kstr(j, "part", t->what);
        jo_kreal(j, "bytes", t->bytes);
        jo_kreal(j, "ops", t->ops);
        jo_kstr(j, "bound", t->by_ops ? "ops" : t->bytes > 0 ? "bytes" : "latency");
        jo_kreal(j, "seconds", t->seconds);
        jo_kuint(j, "layers", t->count);
        jo_kreal(j, "share", t->inside ? 0 : t->seconds / q->seconds);
        jo_kbool(j, "beside", t->inside);
        jo_object_end(j);
    }
    jo_array_end(j);
    jo_object_end(j);
}

static void json_model(struct json_out *j, const struct plan_model *m)
{
    const struct shape *s = m->shape;
    jo_key(j, "model");
    jo_object(j);
    jo_kstr(j, "name", s->name);
    jo_kstr(j, "arch", s->arch);
    jo_kuint(j, "layers", s->n_layers);
    jo_kuint(j, "moe_layers", s->n_moe);
    jo_kuint(j, "experts", s->n_experts);
    jo_kuint(j, "top_k", s->top_k);
    jo_kstr(j, "expert_format", s->expert_format);
    jo_kstr(j, "dense_format", s->dense_format);
    jo_kstr(j, "bytes_from", s->bytes_from);
    jo_kreal(j, "expert_bytes", shape_expert_bytes(s));
    jo_kreal(j, "dense_bytes", shape_dense_bytes(s));
    jo_kbool(j, "served", s->why_not[0] == '\0');
    if (s->why_not[0] != '\0')
        jo_kstr(j, "why_not", s->why_not);
    jo_object_end(j);
}

static void json_places(struct json_out *j, const struct plan_model *m)
{
    jo_key(j, "memory");
    jo_array(j);
    for (uint32_t i = 0; i < m->n_places; i++) {
        const struct plan_place *q = &m->places[i];
        jo_object(j);
        jo_kstr(j, "place", q->name);
        jo_kbool(j, "fast", q->fast);
        jo_kreal(j, "capacity_bytes", q->capacity);
        jo_kreal(j, "system_bytes", q->system);
        jo_kreal(j, "expert_bytes", q->experts);
        jo_kreal(j, "dense_bytes", q->dense);
        jo_kreal(j, "kv_bytes", q->kv);
        jo_kreal(j, "scratch_bytes", q->scratch);
        jo_kreal(j, "share", q->share);
        jo_object_end(j);
    }
    jo_array_end(j);
}

static void json_decisions(struct json_out *j, const struct plan_model *m)
{
    jo_key(j, "pools");
    jo_array(j);
    for (uint32_t i = 0; i < m->host_plan->n_pools; i++) {
        const struct plan_pool *q = &m->host_plan->pools[i];
        jo_object(j);
        jo_kint(j, "node", q->node);
        jo_kuint(j, "threads", q->threads);
        jo_kuint(j, "cores", q->n_cpus);
        jo_kreal(j, "share", q->share);
        jo_object_end(j);
    }
    jo_array_end(j);
    jo_key(j, "kernels");
    jo_object(j);
    jo_kstr(j, "gemv", m->gemv);
    jo_kstr(j, "gemv_why", m->gemv_why);
    jo_kstr(j, "gemm", m->gemm);
    jo_kstr(j, "gemm_why", m->gemm_why);
    jo_object_end(j);
    jo_key(j, "tuned");
    jo_object(j);
    for (uint32_t i = 0; i < m->host_plan->n_decisions; i++)
        if (strncmp(m->host_plan->decisions[i].id, "tune.", 5) == 0) {
            jo_key(j, m->host_plan->decisions[i].id + 5);
            jo_raw(j, m->host_plan->decisions[i].value_json);
        }
    jo_object_end(j);
    jo_key(j, "budget");
    jo_object(j);
    jo_kuint(j, "ctx_tokens", m->o.ctx_tokens);
    jo_kuint(j, "parallel", m->o.parallel);
    jo_kuint(j, "step_tokens", m->o.chunk);
    jo_kstr(j, "kv_type", m->o.kv_type);
    jo_kreal(j, "kv_tokens_room", floor(m->kv_tokens_room));
    jo_kreal(j, "hit_ratio", m->hit);
    jo_kstr(j, "hit_model", "uniform");
    jo_kbool(j, "dense_fast", m->dense_fast);
    jo_kbool(j, "host_copies_dropped", m->drop_host_copy);
    jo_object_end(j);
}

static void json_rates(struct json_out *j, const struct plan_model *m)
{
    jo_key(j, "rates");
    jo_array(j);
    for (int i = 0; i < COST_CONSTANTS; i++) {
        const struct cost_source *s = &m->sources[i];
        jo_object(j);
        jo_kstr(j, "symbol", s->symbol);
        jo_kstr(j, "unit", s->unit);
        jo_kstr(j, "origin", cost_origin_name(s->origin));
        jo_kreal(j, "value", s->origin == COST_MISSING ? (double)NAN : s->value);
        jo_kstr(j, "from", s->from);
        jo_object_end(j);
    }
    jo_array_end(j);
}

/* The words between spaces. */
static void json_options(struct json_out *j, const char *at)
{
    char word[128];
    jo_key(j, "options");
    jo_array(j);
    while (*at != '\0') {
        size_t n = strcspn(at, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        jo_str(j, word);
        at += n + strspn(at + n, " ");
    }
    jo_array_end(j);
}

void plan_model_json(const struct plan_model *m, const struct host *h, struct strbuf *out)
{
    struct json_out j;
    jo_init(&j, out);
    jo_object(&j);
    jo_kstr(&j, "schema", "kt.plan/1");
    jo_kstr(&j, "host", h->source);
    jo_kstr(&j, "goal", m->o.goal);
    jo_kbool(&j, "datasheet", m->datasheet);
    jo_kbool(&j, "fits", m->fits);
    json_model(&j, m);
    json_decisions(&j, m);
    json_places(&j, m);
    jo_kreal(&j, "need_bytes", m->need);
    jo_kreal(&j, "room_bytes", m->room);
    if (!m->fits) {
        jo_kstr(&j, "refusal", m->refusal);
        jo_key(&j, "remedies");
        jo_array(&j);
        for (uint32_t i = 0; i < m->n_remedies; i++) {
            jo_object(&j);
            jo_kstr(&j, "action", m->remedies[i].action);
            jo_kstr(&j, "price", m->remedies[i].price);
            json_options(&j, m->remedies[i].options);
            jo_kreal(&j, "cost", m->remedies[i].cost);
            jo_object_end(&j);
        }
        jo_array_end(&j);
    } else {
        json_prediction(&j, "decode", &m->decode);
        if (m->o.parallel > 1)
            json_prediction(&j, "decode_all", &m->decode_all);
        json_prediction(&j, "prefill", &m->prefill);
        json_rates(&j, m);
    }
    jo_object_end(&j);
    sb_putc(out, '\n');
}
