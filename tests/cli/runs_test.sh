#!/bin/bash
# The records: config.json of every verb that makes a run, runs list, find, show, compare, clean,
# and rerun, from outside.
. tests/cli/outside.bash
command -v jq > /dev/null && has_jq=1 || { has_jq=; echo "skipped: jq is missing, config.json is looked at by grep"; }
cp "$root/models/planted.gguf" m.gguf
"$noema" world planted-a -n 20 -o "a b.tsv" 2> /dev/null
depth() { run 0 "depth $*" "$noema" depth m.gguf --data "it's=a b.tsv" --repeats 3 "$@"; }

# ---- what a record holds ----------------------------------------------------------
depth -o runs/one/
for key in noema verb utc argv cwd inputs environment model_hash kernels threads seed; do
  grep -q "\"$key\"" runs/one/config.json && ok || no "config.json lacks $key"
done
if [ $has_jq ]; then
  is "the words as typed" "$(jq -c .argv runs/one/config.json)" \
     '["noema","depth","m.gguf","--data","it'"'"'s=a b.tsv","--repeats","3","-o","runs/one/"]'
  is "what it read" "$(jq -c '[.inputs[].path]' runs/one/config.json)" '["m.gguf","a b.tsv"]'
fi
is "one store beside the folder" "$(ls runs)" "$(printf 'one\nruns.db')"
cat > r.yaml <<'Y'
model: {arch: llama, layers: 1, width: 32, heads: 2, context: 64}
tokenizer: {kind: word}
steps: 4
data: [{file: words.jsonl}]
Y
for i in 1 2 3 4; do echo "{\"text\": \"the fox and the dog $i\"}"; done > words.jsonl
run 0 "train" "$noema" train r.yaml -o runs/learned
grep -q '"path": "words.jsonl"' runs/learned/config.json && ok || no "train: the recipe's data is not recorded"
grep -q '"recipe"' runs/learned/config.json && ok || no "train: no recipe in config.json"
run 0 "acts" "$noema" acts m.gguf --site 'blk.*.resid_post' --data "a b.tsv" -o runs/acts
run 0 "acts goes on" "$noema" acts m.gguf --site 'blk.*.resid_post' --data "a b.tsv" -o runs/acts
run 0 "lens" "$noema" lens m.gguf -p 'ann saw the red fox by night ?' -o runs/lens
run 0 "patch" "$noema" patch m.gguf --clean 'ann saw the fox ?' --corrupt 'bob saw the fox ?' \
  --answer ann --wrong bob --component attn.head -o more/patch/
run 0 "vector" "$noema" vector make m.gguf --labelled "a b.tsv" --repeats 2 -o more/vector
for d in patch vector; do
  grep -q '"kernels"' more/$d/config.json && ok || no "more/$d/config.json lacks its settings"
  try 0 "$noema" rerun more/$d; prints "the same results"
done
for d in one learned acts lens; do
  grep -q '"argv"' runs/$d/config.json && ok || no "runs/$d has no record of its command"
done

# ---- list, find, show ---------------------------------------------------------------
try 0 "$noema" runs; is "four runs" "$(grep -c ' s  runs/' out)" 4
try 0 "$noema" runs list --json; is "four lines" "$(wc -l < out)" 4
try 0 "$noema" runs find learned; is "found by folder" "$(grep -c ' s  runs/' out)" 1
try 0 "$noema" runs find 'nothing like it'; says "nothing found"
try 2 "$noema" runs find
try 2 "$noema" runs loook; says "not 'loook'"
try 3 "$noema" runs --dir elsewhere; says "there is no runs.db"
try 0 "$noema" runs show 1; prints "verb     depth"; prints "m.gguf .*unchanged"
try 0 "$noema" runs show runs/one --json; prints '"argv"'
try 2 "$noema" runs show 99; says "has no run 99"
mkdir none; try 3 "$noema" runs show none; says "no folder of a run"
echo '{"noema": 3}' > none/config.json; try 3 "$noema" runs show none; says "is not the record"
echo '{"noema": "0", "verb": "x", "argv": [1]}' > none/config.json
try 3 "$noema" runs show none; says "is not the record"
echo '{"noema": "0", "verb": "x"}' > none/config.json
try 3 "$noema" rerun none; says "not made by a command"

# ---- rerun ---------------------------------------------------------------------------
mkdir sub
(cd sub && limit=60 && timeout 60 "$noema" rerun ../runs/one -o two > ../out 2> ../err); is "rerun: exit" $? 0
prints "^the same results: .*/sub/two"; prints " 0 differ, 0 in one folder only"
prints "depth.json: equal but for times and names"
cmp -s runs/one/depth.csv sub/two/depth.csv && ok || no "depth.csv differs"
try 0 "$noema" rerun runs/learned; prints "the same results: .*runs/learned-again"
cmp -s runs/learned/model.gguf runs/learned-again/model.gguf && ok || no "model.gguf differs"
try 0 "$noema" rerun runs/acts --json; prints '"same": true'
try 0 "$noema" rerun runs/lens; prints "the same results"
try 0 "$noema" rerun 1 --dry-run; prints "depth -o .*runs/one-again"
[ -e runs/one-again ] && no "--dry-run made a folder" || ok
try 2 "$noema" rerun runs/one -o runs/lens; says "is there already"
try 2 "$noema" rerun

