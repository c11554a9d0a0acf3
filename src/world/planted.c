/* planted.c - a transformer wired by hand, so that its inside is known.
 *
 * It reads sentences such as "ann saw the red fox by night , it went up ?" and carries, at
 * every position after the words have been seen:
 *
 *   block 0  attention head 3   copies the name in the text (ann) to dims 20..27: it is what
 *                               the model says next
 *   block 1  heads 0 and 1      fetch fa = red(+1)/blue(-1) and fb = day(+1)/night(-1)
 *   block 2  mlp                A = fa xor fb    linearly readable from here on; answers yes/no
 *   block 3  head 2             fetches fc = up(+1)/down(-1)
 *   block 4  mlp                B = A xor fc     readable from here on, used by nothing
 *   block 5  nothing
 *
 * No linear probe can read an exclusive or from its inputs, and no bag of words either,
 * so the layer is exact: A at resid_post of 2 (mlp_norm of 3), B at resid_post of 4 (mlp_norm
 * of 5). A is used (it moves the answer), B is only readable.
 *
 * Residual dims:  0 constant | 1-4 "is an a, b, c, name word" | 5 value +-1 | 6 fa 7 fb 8 fc
 *                 9 A | 10 B | 12-19 which name (in the embedding) | 20-27 copied name
 *                 28-31 identity of other words
 * Attention is by content: q and k use one row of each head, in the slowest rotary pair
 * (angle below 1e-8 a position). All numbers are exact in half precision. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/gguf.h"

enum { D = 32, L = 6, H = 4, HD = 8, F = 16, ROW = 6, N_NAMES = 8 };
enum {
  ONE = 0,
  IS_A = 1,
  VALUE = 5,
  FA = 6,
  A = 9,
  B = 10,
  NAME_IN = 12,
  NAME_OUT = 20,
  IDENTITY = 28
};

static const char *const names[N_NAMES] = {"ann", "bob",  "cleo", "dan",
                                           "eve", "finn", "gus",  "hal"};
/* {+1 word, -1 word} of the three attributes */
static const char *const valued[3][2] = {{"red", "blue"}, {"day", "night"}, {"up", "down"}};
static const char *const others[] = {"the",  "a",    "saw",  "fox", "by",   "it",  "went",
                                     "old",  "big",  "sun",  "sea", "tree", "and", "in",
                                     "on",   "was",  "with", ",",   "?",    "yes", "no",
                                     "road", "hill", "bird", "ran", "to",   "far", "near"};
enum { N_OTHERS = sizeof others / sizeof *others, N_WORDS = 16 };

/* ---- the vocabulary: <unk> <s> </s>, bytes, letters, and every word with its beginnings -- */

struct vocab {
  char *piece[1024];
  float score[1024];
  int32_t kind[1024];
  int n;
  float embd[1024][D], head[1024][D];
};

static int piece_of(const struct vocab *v, const char *s) {
  for (int i = 0; i < v->n; i++)
    if (!strcmp(v->piece[i], s)) return i;
  return -1;
}

static int add_piece(struct vocab *v, const char *s, int32_t kind, float score) {
  int at = piece_of(v, s);
  if (at >= 0) return at;
  v->piece[v->n] = nm__strdup(s);
  v->kind[v->n] = kind;
  v->score[v->n] = score;
  v->embd[v->n][ONE] = 8;
  return v->n++;
}

/* SentencePiece merges by score; with all beginnings of a word as pieces of falling
 * score, "▁red" grows from its left. Returns the whole word's id. */
static int add_word(struct vocab *v, const char *word) {
  char p[40] = "\xe2\x96\x81";
  int id = add_piece(v, p, 1, -1);
  for (size_t i = 0; word[i]; i++) {
    char letter[2] = {word[i], 0};
    add_piece(v, letter, 1, -1000);
    p[3 + i] = word[i];
    p[4 + i] = 0;
    id = add_piece(v, p, 1, -(float)(2 + i));
  }
  return id;
}

static void fill_vocab(struct vocab *v) {
  char byte[8];
  add_piece(v, "<unk>", 2, 0);
  add_piece(v, "<s>", 3, 0);
  add_piece(v, "</s>", 3, 0);
  for (int i = 0; i < 256; i++) {
    snprintf(byte, sizeof byte, "<0x%02X>", i);
    add_piece(v, byte, 6, 0);
  }
  for (int i = 0; i < N_OTHERS; i++) {
    int id = add_word(v, others[i]);
    for (int k = 0; k < 4; k++)
      v->embd[id][IDENTITY + k] =
          (float)((int)(nm__rand_at(7, (uint64_t)i, (uint64_t)k) % 5) - 2) * 0.25f;
  }
  for (int a = 0; a < 3; a++)
    for (int s = 0; s < 2; s++) {
      int id = add_word(v, valued[a][s]);
      v->embd[id][IS_A + a] = 2;
      v->embd[id][VALUE] = s ? -2 : 2;
    }
  for (int i = 0; i < N_NAMES; i++) {
    int id = add_word(v, names[i]);
    v->embd[id][IS_A + 3] = 2;
    v->embd[id][NAME_IN + i] = 2;
    v->head[id][NAME_OUT + i] = 8;
  }
  v->head[piece_of(v, "\xe2\x96\x81yes")][A] = 2;
  v->head[piece_of(v, "\xe2\x96\x81no")][A] = -2;
}

