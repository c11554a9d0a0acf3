#!/bin/bash
# fuzz.sh SECONDS TARGET.c...: builds each target with libFuzzer and runs it on its seeds.
cd "$(dirname "$0")/.." || exit 1
command -v clang >/dev/null || { echo "fuzzing needs clang (and libclang-rt-14-dev)"; exit 1; }
seconds=$1; shift
mkdir -p build-fuzz
pkgs="jansson libpcre2-8 libutf8proc sqlite3 libxxhash yaml-0.1"
flags="-std=gnu17 -g -O1 -ffp-contract=off -fsanitize=fuzzer-no-link,address,undefined -Iinclude -Isrc $(pkg-config --cflags $pkgs)"
make --no-print-directory -s BUILD=build-fuzz CC=clang OPT=-O1 SAN="-fsanitize=fuzzer-no-link,address,undefined" build-fuzz/libnoema.a || exit 1
st=0
for t in "$@"; do
  n=$(basename "$t" .c)
  clang $flags -c "$t" -o "build-fuzz/$n.o" &&
  clang -fsanitize=fuzzer,address,undefined -o "build-fuzz/$n" "build-fuzz/$n.o" build-fuzz/libnoema.a $(pkg-config --libs $pkgs) -lm -pthread || { st=1; continue; }
  mkdir -p "build-fuzz/corpus-$n"
  seeds=tests/fuzz/seeds/${n%_fuzz}
  echo "== $n, $seconds s"
  "build-fuzz/$n" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    "build-fuzz/corpus-$n" $([ -d "$seeds" ] && echo "$seeds") > "build-fuzz/$n.log" 2>&1 || { st=1; tail -20 "build-fuzz/$n.log"; }
  grep -E 'number_of_executed|^SUMMARY' "build-fuzz/$n.log"
done
exit $st
