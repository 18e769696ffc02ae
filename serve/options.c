/* options.c - the option table of ktserve and its four sources (see options.h).
 * A value is checked where it is set, and the message names the source, so that a bad environment
 * variable is not blamed on the command line. Not here: what the options mean (main.c, engine
 * side). Main thread only.
 */
#include "serve/options.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

#define AT(f) offsetof(struct options, f)
#define U32 4294967295u

/* clang-format off */
const struct opt_row opt_table[] = {
    {"model", "PATH", 'm', OPT_STRING, AT(model), NULL, 0, 0, "model: a GGUF file (any shard) or a checkpoint directory"},
    {"profile", "FILE", 0, OPT_STRING, AT(profile), NULL, 0, 0, "host profile made by kttune probe; without it defaults are used"},
    {"config", "FILE", 0, OPT_STRING, AT(config), NULL, 0, 0, "configuration file with lines 'name = value'"},
    {"host", "ADDR", 0, OPT_STRING, AT(host), "127.0.0.1", 0, 0, "address to listen on"},
    {"port", "N", 0, OPT_UINT, AT(port), "8080", 0, 65535, "port to listen on; 0 takes a free one and prints it"},
    {"listen", "ADDR:PORT", 0, OPT_STRING, AT(listen), NULL, 0, 0, "the same as --host and --port together"},
    {"api-key-file", "FILE", 0, OPT_STRING, AT(api_key_file), NULL, 0, 0, "keys: one 'scope name key' per line; re-read on SIGHUP"},
    {"insecure", NULL, 0, OPT_FLAG, AT(insecure), NULL, 0, 0, "allow an address other than loopback without keys"},
    {"allow-host", "NAME", 0, OPT_LIST, AT(allow_hosts), NULL, 0, 0, "accept this Host header too (may be repeated)"},
    {"cors-origin", "ORIGIN", 0, OPT_LIST, AT(cors_origins), NULL, 0, 0, "let pages of this exact origin call the API (may be repeated)"},
    {"model-id", "NAME", 0, OPT_STRING, AT(model_id), NULL, 0, 0, "name of the model in the API; default: its file or directory name"},
    {"accept-any-model", NULL, 0, OPT_FLAG, AT(accept_any_model), NULL, 0, 0, "serve requests that name another model"},
    {"chat-template", "NAME", 0, OPT_STRING, AT(chat_template), NULL, 0, 0, "chatml: use it instead of the model's own template"},
    {"ctx", "N", 0, OPT_UINT, AT(ctx), "0", 0, U32, "longest sequence in tokens; 0: the model's, at most 8192"},
    {"parallel", "N", 0, OPT_UINT, AT(parallel), "16", 1, 4096, "sequences that run at once"},
    {"batch", "N", 0, OPT_UINT, AT(batch), "512", 1, 8192, "most tokens in one step"},
    {"threads", "N", 0, OPT_UINT, AT(threads), "0", 0, 4096, "worker threads; 0: the plan's choice"},
    {"pages", "KIND", 0, OPT_STRING, AT(pages), NULL, 0, 0, "pages of the weights: thp (default), 4k or hugetlb (reserved 2 MiB pages)"},
    {"smt", "MODE", 0, OPT_STRING, AT(smt), NULL, 0, 0, "SMT siblings: off (default), server (left to the server, no core is kept for it) or on (they work)"},
    {"pools", "N", 0, OPT_UINT, AT(pools), "0", 0, 4096, "at most so many memory nodes work; 0: all"},
    {"gemv-rows", "N", 0, OPT_UINT, AT(gemv_rows), "0", 0, 64, "stream weights for up to N rows, above it decode them in tiles; 0: as tuned or measured"},
    {"kv-type", "TYPE", 0, OPT_STRING, AT(kv_type), NULL, 0, 0, "bf16 (default), f32 or int8"},
    {"kv-tokens", "N", 0, OPT_UINT, AT(kv_tokens), "0", 0, UINT64_MAX, "KV capacity of all sequences in tokens; 0: what memory allows"},
    {"strict", NULL, 0, OPT_FLAG, AT(strict), NULL, 0, 0, "fp32 everywhere: slow, for comparison"},
    {"fast-bf16", NULL, 0, OPT_FLAG, AT(fast_bf16), NULL, 0, 0, "BF16 and FP8 matrices round activations to BF16 for many tokens: faster, but bits depend on batch and chunks"},
    {"quant", "TYPE", 0, OPT_STRING, AT(quant), NULL, 0, 0, "convert routed experts at load: mxfp4, q8_0, q4_0, int4, int8, fp8, none"},
    {"quant-dense", "TYPE", 0, OPT_STRING, AT(quant_dense), NULL, 0, 0, "convert all other matrices at load: mxfp4, q8_0, q4_0, int4, int8, fp8, none"},
    {"cpu-mask", "ISA", 0, OPT_STRING, AT(cpu_mask), NULL, 0, 0, "highest instruction set to use: ref, avx2, avxvnni, avx512, avx512vnni, amx"},
    {"pack-cache", "DIR", 0, OPT_STRING, AT(pack_cache), NULL, 0, 0, "keep packed weights in this directory and read them from there at the next start"},
    {"memory-limit", "MIB", 0, OPT_UINT, AT(memory_limit_mib), "0", 0, U32, "refuse to load beyond this; 0: what the host and cgroup leave"},
    {"profile-check", "HOW", 0, OPT_STRING, AT(profile_check), "spot", 0, 0, "spot: compare the profile with this host and measure three of its figures again; fields: compare only; off: let soft fields differ"},
    {"trust-profile", NULL, 0, OPT_FLAG, AT(trust_profile), NULL, 0, 0, "use the profile of another host all the same"},
    {"queue", "N", 0, OPT_UINT, AT(queue), "256", 1, 1000000, "requests that may wait; more get 503"},
    {"queue-timeout", "S", 0, OPT_UINT, AT(queue_timeout), "300", 1, 86400, "longest wait in the queue"},
    {"request-timeout", "S", 0, OPT_UINT, AT(request_timeout), "3600", 1, 86400, "longest time of one request"},
    {"drain-timeout", "S", 0, OPT_UINT, AT(drain_timeout), "60", 0, 86400, "how long running requests may go on after SIGTERM"},
    {"latency-target", "MS", 0, OPT_UINT, AT(latency_target), "200", 1, 60000, "time between two tokens that prompt chunks must not exceed"},
    {"max-connections", "N", 0, OPT_UINT, AT(max_connections), "1024", 1, 65536, "connections at once"},
    {"max-body", "MIB", 0, OPT_UINT, AT(max_body_mib), "32", 1, 4096, "largest request body"},
    {"max-output", "KIB", 0, OPT_UINT, AT(max_output_kib), "1024", 1, 1048576, "unsent output at which a slow client's sequences pause"},
    {"quiet", NULL, 0, OPT_FLAG, AT(quiet), NULL, 0, 0, "no progress while the model is loaded"},
    {"log-level", "LEVEL", 0, OPT_STRING, AT(log_level), "info", 0, 0, "debug, info, warn or error"},
    {"check-config", NULL, 0, OPT_ACTION, AT(check_config), NULL, 0, 0, "check options and files, then exit"},
    {"print-config", NULL, 0, OPT_ACTION, AT(print_config), NULL, 0, 0, "print every option's value, then exit"},
    {"health", NULL, 0, OPT_ACTION, AT(health), NULL, 0, 0, "ask the server at --host and --port for /health; exit 0 if it is ready"},
    {"version", NULL, 0, OPT_ACTION, AT(version), NULL, 0, 0, "print the version, then exit"},
    {"help", NULL, 'h', OPT_ACTION, AT(help), NULL, 0, 0, "print this text, then exit"},
};
/* clang-format on */
const size_t opt_count = sizeof opt_table / sizeof opt_table[0];

