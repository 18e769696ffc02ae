/* cmd_explain.c - `kttune explain ID`: where a setting comes from. Every level that could decide is
 * shown in order, from the command line to the built-in default, with its value or why it has none;
 * the first that has one wins. Then the winner's reason, measurements and runner-up. Levels stand
 * in the order in which ktserve applies them. Reads a profile, perhaps a model's sizes and a
 * configuration file; measures nothing.
 */
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cmds.h"
#include "kern.h"
#include "plan_args.h"
#include "show.h"

static const char help[] =
    "usage: kttune explain ID [--profile FILE | --topology SPEC] [options]\n\n"
    "Tell where a setting comes from: command line, environment, value that kttune tune proved,\n"
    "configuration file, measured value of the profile, cost model, default. The first that says\n"
    "something wins.\n\n"
    "  --profile FILE       host profile (default host.json)\n"
    "  --topology SPEC      a stored machine instead; nothing is measured there\n"
    "  -m, --model MODEL    for settings that depend on it: sizes are read, no weights\n"
    "  --config FILE        configuration file of ktserve (default: KTSERVE_CONFIG)\n"
    "  --option NAME=VALUE  what the command line of ktserve would say; may be repeated\n"
    "  --set KEY=VALUE      what if, as in kttune plan\n\n"
    "ID: threads.total, threads.nodeN, kernel.isa, kernel.gemv.FORMAT, kernel.gemm.FORMAT, pools,\n"
    "experts.gemv_rows.FORMAT, rows.share, pages, smt, tune.*, ctx, parallel, batch, kv.type, "
    "kv.tokens, memory.limit, "
    "gpu.node.gpuN.\n";

#define OPTIONS 32
#define BECAUSE 6 /* measurements that are listed one by one */

/* Settings that ktserve has an option for. values: words that it takes; NULL: a number. */
static const struct setting {
    const char *id, *option, *values, *def, *why;
} settings[] = {
    {"threads.total", "threads", NULL, NULL, ""},
    {"kernel.isa", "cpu-mask", " ref avx2 avxvnni avx512 avx512vnni amx ", NULL, ""},
    {"isa", "cpu-mask", " ref avx2 avxvnni avx512 avx512vnni amx ", NULL, ""},
    {"ctx", "ctx", NULL, NULL, ""},
    {"parallel", "parallel", NULL, "16", "sequences that run at once"},
    {"batch", "batch", NULL, "512", "most tokens in one step"},
    {"pools", "pools", NULL, NULL, ""},
    {"pages", "pages", " thp 4k hugetlb ", "thp", "huge pages are asked for, none are reserved"},
    {"smt", "smt", " off server on ", "off", "one worker per core"},
    {"kv.type", "kv-type", " bf16 f32 int8 ", "bf16", "half of fp32, and the step reads it"},
    {"kv.tokens", "kv-tokens", NULL, NULL, ""},
    {"memory.limit", "memory-limit", NULL, NULL, ""},
};
#define ROWS "experts.gemv_rows"
static const struct setting rows_setting = {ROWS, "gemv-rows", NULL, NULL, ""};

struct explain {
    const char *id, *model, *config;
    const char *option[OPTIONS];
    uint32_t n_option;
    struct plan_args host;
    bool color;
    bool won;
    struct strbuf out, why; /* the chain; the winner's reason */
};

static const struct setting *setting_of(const char *id)
{
    if (strncmp(id, ROWS, sizeof ROWS - 1) == 0)
        return &rows_setting;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (strcmp(settings[i].id, id) == 0)
            return &settings[i];
    return NULL;
}

/* One line of the chain. value NULL: this level says nothing, `text` says why. */
static void level(struct explain *e, const char *name, const char *value, const char *text)
{
    bool wins = value != NULL && !e->won;
    sb_printf(&e->out, "  %s%s %-14s %-26s%s %s%s%s\n", wins && e->color ? "\033[1m" : "",
              wins ? "->" : "  ", name, value != NULL ? value : "-", e->color ? "\033[0m" : "",
              e->color ? "\033[2m" : "", text, e->color ? "\033[0m" : "");
    if (wins) {
        e->won = true;
        sb_printf(&e->why, "%s = %s, by %s\n", e->id, value, name);
    }
}

