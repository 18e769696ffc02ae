/* test_bench_moe.c - the routings of kttune bench moe: ids in range and distinct in a row, every
 * expert equally often when balanced, one set a call when concentrated, the law of ranks for zipf.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tuner/bench_moe_ids.h"

#define E 24
#define K 4
#define T 30
#define CALLS 400

static int32_t ids[T * K];
static double work[E];
static uint8_t seen[E];

static void ids_are_valid(void)
{
    for (uint32_t t = 0; t < T; t++)
        for (uint32_t i = 0; i < K; i++) {
            assert_in_range(ids[t * K + i], 0, E - 1);
            for (uint32_t j = 0; j < i; j++)
                assert_int_not_equal(ids[t * K + i], ids[t * K + j]);
        }
}

static void balanced_takes_turns(void **state)
{
    uint32_t count[E] = {0};
    uint64_t rng = 1;
    const struct moe_ids m = {MOE_BALANCED, 0, E, K, T};
    (void)state;
    for (uint32_t c = 0; c < E / K; c++) {
        moe_ids_fill(&m, c, &rng, work, ids);
        ids_are_valid();
        assert_int_equal(moe_ids_distinct(&m, ids, seen), E);
        for (uint32_t i = 0; i < T * K; i++)
            count[ids[i]]++;
    }
    for (uint32_t e = 0; e < E; e++)
        assert_int_equal(count[e], T * K / K);
}

static void concentrated_shares_a_set(void **state)
{
    uint64_t rng = 1;
    const struct moe_ids m = {MOE_CONCENTRATED, 0, E, K, T};
    (void)state;
    for (uint32_t c = 0; c < 2 * E; c++) {
        moe_ids_fill(&m, c, &rng, work, ids);
        ids_are_valid();
        assert_int_equal(moe_ids_distinct(&m, ids, seen), K);
        assert_int_equal(ids[0], c * K % E);
    }
}

/* With one draw a token the frequency of rank r is its probability. */
static void zipf_follows_its_law(void **state)
{
    uint32_t count[E] = {0};
    uint64_t rng = 7;
    double sum = 0;
    const struct moe_ids one = {MOE_ZIPF, 1.1, E, 1, T}, many = {MOE_ZIPF, 10, E, K, T};
    (void)state;
    for (uint32_t c = 0; c < CALLS; c++) {
        moe_ids_fill(&one, c, &rng, work, ids);
        for (uint32_t t = 0; t < T; t++)
            count[((uint32_t)ids[t] + E - c % E) % E]++;
        moe_ids_fill(&many, c, &rng, work, ids); /* so steep that rounding eats the tail */
        ids_are_valid();
    }
    for (uint32_t r = 0; r < E; r++)
        sum += pow(r + 1, -1.1);
    for (uint32_t r = 0; r < E; r++) {
        double want = CALLS * T * pow(r + 1, -1.1) / sum;
        assert_true(fabs(count[r] - want) < 5 * sqrt(want));
    }
}

static void names_are_read(void **state)
{
    enum moe_routing r = MOE_ZIPF;
    double s = 0;
    (void)state;
    assert_true(moe_routing_parse("balanced", &r, &s) && r == MOE_BALANCED);
    assert_true(moe_routing_parse("concentrated", &r, &s) && r == MOE_CONCENTRATED);
    assert_true(moe_routing_parse("zipf:1.25", &r, &s) && r == MOE_ZIPF);
    assert_true(fabs(s - 1.25) < 1e-12);
    static const char *const bad[] = {"",        "zipf",    "zipf:",    "zipf:x",  "zipf:1x",
                                      "zipf:-1", "zipf:11", "zipf:nan", "Balanced"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(moe_routing_parse(bad[i], &r, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(balanced_takes_turns), cmocka_unit_test(concentrated_shares_a_set),
        cmocka_unit_test(zipf_follows_its_law), cmocka_unit_test(names_are_read)};
    return cmocka_run_group_tests_name("bench moe", tests, NULL, NULL);
}
