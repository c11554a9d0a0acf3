#!/bin/bash
# Adapters and edits of weights from outside: --lora in every form and verb, showing, converting,
# merging, runs of noema train that open with their adapter, files that llama.cpp reads, mistakes.
# Last line: "N passed, N failed".
. tests/cli/outside.bash
planted=$root/models/planted.gguf data=$root/../shared/data/reference
for _ in $(seq 8); do echo '{"text": "ann saw the red fox by night"}'; done > texts.jsonl
# lora NAME BASE TARGETS: trains NAME/ with adapters, strongly enough to be seen.
lora() {
  cat > "$1.yaml" << END
base: $2
lora: {rank: 2, alpha: 8, targets: [$3]}
data: [{file: texts.jsonl}]
length: 8
batch: 2
steps: 6
schedule: {lr: 0.1}
checkpoint: {every: 3, keep: 9}
END
  run 0 "train $1" "$noema" train "$1.yaml" -o "$1"
}
# logits MODEL ...: of a few ids, as text.
logits() { "$noema" logits "$1" --ids "1 3 2 7 5" --at all --json "${@:2}" 2> err; }
# far MOST A B: the largest difference of two files of logits.
far() {
  paste -d ' ' <(tr ',[]' '  \n' < "$2") <(tr ',[]' '  \n' < "$3") |
    awk -v most="$1" '{ n = NF / 2; for (i = 1; i <= n; i++) { d = $i - $(i + n); if (d < 0) d = -d; if (d > m) m = d; k++ } }
      END { printf "%.2g of %d numbers\n", m, k; exit !(k > 100 && m <= most) }'
}
near() { d=$(far "$2" "$3" "$4") && ok || no "$1: differs by $d"; }
apart() { far 1e-3 "$2" "$3" > /dev/null && no "$1: nothing has changed" || ok; }

lora a $planted attn_q,attn_v,ffn_down
lora b $planted ffn_up,output.weight
logits $planted > base
logits $planted --lora a/adapter.gguf > with_a
says 'noema logits: adapter: a/adapter.gguf, scale 1: GGUF LoRA beside 18 matrices, rank 2'
apart "an adapter" base with_a
logits $planted --lora-scaled a/adapter.gguf 0 > off; cmp -s base off && ok || no "scale 0 changes a bit"
logits $planted --lora-scaled a/adapter.gguf 0.5 > half1
logits $planted --lora-scaled a/adapter.gguf:0.5 > half2
logits $planted --lora-scaled=a/adapter.gguf:0.5 -t 2 > half3
cmp -s half1 half2 && cmp -s half1 half3 && ok || no "F S, F:S and =F:S differ"
apart "half" half1 with_a
logits $planted --lora a/adapter.gguf --lora-scaled b/adapter.gguf -1 > both
is "two on stderr" "$(grep -c 'adapter: ' err)" 2
apart "two" both with_a

# A run's steps and result open as the model with its adapter.
logits a@latest > step; cmp -s step with_a && ok || no "a@latest is not the base with the adapter"
says 'adapter: a/checkpoints/step-000006.gguf, scale 1'
logits a/adapter.gguf > whole; cmp -s whole with_a && ok || no "adapter.gguf does not open with its model"
logits a@3 > step3; apart "a@3" step3 with_a
logits $planted --lora a@3 > step3b; cmp -s step3 step3b && ok || no "--lora a@3 is not a@3"
logits a@latest --lora b/adapter.gguf > ab; logits $planted --lora a/adapter.gguf --lora b/adapter.gguf > ba
cmp -s ab ba && ok || no "an adapter beside a run's own"
mv a/checkpoints/step-000003.state s3; cp "$planted" here.gguf; lora c here.gguf attn_q
cp a/adapter.gguf here.gguf; try 3 "$noema" logits c@latest --ids 1; says 'adapter'
"$noema" convert "$planted" -o here.gguf --type Q8_0 --force > out; try 3 "$noema" logits c@latest --ids 1; says 'as it was: its hash is'
rm here.gguf; try 3 "$noema" logits c@latest --ids 1; says 'cannot be opened there; give the model'

