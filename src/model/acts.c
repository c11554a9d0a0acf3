/* acts.c - activations to files: one .npy for one text, or a folder of shards
 * with an index, streamed and resumable.
 *
 *   DIR/index.jsonl                 header line, then a line a finished sequence
 *   DIR/blk.3.resid_post.00000.npy  [rows, D]: rows of the sequences of shard 0
 *
 * A shard's files are in place before its lines enter the index, so whatever the
 * index names is whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/json.h"
#include "file/npy.h"
#include "model/model.h"

enum { SHARD_SEQS = 512 };
static const size_t SHARD_BYTES = (size_t)64 << 20;

struct column { struct nm__buf rows; };          /* the collected rows of one site */
struct pending { struct nm__buf *col; };         /* rows of a sequence that is still running */

struct acts {
  nm_engine *e;
  const nm_model *m;
  const nm_acts_opts *o;
  const nm_seq *seqs;
  size_t n_seqs, skip;             /* sequences already in the folder */
  nm_site *sites; int n_sites;
  struct nm__at at;
  struct nm__sels sels;
  struct column *col;
  struct pending *pend; size_t n_pend, pend_from;  /* sequences pend_from .. of the request */
  bool per_key;
  char key[33];
  /* the shard being filled: sequences first .. first+n-1, of which the index lists some */
  int shard; size_t first, n, listed, listed_rows;
};

/* Everything that can change a bit of the result. */
static void make_key(struct acts *a) {
  struct nm__buf b;
  char hex[33] = "";
  nm__buf_init(&b, (size_t)1 << 30);
  nm_model_hash((nm_model *)(uintptr_t)a->m, hex, NULL);
  nm__buf_printf(&b, "%s|%s|%s", NM_VERSION, hex, nm_engine_act(a->e));
  nm__engine_key(a->e, &b);
  nm__buf_printf(&b, "|%s|%s|", a->o->site, a->o->at);
  nm__edits_key(a->o->edits, &b);
  for (size_t i = 0; i < a->n_seqs; i++) {
    nm__buf_printf(&b, "%zu:", a->seqs[i].n);
    nm__buf_put(&b, a->seqs[i].ids, a->seqs[i].n * sizeof(int32_t));
  }
  nm__hash_hex(b.s ? b.s : "", b.len, a->key);
  nm__buf_done(&b);
}

/* Sequences of a group advance together and their rows come mixed: each sequence collects
 * its own until it is done, so that files are in the order of the texts. */
static struct pending *pending_of(struct acts *a, size_t seq) {
  size_t i = seq - a->pend_from;
  if (i >= a->n_pend) {
    struct pending *v = nm__realloc(a->pend, 2 * i + 8, sizeof *v);
    if (!v) return NULL;
    memset(v + a->n_pend, 0, sizeof *v * (2 * i + 8 - a->n_pend));
    a->pend = v;
    a->n_pend = 2 * i + 8;
  }
  struct pending *p = &a->pend[i];
  if (!p->col && (p->col = nm__alloc((size_t)a->n_sites, sizeof *p->col)))
    for (int k = 0; k < a->n_sites; k++) nm__buf_init(&p->col[k], (size_t)1 << 36);
  return p->col ? p : NULL;
}

static void pending_done(struct acts *a, struct pending *p) {
  for (int k = 0; p->col && k < a->n_sites; k++) nm__buf_done(&p->col[k]);
  free(p->col);
  p->col = NULL;
}

static int take_row(void *arg, const nm_row *row, nm_err *err) {
  struct acts *a = arg;
  struct pending *p = pending_of(a, row->seq);
  if (p) nm__buf_put(&p->col[row->site], row->data, sizeof(float) * (size_t)row->n);
  if (p && !p->col[row->site].failed) return NM_OK;
  return nm__fail_memory(err, "activations", p ? p->col[row->site].len : 0);
}

/* A finished sequence's rows join the columns. */
static int join(struct acts *a, size_t seq, nm_err *err) {
  struct pending *p = pending_of(a, seq);
  bool failed = !p;
  for (int i = 0; p && i < a->n_sites; i++) {
    struct nm__buf *to = &a->col[i].rows, empty = *to;
    if (!to->len && !to->s) *to = p->col[i], p->col[i] = empty;     /* nothing there: hand over */
    else nm__buf_put(to, p->col[i].s, p->col[i].len);
    failed |= to->failed;
  }
  if (p) pending_done(a, p);
  if (seq + 1 == a->pend_from + a->n_pend) a->pend_from += a->n_pend, a->n_pend = 0;
  return failed
             ? nm__fail_memory(err, "activations (say -o DIR to stream them)", a->col[0].rows.len)
             : NM_OK;
}

