#!/bin/bash
# noema trace-graph from outside: tables with their baselines, files it can read again, hostile
# files, Ctrl-C and going on, exit codes. Last line: "N passed, M failed".
. tests/cli/outside.bash
m=$root/models/planted.gguf
json() { if command -v python3 > /dev/null; then if python3 -m json.tool < "$1" > /dev/null 2>&1; then ok; else no "$1 is not JSON"; fi; fi; }
small="--graph ring:5 --words auto --contexts 6,12 --walks 3"

# ---- a model ----------------------------------------------------------------------
run 6 "planted" "$noema" trace-graph $m $small --ablate prev:2,ind:1 -o runs/a
prints '^as it is +[0-9.]+ / [0-9.]+'
for row in 'shuffled ' 'frequencies alone' 'random vectors' 'random, neighbours mixed once' 'previous-token top 2 off' \
           'induction top 1 off' 'random 2 off' 'INCONCLUSIVE'; do prints "$row"; done
prints 'blk\.0 head 3'
for f in trace.json accuracy.csv gram.csv accuracy.svg pca-12.svg pca-mixing.svg report.html; do [ -s runs/a/$f ] && ok || no "no $f"; done
[ -e runs/a/walks-0.bin ] && no "sums are left behind" || ok
json runs/a/trace.json
grep -q 'random_mixed' runs/a/trace.json && ok || no "no baseline in the JSON"
if command -v rsvg-convert > /dev/null; then for f in accuracy pca-12 pca-mixing; do run 0 "$f.svg" rsvg-convert runs/a/$f.svg -o x.png; done; fi
run 0 "record" "$noema" runs --dir runs; prints ' trace-graph '
run 2 "finished" "$noema" trace-graph $m $small -o runs/a; says 'already holds a finished run'
for o in "-t 1" "-t 3" "--chunk 4" "--kernels portable"; do
  "$noema" trace-graph $m $small --ablate prev:2,ind:1 $o --json -o "runs/o$RANDOM$RANDOM" > other.json 2> err
  cmp -s other.json runs/a/trace.json || diff <(tr -d ' \n' < other.json) <(tr -d ' \n' < runs/a/trace.json) > /dev/null && ok || no "$o changes the figures"
done
run 6 "layers" "$noema" trace-graph $m $small --layers 1,3-4 -o runs/l
prints '^blk\.1\.resid_post '; prints '^blk\.4\.resid_post '
grep -q '^embed' out && no "embed was not asked for" || ok
"$noema" trace-graph $m $small -o runs/p 2> err | head -1 > /dev/null; ok

# ---- its own files -------------------------------------------------------------------
run 6 "again" "$noema" trace-graph --gram runs/a/gram.csv --accuracy runs/a/accuracy.csv --graph ring:5 -o runs/b
prints 'random, neighbours mixed once'; prints 'copying it cannot be told'
is "the same R2" "$(grep -m1 '^gram.csv' out | awk '{print $3}')" \
  "$(grep -A99 'last 200 of 12' <("$noema" trace-graph $m $small --ablate prev:2,ind:1 -o runs/c 2> err) | awk '$1 ~ /^blk/ && $1 !~ /,$/ && $3 > b { b = $3 } /^$/ { exit } END { print b }')"

# ---- the published figures --------------------------------------------------------------
d=$root/../shared/data/in-context-representations
if [ -r $d/llama31_8b_L26_class_mean_gram.csv ]; then
  run 6 "llama" "$noema" trace-graph --gram $d/llama31_8b_L26_class_mean_gram.csv --accuracy $d/llama31_8b_grid4x4_accuracy.csv -o runs/llama
  prints 'gram.csv +16 +0\.961 .* 0\.838 +0\.810 .* 0\.968 +0\.361'
  prints ' 400 +0\.841'; prints '1300 +0\.908'; prints 'not above it in both'
else echo "skipped: no ../shared"; fi

# ---- what is refused --------------------------------------------------------------------
printf 'apple\nfox\nfox\n' > twice; printf 'zzyzx\nqqqq\n' > few
echo '{"edges": [[0, 1], [2, 3]]}' > parts.json; echo '{"edges": [[0, 1], [1, 2], [2, 0]]}' > three.json
run 3 "twice" "$noema" trace-graph $m --words twice --graph ring:3; says "twice:3: 'fox' stands twice"
run 2 "few" "$noema" trace-graph $m --words few --graph ring:3; says 'not: zzyzx, qqqq'; says 'Words of this vocabulary: '
run 3 "parts" "$noema" trace-graph $m --graph parts.json; says 'only 2 of 4 nodes'
run 6 "edges" "$noema" trace-graph $m --graph three.json --words auto --contexts 6 --walks 2 -o runs/e; prints 'nan|-'
run 2 "graph" "$noema" trace-graph $m --graph grid:1x1; says 'at least 2x2'
run 2 "no graph" "$noema" trace-graph $m --graph torus:4; says 'grid:4x4, ring:10, hex:14'
run 2 "context" "$noema" trace-graph $m $small --contexts 6,100000 -o x; says 'does not fit the context'
run 2 "order" "$noema" trace-graph $m --words auto --graph ring:5 --contexts 9,6; says 'ascending'
run 2 "contexts" "$noema" trace-graph $m --contexts 6,x; says 'such as 10,50,400'
run 2 "layers" "$noema" trace-graph $m $small --layers x; says 'embed,3,5-8'
for a in prev ind:0 foo:1 prev:99 prev:1,; do run $([ $a = prev:1, ] && echo 6 || echo 2) "ablate $a" "$noema" trace-graph $m $small --ablate $a -o runs/z$RANDOM; done
run 2 "both" "$noema" trace-graph $m --gram runs/a/gram.csv; says 'go without a model'
run 3 "nodes" "$noema" trace-graph --gram runs/a/gram.csv; says 'holds 5 nodes, the graph grid:4x4 has 16'
run 3 "not a matrix" "$noema" trace-graph --gram runs/a/accuracy.csv
run 3 "not accuracies" "$noema" trace-graph --accuracy $m
run 3 "no file" "$noema" trace-graph --gram none.csv

# ---- stopped and gone on ---------------------------------------------------------------------
big="--graph ring:5 --words auto --contexts 30 --walks 400"
"$noema" trace-graph $m $big -o runs/s > out 2> err & p=$!
for _ in $(seq 200); do [ -s runs/s/walks-0.bin ] && break; sleep 0.02; done
kill -INT $p; wait $p; is "Ctrl-C" $? 130
[ -s runs/s/walks-0.bin ] && ok || no "nothing is kept"
run 6 "gone on" "$noema" trace-graph $m $big -o runs/s
run 6 "at once" "$noema" trace-graph $m $big -o runs/t
cmp -s runs/s/trace.json runs/t/trace.json && ok || no "going on changes the figures"

echo "$pass passed, $fail failed"
[ $fail = 0 ]
