/* mapper_openai.c - request JSON of the OpenAI APIs to kts_req.
 * Every known field is checked for type and range (params.c has the numbers, this file the lists
 * and objects); null means absent. Fields that exist in the API but not in this version are refused
 * with 501 unless they ask for nothing. Unknown fields are accepted and counted. Pure: no clocks,
 * no globals.
 */
#include "serve/mapper_openai.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "serve/json_in.h"
#include "serve/params.h"

#define MAX_MESSAGES 4096
#define MAX_PARTS 1024
#define MAX_STOPS 16
#define MAX_STOP_BYTES 256
#define MAX_BIAS 1024
#define MAX_STOP_IDS 256
#define MAX_PROMPTS 64
#define MAX_CHOICES 64

struct mapper {
    const struct kts_limits *lim;
    struct kts_req *r;
    struct kts_fail *f;
    bool logprobs_flag;
    int64_t top_logprobs; /* -1: absent */
};

static int no_memory(struct kts_fail *f)
{
    return kts_fail_set(f, 503, "overloaded", NULL, "no memory for this request");
}

static int wrong_type(struct kts_fail *f, const char *param, const char *want)
{
    return kts_fail_set(f, 400, "invalid_type", param, "%s must be %s", param, want);
}

/* ---- messages ---- */

static int join_parts(struct mapper *m, const json_t *parts, size_t at, const char **out)
{
    char where[80];
    size_t n = json_array_size(parts), total = 0;
    if (n > MAX_PARTS)
        return kts_fail_set(m->f, 400, "out_of_range", "messages",
                            "messages[%zu].content has %zu parts, the limit is %d", at, n,
                            MAX_PARTS);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(parts, i), *text = json_object_get(p, "text");
        const char *type = json_string_value(json_object_get(p, "type"));
        snprintf(where, sizeof where, "messages[%zu].content[%zu]", at, i);
        if (type == NULL || strcmp(type, "text") != 0)
            return kts_fail_set(m->f, 400, "invalid_value", where,
                                "%s: only parts of type text can be read by this model", where);
        if (!json_is_string(text))
            return wrong_type(m->f, where, "a part with a string in text");
        total += json_string_length(text);
    }
    char *joined = kts_req_alloc(m->r, total + 1, 1);
    if (joined == NULL)
        return no_memory(m->f);
    *out = joined;
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        memcpy(joined, json_string_value(text), json_string_length(text));
        joined += json_string_length(text);
    }
    return 0;
}

static const char *role_of(const char *name)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    if (name != NULL && strcmp(name, "developer") == 0)
        return "system";
    for (size_t i = 0; name != NULL && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(name, roles[i]) == 0)
            return roles[i];
    return NULL;
}

static int read_message(struct mapper *m, const json_t *msg, size_t at)
{
    char where[80];
    kt_chat_message *out = &m->r->messages[at];
    const json_t *content = json_object_get(msg, "content"),
                 *calls = json_object_get(msg, "tool_calls");
    snprintf(where, sizeof where, "messages[%zu]", at);
    if (!json_is_object(msg))
        return wrong_type(m->f, where, "an object");
    out->role = role_of(json_string_value(json_object_get(msg, "role")));
    snprintf(where, sizeof where, "messages[%zu].role", at);
    if (out->role == NULL)
        return kts_fail_set(m->f, 400, "invalid_value", where,
                            "%s must be system, developer, user, assistant or tool", where);
    if (json_is_array(calls) && json_array_size(calls) > 0)
        return kts_fail_set(
            m->f, 501, "not_supported", "messages",
            "messages[%zu].tool_calls: tool calls are not available in this version", at);
    snprintf(where, sizeof where, "messages[%zu].content", at);
    if (json_is_string(content))
        out->content = json_string_value(content);
    else if (json_is_array(content))
        return join_parts(m, content, at, &out->content);
    else
        return wrong_type(m->f, where, "a string or an array of text parts");
    return 0;
}

