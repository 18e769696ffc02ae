/* cpuid.c - the instruction set: CPUID flags, what the operating system saves (XCR0), AMX
 * permission, and whether the CPU's identity is real. Three sources: the running CPU, a CPUID dump
 * (puN files, without XCR0: leaf 0xD bounds it), and the flags of a stored /proc/cpuinfo (which the
 * kernel already cleaned by XCR0). Anything else leaves the ISA unknown: no flags, ref kernels
 * only. usable = CPUID and XCR0 and permission; the self-test of each kernel is the tuner's. Asks
 * the kernel for AMX once per process (native only).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif

#include "base/mem.h"
#include "host/host_int.h"

struct flag {
    const char *name; /* lower case, no separators: the kernel's name without '_' */
    uint32_t leaf, sub;
    uint8_t reg, bit;
};
/* sorted by name */
static const struct flag flags[] = {
    {"amxbf16", 7, 0, 3, 22},
    {"amxfp16", 7, 1, 0, 21},
    {"amxint8", 7, 0, 3, 25},
    {"amxtile", 7, 0, 3, 24},
    {"avx", 1, 0, 2, 28},
    {"avx2", 7, 0, 1, 5},
    {"avx512bf16", 7, 1, 0, 5},
    {"avx512bitalg", 7, 0, 2, 12},
    {"avx512bw", 7, 0, 1, 30},
    {"avx512cd", 7, 0, 1, 28},
    {"avx512dq", 7, 0, 1, 17},
    {"avx512f", 7, 0, 1, 16},
    {"avx512fp16", 7, 0, 3, 23},
    {"avx512ifma", 7, 0, 1, 21},
    {"avx512vbmi", 7, 0, 2, 1},
    {"avx512vbmi2", 7, 0, 2, 6},
    {"avx512vl", 7, 0, 1, 31},
    {"avx512vnni", 7, 0, 2, 11},
    {"avx512vpopcntdq", 7, 0, 2, 14},
    {"avxifma", 7, 1, 0, 23},
    {"avxneconvert", 7, 1, 3, 5},
    {"avxvnni", 7, 1, 0, 4},
    {"avxvnniint8", 7, 1, 3, 4},
    {"bmi1", 7, 0, 1, 3},
    {"bmi2", 7, 0, 1, 8},
    {"f16c", 1, 0, 2, 29},
    {"fma", 1, 0, 2, 12},
    {"sse41", 1, 0, 2, 19},
    {"sse42", 1, 0, 2, 20},
};
#define N_FLAGS (sizeof flags / sizeof flags[0])

struct leaf {
    uint32_t mask, in[4], out[4];
};
struct cpuid_src { /* NULL leaves: the running CPU */
    struct leaf *leaves;
    uint32_t n;
};

static bool query(const struct cpuid_src *c, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof *out);
    if (c->leaves == NULL) {
#if HAVE_X86
        return __get_cpuid_count(leaf, sub, &out[0], &out[1], &out[2], &out[3]) != 0;
#else
        return false;
#endif
    }
    for (uint32_t i = 0; i < c->n; i++) {
        const struct leaf *l = &c->leaves[i];
        if (l->in[0] == leaf && ((l->mask & 4) == 0 || l->in[2] == sub)) {
            memcpy(out, l->out, sizeof l->out);
            return true;
        }
    }
    return false;
}

/* Lines of a dump: mask, four inputs, "=>", four outputs, all hexadecimal. */
static bool parse_dump(char *text, struct cpuid_src *c)
{
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        struct leaf l = {0};
        if (sscanf(line, "%x %x %x %x %x => %x %x %x %x", &l.mask, &l.in[0], &l.in[1], &l.in[2],
                   &l.in[3], &l.out[0], &l.out[1], &l.out[2], &l.out[3]) != 9)
            continue;
        struct leaf *p = mem_realloc(c->leaves, (c->n + (size_t)1) * sizeof *p);
        if (p == NULL)
            return false;
        c->leaves = p;
        p[c->n++] = l;
    }
    return true;
}

