/* test_tune_state.c - a search that is killed (SIGKILL, in the middle of a sample) goes on from its
 * notes and ends with the very bytes of a search that nobody disturbed. Truth is that other search,
 * over a recorded table with a virtual clock. Notes that are damaged anywhere, or of another
 * search, are refused with a reason, and the search then begins anew.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "tuner/search.h"
#include "tuner/tune_replay.h"
#include "tuner/tune_state.h"

#define BUDGET 100.0

static struct replay table;
static char path[] = "/tmp/kt-tune-state-XXXXXX";

static int setup(void **state)
{
    char name[4096];
    const char *top = getenv("KT_SRCDIR");
    kt_err err;
    (void)state;
    snprintf(name, sizeof name, "%s/tests/unit/data/replay_decode.json", top != NULL ? top : ".");
    if (replay_read(name, &table, &err) != KT_OK)
        fail_msg("%s", err.msg);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return unlink(path);
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    replay_free(&table);
    return 0;
}

/* A timer that kills the process instead of taking one of its samples. */
struct deadly {
    struct kt_timer timer, *inner;
    uint32_t left; /* samples until then; 0: lives on */
};

/* An interruption after so many samples; 0: none. */
static uint32_t stop_after;
static volatile sig_atomic_t stop;

static enum timer_result deadly_time(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct deadly *d = ctx;
    if (d->left > 0 && --d->left == 0)
        kill(getpid(), SIGKILL);
    if (stop_after > 0 && --stop_after == 0)
        stop = 1;
    return d->inner->time(d->inner->ctx, config, rep, seconds);
}

static double deadly_now(void *ctx)
{
    const struct deadly *d = ctx;
    return d->inner->now(d->inner->ctx);
}

static void mark(void *user, const struct search_progress *p)
{
    (void)p;
    assert_int_equal(state_mark(user, NULL), KT_OK);
}

struct result {
    struct search_out out;
    uint32_t taken_over, void_notes;
    char reason[256];
    bool left; /* is the file still there? */
};

static json_t *key_for(uint32_t seed)
{
    return json_pack("{s:s,s:i,s:{s:i}}", "goal", "decode", "seed", (int)seed, "shape", "hidden",
                     512);
}

static void search_noted(uint32_t seed, double budget, uint32_t kill_after, struct result *r)
{
    struct virtual_timer t;
    struct virtual_faults f;
    struct virtual_source src = replay_source(&table);
    kt_err err = {0};
    virtual_faults_none(&f);
    f.outliers = 0.02;
    f.drift = 0.05;
    f.drift_seconds = 20;
    f.slow_factor = 1.2;
    f.dwell_seconds = 1;
    virtual_open(&t, &src, &f, seed);
    struct deadly d = {.inner = &t.timer, .left = kill_after};
    d.timer = (struct kt_timer){&d, deadly_time, deadly_now, t.timer.limit_seconds};
    struct tune_state s = {
        .path = path, .key = key_for(seed), .repeats = 1, .budget = budget, .seconds = budget};
    memset(r, 0, sizeof *r);
    assert_int_equal(state_begin(&s, &d.timer, true, &err), KT_OK);
    r->taken_over = s.journal.known;
    memcpy(r->reason, s.reason, sizeof r->reason);
    struct search_in in = {.n = table.space.n,
                           .reference = table.reference,
                           .rank = table.space.rank,
                           .budget_seconds = s.seconds,
                           .seed = seed,
                           .stop = &stop,
                           .progress = mark,
                           .user = &s};
    if (search_run(&in, &s.journal.timer, &r->out, &err) != KT_OK)
        fail_msg("%s", err.msg);
    r->void_notes = s.journal.left;
    state_end(&s, r->out.missing[0] == '\0');
    r->left = access(path, F_OK) == 0;
    json_decref(s.key);
}

static void killed(uint32_t seed, double budget, uint32_t after)
{
    pid_t pid = fork();
    int status;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct result r;
        search_noted(seed, budget, after, &r);
        _exit(7); /* it was meant to die */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void same_bytes(struct search_out *a, struct search_out *b)
{
    assert_memory_equal(a->config, b->config, table.space.n * sizeof *a->config);
    search_free(a);
    search_free(b);
    assert_memory_equal(a, b, sizeof *a);
}

static void a_killed_search_goes_on(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        struct result whole, resumed;
        (void)unlink(path);
        search_noted(seed, BUDGET, 0, &whole);
        assert_false(whole.left); /* a complete search leaves no notes */
        uint32_t n = whole.out.samples, before = 0;
        assert_true(n > 200);
        for (uint32_t k = 1; k <= 3; k++) { /* three kills, one after the other */
            killed(seed, BUDGET, k * n / 4);
            assert_int_equal(access(path, F_OK), 0);
        }
        search_noted(seed, BUDGET, 0, &resumed);
        assert_string_equal(resumed.reason, "");
        before = resumed.taken_over;
        printf("seed %u: %u of %u samples were there already\n", seed, before, n);
        assert_true(before > n / 2 && before < n);
        assert_int_equal(resumed.void_notes, 0);
        assert_false(resumed.left);
        same_bytes(&whole.out, &resumed.out);
    }
}

