/* test_limits.c - affinity, cpusets, quotas and memory limits, read from small text trees that the
 * test writes: cgroup v1, v2 and hybrid, cgroup namespaces, limits at ancestors only, missing and
 * malformed files. The machine of every tree has 8 cores on 2 nodes of 64 GiB. Trees are read
 * through fsroot:, like stored machines; the expected values follow from the kernel's documentation
 * of these files.
 */
#include "config.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "plan/plan.h"

static char work_dir[200];
static char tree[256];
static int serial;

#define MOUNT_V2 "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n"
#define MOUNT_V1                                                                                   \
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n"                         \
    "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n"                                          \
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"

/* Write tree/path, with all its directories. */
static void put(const char *path, const char *text)
{
    char full[600];
    snprintf(full, sizeof full, "%s/%s", tree, path);
    for (char *p = full + strlen(tree) + 1; *p != '\0'; p++)
        if (*p == '/') {
            *p = '\0';
            assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
            *p = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A new tree: 8 CPUs, one per core, 4 per node. */
static void machine(void)
{
    snprintf(tree, sizeof tree, "%s/%d", work_dir, serial++);
    assert_int_equal(mkdir(tree, 0700), 0);
    put("sys/devices/system/cpu/online", "0-7\n");
    put("sys/devices/system/cpu/possible", "0-7\n");
    put("sys/devices/system/node/online", "0-1\n");
    put("proc/meminfo",
        "MemTotal:       134217728 kB\nMemFree: 130000000 kB\nMemAvailable: 131072000 kB\n");
    for (int i = 0; i < 8; i++) {
        char path[128], text[64];
        const char *const names[] = {"core_id", "physical_package_id", "thread_siblings",
                                     "core_siblings"};
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/%s", i, names[k]);
            snprintf(text, sizeof text,
                     k == 0   ? "%d\n"
                     : k == 1 ? "%x\n"
                              : "%08x\n",
                     k == 0   ? i % 4
                     : k == 1 ? i / 4
                     : k == 2 ? 1 << i
                     : i < 4  ? 0xf
                              : 0xf0);
            put(path, text);
        }
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/online", i);
        put(path, "1\n");
    }
    for (int i = 0; i < 2; i++) {
        char path[128], text[128];
        snprintf(path, sizeof path, "sys/devices/system/node/node%d/cpumap", i);
        put(path, i == 0 ? "0000000f\n" : "000000f0\n");
        snprintf(path, sizeof path, "sys/devices/system/node/node%d/meminfo", i);
        snprintf(text, sizeof text, "Node %d MemTotal:       67108864 kB\n", i);
        put(path, text);
    }
}

static struct host *read_tree(void)
{
    struct host *h;
    kt_err err = {0};
    char spec[300];
    snprintf(spec, sizeof spec, "fsroot:%s", tree);
    if (host_read(spec, &h, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(h->n_cores, 8);
    assert_int_equal(h->n_nodes, 2);
    assert_false(h->this_system);
    return h;
}

/* cgroup kind, quota, budget; frees the host */
static void expect(const char *cgroup, double quota, uint32_t cores, uint32_t budget)
{
    struct host *h = read_tree();
    assert_string_equal(h->limits.cgroup, cgroup);
    assert_true(h->limits.quota_cores > quota - 1e-9 && h->limits.quota_cores < quota + 1e-9);
    assert_int_equal(h->limits.cores_allowed, cores);
    assert_int_equal(h->limits.cores_budget, budget);
    host_free(h);
}

static void no_cgroup_no_limits(void **state)
{
    (void)state;
    machine();
    expect("none", 0, 8, 8);
    put("proc/self/mounts", MOUNT_V2);
    put("sys/fs/cgroup/cpu.max",
        "100000 100000\n"); /* without /proc/self/cgroup nobody is inside */
    expect("none", 0, 8, 8);
    struct host *h = read_tree();
    assert_true(h->limits.memory_max == HOST_UNKNOWN_BYTES &&
                h->limits.memory_high == HOST_UNKNOWN_BYTES &&
                h->limits.memlock == HOST_UNKNOWN_BYTES);
    assert_true(host_memory_allowed(h) == UINT64_C(131072000) << 10);
    host_free(h);
}

static void v2_leaf(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", "proc /proc proc rw 0 0\n" MOUNT_V2);
    put("proc/self/cgroup", "0::/user.slice/app.scope\n");
    put("sys/fs/cgroup/user.slice/app.scope/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n");
    put("sys/fs/cgroup/user.slice/app.scope/memory.high", "2147483648\n");
    put("sys/fs/cgroup/user.slice/memory.max", "4294967296\n");
    put("sys/fs/cgroup/user.slice/app.scope/cpu.stat",
        "usage_usec 5\nnr_periods 9\nnr_throttled 3\nthrottled_usec 1500000\n");
    put("proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max locked memory         8388608              8388608              bytes\n");
    expect("v2", 4, 8, 4);
    struct host *h = read_tree();
    struct plan *p;
    assert_true(h->limits.memory_max == UINT64_C(4294967296));
    assert_true(h->limits.memory_high == UINT64_C(2147483648));
    assert_true(host_memory_allowed(h) == UINT64_C(2147483648));
    assert_true(h->limits.memlock == 8388608);
    assert_int_equal(h->limits.throttled_periods, 3);
    assert_true(h->limits.throttled_seconds > 1.49 && h->limits.throttled_seconds < 1.51);
    assert_int_equal(plan_host(h, NULL, &p, NULL), KT_OK);
    assert_int_equal(p->threads_max, 3); /* B 4 keeps one core for server threads */
    assert_int_equal(p->n_warnings, 1);
    assert_string_equal(p->warnings[0].code, "KT008");
    plan_free(p);
    host_free(h);
}

static void v2_ancestor_only(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V2);
    put("proc/self/cgroup", "0::/a/b/c\n");
    put("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/a/b/cpu.max", "600000 100000\n");
    put("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    expect("v2", 2, 8, 2);
}

static void v2_namespace(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V2);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "765000 100000\n");
    put("sys/fs/cgroup/memory.max", "1073741824\n");
    expect("v2", 7.65, 8, 7);
    put("sys/fs/cgroup/cpu.max", "max 100000\n");
    expect("v2", 0, 8, 8);
    put("sys/fs/cgroup/cpu.max", "50000 100000\n");
    expect("v2", 0.5, 8, 1);
    put("sys/fs/cgroup/cpu.max", "300000\n"); /* only the quota: the kernel's default period */
    expect("v2", 3, 8, 3);
    put("sys/fs/cgroup/cpu.max", "99000000 100000\n"); /* more than there are cores */
    expect("v2", 990, 8, 8);
    put("proc/self/cgroup",
        "0::/../elsewhere\n"); /* outside of the namespace's root: only the mount is visible */
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    expect("v2", 2, 8, 2);
}

static void v2_cpuset(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V2);
    put("proc/self/cgroup", "0::/app\n");
    put("sys/fs/cgroup/app/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n");
    put("sys/fs/cgroup/cpuset.mems.effective", "0-1\n");
    put("sys/fs/cgroup/app/cpuset.cpus.effective", "2-4\n");
    expect("v2", 0, 3, 3);
    put("sys/fs/cgroup/app/cpuset.cpus.effective", "\n"); /* empty: the parent's */
    expect("v2", 0, 8, 8);
    put("sys/fs/cgroup/app/cpuset.cpus.effective", "0-3\n");
    put("sys/fs/cgroup/app/cpuset.mems.effective", "1\n");
    struct host *h = read_tree();
    struct plan *p;
    assert_true(h->limits.has_cpuset);
    assert_false(h->nodes[0].allowed);
    assert_true(h->nodes[1].allowed);
    assert_int_equal(plan_host(h, NULL, &p, NULL), KT_OK);
    assert_int_equal(p->n_pools, 1);
    assert_false(p->pools[0].local);
    assert_int_equal(p->pools[0].n_mems, 1);
    assert_int_equal(p->pools[0].mems[0], 1);
    assert_string_equal(p->warnings[0].code, "KT006");
    plan_free(p);
    host_free(h);
}

