#!/bin/bash
# all.sh [--quick]: the whole table of docs/speed.md beside its peers, each pair run in turns, and
# the roofline figure. Writes $OUT/table.md, $OUT/roofline.svg and what they came from.
#   BENCH_DIR  where the random models are (made when missing, which is not timed)
#   OUT        default build/bench/out
#   MODELS     which of them, for example "S-BF16 Q-Q8_0"
#   PEER_LLAMA the program of bench/peer_llama.cpp; PYTHON one with scikit-learn and PyTorch
# A peer that is not installed is left out with a sentence. Made for a machine that does nothing else.
cd "$(dirname "$0")/.." || exit 1
B=${BUILD:-build} noema=${NOEMA:-$B/noema} models=${BENCH_DIR:-$B/bench/models} out=${OUT:-$B/bench/out}
threads=${THREADS:-$(nproc)} rounds=2 quick=
[ "$1" = --quick ] && quick=1 rounds=1
export NOEMA=$noema THREADS=$threads OMP_NUM_THREADS=$threads
mkdir -p "$models" "$out" || exit 1
: > "$out/points.txt"
rows=$out/rows.md said=$out/said.txt
: > "$rows"; : > "$said"
began=$(date +%s)
say() { echo "[$(($(date +%s) - began)) s] $*" >&2; }
skip() { say "skipped: $*"; echo "- skipped: $*" >> "$said"; }

# ---- peers --------------------------------------------------------------------
python=
for p in "$PYTHON" python3 /usr/bin/python3; do
  [ "$p" ] && "$p" -c 'import numpy' 2> /dev/null && python=$p && break
done
for p in "$PYTHON" python3 /usr/bin/python3; do
  [ "$p" ] && "$p" -c 'import sklearn' 2> /dev/null && sklearn=$p && break
done
for p in "$PYTHON" python3 /usr/bin/python3; do
  [ "$p" ] && "$p" -c 'import torch' 2> /dev/null && torch=$p && break
done
[ "$sklearn" ] || skip "scikit-learn is not here (apt-get install python3-sklearn)"
[ "$torch" ] || skip "PyTorch is not here (apt-get install python3-torch)"
onednn=$B/bench/peer_onednn
[ -x "$onednn" ] || g++ -O2 bench/peer_onednn.cpp -ldnnl -o "$onednn" 2> /dev/null
[ -x "$onednn" ] || { onednn=; skip "oneDNN is not here (apt-get install libdnnl-dev g++)"; }
llama=${PEER_LLAMA:-$(command -v peer_llama)}
[ -x "$llama" ] || { llama=; skip "no llama.cpp (PEER_LLAMA names the program of bench/peer_llama.cpp)"; }

# ---- one row --------------------------------------------------------------------
# row WHAT NOEMA UNIT SHARE PEER RATIO LO HI
row() {
  local ratio=-
  [ "$6" != - ] && [ "$6" ] && ratio="$6 [$7, $8]"
  printf '| %s | %s %s | %s | %s | %s |\n' "$1" "$2" "$3" "$4" "${5:--}" "$ratio" | tee -a "$rows" >&2
}
# value FILE NAME KEY: out of the JSON of noema bench, where a figure is a line.
value() { grep -F "{\"name\": \"$2\"," "$1" | sed -n "s/.*\"$3\": \"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }
short() { awk -v v="$1" 'BEGIN { if (v == "" || v == "-") print "-"; else if (v >= 100) printf "%.0f", v; else if (v >= 10) printf "%.1f", v; else printf "%.3g", v }'; }
limits() { $noema bench "$models/tiny-Q8_0.gguf" --what none -t "$threads" --json > "$out/limits.json" 2> /dev/null
  f32=$(value "$out/limits.json" "f32 multiply-add peak" value)
  bf16=$(value "$out/limits.json" "bf16 dot peak" value)
  read_gbs=$(value "$out/limits.json" "memory read, 1 GiB" value); bf16=${bf16:-0}; }
need() { [ -f "$models/$2-$3.gguf" ] && return
  say "making $2-$3"; $noema bench --make "$1:$3" -o "$models/$2-$3.gguf" > /dev/null 2>&1 || skip "$2 $3 could not be made"; }

# ---- models ---------------------------------------------------------------------
list="S-F32 S-BF16 S-Q8_0 S-Q4_0 Q-F32 Q-BF16 Q-Q8_0 Q-Q4_0 L-BF16 L-Q8_0 L-Q4_0 L-Q4_K"
[ $quick ] && list="S-F32 S-BF16 S-Q8_0 S-Q4_0"
list=${MODELS:-$list}
need tiny tiny Q8_0
for m in $list S-Q8_0 $([ $quick ] && echo S-BF16 || echo Q-BF16); do
  case $m in S-*) shape=smollm2-135m ;; Q-*) shape=qwen2.5-0.5b ;; L-*) shape=llama3.2-1b ;; esac
  need $shape "${m%%-*}" "${m#*-}"
