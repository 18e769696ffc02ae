/* bench_load.c - kttune bench load: how fast a model is loaded, beside what the disk and the memory
 * of this machine allow, in interleaved rounds.
 *
 * A round runs, in random order: a sequential read of the model's files from the disk (one thread,
 * blocks of 128 KiB, as cat does it), a load from the disk, a copy of the files from the page cache
 * into fresh memory by as many threads as load (the better of two ways; huge pages are advised, as
 * for packed weights, and claims are as long as the loader's), and a load from the page cache.
 * Before a cold run the system is told to forget the files (POSIX_FADV_DONTNEED). Rates of loads
 * count the bytes that packing reads and the time it takes; the ratio is taken inside a round. With
 * --pack-cache two kinds more: packed weights read from there. The peak of resident memory is that
 * of the worst load. Owner: the main thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "base/team.h"
#include "bench.h"
#include "bench_args.h"
#include "bench_host.h"
#include "bench_rounds.h"
#include "cmds.h"
#include "kt.h"
#include "load_show.h"
#include "model/model.h"

#define CAT_BLOCK (128u << 10)
#define COPY_BLOCK (1u << 20)
#define COPY_RUN 4 /* blocks of a claim: two threads in one fresh huge page would both zero it */

enum { DISK, COLD, COPY, WARM, CACHE_COLD, CACHE_WARM, N_KINDS };

struct bench {
    kt_engine_opts engine;
    struct rounds rounds;
    bool json, quiet;
    const char *cache_dir; /* NULL: rounds of the first four kinds only */
    kt_engine_info info;   /* strings are gone: numbers only */
    struct bench_host host;
    int *fd; /* [n_files] */
    uint64_t *bytes;
    uint32_t n_files;
    uint64_t total, still_cached, load_bytes;
    char *block; /* CAT_BLOCK */
    double bps[N_KINDS][ROUNDS_MOST], ratio[N_KINDS][ROUNDS_MOST];
    double open_s[N_KINDS][ROUNDS_MOST]; /* whole kt_engine_open */
    double cache_write_s;                /* 0: the cache was there */
    double peak_bytes, engine_bytes;     /* resident at most in a load; what the engine owns then */
};

static kt_status open_files(struct bench *b, kt_err *err)
{
    struct mdl *m;
    KT_TRY(mdl_open(b->engine.model_path, &m, err));
    uint32_t n = mdl_file_count(m);
    b->fd = mem_calloc(n, sizeof *b->fd);
    b->bytes = mem_calloc(n, sizeof *b->bytes);
    b->block = mem_alloc(CAT_BLOCK);
    kt_status s = KT_OK;
    if (b->fd == NULL || b->bytes == NULL || b->block == NULL)
        s = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a list of %u files", n);
    for (uint32_t i = 0; s == KT_OK && i < n; i++) {
        struct mdl_file f;
        mdl_file_at(m, i, &f);
        b->fd[i] = open(f.path, O_RDONLY | O_CLOEXEC);
        if (b->fd[i] < 0)
            s = err_set(err, KT_E_IO, errno, __func__, "%s: cannot open: %s", f.path,
                        strerror(errno));
        else
            b->n_files = i + 1;
        b->bytes[i] = f.bytes;
        b->total += f.bytes;
    }
    mdl_close(m);
    return s;
}

/* Let the system forget the files; what stays in memory all the same is counted. */
static void forget(struct bench *b)
{
    b->still_cached = 0;
    for (uint32_t i = 0; i < b->n_files; i++) {
        (void)fdatasync(b->fd[i]); /* pages that are not on the disk yet are kept */
        (void)posix_fadvise(b->fd[i], 0, 0, POSIX_FADV_DONTNEED);
        size_t pages = (size_t)((b->bytes[i] + 4095) / 4096);
        unsigned char *in = mem_alloc(pages);
        void *p = mmap(NULL, (size_t)b->bytes[i], PROT_READ, MAP_SHARED, b->fd[i], 0);
        if (in != NULL && p != MAP_FAILED && mincore(p, (size_t)b->bytes[i], in) == 0)
            for (size_t k = 0; k < pages; k++)
                b->still_cached += in[k] & 1 ? 4096u : 0;
        if (p != MAP_FAILED)
            munmap(p, (size_t)b->bytes[i]);
        mem_free(in);
    }
}