# A result that is not the recorded one.
sed -i 's/1.0000/0.9000/' runs/one/depth.csv
try 5 "$noema" rerun runs/one -o x5; prints "depth.csv: differs"; prints "NOT the same results"
rm runs/lens/lens.svg
try 5 "$noema" rerun runs/lens -o x6; prints "lens.svg: only in the repeat"
# Data that are not what they were; a model that is not.
echo '{"text": "another"}' >> words.jsonl
try 3 "$noema" rerun runs/learned -o x7; says "words.jsonl: is not what the run read"; says "say --anyway"
[ -e x7 ] && no "a refused repeat left a folder" || ok
try 5 "$noema" rerun runs/learned -o x7 --anyway; says "words.jsonl: is not"; prints "model.gguf: differs"
printf x >> m.gguf
try 3 "$noema" rerun runs/one -o x8; says "m.gguf: is not what the run read"
rm m.gguf; try 3 "$noema" rerun runs/one -o x8; says "m.gguf: is gone"
try 0 "$noema" runs show 1; prints "m.gguf .*gone"
cp "$root/models/planted.gguf" m.gguf
mkdir moved; (cd moved && cp ../m.gguf . && "$noema" acts m.gguf --site embed -p 'ann saw' -o acts > ../out 2> ../err)
mv moved/acts there; rm -r moved
try 3 "$noema" rerun there; says "nobody can go"
run 3 "from standard input" sh -c "'$noema' acts m.gguf --site embed --data - -o runs/in < 'a b.tsv'"
run 2 "an option's near name" "$noema" rerun runs/one --anywya; says "did you mean --anyway"

# ---- compare --------------------------------------------------------------------------
depth --site resid_post -o runs/stream
try 0 "$noema" runs compare runs/one runs/stream
prints "^  --site +- +resid_post"; prints "^  site +mlp_norm +resid_post"
prints "curves.0.peak +3 +2"; is "and no more than differs" "$(grep -c -- '--repeats' out)" 0
try 0 "$noema" runs compare 1 runs/stream runs/learned --json
[ $has_jq ] && is "three columns" "$(jq -c '.settings.site' out)" '["mlp_norm","resid_post",null]'
try 0 "$noema" runs compare runs/stream runs/stream; prints "results: nothing differs"
try 2 "$noema" runs compare 1

# ---- clean ----------------------------------------------------------------------------
run 3 "a run that fails" "$noema" depth m.gguf --data words.jsonl -o runs/failed
mkdir runs/mine; echo keep > runs/mine/notes.txt
before=$(ls runs | wc -l)
try 0 "$noema" runs clean; is "nothing goes without --yes" "$(ls runs | wc -l)" "$before"
rm -r runs/acts-again
try 0 "$noema" runs clean --yes; prints "runs/acts-again +\(its folder is gone\)"
try 0 "$noema" runs clean --finished --keep 1 --free 1 --dry-run
is "the oldest first, until enough is free" "$(grep -c . out)" 1; says "would be removed"
ln -s "$t/runs/mine" runs/lens/link
try 0 "$noema" runs clean --finished --keep 1 --yes --json; prints '"removed": true'
is "the newest stays, and what noema did not make" "$(ls runs | grep -v runs.db | xargs)" "mine stream"
is "a link is not followed" "$(cat runs/mine/notes.txt)" keep
try 0 "$noema" runs; is "and so do the rows" "$(grep -c ' s  ' out)" 1
try 2 "$noema" runs clean --free much
# A folder whose config.json is not noema's stays.
echo '{"vocab_size": 3}' > runs/stream/config.json
try 0 "$noema" runs clean --finished --yes; says "runs/stream stays"
[ -e runs/stream/depth.csv ] && ok || no "a folder that is no run's was removed"

# ---- words that were meant ------------------------------------------------------------
try 2 "$noema" rnus; says "did you mean 'runs'"
try 2 "$noema" xyzzy; says "unknown verb 'xyzzy'; noema --help"
try 2 "$noema" logits m.gguf --promt x; says "did you mean --prompt"
try 2 "$noema" logits m.gguf --ids 1 --gelu erff; says "one of tanh\|erf, not 'erff'"
try 0 "$noema" --version; prints "jansson [0-9]"; prints "^noema [0-9]"
try 2 "$noema" --completion fish
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
