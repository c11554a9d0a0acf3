#!/bin/bash
# noema run from outside: answers, samples, stops, edits, conversations, everything that can go
# wrong. Last line: "N passed, M failed".
. tests/cli/outside.bash
m=$root/models/planted.gguf
prompt='ann saw the red fox by night ?'
answer() { "$noema" run "$m" -p "$prompt" "$@" < /dev/null 2> err; }
hot=(--temp 4 --top-k 0 --top-p 1 --min-p 0)

# ---- what is said ---------------------------------------------------------------
is "the planted answer" "$(answer -n 1 --temp 0)" " ann"
is "the other" "$("$noema" run "$m" -p 'bob saw the blue fox by night ?' -n 1 --temp 0)" " bob"

# Greedy by hand: the likeliest token of noema logits, again and again.
ids=$(printf '%s' "$prompt" | "$noema" tokenize "$m" --ids) by_hand=
for _ in 1 2 3 4 5; do
  next=$("$noema" logits "$m" --ids "$ids" --top 1 | awk 'NR == 2 { print $1 }')
  ids="$ids $next" by_hand="$by_hand $next"
done
answer -n 5 --temp 0 --json > one.json
is "greedy by hand" "$(sed 's/.*"ids": \[\([^]]*\)\].*/ \1/; s/,//g' one.json)" "$by_hand"
want=$("$noema" logits "$m" -p "$prompt" --top 1 | awk 'NR == 2 { print $2 }')
answer -n 1 --temp 0 --json --logprobs --top-logprobs 2 > lp.json
is "the log-probability" "$(printf '%.4f' "$(sed 's/.*"logprobs": \[\([^],]*\).*/\1/' lp.json)")" "$want"
is "alternatives" "$(grep -o '"top_logprobs": \[\[\[[0-9]*, [-0-9.]*\], \[[0-9]*, [-0-9.]*\]\]\]' lp.json | wc -l)" 1

# ---- the same whatever the way -----------------------------------------------------
same() { if cmp -s a b; then ok; else no "$1 changes the answer"; fi; }
printf '%s\n' "$prompt" > prompt.txt
answer "${hot[@]}" -n 60 > a
for how in "-t 1" "-t 2" "--chunk 1" "--chunk 3" "--kernels portable"; do
  answer "${hot[@]}" -n 60 $how > b
  same "$how"
done
"$noema" run -m "$m" -f prompt.txt "${hot[@]}" -n 60 > b 2> /dev/null; same "-f and -m"
"$noema" run "$m" -p - "${hot[@]}" -n 60 < prompt.txt > b 2> /dev/null; same "standard input"
"$noema" run "$m" --ids "$(printf '%s' "$prompt" | "$noema" tokenize "$m" --ids)" "${hot[@]}" -n 60 > b 2> /dev/null
same "--ids"
answer "${hot[@]}" -n 60 -s 1 > b
if cmp -s a b; then no "the seed changes nothing"; else ok; fi
answer "${hot[@]}" -n 5 -s -1 > /dev/null; says '^seed [0-9]+$'
answer "${hot[@]}" -n 60 -ctk f16 -ctv f16 -v > b; says 'KV cache'
half=$(sed -n 's/.*KV cache \([0-9.]*\) MB/\1/p' err)
answer "${hot[@]}" -n 60 -v > b; full=$(sed -n 's/.*KV cache \([0-9.]*\) MB/\1/p' err)
is "f16 halves the cache" "$(awk -v a="$half" -v b="$full" 'BEGIN { print a < 0.6 * b }')" 1

# ---- samples -----------------------------------------------------------------------
answer "${hot[@]}" -n 20 --samples 4 --json > four.json
is "four samples" "$(wc -l < four.json)" 4
is "all differ" "$(sed 's/.*"text"//' four.json | sort -u | wc -l)" 4
answer "${hot[@]}" -n 20 --json > one.json
is "the first is the one alone" "$(head -1 four.json)" "$(cat one.json)"
answer "${hot[@]}" -n 20 --samples 2 > two.txt; is "told apart" "$(grep -c '^--- sample' two.txt)" 2

