/* sites.c - the names of all intermediates, and globs over them.
 *
 * A site's row says its name inside the block, whether there is one per layer, the
 * width of its row, and what an index in brackets counts. docs/sites.md draws them. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum width { W_D, W_Q, W_KV, W_F, W_V, W_KEYS, W_ONE, W_EXPERTS, W_EXPERTS_F, W_SHARED_F };

struct site_row { const char *name; bool per_layer; enum width width; };

static const struct site_row table[NM__N_SITES] = {
    [NM__S_EMBED_RAW] = {"embed_raw", false, W_D},
    [NM__S_EMBED] = {"embed", false, W_D},
    [NM__S_RESID_PRE] = {"resid_pre", true, W_D},
    [NM__S_ATTN_NORM] = {"attn_norm", true, W_D},
    [NM__S_Q_RAW] = {"attn.q_raw", true, W_Q},
    [NM__S_K_RAW] = {"attn.k_raw", true, W_KV},
    [NM__S_Q] = {"attn.q", true, W_Q},
    [NM__S_K] = {"attn.k", true, W_KV},
    [NM__S_V] = {"attn.v", true, W_KV},
    [NM__S_SCORES] = {"attn.scores", true, W_KEYS},
    [NM__S_PATTERN] = {"attn.pattern", true, W_KEYS},
    [NM__S_HEAD] = {"attn.head", true, W_Q},
    [NM__S_ATTN_RAW] = {"attn_raw", true, W_D},
    [NM__S_ATTN_OUT] = {"attn_out", true, W_D},
    [NM__S_RESID_MID_RAW] = {"resid_mid_raw", true, W_D},
    [NM__S_RESID_MID] = {"resid_mid", true, W_D},
    [NM__S_MLP_NORM] = {"mlp_norm", true, W_D},
    [NM__S_GATE] = {"mlp.gate", true, W_F},
    [NM__S_UP] = {"mlp.up", true, W_F},
    [NM__S_ACT] = {"mlp.act", true, W_F},
    [NM__S_ROUTER] = {"moe.router", true, W_EXPERTS},
    [NM__S_MOE_WEIGHTS] = {"moe.weights", true, W_EXPERTS},
    [NM__S_MOE_GATE] = {"moe.gate", true, W_EXPERTS_F},
    [NM__S_MOE_UP] = {"moe.up", true, W_EXPERTS_F},
    [NM__S_MOE_ACT] = {"moe.act", true, W_EXPERTS_F},
    [NM__S_SHARED_WEIGHT] = {"moe.shared.weight", true, W_ONE},
    [NM__S_SHARED_GATE] = {"moe.shared.gate", true, W_SHARED_F},
    [NM__S_SHARED_UP] = {"moe.shared.up", true, W_SHARED_F},
    [NM__S_SHARED_ACT] = {"moe.shared.act", true, W_SHARED_F},
    [NM__S_SHARED_OUT] = {"moe.shared.out", true, W_D},
    [NM__S_MLP_RAW] = {"mlp_raw", true, W_D},
    [NM__S_MLP_OUT] = {"mlp_out", true, W_D},
    [NM__S_RESID_POST_RAW] = {"resid_post_raw", true, W_D},
    [NM__S_RESID_POST] = {"resid_post", true, W_D},
    [NM__S_FINAL_NORM] = {"final_norm", false, W_D},
    [NM__S_LOGITS] = {"logits", false, W_V},
};

/* TransformerLens names, only where the values are equal. (Its ln*.hook_normalized comes
 * before the norm's weight and so has no alias.) Its encoders (BertBlock) name the sums before
 * the norm hook_resid_mid and hook_resid_post: such names go by what the model is. */
