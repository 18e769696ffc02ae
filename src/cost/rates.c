/* rates.c - see rates.h. The rules for what nobody measured, the same for every host: experts are
 * read at 90 % of the memory's rate (80 % in formats with sub-scales), a fast tier at 80 % of its
 * own; one thread per core gives what the curve gives; a wake-up costs 25 us, a barrier 1.5 us and
 * 0.12 us per thread, a graph launch 20 us, two small copies 8 us, the small kernels of a layer on
 * a device 100 us.
 */
#include "cost/rates.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_SHARE 0.90     /* of mem.read, kernels that stream plain blocks */
#define READ_SHARE_SUB 0.80 /* formats with sub-scales: more work per byte */
#define FAST_SHARE 0.80     /* of gpu.mem */
#define WAKE_SECONDS 25e-6
#define BARRIER_SECONDS 1.5e-6
#define BARRIER_PER_THREAD 0.12e-6
#define LAUNCH_SECONDS 20e-6
#define MERGE_SECONDS 8e-6
#define LAYER_SECONDS 100e-6 /* from a public table, docs/COST.md */
#define OVERLAP 0.5

struct task {
    const struct cost_ask *a;
    struct cost_source *s;
    uint32_t threads;
};

const char *cost_origin_name(enum cost_origin o)
{
    static const char *const names[] = {"missing", "rule", "datasheet", "measured"};
    return names[o];
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static double median(const json_t *m)
{
    const json_t *v = json_object_get(m, "median");
    return json_is_number(v) ? json_number_value(v) : 0;
}

static const json_t *measurements(const struct profile *p)
{
    return p != NULL ? json_object_get(p->root, "measurements") : NULL;
}

static const json_t *entry(const struct profile *p, const char *id)
{
    const json_t *a = measurements(p);
    for (size_t i = 0; i < json_array_size(a); i++)
        if (strcmp(text(json_array_get(a, i), "id"), id) == 0)
            return json_array_get(a, i);
    return NULL;
}

/* Numbers from data sheets say so. */
static enum cost_origin origin_of(const struct profile *p, const json_t *m)
{
    return strcmp(text(m, "origin"), "datasheet") == 0 || (p != NULL && p->datasheet)
               ? COST_DATASHEET
               : COST_MEASURED;
}

static void found(struct task *t, enum cost_constant c, double value, enum cost_origin origin,
                  const char *from)
{
    t->s[c].value = value;
    t->s[c].origin = origin;
    snprintf(t->s[c].from, sizeof t->s[c].from, "%s", from);
}

/* ---- memory ---- */

double cost_node_read(const struct profile *p, int32_t node, uint32_t threads, char *id)
{
    const json_t *a = measurements(p);
    char prefix[48];
    uint32_t below = 0, above = 0;
    double rate_below = 0, rate_above = 0;
    snprintf(prefix, sizeof prefix, "mem.read:node%d.t", node);
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *m = json_array_get(a, i);
        const char *name = text(m, "id");
        if (strncmp(name, prefix, strlen(prefix)) != 0 || median(m) <= 0)
            continue;
        uint32_t at = (uint32_t)strtoul(name + strlen(prefix), NULL, 10);
        if (at <= threads && at > below) {
            below = at;
            rate_below = median(m);
        }
        if (at >= threads && (above == 0 || at < above)) {
            above = at;
            rate_above = median(m);
        }
    }
    if (id != NULL)
        snprintf(id, 64, "%s%u", prefix,
                 below == 0 || (above > 0 && above - threads < threads - below) ? above : below);
    if (below == 0)
        return above > 0 ? rate_above * threads / above : 0;
    if (above == 0 || above == below)
        return rate_below;
    return rate_below + (rate_above - rate_below) * (threads - below) / (double)(above - below);
}

/* ---- kernels ---- */

/* The name that measurements of a format use. */
static const char *measured_name(const char *format)
{
    if (strcmp(format, "f8_e4m3") == 0)
        return "fp8";
    return strcmp(format, "q4_k_m") == 0 ? "q4_k" : format;
}

static bool has_sub_scales(const char *format)
{
    return strstr(format, "_k") != NULL || strncmp(format, "iq", 2) == 0;
}