static int read_messages(struct mapper *m, const json_t *v)
{
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0)
        return wrong_type(m->f, "messages", "an array with at least one message");
    if (n > MAX_MESSAGES)
        return kts_fail_set(m->f, 400, "out_of_range", "messages",
                            "messages has %zu entries, the limit is %d", n, MAX_MESSAGES);
    m->r->messages = kts_req_alloc(m->r, n, sizeof *m->r->messages);
    if (m->r->messages == NULL)
        return no_memory(m->f);
    m->r->n_messages = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        if (read_message(m, json_array_get(v, i), i) != 0)
            return -1;
    return 0;
}

/* ---- token ids, prompts ---- */

static int read_ids(struct mapper *m, const json_t *v, const char *param, int32_t **out,
                    size_t *n_out)
{
    size_t n = json_array_size(v);
    int32_t *ids = kts_req_alloc(m->r, n, sizeof *ids);
    if (ids == NULL)
        return no_memory(m->f);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(v, i);
        if (!json_is_integer(e))
            return wrong_type(m->f, param, "an array of token ids");
        json_int_t id = json_integer_value(e);
        if (id < 0 || id >= (json_int_t)m->lim->vocab)
            return kts_fail_set(m->f, 400, "out_of_range", param,
                                "%s[%zu] must be between 0 and %u, got %lld", param, i,
                                m->lim->vocab - 1, (long long)id);
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n_out = n;
    return 0;
}

static int read_prompt(struct mapper *m, const json_t *v, struct kts_text *out)
{
    if (json_is_string(v)) {
        out->text = json_string_value(v);
        out->len = json_string_length(v);
        return 0;
    }
    int32_t *ids;
    if (!json_is_array(v) || json_array_size(v) == 0)
        return wrong_type(m->f, "prompt", "a string, an array of token ids, or an array of either");
    if (read_ids(m, v, "prompt", &ids, &out->n_ids) != 0)
        return -1;
    out->ids = ids;
    return 0;
}

static int read_prompts(struct mapper *m, const json_t *v)
{
    bool many = json_is_array(v) &&
                (json_is_string(json_array_get(v, 0)) || json_is_array(json_array_get(v, 0)));
    size_t n = many ? json_array_size(v) : 1;
    if (n > MAX_PROMPTS)
        return kts_fail_set(m->f, 400, "out_of_range", "prompt",
                            "prompt has %zu entries, the limit is %d", n, MAX_PROMPTS);
    m->r->prompts = kts_req_alloc(m->r, n, sizeof *m->r->prompts);
    if (m->r->prompts == NULL)
        return no_memory(m->f);
    m->r->n_prompts = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        if (read_prompt(m, many ? json_array_get(v, i) : v, &m->r->prompts[i]) != 0)
            return -1;
    return 0;
}

/* ---- stop, bias, log probabilities ---- */

static int read_stop(struct mapper *m, const json_t *v)
{
    bool one = json_is_string(v);
    size_t n = one ? 1 : json_array_size(v);
    if (!one && !json_is_array(v))
        return wrong_type(m->f, "stop", "a string or an array of strings");
    if (n > MAX_STOPS)
        return kts_fail_set(m->f, 400, "out_of_range", "stop",
                            "stop has %zu strings, the limit is %d", n, MAX_STOPS);
    m->r->stop = kts_req_alloc(m->r, n, sizeof *m->r->stop);
    m->r->stop_len = kts_req_alloc(m->r, n, sizeof *m->r->stop_len);
    if (m->r->stop == NULL || m->r->stop_len == NULL)
        return no_memory(m->f);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = one ? v : json_array_get(v, i);
        if (!json_is_string(s))
            return wrong_type(m->f, "stop", "a string or an array of strings");
        if (json_string_length(s) < 1 || json_string_length(s) > MAX_STOP_BYTES)
            return kts_fail_set(m->f, 400, "out_of_range", "stop",
                                "a stop string must have between 1 and %d bytes, got %zu",
                                MAX_STOP_BYTES, json_string_length(s));
        m->r->stop[i] = json_string_value(s);
        m->r->stop_len[i] = (uint32_t)json_string_length(s);
    }
    m->r->n_stop = (uint32_t)n;
    return 0;
}

