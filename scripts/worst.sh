#!/bin/sh
# The longest functions and those with the most branches: lines, branches, where.
n=${1:-10}
list() {
  awk '
    FNR == 1 { open = 0; head = "" }
    !open && /^[a-zA-Z_].*\(/ { head = $0; start = FNR }
    !open && /\) \{$/ && head != "" { open = 1; branches = 0 }
    open { t = $0; branches += gsub(/(^|[^a-z_])(if|for|while|case)([^a-z_]|$)|&&|\|\|| \? /, "", t) }
    open && /^}/ { sub(/\(.*/, "", head); sub(/.*[ *]/, "", head)
      printf "%d %d %s:%d %s\n", FNR - start + 1, branches, FILENAME, start, head; open = 0; head = "" }
  ' src/*/*.c src/tensor/kern_body.h
}
if [ "$n" -gt 100 ]; then list | sort -rn; exit; fi
echo "lines branches: the longest"; list | sort -rn | head -"$n"
echo "lines branches: the most branches"; list | sort -k2,2rn | head -"$n"