static kt_status read_all(struct bench *b, kt_err *err)
{
    for (uint32_t i = 0; i < b->n_files; i++)
        for (uint64_t at = 0; at < b->bytes[i];) {
            ssize_t n = pread(b->fd[i], b->block, CAT_BLOCK, (off_t)at);
            if (n <= 0)
                KT_FAIL_OS(err, KT_E_IO, "%s: cannot read: %s", b->engine.model_path,
                           n < 0 ? strerror(errno) : "a file became shorter");
            at += (uint64_t)n;
        }
    return KT_OK;
}

/* ---- the copy ---- */

struct copy {
    const struct bench *b;
    uint8_t *to;
    uint8_t *stage; /* [threads][COPY_BLOCK], or NULL: straight into fresh memory */
    atomic_bool failed;
    _Atomic uint64_t next;
};

/* Blocks of all files are numbered through. false: there is no block n, or it cannot be read. */
static bool copy_block(struct copy *c, uint64_t n, uint8_t *stage)
{
    uint64_t before = 0;
    uint32_t i = 0;
    while (i < c->b->n_files && n >= (c->b->bytes[i] + COPY_BLOCK - 1) / COPY_BLOCK) {
        n -= (c->b->bytes[i] + COPY_BLOCK - 1) / COPY_BLOCK;
        before += c->b->bytes[i++];
    }
    if (i == c->b->n_files)
        return false;
    uint64_t at = n * COPY_BLOCK, end = at + COPY_BLOCK;
    end = end < c->b->bytes[i] ? end : c->b->bytes[i];
    while (at < end) {
        uint8_t *to = c->to + before + at;
        ssize_t got = pread(c->b->fd[i], stage != NULL ? stage : to, (size_t)(end - at), (off_t)at);
        if (got <= 0) {
            atomic_store(&c->failed, true);
            return false;
        }
        if (stage != NULL)
            memcpy(to, stage, (size_t)got);
        at += (uint64_t)got;
    }
    return true;
}

static void copy_worker(void *ctx, uint32_t worker)
{
    struct copy *c = ctx;
    uint8_t *stage = c->stage != NULL ? c->stage + (size_t)worker * COPY_BLOCK : NULL;
    bool more = true;
    while (more) {
        uint64_t n = atomic_fetch_add(&c->next, COPY_RUN);
        for (uint32_t i = 0; more && i < COPY_RUN; i++)
            more = copy_block(c, n + i, stage);
    }
}

/* Take and give back as much memory as a load or a copy takes: a virtual machine whose host has
 * taken free pages away gets them again here, not inside whichever run comes first. */
static void settle_memory(const struct bench *b)
{
    uint8_t *p = mem_map((size_t)b->total);
    for (uint64_t i = 0; p != NULL && i < b->total; i += 4096)
        p[i] = 1;
    mem_unmap(p, (size_t)b->total);
}

/* One copy; *bps becomes its rate if that is higher. */
static kt_status copy_once(struct bench *b, struct team *team, uint8_t *stage, double *bps,
                           kt_err *err)
{
    struct copy c = {.b = b, .stage = stage};
    settle_memory(b);
    uint64_t start = clock_ns();
    c.to = mem_map((size_t)b->total);
    if (c.to == NULL)
        KT_FAIL(err, KT_E_NOMEM, "the system refused %.2f GB for a copy of the model",
                (double)b->total * 1e-9);
    team_run(team, copy_worker, &c);
    double rate = (double)b->total / ((double)(clock_ns() - start) * 1e-9);
    mem_unmap(c.to, (size_t)b->total);
    if (atomic_load(&c.failed))
        KT_FAIL(err, KT_E_IO, "%s: cannot read it all; is it being written?", b->engine.model_path);
    *bps = rate > *bps ? rate : *bps;
    return KT_OK;
}

