#!/bin/bash
# Whatever ends noema train, wherever: --resume ends in the same files. The process is ended at calls
# that change a file (tests/crash/preload.c), once as by _exit and once as by a loss of power, and
# killed at 20 random times; any number of threads gives one hash. CRASH_FULL=1: at every call of a
# run, else at one of a few. Last line: "N passed, N failed".
. tests/cli/outside.bash
every=8 steps=6
[ -n "$CRASH_FULL" ] && every=1

${CC:-gcc} -O1 -Wall -Wextra -shared -fPIC -pthread -o crash.so "$root/tests/crash/preload.c" -ldl ||
  { echo "0 passed, 1 failed"; exit 1; }

# recipe STEPS SLOTS: a model as small as can be; of three checkpoints one stays.
recipe() {
  cat << END
model: {arch: llama, layers: 1, width: 16, heads: 2, context: 32}
tokenizer: {kind: word}
data: [{world: facts, W: 7, n: 60, order: shuffled}]
optimizer: [{match: ["*attn_q*"], kind: muon}, {kind: adamw}]
length: 24
batch: 4
slots: $2
steps: $1
seed: 5
schedule: {lr: 0.01}
checkpoint: {every: 2, keep: 1}
END
}
recipe $steps 2 > full.yaml
for _ in $(seq 8); do echo '{"text": "ann saw the red fox by night"}'; done > texts.jsonl
cat > lora.yaml << END
base: $root/models/planted.gguf
lora: {rank: 2, targets: [attn_q, ffn_down]}
data: [{file: texts.jsonl, order: shuffled}]
length: 8
batch: 2
steps: $steps
schedule: {lr: 0.01}
checkpoint: {every: 2, keep: 1}
END

# go RECIPE DIR THREADS: trains, or goes on. from: the step that the last one went on from.
go() { timeout 60 "$noema" train "$1" -o "$2" -t "$3" --resume > go.out 2> go.err; }
from() { sed -n '1,/^step/s/^step \([0-9]*\)\/.*/\1/p' go.err | awk '{ print $1 - 1; exit }'; }
hash() { (cd "$1" && sha256sum -- *.gguf checkpoints/* | sha256sum | cut -c1-16); }
# newest DIR: of the checkpoints whose state has its name, 0 without any.
newest() { ls "$1/checkpoints" 2> /dev/null | sed -n 's/^step-0*\([0-9]*\)\.state$/\1/p' | sort -n | tail -1; }
end_at() { env CRASH_AT=$1 ${2:+CRASH_POWER=1} LD_PRELOAD="$PWD/crash.so" "$noema" train "$3" -o "$4" -t 2 --resume > /dev/null 2>&1; }

for name in full lora; do
  go $name.yaml r/$name 1 && is "$name: begins" "$(from)" 0 || no "$name: $(tail -1 go.err)"
  want=$(hash r/$name)
  go $name.yaml r/$name 1 && is "$name: goes on from the end" "$(hash r/$name)" "$want"
  is "$name: pairs that stay" "$(ls r/$name/checkpoints | tr '\n' ' ')" "step-000006.gguf step-000006.state "
  for threads in 2 3; do
    go $name.yaml r/$name$threads $threads
    is "$name: $threads threads" "$(hash r/$name$threads)" "$want"
  done
  calls=$(CRASH_COUNT=$PWD/count LD_PRELOAD=$PWD/crash.so "$noema" train $name.yaml -o r/counted -t 2 --resume > /dev/null 2>&1; cat count)
  is "$name: counted" "$(hash r/counted)" "$want"
  rm -rf r/counted
  [ "$calls" -gt 60 ] && ok || no "$name: only $calls calls were seen"
  for power in '' 1; do
    same=0 tried=0
    for ((n = 1 + ${power:-0}; n <= calls; n += every)); do
      rm -rf r
      end_at $n "$power" $name.yaml r/crash
      code=$? least=$(newest r/crash)
      [ $code = 97 ] || no "$name, call $n of $calls: ended with $code"
      go $name.yaml r/crash $((1 + n % 3)) || no "$name, call $n of $calls${power:+, power lost}: cannot go on: $(tail -1 go.err)"
      at=$(from)
      [ "${at:-$steps}" -ge "${least:-0}" ] || no "$name, call $n of $calls${power:+, power lost}: from step $at, step $least was saved"
      tried=$((tried + 1))
      [ "$(hash r/crash)" = "$want" ] && same=$((same + 1)) || no "$name, call $n of $calls${power:+, power lost}: other files"
    done
    is "$name: ended at $tried of $calls calls${power:+, power lost}: same files" $same $tried
  done
  # A crash while going on from a crash.
  same=0 tried=0
  for ((n = 5; n <= calls; n += 3 * every)); do
    rm -rf r
    end_at $n '' $name.yaml r/twice
    end_at $((n / 2 + 1)) 1 $name.yaml r/twice
    go $name.yaml r/twice 2
    tried=$((tried + 1))
    [ "$(hash r/twice)" = "$want" ] && same=$((same + 1))
  done
  is "$name: ended twice: same files" $same $tried
  echo "measured: $name: $calls calls that change a file, ended at one of $every; files $want"
done

# One hash for any threads; the parts of a batch are part of the recipe.
for slots in 1 2 4; do
  recipe 3 $slots > s.yaml
  for threads in 1 2 3; do go s.yaml r/s$threads $threads; done
  is "$slots slots, threads 1, 2, 3" "$(hash r/s2) $(hash r/s3)" "$(hash r/s1) $(hash r/s1)"
  rm -rf r
done

# Kills at random times of a longer run, several for one run until it comes through.
recipe 300 2 > long.yaml
begin=$(date +%s%N)
go long.yaml r/long 2
took=$((($(date +%s%N) - begin) / 1000))
want=$(hash r/long)
RANDOM=7 kills=0 early=0 same=0 runs=0
while [ $kills -lt 20 ]; do
  rm -rf r/killed
  for tries in 1 2; do
    [ $kills -lt 20 ] || break
    us=$((took * (RANDOM % 1000) / 1100))
    (timeout -s KILL "$(printf '%d.%06d' $((us / 1000000)) $((us % 1000000)))1" \
      "$noema" train long.yaml -o r/killed -t $tries --resume; exit $?) > /dev/null 2> err
    [ $? = 137 ] && kills=$((kills + 1)) || early=$((early + 1))
  done
  go long.yaml r/killed 3
  runs=$((runs + 1))
  [ "$(hash r/killed)" = "$want" ] && same=$((same + 1)) || no "run $runs after kills: other files: $(tail -1 go.err)"
  [ $early -lt 200 ] || break
done
is "kills" $kills 20
is "$kills kills at random times in $runs runs: same files" $same $runs
echo "measured: $kills kills in $runs runs"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
