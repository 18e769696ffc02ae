/* cmd_diff.c - `kttune diff A B`: two host profiles by id. Facts that differ, measurements with
 * their change and whether it is within noise (the quartile ranges meet, or it is below 1 %),
 * decisions and tunings with both values. Exit 0 when nothing but noise differs, 5 when something
 * does. Reads two files, measures nothing.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "cmds.h"
#include "profile/profile.h"
#include "show.h"

#define EQUIVALENT 0.01

static const char help[] =
    "usage: kttune diff A B [--all] [--json]\n\n"
    "Compare two host profiles by id: facts, measurements, decisions, tunings.\n\n"
    "  --all    also list what is the same within noise\n"
    "  --json   one JSON object\n\n"
    "A measurement is the same within noise when its quartile ranges meet or its medians are\n"
    "within 1 %. Exit code: 0 the same within noise, 5 they differ, 1 usage, 4 a profile is "
    "invalid.\n";

struct row {
    const char *section, *id; /* id is owned by `ids` */
    char *a, *b;              /* for people; NULL: absent */
    double change;            /* b / a - 1; NAN */
    bool same;                /* within noise */
};

struct diff {
    struct row *rows;
    size_t n, cap;
    uint32_t different;
    json_t *ids; /* keeps the texts of composed ids */
};

static char *value_text(const json_t *v)
{
    char *t = v != NULL ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL,
         *copy = t != NULL ? mem_strdup(t) : NULL;
    free(t); /* jansson's */
    return copy;
}

static void add(struct diff *d, const char *section, const char *id, char *a, char *b,
                double change, bool same)
{
    if (d->n == d->cap) {
        size_t cap = d->cap > 0 ? 2 * d->cap : 64;
        struct row *p = mem_realloc(d->rows, cap * sizeof *p);
        if (p == NULL) {
            mem_free(a);
            mem_free(b);
            return;
        }
        d->rows = p;
        d->cap = cap;
    }
    json_t *kept = json_string(id);
    json_array_append_new(d->ids, kept);
    d->rows[d->n++] = (struct row){section, json_string_value(kept), a, b, change, same};
    d->different += !same;
}

/* ---- facts ---- */

static void facts(struct diff *d, const char *section, const char *path, const json_t *a,
                  const json_t *b)
{
    char sub[200];
    const char *key;
    json_t *v;
    if (json_is_object(a) && json_is_object(b)) {
        json_object_foreach((json_t *)(uintptr_t)a, key, v)
        {
            snprintf(sub, sizeof sub, "%.120s%s%.60s", path, *path != '\0' ? "." : "", key);
            facts(d, section, sub, v, json_object_get(b, key));
        }
        json_object_foreach((json_t *)(uintptr_t)b, key, v)
        {
            snprintf(sub, sizeof sub, "%.120s%s%.60s", path, *path != '\0' ? "." : "", key);
            if (json_object_get(a, key) == NULL)
                facts(d, section, sub, NULL, v);
        }
        return;
    }
    if (a != NULL && b != NULL && json_equal(a, b))
        return;
    add(d, section, path, value_text(a), value_text(b), (double)NAN, false);
}

static const json_t *section_of(const struct profile *p, const char *one, const char *two)
{
    const json_t *v = json_object_get(p->root, one);
    return two != NULL ? json_object_get(v, two) : v;
}

/* ---- entries with an id ---- */

static const json_t *by_id(const json_t *list, const char *id)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_object_get(json_array_get(list, i), "id"));
        if (s != NULL && strcmp(s, id) == 0)
            return json_array_get(list, i);
    }
    return NULL;
}

static double num(const json_t *m, const char *key)
{
    return json_number_value(json_object_get(m, key));
}

static char *measured_text(const json_t *m)
{
    char v[32];
    const char *unit = json_string_value(json_object_get(m, "unit")),
               *status = json_string_value(json_object_get(m, "status"));
    if (m == NULL)
        return NULL;
    if (json_object_get(m, "median") == NULL)
        return status != NULL ? mem_strdup(status) : NULL;
    show_value(num(m, "median"), unit != NULL ? unit : "count", v, sizeof v);
    return mem_strdup(v);
}

static void measurement(struct diff *d, const char *id, const json_t *a, const json_t *b)
{
    bool numbers = json_object_get(a, "median") != NULL && json_object_get(b, "median") != NULL;
    double x = num(a, "median"), y = num(b, "median");
    double change = numbers && x > 0 ? y / x - 1 : (double)NAN;
    bool same = numbers && ((num(a, "q1") <= num(b, "q3") && num(b, "q1") <= num(a, "q3")) ||
                            fabs(change) < EQUIVALENT);
    if (!numbers && a != NULL && b != NULL) /* neither has numbers for the same reason */
        same = json_equal(json_object_get(a, "status"), json_object_get(b, "status"));
    add(d, "measurements", id, measured_text(a), measured_text(b), change, same);
}

static void decision(struct diff *d, const char *id, const json_t *a, const json_t *b)
{
    const json_t *x = json_object_get(a, "value"), *y = json_object_get(b, "value");
    if (x != NULL && y != NULL && json_equal(x, y))
        return;
    add(d, "decisions", id, value_text(x), value_text(y), (double)NAN, false);
}

static void entries(struct diff *d, const struct profile *pa, const struct profile *pb,
                    const char *section,
                    void (*one)(struct diff *, const char *, const json_t *, const json_t *))
{
    const json_t *a = json_object_get(pa->root, section), *b = json_object_get(pb->root, section);
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *v = json_array_get(a, i);
        const char *id = json_string_value(json_object_get(v, "id"));
        one(d, id, v, by_id(b, id));
    }
    for (size_t i = 0; i < json_array_size(b); i++) {
        const json_t *v = json_array_get(b, i);
        const char *id = json_string_value(json_object_get(v, "id"));
        if (by_id(a, id) == NULL)
            one(d, id, NULL, v);
    }
}

