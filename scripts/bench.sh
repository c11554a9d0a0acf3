#!/bin/sh
# Speed of whole models: random weights in real shapes. BENCH_DIR keeps the files.
noema=${NOEMA:-build/noema} dir=${BENCH_DIR:-build/bench}
mkdir -p "$dir"
for m in ${BENCH_MODELS:-tiny:F32 smollm2-135m:Q8_0}; do
  f="$dir/$(echo "$m" | tr : -).gguf"
  [ -f "$f" ] || "$noema" bench --make "$m" -o "$f" || exit 1
  echo "== $m"
  "$noema" bench "$f" -n 256
done
