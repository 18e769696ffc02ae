/* file.h - whole files: read-only mappings, bounded reads, and writes that are either complete or
 * absent. A mapping belongs to the caller until file_unmap. Any thread.
 */
#ifndef KT_BASE_FILE_H
#define KT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    uint64_t bytes;
    int64_t mtime_ns;
    uint64_t device, inode; /* of the file that was mapped: its path may later name another */
    char *path;             /* as given */
};

/* Map a regular file read-only. KT_E_IO names path and reason; directories and FIFOs are KT_E_IO
 * too. */
kt_status file_map(const char *path, struct file_map *out, kt_err *err);
void file_unmap(struct file_map *m);

/* Read a whole file of at most max_bytes into a NUL-terminated block (mem_free it). KT_E_NOT_FOUND
 * when it does not exist, KT_E_LIMIT when larger. */
kt_status file_read(const char *path, uint64_t max_bytes, char **data, size_t *len, kt_err *err);

/* A file in the making: others see nothing of it until file_new_commit, and what was at PATH stays
 * until then. Where the file system can (O_TMPFILE) it has no name before, so that nothing is left
 * behind even by a process that is killed; elsewhere it is a temp file beside PATH. Mode 0644. */
struct file_new {
    char *path, *tmp; /* as given; the name before the rename */
    int fd;           /* write here; -1: none */
    bool named;       /* tmp exists */
};

/* KT_E_IO names path and reason, also for a path that is a directory. */
kt_status file_new_open(struct file_new *f, const char *path, kt_err *err);
/* fsync, rename over PATH, fsync of the directory. After an error: file_new_close. */
kt_status file_new_commit(struct file_new *f, kt_err *err);
/* Without a commit the file is gone. Takes any state that file_new_open left, and zeroes with fd
 * -1.
 */
void file_new_close(struct file_new *f);

/* All of that for bytes that are there: readers see the old file or the new one. */
kt_status file_write_atomic(const char *path, const char *data, size_t len, kt_err *err);

/* fsync the directory of a path, so that a rename survives a crash. Best effort: some file systems
 * refuse it. */
void file_sync_dir_of(const char *path);

#endif
