/* log.c - the one process-wide sink of log lines. It is set once at start, before other threads
 * exist, and only read after. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static void (*sink_fn)(void *, kt_log_level, const char *);
static void *sink_user;

void kt_log_sink(void (*fn)(void *user, kt_log_level level, const char *line), void *user)
{
    sink_fn = fn;
    sink_user = user;
}

void log_line(kt_log_level level, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    if (sink_fn == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    sink_fn(sink_user, level, line);
}
