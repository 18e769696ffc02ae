/* show.c - see show.h. */
#include "show.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *text(const json_t *o, const char *key, const char *missing)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : missing;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static long long integer(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static const char *bold(bool color)
{
    return color ? "\033[1m" : "";
}

static const char *dim(bool color)
{
    return color ? "\033[2m" : "";
}

static const char *off(bool color)
{
    return color ? "\033[0m" : "";
}

void show_value(double v, const char *unit, char *out, size_t n)
{
    if (strcmp(unit, "seconds") == 0)
        snprintf(out, n,
                 v < 1e-6   ? "%.0f ns"
                 : v < 1e-3 ? "%.1f us"
                 : v < 1    ? "%.1f ms"
                            : "%.2f s",
                 v < 1e-6   ? v * 1e9
                 : v < 1e-3 ? v * 1e6
                 : v < 1    ? v * 1e3
                            : v);
    else if (strcmp(unit, "bytes_per_second") == 0)
        snprintf(out, n, "%.1f GB/s", v / 1e9);
    else if (strcmp(unit, "ops_per_second") == 0)
        snprintf(out, n, "%.1f Gop/s", v / 1e9);
    else if (strcmp(unit, "ratio") == 0)
        snprintf(out, n, "%.2f %%", v * 100);
    else
        snprintf(out, n, "%.4g", v);
}

static void show_age(const struct profile *p, struct strbuf *out)
{
    double s = difftime(time(NULL), (time_t)profile_created_seconds(p));
    if (s < 120)
        sb_puts(out, "just made");
    else if (s < 7200)
        sb_printf(out, "%.0f min old", s / 60);
    else if (s < 172800)
        sb_printf(out, "%.0f h old", s / 3600);
    else
        sb_printf(out, "%.0f d old", s / 86400);
}

static void show_host(const struct profile *p, const struct profile_match *m, bool color,
                      struct strbuf *out)
{
    const json_t *topo = json_object_get(p->root, "topology"),
                 *isa = json_object_get(p->root, "isa"), *nodes = json_object_get(topo, "nodes");
    const json_t *hard = json_object_get(
                     json_object_get(json_object_get(p->root, "fingerprint"), "hard"), "fields"),
                 *cpu = json_object_get(hard, "cpu");
    double bytes = 0;
    for (size_t i = 0; i < json_array_size(nodes); i++)
        bytes += number(json_array_get(nodes, i), "bytes");
    sb_printf(out, "%shost%s    %lld x %s", bold(color), off(color), integer(topo, "packages"),
              text(isa, "x_brand", text(cpu, "vendor", "CPU")));
    sb_printf(out, ", %lld cores, SMT %lld, %zu node%s", integer(topo, "cores"),
              integer(topo, "smt"), json_array_size(nodes), json_array_size(nodes) == 1 ? "" : "s");
    if (bytes > 0)
        sb_printf(out, ", %.1f GiB", bytes / 1073741824.0);
    if (json_is_string(json_object_get(hard, "hypervisor")))
        sb_printf(out, ", in a virtual machine (%s)", text(hard, "hypervisor", ""));
    if (!json_is_true(json_object_get(topo, "this_system")))
        sb_printf(out, ", described by %s", text(topo, "source", "a file"));
    sb_printf(out, "\n%sprofile%s %s, %s, ", bold(color), off(color), p->stage,
              p->complete ? "complete" : "incomplete");
    show_age(p, out);
    if (m != NULL)
        sb_printf(out, ", %s",
                  m->state == PROFILE_MATCH   ? "matches this machine"
                  : m->state == PROFILE_STALE ? "STALE on this machine"
                                              : "of ANOTHER machine");
    sb_printf(out, "   %sid %s%s\n", dim(color), p->id, off(color));
}