static int join_only(void *arg, size_t seq, nm_err *err) { return join(arg, seq, err); }

/* ---- one file ----------------------------------------------------------- */

static int same_width(struct acts *a, int64_t *width, nm_err *err) {
  *width = nm__sel_width(a->m, a->sels.v[0], (int)a->seqs[0].n);
  for (int i = 0; i < a->n_sites; i++) {
    int64_t w = nm__sel_width(a->m, a->sels.v[i], (int)a->seqs[0].n);
    bool keys = a->sites[i].width == 0;
    if (w != *width || keys != (a->sites[0].width == 0) || (keys && a->n_seqs > 1))
      return nm__fail(err, NM_EUSAGE,
                      "the sites have different widths (%s: %lld, %s: %lld%s): say -o DIR",
                      a->sites[0].name, (long long)*width, a->sites[i].name, (long long)w,
                      keys ? ", one for every key" : "");
  }
  return NM_OK;
}

/* Rows come in order of position; put them in the order asked for. */
static int gather_rows(struct acts *a, const nm_seq *s, const float *rows, int64_t n_rows,
                       int64_t width, int *pos, int n_pos, float *out) {
  (void)a;
  int *rank = nm__alloc(s->n + 1, sizeof *rank);
  if (!rank) return NM_EMEMORY;
  for (int i = 0; i < n_pos; i++) rank[pos[i]] = 1;
  for (size_t p = 0, r = 0; p < s->n; p++) rank[p] = rank[p] ? (int)r++ : -1;
  for (int i = 0; i < n_pos && rank[pos[i]] < n_rows; i++)
    memcpy(out + i * width, rows + rank[pos[i]] * width, sizeof(float) * (size_t)width);
  free(rank);
  return NM_OK;
}

/* Positions that rows already stand in the order of. */
static bool ascending(const int *pos, int n) {
  for (int i = 1; i < n; i++)
    if (pos[i] <= pos[i - 1]) return false;
  return true;
}

/* The shape: [sites, D], [sites, positions, D] or, for several texts, [texts, sites, D]; without
 * the axis of sites when that is asked for. */
static int write_array(struct acts *a, int64_t width, int n_pos, const float *x, nm_err *err) {
  bool many = a->n_seqs > 1, single = nm__at_single(&a->at);
  bool flat = a->o->squeeze && a->n_sites == 1;
  int64_t ne[3] = {a->n_sites, n_pos, width};
  if (many) ne[0] = (int64_t)a->n_seqs, ne[1] = flat ? width : a->n_sites;
  else if (single) ne[1] = width;
  else if (flat) ne[0] = n_pos, ne[1] = width;
  return nm__npy_write(a->o->out, !flat && (many || !single) ? 3 : 2, ne, x, err);
}

static int write_one(struct acts *a, int64_t width, nm_err *err) {
  int *pos = NULL, n_pos = 1, st = NM_OK;
  bool many = a->n_seqs > 1;
  if (!many && (st = nm__at_resolve(&a->at, a->m, &a->seqs[0], &pos, &n_pos, err))) return st;
  int64_t per_site = (int64_t)(many ? a->n_seqs : (size_t)n_pos) * width;
  if (!many && a->n_sites == 1 && ascending(pos, n_pos)) {
    st = write_array(a, width, n_pos, (const float *)(const void *)a->col[0].rows.s, err);
    free(pos);
    return st;
  }
  float *all = nm__alloc((size_t)(a->n_sites * per_site), sizeof *all);
  if (!all) st = nm__fail_memory(err, "the result", (size_t)(a->n_sites * per_site) * 4);
  for (int i = 0; i < a->n_sites && !st; i++) {
    const float *rows = (const float *)(const void *)a->col[i].rows.s;
    for (size_t s = 0; many && s < a->n_seqs; s++)
      memcpy(all + ((int64_t)s * a->n_sites + i) * width, rows + (int64_t)s * width,
             sizeof(float) * (size_t)width);
    int64_t n_rows = (int64_t)(a->col[i].rows.len / sizeof(float)) / (width ? width : 1);
    if (!many)
      st = gather_rows(a, &a->seqs[0], rows, n_rows, width, pos, n_pos, all + i * per_site);
  }
  if (!st) st = write_array(a, width, n_pos, all, err);
  free(all);
  free(pos);
  return st;
}