# Every verb that runs a model takes adapters; caches and folders know them.
try 0 "$noema" acts $planted -p "ann saw" --site 'blk.*.resid_post' -o acts --lora a/adapter.gguf
try 2 "$noema" acts $planted -p "ann saw" --site 'blk.*.resid_post' -o acts
try 0 "$noema" acts $planted -p "ann saw" --site 'blk.*.resid_post' -o acts --lora a/adapter.gguf
try 2 "$noema" acts $planted -p "ann saw" --site 'blk.*.resid_post' -o acts --lora-scaled a/adapter.gguf 0.5
try 0 "$noema" embed $planted -p "ann saw" --json --lora a/adapter.gguf
try 0 "$noema" world planted-a -o a.tsv
try 0 "$noema" depth $planted --data a.tsv -o runs/d --repeats 2 --lora-scaled a/adapter.gguf 0.5
grep -q 'scale 0.5: GGUF LoRA' runs/d/config.json && ok || no "config.json does not name the adapter"
try 0 "$noema" depth $planted --data a.tsv -o runs/p --repeats 2 --save-probe a.probe --lora a/adapter.gguf
try 0 "$noema" probe apply $planted a.probe -p "ann saw the red fox by night it went up ?" --lora a/adapter.gguf
says 'adapter: a/adapter.gguf'
try 0 "$noema" info a@latest
prints 'adapter +a/checkpoints/step-000006.gguf, scale 1'
try 0 "$noema" runs --dir runs
prints 'depth'

# Showing, converting, merging.
try 0 "$noema" adapter show a/adapter.gguf
prints 'blk.0.attn_q.weight +2 +32 +32 +4'
try 0 "$noema" adapter show a/adapter.gguf --json
prints '"weight": "blk.0.attn_q.weight"'
try 0 "$noema" adapter convert a/adapter.gguf --base $planted -o peft
try 2 "$noema" adapter convert a/adapter.gguf --base $planted -o peft
try 0 "$noema" adapter convert peft --base $planted -o back.gguf
logits $planted --lora peft > as_peft; cmp -s as_peft with_a && ok || no "PEFT gives other bits"
logits $planted --lora back.gguf > back; cmp -s back with_a && ok || no "GGUF to PEFT and back gives other bits"
grep -q '"q_proj"' peft/adapter_config.json && ok || no "target_modules: $(cat peft/adapter_config.json)"
try 0 "$noema" adapter merge $planted --lora a/adapter.gguf --lora-scaled b/adapter.gguf -1 -o merged.gguf
says 'stored as F32'
logits merged.gguf > merged; near "merged" 1e-4 merged both
try 2 "$noema" adapter merge $planted --lora a/adapter.gguf -o merged.gguf
try 0 "$noema" adapter merge a@latest -o step.gguf
logits step.gguf > step_m; near "a step merged" 1e-4 step_m with_a
try 0 "$noema" adapter merge $planted --lora a/adapter.gguf -o small.gguf --type Q8_0
logits small.gguf > small; near "merged as Q8_0" 3 small with_a

# Edits of weights: counted, and at strength 0 no bit changes.
echo '[{"weight": "blk.3.ffn_down.weight", "col": 1, "op": "zero"}, {"site": "blk.1.mlp.act", "op": "scale", "scale": 0.5}]' > e.json
logits $planted --edit e.json > edited
says 'edit 1: scale at blk.1.mlp.act, positions all: 5 positions edited'
says 'edit 2: zero of blk.3.ffn_down.weight, column 1, scale 1: 32 weights edited'
echo '{"weight": "blk.3.ffn_down.weight", "col": 1, "op": "noise", "scale": 0, "seed": 3}' > e.json
logits $planted --edit e.json > edited; cmp -s edited base && ok || no "strength 0 changes a bit"
echo '{"weight": "blk.3.ffn_down.weight", "col": 16, "op": "zero"}' > e.json
try 3 "$noema" logits $planted --ids 1 --edit e.json
says '32 rows and 16 columns'

