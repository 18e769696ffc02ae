/* plan_explain.c - the reasons: one decision row per choice (value, origin, why, because,
 * runner-up, what would change it) and one warning per code, then the same as lines for people.
 * Texts state numbers of this host, so that a reader can check them; wording is fixed, because
 * plans are compared byte for byte. Pure; owner: plan_host.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "plan/plan_int.h"

void plan_warn(struct work *w, const char *code, const char *about, const char *fmt, ...)
{
    char text[1024], fix[512] = "", subject[256] = "";
    const struct host_code *c = host_code(code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(fix, sizeof fix, "%s", c != NULL ? c->fix : "");
    snprintf(subject, sizeof subject, "%s", about != NULL ? about : "");
    struct host_warning in = {.severity = c != NULL ? c->severity : "warning",
                              .text = text,
                              .fix = c != NULL ? fix : NULL,
                              .about = about != NULL ? subject : NULL};
    snprintf(in.code, sizeof in.code, "%s", code);
    w->oom = !host_warning_add(&w->p->warnings, &w->p->n_warnings, &in) || w->oom;
}

/* A new row; value and why are taken over. NULL when memory is short. */
static struct plan_decision *decide(struct work *w, const char *id, struct strbuf *value,
                                    struct strbuf *why, const char *origin)
{
    struct plan_decision *list =
        mem_realloc(w->p->decisions, (w->p->n_decisions + (size_t)1) * sizeof *list);
    char *v = sb_take(value, NULL), *y = sb_take(why, NULL);
    if (list != NULL)
        w->p->decisions = list;
    if (list == NULL || v == NULL || y == NULL) {
        mem_free(v);
        mem_free(y);
        w->oom = true;
        return NULL;
    }
    struct plan_decision *d = &list[w->p->n_decisions++];
    memset(d, 0, sizeof *d);
    snprintf(d->id, sizeof d->id, "%s", id);
    d->value_json = v;
    d->why = y;
    d->origin = origin;
    d->margin = (double)NAN;
    d->confidence = "high";
    d->goal = "both";
    return d;
}

static void append(struct work *w, char ***list, uint32_t *n, const char *text)
{
    char **p = mem_realloc(*list, (*n + (size_t)1) * sizeof *p), *s = mem_strdup(text);
    if (p != NULL)
        *list = p;
    if (p == NULL || s == NULL) {
        mem_free(s);
        w->oom = true;
        return;
    }
    p[(*n)++] = s;
}

