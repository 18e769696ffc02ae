/* status.h - how errors travel: fill kt_err once at the origin, return the code upward.
 * The types live in kt.h (its first section); this is the only header outside the engine and the
 * programs that includes it. Any thread; no heap, no globals.
 */
#ifndef KT_BASE_STATUS_H
#define KT_BASE_STATUS_H

#include "kt.h"

/* Fill *err (may be NULL) and return code. printf-style; the message says what, where and the
 * remedy. */
kt_status err_set(kt_err *err, kt_status code, int os_errno, const char *where, const char *fmt,
                  ...) __attribute__((format(printf, 5, 6)));

#define KT_FAIL(err, code, ...) return err_set((err), (code), 0, __func__, __VA_ARGS__)
/* The same with errno kept; the message should end in "%s", strerror(errno). */
#define KT_FAIL_OS(err, code, ...) return err_set((err), (code), errno, __func__, __VA_ARGS__)
#define KT_TRY(expr)                                                                               \
    do {                                                                                           \
        kt_status kt_try_ = (expr);                                                                \
        if (kt_try_ != KT_OK)                                                                      \
            return kt_try_;                                                                        \
    } while (0)

#endif
