#!/bin/bash
# --gelu: on every running verb, in the keys of what is kept, and only where there is a GELU.
. tests/cli/outside.bash
f=$root/../shared/data/reference/falcon/model.gguf


"$noema" world planted -o p.gguf || no "world planted"
for v in logits acts depth probe bench; do
  "$noema" "$v" --help | grep -q -- --gelu && ok || no "$v --help does not name --gelu"
done
run 2 "unknown form" "$noema" logits p.gguf --ids "1 2" --gelu quick; says "not 'quick'"
# A model without GELU computes the same.
for g in tanh erf; do
  run 0 "planted, $g" "$noema" logits p.gguf --ids "1 2 3" --gelu $g -o $g.npy
done
run 0 "planted" "$noema" logits p.gguf --ids "1 2 3" -o own.npy
cmp -s own.npy tanh.npy && cmp -s own.npy erf.npy && ok || no "--gelu changes a model without GELU"

if [ -e "$f" ]; then
  for g in tanh erf; do
    run 0 "falcon, $g" "$noema" logits "$f" --ids "1 2 3" --gelu $g -o $g.npy
  done
  run 0 "falcon" "$noema" logits "$f" --ids "1 2 3" -o own.npy
  cmp -s own.npy erf.npy && ok || no "falcon is not erf by default"
  cmp -s own.npy tanh.npy && no "tanh and erf are the same" || ok
  printf '{"ids": [1, 2, 3]}\n' > ids.jsonl
  run 0 "acts" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept
  run 0 "acts again" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept
  run 2 "acts, other form" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept --gelu tanh
  says "holds another run"
else
  echo "skipped: ../shared is not here"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
