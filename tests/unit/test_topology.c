/* test_topology.c - facts and plans of stored machines against the table of expected decisions:
 * pools and cores, T, tiers, GPUs, ISA, codes. Every source is read in a child process, because
 * hwloc takes some sources through the environment. Fixtures are the folder KT_FIXTURES/topologies
 * (skipped with 77 when absent); tarballs are unpacked into a temporary directory that is removed
 * again. The numbers stand in the table, not in goldens, so that a reader can hold them against the
 * machine's name.
 */
#include "config.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "plan/plan.h"

struct row {
    const char *file;  /* below topologies/; linux and x86 are tarballs */
    const char *pools; /* nodes, "-" for the remote pool */
    const char *cores; /* per pool in order; the last number repeats */
    uint32_t t;        /* threads.total */
    const char *codes; /* all codes of host and plan, sorted, once each */
    const char *tiers; /* "7:hbm[0]" .. , NULL: none */
    /* "+" CUDA or "-" without back end, address @ node, "!" forbidden; NULL: none */
    const char *gpus;
    /* "key=value ..": threads smt l3 homeless allowed mems isa packages cores bytes0 */
    const char *more;
};

#define LASSEN_TIERS "252:unknown[0,8] 253:unknown[0,8] 254:unknown[0,8] 255:unknown[0,8]"
#define POWER9_GPUS "+0004:04:00.0@0 +0004:05:00.0@0 +0035:03:00.0@8 +0035:04:00.0@8"
#define CORONA_GPUS "-0000:13:00.0@1 -0000:23:00.0@2 -0000:53:00.0@5 -0000:73:00.0@7"

static const struct row mpibind[] = {
    {"mpibind/epyc-corona.xml", "0-7", "6", 46, "", NULL, CORONA_GPUS,
     "smt=2 l3=16 threads=5,5,6,6,6,6,6,6"},
    {"mpibind/epyc-corona-hwloc1.xml", "0-7", "6", 46, "", NULL, CORONA_GPUS,
     "smt=2 l3=16 threads=5,5,6,6,6,6,6,6 nolink=4"},
    {"mpibind/epyc-dual-sock-hwloc1.xml", "0-7", "8", 62, "", NULL, NULL, ""},
    {"mpibind/coral-lassen-hwloc1.xml", "0,8", "20", 38, "KT004", LASSEN_TIERS, POWER9_GPUS,
     "smt=4 allowed=8-87,96-175"},
    {"mpibind/coral-butte-hwloc1.xml", "0,8", "22", 42, "KT004", LASSEN_TIERS, POWER9_GPUS,
     "smt=4 l3=22"},
    {"mpibind/coral-rzansel-hwloc1.xml", "0,8", "22", 42, "KT004", LASSEN_TIERS, POWER9_GPUS,
     "smt=4 l3=24"},
    {"mpibind/coral-ea-hwloc1.xml", "0-1", "10", 18, "", NULL,
     "+0002:01:00.0@0 +0003:01:00.0@0 +0006:01:00.0@1 +0007:01:00.0@1", "smt=8"},
    {"mpibind/cts1-pascal.xml", "0-1", "18", 34, "", NULL, "+0000:04:00.0@0 +0000:07:00.0@0",
     "smt=2"},
    {"mpibind/cts1-quartz-smt1.xml", "0-1", "18", 34, "", NULL, NULL, "smt=1"},
    {"mpibind/cascade-lake-ap-snl-hwloc1.xml", "0-3", "24", 94, "", NULL, NULL, ""},
    {"mpibind/arm64-ulna-hwloc1.xml", "0-1", "32", 62, "", NULL, "-0000:02:00.0@0 -0000:82:00.0@1",
     "smt=4"},
    {"mpibind/knl-quad-flat-hwloc1.xml", "0", "68", 66, "", "1:hbm[0]", NULL, ""},
    {"mpibind/knl-quad-cache-hwloc1.xml", "0", "68", 66, "", NULL, NULL, ""},
    {"mpibind/knl-snc4-cache-hwloc1.xml", "0-3", "18,18,16,16", 66, "", NULL, NULL,
     "threads=17,17,16,16"},
};

