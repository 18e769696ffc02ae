/* fingerprint.c - which machine a profile belongs to: hard fields (another machine when one
 * differs), soft fields (the same machine, set up differently), canonical JSON and digests. Reads a
 * struct host only; no I/O. Fields hold no fractions, so canonical JSON (RFC 8785) is sorted keys,
 * no spaces and plain integers. A field that the host does not state is null: absent knowledge on
 * both sides is no difference.
 */
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "profile/facts.h"
#include "profile/profile.h"

/* ---- canonical JSON ---- */

static void put_string(struct strbuf *b, const char *s, size_t n)
{
    static const char named[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    sb_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        const char *at = s[i] != '\0' ? strchr(named, s[i]) : NULL;
        if (at != NULL) {
            sb_putc(b, '\\');
            sb_putc(b, letter[at - named]);
        } else if ((unsigned char)s[i] < 0x20) {
            sb_printf(b, "\\u%04x", (unsigned)(unsigned char)s[i]);
        } else {
            sb_putc(b, s[i]);
        }
    }
    sb_putc(b, '"');
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static kt_status put_object(const json_t *v, struct strbuf *out, kt_err *err)
{
    json_t *obj = (json_t *)(uintptr_t)v, *sub;
    size_t n = json_object_size(v), i = 0;
    const char *key, **keys = mem_calloc(n + 1, sizeof *keys);
    kt_status st = KT_OK;
    if (keys == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a fingerprint");
    json_object_foreach(obj, key, sub) keys[i++] = key;
    qsort(keys, n, sizeof *keys, by_name);
    sb_putc(out, '{');
    for (i = 0; i < n && st == KT_OK; i++) {
        if (i > 0)
            sb_putc(out, ',');
        put_string(out, keys[i], strlen(keys[i]));
        sb_putc(out, ':');
        st = profile_canonical(json_object_get(v, keys[i]), out, err);
    }
    sb_putc(out, '}');
    mem_free(keys);
    return st;
}

kt_status profile_canonical(const json_t *v, struct strbuf *out, kt_err *err)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return put_object(v, out, err);
    case JSON_ARRAY:
        sb_putc(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0)
                sb_putc(out, ',');
            KT_TRY(profile_canonical(json_array_get(v, i), out, err));
        }
        sb_putc(out, ']');
        return KT_OK;
    case JSON_STRING:
        put_string(out, json_string_value(v), json_string_length(v));
        return KT_OK;
    case JSON_INTEGER:
        sb_printf(out, "%lld", (long long)json_integer_value(v));
        return KT_OK;
    case JSON_TRUE:
        sb_puts(out, "true");
        return KT_OK;
    case JSON_FALSE:
        sb_puts(out, "false");
        return KT_OK;
    case JSON_NULL:
        sb_puts(out, "null");
        return KT_OK;
    case JSON_REAL:
        break;
    }
    KT_FAIL(err, KT_E_INVALID,
            "a fingerprint field is a number with a fraction; fields hold integers only");
}

kt_status profile_fields_id(const json_t *fields, char out[72], kt_err *err)
{
    struct strbuf b = {0};
    kt_status st = profile_canonical(fields, &b, err);
    if (st == KT_OK && !sb_ok(&b))
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for a fingerprint");
    if (st == KT_OK) {
        memcpy(out, "sha256:", 7);
        sha256_hex(b.data, b.len, out + 7);
    }
    sb_free(&b);
    return st;
}

void profile_file_id(const char *hard_id, const char *soft_id, const char *created, char out[33])
{
    struct sha256 h;
    uint8_t d[32];
    sha256_init(&h);
    sha256_update(&h, hard_id, strlen(hard_id));
    sha256_update(&h, "\n", 1);
    sha256_update(&h, soft_id, strlen(soft_id));
    sha256_update(&h, "\n", 1);
    sha256_update(&h, created, strlen(created));
    sha256_final(&h, d);
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", d[i]);
}

/* ---- fields of a host ---- */

uint64_t profile_round_bytes(uint64_t bytes)
{
    if (bytes < 16)
        return bytes;
    uint64_t step = (uint64_t)1 << (63 - __builtin_clzll(bytes));
    step /= 16;
    return (bytes + step - 1) / step * step;
}

static json_t *rounded(uint64_t bytes)
{
    return bytes == HOST_UNKNOWN_BYTES ? json_null()
                                       : json_integer((json_int_t)profile_round_bytes(bytes));
}

/* Memory that a virtual machine plugs in while it runs makes node sizes grow from minute to minute,
 * while MemTotal stays. A single node then has MemTotal; of several nobody knows the share, so
 * their sizes say nothing about which machine this is. */
static bool plugged(const struct host *h)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < h->n_nodes; i++)
        sum += h->nodes[i].bytes != HOST_UNKNOWN_BYTES ? h->nodes[i].bytes : 0;
    return h->this_system && h->env.mem_total != HOST_UNKNOWN_BYTES && h->env.mem_total > 0 &&
           sum < h->env.mem_total / 100 * 97;
}