/* The better of two ways: read straight into the fresh memory, or by a block that the cache holds.
 */
static kt_status time_copy(struct bench *b, double *bps, kt_err *err)
{
    struct team *team;
    size_t stage_bytes = (size_t)b->info.n_threads * COPY_BLOCK;
    uint8_t *stage = mem_map(stage_bytes);
    *bps = 0;
    if (stage == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the blocks of a copy");
    memset(stage, 0, stage_bytes);
    kt_status s = team_open(
        &(struct team_opts){
            .n = b->info.n_threads, .cpu = b->host.cpus, .pin_caller = 1, .name = "kt-copy"},
        &team, err);
    if (s == KT_OK) {
        s = copy_once(b, team, NULL, bps, err);
        if (s == KT_OK)
            s = copy_once(b, team, stage, bps, err);
        team_close(team);
    }
    mem_unmap(stage, stage_bytes);
    return s;
}

/* The largest resident size since the mark was reset; 0 where the system does not tell. */
static double peak_resident(void)
{
    char *text, *at;
    double kib = 0;
    if (file_read("/proc/self/status", 1u << 16, &text, NULL, NULL) != KT_OK)
        return 0;
    at = strstr(text, "VmHWM:");
    if (at != NULL)
        kib = strtod(at + 6, NULL);
    mem_free(text);
    return kib * 1024;
}

static void reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? write(fd, "5", 1) : 0;
    (void)n;
    if (fd >= 0)
        close(fd);
}

static kt_status time_load(struct bench *b, uint32_t kind, uint32_t round, kt_err *err)
{
    kt_engine *e;
    bool cached = kind == CACHE_COLD || kind == CACHE_WARM;
    b->engine.pack_cache_dir = cached ? b->cache_dir : NULL;
    settle_memory(b);
    reset_peak();
    KT_TRY(kt_engine_open(&b->engine, &e, err));
    double peak = peak_resident();
    kt_engine_get_info(e, &b->info);
    bool read = strcmp(b->info.pack_cache, "read") == 0;
    kt_engine_close(e);
    if (cached && !read)
        KT_FAIL(err, KT_E_IO, "--pack-cache %s: the file was not used; the log says why",
                b->cache_dir);
    if (peak > b->peak_bytes)
        b->peak_bytes = peak;
    b->engine_bytes = (double)(b->info.weight_bytes + b->info.kv_bytes + b->info.scratch_bytes);
    if (!cached)
        b->load_bytes = b->info.load_bytes;
    b->bps[kind][round] = (double)b->info.load_bytes / b->info.pack_seconds;
    b->open_s[kind][round] = b->info.load_seconds;
    return KT_OK;
}

/* The packed weights' file too is forgotten or brought into memory. */
static void touch_cache(const struct bench *b, bool forget_it)
{
    DIR *d = b->cache_dir != NULL ? opendir(b->cache_dir) : NULL;
    for (struct dirent *f; d != NULL && (f = readdir(d)) != NULL;) {
        const char *dot = strrchr(f->d_name, '.');
        int fd = dot != NULL && strcmp(dot, ".ktpack") == 0
                     ? openat(dirfd(d), f->d_name, O_RDONLY | O_CLOEXEC)
                     : -1;
        if (fd < 0)
            continue;
        if (forget_it)
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        while (!forget_it && read(fd, b->block, CAT_BLOCK) > 0)
            ;
        close(fd);
    }
    if (d != NULL)
        closedir(d);
}

