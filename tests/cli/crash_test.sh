#!/bin/bash
# Whatever ends a training run, wherever: resumed, it ends in the same files. The process is ended at
# each call that changes a file (tests/crash/preload.c), once as by _exit and once as by a loss of
# power, and killed at 20 random times. Last line: "N passed, N failed".
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "$(dirname "${NOEMA:-build/noema}")") model=$PWD/models/planted.gguf steps=6 pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
ok() { pass=$((pass + 1)); }
no() { fail=$((fail + 1)); echo "FAILED: $*"; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1: '$2', expected '$3'"; fi; }

pkgs="jansson libpcre2-8 libutf8proc sqlite3 libxxhash yaml-0.1"
cc=${CC:-gcc}
$cc -O1 -Wall -Wextra -shared -fPIC -pthread -o "$t/crash.so" tests/crash/preload.c -ldl &&
$cc -std=gnu17 -O1 -Wall -Wextra -Iinclude -Isrc -pthread -o "$t/train" tests/crash/train.c \
  "$build/libnoema.a" $(pkg-config --libs $pkgs) -lm || { echo "0 passed, 1 failed"; exit 1; }

# run DIR THREADS: trains, or goes on; says from where. count STEPS: calls of a run that long. hash DIR: of all files of its checkpoints, by name.
run() { timeout 60 "$t/train" "$model" "$@" $steps; }
count() {
  CRASH_COUNT=$t/count LD_PRELOAD=$t/crash.so "$t/train" "$model" "$t/counted$1" 2 "$1" > /dev/null
  cat "$t/count"
}
hash() { (cd "$1/checkpoints" && sha256sum -- * | sha256sum | cut -c1-16); }

is "begins" "$(run "$t/a" 1)" 0
is "goes on from the end" "$(run "$t/a" 1)" 6
want=$(hash "$t/a")
is "pairs that stay" "$(ls "$t/a/checkpoints" | tr '\n' ' ')" \
  "step-000006.gguf step-000006.state "
for threads in 2 3; do
  run "$t/t$threads" $threads > /dev/null
  is "$threads threads" "$(hash "$t/t$threads")" "$want"
done
saved=("$(count 2)" "$(count 4)") calls=$(count 6)
is "counted" "$(hash "$t/counted6")" "$want"
[ "$calls" -gt 60 ] && ok || no "only $calls calls were seen"

# Each call of three checkpoints; the second and the third remove the one before. What was saved
# before the call is not lost: the run goes on from there or from later.
for power in '' 1; do
  same=0
  for ((n = 1; n <= calls; n++)); do
    d=$t/crash
    rm -rf "$d"
    env CRASH_AT=$n ${power:+CRASH_POWER=1} LD_PRELOAD="$t/crash.so" "$t/train" "$model" "$d" 2 $steps > /dev/null
    code=$? least=$(((n > saved[0]) * 2 + (n > saved[1]) * 2))
    [ $code = 97 ] || no "call $n of $calls: ended with $code"
    from=$(run "$d" $((1 + n % 3))) || no "call $n of $calls${power:+, power lost}: cannot go on"
    [ "${from:--1}" -ge $least ] || no "call $n of $calls${power:+, power lost}: from step $from, step $least was saved"
    [ "$(hash "$d")" = "$want" ] && same=$((same + 1)) || no "call $n of $calls${power:+, power lost}: other files"
  done
  is "ended at each of $calls calls${power:+, power lost}: same files" $same "$calls"
done

# A crash while going on from a crash.
same=0 tried=0
for ((n = 3; n <= calls; n += 7)); do
  d=$t/twice
  rm -rf "$d"
  CRASH_AT=$n LD_PRELOAD=$t/crash.so "$t/train" "$model" "$d" 1 $steps > /dev/null
  CRASH_AT=$((n / 2 + 1)) CRASH_POWER=1 LD_PRELOAD=$t/crash.so "$t/train" "$model" "$d" 1 $steps > /dev/null
  run "$d" 2 > /dev/null
  tried=$((tried + 1))
  [ "$(hash "$d")" = "$want" ] && same=$((same + 1))
done
is "ended twice: same files" $same $tried

# Kills at random times of a longer run, several for one run until it comes through.
steps=60
begin=$(date +%s%N)
run "$t/long" 2 > /dev/null
took=$((($(date +%s%N) - begin) / 1000))
want=$(hash "$t/long")
RANDOM=7 kills=0 early=0 same=0 runs=0
while [ $kills -lt 20 ]; do
  d=$t/killed
  rm -rf "$d"
  for tries in 1 2; do
    [ $kills -lt 20 ] || break
    us=$((took * (RANDOM % 1000) / 1100))
    (timeout -s KILL "$(printf '%d.%06d' $((us / 1000000)) $((us % 1000000)))1" \
      "$t/train" "$model" "$d" $tries $steps; exit $?) > /dev/null 2> "$t/err"
    [ $? = 137 ] && kills=$((kills + 1)) || early=$((early + 1))
  done
  run "$d" 3 > /dev/null
  runs=$((runs + 1))
  [ "$(hash "$d")" = "$want" ] && same=$((same + 1)) || no "run $runs after kills: other files"
  [ $early -lt 200 ] || break
done
is "kills" $kills 20
is "$kills kills at random times in $runs runs: same files" $same $runs
echo "measured: $calls calls of three checkpoints, each ended twice over; $kills kills in $runs runs; files $want"
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
