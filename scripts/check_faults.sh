#!/bin/bash
# Each tests/faults/X.patch puts one known mistake in. In a scratch copy of the tree it is applied,
# and the unit test that its second line names must turn red, having been green without it.
cd "$(dirname "$0")/.." || exit 1
B=${BUILD:-build} pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cp -a Makefile include src tests models "$t"
mkdir -p "$t/$B"
cp -a "$B/src" "$B/tests" "$B/libnoema.a" "$t/$B" 2> /dev/null
for p in tests/faults/*.patch; do
  n=$(basename "$p" .patch)
  read -r _ program test < <(sed -n 2p "$p")
  make -s -C "$t" BUILD="$B" "$B/tests/unit/$program" > "$t/log" 2>&1 || { cat "$t/log"; exit 1; }
  before=$(cd "$t" && "$B/tests/unit/$program" 2>&1)
  patch -s -d "$t" -p1 < "$p" || { fail=$((fail + 1)); echo "FAILED: $n does not apply"; continue; }
  make -s -C "$t" BUILD="$B" "$B/tests/unit/$program" > "$t/log" 2>&1 || { cat "$t/log"; exit 1; }
  after=$(cd "$t" && "$B/tests/unit/$program" 2>&1)
  patch -s -R -d "$t" -p1 < "$p"
  if echo "$before" | grep -q "^\[       OK \] $test$" &&
     echo "$after" | grep -q "^\[  FAILED  \] $test$"; then
    pass=$((pass + 1)); echo "$n: $test turns red"
  else
    fail=$((fail + 1)); echo "FAILED: $n: $test does not turn red"
  fi
done
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
