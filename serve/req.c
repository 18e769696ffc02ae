/* req.c - memory of requests and the texts of refusals. Pure; any thread. */
#include "serve/req.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

const char *kts_error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 500:
        return "server_error";
    case 501:
        return "not_supported_error";
    case 503:
        return "unavailable_error";
    default:
        return "invalid_request_error";
    }
}

int kts_fail_set(struct kts_fail *f, int status, const char *code, const char *param,
                 const char *fmt, ...)
{
    va_list ap;
    memset(f, 0, sizeof *f);
    f->status = status;
    f->type = kts_error_type(status);
    f->code = code;
    snprintf(f->param, sizeof f->param, "%s", param == NULL ? "" : param);
    va_start(ap, fmt);
    vsnprintf(f->msg, sizeof f->msg, fmt, ap);
    va_end(ap);
    return -1;
}

void *kts_req_alloc(struct kts_req *r, size_t n, size_t size)
{
    if (r->n_owned == r->cap_owned) {
        uint32_t cap = r->cap_owned ? r->cap_owned * 2 : 8;
        void **more = mem_realloc(r->owned, cap * sizeof *more);
        if (more == NULL)
            return NULL;
        r->owned = more;
        r->cap_owned = cap;
    }
    void *p = mem_calloc(n > 0 ? n : 1, size);
    if (p != NULL)
        r->owned[r->n_owned++] = p;
    return p;
}

void kts_req_free(struct kts_req *r)
{
    for (uint32_t i = 0; i < r->n_owned; i++)
        mem_free(r->owned[i]);
    mem_free(r->owned);
    json_decref(r->root);
    memset(r, 0, sizeof *r);
}
