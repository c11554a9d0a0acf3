#!/bin/bash
# noema study from outside: the list, a quick run and its files, finished seeds, a known mistake,
# wrong words. Last line: "N passed, N failed".
noema=$(realpath "${NOEMA:-build/noema}") pass=0 fail=0
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cd "$t" || exit 1
ok() { pass=$((pass + 1)); }
no() { fail=$((fail + 1)); echo "FAILED: $*"; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1: '$2', expected '$3'"; fi; }
# run CODE COMMAND...: runs, checks the exit code, leaves `out` and `err`.
run() {
  local code=$1
  shift
  timeout 100 "$@" > out 2> err < /dev/null
  is "${*:2}: exit code" $? "$code"
}
says() { if grep -qE -- "$1" err; then ok; else no "stderr lacks '$1': $(head -2 err)"; fi; }
prints() { if grep -qE -- "$1" out; then ok; else no "stdout lacks '$1': $(head -2 out)"; fi; }

run 0 "$noema" study
prints '^concept-depth'
faults=$(sed -n 's/^  --fault \([a-z-]*\) .*/\1/p' out)
is "known mistakes" "$(echo "$faults" | wc -l)" 6

# Quick shows that it runs and proves nothing: inconclusive, with every control in its bounds.
run 6 "$noema" study concept-depth --quick --seeds 1 -o a
prints '^concept-depth: inconclusive'
prints '^shuffled, high .* ok$'
grep -q ' RED$' out && no "a control left its bounds" || ok
for f in study.json report.html; do [ -s a/$f ] && ok || no "a/$f is missing"; done
run 6 "$noema" study concept-depth --quick --seeds 1 --json -o a
grep -q '"claims"' out && ok || no "no claims in the JSON"
is "a finished seed is not trained again" "$(grep -c tokens err)" 0
run 6 "$noema" study concept-depth --quick --seeds 1 -t 1 -o b
for d in a b; do grep -v '"seconds"' $d/seed-1.json > $d.figures; done
cmp -s a.figures b.figures && ok || no "one thread gives other figures"
cmp -s a/model-1.gguf b/model-1.gguf && ok || no "one thread gives another model"

# With a known mistake put in it must not pass.
for f in $faults; do
  run 5 "$noema" study concept-depth --quick --seeds 1 --fault "$f" -o "fault-$f"
  prints '^concept-depth: fail'
done

run 2 "$noema" study nothing; says "nothing"
run 2 "$noema" study concept-depth --fault nothing; says "nothing"
run 2 "$noema" study concept-depth --seeds 1,x; says "x"
echo "$pass passed, $fail failed"
[ $fail = 0 ]
