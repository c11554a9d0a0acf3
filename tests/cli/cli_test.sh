#!/bin/bash
# The verbs from outside (depth has a test of its own): exit codes and their sentences, shapes of
# what is written, interrupted folders, round trips. Last line: "N passed, N failed".
. tests/cli/outside.bash
data=$root/../shared/data m=planted.gguf
text='ann saw the red fox by night , it went up ?'

json() {
  command -v python3 > /dev/null || return
  while read -r line; do
    printf '%s' "$line" | python3 -m json.tool > /dev/null 2>&1 || { no "$1: not JSON"; return; }
  done < "${2:-out}"
  ok
}
whole_json() {
  command -v python3 > /dev/null || return
  python3 -m json.tool out > /dev/null 2>&1 && ok || no "$1: not JSON"
}
# shape F.npy '(6, 32)'
shape() {
  local found
  found=$(head -c 128 "$1" | LC_ALL=C tr -cd '[:print:]')
  found=$(printf '%s' "$found" | sed -n "s/.*'shape': \(([0-9, ]*)\).*/\1/p")
  is "$1" "$found" "$2"
}

"$noema" world planted -o $m || no "world planted"

# ---- no model, wrong words, wrong numbers ------------------------------------
run 2 "no verb" "$noema"
run 2 "unknown verb" "$noema" prob; says "unknown verb 'prob'"
for v in info tokenize logits acts embed depth probe bench; do
  run 2 "$v without arguments" "$noema" $v
  says "^noema $v: "; says "^usage: noema $v"
  is "$v: nothing on stdout" "$(wc -c < out)" 0
done
run 0 "world without arguments" "$noema" world; prints "^chase "
for v in info tokenize logits acts embed depth probe runs world bench; do
  run 0 "$v --help" "$noema" $v --help
  prints "^usage: noema $v"
  is "$v --help is quiet" "$(wc -c < err)" 0
  run 2 "$v: unknown option" "$noema" $v $m --nonsense; says "unknown option '--nonsense'"
done
run 0 "help" "$noema" --help; prints "^  logits"
run 0 "version" "$noema" --version; prints "^noema [0-9]"
run 0 "man page" "$noema" --man; prints "^.TH NOEMA"
run 0 "completion" "$noema" --completion; bash -n out && ok || no "the completion is not bash"
run 3 "info: missing file" "$noema" info nowhere.gguf; says 'nowhere.gguf'
run 3 "logits: missing file" "$noema" logits nowhere.gguf --ids 1; says 'nowhere.gguf'
run 3 "acts: missing file" "$noema" acts nowhere.gguf --site embed --ids 1 -o a.npy
run 3 "tokenize: missing file" "$noema" tokenize nowhere.gguf
run 3 "bench: missing file" "$noema" bench nowhere.gguf
run 3 "data: missing file" "$noema" logits $m --data nowhere.csv; says 'nowhere.csv'
run 3 "edit: missing file" "$noema" logits $m --ids 1 --edit nowhere.json; says 'nowhere.json'
for n in x 1x '' 1.5 99999999999999999999; do
  run 2 "bad number '$n'" "$noema" logits $m --ids 1 -t "$n"
  says 'takes a number'
done
for o in -t -c --chunk --batch; do
  run 2 "$o -1" "$noema" logits $m --ids 1 $o -1
  run 2 "$o too large" "$noema" logits $m --ids 1 $o 4294967297
done
run 2 "a value is missing" "$noema" logits $m --ids; says 'needs a value'
run 2 "a flag takes no value" "$noema" logits $m --json=1 --ids 1; says 'takes no value'
run 2 "two models" "$noema" logits $m $m --ids 1; says 'one MODEL'
run 2 "two inputs" "$noema" logits $m --ids 1 -p x; says 'one of --ids'
run 2 "kernels" "$noema" logits $m --ids 1 --kernels mmx; says "'mmx'"
run 2 "act" "$noema" logits $m --ids 1 --act q8; says 'q8'
for i in x '1 x' -1 '' 99999999999; do
  run 2 "ids '$i'" "$noema" logits $m --ids "$i"
  says '--ids'
done
run 3 "id outside the vocabulary" "$noema" logits $m --ids 100000; says 'outside the vocabulary'
run 3 "text longer than -c" "$noema" logits $m --ids '1 2 3 4 5' -c 4
says 'longer than the context of 4'
run 2 "acts without --site" "$noema" acts $m --ids 1 -o a.npy; says '--site is needed'
run 2 "acts without -o" "$noema" acts $m --ids 1 --site embed; says 'needed'
run 2 "no such site" "$noema" acts $m --ids 1 --site nothing -o a.npy; says "site 'nothing'"
run 2 "world: what" "$noema" world moon -o x; says "'moon'"
run 2 "world: n" "$noema" world planted-a -n 0 -o x; says '-n must be'
run 2 "bench: shape" "$noema" bench --make moon:F32 -o x; says "shape 'moon'"
run 2 "bench: type" "$noema" bench --make tiny:Q9 -o x; says "type 'Q9'"
run 1 "cannot write" "$noema" world planted -o nowhere/x.gguf
is "no model was left behind" "$(ls)" "$(printf 'err\nout\nplanted.gguf')"

