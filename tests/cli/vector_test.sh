#!/bin/bash
# noema vector from outside, and control vectors in any verb: files, the planted direction, the same
# logits by every way, sweeps, refusals. Last line: "N passed, M failed".
. tests/cli/outside.bash
m=$root/models/planted.gguf p='ann saw the red fox by day ?'
same() { if cmp -s "$2" "$3"; then ok; else no "$1: $2 and $3 differ"; fi; }
json() { if command -v python3 > /dev/null; then if python3 -m json.tool < "$1" > /dev/null 2>&1; then ok; else no "$1 is not JSON"; fi; fi; }

# ---- make ------------------------------------------------------------------------
"$noema" world planted-a -n 30 -s 1 -o train.tsv
for k in mean pca probe; do
  run 0 "make $k" "$noema" vector make $m --labelled train.tsv --method $k -o runs/$k
  prints 'separates best +block 2'; prints 'the vector separates texts'
  for f in vector.npy vector.gguf best.npy edit.json vector.json separation.svg report.html; do
    [ -s runs/$k/$f ] && ok || no "$k: no $f"
  done
  run 0 "cosine of $k" "$noema" vector show runs/mean/vector.gguf runs/$k/vector.gguf
  prints '^ +2 +3\.21[0-9]* +3\.21[0-9]* +1\.000000'
done
json runs/mean/vector.json
run 0 "threads" "$noema" vector make $m --labelled train.tsv -o runs/t1 -t 1 --json
same "threads" runs/t1/vector.npy runs/mean/vector.npy
run 0 "record" "$noema" runs --dir runs; prints ' vector '
awk -F'\t' 'NR > 1 && ($2 == "1" || tolower($2) ~ /yes|true/) { print $1 }' train.tsv > a.txt
awk -F'\t' 'NR > 1 && !($2 == "1" || tolower($2) ~ /yes|true/) { print $1 }' train.tsv > b.txt
run 0 "two files" "$noema" vector make $m --pos a.txt --neg b.txt -o runs/files
run 0 "two files, cosine" "$noema" vector show runs/mean/vector.gguf runs/files/vector.gguf
prints '^ +2 .* 1\.0000'
paste a.txt b.txt | sed 's/"//g' | awk -F'\t' '{ printf "{\"pos\": \"%s\", \"neg\": \"%s\"}\n", $1, $2 }' > pairs.jsonl
run 0 "pairs" "$noema" vector make $m --pairs pairs.jsonl --site mlp_out --method pca -o runs/pairs
[ -e runs/pairs/vector.gguf ] && no "a control vector of mlp_out" || ok

# ---- one vector, many ways to use it -------------------------------------------------
"$noema" logits $m -p "$p" -o plain.npy
"$noema" logits $m -p "$p" --edit runs/mean/edit.json -o edit.npy
run 0 "control vector" "$noema" logits $m -p "$p" --control-vector runs/mean/vector.gguf --control-vector-layer-range 2 2 -o cv.npy
says 'control vector at blk.2.resid_post, positions all: 9 positions edited'
same "edit and control vector" edit.npy cv.npy
cmp -s plain.npy cv.npy && no "the vector has no effect" || ok
run 0 "F S" "$noema" logits $m -p "$p" --control-vector-scaled runs/mean/vector.gguf 0 -o zero.npy
says ': 0 positions edited'
same "strength 0" plain.npy zero.npy
run 0 "F:S" "$noema" logits $m -p "$p" --control-vector-scaled runs/mean/vector.gguf:2 --control-vector-layer-range=2:2 -o two.npy
run 0 "twice" "$noema" logits $m -p "$p" --control-vector runs/mean/vector.gguf --control-vector runs/mean/vector.gguf --control-vector-layer-range 2 2 -o twice.npy
same "twice and times two" two.npy twice.npy
run 0 "several edits" "$noema" logits $m -p "$p" --edit runs/mean/edit.json --edit runs/mean/edit.json -o again.npy
same "several edits" two.npy again.npy
run 0 "scale" "$noema" vector scale runs/mean/vector.gguf 2 -o double.gguf
run 0 "doubled" "$noema" logits $m -p "$p" --control-vector double.gguf --control-vector-layer-range 2 2 -o doubled.npy
same "doubled file" two.npy doubled.npy
run 0 "run" "$noema" run $m -p "$p" -n 4 --temp 0 --control-vector-scaled runs/mean/vector.gguf 4
says 'positions edited'
run 0 "depth of add" "$noema" vector add runs/mean/vector.gguf runs/mean/vector.npy -o sum.npy
run 0 "sub" "$noema" vector sub double.gguf runs/mean/vector.gguf -o back.gguf
run 0 "back" "$noema" vector show back.gguf runs/mean/vector.gguf --json; json out
printf 'site: blk.2.resid_post\nop: add\nvector: runs/mean/vector.gguf\nschedule: {first: 1}\n' > s.yaml
run 0 "yaml" "$noema" run $m -p "$p" -n 4 --temp 0 --edit s.yaml; says 'positions edited'

