#!/bin/bash
# noema train from outside: dry run, a run and its files, Ctrl-C and --resume, mistakes with file and
# line, a full disk. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=100

cat > r.yaml <<'END'
model: {arch: llama, layers: 2, width: 32, heads: 2, context: 64}
tokenizer: {kind: word}
data:
  - {world: facts, W: 7, n: 500, order: shuffled}
eval:
  every: 20
  data: [{world: facts, W: 7, seed: 2, n: 50}]
batch: 16
slots: 2
steps: 40
schedule: {lr: 0.003}
checkpoint: {every: 20}
END
try 0 "$noema" train r.yaml --dry-run
grep -q 'numbers that are learned' out && [ ! -e runs ] && ok || no "dry run"
try 0 "$noema" train r.yaml
says 'step 40/40  loss .* test .* tokens/s .* of peak'
for f in metrics.jsonl loss.svg report.html model.gguf checkpoints/step-000040.gguf; do
  [ -s runs/r/$f ] && ok || no "runs/r/$f is missing"
done
is "metrics" "$(grep -c grad_norm runs/r/metrics.jsonl) $(grep -c '"eval"' runs/r/metrics.jsonl)" "40 2"
try 0 "$noema" info runs/r/model.gguf
try 0 "$noema" logits runs/r@latest -p "fermo elonia ?" --json
try 0 "$noema" runs --dir runs
grep -q ' train ' out && grep -q '40 steps, ' out && ok || no "noema runs lacks it: $(cat out)"
try 2 "$noema" train r.yaml
says 'already holds a run'

# Ctrl-C keeps a checkpoint; going on gives the bits of a run that was not stopped.
sed 's/steps: 40/steps: 4000/' r.yaml > long.yaml
"$noema" train long.yaml -t 1 > out 2> err < /dev/null & p=$!
for _ in $(seq 100); do grep -q '"step":30,' runs/long/metrics.jsonl 2> /dev/null && break; sleep 0.1; done
kill -INT $p
wait $p
is "Ctrl-C: exit code" $? 130
says 'stopped after step [0-9]+ of 4000; --resume goes on'
step=$(sed -n 's/.*stopped after step \([0-9]*\) of.*/\1/p' err)
[ -s runs/long/checkpoints/step-$(printf %06d "$step").state ] && ok || no "no checkpoint of $step"
sed 's/every: 20}/every: 9}/' r.yaml > c.yaml
try 0 "$noema" train c.yaml -t 1 -o runs/c
cmp -s runs/r/model.gguf runs/c/model.gguf && ok || no "threads or checkpoints change the model"

# Mistakes: file, line, a sentence.
bad() {
  sed "$1" r.yaml > bad.yaml
  try 3 "$noema" train bad.yaml -o runs/bad
  says "$2"
  [ ! -e runs/bad ] && ok || no "$1: a folder was made"
}
bad 's/width/widht/' "bad.yaml:1: model has no key 'widht'; is it 'width'?"
bad 's/facts, W: 7, n/factz, W: 7, n/' "bad.yaml:4: .*factz"
bad 's/{world: facts, W: 7, n: 500, order: shuffled}/{file: none.jsonl}/' 'bad.yaml:4: none.jsonl'
bad 's/lr: 0.003/lr: fast/' 'bad.yaml:11: lr must be a number'
bad 's/kind: word/kind: bytes/' 'bad.yaml:2: the kind of a tokenizer'
echo '{"text": 5}' > rows.jsonl
bad 's/{world: facts, W: 7, n: 500, order: shuffled}/{file: rows.jsonl}/' 'rows.jsonl:1: a row needs'
echo garbage > base.gguf
printf 'base: base.gguf\nlength: 8\nsteps: 2\ndata: [{world: facts}]\n' > bad.yaml
try 3 "$noema" train bad.yaml -o runs/bad
says 'bad.yaml:1: base.gguf'
try 3 "$noema" train none.yaml
says 'none.yaml'
try 2 "$noema" train
try 2 "$noema" train r.yaml -t -3

# A full disk: the run ends with a sentence.
sed 's/steps: 40/steps: 41/' r.yaml > full.yaml
(ulimit -f 40; trap '' XFSZ; "$noema" train full.yaml -o runs/full > out 2> err < /dev/null)
is "a full disk: exit code" $? 1
says 'runs/full/.*(File too large|cannot be written|write)'
[ ! -e runs/full/model.gguf ] && ok || no "half a model was left"

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
