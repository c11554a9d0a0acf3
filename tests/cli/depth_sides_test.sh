#!/bin/bash
# noema depth beside itself: noise, rounded weights, several models; forests, many labels, anchors.
. tests/cli/outside.bash
limit=300
planted=$root/models/planted.gguf
jq_() { /usr/bin/python3 -c "import json,sys; d=json.load(open('$1')); print($2)"; }
have_python() { command -v /usr/bin/python3 > /dev/null; }
"$noema" world planted-a -n 24 -s 1 -o a.tsv
"$noema" world planted-b -n 24 -s 2 -o b.tsv
base="--data A=a.tsv --data B=b.tsv --group set --site resid_post --repeats 3"

# The plain run, and the ladder: the first rung is that run bit for bit; nothing temporary is left.
try 0 "$noema" depth $planted $base -o plain
try 0 "$noema" depth $planted $base --bits f32,8,4,2 -o bits
prints '^A, by bits'
prints '^2-bit '
prints 'f32 \(2\) = 8-bit \(2\)'
for f in depth.csv depth.svg; do cmp -s plain/$f bits/f32/$f && ok || no "the rung f32 has another $f"; done
ls bits/cache | grep -q gguf && no "a rounded file was left behind" || ok
for f in depth.json depth.csv depth.svg depth-2.svg report.html 4-bit/report.html; do [ -s bits/$f ] && ok || no "bits/$f is missing"; done
# A rung is not the model as it is stored: a model of random weights has other vectors at 2 bits.
"$noema" bench --make tiny:F32 -s 3 -o random.gguf
try 0 "$noema" depth random.gguf $base --bits f32,8,2 -o rungs
cmp -s rungs/f32/depth.csv rungs/2-bit/depth.csv && no "2 bits change nothing" || ok
if have_python; then
  is "blocks of A" "$(jq_ bits/depth.json "[s['converging'] for s in d['data'][0]['sides']]")" "[2, 2, 2, 2]"
  is "blocks of B" "$(jq_ bits/depth.json "[s['converging'] for s in d['data'][1]['sides']]")" "[4, 4, 4, 4]"
  is "paired" "$(jq_ bits/depth.json "all(s['paired'] for x in d['data'] for s in x['sides'])")" True
  is "shift" "$(jq_ bits/depth.json "d['data'][0]['sides'][3]['shift_blocks']")" "[0.0, 0.0, 0.0]"
fi

# Noise: clean and noisy beside each other, the clean side the plain run.
try 0 "$noema" depth $planted $base --noise -o noise --json
prints '"by": "noise"'
cmp -s plain/depth.csv noise/clean/depth.csv && ok || no "the clean side differs from the plain run"
cmp -s noise/noise/depth.csv noise/clean/depth.csv && no "noise changes nothing" || ok
grep -q 'aaa or bbb in front' noise/noise/depth.json && ok || no "the noisy side has no noise"

# Several models: relative depth, order, names; a finished folder is refused, --resume is the same.
cp $planted twin.gguf
try 0 "$noema" depth $planted R=random.gguf twin.gguf $base -o models
prints 'planted \(0.50\) = twin \(0.50\); not ranked, being not above all controls: R'
prints '^R '
cp models/depth.json first.json
try 2 "$noema" depth $planted R=random.gguf twin.gguf $base -o models; says 'already holds'
try 0 "$noema" depth $planted R=random.gguf twin.gguf $base -o models --resume
cmp -s models/depth.json first.json && ok || no "a comparison made again differs"
rm -r models/depth.json models/twin      # cut off before the last model
try 0 "$noema" depth $planted R=random.gguf twin.gguf $base -o models --resume
cmp -s models/depth.json first.json && ok || no "a comparison that went on differs"
cmp -s plain/depth.csv models/planted/depth.csv && ok || no "a side differs from the same run alone"

