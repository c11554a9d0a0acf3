/* hf_impl.h - what the files that read a Hugging Face directory share. */
#ifndef NM_MODEL_HF_IMPL_H
#define NM_MODEL_HF_IMPL_H

#include "model/hf.h"
#include "model/model.h"

/* Keys that are the same number under two names; the second follows "ARCH.". */
struct nm__hf_key { const char *hf, *gguf; bool is_float; };
extern const struct nm__hf_key nm__hf_plain[];                 /* ends with a NULL name */
struct nm__hf_spelling { const char *one, *other, *families; };
extern const struct nm__hf_spelling nm__hf_spellings[];        /* ends with a NULL name */
/* Whether the config class of the family has such a key. */
bool nm__hf_family_has(const struct nm__hf_family *f, const char *key);

/* A config.json while it becomes keys: `c` holds the family's defaults under what the file says,
 * all under one spelling of the names. */
struct nm__conf {
  const char *name;                /* of the file, for messages */
  json_t *c;
  struct nm__gguf *g;
  const struct nm__hf_family *f;
  nm_err *err;
};

/* NULL also where the key is null, which is how configs say "none". */
json_t *nm__conf_get(const struct nm__conf *c, const char *key);
/* False where it is absent; a value that is no such number is kept as the status in *st. */
bool nm__conf_number(const struct nm__conf *c, const char *key, double *out, int *st);
bool nm__conf_uint(const struct nm__conf *c, const char *key, uint32_t *out, int *st);
int nm__conf_put_u32(const struct nm__conf *c, const char *gguf, uint32_t v);   /* under "ARCH." */
int nm__conf_put_f32(const struct nm__conf *c, const char *gguf, double v);
int nm__conf_refuse(const struct nm__conf *c, const char *key, const char *why);
/* hf_rope.c: bases, scalings, rotated dimensions. */
int nm__conf_rope(const struct nm__conf *c);

/* The weights of a directory, in one file or several (hf_files.c). */
struct nm__hf_files { struct nm__st **v; size_t n; };
int nm__hf_files_open(const char *dir, struct nm__hf_files *out, nm_err *err);
int nm__hf_files_of(const char *path, struct nm__hf_files *out, nm_err *err);   /* as nm__hf_map */
void nm__hf_files_done(struct nm__hf_files *s);

#endif
