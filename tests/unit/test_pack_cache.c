/* test_pack_cache.c - packed weights on disk: the same logits with and without; a file that is
 * torn, flipped anywhere, of another model, build or plan is not used, for a stated reason, and
 * replaced; a disk that is full or a second writer costs the cache, never the load.
 *
 * This program brings its own plan (as test_engine_pools does), so that several pools' rows are in
 * the file. Damage is done to the file from outside; only its documented layout is known here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/sum64.h"
#include "kt.h"
#include "plan/plan.h"

#define VOCAB 1280
/* places in the header */
#define AT_BUILD 16
#define AT_LAYOUT (16 + 17 + 64)
#define AT_DATA 144
#define AT_SELF 192

static uint32_t pools_wanted = 2;
static char dir[64], model[128], lines[4096];
static float want[VOCAB];

void plan_opts_init(struct plan_opts *o)
{
    memset(o, 0, sizeof *o);
    o->reserve = -1;
    o->isa_mask = UINT32_MAX;
}

kt_status plan_host(const struct host *h, const struct plan_opts *o, struct plan **out, kt_err *err)
{
    (void)h;
    (void)o;
    (void)err;
    struct plan *p = mem_calloc(1, sizeof *p);
    assert_non_null(p);
    p->n_pools = p->n_threads = pools_wanted;
    p->pools = mem_calloc(pools_wanted, sizeof *p->pools);
    assert_non_null(p->pools);
    for (uint32_t i = 0; i < pools_wanted; i++) {
        p->pools[i].node = -1;
        p->pools[i].share = i == 0 ? 1 - 0.3 * (pools_wanted - 1) : 0.3;
        p->pools[i].threads = 1;
    }
    *out = p;
    return KT_OK;
}

void plan_free(struct plan *p)
{
    if (p != NULL)
        mem_free(p->pools);
    mem_free(p);
}

void plan_print(const struct plan *p, struct strbuf *out)
{
    sb_printf(out, "%u pools\n", p->n_pools);
}

static void keep_line(void *user, kt_log_level level, const char *line)
{
    (void)user;
    if (level >= KT_LOG_INFO && strstr(line, "pack cache") != NULL)
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", line);
}

/* Loads, compares the logits, and says what became of the cache. */
static const char *load_quant(const char *quant, bool cache, float *logits)
{
    static const char *const states[] = {"off", "read", "written", "failed"};
    kt_engine_opts o;
    kt_engine *e;
    kt_engine_info info;
    kt_err err = {0};
    kt_seq *s;
    int32_t ids[20];
    lines[0] = '\0';
    kt_engine_opts_init(&o);
    o.model_path = model;
    o.ctx_tokens = 64;
    o.batch_tokens = 32;
    o.max_seqs = 1;
    o.quant = o.quant_dense = quant;
    o.pack_cache_dir = cache ? dir : NULL;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        fail_msg("%s", err.msg);
    kt_engine_get_info(e, &info);
    for (int i = 0; i < 20; i++)
        ids[i] = (i * 7919 + 13) % VOCAB;
    assert_int_equal(kt_seq_open(e, 20, &s, &err), KT_OK);
    kt_batch_item it = {.seq = s, .ids = ids, .n = 20, .logits = logits};
    assert_int_equal(kt_step(e, &it, 1, &err), KT_OK);
    kt_seq_close(s);
    size_t k = 0;
    while (strcmp(states[k], info.pack_cache) != 0)
        k++;
    kt_engine_close(e);
    return states[k];
}

static void expect_load(const char *state, const char *reason)
{
    float got[VOCAB];
    const char *is = load_quant("q8_0", true, got);
    if (strcmp(is, state) != 0 || (reason != NULL && strstr(lines, reason) == NULL))
        fail_msg("the cache is %s, expected %s (%s); log: %s", is, state,
                 reason != NULL ? reason : "no reason", lines);
    assert_memory_equal(got, want, sizeof want);
}

/* Names in the directory; the last one that is a cache file in path, if wanted. */
static int count_files(char path[512])
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            n++;
            if (path != NULL)
                snprintf(path, 512, "%s/%s", dir, e->d_name);
        }
    closedir(d);
    return n;
}

static void empty_dir(void)
{
    char path[512];
    while (count_files(path) > 0)
        assert_int_equal(unlink(path), 0);
}

static void copy_file(const char *from, const char *to)
{
    char *data;
    size_t n;
    kt_err err;
    assert_int_equal(file_read(from, 1u << 30, &data, &n, &err), KT_OK);
    assert_int_equal(file_write_atomic(to, data, n, &err), KT_OK);
    mem_free(data);
}

