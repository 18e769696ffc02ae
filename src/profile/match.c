/* match.c - does a profile belong to the running host? Equal ids match; unequal ids are compared
 * field by field, sizes within 3 %. A hard difference makes another machine (mismatch), a soft one
 * the same machine set up differently (stale), with the measurements it touches. Fields of the file
 * that this program does not know count as soft differences; a null on either side is lack of
 * knowledge and counts, too, because the fact became visible or went away.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "profile/profile.h"

#define DAY 86400
#define EVERYTHING "* !topo"

/* What a soft field touches; "" means that only the plan is made again. */
static const struct {
    const char *field, *affects;
} soft_rules[] = {
    {"nvidia_driver", "gpu.*"},
    {"cuda", "gpu.*"},
    {"gpu_power_limit_watts", "gpu.*"},
    {"gpu_link_max", "gpu.*"},
    {"microcode", "expert.* sync.* gpu.lat"},
    {"mitigations", "expert.* sync.* gpu.lat"},
    {"kernel", "expert.* sync.* gpu.lat"},
    {"thp", "mem.* expert.*"},
    {"hugetlb", "mem.* expert.*"},
    {"numa_balancing", "mem.* expert.*"},
    {"governor", EVERYTHING},
    {"boost", EVERYTHING},
    {"bios", EVERYTHING},
    {"dimm_mts", EVERYTHING},
    {"cpu_quota_millicores", ""},
    {"cpuset_cpus", ""},
    {"cpuset_mems", ""},
    {"memory_max_bytes", ""},
};

static const char *affected_by(const char *field)
{
    for (size_t i = 0; i < sizeof soft_rules / sizeof *soft_rules; i++)
        if (strcmp(soft_rules[i].field, field) == 0)
            return soft_rules[i].affects;
    return EVERYTHING;
}

static bool pattern_covers(const char *pattern, size_t n, const char *id)
{
    if (n > 0 && pattern[n - 1] == '*')
        return strncmp(pattern, id, n - 1) == 0;
    return strncmp(pattern, id, n) == 0 && (id[n] == '\0' || id[n] == ':' || id[n] == '.');
}

bool profile_affects(const char *patterns, const char *id)
{
    bool covered = false;
    while (*patterns != '\0') {
        size_t n = strcspn(patterns, " ");
        if (*patterns == '!') {
            if (pattern_covers(patterns + 1, n - 1, id))
                return false;
        } else if (pattern_covers(patterns, n, id)) {
            covered = true;
        }
        patterns += n;
        patterns += strspn(patterns, " ");
    }
    return covered;
}

/* ---- comparing ---- */

struct compare {
    struct profile_match *out;
    bool hard, failed;
};

static char *text_of(const json_t *v)
{
    if (v == NULL)
        return mem_strdup("(absent)");
    char *t = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY),
         *copy = t != NULL ? mem_strdup(t) : NULL;
    free(t);
    return copy;
}

static void add_diff(struct compare *c, const char *path, const json_t *was, const json_t *now)
{
    struct profile_match *m = c->out;
    struct profile_diff *grown = mem_realloc(m->diffs, (m->n_diffs + 1) * sizeof *grown);
    if (grown == NULL) {
        c->failed = true;
        return;
    }
    m->diffs = grown;
    struct profile_diff *d = &grown[m->n_diffs++];
    *d = (struct profile_diff){mem_strdup(path), c->hard, text_of(was), text_of(now),
                               c->hard ? EVERYTHING : affected_by(path)};
    c->failed |= d->field == NULL || d->was == NULL || d->now == NULL;
}

static bool is_size(const char *path)
{
    size_t n = strlen(path);
    return n >= 5 && strcmp(path + n - 5, "bytes") == 0;
}

static bool same_size(const json_t *a, const json_t *b)
{
    double x = json_number_value(a), y = json_number_value(b);
    return json_is_integer(a) && json_is_integer(b) && fabs(x - y) <= 0.03 * fmax(x, y);
}

static void compare(struct compare *c, const char *path, const json_t *was, const json_t *now)
{
    char sub[160];
    const char *key;
    json_t *v;
    if (json_is_object(was) && json_is_object(now)) {
        json_t *a = (json_t *)(uintptr_t)was, *b = (json_t *)(uintptr_t)now;
        json_object_foreach(a, key, v)
        {
            snprintf(sub, sizeof sub, "%.100s%s%.50s", path, *path ? "." : "", key);
            compare(c, sub, v, json_object_get(now, key));
        }
        json_object_foreach(b, key, v) if (json_object_get(was, key) == NULL)
        {
            snprintf(sub, sizeof sub, "%.100s%s%.50s", path, *path ? "." : "", key);
            add_diff(c, sub, NULL, v);
        }
        return;
    }
    bool lists =
        json_is_array(was) && json_is_array(now) && json_array_size(was) == json_array_size(now);
    if (lists && json_is_object(json_array_get(was, 0))) {
        for (size_t i = 0; i < json_array_size(was); i++) {
            snprintf(sub, sizeof sub, "%.100s[%zu]", path, i);
            compare(c, sub, json_array_get(was, i), json_array_get(now, i));
        }
        return;
    }
    if (now != NULL && (json_equal(was, now) || (is_size(path) && same_size(was, now))))
        return;
    add_diff(c, path, was, now);
}