static const struct row xml[] = {
    {"xml/64intel64-fakeKNL-SNC4-hybrid.v1tov2.xml", "0-3", "4", 14, "KT016",
     "4:hbm[1] 5:hbm[2] 6:hbm[3] 7:hbm[0]", NULL, "logical7=0"},
    {"xml/8intel64-fakeKNL-A2A-hybrid.rootattachednumas.xml", "0", "4", 3, "KT016", "1:hbm[0]",
     NULL, "allowed=0-2,13-14,50,109-110"},
    {"xml/cxlmem+dax.v2.xml", "0", "4", 3, "KT001 KT028", NULL, NULL, ""},
    {"xml/28intel64-2p2g7c-CoD.nogroups.v1tov2.xml", "0,2", "14", 26, "KT004",
     "1:unknown[0] 3:unknown[2]", NULL, ""},
    {"xml/28intel64-2p2g7c-CoDgroups.v1tov2.xml", "0-3", "7", 26, "", NULL, NULL, ""},
    {"xml/16amd64-8n2c-cpusets.xml", "1-3", "2,1,1", 4, "KT004 KT005",
     "4:unknown[1,2,3] 5:unknown[1,2,3]", NULL, "homeless=0-1,12-15"},
    {"xml/16em64t-4s2c2t-offlines.xml", "0", "6", 5, "KT027", NULL, NULL, "bytes0=unknown"},
    {"xml/16amd64-4distances.xml", "0-7", "2", 14, "", NULL, NULL,
     "logical1=0 logical5=3 cpus0=2-3"},
    {"xml/8ia64-2n2s2c+1n.v1tov2.xml", "0,2", "4", 7, "KT004", "16:unknown[2]", NULL, ""},
    {"xml/192em64t-12gr2n8c2t.xml", "0-23", "8", 190, "", NULL, NULL, ""},
    {"xml/fakeheterodistances.xml", "0-6", "1", 7, "", "7:dram[1,2,5,6]", NULL, "homeless=42"},
    {"xml/8intel64-4n2t-memattrs.xml", "0-3", "2", 7, "", NULL, NULL, "claim1=20000000"},
    {"xml/power8gpudistances.xml", "0-1", "4", 7, "", NULL,
     "+0002:01:00.0@0 +0003:01:00.0@0 +000a:01:00.0@1 +000b:01:00.0@1", "links=0-1:40,2-3:40"},
    {"xml/32em64t-2n8c2t-pci-normalio.xml", "0-1", "8", 14, "", NULL,
     "+0000:03:00.0@0 +0000:83:00.0@1 +0000:84:00.0@1 -0000:84:00.1@1", ""},
    {"xml/64intel64-3g2n+2n-irregulargroups+pci.xml", "0-1", "8", 14, "KT030", NULL,
     "+0002:01:00.0@4! +0004:01:00.0@7!", "allowed=0-15 mems=0-1"},
};

