#!/bin/bash
# noema patch: the copying head of the planted model and nothing else, tracing, several pairs, the
# same bits in any company, resuming, interruption, refusals. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=120
m=$root/models/planted.gguf
real=$root/../shared/data/models/stories260K/stories260K.f32.gguf
ann='ann saw the red fox by night ?' bob='bob saw the red fox by night ?'
same() { if cmp -s "$2" "$3"; then ok; else no "$1: $2 and $3 differ"; fi; }
have() { if [ -s "$1" ]; then ok; else no "$1 is missing"; fi; }

# ---- the planted truth: block 0, head 3, copies the name to the last position -----------
run 0 "the copying head" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --wrong bob -o runs/copy
prints '^nothing patched is the base bit for bit: yes; everything before layer 0 is the source: yes$'
prints '^metric: logit .*; clean 7\.09, corrupt -7\.09$'
prints '^attn\.head +0  3 +1\.00 +[-0-9.]+ .* ok$'
prints '^attn_out +0 +\? +1\.00 .* ok$'
prints '^mlp_out .* nothing found$'
is "one head of 24 does anything" "$(awk '/^attn.head, / { on = 1 } /^Restored/ { on = 0 } on' out | grep -oE '[0-9]+ +\.' | wc -l; )" \
  "$(awk '/^attn.head, / { on = 1 } /^Restored/ { on = 0 } on' out | grep -cE '^ +[0-9]')"
is "head 3 restores all of it" "$(awk '/^attn.head, / { on = 1 } on && $1 == 3 { print $2, $3, $7; exit }' out)" "100 . ."
is "the other heads nothing" "$(awk '/^attn.head, / { on = 1 } /^Restored/ { on = 0 } on && /^ +[0-2] / { for (i = 2; i <= NF; i++) printf "%s", $i }' out)" "$(printf '.%.0s' {1..18})"
for f in resid_pre.svg attn_out.svg mlp_out.svg attn.head.svg patch.json cells.jsonl config.json report.html; do have runs/copy/$f; done
if grep -q $'\033' out; then no "colours in a file"; else ok; fi
run 0 "noising" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --wrong bob --noising --component attn.head -o runs/noising
is "without head 3 the answer is the other" "$(awk '/^attn.head, / { on = 1 } on && $1 == 3 { print $2, $3, $7; exit }' out)" ". 100 100"
run 0 "tracing" "$noema" patch $m --clean "$ann" --subject ann --answer ann --seeds 6 --component resid --component attn.head -o runs/trace
prints '6 draws of noise of 3 standard deviations'
prints '^attn\.head +0  3 +(0\.99|1\.0)'
prints 'corrupt -[0-9.]+ \(-[0-9.]+ to -[0-9.]+\)$'