# Forests: the same bits for any number of threads; they read A where its parts are, a block earlier.
for t in 1 3; do try 0 "$noema" depth $planted --data a.tsv --group set --site resid_post --repeats 2 --probe rf -t $t --save-probe rf$t.probe -o rf$t; done
cmp -s rf1/depth.csv rf3/depth.csv && ok || no "a forest differs by threads"
cmp -s rf1.probe rf3.probe && ok || no "a saved forest differs by threads"
grep -q '"converging": 1,' rf1/depth.json && ok || no "a forest does not read A in block 1"
grep -q '"above_all_controls": true' rf1/depth.json && ok || no "a forest is not above its controls"
try 0 "$noema" probe apply $planted rf1.probe -p 'eve saw the red fox by night it went up ?'; prints '^yes'
try 0 "$noema" probe apply $planted rf1.probe -p 'eve saw the blue fox by night it went up ?'; prints '^no'
try 0 "$noema" depth random.gguf --data a.tsv --group set --repeats 2 --probe rf -o rfr
grep -q '"above_all_controls": false' rfr/depth.json && ok || no "a forest reads A in random weights"

# Four labels, A and up/down: A from block 2 on, the other from block 3 on; half right is 0.5.
awk -F'\t' 'NR == 1 { print "text\tlabel\tset"; next }
  { a = ($1 ~ /red/) != ($1 ~ /day/); print $1 "\t" (a ? "b" : "a") ($1 ~ /(^| )up( |$)/ ? "x" : "y") "\t" $3 }' b.tsv > four.tsv
for p in lr rf; do
  try 0 "$noema" depth $planted --data four.tsv --group set --site resid_post --repeats 3 --probe $p --save-probe $p.probe -o four-$p
  prints 'chance is 0.250'; prints '^2 +0.500'; prints '^3 +1.000'
  grep -q '"converging": 3,' four-$p/depth.json && ok || no "$p: four labels do not converge at block 3"
  grep -q '"shuffled_covers_chance": true' four-$p/depth.json && ok || no "$p: shuffled labels"
  for w in "red day up ay=ax" "red night up bx=bx" "blue night down ay=ay"; do
    set -- $w
    try 0 "$noema" probe apply $planted $p.probe -p "eve saw the $1 fox by $2 it went $3 ?"; prints "^${4#*=}"
  done
done
have_python && is "confusion" "$(jq_ four-lr/depth.json "[[x > 0 for x in r] for r in d['curves'][0]['confusion_at_peak']] == [[i == j for j in range(4)] for i in range(4)]")" True
# Labels that are tokens are asked for by their logits.
awk -F'\t' 'NR == 1 || NR % 3 { print; next } { print $1 "\tred\t" $3 }' a.tsv > three.tsv
try 0 "$noema" depth $planted --data three.tsv --group set --repeats 2 -o three
prints "own answer 0\\.[0-9]+ right"
# MMLU's layout, with and without a line of names.
{ echo 'question,A,B,C,D,answer'; for i in $(seq 40); do echo "ann saw $i ?,red,day,up,fox,$(printf 'ABCD' | cut -c$((i % 4 + 1)))"; done; } > mmlu.csv
tail -n +2 mmlu.csv > nohead.csv
for f in mmlu nohead; do try 0 "$noema" depth $planted --data X=$f.csv --repeats 2 -c 256 -o $f; prints "prompt 'choice'"; prints '10 of A, 10 of B'; done
cmp -s mmlu/depth.csv nohead/depth.csv && ok || no "the layout without names gives other figures"

# Anchors.
try 0 "$noema" depth $planted --data a.tsv --group set --repeats 2 --anchor 0.9:paper --anchor words --anchor own -o anchor
prints 'anchor +paper, 0.900: the probe reaches it at block 3'
prints 'anchor +bag of words'; prints 'anchor +own answer'
grep -q 'paper' anchor/depth.svg && ok || no "the figure lacks the anchor"
try 2 "$noema" depth $planted --data a.tsv --anchor 1.5 -o x; says 'accuracy'
try 2 "$noema" depth $planted --data a.tsv --anchor best -o x; says 'own'

# Wrong use.
try 2 "$noema" depth $planted --data a.tsv --probe svm; says 'lr, rf'
try 2 "$noema" depth $planted --data a.tsv --bits f32,1 -o x; says 'not known'
try 2 "$noema" depth $planted --data a.tsv --bits 8 -o x; says 'two or more'
try 2 "$noema" depth $planted --data a.tsv --bits 8,8 -o x; says 'two runs are called'
try 2 "$noema" depth $planted twin.gguf --data a.tsv --bits f32,8 -o x; says 'one MODEL'
try 2 "$noema" depth $planted twin.gguf --data a.tsv --edit nothing.json -o x; says 'several are compared without'
try 3 "$noema" depth $planted nosuch.gguf --data a.tsv --repeats 2 -o y; says 'nosuch'
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