static void flip(const char *path, off_t at, uint8_t bits)
{
    uint8_t b = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &b, 1, at) == 1);
    b ^= bits;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

/* A header that was written by somebody else, whole by itself. */
static void sign_header(const char *path)
{
    uint8_t h[AT_SELF + 32];
    struct sha256 s;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, h, sizeof h, 0) == (ssize_t)sizeof h);
    sha256_init(&s);
    sha256_update(&s, h, AT_SELF);
    sha256_final(&s, h + AT_SELF);
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
}

static off_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void same_logits(void **state)
{
    char path[512];
    (void)state;
    for (pools_wanted = 1; pools_wanted <= 3; pools_wanted++) {
        empty_dir();
        assert_string_equal(load_quant("q8_0", false, want), "off");
        expect_load("written", "no ");
        assert_int_equal(count_files(path), 1);
        expect_load("read", "GB/s");
    }
    pools_wanted = 2;
    empty_dir();
    expect_load("written", NULL);
    (void)count_files(path);
    expect_load("read", NULL);
}

static void torn(void **state)
{
    char path[512];
    (void)state;
    assert_int_equal(count_files(path), 1);
    off_t size = size_of(path);
    const off_t cut[] = {0,    1,        200,         4095,     4096,     4100,
                         8191, size / 3, size - 4096, size - 1, size + 1, size + 4096};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        assert_int_equal(truncate(path, cut[i]), 0);
        expect_load("written", "is not used: it is ");
        assert_int_equal(size_of(path), size);
    }
    expect_load("read", NULL);
}

static void flipped(void **state)
{
    char path[512];
    uint64_t seed = 7;
    (void)state;
    assert_int_equal(count_files(path), 1);
    off_t size = size_of(path);
    uint64_t data;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && pread(fd, &data, 8, AT_DATA) == 8);
    close(fd);
    for (int i = 0; i < 60; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        off_t at = i < 10   ? (off_t)(seed >> 33) % 224       /* the header's fields */
                   : i < 14 ? (off_t)(seed >> 33) % 4096      /* its block */
                   : i < 22 ? 4096 + (off_t)(seed >> 33) % 64 /* checksums */
                            : (off_t)data + (off_t)(seed >> 33) % (size - (off_t)data);
        uint8_t bit = (uint8_t)(1u << (seed >> 20) % 8);
        flip(path, at, bit);
        expect_load("written", "is not used: it");
    }
    expect_load("read", NULL);
}

static void foreign(void **state)
{
    char path[512], other[640];
    (void)state;
    assert_int_equal(count_files(path), 1);
    flip(path, AT_BUILD + 3, 1);
    sign_header(path);
    expect_load("written", "another build of the kernels");
    flip(path, AT_BUILD + 17 + 2, 1); /* the packers' bytes */
    sign_header(path);
    expect_load("written", "another build of the kernels");
    flip(path, AT_LAYOUT, 4);
    sign_header(path);
    expect_load("written", "another plan or other conversions");
    /* the file of another plan under this one's name */
    pools_wanted = 3;
    expect_load("written", "no ");
    assert_int_equal(count_files(NULL), 2);
    (void)count_files(other);
    if (strcmp(other, path) == 0) {
        assert_int_equal(unlink(path), 0);
        (void)count_files(other);
    } else {
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rename(other, path), 0);
    pools_wanted = 2;
    expect_load("written", "is not used: it was packed for another plan");
    expect_load("read", NULL);
}

static void other_model(void **state)
{
    char path[512], file[256];
    struct stat before;
    (void)state;
    assert_int_equal(count_files(path), 1);
    snprintf(file, sizeof file, "%s/model.safetensors", model);
    assert_int_equal(stat(file, &before), 0);
    const struct timespec later[2] = {{0, UTIME_OMIT}, {before.st_mtim.tv_sec + 1, 0}},
                          back[2] = {{0, UTIME_OMIT}, before.st_mtim};
    /* only its time */
    assert_int_equal(utimensat(AT_FDCWD, file, later, 0), 0);
    expect_load("written", "another model's weights");
    assert_int_equal(utimensat(AT_FDCWD, file, back, 0), 0);
    expect_load("written", "another model's weights");
    /* other content, the same size and time: in the first sample behind the middle */
    uint64_t at = (uint64_t)before.st_size / 256 * 200 + 2;
    flip(file, (off_t)at, 1);
    assert_int_equal(utimensat(AT_FDCWD, file, back, 0), 0);
    assert_string_equal(load_quant("q8_0", false, want), "off");
    expect_load("written", "another model's weights");
    expect_load("read", NULL);
    flip(file, (off_t)at, 1);
    assert_int_equal(utimensat(AT_FDCWD, file, back, 0), 0);
    assert_string_equal(load_quant("q8_0", false, want), "off");
    expect_load("written", "another model's weights");
}