static bool add_flag(struct host_isa *isa, const char *name)
{
    const char **p = mem_realloc(isa->cpuid, (isa->n_cpuid + (size_t)1) * sizeof *p);
    if (p == NULL)
        return false;
    isa->cpuid = p;
    p[isa->n_cpuid++] = name;
    return true;
}

static bool has(const struct host_isa *isa, const char *name)
{
    for (uint32_t i = 0; i < isa->n_cpuid; i++)
        if (strcmp(isa->cpuid[i], name) == 0)
            return true;
    return false;
}

/* Bits of HOST_ISA_* that flags and saved state allow; AMX still needs permission. */
static uint32_t levels(const struct host_isa *isa, uint64_t xcr0)
{
    uint32_t m = 0;
    bool ymm = (xcr0 & 0x6) == 0x6, zmm = (xcr0 & 0xe6) == 0xe6,
         tiles = (xcr0 & 0x60000) == 0x60000;
    if (ymm && has(isa, "avx2") && has(isa, "fma") && has(isa, "f16c"))
        m |= HOST_ISA_AVX2;
    if ((m & HOST_ISA_AVX2) != 0 && has(isa, "avxvnni"))
        m |= HOST_ISA_AVXVNNI;
    if (zmm && (m & HOST_ISA_AVX2) != 0 && has(isa, "avx512f") && has(isa, "avx512bw") &&
        has(isa, "avx512dq") && has(isa, "avx512vl"))
        m |= HOST_ISA_AVX512;
    if ((m & HOST_ISA_AVX512) != 0 && has(isa, "avx512vnni"))
        m |= HOST_ISA_AVX512VNNI;
    if ((m & HOST_ISA_AVX512) != 0 && has(isa, "avx512bf16"))
        m |= HOST_ISA_AVX512BF16;
    if (tiles && has(isa, "amxtile") && has(isa, "amxint8") && has(isa, "amxbf16"))
        m |= HOST_ISA_AMX;
    return m;
}

static void identity(struct host_isa *isa, const struct cpuid_src *c)
{
    uint32_t r[4], a;
    if (query(c, 0, 0, r)) {
        memcpy(isa->vendor, &r[1], 4);
        memcpy(isa->vendor + 4, &r[3], 4);
        memcpy(isa->vendor + 8, &r[2], 4);
    }
    query(c, 1, 0, r);
    a = r[0];
    isa->stepping = a & 15;
    isa->model = a >> 4 & 15;
    isa->family = a >> 8 & 15;
    if (isa->family == 15)
        isa->family += a >> 20 & 255;
    if (isa->family == 6 || isa->family >= 15)
        isa->model |= (a >> 16 & 15) << 4;
    isa->hypervisor = (r[2] >> 31) != 0;
    if (isa->hypervisor) { /* __get_cpuid refuses the hypervisor range, so the running CPU is asked
                              directly */
#if HAVE_X86
        if (c->leaves == NULL)
            __cpuid(0x40000000, r[0], r[1], r[2], r[3]);
        else
#endif
            query(c, 0x40000000, 0, r);
        memcpy(isa->hypervisor_id, &r[1], 12);
    }
    char brand[49] = "";
    for (uint32_t i = 0; i < 3; i++)
        if (query(c, 0x80000002 + i, 0, r))
            memcpy(brand + 16 * i, r, 16);
    size_t skip = strspn(brand, " "), n = strlen(brand + skip);
    while (n > 0 && brand[skip + n - 1] == ' ')
        n--;
    snprintf(isa->brand, sizeof isa->brand, "%.*s", (int)n, brand + skip);
    query(c, 0x80000001, 0, r);
    snprintf(isa->arch, sizeof isa->arch, "%s", (r[3] >> 29 & 1) != 0 ? "x86_64" : "i686");
}