# ---- info, logits ---------------------------------------------------------------
run 0 "info" "$noema" info $m --sites; prints 'architecture +llama'; prints 'blk.N.attn.pattern'
run 0 "info --json" "$noema" info $m --sites --json; prints '"layers": 6'; whole_json "info --json"
run 0 "logits" "$noema" logits $m -p "$text" --top 1; cp out top
prints '^text 1, position 12$'; is "logits --top 1" "$(wc -l < out)" 2; prints " 'ann'$"
for o in '-t 3' '--chunk 1' '--batch 1' '--kernels portable' '-t 2 --chunk 4' '-c 64'; do
  run 0 "logits $o" "$noema" logits $m -p "$text" --top 1 $o
  cmp -s out top && ok || no "logits differ with $o"
done
run 0 "logits --json" "$noema" logits $m -p "$text" --json --at 0,-1
json "logits --json"
prints '"positions": \[0, 12\]'
printf '{"text": "ann saw"}\n{"text": "the red fox went up"}\n{"text": "bob"}\n' > three.jsonl
run 0 "three texts" "$noema" logits $m --data three.jsonl --json
json "three texts"
is "three texts" "$(wc -l < out)" 3
cp out three
# Rows of ids: every row must have them, and hold ids.
printf '{"ids": [1, 2]}\n{"ids": [3]}\n' > ids.jsonl
run 0 "rows of ids" "$noema" logits $m --data ids.jsonl --json
is "a line a row" "$(wc -l < out)" 2
printf '{"ids": [1, 2]}\n{"text": "bob"}\n' > ids.jsonl
run 3 "a row without ids" "$noema" logits $m --data ids.jsonl --json
says 'ids.jsonl: line 2'
printf '{"ids": [1, "x"]}\n' > ids.jsonl
run 3 "an id that is a word" "$noema" logits $m --data ids.jsonl --json
says 'line 1: "ids"'
while read -r line; do printf '%s\n' "$line" | sed 's/.*: "\(.*\)"}/\1/'; done < three.jsonl > texts
i=0
while read -r line; do
  run 0 "text $i alone" "$noema" logits $m -p "$line" --json
  is "text $i alone" "$(sed 's/"seq": 0/"seq": '$i'/' out)" "$(sed -n $((i + 1))p three)"
  i=$((i + 1))
done < texts
for o in '--chunk 1 --batch 3' '--chunk 2 --batch 2'; do
  run 0 "three texts $o" "$noema" logits $m --data three.jsonl --json $o
  cmp -s out three && ok || no "three texts differ with $o"
done
run 0 "dry run" "$noema" logits $m --ids '1 2 3' --dry-run; prints '^total +[0-9.]+ MB'
run 1 "full disk" sh -c "'$noema' logits $m --ids '1 2' --json > /dev/full"
says 'could not be written'
timeout 20 "$noema" logits $m -p "$text" --at all --top 300 2> err | head -1 > out
is "a pipe that closes early" "${PIPESTATUS[0]/141/0}" 0
is "its first line" "$(cat out)" 'text 1, position 0'

# ---- positions --------------------------------------------------------------------
for p in last=12 0=0 -1=12 -13=0 1:3=1,2 :2=0,1 11:=11,12 -2:=11,12 2,5=2,5 span:red=4 \
         'span:red fox=4,5' 0,span:fox=0,5; do
  run 0 "--at ${p%=*}" "$noema" logits $m -p "$text" --at "${p%=*}" --json
  is "--at ${p%=*}" "$(sed 's/.*"positions": \[\([0-9, ]*\)\].*/\1/; s/ //g' out)" "${p##*=}"
done
for p in first 1- '' 1:2:3 99 -14 span: span:blue generated; do
  run 2 "--at '$p'" "$noema" logits $m -p "$text" --at "$p"
  is "--at '$p' prints nothing" "$(wc -c < out)" 0
done

# ---- arrays -------------------------------------------------------------------------
a() { run 0 "acts $*" "$noema" acts $m -p "$text" -o a.npy "$@"; }
a --site 'blk.*.resid_post'; shape a.npy '(6, 32)'
a --site 'blk.*.resid_post' --at all; shape a.npy '(6, 13, 32)'
a --site embed --at 2,1; shape a.npy '(1, 2, 32)'
a --site 'blk.0.attn.pattern'; shape a.npy '(1, 52)'
a --site 'blk.2.mlp.act[3]' --at all; shape a.npy '(1, 13, 1)'
run 0 "several texts" "$noema" acts $m --data three.jsonl --site 'blk.0-1.mlp_norm' -o a.npy
shape a.npy '(3, 2, 32)'
run 0 "logits array" "$noema" logits $m --ids '1 2 3' --at all -o a.npy
shape a.npy "(3, $("$noema" info $m --json | sed -n 's/.*"vocab": \([0-9]*\).*/\1/p'))"
run 2 "widths that differ" "$noema" acts $m --ids 1 --site 'blk.0.*norm|blk.0.mlp.act' -o b.npy
says 'say -o DIR'
run 2 "positions of texts" "$noema" acts $m --data three.jsonl --site embed --at all -o b.npy
says 'say -o DIR'
[ -e b.npy ] && no "an array was written by a refused run" || ok

