#!/bin/bash
# noema bench from outside: its figures, a peer in turns, a busy core, every operation, and what it
# refuses.
. tests/cli/outside.bash
figure() { grep -F "{\"name\": \"$1\"," out | grep -c '"value": [0-9.e+-]*[1-9]'; }

"$noema" bench --make tiny:Q8_0 -o m.gguf 2> /dev/null || no "no model"
try 0 "$noema" bench m.gguf -n 32 --decode 8 --rounds 2 --json
for f in "f32 multiply-add peak" "memory read, 1 GiB" prefill decode "peak memory" \
  "capture resid_post, to memory" "capture resid_post, to disk" "capture up to the middle" \
  "edit at every layer"; do
  is "a figure for '$f'" "$(figure "$f")" 1
done
is "the limit of decode" "$(grep '"name": "decode"' out | grep -c '"of": "memory read"')" 1
is "no folder is left" "$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'noema-bench-*' -newer m.gguf | wc -l)" 0
try 0 "$noema" bench m.gguf -n 16 --rounds 1 --what sites
prints "capture attn.pattern .*x plain"
try 0 "$noema" bench m.gguf -n 16 --rounds 1 --what none --busy
prints "prefill while busy .*of idle"
prints "decode while busy .*fair: "

# A peer: the last number, or the group of a pattern; what it may know comes in the environment.
peer='echo "$WHAT of $TOKENS with $THREADS: pp 20 t/s, then 1e3 x 40.5"; test -f "$MODEL"'
try 0 "$noema" bench m.gguf -n 16 -t 1 --rounds 3 --what prefill --peer "$peer"
prints "prefill of the peer +40.5 tokens/s"
prints "prefill: noema / peer .*\["
try 0 "$noema" bench m.gguf -n 16 -t 1 --rounds 1 --what decode --decode 4 --peer "$peer" --peer-pattern 'of ([0-9]+) with'
prints "decode of the peer +4\.0* tokens/s"
try 1 "$noema" bench m.gguf -n 16 --what prefill --peer 'echo nothing'; says "printed no figure"
try 1 "$noema" bench m.gguf -n 16 --what prefill --peer 'echo 5; exit 3'; says "ended with code 3"
try 2 "$noema" bench m.gguf -n 16 --what prefill --peer 'echo 5' --peer-pattern '('; says "no regular expression"

try 2 "$noema" bench m.gguf --rounds 0; says "rounds must be"
try 2 "$noema" bench m.gguf --decode 0; says "decode must be"
try 2 "$noema" bench m.gguf --ops; says "takes no MODEL"
try 2 "$noema" bench --ops --kernels moon; says "not 'moon'"
limit=300 try 0 "$noema" bench --ops -t 2 --json
is "every operation" "$(grep -c '"name": ' out)" 32
is "a share for each" "$(grep -c '"share": [0-9.]' out)" 32

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