static void show_limits(const struct profile *p, bool color, struct strbuf *out)
{
    const json_t *l = json_object_get(json_object_get(p->root, "environment"), "limits");
    sb_printf(out, "%slimits%s  %lld cores allowed, budget %lld", bold(color), off(color),
              integer(l, "cores_allowed"), integer(l, "cores_budget"));
    if (json_is_number(json_object_get(l, "cpu_quota_cores")))
        sb_printf(out, ", CPU quota %.2f cores", number(l, "cpu_quota_cores"));
    if (json_is_number(json_object_get(l, "memory_max_bytes")))
        sb_printf(out, ", memory %.1f GiB", number(l, "memory_max_bytes") / 1073741824.0);
    sb_printf(out, " (cgroup %s)\n", text(l, "cgroup", "none"));
}

static void show_isa(const struct profile *p, bool color, struct strbuf *out)
{
    const json_t *isa = json_object_get(p->root, "isa"), *usable = json_object_get(isa, "usable"),
                 *variants = json_object_get(isa, "variants");
    const json_t *papi = json_object_get(json_object_get(p->root, "counters"), "papi");
    size_t ok = 0, skipped = 0, bad = 0;
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const char *s = text(json_array_get(variants, i), "selftest", "");
        *(strcmp(s, "ok") == 0 ? &ok : strcmp(s, "skipped") == 0 ? &skipped : &bad) += 1;
    }
    sb_printf(out, "%sisa%s    ", bold(color), off(color));
    for (size_t i = 0; i < json_array_size(usable); i++)
        sb_printf(out, " %s", json_string_value(json_array_get(usable, i)));
    if (json_array_size(usable) == 0)
        sb_puts(out, " baseline only");
    if (ok + skipped + bad > 0)
        sb_printf(out, "   kernel self-tests: %zu ok, %zu failed, %zu skipped", ok, bad, skipped);
    sb_printf(out, "\n%scounter%s %s", bold(color), off(color),
              strcmp(text(papi, "status", ""), "ok") == 0 ? "PAPI counts:" : "none: ");
    if (strcmp(text(papi, "status", ""), "ok") != 0)
        sb_puts(out, text(papi, "reason", ""));
    for (size_t i = 0; i < json_array_size(json_object_get(papi, "events")); i++)
        sb_printf(out, " %s",
                  json_string_value(json_array_get(json_object_get(papi, "events"), i)));
    sb_putc(out, '\n');
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static void show_row(const struct profile *p, const json_t *m, bool color, struct strbuf *out)
{
    char v[32], q1[32], q3[32];
    const char *id = text(m, "id", "?"), *unit = text(m, "unit", "count"),
               *status = text(m, "status", "");
    if (json_object_get(m, "median") == NULL) {
        sb_printf(out, "  %-34s %s%s: %s%s\n", id, dim(color), status, text(m, "reason", ""),
                  off(color));
        return;
    }
    show_value(number(m, "median"), unit, v, sizeof v);
    show_value(number(m, "q1"), unit, q1, sizeof q1);
    show_value(number(m, "q3"), unit, q3, sizeof q3);
    char *space = strrchr(q1, ' ');
    if (space != NULL && strrchr(q3, ' ') != NULL && strcmp(space, strrchr(q3, ' ')) == 0)
        *space = '\0'; /* the unit once */
    sb_printf(out, "  %-34s %12s   %s%s .. %s, n=%lld%s", id, v, dim(color), q1, q3,
              integer(m, "n"), off(color));
    for (uint32_t i = 0; i < p->n_knees; i++) {
        char knee[64];
        snprintf(knee, sizeof knee, "mem.read:node%d.t%u", p->knees[i].node,
                 p->knees[i].knee_threads);
        if (strcmp(knee, id) == 0)
            sb_printf(out, "   %s<- knee%s", bold(color), off(color));
    }
    if (strcmp(status, "noisy") == 0)
        sb_printf(out, "   %snoisy%s", color ? "\033[33m" : "", off(color));
    sb_putc(out, '\n');
}