enum tower { ANY, DECODER, ENCODER };
static const struct { const char *theirs, *ours; enum tower in; } alias[] = {
    {"hook_resid_pre", "resid_pre", ANY}, {"hook_resid_mid", "resid_mid", DECODER},
    {"hook_resid_post", "resid_post", DECODER}, {"hook_resid_mid", "resid_mid_raw", ENCODER},
    {"hook_resid_post", "resid_post_raw", ENCODER},
    {"hook_normalized_resid_post", "resid_post", ENCODER},
    {"hook_attn_out", "attn_out", ANY}, {"hook_mlp_out", "mlp_out", ANY},
    {"attn.hook_q", "attn.q_raw", ANY}, {"attn.hook_k", "attn.k_raw", ANY},
    {"attn.hook_rot_q", "attn.q", ANY}, {"attn.hook_rot_k", "attn.k", ANY},
    {"attn.hook_v", "attn.v", ANY}, {"attn.hook_z", "attn.head", ANY},
    {"attn.hook_attn_scores", "attn.scores", ANY}, {"attn.hook_pattern", "attn.pattern", ANY},
    {"mlp.hook_post", "mlp.act", ANY}, {"hook_embed", "embed", DECODER},
    {"hook_full_embed", "embed", ENCODER},
};

static int64_t width_of(const nm_model *m, int site, int n_keys) {
  switch (table[site].width) {
    case W_D: return m->D;
    case W_Q: return (int64_t)m->H * m->hd;
    case W_KV: return (int64_t)m->K * m->hd;
    case W_F: return m->F;
    case W_V: return m->V;
    case W_ONE: return 1;
    case W_EXPERTS: return m->moe.n;
    case W_EXPERTS_F: return (int64_t)m->moe.n * m->moe.F;
    case W_SHARED_F: return m->moe.shared_F;
    default: return (int64_t)m->H * n_keys;
  }
}

/* Floats that one index stands for: a head's, an expert's, or one element. */
static int64_t unit_of(const nm_model *m, int site, int n_keys) {
  switch (table[site].width) {
    case W_Q: case W_KV: return m->hd;
    case W_KEYS: return n_keys;
    case W_EXPERTS_F: return m->moe.F;
    default: return 1;
  }
}

bool nm__site_per_key(int site) { return table[site].width == W_KEYS; }

/* Why this site of the MLP's inside is not there; NULL: it is. */
static const char *no_mlp_site(const nm_model *m, int site) {
  if (site < NM__S_GATE || site > NM__S_SHARED_OUT) return NULL;
  if (site > NM__S_ACT && !m->moe.n)
    return "this model has no experts: the inside of its MLP is mlp.gate, mlp.up and mlp.act";
  if (site <= NM__S_ACT && m->moe.n)
    return "the MLP of this model is a mixture of experts: its inside is moe.gate, moe.up and "
           "moe.act, with an expert as the index";
  if (site >= NM__S_SHARED_WEIGHT && !m->moe.shared_F) return "this family has no shared expert";
  if (site == NM__S_GATE && !m->arch->gated) return "the MLP of this family has no gate";
  return NULL;
}

bool nm__site_exists(const nm_model *m, int site, const char **why_not) {
  const struct nm__arch *a = m->arch;
  *why_not = no_mlp_site(m, site);
  if ((site == NM__S_ATTN_RAW || site == NM__S_MLP_RAW) && !a->post_norm)
    *why_not = "no norm follows here: attn_out and mlp_out are the raw outputs";
  if ((site == NM__S_ATTN_NORM || site == NM__S_MLP_NORM) && a->no_pre_norm)
    *why_not = "no norm stands before attention and MLP in this family: they read resid_pre and "
               "resid_mid themselves";
  if ((site == NM__S_RESID_MID_RAW || site == NM__S_RESID_POST_RAW) && !a->sum_norm)
    *why_not = "no norm follows the sum in this family: resid_mid and resid_post are the sums";
  if (site == NM__S_EMBED_RAW && !a->embd_norm)
    *why_not = "no norm follows the embedding in this family";
  if (site == NM__S_FINAL_NORM && a->encoder)
    *why_not = "an encoder has no final norm: the last block's resid_post is its output";
  if (site == NM__S_LOGITS && !m->output.data)
    *why_not = "an encoder has no vocabulary head, so it has no logits";
  if (site == NM__S_MLP_NORM && m->one_norm)
    *why_not = "one norm feeds attention and MLP in this model: attn_norm is the input of both";
  if (site == NM__S_RESID_MID && m->parallel)
    *why_not = "attention and MLP run in parallel on resid_pre, so there is no stream between them";
  return !*why_not;
}