/* The best expert.OP:FORMAT.LEVEL.mN; rows 1 for gemv, the most rows for gemm. format NULL: any. */
static const json_t *expert_entry(const struct profile *p, const char *op, const char *format)
{
    const json_t *a = measurements(p), *best = NULL;
    char prefix[64];
    unsigned long most = 0;
    bool gemv = strcmp(op, "gemv") == 0;
    snprintf(prefix, sizeof prefix, "expert.%s:%s%s", op, format != NULL ? format : "",
             format != NULL ? "." : "");
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *m = json_array_get(a, i);
        const char *id = text(m, "id"), *last = strrchr(id, '.');
        if (strncmp(id, prefix, strlen(prefix)) != 0 || median(m) <= 0 || last[1] != 'm')
            continue;
        unsigned long rows = strtoul(last + 2, NULL, 10);
        if (gemv ? rows != 1 : rows < most)
            continue;
        if (best == NULL || rows > most || median(m) > median(best))
            best = m;
        most = rows;
    }
    return best;
}

/* Threads and node that an entry was measured with. */
static uint32_t threads_of(const json_t *m)
{
    json_int_t n = json_integer_value(json_object_get(json_object_get(m, "params"), "threads"));
    struct host_set cpus = {0};
    if (n < 1 && host_set_parse(text(json_object_get(m, "where"), "cpus"), &cpus))
        n = host_set_count(&cpus);
    host_set_free(&cpus);
    return n > 0 ? (uint32_t)n : 1;
}

static int32_t node_of(const json_t *m)
{
    const json_t *mem = json_object_get(json_object_get(m, "where"), "mem");
    return json_array_size(mem) > 0 ? (int32_t)json_integer_value(json_array_get(mem, 0)) : 0;
}

/* B_C and B_D: the kernel's share of one node's read rate, times every pool's. */
static void cpu_read(struct task *t)
{
    const struct cost_ask *a = t->a;
    const json_t *m = expert_entry(a->p, "gemv", measured_name(a->format));
    double share = has_sub_scales(a->format) ? READ_SHARE_SUB : READ_SHARE, sum = 0;
    char id[64] = "", from[160];
    bool all = a->n_pools > 0;
    for (uint32_t i = 0; i < a->n_pools; i++) {
        double v = cost_node_read(a->p, a->pools[i].node, a->pools[i].threads, i == 0 ? id : NULL);
        all = all && v > 0;
        sum += v;
    }
    if (!all)
        return;
    const json_t *read = entry(a->p, id);
    found(t, COST_DRAM, sum, origin_of(a->p, read), id);
    double base = m != NULL ? cost_node_read(a->p, node_of(m), threads_of(m), NULL) : 0;
    if (base > 0) {
        share = fmin(median(m) / base, 1.1);
        snprintf(from, sizeof from, "%.90s, %.1f %% of mem.read", text(m, "id"), 100 * share);
        found(t, COST_CPU_READ, sum * share, origin_of(a->p, m), from);
    } else {
        snprintf(from, sizeof from, "%.0f %% of %.60s%s", 100 * share, id,
                 a->n_pools > 1 ? " and the other nodes" : "");
        found(t, COST_CPU_READ, sum * share,
              origin_of(a->p, read) == COST_DATASHEET ? COST_DATASHEET : COST_RULE, from);
    }
}

static void cpu_ops(struct task *t)
{
    const struct cost_ask *a = t->a;
    const json_t *m = expert_entry(a->p, "gemm", measured_name(a->format));
    char from[160];
    if (m == NULL)
        m = expert_entry(a->p, "gemm", NULL);
    if (m == NULL)
        return;
    uint32_t n = threads_of(m);
    snprintf(from, sizeof from, "%.90s of %u threads, scaled to %u", text(m, "id"), n, t->threads);
    found(t, COST_CPU_OPS, median(m) * t->threads / n, origin_of(a->p, m), from);
}

/* ---- joins ---- */

static void barrier(struct task *t)
{
    const json_t *a = measurements(t->a->p), *best = NULL;
    uint32_t off = 0;
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *m = json_array_get(a, i);
        const char *id = text(m, "id");
        if (strncmp(id, "sync.barrier:t", 14) != 0 || median(m) <= 0)
            continue;
        uint32_t n = (uint32_t)strtoul(id + 14, NULL, 10),
                 d = n > t->threads ? n - t->threads : t->threads - n;
        if (best == NULL || d < off) {
            best = m;
            off = d;
        }
    }
    if (best != NULL)
        found(t, COST_BARRIER, median(best), origin_of(t->a->p, best), text(best, "id"));
    else
        found(t, COST_BARRIER,
              t->threads > 1 ? BARRIER_SECONDS + BARRIER_PER_THREAD * t->threads : 0, COST_RULE,
              "1.5 us and 0.12 us per thread");
}