done
began=$(date +%s)
limits
say "limits: f32 $f32, bf16 $bf16 GFLOP/s, read $read_gbs GB/s"

# ---- kernels: the product as models run it, beside oneDNN -------------------------
for t in f32 bf16; do
  for s in "512 4864 896" "2048 2048 2048"; do
    [ $t = bf16 ] && [ "$bf16" = 0 ] && continue
    peer="$onednn $t $s"; [ "$onednn" ] || peer=
    if [ "$peer" ]; then read -r a p r lo hi <<< "$(bash bench/ab.sh 3 more "$B/bench/gemm $t $s $threads" "$peer")"
    else a=$("$B/bench/gemm" $t $s "$threads" | tail -n 1) p=- r=-; fi
    [ $t = f32 ] && peak=$f32 || peak=$bf16
    row "product $t ${s// / x }" "$(short "$a")" GFLOP/s "$(awk -v a="$a" -v p="$peak" 'BEGIN { if (a > 0) printf "%.2f of the peak", a / p; else print "-" }')" "$(short "$p")" "$r" "$lo" "$hi"
  done
done

# ---- prefill and decode ------------------------------------------------------------
# point GROUP FILE NAME BYTES: operations a byte and what was reached, out of the note.
speed() {
  local m=$1 what=$2 act=$3 f=$out/$1-$2.json
  local args=(bench "$models/$m.gguf" --what "$what" --act "$act" -t "$threads" --rounds "$rounds" --json)
  [ "$llama" ] && args+=(--peer "$llama \$MODEL \$WHAT \$TOKENS \$THREADS")
  $noema "${args[@]}" > "$f" 2> "$out/err.txt" || { skip "$m $what: $(tail -n 1 "$out/err.txt")"; return; }
  local v s r; v=$(value "$f" "$what" value) s=$(value "$f" "$what" share) r=$(value "$f" "$what: noema / peer" value)
  row "$what $m, --act $act" "$(short "$v")" tokens/s "$s of the $(value "$f" "$what" of)" \
    "$(short "$(value "$f" "$what of the peer" value)")" "$(short "$r")" \
    "$(short "$(value "$f" "$what: noema / peer" lo)")" "$(short "$(value "$f" "$what: noema / peer" hi)")"
  local note gf bytes; note=$(value "$f" "$what" note) gf=${note%% *}
  bytes=$(stat -c %s "$models/$m.gguf")
  if [ "$what" = prefill ]; then     # one reading of the weights serves 512 tokens
    awk -v g="$gf" -v v="$v" -v b="$bytes" 'BEGIN { if (v > 0) print "prefill", g * 1e9 / v * 512 / b, g }' >> "$out/points.txt"
  else                               # two operations a weight; GB/s times operations a byte
    awk -v g="$gf" -v w="${m#*-}" 'BEGIN { i = w == "F32" ? 0.5 : w == "BF16" ? 1 : w == "Q8_0" ? 2 / 1.0625 : 2 / 0.5625; print "decode", i, g * i }' >> "$out/points.txt"
  fi
}
for m in $list; do
  [ -f "$models/$m.gguf" ] || continue
  act=bf16
  case $m in *-F32) act=f32 ;; esac
  [ "$bf16" = 0 ] && act=f32
  speed "$m" prefill $act
  speed "$m" decode f32
done

# ---- what looking costs, a busy core ---------------------------------------------------
m=Q-BF16; [ $quick ] && m=S-BF16
say "capture on $m"
f=$out/capture.json
$noema bench "$models/$m.gguf" --what memory,capture --act "$act" -t "$threads" --rounds $((rounds + 1)) --json > "$f" 2> /dev/null
for name in "capture resid_post, to memory" "capture resid_post, to disk" "capture up to the middle" "edit at every layer"; do
  row "$m: $name" "$(short "$(value "$f" "$name" value)")" "x plain" "[$(short "$(value "$f" "$name" lo)"), $(short "$(value "$f" "$name" hi)")]" - -