static kt_status one_kind(void *ctx, uint32_t kind, uint32_t round, kt_err *err)
{
    struct bench *b = ctx;
    uint64_t t;
    switch (kind) {
    case DISK:
        forget(b);
        t = clock_ns();
        KT_TRY(read_all(b, err));
        b->bps[DISK][round] = (double)b->total / ((double)(clock_ns() - t) * 1e-9);
        return KT_OK;
    case COPY:
        KT_TRY(read_all(b, err));
        return time_copy(b, &b->bps[COPY][round], err);
    case COLD:
        forget(b);
        break;
    case WARM:
        KT_TRY(read_all(b, err));
        break;
    default:
        touch_cache(b, kind == CACHE_COLD);
        break;
    }
    return time_load(b, kind, round, err);
}

static void shares(void *ctx, uint32_t round)
{
    struct bench *b = ctx;
    for (uint32_t i = 0; i < b->rounds.n_items; i++)
        b->ratio[i][round] =
            b->bps[i][round] / b->bps[i == COLD || i == CACHE_COLD ? DISK : COPY][round];
}

static void report(struct bench *b)
{
    const struct rounds_line line[] = {
        {"disk_gb_s", "sequential read, cold", "GB/s", b->bps[DISK], 1e-9, false},
        {"cold_gb_s", "load, cold", "GB/s", b->bps[COLD], 1e-9, false},
        {"cold_ratio", "  of the sequential read", "%", b->ratio[COLD], 1, true},
        {"cold_open_s", "  whole opening", "s", b->open_s[COLD], 1, false},
        {"copy_gb_s", "copy to fresh memory, warm", "GB/s", b->bps[COPY], 1e-9, false},
        {"warm_gb_s", "load, warm", "GB/s", b->bps[WARM], 1e-9, false},
        {"warm_ratio", "  of the copy", "%", b->ratio[WARM], 1, true},
        {"warm_open_s", "  whole opening", "s", b->open_s[WARM], 1, false},
        {"cache_cold_gb_s", "pack cache, cold", "GB/s", b->bps[CACHE_COLD], 1e-9, false},
        {"cache_cold_ratio", "  of the sequential read", "%", b->ratio[CACHE_COLD], 1, true},
        {"cache_warm_gb_s", "pack cache, warm", "GB/s", b->bps[CACHE_WARM], 1e-9, false},
        {"cache_warm_ratio", "  of the copy", "%", b->ratio[CACHE_WARM], 1, true},
    };
    struct strbuf text = {0};
    struct json_out j;
    jo_init(&j, &text);
    jo_object(&j);
    jo_kstr(&j, "model", b->engine.model_path);
    jo_kuint(&j, "threads", b->info.n_threads);
    jo_kuint(&j, "rounds", b->rounds.n);
    jo_kuint(&j, "file_bytes", b->total);
    jo_kuint(&j, "load_bytes", b->load_bytes);
    jo_kuint(&j, "weight_bytes", b->info.weight_bytes);
    jo_kuint(&j, "cached_after_forget_bytes", b->still_cached);
    jo_kreal(&j, "engine_bytes", b->engine_bytes);
    jo_kreal(&j, "peak_resident_bytes", b->peak_bytes);
    if (!b->json)
        printf("%s: files %.2f GB, packing reads %.2f GB, %u threads, %u interleaved rounds\n\n"
               "  %-28s %10s %10s %10s\n",
               b->engine.model_path, (double)b->total * 1e-9, (double)b->load_bytes * 1e-9,
               b->info.n_threads, b->rounds.n, "", "median", "q1", "q3");
    for (size_t i = 0; i < sizeof line / sizeof line[0] - (b->cache_dir != NULL ? 0 : 4); i++)
        rounds_line(&line[i], b->rounds.n, false, b->json ? 0 : 28, &j);
    if (b->cache_write_s > 0)
        jo_kreal(&j, "cache_write_s", b->cache_write_s);
    jo_object_end(&j);
    if (b->json && sb_ok(&text)) {
        printf("%s\n", text.data);
    } else {
        printf("\n  peak of resident memory %.3f GB: %.3f GB of packed weights, KV and scratch, "
               "%.3f GB beside them\n",
               b->peak_bytes * 1e-9, b->engine_bytes * 1e-9,
               (b->peak_bytes - b->engine_bytes) * 1e-9);
        if (b->cache_write_s > 0)
            printf("  the pack cache was written in %.2f s, with opening the model and the sync\n",
                   b->cache_write_s);
        if (b->still_cached > b->total / 50)
            printf("  the system kept %.2f GB of the files in memory: cold figures are too good\n",
                   (double)b->still_cached * 1e-9);
    }
    sb_free(&text);
}

