#!/bin/bash
# noema tokenize on files that hold a vocabulary only: SentencePiece models written here byte by
# byte, published GGUF vocabularies where they are. Last line: "N passed, N failed".
. tests/cli/outside.bash
vocab=$root/../shared/data/tokenizers

ids() { printf '%s' "$2" | "$noema" tokenize "$1" --ids "${@:3}" 2> err; }
text() { printf '%s' "$2" | "$noema" tokenize "$1" --decode 2> err; }

# piece TEXT SCORE_BYTES TYPE: one field 1 of the message.
piece() {
  local n=${#1}
  printf '\n%b\n%b%s\x15%b\x18%b' "\\x$(printf %x $((n + 9)))" "\\x$(printf %x "$n")" "$1" "$2" "\\x$3"
}
export LC_ALL=C
{ piece '<unk>' '\0\0\0\0' 2; piece '<s>' '\0\0\0\0' 3; piece '</s>' '\0\0\0\0' 3
  piece '▁' '\0\0\0\xC0' 1; piece 'a' '\0\0\x40\xC0' 1; piece '▁a' '\0\0\x80\xC0' 1
  piece 'ab' '\0\0\xC0\xC0' 1; piece 'b' '\0\0\x60\xC0' 1; } > pieces
cp pieces unigram.model
{ cat pieces; printf '\x12\x02\x18\x02\x1A\x02\x20\x00'; } > bpe.model
{ cat pieces; printf '\x12\x02\x18\x04'; } > char.model

# ---- SentencePiece models -------------------------------------------------------------------
is "unigram" "$(ids unigram.model 'ab  b ')" "5 7 3 7 2"
is "unigram without the end token" "$(ids unigram.model 'ab' --no-bos)" "5 7"
is "unigram decoded" "$(text unigram.model '5 7 3 7 2')" "ab b"
is "BPE" "$(ids bpe.model ' ab')" "1 3 5 7"
is "BPE decoded" "$(text bpe.model '1 3 5 7')" " ab"
is "nothing to warn of" "$(cat err)" ""
ids char.model a > out; is "another type: exit code" $? 3
is "another type by name" "$(grep -c 'type 4 (char)' err)" 1
head -c 60 unigram.model > cut.model
ids cut.model a > out; is "cut off: exit code" $? 3
is "cut off" "$(grep -c 'breaks off' err)" 1
"$noema" logits unigram.model --ids 1 > out 2> err; is "no model: exit code" $? 3
is "no model" "$(grep -c 'only a vocabulary' err)" 1

# ---- published vocabularies ------------------------------------------------------------------
if [ -f "$vocab/ggml-vocab-bert-bge.gguf" ]; then
  is "WordPiece" "$(ids "$vocab/ggml-vocab-bert-bge.gguf" 'Hello, World!')" "101 7592 1010 2088 999 102"
  is "WordPiece decoded" "$(text "$vocab/ggml-vocab-bert-bge.gguf" '101 7592 1010 2088 999 102')" "hello , world !"
  # Another name of the same length: the rule is known, but no vectors are.
  sed 's/\(tokenizer.ggml.pre.\{12\}\)gpt-2/\1phi-2/' "$vocab/ggml-vocab-gpt-2.gguf" > phi.gguf
  is "not checked" "$(ids phi.gguf 'Hello')" "15496"
  is "not checked, said once" "$(grep -c "tokenizer.ggml.pre 'phi-2': rule known, not checked against vectors" err)" 1
  ids "$vocab/ggml-vocab-gpt-2.gguf" Hello > out; is "checked" "$(cat err)" ""
else
  echo "skipped: published vocabularies are not here"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