static const struct row linux_rows[] = {
    {"linux/64intel64-fakeKNL-SNC4-hybrid", "0-3", "4", 14, "KT016",
     "4:hbm[1] 5:hbm[2] 6:hbm[3] 7:hbm[0]", NULL,
     "logical7=1 claim0=22500000000 claim7=90000000000"},
    {"linux/64intel64-fakeKNL-A2A-cache", "0", "16", 14, "KT016", NULL, NULL,
     "memcache0=17179869184"},
    {"linux/fakememinitiators-1np2c+1npp+gi", "5,6,8,9", "2", 7, "", "7:nvm[5,6] 10:nvm[8,9]", NULL,
     "mems=5-10 access7=1"},
    {"linux/fakeheteromemtiers", "0-2", "2", 5, "KT001 KT028",
     "4:hbm[1] 6:nvm[1] 8:nvm[0] 9:nvm[2]", NULL, "tier2=hbm devdax=3"},
    {"linux/fakeheterocpunuma", "0,1,3", "2", 6, "KT004 KT005 KT014", "2:unknown[0,1]", NULL,
     "homeless=4-7,12-19"},
    {"linux/16amd64-4n4c-cgroup-distance-merge", "-", "4", 3, "KT006", NULL, NULL,
     "allowed=0-3 mems=2-3"},
    {"linux/16amd64-8n2c-cpusets", "1-3", "2,1,1", 4, "KT005", "4:dram[1,2,3]", NULL,
     "homeless=0-1,12-15 pus2=5 pus3=6"},
    {"linux/4fake-4gr1nu1pu", "0", "1", 1, "KT005", "2:dram[0]", NULL, "homeless=1"},
    {"linux/16em64t-4s2ca2c-cpusetreorder", "0", "11", 10, "", NULL, NULL, "allowed=2-11,13"},
    {"linux/offline-cpu0-node0", "1", "8", 8, "KT005", NULL, NULL,
     "homeless=4,6,8,10,12,14,16,18,20"},
    {"linux/16em64t-4s2c2t-offlines", "0", "7", 6, "", NULL, NULL, "pus=12"},
    {"linux/40intel64-2g2n4c+pci", "0-3", "10", 38, "", NULL, NULL,
     "packages=4 pus0=0,4,8,12,16,20,24,28,32,36"},
    {"linux/40intel64-4n10c+pci-conflicts", "0-3", "10", 38, "", NULL, NULL,
     "packages=3 pus0=0,4,8,12,16,20,24,28,32,36"},
    {"linux/256ppc-8n8s4t", "0,1,4,5,8,9,12,13", "8", 62, "", NULL, NULL, "smt=4"},
    {"linux/128ia64-17n4s2c", "0-15", "8", 126, "KT004",
     "16:unknown[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]", NULL, ""},
    {"linux/256ia64-64n2s2c", "0-63", "4", 254, "", NULL, NULL, ""},
    {"linux/20em64t-hybrid-1p6c2t+2ca4co1t", "0", "6", 6, "", NULL, NULL,
     "pus0=0-11 homeless=12-19"},
    {"linux/nvidia-dgx-gb10", "0", "10", 10, "", NULL, NULL, "pus0=5-9,15-19"},
    {"linux/128arm-2pa2n8cluster4co", "0-3", "32", 126, "", NULL, NULL, ""},
    {"linux/2i386-2t-hugepagesizecount", "0", "1", 1, "KT007", NULL, NULL, "bytes0=70368744177664"},
    {"linux/8em64t-2s2ca2c-buggynuma", "0", "8", 7, "", NULL, NULL, ""},
    {"linux/2pa-pcidomain32bits", "0", "2", 2, "KT001", NULL, NULL, ""},
};

static const struct row x86[] = {
    {"x86/AMD-17h-Zen-2xEpyc-7451", "0-7", "6", 46, "KT027", NULL, NULL, "l3=16 isa=avx2 bits=1"},
    {"x86/AMD-19h-Zen3-2xEpyc-7763", "0-1", "64", 126, "KT027", NULL, NULL,
     "l3=16 isa=avx2 bits=1"},
    {"x86/Hygon-Dhyana-32cores", "0-3", "8", 30, "KT027", NULL, NULL, "isa=avx2 bits=1"},
    {"x86/Intel-KnightsLanding-XeonPhi-7210", "0", "64", 62, "KT027", NULL, NULL,
     "isa=avx2 bits=1 flag=avx512f"},
    {"x86/Intel-CascadeLake-2xXeon6230", "0", "40", 38, "KT027", NULL, NULL,
     "isa=avx512vnni bits=7"},
    {"x86/Intel-Skylake-2xXeon6140", "0", "36", 34, "KT027", NULL, NULL, "isa=avx512 bits=3"},
    {"x86/Intel-Nehalem-2xXeon-X5550", "0", "8", 7, "KT027", NULL, NULL, "isa=ref bits=0"},
    {"x86/Intel-SandyBridge-2xXeon-E5-2650", "0", "16", 14, "KT027", NULL, NULL, "isa=ref bits=0"},
    {"x86/Intel-ArrowLake-CoreUltra5-225U", "0", "12", 11, "KT027", NULL, NULL,
     "isa=avxvnni bits=17 pus0=0-13"},
    {"x86/Intel-CPUID.1F-Qemu-2p3d3c2t", "0", "18", 16, "KT001 KT027", NULL, NULL, "isa=ref"},
};

static char work_dir[4096];
static char fixtures[4096];

/* ---- facts and plan as text, one "key=value" per fact */

static void add_set(struct strbuf *b, const char *key, const struct host_set *s)
{
    char *t = host_set_format(s);
    sb_printf(b, "%s=%s ", key, t);
    mem_free(t);
}

