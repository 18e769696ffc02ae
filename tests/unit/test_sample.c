/* test_sample.c - sampling: the generator's published answers, the order of candidates, the chain
 * against a plain second reading of its definition, frequencies against probabilities, odd logits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/sample.h"
#include "kt.h"

#define VOCAB 1000

static uint32_t seed = 3;

static float any_logit(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-20f - 8.0f;
}

static void philox_known_answers(void **state)
{
    (void)state;
    /* the generator's authors publish these three for Philox4x32 with ten rounds */
    static const uint32_t in[3][6] = {
        {0, 0, 0, 0, 0, 0},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0},
    };
    static const uint32_t want[3][4] = {
        {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        sample_philox(in[i], in[i] + 4, out);
        assert_memory_equal(out, want[i], sizeof out);
    }
}

static void order_of_candidates(void **state)
{
    (void)state;
    static const float x[] = {0.0f,    -0.0f,  1.0f,  -INFINITY, 1.0f,
                              -1e-40f, 1e-40f, 3e38f, -3e38f,    0.0f};
    static const uint32_t want[] = {7, 2, 4, 6, 0, 1, 9, 5, 8, 3};
    uint64_t a[10], b[10], *s = sample_sort(x, 10, a, b);
    for (int i = 0; i < 10; i++)
        assert_int_equal((uint32_t)s[i], want[i]);
    static float many[5000];
    static uint64_t k[5000], spare[5000];
    for (int i = 0; i < 5000; i++)
        many[i] = roundf(any_logit() * 16); /* many ties */
    s = sample_sort(many, 5000, k, spare);
    for (int i = 1; i < 5000; i++) {
        uint32_t p = (uint32_t)s[i - 1], q = (uint32_t)s[i];
        assert_true(many[p] > many[q] || (many[p] == many[q] && p < q));
    }
}

/* the exponential as the architecture defines it, by itself */
static float canonical_exp(float x)
{
    static const float inv[8] = {1.0f,      1.0f,       0.5f,       1.0f / 6,
                                 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    if (x < -87)
        return 0;
    x = x > 88 ? 88 : x;
    float n = rintf(x * 0x1.715476p+0f), r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, x)),
          p = inv[7];
    for (int k = 6; k >= 0; k--)
        p = fmaf(p, r, inv[k]);
    return ldexpf(p, (int)n);
}

static const float *sort_by;
static int descending(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return sort_by[x] != sort_by[y] ? (sort_by[x] > sort_by[y] ? -1 : 1) : x - y;
}

/* section 5 of the serving description, read once more */
static int plain_sample(const float *l, const kt_sampling *s, uint64_t position)
{
    static int id[VOCAB];
    static float p[VOCAB];
    int n = VOCAB;
    for (int i = 0; i < n; i++)
        id[i] = i;
    sort_by = l;
    qsort(id, VOCAB, sizeof id[0], descending);
    if (s->top_k > 0 && s->top_k < n)
        n = s->top_k;
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++)
        total += (double)(p[i] = canonical_exp(l[id[i]] - l[id[0]]));
    if (s->top_p < 1) {
        int keep = 0;
        while (keep < n && sum < (double)s->top_p * total)
            sum += (double)p[keep++];
        n = keep > 0 ? keep : 1;
    }
    while (n > 1 && p[n - 1] < s->min_p)
        n--;
    uint32_t counter[4] = {s->choice, (uint32_t)position, (uint32_t)(position >> 32), 0}, out[4];
    uint32_t key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)};
    sample_philox(counter, key, out);
    double u = (double)(out[0] >> 8) * 0x1p-24;
    total = sum = 0;
    for (int i = 0; i < n; i++)
        total +=
            (double)(p[i] = canonical_exp(l[id[i]] / s->temperature - l[id[0]] / s->temperature));
    for (int i = 0; i < n; i++)
        if ((sum += (double)p[i]) > u * total)
            return id[i];
    return -2;
}