/* ---- what the user says ---- */

static const char *flag_value(const struct explain *e, const char *option)
{
    size_t n = strlen(option);
    for (uint32_t i = 0; i < e->n_option; i++)
        if (strncmp(e->option[i], option, n) == 0 && e->option[i][n] == '=')
            return e->option[i] + n + 1;
    return NULL;
}

static void from_flag(struct explain *e, const char *option)
{
    char text[96];
    const char *v = flag_value(e, option);
    snprintf(text, sizeof text, v != NULL ? "--%s" : "--%s is not given", option);
    level(e, "command line", v, text);
}

static const char *environment_value(const char *option, char *name, size_t size)
{
    size_t n = (size_t)snprintf(name, size, "KTSERVE_");
    for (size_t i = 0; option[i] != '\0' && n + 1 < size; i++, n++)
        name[n] = (char)(option[i] == '-' ? '_' : toupper((unsigned char)option[i]));
    name[n] = '\0';
    return getenv(name);
}

static void from_environment(struct explain *e, const char *option)
{
    char name[64], text[96];
    const char *v = environment_value(option, name, sizeof name);
    snprintf(text, sizeof text, v != NULL ? "%s" : "%s is not set", name);
    level(e, "environment", v, text);
}

/* Lines "name = value"; '#' begins a comment. The last one counts. */
static bool config_value(const char *data, const char *option, char *out, size_t size)
{
    size_t n = strlen(option);
    bool found = false;
    for (const char *s = data; s != NULL && *s != '\0';) {
        const char *next = strchr(s, '\n');
        s += strspn(s, " \t");
        if (strncmp(s, option, n) == 0 && strspn(s + n, " \t=") > 0) {
            s += n + strspn(s + n, " \t=");
            size_t len = strcspn(s, "#\r\n");
            while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t'))
                len--;
            snprintf(out, size, "%.*s", (int)(len < 100 ? len : 100), s);
            found = true;
        }
        s = next != NULL ? next + 1 : NULL;
    }
    return found;
}

static const char *config_path(const struct explain *e)
{
    return e->config != NULL ? e->config : getenv("KTSERVE_CONFIG");
}

static kt_status from_config(struct explain *e, const char *option, kt_err *err)
{
    char *data, value[128], text[160];
    size_t len;
    const char *path = config_path(e);
    if (path == NULL) {
        level(e, "ktserve.conf", NULL, "no configuration file");
        return KT_OK;
    }
    KT_TRY(file_read(path, 1u << 20, &data, &len, err));
    bool found = config_value(data, option, value, sizeof value);
    snprintf(text, sizeof text, found ? "%.120s" : "%.120s does not name it", path);
    level(e, "ktserve.conf", found ? value : NULL, text);
    mem_free(data);
    return KT_OK;
}

/* The number that the user asked for with another option; 0 in any of them means the default. */
static double asked(const struct explain *e, const char *option, double by_default)
{
    char name[64], value[128] = "", *data;
    size_t len;
    const char *v = flag_value(e, option), *path = config_path(e);
    if (v == NULL)
        v = environment_value(option, name, sizeof name);
    if (v == NULL && path != NULL && file_read(path, 1u << 20, &data, &len, NULL) == KT_OK) {
        (void)config_value(data, option, value, sizeof value);
        mem_free(data);
        v = value;
    }
    double n = v != NULL ? strtod(v, NULL) : 0;
    return n > 0 ? n : by_default;
}

/* ---- what the profile and the planner say ---- */

static const json_t *entry(const struct profile *p, const char *section, const char *id)
{
    const json_t *a = p != NULL ? json_object_get(p->root, section) : NULL;
    for (size_t i = 0; i < json_array_size(a); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(a, i), "id")), id) == 0)
            return json_array_get(a, i);
    return NULL;
}

static void value_of(const json_t *d, char *out, size_t n)
{
    const json_t *v = json_object_get(d, "value");
    char *t = json_is_string(v) ? NULL : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    snprintf(out, n, "%.60s%s", t != NULL ? t : json_string_value(v),
             t != NULL && strlen(t) > 60 ? ".." : "");
    free(t);
}

