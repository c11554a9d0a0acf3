#!/bin/bash
# noema tokenize on a tokenizer.json and on directories, written here. Last line: "N passed, N failed".
. tests/cli/outside.bash

ids() { printf '%s' "$2" | "$noema" tokenize "$1" --ids "${@:3}" 2> err; }

level='"model":{"type":"WordLevel","unk_token":"u","vocab":{"u":0,"a":1,"b":2}}'
mkdir dir empty
echo "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}],$level}" > dir/tokenizer.json
cp dir/tokenizer.json other.json
echo '{"bos_token":"<s>","add_bos_token":true}' > dir/tokenizer_config.json
is "a directory" "$(ids dir 'a b c')" "3 1 2 0"
is "its tokenizer.json" "$(ids dir/tokenizer.json 'a b c')" "3 1 2 0"
is "without the begin token" "$(ids dir 'a b' --no-bos)" "1 2"
is "a file alone" "$(ids other.json 'a b c')" "1 2 0"
is "a control token in the text" "$(ids other.json 'a <s>')" "1 0"
is "the same, parsed" "$(ids other.json 'a <s>' --parse-special)" "1 3"
is "decoded" "$(printf '1 2' | "$noema" tokenize other.json --decode)" "a b"
is "nothing to warn of" "$(cat err)" ""
ids empty a > out; is "a directory without a tokenizer: exit code" $? 3
is "a directory without a tokenizer" "$(grep -c 'has no tokenizer' err)" 1
echo "{\"normalizer\":{\"type\":\"Foo\"},$level}" > foo.json
ids foo.json a > out; is "an unknown step: exit code" $? 3
is "an unknown step by name" "$(grep -c "normalizer.type 'Foo' is not supported" err)" 1
echo '{' > cut.json
ids cut.json a > out; is "no JSON: exit code" $? 3
printf 'u\na\nb\n' > dir/vocab.txt
is "tokenizer.json comes first" "$(ids dir 'a b')" "3 1 2"

echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
