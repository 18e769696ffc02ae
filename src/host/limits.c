/* limits.c - what this process may use: CPU affinity, cpusets, CPU quotas on every ancestor cgroup,
 * memory limits, locked memory, throttling. Reads cgroup v1, v2 and hybrid mounts as
 * /proc/self/mounts states them, below a root, so stored trees answer like machines. Inside a
 * cgroup namespace, or when the path of /proc/self/cgroup is not visible below the mount, the mount
 * itself is the process' cgroup. A quota is time and an affinity is cores: both are kept, and the
 * budget is rounded down. Malformed files count as absent and are logged.
 */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/place.h"
#include "host/host_int.h"

struct cg {         /* one hierarchy that the process is in */
    char dir[2048]; /* leaf directory, relative to root, no leading slash; "" when there is none */
    size_t mount_len; /* length of the mount's part of dir */
};

struct cgroups {
    struct cg v2, cpu, cpuset, memory;
};

/* "\040" and friends of /proc/mounts */
static void unescape(char *s)
{
    char *w = s;
    for (; *s != '\0'; s++)
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *w++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *w++ = *s;
        }
    *w = '\0';
}

/* Is `word` a member of the comma-separated list? */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p != NULL; p = strchr(p, ','), p = p == NULL ? NULL : p + 1)
        if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

static void cg_mount(struct cg *c, const char *where)
{
    if (c->dir[0] != '\0' || where[0] != '/' || strlen(where) >= sizeof c->dir)
        return; /* the first mount of a hierarchy is as good as the others */
    snprintf(c->dir, sizeof c->dir, "%s", where + 1);
    c->mount_len = strlen(c->dir);
}

static void read_mounts(struct cgroups *g, char *text)
{
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *f[4], *word = NULL;
        int n = 0;
        for (char *p = strtok_r(line, " \t", &word); p != NULL && n < 4;
             p = strtok_r(NULL, " \t", &word))
            f[n++] = p;
        if (n < 4)
            continue;
        unescape(f[1]);
        if (strcmp(f[2], "cgroup2") == 0)
            cg_mount(&g->v2, f[1]);
        else if (strcmp(f[2], "cpuset") == 0)
            cg_mount(&g->cpuset, f[1]);
        else if (strcmp(f[2], "cgroup") == 0) {
            if (list_has(f[3], "cpu"))
                cg_mount(&g->cpu, f[1]);
            if (list_has(f[3], "cpuset"))
                cg_mount(&g->cpuset, f[1]);
            if (list_has(f[3], "memory"))
                cg_mount(&g->memory, f[1]);
        }
    }
}

/* Without a readable mount table: the places where systemd mounts them. */
static void guess_mounts(struct cgroups *g, const char *root)
{
    char *v2 = host_text(root, "sys/fs/cgroup/cgroup.controllers");
    if (v2 != NULL)
        cg_mount(&g->v2, "/sys/fs/cgroup");
    mem_free(v2);
    if (host_is_dir(root, "sys/fs/cgroup/cpu"))
        cg_mount(&g->cpu, "/sys/fs/cgroup/cpu");
    if (host_is_dir(root, "sys/fs/cgroup/cpuset"))
        cg_mount(&g->cpuset, "/sys/fs/cgroup/cpuset");
    if (host_is_dir(root, "sys/fs/cgroup/memory"))
        cg_mount(&g->memory, "/sys/fs/cgroup/memory");
}

/* Append the process' path to the mount when it is visible there. */
static void cg_enter(struct cg *c, const char *root, const char *path)
{
    size_t n = strlen(path);
    if (c->dir[0] == '\0' || path[0] != '/' || n < 2 || strstr(path, "/..") != NULL ||
        c->mount_len + n >= sizeof c->dir)
        return;
    memcpy(c->dir + c->mount_len, path, n + 1);
    if (!host_is_dir(root, "%s", c->dir))
        c->dir[c->mount_len] = '\0';
}

static void enter_paths(struct cgroups *g, const char *root, char *text)
{
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *ctl = strchr(line, ':'), *path = ctl != NULL ? strchr(ctl + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        ctl++;
        if (*ctl == '\0')
            cg_enter(&g->v2, root, path);
        if (list_has(ctl, "cpu"))
            cg_enter(&g->cpu, root, path);
        if (list_has(ctl, "cpuset"))
            cg_enter(&g->cpuset, root, path);
        if (list_has(ctl, "memory"))
            cg_enter(&g->memory, root, path);
    }
}

/* One step towards the mount. false when dir was the mount. */
static bool cg_up(struct cg *c)
{
    if (strlen(c->dir) <= c->mount_len)
        return false;
    char *slash = strrchr(c->dir, '/');
    if (slash == NULL || (size_t)(slash - c->dir) < c->mount_len)
        c->dir[c->mount_len] = '\0';
    else
        *slash = '\0';
    return true;
}