done
row "$m: peak memory" "$(short "$(value "$f" "peak memory" value)")" MB "$(sed -n 's/.*"peak memory".*"note": "\([^"]*\)".*/\1/p' "$f")" - -
m=S-Q8_0 f=$out/busy.json
$noema bench "$models/$m.gguf" --what none --busy -t "$threads" --rounds $((rounds + 1)) --json > "$f" 2> /dev/null
for name in "prefill while busy" "decode while busy"; do
  row "$m: $name" "$(short "$(value "$f" "$name" value)")" "of idle" "[$(short "$(value "$f" "$name" lo)"), $(short "$(value "$f" "$name" hi)")]" - -
done

# ---- probes -----------------------------------------------------------------------------
probes=("2000 896 1" "8000 2048 1" "8000 2048 16")
[ $quick ] && probes=("2000 896 1" "2000 896 16")
for s in "${probes[@]}"; do
  t=$(mktemp -d)
  a=- p=- r=- lo= hi=
  if [ "$sklearn" ] && "$B/bench/probe" $s 1 "$threads" "$t"; then
    n=$rounds; [ "$s" = "8000 2048 16" ] && n=1
    read -r a p r lo hi <<< "$(bash bench/ab.sh $n less "$B/bench/probe $s 1 $threads" "$sklearn bench/peer_sklearn.py $t/x.npy $t/y.npy")"
  else a=$("$B/bench/probe" $s 1 "$threads" | tail -n 1); fi
  rm -rf "$t"
  set -- $s
  row "probe $1 x $2, labels $3" "$(short "$a")" "s a label" - "$(short "$p")" "$r" "$lo" "$hi"
done

# ---- a training step ----------------------------------------------------------------------
shapes=("4 128 1024 32 128" "6 256 1024 32 128" "12 768 50257 4 64")
[ $quick ] && shapes=("4 128 1024 32 128")
acts=f32
[ "$(bash bench/train.sh 1 32 100 2 16 bf16 2> /dev/null)" ] && acts="f32 bf16"
for s in "${shapes[@]}"; do
  for act in $acts; do
    n=$rounds; [ "${s%% *}" = 12 ] && n=1
    if [ "$torch" ]; then read -r a p r lo hi <<< "$(bash bench/ab.sh $n more "bash bench/train.sh $s $act" "$torch bench/peer_torch.py $s")"
    else a=$(bash bench/train.sh $s $act) p=- r=-; fi
    [ "${a:--}" = - ] && { [ $act = f32 ] && skip "training $s failed"; continue; }
    set -- $s
    row "training $1 layers, d $2, vocabulary $3, $4 x $5, $act" "$(short "$a")" tokens/s - "$(short "$p")" "$r" "$lo" "$hi"
  done
done

# ---- the table and the figure ------------------------------------------------------------------
$noema bench --ops --json -t "$threads" > "$out/ops.json" 2> /dev/null
sed -n 's/.*"seconds": \([0-9.e+-]*\), "flops": \([0-9.e+-]*\), "bytes": \([0-9.e+-]*\),.*/\1 \2 \3/p' "$out/ops.json" |
  awk '$2 > 0 && $1 > 0 { print "operations", $2 / $3, $2 / $1 / 1e9 }' >> "$out/points.txt"
"$B/bench/roofline" "$f32" "$bf16" "$read_gbs" "$out/roofline.svg" < "$out/points.txt" || skip "no figure"
{
  echo "$(date +%F), $threads threads, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1): f32 $(short "$f32") GFLOP/s, bf16 $(short "$bf16") GFLOP/s, memory read $(short "$read_gbs") GB/s; medians of $rounds rounds in turns, $(($(date +%s) - began)) s in all${quick:+ (--quick)}."
  echo
  cat "$said"
  echo
  echo "| what | noema | share of its limit | peer | times the peer [least, most] |"
  echo "|---|---|---|---|---|"
  cat "$rows"
} > "$out/table.md"
say "written: $out/table.md, $out/roofline.svg"
