/* build.c - a new profile from a host's facts, and the setters that the measuring program uses. The
 * document stays valid after each of them. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "config.h"
#include "profile/facts.h"
#include "profile/profile.h"

static json_t *tool_section(const struct host *h, const struct profile_tool *t)
{
    json_t *o = json_object(), *flags = json_array();
    for (uint32_t i = 0; i < t->n_flags; i++)
        json_array_append_new(flags, json_string(t->flags[i]));
    json_object_set_new(o, "name", json_string("kttune"));
    json_object_set_new(o, "version", json_string(PACKAGE_VERSION));
    json_object_set_new(o, "git", facts_text(t->git));
    json_object_set_new(o, "flags", flags);
#if defined(__clang__)
    json_object_set_new(o, "compiler", json_string("clang " __clang_version__));
#else
    json_object_set_new(o, "compiler", json_string("gcc " __VERSION__));
#endif
    json_object_set_new(o, "kernel_abi", json_string(t->kernel_abi));
    json_object_set_new(o, "hwloc", facts_text(h->hwloc_version));
    json_object_set_new(o, "papi", facts_text(t->papi));
    json_object_set_new(o, "cuda_runtime", facts_text(t->cuda_runtime));
    json_object_set_new(o, "nvml", facts_text(t->nvml));
    return o;
}

static kt_status fingerprint(const struct host *h, json_t *root, const char *created, kt_err *err)
{
    json_t *fp = json_object(), *parts[2] = {profile_hard_fields(h), profile_soft_fields(h)};
    char id[2][72], file_id[33];
    kt_status st = KT_OK;
    for (int i = 0; i < 2; i++) {
        json_t *o = json_object();
        if (st == KT_OK)
            st = parts[i] != NULL
                     ? profile_fields_id(parts[i], id[i], err)
                     : err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a fingerprint");
        if (st == KT_OK)
            json_object_set_new(o, "id", json_string(id[i]));
        json_object_set_new(o, "fields", parts[i]);
        json_object_set_new(fp, i == 0 ? "hard" : "soft", o);
    }
    json_object_set_new(root, "fingerprint", fp);
    KT_TRY(st);
    profile_file_id(id[0], id[1], created, file_id);
    json_object_set_new(root, "id", json_string(file_id));
    return KT_OK;
}

kt_status profile_build(const struct host *h, const struct profile_tool *t, struct profile **out,
                        kt_err *err)
{
    char created[40];
    time_t now = time(NULL);
    struct tm tm;
    *out = NULL;
    struct profile *p = mem_calloc(1, sizeof *p);
    if (p == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a profile");
    p->root = json_object();
    gmtime_r(&now, &tm);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *r = p->root;
    json_object_set_new(r, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
    json_object_set_new(r, "schema", json_string(PROFILE_SCHEMA));
    json_object_set_new(r, "id", json_null()); /* keeps its place; set with the fingerprint */
    json_object_set_new(r, "created", json_string(created));
    json_object_set_new(r, "stage", json_string("topology"));
    json_object_set_new(r, "complete", json_false());
    json_object_set_new(r, "tool", tool_section(h, t));
    kt_status st = fingerprint(h, r, created, err);
    bool ok = facts_environment(h, r) && facts_topology(h, r) && facts_isa(h, r);
    json_t *counters = json_pack("{s:{s:s,s:s,s:[]}}", "papi", "status", "unsupported", "reason",
                                 "not tested", "events");
    ok = ok && json_object_set_new(r, "counters", counters) == 0;
    static const char *const arrays[] = {"measurements", "decisions", "tunings", "warnings"};
    for (int i = 0; i < 4; i++)
        ok = ok && json_object_set_new(r, arrays[i], json_array()) == 0;
    if (st == KT_OK && !ok)
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a profile");
    for (uint32_t i = 0; i < h->n_warnings && st == KT_OK; i++) {
        const struct host_warning *w = &h->warnings[i];
        st = profile_warn(p, w->code, w->severity, w->about, w->fix, w->text, err);
    }
    if (st == KT_OK)
        st = profile_refresh(p, err);
    if (st != KT_OK) {
        profile_close(p);
        return st;
    }
    *out = p;
    return KT_OK;
}

static kt_status put(struct profile *p, const char *section, json_t *v, kt_err *err)
{
    json_t *a = json_object_get(p->root, section);
    const char *id = json_string_value(json_object_get(v, "id"));
    for (size_t i = 0; id != NULL && i < json_array_size(a); i++) {
        const char *other = json_string_value(json_object_get(json_array_get(a, i), "id"));
        if (other != NULL && strcmp(id, other) == 0) {
            if (json_array_set_new(a, i, v) != 0)
                KT_FAIL(err, KT_E_NOMEM, "no memory for %s", section);
            return KT_OK;
        }
    }
    if (json_array_append_new(a, v) != 0)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %s", section);
    return KT_OK;
}

kt_status profile_put_measurement(struct profile *p, json_t *v, kt_err *err)
{
    return put(p, "measurements", v, err);
}

kt_status profile_put_decision(struct profile *p, json_t *v, kt_err *err)
{
    return put(p, "decisions", v, err);
}

void profile_clear(struct profile *p, const char *section)
{
    json_array_clear(json_object_get(p->root, section));
}

kt_status profile_warn(struct profile *p, const char *code, const char *severity, const char *about,
                       const char *fix, const char *text, kt_err *err)
{
    json_t *a = json_object_get(p->root, "warnings");
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *w = json_array_get(a, i);
        const char *c = json_string_value(json_object_get(w, "code")),
                   *ab = json_string_value(json_object_get(w, "about"));
        if (c != NULL && strcmp(c, code) == 0 &&
            strcmp(ab != NULL ? ab : "", about != NULL ? about : "") == 0)
            return KT_OK;
    }
    json_t *w = json_object();
    json_object_set_new(w, "code", json_string(code));
    json_object_set_new(w, "severity", json_string(severity != NULL ? severity : "warning"));
    json_object_set_new(w, "text",
                        text != NULL && *text != '\0' ? facts_text(text) : json_string(code));
    json_object_set_new(w, "fix", facts_text(fix));
    if (about != NULL && *about != '\0')
        json_object_set_new(w, "about", facts_text(about));
    if (json_array_append_new(a, w) != 0)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a warning");
    return KT_OK;
}

void profile_stage(struct profile *p, const char *stage, bool complete)
{
    json_object_set_new(p->root, "stage", json_string(stage));
    json_object_set_new(p->root, "complete", json_boolean(complete));
    p->stage = json_string_value(json_object_get(p->root, "stage"));
    p->complete = complete;
}