static const char ENC[] = "enc.";       /* stands before every name of an encoder */

const char *nm__site_prefix(const nm_model *m) { return m->arch->encoder ? ENC : ""; }

void nm__sel_name(const nm_model *m, struct nm__sel s, char out[64]) {
  char idx[28] = "", layer[20] = "";
  if (s.index_n == 1) snprintf(idx, sizeof idx, "[%d]", s.index);
  if (s.index_n > 1) snprintf(idx, sizeof idx, "[%d-%d]", s.index, s.index + s.index_n - 1);
  if (table[s.site].per_layer) snprintf(layer, sizeof layer, "blk.%d.", s.layer);
  snprintf(out, 64, "%s%s%s%s", nm__site_prefix(m), layer, table[s.site].name, idx);
}

void nm__sel_columns(const nm_model *m, struct nm__sel s, int n_keys, int64_t *begin,
                     int64_t *end) {
  int64_t unit = unit_of(m, s.site, n_keys);
  *begin = s.index_n ? s.index * unit : 0;
  *end = s.index_n ? *begin + s.index_n * unit : width_of(m, s.site, n_keys);
}

int64_t nm__sel_width(const nm_model *m, struct nm__sel s, int n_keys) {
  int64_t b, e;
  nm__sel_columns(m, s, n_keys, &b, &e);
  return e - b;
}

/* ---- globs ------------------------------------------------------------- */

/* '*' any run, '?' one character. Iterative, so that hostile globs stay linear-ish. */
bool nm__glob(const char *p, const char *s) {
  const char *star = NULL, *back = NULL;
  while (*s) {
    if (*p == '*') { star = p++; back = s; }
    else if (*p == '?' || *p == *s) { p++; s++; }
    else if (star) { p = star + 1; s = ++back; }
    else return false;
  }
  while (*p == '*') p++;
  return !*p;
}

/* "*", "3", "4-8", "1,5,7-9" against a layer. -1: malformed. */
static int layer_matches(const char *spec, int layer) {
  if (!strcmp(spec, "*")) return 1;
  int hit = 0;
  while (*spec) {
    char *end;
    long a = strtol(spec, &end, 10), b = a;
    if (end == spec || a < 0) return -1;
    if (*end == '-') {
      spec = end + 1;
      b = strtol(spec, &end, 10);
      if (end == spec || b < a) return -1;
    }
    if (layer >= a && layer <= b) hit = 1;
    if (*end && *end != ',') return -1;
    spec = *end ? end + 1 : end;
  }
  return hit;
}

struct pattern { char text[128], *layer; const char *rest; int index, index_n; };

/* "[5]" or "[2-4]" at the end. */
static int parse_index(struct pattern *p, const char *glob_text, nm_err *err) {
  char *open = strrchr(p->text, '['), *end;
  if (!open) return NM_OK;
  long a = strtol(open + 1, &end, 10), b = a;
  if (end != open + 1 && *end == '-') b = strtol(end + 1, &end, 10);
  if (end == open + 1 || strcmp(end, "]") || a < 0 || b < a || b > 1 << 24)
    return nm__fail(err, NM_EUSAGE, "site '%s': the index must read [5] or [2-4]", glob_text);
  p->index = (int)a;
  p->index_n = (int)(b - a + 1);
  *open = 0;
  return NM_OK;
}