static void lower(double *quota, double q)
{
    if (q > 0 && (*quota <= 0 || q < *quota))
        *quota = q;
}

static void read_throttle(struct host_limits *l, const char *root, const char *dir)
{
    char *stat = host_text(root, "%s/cpu.stat", dir), *n = host_line_value(stat, "nr_throttled");
    char *us = host_line_value(stat, "throttled_usec"),
         *ns = host_line_value(stat, "throttled_time");
    uint64_t periods = n != NULL ? strtoull(n, NULL, 10) : 0;
    double s = us != NULL   ? (double)strtoull(us, NULL, 10) * 1e-6
               : ns != NULL ? (double)strtoull(ns, NULL, 10) * 1e-9
                            : 0;
    if (periods > l->throttled_periods)
        l->throttled_periods = periods;
    if (s > l->throttled_seconds)
        l->throttled_seconds = s;
    mem_free(stat);
    mem_free(n);
    mem_free(us);
    mem_free(ns);
}

/* v2: "max 100000" or "765000 100000" */
static void quota_v2(struct host_limits *l, const char *root, struct cg c)
{
    if (c.dir[0] == '\0')
        return;
    do {
        char *t = host_text(root, "%s/cpu.max", c.dir), *end = NULL;
        if (t != NULL && strncmp(t, "max", 3) != 0) {
            double q = strtod(t, &end);
            double period = end != t ? strtod(end, NULL) : 0;
            if (end != t && *end == '\0')
                period = 100000; /* the kernel's default, when only the quota was stored */
            if (isfinite(q) && isfinite(period) && q > 0 && period > 0)
                lower(&l->quota_cores, q / period);
            else
                log_warn("%s/cpu.max: \"%.40s\" is no quota; ignored", c.dir, t);
        }
        mem_free(t);
        read_throttle(l, root, c.dir);
    } while (cg_up(&c));
}

static void quota_v1(struct host_limits *l, const char *root, struct cg c)
{
    if (c.dir[0] == '\0')
        return;
    do {
        uint64_t quota, period;
        if (host_number(root, &quota, "%s/cpu.cfs_quota_us", c.dir) && quota > 0 &&
            host_number(root, &period, "%s/cpu.cfs_period_us", c.dir) && period > 0)
            lower(&l->quota_cores,
                  (double)quota / (double)period); /* -1 (none) is not a plain number */
        read_throttle(l, root, c.dir);
    } while (cg_up(&c));
}

static void memory_min(const char *root, struct cg c, const char *file, uint64_t *least)
{
    uint64_t v;
    if (c.dir[0] == '\0')
        return;
    do
        if (host_number(root, &v, "%s/%s", c.dir, file) && v < UINT64_C(1) << 62 &&
            v < *least) /* v1 writes 2^63-4096 for none */
            *least = v;
    while (cg_up(&c));
}

/* The first non-empty list, from the leaf upward; `names` are alternatives within one directory. */
static bool cpuset_list(const char *root, struct cg c, const char *const *names,
                        struct host_set *out)
{
    if (c.dir[0] == '\0')
        return false;
    do
        for (const char *const *name = names; *name != NULL; name++) {
            char *t = host_text(root, "%s/%s", c.dir, *name);
            bool ok = t != NULL && host_set_parse(t, out);
            mem_free(t);
            if (ok && host_set_count(out) > 0)
                return true;
            host_set_free(out);
        }
    while (cg_up(&c));
    return false;
}

/* Mems are narrowed to what the cpuset says; CPUs are kept apart, as they are a fact of their own
 * in the profile. */
static void read_cpusets(struct host_limits *l, const char *root, const struct cgroups *g)
{
    static const char *const cpus2[] = {"cpuset.cpus.effective", NULL}, *const mems2[] = {
                                                                            "cpuset.mems.effective",
                                                                            NULL};
    static const char *const cpus1[] = {"cpuset.effective_cpus", "cpuset.cpus", "cpus", NULL};
    static const char *const mems1[] = {"cpuset.effective_mems", "cpuset.mems", "mems", NULL};
    struct host_set mems = {0};
    l->has_cpuset = cpuset_list(root, g->v2, cpus2, &l->cpuset_cpus) ||
                    cpuset_list(root, g->cpuset, cpus1, &l->cpuset_cpus);
    if (cpuset_list(root, g->v2, mems2, &mems) || cpuset_list(root, g->cpuset, mems1, &mems))
        host_set_and(&l->cpuset_mems, &mems);
    host_set_free(&mems);
}

static bool native_affinity(struct host_set *out)
{
    struct place_cpus c;
    bool ok = place_get(&c);
    for (uint32_t i = 0; ok && i < 8 * c.bytes; i++)
        if (place_has(&c, i))
            ok = host_set_add(out, i);
    place_free(&c);
    return ok;
}