static int to_file(struct acts *a, const nm_request *r, nm_err *err) {
  int64_t width;
  int st = same_width(a, &width, err);
  if (!st && a->n_seqs > 1 && !nm__at_single(&a->at))
    st = nm__fail(err, NM_EUSAGE,
                  "several texts with several positions do not fit one array: say -o DIR");
  nm_request all = *r;
  all.done = join_only;
  if (!st) st = nm_run(a->e, &all, err);
  return st ? st : write_one(a, width, err);
}

/* ---- a folder ------------------------------------------------------------ */

static char *in_dir(struct acts *a, const char *name) { return nm__path_join(a->o->out, name); }

static int append_index(struct acts *a, const char *text, size_t n, nm_err *err) {
  char *path = in_dir(a, "index.jsonl");
  FILE *f = path ? fopen(path, "ab") : NULL;
  bool good = f && fwrite(text, 1, n, f) == n && !fflush(f) && !fsync(fileno(f));
  if (f && fclose(f)) good = false;
  int st =
      good ? NM_OK : nm__fail(err, NM_EFAIL, "%s: cannot be written", path ? path : "index.jsonl");
  free(path);
  return st;
}

static int write_shard_file(struct acts *a, int i, nm_err *err) {
  char name[96];
  struct nm__buf *rows = &a->col[i].rows;
  int64_t width = a->sites[i].width, n = (int64_t)(rows->len / sizeof(float));
  if (!width) width = nm__sel_width(a->m, a->sels.v[i], (int)a->seqs[a->first].n);
  snprintf(name, sizeof name, "%s.%05d.npy", a->sites[i].name, a->shard);
  char *path = in_dir(a, name);
  int64_t ne[2] = {width ? n / width : 0, width};
  int st =
      path ? nm__npy_write(path, 2, ne, (const float *)(const void *)(rows->s ? rows->s : ""), err)
           : nm__fail_memory(err, "a file name", 0);
  free(path);
  nm__buf_reset(rows);
  return st;
}

/* Lines of the shard's sequences that the index does not list yet. */
static int index_lines(struct acts *a, struct nm__buf *b, nm_err *err) {
  size_t row = a->listed_rows;
  for (size_t i = a->listed; i < a->n; i++) {
    int *pos, n;
    int st = nm__at_resolve(&a->at, a->m, &a->seqs[a->first + i], &pos, &n, err);
    if (st) return st;
    uint8_t *seen = nm__alloc(a->seqs[a->first + i].n + 1, 1);
    size_t rows = 0;
    nm__buf_printf(b, "{\"seq\": %zu, \"shard\": %d, \"row\": %zu, \"positions\": [", a->first + i,
                   a->shard, row);
    for (int k = 0; k < n && seen; k++) seen[pos[k]] = 1;
    for (size_t p = 0; seen && p < a->seqs[a->first + i].n; p++)
      if (seen[p]) nm__buf_printf(b, "%s%zu", rows++ ? ", " : "", p);
    nm__buf_printf(b, "], \"n_tokens\": %zu}\n", a->seqs[a->first + i].n);
    row += rows;
    free(seen);
    free(pos);
  }
  return b->failed ? nm__fail_memory(err, "the index", b->len) : NM_OK;
}

static int flush(struct acts *a, nm_err *err) {
  if (a->n == a->listed) return NM_OK;
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 30);
  int st = NM_OK;
  for (int i = 0; i < a->n_sites && !st; i++) st = write_shard_file(a, i, err);
  if (!st) st = index_lines(a, &b, err);
  if (!st) st = append_index(a, b.s, b.len, err);
  nm__buf_done(&b);
  a->first += a->n;
  a->n = a->listed = a->listed_rows = 0;
  a->shard++;
  return st;
}

static bool shard_is_full(const struct acts *a) {
  size_t bytes = 0;
  for (int i = 0; i < a->n_sites; i++) bytes += a->col[i].rows.len;
  return a->per_key || a->n >= SHARD_SEQS || bytes >= SHARD_BYTES;
}

static int seq_done(void *arg, size_t seq, nm_err *err) {
  struct acts *a = arg;
  int st = join(a, seq, err);
  if (st) return st;
  a->n++;
  return shard_is_full(a) ? flush(a, err) : NM_OK;
}

