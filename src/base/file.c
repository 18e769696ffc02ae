/* file.c - see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

kt_status file_map(const char *path, struct file_map *out, kt_err *err)
{
    struct stat st;
    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        KT_FAIL_OS(err, errno == ENOENT ? KT_E_NOT_FOUND : KT_E_IO, "%s: cannot open: %s", path,
                   strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        KT_FAIL(err, KT_E_IO, "%s: is not a regular file; give a model file or directory", path);
    }
    out->path = mem_strdup(path);
    if (out->path == NULL) {
        close(fd);
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    }
    out->bytes = (uint64_t)st.st_size;
    out->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    out->device = (uint64_t)st.st_dev;
    out->inode = (uint64_t)st.st_ino;
    if (out->bytes > 0) {
        void *p = mmap(NULL, (size_t)out->bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            int e = errno;
            close(fd);
            file_unmap(out);
            errno = e;
            KT_FAIL_OS(err, KT_E_IO, "%s: cannot map: %s", path, strerror(e));
        }
        out->data = p;
    }
    close(fd);
    return KT_OK;
}

void file_unmap(struct file_map *m)
{
    if (m->data != NULL)
        munmap((void *)(uintptr_t)m->data, (size_t)m->bytes);
    mem_free(m->path);
    memset(m, 0, sizeof *m);
}

kt_status file_read(const char *path, uint64_t max_bytes, char **data, size_t *len, kt_err *err)
{
    size_t n = 0, cap = 4096;
    *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        KT_FAIL_OS(err, errno == ENOENT ? KT_E_NOT_FOUND : KT_E_IO, "%s: cannot open: %s", path,
                   strerror(errno));
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= max_bytes &&
        st.st_size > 0)
        cap = (size_t)st.st_size + 1;
    char *p = mem_alloc(cap + 1);
    for (;;) {
        if (p == NULL) {
            close(fd);
            KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
        }
        ssize_t got = read(fd, p + n, cap - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int e = errno;
            mem_free(p);
            close(fd);
            errno = e;
            KT_FAIL_OS(err, KT_E_IO, "%s: cannot read: %s", path, strerror(e));
        }
        n += (size_t)got;
        if (n > max_bytes) {
            mem_free(p);
            close(fd);
            KT_FAIL(err, KT_E_LIMIT, "%s: larger than the %llu bytes allowed for this kind of file",
                    path, (unsigned long long)max_bytes);
        }
        if (got == 0)
            break;
        if (n == cap) {
            cap *= 2;
            char *q = mem_realloc(p, cap + 1);
            if (q == NULL)
                mem_free(p);
            p = q;
        }
    }
    close(fd);
    p[n] = '\0';
    *data = p;
    if (len != NULL)
        *len = n;
    return KT_OK;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return fsync(fd);
}

void file_sync_dir_of(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(dir, sizeof dir, ".");
    else
        snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

kt_status file_write_atomic(const char *path, const char *data, size_t len, kt_err *err)
{
    char tmp[4096];
    if (snprintf(tmp, sizeof tmp, "%s.tmp.%ld", path, (long)getpid()) >= (int)sizeof tmp)
        KT_FAIL(err, KT_E_INVALID, "%s: path is too long", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        KT_FAIL_OS(err, KT_E_IO, "%s: cannot create: %s", tmp, strerror(errno));
    int bad = write_all(fd, data, len);
    int e = errno;
    if (close(fd) != 0 && bad == 0) {
        bad = -1;
        e = errno;
    }
    if (bad == 0 && rename(tmp, path) != 0) {
        bad = -1;
        e = errno;
    }
    if (bad != 0) {
        unlink(tmp);
        errno = e;
        KT_FAIL_OS(err, KT_E_IO, "%s: cannot write: %s", path, strerror(e));
    }
    file_sync_dir_of(path);
    return KT_OK;
}
