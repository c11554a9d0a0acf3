#!/bin/bash
# train.sh LAYERS D VOCAB BATCH T [f32|bf16]: tokens a second of noema's training step on a GPT of
# that shape, the last line: the median of five steps after two. As bench/peer_torch.py.
noema=$(realpath "${NOEMA:-build/noema}") L=$1 D=$2 V=$3 B=$4 T=$5 act=${6:-f32}
t=$(mktemp -d) || exit 1
trap 'rm -rf "$t"' EXIT
awk -v V="$V" -v T="$T" 'BEGIN { srand(1); for (i = 0; i < 64; i++) { printf "{\"ids\": [%d", int(rand() * V)
  for (j = 1; j < T; j++) printf ", %d", int(rand() * V); print "]}" } }' > "$t/ids.jsonl"
cat > "$t/r.yaml" <<END
model: {arch: gpt2, layers: $L, width: $D, heads: $((D <= 128 ? D / 32 : D / 64)), context: $T, vocabulary: $V}
data:
  - {file: $t/ids.jsonl}
length: $T
batch: $B
slots: ${SLOTS:-1}
steps: 7
optimizer: {kind: adamw, decay: 0.1}
END
[ "$act" = f32 ] || echo "act: $act" >> "$t/r.yaml"
"$noema" train "$t/r.yaml" -o "$t/run" -t "${THREADS:-2}" > "$t/out" 2>&1 || { tail -n 3 "$t/out" >&2; exit 1; }
grep -oE '"tokens_per_s": ?[0-9.]+' "$t/run/metrics.jsonl" | grep -oE '[0-9.]+$' | tail -n 5 | sort -n | sed -n 3p