static void add_pools(struct strbuf *b, const struct plan *p)
{
    for (uint32_t i = 0; i < p->n_pools; i++) {
        char key[32];
        snprintf(key, sizeof key, "pus%d", p->pools[i].node);
        add_set(b, key, &p->pools[i].pus);
    }
    for (uint32_t i = 0; i < p->n_pools; i++)
        sb_printf(b, "%s%u", i == 0 ? "threads=" : ",", p->pools[i].threads);
    sb_puts(b, " ");
}

static void describe(struct strbuf *b, const struct host *h, const struct plan *p)
{
    uint32_t nolink = 0;
    sb_printf(b, " smt=%u l3=%u packages=%u pus=%u devdax=%u bits=%u ", h->smt, h->n_l3,
              h->packages, h->n_pus, h->n_devdax, h->isa.kern_isa);
    for (uint32_t i = 0; i < h->n_gpus; i++)
        nolink += h->gpus[i].no_link;
    sb_printf(b, "nolink=%u ", nolink);
    for (uint32_t i = 0; i < h->isa.n_cpuid; i++)
        sb_printf(b, "flag=%s ", h->isa.cpuid[i]);
    for (uint32_t i = 0; i < h->n_gpu_links; i++)
        sb_printf(b, "%s%u-%u:%.0f", i == 0 ? "links=" : ",", h->gpu_links[i].a, h->gpu_links[i].b,
                  h->gpu_links[i].bytes_per_second * 1e-9);
    sb_puts(b, " ");
    add_set(b, "allowed", &h->limits.allowed_pus);
    add_set(b, "mems", &h->limits.cpuset_mems);
    add_set(b, "homeless", &p->homeless);
    for (uint32_t i = 0; i < h->n_nodes; i++) {
        const struct host_node *n = &h->nodes[i];
        char key[32];
        sb_printf(b, "logical%d=%d tier%d=%s memcache%d=%llu access%d=%d claim%d=%.0f ", n->os,
                  n->logical, n->os, host_tier_name(n->tier), n->os,
                  (unsigned long long)n->memcache_bytes, n->os, n->claim.access, n->os,
                  n->claim.read_bytes_per_second);
        snprintf(key, sizeof key, "cpus%d", n->os);
        add_set(b, key, &n->cpus);
        if (n->bytes == HOST_UNKNOWN_BYTES)
            sb_printf(b, "bytes%d=unknown ", n->os);
        else
            sb_printf(b, "bytes%d=%llu ", n->os, (unsigned long long)n->bytes);
    }
    add_pools(b, p);
    for (uint32_t i = 0; i < p->n_decisions; i++)
        if (strcmp(p->decisions[i].id, "isa") == 0)
            sb_printf(b, "isa=%.*s ", (int)strlen(p->decisions[i].value_json) - 2,
                      p->decisions[i].value_json + 1);
}

/* All codes of both lists in ascending order, each once. */
static char *codes_of(const struct host *h, const struct plan *p)
{
    struct strbuf b = {0};
    sb_puts(&b, "");
    for (int code = 1; code <= 31; code++) {
        char name[16];
        bool found = false;
        snprintf(name, sizeof name, "KT%03d", code);
        for (uint32_t i = 0; i < h->n_warnings; i++)
            found = found || strcmp(h->warnings[i].code, name) == 0;
        for (uint32_t i = 0; i < p->n_warnings; i++)
            found = found || strcmp(p->warnings[i].code, name) == 0;
        if (found)
            sb_printf(&b, "%s%s", b.len > 0 ? " " : "", name);
    }
    return sb_take(&b, NULL);
}

static char *tiers_of(const struct plan *p)
{
    struct strbuf b = {0};
    sb_puts(&b, "");
    for (uint32_t i = 0; i < p->n_tiers; i++) {
        sb_printf(&b, "%s%d:%s[", i > 0 ? " " : "", p->tiers[i].node,
                  host_tier_name(p->tiers[i].tier));
        for (uint32_t k = 0; k < p->tiers[i].n_pools; k++)
            sb_printf(&b, "%s%d", k > 0 ? "," : "", p->tiers[i].pools[k]);
        sb_puts(&b, "]");
    }
    return sb_take(&b, NULL);
}