static int parse_pattern(const nm_model *m, const char *text, struct pattern *p, nm_err *err) {
  *p = (struct pattern){0};
  if (strlen(text) >= sizeof p->text || !*text)
    return nm__fail(err, NM_EUSAGE, "site '%.40s': empty or too long", text);
  memcpy(p->text, text, strlen(text) + 1);
  int st = parse_index(p, text, err);
  if (st) return st;
  p->rest = p->text;
  bool prefix = !strncmp(p->text, ENC, 4);     /* an encoder alone also answers without */
  if (prefix && !m->arch->encoder)
    return nm__fail(err, NM_EUSAGE, "site '%s': %s is a decoder; only sites of encoders begin with "
                    "enc.", text, m->arch->name);
  if (prefix) p->rest += 4;
  bool theirs = !strncmp(p->rest, "blocks.", 7);
  if (theirs || !strncmp(p->rest, "blk.", 4)) {
    p->layer = strchr(p->rest, '.') + 1;
    char *dot = strchr(p->layer, '.');
    if (!dot) return nm__fail(err, NM_EUSAGE, "site '%s': a name must follow the layer", text);
    *dot = 0;
    p->rest = dot + 1;
    if (layer_matches(p->layer, 0) < 0)
      return nm__fail(err, NM_EUSAGE, "site '%s': layers must read *, 3, 4-8 or 1,5", text);
  }
  if (!theirs && strcmp(p->rest, "hook_embed") && strcmp(p->rest, "hook_full_embed")) return NM_OK;
  if (m->arch->learned_pos && !m->arch->encoder && !strcmp(p->rest, "hook_embed"))
    return nm__fail(err, NM_EUSAGE,
                    "site 'hook_embed': noema's embed holds the learned positions too here, "
                    "TransformerLens's does not; say embed");
  for (size_t i = 0; i < sizeof alias / sizeof *alias; i++)
    if (!strcmp(alias[i].theirs, p->rest) &&
        alias[i].in != (m->arch->encoder ? DECODER : ENCODER)) {
      p->rest = alias[i].ours;
      return NM_OK;
    }
  return nm__fail(err, NM_EUSAGE, "site '%s': no site of noema has the same values under this "
                  "TransformerLens name; `noema info MODEL --sites` lists the sites", text);
}

static bool matches(const nm_model *m, const struct pattern *p, int site, int layer) {
  if (table[site].per_layer && p->layer)
    return layer_matches(p->layer, layer) == 1 && nm__glob(p->rest, table[site].name);
  if (p->layer) return false;
  char full[64];
  nm__sel_name(m, (struct nm__sel){site, layer, 0, 0}, full);
  return nm__glob(p->rest, full) || (m->arch->encoder && nm__glob(p->rest, full + sizeof ENC - 1));
}

static int push(struct nm__sels *o, struct nm__sel s) {
  if ((o->n & (o->n - 1)) == 0) {
    struct nm__sel *v = nm__realloc(o->v, o->n ? 2 * (size_t)o->n : 1, sizeof *v);
    if (!v) return NM_EMEMORY;
    o->v = v;
  }
  o->v[o->n++] = s;
  return NM_OK;
}

struct select { const nm_model *m; struct pattern p; struct nm__sels *out; const char *why; };

static int try_site(struct select *s, int site, int layer, nm_err *err) {
  const char *why;
  if (!matches(s->m, &s->p, site, layer)) return NM_OK;
  if (!nm__site_exists(s->m, site, &why)) return s->why = why, NM_OK;
  struct nm__sel sel = {site, table[site].per_layer ? layer : -1, s->p.index, s->p.index_n};
  int64_t units = width_of(s->m, site, 1) / unit_of(s->m, site, 1);
  if (sel.index_n && sel.index + (int64_t)sel.index_n > units)
    return nm__fail(err, NM_EUSAGE, "site %s: index %d is out of range (0 to %lld)",
                    table[site].name, sel.index + sel.index_n - 1, (long long)units - 1);
  return push(s->out, sel) ? nm__fail_memory(err, "the site list", 0) : NM_OK;
}