# ---- ends --------------------------------------------------------------------------
is "a stop string over a border" "$(answer -n 9 --temp 0 -r 'nn an')" " a"
is "two stop strings" "$(answer -n 9 --temp 0 -r zebra --stop 'ann ann')" " "
answer -n 9 --temp 0 -r 'nn an' --json > stop.json
is "says why" "$(grep -c '"stop": "stop"' stop.json)" 1
answer -n -1 --temp 0 -c 20 --json > ctx.json
is "the context" "$(grep -c '"stop": "context"' ctx.json)" 1
is "no token" "$(answer -n 0)" ""
is "--echo" "$(answer -n 1 --temp 0 --echo)" "$prompt ann"

# ---- edits ---------------------------------------------------------------------------
edit() { echo "{\"site\": \"blk.2.resid_post\", \"at\": \"$1\", \"op\": \"scale\", \"scale\": 0.5}" > e.json; }
for w in "generated 4" "prompt 9" "all 13" "last,generated 5" "-2 1"; do
  edit "${w% *}"
  answer -n 5 --temp 0 --edit e.json > /dev/null
  says "positions ${w% *}: ${w#* } positions edited"
done
edit nowhere; run 3 "a bad place" "$noema" run $m -p ann --edit e.json; says "edit 1"
echo '{"site": "blk.0.attn.pattern[3]", "op": "zero"}' > e.json
is "an edit changes the answer" "$([ "$(answer -n 1 --temp 0 --edit e.json)" != " ann" ] && echo yes)" yes

# ---- wrong use, bad input --------------------------------------------------------------
run 2 "nothing to say" "$noema" run $m; says "give one of -p, -f and --ids"
run 2 "two prompts" "$noema" run $m -p a --ids 1
run 2 "two models" "$noema" run $m -m $m -p a; says "two models"
run 2 "no model" "$noema" run -p a; says "MODEL"
run 3 "no such file" "$noema" run $m -f none.txt; says "none.txt: cannot be read"
run 2 "no tokens" "$noema" run $m -p '' --no-bos; says "the prompt has no tokens"
run 0 "only the begin token" "$noema" run $m -p '' -n 2
run 3 "bad id" "$noema" run $m --ids 99999; says "outside the vocabulary"
run 2 "long prompt" "$noema" run $m --ids "$(seq -s ' ' 300)" -c 100; says "more than the context of 100 \(-c\)"
for o in "--temp -1" "--top-p 1.5" "--min-p -1" "--top-k -1" "-n -2" "--samples 0" "--samples 9999" \
    "-ctk q4_0" "--repeat-last-n -2" "--logprobs" "--top-logprobs -1" "--temp nan"; do
  run 2 "$o" "$noema" run $m -p ann $o; is "$o: no answer" "$(cat out)" ""
done
run 2 "empty stop" "$noema" run $m -p ann -r ''; says "a stop string is empty"
run 2 "alternatives" "$noema" run $m -p ann --json --top-logprobs 9999; says "the vocabulary has"
head -c 3000 $m > cut.gguf; run 3 "a cut file" "$noema" run cut.gguf -p a

"$noema" bench --make tiny-bert:F32 -o bert.gguf > /dev/null 2>&1
run 3 "an encoder" "$noema" run bert.gguf -p a; says "is an encoder"
run 1 "full disk" sh -c "'$noema' run $m -p ann -n 3 > /dev/full"; says "could not be written"
"$noema" run $m -p ann -c 9999 -n 9999 --ignore-eos 2> /dev/null | head -c 20 > /dev/null
is "a pipe that closes" "${PIPESTATUS[0]/141/0}" 0

# Ctrl-C keeps the text so far.
interrupt() {
  "$@" > out 2> err < /dev/null &
  local pid=$! i=0
  while [ ! -s out ] && [ $((i++)) -lt 200 ]; do sleep 0.05; done
  kill -INT $pid
  wait $pid
}
interrupt "$noema" run $m -p "$prompt" -c 400000 -n -1 --ignore-eos --temp 0
is "Ctrl-C" $? 130
is "Ctrl-C: the text" "$(head -c 12 out)" " ann ann ann"
is "Ctrl-C: the line ends" "$(tail -c 1 out | od -An -c | tr -d ' ')" '\n'

