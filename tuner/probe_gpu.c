/* probe_gpu.c - GPUs: PCI facts come from src/host; here the run-time loader of the CUDA plugin is
 * tried in a child and says why there is none. The parent never touches CUDA: a context does not
 * survive fork, and a hung driver must cost one child only. A plugin is a shared object
 * "kt_cuda.so" that exports kt_cuda_plugin_abi(); it is looked for in $KT_CUDA_PLUGIN, then in the
 * library directory.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "probe.h"

#define PLUGIN_ABI 1

static void tidy(const char *from, char *to, size_t n)
{
    snprintf(to, n, "%s", from != NULL ? from : "unknown error");
    for (char *p = to; *p; p++)
        if ((unsigned char)*p < 0x20)
            *p = ' ';
}

void gpu_loader_reason(const char *plugin, char *reason, size_t n)
{
    char why[160];
    const char *env = getenv("KT_CUDA_PLUGIN");
    if (plugin == NULL)
        plugin = env != NULL && *env != '\0' ? env : KT_PLUGIN_DIR "/kt_cuda.so";
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == NULL) {
        tidy(dlerror(), why, sizeof why);
        snprintf(reason, n, "no NVIDIA driver: %s", why);
        return;
    }
    void *p = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
    if (p == NULL) {
        tidy(dlerror(), why, sizeof why);
        snprintf(reason, n, "the driver is there, but no CUDA plugin: %s", why);
    } else {
        int (*abi)(void);
        *(void **)&abi = dlsym(p, "kt_cuda_plugin_abi");
        if (abi == NULL || abi() != PLUGIN_ABI)
            snprintf(reason, n, "%s: is not a CUDA plugin of this version", plugin);
        else
            reason[0] = '\0';
        dlclose(p);
    }
    dlclose(driver);
}

static int loader_child(void *ctx, struct m_out *o)
{
    char reason[104];
    (void)ctx;
    gpu_loader_reason(NULL, reason, sizeof reason);
    return reason[0] != '\0' ? m_fail(o, reason) : 0;
}

kt_status probe_gpu(struct probe_run *r, kt_err *err)
{
    struct m_desc d = {.id = "gpu.props", .what = "CUDA devices through the plugin"};
    struct m_result res;
    uint32_t cuda = 0;
    char reason[200], text[160];
    if (!probe_wanted(r, "gpu.props"))
        return KT_OK;
    probe_progress(r, "GPU loader", 0);
    for (uint32_t i = 0; i < r->h->n_gpus; i++)
        cuda += r->h->gpus[i].cuda;
    KT_TRY(m_run(loader_child, NULL, probe_time_left(r) < 5 ? probe_time_left(r) : 5, &res, err));
    if (res.end == M_DONE)
        snprintf(reason, sizeof reason,
                 "the CUDA plugin loads, but it has no measurements in this version");
    else
        snprintf(reason, sizeof reason, "%s; %u NVIDIA GPU%s in PCI",
                 m_reason(&res, text, sizeof text), cuda, cuda == 1 ? "" : "s");
    const char *status = res.end == M_TIMEOUT || res.end == M_SIGNAL ? "failed" : "unsupported";
    m_result_free(&res);
    return probe_put(r, m_json_none(&d, status, reason), err);
}
