/* tune_state.c - see tune_state.h. A file that breaks a rule, or whose digest is not that of its
 * bytes, is as good as none: the search begins anew and says why.
 */
#include "tune_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "base/sha256.h"

#define MAX_BYTES (64u << 20)
#define MAX_NOTES 1000000u
#define DIGEST ",\"digest\":\"sha256:"
#define TAIL (sizeof DIGEST - 1 + 64 + 3) /* with "}\n behind it */

static json_t *axes_json(const struct space *s)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < s->n_axes; i++) {
        json_t *a = json_array();
        json_array_append_new(a, json_string(s->axis[i].name));
        for (uint32_t k = 0; k < s->axis[i].n; k++)
            json_array_append_new(a, space_value_json(&s->axis[i].v[k]));
        json_array_append_new(list, a);
    }
    return list;
}

kt_status state_space_id(const struct space *s, char out[72], kt_err *err)
{
    json_t *axes = axes_json(s);
    char *text = json_dumps(axes, JSON_COMPACT);
    json_decref(axes);
    if (text == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the description of a space");
    struct sha256 h;
    uint8_t d[32];
    sha256_init(&h);
    sha256_update(&h, text, strlen(text));
    sha256_update(&h, s->at, (size_t)s->n * s->n_axes);
    sha256_final(&h, d);
    free(text);
    memcpy(out, "sha256:", 8);
    for (int i = 0; i < 32; i++)
        snprintf(out + 7 + 2 * i, 3, "%02x", d[i]);
    return KT_OK;
}

/* ---- reading ---- */

static bool digest_fits(const char *text, size_t len)
{
    char hex[65];
    if (len < TAIL || memcmp(text + len - TAIL, DIGEST, sizeof DIGEST - 1) != 0 ||
        memcmp(text + len - 3, "\"}\n", 3) != 0)
        return false;
    sha256_hex(text, len - TAIL, hex);
    return memcmp(hex, text + len - 67, 64) == 0;
}

/* A member's value as a word of a sentence. */
static void word(const json_t *v, char *out, size_t n)
{
    char *t =
        v != NULL && !json_is_string(v) ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf(out, n, "%.40s", json_is_string(v) ? json_string_value(v) : t != NULL ? t : "absent");
    free(t);
}

/* Is the file's key ours? Else the reason names the first field that differs. */
static bool same_key(struct tune_state *s, json_t *key)
{
    const char *name;
    json_t *v;
    if (json_is_object(key) && json_equal(key, s->key))
        return true;
    json_object_foreach(s->key, name, v)
    {
        char was[48], now[48];
        const json_t *old = json_object_get(key, name);
        if (old != NULL && json_equal(old, v))
            continue;
        word(old, was, sizeof was);
        word(v, now, sizeof now);
        snprintf(s->reason, sizeof s->reason, "it is of another search: %.40s is %s there, %s here",
                 name, was, now);
        return false;
    }
    snprintf(s->reason, sizeof s->reason, "it is of another search");
    return false;
}

static bool take_note(const json_t *v, double before, struct journal_note *k)
{
    json_int_t config = json_integer_value(json_array_get(v, 0)),
               result = json_integer_value(json_array_get(v, 1));
    k->seconds = json_number_value(json_array_get(v, 2));
    k->end = json_number_value(json_array_get(v, 3));
    if (json_array_size(v) != 4 || config < 0 || config > UINT32_MAX || result < TIMER_OK ||
        result > TIMER_HUNG || !(k->end >= before) || !(k->end < 1e9) || !(k->seconds >= 0))
        return false;
    k->config = (uint32_t)config;
    k->result = (enum timer_result)result;
    return true;
}

static kt_status take(struct tune_state *s, const json_t *root, kt_err *err)
{
    const json_t *list = json_object_get(root, "samples");
    size_t n = json_array_size(list);
    double before = 0, seconds = json_number_value(json_object_get(root, "seconds")),
           budget = json_number_value(json_object_get(root, "budget"));
    json_int_t repeats = json_integer_value(json_object_get(root, "repeats"));
    if (!json_is_array(list) || n > MAX_NOTES || repeats < 0 || repeats > 1000000 ||
        !(seconds > 0) || !(budget > 0)) {
        snprintf(s->reason, sizeof s->reason, "a member of it is missing or out of range");
        return KT_OK;
    }
    if (!journal_room(&s->journal, (uint32_t)n))
        KT_FAIL(err, KT_E_NOMEM, "no memory for the %zu samples of %s", n, s->path);
    for (size_t i = 0; i < n; i++) {
        if (!take_note(json_array_get(list, i), before, &s->journal.note[i])) {
            snprintf(s->reason, sizeof s->reason, "samples[%zu] is none", i);
            return KT_OK;
        }
        before = s->journal.note[i].end;
    }
    s->journal.known = s->journal.n = (uint32_t)n;
    s->repeats = (uint32_t)repeats;
    if (budget == s->budget)
        s->seconds = seconds;
    s->resumed = n > 0;
    return KT_OK;
}

static kt_status resume(struct tune_state *s, kt_err *err)
{
    char *text;
    size_t len;
    kt_err e;
    kt_status st = file_read(s->path, MAX_BYTES, &text, &len, &e);
    if (st == KT_E_NOT_FOUND)
        return KT_OK;
    if (st != KT_OK) {
        if (st == KT_E_NOMEM && err != NULL)
            *err = e;
        snprintf(s->reason, sizeof s->reason, "%.200s", e.msg);
        return st == KT_E_NOMEM ? st : KT_OK;
    }
    json_t *root = NULL;
    if (!digest_fits(text, len))
        snprintf(s->reason, sizeof s->reason, "it is damaged: its digest is not that of its bytes");
    else if ((root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL)) == NULL)
        snprintf(s->reason, sizeof s->reason, "it is no JSON");
    mem_free(text);
    const char *schema = json_string_value(json_object_get(root, "schema"));
    if (root != NULL && (schema == NULL || strcmp(schema, STATE_SCHEMA) != 0))
        snprintf(s->reason, sizeof s->reason, "its schema is not " STATE_SCHEMA);
    else if (root != NULL && same_key(s, json_object_get(root, "key")))
        st = take(s, root, err);
    json_decref(root);
    return st;
}

