/* placement_view.c - where experts are and how often they were chosen.
 * This version has one tier (host memory) and no policy: every expert is resident there, the
 * policy's name is "off", the epoch 0 and nothing migrates. Hits count from the first token on, so
 * window_s is the uptime. Counts are read relaxed while steps go on; each is consistent by itself.
 */
#include "serve/placement_view.h"

#include "base/json_out.h"
#include "base/mem.h"

void base64_add(struct strbuf *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        sb_add(out, four, 4);
    }
}

static size_t cells(const struct placement_in *in)
{
    return (size_t)in->info->n_moe_layers * in->info->n_experts;
}

static uint64_t count_at(const struct placement_in *in, size_t i)
{
    return __atomic_load_n(&in->counts[i], __ATOMIC_RELAXED);
}

static uint64_t total(const struct placement_in *in)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < cells(in); i++)
        sum += count_at(in, i);
    return sum;
}

static void put_bytes(struct json_out *j, const char *key, const unsigned char *p, size_t n)
{
    struct strbuf b = {0};
    base64_add(&b, p, n);
    jo_key(j, key);
    jo_strn(j, b.data == NULL ? "" : b.data, b.len);
    j->b->failed = j->b->failed || !sb_ok(&b);
    sb_free(&b);
}

static void put_grids(struct json_out *j, const struct placement_in *in)
{
    size_t n = cells(in);
    unsigned char *p = mem_calloc(n + 1, 4);
    if (p == NULL) {
        j->b->failed = true;
        return;
    }
    put_bytes(j, "residency", p, n); /* everything in tier 0 */
    put_bytes(j, "pinned", p, (n + 7) / 8);
    for (size_t i = 0; i < n; i++) {
        uint64_t c = count_at(in, i);
        uint32_t v = c > UINT32_MAX ? UINT32_MAX : (uint32_t)c;
        for (int k = 0; k < 4; k++)
            p[4 * i + (size_t)k] = (unsigned char)(v >> 8 * k);
    }
    put_bytes(j, "hits", p, 4 * n);
    mem_free(p);
}

static void put_tier(struct json_out *j, const struct placement_in *in)
{
    uint64_t hits = total(in);
    jo_key(j, "tiers");
    jo_array(j);
    jo_object(j);
    jo_kuint(j, "id", 0);
    jo_kstr(j, "name", "host");
    jo_kstr(j, "kind", "dram");
    jo_kuint(j, "capacity_bytes", in->capacity_bytes);
    jo_kuint(j, "used_bytes", cells(in) * in->info->expert_bytes);
    jo_kuint(j, "experts", cells(in));
    jo_kuint(j, "hits", hits);
    jo_kreal(j, "hit_share", hits > 0 ? 1 : 0);
    jo_object_end(j);
    jo_array_end(j);
}

void placement_json(const struct placement_in *in, struct strbuf *out)
{
    struct json_out j;
    jo_init(&j, out);
    jo_object(&j);
    jo_kstr(&j, "object", "placement");
    jo_kuint(&j, "epoch", 0);
    jo_kreal(&j, "time", in->time);
    jo_kreal(&j, "window_s", in->uptime_s);
    jo_key(&j, "layers");
    jo_array(&j);
    if (in->info->n_moe_layers > 0) {
        jo_uint(&j, in->info->first_moe_layer);
        jo_uint(&j, in->info->last_moe_layer);
    }
    jo_array_end(&j);
    jo_kuint(&j, "n_experts", in->info->n_experts);
    jo_kuint(&j, "experts_per_token", in->info->experts_per_token);
    jo_kuint(&j, "expert_bytes", in->info->expert_bytes);
    put_tier(&j, in);
    put_grids(&j, in);
    jo_key(&j, "migrations");
    jo_object(&j);
    jo_kuint(&j, "total", 0);
    jo_kuint(&j, "bytes_total", 0);
    jo_kuint(&j, "in_flight", 0);
    jo_key(&j, "last");
    jo_array(&j);
    jo_array_end(&j);
    jo_object_end(&j);
    jo_key(&j, "policy");
    jo_object(&j);
    jo_kstr(&j, "name", "off");
    jo_kbool(&j, "paused", false);
    jo_knull(&j, "predicted_gain_percent");
    jo_knull(&j, "measured_gain_percent");
    jo_object_end(&j);
    jo_knull(&j, "report");
    jo_object_end(&j);
}

void placement_text(const struct placement_in *in, struct strbuf *out)
{
    uint64_t hits = total(in);
    uint32_t n = in->info->n_experts;
    sb_printf(out, "placement: policy off, epoch 0, %u layers x %u experts, %u per token, %.0f s\n",
              in->info->n_moe_layers, n, in->info->experts_per_token, in->uptime_s);
    sb_printf(out, "tier 0  host  dram  %zu experts  %llu hits\n", cells(in),
              (unsigned long long)hits);
    for (uint32_t l = 0; l < in->info->n_moe_layers; l++) {
        uint32_t best = 0;
        uint64_t sum = 0;
        for (uint32_t e = 0; e < n; e++) {
            sum += count_at(in, (size_t)l * n + e);
            if (count_at(in, (size_t)l * n + e) > count_at(in, (size_t)l * n + best))
                best = e;
        }
        sb_printf(out, "layer %u: %llu hits, hottest expert %u with %llu\n",
                  in->info->first_moe_layer + l, (unsigned long long)sum, best,
                  (unsigned long long)count_at(in, (size_t)l * n + best));
    }
}
