/* status.c - error records and the names of status codes. Any thread; no heap. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "config.h"

kt_status err_set(kt_err *err, kt_status code, int os_errno, const char *where, const char *fmt,
                  ...)
{
    if (err != NULL) {
        va_list ap;
        err->code = code;
        err->os_errno = os_errno;
        err->where = where;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

const char *kt_status_name(kt_status s)
{
    static const char *const name[] = {"ok",        "invalid", "io",      "format",  "unsupported",
                                       "no memory", "limit",   "kv full", "numeric", "device",
                                       "not found", "stale",   "timeout", "internal"};
    int i = -(int)s;
    return i >= 0 && i < (int)(sizeof name / sizeof name[0]) ? name[i] : "unknown";
}

const char *kt_version(void)
{
    return PACKAGE_VERSION;
}
