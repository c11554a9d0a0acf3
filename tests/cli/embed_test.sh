#!/bin/bash
# noema embed, and encoders under the other verbs: what is printed and written, the same bits in
# any company, exit codes with their sentences. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=120
dec=$root/models/planted.gguf enc=enc.gguf
same() { if cmp -s "$2" "$3"; then ok; else no "$1: $2 and $3 differ"; fi; }
shape() {
  local found
  found=$(head -c 128 "$1" | LC_ALL=C tr -cd '[:print:]' | sed -n "s/.*'shape': \(([0-9, ]*)\).*/\1/p")
  is "$1" "$found" "$2"
}
json() {
  command -v python3 > /dev/null || return
  while read -r line; do
    printf '%s' "$line" | python3 -m json.tool > /dev/null 2>&1 || { no "$1: not JSON"; return; }
  done < out
  ok
}

"$noema" bench --make tiny-bert:F32 -o $enc || no "bench --make tiny-bert"
printf 'text\nann saw the red fox\nbob saw the blue fox by night it went up\nann\n' > s.csv
printf '{"ids": [1, 7, 9]}\n{"ids": [1, 7, 9, 11, 300]}\n' > ids.jsonl

# ---- what is given -------------------------------------------------------------
for m in $enc $dec; do
  run 0 "json of $m" "$noema" embed $m --data s.csv --json
  is "a line a text" "$(wc -l < out)" 3
  prints '^\{"seq": 2, "tokens": [0-9]+, "pooling": "(mean|last)", "normalised": true, "embedding": \['
  json "embed --json"
  run 0 "npy of $m" "$noema" embed $m --data s.csv -o all.npy
  run 0 "similarity of $m" "$noema" embed $m --data s.csv --similarity
  is "a matrix with its head" "$(wc -l < out)" 4
  prints '^ +1 +1\.0000 +[-0-9.]+ +[-0-9.]+$'
  is "it is symmetric" "$(awk 'NR == 2 { print $3 }' out)" "$(awk 'NR == 3 { print $2 }' out)"
  run 0 "similarity as JSON" "$noema" embed $m --data s.csv --similarity --json
  is "vectors, then the matrix" "$(wc -l < out)" 4
  json "embed --similarity --json"
  run 0 "one text of $m" "$noema" embed $m -p 'ann saw the red fox' -o one.npy
  # The first row of all is the text alone: the last D floats of both files' first row.
  d=$(($(stat -c %s one.npy) - 128))
  tail -c +129 all.npy | head -c $d > a.row
  tail -c +129 one.npy > b.row
  same "a text alone and in company" a.row b.row
done
shape all.npy '(3, 32)'
shape one.npy '(1, 32)'

# ---- nothing but the text counts ---------------------------------------------------
"$noema" embed $enc --data s.csv -o base.npy
for o in "-t 1" "-t 3" "--batch 1" "--chunk 2" "--kernels portable" "-c 100"; do
  run 0 "$o" "$noema" embed $enc --data s.csv $o -o other.npy
  same "with $o" base.npy other.npy
done

# ---- pooling, length, prefix ---------------------------------------------------------
run 0 "none" "$noema" embed $enc --ids '1 7 9' --pooling none --no-normalise -o none.npy
shape none.npy '(3, 64)'
run 0 "last" "$noema" embed $enc --ids '1 7 9' --pooling last --no-normalise -o last.npy
run 0 "cls" "$noema" embed $enc --ids '1 7 9' --pooling cls --no-normalise -o cls.npy
tail -c +129 none.npy | head -c 256 > first.row; tail -c 256 none.npy > end.row
tail -c +129 cls.npy > cls.row; tail -c +129 last.npy > last.row
same "cls is the first" first.row cls.row
same "last is the last" end.row last.row
run 0 "none as JSON" "$noema" embed $enc --data ids.jsonl --pooling none --json
prints '"tokens": 5, "pooling": "none", "normalised": true, "embeddings": \[\['
json "pooling none"
"$noema" embed $enc -p 'search: ann' -o a.npy && "$noema" embed $enc -p ann --prefix 'search: ' -o b.npy
same "a prefix is text in front" a.npy b.npy
"$noema" embed $enc -p ann -o c.npy
cmp -s a.npy c.npy && no "the prefix has no effect" || ok