static char *gpus_of(const struct host *h)
{
    struct strbuf b = {0};
    sb_puts(&b, "");
    for (uint32_t i = 0; i < h->n_gpus; i++)
        sb_printf(&b, "%s%c%s@%d%s", i > 0 ? " " : "", h->gpus[i].cuda ? '+' : '-', h->gpus[i].pci,
                  h->gpus[i].node, h->gpus[i].node_forbidden ? "!" : "");
    return sb_take(&b, NULL);
}

static int wrong(const struct row *r, const char *what, const char *want, const char *got)
{
    fprintf(stderr, "%s: %s: want \"%s\", got \"%s\"\n", r->file, what, want, got);
    return 1;
}

static int check_pools(const struct row *r, const struct plan *p)
{
    struct host_set want = {0}, got = {0};
    const char *cores = r->cores;
    int bad = 0;
    if (strcmp(r->pools, "-") == 0) {
        if (p->n_pools != 1 || p->pools[0].node != -1 || p->pools[0].local)
            return wrong(r, "pools", "one remote pool", "another");
    } else {
        assert_true(host_set_parse(r->pools, &want));
        for (uint32_t i = 0; i < p->n_pools; i++)
            host_set_add(&got, (uint32_t)p->pools[i].node);
        if (!host_set_equal(&want, &got)) {
            char *g = host_set_format(&got);
            return wrong(r, "pools", r->pools, g);
        }
    }
    uint32_t sum = 0, n = 0;
    for (uint32_t i = 0; i < p->n_pools; i++) {
        if (i == 0 || *cores == ',')
            n = (uint32_t)strtoul(i == 0 ? cores : cores + 1, (char **)(uintptr_t)&cores, 10);
        if (p->pools[i].n_cpus != n) {
            fprintf(stderr, "%s: pool %d: want %u cores, got %u\n", r->file, p->pools[i].node, n,
                    p->pools[i].n_cpus);
            bad = 1;
        }
        sum += p->pools[i].threads;
    }
    if (p->threads_max != r->t || sum != r->t || p->n_threads != r->t) {
        fprintf(stderr, "%s: want T %u, got %u, sum %u\n", r->file, r->t, p->threads_max, sum);
        bad = 1;
    }
    return bad;
}

static int check_more(const struct row *r, const char *facts)
{
    char list[512], *save = NULL;
    int bad = 0;
    snprintf(list, sizeof list, "%s", r->more);
    for (char *w = strtok_r(list, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save)) {
        char key[520];
        snprintf(key, sizeof key, " %s ", w);
        if (strstr(facts, key) == NULL)
            bad |= wrong(r, "fact", w, facts);
    }
    return bad;
}

/* In the child: read, plan, compare. Returns the exit status. */
static int check_row(const struct row *r, const char *spec)
{
    struct host *h;
    struct plan *p;
    kt_err err = {0};
    if (host_read(spec, &h, &err) != KT_OK || plan_host(h, NULL, &p, &err) != KT_OK)
        return wrong(r, "error", "none", err.msg);
    struct strbuf facts = {0};
    describe(&facts, h, p);
    char *codes = codes_of(h, p), *tiers = tiers_of(p), *gpus = gpus_of(h);
    int bad = check_pools(r, p);
    if (strcmp(codes, r->codes) != 0)
        bad |= wrong(r, "codes", r->codes, codes);
    if (strcmp(tiers, r->tiers != NULL ? r->tiers : "") != 0)
        bad |= wrong(r, "tiers", r->tiers != NULL ? r->tiers : "", tiers);
    if (strcmp(gpus, r->gpus != NULL ? r->gpus : "") != 0)
        bad |= wrong(r, "gpus", r->gpus != NULL ? r->gpus : "", gpus);
    bad |= check_more(r, facts.data);
    if (h->this_system)
        bad |= wrong(r, "this_system", "false", "true");
    mem_free(codes);
    mem_free(tiers);
    mem_free(gpus);
    sb_free(&facts);
    plan_free(p);
    host_free(h);
    return bad;
}

