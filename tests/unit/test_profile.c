/* test_profile.c - host.json: the example reads; each rule broken once is refused with the path
 * named; a file cut at any byte is refused; each fingerprint field changed alone gives the state
 * and the affected ids of the specification; what is built is what is read back. Documents are made
 * by editing the example's tree, so that each case differs from a valid file in one thing. Hosts
 * are built by hand: no hardware.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/mem.h"
#include "profile/profile.h"

static char *example_text;
static size_t example_len;

static int setup(void **state)
{
    char path[1024];
    const char *src = getenv("KT_SRCDIR");
    (void)state;
    snprintf(path, sizeof path, "%s/profiles/example.json", src != NULL ? src : ".");
    return file_read(path, 1 << 20, &example_text, &example_len, NULL) == KT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mem_free(example_text);
    return 0;
}

static json_t *example(void)
{
    return json_loadb(example_text, example_len, 0, NULL);
}

/* "a.2.b" -> value; numbers index arrays. */
static json_t *at(json_t *root, const char *path)
{
    char part[128];
    while (*path != '\0' && root != NULL) {
        size_t n = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        root = json_is_array(root) ? json_array_get(root, (size_t)strtoul(part, NULL, 10))
                                   : json_object_get(root, part);
        path += n + (path[n] == '/');
    }
    return root;
}

static void put(json_t *root, const char *path, json_t *v)
{
    char parent[256], *slash;
    snprintf(parent, sizeof parent, "%s", path);
    slash = strrchr(parent, '/');
    const char *key = slash != NULL ? slash + 1 : parent;
    json_t *o = slash != NULL ? (*slash = '\0', at(root, parent)) : root;
    assert_non_null(o);
    if (v == NULL)
        assert_int_equal(json_is_array(o) ? json_array_remove(o, (size_t)strtoul(key, NULL, 10))
                                          : json_object_del(o, key),
                         0);
    else if (json_is_array(o))
        assert_int_equal(json_array_set_new(o, (size_t)strtoul(key, NULL, 10), v), 0);
    else
        assert_int_equal(json_object_set_new(o, key, v), 0);
}

/* Make all digests right again, as an honest writer would. */
static void rehash(json_t *root)
{
    char id[72], file_id[33];
    static const char *const parts[] = {"fingerprint/hard", "fingerprint/soft"};
    for (int i = 0; i < 2; i++) {
        json_t *p = at(root, parts[i]);
        assert_int_equal(profile_fields_id(json_object_get(p, "fields"), id, NULL), 0);
        json_object_set_new(p, "id", json_string(id));
    }
    profile_file_id(json_string_value(at(root, "fingerprint/hard/id")),
                    json_string_value(at(root, "fingerprint/soft/id")),
                    json_string_value(at(root, "created")), file_id);
    json_object_set_new(root, "id", json_string(file_id));
}

static kt_status parse_tree(const json_t *root, struct profile **p, kt_err *err)
{
    char *text = json_dumps(root, JSON_REAL_PRECISION(17));
    kt_status st = profile_parse(text, strlen(text), "host.json", p, err);
    free(text);
    return st;
}

static void expect_refused(const json_t *root, const char *words)
{
    struct profile *p = NULL;
    kt_err err = {0};
    kt_status st = parse_tree(root, &p, &err);
    if (st == KT_OK || p != NULL)
        fail_msg("accepted although \"%s\" is broken", words);
    if (strstr(err.msg, words) == NULL || strstr(err.msg, "host.json") == NULL)
        fail_msg("expected \"%s\" in: %s", words, err.msg);
}

/* ---- reading ---- */

