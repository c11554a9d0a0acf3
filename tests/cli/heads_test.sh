#!/bin/bash
# noema heads: the planted copying head and no other, masks, the published figures, resuming,
# interruption, refusals. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=120
m=$root/models/planted.gguf
real=$root/../shared/data/models/stories260K/stories260K.f32.gguf
published=$root/../shared/data/retrieval-heads
have() { if [ -s "$1" ]; then ok; else no "$1 is missing"; fi; }
same() { if cmp -s "$2" "$3"; then ok; else no "$1: $2 and $3 differ"; fi; }

for n in ann bob dan eve; do
  echo "{\"text\": \"the fox by the old tree saw $n by night , it went up ?\", \"answer\": \"$n\"}" >> rows.jsonl
  echo "{\"needle\": \"$n saw the fox .\", \"question\": \"\", \"answer\": \"$n\"}" >> needles.jsonl
done
for c in red:day:no red:night:yes blue:day:yes blue:night:no; do
  IFS=: read -r colour time answer <<< "$c"
  echo "{\"text\": \"saw the $colour fox by $time ?\", \"answer\": \"$answer\"}" >> facts.jsonl
done
for i in $(seq 40); do printf 'the old fox ran to the hill , the sun went up by the sea . '; done > hay.txt

# ---- the planted truth: head 3 of block 0 copies, and nothing else does -----------------
run 0 "rows" "$noema" heads $m --data rows.jsonl --facts facts.jsonl --predict 1 --mask zero -o runs/rows
prints '^4 of 4 trials answered .* 6 layers of 4 heads\. 1 heads copy .* 23 never copied'
prints '^ 0-3 +1\.000 +100\.0 % +1\.000$'
prints '^1 head +0\.0 +100\.0 \(100\.0 to 100\.0\) +100\.0 +100\.0$'
prints '^so: masking the best heads takes more'
is "ranking" "$(sed -n 2,3p runs/rows/ranking.csv | tr '\n' ' ')" "0,3,1.00000,4,1.0000,1.0000 0,0,0.00000,4,0.0000,0.0000 "
is "scores" "$(grep -c '\[1, 1, 1, 1\]' runs/rows/scores.json) $(grep -c '\[0, 0, 0, 0\]' runs/rows/scores.json)" "1 23"
for f in config.json heads.svg scores.json ranking.csv heads.json report.html answers.jsonl; do have runs/rows/$f; done
run 0 "needles in hay" "$noema" heads $m --needles needles.jsonl --haystack hay.txt --lengths 24:96:4 --depths 5 --prompt '{context} ?' --facts facts.jsonl --predict 1 --top 1 --top 2 --mask zero -o runs/hay
prints '^80 of 80 trials answered'
prints '^ 0-3 +1\.000 '
for f in needles.svg needles-best.svg needles-random.svg; do have runs/hay/$f; done
run 5 "looking evenly changes nothing where one name is there" "$noema" heads $m --data rows.jsonl --predict 1 -o runs/even
says 'does as much as the best'
run 0 "counts as released" "$noema" heads $m --data rows.jsonl --predict 3 --no-mask -o runs/thrice
prints '^ 0-3 +3\.000 '
run 0 "counts once" "$noema" heads $m --data rows.jsonl --predict 3 --no-mask --count unique -o runs/once
prints '^ 0-3 +1\.000 '
run 0 "own scores again" "$noema" heads --from-scores runs/rows/scores.json runs/rows/ranking.csv
prints '^scores\.json +24 +4 +1 +4\.2 % +1 +96 % +1 +1 *$'
prints 'correlation of mean scores 1\.000, 20 of the best 20 the same'
run 0 "JSON" "$noema" heads $m --data rows.jsonl --predict 1 --no-mask --json -o runs/json
if command -v python3 > /dev/null; then
  python3 -c 'import json; j = json.load(open("out")); assert j["best"][0]["layer"] == 0 and j["best"][0]["head"] == 3 and j["kept"] == 4' && ok || no "heads.json"
fi
run 0 "threads" "$noema" heads $m --data rows.jsonl --facts facts.jsonl --predict 1 --mask zero -t 1 --chunk 3 -o runs/one
same "threads and chunks change nothing" runs/one/scores.json runs/rows/scores.json

