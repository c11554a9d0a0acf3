#!/bin/bash
# noema convert from a user's seat: what is written, what is refused, what a full disk leaves, and
# whether llama.cpp computes the same from the files. Last line: "N passed, N failed".
. tests/cli/outside.bash
limit=120
data=$root/../shared/data
cp "$root/models/planted.gguf" in.gguf

only() { is "what is there" "$(ls | grep -vxE 'out|err' | tr '\n' ' ')" "$1 "; }

# ---- writing -------------------------------------------------------------------------
run 0 "to Q8_0" "$noema" convert in.gguf -o q8.gguf --type Q8_0
prints '^q8.gguf: 57 tensors, 0\.1 MB, [0-9.]+ bits a weight$'
run 0 "what it holds" "$noema" info q8.gguf; prints 'Q8_0 [0-9]+'
run 0 "dry" "$noema" convert in.gguf -o dry.gguf --type Q4_K_M --dry-run
prints 'blk.0.attn_q.weight +32x32 +F16 +Q5_0'; prints '^total'; prints '^would be: dry.gguf'
run 0 "dry, as JSON" "$noema" convert in.gguf -o dry.gguf --type q4_k_m --dry-run --json
prints '"bits_per_weight"'
run 0 "a type for some" "$noema" convert in.gguf -o some.gguf --tensor-type 'blk.*.ffn_up.*=F32'
run 0 "to a directory" "$noema" convert in.gguf -o hf --split-size 60K
prints '^hf: 57 tensors, .* MB in [2-9] files, '
is "the index" "$(ls hf | grep -c safetensors)" "$(($(ls hf | grep -c 'of') + 1))"
run 0 "and back" "$noema" convert hf -o back.gguf
run 0 "logits before" "$noema" logits in.gguf --ids '1 2 3 4' --at all -o a.npy
run 0 "logits of the directory" "$noema" logits hf --ids '1 2 3 4' --at all -o b.npy
run 0 "logits after" "$noema" logits back.gguf --ids '1 2 3 4' --at all -o c.npy
is "equal" "$(cat a.npy b.npy c.npy | md5sum)" "$(cat a.npy a.npy a.npy | md5sum)"
run 0 "from quantised" "$noema" convert q8.gguf -o q4.gguf --type Q4_0
says 'warning: the input is quantised \(Q8_0\)'
run 0 "in pieces" "$noema" convert in.gguf -o p.gguf --split-size 50K
is "pieces" "$(ls p-0000*.gguf | wc -l)" "$(ls p-*-of-*.gguf | wc -l)"
run 0 "from pieces" "$noema" convert "$(ls p-00002*.gguf)" -o whole.gguf
run 0 "the same" "$noema" convert in.gguf -o again.gguf
is "pieces put together" "$(md5sum < whole.gguf)" "$(md5sum < again.gguf)"
run 0 "one thread" "$noema" convert in.gguf -o t1.gguf --type Q5_1 -t 1
run 0 "three threads" "$noema" convert in.gguf -o t3.gguf --type Q5_1 -t 3
is "threads" "$(md5sum < t1.gguf)" "$(md5sum < t3.gguf)"