static void the_chain(void **state)
{
    (void)state;
    static const float temperature[] = {0.1f, 0.7f, 1, 5}, top_p[] = {1, 0.9f, 0.3f, 1e-6f},
                       min_p[] = {0, 0.05f, 0.9f};
    static const int32_t top_k[] = {0, -1, 1, 2, 40, VOCAB, 1 << 30};
    static float l[VOCAB];
    static uint64_t scratch[2 * VOCAB];
    int round = 0;
    for (size_t a = 0; a < 4; a++)
        for (size_t b = 0; b < 4; b++)
            for (size_t c = 0; c < 3; c++)
                for (size_t d = 0; d < 7; d++, round++) {
                    for (int i = 0; i < VOCAB; i++)
                        l[i] = round % 3 == 0 && i % 5 == 0 ? -INFINITY
                               : round % 2                  ? roundf(any_logit())
                                                            : any_logit();
                    kt_sampling s = {temperature[a],
                                     top_k[d],
                                     top_p[b],
                                     min_p[c],
                                     0x123456789abcdefu + (uint64_t)round,
                                     (uint32_t)round % 3};
                    for (uint64_t pos = 0; pos < 5; pos++)
                        assert_int_equal(kt_sample(l, VOCAB, &s, pos << 31, scratch),
                                         plain_sample(l, &s, pos << 31));
                }
}

static void greedy_and_odd_logits(void **state)
{
    (void)state;
    float l[6] = {1, 3, 3, -INFINITY, 2, 0};
    uint64_t scratch[12];
    kt_sampling greedy = {.temperature = 0, .top_p = 1},
                hot = {.temperature = 1, .top_p = 1, .seed = 1};
    assert_int_equal(kt_sample(l, 6, &greedy, 0, NULL),
                     1); /* no scratch touched: nothing is sorted */
    l[4] = NAN;
    assert_int_equal(kt_sample(l, 6, &greedy, 0, NULL), -1);
    assert_int_equal(kt_sample(l, 6, &hot, 0, scratch), -1);
    for (int i = 0; i < 6; i++)
        l[i] = -INFINITY;
    assert_int_equal(kt_sample(l, 6, &hot, 0, scratch), 0);
    l[3] = -2;
    for (uint64_t pos = 0; pos < 50; pos++) /* everything else is banned */
        assert_int_equal(kt_sample(l, 6, &hot, pos, scratch), 3);
    l[5] = INFINITY;
    assert_int_equal(kt_sample(l, 6, &hot, 0, scratch), 5);
    l[5] = 3e38f;
    l[3] = 2.9e38f;
    hot.temperature = 1e-3f;
    assert_int_equal(kt_sample(l, 6, &hot, 0, scratch), 5);
}

static void frequencies(void **state)
{
    (void)state;
    float l[4] = {0, 1, 2, -1};
    int count[4] = {0};
    uint64_t scratch[8];
    kt_sampling s = {.temperature = 1, .top_p = 1, .seed = 42};
    for (uint64_t pos = 0; pos < 20000; pos++)
        count[kt_sample(l, 4, &s, pos, scratch)]++;
    for (int i = 0; i < 4; i++) {
        double p = exp(kt_logprob(l, 4, i)), sd = sqrt(20000 * p * (1 - p));
        assert_true(fabs(count[i] - 20000 * p) < 5 * sd);
    }
}

static void log_probabilities(void **state)
{
    (void)state;
    static float l[VOCAB];
    double sum = 0, direct = 0;
    for (int i = 0; i < VOCAB; i++)
        l[i] = i % 7 == 0 ? -INFINITY : roundf(any_logit() * 4);
    for (int i = 0; i < VOCAB; i++) {
        sum += exp(kt_logprob(l, VOCAB, i));
        direct += exp((double)l[i]);
    }
    assert_true(fabs(sum - 1) < 1e-6);
    assert_true(fabs(kt_logprob(l, VOCAB, 5) - ((double)l[5] - log(direct))) < 1e-6);
    int32_t ids[64];
    double lp[64];
    kt_top_logprobs(l, VOCAB, 64, ids, lp);
    static uint64_t a[VOCAB], b[VOCAB];
    uint64_t *s = sample_sort(l, VOCAB, a, b);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(ids[i], (uint32_t)s[i]);
        assert_true(lp[i] == kt_logprob(l, VOCAB, ids[i]));
    }
    assert_true(isinf(kt_logprob(l, VOCAB, 0)) && isinf(kt_logprob(l, VOCAB, -1)) &&
                isinf(kt_logprob(l, VOCAB, VOCAB)));
    kt_top_logprobs(l, 3, 5, ids, lp); /* fewer tokens than asked for */
    assert_true(ids[2] == 0 && ids[3] == -1 && isinf(lp[3]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(order_of_candidates),
        cmocka_unit_test(the_chain),
        cmocka_unit_test(greedy_and_odd_logits),
        cmocka_unit_test(frequencies),
        cmocka_unit_test(log_probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
