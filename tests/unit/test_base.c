/* test_base.c - the base room: numbers, strings, JSON output, digests, files, teams. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bar.h"
#include "base/dtype.h"
#include "base/file.h"
#include "base/fp.h"
#include "base/json_out.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/team.h"

static void half_round_trips(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true((f32_to_f16(f) & 0x7fff) > 0x7c00);
        else
            assert_int_equal(f32_to_f16(f), h);
        float b = bf16_to_f32((uint16_t)h);
        if (!isnan(b))
            assert_int_equal(f32_to_bf16(b), h);
    }
}

static void half_rounds_to_nearest_even(void **state)
{
    (void)state;
    /* between every two neighbouring finite halves: the middle goes to the even one, a little more
     * or less to the nearer */
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = f16_to_f32((uint16_t)h), b = f16_to_f32((uint16_t)(h + 1)),
              mid = (float)(((double)a + b) / 2);
        assert_int_equal(f32_to_f16(mid), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
}

static void json_escapes_and_numbers(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct json_out j;
    jo_init(&j, &b);
    jo_object(&j);
    jo_kstr(&j, "a\"\n", "x\\\x01\x7f\xc2\x85\xe2\x80\xa8\xff\xc3\xa9");
    jo_kreal(&j, "r", 0.1);
    jo_kreal(&j, "n", NAN);
    jo_kint(&j, "i", -5);
    jo_key(&j, "l");
    jo_array(&j);
    jo_bool(&j, true);
    jo_null(&j);
    jo_array_end(&j);
    jo_object_end(&j);
    assert_true(sb_ok(&b));
    assert_string_equal(b.data,
                        "{\"a\\\"\\n\":\"x\\\\\\u0001\\u007f\\u0085\\u2028\xef\xbf\xbd\xc3\xa9\","
                        "\"r\":0.1,\"n\":null,\"i\":-5,\"l\":[true,null]}");
    sb_free(&b);
}