static int write_header(struct acts *a, nm_err *err) {
  json_t *h = json_pack("{s:s, s:s, s:o, s:o, s:I, s:[]}", "noema", "acts", "key", a->key, "model",
                        nm__json_text(a->m->path), "at", nm__json_text(a->o->at), "n",
                        (json_int_t)a->n_seqs, "sites");
  for (int i = 0; h && i < a->n_sites; i++)
    json_array_append_new(
        json_object_get(h, "sites"),
        json_pack("{s:s, s:I}", "name", a->sites[i].name, "width", (json_int_t)a->sites[i].width));
  char *s = h ? json_dumps(h, JSON_COMPACT) : NULL;
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 24);
  nm__buf_printf(&b, "%s\n", s ? s : "");
  int st =
      s ? append_index(a, b.s, b.len, err) : nm__fail(err, NM_EFORMAT, "a name is not valid UTF-8");
  nm__buf_done(&b);
  free(s);
  json_decref(h);
  return st;
}

static int damaged(struct acts *a, const char *what, int line, nm_err *err) {
  return nm__fail(err, NM_EFORMAT, "%s: %s %d does not belong to the index: choose another folder",
                  a->o->out, what, line);
}

/* Line 0 is the header, line k sequence k - 1. */
static int read_line(struct acts *a, const json_t *o, int line, nm_err *err) {
  const char *key = json_string_value(json_object_get(o, "key"));
  const json_t *seq = json_object_get(o, "seq"), *pos = json_object_get(o, "positions");
  json_int_t shard = json_integer_value(json_object_get(o, "shard"));
  if (line == 0)
    return key && !strcmp(key, a->key)
               ? NM_OK
               : nm__fail(err, NM_EUSAGE,
                          "%s holds another run (other model, sites, positions, edits or texts): "
                          "choose another folder",
                          a->o->out);
  if (!json_is_integer(seq) || json_integer_value(seq) != line - 1 || !json_is_array(pos) ||
      shard < a->shard || shard > a->shard + (line > 1))
    return damaged(a, "line", line + 1, err);
  if (shard != a->shard) a->first = (size_t)line - 1, a->n = a->listed_rows = 0;
  a->shard = (int)shard;
  a->n++;
  a->listed_rows += json_array_size(pos);
  a->skip = (size_t)line;
  return NM_OK;
}

/* A shard that an interrupt left short is taken up again, so that the folder ends in the
 * same bytes as one that was never interrupted. */
static int resume_shard(struct acts *a, nm_err *err) {
  for (int i = 0; i < a->n_sites && !a->per_key; i++) {
    char name[96];
    struct nm__npy f;
    snprintf(name, sizeof name, "%s.%05d.npy", a->sites[i].name, a->shard);
    char *path = in_dir(a, name);
    int st = path ? nm__npy_read(path, &f, err) : nm__fail_memory(err, "a file name", 0);
    free(path);
    if (st) return st;
    bool fits = f.n_dims == 2 && f.ne[1] == a->sites[i].width && f.ne[0] >= (int64_t)a->listed_rows;
    if (fits)
      nm__buf_put(&a->col[i].rows, f.data, sizeof(float) * a->listed_rows * (size_t)f.ne[1]);
    nm__npy_done(&f);
    if (!fits) return damaged(a, "shard", a->shard, err);
    if (a->col[i].rows.failed) return nm__fail_memory(err, "activations", a->col[i].rows.len);
  }
  a->listed = a->n;
  if (!shard_is_full(a)) return NM_OK;
  for (int i = 0; i < a->n_sites; i++) nm__buf_reset(&a->col[i].rows);
  a->first += a->n;
  a->n = a->listed = a->listed_rows = 0;
  a->shard++;
  return NM_OK;
}

/* Reads what an earlier run finished. A last line that was cut off is dropped. */
static int read_index(struct acts *a, const char *path, nm_err *err) {
  struct nm__map map;
  int st = nm__map_open(path, &map, err), line = 0;
  if (st) return st;
  const char *s = (const char *)map.data, *end = s + map.size, *whole = s;
  for (const char *nl; !st && (nl = memchr(whole, '\n', (size_t)(end - whole)));
       whole = nl + 1, line++) {
    json_t *o = json_loadb(whole, (size_t)(nl - whole), 0, NULL);
    st = read_line(a, o, line, err);
    json_decref(o);
  }
  size_t keep = (size_t)(whole - s);
  bool cut = keep < map.size;
  nm__map_close(&map);
  if (!st && cut && truncate(path, (off_t)keep))
    st = nm__fail(err, NM_EFAIL, "%s: cannot be repaired", path);
  if (!st && !line) st = write_header(a, err);
  return st || !a->skip || a->skip >= a->n_seqs ? st : resume_shard(a, err);
}

