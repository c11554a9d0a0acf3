/* plan.h - a request made concrete: which sites are tapped and edited, how far the
 * forward must go, and how the sequences fall into groups. Inside src/model only. */
#ifndef NM_MODEL_PLAN_H
#define NM_MODEL_PLAN_H

#include "model/model.h"

struct nm__plan_tap { struct nm__sel sel; int tap; };          /* tap: index into the request */
struct nm__plan_edit { struct nm__sel sel; int edit, row; };   /* row: which of the edit's sites */

/* Sequences first .. first+n-1 run together; each has `cap` cache slots of its own. */
struct nm__group { size_t first, n; };

struct nm__plan {
  struct nm__at *at;               /* one per tap of the request */
  int n_taps;
  struct nm__plan_tap *taps; int n_tap_sels;
  struct nm__plan_edit *edits; int n_edit_sels;
  uint8_t *wants;                  /* [NM__N_SITES][L + 1]: anything at this site and layer */
  int last_layer;
  bool stop_before_mlp, head, head_rows, per_key;
  int prefix;                      /* shared positions computed once */
  struct nm__group *groups; size_t n_groups;
  int max_T, max_keys;             /* the largest forward */
  int64_t max_slots;               /* cache slots of the largest group, prefix included */
  uint64_t n_positions;            /* to compute in all, for progress */
  bool half_k, half_v;             /* the cache is kept in F16 */
};

int nm__plan_make(const nm_model *m, const nm_request *r, int n_ctx, int chunk, int batch,
                  struct nm__plan *p, nm_err *err);
void nm__plan_done(struct nm__plan *p);
static inline bool nm__plan_wants(const struct nm__plan *p, const nm_model *m, int site,
                                  int layer) {
  return p->wants[(size_t)site * ((size_t)m->L + 1) + (size_t)(layer + 1)];
}

#endif
