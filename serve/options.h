/* options.h - the options of ktserve: one table gives help, defaults, environment names, the
 * configuration file's keys and the command line. Precedence: built-in default < configuration file
 * < KTSERVE_* environment < command line. What a profile's tunings say lies between file and
 * environment; options_from_file tells which values give way to it. Main thread, before any other
 * starts; then constant.
 */
#ifndef KT_SERVE_OPTIONS_H
#define KT_SERVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define OPT_LIST_MAX 16

struct opt_list {
    const char *v[OPT_LIST_MAX];
    uint32_t n;
};

struct options {
    const char *model, *profile, *config, *host, *listen, *api_key_file, *kv_type, *pages, *smt,
        *quant, *quant_dense, *pack_cache, *cpu_mask, *profile_check, *model_id, *chat_template,
        *log_level;
    struct opt_list allow_hosts, cors_origins;
    uint64_t port, ctx, parallel, batch, threads, kv_tokens, memory_limit_mib, queue, queue_timeout,
        request_timeout, drain_timeout, latency_target, pools, gemv_rows;
    uint64_t max_connections, max_body_mib, max_output_kib;
    bool quiet, insecure, strict, fast_bf16, trust_profile, accept_any_model, check_config,
        print_config, version, help, health;
    uint64_t max_output_bytes; /* derived */
    uint64_t from_file;        /* bit i: row i of the table has its value from the file */
    char *config_text;         /* the file's text, which strings may point into */
    char listen_host[64];
};

enum opt_type { OPT_FLAG, OPT_STRING, OPT_UINT, OPT_LIST, OPT_ACTION };

struct opt_row {
    const char *name, *arg; /* long name; what the argument is called in the help, NULL for flags */
    char letter;            /* 0: none */
    enum opt_type type;
    size_t offset;
    const char *def; /* NULL: none */
    uint64_t min, max;
    const char *help;
};

extern const struct opt_row opt_table[];
extern const size_t opt_count;

/* Fill *o from all sources. 0, or -1 with a message in err that names the option and its source. */
int options_read(struct options *o, int argc, char **argv, char *err, size_t errlen);
void options_free(struct options *o);
/* Does the value of an option come from the configuration file? */
bool options_from_file(const struct options *o, const char *name);
void options_help(FILE *to);
/* One "name = value" line per option. */
void options_print(const struct options *o, FILE *to);
/* Name of the environment variable of a row. */
void options_env_name(const struct opt_row *r, char *out, size_t n);

#endif
