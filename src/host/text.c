/* text.c - small text files below a root: the one way in which this room reads procfs, sysfs and
 * cgroup files. A missing or unreadable file is an ordinary answer (NULL or false): what the source
 * does not say stays unknown. See host_int.h. Never follows a path out of a stored tree by "..":
 * paths come from our own format strings and from cgroup names that limits.c checks.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "host/host_int.h"

#define TEXT_MAX (4u << 20) /* /proc/cpuinfo of 1000 CPUs is 1.5 MB */

static bool text_path(char *out, size_t cap, const char *root, const char *fmt, va_list ap)
    __attribute__((format(printf, 4, 0)));
static bool text_path(char *out, size_t cap, const char *root, const char *fmt, va_list ap)
{
    int n = root == NULL ? -1 : snprintf(out, cap, "%s/", root);
    if (n < 0 || (size_t)n >= cap)
        return false;
    int m = vsnprintf(out + n, cap - (size_t)n, fmt, ap);
    return m >= 0 && (size_t)m < cap - (size_t)n;
}

char *host_text(const char *root, const char *fmt, ...)
{
    char path[4096], *data = NULL;
    size_t len = 0;
    va_list ap;
    va_start(ap, fmt);
    bool ok = text_path(path, sizeof path, root, fmt, ap);
    va_end(ap);
    if (!ok || file_read(path, TEXT_MAX, &data, &len, NULL) != KT_OK)
        return NULL;
    while (len > 0 && isspace((unsigned char)data[len - 1]))
        data[--len] = '\0';
    return data;
}

bool host_number(const char *root, uint64_t *v, const char *fmt, ...)
{
    char path[4096], *data = NULL, *end = NULL;
    va_list ap;
    va_start(ap, fmt);
    bool ok = text_path(path, sizeof path, root, fmt, ap);
    va_end(ap);
    if (!ok || file_read(path, 4096, &data, NULL, NULL) != KT_OK)
        return false;
    errno = 0;
    ok = isdigit((unsigned char)data[0]) != 0;
    unsigned long long x =
        ok ? strtoull(data, &end, data[0] == '0' && data[1] == 'x' ? 16 : 10) : 0;
    ok = ok && errno == 0 && (*end == '\0' || isspace((unsigned char)*end));
    if (ok)
        *v = x;
    mem_free(data);
    return ok;
}

bool host_is_dir(const char *root, const char *fmt, ...)
{
    char path[4096];
    struct stat st;
    va_list ap;
    va_start(ap, fmt);
    bool ok = text_path(path, sizeof path, root, fmt, ap);
    va_end(ap);
    return ok && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *host_line_value(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = text; p != NULL && *p != '\0';
         p = strchr(p, '\n'), p = p == NULL ? NULL : p + 1) {
        if (strncmp(p, key, n) != 0 || (p[n] != ':' && p[n] != ' ' && p[n] != '\t'))
            continue;
        p += n;
        while (*p == ':' || *p == ' ' || *p == '\t')
            p++;
        size_t len = strcspn(p, "\n");
        while (len > 0 && isspace((unsigned char)p[len - 1]))
            len--;
        return mem_strndup(p, len);
    }
    return NULL;
}