static void because(const struct explain *e, const json_t *d, struct strbuf *out)
{
    const json_t *ids = json_object_get(d, "because");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        if (i == BECAUSE && json_array_size(ids) > BECAUSE + 1) {
            sb_printf(out, "      and %zu more; kttune show lists them\n",
                      json_array_size(ids) - i);
            return;
        }
        const json_t *m = entry(e->host.profile, "measurements", id);
        const char *unit = json_string_value(json_object_get(m, "unit"));
        char v[32] = "not measured";
        if (json_object_get(m, "median") != NULL)
            show_value(json_number_value(json_object_get(m, "median")),
                       unit != NULL ? unit : "count", v, sizeof v);
        sb_printf(out, "      because: %s = %s\n", id, v);
    }
}

/* What a data sheet states was not measured. */
static const char *origin_of(const struct explain *e, const char *origin)
{
    bool sheet = e->host.profile != NULL && e->host.profile->datasheet;
    return sheet && strcmp(origin, "measured") == 0 ? "from data sheets" : origin;
}

static void planned(struct explain *e, const struct plan_decision *d)
{
    sb_printf(&e->why, "      why: %s  (%s, confidence %s)\n", d->why, origin_of(e, d->origin),
              d->confidence);
    for (uint32_t i = 0; i < d->n_because; i++) {
        double v;
        sb_printf(&e->why, "      because: %s", d->because[i]);
        if (e->host.profile != NULL && profile_median(e->host.profile, d->because[i], &v))
            sb_printf(&e->why, " = %.4g", v);
        sb_putc(&e->why, '\n');
    }
    for (uint32_t i = 0; i < d->n_alternatives; i++)
        sb_printf(&e->why, "      runner-up: %s (%+.1f %% time%s)\n", d->alternatives[i].value,
                  100 * d->alternatives[i].loss,
                  d->alternatives[i].distinguishable ? "" : ", not distinguishable");
    for (uint32_t i = 0; i < d->n_would_change_if; i++)
        sb_printf(&e->why, "%s%s%s", i == 0 ? "      would change if: " : "; ",
                  d->would_change_if[i], i + 1 == d->n_would_change_if ? "\n" : "");
}

static const struct plan_decision *plan_row(const struct plan *p, const char *id)
{
    for (uint32_t i = 0; i < p->n_decisions; i++)
        if (strcmp(p->decisions[i].id, id) == 0)
            return &p->decisions[i];
    return NULL;
}

/* The row of a tuning for this setting; NULL when none was proved. */
static const struct plan_decision *tuned_row(const struct explain *e)
{
    const char *id = strcmp(e->id, "threads.total") == 0 ? "tune.threads"
                     : strcmp(e->id, "kernel.isa") == 0 || strcmp(e->id, "isa") == 0 ? "tune.kernel"
                     : strncmp(e->id, ROWS, sizeof ROWS - 1) == 0 ? "tune.gemv_rows"
                     : strcmp(e->id, "pages") == 0                ? "tune.pages"
                     : strcmp(e->id, "smt") == 0                  ? "tune.smt"
                     : strncmp(e->id, "tune.", 5) == 0            ? e->id
                                                                  : "";
    return plan_row(e->host.plan, id);
}

/* What kttune tune proved. */
static void from_tuning(struct explain *e)
{
    const struct plan_decision *t = tuned_row(e);
    char text[80];
    if (t == NULL) {
        level(e, "tuning", NULL,
              e->host.profile == NULL ? "no profile"
              : e->model == NULL      ? "tunings are of a model (-m)"
                                      : "none was proved for it");
        return;
    }
    size_t n = strlen(t->value_json), quoted = t->value_json[0] == '"';
    bool first = !e->won;
    snprintf(text, sizeof text, "%.*s", (int)(n - 2 * quoted), t->value_json + quoted);
    level(e, "tuning", text, t->why);
    if (first)
        planned(e, t);
}

