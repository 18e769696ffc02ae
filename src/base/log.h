/* log.h - log lines for whoever runs the library: formatted here, written by the program's sink
 * (kt_log_sink). Any thread. A line has no newline and no time stamp; the sink adds what it wants.
 * Lines above 1023 bytes are cut.
 */
#ifndef KT_BASE_LOG_H
#define KT_BASE_LOG_H

#include "kt.h"

void log_line(kt_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(KT_LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(KT_LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(KT_LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(KT_LOG_ERROR, __VA_ARGS__)

#endif
