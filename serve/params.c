/* params.c - the table of request fields and its range checks.
 * Integers are accepted as JSON integers, or as reals without a fraction; booleans only as
 * booleans. Out-of-range answers name the field, the range and the value. Fields that need more
 * than a number (lists, objects) are P_CUSTOM and read by the mapper. Pure; any thread.
 */
#include "serve/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BOTH (KTS_CHAT | KTS_COMPLETION)
#define AT(field) offsetof(struct kts_req, field)
#define SEED_MAX 9223372036854775807.0

/* clang-format off */
const struct param param_table[] = {
    /* name, aliases, apis, type, use, open, min, max, default, field */
    {"model", NULL, BOTH, P_CUSTOM, P_USED, false, 0, 0, "the served model", PARAM_NONE},
    {"messages", NULL, KTS_CHAT, P_CUSTOM, P_USED, false, 0, 0, "required", PARAM_NONE},
    {"prompt", NULL, KTS_COMPLETION, P_CUSTOM, P_USED, false, 0, 0, "required", PARAM_NONE},
    {"max_tokens", "max_completion_tokens", BOTH, P_INT, P_USED, false, -1, 2147483647, "-1", AT(max_tokens)},
    {"min_tokens", "min_new_tokens", BOTH, P_INT, P_USED, false, 0, 2147483647, "0", AT(min_tokens)},
    {"temperature", NULL, BOTH, P_NUM, P_USED, false, 0, 5, "the model's, else 1", AT(temperature)},
    {"top_k", NULL, BOTH, P_INT, P_USED, false, -1, 2147483647, "the model's, else -1 (off)", AT(top_k)},
    {"top_p", NULL, BOTH, P_NUM, P_USED, true, 0, 1, "the model's, else 1", AT(top_p)},
    {"min_p", NULL, BOTH, P_NUM, P_USED, false, 0, 1, "0", AT(min_p)},
    {"repetition_penalty", "repeat_penalty", BOTH, P_NUM, P_USED, true, 0, 2, "1", AT(repetition_penalty)},
    {"repeat_last_n", NULL, BOTH, P_INT, P_USED, false, -1, 2147483647, "64", AT(repeat_last_n)},
    {"presence_penalty", NULL, BOTH, P_NUM, P_USED, false, -2, 2, "0", AT(presence_penalty)},
    {"frequency_penalty", NULL, BOTH, P_NUM, P_USED, false, -2, 2, "0", AT(frequency_penalty)},
    {"logit_bias", NULL, BOTH, P_CUSTOM, P_USED, false, -100, 100, "none", PARAM_NONE},
    {"seed", "sampling_seed", BOTH, P_INT, P_USED, false, -1, SEED_MAX, "-1 (random)", AT(seed)},
    {"n", NULL, BOTH, P_INT, P_USED, false, 1, 8, "1", AT(n)},
    {"best_of", NULL, KTS_COMPLETION, P_INT, P_USED, false, 1, 8, "n", AT(best_of)},
    {"stop", NULL, BOTH, P_CUSTOM, P_USED, false, 0, 0, "none", PARAM_NONE},
    {"stop_token_ids", NULL, BOTH, P_CUSTOM, P_USED, false, 0, 0, "none", PARAM_NONE},
    {"ignore_eos", NULL, BOTH, P_BOOL, P_USED, false, 0, 0, "false", AT(ignore_eos)},
    {"logprobs", NULL, BOTH, P_CUSTOM, P_USED, false, 0, 5, "off", PARAM_NONE},
    {"top_logprobs", NULL, KTS_CHAT, P_CUSTOM, P_USED, false, 0, 20, "0", PARAM_NONE},
    {"echo", NULL, KTS_COMPLETION, P_BOOL, P_USED, false, 0, 0, "false", AT(echo)},
    {"stream", NULL, BOTH, P_BOOL, P_USED, false, 0, 0, "false", AT(stream)},
    {"stream_options", NULL, BOTH, P_CUSTOM, P_USED, false, 0, 0, "none", PARAM_NONE},
    {"priority", NULL, BOTH, P_INT, P_ACCEPTED, false, -10, 10, "0", PARAM_NONE},
    {"cache_prompt", NULL, BOTH, P_BOOL, P_ACCEPTED, false, 0, 0, "true", PARAM_NONE},
    {"parallel_tool_calls", NULL, KTS_CHAT, P_BOOL, P_ACCEPTED, false, 0, 0, "true", PARAM_NONE},
    {"typical_p", "typ_p", BOTH, P_NUM, P_UNSUPPORTED, true, 0, 1, "1", PARAM_NONE},
    {"top_n_sigma", NULL, BOTH, P_NUM, P_UNSUPPORTED, false, -1, 100, "-1", PARAM_NONE},
    {"xtc_probability", NULL, BOTH, P_NUM, P_UNSUPPORTED, false, 0, 1, "0", PARAM_NONE},
    {"dry_multiplier", NULL, BOTH, P_NUM, P_UNSUPPORTED, false, 0, 5, "0", PARAM_NONE},
    {"mirostat", NULL, BOTH, P_INT, P_UNSUPPORTED, false, 0, 2, "0", PARAM_NONE},
    {"dynatemp_range", NULL, BOTH, P_NUM, P_UNSUPPORTED, false, 0, 5, "0", PARAM_NONE},
    {"return_progress", NULL, BOTH, P_BOOL, P_UNSUPPORTED, false, 0, 0, "false", PARAM_NONE},
    {"timings_per_token", NULL, BOTH, P_BOOL, P_UNSUPPORTED, false, 0, 0, "false", PARAM_NONE},
    {"continue_final_message", NULL, KTS_CHAT, P_BOOL, P_UNSUPPORTED, false, 0, 0, "false", PARAM_NONE},
    {"response_format", NULL, KTS_CHAT, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "text", PARAM_NONE},
    {"grammar", NULL, BOTH, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"regex", NULL, BOTH, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"samplers", NULL, BOTH, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"suffix", NULL, KTS_COMPLETION, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"tools", NULL, KTS_CHAT, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"tool_choice", NULL, KTS_CHAT, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
    {"chat_template_kwargs", NULL, KTS_CHAT, P_CUSTOM, P_UNSUPPORTED, false, 0, 0, "none", PARAM_NONE},
};
/* clang-format on */
const size_t param_count = sizeof param_table / sizeof param_table[0];

static bool alias_is(const char *aliases, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = aliases; s != NULL; s = strchr(s, ' ')) {
        s += *s == ' ';
        if (strncmp(s, name, n) == 0 && (s[n] == ' ' || s[n] == '\0'))
            return true;
    }
    return false;
}