/* A decision of the profile that measurements carry. */
static void from_profile(struct explain *e)
{
    const json_t *d = entry(e->host.profile, "decisions", e->id);
    const char *origin = json_string_value(json_object_get(d, "origin"));
    bool measured = origin != NULL && strcmp(origin, "measured") == 0, had = e->won;
    char value[80];
    if (!measured) {
        level(e, "profile", NULL,
              e->host.profile == NULL ? "no profile"
              : d == NULL             ? "has no measured value for it"
                                      : "its value is not a measured one");
        return;
    }
    value_of(d, value, sizeof value);
    level(e, "profile", value, "measured on this host");
    if (!had) {
        show_decision(d, e->color, &e->why);
        because(e, d, &e->why);
    }
}

/* The planner's own rows, and what only a model makes known. */
static void from_plan(struct explain *e, const struct plan_model *m)
{
    const char *id = strcmp(e->id, "kernel.isa") == 0 ? "isa" : e->id;
    const struct plan_decision *d = plan_row(e->host.plan, id);
    bool had = e->won;
    char value[80], why[200];
    if (strncmp(id, "tune.", 5) == 0) {
        level(e, "cost model", NULL, "does not decide it");
        return;
    }
    if (d != NULL) {
        size_t n = strlen(d->value_json);
        bool text = d->value_json[0] == '"' && n >= 2;
        snprintf(value, sizeof value, "%.*s%s",
                 (int)(text     ? n - 2
                       : n < 60 ? n
                                : 60),
                 d->value_json + text, n > 60 ? ".." : "");
        level(e, "cost model", value, origin_of(e, d->origin));
        if (!had)
            planned(e, d);
        return;
    }
    if (m != NULL && strcmp(e->id, "kv.tokens") == 0) {
        double room = m->kv_tokens_room > 0 ? m->kv_tokens_room : 0;
        double want = asked(e, "parallel", 16) * asked(e, "ctx", m->o.ctx_tokens);
        snprintf(value, sizeof value, "%.0f", fmin(room, want));
        if (want <= room)
            snprintf(why, sizeof why, "sequences x context; memory would take %.0f", room);
        else
            snprintf(why, sizeof why, "what weights (%.2f GB) leave of %.2f GB; %.0f would be used",
                     (m->need - m->places[0].kv) / 1e9, m->room / 1e9, want);
        level(e, "cost model", value, why);
        return;
    }
    bool gemv = strncmp(e->id, "kernel.gemv.", 12) == 0;
    if (m != NULL && (gemv || strncmp(e->id, "kernel.gemm.", 12) == 0)) {
        const char *k = gemv ? m->gemv : m->gemm, *format = e->id + 12;
        size_t n = strlen(format);
        if (strlen(k) > n + 5 && strncmp(k + 5, format, n) == 0 && k[n + 5] == '_')
            level(e, "cost model", k, gemv ? m->gemv_why : m->gemm_why);
        else
            level(e, "cost model", NULL, "the model's experts have another format");
        return;
    }
    if (strcmp(e->id, "rows.share") == 0) {
        level(e, "cost model", "[1]", "one pool has all rows");
        return;
    }
    level(e, "cost model", NULL,
          m == NULL ? "says nothing without a model (-m)" : "does not decide it");
}

