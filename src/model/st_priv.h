/* st_priv.h - what safetensors.c (files of a checkpoint, rules over all of them) and st_header.c
 * (the header of one file) share. */
#ifndef KT_ST_PRIV_H
#define KT_ST_PRIV_H

#include "base/file.h"
#include "model/safetensors.h"

struct st_file {
    struct file_map map;
    char *names; /* all tensor names, NUL-terminated, one after another */
};

struct st {
    struct st_file *file;
    uint32_t n_files, cap_files;
    struct mdl_tensor *t;
    uint32_t n_t, cap_t;
    const struct mdl_tensor **by_name; /* [n_t], sorted */
};

/* Read the header of s->file[i], which is mapped, and append its tensors in data order; tensor data
 * is contiguous and fills the file. */
kt_status st_read_header(struct st *s, uint32_t i, kt_err *err);

#endif