# ---- several pairs ------------------------------------------------------------------------
i=0
for pair in ann:dan bob:eve cleo:finn dan:gus eve:hal; do
  a=${pair%:*} b=${pair#*:} more=
  echo "{\"clean\": \"$a saw the fox ?\", \"corrupt\": \"$b saw the fox ?\", \"answer\": \"$a\", \"wrong\": \"$b\"}" >> pairs.jsonl
  [ $((i++ % 2)) = 1 ] && more='by night '
  echo "{\"clean\": \"${more}fox saw $a ?\", \"corrupt\": \"${more}fox saw $b ?\", \"answer\": \"$a\"}" >> odd.jsonl
done
run 0 "pairs" "$noema" patch $m --data pairs.jsonl -o runs/pairs --json
mv out all.json
if command -v python3 > /dev/null; then
  python3 - <<'P' && ok || no "patch.json is not what it must be"
import json
j = json.load(open("all.json"))
assert j["pairs"] == 5 and j["exact_nothing"] and j["exact_everything"] and j["verdict"] == "ok"
head = {m["component"]: m for m in j["maps"]}["attn.head"]
assert head["columns_are"] == "heads" and head["top_layer"] == 0 and head["top_column"] == 3
for l, row in enumerate(head["effect"]):
    for h, v in enumerate(row):
        assert abs(v - ((l, h) == (0, 3))) < 1e-6, (l, h, v)
P
fi
run 0 "pairs of different lengths" "$noema" patch $m --data odd.jsonl --component resid_pre -o runs/odd
prints '^ *last changed +100 +\.'
prints '^ *last token +\. +100'
run 0 "not more than two pairs" "$noema" patch $m --data pairs.jsonl -n 2 --dry-run
prints '^264 patched runs .* over 2 pairs'

# ---- nothing but the prompts counts ---------------------------------------------------------
for o in "-t 1" "-t 3" "--kernels portable"; do
  run 0 "$o" "$noema" patch $m --data pairs.jsonl --json -o "runs/x$o" $o
  same "with $o" out all.json
done

# ---- going on --------------------------------------------------------------------------------
n=$(wc -l < runs/pairs/cells.jsonl)
head -c 5000 runs/pairs/cells.jsonl > cut
cp cut runs/pairs/cells.jsonl
run 0 "the same again" "$noema" patch $m --data pairs.jsonl -o runs/pairs --json
same "going on" out all.json
is "cells once" "$(grep -c '^\[.*\]$' runs/pairs/cells.jsonl)" $((n - 1))
run 2 "another run in the folder" "$noema" patch $m --data pairs.jsonl --noising -o runs/pairs; says 'cells of another run'
run 0 "the record" "$noema" runs --dir runs
prints ' patch '
"$noema" bench --make tiny:F32 -o tiny.gguf > /dev/null 2>&1
for i in $(seq 12); do
  echo "{\"clean\": \"y${i}abcdefghijklmnopqrstuvwxyzabcdefghijklmnop \", \"corrupt\": \"x${i}abcdefghijklmnopqrstuvwxyzabcdefghijklmnop \", \"answer\": \"a\", \"wrong\": \"b\"}"
done > long.jsonl
timeout --preserve-status -s INT 0.3 "$noema" patch tiny.gguf --data long.jsonl -t 1 -o runs/int > out 2> err
is "Ctrl-C" $? 130
have runs/int/cells.jsonl
"$noema" patch tiny.gguf --data long.jsonl -o runs/int --json > went-on.json 2> err
"$noema" patch tiny.gguf --data long.jsonl -o runs/whole --json > whole.json 2> err
same "interrupted and whole" whole.json went-on.json
if grep -q '"pairs":12' whole.json; then ok; else no "no result: $(head -2 err)"; fi

# ---- refusals -----------------------------------------------------------------------------------
run 2 "nothing" "$noema" patch $m; says 'give --clean'
run 2 "no corruption" "$noema" patch $m --clean "$ann" --answer ann; says 'either a corrupt prompt or a subject'
run 2 "the same twice" "$noema" patch $m --clean "$ann" --corrupt "$ann" --answer ann; says 'cannot be aligned: they are the same'
run 2 "not aligned" "$noema" patch $m --clean 'ann saw the fox' --corrupt 'ann saw the red sea' --answer ann
says '<s>\|ann\| saw\| the\| fox \(5\) and <s>\|ann\| saw\| the\| red\| sea \(6\)'
run 2 "one answer" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --wrong ann; says 'same token'
run 2 "no such component" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --component nose; says 'nose'
run 2 "patterns" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --component attn.pattern; says 'cannot'
run 2 "a subject that is not there" "$noema" patch $m --clean "$ann" --subject bob --answer ann; says 'bob'
run 2 "tracing, noising" "$noema" patch $m --clean "$ann" --subject ann --answer ann --noising; says 'noising'
run 2 "too wide" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --window 7; says 'window'
run 6 "nothing to restore" "$noema" patch $m --clean 'ann saw the fox ?' --corrupt 'ann saw the sea ?' --answer ann -o runs/none
says 'nothing to restore'
run 6 "no cell found" "$noema" patch $m --clean "$ann" --corrupt "$bob" --answer ann --component mlp_out -o runs/mlp
echo '{"clean": "ann", "answer": "bob"}' > bad.jsonl
run 3 "bad data" "$noema" patch $m --data bad.jsonl; says 'row 1 must hold'
run 3 "no data" "$noema" patch $m --data none.jsonl; says 'none.jsonl'
"$noema" bench --make tiny-bert:F32 -o enc.gguf > /dev/null 2>&1
run 2 "an encoder" "$noema" patch enc.gguf --clean a --corrupt b --answer c; says 'encoder'

# ---- a trained model: the head that looks back at who was seen -----------------------------------------
if [ -e "$real" ]; then
  run 0 "stories260K" "$noema" patch $real --clean 'Lily saw Tom. Lily and' --corrupt 'Lily saw Ben. Lily and' --answer ' Tom' --wrong ' Ben' -o runs/real
  prints '^attn\.head +4  4 +0\.9[0-9] .* ok$'
  prints 'bit for bit: yes; everything before layer 0 is the source: yes'
else
  echo "skipped: no ../shared"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