/* What would run without a profile and without anybody's wish. */
static void from_default(struct explain *e, const struct setting *s, const struct plan_model *m)
{
    const struct plan *p = e->host.plan;
    char value[80] = "";
    const char *why = "none";
    int t = strncmp(e->id, "kernel.gem", 10) == 0 && strlen(e->id) > 12 ? dtype_by_name(e->id + 12)
                                                                        : -1;
    if (s != NULL && s->def != NULL) {
        snprintf(value, sizeof value, "%s", s->def);
        why = s->why;
    } else if (strcmp(e->id, "ctx") == 0) {
        snprintf(value, sizeof value, "%u", m != NULL ? m->o.ctx_tokens : 8192);
        why = m != NULL ? "the model's context, at most 8192 tokens"
                        : "or the model's context, where that is shorter";
    } else if (strncmp(e->id, "tune.", 5) == 0) {
        why = "the engine's own rule";
    } else if (t >= 0) {
        enum kern_op op = e->id[10] == 'm' ? KERN_GEMM : KERN_GEMV;
        const struct kern *k = kern_find(op, t, p->isa, NULL);
        snprintf(value, sizeof value, "%s", k != NULL ? k->name : "");
        why = k != NULL ? "highest rank that this CPU runs" : "this version has no kernel for it";
    } else if (strncmp(e->id, ROWS ".", sizeof ROWS) == 0) {
        int format = dtype_by_name(e->id + sizeof ROWS);
        const struct kern *k = format >= 0 ? kern_find(KERN_GEMV, format, p->isa, NULL) : NULL;
        if (k != NULL)
            snprintf(value, sizeof value, "%u", k->tok_tile);
        why = k != NULL ? "tokens of the kernel's own tile" : "this version has no kernel for it";
    } else if (strcmp(e->id, "kernel.isa") == 0 || strcmp(e->id, "isa") == 0) {
        snprintf(value, sizeof value, "%s", kern_isa_level_name(p->isa));
        why = "highest level of this CPU";
    } else if (strcmp(e->id, "threads.total") == 0) {
        snprintf(value, sizeof value, "%u", e->host.host->limits.cores_budget);
        why = "cores that limits leave";
    } else if (s != NULL) {
        why = "what the host leaves";
    }
    for (uint32_t i = 0; i < p->n_pools; i++) {
        char id[48];
        snprintf(id, sizeof id, "threads.node%d", p->pools[i].node);
        if (strcmp(id, e->id) != 0)
            continue;
        snprintf(value, sizeof value, "%u", p->pools[i].n_cpus);
        why = "one per core of the pool";
    }
    level(e, "default", value[0] != '\0' ? value : NULL, why);
}

/* ---- */

static void unknown(const struct explain *e)
{
    fprintf(stderr, "kttune explain: nothing is known as '%s'; there are:\n", e->id);
    for (uint32_t i = 0; i < e->host.plan->n_decisions; i++)
        fprintf(stderr, "  %s\n", e->host.plan->decisions[i].id);
    const json_t *a =
        e->host.profile != NULL ? json_object_get(e->host.profile->root, "decisions") : NULL;
    for (size_t i = 0; i < json_array_size(a); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(a, i), "id"));
        if (plan_row(e->host.plan, id) == NULL)
            fprintf(stderr, "  %s\n", id);
    }
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (plan_row(e->host.plan, settings[i].id) == NULL &&
            entry(e->host.profile, "decisions", settings[i].id) == NULL)
            fprintf(stderr, "  %s\n", settings[i].id);
}

/* Ids that have a chain although neither plan nor profile may hold a row of them. */
static bool is_known(const struct explain *e)
{
    static const char *const axes[] = {"threads", "kernel",    "claim_rows",
                                       "spin_us", "gemv_rows", "gemm_claim_rows",
                                       "pages",   "smt",       "pools"};
    const char *id = e->id;
    if (strncmp(id, "kernel.gemv.", 12) == 0 || strncmp(id, "kernel.gemm.", 12) == 0)
        return dtype_by_name(id + 12) >= 0;
    for (size_t i = 0; strncmp(id, "tune.", 5) == 0 && i < sizeof axes / sizeof axes[0]; i++)
        if (strcmp(id + 5, axes[i]) == 0)
            return true;
    return setting_of(id) != NULL || plan_row(e->host.plan, id) != NULL ||
           entry(e->host.profile, "decisions", id) != NULL || strcmp(id, "rows.share") == 0;
}

static kt_status chain(struct explain *e, const struct plan_model *m, kt_err *err)
{
    const struct setting *s = setting_of(e->id);
    sb_printf(&e->out, "%s%s%s\n", e->color ? "\033[1m" : "", e->id, e->color ? "\033[0m" : "");
    if (s != NULL) {
        from_flag(e, s->option);
        from_environment(e, s->option);
    }
    from_tuning(e);
    if (s != NULL)
        KT_TRY(from_config(e, s->option, err));
    from_profile(e);
    from_plan(e, m);
    from_default(e, s, m);
    return KT_OK;
}

static int print(struct explain *e)
{
    struct strbuf *b[2] = {&e->out, &e->why};
    bool ok = true;
    for (int i = 0; i < 2; i++)
        ok = ok && sb_ok(b[i]) &&
             (b[i]->len == 0 || fwrite(b[i]->data, 1, b[i]->len, stdout) == b[i]->len);
    return ok && fflush(stdout) == 0 ? EXIT_OK : EXIT_USAGE;
}