static int read_stop_ids(struct mapper *m, const json_t *v)
{
    size_t n = json_array_size(v);
    if (!json_is_array(v))
        return wrong_type(m->f, "stop_token_ids", "an array of token ids");
    if (n > MAX_STOP_IDS)
        return kts_fail_set(m->f, 400, "out_of_range", "stop_token_ids",
                            "stop_token_ids has %zu entries, the limit is %d", n, MAX_STOP_IDS);
    if (read_ids(m, v, "stop_token_ids", &m->r->stop_ids, &n) != 0)
        return -1;
    m->r->n_stop_ids = (uint32_t)n;
    return 0;
}

static int add_bias(struct mapper *m, int64_t id, const json_t *v)
{
    double b = json_is_false(v) ? -HUGE_VAL : json_number_value(v);
    if (id < 0 || id >= (int64_t)m->lim->vocab)
        return kts_fail_set(m->f, 400, "out_of_range", "logit_bias",
                            "logit_bias: token ids are between 0 and %u", m->lim->vocab - 1);
    if (!json_is_false(v) && (!json_is_number(v) || !(b >= -100 && b <= 100)))
        return kts_fail_set(m->f, 400, "out_of_range", "logit_bias",
                            "logit_bias values must be false or between -100 and 100");
    m->r->bias[m->r->n_bias].id = (int32_t)id;
    m->r->bias[m->r->n_bias++].bias = (float)b;
    return 0;
}

/* A decimal id without sign or leading space; -1 for anything else. */
static int64_t id_of_key(const char *s)
{
    int64_t v = 0;
    if (*s == '\0')
        return -1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || v > 2147483647)
            return -1;
        v = v * 10 + (*s - '0');
    }
    return v;
}

static int read_bias(struct mapper *m, json_t *v)
{
    size_t n = json_is_object(v) ? json_object_size(v) : json_array_size(v), i;
    const char *key;
    json_t *e;
    if (!json_is_object(v) && !json_is_array(v))
        return wrong_type(m->f, "logit_bias",
                          "an object from token id to bias, or an array of pairs");
    if (n > MAX_BIAS)
        return kts_fail_set(m->f, 400, "out_of_range", "logit_bias",
                            "logit_bias has %zu entries, the limit is %d", n, MAX_BIAS);
    m->r->bias = kts_req_alloc(m->r, n, sizeof *m->r->bias);
    if (m->r->bias == NULL)
        return no_memory(m->f);
    if (json_is_object(v)) {
        json_object_foreach(v, key, e) if (add_bias(m, id_of_key(key), e) != 0) return -1;
        return 0;
    }
    json_array_foreach(v, i, e)
    {
        const json_t *id = json_array_get(e, 0);
        if (json_array_size(e) != 2 || !json_is_integer(id))
            return wrong_type(m->f, "logit_bias",
                              "an object from token id to bias, or an array of pairs");
        if (add_bias(m, json_integer_value(id), json_array_get(e, 1)) != 0)
            return -1;
    }
    return 0;
}

static int read_count(struct mapper *m, const char *name, const json_t *v, int64_t max,
                      int64_t *out)
{
    if (!json_is_integer(v))
        return wrong_type(m->f, name, "an integer");
    *out = json_integer_value(v);
    if (*out < 0 || *out > max)
        return kts_fail_set(m->f, 400, "out_of_range", name,
                            "%s must be between 0 and %lld, got %lld", name, (long long)max,
                            (long long)*out);
    return 0;
}

