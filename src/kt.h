/* kt.h - the public interface of libkt: load a mixture-of-experts model with a host profile and
 * advance sequences of tokens.
 *
 * An engine is a loaded model together with its plan (threads, kernel variants, memory). A sequence
 * is one timeline of tokens with its reserved KV pages. A step advances a ragged batch: prompt
 * chunks and single tokens of several sequences together. Results never depend on threads, batch
 * composition or prompt chunking (canonical arithmetic, docs/ARCHITECTURE.md).
 *
 * Threads: one thread at a time may call functions that take an engine or a sequence ("engine
 * thread"); tokenizer functions may be called from any thread. Library code never exits, aborts or
 * prints; log lines go to the sink set with kt_log_sink(). Ownership: objects belong to the caller
 * from open to close; strings returned by accessors belong to the object.
 */
#ifndef KT_H
#define KT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KT_API __attribute__((visibility("default")))

/* ---- status ---- */

/** Result of every fallible call. 0 is success; the caller may go on after every code unless it
 * says otherwise. */
typedef enum kt_status {
    KT_OK = 0,
    KT_E_INVALID = -1, /**< an argument or option is out of range; nothing changed */
    KT_E_IO = -2,      /**< the operating system refused a read, write or map; os_errno says why */
    KT_E_FORMAT = -3,  /**< a file's content breaks its format's rules */
    KT_E_UNSUPPORTED = -4, /**< valid, but this build or version has no code for it */
    KT_E_NOMEM = -5,       /**< an allocation failed; nothing changed */
    KT_E_LIMIT =
        -6, /**< refused by a limit (memory, cgroup, permission) before anything was taken */
    KT_E_KV_FULL = -7,    /**< not enough free KV pages; nothing changed: close a sequence, retry */
    KT_E_NUMERIC = -8,    /**< NaN or infinity in a sequence's activations: close that sequence */
    KT_E_DEVICE = -9,     /**< a device failed; the engine is unusable: close it */
    KT_E_NOT_FOUND = -10, /**< a named thing does not exist */
    KT_E_STALE = -11,     /**< a profile belongs to another host or kernel build */
    KT_E_TIMEOUT = -12,   /**< a deadline passed */
    KT_E_INTERNAL = -13   /**< a bug of ours; please report it */
} kt_status;

/** Error record, filled once where the error arises. `msg` names the thing, the place and the
 * remedy. */
typedef struct kt_err {
    kt_status code;
    int os_errno;      /**< errno at the origin, or 0 */
    const char *where; /**< static: function that found it */
    char msg[480];     /**< UTF-8, always terminated */
} kt_err;

/** Short static name of a status, such as "format". */
KT_API const char *kt_status_name(kt_status s);
/** Version of the library, such as "0.1.0". */
KT_API const char *kt_version(void);

typedef enum kt_log_level { KT_LOG_DEBUG, KT_LOG_INFO, KT_LOG_WARN, KT_LOG_ERROR } kt_log_level;
/** Set where log lines go (NULL: nowhere, the default). Call once before anything else; `fn` may be
 * called from any thread. */
KT_API void kt_log_sink(void (*fn)(void *user, kt_log_level level, const char *line), void *user);

/* ---- engine ---- */

typedef struct kt_engine kt_engine;
typedef struct kt_seq kt_seq;

