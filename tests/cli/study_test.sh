#!/bin/bash
# noema study from outside: the list, a quick run and its files, finished seeds, a known mistake,
# wrong words. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=100

try 0 "$noema" study
prints '^concept-depth'
prints '^retrieval-heads'
faults=$(sed -n "/^concept-depth/,/^in-context/s/^  --fault \([a-z-]*\) .*/\1/p" out)
is "known mistakes" "$(echo "$faults" | wc -l)" 6

# Quick shows that it runs and proves nothing: inconclusive, with every control in its bounds.
try 6 "$noema" study concept-depth --quick --seeds 1 -o a
prints '^concept-depth: inconclusive'
prints '^shuffled, high .* ok$'
grep -q ' RED$' out && no "a control left its bounds" || ok
for f in study.json report.html; do [ -s a/$f ] && ok || no "a/$f is missing"; done
try 6 "$noema" study concept-depth --quick --seeds 1 --json -o a
grep -q '"claims"' out && ok || no "no claims in the JSON"
is "a finished seed is not trained again" "$(grep -c tokens err)" 0
try 6 "$noema" study concept-depth --quick --seeds 1 -t 1 -o b
for d in a b; do grep -v '"seconds"' $d/seed-1.json > $d.figures; done
cmp -s a.figures b.figures && ok || no "one thread gives other figures"
cmp -s a/model-1.gguf b/model-1.gguf && ok || no "one thread gives another model"

# With a known mistake put in it must not pass.
for f in $faults; do
  try 5 "$noema" study concept-depth --quick --seeds 1 --fault "$f" -o "fault-$f"
  prints '^concept-depth: fail'
done

try 2 "$noema" study nothing; says "nothing"
# Retrieval heads: an untrained miniature cannot conclude, and one whose failures count is noticed.
try 6 "$noema" study retrieval-heads --quick --seeds 1 -o heads
prints '^retrieval-heads: inconclusive'
try 5 "$noema" study retrieval-heads --quick --seeds 1 --fault failed-answers -o headsf
prints '^retrieval-heads: fail'
try 2 "$noema" study concept-depth --fault nothing; says "nothing"
try 2 "$noema" study concept-depth --seeds 1,x; says "x"
echo "$pass passed, $fail failed"
[ $fail = 0 ]