static int read_logprobs(struct mapper *m, const json_t *v)
{
    if (m->r->api == KTS_COMPLETION)
        return read_count(m, "logprobs", v, 5, &m->r->n_logprobs);
    if (!json_is_boolean(v))
        return wrong_type(m->f, "logprobs", "true or false");
    m->logprobs_flag = json_is_true(v);
    return 0;
}

static int read_stream_options(struct mapper *m, const json_t *v)
{
    static const char *const names[] = {"include_usage", "continuous_usage_stats"};
    bool *const to[] = {&m->r->include_usage, &m->r->continuous_usage};
    if (!json_is_object(v))
        return wrong_type(m->f, "stream_options", "an object");
    for (int i = 0; i < 2; i++) {
        const json_t *e = json_object_get(v, names[i]);
        if (e == NULL || json_is_null(e))
            continue;
        if (!json_is_boolean(e))
            return kts_fail_set(m->f, 400, "invalid_type", "stream_options",
                                "stream_options.%s must be true or false", names[i]);
        *to[i] = json_is_true(e);
    }
    return 0;
}

static int read_model(struct mapper *m, const json_t *v)
{
    if (!json_is_string(v))
        return wrong_type(m->f, "model", "a string");
    if (strcmp(json_string_value(v), m->lim->model_id) != 0 && !m->lim->accept_any_model)
        return kts_fail_set(
            m->f, 404, "model_not_found", "model",
            "The model '%.200s' does not exist here; /v1/models lists the one that is served",
            json_string_value(v));
    return 0;
}

/* Fields of later versions: fine when they ask for nothing. */
static int refuse_unless_idle(struct mapper *m, const char *name, const json_t *v)
{
    const json_t *type = json_object_get(v, "type");
    if (strcmp(name, "response_format") == 0 && json_is_string(type) &&
        strcmp(json_string_value(type), "text") == 0)
        return 0;
    if (json_is_string(v) &&
        (json_string_length(v) == 0 || strcmp(json_string_value(v), "none") == 0 ||
         strcmp(json_string_value(v), "auto") == 0))
        return 0;
    if ((json_is_array(v) && json_array_size(v) == 0) ||
        (json_is_object(v) && json_object_size(v) == 0))
        return 0;
    if (strcmp(name, "suffix") == 0)
        return kts_fail_set(m->f, 400, "invalid_value", name,
                            "suffix needs a model with fill-in tokens; this model has none");
    return kts_fail_set(m->f, 501, "not_supported", name,
                        "%s is not available in this version; leave it out", name);
}

static int read_custom(struct mapper *m, const char *name, json_t *v)
{
    if (strcmp(name, "model") == 0)
        return read_model(m, v);
    if (strcmp(name, "messages") == 0)
        return read_messages(m, v);
    if (strcmp(name, "prompt") == 0)
        return read_prompts(m, v);
    if (strcmp(name, "stop") == 0)
        return read_stop(m, v);
    if (strcmp(name, "stop_token_ids") == 0)
        return read_stop_ids(m, v);
    if (strcmp(name, "logit_bias") == 0)
        return read_bias(m, v);
    if (strcmp(name, "logprobs") == 0)
        return read_logprobs(m, v);
    if (strcmp(name, "top_logprobs") == 0)
        return read_count(m, name, v, 20, &m->top_logprobs);
    if (strcmp(name, "stream_options") == 0)
        return read_stream_options(m, v);
    return refuse_unless_idle(m, name, v);
}

static void set_defaults(struct kts_req *r, const struct kts_limits *lim)
{
    r->temperature = (double)lim->defaults.temperature;
    r->top_k = lim->defaults.top_k > 0 ? lim->defaults.top_k : -1;
    r->top_p = (double)lim->defaults.top_p;
    r->min_p = (double)lim->defaults.min_p;
    r->repetition_penalty = 1;
    r->repeat_last_n = 64;
    r->seed = -1;
    r->n = 1;
    r->max_tokens = -1;
    r->n_logprobs = -1;
}