static int to_folder(struct acts *a, nm_request *r, nm_err *err) {
  int st = nm__mkdirs(a->o->out, err);
  if (st) return st;
  char *index = in_dir(a, "index.jsonl");
  if (!index) return nm__fail_memory(err, "a file name", 0);
  make_key(a);
  st = nm__exists(index) ? read_index(a, index, err) : write_header(a, err);
  free(index);
  if (st || a->skip >= a->n_seqs) return st;
  r->seqs += a->skip;
  r->n_seqs -= a->skip;
  r->done = seq_done;
  st = nm_run(a->e, r, err);
  nm_err ignored;
  int st2 =
      st && st != NM_EINTR ? NM_OK : flush(a, st ? &ignored : err); /* Ctrl-C keeps what is done */
  return st ? st : st2;
}

/* Rows that wait in memory for their file: all of them for one array (twice where they must be put
 * in order), a shard's worth for a folder. */
static int collected(struct acts *a, nm_memory *need, nm_err *err) {
  uint64_t bytes = 0, width = 0;
  size_t len = a->o->out ? strlen(a->o->out) : 0;
  bool one = len > 4 && !strcmp(a->o->out + len - 4, ".npy");
  for (size_t i = 0; i < a->n_seqs; i++) {
    int *pos, n;
    int st = nm__at_resolve(&a->at, a->m, &a->seqs[i], &pos, &n, err);
    if (st) return st;
    width = 0;
    for (int k = 0; k < a->n_sites; k++)
      width += (uint64_t)nm__sel_width(a->m, a->sels.v[k], (int)a->seqs[i].n);
    bytes += width * (uint64_t)n * sizeof(float);
    free(pos);
  }
  if (one && (a->n_sites > 1 || a->n_seqs > 1)) bytes *= 2;
  if (!one && bytes > SHARD_BYTES) bytes = SHARD_BYTES;
  need->activations += bytes;
  return NM_OK;
}

int nm_acts(nm_engine *e, const nm_seq *seqs, size_t n, const nm_acts_opts *o, nm_memory *need,
            nm_err *err) {
  struct acts a = {.e = e, .o = o, .seqs = seqs, .n_seqs = n};
  nm_tap tap = {o->site, o->at};
  nm_request r = {.seqs = seqs,
                  .n_seqs = n,
                  .taps = &tap,
                  .n_taps = 1,
                  .edits = o->edits,
                  .share_prefix = o->share_prefix,
                  .row = take_row,
                  .arg = &a,
                  .progress = o->progress};
  if (!n) return nm__fail(err, NM_EFORMAT, "there is no text to run");
  a.m = nm__engine_model(e);
  int st = nm_run_sites(a.m, &tap, 1, &a.sites, &a.n_sites, err);
  if (!st) st = nm__sites_select(a.m, o->site, &a.sels, err);
  if (!st) st = nm__at_parse(o->at, &a.at, err);
  if (!st && need) st = nm_run_measure(e, &r, need, err);
  if (!st && need) st = collected(&a, need, err);
  a.col = st ? NULL : nm__alloc((size_t)a.n_sites, sizeof *a.col);
  for (int i = 0; a.col && i < a.n_sites; i++) {
    nm__buf_init(&a.col[i].rows, (size_t)1 << 36);
    a.per_key |= a.sites[i].width == 0;
  }
  size_t len = o->out ? strlen(o->out) : 0;
  if (!st && !a.col) st = nm__fail_memory(err, "the columns", 0);
  if (!st && !o->dry_run)
    st = len > 4 && !strcmp(o->out + len - 4, ".npy") ? to_file(&a, &r, err)
                                                      : to_folder(&a, &r, err);
  for (int i = 0; a.col && i < a.n_sites; i++) nm__buf_done(&a.col[i].rows);
  for (size_t i = 0; i < a.n_pend; i++) pending_done(&a, &a.pend[i]);
  free(a.pend);
  free(a.col);
  free(a.sels.v);
  free(a.sites);
  nm__at_done(&a.at);
  return st;
}