static int run(struct explain *e)
{
    struct shape *s = NULL;
    struct plan_model *m = NULL;
    struct plan_model_opts o;
    kt_err err = {0};
    int code = EXIT_OK;
    plan_model_opts_init(&o);
    if (e->model != NULL && shape_open(e->model, NULL, NULL, &s, &err) != KT_OK)
        return cmd_fail("explain", &err, 1);
    e->host.shape = s;
    e->host.rules_only = true;
    if (plan_args_open(&e->host, &err) != KT_OK ||
        (s != NULL &&
         plan_model(s, e->host.host, e->host.plan, e->host.profile, &o, &m, &err) != KT_OK)) {
        code = cmd_fail("explain", &err, 0);
    } else if (!is_known(e)) {
        unknown(e);
        code = EXIT_USAGE;
    } else if (chain(e, m, &err) != KT_OK) {
        code = cmd_fail("explain", &err, 0);
    } else {
        code = print(e);
    }
    sb_free(&e->out);
    sb_free(&e->why);
    plan_model_free(m);
    plan_args_close(&e->host);
    shape_close(s);
    return code;
}

/* NAME=VALUE as ktserve would take it; else says what is wrong. */
static bool option_is_good(const char *text)
{
    const char *equals = strchr(text, '=');
    size_t n = equals != NULL ? (size_t)(equals - text) : strlen(text);
    const struct setting *s = NULL;
    uint32_t v;
    char word[64];
    for (size_t i = 0; i <= sizeof settings / sizeof settings[0]; i++) {
        const struct setting *t =
            i < sizeof settings / sizeof settings[0] ? &settings[i] : &rows_setting;
        if (strlen(t->option) == n && strncmp(t->option, text, n) == 0)
            s = t;
    }
    if (s == NULL || equals == NULL) {
        fprintf(stderr,
                "kttune explain: --option %s: expected NAME=VALUE with one of threads, cpu-mask, "
                "ctx, parallel, batch, pools, pages, smt, kv-type, kv-tokens, memory-limit, "
                "gemv-rows\n",
                text);
        return false;
    }
    snprintf(word, sizeof word, " %s ", equals + 1);
    if (s->values != NULL ? strstr(s->values, word) == NULL
                          : !cmd_number(equals + 1, 0, UINT32_MAX, &v)) {
        fprintf(stderr, "kttune explain: --option %s: expected %s\n", text,
                s->values != NULL ? s->values + 1 : "a number");
        return false;
    }
    return true;
}

/* One option with a value; false: not one of ours. */
static bool option(struct explain *e, const char *name, const char *value)
{
    if (strcmp(name, "--profile") == 0)
        e->host.profile_path = value;
    else if (strcmp(name, "--topology") == 0)
        e->host.topology = value;
    else if (strcmp(name, "-m") == 0 || strcmp(name, "--model") == 0)
        e->model = value;
    else if (strcmp(name, "--config") == 0)
        e->config = value;
    else if (strcmp(name, "--option") == 0 && e->n_option < OPTIONS)
        e->option[e->n_option++] = value;
    else if (strcmp(name, "--set") == 0 && e->host.n_set < PLAN_SETS)
        e->host.set[e->host.n_set++] = value;
    else
        return false;
    return true;
}

int cmd_explain(int argc, char **argv)
{
    struct explain e = {.color = isatty(STDOUT_FILENO) == 1};
    plan_args_init(&e.host);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (argv[i][0] != '-' && e.id == NULL) {
            e.id = argv[i];
        } else if (i + 1 < argc && option(&e, argv[i], argv[i + 1])) {
            i++;
        } else {
            fprintf(stderr, "kttune explain: unexpected '%s'\n%s", argv[i], help);
            return EXIT_USAGE;
        }
    }
    if (e.id == NULL)
        return cmd_usage("explain", "ID is missing", NULL);
    for (uint32_t i = 0; i < e.n_option; i++)
        if (!option_is_good(e.option[i]))
            return EXIT_USAGE;
    if (e.host.profile_path == NULL && e.host.topology == NULL)
        e.host.profile_path = "host.json";
    return run(&e);
}
