/* sample.c - choosing a token, and log probabilities. The order of everything that is summed or
 * compared is fixed (logit descending, ties to the lower id), exponentials are the canonical fp32
 * ones, sums are double, and random numbers depend on (seed, choice, position) only: the same
 * inputs give the same token on every host, whatever else the engine does.
 *
 * Chain: top_k, top_p, min_p, temperature, draw. Logits of -inf are legal (banned tokens). No
 * allocation, no state; any thread.
 */
#include "engine/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/fp.h"
#include "kern.h"
#include "kt.h"

#define GREEDY_BELOW 1e-6f

void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0],
             k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* u in [0, 1) with 24 bits */
static double uniform(const kt_sampling *p, uint64_t position)
{
    uint32_t counter[4] = {p->choice, (uint32_t)position, (uint32_t)(position >> 32), 0}, out[4];
    uint32_t key[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)};
    sample_philox(counter, key, out);
    return (double)(out[0] >> 8) * 0x1p-24;
}

/* Smaller for larger logits; both zeros are one value. */
static uint32_t descending(float x)
{
    uint32_t u = fp_bits(x + 0.0f);
    return u >> 31 ? u : ~(u | 0x80000000u);
}

static float logit_of(uint64_t key)
{
    uint32_t u = (uint32_t)(key >> 32);
    return fp_from_bits(u >> 31 ? u : ~u & 0x7fffffffu);
}

uint64_t *sample_sort(const float *logits, uint32_t n, uint64_t *keys, uint64_t *spare)
{
    static const int shift[3] = {32, 43, 54}, bits[3] = {11, 11, 10};
    for (uint32_t i = 0; i < n; i++)
        keys[i] = (uint64_t)descending(logits[i]) << 32 | i;
    for (int pass = 0; pass < 3;
         pass++) { /* stable radix passes: equal logits keep the order of their ids */
        uint32_t count[2049] = {0}, mask = (1u << bits[pass]) - 1;
        for (uint32_t i = 0; i < n; i++)
            count[((keys[i] >> shift[pass]) & mask) + 1]++;
        for (uint32_t d = 0; d < mask; d++)
            count[d + 1] += count[d];
        for (uint32_t i = 0; i < n; i++)
            spare[count[(keys[i] >> shift[pass]) & mask]++] = keys[i];
        uint64_t *t = keys;
        keys = spare;
        spare = t;
    }
    return keys;
}

/* Index of the largest logit, lowest id among equals; -1 if any is NaN. */
static int32_t argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    bool nan = false;
    for (uint32_t i = 0; i < n; i++) {
        nan |= isnan(logits[i]) != 0;
        if (logits[i] > logits[best])
            best = i;
    }
    return nan || n == 0 ? -1 : (int32_t)best;
}

static void vexp(const float *x, float m, uint32_t n, float *y)
{
    kern_find(KERN_EXP, -1, 0, NULL)->run.vexp(x, m, n, y);
}

/* How many of the n leading candidates (logits l, descending) top_p and min_p keep; p is room for
 * their weights. At least one. */
static uint32_t filter(const float *l, float *p, uint32_t n, const kt_sampling *s)
{
    if (s->top_p >= 1 && s->min_p <= 0)
        return n;
    vexp(l, l[0], n, p);
    if (s->top_p < 1) {
        double total = 0, sum = 0;
        for (uint32_t i = 0; i < n; i++)
            total += (double)p[i];
        uint32_t keep = 0;
        while (keep < n) {
            sum += (double)p[keep++];
            if (sum >= (double)s->top_p * total)
                break;
        }
        n = keep;
    }
    while (n > 1 && p[n - 1] < s->min_p) /* p of the best is 1 */
        n--;
    return n;
}

int32_t kt_sample(const float *logits, uint32_t vocab, const kt_sampling *s, uint64_t position,
                  void *scratch)
{
    int32_t best = argmax(logits, vocab);
    if (best < 0 || !(s->temperature >= GREEDY_BELOW) || s->top_k == 1 || isinf(logits[best]))
        return best;
    uint64_t *room = scratch, *order = sample_sort(logits, vocab, room, room + vocab);
    float *l = (float *)(order == room ? room + vocab : room), *p = l + vocab;
    uint32_t n = s->top_k > 0 && (uint32_t)s->top_k < vocab ? (uint32_t)s->top_k : vocab;
    for (uint32_t i = 0; i < n; i++)
        l[i] = logit_of(order[i]);
    n = filter(l, p, n, s);
    for (uint32_t i = 0; i < n; i++)
        l[i] = l[i] / s->temperature;
    if (isinf(l[0])) /* the division left the range: only the best remains */
        return best;
    vexp(l, l[0], n, p);
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        total += (double)p[i];
    double target = uniform(s, position) * total;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)p[i];
        if (sum > target)
            return (int32_t)(uint32_t)order[i];
    }
    return best; /* unreachable: target < total and both sums are the same */
}

struct softmax {
    double max, log_sum;
};

static struct softmax softmax_of(const float *logits, uint32_t n)
{
    float chunk[256], max = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < n && !isinf(max); i += 256) {
        uint32_t k = n - i < 256 ? n - i : 256;
        vexp(logits + i, max, k, chunk);
        for (uint32_t c = 0; c < k; c++)
            sum += (double)chunk[c];
    }
    return (struct softmax){(double)max, sum > 0 ? log(sum) : 0};
}

static double logprob(const struct softmax *m, float logit)
{
    if (isinf(m->max)) /* all banned, or one infinitely likely */
        return (double)logit == m->max && m->max > 0 ? 0 : -(double)INFINITY;
    return (double)logit - m->max - m->log_sum;
}

double kt_logprob(const float *logits, uint32_t vocab, int32_t id)
{
    if (id < 0 || (uint32_t)id >= vocab)
        return -(double)INFINITY;
    struct softmax m = softmax_of(logits, vocab);
    return logprob(&m, logits[id]);
}

void kt_top_logprobs(const float *logits, uint32_t vocab, uint32_t n, int32_t *ids,
                     double *logprobs)
{
    uint32_t have = 0;
    struct softmax m = softmax_of(logits, vocab);
    n = n < 64 ? n : 64;
    for (uint32_t i = 0; i < vocab && n > 0; i++) {
        if (have == n && !(logits[i] > logits[ids[n - 1]]))
            continue;
        uint32_t at = have < n ? have++ : n - 1;
        while (at > 0 && logits[i] > logits[ids[at - 1]]) {
            ids[at] = ids[at - 1];
            at--;
        }
        ids[at] = (int32_t)i;
    }
    for (uint32_t i = 0; i < n; i++) {
        logprobs[i] = i < have ? logprob(&m, logits[ids[i]]) : -(double)INFINITY;
        if (i >= have)
            ids[i] = -1;
    }
}
