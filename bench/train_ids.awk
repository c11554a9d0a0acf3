# train_ids.awk - rows of ids for the training bench: awk -v V=1024 -v T=128 -v N=4096 -v S=1 -f
# A chain of order 1: after token t comes one of eight tokens of its own, each half as likely as the one before,
# so there is something to learn and a floor under the loss (1.375 nats). Numbers by Lehmer's generator: the same on
# every awk.
function next_random() { seed = (seed * 48271) % 2147483647; return seed }
BEGIN {
  seed = 1 + (S ? S : 1) * 7919
  for (n = 0; n < N; n++) {
    t = next_random() % V
    line = "{\"ids\": [" t
    for (i = 1; i < T; i++) {
      r = next_random() / 2147483647
      for (k = 0; k < 7 && r >= 0.5; k++) r = 2 * r - 1
      t = (t * 389 + k * 613 + 71) % V
      line = line ", " t
    }
    print line "]}"
  }
}
