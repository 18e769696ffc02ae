/* pack_cache.c - see pack_cache.h.
 *
 * File: a header of 4096 bytes (struct header, zeros behind it), the checksums of all chunks, and
 * the arenas one after another, without gaps. A chunk is 256 KiB of one arena. The header holds
 * the digest of the checksums and its own, so a flipped bit anywhere is found: in the header and
 * the table by SHA-256, in the arenas by the chunk's checksum; the file's length must be exact.
 * Written by all workers into NAME.tmp under a lock, synced, renamed. Numbers are little endian.
 *
 * Each chunk is read straight into the arena by a worker of the pool that owns it and summed while
 * the cache still holds it.
 */
#define _GNU_SOURCE /* fallocate */
#include "pack_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/sum64.h"
#include "pack_key.h"

#define MAGIC "KTPACK\r\n"
#define VERSION 2u
#define HEADER_BYTES 4096u
#define CHUNK ((uint64_t)1 << 18) /* summed while a second-level cache holds it */
#define RUN_CHUNKS 16 /* of a claim: two workers in one fresh huge page would both zero it */
#define PROGRESS_NS 100000000u

struct header {
    char magic[8];
    uint32_t version, n_pools;
    struct pack_key key;
    uint64_t n_chunks, data_at, file_bytes;
    uint8_t table[32]; /* SHA-256 of the checksums */
    uint8_t self[32];  /* SHA-256 of all before it */
};
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header fits its block");

struct pack_cache {
    struct kt_engine *e;
    const kt_engine_opts *o;
    bool drop;
    char path[4096];
    struct header want;
    uint64_t *sum;        /* [n_chunks] */
    uint64_t *pool_chunk; /* [n_pools+1] first chunk of each arena */
    uint64_t *pool_at;    /* [n_pools] where its arena begins in the file */
    int fd;
    bool writing;
    atomic_bool failed;
    atomic_flag why_taken;
    char why[400]; /* the first failure */
    _Atomic uint64_t done_bytes;
    uint64_t last_progress_ns;
};

static void give_up(struct pack_cache *c, const char *why, int os_errno, uint64_t at)
{
    if (!atomic_flag_test_and_set(&c->why_taken))
        snprintf(c->why, sizeof c->why, "%s%s%s at byte %llu", why, os_errno != 0 ? ": " : "",
                 os_errno != 0 ? strerror(os_errno) : "", (unsigned long long)at);
    atomic_store(&c->failed, true);
}

static void hex(const uint8_t *d, int n, char *out)
{
    for (int i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", d[i]);
}

static void sign(const struct header *h, uint8_t out[32])
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, h, offsetof(struct header, self));
    sha256_final(&s, out);
}

static void digest_table(const struct pack_cache *c, uint8_t out[32])
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, c->sum, (size_t)c->want.n_chunks * sizeof *c->sum);
    sha256_final(&s, out);
}