static void example_reads(void **state)
{
    struct profile *p;
    kt_err err = {0};
    double v;
    (void)state;
    if (profile_parse(example_text, example_len, "example.json", &p, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(p->stage, "default");
    assert_true(p->complete);
    assert_string_equal(p->id, "8631d8e979321e9656d93b84fe222ca7");
    assert_true(profile_median(p, "mem.read:node0.t12", &v) && v == 166200000000.0);
    assert_false(profile_median(p, "gpu.p2p:all", &v));
    assert_int_equal(p->n_knees, 2);
    assert_int_equal(p->knees[0].node, 0);
    assert_int_equal(p->knees[0].knee_threads,
                     12); /* 166.2 of 168.1 GB/s is 98.9 %; 8 threads give 90 % */
    assert_int_equal(p->knees[0].best_threads, 16);
    assert_true(p->knees[0].read_bytes_per_second == 168100000000.0);
    assert_int_equal(p->knees[0].n_because, 3);
    assert_int_equal(p->knees[1].knee_threads, 0); /* one point is no curve */
    assert_string_equal(profile_decision_str(p, "pages"), "thp");
    assert_string_equal(profile_decision_str(p, "threads.total"), "");
    assert_null(profile_decision_str(p, "none.such"));
    assert_null(profile_isa_level(p, "0000000000000000"));
    assert_int_equal(profile_created_seconds(p), 1768469400);
    profile_close(p);
}

/* A noisy point of the curve: the rate stays known, the knee does not lower the number of threads.
 */
static void noisy_curves_have_no_knee(void **state)
{
    static const char id[] = "\"mem.read:node0.t12\"", ok[] = "\"status\": \"ok\"";
    struct profile *p;
    kt_err err = {0};
    (void)state;
    char *text = strndup(example_text, example_len);
    char *at = text != NULL ? strstr(text, id) : NULL, *status = at != NULL ? strstr(at, ok) : NULL;
    assert_non_null(status);
    struct strbuf b = {0};
    sb_add(&b, text, (size_t)(status - text));
    sb_puts(&b, "\"status\": \"noisy\", \"reason\": \"busy machine\"");
    sb_puts(&b, status + strlen(ok));
    assert_true(sb_ok(&b));
    if (profile_parse(b.data, b.len, "example.json", &p, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(p->knees[0].knee_threads, 0);
    assert_true(p->knees[0].read_bytes_per_second == 168100000000.0);
    profile_close(p);
    sb_free(&b);
    free(text);
}

static void cut_anywhere_is_refused(void **state)
{
    size_t end = example_len;
    (void)state;
    while (end > 0 && example_text[end - 1] != '}')
        end--;
    for (size_t n = 0; n < end; n++) {
        struct profile *p = NULL;
        kt_err err = {0};
        if (profile_parse(example_text, n, "host.json", &p, &err) == KT_OK)
            fail_msg("cut at byte %zu was accepted", n);
        assert_null(p);
        assert_true(strncmp(err.msg, "host.json:", 10) == 0);
    }
}

static void text_rules(void **state)
{
    static const struct {
        const char *text, *words;
        int len; /* 0: strlen */
    } cases[] = {
        {"", "line", 0},
        {"[]", "schema", 0},
        {"{\"a\":1,\"a\":2}", "duplicate", 0},
        {"{\"a\":NaN}", "line 1", 0},
        {"{\"a\":Infinity}", "line 1", 0},
        {"{\"a\":1e999}", "line 1", 0},
        {"{\"a\":\"\xff\"}", "line 1", 0},
        {"{\"a\":\"\xed\xa0\x80\"}", "line 1", 0},
        {"{\"a\":\"x\0y\"}", "line 1", 11},
        {"\xef\xbb\xbf{}", "line 1", 0},
        {"{} x", "line 1", 0},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "deeper than 32",
         0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct profile *p = NULL;
        kt_err err = {0};
        size_t n = cases[i].len > 0 ? (size_t)cases[i].len : strlen(cases[i].text);
        assert_int_not_equal(profile_parse(cases[i].text, n, "f", &p, &err), KT_OK);
        if (strstr(err.msg, cases[i].words) == NULL)
            fail_msg("case %zu: %s", i, err.msg);
    }
    struct profile *p = NULL;
    kt_err err = {0};
    assert_int_equal(profile_parse("{", (size_t)PROFILE_MAX_BYTES + 1, "f", &p, &err),
                     KT_E_LIMIT); /* refused before it is looked at */
}

/* One edit of the example; NULL value removes. */
static const struct {
    const char *path, *json, *words;
    bool rehash;
} broken[] = {
    {"schema", "\"kt.host-profile/2\"", "schema: version 2 is newer", false},
    {"schema", "\"something\"", "schema: must be", false},
    {"schema", "\"kt.host-profile/x\"", "not a known version", false},
    {"id", "\"00\"", "id: \"00\" does not match", false},
    {"id", "\"00000000000000000000000000000000\"", "id: does not match the fingerprint", false},
    {"created", "\"2026-01-15 09:30:00\"", "created: \"2026", false},
    {"created", "\"2026-01-15T09:30:01Z\"", "id: does not match", false},
    {"stage", "\"later\"", "stage: must be one of", false},
    {"complete", "1", "complete: is an integer, must be boolean", false},
    {"surprise", "1", "unknown key \"surprise\"", false},
    {"tool", NULL, "key \"tool\" is missing", false},
    {"tool/kernel_abi", "\"XYZ\"", "tool.kernel_abi: \"XYZ\" does not match", false},
    {"tool/name", "\"other\"", "tool.name: must be \"kttune\"", false},
    {"fingerprint/hard/fields/cores", "31", "fingerprint.hard.id: does not match its fields",
     false},
    {"fingerprint/soft/fields/kernel", "\"6.2\"", "fingerprint.soft.id: does not match", false},
    {"fingerprint/hard/fields/speed", "1.5",
     "fingerprint.hard.fields.speed: is a number with a fraction in none of the allowed forms",
     false},
    {"fingerprint/hard/fields/nodes", "[]", "fingerprint.hard.fields.nodes: has 0 items", true},
    {"environment/limits/cpu_quota_cores", "0",
     "environment.limits.cpu_quota_cores: 0 must be above 0", false},
    {"environment/limits/cores_allowed", "0", "cores_allowed: 0 is below the minimum", false},
    {"environment/limits/cores_allowed", "32.0", "cores_allowed: is a number with a fraction",
     false},
    {"environment/limits/affinity", "\"3-1\"",
     "environment.affinity: \"3-1\" is not an ascending list", false},
    {"environment/limits/affinity", "\"0-63,5\"", "not an ascending list", false},
    {"environment/limits/affinity", "\"0-99999\"", "not an ascending list", false},
    {"environment/limits/affinity", "\"a\"", "environment.limits.affinity: \"a\" does not match",
     false},
    {"environment/steal_ratio", "1.5", "environment.steal_ratio: is a number", false},
    {"environment/x_big", "9007199254740992", "x_big: integer 9007199254740992 is not below 2^53",
     false},
    {"environment/load1", "\"0.4\"", "environment.load1: is a string, must be number or null",
     false},
    {"topology/nodes/1/os", "0", "topology.nodes[1].os: node 0 occurs twice", false},
    {"topology/nodes/0/tier", "\"fast\"", "topology.nodes[0].tier: must be one of", false},
    {"topology/gpus/0/pci", "\"3b:00.0\"", "topology.gpus[0].pci", false},
    {"topology/gpus/0/uuid", "\"1234-serial\"", "topology.gpus[0].uuid", false},
    {"isa/cpuid/1", "\"avx2\"", "isa.cpuid: items 0 and 1 are equal", false},
    {"isa/variants/0/selftest", "\"maybe\"", "isa.variants[0].selftest", false},
    {"counters/papi/reason", NULL, "counters.papi: key \"reason\" is missing", false},
    {"counters/papi/status", "\"ok\"", "counters.papi.events: has 0 items", false},
    {"measurements/1/id", "\"mem.read:node0.t8\"",
     "measurements[1].id: \"mem.read:node0.t8\" occurs twice", false},
    {"measurements/0/id", "\"Mem read\"", "measurements[0].id", false},
    {"measurements/0/median", "\"151400000000\"",
     "measurements[0].median: is a string, must be number", false},
    {"measurements/0/median", NULL, "measurements[0]: key \"median\" is missing", false},
    {"measurements/0/provenance", NULL, "measurements[0]: key \"provenance\" is missing", false},
    {"measurements/0/min", "150950000000.0", "measurements[0].min: 1.5095e+11 is above q1", false},
    {"measurements/0/q1", "151500000000.0", "measurements[0].q1", false},
    {"measurements/0/q3", "151300000000.0", "measurements[0].median", false},
    {"measurements/0/max", "151700000000.0", "measurements[0].q3", false},
    {"measurements/0/ci95", "[151450000000.0, 151600000000.0]", "measurements[0].ci95", false},
    {"measurements/0/ci95", "[1, 2, 3]", "measurements[0].ci95", false},
    {"measurements/0/n", "0", "measurements[0].n: 0 is below the minimum 1", false},
    {"measurements/0/samples", "[1.0, 2.0]", "measurements[0].samples: 2 values, but n is 20",
     false},
    {"measurements/0/unit", "\"GB/s\"", "measurements[0].unit: must be one of", false},
    {"measurements/0/status", "\"fine\"", "measurements[0].status", false},
    {"measurements/0/status", "\"refused\"", "measurements[0]: key \"reason\" is missing", false},
    {"measurements/10/reason", NULL, "measurements[10]: key \"reason\" is missing", false},
    {"measurements/10/median", "5", "measurements[10].median: must not be present here", false},
    {"measurements/0/where/cpus", "\"7-0\"", "cpus: \"7-0\" is not an ascending list", false},
    {"decisions/1/id", "\"pools\"", "decisions[1].id: \"pools\" occurs twice", false},
    {"decisions/2/because/0", "\"mem.read:node9.t1\"",
     "decisions[2].because[0]: no measurement has the id \"mem.read:node9.t1\"", false},
    {"decisions/2/because", "[]", "decisions[2].because: has 0 items", false},
    {"decisions/2/confidence", "\"sure\"", "decisions[2].confidence", false},
    {"decisions/1/value", "23", "threads.total is 23, but the pools have 24 threads", false},
    {"decisions/2/value", "\"12\"", "decisions[2].value: threads.node0 must be a number", false},
    {"decisions/0/value/1/cpus", "\"15-31,47-63\"", "pools[1].cpus: CPU 15 is in two pools", false},
    {"decisions/0/value/1/cpus", "\"64-65\"", "pools[1].cpus: CPU 64 is not allowed", false},
    {"decisions/0/value/1/mems", "[7]", "pools[1].mems: node 7 does not exist", false},
    {"tunings/0/decisions/0/because/0", "\"sync.wake\"", "tunings[0].decisions[0].because[0]",
     false},
    {"tunings/0/kernel_abi", "5", "tunings[0].kernel_abi: is an integer, must be string", false},
    {"warnings/0/code", "\"K1\"", "warnings[0].code", false},
    {"warnings/0/fix", NULL, "warnings[0]: key \"fix\" is missing", false},
};

static void each_rule_broken_once_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        json_t *root = example();
        json_t *v =
            broken[i].json != NULL ? json_loads(broken[i].json, JSON_DECODE_ANY, NULL) : NULL;
        assert_true(broken[i].json == NULL || v != NULL);
        put(root, broken[i].path, v);
        if (broken[i].rehash)
            rehash(root);
        expect_refused(root, broken[i].words);
        json_decref(root);
    }
}

static void free_edits_are_accepted(void **state)
{
    static const struct {
        const char *path, *json;
    } fine[] = {{"x_note", "{\"any\":[1,2.5,null]}"},
                {"environment/x_mine", "true"},
                {"measurements/0/median", "151400000000"},
                {"measurements/0/ci95", "null"},
                {"decisions/0/x_mine", "1"},
                {"warnings", "[]"},
                {"environment/psi", "null"}};
    (void)state;
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        json_t *root = example();
        struct profile *p;
        kt_err err = {0};
        put(root, fine[i].path, json_loads(fine[i].json, JSON_DECODE_ANY, NULL));
        if (parse_tree(root, &p, &err) != KT_OK)
            fail_msg("%s: %s", fine[i].path, err.msg);
        profile_close(p);
        json_decref(root);
    }
}

/* Bytes replaced, removed, doubled at seeded places: an error or a profile, never a crash, and no
 * accepted file with other digests. */
static void damaged_text_never_crashes(void **state)
{
    static const char alphabet[] = "{}[]\",:0123456789.-eE+tfn \\u\n\x01\xff";
    uint64_t seed = 20260115;
    char *copy = mem_alloc(example_len + 64);
    (void)state;
    for (int i = 0; i < 2000; i++) {
        size_t n = example_len;
        memcpy(copy, example_text, n);
        for (int k = 0; k <= i % 3; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t place = (size_t)(seed >> 33) % n;
            if (i % 5 == 4) {
                memmove(copy + place, copy + place + 1, n - place - 1);
                n--;
            } else {
                copy[place] = alphabet[(seed >> 20) % (sizeof alphabet - 1)];
            }
        }
        struct profile *p = NULL;
        kt_err err = {0};
        if (profile_parse(copy, n, "f", &p, &err) != KT_OK)
            assert_true(p == NULL && err.msg[0] != '\0');
        profile_close(p);
    }
    mem_free(copy);
}

static void memory_runs_out_anywhere(void **state)
{
    (void)state;
    for (long n = 0; n < 400; n++) {
        struct profile *p = NULL;
        kt_err err = {0};
        mem_fail_after(n);
        kt_status st = profile_parse(example_text, example_len, "host.json", &p, &err);
        mem_fail_after(-1);
        if (st == KT_OK) {
            profile_close(p);
            return;
        }
        assert_null(p);
    }
    fail_msg("never succeeded");
}

/* ---- fingerprints ---- */

static void canonical_json(void **state)
{
    struct strbuf b = {0};
    (void)state;
    json_t *v = json_loads("{\"b\":[1,-2,true,null],\"a\":{\"z\":\"\\u0001\\n\\\"/"
                           "\\u00e9\\u007f\",\"\":{}},\"B\":9007199254740991}",
                           0, NULL);
    assert_int_equal(profile_canonical(v, &b, NULL), 0);
    assert_string_equal(b.data, "{\"B\":9007199254740991,\"a\":{\"\":{},\"z\":\"\\u0001\\n\\\"/"
                                "\xc3\xa9\x7f\"},\"b\":[1,-2,true,null]}");
    sb_free(&b);
    json_decref(v);
    v = json_loads("{\"a\":1.5}", 0, NULL);
    assert_int_equal(profile_canonical(v, &b, NULL), KT_E_INVALID);
    sb_free(&b);
    json_decref(v);
}

static void node_bytes_round_up(void **state)
{
    (void)state;
    assert_int_equal(profile_round_bytes(270582939648u),
                     274877906944u); /* the example: 252 GiB seen, 256 GiB kept */
    assert_int_equal(profile_round_bytes(1u << 30), 1u << 30);
    assert_int_equal(profile_round_bytes((1u << 30) + 1), (1u << 30) + (1u << 26));
    assert_int_equal(profile_round_bytes(0), 0);
    assert_int_equal(profile_round_bytes(15), 15);
    assert_int_equal(profile_round_bytes((1u << 30) - 1), 1u << 30);
}

/* A machine of two nodes and one GPU, in static memory. */
struct made {
    struct host h;
    struct host_core cores[4];
    struct host_node nodes[2];
    struct host_gpu gpu;
    struct host_cache l3;
    struct host_kind kind;
    struct host_hugetlb huge;
    struct host_warning warning;
    const char *flags[5];
    uint64_t bits[3];
    char name[16], sub[16], kernel[16], bios[16], mitig[16], gov[16], thp[16], hwloc[16];
};

static struct made *make_host(void)
{
    static struct made m;
    memset(&m, 0, sizeof m);
    m.bits[0] = 0x3, m.bits[1] = 0xc, m.bits[2] = 0xf;
    for (int i = 0; i < 2; i++) {
        m.nodes[i] = (struct host_node){.os = i,
                                        .logical = i,
                                        .allowed = true,
                                        .cpus = {&m.bits[i], 1},
                                        .cores = 2,
                                        .bytes = (uint64_t)16 << 30};
    }
    strcpy(m.name, "Card 80GB"), strcpy(m.kernel, "6.1.0"), strcpy(m.bios, "1.0"),
        strcpy(m.mitig, "auto");
    strcpy(m.gov, "performance"), strcpy(m.thp, "madvise"), strcpy(m.hwloc, "2.9.0");
    m.gpu = (struct host_gpu){.cuda = true,
                              .name = m.name,
                              .pci = "0000:3b:00.0",
                              .memory_bytes = (uint64_t)80 << 30,
                              .sm = 90,
                              .node = 0,
                              .node_origin = "hwloc",
                              .gen_now = 1,
                              .gen_max = 4,
                              .width_now = 16,
                              .width_max = 16};
    m.l3 = (struct host_cache){{&m.bits[2], 1}, 32 << 20, false};
    m.kind = (struct host_kind){.cpus = {&m.bits[2], 1}, .rank = -1, .capacity = -1};
    m.huge = (struct host_hugetlb){0, 1 << 21, 4, 4};
    const char *flags[] = {"avx2", "avx512f", "f16c", "fma", "sse2"};
    memcpy(m.flags, flags, sizeof flags);
    struct host *h = &m.h;
    h->source = "native", h->this_system = true;
    h->packages = 1, h->n_cores = 4, h->n_pus = 4, h->smt = 1;
    h->nodes = m.nodes, h->n_nodes = 2, h->gpus = &m.gpu, h->n_gpus = 1, h->l3 = &m.l3, h->n_l3 = 1,
    h->kinds = &m.kind, h->n_kinds = 1;
    strcpy(h->isa.arch, "x86_64"), strcpy(h->isa.vendor, "GenuineIntel");
    h->isa.family = 6, h->isa.model = 106, h->isa.stepping = 6, h->isa.microcode = 0xd0003a5;
    h->isa.cpuid = m.flags, h->isa.n_cpuid = 5, h->isa.xcr0 = 0xe7,
    h->isa.amx_permission = "not_asked";
    h->limits.cgroup = "v2", h->limits.has_cpuset = true;
    struct host_set all = {&m.bits[2], 1}, mems = {&m.bits[0], 1};
    h->limits.affinity = h->limits.cpuset_cpus = h->limits.allowed_pus = all;
    h->limits.cpuset_mems = mems;
    h->limits.memory_max = h->limits.memory_high = h->limits.memlock = HOST_UNKNOWN_BYTES;
    h->limits.cores_allowed = h->limits.cores_budget = 4;
    h->env = (struct host_env){.governor = m.gov,
                               .thp_enabled = m.thp,
                               .kernel = m.kernel,
                               .bios = m.bios,
                               .mitigations = m.mitig,
                               .boost = 1,
                               .throttled = -1,
                               .numa_balancing = 0,
                               .perf_event_paranoid = INT_MIN,
                               .hugetlb = &m.huge,
                               .n_hugetlb = 1,
                               .psi_cpu = -1,
                               .psi_memory = -1,
                               .psi_io = -1,
                               .steal_ratio = -1,
                               .load1 = -1,
                               .mem_total = HOST_UNKNOWN_BYTES,
                               .mem_available = HOST_UNKNOWN_BYTES};
    h->hwloc_version = m.hwloc;
    return &m;
}

static struct profile *build(const struct host *h)
{
    struct profile_tool tool = {.kernel_abi = "0123456789abcdef"};
    struct profile *p;
    kt_err err = {0};
    if (profile_build(h, &tool, &p, &err) != KT_OK)
        fail_msg("%s", err.msg);
    return p;
}

static void built_profile_round_trips(void **state)
{
    char path[] = "/tmp/kt-profile-XXXXXX";
    struct profile *p = build(&make_host()->h), *q = NULL;
    kt_err err = {0};
    struct strbuf a = {0}, b = {0};
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    json_t *m =
        json_pack("{s:s,s:s,s:{s:s,s:[i],s:n},s:{},s:s,s:s,s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:n,s:{s:s,"
                  "s:s,s:s,s:f,s:s}}",
                  "id", "mem.read:node0.t2", "what", "read", "where", "cpus", "0-1", "mem", 0,
                  "gpu", "params", "unit", "bytes_per_second", "status", "ok", "n", 3,
                  "n_discarded", 0, "median", 0.1, "q1", 0.1, "q3", 1e300, "min", 1e-300, "max",
                  1e300, "ci95", "provenance", "method", "m", "clock", "monotonic", "started",
                  "2026-01-01T00:00:00Z", "duration_seconds", 1.0, "order", "single");
    assert_non_null(m);
    assert_int_equal(profile_put_measurement(p, m, &err), 0);
    assert_int_equal(profile_warn(p, "KT010", "warning", "a", NULL, "t", &err), 0);
    assert_int_equal(profile_warn(p, "KT010", "warning", "a", NULL, "t", &err), 0);
    assert_int_equal(json_array_size(at(p->root, "warnings")), 1);
    profile_stage(p, "quick", false);
    if (profile_write(p, path, &err) != KT_OK || profile_read(path, &q, &err) != KT_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(q->stage, "quick");
    assert_false(q->complete);
    assert_int_equal(profile_text(p, &a, NULL), 0);
    assert_int_equal(profile_text(q, &b, NULL), 0);
    assert_string_equal(a.data, b.data);
    assert_null(strstr(a.data, "uuid"));
    profile_close(q);
    /* a document that breaks a rule is not written; the old file stays */
    json_object_set_new(at(p->root, "measurements/0"), "status", json_string("fine"));
    assert_int_equal(profile_write(p, path, &err), KT_E_INTERNAL);
    assert_int_equal(profile_read(path, &q, &err), KT_OK);
    profile_close(q);
    profile_close(p);
    sb_free(&a);
    sb_free(&b);
    unlink(path);
}

static void same_host_same_ids(void **state)
{
    (void)state;
    struct made *m = make_host();
    struct profile *p = build(&m->h);
    char *hard = mem_strdup(p->hard_id), *soft = mem_strdup(p->soft_id);
    profile_close(p);
    m->h.limits.memlock = 5, m->h.env.load1 = 3, m->h.env.steal_ratio = 0.5,
    m->gpu.gen_now = 4;             /* provenance only */
    m->nodes[0].bytes -= 100 << 20; /* what the kernel keeps varies */
    p = build(&m->h);
    assert_string_equal(p->hard_id, hard);
    assert_string_equal(p->soft_id, soft);
    struct profile_match match;
    assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_MATCH);
    profile_match_free(&match);
    profile_close(p);
    mem_free(hard);
    mem_free(soft);
}

/* ---- matching ---- */

#define ALL_BUT_TOPO "* !topo"

static void edit(struct made *m, int i)
{
    struct host *h = &m->h;
    switch (i) {
    case 0:
        strcpy(h->isa.vendor, "AuthenticAMD");
        break;
    case 1:
        h->isa.family++;
        break;
    case 2:
        h->isa.model++;
        break;
    case 3:
        h->isa.stepping++;
        break;
    case 4:
        h->isa.n_cpuid = 4, m->flags[1] = "f16c", m->flags[2] = "fma";
        break;
    case 5:
        h->packages = 2;
        break;
    case 6:
        h->n_cores = 6;
        break;
    case 7:
        h->smt = 2;
        break;
    case 8:
        h->n_nodes = 1;
        break;
    case 9:
        m->nodes[1].cores = 3;
        break;
    case 10:
        m->nodes[1].bytes *= 2;
        break;
    case 11:
        m->nodes[1].tier = HOST_HBM;
        break;
    case 12:
        m->nodes[1].os = 2;
        break;
    case 13:
        h->n_gpus = 0;
        break;
    case 14:
        m->name[0] = 'X';
        break;
    case 15:
        m->gpu.memory_bytes *= 2;
        break;
    case 16:
        m->gpu.sm = 80;
        break;
    case 17:
        strcpy(m->gpu.pci, "0000:3c:00.0");
        break;
    case 18:
        h->isa.hypervisor = true, strcpy(h->isa.hypervisor_id, "KVMKVMKVM");
        break;
    case 19:
        strcpy(h->isa.arch, "aarch64");
        break;
    case 20:
        h->isa.microcode++;
        break;
    case 21:
        strcpy(m->bios, "1.1");
        break;
    case 22:
        strcpy(m->kernel, "6.2.0");
        break;
    case 23:
        strcpy(m->mitig, "off");
        break;
    case 24:
        strcpy(m->gov, "powersave");
        break;
    case 25:
        h->env.boost = 0;
        break;
    case 26:
        strcpy(m->thp, "never");
        break;
    case 27:
        m->huge.total = 5;
        break;
    case 28:
        h->env.numa_balancing = 1;
        break;
    case 29:
        m->gpu.gen_max = 5;
        break;
    case 30:
        h->limits.quota_cores = 2.5;
        break;
    case 31:
        m->bits[2] = 0x7;
        break;
    case 32:
        m->bits[0] = 0x1;
        break;
    case 33:
        h->limits.memory_max = (uint64_t)8 << 30;
        break;
    default:
        break;
    }
}

static const struct {
    enum profile_state state;
    const char *field, *affects;
} expected[] = {
    {PROFILE_MISMATCH, "cpu.vendor", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "cpu.family", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "cpu.model", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "cpu.stepping", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "isa", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "packages", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "cores", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "smt", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "nodes", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "nodes[1].cores", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "nodes[1].bytes", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "nodes[1].tier", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "nodes[1].os", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "gpus", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "gpus[0].name", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "gpus[0].memory_bytes", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "gpus[0].sm", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "gpus[0].pci", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "hypervisor", ALL_BUT_TOPO},
    {PROFILE_MISMATCH, "arch", ALL_BUT_TOPO},
    {PROFILE_STALE, "microcode", "expert.* sync.* gpu.lat"},
    {PROFILE_STALE, "bios", ALL_BUT_TOPO},
    {PROFILE_STALE, "kernel", "expert.* sync.* gpu.lat"},
    {PROFILE_STALE, "mitigations", "expert.* sync.* gpu.lat"},
    {PROFILE_STALE, "governor", ALL_BUT_TOPO},
    {PROFILE_STALE, "boost", ALL_BUT_TOPO},
    {PROFILE_STALE, "thp", "mem.* expert.*"},
    {PROFILE_STALE, "hugetlb", "mem.* expert.*"},
    {PROFILE_STALE, "numa_balancing", "mem.* expert.*"},
    {PROFILE_STALE, "gpu_link_max", "gpu.*"},
    {PROFILE_STALE, "cpu_quota_millicores", ""},
    {PROFILE_STALE, "cpuset_cpus", ""},
    {PROFILE_STALE, "cpuset_mems", ""},
    {PROFILE_STALE, "memory_max_bytes", ""},
};

static void each_field_changed_alone(void **state)
{
    struct profile *p = build(&make_host()->h);
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct profile_match match;
        struct made *m = make_host();
        struct strbuf text = {0};
        edit(m, (int)i);
        assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
        uint32_t others = strcmp(expected[i].field, "gpus") == 0
                              ? 1
                              : 0; /* without a GPU there is no link either */
        if (match.state != expected[i].state || match.n_diffs != 1 + others)
            fail_msg("%s: state %s with %u differences", expected[i].field,
                     profile_state_name(match.state), match.n_diffs);
        assert_string_equal(match.diffs[0].field, expected[i].field);
        assert_string_equal(match.diffs[0].affects, expected[i].affects);
        assert_int_equal(match.diffs[0].hard, expected[i].state == PROFILE_MISMATCH);
        profile_match_text(&match, &text);
        assert_non_null(strstr(text.data, expected[i].field));
        sb_free(&text);
        profile_match_free(&match);
    }
    profile_close(p);
}