static void v1_quota_and_memory(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V1);
    put("proc/self/cgroup", "12:memory:/docker/abc\n5:cpuset:/docker/abc\n4:cpu,cpuacct:/docker/"
                            "abc\n1:name=systemd:/docker/abc\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.stat",
        "nr_periods 10\nnr_throttled 7\nthrottled_time 2000000000\n");
    put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
    expect("v1", 0, 8, 8);
    put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "50000\n");
    put("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "536870912\n");
    put("sys/fs/cgroup/cpuset/docker/abc/cpuset.cpus", "0-3,6\n");
    put("sys/fs/cgroup/cpuset/docker/abc/cpuset.mems", "0\n");
    expect("v1", 3, 5, 3);
    struct host *h = read_tree();
    assert_true(h->limits.memory_max == 536870912);
    assert_int_equal(h->limits.throttled_periods, 7);
    assert_true(h->limits.throttled_seconds > 1.99 && h->limits.throttled_seconds < 2.01);
    assert_false(h->nodes[1].allowed);
    host_free(h);
}

static void v1_path_not_visible(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V1);
    put("proc/self/cgroup",
        "4:cpu,cpuacct:/docker/0123456789abcdef\n12:memory:/docker/0123456789abcdef\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
        "250000\n"); /* the container's own cgroup is the mount */
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000\n");
    expect("v1", 2.5, 8, 2);
}

static void hybrid_mounts(void **state)
{
    (void)state;
    machine();
    put("proc/self/mounts", MOUNT_V1 "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
    put("proc/self/cgroup", "4:cpu,cpuacct:/app\n0::/app\n");
    put("sys/fs/cgroup/unified/app/cgroup.procs", "1\n");
    put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "500000\n");
    put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    expect("hybrid", 5, 8, 5);
}