/* Rounded sizes of two values that are close may lie on both sides of a step. So a node whose exact
 * size is within 3 % of the exact size in the file gets the file's rounded value before the
 * comparison. */
static void settle_nodes(const struct profile *p, const struct host *h, const json_t *stored,
                         json_t *now)
{
    const json_t *exact = json_object_get(json_object_get(p->root, "topology"), "nodes"),
                 *was = json_object_get(stored, "nodes");
    json_t *is = json_object_get(now, "nodes");
    for (size_t i = 0; i < json_array_size(is) && i < h->n_nodes && i < json_array_size(exact) &&
                       i < json_array_size(was);
         i++) {
        const json_t *then = json_object_get(json_array_get(exact, i), "bytes");
        double x = json_number_value(then), y = (double)h->nodes[i].bytes;
        bool same_node =
            json_integer_value(json_object_get(json_array_get(exact, i), "os")) == h->nodes[i].os;
        if (same_node && json_is_integer(then) && h->nodes[i].bytes != HOST_UNKNOWN_BYTES &&
            fabs(x - y) <= 0.03 * fmax(x, y))
            json_object_set(json_array_get(is, i), "bytes",
                            json_object_get(json_array_get(was, i), "bytes"));
    }
}

static kt_status compare_part(const struct profile *p, const struct host *h, bool hard,
                              struct profile_match *out, kt_err *err)
{
    const json_t *part =
        json_object_get(json_object_get(p->root, "fingerprint"), hard ? "hard" : "soft");
    const char *stored = json_string_value(json_object_get(part, "id"));
    json_t *now = hard ? profile_hard_fields(h) : profile_soft_fields(h);
    struct compare c = {.out = out, .hard = hard};
    char id[72];
    kt_status st = now != NULL
                       ? profile_fields_id(now, id, err)
                       : err_set(err, KT_E_NOMEM, 0, __func__, "no memory to compare a profile");
    if (st == KT_OK && hard)
        settle_nodes(p, h, json_object_get(part, "fields"), now);
    if (st == KT_OK && (stored == NULL || strcmp(stored, id) != 0))
        compare(&c, "", json_object_get(part, "fields"), now);
    json_decref(now);
    if (st == KT_OK && c.failed)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory to compare a profile");
    return st;
}

static bool masked(const struct profile *p)
{
    const char *s =
        json_string_value(json_object_get(json_object_get(p->root, "environment"), "identity"));
    return s != NULL && strcmp(s, "masked") == 0;
}

static kt_status add_origin(struct profile_match *out, kt_err *err)
{
    struct compare c = {.out = out, .hard = true};
    json_t *was = json_string("datasheet"), *now = json_string("measured");
    add_diff(&c, "origin", was, now);
    json_decref(was);
    json_decref(now);
    if (c.failed)
        KT_FAIL(err, KT_E_NOMEM, "no memory to compare a profile");
    return KT_OK;
}

kt_status profile_match_host(const struct profile *p, const struct host *h,
                             struct profile_match *out, kt_err *err)
{
    memset(out, 0, sizeof *out);
    kt_status st = compare_part(p, h, true, out, err);
    if (st == KT_OK && p->datasheet) /* no machine is a data sheet, whatever its fields say */
        st = add_origin(out, err);
    uint32_t n_hard = out->n_diffs;
    if (st == KT_OK)
        st = compare_part(p, h, false, out, err);
    if (st != KT_OK) {
        profile_match_free(out);
        return st;
    }
    int64_t age = (int64_t)time(NULL) - profile_created_seconds(p);
    out->aged = age > (int64_t)(masked(p) ? 7 : 90) * DAY;
    out->state = n_hard > 0                      ? PROFILE_MISMATCH
                 : out->n_diffs > 0 || out->aged ? PROFILE_STALE
                                                 : PROFILE_MATCH;
    return KT_OK;
}

void profile_match_free(struct profile_match *m)
{
    if (m == NULL)
        return;
    for (uint32_t i = 0; i < m->n_diffs; i++) {
        mem_free(m->diffs[i].field);
        mem_free(m->diffs[i].was);
        mem_free(m->diffs[i].now);
    }
    mem_free(m->diffs);
    memset(m, 0, sizeof *m);
}

void profile_match_text(const struct profile_match *m, struct strbuf *out)
{
    for (uint32_t i = 0; i < m->n_diffs; i++) {
        const struct profile_diff *d = &m->diffs[i];
        sb_printf(out, "%s %s: %s in the file, %s here", d->hard ? "hard" : "soft", d->field,
                  d->was, d->now);
        if (d->hard)
            sb_puts(out, " (another machine)\n");
        else if (d->affects[0] == '\0')
            sb_puts(out, " (plan again; measurements stay)\n");
        else
            sb_printf(out, " (measure again: %s)\n",
                      strcmp(d->affects, EVERYTHING) == 0 ? "all but topo" : d->affects);
    }
    if (m->aged)
        sb_puts(out, "soft age: the file is too old to be trusted (measure again: all but topo)\n");
}
