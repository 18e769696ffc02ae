/* measure.c - children, their pipe, and the rounds inside them. See measure.h. */
#define _GNU_SOURCE
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

struct m_out {
    int fd;
};

/* ---- parent ---- */

static int take_record(struct m_result *r, size_t *cap, const struct m_record *rec)
{
    if (r->n == *cap) {
        size_t more = *cap ? *cap * 2 : 256;
        struct m_record *grown = mem_realloc(r->records, more * sizeof *grown);
        if (grown == NULL)
            return -1;
        r->records = grown;
        *cap = more;
    }
    r->records[r->n++] = *rec;
    return 0;
}

/* Read records until end of file or deadline. Returns false at the deadline. */
static bool collect(int fd, uint64_t deadline_ns, struct m_result *r)
{
    struct m_record rec;
    size_t cap = 0, have = 0;
    for (;;) {
        uint64_t now = clock_ns();
        if (now >= deadline_ns)
            return false;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int rc = poll(&p, 1, (int)((deadline_ns - now) / 1000000u) + 1);
        if (rc < 0 && errno != EINTR)
            return true;
        if (rc <= 0)
            continue;
        ssize_t n = read(fd, (char *)&rec + have, sizeof rec - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        have += (size_t)n;
        if (have == sizeof rec) {
            rec.text[sizeof rec.text - 1] = '\0';
            if (take_record(r, &cap, &rec) != 0)
                return true;
            have = 0;
        }
    }
}

static void child_main(int (*fn)(void *, struct m_out *), void *ctx, int fd)
{
    struct m_out o = {fd};
    static const int fatal[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGINT, SIGTERM, SIGPIPE};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    _exit(fn(ctx, &o));
}

kt_status m_run(int (*fn)(void *ctx, struct m_out *o), void *ctx, double seconds,
                struct m_result *out, kt_err *err)
{
    int fds[2], status = 0;
    time_t wall = time(NULL);
    struct tm tm;
    memset(out, 0, sizeof *out);
    gmtime_r(&wall, &tm);
    strftime(out->started, sizeof out->started, "%Y-%m-%dT%H:%M:%SZ", &tm);
    uint64_t start = clock_ns();
    if (seconds <= 0.02) {
        out->end = M_NOT_STARTED;
        return KT_OK;
    }
    if (pipe2(fds, O_CLOEXEC) != 0)
        KT_FAIL_OS(err, KT_E_LIMIT, "cannot make a pipe for a probe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int e = errno;
        close(fds[0]);
        close(fds[1]);
        errno = e;
        KT_FAIL_OS(err, KT_E_LIMIT, "cannot start a process for a probe: %s", strerror(errno));
    }
    if (pid == 0) {
        close(fds[0]);
        child_main(fn, ctx, fds[1]);
    }
    close(fds[1]);
    bool finished = collect(fds[0], start + (uint64_t)(seconds * 1e9), out);
    close(fds[0]);
    if (!finished)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    out->seconds = (double)(clock_ns() - start) * 1e-9;
    out->code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    out->end = !finished             ? M_TIMEOUT
               : WIFSIGNALED(status) ? M_SIGNAL
               : out->code != 0      ? M_EXIT
                                     : M_DONE;
    return KT_OK;
}

void m_result_free(struct m_result *r)
{
    mem_free(r->records);
    memset(r, 0, sizeof *r);
}

const char *m_reason(const struct m_result *r, char *buf, size_t n)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->records[i].kind == M_FAIL) {
            snprintf(buf, n, "%s", r->records[i].text);
            return buf;
        }
    switch (r->end) {
    case M_TIMEOUT:
        snprintf(buf, n, "killed after %.1f s without an end", r->seconds);
        break;
    case M_SIGNAL:
        snprintf(buf, n, "signal %d (%s)", r->code, strsignal(r->code));
        break;
    case M_EXIT:
        snprintf(buf, n, "the probe ended with code %d", r->code);
        break;
    case M_NOT_STARTED:
        snprintf(buf, n, "no time was left");
        break;
    default:
        snprintf(buf, n, "no sample was taken");
    }
    return buf;
}

double m_note_value(const struct m_result *r, uint32_t point, double missing)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->records[i].kind == M_NOTE && r->records[i].point == point)
            return r->records[i].value;
    return missing;
}

