#!/bin/bash
# noema depth from outside: the planted blocks exactly, controls, files, resume, bad input.
. tests/cli/outside.bash
planted=$root/models/planted.gguf
has() { if grep -qE -- "$3" "$2"; then ok; else no "$1: nothing in $2 matches '$3'"; head -5 "$2"; fi; }
# fails NAME CODE PATTERN COMMAND...: exit code and one clear sentence.
fails() {
  local name=$1 code=$2 want=$3
  shift 3
  timeout 120 "$@" > out 2> err
  is "$name: exit code" $? "$code"
  has "$name" err "$want"
}
field() { sed -n "s/^ *\"$2\": \([^,]*\),*$/\1/p" "$1" | sed -n "${3:-1}p"; }

# The shipped model is what the source writes.
"$noema" world planted -o again.gguf
if cmp -s again.gguf "$planted"; then ok; else no "models/planted.gguf differs from noema world planted"; fi
[ "$(stat -c %s "$planted")" -lt 200000 ] && ok || no "the planted model is too large"

# Three seeds: A at block 2, B at block 4 (resid_post); one later at mlp_norm.
for s in 1 2 3; do
  "$noema" world planted-a -s $s -o a.tsv
  "$noema" world planted-b -s $s -o b.tsv
  "$noema" depth "$planted" --data a.tsv --data b.tsv --site resid_post --repeats 4 -o runs/p$s > p$s.txt 2>&1 || no "depth failed"
  j=runs/p$s/depth.json
  is "seed $s: A jumps" "$(field $j jump 1)" 2
  is "seed $s: A converges" "$(field $j converging 1)" 2
  is "seed $s: B jumps" "$(field $j jump 2)" 4
  is "seed $s: B converges" "$(field $j converging 2)" 4
  is "seed $s: A above all controls" "$(field $j above_all_controls 1)" true
  is "seed $s: shuffled covers chance" "$(field $j shuffled_covers_chance 1)$(field $j shuffled_covers_chance 2)" truetrue
  is "seed $s: A is used, B is not" "$(field $j moved 1)$(field $j moved 2)" truefalse
  # A model of random weights shows nothing.
  "$noema" bench --make tiny:F32 -s $s -o random.gguf
  "$noema" depth random.gguf --data a.tsv --repeats 4 -o runs/r$s > /dev/null 2>&1
  is "seed $s: random weights show nothing" "$(field runs/r$s/depth.json above_all_controls 1)" false
done
"$noema" depth "$planted" --data a.tsv --data b.tsv --repeats 4 -o runs/m > m.txt
is "mlp_norm: A" "$(field runs/m/depth.json converging 1)" 3
is "mlp_norm: B" "$(field runs/m/depth.json converging 2)" 5
has "terminal" m.txt '^converging|converging point +block 3'
has "terminal prints the prompt" m.txt "prompt 'none'"

# All files are there and say the command; runs.db knows the run.
for f in config.json depth.csv depth.json depth.svg report.html; do [ -s runs/m/$f ] && ok || no "runs/m/$f is missing"; done
has "report holds the command" runs/m/report.html 'noema depth .*--repeats 4'
grep -qE '(src|href)="http' runs/m/report.html && no "report.html loads something from elsewhere" || ok
is "csv rows" "$(wc -l < runs/m/depth.csv)" 15
"$noema" runs > runs.txt
has "runs" runs.txt 'done .*runs/m'
"$noema" runs --json | grep -c '"verb": "depth"' > n.txt
is "runs --json" "$(cat n.txt)" 7

# The same bits with any number of threads, any kernels, chunk and batch.
for o in "-t 1" "-t 3" "--chunk 5" "--batch 3" "--kernels portable"; do
  "$noema" depth "$planted" --data a.tsv --repeats 3 $o -o "runs/o${o// /}" > /dev/null 2>&1
  cmp -s "runs/o${o// /}/depth.csv" runs/o-t1/depth.csv && ok || no "depth.csv differs with $o"
done

# A probe saved and applied; its direction is an edit that moves the answer.
"$noema" depth "$planted" --data a.tsv --site resid_post --repeats 2 --save-probe a.probe -o runs/s > /dev/null
"$noema" probe apply "$planted" a.probe -p 'eve saw the red fox by night it went up ?' > y.txt
"$noema" probe apply "$planted" a.probe -p 'eve saw the blue fox by night it went up ?' > n.txt
has "probe: red at night" y.txt '^yes'
has "probe: blue at night" n.txt '^no'
"$noema" logits "$planted" -p 'eve saw the blue fox by night it went up ?' --edit runs/s/edit-a.json --top 2 > e.txt 2> err
has "the edit moves the answer" e.txt "'yes'"
mkdir moved && cp runs/s/edit-a.json runs/s/direction-a.npy moved/ && cd moved
"$noema" logits "$planted" -p 'eve saw the blue fox by night it went up ?' --edit edit-a.json --top 2 2> /dev/null | grep -q "'yes'" && ok || no "an edit moved with its vector"
cd ..
has "edited positions are told" err ': 1 positions edited'

