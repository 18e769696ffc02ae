/* plan_note.c - decisions that reach a plan from outside: what a search measured, or why something
 * that was found is not used. A note is a row like the planner's own, so that explain and the
 * plan's text show it with its origin. Pure; owner: the plan's.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json_out.h"
#include "base/mem.h"
#include "plan/plan.h"

static const char *const smt_name[] = {"off", "server", "on"};

const char *plan_smt_name(enum plan_smt s)
{
    return smt_name[s];
}

int plan_smt_by_name(const char *name)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(name, smt_name[i]) == 0)
            return i;
    return -1;
}

static void decision_free(struct plan_decision *d)
{
    for (uint32_t k = 0; k < d->n_because; k++)
        mem_free(d->because[k]);
    for (uint32_t k = 0; k < d->n_would_change_if; k++)
        mem_free(d->would_change_if[k]);
    mem_free(d->because);
    mem_free(d->would_change_if);
    mem_free(d->alternatives);
    mem_free(d->value_json);
    mem_free(d->why);
}

void plan_forget(struct plan *p, const char *id)
{
    uint32_t i = 0;
    while (i < p->n_decisions && strcmp(p->decisions[i].id, id) != 0)
        i++;
    if (i == p->n_decisions)
        return;
    decision_free(&p->decisions[i]);
    p->n_decisions--;
    memmove(&p->decisions[i], &p->decisions[i + 1], (p->n_decisions - i) * sizeof *p->decisions);
}

kt_status plan_note(struct plan *p, const struct plan_note *n, kt_err *err)
{
    struct plan_decision *list =
        mem_realloc(p->decisions, (p->n_decisions + (size_t)1) * sizeof *list);
    struct strbuf value = {0};
    struct json_out j;
    jo_init(&j, &value);
    if (n->text != NULL)
        jo_str(&j, n->text);
    else
        jo_uint(&j, n->number);
    char *v = sb_take(&value, NULL), *why = mem_strdup(n->why);
    if (list != NULL)
        p->decisions = list;
    if (list == NULL || v == NULL || why == NULL) {
        mem_free(v);
        mem_free(why);
        KT_FAIL(err, KT_E_NOMEM, "no memory for the plan's reasons");
    }
    struct plan_decision *d = &list[p->n_decisions++];
    memset(d, 0, sizeof *d);
    snprintf(d->id, sizeof d->id, "%s", n->id);
    d->value_json = v;
    d->unit = n->unit;
    d->origin = n->origin;
    d->why = why;
    d->margin = (double)NAN;
    d->confidence = n->exact ? "high" : "medium";
    d->goal = n->goal;
    return KT_OK;
}