/* ---- child: sending ---- */

static void send_record(struct m_out *o, const struct m_record *rec)
{
    const char *p = (const char *)rec;
    size_t left = sizeof *rec;
    while (left > 0) {
        ssize_t n = write(o->fd, p, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(1);
        p += n;
        left -= (size_t)n;
    }
}

void m_sample(struct m_out *o, uint32_t point, double value, enum m_cause cause)
{
    struct m_record rec = {.kind = M_SAMPLE, .point = point, .cause = cause, .value = value};
    send_record(o, &rec);
}

void m_note(struct m_out *o, uint32_t point, double value, const char *text)
{
    struct m_record rec = {.kind = M_NOTE, .point = point, .value = value};
    snprintf(rec.text, sizeof rec.text, "%s", text);
    send_record(o, &rec);
}

int m_fail(struct m_out *o, const char *text)
{
    struct m_record rec = {.kind = M_FAIL};
    snprintf(rec.text, sizeof rec.text, "%s", text);
    send_record(o, &rec);
    return 1;
}

/* ---- child: causes ---- */

struct watch {
    int stat_fd, throttle_fd;
    long switches;
    unsigned long long steal, throttled;
};

static unsigned long long read_steal(int fd)
{
    char buf[256];
    unsigned long long v[8] = {0};
    ssize_t n = fd >= 0 ? pread(fd, buf, sizeof buf - 1, 0) : -1;
    if (n <= 0)
        return 0;
    buf[n] = '\0';
    char *p = strchr(buf, ' ');
    for (int i = 0; i < 8 && p != NULL; i++)
        v[i] = strtoull(p, &p, 10);
    return v[7];
}

static unsigned long long read_throttled(int fd)
{
    char buf[1024];
    ssize_t n = fd >= 0 ? pread(fd, buf, sizeof buf - 1, 0) : -1;
    if (n <= 0)
        return 0;
    buf[n] = '\0';
    char *p = strstr(buf, "nr_throttled ");
    return p != NULL ? strtoull(p + 13, NULL, 10) : 0;
}

static void watch_open(struct watch *w)
{
    static const char *const files[] = {"/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat",
                                        "/sys/fs/cgroup/cpu,cpuacct/cpu.stat"};
    w->stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    w->throttle_fd = -1;
    for (size_t i = 0; i < 3 && w->throttle_fd < 0; i++)
        w->throttle_fd = open(files[i], O_RDONLY | O_CLOEXEC);
}

static void watch_read(const struct watch *w, struct watch *now)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    *now = *w;
    now->switches = u.ru_nivcsw;
    now->steal = read_steal(w->stat_fd);
    now->throttled = read_throttled(w->throttle_fd);
}

static enum m_cause cause_between(const struct watch *a, const struct watch *b)
{
    if (b->throttled != a->throttled)
        return M_THROTTLED;
    if (b->steal != a->steal)
        return M_STOLEN;
    return b->switches != a->switches ? M_SWITCHED : M_CLEAN;
}

/* ---- child: rounds ---- */

uint64_t m_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double m_clock_hz(void)
{
    double best = 0;
    for (int burst = 0; burst < 5; burst++) {
        uint64_t x = 1, start = clock_ns();
        const int n = 200000;
        for (int i = 0; i < n; i += 10)
            __asm__ volatile("" /* ten dependent operations that no compiler may fold */
#if defined(__x86_64__)
                             "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
                             "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
#elif defined(__aarch64__)
                             "add %0, %0, 1\n add %0, %0, 1\n add %0, %0, 1\n add %0, %0, 1\n add "
                             "%0, %0, 1\n"
                             "add %0, %0, 1\n add %0, %0, 1\n add %0, %0, 1\n add %0, %0, 1\n add "
                             "%0, %0, 1\n"
#endif
                             : "+r"(x));
        double hz = (double)n / ((double)(clock_ns() - start) * 1e-9);
        if (hz > best)
            best = hz;
    }
    return best;
}

static void shuffle(uint32_t *order, uint32_t n, uint64_t *seed)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)(m_random(seed) % i), t = order[i - 1];
        order[i - 1] = order[k];
        order[k] = t;
    }
}

