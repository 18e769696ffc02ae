/* probe_papi.c - are hardware counters usable? Only a functional test says so: in a child, per
 * event, add + start + known work + stop must succeed and the value must be above 0 and within a
 * factor of 10 of what the work implies. What the library lists is never looked at: virtual
 * machines list counters that cannot be added, and hybrid CPUs count zero. The library is opened at
 * run time; nothing links against it.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "config.h"
#include "measure.h"
#include "probe.h"

/* The few numbers of the interface that this test needs; papi.h states them as fixed. */
#define API_OK 0
#define API_NULL (-1)
#define WORK 1000000

static const struct {
    const char *name;
    double expected; /* per WORK turns of the loop below */
} events_tried[] = {
    {"PAPI_TOT_CYC", 2e6},
    {"PAPI_TOT_INS", 3e6},
    {"PAPI_BR_INS", 1e6},
    {"PAPI_REF_CYC", 2e6},
};
#define N_EVENTS (sizeof events_tried / sizeof *events_tried)

struct api {
    int (*library_init)(int version);
    int (*create_eventset)(int *set);
    int (*event_name_to_code)(const char *name, int *code);
    int (*add_event)(int set, int code);
    int (*remove_event)(int set, int code);
    int (*start)(int set);
    int (*stop)(int set, long long *values);
    const char *(*strerror)(int code);
};

static bool find(void *lib, const char *name, void *slot)
{
    void *p = dlsym(lib, name);
    memcpy(slot, &p, sizeof p);
    return p != NULL;
}

static bool find_all(void *lib, struct api *a)
{
    return find(lib, "PAPI_library_init", &a->library_init) &&
           find(lib, "PAPI_create_eventset", &a->create_eventset) &&
           find(lib, "PAPI_event_name_to_code", &a->event_name_to_code) &&
           find(lib, "PAPI_add_event", &a->add_event) &&
           find(lib, "PAPI_remove_event", &a->remove_event) && find(lib, "PAPI_start", &a->start) &&
           find(lib, "PAPI_stop", &a->stop) && find(lib, "PAPI_strerror", &a->strerror);
}

/* WORK turns: about three instructions and one branch each, one or two cycles. */
static uint64_t work(void)
{
    uint64_t x = 1;
    for (int i = 0; i < WORK; i++)
        __asm__ volatile("" : "+r"(x));
    return x;
}

/* "" when the event counted, else why not. */
static void try_event(const struct api *a, int set, size_t e, char *why, size_t n)
{
    char name[64];
    int code = 0, rc;
    long long v[4] = {0};
    snprintf(name, sizeof name, "%s", events_tried[e].name);
    if ((rc = a->event_name_to_code(name, &code)) != API_OK ||
        (rc = a->add_event(set, code)) != API_OK) {
        const char *s = a->strerror(rc);
        snprintf(why, n, "%s cannot be added: %s", name, s != NULL ? s : "no reason given");
        return;
    }
    if ((rc = a->start(set)) != API_OK) {
        const char *s = a->strerror(rc);
        snprintf(why, n, "%s cannot be started: %s", name, s != NULL ? s : "no reason given");
    } else {
        (void)work();
        rc = a->stop(set, v);
        double ratio = (double)v[0] / events_tried[e].expected;
        if (rc != API_OK)
            snprintf(why, n, "%s cannot be stopped", name);
        else if (v[0] <= 0)
            snprintf(why, n, "%s counted %lld", name, v[0]);
        else if (ratio < 0.1 || ratio > 10)
            snprintf(why, n, "%s counted %lld where about %.0f are due", name, v[0],
                     events_tried[e].expected);
        else
            why[0] = '\0';
    }
    (void)a->remove_event(set, code);
}

struct papi_ctx {
    const char *library;
};

static void *open_library(const char *library)
{
    static const char *const names[] = {"libpapi.so.7.0", "libpapi.so.7", "libpapi.so.7.1",
                                        "libpapi.so.6.0", "libpapi.so"};
    if (library != NULL)
        return dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *lib = NULL;
    for (size_t i = 0; lib == NULL && i < sizeof names / sizeof *names; i++)
        lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return lib;
}