# ---- refusing --------------------------------------------------------------------------
rm -rf hf ./*.npy p-* q*.gguf some.gguf back.gguf whole.gguf t1.gguf t3.gguf
run 2 "there already" "$noema" convert in.gguf -o again.gguf; says 'again.gguf: is there already; --force'
run 0 "by force" "$noema" convert in.gguf -o again.gguf --force
rm again.gguf
ln in.gguf link.gguf
run 2 "onto itself" "$noema" convert in.gguf -o in.gguf --force; says 'is the model that is read'
run 2 "onto itself by a link" "$noema" convert in.gguf -o link.gguf --force; says 'is the model that is read'
rm link.gguf
run 2 "no such type" "$noema" convert in.gguf -o x.gguf --type Q4_K_X
says "type 'Q4_K_X' is not known \(known: F32, F16, BF16, Q8_0, .*Q4_K_M"
run 2 "no such form" "$noema" convert in.gguf -o x.gguf --to onnx; says 'known: gguf, safetensors'
run 2 "no output" "$noema" convert in.gguf; says '-o PATH is needed'
run 2 "no such size" "$noema" convert in.gguf -o x.gguf --split-size many; says 'takes a size like'
run 2 "quantised safetensors" "$noema" convert in.gguf -o x --type Q4_0; says 'safetensors hold no Q4_0'
run 3 "no input" "$noema" convert none.gguf -o x.gguf; says 'none.gguf: cannot be opened'
run 1 "no folder" "$noema" convert in.gguf -o no/such/x.gguf; says 'no/such/x.gguf: cannot be created'
head -c 60000 in.gguf > cut.gguf
run 3 "cut off" "$noema" convert cut.gguf -o x.gguf; says 'cut.gguf'
rm cut.gguf
run 1 "a full disk" bash -c "trap '' XFSZ; ulimit -f 40; exec '$noema' convert in.gguf -o x.gguf"
says 'x.gguf: cannot be written: File too large'
run 1 "a full disk, in pieces" bash -c \
  "trap '' XFSZ; ulimit -f 40; exec '$noema' convert in.gguf -o x.gguf --split-size 50K"
run 1 "a full disk, a directory" bash -c \
  "trap '' XFSZ; ulimit -f 40; exec '$noema' convert in.gguf -o x --split-size 30K --type F32"
rmdir x 2> /dev/null; is "an empty folder" "$(ls -d x 2> /dev/null)" ""
only in.gguf

# ---- llama.cpp ----------------------------------------------------------------------------
llama=$(PATH="${LLAMA_CPP_BIN:-}:$PATH" command -v llama-logits)
if [ -z "$llama" ] || [ ! -d "$data" ]; then
  echo "skipped: llama.cpp's logits (LLAMA_CPP_BIN names a folder with llama-logits, see llama_logits.cpp)"
else
  ids="1 287 138 262 196 279 268 18 153 205 88 244"
  # far NAME MODEL MOST RMS: largest and root mean square difference to llama.cpp's logits.
  far() {
    # shellcheck disable=SC2086
    "$llama" "$2" $ids > theirs 2> err || { no "$1: llama.cpp: $(tail -1 err)"; return; }
    "$noema" logits "$2" --ids "$ids" --at all --json |
      sed 's/.*"logits": \[\[//; s/\]\].*//; s/\], \[/\n/g; s/,//g' > ours
    paste -d ' ' ours theirs | awk -v most="$3" -v rms="$4" -v name="$1" '
      { n = NF / 2; for (i = 1; i <= n; i++) { d = $i - $(i + n); s += d * d; k++
        if (d < 0) d = -d; if (d > m) m = d } }
      END { r = sqrt(s / k); printf "measured llama.cpp %-14s largest %.2g, rms %.2g\n", name, m, r
        exit !(k > 1000 && m <= most && r <= rms) }' && ok || no "$1: too far from llama.cpp"
  }
  for f in llama qwen2 mixtral olmo2; do
    "$noema" convert "$data/reference/$f/model.gguf" -o x.gguf --force --type F32 > out
    far "$f F32" x.gguf 3e-4 1e-4
  done
  for f in llama qwen2; do         # through a directory, with the tokenizer of the original
    rm -rf hf
    "$noema" convert "$data/reference/$f/model.gguf" -o hf > out
    "$noema" convert hf -o x.gguf --force > out
    far "$f by way of HF" x.gguf 3e-4 1e-4
  done
  for q in F16:0.05:0.01 BF16:0.3:0.05 Q8_0:0.9:0.1 Q5_0:0.9:0.1 Q5_1:0.9:0.1 Q4_0:0.9:0.1 Q4_1:0.9:0.1 \
    Q6_K:0.9:0.14 Q5_K_M:0.9:0.14 Q4_K_M:0.9:0.14 Q4_K:0.9:0.14; do
    IFS=: read -r type most rms <<< "$q"
    "$noema" convert "$data/reference/quant/llama-f16/model.gguf" -o x.gguf --force --type "$type" > out
    far "$type" x.gguf "$most" "$rms"
  done
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