static void show_group(const struct profile *p, const char *title, const char *const *prefixes,
                       bool color, struct strbuf *out)
{
    const json_t *ms = json_object_get(p->root, "measurements");
    bool first = true;
    for (int k = 0; prefixes[k] != NULL; k++)
        for (size_t i = 0; i < json_array_size(ms); i++) {
            const json_t *m = json_array_get(ms, i);
            if (!starts(text(m, "id", ""), prefixes[k]))
                continue;
            if (first)
                sb_printf(out, "\n%s%s%s\n", bold(color), title, off(color));
            first = false;
            show_row(p, m, color, out);
        }
}

/* ---- experts: one line per format and variant ---- */

/* "expert.gemv:mxfp4.avx512vnni.m1" -> "mxfp4.avx512vnni", "m1" */
static bool expert_parts(const char *id, char *key, size_t n, const char **rows, bool *gemm)
{
    const char *colon = strchr(id, ':'), *last = strrchr(id, '.');
    if (!starts(id, "expert.gem") || colon == NULL || last < colon)
        return false;
    snprintf(key, n, "%.*s", (int)(last - colon - 1), colon + 1);
    *rows = last + 1;
    *gemm = starts(id, "expert.gemm");
    return true;
}

static void show_expert_line(const json_t *ms, const char *key, bool color, struct strbuf *out)
{
    const char *dot = strchr(key, '.'), *rows, *failed = NULL;
    char other[96], v[32];
    bool gemm, noisy = false;
    sb_printf(out, "  %-8.*s %-12s", dot != NULL ? (int)(dot - key) : 8, key,
              dot != NULL ? dot + 1 : "");
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < json_array_size(ms); i++) {
            const json_t *m = json_array_get(ms, i);
            if (!expert_parts(text(m, "id", ""), other, sizeof other, &rows, &gemm) ||
                gemm != (pass == 1) || strcmp(other, key) != 0)
                continue;
            noisy |= strcmp(text(m, "status", ""), "noisy") == 0;
            if (json_object_get(m, "median") == NULL) {
                failed = text(m, "reason", "failed");
                continue;
            }
            show_value(number(m, "median"), text(m, "unit", "count"), v, sizeof v);
            sb_printf(out, "  %s %s%s%s %11s", gemm ? "gemm" : "gemv", dim(color), rows, off(color),
                      v);
        }
    if (failed != NULL)
        sb_printf(out, "  %s%s%s", dim(color), failed, off(color));
    if (noisy)
        sb_printf(out, "   %snoisy%s", color ? "\033[33m" : "", off(color));
    sb_putc(out, '\n');
}

static void show_experts(const struct profile *p, bool color, struct strbuf *out)
{
    const json_t *ms = json_object_get(p->root, "measurements");
    json_t *seen = json_object();
    char key[96];
    const char *rows;
    bool gemm;
    for (size_t i = 0; i < json_array_size(ms); i++) {
        if (!expert_parts(text(json_array_get(ms, i), "id", ""), key, sizeof key, &rows, &gemm) ||
            json_object_get(seen, key) != NULL)
            continue;
        if (json_object_size(seen) == 0)
            sb_printf(out,
                      "\n%sexperts: rate per format and kernel variant (gemv: weights read, gemm: "
                      "operations; mN: N rows)%s\n",
                      bold(color), off(color));
        json_object_set_new(seen, key, json_true());
        show_expert_line(ms, key, color, out);
    }
    json_decref(seen);
}

static void show_measurements(const struct profile *p, bool color, struct strbuf *out)
{
    static const char *const memory[] = {"mem.", "lat.", NULL},
                             *const joins[] = {"sync.", "noise", NULL},
                             *const devices[] = {"gpu.", "disk.", NULL};
    show_group(p, "memory: read rate per node and threads", memory, color, out);
    show_group(p, "joins and noise", joins, color, out);
    show_experts(p, color, out);
    show_group(p, "devices", devices, color, out);
}

