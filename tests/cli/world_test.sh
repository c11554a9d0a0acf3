#!/bin/bash
# noema world from outside: the list, files and their lines, seeds, splits, wrong words, and that
# noema depth reads what is written. Last line: "N passed, N failed".
noema=$(realpath "${NOEMA:-build/noema}") planted=$PWD/models/planted.gguf pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cd "$t" || exit 1
ok() { pass=$((pass + 1)); }
no() { fail=$((fail + 1)); echo "FAILED: $*"; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1: '$2', expected '$3'"; fi; }
# run CODE COMMAND...: runs, checks the exit code, leaves `out` and `err`.
run() {
  local code=$1
  shift
  timeout 100 "$@" > out 2> err < /dev/null
  is "${*:2}: exit code" $? "$code"
}
says() { if grep -qE -- "$1" err; then ok; else no "stderr lacks '$1': $(head -2 err)"; fi; }

run 0 "$noema" world
for w in lexical facts chase parity planted; do grep -q "^$w " out && ok || no "$w is not listed"; done
grep -q -- '--set hops=1..4' out && ok || no "parameters are not listed"

for w in lexical facts chase parity; do
  run 0 "$noema" world $w -n 100 -w 7 -s 3 -o $w.jsonl
  is "$w: lines" "$(wc -l < $w.jsonl)" 100
  is "$w: label 1" "$(grep -c '"label":1,' $w.jsonl)" 50
  "$noema" world $w -n 100 -w 7 -s 4 -o other.jsonl
  cmp -s $w.jsonl other.jsonl && no "$w: -s changes nothing" || ok
  "$noema" world $w -n 200 -w 7 -s 3 -o longer.jsonl
  head -100 longer.jsonl | cmp -s - $w.jsonl && ok || no "$w: a longer file begins otherwise"
  run 0 "$noema" depth "$planted" --data $w.jsonl --repeats 2 -o runs/$w
  grep -q 'nothing was shown' out && ok || no "$w: the planted model knows it"
  # The twins are found without being named.
  grep -q "by column 'twin'" runs/$w/depth.json && ok || no "$w: not grouped by twin"
done
run 0 "$noema" depth "$planted" --data facts.jsonl --group twin --repeats 2 -o runs/named

# A side of the split; no twin is on both, whatever the seed.
"$noema" world facts -n 400 -w 7 -s 1 --split train --form probe -o train.jsonl
"$noema" world facts -n 400 -w 7 -s 2 --split test --form probe -o test.jsonl
is "train lines" "$(grep -c '"split":"train"' train.jsonl)" 400
is "test lines" "$(grep -c '"split":"test"' test.jsonl)" 400
twins() { sed 's/.*"twin":\([0-9]*\).*/\1/' "$1" | sort -u; }
is "shared twins" "$(comm -12 <(twins train.jsonl) <(twins test.jsonl) | wc -l)" 0
is "cities held out" "$(twins test.jsonl | wc -l)" 24
grep -q parts train.jsonl && no "--form probe has parts" || ok
"$noema" world chase -n 5 --form train -o parts.jsonl
is "--form train" "$(grep -c '"text"' parts.jsonl)" 0

run 2 "$noema" world chase -o x --set hop=2; says "hops, k_min, k_max, fixed"
run 2 "$noema" world chase -o x --set hops=9; says "1 to 4"
run 2 "$noema" world chase -o x --set hops=3; says "k_min=4"
run 2 "$noema" world facts -o x --set a=1; says "none"
run 2 "$noema" world facts; says "-o FILE"
run 2 "$noema" world facts chase -o x; says "one world"
run 2 "$noema" world facts -n 0 -o x; says "-n must be"
run 2 "$noema" world facts -w -1 -o x; says "not negative"
run 2 "$noema" world facts --split half -o x; says "train or test"
run 2 "$noema" world facts --form poem -o x; says "probe, train or both"
run 2 "$noema" world planted-a --set a=1 -o x; says "planted-a takes"
run 1 "$noema" world facts -o nowhere/x; says "nowhere/x"
[ -e x ] && no "a refused call wrote a file" || ok
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