# ---- sweep ----------------------------------------------------------------------------
"$noema" world planted-a -n 3 -s 9 -o held.tsv
run 0 "sweep" "$noema" vector sweep $m --edit runs/mean/edit.json --target yes --against no --prompts held.tsv --texts held.tsv --strengths=-1,0,1 -o runs/sweep
prints '^ +0 +[-+]0\.000 .* no '; prints '^ +1 .* yes '
prints 'beyond every random direction at 2 of 2'
for f in effect.svg damage.svg sweep.json report.html; do [ -s runs/sweep/$f ] && ok || no "sweep: no $f"; done
json runs/sweep/sweep.json
run 0 "sweep of one prompt" "$noema" vector sweep $m --control-vector runs/mean/vector.gguf --target yes -p "$p" --json; json out

# ---- refusals -----------------------------------------------------------------------------
run 2 "again" "$noema" vector make $m --labelled train.tsv -o runs/mean; says 'already holds'
run 2 "no texts" "$noema" vector make $m; says 'pairs, labelled data'
run 2 "half" "$noema" vector make $m --pos a.txt; says 'one against'
run 2 "method" "$noema" vector make $m --labelled train.tsv --method max -o runs/x; says "not 'max'"
run 2 "what" "$noema" vector bake $m; says 'make, sweep, add'
run 2 "nothing to sweep" "$noema" vector sweep $m --target yes -p ann; says 'nothing to sweep'
run 2 "strengths" "$noema" vector sweep $m --edit runs/mean/edit.json --target yes -p ann --strengths 1,x; says 'numbers with commas'
run 2 "range" "$noema" logits $m -p ann --control-vector runs/mean/vector.gguf --control-vector-layer-range 3 2; says 'two blocks'
run 2 "one value" "$noema" logits $m -p ann --control-vector-scaled runs/mean/vector.gguf; says 'two values'
run 3 "no blocks" "$noema" logits $m -p ann --control-vector runs/mean/vector.gguf --control-vector-layer-range 7 9; says 'no direction for blocks 7 to 9'
run 3 "no vector" "$noema" logits $m -p ann --control-vector $m; says 'is no control vector'
run 3 "not a file of vectors" "$noema" vector show train.tsv
run 2 "name" "$noema" vector scale double.gguf 1 -o x.bin; says 'must end in'
printf 'site: embed\nop: nothing\n' > bad.yaml
run 3 "yaml with a mistake" "$noema" logits $m -p ann --edit bad.yaml; says '"op" must be'
"$noema" bench --make tiny:F32 -o tiny.gguf
run 3 "another model" "$noema" logits tiny.gguf --ids 1 --control-vector runs/mean/vector.gguf; says "the model's width is"

# ---- Ctrl-C ----------------------------------------------------------------------------------
"$noema" world planted-a -n 2500 -s 3 -o long.tsv
"$noema" vector make $m --labelled long.tsv -o runs/long -t 1 > /dev/null 2> err & pid=$!
sleep 0.4; kill -INT $pid; wait $pid; st=$?
is "Ctrl-C: exit code" $st 130
[ -e runs/long/vector.json ] && no "an interrupted run left vector.json" || ok

# ---- llama.cpp's vector here, ours in llama.cpp ---------------------------------------------
S=$root/../shared/data/reference ids='1 200 112 25 362'
llama=$(PATH="${LLAMA_CPP_BIN:-}:$PATH" command -v llama-logits)
if [ -d "$S" ]; then
  run 0 "llama.cpp's vector" "$noema" logits "$S/llama/model.gguf" --ids "$ids" --control-vector "$S/cvec/control_vector.gguf" -o x.npy
  says 'blk.1-3.resid_post, positions all: 15 positions edited'
  printf 'the cat\non the mat\na dog ran\nwe saw it\n' > for.txt
  printf '1 2 3\n44 + 5\n6 = 6\n78 - 9\n' > against.txt
  run 0 "a vector for llama.cpp" "$noema" vector make "$S/llama/model.gguf" --pos for.txt --neg against.txt --repeats 3 -o runs/llama
else echo "skipped: ../shared is not here"; fi
if [ -s runs/llama/vector.gguf ] && [ -n "$llama" ]; then
  for scale in 0.5 1 0; do
    # shellcheck disable=SC2086
    "$llama" --control-vector runs/llama/vector.gguf $scale "$S/llama/model.gguf" $ids > theirs 2> err || no "llama.cpp: $(tail -1 err)"
    "$noema" logits "$S/llama/model.gguf" --ids "$ids" --at all --json --control-vector-scaled runs/llama/vector.gguf $scale 2> err |
      sed 's/.*"logits": \[\[//; s/\]\].*//; s/\], \[/\n/g; s/,//g' > ours
    paste -d ' ' ours theirs | awk -v scale=$scale '
      { n = NF / 2; for (i = 1; i <= n; i++) { d = $i - $(i + n); k++; if (d < 0) d = -d; if (d > m) m = d } }
      END { printf "measured llama.cpp, our control vector at %s: largest difference %.2g\n", scale, m
        exit !(k > 1000 && m <= 3e-4) }' && ok || no "our control vector in llama.cpp at $scale"
  done
else echo "skipped: llama.cpp's logits (LLAMA_CPP_BIN names a folder with llama-logits, see llama_logits.cpp)"; fi

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