# ---- edits ---------------------------------------------------------------------------
echo '{"site": "blk.2.mlp_out", "op": "zero"}' > e.json
run 0 "edit" "$noema" logits $m -p "$text" --top 1 --edit e.json
says 'edit 1: zero at blk.2.mlp_out.*: 13 positions edited'
cmp -s out top && no "the edit changed nothing" || ok
echo '{"site": "blk.2.mlp_out", "op": "average"}' > e.json
run 3 "a bad edit" "$noema" logits $m -p "$text" --edit e.json; says 'e.json: edit 1: "op" must be'

# ---- a folder, interrupted ---------------------------------------------------------------
awk 'BEGIN { for (i = 0; i < 1100; i++) {
  printf "{\"ids\": [1"
  for (k = 0; k < 5 + i % 30; k++) printf ", %d", (i * 7 + k * 13) % 300
  print "]}" } }' > many.jsonl
acts="$noema acts $m --data many.jsonl --site blk.*.resid_post|embed -t 1 --kernels portable"
listed() { grep -c '"seq"' cut/index.jsonl 2> /dev/null; }
set -f
run 0 "the whole folder" $acts -o whole
for try in 1 2 3; do
  $acts -o cut > out 2> err < /dev/null & pid=$!
  for w in $(seq 600); do
    [ $try -gt 1 ] || [ "$(listed)" -gt 0 ] 2> /dev/null && break
    sleep 0.02
  done
  sleep 0.1
  kill -INT $pid 2> /dev/null
  wait $pid
  st=$?
  is "interrupt $try: exit code" $st 130
  [ "$(listed)" -lt 1100 ] && ok || no "interrupt $try came too late to test anything"
done
run 0 "going on" $acts -o cut
diff -r -x config.json whole cut > /dev/null && ok || no "a resumed folder differs from a whole one"
is "every text is listed once" "$(grep -c '"seq"' cut/index.jsonl)" 1100
json "index.jsonl" <(head -50 cut/index.jsonl)
run 0 "nothing left to do" $acts -o cut
run 2 "another run's folder" "$noema" acts $m --data many.jsonl --site embed -o cut
says 'holds another run'
set +f
run 0 "sites of any width" "$noema" acts $m --data three.jsonl --site 'blk.1.*' --at all -o wide
shape wide/blk.1.mlp.act.00000.npy "($(grep -c . wide/index.jsonl | sed 's/4/3/'), 16)"

# ---- tokens ---------------------------------------------------------------------------------
rt() { printf '%s' "$1" | "$noema" tokenize $m --ids | "$noema" tokenize $m --decode; }
for s in "$text" 'ann  saw' 'x y z' 'zażółć gęślą 日本語 🙂' $'line\nline\ttab' '<s> is text'; do
  is "round trip" "$(rt "$s")" "$s"
done
printf 'ann saw' | "$noema" tokenize $m --json > out; json "tokenize --json"
is "begin token" "$(printf 'ann' | "$noema" tokenize $m --ids | wc -w)" 2
is "--no-bos" "$(printf 'ann' | "$noema" tokenize $m --ids --no-bos | wc -w)" 1
is "a token a line" "$(printf 'ann saw' | "$noema" tokenize $m | wc -l)" 3
printf '1 x' | "$noema" tokenize $m --decode > out 2> err; is "decode: not an id" $? 2
printf '1 99999' | "$noema" tokenize $m --decode > out 2> err; is "decode: no such id" $? 3

# ---- worlds and random models ------------------------------------------------------------------
for type in F32 F16 BF16 Q8_0 Q4_0 Q5_0; do
  run 0 "bench --make tiny:$type" "$noema" bench --make tiny:$type -o r.gguf
  run 0 "a random model runs" "$noema" logits r.gguf --ids '1 2 3' --top 1
done
run 0 "planted-a" "$noema" world planted-a -n 2 -o a.tsv; is "its rows" "$(wc -l < a.tsv)" 17
run 0 "bench" "$noema" bench $m -n 8 --json; whole_json bench

# ---- files from outside ---------------------------------------------------------------
if [ -d "$data" ]; then
  for f in "$data"/models/malformed/gguf/*.gguf; do
    n=$(basename "$f") want=3
    [[ $n = ok-* ]] && want=0
    run $want "info $n" "$noema" info "$f"
    [ $want = 0 ] && prints 'no model here'
    [ $want = 3 ] && is "info $n: one line" "$(wc -l < err)" 1
    run 3 "logits $n" "$noema" logits "$f" --ids 1; is "logits $n: one line" "$(wc -l < err)" 1
  done
else
  echo "skipped: ../shared is not here"
fi
LC_ALL=C sed 's/\(general\.architecture.\{12\}\)llama/\1mamba/' $m > mamba.gguf
run 0 "info of an unknown family" "$noema" info mamba.gguf
prints 'no model here'
run 3 "running it" "$noema" logits mamba.gguf --ids 1
says "'mamba' is not supported"

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
