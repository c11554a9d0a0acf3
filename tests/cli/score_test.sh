#!/bin/bash
# noema score: what is printed, the same bits in any company, divergence of models and edits, windows,
# the chunks of llama.cpp, refusals. Last line: "N passed, N failed".
. tests/cli/outside.bash
m=$root/models/planted.gguf
real=$root/../shared/data/models/stories260K
same() { if cmp -s "$2" "$3"; then ok; else no "$1: $2 and $3 differ"; fi; }
json() {
  command -v python3 > /dev/null || return
  while read -r line; do
    printf '%s' "$line" | python3 -m json.tool > /dev/null 2>&1 || { no "$1: not JSON"; return; }
  done < out
  ok
}
field() { sed -n "s/.*\"$1\": \([-0-9.e]*\).*/\1/p" "${2:-out}" | tail -1; }

printf 'text\nann saw the red fox\nbob saw the blue fox by night it went up\nann\n' > s.csv
printf '{"ids": [1, 7, 9]}\n{"ids": [1, 7, 9, 11, 300]}\n' > ids.jsonl

# ---- what is given ------------------------------------------------------------
run 0 "a table" "$noema" score $m --data s.csv
prints '^ +3 +1 +-[0-9.]+'
prints '^16 tokens of 3 texts, log-likelihood -'
prints '^perplexity +[0-9.]+ +95 % [0-9.]+ to [0-9.]+ \(over texts\)'
run 0 "a line a token" "$noema" score $m -p 'ann saw the red fox' --per-token
is "tokens" "$(grep -cE '^ +[0-9]+ +[0-9]+ +-[0-9.]+  "' out)" 5
prints '" saw"$'
run 0 "json" "$noema" score $m --data s.csv --json --per-token
is "a line a text and the total" "$(wc -l < out)" 4
json "score --json"
run 0 "ids" "$noema" score $m --data ids.jsonl --json
is "six tokens" "$(field tokens)" 6

# The log-probability is the one logits prints.
run 0 "logits" "$noema" logits $m -p 'ann saw the red fox by night ?' --top 1
want=$(awk 'NR == 2 { print $2 }' out)
run 0 "continuations" "$noema" score $m --prompt 'ann saw the red fox by night ?' --continuation ' ann' --continuation ' bob'
is "ln p of ann" "$(awk 'NR == 2 { print $3 }' out)" "$want"
prints ' 99\.[0-9]+ %  " ann"$'
run 0 "continuations as JSON" "$noema" score $m --prompt 'ann saw' --continuation ' the red' --continuation ' bob' --json
is "two tokens of the first" "$(head -1 out | sed 's/.*"tokens": \([0-9]*\).*/\1/')" 2
json "continuations"

# ---- nothing but the texts counts --------------------------------------------------
"$noema" score $m --data s.csv --json --per-token > base.json
for o in "-t 1" "-t 3" "--batch 1" "--chunk 2" "--kernels portable" "-c 100"; do
  run 0 "$o" "$noema" score $m --data s.csv --json --per-token $o
  same "with $o" out base.json
done

# ---- windows -----------------------------------------------------------------------
for i in $(seq 60); do printf 'ann saw the red fox by night , it went up . '; done > long.txt
run 0 "a long text" "$noema" score $m -f long.txt --json
n=$("$noema" tokenize $m --ids < long.txt | wc -w)
is "every token once" "$(field tokens)" $((n - 1))
run 0 "a stride" "$noema" score $m -f long.txt --window 40 --stride 7 --json
is "every token once" "$(field tokens)" $((n - 1))
run 0 "llama.cpp's chunks" "$noema" score $m -f long.txt -c 100 --llama-cpp --json
is "chunks" "$(field texts)" $((n / 100))
is "tokens after the middle" "$(field tokens)" $((n / 100 * 49))

# By hand: chunks of 100 with the begin token first, positions 51 to 99, from the logits.
if command -v python3 > /dev/null; then
  "$noema" score $m -f long.txt -c 100 --llama-cpp --json > out
  "$noema" tokenize $m --ids < long.txt > ids
  NOEMA=$noema M=$m python3 - <<'P' && ok || no "the chunks are not those of llama-perplexity"
