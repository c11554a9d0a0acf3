#!/bin/bash
# Runs the tests and adds them up. `check.sh unit`: the unit tests only.
cd "$(dirname "$0")/.." || exit 1
B=${BUILD:-build} pass=0 fail=0
export NOEMA=$B/noema LC_ALL=C.UTF-8
log=$B/check.log
: > "$log"

# tally NAME COMMAND...: runs it, shows its summary, counts "N passed, N failed" or cmocka's lines.
tally() {
  local name=$1 out st p f
  shift
  out=$("$@" 2>&1); st=$?
  printf '%s\n' "== $name" "$out" >> "$log"
  p=$(printf '%s\n' "$out" | sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p; s/^\([0-9]*\) passed, [0-9]* failed.*/\1/p' | tail -1)
  f=$(printf '%s\n' "$out" | sed -n 's/^\[  FAILED  \] [^0-9]*\([0-9]*\) test.*/\1/p; s/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' | tail -1)
  p=${p:-0} f=${f:-0}
  [ $st -ne 0 ] && [ "$f" = 0 ] && f=1
  [ $st -eq 0 ] && [ "$p" = 0 ] && p=1
  pass=$((pass + p)) fail=$((fail + f))
  printf '%-34s %4d passed %3d failed\n' "$name" "$p" "$f"
  printf '%s\n' "$out" | grep -E '^(skipped|conformance|measured)' | sed 's/^/    /'
  if [ "$f" != 0 ]; then printf '%s\n' "$out" | tail -40; fi
}

for t in tests/unit/*_test.c; do
  n=$(basename "$t" .c)
  tally "unit: $n" "$B/tests/unit/$n"
done
if [ "${1:-}" != unit ]; then
  tally "house and style" scripts/style.sh
  for t in tests/cli/*.sh; do tally "cli: $(basename "$t" .sh)" bash "$t"; done
  tally "examples of the docs" scripts/examples.sh
  tally "instruction counts" bash bench/counts.sh
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