/* Sizes and places, which the layout's digest implies. */
static kt_status lay_out(struct pack_cache *c, kt_err *err)
{
    struct kt_engine *e = c->e;
    struct header *h = &c->want;
    c->pool_chunk = mem_calloc(e->n_pools + 1, sizeof *c->pool_chunk);
    c->pool_at = mem_calloc(e->n_pools, sizeof *c->pool_at);
    if (c->pool_chunk == NULL || c->pool_at == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the pack cache's table");
    for (uint32_t p = 0; p < e->n_pools; p++)
        c->pool_chunk[p + 1] = c->pool_chunk[p] + (e->arena_bytes[p] + CHUNK - 1) / CHUNK;
    h->n_chunks = c->pool_chunk[e->n_pools];
    h->data_at = HEADER_BYTES + h->n_chunks * sizeof *c->sum;
    h->file_bytes = h->data_at;
    for (uint32_t p = 0; p < e->n_pools; p++) {
        c->pool_at[p] = h->file_bytes;
        h->file_bytes += e->arena_bytes[p];
    }
    c->sum = mem_calloc((size_t)h->n_chunks + 1, sizeof *c->sum);
    if (c->sum == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %llu checksums", (unsigned long long)h->n_chunks);
    memcpy(h->magic, MAGIC, sizeof h->magic);
    h->version = VERSION;
    h->n_pools = e->n_pools;
    return KT_OK;
}

kt_status pack_cache_open(struct kt_engine *e, const kt_engine_opts *o, struct source *src,
                          bool drop, struct pack_cache **out, kt_err *err)
{
    struct stat st;
    char layout[17];
    *out = NULL;
    if (stat(o->pack_cache_dir, &st) != 0 || !S_ISDIR(st.st_mode))
        KT_FAIL(err, KT_E_INVALID, "--pack-cache %s: is not a directory; make it first",
                o->pack_cache_dir);
    struct pack_cache *c = mem_calloc(1, sizeof *c);
    if (c == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the pack cache");
    c->e = e;
    c->o = o;
    c->drop = drop;
    c->fd = -1;
    kt_status s = lay_out(c, err);
    if (s == KT_OK)
        s = pack_key_of(e, src, &c->want.key, err);
    hex(c->want.key.layout, 8, layout);
    if (s == KT_OK && snprintf(c->path, sizeof c->path, "%s/%s.%s.ktpack", o->pack_cache_dir,
                               e->model->name, layout) >= (int)sizeof c->path)
        s = err_set(err, KT_E_INVALID, 0, __func__, "--pack-cache %s: the path is too long",
                    o->pack_cache_dir);
    if (s != KT_OK) {
        pack_cache_close(c);
        return s;
    }
    *out = c;
    return KT_OK;
}

void pack_cache_close(struct pack_cache *c)
{
    if (c == NULL)
        return;
    if (c->fd >= 0)
        close(c->fd);
    mem_free(c->sum);
    mem_free(c->pool_chunk);
    mem_free(c->pool_at);
    mem_free(c);
}

/* ---- chunks, by the workers ---- */

static bool move(struct pack_cache *c, uint8_t *p, uint64_t n, uint64_t at)
{
    while (n > 0) {
        ssize_t k = c->writing ? pwrite(c->fd, p, (size_t)n, (off_t)at)
                               : pread(c->fd, p, (size_t)n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            give_up(c, c->writing ? "it cannot be written" : "it cannot be read",
                    k < 0        ? errno
                    : c->writing ? ENOSPC
                                 : EIO,
                    at);
            return false;
        }
        p += k;
        at += (uint64_t)k;
        n -= (uint64_t)k;
    }
    return true;
}

static void do_chunk(struct pack_cache *c, uint32_t pool, uint64_t i, uint32_t worker)
{
    uint64_t off = i * CHUNK, left = c->e->arena_bytes[pool] - off, n = left < CHUNK ? left : CHUNK;
    uint64_t id = c->pool_chunk[pool] + i, at = c->pool_at[pool] + off;
    uint8_t *p = c->e->arena[pool] + off;
    if (atomic_load_explicit(&c->failed, memory_order_relaxed))
        return;
    if (c->writing)
        c->sum[id] = sum64(p, (size_t)n, id);
    if (!move(c, p, n, at))
        return;
    if (!c->writing && sum64(p, (size_t)n, id) != c->sum[id]) {
        give_up(c, "it is damaged (checksum)", 0, at);
        return;
    }
    if (!c->writing && c->drop)
        (void)posix_fadvise(c->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
    uint64_t done = atomic_fetch_add(&c->done_bytes, n) + n, now = clock_ns();
    if (!c->writing && worker == 0 && c->o->progress != NULL &&
        now - c->last_progress_ns > PROGRESS_NS) {
        c->last_progress_ns = now;
        c->o->progress(c->o->progress_user, done, c->e->weight_bytes);
    }
}

static void chunk_worker(void *ctx, uint32_t worker)
{
    struct pack_cache *c = ctx;
    struct kt_engine *e = c->e;
    uint32_t pool = e->worker[worker].pool;
    struct eng_cut cut;
    uint64_t from, to;
    sigset_t size, old;
    /* beyond RLIMIT_FSIZE a write raises a signal that ends the process: take the error instead */
    sigemptyset(&size);
    sigaddset(&size, SIGXFSZ);
    bool blocked = c->writing && pthread_sigmask(SIG_BLOCK, &size, &old) == 0;
    e->worker[worker].phase = 0;
    eng_cut_begin(e, worker, &cut, c->pool_chunk[pool + 1] - c->pool_chunk[pool], 1, RUN_CHUNKS);
    while (eng_cut_next(e, worker, &cut, &from, &to))
        for (uint64_t i = from; i < to; i++)
            do_chunk(c, pool, i, worker);
    if (blocked) {
        while (sigtimedwait(&size, NULL, &(struct timespec){0, 0}) > 0)
            ;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
}

static void all_chunks(struct pack_cache *c, bool writing)
{
    c->writing = writing;
    atomic_store(&c->failed, false);
    atomic_flag_clear(&c->why_taken);
    atomic_store(&c->done_bytes, 0);
    eng_zero_counters(c->e);
    team_run(c->e->team, chunk_worker, c);
    eng_zero_counters(c->e);
}

/* ---- reading ---- */

static bool read_at(int fd, void *p, uint64_t n, uint64_t at)
{
    uint8_t *d = p;
    while (n > 0) {
        ssize_t k = pread(fd, d, (size_t)n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        d += k;
        at += (uint64_t)k;
        n -= (uint64_t)k;
    }
    return true;
}

/* NULL, or why the open file is not the one wanted. Reads the table. */
static const char *check_header(struct pack_cache *c)
{
    uint8_t block[HEADER_BYTES], digest[32];
    struct header h;
    struct stat st;
    const struct pack_key *want = &c->want.key;
    if (fstat(c->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return "it is not a regular file";
    if (!read_at(c->fd, block, sizeof block, 0))
        return "it is shorter than its header";
    memcpy(&h, block, sizeof h);
    sign(&h, digest);
    for (size_t i = sizeof h; i < sizeof block; i++)
        if (block[i] != 0)
            return "its header is damaged";
    if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0)
        return "it is no pack cache, or its header is damaged";
    if (h.version != VERSION)
        return "it was written by another version";
    if (memcmp(h.self, digest, sizeof digest) != 0)
        return "its header is damaged";
    if (memcmp(h.key.build, want->build, sizeof want->build) != 0 ||
        memcmp(h.key.packing, want->packing, sizeof want->packing) != 0)
        return "it was packed for another build of the kernels";
    if (memcmp(h.key.model, want->model, sizeof want->model) != 0)
        return "it holds another model's weights, or the model's files have changed";
    if (memcmp(h.key.layout, want->layout, sizeof want->layout) != 0 ||
        h.n_pools != c->want.n_pools || h.n_chunks != c->want.n_chunks ||
        h.data_at != c->want.data_at || h.file_bytes != c->want.file_bytes)
        return "it was packed for another plan or other conversions";
    if ((uint64_t)st.st_size != h.file_bytes)
        return "it is cut short or has grown";
    if (!read_at(c->fd, c->sum, h.n_chunks * sizeof *c->sum, HEADER_BYTES))
        return "its checksums cannot be read";
    digest_table(c, digest);
    return memcmp(digest, h.table, sizeof digest) != 0 ? "its checksums are damaged" : NULL;
}

bool pack_cache_read(struct pack_cache *c)
{
    uint64_t start = clock_ns();
    c->fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (c->fd < 0 && errno == ENOENT) {
        log_info("pack cache: no %s yet", c->path);
        return false;
    }
    const char *why = c->fd < 0 ? strerror(errno) : check_header(c);
    if (why == NULL) {
        (void)posix_fadvise(c->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        all_chunks(c, false);
        why = atomic_load(&c->failed) ? c->why : NULL;
    }
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (why != NULL) {
        log_warn("pack cache: %s is not used: %s; the weights are packed from the model's files",
                 c->path, why);
        return false;
    }
    c->e->pack_seconds = (double)(clock_ns() - start) * 1e-9;
    c->e->load_bytes = c->e->weight_bytes;
    if (c->o->progress != NULL)
        c->o->progress(c->o->progress_user, c->e->weight_bytes, c->e->weight_bytes);
    log_info("pack cache: read %.1f MB from %s in %.2f s (%.2f GB/s)",
             (double)c->e->weight_bytes * 1e-6, c->path, c->e->pack_seconds,
             (double)c->e->weight_bytes * 1e-9 / c->e->pack_seconds);
    return true;
}

/* ---- writing ---- */

/* Opens and locks NAME.tmp; one that a dead process left is taken over. The file that was locked
 * must still be the one of that name: its owner may have renamed it in between. */
static bool open_temp(struct pack_cache *c, const char *tmp)
{
    struct stat a, b;
    c->fd = open(tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (c->fd < 0) {
        give_up(c, "it cannot be created", errno, 0);
        return false;
    }
    if (flock(c->fd, LOCK_EX | LOCK_NB) != 0 || fstat(c->fd, &a) != 0 || stat(tmp, &b) != 0 ||
        a.st_ino != b.st_ino || a.st_dev != b.st_dev) {
        give_up(c, "another process is writing it", 0, 0);
        return false;
    }
    if (ftruncate(c->fd, 0) != 0) {
        give_up(c, "it cannot be emptied", errno, 0);
        return false;
    }
    return true;
}

static bool write_temp(struct pack_cache *c)
{
    uint8_t block[HEADER_BYTES] = {0};
    /* a full disk is found before an hour of writing, where the file system can tell */
    if (fallocate(c->fd, 0, 0, (off_t)c->want.file_bytes) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS) {
        give_up(c, "there is no room for it", errno, c->want.file_bytes);
        return false;
    }
    if (ftruncate(c->fd, (off_t)c->want.file_bytes) != 0) {
        give_up(c, "there is no room for it", errno, c->want.file_bytes);
        return false;
    }
    all_chunks(c, true);
    if (atomic_load(&c->failed))
        return false;
    digest_table(c, c->want.table);
    sign(&c->want, c->want.self);
    memcpy(block, &c->want, sizeof c->want);
    if (!move(c, (uint8_t *)c->sum, c->want.n_chunks * sizeof *c->sum, HEADER_BYTES) ||
        !move(c, block, sizeof block, 0))
        return false;
    if (fsync(c->fd) != 0) {
        give_up(c, "it cannot be synced", errno, 0);
        return false;
    }
    return true;
}

static bool write_all(struct pack_cache *c, const char *tmp)
{
    if (!open_temp(c, tmp))
        return false;
    bool ok = write_temp(c);
    if (ok && rename(tmp, c->path) != 0) {
        give_up(c, "it cannot be renamed", errno, 0);
        ok = false;
    }
    if (!ok)
        (void)unlink(tmp);
    else
        file_sync_dir_of(c->path);
    return ok;
}

bool pack_cache_write(struct pack_cache *c)
{
    char tmp[sizeof c->path + 8];
    sigset_t size, old;
    uint64_t start = clock_ns();
    snprintf(tmp, sizeof tmp, "%s.tmp", c->path);
    atomic_store(&c->failed, false);
    atomic_flag_clear(&c->why_taken);
    log_info("pack cache: writing %.1f MB to %s", (double)c->want.file_bytes * 1e-6, c->path);
    sigemptyset(&size);
    sigaddset(&size, SIGXFSZ);
    bool blocked = pthread_sigmask(SIG_BLOCK, &size, &old) == 0; /* as chunk_worker */
    bool ok = write_all(c, tmp);
    if (ok && c->drop)
        (void)posix_fadvise(c->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    if (blocked) {
        while (sigtimedwait(&size, NULL, &(struct timespec){0, 0}) > 0)
            ;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (ok)
        log_info("pack cache: written in %.2f s", (double)(clock_ns() - start) * 1e-9);
    else
        log_warn("pack cache: %s was not written: %s; the engine runs all the same. Remedies: "
                 "room on that disk, a writable directory, a higher limit on file sizes",
                 c->path, c->why);
    return ok;
}
