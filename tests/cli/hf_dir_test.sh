#!/bin/bash
# Directories and safetensors files from outside: what opens, what is shown, what is said.
# Last line: "N passed, N failed".
. tests/cli/outside.bash
data=$root/../shared/data


# ---- no models -----------------------------------------------------------------------
mkdir empty config
run 3 "an empty folder" "$noema" info empty; says 'empty: is a folder without config.json'
run 3 "running it" "$noema" logits empty/ --ids 1; says 'a folder without config.json'
echo '{"model_type": "llama"}' > config/config.json
run 3 "a config alone" "$noema" info config; says 'holds neither model.safetensors nor'
: > config/pytorch_model.bin
run 3 "pickled weights" "$noema" info config; says 'save the model as safetensors'
header='{"__metadata__":{"a":"b"},"x":{"dtype":"F8_E4M3","shape":[2,1],"data_offsets":[0,2]}} '
printf '\x5a\0\0\0\0\0\0\0%-90sab' "$header" > x.safetensors
run 0 "any safetensors" "$noema" info x.safetensors
prints 'x.safetensors: safetensors, 100 bytes, 1 metadata keys, 1 tensors'
prints 'no model here: x.safetensors: tensors alone'
run 0 "as JSON" "$noema" info x.safetensors --json; prints '"type": "F8_E4M3"'; prints '"a": "b"'
run 3 "running it" "$noema" logits x.safetensors --ids 1; says 'tensors alone are no model'
mv x.safetensors config/model.safetensors
run 0 "a tensor of another model" "$noema" info config; prints "no model here: .*tensor 'x' is not one"
echo '{"model_type": "mamba"}' > config/config.json
run 0 "an unknown kind" "$noema" info config; prints "model_type 'mamba' is not supported yet"
run 3 "running it" "$noema" logits config --ids 1; says "'mamba' is not supported yet"
is "one line" "$(wc -l < err)" 1

# ---- models ------------------------------------------------------------------------------
if [ -d "$data" ]; then
  for f in "$data"/models/malformed/safetensors/*.safetensors; do
    n=$(basename "$f") want=3
    [[ $n = ok-* ]] && want=0
    run $want "info $n" "$noema" info "$f"
    [ $want = 0 ] && prints 'no model here'
    [ $want = 3 ] && is "info $n: one line" "$(wc -l < err)" 1
  done
  hf=$data/models/stories260K/hf
  "$noema" logits "$data/models/stories260K/stories260K.f32.gguf" --ids '1 5 9' --json > want
  for p in "$hf" "$hf/" "$hf/config.json" "$hf/model.safetensors"; do
    run 0 "logits $p" "$noema" logits "$p" --ids '1 5 9' --json
    is "logits $p" "$(cksum < out)" "$(cksum < want)"
  done
  run 0 "info of a folder" "$noema" info "$hf"
  prints 'hf: safetensors, 1.0 MB'; prints 'rotary half pairs'
  run 0 "acts of a folder" "$noema" acts "$hf" --site '*.resid_post' --at all --ids '1 2 3' -o acts
  run 0 "acts, again" "$noema" acts "$hf" --site '*.resid_post' --at all --ids '1 2 3' -o acts
  mkdir stories
  cp "$hf"/* stories/ && cp "$data/models/stories260K/tok512.model" stories/tokenizer.model
  "$noema" logits "$data/models/stories260K/stories260K.f32.gguf" -p 'Once upon a' --json > want
  run 0 "text into a folder" "$noema" logits stories -p 'Once upon a' --json
  is "text into a folder" "$(cksum < out)" "$(cksum < want)"
  run 0 "a data set" "$noema" world planted-a -n 20 -s 1 -o a.tsv
  run 0 "depth of a folder" "$noema" depth stories/ --data a.tsv --repeats 2 -o depth
  run 0 "depth of the file" "$noema" depth "$data/models/stories260K/stories260K.f32.gguf" \
    --data a.tsv --repeats 2 -o depth-file
  curve() { cut -d, -f1-7 "$1/depth.csv"; }
  is "both curves" "$(curve depth)" "$(curve depth-file)"
  echo '{' > stories/tokenizer.json
  run 0 "a damaged tokenizer" "$noema" info stories; prints 'warning +no text in or out: .*tokenizer.json'
  run 0 "ids go all the same" "$noema" logits stories --ids '1 5 9' --top 1
  run 3 "text does not" "$noema" logits stories -p 'Once'; says 'tokenizer.json'
  run 0 "a folder of another kind" "$noema" info "$data/models/arch/clip"
  prints "no model here: .*'clip' is not supported yet"
else
  echo "skipped: ../shared is not here"
fi

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
