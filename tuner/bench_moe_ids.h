/* bench_moe_ids.h - which experts the tokens of a benchmark's calls take. Pure functions; the same
 * seed gives the same ids.
 */
#ifndef KT_TUNER_BENCH_MOE_IDS_H
#define KT_TUNER_BENCH_MOE_IDS_H

#include <stdbool.h>
#include <stdint.h>

enum moe_routing {
    MOE_BALANCED,     /* experts in turn: every expert as often as every other */
    MOE_CONCENTRATED, /* all tokens of a call take the same experts; the next call the next ones */
    MOE_ZIPF          /* the expert of rank r with probability ~ 1 / r^s; ranks change every call */
};

struct moe_ids {
    enum moe_routing routing;
    double s; /* of MOE_ZIPF */
    uint32_t n_experts, top_k, tokens;
};

/* "balanced", "concentrated", "zipf:S" with 0 <= S <= 10. */
bool moe_routing_parse(const char *text, enum moe_routing *routing, double *s);
/* Ids of call number `call`: [tokens][top_k], distinct in a row. work: [n_experts] doubles. */
void moe_ids_fill(const struct moe_ids *m, uint32_t call, uint64_t *rng, double *work,
                  int32_t *ids);
/* Experts that occur in [tokens][top_k] ids. seen: [n_experts], any content. */
uint32_t moe_ids_distinct(const struct moe_ids *m, const int32_t *ids, uint8_t *seen);

#endif