static void small_size_changes_match(void **state)
{
    struct made *m = make_host();
    struct profile_match match;
    (void)state;
    m->nodes[0].bytes =
        17100000000; /* rounds to another step than 17.25 GB, but 17.25 GB lies within 3 % */
    struct profile *p = build(&m->h);
    m->nodes[0].bytes = 17250000000;
    assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_MATCH);
    profile_match_free(&match);
    m->nodes[0].bytes = 18000000000;
    assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_MISMATCH);
    profile_match_free(&match);
    /* memory plugged into a one-node virtual machine while it runs: MemTotal stands for the node */
    m = make_host();
    m->h.n_nodes = 1;
    m->h.env.mem_total = (uint64_t)32 << 30;
    m->nodes[0].bytes = (uint64_t)6 << 30;
    profile_close(p);
    p = build(&m->h);
    m->nodes[0].bytes = (uint64_t)20 << 30;
    assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_MATCH);
    profile_match_free(&match);
    profile_close(p);
}

static void masked_microcode_is_no_field(void **state)
{
    struct made *m = make_host();
    struct profile_match match;
    (void)state;
    m->h.isa.masked = true;
    struct profile *p = build(&m->h);
    m->h.isa.microcode = 0xffffffff;
    assert_int_equal(profile_match_host(p, &m->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_MATCH);
    profile_match_free(&match);
    profile_close(p);
}

static void old_files_are_stale(void **state)
{
    struct profile *p = build(&make_host()->h);
    struct profile_match match;
    (void)state;
    json_object_set_new(p->root, "created", json_string("2020-01-01T00:00:00Z"));
    assert_int_equal(profile_refresh(p, NULL), 0);
    assert_int_equal(profile_match_host(p, &make_host()->h, &match, NULL), 0);
    assert_int_equal(match.state, PROFILE_STALE);
    assert_true(match.aged);
    assert_int_equal(match.n_diffs, 0);
    profile_match_free(&match);
    profile_close(p);
}

static void opening_for_a_host(void **state)
{
    char path[] = "/tmp/kt-profile-XXXXXX";
    struct profile *p = build(&make_host()->h), *q;
    struct profile_match match;
    kt_err err = {0};
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(profile_open_for_host(path, &make_host()->h, false, &q, NULL, &err),
                     KT_E_FORMAT); /* empty */
    assert_null(q);
    assert_int_equal(profile_write(p, path, &err), 0);
    assert_int_equal(profile_open_for_host(path, &make_host()->h, false, &q, &match, &err), 0);
    assert_int_equal(match.state, PROFILE_MATCH);
    assert_int_equal(q->match.state, PROFILE_MATCH);
    profile_match_free(&match);
    profile_close(q);
    struct made *m = make_host();
    edit(m, 22);
    assert_int_equal(profile_open_for_host(path, &m->h, false, &q, &match, &err), 0);
    assert_int_equal(match.state, PROFILE_STALE);
    assert_non_null(q);
    profile_match_free(&match);
    profile_close(q);
    m = make_host();
    edit(m, 2);
    assert_int_equal(profile_open_for_host(path, &m->h, false, &q, &match, &err), 0);
    assert_int_equal(match.state, PROFILE_MISMATCH);
    assert_null(q);
    profile_match_free(&match);
    assert_int_equal(profile_open_for_host(path, &m->h, true, &q, NULL, &err), 0);
    assert_non_null(q);
    profile_close(q);
    unlink(path);
    assert_int_equal(profile_open_for_host(path, &m->h, true, &q, NULL, &err), KT_E_NOT_FOUND);
    profile_close(p);
}

static void patterns_cover_ids(void **state)
{
    (void)state;
    assert_true(profile_affects("gpu.*", "gpu.h2d:gpu0.node0"));
    assert_false(profile_affects("gpu.*", "mem.read:node0.t1"));
    assert_true(profile_affects("expert.* sync.* gpu.lat", "gpu.lat:gpu0.empty"));
    assert_false(profile_affects("expert.* sync.* gpu.lat", "gpu.h2d:gpu0.node0"));
    assert_true(profile_affects(ALL_BUT_TOPO, "noise:gaps"));
    assert_false(profile_affects(ALL_BUT_TOPO, "topo"));
    assert_false(profile_affects("", "mem.read:node0.t1"));
    assert_true(profile_affects("mem.read", "mem.read:node0.t1"));
    assert_false(profile_affects("mem.re", "mem.read:node0.t1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_reads),
        cmocka_unit_test(noisy_curves_have_no_knee),
        cmocka_unit_test(cut_anywhere_is_refused),
        cmocka_unit_test(text_rules),
        cmocka_unit_test(each_rule_broken_once_is_refused),
        cmocka_unit_test(free_edits_are_accepted),
        cmocka_unit_test(damaged_text_never_crashes),
        cmocka_unit_test(memory_runs_out_anywhere),
        cmocka_unit_test(canonical_json),
        cmocka_unit_test(node_bytes_round_up),
        cmocka_unit_test(built_profile_round_trips),
        cmocka_unit_test(same_host_same_ids),
        cmocka_unit_test(each_field_changed_alone),
        cmocka_unit_test(small_size_changes_match),
        cmocka_unit_test(masked_microcode_is_no_field),
        cmocka_unit_test(old_files_are_stale),
        cmocka_unit_test(opening_for_a_host),
        cmocka_unit_test(patterns_cover_ids),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
