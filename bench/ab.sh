#!/bin/bash
# ab.sh ROUNDS more|less OURS PEER: two commands in turns, A B A B. The last number either prints is
# its figure, and `more` or `less` of it is better. Prints: ours, peer (medians), then how many times
# better ours is: the median of the rounds' ratios, the least and the most. "- - - - -": one failed.
rounds=$1 better=$2 a=$3 b=$4
figure() { sh -c "$1" 2> /dev/null | grep -oE '[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?' | tail -n 1; }
for ((i = 0; i < rounds; i++)); do
  x=$(figure "$a") y=$(figure "$b")
  [ "$x" ] && [ "$y" ] || { echo "- - - - -"; exit 0; }
  echo "$x $y"
done | awk -v better="$better" '
  function median(v, n,   i, j, t) {
    for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
  }
  /-/ && !/e-/ { print; bad = 1; exit }
  { x[NR] = $1; y[NR] = $2; r[NR] = better == "less" ? $2 / $1 : $1 / $2 }
  END { if (!bad && NR) { m = median(r, NR); printf "%.6g %.6g %.3f %.3f %.3f\n", median(x, NR), median(y, NR), m, r[1], r[NR] } }'