# ---- refusals ---------------------------------------------------------------------------
run 2 "nothing asked for" "$noema" embed $enc -p ann; says 'say what to give'
run 2 "no input" "$noema" embed $enc --json; says 'one of --ids, -p and --data'
run 2 "unknown pooling" "$noema" embed $enc -p ann --pooling max --json; says 'max is not known'
run 2 "pooling rank" "$noema" embed $enc -p ann --pooling rank --json; says 'not known'
run 2 "cls of a decoder" "$noema" embed $dec -p ann --pooling cls --json; says 'sees nothing but itself'
run 2 "none of several" "$noema" embed $enc --data s.csv --pooling none -o x.npy; says 'do not fit one'
run 2 "none, similarity" "$noema" embed $enc --data s.csv --pooling none --similarity; says 'one vector a text'
run 2 "a prefix of ids" "$noema" embed $enc --ids '1 2' --prefix a --json; says 'in front of texts'
run 2 "a prefix of ids in a file" "$noema" embed $enc --data ids.jsonl --prefix a --json; says 'in front of texts'
run 3 "a missing model" "$noema" embed nowhere.gguf -p a --json; says 'nowhere.gguf'
run 3 "an id outside" "$noema" embed $enc --ids 99999 --json; says 'outside the vocabulary'
run 1 "no such folder" "$noema" embed $enc -p ann -o nowhere/x.npy; says 'nowhere/x.npy'
run 2 "a context beyond the positions" "$noema" embed $enc -p ann -c 513 --json; says 'positions for 512 only'
run 3 "a text longer than the context" "$noema" embed $enc -p "$(seq -s ' ' 300)" --json; says 'longer than the context of 512'
[ -e x.npy ] && no "a refused run left a file" || ok
run 0 "dry run" "$noema" embed $enc --data s.csv --dry-run; prints '^total'

# ---- edits --------------------------------------------------------------------------------
echo '{"site": "enc.blk.0.attn_out", "op": "zero"}' > e.json
run 0 "edited" "$noema" embed $enc --ids '1 7 9' --edit e.json -o edited.npy; says ': 3 positions edited'
"$noema" embed $enc --ids '1 7 9' -o plain.npy
cmp -s edited.npy plain.npy && no "the edit has no effect" || ok

# ---- Ctrl-C -------------------------------------------------------------------------------
yes 'some words of a longer text that goes on and on' | head -40000 | sed '1i text' > long.csv
"$noema" embed $enc --data long.csv -o long.npy -t 1 2> err & pid=$!
sleep 0.2; kill -INT $pid; wait $pid; st=$?
is "Ctrl-C: exit code" $st 130
says interrupted
[ -e long.npy ] && no "an interrupted run left a file" || ok

# ---- encoders under the other verbs ---------------------------------------------------------
run 3 "logits of an encoder" "$noema" logits $enc -p ann; says 'no vocabulary head'
run 2 "the logits site" "$noema" acts $enc --site logits -p ann -o x.npy; says 'no vocabulary head'
run 2 "the final norm" "$noema" acts $enc --site final_norm -p ann -o x.npy; says 'no final norm'
run 2 "enc. of a decoder" "$noema" acts $dec --site enc.embed -p ann -o x.npy; says 'is a decoder'
run 0 "sites" "$noema" info $enc --sites; prints '^  enc\.blk\.N\.resid_mid_raw +64 +256'
prints 'head none'; prints 'sentence vectors: mean'
grep -qE 'logits|final_norm' out && no "info shows sites that are not there" || ok
run 0 "acts" "$noema" acts $enc --site 'enc.blk.*.resid_post' -p ann -o acts.npy
run 0 "acts without enc." "$noema" acts $enc --site 'blk.*.resid_post' -p ann -o acts2.npy
same "names with and without enc." acts.npy acts2.npy
run 0 "acts to a folder" "$noema" acts $enc --site '*.attn.pattern|enc.embed' --at all --data s.csv -o dir
[ -s dir/enc.embed.00000.npy ] && [ -s dir/enc.blk.1.attn.pattern.00000.npy ] && ok || no "shards of acts: $(ls dir)"
run 0 "bench" "$noema" bench $enc -n 16
"$noema" world planted-a -n 20 -o a.tsv
run 0 "depth" "$noema" depth $enc --data a.tsv --repeats 3 -o runs/e --save-probe e.probe
prints "model's own answer none: an encoder has no vocabulary head"
prints 'not tested: an encoder has no vocabulary head'
ls runs/e/cache/vectors-*/enc.blk.1.resid_post.00000.npy > /dev/null 2>&1 && ok || no "depth did not read resid_post"
grep -q '"own_answer": null' runs/e/depth.json && ok || no "depth.json has an answer"
grep -q '"site": "enc.blk' e.probe && ok || no "the probe's site: $(head -3 e.probe)"
run 0 "a probe of an encoder" "$noema" probe apply $enc e.probe -p 'ann saw the red fox'

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
