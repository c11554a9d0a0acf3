#!/bin/bash
# A training step equals PyTorch's: a small GPT-2 with odd sizes, its loss, gradients and ten AdamW
# steps (tests/torch). Skipped where there is no PyTorch. Last line: "N passed, N failed".
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "$(dirname "${NOEMA:-build/noema}")")
python=
for p in python3 /usr/bin/python3; do
  "$p" -c 'import torch, numpy' 2> /dev/null && python=$p && break
done
[ "$python" ] || { echo "skipped: no PyTorch here (apt-get install python3-torch)"; exit 0; }
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
${CC:-gcc} -std=gnu17 -O1 -Wall -Wextra -Iinclude -Isrc -pthread -o "$t/step" tests/torch/step.c \
  "$build/libnoema.a" $(pkg-config --libs jansson libpcre2-8 libutf8proc sqlite3 libxxhash yaml-0.1) -lm &&
"$t/step" "$t" 2 || { echo "0 passed, 1 failed"; exit 1; }
OMP_NUM_THREADS=2 timeout 300 "$python" tests/torch/gpt2_step.py "$t"
