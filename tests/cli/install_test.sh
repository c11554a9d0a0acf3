#!/bin/bash
# The library as others use it: make install into a folder, programs built by pkg-config alone,
# dynamically, statically and as C++, and what they print. Then man page, completion, uninstall.
src=$PWD
. tests/cli/outside.bash
BUILD=${BUILD:-build}
for p in pkg-config objcopy; do
  command -v $p > /dev/null || { echo "skipped: $p is missing"; echo "1 passed, 0 failed"; exit 0; }
done
unset MAKEFLAGS MAKELEVEL
limit=600 run 0 "make install" make -C "$src" BUILD="$BUILD" install DESTDIR="$t/dest" PREFIX=/opt/noema
P=$t/dest/opt/noema
for f in bin/noema include/noema.h lib/libnoema.a lib/libnoema.so lib/pkgconfig/noema.pc \
         share/man/man1/noema.1 share/bash-completion/completions/noema \
         share/zsh/site-functions/_noema; do
  if [ -s "$P/$f" ]; then ok; else no "install left no $f"; fi
done

# Programs of others see the functions of noema.h and nothing else.
declared=$(grep -oE '\bnm_[a-z0-9_]+ *\(' "$src/include/noema.h" | tr -d ' (' | sort -u)
nm -D --defined-only "$P/lib/libnoema.so" | awk '{ print $3 }' | sort -u > shown
is "symbols outside noema.h" "$(grep -vE '^nm_[^_]' shown)" ""
is "symbols of libnoema.a outside noema.h" \
   "$(nm -g --defined-only "$P/lib/libnoema.a" | awk 'NF == 3 { print $3 }' | grep -vE '^nm_[^_]')" ""
is "shown but not declared" "$(comm -13 <(echo "$declared") shown)" ""
grep -q nm_model_open shown && ok || no "libnoema.so lacks nm_model_open"
is "soname" "$(objdump -p "$P/lib/libnoema.so" | awk '/SONAME/ { print $2 }')" \
   "libnoema.so.$(sed -n 's/.*NM_VERSION "\([0-9]*\).*/\1/p' "$src/include/noema.h")"
nm -u "$P/lib/libnoema.so" | awk '{ print $2 }' | sed 's/@.*//' |
  grep -xE 'exit|abort|_exit|getenv|printf|puts|putchar' > calls
is "calls that print, exit or read the environment" "$(cat calls)" ""

# pkg-config as a person has it, looking into the folder.
export PKG_CONFIG_PATH=$P/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$t/dest
is "pkg-config's version" "$(pkg-config --modversion noema)" \
   "$(sed -n 's/.*NM_VERSION "\(.*\)"/\1/p' "$src/include/noema.h")"
is "a shared program needs only" "$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --libs noema | xargs)" \
   "-L/opt/noema/lib -lnoema"
planted=$src/models/planted.gguf text='ann saw the red fox by night ?'
zero='{"site": "blk.0.attn.pattern[3]", "op": "zero"}'
"$noema" world planted-a -n 20 -o a.tsv 2> /dev/null

