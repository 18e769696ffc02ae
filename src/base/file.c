/* file.c - see file.h. */
#define _GNU_SOURCE /* O_TMPFILE */
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
    return 0;
}

/* The directory that path is in; false when its name is too long. */
static bool dir_of(const char *path, char *dir, size_t size)
{
    const char *slash = strrchr(path, '/');
    int n = slash == NULL
                ? snprintf(dir, size, ".")
                : snprintf(dir, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return n > 0 && (size_t)n < size;
}

void file_sync_dir_of(const char *path)
{
    char dir[4096];
    if (!dir_of(path, dir, sizeof dir))
        return;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

/* An open file without a name in the directory of path; -1 where that is not to be had. */
static int open_nameless(const char *path)
{
    char dir[4096];
    if (access("/proc/self/fd", X_OK) != 0 || !dir_of(path, dir, sizeof dir))
        return -1;
    return open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
}

kt_status file_new_open(struct file_new *f, const char *path, kt_err *err)
{
    struct stat st;
    size_t n = strlen(path) + 32;
    *f = (struct file_new){.fd = -1, .path = mem_strdup(path), .tmp = mem_alloc(n)};
    if (f->path == NULL || f->tmp == NULL) {
        file_new_close(f);
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    }
    snprintf(f->tmp, n, "%s.tmp.%ld", path, (long)getpid());
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        file_new_close(f);
        KT_FAIL(err, KT_E_IO, "%s: is a directory; give the name of a file", path);
    }
    f->fd = open_nameless(path);
    if (f->fd < 0) {
        f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        f->named = f->fd >= 0;
    }
    if (f->fd < 0) {
        int e = errno;
        file_new_close(f);
        errno = e;
        KT_FAIL_OS(err, KT_E_IO, "%s: cannot create: %s%s", path, strerror(e),
                   e == ENOENT ? "; make the directory first" : "");
    }
    return KT_OK;
}

/* Give the file its temporary name. */
static int name_it(struct file_new *f)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
    unlink(f->tmp); /* of a dead process that had our number */
    if (linkat(AT_FDCWD, self, AT_FDCWD, f->tmp, AT_SYMLINK_FOLLOW) != 0)
        return -1;
    f->named = true;
    return 0;
}

kt_status file_new_commit(struct file_new *f, kt_err *err)
{
    if (fsync(f->fd) != 0 || (!f->named && name_it(f) != 0) || rename(f->tmp, f->path) != 0)
        KT_FAIL_OS(err, KT_E_IO, "%s: cannot finish the file: %s", f->path, strerror(errno));
    f->named = false;
    file_sync_dir_of(f->path);
    return KT_OK;
}

void file_new_close(struct file_new *f)
{
    if (f->fd >= 0)
        close(f->fd);
    if (f->named)
        unlink(f->tmp);
    mem_free(f->path);
    mem_free(f->tmp);
    *f = (struct file_new){.fd = -1};
}

kt_status file_write_atomic(const char *path, const char *data, size_t len, kt_err *err)
{
    struct file_new f;
    KT_TRY(file_new_open(&f, path, err));
    kt_status st = KT_OK;
    if (write_all(f.fd, data, len) != 0)
        st = err_set(err, KT_E_IO, errno, __func__, "%s: cannot write: %s", path, strerror(errno));
    else
        st = file_new_commit(&f, err);
    file_new_close(&f);
    return st;
}