static int usage(FILE *to)
{
    fprintf(to,
            "usage: kttune bench load -m MODEL [options]\n\n"
            "  --threads N        worker threads (default: the plan's)\n"
            "  --rounds N         interleaved rounds, 3 to 100 (default 7)\n"
            "  --quant F, --quant-dense F, --cpu-mask LEVEL, --profile host.json as ktserve "
            "has them\n"
            "  --pack-cache DIR   loads from packed weights in DIR too; written there if absent\n"
            "  --quiet            no progress\n"
            "  --json             one JSON object\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* -1: go on; else the exit code */
static int parse(int argc, char **argv, struct bench *b)
{
    kt_engine_opts *e = &b->engine;
    const struct bench_opt opt[] = {OPT_MODEL(&e->model_path),
                                    OPT_THREADS(&e->threads),
                                    OPT_ROUNDS(&b->rounds.n),
                                    OPT_QUANTS(e),
                                    OPT_CPU_MASK(&e->cpu_mask),
                                    OPT_TEXT("profile", &e->profile_path),
                                    OPT_TEXT("pack-cache", &b->cache_dir),
                                    OPT_FLAG("quiet", &b->quiet),
                                    OPT_FLAG("json", &b->json)};
    struct bench_args a = {.command = "bench load", .opt = opt, .n = N_OPTS(opt), .usage = usage};
    kt_engine_opts_init(e);
    e->ctx_tokens = 64; /* little memory beside the weights */
    e->max_seqs = 1;
    e->batch_tokens = 16;
    b->rounds.n = 7;
    int code = bench_args_read(&a, argc, argv);
    if (code >= 0)
        return code;
    if (e->model_path == NULL)
        return bench_args_missing(&a, "-m MODEL");
    b->rounds = (struct rounds){.n = b->rounds.n,
                                .n_items = b->cache_dir != NULL ? N_KINDS : CACHE_COLD,
                                .rng = 1,
                                .ctx = b,
                                .item = one_kind,
                                .after = shares,
                                .show = !b->quiet};
    return -1;
}

static kt_status run(struct bench *b, kt_err *err)
{
    kt_engine *e;
    KT_TRY(open_files(b, err));
    KT_TRY(bench_host_read(b->engine.threads, &b->host, err));
    if (!b->quiet)
        load_show(&b->engine);
    b->engine.pack_cache_dir = b->cache_dir;     /* writes it if there is none */
    KT_TRY(kt_engine_open(&b->engine, &e, err)); /* warm-up, and the number of threads */
    kt_engine_get_info(e, &b->info);
    if (strcmp(b->info.pack_cache, "written") == 0)
        b->cache_write_s = b->info.load_seconds - b->info.pack_seconds;
    kt_engine_close(e);
    b->engine.progress = NULL;
    if (b->info.n_threads > b->host.n_threads)
        KT_FAIL(err, KT_E_INTERNAL, "the engine has %u threads, the plan %u", b->info.n_threads,
                b->host.n_threads);
    return rounds_run(&b->rounds, err);
}

int bench_load(int argc, char **argv)
{
    static struct bench b;
    kt_err err;
    int code = parse(argc, argv, &b);
    if (code >= 0)
        return code;
    kt_status s = run(&b, &err);
    if (s == KT_OK)
        report(&b);
    for (uint32_t i = 0; i < b.n_files; i++)
        close(b.fd[i]);
    mem_free(b.fd);
    mem_free(b.bytes);
    mem_free(b.block);
    bench_host_free(&b.host);
    return s == KT_OK ? EXIT_OK : cmd_fail("bench load", &err, 1);
}
