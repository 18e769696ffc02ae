/* profile.h - host.json: read, check, build, write, fingerprint, and match against the running
 * host.
 *
 * A profile is one JSON document (facts, measurements, decisions, warnings) plus typed views of
 * what planner and engine need from it. Reading is all or nothing: a file that breaks one rule of
 * profiles/host.schema.json or one rule between fields is refused with the JSON path and the
 * reason. The document is kept as it was read, so unknown x_ keys survive a rewrite. This room
 * times nothing and decides nothing. Immutable after profile_read and profile_open_for_host; a
 * profile made by profile_build belongs to the program that measures. One thread.
 */
#ifndef KT_PROFILE_H
#define KT_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "host/host.h"

struct json_t; /* jansson */

#define PROFILE_SCHEMA "kt.host-profile/1"
#define PROFILE_MAX_BYTES (64u << 20)
#define PROFILE_MAX_DEPTH 32

enum profile_state { PROFILE_NONE, PROFILE_MATCH, PROFILE_STALE, PROFILE_MISMATCH };
const char *profile_state_name(enum profile_state s); /* "none", "match", "stale", "mismatch" */

/* One fingerprint field that differs between file and host. */
struct profile_diff {
    char *field; /* "cpu.model", "nodes[1].bytes", "kernel" */
    bool hard;
    char *was, *now;     /* JSON text: in the file, on this host */
    const char *affects; /* measurement ids to repeat, as patterns "mem.* expert.*"; "" when only
                            the plan must be made again; static */
};

struct profile_match {
    enum profile_state state;
    struct profile_diff *diffs;
    uint32_t n_diffs;
    bool aged; /* older than 90 days (7 days when the identity is masked): counts as soft */
};

/* A node's measured read curve; the fields are those of plan_measured (plan/plan.h), which callers
 * fill from it. */
struct profile_knee {
    int32_t node;          /* P# */
    uint32_t knee_threads; /* smallest number of threads with >= 97 % of the best rate; 0: one point
                              only, no curve */
    double knee_bytes_per_second; /* 0: no curve */
    double read_bytes_per_second; /* best */
    uint32_t best_threads;
    const char **because; /* ids of the points, which live in the document */
    uint32_t n_because;
};

struct profile {
    struct json_t *root; /* the whole document */
    char *path;          /* as given to the reader; NULL for a built one */
    const char *id, *created, *stage, *hard_id, *soft_id, *kernel_abi; /* into root */
    bool complete;
    bool datasheet; /* numbers are published ones: a plan may use them, no machine matches */
    struct profile_match match; /* state PROFILE_NONE until profile_match_host */
    struct profile_knee *knees; /* by node */
    uint32_t n_knees;
};

/* ---- reading ---- */
/* Read and check a whole file. KT_E_NOT_FOUND, KT_E_IO, KT_E_LIMIT (size), KT_E_FORMAT (the message
 * names path and rule), KT_E_UNSUPPORTED (a newer major version). *out is NULL unless KT_OK; close
 * it with profile_close. */
kt_status profile_read(const char *path, struct profile **out, kt_err *err);
/* The same on text in memory; `name` stands for the path in messages. */
kt_status profile_parse(const char *text, size_t len, const char *name, struct profile **out,
                        kt_err *err);
void profile_close(struct profile *p); /* NULL is fine */

/* What engine and server call at start: read, check, match against `h`.
 *   match, stale  KT_OK, *out set: use it as a whole (stale: warn KT025 with profile_match_text)
 *   mismatch      KT_OK, *out NULL unless `trust`: start with defaults (KT026). A profile from data
 *                 sheets is never used, trusted or not
 *   unreadable or invalid: the error; a server that was told to use this file must stop
 * `m` (may be NULL) gets state and reasons in all KT_OK cases; free it with profile_match_free. */
kt_status profile_open_for_host(const char *path, const struct host *h, bool trust,
                                struct profile **out, struct profile_match *m, kt_err *err);

/* ---- matching ---- */
kt_status profile_match_host(const struct profile *p, const struct host *h,
                             struct profile_match *out, kt_err *err);
void profile_match_free(struct profile_match *m);
/* One line per differing field, for logs and `kttune verify`. */
void profile_match_text(const struct profile_match *m, struct strbuf *out);
/* Does pattern list "gpu.* mem.*" (or "*" with exceptions "!topo") cover a measurement id? */
bool profile_affects(const char *patterns, const char *id);

/* ---- views ---- */
/* Median of a measurement with status ok or noisy; false when absent. */
bool profile_median(const struct profile *p, const char *id, double *median);
/* The same with the least and the greatest sample. */
bool profile_range(const struct profile *p, const char *id, double *median, double *min,
                   double *max);