# Mistakes.
try 2 "$noema" adapter
try 2 "$noema" adapter shwo a/adapter.gguf
try 2 "$noema" adapter show
try 2 "$noema" adapter merge $planted -o x.gguf
try 2 "$noema" adapter convert a/adapter.gguf -o x
try 2 "$noema" logits $planted --ids 1 --lora-scaled a/adapter.gguf
try 2 "$noema" logits $planted --ids 1 --lora-scaled a/adapter.gguf x
try 3 "$noema" logits $planted --ids 1 --lora none.gguf
try 3 "$noema" logits $planted --ids 1 --lora $planted
says 'is no adapter'
try 3 "$noema" adapter show texts.jsonl
(ulimit -f 4; trap '' XFSZ; "$noema" adapter merge $planted --lora a/adapter.gguf -o full.gguf > out 2> err)
is "a full disk" $? 1
[ ! -e full.gguf ] && ok || no "half a model was left"

# Bases of other families, as folders too, and what llama.cpp makes of our files.
llama=$(PATH="${LLAMA_CPP_BIN:-}:$PATH" command -v llama-logits)
[ -d "$data" ] || echo "skipped: ../shared is not here"
[ -n "$llama" ] || echo "skipped: llama.cpp's logits with adapters (LLAMA_CPP_BIN names a folder with llama-logits)"
for f in llama qwen2 phi3 gemma2 quant/qwen2-q8_0; do
  [ -d "$data" ] || break
  name=${f##*/} targets='"blk.*.attn_*.weight", "blk.*.ffn_*.weight"'
  case $f in gemma2 | llama | qwen2) targets=attn_q,attn_k,attn_output,ffn_down,ffn_up ;; phi3) targets=attn_qkv,attn_output,ffn_up ;; *) targets=attn_q,attn_v,ffn_gate ;; esac
  lora "of_$name" "$data/$f/model.gguf" $targets
  logits "$data/$f/model.gguf" > base
  logits "$data/$f/model.gguf" --lora of_$name/adapter.gguf > ours
  apart "$f" base ours
  try 0 "$noema" adapter convert of_$name/adapter.gguf --base "$data/$f/model.gguf" -o "peft_$name"
  try 0 "$noema" adapter convert "peft_$name" --base "$data/$f/model.gguf" -o "again_$name.gguf"
  if [ "$f" = llama ]; then        # an answer that grows: with the adapter, merged, without
    "$noema" adapter merge "$data/$f/model.gguf" --lora of_$name/adapter.gguf -o grown.gguf > out 2> err
    "$noema" run "$data/$f/model.gguf" -p hello -n 16 --temp 0 --lora of_$name/adapter.gguf > grown 2> err
    "$noema" run grown.gguf -p hello -n 16 --temp 0 > grown_merged 2> err
    "$noema" run "$data/$f/model.gguf" -p hello -n 16 --temp 0 > grown_base 2> err
    cmp -s grown grown_merged && ! cmp -s grown grown_base && ok || no "noema run with an adapter"
  fi
  [ -n "$llama" ] || continue
  most=3e-4; case $f in gemma2) most=2e-2 ;; quant*) most=0.9 ;; esac
  for a in of_$name/adapter.gguf again_$name.gguf; do
    "$llama" --lora $a 1 "$data/$f/model.gguf" 1 3 2 7 5 > theirs 2> err || no "llama.cpp: $(tail -1 err)"
    d=$(far $most <(sed 's/.*"logits"[^[]*//; s/[],[]/ /g; s/}//' ours | tr -s ' \n' '\n\n' | grep .) <(tr ' ' '\n' < theirs)) && ok || no "$f: llama.cpp differs by $d"
    echo "measured llama.cpp with $a: differs by $d"
  done
done
if [ -d "$data" ]; then             # a folder of Hugging Face's, whose q and k lie in another order
  try 0 "$noema" convert "$data/llama/model.gguf" -o hfdir
  lora of_hf "$t/hfdir" attn_q,attn_k,ffn_down
  logits hfdir --lora of_hf/adapter.gguf > hf; logits of_hf@latest > hf_step
  cmp -s hf hf_step && ok || no "a run on a folder does not open with its adapter"
  logits "$data/llama/model.gguf" --lora of_hf/adapter.gguf > gguf; near "the same adapter on the GGUF" 1e-4 hf gguf
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