# use HOW COMMAND...: builds the three programs and looks at what they say.
use() {
  local how=$1 x
  shift
  for x in read_activations steer probe; do
    run 0 "$how: $x builds" sh -c "$(printf "$*" "$src/examples/$x.c" "$x")"
    [ -s err ] && no "$how: $x: $(head -3 err)"
  done
  export LD_LIBRARY_PATH=$P/lib
  run 0 "$how: read_activations" ./read_activations "$planted" "$text"
  prints "^blk.5.resid_post +position 8 +length +[0-9.]+ +of [0-9]+ numbers"
  prints "^next token +362 'ann'"
  is "$how: a line a block" "$(grep -c resid_post out)" 6
  run 0 "$how: steer" ./steer "$planted" "$text" "$zero"
  prints "^before:  'ann' 75.63 %  'yes' 0.52 %"
  prints "^after:  'yes' 2.42 %"
  prints "^zero at blk.0.attn.pattern.3.*: [1-9][0-9]* touched"
  rm -rf probe-run
  run 0 "$how: probe" ./probe "$planted" a.tsv "$text"
  prints "the concept is readable: the curve stands above all its controls"
  prints "^from block 2 on"
  prints "^'ann saw .*probability of the second label (1.000|0.9)"
  run 3 "$how: a model that is none" ./read_activations a.tsv "$text"
  says "a.tsv"
  unset LD_LIBRARY_PATH
}
export CC=${CC:-cc}
use shared '$CC -std=c17 -Wall -Wextra %s $(pkg-config --cflags --libs noema) -lm -o %s'
ldd ./probe | grep -q libnoema && ok || no "the shared program does not load libnoema.so"
rm "$P"/lib/libnoema.so
# Debian has no static libsqlite3 and such everywhere: the library itself is static here.
use static '$CC -std=c17 -Wall -Wextra %s $(pkg-config --static --cflags --libs noema) -o %s'
ldd ./probe | grep -q libnoema && no "the static program loads libnoema.so" || ok
if command -v g++ > /dev/null; then
  use "C++" 'g++ -std=c++20 -x c++ -Wall -Wextra -Wno-missing-field-initializers %s -x none $(pkg-config --static --cflags --libs noema) -o %s'
else echo "skipped: g++ is missing"; fi

# The man page passes groff's warnings; bash completes.
if command -v groff > /dev/null; then
  groff -man -Tutf8 -ww -rLL=90n "$P/share/man/man1/noema.1" > page 2> warnings
  is "groff's warnings" "$(cat warnings)" ""
  for v in $("$noema" --help | awk '/^  [a-z]+  / { print $1 }'); do
    grep -q "noema $v" page && ok || no "the man page lacks $v"
  done
else echo "skipped: groff is missing"; fi
# complete WORDS...: what bash offers for the last one.
complete() {
  bash --norc -c '. "$1"; shift; COMP_WORDS=(noema "$@"); COMP_CWORD=$#
    _noema noema "${!#}" "${COMP_WORDS[COMP_CWORD-1]}"; printf "%s\n" "${COMPREPLY[@]}"' - \
    "$P/share/bash-completion/completions/noema" "$@" | sed 's/ *$//' | xargs
}
is "verbs" "$(complete dep)" "depth"
is "options" "$(complete depth --rep)" "--repeats"
is "choices" "$(complete depth --kernels avx)" "avx2 avx512 avx512bf16"
is "files" "$(complete depth --data a.t)" "a.tsv"
is "free text" "$(complete depth --text a)" ""
is "worlds" "$(complete world planted)" "planted planted-a planted-b"
is "parts of a verb" "$(complete runs c)" "compare clean"
if command -v zsh > /dev/null; then
  run 0 "zsh reads its completion" zsh -fn "$P/share/zsh/site-functions/_noema"
  is "zsh's complaints" "$(cat err)" ""
  # A terminal of its own, in which TAB is typed; what it shows has colours in between.
  cat > tab.zsh <<'Z'
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; echo is\\ ready"
zpty -r -m z out '*is ready*'
for line in 'noema depth --kernels port' 'noema runs comp' 'noema world planted-'; do
  zpty -n -w z "$line"$'\t'
  sleep 1
  zpty -n -w z $'\C-u'
done
while zpty -r -t z out; do print -r -- "$out"; done
Z
  run 0 "TAB in zsh" zsh -f tab.zsh "$P/share/zsh/site-functions"
  prints 'compare'; prints 'planted-a'
  grep -q 'bad option\|not found\|arguments:' out && no "zsh's completion: $(grep -m1 'bad\|found\|argum' out)" || ok
else echo "skipped: zsh is missing"; fi

limit=600 run 0 "make uninstall" make -C "$src" BUILD="$BUILD" uninstall DESTDIR="$t/dest" PREFIX=/opt/noema
is "what uninstall leaves" "$(find "$t/dest" ! -type d)" ""
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
