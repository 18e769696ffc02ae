/* report.c - tables from a placement object: tiers, hottest experts, skew per layer (see report.h).
 * The object comes over the network, so every number is checked against the others before it is
 * used as a size. Pure apart from printing.
 */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

long base64_decode(const char *s, size_t len, uint8_t *out, size_t cap)
{
    size_t n = 0;
    if (len % 4 != 0)
        return -1;
    for (size_t i = 0; i < len; i += 4) {
        uint32_t v = 0;
        int pad = 0;
        for (size_t k = i; k < i + 4; k++) {
            char c = s[k];
            int d = c >= 'A' && c <= 'Z'   ? c - 'A'
                    : c >= 'a' && c <= 'z' ? c - 'a' + 26
                    : c >= '0' && c <= '9' ? c - '0' + 52
                    : c == '+'             ? 62
                    : c == '/'             ? 63
                                           : -1;
            if (c == '=' && i + 4 == len && k >= i + 2)
                pad++;
            else if (d < 0 || pad > 0)
                return -1;
            v = v << 6 | (uint32_t)(d < 0 ? 0 : d);
        }
        for (int k = 0; k < 3 - pad; k++) {
            if (n == cap)
                return -1;
            out[n++] = (uint8_t)(v >> (16 - 8 * k));
        }
    }
    return (long)n;
}

static int falling(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

void report_skew(const uint32_t *hits, uint32_t n, struct report_layer *out)
{
    uint32_t tenth = (n + 9) / 10;
    uint64_t sum = 0, top = 0;
    double entropy = 0;
    uint32_t *sorted = mem_calloc(n > 0 ? n : 1, sizeof *sorted);
    for (uint32_t i = 0; i < n; i++)
        sum += hits[i];
    for (uint32_t i = 0; i < n && sum > 0; i++) {
        double share = (double)hits[i] / (double)sum;
        if (hits[i] > 0)
            entropy -= share * log(share);
    }
    if (sorted != NULL && n > 0) {
        memcpy(sorted, hits, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, falling);
        for (uint32_t i = 0; i < tenth; i++)
            top += sorted[i];
    }
    mem_free(sorted);
    out->hits = sum;
    out->top10_share = sum > 0 ? (double)top / (double)sum : 0;
    out->entropy = sum > 0 && n > 1 ? entropy / log(n) : 0;
}

struct hot {
    uint32_t layer, expert, hits;
};

static int hotter(const void *a, const void *b)
{
    const struct hot *x = a, *y = b;
    if (x->hits != y->hits)
        return (x->hits < y->hits) - (x->hits > y->hits);
    if (x->layer != y->layer)
        return (x->layer > y->layer) - (x->layer < y->layer);
    return (x->expert > y->expert) - (x->expert < y->expert);
}

struct grid {
    uint32_t layers, experts, first;
    uint32_t *hits; /* [layers][experts] */
    uint8_t *tier;  /* [layers][experts] */
};

static kt_status bad(kt_err *err, const char *what)
{
    KT_FAIL(
        err, KT_E_FORMAT,
        "the server's placement object has no valid '%s': is this a ktserve of the same version?",
        what);
}

static uint64_t number(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v > 0 ? (uint64_t)v : 0;
}

static kt_status decode_grid(const json_t *o, const char *key, uint8_t *out, size_t want,
                             kt_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v) ||
        base64_decode(json_string_value(v), json_string_length(v), out, want) != (long)want)
        return bad(err, key);
    return KT_OK;
}

