#!/bin/bash
# counts.sh [--write]: instructions of five fixed workloads under callgrind, one thread, kernels avx2,
# (valgrind knows no AVX-512), compared with bench/counts.txt to 2 %. Times of a shared machine say little about a change of a few
# per cent; these numbers repeat to a millionth. They belong to one compiler, named in the file.
cd "$(dirname "$0")/.." || exit 1
noema=$(realpath "${NOEMA:-build/noema}") file=bench/counts.txt
command -v valgrind > /dev/null || { echo "skipped: no valgrind here (apt-get install valgrind)"; exit 0; }
compiler=$("${CC:-gcc}" --version | head -n 1)
if [ "$1" != --write ] && [ "$(sed -n 's/^# //p' $file | head -n 1)" != "$compiler" ]; then
  echo "skipped: the counts are of another compiler ($(sed -n 's/^# //p' $file | head -n 1))"
  exit 0
fi
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
"$noema" bench --make tiny:F32 -o "$t/f32.gguf" > /dev/null && "$noema" bench --make tiny:Q8_0 -o "$t/q8.gguf" > /dev/null || exit 1
ids=$(seq -s ' ' 3 130)
for i in $(seq 40); do echo "the red fox $i saw ann by night, and bob by day?"; done > "$t/text"
printf 'model: {arch: llama, layers: 1, width: 32, heads: 2, context: 32}\ntokenizer: {kind: char}\ndata:\n  - {world: facts, W: 7, n: 40}\nbatch: 2\nsteps: 2\n' > "$t/r.yaml"
# name, then the command
work() {
  case $1 in
    prefill)  "${@:2}" "$noema" logits "$t/f32.gguf" --ids "$ids" --at last --kernels avx2 -t 1 --json ;;
    capture)  "${@:2}" "$noema" acts "$t/q8.gguf" --site 'blk.*.*' --at all --ids "$ids" --kernels avx2 -t 1 -o "$t/acts" ;;
    tokenize) "${@:2}" "$noema" tokenize "$t/f32.gguf" --ids < "$t/text" ;;
    probe)    "${@:2}" "${BUILD:-build}/bench/probe" 300 48 3 1 1 ;;
    train)    "${@:2}" "$noema" train "$t/r.yaml" -o "$t/run" --kernels avx2 -t 1 ;;
  esac > "$t/out" 2>&1 || { echo "FAILED: $1: $(tail -n 2 "$t/out")"; return 1; }
}
pass=0 fail=0
[ "$1" = --write ] && echo "# $compiler" > "$file.new"
for w in prefill capture tokenize probe train; do
  work $w valgrind --tool=callgrind --callgrind-out-file="$t/cg" || { fail=$((fail + 1)); continue; }
  n=$(sed -n 's/^\(summary\|totals\): //p' "$t/cg" | tail -n 1)
  if [ "$1" = --write ]; then echo "$w $n" | tee -a "$file.new"; continue; fi
  was=$(sed -n "s/^$w //p" $file)
  if awk -v n="$n" -v w="$was" 'BEGIN { exit !(w > 0 && n > 0.98 * w && n < 1.02 * w) }'; then pass=$((pass + 1)); else
    fail=$((fail + 1))
    echo "FAILED: $w takes $n instructions, bench/counts.txt says ${was:-nothing}; if that is meant: make counts-write"
  fi
done
[ "$1" = --write ] && { [ $fail = 0 ] && mv "$file.new" "$file"; exit $fail; }
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