import json, math, os, subprocess
ids = [int(x) for x in open("ids").read().split()]
nll = n = 0
for c in range(len(ids) // 100):
    chunk = ids[c * 100:c * 100 + 100]
    chunk[0] = ids[0]
    rows = json.loads(subprocess.run([os.environ["NOEMA"], "logits", os.environ["M"], "--ids",
        " ".join(map(str, chunk)), "--at", "50:99", "--json"], capture_output=True).stdout)["logits"]
    for k, z in enumerate(rows):
        top = max(z)
        nll -= z[chunk[51 + k]] - top - math.log(sum(math.exp(v - top) for v in z))
        n += 1
got = [json.loads(l) for l in open("out")][-1]["total"]
assert n == got["tokens"], (n, got["tokens"])
assert abs(math.exp(nll / n) / got["perplexity"] - 1) < 1e-9, (math.exp(nll / n), got["perplexity"])
P
fi

# ---- divergence ----------------------------------------------------------------------
run 0 "to itself" "$noema" score $m --base $m --data s.csv --json
is "exactly nothing" "$(field kl)" 0
is "same top" "$(field same_top)" 1
echo '{"site": "blk.0.attn.pattern[3]", "op": "zero"}' > edit.json
run 0 "an edit" "$noema" score $m --edit edit.json -p 'ann saw the red fox ? ann' --json
says '^edit 1: zero at blk.0.attn.pattern\[3\]'
if awk "BEGIN { exit !($(field kl) > 0.1) }"; then ok; else no "an edit moves nothing: $(field kl)"; fi
run 0 "convert" "$noema" convert $m --type Q8_0 -o q8.gguf
run 0 "a quantised file" "$noema" score q8.gguf --base $m --data s.csv --json --per-token
json "score --base"
a=$(field kl)
if awk "BEGIN { exit !($a > 0 && $a < 1) }"; then ok; else no "Q8_0: $a"; fi
if [ -d "$real" ]; then
  run 0 "Q8_0" "$noema" score $real/stories260K.Q8_0.gguf --base $real/stories260K.f32.gguf -p 'Once upon a time, there was a little girl named Lily.' --json
  small=$(field kl)
  run 0 "Q4_0" "$noema" score $real/stories260K.Q4_0.gguf --base $real/stories260K.f32.gguf -p 'Once upon a time, there was a little girl named Lily.' --json
  if awk "BEGIN { exit !($(field kl) > 10 * $small && $small > 0) }"; then ok; else no "Q4_0 is not worse than Q8_0"; fi
  run 2 "another vocabulary" "$noema" score $m --base $real/stories260K.f32.gguf -p ann; says 'other tokens|vocabulary'
else
  echo "skipped: no ../shared"
fi

# ---- refusals ----------------------------------------------------------------------------
run 2 "no input" "$noema" score $m; says 'one of --ids, -p and --data'
run 2 "continuation alone" "$noema" score $m --continuation a; says 'goes with --prompt'
run 2 "nothing added" "$noema" score $m --prompt 'ann' --continuation ''; says 'adds no token'
run 2 "two inputs" "$noema" score $m -f long.txt -p ann; says 'give one of'
run 2 "window" "$noema" score $m -p ann --window 5000; says 'between 2 and the context'
run 2 "stride" "$noema" score $m -p ann --window 9 --stride 9; says 'stride'
run 2 "negative" "$noema" score $m -p ann --window -1; says 'not be negative'
run 2 "too short for chunks" "$noema" score $m -p ann --llama-cpp; says 'at least'
run 3 "no base" "$noema" score $m -p ann --base none.gguf; says 'none.gguf'
run 3 "no file" "$noema" score $m -f none.txt; says 'none.txt'
"$noema" bench --make tiny-bert:F32 -o enc.gguf
run 2 "an encoder" "$noema" score enc.gguf -p ann; says 'no logits'
"$noema" score $m --data s.csv > /dev/full 2> err; is "a full disk" $? 1
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