/* ---- weights -------------------------------------------------------------- */

struct block {
  float q[H * HD][D], k[H * HD][D], v[H * HD][D], o[D][H * HD], gate[F][D], up[F][D], down[D][F];
};

/* Head h looks, from everywhere, at the words with flag IS_A + h and moves n dims. Score: q 16,
 * k about 22, over sqrt(8): other words get a weight of about 1e-50, that is none. */
static void fetch(struct block *b, int h, int from, int to, int n) {
  b->q[h * HD + ROW][ONE] = 3;
  b->k[h * HD + ROW][IS_A + h] = 16;
  for (int i = 0; i < n; i++) {
    b->v[h * HD + i][from + i] = 1;
    b->o[to + i][h * HD + i] = 1;
  }
}

/* dim `to` gets -2 x y of the normalised inputs: silu(z) - silu(-z) = z makes a product of
 * two gated neurons, and minus the product of two signs is their exclusive or. */
static void exclusive_or(struct block *b, int x, int y, int to) {
  b->gate[0][x] = 1;
  b->up[0][y] = 1;
  b->gate[1][x] = -1;
  b->up[1][y] = -1;
  b->down[to][0] = b->down[to][1] = -2;
}

static void wire(struct block b[L]) {
  fetch(&b[0], 3, NAME_IN, NAME_OUT, N_NAMES);
  fetch(&b[1], 0, VALUE, FA, 1);
  fetch(&b[1], 1, VALUE, FA + 1, 1);
  exclusive_or(&b[2], FA, FA + 1, A);
  fetch(&b[3], 2, VALUE, FA + 2, 1);
  exclusive_or(&b[4], A, FA + 2, B);
}

/* ---- the file --------------------------------------------------------------- */

static void metadata(struct nm__gguf_writer *w, const struct vocab *v) {
  nm__gguf_put_string(w, "general.architecture", "llama");
  nm__gguf_put_string(w, "general.name", "noema planted");
  nm__gguf_put_u32(w, "llama.context_length", 256);
  nm__gguf_put_u32(w, "llama.embedding_length", D);
  nm__gguf_put_u32(w, "llama.block_count", L);
  nm__gguf_put_u32(w, "llama.feed_forward_length", F);
  nm__gguf_put_u32(w, "llama.attention.head_count", H);
  nm__gguf_put_u32(w, "llama.attention.head_count_kv", H);
  nm__gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-6f);
  nm__gguf_put_u32(w, "llama.rope.dimension_count", HD);
  nm__gguf_put_f32(w, "llama.rope.freq_base", 1e12f);
  nm__gguf_put_string(w, "tokenizer.ggml.model", "llama");
  nm__gguf_put_strings(w, "tokenizer.ggml.tokens", (const char *const *)v->piece, (size_t)v->n);
  nm__gguf_put_f32s(w, "tokenizer.ggml.scores", v->score, (size_t)v->n);
  nm__gguf_put_i32s(w, "tokenizer.ggml.token_type", v->kind, (size_t)v->n);
  nm__gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 1);
  nm__gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 2);
  nm__gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", 0);
}

struct part { const char *stem; size_t at; int rows, cols; };
#define PART(stem, field, rows, cols) {stem, offsetof(struct block, field), rows, cols}
static const struct part parts[] = {
    PART("attn_q", q, H * HD, D), PART("attn_k", k, H * HD, D), PART("attn_v", v, H * HD, D),
    PART("attn_output", o, D, H * HD), PART("ffn_gate", gate, F, D), PART("ffn_up", up, F, D),
    PART("ffn_down", down, D, F), {"attn_norm", 0, 0, D}, {"ffn_norm", 0, 0, D}};
enum { N_PARTS = sizeof parts / sizeof *parts };