/* Value of a host-wide decision as a string ("" when it is none), NULL when absent. */
const char *profile_decision_str(const struct profile *p, const char *id);
/* The same as a number; false when it is none. */
bool profile_decision_number(const struct profile *p, const char *id, double *value);
/* Its reason; "" when absent. */
const char *profile_decision_why(const struct profile *p, const char *id);
/* Kernel level that this file proved fastest ("amx", "avx512vnni", "avx512", "avxvnni", "avx2",
 * "ref"), NULL when it says nothing or was measured with another kernel build: `abi` is the running
 * one (kern_abi). */
const char *profile_isa_level(const struct profile *p, const char *abi);
/* Timestamp of `created` in seconds since 1970, 0 when not readable. */
int64_t profile_created_seconds(const struct profile *p);

/* The facts of a profile as a host that is not here (source "profile", this_system false): what the
 * planner needs; the caller frees it with host_free. */
kt_status profile_host(const struct profile *p, struct host **out, kt_err *err);

/* ---- tunings ---- */
/* What a tuning belongs to, beside goal and kernel build. A dense model is one expert. */
struct profile_shape {
    uint32_t experts, top_k, hidden, inter;
    const char *format; /* of the experts as packed: "mxfp4" */
};
/* Values that a search proved; 0 or NULL: the search's default. Strings belong to the document. */
struct profile_tuning {
    bool exact; /* of this very shape, else of the nearest */
    bool proved;
    double gain; /* proved: median of t_default / t_chosen - 1 */
    struct profile_shape shape;
    const char *goal, *created, *kernel, *pages, *smt;
    uint32_t threads, gemv_rows, claim_rows, gemm_claim_rows, spin_us, pools;
};
/* The tuning for a shape and goal ("decode", "prefill", "both") made with the running kernel build
 * `abi`; false when there is none of that weight format. */
bool profile_find_tuning(const struct profile *p, const struct profile_shape *shape,
                         const char *goal, const char *abi, struct profile_tuning *out);
/* Add an entry in place of one with the same host, shape, goal and kernel build. Steals v. */
kt_status profile_put_tuning(struct profile *p, struct json_t *v, kt_err *err);
/* Take over the tunings of an older document whose measurements are all in p. */
kt_status profile_keep_tunings(struct profile *p, const struct profile *old, kt_err *err);

/* ---- fingerprints ---- */
/* Canonical JSON (sorted keys, no spaces) of a value without fractions. KT_E_INVALID on a fraction.
 */
kt_status profile_canonical(const struct json_t *v, struct strbuf *out, kt_err *err);
/* "sha256:" + digest of the canonical JSON; out holds 72 bytes. */
kt_status profile_fields_id(const struct json_t *fields, char out[72], kt_err *err);
/* First 16 bytes, in hex, of SHA-256 over hard id, soft id and created, joined by newlines. */
void profile_file_id(const char *hard_id, const char *soft_id, const char *created, char out[33]);
/* Fields of a host; the caller decrefs. NULL when memory is short. */
struct json_t *profile_hard_fields(const struct host *h);
struct json_t *profile_soft_fields(const struct host *h);
/* Rounded up to 1/16 of the largest power of two not above it: memory that the kernel keeps varies
 * a little from boot to boot. */
uint64_t profile_round_bytes(uint64_t bytes);

/* ---- building and writing ---- */
struct profile_tool {
    const char *git, *const *flags; /* git NULL: unknown; flags: [n_flags] options of this run */
    uint32_t n_flags;
    char kernel_abi[17];
    const char *papi, *cuda_runtime, *nvml; /* versions, NULL: absent */
};
/* A new document with all facts of `h` and no measurements, stage "topology", complete false. Holds
 * no serial numbers, host names or uuids. */
kt_status profile_build(const struct host *h, const struct profile_tool *t, struct profile **out,
                        kt_err *err);
/* All of these steal the reference `v`, also when they fail (KT_E_NOMEM). An entry with the same id
 * is replaced. */
kt_status profile_put_measurement(struct profile *p, struct json_t *v, kt_err *err);
kt_status profile_put_decision(struct profile *p, struct json_t *v, kt_err *err);
/* Removes all measurements, or all decisions. */
void profile_clear(struct profile *p, const char *section);
/* A warning once per (code, about); about and fix may be NULL. */
kt_status profile_warn(struct profile *p, const char *code, const char *severity, const char *about,
                       const char *fix, const char *text, kt_err *err);
void profile_stage(struct profile *p, const char *stage, bool complete);
/* Brings the typed views (knees) up to date with the document. */
kt_status profile_refresh(struct profile *p, kt_err *err);
/* Document as indented JSON. */
kt_status profile_text(const struct profile *p, struct strbuf *out, kt_err *err);
/* Check with the reader's own rules, then write as a whole or not at all. KT_E_INTERNAL when our
 * own document breaks a rule. */
kt_status profile_write(const struct profile *p, const char *path, kt_err *err);

#endif
