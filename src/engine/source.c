/* source.c - see source.h. One descriptor per file, opened beside the mapping that the model keeps
 * and compared with it, because a path may have been given to another file since. All readers share
 * it: together they read it in order, so the system's own reading ahead works. It beat explicit
 * windows (WILLNEED, RWF_NOWAIT), direct I/O and a descriptor for each reader.
 */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

struct source_file {
    struct mdl_file f;
    int fd;
};

struct source {
    struct source_file *file; /* by address of the mapping, ascending */
    uint32_t n;
    bool drop;
};

static kt_status open_file(struct source_file *s, kt_err *err)
{
    struct stat st;
    s->fd = open(s->f.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0)
        KT_FAIL_OS(err, KT_E_IO,
                   "%s: cannot open it again to load its weights: %s; leave the model's files in "
                   "place until they are loaded, and allow enough open files (ulimit -n)",
                   s->f.path, strerror(errno));
    if (fstat(s->fd, &st) != 0 || (uint64_t)st.st_dev != s->f.device ||
        (uint64_t)st.st_ino != s->f.inode || (uint64_t)st.st_size != s->f.bytes)
        KT_FAIL(err, KT_E_IO, "%s: was replaced while the model was being opened; start again",
                s->f.path);
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* twice the reading ahead */
    return KT_OK;
}

kt_status source_open(const struct mdl *m, bool drop, struct source **out, kt_err *err)
{
    kt_status st = KT_OK;
    struct source *s = mem_calloc(1, sizeof *s);
    uint32_t n = mdl_file_count(m);
    *out = NULL;
    if (s != NULL)
        s->file = mem_calloc(n, sizeof *s->file);
    if (s == NULL || s->file == NULL) {
        source_close(s);
        KT_FAIL(err, KT_E_NOMEM, "no memory for a list of %u model files", n);
    }
    s->drop = drop;
    for (uint32_t i = 0; st == KT_OK && i < n; i++) {
        struct mdl_file f;
        uint32_t at = s->n++;
        mdl_file_at(m, i, &f);
        for (; at > 0 && s->file[at - 1].f.data > f.data; at--)
            s->file[at] = s->file[at - 1];
        s->file[at].f = f;
        st = open_file(&s->file[at], err);
    }
    if (st != KT_OK) {
        source_close(s);
        return st;
    }
    *out = s;
    return KT_OK;
}

void source_close(struct source *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->file[i].fd >= 0)
            close(s->file[i].fd);
    mem_free(s->file);
    mem_free(s);
}

uint64_t source_bytes(const struct mdl *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0, n = mdl_file_count(m); i < n; i++) {
        struct mdl_file f;
        mdl_file_at(m, i, &f);
        sum += f.bytes;
    }
    return sum;
}

static struct source_file *find(struct source *s, const uint8_t *at)
{
    uint32_t lo = 0, hi = s->n;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->file[mid].f.data <= at)
            lo = mid;
        else
            hi = mid;
    }
    return &s->file[lo];
}

kt_status source_read(struct source *s, const uint8_t *at, uint64_t bytes, uint8_t *dst,
                      kt_err *err)
{
    struct source_file *f = find(s, at);
    uint64_t off = (uint64_t)(at - f->f.data), done = 0;
    while (done < bytes) {
        ssize_t got = pread(f->fd, dst + done, (size_t)(bytes - done), (off_t)(off + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            KT_FAIL_OS(err, KT_E_IO,
                       "%s: cannot read at byte %llu: %s; check the disk and copy "
                       "the file again",
                       f->f.path, (unsigned long long)(off + done), strerror(errno));
        if (got == 0)
            KT_FAIL(err, KT_E_IO,
                    "%s: ends at byte %llu, it had %llu bytes when it was opened; leave the "
                    "model's files alone while they are loaded",
                    f->f.path, (unsigned long long)(off + done), (unsigned long long)f->f.bytes);
        done += (uint64_t)got;
    }
    if (s->drop)
        (void)posix_fadvise(f->fd, (off_t)off, (off_t)bytes, POSIX_FADV_DONTNEED);
    return KT_OK;
}