/* Sites in order: before the blocks, then layer by layer in forward order, then after. */
static int select_one(const nm_model *m, const char *text, struct nm__sels *out, nm_err *err) {
  *out = (struct nm__sels){0};
  struct select s = {.m = m, .out = out};
  int st = parse_pattern(m, text, &s.p, err);
  if (!st) st = try_site(&s, NM__S_EMBED_RAW, -1, err);
  if (!st) st = try_site(&s, NM__S_EMBED, -1, err);
  for (int l = 0; l < m->L && !st; l++)
    for (int i = NM__S_RESID_PRE; i <= NM__S_RESID_POST && !st; i++) st = try_site(&s, i, l, err);
  if (!st) st = try_site(&s, NM__S_FINAL_NORM, -1, err);
  if (!st) st = try_site(&s, NM__S_LOGITS, -1, err);
  if (!st && !out->n)
    st = nm__fail(
        err, NM_EUSAGE,
        s.why
            ? "site '%s': %s (%s, %d layers)"
            : "site '%s' matches nothing%s in %s with %d layers; `noema info MODEL --sites` lists "
              "the sites",
        text, s.why ? s.why : "", m->arch->name, m->L);
  if (st) {
    free(out->v);
    *out = (struct nm__sels){0};
  }
  return st;
}

/* "A|B|C": the sites of A, then those of B, then those of C. */
int nm__sites_select(const nm_model *m, const char *text, struct nm__sels *out, nm_err *err) {
  int st = NM_OK;
  *out = (struct nm__sels){0};
  for (const char *s = text; !st && s; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL) {
    struct nm__sels part = {0};
    char *one = nm__strndup(s, strcspn(s, "|"));
    st = one ? select_one(m, one, &part, err) : nm__fail_memory(err, "the site list", 0);
    for (int i = 0; i < part.n && !st; i++)
      if (push(out, part.v[i])) st = nm__fail_memory(err, "the site list", 0);
    free(part.v);
    free(one);
  }
  if (st) {
    free(out->v);
    *out = (struct nm__sels){0};
  }
  return st;
}

/* ---- the public lists ------------------------------------------------------ */

static int list(const nm_model *m, struct nm__sels sels, nm_site **out, int *n, nm_err *err) {
  *out = nm__alloc((size_t)sels.n, sizeof **out);
  *n = sels.n;
  for (int i = 0; *out && i < sels.n; i++) {
    nm__sel_name(m, sels.v[i], (*out)[i].name);
    (*out)[i].layer = sels.v[i].layer;
    (*out)[i].width = nm__site_per_key(sels.v[i].site) ? 0 : nm__sel_width(m, sels.v[i], 1);
  }
  free(sels.v);
  return *out ? NM_OK : nm__fail_memory(err, "the site list", 0);
}

int nm_sites(const nm_model *m, nm_site **out, int *n) {
  struct nm__sels s;
  int st = nm__sites_select(m, "*", &s, NULL);
  return st ? st : list(m, s, out, n, NULL);
}

int nm_run_sites(const nm_model *m, const nm_tap *taps, int n_taps, nm_site **out, int *n,
                 nm_err *err) {
  struct nm__sels all = {0};
  int st = NM_OK;
  for (int t = 0; t < n_taps && !st; t++) {
    struct nm__sels s;
    st = nm__sites_select(m, taps[t].site, &s, err);
    for (int i = 0; !st && i < s.n; i++)
      if (push(&all, s.v[i])) st = nm__fail_memory(err, "the site list", 0);
    if (!st) free(s.v);
  }
  if (st) {
    free(all.v);
    return st;
  }
  return list(m, all, out, n, err);
}
