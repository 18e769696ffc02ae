/* safetensors.h - reader of safetensors files: one file, or a checkpoint directory with or without
 * an index (weight-formats section 5). Maps the files, checks every rule, decodes nothing.
 * Immutable after opening; names and data belong to the reader until st_close. Any thread may read.
 */
#ifndef KT_SAFETENSORS_H
#define KT_SAFETENSORS_H

#include <stdbool.h>

#include "model/model.h"

struct st;
struct file_map; /* base/file.h */

kt_status st_open_file(const char *path, struct st **out, kt_err *err);
/* Files of model.safetensors.index.json if there is one, else model.safetensors, else every
 * *.safetensors of the directory. KT_E_NOT_FOUND when the directory has none. */
kt_status st_open_dir(const char *dir, struct st **out, kt_err *err);
void st_close(struct st *s);
uint32_t st_file_count(const struct st *s);
const struct file_map *st_map(const struct st *s, uint32_t i);
/* All tensors, file after file, in the order of their data. */
const struct mdl_tensor *st_tensors(const struct st *s, uint32_t *n);
/* NULL when absent. */
const struct mdl_tensor *st_find(const struct st *s, const char *name);
/* Is there any *.safetensors file? */
bool st_dir_has_any(const char *dir);

#endif
