#!/bin/bash
# The rules a reader relies on: the house's arrows, columns, banned calls, file and function sizes.
cd "$(dirname "$0")/.." || exit 1
order=(core tensor file text report model world look learn lm reason task study serve cli)
bad=0
say() { echo "$*"; bad=$((bad + 1)); }

rank() { for i in "${!order[@]}"; do [ "${order[$i]}" = "$1" ] && echo "$i" && return; done; echo -1; }
for dir in src/*/; do
  me=$(basename "$dir") mine=$(rank "$(basename "$dir")")
  [ "$mine" = -1 ] && say "src/$me is not a folder of the house"
  while IFS=: read -r file line inc; do
    other=$(echo "$inc" | sed -n 's/.*"\([a-z]*\)\/.*/\1/p')
    [ -z "$other" ] && continue
    [ "$me" = cli ] && [ "$other" != cli ] && say "$file:$line: the command line includes noema.h alone, not $other/"
    [ "$(rank "$other")" -gt "$mine" ] && say "$file:$line: $me includes $other, which stands after it in the house"
  done < <(grep -n '#include "' "$dir"*.[ch] /dev/null)
done
while read -r l; do say "over 100 columns: $l"; done \
  < <(LC_ALL=C.UTF-8 grep -nP '^.{101,}' src/*/*.[ch] include/*.h bench/*.c | cut -c1-120)
while read -r l; do say "banned call: $l"; done < <(grep -nE '\b(strcpy|strcat|sprintf|gets|strtok|atoi)\(' src/*/*.[ch])
while read -r l; do say "exit below the command line: $l"; done \
  < <(grep -nE '\b(exit|abort|printf|puts|getenv)\(' src/{core,tensor,file,text,report,model,world,look,learn,study}/*.[ch] | grep -vE '(sn|vsn|buf_)printf|_puts|format\(printf|fputs|nm__')
for f in src/*/*.c; do
  n=$(wc -l < "$f")
  [ "$n" -gt 620 ] && say "$f has $n lines"
  head -1 "$f" | grep -q '^/\*' || say "$f does not open with a comment that says what it is"
done
scripts/worst.sh 1000 | awk '$1 > 75 { print }' > /tmp/noema-long.$$
while read -r l; do say "function too long: $l"; done < /tmp/noema-long.$$
rm -f /tmp/noema-long.$$
[ $bad -eq 0 ] && echo "1 passed, 0 failed" && exit 0
echo "0 passed, $bad failed"
exit 1
