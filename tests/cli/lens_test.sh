#!/bin/bash
# noema lens from outside: the last row is noema logits, the planted turn, JSON, figures, columns,
# exit codes. Last line: "N passed, M failed".
. tests/cli/outside.bash
m=$root/models/planted.gguf p='ann saw the red fox by night ?'
json() { if command -v python3 > /dev/null; then if python3 -m json.tool < "$1" > /dev/null 2>&1; then ok; else no "$1 is not JSON"; fi; fi; }

# ---- the end is the model's -----------------------------------------------------
run 0 "lens" "$noema" lens $m -p "$p" --at last --target yes --json
json out
lp=$(sed 's/.*"blk.5.resid_post"//' out | grep -o '"answer_lp": [-0-9.e]*' | head -1 | cut -d' ' -f2)
is "the last row says what logits says" "$(printf '%.4f' "$lp")" \
  "$("$noema" logits $m -p "$p" --top 1 | awk 'NR == 2 { printf "%.4f", $2 }')"
run 0 "table" "$noema" lens $m -p "$p" --at last --target yes
prints '^blk\.1\.resid_post +100 % +1 .* 325 '
prints '^blk\.2\.resid_post +100 % +1 .* 2 '
grep -q $'\033' out && no "colour in a pipe" || ok
run 0 "colour" "$noema" lens $m -p "$p" --colour always
grep -q $'\033\[48;5' out && ok || no "no colour with --colour always"
run 0 "quiet colour" env NO_COLOR=1 "$noema" lens $m -p "$p"
for o in "-t 1" "-t 3" "--chunk 2" "--kernels portable"; do
  run 0 "$o" "$noema" lens $m -p "$p" --json $o
  cp out "other.json"
  "$noema" lens $m -p "$p" --json > base.json
  cmp -s base.json other.json && ok || no "$o changes the lens"
done
printf 'text\nann saw\nbob saw the blue fox\n' > t.csv
run 0 "several texts" "$noema" lens $m --data t.csv --site resid_mid
prints '^blk\.0\.resid_mid '
echo '{"site": "blk.2.mlp_out", "op": "zero"}' > e.json
run 0 "edited" "$noema" lens $m -p "$p" --at last --target yes --edit e.json
prints '^blk\.5\.resid_post .* 325 '
says '9 positions edited'

# ---- the folder -------------------------------------------------------------------
run 0 "folder" "$noema" lens $m -p "$p" --target yes -o runs/a
for f in lens.json lens.svg layers.svg report.html; do [ -s runs/a/$f ] && ok || no "no $f"; done
json runs/a/lens.json
if command -v rsvg-convert > /dev/null; then for f in lens layers; do run 0 "$f.svg" rsvg-convert runs/a/$f.svg -o x.png; done; fi
run 0 "record" "$noema" runs --dir runs; prints ' lens '
run 2 "again" "$noema" lens $m -p "$p" -o runs/a; says 'already holds a finished run'

# ---- columns ------------------------------------------------------------------------
run 0 "column" "$noema" lens $m --weights blk.2.ffn_down --col 0 --top 1
prints "'no'"; prints "'yes'"
run 0 "scan" "$noema" lens $m --weights 'blk.*.ffn_down' --target yes --best 2 --top 1
prints '^96 columns scanned'; prints '^2 columns of the model are stronger'
prints '^blk\.2\.ffn_down\.weight, column [01]: -11\.3.*0 of 20'
run 0 "scan as JSON" "$noema" lens $m --weights 'blk.*.ffn_down' --target yes --json; json out

# ---- other models ---------------------------------------------------------------------
"$noema" bench --make tiny-bert:F32 -o enc.gguf
run 3 "encoder" "$noema" lens enc.gguf -p ann; says 'no vocabulary head'
run 3 "encoder's columns" "$noema" lens enc.gguf --weights blk.0.ffn_down --col 0; says 'no vocabulary head'
S=$root/../shared/data/models/stories260K
if [ -d $S ]; then
  for f in Q4_0 Q8_0 f32; do run 0 "stories $f" "$noema" lens $S/stories260K.$f.gguf -p 'Once upon a time'; prints '^blk\.4\.resid_post +100 %'; done
  run 0 "quantised column" "$noema" lens $S/stories260K.Q4_0.gguf --weights blk.3.ffn_down --col 7
else echo "skipped: ../shared is not here"; fi

# ---- refusals ---------------------------------------------------------------------------
run 2 "no input" "$noema" lens $m; says 'one of --ids, -p and --data'
run 2 "site" "$noema" lens $m -p ann --site attn.head; says 'reads the residual stream'
run 2 "top" "$noema" lens $m -p ann --top 0; says 'at least 1'
run 2 "target of several" "$noema" lens $m -p ann --target 'ann saw'; says '2 tokens'
run 2 "target outside" "$noema" lens $m -p ann --target-id 999999; says 'outside the vocabulary'
run 2 "no column" "$noema" lens $m --weights blk.2.ffn_down; says 'needs --col'
run 2 "column outside" "$noema" lens $m --weights blk.2.ffn_down --col 16; says 'columns 0 to 15'
run 2 "not into the stream" "$noema" lens $m --weights blk.2.ffn_up --col 0; says 'does not write'
run 3 "no model" "$noema" lens nowhere.gguf -p a; says nowhere
"$noema" lens $m -p "$p" --json 2> err | head -c 10 > /dev/null
st=${PIPESTATUS[0]}
case $st in 0 | 1 | 141) ok ;; *) no "a closed pipe: $st" ;; esac

# ---- Ctrl-C -------------------------------------------------------------------------------
yes 'ann saw the red fox by night' | head -3000 | sed '1i text' > long.csv
"$noema" lens $m --data long.csv -t 1 -o runs/long > /dev/null 2> err & pid=$!
sleep 0.3; kill -INT $pid; wait $pid; st=$?
is "Ctrl-C: exit code" $st 130
[ -e runs/long/lens.json ] && no "an interrupted run left lens.json" || ok

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