static kt_status read_grid(const json_t *o, struct grid *g, kt_err *err)
{
    uint64_t experts = number(o, "n_experts");
    const json_t *v = json_object_get(o, "residency");
    size_t cells = json_string_length(v) / 4 * 3;
    const char *text = json_string_value(v);
    if (text == NULL || experts > 1u << 20 || cells > 1u << 26)
        return bad(err, "residency");
    for (size_t n = json_string_length(v); n > 0 && text[n - 1] == '='; n--)
        cells--;
    if (experts > 0 && cells % experts != 0)
        return bad(err, "residency");
    g->experts = (uint32_t)experts;
    g->layers = experts > 0 ? (uint32_t)(cells / experts) : 0;
    g->first = (uint32_t)json_integer_value(json_array_get(json_object_get(o, "layers"), 0));
    g->hits = mem_calloc(cells + 1, sizeof *g->hits);
    g->tier = mem_calloc(cells + 1, 1);
    if (g->hits == NULL || g->tier == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %zu experts", cells);
    KT_TRY(decode_grid(o, "residency", g->tier, cells, err));
    KT_TRY(decode_grid(o, "hits", (uint8_t *)g->hits, 4 * cells, err));
    for (size_t i = 0; i < cells; i++) {
        const uint8_t *p = (const uint8_t *)&g->hits[i];
        g->hits[i] =
            (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    return KT_OK;
}

static void print_tiers(const json_t *o, FILE *to)
{
    size_t i;
    const json_t *t;
    fprintf(to, "tier  name        kind   experts    used       capacity   hits          share\n");
    json_array_foreach(json_object_get(o, "tiers"), i, t)
    {
        const char *name = json_string_value(json_object_get(t, "name")),
                   *kind = json_string_value(json_object_get(t, "kind"));
        fprintf(to, "%-4zu  %-10.10s  %-5.5s  %-9llu  %6.2f GiB %6.2f GiB  %-12llu  %5.1f %%\n", i,
                name ? name : "?", kind ? kind : "?", (unsigned long long)number(t, "experts"),
                (double)number(t, "used_bytes") / 1073741824,
                (double)number(t, "capacity_bytes") / 1073741824,
                (unsigned long long)number(t, "hits"),
                100 * json_number_value(json_object_get(t, "hit_share")));
    }
}

static kt_status print_hottest(const struct grid *g, uint32_t top, FILE *to, kt_err *err)
{
    size_t n = (size_t)g->layers * g->experts;
    uint64_t sum = 0;
    struct hot *hot = mem_calloc(n + 1, sizeof *hot);
    if (hot == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %zu experts", n);
    for (size_t i = 0; i < n; i++) {
        hot[i] = (struct hot){g->first + (uint32_t)(i / g->experts), (uint32_t)(i % g->experts),
                              g->hits[i]};
        sum += g->hits[i];
    }
    qsort(hot, n, sizeof *hot, hotter);
    fprintf(to, "\nhottest experts\nlayer  expert  tier  hits          share of its layer\n");
    for (size_t i = 0; i < n && i < top && hot[i].hits > 0; i++) {
        uint64_t layer_sum = 0;
        size_t row = hot[i].layer - g->first;
        for (uint32_t e = 0; e < g->experts; e++)
            layer_sum += g->hits[row * g->experts + e];
        fprintf(to, "%-5u  %-6u  %-4u  %-12u  %5.1f %%\n", hot[i].layer, hot[i].expert,
                g->tier[row * g->experts + hot[i].expert], hot[i].hits,
                100.0 * hot[i].hits / (double)layer_sum);
    }
    if (sum == 0)
        fprintf(to, "(no token was routed yet)\n");
    mem_free(hot);
    return KT_OK;
}

static void print_skew(const struct grid *g, FILE *to)
{
    struct report_layer l, mean = {0};
    fprintf(to,
            "\nskew per layer (even routing: top tenth %.1f %%, entropy 1)\nlayer  hits          "
            "top tenth  entropy\n",
            g->experts > 0 ? 100.0 * ((g->experts + 9) / 10) / g->experts : 0.0);
    for (uint32_t i = 0; i < g->layers; i++) {
        report_skew(g->hits + (size_t)i * g->experts, g->experts, &l);
        fprintf(to, "%-5u  %-12llu  %7.1f %%  %7.3f\n", g->first + i, (unsigned long long)l.hits,
                100 * l.top10_share, l.entropy);
        mean.top10_share += l.top10_share / g->layers;
        mean.entropy += l.entropy / g->layers;
    }
    if (g->layers > 0)
        fprintf(to, "mean                 %7.1f %%  %7.3f\n", 100 * mean.top10_share, mean.entropy);
}

kt_status report_print(const json_t *o, uint32_t top, FILE *to, kt_err *err)
{
    struct grid g = {0};
    const char *policy = json_string_value(json_object_get(json_object_get(o, "policy"), "name"));
    kt_status st = KT_OK;
    if (!json_is_object(o) || !json_is_array(json_object_get(o, "tiers")))
        return bad(err, "tiers");
    st = read_grid(o, &g, err);
    if (st == KT_OK) {
        fprintf(to,
                "placement  policy %s, epoch %llu, counts of %.0f s, %u layers x %u experts, %llu "
                "per token\n\n",
                policy ? policy : "?", (unsigned long long)number(o, "epoch"),
                json_number_value(json_object_get(o, "window_s")), g.layers, g.experts,
                (unsigned long long)number(o, "experts_per_token"));
        print_tiers(o, to);
        if (g.layers == 0) {
            fprintf(to, "\nthis model has no routed experts\n");
        } else {
            st = print_hottest(&g, top, to, err);
            if (st == KT_OK)
                print_skew(&g, to);
        }
    }
    mem_free(g.hits);
    mem_free(g.tier);
    return st;
}