const struct param *param_find(const char *name, enum kts_api api)
{
    for (size_t i = 0; i < param_count; i++) {
        const struct param *p = &param_table[i];
        if ((p->apis & api) && (strcmp(p->name, name) == 0 || alias_is(p->aliases, name)))
            return p;
    }
    return NULL;
}

static const char *json_kind(const json_t *v)
{
    static const char *const kind[] = {"an object", "an array", "a string", "an integer",
                                       "a number",  "true",     "false",    "null"};
    return kind[json_typeof(v)];
}

/* The value as it is shown in a refusal: shortest text. */
static void show(double v, char *buf, size_t n)
{
    if (v == floor(v) && fabs(v) < 1e15)
        snprintf(buf, n, "%.0f", v);
    else
        snprintf(buf, n, "%.6g", v);
}

static int out_of_range(const struct param *p, const char *name, const json_t *v,
                        struct kts_fail *f)
{
    char lo[32], hi[32], got[32];
    show(p->min, lo, sizeof lo);
    if (p->max >= SEED_MAX)
        snprintf(hi, sizeof hi, "9223372036854775807");
    else
        show(p->max, hi, sizeof hi);
    if (json_is_integer(v))
        snprintf(got, sizeof got, "%lld", (long long)json_integer_value(v));
    else
        show(json_number_value(v), got, sizeof got);
    return kts_fail_set(f, 400, "out_of_range", name,
                        p->open_min ? "%s must be above %s and at most %s, got %s"
                                    : "%s must be between %s and %s, got %s",
                        name, lo, hi, got);
}

static int store_number(const struct param *p, const char *name, const json_t *v, struct kts_req *r,
                        struct kts_fail *f)
{
    double d = json_number_value(v);
    if (!json_is_number(v) ||
        (p->type == P_INT && json_is_real(v) && (d != floor(d) || fabs(d) > 9e15))) {
        if (json_is_real(v) && fabs(d) > 9e15)
            return out_of_range(p, name, v, f);
        return kts_fail_set(f, 400, "invalid_type", name, "%s must be %s, got %s", name,
                            p->type == P_INT ? "an integer" : "a number", json_kind(v));
    }
    bool low = p->open_min ? d <= p->min : d < p->min;
    if (low || !(d <= p->max))
        return out_of_range(p, name, v, f);
    if (p->use == P_UNSUPPORTED && strcmp(p->def, d == -1  ? "-1"
                                                  : d == 0 ? "0"
                                                  : d == 1 ? "1"
                                                           : "") != 0)
        return kts_fail_set(
            f, 501, "not_supported", name,
            "%s is not available in this version; leave it out or send its default %s", name,
            p->def);
    if (p->offset != PARAM_NONE) {
        char *at = (char *)r + p->offset;
        int64_t i = json_is_integer(v) ? (int64_t)json_integer_value(v)
                                       : (int64_t)(p->type == P_INT ? d : 0);
        if (p->type == P_INT)
            memcpy(at, &i, sizeof i);
        else
            memcpy(at, &d, sizeof d);
    }
    return 0;
}

int param_store(const struct param *p, const char *name, const json_t *v, struct kts_req *r,
                struct kts_fail *f)
{
    if (json_is_null(v) || p->type == P_CUSTOM)
        return 0;
    if (p->type != P_BOOL)
        return store_number(p, name, v, r, f);
    if (!json_is_boolean(v))
        return kts_fail_set(f, 400, "invalid_type", name, "%s must be true or false, got %s", name,
                            json_kind(v));
    if (p->use == P_UNSUPPORTED && json_is_true(v))
        return kts_fail_set(f, 501, "not_supported", name,
                            "%s is not available in this version; leave it out or send false",
                            name);
    if (p->offset != PARAM_NONE)
        *((bool *)((char *)r + p->offset)) = json_is_true(v);
    return 0;
}