# ---- conversations ------------------------------------------------------------------------
talk() { "$noema" run $m --chat --chat-template vicuna --temp 0 -n 4 "$@" 2> err; }
printf '[{"role": "system", "content": "be kind"}, {"role": "user", "content": "ann saw the fox"}]' > c.json
ids=$("$noema" tokenize $m --chat c.json --chat-template vicuna --ids)
want=$("$noema" run $m --ids "$ids" --temp 0 -n 4)
is "a turn" "$(talk -sys 'be kind' <<< 'ann saw the fox')" "$want"
is "the first turn by -p" "$(talk -sys 'be kind' -p 'ann saw the fox' < /dev/null)" "$want"
is "a single turn" "$(talk -sys 'be kind' -p 'ann saw the fox' -st <<< 'bob')" "$want"
is "a pipe is plain" "$(grep -c '>' err)" 0
is "no turn" "$(talk < /dev/null)" ""
talk -v <<< $'ann saw the red fox\nbob saw the fox' > out
is "two turns" "$(wc -l < out)" 2
is "only what is new is computed" "$(awk '/^prompt/ { print ($2 > $4) + 0 }' err | tr '\n' ' ')" "0 1 "
talk -v <<< $'ann saw\n/undo\nann saw\n/reset\nann saw' > out
is "after /undo and /reset as at first" "$(sort -u out | wc -l)" 1
says "forgotten: the last turn"
talk <<< $'/system be kind\nann saw the fox\n/save said.json\n/quit\nbob' > out
is "/system" "$(cat out)" "$want"
is "/save" "$(grep -c '"role"' said.json)" 3
talk -v <<< $'/load said.json\n/undo\nann saw the fox' > out
is "/load" "$(cat out)" "$want"
talk <<< $'/load none.json\n/load c.json\n/load\n/what\n/help' > out
says "none.json: is no conversation"; says "/load needs a FILE"; says "/what is not known"; says "/reset"
printf '3' > bad.json; talk <<< '/load bad.json' > out; says "bad.json: is no conversation"
is "a turn in two lines" "$(talk --show-prompt <<< $'ann\\\nsaw' > /dev/null; grep -c '^saw' err)" 1
is "a turn with a slash" "$(talk --show-prompt <<< '//ann' > /dev/null; grep -c 'USER: /ann' err)" 1
talk --json <<< $'ann\nbob' > out; is "turns as JSON" "$(grep -c '"sample": [01],' out)" 2
run 3 "no template" "$noema" run $m --chat -p hi; says "has no chat template"
run 2 "ids in a conversation" "$noema" run $m --chat --ids 1; says "takes text"
run 2 "samples in a conversation" "$noema" run $m --chat --samples 2; says "one answer a turn"
"$noema" run $m --chat --chat-template vicuna -c 30 -n 5 > out 2> err <<< "$(printf 'ann saw the red fox by night %.0s' 1 2 3 4 5 6)"
is "a turn too long: exit code" $? 2
says "more than the context of 30"

# ---- recorded stories -------------------------------------------------------------------------
s=$root/../shared/data/models/stories260K
if [ -d "$s" ] && command -v python3 > /dev/null; then
  for type in f32 Q8_0; do
    python3 - "$s/vectors.json" $type > cases << 'P'
import json, sys
for c in json.load(open(sys.argv[1]))[sys.argv[2]]:
    print(*c["tokens"], sep=" ", end="|"); print(*c["greedy"], sep=" ")
P
    while IFS='|' read -r before after; do
      "$noema" run "$s/stories260K.$type.gguf" --ids "$before" -n 64 --temp 0 --json > out 2> /dev/null < /dev/null
      is "a recorded story ($type)" "$(sed 's/.*"ids": \[\([^]]*\)\].*/\1/; s/,//g' out)" "$after"
    done < cases
  done
else
  echo "skipped: no recorded stories here"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
