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
(ulimit -f 40; "$noema" train full.yaml -o runs/full > out 2> err < /dev/null)
is "a full disk: exit code" $? 1
says 'runs/full/.*(File too large|cannot be written|write)'
[ ! -e runs/full/model.gguf ] && ok || no "half a model was left"

# What a recipe can learn beside a whole model, and by which losses.
"$noema" train r.yaml -o runs/base -t 2 2> /dev/null > /dev/null
"$noema" world facts -n 60 -w 7 -o facts.jsonl 2> /dev/null > /dev/null
sed -E 's/.*"text":("[^"]*"),"answer":"yes".*/{"prompt":\1,"chosen":" no","rejected":" yes"}/
        s/.*"text":("[^"]*"),"answer":"no".*/{"prompt":\1,"chosen":" yes","rejected":" no"}/' facts.jsonl > pairs.jsonl
sed -E 's/.*"text":("[^"]*"),"answer":"yes".*/{"prompt":\1,"response":" yes","group":"forget"}/
        s/.*"text":("[^"]*"),"answer":"no".*/{"prompt":\1,"response":" no","group":"retain"}/' facts.jsonl > groups.jsonl
is "rows of pairs and groups" "$(grep -c chosen pairs.jsonl) $(grep -c group groups.jsonl)" "60 60"
mode() { # NAME FILE, the recipe from stdin: a run, its file, and the dry run that tells its memory
  { cat; printf 'base: runs/base/model.gguf\nlength: 32\nsteps: 6\nschedule: {lr: 0.01}\n'; } > $1.yaml
  try 0 "$noema" train $1.yaml -o runs/$1
  [ -s runs/$1/$2 ] && ok || no "runs/$1/$2 is missing"
  try 0 "$noema" train $1.yaml -o runs/dry --dry-run
  prints 'numbers that are learned'
}
mode prompt adapter.gguf <<'END'
soft_prompt: {n: 4, init: fermo}
data: [{world: facts, W: 7, n: 200}]
END
mode dpo adapter.gguf <<'END'
lora: {rank: 2, targets: [attn_q]}
loss: {kind: dpo, beta: 0.2}
data: [{file: pairs.jsonl}]
END
prints 'the frozen model of a loss'
mode forget model.gguf <<'END'
loss: [{kind: gradient_difference, weight: 0.3}, {kind: kl, group: retain}]
data: [{file: groups.jsonl, order: shuffled}]
taps: [{site: "blk.*.resid_post", every: 2, save: 3}]
probes: [{world: facts, W: 7, n: 60, site: blk.0.resid_post, every: 3}]
END
is "lines of taps and probes" "$(grep -c '"tap"' runs/forget/metrics.jsonl) $(grep -c '"shuffled"' runs/forget/metrics.jsonl)" "8 3"
[ -s runs/forget/taps/blk.1.resid_post-step-000006.npy ] && [ -s runs/forget/probes.svg ] && ok || no "taps or probes"
grep -q 'Probes while training' runs/forget/report.html && ok || no "no probes in the report"
grep -q '"1.kl"' runs/forget/metrics.jsonl && ok || no "a sum's parts are not told"
mode rows model.gguf <<'END'
rows: {token_embd.weight: [3]}
data: [{world: facts, W: 7, n: 200}]
END
is "bytes of one row" "$(cmp -l runs/base/model.gguf runs/rows/model.gguf | wc -l | awk '{ print ($1 > 0 && $1 <= 4 * 32) }')" 1
mode steer edits.json <<'END'
learn_vectors: [{name: up, site: blk.0.resid_post, at: "-2", scale: 2}]
data: [{world: facts, W: 9, n: 200}]
END
# The edit that was learned is one that others read, and it changes something.
try 0 "$noema" logits runs/base/model.gguf -p "fermo elonia ?" --edit runs/steer/edits.json --json
cp out edited
says '1 positions edited'
try 0 "$noema" logits runs/base/model.gguf -p "fermo elonia ?" --json
cmp -s out edited && no "a learned edit changes nothing" || ok
printf '{%% for m in messages %%}{{ m.content }} {%% endfor %%}' > t.jinja
echo '{"messages": [{"role": "user", "content": "fermo elonia ?"}, {"role": "assistant", "content": "yes"}]}' > chat.jsonl
mode chat model.gguf <<'END'
chat: {template: t.jinja}
data: [{world: facts, W: 7, n: 50}, {file: chat.jsonl}]
END

# Mistakes in them: the line, before a folder is made.
wrong() {
  { cat; printf 'base: runs/base/model.gguf\nlength: 32\nsteps: 6\n'; } > bad.yaml
  try 3 "$noema" train bad.yaml -o runs/bad
  says "$1"
  [ ! -e runs/bad ] && ok || no "$1: a folder was made"
}
wrong 'bad.yaml:1: loss dpo needs pairs, and rows of .groups.jsonl' <<< $'loss: dpo\ndata: [{file: groups.jsonl}]'
wrong 'bad.yaml:1: loss .npq. is not known' <<< $'loss: npq\ndata: [{file: groups.jsonl}]'
wrong 'groups.jsonl:1: no loss names the group' <<< $'loss: {kind: npo, group: x}\ndata: [{file: groups.jsonl}]'
wrong "bad.yaml:1: the model has no tensor 'tok'" <<< $'rows: {tok: [1]}\ndata: [{file: groups.jsonl}]'
wrong 'bad.yaml:1: a probe' <<< $'probes: [{world: facts, site: embd, every: 2}]\ndata: [{file: groups.jsonl}]'

# Killed in the middle of a run of pairs: --resume gives the bytes of a run that was not.
sed 's/steps: 6/steps: 300/' dpo.yaml > kill.yaml
echo 'checkpoint: {every: 40}' >> kill.yaml
try 0 "$noema" train kill.yaml -o runs/k1 -t 2
"$noema" train kill.yaml -o runs/k2 -t 1 > out 2> err < /dev/null & p=$!
for _ in $(seq 1000); do grep -q '"step":100,' runs/k2/metrics.jsonl 2> /dev/null && break; sleep 0.02; done
kill -KILL $p
wait $p 2> /dev/null
is "killed" $? 137
try 0 "$noema" train kill.yaml -o runs/k2 -t 2 --resume
cmp -s runs/k1/adapter.gguf runs/k2/adapter.gguf && ok || no "a kill changes what is learned"
is "steps told once" "$(grep -c grad_norm runs/k2/metrics.jsonl)" 300

# A broken newest checkpoint is passed over, and said.
"$noema" train c.yaml -o runs/c2 -t 1 > out 2> err < /dev/null
printf x | dd of=runs/c2/checkpoints/step-000040.state bs=1 seek=900 conv=notrunc 2> /dev/null
try 0 "$noema" train c.yaml -o runs/c2 -t 1 --resume
says 'going on from step 36: .*step-000040'
cmp -s runs/c/model.gguf runs/c2/model.gguf && ok || no "going on behind a broken checkpoint changes the model"

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