static void sha256_vectors(void **state)
{
    (void)state;
    char hex[65];
    sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    sha256_hex(two, strlen(two), hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void dtypes_are_found(void **state)
{
    (void)state;
    for (int t = 0; t < DT_COUNT; t++) {
        const struct dtype_info *i = dtype_info((enum dtype)t);
        assert_non_null(i->name);
        assert_true(i->block_elems > 0 && i->block_bytes > 0);
        assert_int_equal(dtype_by_name(i->name), t);
        if (i->ggml_id >= 0)
            assert_int_equal(dtype_by_ggml_id((uint32_t)i->ggml_id), t);
    }
    assert_int_equal(dtype_by_name("MXFP4"), DT_MXFP4);
    assert_int_equal(dtype_by_ggml_id(4), -1);
    assert_int_equal(dtype_row_bytes(DT_Q4_K, 512), 288);
}

static void files_are_whole_or_absent(void **state)
{
    (void)state;
    char path[] = "/tmp/kt-test-XXXXXX", *data;
    size_t n;
    kt_err err;
    int fd = mkstemp(path);
    close(fd);
    assert_int_equal(file_write_atomic(path, "hello", 5, &err), KT_OK);
    assert_int_equal(file_read(path, 5, &data, &n, &err), KT_OK);
    assert_int_equal(n, 5);
    assert_string_equal(data, "hello");
    mem_free(data);
    assert_int_equal(file_read(path, 4, &data, &n, &err), KT_E_LIMIT);
    unlink(path);
    assert_int_equal(file_read(path, 4, &data, &n, &err), KT_E_NOT_FOUND);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(file_write_atomic("/nonexistent/x", "a", 1, &err), KT_E_IO);
    struct file_map m;
    assert_int_equal(file_map("/tmp", &m, &err), KT_E_IO);
}

/* Names in a directory, "." and ".." apart. */
static int names_in(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

/* Old or new, never a part; and a killed writer leaves nothing where the file system can do that.
 */
static void files_in_the_making_have_no_name(void **state)
{
    (void)state;
    char dir[] = "/tmp/kt-test-XXXXXX", path[64], *data;
    struct file_new f;
    kt_err err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x", dir);
    assert_int_equal(file_write_atomic(path, "old", 3, &err), KT_OK);

    assert_int_equal(file_new_open(&f, path, &err), KT_OK);
    assert_int_equal(write(f.fd, "new", 3), 3);
    assert_int_equal(names_in(dir), f.named ? 2 : 1);
    file_new_close(&f);
    assert_int_equal(file_read(path, 9, &data, NULL, &err), KT_OK);
    assert_string_equal(data, "old");
    mem_free(data);

    assert_int_equal(file_new_open(&f, path, &err), KT_OK);
    assert_int_equal(write(f.fd, "new", 3), 3);
    assert_int_equal(file_new_commit(&f, &err), KT_OK);
    file_new_close(&f);
    assert_int_equal(f.fd, -1);
    assert_int_equal(names_in(dir), 1);
    assert_int_equal(file_read(path, 9, &data, NULL, &err), KT_OK);
    assert_string_equal(data, "new");
    mem_free(data);
    unlink(path);

    pid_t child = fork();
    if (child == 0) {
        if (file_new_open(&f, path, &err) == KT_OK && write(f.fd, "part", 4) == 4 && !f.named)
            raise(SIGKILL);
        _exit(77);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        assert_int_equal(names_in(dir), 0);

    assert_int_equal(file_new_open(&f, dir, &err), KT_E_IO);
    assert_non_null(strstr(err.msg, "is a directory"));
    assert_int_equal(file_new_open(&f, "/nonexistent/x", &err), KT_E_IO);
    assert_non_null(strstr(err.msg, "/nonexistent/x: cannot create"));
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
}

struct count {
    struct team *team;
    atomic_uint hits;
    unsigned seen[64];
};

static void work(void *ctx, uint32_t worker)
{
    struct count *c = ctx;
    for (int i = 0; i < 50; i++) {
        atomic_fetch_add(&c->hits, 1);
        team_barrier(c->team, worker);
        c->seen[worker] = atomic_load(&c->hits);
        team_barrier(c->team, worker);
        if (c->seen[worker] != (unsigned)(i + 1) * team_size(c->team))
            c->seen[worker] = 0xffffffff;
    }
}

static void teams_meet(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 5; n++) {
        struct team_opts o = {.n = n, .name = "t", .spin_ns = n % 2 ? 1 : 0};
        struct count c = {0};
        kt_err err;
        assert_int_equal(team_open(&o, &c.team, &err), KT_OK);
        for (int r = 0; r < 20; r++) {
            atomic_store(&c.hits, 0);
            team_run(c.team, work, &c);
            for (uint32_t w = 0; w < n; w++)
                assert_int_equal(c.seen[w], 50 * n);
        }
        team_close(c.team);
    }
}

static void team_survives_failed_allocations(void **state)
{
    (void)state;
    struct team_opts o = {.n = 2, .name = "t", .cpu = (int[]){0, 0}};
    for (long n = 0; n < 3; n++) {
        struct team *t;
        kt_err err;
        mem_fail_after(n);
        kt_status s = team_open(&o, &t, &err);
        mem_fail_after(-1);
        assert_int_equal(s, KT_E_NOMEM);
        assert_null(t);
    }
}

static void bars(void **state)
{
    struct bar b;
    (void)state;
    const uint64_t second = 1000000000u, gb = 1000000000u;
    bar_open(&b, "loading", true);
    assert_string_equal(bar_step(&b, 1, 8 * gb, 5 * second), "");
    assert_string_equal(bar_step(&b, gb, 8 * gb, 5 * second + 1000), ""); /* too soon */
    assert_string_equal(bar_step(&b, 2 * gb, 8 * gb, 6 * second),
                        "\r\033[Kloading [#######.......................]  25 %  2.00 of 8.00 GB  "
                        "2.00 GB/s  0:03 left");
    assert_string_equal(bar_step(&b, 8 * gb, 8 * gb, 6 * second + 1), "\r\033[K");
    bar_open(&b, "loading", false);
    assert_string_equal(bar_step(&b, 0, 8000 * gb, second), "");
    assert_string_equal(bar_step(&b, 2 * gb, 8000 * gb, 3 * second), "");
    assert_string_equal(bar_step(&b, 6 * gb, 8000 * gb, 7 * second),
                        "loading   0 %, 6.00 of 8000.00 GB, 1.00 GB/s, 2:13:14 left\n");
    assert_string_equal(bar_step(&b, 8000 * gb, 8000 * gb, 8 * second), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars),
        cmocka_unit_test(half_round_trips),
        cmocka_unit_test(half_rounds_to_nearest_even),
        cmocka_unit_test(json_escapes_and_numbers),
        cmocka_unit_test(sha256_vectors),
        cmocka_unit_test(dtypes_are_found),
        cmocka_unit_test(files_are_whole_or_absent),
        cmocka_unit_test(files_in_the_making_have_no_name),
        cmocka_unit_test(teams_meet),
        cmocka_unit_test(team_survives_failed_allocations),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
