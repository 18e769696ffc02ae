/* test_place.c - threads and memory on machines larger than the fixed sizes of libc: a kernel of
 * 4096 CPUs is played by this program's own sched_getaffinity and sched_setaffinity, which refuse
 * short buffers as Linux does. Node masks are asked of the real kernel; more than 64 nodes are
 * booted in tests/numa. Teams: workers on their CPUs, refused CPUs counted, the caller's CPUs given
 * back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/place.h"
#include "base/team.h"

#define BIG_BYTES ((size_t)4096 / 8)

static bool big; /* play the large kernel */
static unsigned char allowed[BIG_BYTES], set_to[BIG_BYTES];
static size_t set_bytes;

int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
    if (!big) {
        long n = syscall(SYS_sched_getaffinity, pid, bytes, set);
        if (n < 0)
            return -1;
        memset((char *)set + n, 0, bytes - (size_t)n);
        return 0;
    }
    if (bytes < BIG_BYTES) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, bytes);
    memcpy(set, allowed, BIG_BYTES);
    return 0;
}

int sched_setaffinity(pid_t pid, size_t bytes, const cpu_set_t *set)
{
    if (!big)
        return (int)syscall(SYS_sched_setaffinity, pid, bytes, set);
    memset(set_to, 0, sizeof set_to);
    memcpy(set_to, set, bytes < BIG_BYTES ? bytes : BIG_BYTES);
    set_bytes = bytes;
    return 0;
}

static void four_thousand_cpus(void **state)
{
    struct place_cpus c;
    static const uint32_t on[] = {0, 63, 1023, 1024, 4095};
    (void)state;
    big = true;
    memset(allowed, 0, sizeof allowed);
    for (size_t i = 0; i < 5; i++)
        allowed[on[i] / 8] |= (unsigned char)(1u << on[i] % 8);
    assert_true(place_get(&c));
    assert_int_equal(place_count(&c), 5);
    for (uint32_t cpu = 0, k = 0; cpu < 4096; cpu++) {
        assert_int_equal(place_has(&c, cpu), k < 5 && on[k] == cpu);
        k += k < 5 && on[k] == cpu;
    }
    assert_false(place_has(&c, 1u << 20)); /* beyond the set */
    assert_true(place_pin(4095));
    assert_true(set_bytes >= BIG_BYTES);
    assert_int_equal(set_to[BIG_BYTES - 1], 0x80);
    for (size_t i = 0; i + 1 < BIG_BYTES; i++)
        assert_int_equal(set_to[i], 0);
    assert_true(place_set(&c));
    assert_memory_equal(set_to, allowed, BIG_BYTES);
    place_free(&c);
    assert_false(place_pin(-1));
    mem_fail_after(0);
    assert_false(place_get(&c));
    assert_false(place_pin(3));
    mem_fail_after(-1);
    big = false;
}

static void node_masks(void **state)
{
    int32_t home = 0, far = 5000, bad = -1, both[2] = {0, 5000};
    int node = -1;
    size_t bytes = (size_t)2 << 20;
    (void)state;
    char *p = mem_map(bytes);
    assert_non_null(p);
    int code = place_memory(p, bytes, PLACE_BIND, &home, 1);
    if (code == ENOSYS || code == EPERM) {
        mem_unmap(p, bytes);
        skip();
    }
    assert_int_equal(code, 0);
    assert_int_equal(place_memory(p, bytes, PLACE_INTERLEAVE, &home, 1), 0);
    assert_int_not_equal(place_memory(p, bytes, PLACE_BIND, &far, 1), 0);
    assert_int_not_equal(place_memory(p, bytes, PLACE_BIND, both, 2), 0);
    assert_int_equal(place_memory(p, bytes, PLACE_BIND, &bad, 1), EINVAL);
    void *page = p;
    if (place_nodes_of(&page, 1, &node) == 0) {
        assert_int_equal(node, -ENOENT); /* nobody touched it */
        *p = 1;
        assert_int_equal(place_nodes_of(&page, 1, &node), 0);
        assert_int_equal(node, 0);
    }
    mem_unmap(p, bytes);
}

struct where {
    atomic_int cpu[2], allowed[2];
};

static void look(void *ctx, uint32_t worker)
{
    struct where *w = ctx;
    struct place_cpus c;
    atomic_store(&w->cpu[worker], sched_getcpu());
    if (place_get(&c))
        atomic_store(&w->allowed[worker], (int)place_count(&c));
    place_free(&c);
}

static void teams(void **state)
{
    struct place_cpus before, after;
    struct where w = {0};
    struct team *t;
    kt_err err;
    int cpu[2] = {-1, 100000}; /* no kernel has it */
    (void)state;
    assert_true(place_get(&before));
    for (uint32_t i = 0; cpu[0] < 0; i++)
        if (place_has(&before, i))
            cpu[0] = (int)i;
    struct team_opts o = {.n = 2, .cpu = cpu, .pin_caller = 1, .name = "place"};
    assert_int_equal(team_open(&o, &t, &err), KT_OK);
    assert_int_equal(team_unpinned(t), 1);
    team_run(t, look, &w);
    assert_int_equal(w.cpu[0], cpu[0]);
    assert_int_equal(w.allowed[0], 1);
    assert_int_equal(w.allowed[1], place_count(&before));
    team_close(t);
    assert_true(place_get(&after));
    assert_int_equal(place_count(&after), place_count(&before));
    cpu[1] = cpu[0];
    assert_int_equal(team_open(&o, &t, &err), KT_OK);
    assert_int_equal(team_unpinned(t), 0);
    team_run(t, look, &w);
    assert_int_equal(w.cpu[1], cpu[0]);
    assert_int_equal(w.allowed[1], 1);
    team_close(t);
    place_free(&before);
    place_free(&after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(four_thousand_cpus),
                                       cmocka_unit_test(node_masks), cmocka_unit_test(teams)};
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
