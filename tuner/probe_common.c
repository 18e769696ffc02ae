/* probe_common.c - what all stages share: time, wanted ids, buffers, CPUs, entries. See probe.h. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/place.h"
#include "probe.h"

double probe_time_left(const struct probe_run *r)
{
    uint64_t now = clock_ns();
    return now >= r->deadline_ns ? 0 : (double)(r->deadline_ns - now) * 1e-9;
}

bool probe_wanted(const struct probe_run *r, const char *id)
{
    return r->only == NULL || profile_affects(r->only, id);
}

void probe_progress(const struct probe_run *r, const char *what, double done)
{
    if (r->progress != NULL)
        r->progress(r->progress_ctx, what, done);
}

uint64_t probe_buffer_bytes(const struct probe_run *r, bool *capped)
{
    uint64_t want = r->cache_bytes > 0 ? 4 * r->cache_bytes : (uint64_t)256 << 20;
    if (want < (uint64_t)64 << 20)
        want = (uint64_t)64 << 20;
    *capped = want > r->memory_bytes;
    return *capped ? r->memory_bytes : want;
}

char *probe_cpu_list(const struct plan_pool *pool, uint32_t n)
{
    struct host_set s = {0};
    for (uint32_t i = 0; i < n && i < pool->n_cpus; i++)
        if (!host_set_add(&s, (uint32_t)pool->cpus[i]))
            break;
    char *text = host_set_format(&s);
    host_set_free(&s);
    return text;
}

kt_status probe_put(struct probe_run *r, json_t *v, kt_err *err)
{
    const char *reason = json_string_value(json_object_get(v, "reason"));
    if (v == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a measurement");
    if (!probe_wanted(r, json_string_value(json_object_get(v, "id")))) {
        json_decref(v); /* timed with its neighbours, but not asked for */
        return KT_OK;
    }
    bool failed = strcmp(json_string_value(json_object_get(v, "status")), "failed") == 0;
    if (failed && reason != NULL &&
        (strncmp(reason, "killed after", 12) == 0 ||
         strncmp(reason, "no time was left", 16) == 0)) {
        r->n_missing++;
        if (reason[0] == 'k') {
            char about[64]; /* one warning per kind of probe */
            snprintf(about, sizeof about, "%.63s", json_string_value(json_object_get(v, "id")));
            about[strcspn(about, ":")] = '\0';
            KT_TRY(profile_warn(r->p, "KT031", "warning", about,
                                "repeat on an idle machine or with more time",
                                "a probe did not end in its time and was killed", err));
        }
    }
    json_object_set_new(r->fresh, json_string_value(json_object_get(v, "id")), json_true());
    return profile_put_measurement(r->p, v, err);
}

bool probe_bind(void *p, uint64_t bytes, const int32_t *nodes, uint32_t n)
{
    return n > 0 && place_memory(p, bytes, PLACE_BIND, nodes, n) == 0;
}
