#!/bin/bash
# Runs every example of the README and the docs: fenced blocks marked sh, in order, each file in
# a fresh folder with noema on the PATH and models/ at hand. A block marked `sh no-run` is shown only.
cd "$(dirname "$0")/.." || exit 1
root=$PWD pass=0 fail=0
mkdir -p build/bin
ln -sf "$(realpath "${NOEMA:-build/noema}")" build/bin/noema
export PATH="$root/build/bin:$PATH"
for f in README.md docs/*.md docs/*/*.md; do
  grep -q '^```sh$' "$f" || continue
  t=$(mktemp -d)
  ln -s "$root/models" "$t/models"
  { echo 'set -e'; awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on { sub(/^\$ /, ""); print }' "$f"; } > "$t/run.sh"
  if (cd "$t" && timeout 300 bash run.sh > out.txt 2>&1); then pass=$((pass + 1)); else
    fail=$((fail + 1)); echo "FAILED: $f"; tail -15 "$t/out.txt"; fi
  rm -rf "$t"
done
# The examples in the help of every verb.
t=$(mktemp -d)
ln -s "$root/models" "$t/models"
for v in $(noema --help | awk '/^  [a-z-]+  / { print $1 }'); do
  noema "$v" --help | awk '/^example:/ { on = 1; next } on { print }' > "$t/$v.sh"
done
(cd "$t" && bash depth.sh > /dev/null 2>&1 && noema depth models/planted.gguf --data a.tsv -o runs/p --save-probe a.probe > /dev/null 2>&1)
for v in $(noema --help | awk '/^  [a-z-]+  / { print $1 }'); do
  [ "$v" = depth ] && [ -d "$t/runs/a" ] && { pass=$((pass + 1)); continue; }
  if (cd "$t" && bash -e "$v.sh" > out.txt 2>&1); then pass=$((pass + 1)); else fail=$((fail + 1)); echo "FAILED: noema $v --help's example"; cat "$t/out.txt"; fi
done
rm -rf "$t"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