static void other_conversion(void **state)
{
    float a[VOCAB], b[VOCAB];
    (void)state;
    assert_int_equal(count_files(NULL), 1);
    assert_string_equal(load_quant("mxfp4", false, a), "off");
    assert_string_equal(load_quant("mxfp4", true, b), "written");
    assert_memory_equal(a, b, sizeof a);
    assert_string_equal(load_quant("mxfp4", true, b), "read");
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(count_files(NULL), 2);
    expect_load("read", NULL); /* the other one is still there */
}

static void full_disk(void **state)
{
    char path[512];
    struct rlimit old, small;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    empty_dir();
    small = old;
    static const rlim_t limit[] = {0, 5000, 300000};
    for (size_t i = 0; i < sizeof limit / sizeof limit[0]; i++) {
        small.rlim_cur = limit[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        float got[VOCAB];
        const char *is = load_quant("q8_0", true, got);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_string_equal(is, "failed");
        assert_non_null(strstr(lines, "was not written"));
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(count_files(path), 0);
    }
    expect_load("written", NULL);
}

static void second_writer(void **state)
{
    char path[512], tmp[520];
    (void)state;
    assert_int_equal(count_files(path), 1);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    assert_int_equal(unlink(path), 0);
    int fd = open(tmp, O_RDWR | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_load("failed", "another process is writing");
    assert_int_equal(access(tmp, F_OK), 0); /* it is the other's */
    close(fd);
    expect_load("written", NULL); /* what a dead process left is taken over */
    assert_int_equal(count_files(NULL), 1);
    expect_load("read", NULL);
}

static void bad_directory(void **state)
{
    kt_engine_opts o;
    kt_engine *e;
    kt_err err = {0};
    (void)state;
    kt_engine_opts_init(&o);
    o.model_path = model;
    o.ctx_tokens = 64;
    o.pack_cache_dir = "/nonexistent/dir";
    assert_int_equal(kt_engine_open(&o, &e, &err), KT_E_INVALID);
    assert_non_null(strstr(err.msg, "/nonexistent/dir"));
}

static void checksum(void **state)
{
    uint8_t b[331]; /* two turns of the loop, and every lane again behind them */
    (void)state;
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= sizeof b; n++) {
        uint64_t is = sum64(b, n, 5);
        assert_true(n == 0 || is != sum64(b, n - 1, 5));
        assert_true(is != sum64(b, n, 6));
        for (size_t i = 0; i<8 * n; i += n> 70 ? 13 : 1) {
            b[i / 8] ^= (uint8_t)(1u << i % 8);
            assert_true(is != sum64(b, n, 5));
            b[i / 8] ^= (uint8_t)(1u << i % 8);
        }
    }
    /* one bit of two words, as a broken line of a memory or a disk leaves it */
    for (size_t bit = 0; bit < 64; bit += 21)
        for (size_t i = bit / 8; i < sizeof b; i += 8)
            for (size_t j = i + 8; j < sizeof b; j += 8) {
                uint64_t is = sum64(b, sizeof b, 0);
                b[i] ^= (uint8_t)(1u << bit % 8);
                b[j] ^= (uint8_t)(1u << bit % 8);
                assert_true(is != sum64(b, sizeof b, 0));
                b[i] ^= (uint8_t)(1u << bit % 8);
                b[j] ^= (uint8_t)(1u << bit % 8);
            }
}

static int make_dirs(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char from[4096], to[256];
    const char *top = getenv("KT_SRCDIR");
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/kt-packcache-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(model, sizeof model, "%s.model", dir);
    if (mkdir(model, 0755) != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/models/demo/%s", top != NULL ? top : ".", files[i]);
        snprintf(to, sizeof to, "%s/%s", model, files[i]);
        copy_file(from, to);
    }
    kt_log_sink(keep_line, NULL);
    return 0;
}

static int remove_dirs(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char path[256];
    (void)state;
    empty_dir();
    rmdir(dir);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", model, files[i]);
        unlink(path);
    }
    return rmdir(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(checksum),
                                       cmocka_unit_test(same_logits),
                                       cmocka_unit_test(torn),
                                       cmocka_unit_test(flipped),
                                       cmocka_unit_test(foreign),
                                       cmocka_unit_test(other_model),
                                       cmocka_unit_test(other_conversion),
                                       cmocka_unit_test(full_disk),
                                       cmocka_unit_test(second_writer),
                                       cmocka_unit_test(bad_directory)};
    return cmocka_run_group_tests_name("pack cache", tests, make_dirs, remove_dirs);
}