kt_status state_begin(struct tune_state *s, struct kt_timer *inner, bool is_virtual, kt_err *err)
{
    journal_open(&s->journal, inner, is_virtual);
    s->resumed = s->failed = false;
    s->reason[0] = '\0';
    s->saved = clock_seconds();
    return s->path != NULL ? resume(s, err) : KT_OK;
}

/* ---- writing ---- */

static void write_notes(struct json_out *o, const struct journal *j)
{
    jo_key(o, "samples");
    jo_array(o);
    for (uint32_t i = 0; i < j->n; i++) {
        const struct journal_note *k = &j->note[i];
        jo_array(o);
        jo_uint(o, k->config);
        jo_uint(o, k->result);
        jo_real(o, k->seconds);
        jo_real(o, k->end);
        jo_array_end(o);
    }
    jo_array_end(o);
}

static kt_status save(struct tune_state *s, kt_err *err)
{
    struct strbuf b = {0};
    struct json_out o;
    char hex[65];
    char *key = json_dumps(s->key, JSON_COMPACT | JSON_SORT_KEYS);
    if (key == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %s", s->path);
    jo_init(&o, &b);
    jo_object(&o);
    jo_kstr(&o, "schema", STATE_SCHEMA);
    jo_key(&o, "key");
    jo_raw(&o, key);
    jo_kreal(&o, "budget", s->budget);
    jo_kreal(&o, "seconds", s->seconds);
    jo_kuint(&o, "repeats", s->repeats);
    write_notes(&o, &s->journal);
    free(key);
    kt_status st = KT_E_NOMEM;
    if (sb_ok(&b)) {
        sha256_hex(b.data, b.len, hex);
        sb_printf(&b, DIGEST "%s\"}\n", hex);
    }
    if (sb_ok(&b))
        st = file_write_atomic(s->path, b.data, b.len, err);
    else
        (void)err_set(err, KT_E_NOMEM, 0, __func__, "no memory for %s", s->path);
    sb_free(&b);
    return st;
}

/* Notes of an earlier process that are still being given out are in the file already. */
static bool worth_saving(const struct tune_state *s)
{
    return s->path != NULL && !s->failed && !s->journal.lost && s->journal.at >= s->journal.known &&
           s->journal.n > s->journal.known;
}

kt_status state_mark(struct tune_state *s, kt_err *err)
{
    if (!worth_saving(s) || clock_seconds() - s->saved < s->every)
        return KT_OK;
    kt_status st = save(s, err);
    s->saved = clock_seconds();
    s->failed = st != KT_OK;
    return st;
}

void state_end(struct tune_state *s, bool complete)
{
    kt_err err;
    if (s->path != NULL && complete)
        (void)unlink(s->path);
    else if (worth_saving(s)) /* interrupted within a round, or the budget was used up */
        (void)save(s, &err);
    journal_close(&s->journal);
}