static bool cpuid_flags(struct host_isa *isa, const struct cpuid_src *c, uint64_t *xcr0_bound)
{
    uint32_t r[4];
    bool ok = true;
    for (size_t i = 0; i < N_FLAGS; i++)
        if (query(c, flags[i].leaf, flags[i].sub, r) && (r[flags[i].reg] >> flags[i].bit & 1) != 0)
            ok = add_flag(isa, flags[i].name) && ok;
    *xcr0_bound = query(c, 0xd, 0, r) ? r[0] | (uint64_t)r[3] << 32 : 0;
    isa->amx_cpuid = has(isa, "amxtile");
    return ok;
}

static uint64_t read_xcr0(void)
{
#if HAVE_X86
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1) == 0) /* OSXSAVE */
        return 0;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(a), "=d"(d) : "c"(0));
    return a | (uint64_t)d << 32;
#else
    return 0;
#endif
}

/* A cpuinfo flag is not permission: the kernel grants tile state per process, on request. */
static void amx_ask(struct host_isa *isa)
{
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    enum { GET_SUPP = 0x1021, GET_PERM = 0x1022, REQ_PERM = 0x1023, TILEDATA = 18 };
    uint64_t mask = 0;
    isa->amx_kernel = syscall(SYS_arch_prctl, GET_SUPP, &mask) == 0 && (mask >> TILEDATA & 1) != 0;
    if (!isa->amx_cpuid || !isa->amx_kernel)
        return;
    syscall(SYS_arch_prctl, REQ_PERM, TILEDATA);
    isa->amx_permission =
        syscall(SYS_arch_prctl, GET_PERM, &mask) == 0 && (mask >> TILEDATA & 1) != 0 ? "granted"
                                                                                     : "refused";
#else
    (void)isa;
#endif
}

static bool text_flags(struct host_isa *isa, const char *list)
{
    bool ok = true;
    for (size_t i = 0; i < N_FLAGS; i++)
        for (const char *p = list; *p != '\0';) { /* compare without '_' */
            const char *f = flags[i].name;
            for (; *p != '\0' && !isspace((unsigned char)*p); p++) {
                if (*p == '_')
                    continue;
                if (f != NULL && *p == *f)
                    f++;
                else
                    f = NULL;
            }
            if (f != NULL && *f == '\0') {
                ok = add_flag(isa, flags[i].name) && ok;
                break;
            }
            while (isspace((unsigned char)*p))
                p++;
        }
    return ok;
}

static void text_field(const char *info, const char *key, char *out, size_t cap)
{
    char *v = host_line_value(info, key);
    if (v != NULL && v[0] != '\0')
        snprintf(out, cap, "%s", v);
    mem_free(v);
}

static uint32_t text_number(const char *info, const char *key)
{
    char *v = host_line_value(info, key);
    uint32_t n = v != NULL ? (uint32_t)strtoul(v, NULL, 0) : 0;
    mem_free(v);
    return n;
}

/* Facts of a stored tree. The kernel writes only flags whose state it saves, so the flags are their
 * own XCR0. */
static kt_status isa_from_tree(struct host *h, const char *root, kt_err *err)
{
    struct host_isa *isa = &h->isa;
    char *info = host_text(root, "proc/cpuinfo"), *list = host_line_value(info, "flags");
    text_field(info, "vendor_id", isa->vendor, sizeof isa->vendor);
    text_field(info, "model name", isa->brand, sizeof isa->brand);
    isa->family = text_number(info, "cpu family");
    isa->model = text_number(info, "model");
    isa->stepping = text_number(info, "stepping");
    isa->microcode = text_number(info, "microcode");
    bool ok = list == NULL || text_flags(isa, list);
    if (list != NULL) {
        isa->known = true;
        isa->hypervisor = strstr(list, "hypervisor") != NULL;
        isa->kern_isa = levels(isa, UINT64_MAX) & ~(uint32_t)HOST_ISA_AMX;
        isa->amx_cpuid = has(isa, "amxtile");
        if (strcmp(isa->arch, "unknown") == 0)
            snprintf(isa->arch, sizeof isa->arch, "%s",
                     strstr(list, " lm ") != NULL ? "x86_64" : "i686");
    }
    mem_free(list);
    mem_free(info);
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "cpuinfo: out of memory");
    return KT_OK;
}