/* Workers that only compute spin between phases; those that wait for a device sleep. */
static void join(struct task *t)
{
    const json_t *m = entry(t->a->p, "sync.wake");
    double two = 2 * t->s[COST_BARRIER].value;
    if (t->a->n_devices == 0)
        found(t, COST_JOIN, two, t->s[COST_BARRIER].origin, "2 barriers; workers spin");
    else if (median(m) > 0)
        found(t, COST_JOIN, median(m) + two, origin_of(t->a->p, m), "sync.wake and 2 barriers");
    else
        found(t, COST_JOIN, WAKE_SECONDS + two, COST_RULE, "25 us and 2 barriers");
}

/* ---- devices ---- */

/* Best median of entries whose id starts so, 0 when there is none. */
static const json_t *best_of(const struct profile *p, const char *prefix)
{
    const json_t *a = measurements(p), *best = NULL;
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *m = json_array_get(a, i);
        if (strncmp(text(m, "id"), prefix, strlen(prefix)) == 0 && median(m) > 0 &&
            (best == NULL || median(m) > median(best)))
            best = m;
    }
    return best;
}

/* Sums of all devices; missing as soon as one of them is. */
static void device_rates(struct task *t, const struct cost_device *d, double sum[3], bool *ok)
{
    const struct profile *p = t->a->p;
    const char *f = measured_name(t->a->format);
    char id[96];
    const json_t *m, *read;
    if (!d->gpu) { /* a memory node: its own cores' neighbours read it */
        snprintf(id, sizeof id, "mem.matrix:");
        m = NULL;
        const json_t *a = measurements(p);
        char tail[32];
        snprintf(tail, sizeof tail, ".node%u", d->index);
        for (size_t i = 0; i < json_array_size(a); i++) {
            const char *n = text(json_array_get(a, i), "id");
            size_t len = strlen(n), k = strlen(tail);
            if (strncmp(n, id, strlen(id)) == 0 && len > k && strcmp(n + len - k, tail) == 0)
                m = json_array_get(a, i);
        }
        *ok = *ok && median(m) > 0;
        sum[0] += READ_SHARE * median(m);
        if (m != NULL)
            found(t, COST_FAST_READ, sum[0], COST_RULE, text(m, "id"));
        return;
    }
    snprintf(id, sizeof id, "gpu.expert:gpu%u.%s.m1", d->index, f);
    m = entry(p, id);
    snprintf(id, sizeof id, "gpu.mem:gpu%u", d->index);
    read = entry(p, id);
    sum[0] += median(m) > 0 ? median(m) : FAST_SHARE * median(read);
    *ok = *ok && (median(m) > 0 || median(read) > 0);
    char from[160];
    snprintf(from, sizeof from, median(m) > 0 ? "%.80s" : "80 %% of %.80s",
             text(median(m) > 0 ? m : read, "id"));
    found(t, COST_FAST_READ, sum[0],
          median(m) > 0                          ? origin_of(p, m)
          : origin_of(p, read) == COST_DATASHEET ? COST_DATASHEET
                                                 : COST_RULE,
          from);
    snprintf(id, sizeof id, "gpu.expert:gpu%u.%s.m512", d->index, f);
    m = entry(p, id);
    if (m == NULL) {
        snprintf(id, sizeof id, "gpu.expert:gpu%u.bf16.m512", d->index);
        m = entry(p, id);
    }
    sum[1] += median(m);
    if (median(m) > 0)
        found(t, COST_FAST_OPS, sum[1], origin_of(p, m), text(m, "id"));
    snprintf(id, sizeof id, "gpu.h2d:gpu%u", d->index);
    m = best_of(p, id);
    sum[2] += median(m);
    if (median(m) > 0)
        found(t, COST_LINK, sum[2], origin_of(p, m), text(m, "id"));
}

