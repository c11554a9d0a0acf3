/* rng.c - counter-based random numbers (SplitMix64's finaliser over a keyed
 * counter) and xxHash-based content hashes. */
#include "core/core.h"

#include <stdio.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t nm__mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t nm__rand_at(uint64_t seed, uint64_t stream, uint64_t i) {
  uint64_t key =
      nm__mix64(seed + 0x9e3779b97f4a7c15u) ^ nm__mix64(stream * 0xd1342543de82ef95u + 1);
  return nm__mix64(key + (i + 1) * 0x9e3779b97f4a7c15u);
}

uint64_t nm__rng_u64(struct nm__rng *r) { return nm__rand_at(r->seed, r->stream, r->i++); }

uint64_t nm__rng_below(struct nm__rng *r, uint64_t n) {
  uint64_t floor = -n % n, x;      /* values below this would be over-represented */
  do x = nm__rng_u64(r); while (x < floor);
  return x % n;
}

double nm__rng_unit(struct nm__rng *r) { return (double)(nm__rng_u64(r) >> 11) * 0x1p-53; }

void nm__rng_shuffle(struct nm__rng *r, uint32_t *v, size_t n) {
  for (size_t i = n; i > 1; i--) {
    size_t j = (size_t)nm__rng_below(r, i);
    uint32_t t = v[i - 1];
    v[i - 1] = v[j];
    v[j] = t;
  }
}

uint64_t nm__hash(const void *p, size_t n, uint64_t seed) {
  return XXH3_64bits_withSeed(p, n, seed);
}

void nm__hash_hex(const void *p, size_t n, char hex[33]) {
  XXH128_hash_t h = XXH3_128bits(p, n);
  snprintf(hex, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void nm__hash_map(const struct nm__map *m, char hex[33]) {
  enum { PIECE = 1 << 24 };
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (size_t at = 0; at < m->size; at += PIECE) {
    XXH3_128bits_update(&state, m->data + at, m->size - at < PIECE ? m->size - at : PIECE);
    nm__map_drop(m, at, PIECE);
  }
  XXH128_hash_t h = XXH3_128bits_digest(&state);
  snprintf(hex, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

int nm__hash_file(const char *path, char hex[33], nm_err *err) {
  struct nm__map m;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  nm__hash_map(&m, hex);
  nm__map_close(&m);
  return NM_OK;
}