static kt_status isa_from_cpuid(struct host *h, const char *dir, kt_err *err)
{
    struct cpuid_src c = {0};
    uint64_t bound;
    bool native = dir == NULL, ok = true;
    if (!native) {
        char *text = host_text(dir, "pu0");
        ok = text != NULL && parse_dump(text, &c);
        mem_free(text);
        if (c.n == 0)
            KT_FAIL(err, KT_E_FORMAT, "cpuid:%s/pu0: holds no CPUID line; gather it again", dir);
    }
    identity(&h->isa, &c);
    h->isa.known = true;
    h->isa.n_cpuid = 0; /* a dump beats the tree's text */
    ok = ok && cpuid_flags(&h->isa, &c, &bound);
    mem_free(c.leaves);
    if (!ok)
        KT_FAIL(err, KT_E_NOMEM, "cpuid: out of memory");
    if (native) {
        h->isa.xcr0 = read_xcr0();
        amx_ask(&h->isa);
    }
    h->isa.kern_isa = levels(&h->isa, native ? h->isa.xcr0 : bound);
    if (strcmp(h->isa.amx_permission, "granted") != 0)
        h->isa.kern_isa &= ~(uint32_t)HOST_ISA_AMX;
    return KT_OK;
}

static void isa_from_infos(struct host_isa *isa, hwloc_topology_t t)
{
    hwloc_obj_t root = hwloc_get_root_obj(t), pack = hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, 0);
    const struct {
        const char *name;
        char *text;
        size_t cap;
        uint32_t *number;
    } want[] = {{"Architecture", isa->arch, sizeof isa->arch, NULL},
                {"CPUVendor", isa->vendor, sizeof isa->vendor, NULL},
                {"CPUModel", isa->brand, sizeof isa->brand, NULL},
                {"CPUFamilyNumber", NULL, 0, &isa->family},
                {"CPUModelNumber", NULL, 0, &isa->model},
                {"CPUStepping", NULL, 0, &isa->stepping}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const char *v = hwloc_obj_get_info_by_name(root, want[i].name);
        if (v == NULL && pack != NULL)
            v = hwloc_obj_get_info_by_name(pack, want[i].name);
        if (v != NULL && want[i].text != NULL)
            snprintf(want[i].text, want[i].cap, "%s", v);
        else if (v != NULL)
            *want[i].number = (uint32_t)strtoul(v, NULL, 10);
    }
}

kt_status host_isa_read(struct host *h, const struct host_source *s, hwloc_topology_t t,
                        kt_err *err)
{
    struct host_isa *isa = &h->isa;
    struct utsname u;
    bool native = s->kind == HOST_NATIVE;
    snprintf(isa->arch, sizeof isa->arch, "unknown");
    isa->amx_permission = "not_asked";
    if (native && uname(&u) == 0)
        snprintf(isa->arch, sizeof isa->arch, "%.31s", u.machine);
    else if (!native)
        isa_from_infos(isa, t);
    if (host_source_root(s) != NULL)
        KT_TRY(isa_from_tree(h, host_source_root(s), err));
    if (s->cpuid != NULL || (native && HAVE_X86))
        KT_TRY(isa_from_cpuid(h, s->cpuid, err));
    isa->masked = isa->hypervisor || isa->microcode == 1 || isa->microcode == UINT32_MAX ||
                  strstr(isa->brand, "QEMU") != NULL || strstr(isa->brand, "Common KVM") != NULL;
    if (isa->masked &&
        !host_warnf(h, "KT001", "environment.identity",
                    "CPU identity is masked (%s): the profile ages after 7 days",
                    isa->hypervisor ? "virtual machine" : "generic name or microcode"))
        KT_FAIL(err, KT_E_NOMEM, "isa: out of memory");
    if (native && isa->amx_cpuid && strcmp(isa->amx_permission, "granted") != 0 &&
        !host_warnf(h, "KT021", "isa.amx", "the CPU has AMX, but the kernel %s it",
                    isa->amx_kernel ? "refuses" : "does not know"))
        KT_FAIL(err, KT_E_NOMEM, "isa: out of memory");
    return KT_OK;
}