/* Narrow `s` to the list of a line of /proc/self/status. */
static void narrow_by_status(const char *status, const char *key, struct host_set *s)
{
    struct host_set set = {0};
    char *v = host_line_value(status, key);
    if (v != NULL && host_set_parse(v, &set) && host_set_count(&set) > 0)
        host_set_and(s, &set);
    host_set_free(&set);
    mem_free(v);
}

static uint64_t read_memlock(const char *root)
{
    char *t = host_text(root, "proc/self/limits"), *v = host_line_value(t, "Max locked memory");
    uint64_t bytes =
        v != NULL && v[0] >= '0' && v[0] <= '9' ? strtoull(v, NULL, 10) : HOST_UNKNOWN_BYTES;
    mem_free(t);
    mem_free(v);
    return bytes;
}

bool host_limits_apply(struct host *h)
{
    struct host_limits *l = &h->limits;
    struct host_set allowed = {0};
    if (!host_set_copy(&allowed, &l->affinity))
        return false;
    if (l->has_cpuset)
        host_set_and(&allowed, &l->cpuset_cpus);
    host_set_free(&l->allowed_pus);
    l->allowed_pus = allowed;
    l->cores_allowed = 0;
    for (uint32_t i = 0; i < h->n_cores; i++) {
        struct host_core *c = &h->cores[i];
        c->allowed = host_set_meets(&c->pus, &l->allowed_pus);
        l->cores_allowed += c->allowed;
        for (c->first_pu = host_set_next(&c->pus, -1);
             c->allowed && !host_set_has(&l->allowed_pus, (uint32_t)c->first_pu);)
            c->first_pu = host_set_next(&c->pus, c->first_pu);
    }
    for (uint32_t i = 0; i < h->n_nodes; i++)
        h->nodes[i].allowed = host_set_has(&l->cpuset_mems, (uint32_t)h->nodes[i].os);
    for (uint32_t i = 0; i < h->n_gpus; i++)
        h->gpus[i].node_forbidden =
            h->gpus[i].node >= 0 && !host_set_has(&l->cpuset_mems, (uint32_t)h->gpus[i].node);
    l->cores_budget = l->cores_allowed;
    if (l->quota_cores > 0 && l->quota_cores < l->cores_allowed)
        l->cores_budget = (uint32_t)l->quota_cores; /* down: 7.65 cores carry 7 threads */
    if (l->cores_budget < 1)
        l->cores_budget = 1;
    return true;
}

static void read_cgroups(struct host_limits *l, const char *root)
{
    struct cgroups *g = mem_calloc(1, sizeof *g);
    char *self = host_text(root, "proc/self/cgroup"), *mounts = host_text(root, "proc/self/mounts");
    if (g != NULL && self != NULL) {
        if (mounts == NULL)
            mounts = host_text(root, "proc/mounts");
        if (mounts != NULL)
            read_mounts(g, mounts);
        else
            guess_mounts(g, root);
        enter_paths(g, root, self);
        bool v1 = g->cpu.dir[0] != '\0' || g->cpuset.dir[0] != '\0' || g->memory.dir[0] != '\0',
             v2 = g->v2.dir[0] != '\0';
        l->cgroup = v1 && v2 ? "hybrid" : v2 ? "v2" : v1 ? "v1" : "none";
        quota_v2(l, root, g->v2);
        quota_v1(l, root, g->cpu);
        read_cpusets(l, root, g);
        memory_min(root, g->v2, "memory.max", &l->memory_max);
        memory_min(root, g->v2, "memory.high", &l->memory_high);
        memory_min(root, g->memory, "memory.limit_in_bytes", &l->memory_max);
    }
    mem_free(self);
    mem_free(mounts);
    mem_free(g);
}

kt_status host_limits_read(struct host *h, const char *root, kt_err *err)
{
    struct host_limits *l = &h->limits;
    l->cgroup = "none";
    l->memory_max = l->memory_high = l->memlock = HOST_UNKNOWN_BYTES;
    if (root != NULL) {
        char *status = host_text(root, "proc/self/status");
        if (root[0] == '\0') {
            host_set_free(&l->affinity);
            if (!native_affinity(&l->affinity)) {
                int e = errno;
                mem_free(status);
                errno = e;
                KT_FAIL_OS(err, KT_E_IO, "sched_getaffinity: %s", strerror(errno));
            }
        } else {
            narrow_by_status(status, "Cpus_allowed_list", &l->affinity);
        }
        narrow_by_status(status, "Mems_allowed_list", &l->cpuset_mems);
        mem_free(status);
        l->memlock = read_memlock(root);
        read_cgroups(l, root);
    }
    if (!host_limits_apply(h))
        KT_FAIL(err, KT_E_NOMEM, "limits: out of memory");
    if (l->cores_allowed == 0 || host_set_count(&l->allowed_pus) == 0)
        KT_FAIL(err, KT_E_LIMIT,
                "no CPU is allowed: affinity and cpuset have nothing in common; check both");
    return KT_OK;
}
