/* series.h - the models a training run left behind, by step: DIR/checkpoints/step-000200.gguf. */
#ifndef NM_MODEL_SERIES_H
#define NM_MODEL_SERIES_H

#include "core/core.h"

#define NM__SERIES_FOLDER "checkpoints"

/* "DIR/checkpoints/step-000200.END" in a fresh string; NULL without memory. */
char *nm__series_file(const char *dir, int64_t step, const char *end);

/* Steps of which a file "step-N.END" is there, rising; files of other names do not count.
 * No folder: none. The caller frees *steps. */
int nm__series_list(const char *dir, const char *end, int64_t **steps, size_t *n, nm_err *err);

/* DIR@200, DIR@latest: the path of that model in a fresh string. Any other path, and one that is
 * a file or folder itself, gives NULL. A step that is not there is NM_EFORMAT; the sentence lists
 * those that are. */
int nm__series_path(const char *path, char **out, nm_err *err);

#endif