_Static_assert(sizeof opt_table / sizeof opt_table[0] <= 64, "options.from_file has a bit each");

struct source {
    bool is_file;
    char name[128]; /* for messages: "--port", "KTSERVE_PORT", "ktserve.conf line 3: port" */
    char *err;
    size_t errlen;
};

void options_env_name(const struct opt_row *r, char *out, size_t n)
{
    size_t at = (size_t)snprintf(out, n, "KTSERVE_%s", r->name);
    for (size_t i = 0; i < at && i < n; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

static uint64_t bit(const struct opt_row *r)
{
    return (uint64_t)1 << (r - opt_table);
}

static int set_uint(const struct opt_row *r, void *at, const char *value, const struct source *src)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0 || v < r->min ||
        v > r->max) {
        snprintf(src->err, src->errlen, "%s must be a number between %llu and %llu, got '%s'",
                 src->name, (unsigned long long)r->min, (unsigned long long)r->max, value);
        return -1;
    }
    *(uint64_t *)at = v;
    return 0;
}

static int set_flag(void *at, const char *value, const struct source *src)
{
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no",
                                                                                "off"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *(bool *)at = strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    snprintf(src->err, src->errlen, "%s must be true or false, got '%s'", src->name, value);
    return -1;
}

static int set_value(struct options *o, const struct opt_row *r, const char *value,
                     const struct source *src)
{
    void *at = (char *)o + r->offset;
    struct opt_list *list = at;
    if (src->is_file)
        o->from_file |= bit(r);
    else
        o->from_file &= ~bit(r);
    switch (r->type) {
    case OPT_UINT:
        return set_uint(r, at, value, src);
    case OPT_STRING:
        *(const char **)at = value;
        return 0;
    case OPT_LIST:
        if (list->n == OPT_LIST_MAX) {
            snprintf(src->err, src->errlen, "%s may be given at most %d times", src->name,
                     OPT_LIST_MAX);
            return -1;
        }
        list->v[list->n++] = value;
        return 0;
    default:
        return set_flag(at, value, src);
    }
}