/* Rules between fields. */
static int check_together(struct mapper *m)
{
    struct kts_req *r = m->r;
    if (r->api == KTS_CHAT ? r->messages == NULL : r->prompts == NULL)
        return kts_fail_set(m->f, 400, "missing", r->api == KTS_CHAT ? "messages" : "prompt",
                            "%s is required", r->api == KTS_CHAT ? "messages" : "prompt");
    if (m->top_logprobs >= 0 && !m->logprobs_flag)
        return kts_fail_set(m->f, 400, "invalid_value", "top_logprobs",
                            "top_logprobs needs logprobs: true");
    if (m->logprobs_flag)
        r->n_logprobs = m->top_logprobs > 0 ? m->top_logprobs : 0;
    if (r->max_tokens == 0 && !r->echo)
        return kts_fail_set(
            m->f, 400, "out_of_range", "max_tokens",
            "max_tokens must be -1 or between 1 and 2147483647, got 0 (0 is for echo only)");
    if (r->top_k > (int64_t)m->lim->vocab)
        return kts_fail_set(m->f, 400, "out_of_range", "top_k",
                            "top_k must be between -1 and %u, got %lld", m->lim->vocab,
                            (long long)r->top_k);
    if (r->max_tokens >= 0 && r->min_tokens > r->max_tokens)
        return kts_fail_set(m->f, 400, "out_of_range", "min_tokens",
                            "min_tokens must be between 0 and max_tokens (%lld), got %lld",
                            (long long)r->max_tokens, (long long)r->min_tokens);
    if (r->best_of == 0)
        r->best_of = r->n;
    if (r->best_of < r->n)
        return kts_fail_set(m->f, 400, "out_of_range", "best_of",
                            "best_of must be at least n (%lld), got %lld", (long long)r->n,
                            (long long)r->best_of);
    if (r->stream && r->best_of > r->n)
        return kts_fail_set(m->f, 400, "invalid_value", "best_of",
                            "best_of above n cannot be streamed");
    if (r->api == KTS_COMPLETION && r->n_prompts * r->best_of > MAX_CHOICES)
        return kts_fail_set(m->f, 400, "out_of_range", "prompt",
                            "prompts times choices must be at most %d, got %lld", MAX_CHOICES,
                            (long long)(r->n_prompts * r->best_of));
    return 0;
}

static int read_fields(struct mapper *m)
{
    const char *key;
    json_t *v;
    json_object_foreach(m->r->root, key, v)
    {
        const struct param *p = param_find(key, m->r->api);
        if (p == NULL) {
            if (m->r->n_unknown < sizeof m->r->unknown / sizeof m->r->unknown[0])
                m->r->unknown[m->r->n_unknown] = key;
            m->r->n_unknown++;
            continue;
        }
        if (json_is_null(v))
            continue;
        if ((p->type == P_CUSTOM ? read_custom(m, p->name, v)
                                 : param_store(p, key, v, m->r, m->f)) != 0)
            return -1;
    }
    return check_together(m);
}

int mapper_openai(const char *body, size_t len, enum kts_api api, const struct kts_limits *lim,
                  struct kts_req *out, struct kts_fail *f)
{
    struct mapper m = {.lim = lim, .r = out, .f = f, .top_logprobs = -1};
    kt_err err;
    memset(out, 0, sizeof *out);
    out->api = api;
    set_defaults(out, lim);
    kt_status s = json_in_parse(body, len, &out->root, &err);
    if (s == KT_E_NOMEM)
        return no_memory(f);
    if (s != KT_OK)
        return kts_fail_set(f, 400, "invalid_json", NULL, "%s", err.msg);
    if (!json_is_object(out->root))
        kts_fail_set(f, 400, "invalid_json", NULL, "the request body must be a JSON object");
    else if (read_fields(&m) == 0)
        return 0;
    kts_req_free(out);
    return -1;
}