static void devices(struct task *t)
{
    double sum[3] = {0, 0, 0};
    bool ok = true;
    if (t->a->n_devices == 0)
        return;
    for (uint32_t i = 0; i < t->a->n_devices; i++)
        device_rates(t, &t->a->devices[i], sum, &ok);
    if (!ok)
        t->s[COST_FAST_READ].origin = COST_MISSING;
    for (int c = COST_LINK; c <= COST_FAST_OPS && t->a->n_devices > 1; c++) {
        size_t n = strlen(t->s[c].from);
        if (n > 0)
            snprintf(t->s[c].from + n, sizeof t->s[c].from - n, ", %u devices", t->a->n_devices);
    }
    if (!t->a->devices[0].gpu)
        return;
    const json_t *launch = entry(t->a->p, "gpu.lat:gpu0.graph_launch"),
                 *down = entry(t->a->p, "gpu.lat:gpu0.d2h_16k"),
                 *up = entry(t->a->p, "gpu.lat:gpu0.h2d_16k");
    if (median(launch) > 0)
        found(t, COST_LAUNCH, median(launch), origin_of(t->a->p, launch), text(launch, "id"));
    else
        found(t, COST_LAUNCH, LAUNCH_SECONDS, COST_RULE, "20 us");
    if (median(down) > 0 && median(up) > 0)
        found(t, COST_MERGE, median(down) + median(up), origin_of(t->a->p, down),
              "gpu.lat d2h_16k and h2d_16k");
    else
        found(t, COST_MERGE, MERGE_SECONDS, COST_RULE, "8 us");
    const json_t *layer = entry(t->a->p, "gpu.lat:gpu0.layer");
    if (median(layer) > 0)
        found(t, COST_LAYER, median(layer), origin_of(t->a->p, layer), text(layer, "id"));
    else
        found(t, COST_LAYER, LAYER_SECONDS, COST_RULE, "100 us");
    found(t, COST_OVERLAP, OVERLAP, COST_RULE, "one half until gpu.pair is measured");
}

void cost_rates_read(const struct cost_ask *a, struct cost_rates *r,
                     struct cost_source source[COST_CONSTANTS])
{
    static const char *const symbols[COST_CONSTANTS][3] = {
        {"B_C", "bytes_per_second", "experts read by the CPU"},
        {"P_C", "ops_per_second", "operations of the CPU"},
        {"B_D", "bytes_per_second", "peak of the memory"},
        {"B_P", "bytes_per_second", "link to the device"},
        {"B_G", "bytes_per_second", "experts read by the device"},
        {"P_G", "ops_per_second", "operations of the device"},
        {"eta", "ratio", "memory that the link takes"},
        {"barrier", "seconds", "barrier of all threads"},
        {"s", "seconds", "join of a layer"},
        {"g0", "seconds", "launch of a kernel"},
        {"mrg", "seconds", "merge of a layer"},
        {"a_g", "seconds", "small kernels of a layer"}};
    struct task t = {a, source, 0};
    memset(source, 0, COST_CONSTANTS * sizeof *source);
    for (int c = 0; c < COST_CONSTANTS; c++) {
        source[c].symbol = symbols[c][0];
        source[c].unit = symbols[c][1];
        source[c].what = symbols[c][2];
    }
    for (uint32_t i = 0; i < a->n_pools; i++)
        t.threads += a->pools[i].threads;
    cpu_read(&t);
    cpu_ops(&t);
    barrier(&t);
    join(&t);
    devices(&t);
    bool fast = source[COST_FAST_READ].origin != COST_MISSING;
    *r = (struct cost_rates){
        .cpu_bytes_per_second = source[COST_CPU_READ].value,
        .cpu_ops_per_second =
            source[COST_CPU_OPS].value > 0 ? source[COST_CPU_OPS].value : (double)INFINITY,
        .dram_bytes_per_second = source[COST_DRAM].value,
        .link_bytes_per_second = source[COST_LINK].value,
        .fast_bytes_per_second = fast ? source[COST_FAST_READ].value : (double)INFINITY,
        .fast_ops_per_second =
            source[COST_FAST_OPS].value > 0 ? source[COST_FAST_OPS].value : (double)INFINITY,
        .overlap = source[COST_OVERLAP].value,
        .join_seconds = source[COST_JOIN].value,
        .launch_seconds = source[COST_LAUNCH].value,
        .merge_seconds = source[COST_MERGE].value};
}