static const struct opt_row *find(const char *name, size_t n)
{
    for (size_t i = 0; i < opt_count; i++)
        if (strlen(opt_table[i].name) == n && strncmp(opt_table[i].name, name, n) == 0)
            return &opt_table[i];
    return NULL;
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    for (char *end = s + strlen(s); end > s && isspace((unsigned char)end[-1]);)
        *--end = '\0';
    return s;
}

static int read_config(struct options *o, char *err, size_t errlen)
{
    kt_err e;
    size_t len;
    unsigned line_no = 0;
    if (file_read(o->config, 1 << 20, &o->config_text, &len, &e) != KT_OK) {
        snprintf(err, errlen, "%s", e.msg);
        return -1;
    }
    for (char *line = o->config_text, *next; line != NULL; line = next) {
        struct source src = {.is_file = true, .err = err, .errlen = errlen};
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        line_no++;
        char *s = trim(line), *eq = strchr(s, '=');
        if (*s == '\0' || *s == '#')
            continue;
        if (eq != NULL)
            *eq = '\0';
        const char *name = trim(s);
        const struct opt_row *r = find(name, strlen(name));
        snprintf(src.name, sizeof src.name, "%.60s line %u: %.40s", o->config, line_no, name);
        if (eq == NULL || r == NULL || r->type == OPT_ACTION || r->offset == AT(config)) {
            snprintf(err, errlen, "%s: expected 'name = value' with the name of an option",
                     src.name);
            return -1;
        }
        if (set_value(o, r, trim(eq + 1), &src) != 0)
            return -1;
    }
    return 0;
}

/* One command-line argument; *i moves past its value. With only != NULL, everything but that row is
 * skipped. */
static int read_arg(struct options *o, int argc, char **argv, int *i, const struct source *base,
                    const struct opt_row *only)
{
    struct source src = *base;
    const char *a = argv[*i], *value = NULL;
    const struct opt_row *r = NULL;
    if (a[0] == '-' && a[1] == '-') {
        size_t n = strcspn(a + 2, "=");
        r = find(a + 2, n);
        value = a[2 + n] == '=' ? a + 3 + n : NULL;
    } else if (a[0] == '-' && a[1] != '\0' && a[2] == '\0') {
        for (size_t k = 0; k < opt_count; k++)
            if (opt_table[k].letter == a[1])
                r = &opt_table[k];
    }
    if (r == NULL) {
        snprintf(src.err, src.errlen, "no option '%s'; ktserve --help lists them", a);
        return -1;
    }
    snprintf(src.name, sizeof src.name, "--%s", r->name);
    if (r->arg == NULL && value == NULL)
        value = "true";
    if (value == NULL && *i + 1 < argc)
        value = argv[++*i];
    if (value == NULL) {
        snprintf(src.err, src.errlen, "%s needs a value: %s", src.name, r->arg);
        return -1;
    }
    if (only != NULL && r != only)
        return 0;
    return set_value(o, r, value, &src);
}

static int read_env(struct options *o, const struct source *base, const struct opt_row *only)
{
    for (size_t i = 0; i < opt_count; i++) {
        struct source src = *base;
        options_env_name(&opt_table[i], src.name, sizeof src.name);
        const char *v = getenv(src.name);
        if (v == NULL || opt_table[i].type == OPT_ACTION || (only != NULL && &opt_table[i] != only))
            continue;
        if (set_value(o, &opt_table[i], v, &src) != 0)
            return -1;
    }
    return 0;
}