# ---- what is finished stays --------------------------------------------------------------
mkdir -p runs/cut
head -30 runs/hay/answers.jsonl > runs/cut/answers.jsonl
printf '[0,29,1,[[3' >> runs/cut/answers.jsonl
hay=(--needles needles.jsonl --haystack hay.txt --lengths 24:96:4 --depths 5 --prompt '{context} ?' --facts facts.jsonl --predict 1 --top 1 --top 2 --mask zero)
run 0 "goes on" "$noema" heads $m "${hay[@]}" -o runs/cut
same "resumed and whole" runs/cut/scores.json runs/hay/scores.json
is "kept lines stay" "$(head -30 runs/cut/answers.jsonl | cksum)" "$(head -30 runs/hay/answers.jsonl | cksum)"
mkdir -p runs/other && cp runs/hay/answers.jsonl runs/other
run 2 "another run's folder" "$noema" heads $m --data rows.jsonl --predict 1 -o runs/other
says 'holds the answers of another run'
run 2 "a finished folder" "$noema" heads $m --data rows.jsonl --predict 1 -o runs/rows
says 'already holds a finished run'

# ---- the published figures ---------------------------------------------------------------
if [ -d "$published" ]; then
  run 0 "published" "$noema" heads --from-scores "$published/llama-2-7b-80k.csv" "$published/Mistral-7B-v0.2-hf.csv" "$published/Mixtral-8x7B-v0.1.csv"
  prints '^llama-2-7b-80k\.csv +1024 +586 +33 +3\.2 % +6 +70 % +12 +6'
  prints '^Mixtral-8x7B-v0\.1\.csv +1024 +390 +63 +6\.2 % +7 +58 % +30 '
  prints '^ *16-19 +0\.943 '
  prints 'llama-2-7b-80k.csv and Mistral-7B-v0.2-hf.csv: correlation of mean scores -0\.009'
  prints 'Mistral-7B-v0.2-hf.csv and Mixtral-8x7B-v0.1.csv: correlation of mean scores 0\.964'
else echo "skipped: no ../shared/data/retrieval-heads"; fi

# ---- refusals ------------------------------------------------------------------------------
echo '{"text": "saw ann by night ?", "answer": "night"}' > silent.jsonl
run 1 "no trial answered" "$noema" heads $m --data silent.jsonl --predict 1 -o runs/silent
says 'none of the 1 trials was answered .* so no head has a score'
if [ -e runs/silent/scores.json ]; then no "scores without answers"; else ok; fi
echo '{"text": "saw ann by night ?", "answer": "bob"}' > absent.jsonl
run 2 "needle not there" "$noema" heads $m --data absent.jsonl -o runs/absent
says 'absent.jsonl: row 1: the needle .bob. is not among the .* at best 0 %'
echo '{"needle": "ann saw the big red fox run by the sea by night", "answer": "ann"}' > wide.jsonl
run 2 "needle longer than the context" "$noema" heads $m --needles wide.jsonl --haystack hay.txt --lengths 8 -o runs/short
says 'too many for a context of 8'
run 2 "hay too short" "$noema" heads $m --needles needles.jsonl --haystack needles.jsonl --lengths 4000 -o runs/nohay
says 'takes 3[0-9]*'
run 2 "longer than the model's context" "$noema" heads $m --needles needles.jsonl --haystack hay.txt --lengths 400 --depths 1 -o runs/long
says 'more than the context of 256'
echo '{"text": "x"}' > bad.jsonl
run 3 "no answer in a row" "$noema" heads $m --data bad.jsonl -o runs/bad
says 'bad.jsonl: row 1: expected "text" and "answer"'
try 2 "$noema" heads $m
try 2 "$noema" heads $m --data rows.jsonl --needles needles.jsonl
try 2 "$noema" heads $m --needles needles.jsonl
try 2 "$noema" heads $m --data rows.jsonl --count twice
try 2 "$noema" heads $m --data rows.jsonl --lengths 9:1:2
try 2 "$noema" heads $m --data rows.jsonl --top 0
try 2 "$noema" heads $m --data rows.jsonl --top 20 --predict 1 -o runs/top
says 'takes 40 heads; the model has 24'
try 2 "$noema" heads $m --data rows.jsonl --mask half
echo '{"0-0": []}' > empty.json
try 3 "$noema" heads --from-scores empty.json
says 'empty.json: no trial was kept'
try 3 "$noema" heads --from-scores rows.jsonl
try 3 "$noema" heads --from-scores nothing.json
if [ -f "$real" ]; then
  echo 'Lily liked to play in the park. The dog ran to the big tree. It was a sunny day. Tom had a red ball.' > story.txt
  for i in 1 2 3 4; do cat story.txt story.txt > s2; mv s2 story.txt; done
  echo '{"needle": "The secret word is zebra.", "question": "What is the secret word?", "answer": "secret word is zebra"}' > n.jsonl
  run 1 "a model that cannot" "$noema" heads "$real" --needles n.jsonl --haystack story.txt --lengths 200:300:2 --depths 2 --predict 8 -o runs/real
  says 'none of the 4 trials was answered'
fi
"$noema" heads --from-scores runs/rows/scores.json | head -1 > /dev/null
is "a closed pipe" "${PIPESTATUS[0]}" 0

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