static void change_if(struct work *w, struct plan_decision *d, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void change_if(struct work *w, struct plan_decision *d, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (d != NULL)
        append(w, &d->would_change_if, &d->n_would_change_if, text);
}

static void pools_value(struct work *w, struct strbuf *b)
{
    struct json_out j;
    jo_init(&j, b);
    jo_array(&j);
    for (uint32_t i = 0; i < w->p->n_pools; i++) {
        const struct plan_pool *q = &w->p->pools[i];
        char *cpus = host_set_format(&q->pus);
        jo_object(&j);
        jo_key(&j, "node");
        if (q->node >= 0)
            jo_int(&j, q->node);
        else
            jo_null(&j);
        jo_kstr(&j, "cpus", cpus);
        jo_kuint(&j, "cores", q->n_cpus);
        jo_key(&j, "mems");
        jo_array(&j);
        for (uint32_t k = 0; k < q->n_mems; k++)
            jo_int(&j, q->mems[k]);
        jo_array_end(&j);
        jo_kbool(&j, "local", q->local);
        jo_object_end(&j);
        w->oom = cpus == NULL || w->oom;
        mem_free(cpus);
    }
    jo_array_end(&j);
}

static void explain_pools(struct work *w)
{
    struct strbuf v = {0}, y = {0};
    pools_value(w, &v);
    if (w->remote) {
        sb_puts(&y, "no allowed memory node is near an allowed core: one pool over all of them");
    } else {
        sb_puts(&y, w->p->n_pools > 1 ? "nodes " : "node ");
        for (uint32_t i = 0; i < w->p->n_pools; i++)
            sb_printf(&y, "%s%d",
                      i == 0                   ? ""
                      : i + 1 == w->p->n_pools ? " and "
                                               : ", ",
                      w->p->pools[i].node);
        sb_puts(&y, w->p->n_pools > 1 ? " have cores and memory" : " has cores and memory");
    }
    for (uint32_t i = 0; i < w->p->n_tiers; i++) {
        const struct plan_tier *t = &w->p->tiers[i];
        bool dropped = false;
        for (uint32_t k = 0; k < w->n_dropped; k++)
            dropped = dropped || w->dropped[k] == t->node;
        if (dropped)
            sb_printf(&y, "; node %d is left out: fewer threads than pools", t->node);
        else
            sb_printf(&y, "; node %d has no cores of its own and is %s tier", t->node,
                      t->tier == HOST_TIER_UNKNOWN ? "an unknown"
                      : t->tier == HOST_HBM        ? "an hbm"
                      : t->tier == HOST_NVM        ? "an nvm"
                      : t->tier == HOST_CXL        ? "a cxl"
                                                   : "a dram");
    }
    if (w->fast_only)
        sb_puts(&y, "; only the fastest class of cores works");
    else if (w->n_classes > 1)
        sb_puts(&y, "; too few fast cores: all classes work, weighted by speed");
    struct plan_decision *d = decide(w, "pools", &v, &y, "model");
    change_if(w, d, "NPS or SNC mode changes");
    change_if(w, d, "cpuset changes");
    if (d != NULL && (w->n_classes > 1 || w->remote))
        d->confidence = "medium";
}

static void explain_total(struct work *w)
{
    const struct host_limits *l = &w->h->limits;
    struct strbuf v = {0}, y = {0};
    sb_printf(&v, "%u", w->p->threads_max);
    sb_printf(&y, "%u core%s allowed, ", l->cores_allowed, l->cores_allowed == 1 ? "" : "s");
    if (l->quota_cores > 0)
        sb_printf(&y, "quota %.6g cores", l->quota_cores);
    else
        sb_puts(&y, "no quota");
    if (w->o.threads > 0)
        sb_printf(&y, "; %u %s (the rule gives %u)", w->o.threads,
                  w->o.threads_why != NULL ? w->o.threads_why : "asked for", w->cap);
    else {
        if (w->reserve > 0)
            sb_printf(&y, ", %u kept for server and copy threads", w->reserve);
        if (w->pool_cores < l->cores_allowed)
            sb_printf(&y, ", %u in pools", w->pool_cores);
    }
    struct plan_decision *d = decide(w, "threads.total", &v, &y,
                                     w->o.threads == 0          ? "limit"
                                     : w->o.threads_why != NULL ? "model"
                                                                : "user");
    if (d == NULL)
        return;
    d->unit = "threads";
    if (l->quota_cores > 0)
        change_if(w, d, "cpu quota changes");
    else
        change_if(w, d, "cpu quota below %u cores", w->p->threads_max + w->reserve);
    change_if(w, d, "cpuset changes");
}

static void explain_measured(struct work *w, struct plan_decision *d, const struct plan_pool *q,
                             const struct plan_measured *m)
{
    for (uint32_t k = 0; k < m->n_because; k++)
        append(w, &d->because, &d->n_because, m->because[k]);
    if (m->best_threads == 0 || m->best_threads == q->threads || m->knee_threads != q->threads ||
        m->read_bytes_per_second <= 0)
        return;
    d->margin = 1 - m->knee_bytes_per_second / m->read_bytes_per_second;
    d->alternatives = mem_calloc(1, sizeof *d->alternatives);
    if (d->alternatives == NULL) {
        w->oom = true;
        return;
    }
    d->n_alternatives = 1;
    snprintf(d->alternatives[0].value, sizeof d->alternatives[0].value, "%u", m->best_threads);
    d->alternatives[0].loss =
        -d->margin; /* the read rate alone would gain a little; barriers cost more */
    d->alternatives[0].distinguishable = d->margin > 0.03;
}

static void explain_pool(struct work *w, const struct plan_pool *q)
{
    const struct plan_measured *m = plan_measured_of(&w->o, q->node);
    bool knee =
        w->o.threads == 0 && m != NULL && m->knee_threads == q->threads && m->knee_threads > 0;
    struct strbuf v = {0}, y = {0};
    char id[64];
    snprintf(id, sizeof id, q->node >= 0 ? "threads.node%d" : "threads.all", q->node);
    sb_printf(&v, "%u", q->threads);
    if (knee && m->read_bytes_per_second > 0 && m->knee_bytes_per_second > 0)
        sb_printf(&y, "%u threads give %.1f %% of the best read rate of node %d", q->threads,
                  100 * m->knee_bytes_per_second / m->read_bytes_per_second, q->node);
    else if (knee)
        sb_printf(&y, "%u threads are enough for the read rate of node %d", q->threads, q->node);
    else if (q->threads > q->n_cpus)
        sb_printf(&y, "%u cores with SMT siblings, %u PUs", q->n_cpus, q->n_places);
    else if (q->threads == q->n_cpus)
        sb_printf(&y, "one per core, %u core%s", q->n_cpus, q->n_cpus == 1 ? "" : "s");
    else
        sb_printf(&y, "%u of %u cores: %u threads over %u pool%s", q->threads, q->n_cpus,
                  w->p->threads_max, w->p->n_pools, w->p->n_pools == 1 ? "" : "s");
    struct plan_decision *d = decide(w, id, &v, &y,
                                     knee && m->n_because > 0                       ? "measured"
                                     : w->o.threads > 0 && w->o.threads_why == NULL ? "user"
                                                                                    : "model");
    if (d == NULL)
        return;
    d->unit = "threads";
    d->goal = "decode";
    d->confidence = knee ? "high" : "medium";
    if (knee)
        explain_measured(w, d, q, m);
    change_if(w, d, "cpu quota below %u cores", w->p->threads_max + w->reserve);
    change_if(w, d, "NPS or SNC mode changes");
    if (!knee)
        change_if(w, d, "a measured curve has its knee below %u threads", q->threads);
}

static void explain_gpu(struct work *w, const struct plan_gpu *q)
{
    const struct host_gpu *g = &w->h->gpus[q->gpu];
    struct strbuf v = {0}, y = {0};
    char id[64];
    snprintf(id, sizeof id, "gpu.node.gpu%u", g->index);
    if (q->node >= 0)
        sb_printf(&v, "%d", q->node);
    else
        sb_puts(&v, "null");
    if (g->node < 0)
        sb_printf(&y, "the source does not say which node %s is near", g->pci);
    else if (q->moved)
        sb_printf(&y, "%s is near node %d, which is forbidden: nearest allowed pool", g->pci,
                  g->node);
    else if (q->node != g->node)
        sb_printf(&y, "%s is near node %d, which is no pool: nearest pool", g->pci, g->node);
    else
        sb_printf(&y, "%s says that %s is near node %d",
                  strcmp(g->node_origin, "unknown") == 0 ? "the profile" : g->node_origin, g->pci,
                  g->node);
    struct plan_decision *d = decide(w, id, &v, &y, "model");
    if (d != NULL)
        d->confidence = g->node < 0 || q->moved ? "low" : "medium";
    change_if(w, d, "measured copies are faster from another node");
}

static const char *isa_name(uint32_t isa)
{
    if ((isa & HOST_ISA_AVX512VNNI) != 0 && (isa & HOST_ISA_AMX) != 0)
        return "amx";
    if ((isa & HOST_ISA_AVX512VNNI) != 0)
        return "avx512vnni";
    if ((isa & HOST_ISA_AVX512) != 0)
        return "avx512";
    if ((isa & HOST_ISA_AVX2) != 0 && (isa & HOST_ISA_AVXVNNI) != 0)
        return "avxvnni";
    return (isa & HOST_ISA_AVX2) != 0 ? "avx2" : "ref";
}

static void explain_isa(struct work *w)
{
    struct strbuf v = {0}, y = {0};
    const struct host_isa *i = &w->h->isa;
    sb_printf(&v, "\"%s\"", isa_name(w->p->isa));
    if (!i->known)
        sb_puts(&y, "the source says nothing about the instruction set: plain C kernels only");
    else if (i->kern_isa != w->p->isa)
        sb_printf(&y, "limited from %s by the user", isa_name(i->kern_isa));
    else if (w->p->isa == 0)
        sb_puts(&y, "the CPU has no usable AVX2 with FMA and F16C: plain C kernels only");
    else
        sb_printf(&y, "the highest level that CPU and operating system support%s%s%s",
                  (w->p->isa & HOST_ISA_AVX512BF16) != 0 ? ", with bf16" : "",
                  (w->p->isa & HOST_ISA_AVXVNNI) != 0 ? ", with avxvnni" : "",
                  (w->p->isa & HOST_ISA_AMX) != 0 ? ", with amx" : "");
    struct plan_decision *d = decide(w, "isa", &v, &y, i->kern_isa != w->p->isa ? "user" : "model");
    if (d != NULL && !i->known)
        d->confidence = "low";
    change_if(w, d, "a self-test fails");
}

/* A value that the user, or a tuning, set. */
static void asked(struct work *w, const char *id, const char *value, const char *why)
{
    struct strbuf v = {0}, y = {0};
    sb_printf(&v, "\"%s\"", value);
    sb_puts(&y, why != NULL ? why : "asked for");
    (void)decide(w, id, &v, &y, why != NULL ? "model" : "user");
}

static void explain_rest(struct work *w)
{
    struct strbuf v = {0}, y = {0};
    bool never = w->h->env.thp_enabled != NULL && strcmp(w->h->env.thp_enabled, "never") == 0;
    if (w->p->n_pools > 1) {
        bool measured = true,
             named = true; /* a measured decision names its measurements, or it is none */
        struct json_out j;
        jo_init(&j, &v);
        jo_array(&j);
        for (uint32_t i = 0; i < w->p->n_pools; i++) {
            const struct plan_measured *m = plan_measured_of(&w->o, w->p->pools[i].node);
            measured = measured && m != NULL && m->read_bytes_per_second > 0;
            named = named && m != NULL && m->n_because > 0;
            jo_real(&j, w->p->pools[i].share);
        }
        jo_array_end(&j);
        sb_puts(&y, measured ? "output rows follow the measured read rate of each pool"
                             : "no measured rates: output rows follow threads");
        struct plan_decision *d =
            decide(w, "rows.share", &v, &y, measured && named ? "measured" : "model");
        if (d != NULL && !measured)
            d->confidence = "medium";
        for (uint32_t i = 0; d != NULL && measured && i < w->p->n_pools; i++) {
            const struct plan_measured *m = plan_measured_of(&w->o, w->p->pools[i].node);
            for (uint32_t k = 0; k < m->n_because; k++)
                append(w, &d->because, &d->n_because, m->because[k]);
        }
    }
    struct strbuf pv = {0}, py = {0};
    if (w->o.pages != NULL) {
        asked(w, "pages", w->o.pages, w->o.pages_why);
        return;
    }
    sb_puts(&pv, never ? "\"base\"" : "\"thp\"");
    sb_puts(
        &py,
        never
            ? "transparent huge pages are off on this host"
            : "no gain proved for reserved huge pages; transparent ones are available on request");
    struct plan_decision *d = decide(w, "pages", &pv, &py, "default");
    if (d != NULL)
        d->confidence = "low";
}

static void explain_warnings(struct work *w)
{
    const struct host_limits *l = &w->h->limits;
    struct host_set stray = {0};
    if (l->quota_cores > 0 && l->quota_cores < l->cores_allowed)
        plan_warn(w, "KT008", "environment.limits",
                  "CPU quota of %.6g cores is below the %u allowed cores: more threads would be "
                  "throttled",
                  l->quota_cores, l->cores_allowed);
    if (w->remote)
        plan_warn(w, "KT006", "pools",
                  "no allowed core is near allowed memory: every read crosses nodes");
    for (uint32_t i = 0; i < w->p->n_tiers; i++) {
        char about[32];
        snprintf(about, sizeof about, "topology.nodes.%d", w->p->tiers[i].node);
        if (!w->p->tiers[i].usable)
            plan_warn(w, "KT004", about,
                      "node %d has memory of unknown kind and no cores of its own: not used until "
                      "measured or named",
                      w->p->tiers[i].node);
    }
    /* stray: allowed, but in no allowed node with memory; cores that are idle by choice do not
     * count */
    w->oom = !host_set_copy(&stray, &w->p->homeless) || w->oom;
    for (uint32_t i = 0; i < w->h->n_nodes; i++)
        if (w->h->nodes[i].allowed && w->h->nodes[i].bytes > 0)
            host_set_minus(&stray, &w->h->nodes[i].cpus);
    char *text = host_set_format(&stray);
    if (text != NULL && text[0] != '\0')
        plan_warn(w, "KT005", "topology",
                  "CPUs %s have no allowed memory near them: they serve the reserve", text);
    mem_free(text);
    host_set_free(&stray);
}

void plan_explain(struct work *w)
{
    explain_pools(w);
    explain_total(w);
    if (w->o.smt != PLAN_SMT_OFF)
        asked(w, "smt", plan_smt_name(w->o.smt), w->o.smt_why);
    for (uint32_t i = 0; i < w->p->n_pools; i++)
        explain_pool(w, &w->p->pools[i]);
    for (uint32_t i = 0; i < w->p->n_gpus; i++)
        explain_gpu(w, &w->p->gpus[i]);
    explain_isa(w);
    explain_rest(w);
    explain_warnings(w);
}

static void print_pools(const struct plan *p, struct strbuf *out)
{
    for (uint32_t i = 0; i < p->n_pools; i++) {
        const struct plan_pool *q = &p->pools[i];
        char *cpus = host_set_format(&q->pus);
        if (q->node >= 0)
            sb_printf(out, "%snode%d (%u cores, cpus %s)", i == 0 ? "plan  pools = " : ", ",
                      q->node, q->n_cpus, cpus != NULL ? cpus : "?");
        else
            sb_printf(out, "plan  pools = all (%u cores, cpus %s)", q->n_cpus,
                      cpus != NULL ? cpus : "?");
        mem_free(cpus);
    }
}

void plan_print(const struct plan *p, struct strbuf *out)
{
    for (uint32_t i = 0; i < p->n_decisions; i++) {
        const struct plan_decision *d = &p->decisions[i];
        if (strcmp(d->id, "pools") == 0)
            print_pools(p, out);
        else
            sb_printf(out, "plan  %s = %s", d->id, d->value_json);
        sb_printf(out, "   why: %s\n", d->why);
        for (uint32_t k = 0; k < d->n_alternatives; k++) {
            const struct plan_alternative *a = &d->alternatives[k];
            sb_printf(out, "      runner-up %s (%+.1f %%, %sdistinguishable)\n", a->value,
                      -100 * a->loss, a->distinguishable ? "" : "not ");
        }
        for (uint32_t k = 0; k < d->n_would_change_if; k++)
            sb_printf(out, "%s%s%s", k == 0 ? "      would change if: " : ", ",
                      d->would_change_if[k], k + 1 == d->n_would_change_if ? "\n" : "");
    }
    for (uint32_t i = 0; i < p->n_warnings; i++)
        sb_printf(out, "warn  %s %s%s%s\n", p->warnings[i].code, p->warnings[i].text,
                  p->warnings[i].fix != NULL ? "; fix: " : "",
                  p->warnings[i].fix != NULL ? p->warnings[i].fix : "");
}