static json_t *node_fields(const struct host *h)
{
    json_t *a = json_array();
    uint64_t growing = h->n_nodes == 1 ? h->env.mem_total : HOST_UNKNOWN_BYTES;
    bool grows = plugged(h);
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        const struct host_node *n = &h->nodes[i];
        json_t *o = json_object();
        json_object_set_new(o, "os", json_integer(n->os));
        json_object_set_new(o, "cores", json_integer(n->cores));
        json_object_set_new(o, "bytes", rounded(grows ? growing : n->bytes));
        json_object_set_new(o, "tier", json_string(host_tier_name(n->tier)));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *gpu_fields(const struct host *h)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < h->n_gpus; i++) {
        const struct host_gpu *g = &h->gpus[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", facts_text(g->name));
        json_object_set_new(
            o, "memory_bytes",
            facts_bytes(g->memory_bytes > 0 ? g->memory_bytes : HOST_UNKNOWN_BYTES));
        json_object_set_new(o, "sm", g->sm > 0 ? json_integer(g->sm) : json_null());
        json_object_set_new(o, "pci", json_string(g->pci));
        json_array_append_new(a, o);
    }
    return a;
}

json_t *profile_hard_fields(const struct host *h)
{
    json_t *f = json_object(), *cpu = json_object();
    bool x86 = h->isa.vendor[0] != '\0';
    json_object_set_new(cpu, "vendor", facts_text(h->isa.vendor));
    json_object_set_new(cpu, "family", x86 ? json_integer(h->isa.family) : json_null());
    json_object_set_new(cpu, "model", x86 ? json_integer(h->isa.model) : json_null());
    json_object_set_new(cpu, "stepping", x86 ? json_integer(h->isa.stepping) : json_null());
    json_object_set_new(f, "arch", json_string(h->isa.arch[0] ? h->isa.arch : "unknown"));
    json_object_set_new(f, "cpu", cpu);
    json_object_set_new(f, "isa", facts_usable_isa(h));
    json_object_set_new(f, "packages", json_integer(h->packages > 0 ? h->packages : 1));
    json_object_set_new(f, "cores", json_integer(h->n_cores > 0 ? h->n_cores : 1));
    json_object_set_new(f, "smt", json_integer(h->smt > 0 ? h->smt : 1));
    json_object_set_new(f, "nodes", node_fields(h));
    json_object_set_new(f, "gpus", gpu_fields(h));
    json_object_set_new(
        f, "hypervisor",
        !h->isa.hypervisor
            ? json_null()
            : json_string(h->isa.hypervisor_id[0] ? h->isa.hypervisor_id : "unknown"));
    return f;
}

/* "gen4x16" of the best link, or null. */
static json_t *link_field(const struct host *h)
{
    int32_t gen = -1, width = -1;
    char text[32];
    for (uint32_t i = 0; i < h->n_gpus; i++)
        if (h->gpus[i].cuda && !h->gpus[i].no_link && h->gpus[i].gen_max > gen) {
            gen = h->gpus[i].gen_max;
            width = h->gpus[i].width_max;
        }
    if (gen < 0)
        return json_null();
    snprintf(text, sizeof text, "gen%dx%d", gen, width);
    return json_string(text);
}

json_t *profile_soft_fields(const struct host *h)
{
    json_t *f = json_object();
    uint64_t huge = 0;
    char microcode[16];
    for (uint32_t i = 0; i < h->env.n_hugetlb; i++)
        huge += h->env.hugetlb[i].total * h->env.hugetlb[i].page_bytes;
    snprintf(microcode, sizeof microcode, "0x%x", h->isa.microcode);
    bool has_microcode = !h->isa.masked && h->isa.microcode != 0;
    json_object_set_new(f, "kernel", facts_text(h->env.kernel));
    json_object_set_new(f, "microcode", has_microcode ? json_string(microcode) : json_null());
    json_object_set_new(f, "bios", facts_text(h->env.bios));
    json_object_set_new(f, "mitigations", facts_text(h->env.mitigations));
    json_object_set_new(f, "governor", facts_text(h->env.governor));
    json_object_set_new(f, "boost", facts_flag(h->env.boost));
    json_object_set_new(f, "thp", facts_text(h->env.thp_enabled));
    json_object_set_new(f, "hugetlb", json_integer((json_int_t)huge));
    json_object_set_new(f, "numa_balancing",
                        h->env.numa_balancing >= 0 ? json_integer(h->env.numa_balancing)
                                                   : json_null());
    json_object_set_new(f, "dimm_mts", json_null());
    json_object_set_new(f, "nvidia_driver", json_null());
    json_object_set_new(f, "cuda", json_null());
    json_object_set_new(f, "gpu_power_limit_watts", json_null());
    json_object_set_new(f, "gpu_link_max", link_field(h));
    double quota = h->limits.quota_cores * 1000.0 + 0.5;
    json_object_set_new(f, "cpu_quota_millicores",
                        h->limits.quota_cores > 0 ? json_integer((json_int_t)quota) : json_null());
    json_object_set_new(f, "cpuset_cpus",
                        h->limits.has_cpuset ? facts_set(&h->limits.cpuset_cpus) : json_null());
    json_object_set_new(f, "cpuset_mems",
                        h->limits.has_cpuset ? facts_set(&h->limits.cpuset_mems) : json_null());
    json_object_set_new(f, "memory_max_bytes", facts_bytes(h->limits.memory_max));
    return f;
}
