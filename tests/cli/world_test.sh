#!/bin/bash
# noema world from outside: the list, files and their lines, seeds, splits, wrong words, and that
# noema depth reads what is written. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=100
planted=$root/models/planted.gguf

try 0 "$noema" world
for w in lexical facts chase parity relation taxonomy sentiment count order walk needle knights planted; do grep -q "^$w " out && ok || no "$w is not listed"; done
grep -q -- '--set hops=1..4' out && ok || no "parameters are not listed"

for w in lexical facts chase parity; do
  try 0 "$noema" world $w -n 100 -w 7 -s 3 -o $w.jsonl
  is "$w: lines" "$(wc -l < $w.jsonl)" 100
  is "$w: label 1" "$(grep -c '"label":1,' $w.jsonl)" 50
  "$noema" world $w -n 100 -w 7 -s 4 -o other.jsonl
  cmp -s $w.jsonl other.jsonl && no "$w: -s changes nothing" || ok
  "$noema" world $w -n 200 -w 7 -s 3 -o longer.jsonl
  head -100 longer.jsonl | cmp -s - $w.jsonl && ok || no "$w: a longer file begins otherwise"
  try 0 "$noema" depth "$planted" --data $w.jsonl --repeats 2 -o runs/$w
  grep -q 'nothing was shown' out && ok || no "$w: the planted model knows it"
  # The twins are found without being named.
  grep -q "by column 'twin'" runs/$w/depth.json && ok || no "$w: not grouped by twin"
done
try 0 "$noema" depth "$planted" --data facts.jsonl --group twin --repeats 2 -o runs/named

# The other worlds: lines, balance, prefixes.
for w in relation taxonomy sentiment count order walk needle knights; do
  try 0 "$noema" world $w -n 100 -w 7 -s 3 -o $w.jsonl
  is "$w: lines" "$(wc -l < $w.jsonl)" 100
  is "$w: label 1" "$(grep -c '"label":1,' $w.jsonl)" 50
  "$noema" world $w -n 200 -w 7 -s 3 -o longer.jsonl
  head -100 longer.jsonl | cmp -s - $w.jsonl && ok || no "$w: a longer file begins otherwise"
done

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

try 2 "$noema" world chase -o x --set hop=2; says "hops, k_min, k_max, fixed"
try 2 "$noema" world chase -o x --set hops=9; says "1 to 4"
try 2 "$noema" world chase -o x --set hops=3; says "k_min=4"
try 2 "$noema" world facts -o x --set a=1; says "none"
try 2 "$noema" world facts; says "-o FILE"
try 2 "$noema" world facts chase -o x; says "one world"
try 2 "$noema" world facts -n 0 -o x; says "-n must be"
try 2 "$noema" world facts -w -1 -o x; says "not negative"
try 2 "$noema" world facts --split half -o x; says "train\|test"
try 2 "$noema" world facts --form poem -o x; says "probe\|train\|both"
try 2 "$noema" world planted-a --set a=1 -o x; says "planted-a takes"
try 1 "$noema" world facts -o nowhere/x; says "nowhere/x"
[ -e x ] && no "a refused call wrote a file" || ok
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