static int papi_child(void *vctx, struct m_out *o)
{
    struct papi_ctx *c = vctx;
    struct api a;
    int set = API_NULL, version = -1;
    char why[200];
    void *lib = open_library(c->library);
    if (lib == NULL)
        return m_fail(o, "library not found");
    if (!find_all(lib, &a))
        return m_fail(o, "the library lacks functions of the PAPI interface");
    /* init returns its own version when it refuses ours: ask for any, newest first */
    for (int major = 9; major >= 5 && version <= 0; major--)
        for (int minor = 9; minor >= 0 && version <= 0; minor--) {
            int want = major << 24 | minor << 16, got = a.library_init(want);
            if (got == want)
                version = got;
        }
    if (version <= 0)
        return m_fail(o, "PAPI_library_init refuses every known version");
    snprintf(why, sizeof why, "%d.%d", version >> 24 & 0xff, version >> 16 & 0xff);
    m_note(o, 1000, version, why);
    if (a.create_eventset(&set) != API_OK)
        return m_fail(o, "no event set can be made");
    for (size_t e = 0; e < N_EVENTS; e++) {
        try_event(&a, set, e, why, sizeof why);
        if (why[0] == '\0')
            m_sample(o, (uint32_t)e, 1, M_CLEAN);
        else
            m_note(o, (uint32_t)e, 0, why);
    }
    return 0;
}

kt_status papi_test(const char *library, double seconds, json_t *events, char version[32],
                    char reason[160], kt_err *err)
{
    struct papi_ctx c = {library};
    struct m_result res;
    version[0] = reason[0] = '\0';
    KT_TRY(m_run(papi_child, &c, seconds, &res, err));
    if (res.end != M_DONE)
        m_reason(&res, reason, 160);
    for (size_t i = 0; i < res.n; i++) {
        const struct m_record *rec = &res.records[i];
        if (rec->kind == M_NOTE && rec->point == 1000)
            snprintf(version, 32, "%.31s", rec->text);
        else if (rec->kind == M_NOTE && reason[0] == '\0')
            snprintf(reason, 160, "%s", rec->text);
        else if (rec->kind == M_SAMPLE && rec->point < N_EVENTS && res.end == M_DONE)
            json_array_append_new(events, json_string(events_tried[rec->point].name));
    }
    if (json_array_size(events) > 0)
        reason[0] = '\0';
    else if (reason[0] == '\0')
        snprintf(reason, 160, "no event counted");
    m_result_free(&res);
    return KT_OK;
}

kt_status probe_papi(struct probe_run *r, const char *library, kt_err *err)
{
    json_t *events = json_array(), *papi = json_object(), *counters = json_object();
    char version[32] = "", reason[160] = "";
    kt_status st = KT_OK;
    probe_progress(r, "hardware counters", 0);
#if defined(KT_PAPI)
    double left = probe_time_left(r);
    st = papi_test(library, left < 3 ? left : 3, events, version, reason, err);
#else
    (void)library;
    snprintf(reason, sizeof reason, "built without PAPI (configure --with-papi)");
#endif
    bool ok = json_array_size(events) > 0;
    json_object_set_new(papi, "status", json_string(ok ? "ok" : "unsupported"));
    if (!ok)
        json_object_set_new(papi, "reason", json_string(reason));
    json_object_set_new(papi, "events", events);
    json_object_set_new(counters, "papi", papi);
    json_object_set_new(r->p->root, "counters", counters);
    if (version[0] != '\0')
        json_object_set_new(json_object_get(r->p->root, "tool"), "papi", json_string(version));
    if (st == KT_OK && !ok)
        st = profile_warn(
            r->p, "KT020", "info", "counters.papi",
            "lower /proc/sys/kernel/perf_event_paranoid to 2; virtual machines often have none",
            reason, err);
    return st;
}