static void announce(struct nm__gguf_writer *w, const struct vocab *v) {
  int64_t table[2] = {D, v->n}, vec[1] = {D};
  nm__gguf_announce(w, "token_embd.weight", NM__F16, 2, table);
  nm__gguf_announce(w, "output.weight", NM__F16, 2, table);
  nm__gguf_announce(w, "output_norm.weight", NM__F32, 1, vec);
  for (int i = 0; i < L; i++)
    for (int p = 0; p < N_PARTS; p++) {
      char name[64];
      int64_t ne[2] = {parts[p].cols, parts[p].rows};
      snprintf(name, sizeof name, "blk.%d.%s.weight", i, parts[p].stem);
      nm__gguf_announce(w, name, parts[p].rows ? NM__F16 : NM__F32, parts[p].rows ? 2 : 1, ne);
    }
}

static int put_half(struct nm__gguf_writer *w, const float *x, int n, nm_err *err) {
  uint16_t h[D * H * HD];
  for (int i = 0; i < n; i++) h[i] = nm__f32_to_half(x[i]);
  return nm__gguf_data(w, h, (size_t)n * 2, err);
}

static int put_all(struct nm__gguf_writer *w, const struct vocab *v, struct block *b, nm_err *err) {
  float ones[D];
  int st = NM_OK;
  for (int i = 0; i < D; i++) ones[i] = 1;
  for (int i = 0; i < v->n && !st; i++) st = put_half(w, v->embd[i], D, err);
  for (int i = 0; i < v->n && !st; i++) st = put_half(w, v->head[i], D, err);
  if (!st) st = nm__gguf_data(w, ones, sizeof ones, err);
  for (int i = 0; i < L; i++)
    for (int p = 0; p < N_PARTS && !st; p++) {
      const float *x = (const float *)(const void *)((const char *)&b[i] + parts[p].at);
      st = parts[p].rows ? put_half(w, x, parts[p].rows * parts[p].cols, err)
                         : nm__gguf_data(w, ones, sizeof ones, err);
    }
  return st;
}

int nm_write_planted(const char *path, nm_err *err) {
  struct vocab *v = nm__alloc(1, sizeof *v);
  struct block *b = nm__alloc(L, sizeof *b);
  struct nm__gguf_writer *w = NULL;
  int st =
      v && b ? nm__gguf_writer_new(&w, err) : nm__fail_memory(err, "the planted model", sizeof *v);
  if (!st) {
    fill_vocab(v);
    wire(b);
    metadata(w, v);
    announce(w, v);
    st = nm__gguf_begin(w, path, err);
  }
  if (!st) st = put_all(w, v, b, err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  for (int i = 0; v && i < v->n; i++) free(v->piece[i]);
  free(v);
  free(b);
  return st;
}

/* ---- sentences with known labels ----------------------------------------------- */

/* Words in a shuffled order with the chosen attribute words among them. */
static void sentence(struct nm__buf *out, uint64_t seed, uint64_t set, const int side[3]) {
  struct nm__rng r = {seed, set, 0};
  const char *word[N_WORDS];
  uint32_t order[N_WORDS];
  for (int i = 0; i < 3; i++) word[i] = valued[i][side[i]];
  word[3] = names[nm__rng_below(&r, N_NAMES)];
  for (int i = 4; i < N_WORDS; i++) word[i] = others[nm__rng_below(&r, 17)];
  for (uint32_t i = 0; i < N_WORDS; i++) order[i] = i;
  nm__rng_shuffle(&r, order, N_WORDS);
  for (int i = 0; i < N_WORDS; i++) nm__buf_printf(out, "%s ", word[order[i]]);
  nm__buf_puts(out, "?");
}

/* n sets of eight sentences that differ only in the three attribute words, so that every
 * split that keeps sets together is balanced in all of them. */
int nm_write_planted_data(const char *path, char concept, int n_sets, uint64_t seed, nm_err *err) {
  struct nm__buf b;
  if ((concept != 'A' && concept != 'B') || n_sets < 1 || n_sets > 1 << 20)
    return nm__fail(err, NM_EUSAGE, "the planted concepts are A and B, in 1 to 1048576 sets");
  nm__buf_init(&b, (size_t)1 << 28);
  nm__buf_puts(&b, "text\tlabel\tset\n");
  for (int s = 0; s < n_sets; s++)
    for (int c = 0; c < 8; c++) {
      int side[3] = {c & 1, c >> 1 & 1, c >> 2 & 1};
      int label = side[0] ^ side[1] ^ (concept == 'B' ? side[2] : 0);
      sentence(&b, seed, (uint64_t)s, side);
      nm__buf_printf(&b, "\t%s\ts%d\n", label ? "yes" : "no", s);
    }
  int st = b.failed ? nm__fail_memory(err, "the sentences", b.len)
                    : nm__write_file(path, b.s, b.len, err);
  nm__buf_done(&b);
  return st;
}
