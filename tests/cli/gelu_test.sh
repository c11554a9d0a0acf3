#!/bin/bash
# --gelu: on every running verb, in the keys of what is kept, and only where there is a GELU.
root=$PWD noema=$(realpath "${NOEMA:-build/noema}") pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cd "$t" || exit 1
f=$root/../shared/data/reference/falcon/model.gguf

ok() { pass=$((pass + 1)); }
no() { fail=$((fail + 1)); echo "FAILED: $*"; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1: '$2', expected '$3'"; fi; }
code() {
  local want=$1 name=$2
  shift 2
  timeout 60 "$@" > out 2> err < /dev/null
  is "$name: exit code" $? "$want"
}
says() { if grep -qE -- "$1" err; then ok; else no "stderr lacks '$1': $(head -2 err)"; fi; }

"$noema" world planted -o p.gguf || no "world planted"
for v in logits acts depth probe bench; do
  "$noema" "$v" --help | grep -q -- --gelu && ok || no "$v --help does not name --gelu"
done
code 2 "unknown form" "$noema" logits p.gguf --ids "1 2" --gelu quick; says "gelu 'quick' is not known"
# A model without GELU computes the same.
for g in tanh erf; do
  code 0 "planted, $g" "$noema" logits p.gguf --ids "1 2 3" --gelu $g -o $g.npy
done
code 0 "planted" "$noema" logits p.gguf --ids "1 2 3" -o own.npy
cmp -s own.npy tanh.npy && cmp -s own.npy erf.npy && ok || no "--gelu changes a model without GELU"

if [ -e "$f" ]; then
  for g in tanh erf; do
    code 0 "falcon, $g" "$noema" logits "$f" --ids "1 2 3" --gelu $g -o $g.npy
  done
  code 0 "falcon" "$noema" logits "$f" --ids "1 2 3" -o own.npy
  cmp -s own.npy erf.npy && ok || no "falcon is not erf by default"
  cmp -s own.npy tanh.npy && no "tanh and erf are the same" || ok
  printf '{"ids": [1, 2, 3]}\n' > ids.jsonl
  code 0 "acts" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept
  code 0 "acts again" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept
  code 2 "acts, other form" "$noema" acts "$f" --site 'blk.*.mlp.act' --data ids.jsonl -o kept --gelu tanh
  says "holds another run"
else
  echo "skipped: ../shared is not here"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