static int in_child(int (*fn)(const struct row *, const char *), const struct row *r,
                    const char *spec)
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn(r, spec));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* Unpack a tarball; `out` becomes its single top folder. */
static bool unpack(const char *name, char *out, size_t cap)
{
    char tar[4600], dir[4600];
    static int serial;
    int status = -1;
    snprintf(tar, sizeof tar, "%s/%s.tar.bz2", fixtures, name);
    snprintf(dir, sizeof dir, "%s/%d", work_dir, serial++);
    if (mkdir(dir, 0700) != 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("tar", "tar", "-xjf", tar, "-C", dir, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        return false;
    out[0] = '\0';
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            snprintf(out, cap, "%s/%s", dir, e->d_name);
    if (d != NULL)
        closedir(d);
    return out[0] != '\0';
}

static void check_rows(const struct row *rows, size_t n, const char *kind)
{
    int bad = 0;
    if (fixtures[0] == '\0')
        skip();
    for (size_t i = 0; i < n; i++) {
        char spec[9400], top[9300];
        bool ok = true;
        if (strcmp(kind, "xml") == 0)
            snprintf(top, sizeof top, "%s/%s", fixtures, rows[i].file);
        else
            ok = unpack(rows[i].file, top, sizeof top);
        snprintf(spec, sizeof spec, "%s:%s", kind, top);
        int rc = ok ? in_child(check_row, &rows[i], spec) : 1;
        if (rc != 0)
            fprintf(stderr, "%s: %s (%d)\n", rows[i].file, ok ? "differs" : "cannot be unpacked",
                    rc);
        bad += rc != 0;
    }
    assert_int_equal(bad, 0);
}

static void mpibind_rows(void **state)
{
    (void)state;
    check_rows(mpibind, sizeof mpibind / sizeof mpibind[0], "xml");
}

static void xml_rows(void **state)
{
    (void)state;
    check_rows(xml, sizeof xml / sizeof xml[0], "xml");
}

static void tree_rows(void **state)
{
    (void)state;
    check_rows(linux_rows, sizeof linux_rows / sizeof linux_rows[0], "fsroot");
}

/* A tree and its CPUID dump together: the topology is the tree's, the ISA the dump's. */
static void tree_with_dump(void **state)
{
    (void)state;
    static const struct row r = {"linux/fakeheteromemtiers",
                                 "0-2",
                                 "2",
                                 5,
                                 "KT001 KT028",
                                 "4:hbm[1] 6:nvm[1] 8:nvm[0] 9:nvm[2]",
                                 NULL,
                                 "devdax=3 isa=ref"};
    char top[9300], spec[18800];
    if (fixtures[0] == '\0')
        skip();
    assert_true(unpack(r.file, top, sizeof top));
    snprintf(spec, sizeof spec, "fsroot:%s,cpuid:%s/cpuid", top, top);
    assert_int_equal(in_child(check_row, &r, spec), 0);
}

static void cpuid_rows(void **state)
{
    (void)state;
    check_rows(x86, sizeof x86 / sizeof x86[0], "cpuid");
}

/* ---- sources that must be refused, and the native machine */

static int check_refused(const struct row *r, const char *spec)
{
    struct host *h = (struct host *)(uintptr_t)1;
    kt_err err = {0};
    kt_status st = host_read(spec, &h, &err);
    if (st == KT_OK || h != NULL || err.code != st || err.msg[0] == '\0')
        return wrong(r, "refusal", "an error with a message and no host", spec);
    return 0;
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[9000];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void bad_sources_are_refused(void **state)
{
    (void)state;
    static const struct row r = {.file = "bad source"};
    static const char *const specs[] = {"xml:/nonexistent.xml",
                                        "xml:",
                                        "xml:/dev/null",
                                        "xml:@/empty.xml",
                                        "xml:@/bad.xml",
                                        "xml:@/cut.xml",
                                        "syn:",
                                        "syn:nonsense",
                                        "syn:pack:0",
                                        "fsroot:",
                                        "fsroot:/nonexistent",
                                        "fsroot:@/empty",
                                        "fsroot:@/bad.xml",
                                        "cpuid:",
                                        "cpuid:/nonexistent",
                                        "cpuid:@/empty",
                                        "cpuid:@/dump",
                                        "fsroot:@/empty,cpuid:@/dump",
                                        "fsroot:/nonexistent,cpuid:/nonexistent",
                                        "elsewhere",
                                        "",
                                        "NATIVE"};
    char dir[4600];
    snprintf(dir, sizeof dir, "%s/empty", work_dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(dir, sizeof dir, "%s/dump", work_dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    put(dir, "hwloc-cpuid-info", "Architecture: x86\n");
    put(dir, "pu0", "no dump\n");
    put(work_dir, "empty.xml", "");
    put(work_dir, "bad.xml", "this is not XML\n");
    put(work_dir, "cut.xml",
        "<?xml version=\"1.0\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology "
        "version=\"2.0\">\n<object type=\"Machine\"");
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        char spec[9400] = "";
        for (const char *c = specs[i]; *c != '\0'; c++) /* '@' is the work directory */
            snprintf(spec + strlen(spec), sizeof spec - strlen(spec), *c == '@' ? "%s" : "%.1s",
                     *c == '@' ? work_dir : c);
        assert_int_equal(in_child(check_refused, &r, spec), 0);
    }
}

/* Variables of others must neither replace the machine nor a stored source. */
static int check_foreign(const struct row *r, const char *spec)
{
    struct host *h;
    kt_err err = {0};
    bool native = strcmp(spec, "native") == 0, warned = false;
    setenv("HWLOC_XMLFILE", "/nonexistent.xml", 1);
    setenv("HWLOC_SYNTHETIC", "pack:7 core:3 pu:1", 1);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    setenv("HWLOC_COMPONENTS", "no_os,stop", 1);
    if (host_read(spec, &h, &err) != KT_OK)
        return wrong(r, "error", "none", err.msg);
    for (uint32_t i = 0; i < h->n_warnings; i++)
        warned = warned || strcmp(h->warnings[i].code, "KT002") == 0;
    bool ok = warned && h->this_system == native && h->n_cores != 21 &&
              getenv("HWLOC_SYNTHETIC") == NULL && getenv("HWLOC_HIDE_ERRORS") == NULL;
    ok = ok && (native || h->n_cores == 4);
    host_free(h);
    return ok ? 0 : wrong(r, "variables", "ignored, KT002", spec);
}

static void foreign_variables_are_ignored(void **state)
{
    (void)state;
    static const struct row r = {.file = "HWLOC_*"};
    assert_int_equal(in_child(check_foreign, &r, "native"), 0);
    assert_int_equal(in_child(check_foreign, &r, "syn:pack:1 core:4 pu:2"), 0);
}

static int check_native(const struct row *r, const char *spec)
{
    struct host *a, *b;
    struct plan *p, *q;
    struct strbuf x = {0}, y = {0};
    kt_err err = {0};
    if (host_read(spec, &a, &err) != KT_OK || host_read(NULL, &b, &err) != KT_OK ||
        plan_host(a, NULL, &p, &err) != KT_OK || plan_host(b, NULL, &q, &err) != KT_OK)
        return wrong(r, "error", "none", err.msg);
    plan_print(p, &x);
    plan_print(q, &y);
    bool ok = a->this_system && strcmp(x.data, y.data) == 0 && p->n_threads >= 1 &&
              host_memory_allowed(a) > 0;
    host_free(a);
    host_free(b);
    plan_free(p);
    plan_free(q);
    sb_free(&x);
    sb_free(&y);
    return ok ? 0 : wrong(r, "native", "a plan, twice the same", "another");
}

static void native_machine(void **state)
{
    (void)state;
    static const struct row r = {.file = "native"};
    assert_int_equal(in_child(check_native, &r, "native"), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    /* 25 trees of thousands of small files: seconds in memory, minutes on a busy disk */
    const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
    snprintf(work_dir, sizeof work_dir, "%s/kt-topology-XXXXXX",
             tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
    return mkdtemp(work_dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(work_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_sources_are_refused),
        cmocka_unit_test(foreign_variables_are_ignored),
        cmocka_unit_test(native_machine),
        cmocka_unit_test(mpibind_rows),
        cmocka_unit_test(xml_rows),
        cmocka_unit_test(tree_rows),
        cmocka_unit_test(tree_with_dump),
        cmocka_unit_test(cpuid_rows),
    };
    const char *f = getenv("KT_FIXTURES");
    struct stat st;
    snprintf(fixtures, sizeof fixtures, "%s/topologies", f != NULL ? f : "../shared/fixtures");
    if (stat(fixtures, &st) != 0)
        fixtures[0] = '\0';
    int rc = cmocka_run_group_tests(tests, setup, teardown);
    if (rc == 0 && fixtures[0] == '\0')
        return 77;
    return rc;
}