/* A tuning is found by shape, goal and kernel build; its choice is compared. */
static json_t *tunings_by_key(const struct profile *p)
{
    const json_t *a = json_object_get(p->root, "tunings");
    json_t *out = json_object();
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *t = json_array_get(a, i), *s = json_object_get(t, "shape");
        char key[200];
        snprintf(key, sizeof key, "%.20s %lld of %lld in %lld x %lld, %s",
                 json_string_value(json_object_get(s, "format")),
                 (long long)json_integer_value(json_object_get(s, "top_k")),
                 (long long)json_integer_value(json_object_get(s, "experts")),
                 (long long)json_integer_value(json_object_get(s, "hidden")),
                 (long long)json_integer_value(json_object_get(s, "inter")),
                 json_string_value(json_object_get(t, "goal")));
        json_object_set(out, key, json_object_get(t, "chosen"));
    }
    return out;
}

static void compare(struct diff *d, const struct profile *a, const struct profile *b)
{
    const json_t *fa = section_of(a, "fingerprint", NULL), *fb = section_of(b, "fingerprint", NULL);
    facts(d, "hard", "", json_object_get(json_object_get(fa, "hard"), "fields"),
          json_object_get(json_object_get(fb, "hard"), "fields"));
    facts(d, "soft", "", json_object_get(json_object_get(fa, "soft"), "fields"),
          json_object_get(json_object_get(fb, "soft"), "fields"));
    if (strcmp(a->kernel_abi, b->kernel_abi) != 0)
        add(d, "soft", "kernel build", mem_strdup(a->kernel_abi), mem_strdup(b->kernel_abi),
            (double)NAN, false);
    entries(d, a, b, "measurements", measurement);
    entries(d, a, b, "decisions", decision);
    json_t *ta = tunings_by_key(a), *tb = tunings_by_key(b);
    facts(d, "tunings", "", ta, tb);
    json_decref(ta);
    json_decref(tb);
}

/* ---- output ---- */

static void print_text(const struct diff *d, bool all, bool color, struct strbuf *out)
{
    const char *section = "";
    uint32_t noise = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct row *r = &d->rows[i];
        noise += r->same;
        if (r->same && !all)
            continue;
        if (strcmp(section, r->section) != 0)
            sb_printf(out, "%s%s%s%s\n", *section != '\0' ? "\n" : "", color ? "\033[1m" : "",
                      r->section, color ? "\033[0m" : "");
        section = r->section;
        sb_printf(out, "  %-40s %18s -> %-18s", r->id, r->a != NULL ? r->a : "(absent)",
                  r->b != NULL ? r->b : "(absent)");
        if (isfinite(r->change))
            sb_printf(out, " %+7.1f %%", 100 * r->change);
        sb_puts(out, r->same ? "   same within noise\n" : "\n");
    }
    sb_printf(out, "%s%u difference%s, %u the same within noise\n", d->different > 0 ? "\n" : "",
              d->different, d->different == 1 ? "" : "s", noise);
}

static void print_json(const struct diff *d, struct strbuf *out)
{
    struct json_out j;
    jo_init(&j, out);
    jo_object(&j);
    jo_kuint(&j, "different", d->different);
    jo_key(&j, "rows");
    jo_array(&j);
    for (size_t i = 0; i < d->n; i++) {
        const struct row *r = &d->rows[i];
        jo_object(&j);
        jo_kstr(&j, "section", r->section);
        jo_kstr(&j, "id", r->id);
        jo_kstr(&j, "a", r->a);
        jo_kstr(&j, "b", r->b);
        jo_kreal(&j, "change", r->change);
        jo_kbool(&j, "same_within_noise", r->same);
        jo_object_end(&j);
    }
    jo_array_end(&j);
    jo_object_end(&j);
    sb_putc(out, '\n');
}

static int run(const char *path_a, const char *path_b, bool all, bool json)
{
    struct profile *a = NULL, *b = NULL;
    struct strbuf out = {0};
    struct diff d = {.ids = json_array()};
    kt_err err;
    if (profile_read(path_a, &a, &err) != KT_OK || profile_read(path_b, &b, &err) != KT_OK) {
        profile_close(a);
        json_decref(d.ids);
        return cmd_fail("diff", &err, 0);
    }
    compare(&d, a, b);
    if (json)
        print_json(&d, &out);
    else
        print_text(&d, all, isatty(STDOUT_FILENO) == 1, &out);
    bool ok = sb_ok(&out) && fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    int code = !ok ? EXIT_USAGE : d.different > 0 ? EXIT_NOT_MET : EXIT_OK;
    for (size_t i = 0; i < d.n; i++) {
        mem_free(d.rows[i].a);
        mem_free(d.rows[i].b);
    }
    mem_free(d.rows);
    json_decref(d.ids);
    sb_free(&out);
    profile_close(a);
    profile_close(b);
    return code;
}

int cmd_diff(int argc, char **argv)
{
    const char *path[2];
    int n = 0;
    bool all = false, json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--all") == 0) {
            all = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (argv[i][0] != '-' && n < 2) {
            path[n++] = argv[i];
        } else {
            fprintf(stderr, "kttune diff: unexpected '%s'\n%s", argv[i], help);
            return EXIT_USAGE;
        }
    }
    if (n != 2)
        return cmd_usage("diff", "two profiles are needed", NULL);
    return run(path[0], path[1], all, json);
}
