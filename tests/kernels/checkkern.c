/* checkkern.c - the kernel test program: options, the tools of checkkern.h, and the final counts.
 *
 * usage: checkkern [--list] [--func=SUBSTR] [--isa=LEVEL] [--seed=N] [--break=NAME] [--bench]
 * Exit status 0: every row that this CPU can run gave the bits of its ref row. 1: some differed.
 * One thread (bench: one per CPU).
 */
#include "checkkern.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

sigjmp_buf check_trap;
volatile bool check_armed;
static unsigned passed, failed, skipped;

uint64_t check_u64(struct check_rng *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t check_below(struct check_rng *r, uint32_t n)
{
    return (uint32_t)((check_u64(r) >> 32) * n >> 32);
}

float check_uniform(struct check_rng *r)
{
    return (float)((double)(int64_t)check_u64(r) * 0x1p-63);
}

float check_normal(struct check_rng *r)
{
    float s = 0;
    for (int i = 0; i < 3; i++)
        s += check_uniform(r);
    return s;
}

void check_poison(void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)p)[i] = (uint8_t)(0xa5 ^ i * 29);
}

bool check_is_poison(const void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const uint8_t *)p)[i] != (uint8_t)(0xa5 ^ i * 29))
            return false;
    return true;
}

bool check_buf_open(struct check_buf *b, size_t bytes, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + align - 1) / align * align;
    size_t inner = (room + page - 1) / page * page;
    b->bytes = bytes;
    b->map_bytes = inner + 2 * page;
    b->map = mmap(NULL, b->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED)
        return false;
    mprotect(b->map, page, PROT_NONE);
    mprotect((uint8_t *)b->map + page + inner, page, PROT_NONE);
    b->p = (uint8_t *)b->map + page + inner - room;
    check_poison(b->p, room);
    return true;
}

void check_buf_close(struct check_buf *b)
{
    if (b->map != NULL && b->map != MAP_FAILED)
        munmap(b->map, b->map_bytes);
    memset(b, 0, sizeof *b);
}

bool check_wants(const struct check_opts *o, const struct kern *k)
{
    if (o->func != NULL && strstr(k->name, o->func) == NULL)
        return false;
    if (o->list) {
        printf("%-36s isa 0x%02x layout %d tile %u rank %d%s\n", k->name, k->isa, (int)k->layout,
               k->tok_tile, k->rank, k->isa & ~o->isa ? "  (not runnable here)" : "");
        return false;
    }
    if (k->isa & ~o->isa) {
        printf("skip %s: needs isa bits 0x%02x that this CPU or --isa lacks\n", k->name,
               k->isa & ~o->isa);
        skipped++;
        return false;
    }
    return true;
}

void check_break(const struct check_opts *o, const struct kern *k, void *p, size_t bytes)
{
    if (o->broken != NULL && strcmp(o->broken, k->name) == 0 && bytes > 0)
        ((uint8_t *)p)[bytes / 2 / 4 * 4] ^= 1;
}

int check_row(const struct check_opts *o, const struct kern *k, const char *what)
{
    if (what == NULL) {
        passed++;
        return 0;
    }
    failed++;
    printf("FAIL %s: %s (--func=%s --seed=%llu)\n", k->name, what, k->name,
           (unsigned long long)o->seed);
    return 1;
}

static void on_signal(int sig)
{
    if (check_armed) {
        check_armed = false;
        siglongjmp(check_trap, sig);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static const char *value_of(const char *arg, const char *name)
{
    size_t n = strlen(name);
    return strncmp(arg, name, n) == 0 && arg[n] == '=' ? arg + n + 1 : NULL;
}

static bool parse(int argc, char **argv, struct check_opts *o)
{
    const char *v;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if ((v = value_of(argv[i], "--func")) != NULL) {
            o->func = v;
        } else if ((v = value_of(argv[i], "--break")) != NULL) {
            o->broken = v;
        } else if ((v = value_of(argv[i], "--seed")) != NULL) {
            o->seed = strtoull(v, NULL, 0);
        } else if ((v = value_of(argv[i], "--isa")) != NULL) {
            int m = kern_isa_by_name(v);
            if (m < 0) {
                fprintf(
                    stderr,
                    "checkkern: unknown level %s; known: ref avx2 avxvnni avx512 avx512vnni amx\n",
                    v);
                return false;
            }
            o->isa &= (uint32_t)m;
        } else {
            fprintf(stderr, "usage: checkkern [--list] [--func=SUBSTR] [--isa=LEVEL] [--seed=N] "
                            "[--break=NAME] [--bench]\n");
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct check_opts o = {.isa = kern_isa_host(), .seed = clock_ns() / 1000};
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    if (!parse(argc, argv, &o))
        return 99;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
        sigaction(signals[i], &sa, NULL);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!o.list)
        printf("seed %llu, isa 0x%02x (%s)\n", (unsigned long long)o.seed, o.isa,
               kern_isa_level_name(o.isa));
    int bad = o.bench ? check_mm_bench(&o) : check_mm(&o);
    bad |= check_vec(&o);
    if (!o.list && !o.bench)
        printf("%u rows right, %u wrong, %u skipped\n", passed, failed, skipped);
    return bad != 0 || failed != 0;
}