static void odd_mounts(void **state)
{
    (void)state;
    machine();
    put("proc/self/cgroup", "0::/app\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    put("sys/fs/cgroup/app/cpu.max", "200000 100000\n");
    expect("v2", 2, 8, 2); /* no mount table: the usual place */
    put("proc/self/mounts", "cgroup2 /mnt/my\\040cgroups cgroup2 rw 0 0\n");
    put("mnt/my cgroups/app/cpu.max", "300000 100000\n");
    expect("v2", 3, 8, 3);
}

static void malformed_files(void **state)
{
    (void)state;
    static const char *const maxes[] = {"garbage\n",   "",           "100000 0\n",
                                        "-5 100000\n", "nan nan\n",  "1e999 1\n",
                                        "max\n",       "0 100000\n", "100000 x\n"};
    machine();
    put("proc/self/mounts", "broken\n\n   \n" MOUNT_V2 "cgroup2 relative cgroup2 rw 0 0\n");
    put("proc/self/cgroup", "garbage\n0::/app\n7:\n::\n");
    put("sys/fs/cgroup/app/memory.max", "lots\n");
    put("sys/fs/cgroup/app/memory.high", "-1\n");
    put("sys/fs/cgroup/app/cpuset.cpus.effective", "0-\n");
    put("sys/fs/cgroup/app/cpuset.mems.effective", "99999999999\n");
    put("sys/fs/cgroup/app/cpu.stat", "nr_throttled many\n");
    put("proc/self/limits",
        "Max locked memory         unlimited            unlimited            bytes\n");
    put("proc/self/status", "Cpus_allowed_list:\tx\nMems_allowed_list:\n");
    for (size_t i = 0; i < sizeof maxes / sizeof maxes[0]; i++) {
        put("sys/fs/cgroup/app/cpu.max", maxes[i]);
        expect("v2", 0, 8, 8);
    }
    struct host *h = read_tree();
    assert_true(h->limits.memory_max == HOST_UNKNOWN_BYTES &&
                h->limits.memory_high == HOST_UNKNOWN_BYTES &&
                h->limits.memlock == HOST_UNKNOWN_BYTES);
    host_free(h);
    put("proc/self/cgroup", "");
    expect("v2", 0, 8, 8);
}

static void affinity_of_the_tree(void **state)
{
    (void)state;
    machine();
    put("proc/self/status",
        "Name:\tx\nCpus_allowed:\tf0\nCpus_allowed_list:\t4-7\nMems_allowed_list:\t1\n");
    struct host *h = read_tree();
    struct plan *p;
    assert_int_equal(h->limits.cores_allowed, 4);
    assert_int_equal(plan_host(h, NULL, &p, NULL), KT_OK);
    assert_int_equal(p->n_pools, 1);
    assert_int_equal(p->pools[0].node, 1);
    plan_free(p);
    host_free(h);
    machine();
    put("proc/self/mounts", MOUNT_V2);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpuset.cpus.effective", "0-3\n");
    put("proc/self/status",
        "Cpus_allowed_list:\t4-7\n"); /* nothing in common: an error, not a guess */
    char spec[300];
    kt_err err = {0};
    snprintf(spec, sizeof spec, "fsroot:%s", tree);
    assert_int_equal(host_read(spec, &h, &err), KT_E_LIMIT);
    assert_null(h);
}

static void what_if(void **state)
{
    (void)state;
    machine();
    struct host *h = read_tree();
    struct plan *p;
    h->limits.quota_cores = 4;
    host_limits_apply(h);
    assert_int_equal(h->limits.cores_budget, 4);
    assert_int_equal(plan_host(h, NULL, &p, NULL), KT_OK);
    assert_int_equal(p->threads_max, 3);
    plan_free(p);
    host_free(h);
}

static void sets(void **state)
{
    (void)state;
    static const char *const good[] = {"", "0", "0-3,8", "64,127-129", "1048575"};
    static const char *const bad[] = {
        "x", "-", "3-1", "1,", ",1", "1--2", "1 2", "1048576", "99999999999999999999", "0-3,8x"};
    struct host_set s;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(host_set_parse(good[i], &s));
        char *t = host_set_format(&s);
        assert_string_equal(t, good[i]);
        mem_free(t);
        host_set_free(&s);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(host_set_parse(bad[i], &s));
        assert_int_equal(host_set_count(&s), 0);
    }
    assert_true(host_set_parse(" 0-1,5\n", &s));
    assert_int_equal(host_set_count(&s), 3);
    assert_int_equal(host_set_next(&s, 1), 5);
    assert_int_equal(host_set_next(&s, 5), -1);
    host_set_free(&s);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    snprintf(work_dir, sizeof work_dir, "%s/kt-limits-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(work_dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets),
        cmocka_unit_test(no_cgroup_no_limits),
        cmocka_unit_test(v2_leaf),
        cmocka_unit_test(v2_ancestor_only),
        cmocka_unit_test(v2_namespace),
        cmocka_unit_test(v2_cpuset),
        cmocka_unit_test(v1_quota_and_memory),
        cmocka_unit_test(v1_path_not_visible),
        cmocka_unit_test(hybrid_mounts),
        cmocka_unit_test(odd_mounts),
        cmocka_unit_test(malformed_files),
        cmocka_unit_test(affinity_of_the_tree),
        cmocka_unit_test(what_if),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