typedef struct kt_engine_opts {
    size_t size;              /**< sizeof(kt_engine_opts), set by kt_engine_opts_init */
    const char *model_path;   /**< GGUF file (any shard) or checkpoint directory */
    const char *profile_path; /**< host.json, or NULL for defaults */
    /** Routed experts to "mxfp4", "q8_0", "q4_0", "int4", "int8" or "fp8" at load; NULL or
     * "none": as stored. */
    const char *quant;
    /** The same for all other matrices, embedding and head included; routers, norms and biases
     * stay as stored. */
    const char *quant_dense;
    /** Decode every format to fp32, fp32 activations, fp32 KV: slow, for comparison. */
    bool strict;
    /** BF16 and FP8 matrices, except routers, round activations to BF16 for many tokens: almost
     * twice as fast in prefill, but not canonical: bits then depend on batch and chunks. Refused
     * without AVX512-BF16. */
    bool fast_bf16;
    const char *kv_type; /**< "bf16" (default), "f32" or "int8" */
    uint32_t max_seqs;   /**< sequences open at once, 1..4096; default 16 */
    uint32_t ctx_tokens; /**< longest sequence, tokens; 0 (default): the model's context length, at
                            most 8192 */
    uint64_t kv_tokens;  /**< KV capacity over all sequences, tokens; 0 (default): what memory
                            allows, at most max_seqs * ctx */
    uint32_t batch_tokens;       /**< most tokens in one step, 1..8192; default 512 */
    uint32_t threads;            /**< worker threads; 0 (default): the plan's choice */
    const char *cpu_mask;        /**< highest ISA level to use: "ref", "avx2", "avxvnni", "avx512",
                                    "avx512vnni",        "amx"; NULL        (default): best usable */
    uint64_t memory_limit_bytes; /**< refuse to load beyond this; 0 (default): what the cgroup and
                                    the host leave */
    bool trust_profile;          /**< use a profile of another host all the same (KT026) */
    bool ignore_tunings; /**< run as built in and planned, whatever the profile's tunings say */
    /** What packed weights lie in: "thp" (transparent huge pages are asked for), "4k" (huge pages
     * are forbidden) or "hugetlb" (reserved pages of 2 MiB); NULL (default): the profile's tuning,
     * else "thp". */
    const char *pages;
    /** SMT siblings: "off" (one worker per core, some cores kept for the server), "server" (one per
     * core on every core, siblings are left to the server) or "on" (a worker on every PU); NULL
     * (default): the profile's tuning, else "off". */
    const char *smt;
    uint32_t pools; /**< at most so many memory nodes work, those with most bandwidth; 0 (default):
                       the profile's tuning, else all */
    uint32_t gemv_rows; /**< activation rows up to which a weight matrix is streamed, above it
                           decoded in tiles, 1..64; 0 (default): the profile's tuning, else what it
                           measured for the format, else each kernel's own */
    /** threads, cpu_mask, pages, smt, pools and gemv_rows as given hold only where the profile's
     * tunings name no value for this model; a value that gives way is logged. For values out of a
     * configuration file. */
    bool threads_yield, cpu_mask_yield, pages_yield, smt_yield, pools_yield, gemv_rows_yield;
    /** How a profile is checked at the start: "spot" (default) compares its fields with this host
     * and takes up to three measurements again (half a second), "fields" compares only, "off" lets
     * soft fields (kernel release, quota, clocks) differ. Another host is refused in every case. */
    const char *profile_check;
    bool metadata_only; /**< read the model's description only: no weights, no threads, kt_step
                           refused */
    /** Directory for packed weights, which must exist; NULL (default): none. A file in it that was
     * packed from the same model files, by the same kernels, for the same plan is read instead of
     * packing; otherwise one is written after packing. */
    const char *pack_cache_dir;
    /** Called from the loading thread about ten times a second with bytes packed so far; may be
     * NULL. */
    void (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_user;
} kt_engine_opts;

/** Fill defaults. */
KT_API void kt_engine_opts_init(kt_engine_opts *o);

/** Load a model: read facts and profile, plan, check memory, pack weights, start workers. Blocks
 * for the whole load. The calling thread is the first worker: it is pinned to its CPU until
 * kt_engine_close, which it should call itself, as it should call every kt_step.
 *  @return KT_OK and *out owned by the caller; KT_E_INVALID, _IO, _FORMAT, _UNSUPPORTED, _NOMEM,
 * _LIMIT, _STALE with *out = NULL */
KT_API kt_status kt_engine_open(const kt_engine_opts *o, kt_engine **out, kt_err *err);
/** Stop workers and free everything; all sequences must be closed before. NULL is allowed. */
KT_API void kt_engine_close(kt_engine *e);

/** A measurement of the host profile that was taken again when the engine opened. */
typedef struct kt_spot {
    const char *id;             /**< of the measurement, such as "mem.read:node0.t8" */
    const char *unit;           /**< "bytes_per_second" or "seconds" */
    double profiled, low, high; /**< median, least and greatest of the profile's samples */
    double measured;            /**< median of the samples taken now */
    bool off; /**< more than 10 % off and outside low to high: the profile is stale */
} kt_spot;

typedef struct kt_engine_info {
    const char *arch;       /**< "qwen3moe", "llama" */
    const char *model_name; /**< directory or file name without suffix */
    uint32_t n_layers, n_moe_layers, hidden, vocab, n_experts, experts_per_token;
    uint32_t first_moe_layer, last_moe_layer;
    uint32_t ctx_tokens;       /**< longest sequence this engine takes */
    uint32_t model_ctx_tokens; /**< what the model was made for */
    uint32_t max_seqs, batch_tokens, kv_page_tokens;
    uint64_t kv_pages; /**< total pages */
    uint64_t weight_bytes, kv_bytes, scratch_bytes;
    uint64_t expert_bytes; /**< packed bytes of one routed expert (0: dense model) */
    uint32_t n_pools, n_threads;
    const char *kernel;        /**< name of the ISA level in use, such as "avx512vnni" */
    const char *kv_type;       /**< "bf16", "f32" or "int8" */
    const char *profile_state; /**< "match", "stale", "mismatch", "none" */
    const char *profile_id;    /**< id of the profile in use, or "" */
    const char *profile_host;  /**< fingerprint of the host it was made on ("sha256:.."), or "" */
    int64_t profile_time;      /**< when it was made, seconds since 1970; 0 without a profile */
    /** What the plan expects of a decode step of one sequence at a context of 1024 tokens; 0
     * without a profile that has the measurements. */
    double predicted_decode_seconds;
    uint32_t n_spots; /**< measurements that were taken again at the start, 0 to 3 */
    kt_spot spot[3];
    const char *plan_text; /**< the plan with its reasons, human-readable lines */
    const char *dense_format,
        *expert_format; /**< names of the commonest weight format of each part */
    double load_seconds;
    double pack_seconds;    /**< of load_seconds: reading and packing the weights */
    uint64_t load_bytes;    /**< bytes read for that */
    const char *pack_cache; /**< "off"; "read": weights came from the cache; "written" now;
                               "failed": it could not be written, the log says why */
    bool strict;
} kt_engine_info;
/** Facts about a loaded engine; strings belong to the engine. */
KT_API void kt_engine_get_info(const kt_engine *e, kt_engine_info *info);

/** What one pool of workers owns; a pool is the cores of a memory node together with its memory. */
typedef struct kt_pool_info {
    int32_t node; /**< OS index of its memory node; -1: the only pool, over all nodes */
    uint32_t threads;
    double row_share;      /**< of the output rows of every matrix; sums to 1 over the pools */
    uint64_t weight_bytes; /**< packed */
    uint64_t weight_pages; /**< pages of them that the kernel showed after packing; 0 on hosts with
                              one node, where there is nothing to look for */
    uint64_t pages_misplaced;     /**< of these, on a node that is not the pool's */
    bool pages_known;             /**< false: the kernel (a container's filter) did not answer */
    double read_bytes_per_second; /**< best read rate of its node in the profile; 0: none */
} kt_pool_info;
/** Facts about pool 0 <= pool < kt_engine_info.n_pools, from the load; false beyond the last. */
KT_API bool kt_engine_get_pool(const kt_engine *e, uint32_t pool, kt_pool_info *info);

/** Counters since open; may be read from any thread at any time (each field is consistent by
 * itself). */
typedef struct kt_engine_stats {
    uint64_t steps, step_tokens, decode_tokens, prefill_tokens;
    uint64_t weight_read_bytes; /**< packed bytes of the weight rows that steps read */
    uint64_t kv_read_bytes;     /**< bytes of keys and values that attention read: once per piece of
                                   work, which     several positions of a prompt share */
    uint64_t weight_macs; /**< multiply-accumulates of weights with token rows (attention scores not
                             counted) */
    uint64_t row_macs,    /**< of weight_macs: by INT8 with one scale per row */
        float_macs;       /**< of weight_macs: by weights that take fp32 activations */
    uint64_t attn_macs; /**< multiply-accumulates of queries with keys and of scores with values */
    uint64_t attn_ns, moe_ns, other_ns; /**< wall time of layer parts */
    uint64_t attend_ns; /**< of attn_ns: rotation, keys and values, attention; not its products */
    uint64_t kv_pages_used, kv_pages_total;
    uint64_t expert_tokens; /**< token-expert pairs computed */
} kt_engine_stats;
KT_API void kt_engine_get_stats(const kt_engine *e, kt_engine_stats *s);

/** Routed tokens since open: [n_moe_layers][n_experts] u64, layer-major; belongs to the engine,
 * updated by steps (relaxed). */
KT_API const uint64_t *kt_engine_expert_counts(const kt_engine *e);

/** What the tap shows of one layer; everything belongs to the engine and is valid during the call.
 * Tokens are in the order of the step's items. */
typedef struct kt_tap {
    uint32_t layer, n_tokens;
    const float
        *hidden; /**< [n_tokens][hidden] f32 row-major, the residual stream after this layer */
    const int32_t
        *experts;     /**< [n_tokens][experts_per_token] ascending ids; NULL on dense layers */
    const float *gap; /**< [n_tokens] how much the last chosen expert beat the best one left out,
                         relative to it; NULL on dense layers */
} kt_tap;
/** Called on the engine thread after each layer of a step; NULL turns it off. Costs two barriers a
 * layer. */
typedef void (*kt_tap_fn)(void *user, const kt_tap *t);
KT_API void kt_engine_set_tap(kt_engine *e, kt_tap_fn fn, void *user);

/** Open a sequence and reserve KV pages for `reserve_tokens` (1..ctx_tokens).
 *  @return KT_OK; KT_E_INVALID; KT_E_KV_FULL when pages or sequence slots are short (nothing
 * changed) */
KT_API kt_status kt_seq_open(kt_engine *e, uint32_t reserve_tokens, kt_seq **out, kt_err *err);
/** Give the pages back. NULL is allowed. */
KT_API void kt_seq_close(kt_seq *s);
/** Tokens stored so far. */
KT_API uint32_t kt_seq_length(const kt_seq *s);
/** For measurements: append n positions with made-up keys and values, without computing them.
 *  @return KT_OK; KT_E_KV_FULL if they exceed the reservation, KT_E_UNSUPPORTED (nothing changed)
 */
KT_API kt_status kt_seq_fill(kt_seq *s, uint32_t n, kt_err *err);

typedef struct kt_batch_item {
    kt_seq *seq;
    const int32_t *ids; /**< in, [n] token ids, 0 <= id < vocab */
    uint32_t n;         /**< 1..batch_tokens; the sum over items must not exceed batch_tokens */
    float *logits; /**< out, [vocab] for the last token, or [n][vocab] with all_logits; NULL: none
                      wanted. 4-byte aligned, caller's */
    bool all_logits;
    kt_status result; /**< out: KT_OK or KT_E_NUMERIC (this sequence only: close it) */
} kt_batch_item;

/** Advance every item's sequence by its n tokens. Each sequence may occur once. Blocks for the
 * step; allocates nothing.
 *  @return KT_OK (look at each item's result); KT_E_INVALID (nothing changed); KT_E_KV_FULL if an
 * item exceeds its reservation (nothing changed) */
KT_API kt_status kt_step(kt_engine *e, kt_batch_item *items, uint32_t n_items, kt_err *err);

/* ---- tuning ---- */

/** How an engine runs. It changes speed, never a result. */
typedef struct kt_tuning {
    size_t size;        /**< sizeof(kt_tuning), set by kt_tuning_init */
    uint32_t threads;   /**< worker threads over all pools; 0 (default): as many as at open */
    const char *kernel; /**< highest ISA level to use, as kt_engine_opts.cpu_mask; NULL (default):
                           that of the open */
    uint32_t gemv_rows; /**< a weight matrix is streamed for up to so many activation rows, above it
                           decoded in tiles, 1..64; 0 (default): built in */
    uint32_t claim_rows;      /**< most output rows that a worker takes at once when streaming, a
                                 multiple of 64 up to 2048; 0 (default): built in */
    uint32_t gemm_claim_rows; /**< the same when decoding in tiles */
    uint32_t spin_us;         /**< how long a waiting worker spins before it sleeps, 1..1000000
                                 microseconds; 0 (default): built in */
} kt_tuning;
/** Fill defaults. */
KT_API void kt_tuning_init(kt_tuning *t);
/** Change how a loaded engine runs, between steps: weights stay where they are, worker threads are
 * started anew. Results do not change.
 *  @return KT_OK; KT_E_INVALID (more threads than at open, fewer than pools, a value out of range,
 * or a kernel level whose weights are packed otherwise) and KT_E_NOMEM: nothing changed;
 * KT_E_LIMIT: threads could not be started, close the engine */
KT_API kt_status kt_engine_retune(kt_engine *e, const kt_tuning *t, kt_err *err);

/** How the engine runs now, built-in values included; gemv_rows 0: each kernel's own number. */
KT_API void kt_engine_get_tuning(const kt_engine *e, kt_tuning *t);

/* ---- the mixture-of-experts operator, for engines that have their own attention ---- */

/** The experts of one layer: packed weights, worker threads and scratch. The code is the engine's
 * own expert path: out = sum over chosen experts of weight * down(silu(gate x) * (up x)), with the
 * activations quantised in groups of 32 for block formats (canonical arithmetic). Results do not
 * depend on threads, pools, or how tokens are spread over calls. */
typedef struct kt_moe kt_moe;

typedef struct kt_moe_opts {
    size_t size;              /**< sizeof(kt_moe_opts), set by kt_moe_opts_init */
    uint32_t hidden;          /**< elements of a token's row, 1..65536 */
    uint32_t inter;           /**< width of an expert, 1..65536 */
    uint32_t n_experts;       /**< 1..65536 */
    uint32_t top_k;           /**< experts per token, 1..n_experts, at most 256 */
    const char *format;       /**< weight format of gate and up: "mxfp4" (default), "q8_0", "q4_0",
                                 "bf16" or any other that ktserve reads */
    const char *down_format;  /**< format of down; NULL (default): the same */
    uint32_t max_tokens;      /**< tokens computed together, 1..8192; default 512 */
    const char *profile_path; /**< host.json, or NULL (default): pools and threads by the facts
                                 of this host */
    bool trust_profile;       /**< use a profile of another host */
    uint32_t threads;         /**< worker threads; 0 (default): the plan's choice */
    const char *cpu_mask;     /**< highest ISA level, as kt_engine_opts.cpu_mask; NULL: the
                                 CPU's */
    bool fast_bf16;           /**< as kt_engine_opts.fast_bf16 */
    uint64_t memory_limit_bytes; /**< 0 (default): what the host's limits allow */
} kt_moe_opts;
/** Fill defaults. */
KT_API void kt_moe_opts_init(kt_moe_opts *o);

/** Take memory bound to the pools and start workers; experts are zero-filled and must be loaded.
 * The calling thread is the first worker: it is pinned until kt_moe_close, and makes every other
 * call.
 *  @return KT_OK and *out owned by the caller; KT_E_INVALID, _UNSUPPORTED (no kernel for a format),
 * _NOMEM, _LIMIT, _IO, _FORMAT, _STALE with *out = NULL */
KT_API kt_status kt_moe_open(const kt_moe_opts *o, kt_moe **out, kt_err *err);
/** Stop workers and free everything. NULL is allowed. */
KT_API void kt_moe_close(kt_moe *op);

typedef enum kt_moe_matrix { KT_MOE_GATE, KT_MOE_UP, KT_MOE_DOWN } kt_moe_matrix;

/** Pack one matrix of an expert; it may be loaded again. Blocks; all workers convert and pack.
 *  @param expert  0 <= expert < n_experts
 *  @param dtype   "f32", "f16", "bf16": values, quantised to the operator's format; or the name of
 *                 that format: rows in its file form (GGML blocks)
 *  @param rows    in, gate and up [inter][hidden], down [hidden][inter], row-major, contiguous, any
 *                 alignment; the caller's, not used after the call
 *  @return KT_OK; KT_E_INVALID; KT_E_UNSUPPORTED (the format has no quantiser: give its file form);
 *          KT_E_FORMAT (NaN or infinity; the matrix counts as not loaded) */
KT_API kt_status kt_moe_load(kt_moe *op, uint32_t expert, kt_moe_matrix matrix, const char *dtype,
                             const void *rows, kt_err *err);

/** out[t] = sum over j of weights[t][j] * expert ids[t][j] of x[t]. Blocks; allocates nothing.
 *  @param x        in, [n][hidden] f32, row-major
 *  @param ids      in, [n][top_k] i32, 0 <= id < n_experts, each at most once in a row
 *  @param weights  in, [n][top_k] f32
 *  @param n        tokens, >= 1; more than max_tokens are computed in parts
 *  @param out      out, [n][hidden] f32; must not overlap the inputs
 *  @return KT_OK; KT_E_INVALID (nothing written): an id out of range or twice in a row, or an
 *          expert that was not loaded; KT_E_NUMERIC: NaN or infinity came up for some tokens, the
 *          first is named; rows of the others are right */
KT_API kt_status kt_moe_forward(kt_moe *op, const float *x, const int32_t *ids,
                                const float *weights, uint32_t n, float *out, kt_err *err);

typedef struct kt_moe_info {
    uint64_t expert_bytes; /**< of one expert in file form: what a token reads of it */
    uint64_t weight_bytes; /**< packed, all experts */
    uint32_t n_pools, n_threads;
    const char *kernel;    /**< ISA level in use, such as "avx512vnni" */
    const char *plan_text; /**< pools and threads with their reasons */
} kt_moe_info;
/** Facts about an operator; strings belong to it, the plan's text until the next kt_moe_load. */
KT_API void kt_moe_get_info(const kt_moe *op, kt_moe_info *info);
/** Facts about pool 0 <= pool < kt_moe_info.n_pools; false beyond the last. Pages are looked at
 * once, when the last of all experts' matrices has been loaded; before that pages_known is false.
 */
KT_API bool kt_moe_get_pool(const kt_moe *op, uint32_t pool, kt_pool_info *info);

/* ---- sampling ---- */

typedef struct kt_sampling {
    float temperature; /**< 0..5; below 1e-6 is greedy */
    int32_t top_k;     /**< <= 0: off */
    float top_p;       /**< (0,1] */
    float min_p;       /**< [0,1] */
    uint64_t seed;     /**< key of the counter-based generator (Philox4x32-10) */
    uint32_t choice;   /**< first counter word */
} kt_sampling;

/** Choose a token. `scratch` is the caller's, vocab * 16 bytes, 8-byte aligned. `position` is the
 * index of the new token in its sequence (second and third counter word). Ties go to the lower id;
 * the same inputs give the same token on every host.
 *  @return the token id, 0 <= id < vocab, or -1 if a logit is NaN */
KT_API int32_t kt_sample(const float *logits, uint32_t vocab, const kt_sampling *p,
                         uint64_t position, void *scratch);
/** Natural-log softmax of the raw logits at `id` (double sums in ascending id order). */
KT_API double kt_logprob(const float *logits, uint32_t vocab, int32_t id);
/** The n best ids (ties to the lower id) in descending order with their log probabilities; n <= 64.
 */
KT_API void kt_top_logprobs(const float *logits, uint32_t vocab, uint32_t n, int32_t *ids,
                            double *logprobs);

/* ---- text ---- */

typedef struct kt_tokenizer kt_tokenizer;

/** Open the tokenizer of a model (GGUF vocabulary or tokenizer.json beside the checkpoint), its end
 * tokens, chat template and sampling defaults.
 *  @param chat_override NULL (the model's own template) or "chatml".
 *  @return KT_OK; KT_E_NOT_FOUND if the model has none; KT_E_FORMAT; KT_E_UNSUPPORTED naming what
 * is unknown */
KT_API kt_status kt_tokenizer_open(const char *model_path, const char *chat_override,
                                   kt_tokenizer **out, kt_err *err);
KT_API void kt_tokenizer_close(kt_tokenizer *t);
KT_API uint32_t kt_tokenizer_vocab(const kt_tokenizer *t);

enum {
    KT_TOK_ADD_SPECIAL = 1,  /**< add the begin token if the model wants one */
    KT_TOK_PARSE_SPECIAL = 2 /**< control tokens written in the text become their ids */
};
/** Encode UTF-8 `text` of `len` bytes (invalid bytes are legal). Writes at most `cap` ids; *n is
 * the number needed, so a call with a larger buffer may follow. @return KT_OK; KT_E_NOMEM;
 * KT_E_INVALID beyond 2^31-1 tokens */
KT_API kt_status kt_tokenize(const kt_tokenizer *t, const char *text, size_t len, unsigned flags,
                             int32_t *ids, size_t cap, size_t *n, kt_err *err);
/** Raw bytes of one token. Control tokens have the text of their name. @return length, or 0 for an
 * id out of range; *bytes belongs to t */
KT_API size_t kt_token_bytes(const kt_tokenizer *t, int32_t id, const char **bytes);
/** Is this a control (special) token, hidden from the text? */
KT_API bool kt_token_is_control(const kt_tokenizer *t, int32_t id);
/** Does this token end a generation? */
KT_API bool kt_token_is_eos(const kt_tokenizer *t, int32_t id);

typedef struct kt_chat_message {
    const char *role;    /**< "system", "user", "assistant", "tool" */
    const char *content; /**< UTF-8, NUL-terminated */
} kt_chat_message;
/** Render messages with the model's chat shape (docs: plain ChatML, or ChatML with a default system
 * message). *text is malloc'ed, free it with kt_free. @return KT_OK; KT_E_UNSUPPORTED if the
 * model's template is another one; KT_E_NOMEM */
KT_API kt_status kt_chat_render(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                                bool add_generation_prompt, char **text, size_t *len, kt_err *err);
/** Token ids of the prompt that kt_chat_render writes; roles and contents never become control
 * tokens, whatever they say. Buffer as kt_tokenize: writes at most `cap` ids, *n_ids is the number
 * needed. @return KT_OK; KT_E_UNSUPPORTED as kt_chat_render; KT_E_NOMEM; KT_E_INVALID */
KT_API kt_status kt_chat_encode(const kt_tokenizer *t, const kt_chat_message *m, size_t n,
                                bool add_generation_prompt, int32_t *ids, size_t cap, size_t *n_ids,
                                kt_err *err);
/** KT_OK if chat works with this model, else the error that kt_chat_render would give. */
KT_API kt_status kt_chat_supported(const kt_tokenizer *t, kt_err *err);
/** Source text of the model's template, or NULL. */
KT_API const char *kt_chat_template(const kt_tokenizer *t);
/** Sampling defaults that the model's generation_config.json or GGUF states, over the table's
 * (temperature 1, all filters off). */
KT_API void kt_sampling_defaults(const kt_tokenizer *t, kt_sampling *p);
/** Free memory that a kt_ function handed over. */
KT_API void kt_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