# Under an edit that silences the block that makes A, A is gone, from the probe and from the answer.
echo '{"site": "blk.2.mlp_out", "op": "zero"}' > zero.json
"$noema" depth "$planted" --data a.tsv --site resid_post --repeats 2 --edit zero.json -o runs/z > /dev/null 2> err
is "A without its MLP" "$(field runs/z/depth.json above_all_controls 1)$(field runs/z/depth.json moved 1)" falsefalse
has "edited positions of the study" err 'zero at blk.2.mlp_out.*positions edited'

# Formats: the same rows as CSV, JSONL, JSON give the same figures.
awk -F'\t' 'NR == 1 { print "text,label,set"; next } { print "\"" $1 "\"," $2 "," $3 }' a.tsv > a.csv
awk -F'\t' 'NR > 1 { printf "{\"text\": \"%s\", \"label\": \"%s\", \"set\": \"%s\"}\n", $1, $2, $3 }' a.tsv > a.jsonl
{ echo '['; sed '$!s/$/,/' a.jsonl; echo ']'; } > a.json
for f in csv jsonl json; do
  "$noema" depth "$planted" --data a=a.$f --repeats 3 -o runs/f$f > /dev/null 2>&1
  "$noema" depth "$planted" --data a=a.tsv --repeats 3 -o runs/ft > /dev/null 2>&1
  cmp -s runs/f$f/depth.csv runs/ft/depth.csv && ok || no "a.$f gives other figures than a.tsv"
done

# Ctrl-C keeps what is done, --resume ends in the same files.
"$noema" world planted-a -n 2000 -s 9 -o big.tsv
"$noema" depth "$planted" --data big.tsv --repeats 2 -o runs/whole > /dev/null 2>&1
"$noema" depth "$planted" --data big.tsv --repeats 2 -t 1 -o runs/cut > /dev/null 2> err & pid=$!
for _ in $(seq 200); do [ -s runs/cut/cache/vectors-*/index.jsonl ] 2>/dev/null && break; sleep 0.02; done
kill -INT $pid
wait $pid
st=$?
if [ $st = 130 ]; then ok; has "interrupted" err 'interrupted'; else no "Ctrl-C: exit code $st"; fi
"$noema" depth "$planted" --data big.tsv --repeats 2 -o runs/cut --resume > /dev/null 2>&1
cmp -s runs/cut/depth.csv runs/whole/depth.csv && ok || no "a resumed run differs"
"$noema" runs --find runs/cut > runs.txt
has "runs: interrupted" runs.txt interrupted
fails "finished folder" 2 'resume' "$noema" depth "$planted" --data a.tsv -o runs/whole

# Bad input: one sentence, the right code.
fails "no data" 2 '--data' "$noema" depth "$planted"
fails "missing data" 3 'nosuch.csv' "$noema" depth "$planted" --data nosuch.csv -o runs/x
fails "missing model" 3 'nosuch.gguf' "$noema" depth nosuch.gguf --data a.tsv -o runs/x
: > empty.csv
fails "empty data" 3 'empty.csv' "$noema" depth "$planted" --data empty.csv -o runs/x
printf 'text,label\na b c,1\nd e f,1\ng,1\n' > one.csv
fails "one class" 3 'one.csv' "$noema" depth "$planted" --data one.csv -o runs/x
fails "unknown column" 3 'columns are' "$noema" depth "$planted" --data a.csv --label nope -o runs/x
printf 'text,label\n"a b,1\n' > quote.csv
fails "open quote" 3 'quote.csv.*line' "$noema" depth "$planted" --data quote.csv -o runs/x
head -c 3000 /dev/urandom > noise.bin
fails "noise" 3 'noise.bin' "$noema" depth "$planted" --data noise.bin -o runs/x
printf 'text\tlabel\n' > long.tsv
w=$(printf 'red %.0s' $(seq 400))
for i in $(seq 20); do printf '%s\t%d\n' "$w$i" $((i % 2)) >> long.tsv; done
fails "too long" 3 'longer than the context' "$noema" depth "$planted" --data long.tsv -o runs/x
fails "bad site" 2 'nope' "$noema" depth "$planted" --data a.tsv --site nope -o runs/x
fails "bad layer" 2 'last block' "$noema" depth "$planted" --data a.tsv --to-layer 9 -o runs/x
fails "bad number" 2 'number' "$noema" depth "$planted" --data a.tsv --repeats x
fails "unwritable" 1 'cannot' "$noema" depth "$planted" --data a.tsv -o /proc/noema/x
"$noema" depth "$planted" --data a.tsv --dry-run > dry.txt
has "dry run" dry.txt '^total'
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
