/* space.c - see space.h. Simplicity: fewer threads first, then no SMT, then no huge pages, then the
 * default kernel, then few departures from the default; what is left is decided by the config's
 * number. */
#include "space.h"

#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"

#define TOTAL_MOST 100000

void space_free(struct space *s)
{
    mem_free(s->at);
    mem_free(s->rank);
    mem_free(s->prior);
    memset(s, 0, sizeof *s);
}

struct space_axis *space_axis(struct space *s, const char *name)
{
    if (s->n_axes == SPACE_AXES)
        return NULL;
    struct space_axis *a = &s->axis[s->n_axes++];
    memset(a, 0, sizeof *a);
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static void add(struct space_axis *a, const struct space_value *v)
{
    for (uint32_t i = 0; a != NULL && i < a->n; i++)
        if (a->v[i].number == v->number && strcmp(a->v[i].text, v->text) == 0)
            return;
    if (a != NULL && a->n < SPACE_VALUES)
        a->v[a->n++] = *v;
}

void space_number(struct space_axis *a, double v)
{
    add(a, &(struct space_value){.number = v});
}

void space_word(struct space_axis *a, const char *v)
{
    struct space_value w = {.number = 0};
    snprintf(w.text, sizeof w.text, "%s", v);
    add(a, &w);
}

static uint32_t rank_of_value(const char *axis, const struct space_value *v, bool is_default)
{
    if (strcmp(axis, "threads") == 0)
        return 1000 * (uint32_t)(v->number < 4e6 ? v->number : 4e6);
    if (strcmp(axis, "smt") == 0)
        return strcmp(v->text, "off") == 0 ? 0 : strcmp(v->text, "server") == 0 ? 350 : 400;
    if (strcmp(axis, "pages") == 0)
        return strcmp(v->text, "4k") == 0 ? 0 : strcmp(v->text, "thp") == 0 ? 100 : 200;
    return is_default ? 0 : strcmp(axis, "kernel") == 0 ? 50 : 1;
}

uint32_t space_rank(const struct space *s, const uint8_t *at)
{
    uint32_t rank = 0;
    for (uint32_t i = 0; i < s->n_axes; i++)
        rank += rank_of_value(s->axis[i].name, &s->axis[i].v[at[i]], at[i] == 0);
    return rank;
}

uint32_t space_add(struct space *s, const uint8_t *at)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (memcmp(s->at + (size_t)i * s->n_axes, at, s->n_axes) == 0)
            return i;
    if (s->n == s->room)
        return UINT32_MAX;
    memcpy(s->at + (size_t)s->n * s->n_axes, at, s->n_axes);
    s->rank[s->n] = space_rank(s, at);
    s->prior[s->n] = 0;
    s->total++;
    return s->n++;
}

bool space_find(const struct space *s, const char *axis, const struct space_value *v,
                uint32_t *axis_at, uint8_t *value_at)
{
    for (uint32_t i = 0; i < s->n_axes; i++)
        for (uint32_t k = 0; k < s->axis[i].n; k++)
            if (strcmp(s->axis[i].name, axis) == 0 && s->axis[i].v[k].number == v->number &&
                strcmp(s->axis[i].v[k].text, v->text) == 0) {
                *axis_at = i;
                *value_at = (uint8_t)k;
                return true;
            }
    return false;
}

static uint32_t combined(const struct space_axis *a)
{
    return a->apart && a->n > 1 ? 1 : a->n;
}

kt_status space_build(struct space *s, bool (*keep)(void *ctx, const uint8_t *at, double *prior),
                      void *ctx, kt_err *err)
{
    uint64_t total = 1;
    uint8_t at[SPACE_AXES] = {0};
    for (uint32_t i = 0; i < s->n_axes; i++)
        total *= combined(&s->axis[i]);
    if (total == 0 || total > TOTAL_MOST)
        KT_FAIL(err, KT_E_INVALID, "%llu combinations: 1 to %d can be searched",
                (unsigned long long)total, TOTAL_MOST);
    s->total = (uint32_t)total;
    s->room = (uint32_t)total + SPACE_MORE;
    s->at = mem_calloc((size_t)s->room * (s->n_axes > 0 ? s->n_axes : 1), 1);
    s->rank = mem_calloc(s->room, sizeof *s->rank);
    s->prior = mem_calloc(s->room, sizeof *s->prior);
    if (s->at == NULL || s->rank == NULL || s->prior == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u combinations", s->total);
    for (uint32_t i = 0; i < s->total; i++) {
        double prior = 0;
        if (keep == NULL || keep(ctx, at, &prior) || i == 0) {
            memcpy(s->at + (size_t)s->n * s->n_axes, at, s->n_axes);
            s->rank[s->n] = space_rank(s, at);
            s->prior[s->n++] = prior;
        }
        for (uint32_t k = 0; k < s->n_axes && ++at[k] == combined(&s->axis[k]); k++)
            at[k] = 0;
    }
    return KT_OK;
}

const struct space_value *space_get(const struct space *s, uint32_t config, const char *axis)
{
    for (uint32_t i = 0; i < s->n_axes; i++)
        if (strcmp(s->axis[i].name, axis) == 0)
            return &s->axis[i].v[s->at[(size_t)config * s->n_axes + i]];
    return NULL;
}

double space_get_number(const struct space *s, uint32_t config, const char *axis, double missing)
{
    const struct space_value *v = space_get(s, config, axis);
    return v != NULL ? v->number : missing;
}

json_t *space_value_json(const struct space_value *v)
{
    if (v->text[0] != '\0')
        return json_string(v->text);
    if (v->number == (double)(int64_t)v->number)
        return json_integer((int64_t)v->number);
    return json_real(v->number);
}

json_t *space_json(const struct space *s, uint32_t config)
{
    json_t *o = json_object();
    for (uint32_t i = 0; i < s->n_axes; i++)
        json_object_set_new(o, s->axis[i].name,
                            space_value_json(&s->axis[i].v[s->at[(size_t)config * s->n_axes + i]]));
    return o;
}

void space_text(const struct space *s, uint32_t config, bool all, struct strbuf *out)
{
    bool any = false;
    for (uint32_t i = 0; i < s->n_axes; i++) {
        uint8_t k = s->at[(size_t)config * s->n_axes + i];
        const struct space_value *v = &s->axis[i].v[k];
        if (!all && k == 0)
            continue;
        sb_printf(out, "%s%s ", any ? ", " : "", s->axis[i].name);
        if (v->text[0] != '\0')
            sb_puts(out, v->text);
        else
            sb_printf(out, "%.6g", v->number);
        any = true;
    }
    if (!any)
        sb_puts(out, "the default");
}