/* Rounds while they run: live points are order[0..live). */
struct rounds {
    const struct m_rounds *r;
    struct m_out *o;
    struct watch w;
    uint32_t *order, live;
    double *cost; /* [n_points] seconds of the last sample */
    uint64_t begin;
};

static double elapsed(const struct rounds *s)
{
    return (double)(clock_ns() - s->begin) * 1e-9;
}

/* Points from order[keep] on are out, and the parent is told why. */
static void give_up_from(struct rounds *s, uint32_t keep)
{
    struct m_record rec = {.kind = M_GIVEN_UP};
    snprintf(rec.text, sizeof rec.text,
             "no time was left: %.1f s were enough for %u of %u points of this run", s->r->seconds,
             keep, s->r->n_points);
    for (uint32_t i = keep; i < s->live; i++) {
        rec.point = s->order[i];
        send_record(s->o, &rec);
    }
    s->live = keep;
}

/* After the first round, whose order is that of worth: as many points as can have enough rounds in
 * what is left, and one or two more. */
static void keep_affordable(struct rounds *s)
{
    double sum = 0, left = s->r->seconds - elapsed(s);
    uint32_t keep = 0;
    for (; keep < s->live; keep++) {
        sum += s->cost[s->order[keep]];
        if (keep > 0 && sum * (M_ENOUGH_ROUNDS + 1) > left)
            break;
    }
    give_up_from(s, keep);
}

/* One sample of order[i]; false: the point failed and is out. */
static bool take_sample(struct rounds *s, uint32_t i)
{
    struct watch before, after;
    uint32_t point = s->order[i];
    uint64_t start = clock_ns();
    watch_read(&s->w, &before);
    double v = s->r->sample(s->r->ctx, point);
    watch_read(&s->w, &after);
    s->cost[point] = (double)(clock_ns() - start) * 1e-9;
    if (v < 0) {
        memmove(s->order + i, s->order + i + 1, (s->live - i - 1) * sizeof *s->order);
        s->live--;
        return false;
    }
    m_sample(s->o, point, v, cause_between(&before, &after));
    return true;
}

static void warm_up(struct rounds *s)
{
    for (uint32_t i = 0; s->live > 0 && (i < s->live || elapsed(s) < s->r->warmup_seconds); i++) {
        if (s->r->budget && elapsed(s) > s->r->seconds / 2)
            break;
        (void)s->r->sample(s->r->ctx, s->order[i % s->live]);
    }
}

static void one_round(struct rounds *s, uint32_t round)
{
    const struct m_rounds *r = s->r;
    for (uint32_t i = 0; i < s->live; i++) {
        if (round >= 3 && r->sparse != NULL && r->sparse(r->ctx, s->order[i]))
            continue;
        if (r->budget && i > 0 && elapsed(s) >= r->seconds) {
            if (round == 0)
                give_up_from(s, i);
            return;
        }
        if (!take_sample(s, i))
            i--;
    }
}

static void run_rounds(struct rounds *s)
{
    const struct m_rounds *r = s->r;
    uint64_t seed = r->seed;
    for (uint32_t round = 0; round < r->max_rounds && s->live > 0; round++) {
        if (round >= (r->budget ? 1 : 3) && elapsed(s) >= r->seconds)
            break;
        if (round > 0 || !r->budget)
            shuffle(s->order, s->live, &seed);
        one_round(s, round);
        if (r->budget && round == 0)
            keep_affordable(s);
    }
}

void m_rounds(struct m_out *o, const struct m_rounds *r)
{
    struct rounds s = {.r = r, .o = o, .live = r->n_points, .begin = clock_ns()};
    s.order = mem_calloc(r->n_points, sizeof *s.order);
    s.cost = mem_calloc(r->n_points, sizeof *s.cost);
    if (s.order == NULL || s.cost == NULL) {
        m_fail(o, "out of memory");
    } else {
        for (uint32_t i = 0; i < s.live; i++)
            s.order[i] = i;
        watch_open(&s.w);
        warm_up(&s);
        m_note(o, UINT32_MAX, elapsed(&s), "warmup");
        m_note(o, UINT32_MAX - 1, m_clock_hz(), "clock");
        if (!r->budget)
            s.begin = clock_ns();
        run_rounds(&s);
        m_note(o, UINT32_MAX - 2, m_clock_hz(), "clock");
    }
    mem_free(s.order);
    mem_free(s.cost);
}