static void a_kill_before_the_first_round_costs_the_warm_up(void **state)
{
    struct result whole, again;
    (void)state;
    (void)unlink(path);
    search_noted(3, BUDGET, 0, &whole);
    killed(3, BUDGET, 5);
    search_noted(3, BUDGET, 0, &again);
    assert_int_equal(again.taken_over, 0);
    same_bytes(&whole.out, &again.out);
}

static void an_interruption_keeps_the_round_that_was_running(void **state)
{
    struct result whole, cut, resumed;
    (void)state;
    (void)unlink(path);
    search_noted(5, BUDGET, 0, &whole);
    for (uint32_t n = 30; n < 40; n += 4) { /* rounds are longer than this */
        stop_after = n;
        search_noted(5, BUDGET, 0, &cut);
        stop = 0;
        assert_true(cut.out.interrupted && cut.left);
        assert_true(cut.out.samples >= n);
        search_free(&cut.out);
        struct search_out copy = whole.out;
        copy.config = malloc(table.space.n * sizeof *copy.config);
        assert_non_null(copy.config);
        memcpy(copy.config, whole.out.config, table.space.n * sizeof *copy.config);
        search_noted(5, BUDGET, 0, &resumed);
        assert_true(resumed.taken_over >= n);
        same_bytes(&copy, &resumed.out);
    }
    search_free(&whole.out);
}

static void a_greater_budget_goes_on(void **state)
{
    struct result small, great;
    (void)state;
    (void)unlink(path);
    search_noted(2, 2, 0, &small);
    assert_string_not_equal(small.out.missing, "");
    assert_true(small.left); /* time was up: the notes stay */
    search_free(&small.out);
    search_noted(2, BUDGET, 0, &great);
    assert_true(great.taken_over > 20);
    assert_string_equal(great.out.missing, "");
    assert_false(great.left);
    search_free(&great.out);
}

/* Write text in place of the notes; the search begins anew and says why. */
static void refused(const char *text, size_t len, const char *says)
{
    struct result r;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    search_noted(5, 1, 0, &r);
    assert_int_equal(r.taken_over, 0);
    if (strstr(r.reason, says) == NULL)
        fail_msg("'%s' does not say '%s'", r.reason, says);
    search_free(&r.out);
}

static void damaged_notes_are_refused(void **state)
{
    char *good;
    size_t len;
    kt_err err;
    struct result r;
    (void)state;
    (void)unlink(path);
    killed(5, BUDGET, 150);
    assert_int_equal(file_read(path, 1u << 20, &good, &len, &err), KT_OK);
    for (size_t i = 0; i < len; i += 1 + len / 40) { /* one changed byte anywhere */
        good[i] ^= 1;
        refused(good, len, "damaged");
        good[i] ^= 1;
    }
    for (size_t i = 0; i < len; i += 1 + len / 40) /* torn anywhere */
        refused(good, i, "damaged");
    refused("", 0, "damaged");
    /* another seed is another search */
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(good, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    search_noted(6, 1, 0, &r);
    assert_int_equal(r.taken_over, 0);
    assert_non_null(strstr(r.reason, "seed is 5 there, 6 here"));
    search_free(&r.out);
    mem_free(good);
}

static void without_memory_nothing_breaks(void **state)
{
    kt_status st = KT_E_NOMEM;
    (void)state;
    (void)unlink(path);
    killed(5, BUDGET, 150);
    for (long n = 0; st != KT_OK; n++) {
        struct virtual_timer t;
        struct virtual_faults f;
        struct virtual_source src = replay_source(&table);
        struct tune_state s = {
            .path = path, .key = key_for(5), .repeats = 1, .budget = 1, .seconds = 1};
        kt_err err;
        virtual_faults_none(&f);
        virtual_open(&t, &src, &f, 5);
        mem_fail_after(n);
        st = state_begin(&s, &t.timer, true, &err);
        mem_fail_after(-1);
        assert_true(st == KT_OK || st == KT_E_NOMEM);
        assert_true(n < 100);
        state_end(&s, false);
        json_decref(s.key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_search_goes_on),
        cmocka_unit_test(a_kill_before_the_first_round_costs_the_warm_up),
        cmocka_unit_test(an_interruption_keeps_the_round_that_was_running),
        cmocka_unit_test(a_greater_budget_goes_on),
        cmocka_unit_test(damaged_notes_are_refused),
        cmocka_unit_test(without_memory_nothing_breaks),
    };
    return cmocka_run_group_tests_name("tune_state", tests, setup, teardown);
}
