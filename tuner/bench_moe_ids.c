/* bench_moe_ids.c - see bench_moe_ids.h. Calls follow each other in such a way that an expert's
 * weights have left every cache before they are wanted again, as far as the routing allows it.
 */
#include "bench_moe_ids.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

bool moe_routing_parse(const char *text, enum moe_routing *routing, double *s)
{
    char *end;
    if (strcmp(text, "balanced") == 0 || strcmp(text, "concentrated") == 0) {
        *routing = text[0] == 'b' ? MOE_BALANCED : MOE_CONCENTRATED;
        return true;
    }
    if (strncmp(text, "zipf:", 5) != 0 || text[5] == '\0')
        return false;
    errno = 0;
    *s = strtod(text + 5, &end);
    *routing = MOE_ZIPF;
    return errno == 0 && *end == '\0' && *s >= 0 && *s <= 10;
}

static double uniform(uint64_t *rng)
{
    return (double)(m_random(rng) >> 11) * 0x1p-53;
}

/* top_k draws without replacement: weight[r] of those not yet drawn. */
static void draw(const struct moe_ids *m, uint32_t call, uint64_t *rng, double *weight,
                 int32_t *ids)
{
    double total = 0;
    for (uint32_t r = 0; r < m->n_experts; r++)
        total += weight[r] = pow((double)(r + 1), -m->s);
    for (uint32_t j = 0; j < m->top_k; j++) {
        double at = uniform(rng) * total;
        uint32_t r = 0, last = 0;
        for (; r < m->n_experts; r++) {
            if (weight[r] <= 0)
                continue;
            last = r;
            if (at < weight[r])
                break;
            at -= weight[r];
        }
        r = last; /* rounding may leave `at` past the end */
        total -= weight[r];
        weight[r] = 0;
        ids[j] = (int32_t)((r + (uint64_t)call * m->top_k) % m->n_experts);
    }
}

void moe_ids_fill(const struct moe_ids *m, uint32_t call, uint64_t *rng, double *work, int32_t *ids)
{
    for (uint32_t t = 0; t < m->tokens; t++) {
        int32_t *row = ids + (size_t)t * m->top_k;
        uint64_t turn = m->routing == MOE_BALANCED ? (uint64_t)call * m->tokens + t : call;
        if (m->routing == MOE_ZIPF)
            draw(m, call, rng, work, row);
        else
            for (uint32_t j = 0; j < m->top_k; j++)
                row[j] = (int32_t)((turn * m->top_k + j) % m->n_experts);
    }
}

uint32_t moe_ids_distinct(const struct moe_ids *m, const int32_t *ids, uint8_t *seen)
{
    uint32_t n = 0;
    memset(seen, 0, m->n_experts);
    for (size_t i = 0; i < (size_t)m->tokens * m->top_k; i++)
        if (!seen[ids[i]]) {
            seen[ids[i]] = 1;
            n++;
        }
    return n;
}