/* A list of pools as one line each; everything else is written as it is stored. */
static bool show_pools(const json_t *v, struct strbuf *out)
{
    if (!json_is_array(v) || !json_is_string(json_object_get(json_array_get(v, 0), "cpus")))
        return false;
    sb_printf(out, "%zu pool%s", json_array_size(v), json_array_size(v) == 1 ? "" : "s");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *p = json_array_get(v, i), *node = json_object_get(p, "node");
        sb_puts(out, "\n      ");
        if (json_is_integer(node))
            sb_printf(out, "node%lld: ", (long long)json_integer_value(node));
        sb_printf(out, "%lld cores, CPUs %s%s", integer(p, "cores"), text(p, "cpus", "?"),
                  json_is_false(json_object_get(p, "local")) ? ", memory is remote" : "");
    }
    return true;
}

void show_decision(const json_t *d, bool color, struct strbuf *out)
{
    const json_t *v = json_object_get(d, "value"), *alts = json_object_get(d, "alternatives"),
                 *change = json_object_get(d, "would_change_if");
    char *value = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY), *alt;
    sb_printf(out, "  %s%s = ", bold(color), text(d, "id", "?"));
    if (!show_pools(v, out))
        sb_puts(out, value != NULL ? value : text(d, "value", "?"));
    sb_printf(out, "%s%s%s\n", json_object_get(d, "unit") != NULL ? " " : "", text(d, "unit", ""),
              off(color));
    free(value);
    sb_printf(out, "      why: %s  %s(%s, confidence %s)%s\n", text(d, "why", "?"), dim(color),
              text(d, "origin", "?"), text(d, "confidence", "?"), off(color));
    for (size_t i = 0; i < json_array_size(alts) && i < 2; i++) {
        const json_t *a = json_array_get(alts, i), *av = json_object_get(a, "value");
        alt = json_is_string(av) ? NULL : json_dumps(av, JSON_ENCODE_ANY);
        sb_printf(out, "%s%s (%+.1f %% time%s)", i == 0 ? "      runner-up: " : ", ",
                  alt != NULL ? alt : json_string_value(av), number(a, "loss") * 100,
                  json_is_true(json_object_get(a, "distinguishable")) ? ""
                                                                      : ", not distinguishable");
        free(alt);
    }
    if (json_array_size(alts) > 0)
        sb_putc(out, '\n');
    for (size_t i = 0; i < json_array_size(change); i++)
        sb_printf(out, "%s%s", i == 0 ? "      would change if: " : "; ",
                  json_string_value(json_array_get(change, i)));
    if (json_array_size(change) > 0)
        sb_putc(out, '\n');
}

void show_profile(const struct profile *p, const struct profile_match *m, bool color,
                  struct strbuf *out)
{
    const json_t *ds = json_object_get(p->root, "decisions"),
                 *ws = json_object_get(p->root, "warnings");
    show_host(p, m, color, out);
    show_limits(p, color, out);
    show_isa(p, color, out);
    show_measurements(p, color, out);
    if (json_array_size(ds) > 0)
        sb_printf(out, "\n%splan%s\n", bold(color), off(color));
    for (size_t i = 0; i < json_array_size(ds); i++)
        show_decision(json_array_get(ds, i), color, out);
    if (json_array_size(ws) > 0)
        sb_printf(out, "\n%swarnings%s\n", bold(color), off(color));
    for (size_t i = 0; i < json_array_size(ws); i++) {
        const json_t *w = json_array_get(ws, i);
        sb_printf(out, "  %s %s\n", text(w, "code", "?"), text(w, "text", "?"));
        if (json_is_string(json_object_get(w, "fix")))
            sb_printf(out, "        %sfix: %s%s\n", dim(color), text(w, "fix", ""), off(color));
    }
}