static int read_args(struct options *o, int argc, char **argv, const struct source *base,
                     const struct opt_row *only)
{
    for (int i = 1; i < argc; i++)
        if (read_arg(o, argc, argv, &i, base, only) != 0)
            return -1;
    return 0;
}

/* --listen ADDR:PORT, [v6]:PORT, :PORT */
static int split_listen(struct options *o, char *err, size_t errlen)
{
    struct source src = {.name = "--listen", .err = err, .errlen = errlen};
    const char *colon = o->listen == NULL ? NULL : strrchr(o->listen, ':');
    if (o->listen == NULL)
        return 0;
    size_t n = colon == NULL ? 0 : (size_t)(colon - o->listen),
           skip = o->listen[0] == '[' && n > 1 && o->listen[n - 1] == ']';
    if (colon == NULL || n - 2 * skip >= sizeof o->listen_host) {
        snprintf(err, errlen, "--listen must be ADDR:PORT, got '%s'", o->listen);
        return -1;
    }
    memcpy(o->listen_host, o->listen + skip, n - 2 * skip);
    if (n > 0)
        o->host = o->listen_host;
    return set_uint(find("port", 4), &o->port, colon + 1, &src);
}

int options_read(struct options *o, int argc, char **argv, char *err, size_t errlen)
{
    struct source src = {.err = err, .errlen = errlen};
    const struct opt_row *config = find("config", 6);
    memset(o, 0, sizeof *o);
    for (size_t i = 0; i < opt_count; i++)
        if (opt_table[i].def != NULL && set_value(o, &opt_table[i], opt_table[i].def, &src) != 0)
            return -1;
    if (read_env(o, &src, config) != 0 || read_args(o, argc, argv, &src, config) != 0)
        return -1;
    if (o->config != NULL && read_config(o, err, errlen) != 0)
        return -1;
    if (read_env(o, &src, NULL) != 0 || read_args(o, argc, argv, &src, NULL) != 0 ||
        split_listen(o, err, errlen) != 0)
        return -1;
    o->max_output_bytes = o->max_output_kib * 1024;
    return 0;
}

void options_free(struct options *o)
{
    mem_free(o->config_text);
    o->config_text = NULL;
}

bool options_from_file(const struct options *o, const char *name)
{
    const struct opt_row *r = find(name, strlen(name));
    return r != NULL && (o->from_file & bit(r)) != 0;
}

void options_help(FILE *to)
{
    fprintf(to,
            "usage: ktserve -m PATH [--profile host.json] [options]\n\n"
            "Serves one language model over HTTP. Every option can also be set as KTSERVE_NAME "
            "in the environment (dashes become\n"
            "underscores) or as 'name = value' in the file given with --config. The command line "
            "wins, then the environment, then\nwhat kttune tune proved (threads, cpu-mask, pages, "
            "smt, pools, gemv-rows), then "
            "the file.\n\n");
    for (size_t i = 0; i < opt_count; i++) {
        char left[48];
        const struct opt_row *r = &opt_table[i];
        int n = r->letter ? snprintf(left, sizeof left, "-%c, ", r->letter) : 0;
        snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", r->name, r->arg ? " " : "",
                 r->arg ? r->arg : "");
        fprintf(to, "  %-26s %s", left, r->help);
        if (r->def != NULL)
            fprintf(to, " (%s)", r->def);
        fputc('\n', to);
    }
}

void options_print(const struct options *o, FILE *to)
{
    for (size_t i = 0; i < opt_count; i++) {
        const struct opt_row *r = &opt_table[i];
        const void *at = (const char *)o + r->offset;
        if (r->type == OPT_UINT)
            fprintf(to, "%s = %llu\n", r->name, (unsigned long long)*(const uint64_t *)at);
        else if (r->type == OPT_FLAG)
            fprintf(to, "%s = %s\n", r->name, *(const bool *)at ? "true" : "false");
        else if (r->type == OPT_STRING && *(const char *const *)at != NULL)
            fprintf(to, "%s = %s\n", r->name, *(const char *const *)at);
        for (uint32_t k = 0; r->type == OPT_LIST && k < ((const struct opt_list *)at)->n; k++)
            fprintf(to, "%s = %s\n", r->name, ((const struct opt_list *)at)->v[k]);
    }
}
