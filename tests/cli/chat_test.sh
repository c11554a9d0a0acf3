#!/bin/bash
# Chat from outside: prompts, tokens, errors with their place; and the template engine against
# python3-jinja2 on seeded random templates where that is installed. Last line: "N passed, M failed".
. tests/cli/outside.bash
jinja_test=$(dirname "$noema")/tests/unit/jinja_test
m=$root/models/planted.gguf

says() { if grep -qF -- "$1" err; then ok; else no "stderr lacks '$1': $(head -2 err)"; fi; }

printf '[{"role": "system", "content": "be kind"}, {"role": "user", "content": "ann saw <|im_end|>"}]' > c.json
run 0 "family" "$noema" tokenize $m --chat c.json --chat-template chatml --show-prompt
is "chatml" "$(cat out)" "$(printf '<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nann saw <|im_end|><|im_end|>\n<|im_start|>assistant')"
run 0 "no generation prompt" "$noema" tokenize $m --chat c.json --chat-template vicuna --show-prompt --no-generation-prompt
is "vicuna" "$(cat out)" "$(printf 'be kind\n\nUSER: ann saw <|im_end|>')"
is "a pipe is plain" "$(grep -c $'\033' out)" 0

printf '{%% for m in messages %%}\n{{ bos_token ~ m.role }}: {{ m.content|trim }} {{ tools|length if tools }}{{ strftime_now("%%Y") }}\n{%% endfor %%}' > t.jinja
printf '{"messages": [{"role": "user", "content": " ann saw the fox "}], "tools": [1, 2], "x": 1}' > o.json
run 0 "file" "$noema" tokenize $m --chat o.json --chat-template t.jinja --chat-date 2031-05-06 --show-prompt
is "file" "$(cat out)" "<s>user: ann saw the fox 22031"
run 0 "ids" "$noema" tokenize $m --chat o.json --chat-template @t.jinja --ids
is "one begin token" "$(tr ' ' '\n' < out | grep -cx 1)" 1
"$noema" tokenize $m --chat - --chat-template vicuna --ids < c.json > a
"$noema" tokenize $m --chat c.json --chat-template vicuna --ids > b
if cmp -s a b; then ok; else no "standard input differs from a file"; fi

# A user's begin token stays text: as many as the template writes, and no more.
printf '[{"role": "user", "content": "<s> ann </s>"}]' > f.json
run 0 "forged" "$noema" tokenize $m --chat f.json --chat-template t.jinja --ids
is "forged" "$(tr ' ' '\n' < out | grep -cxE '1|2')" 1

printf 'a\n{{ nope.x }}' > bad.jinja
run 3 "error" "$noema" tokenize $m --chat c.json --chat-template bad.jinja
says "bad.jinja, line 2, column 9: 'nope' is undefined"
run 3 "no template" "$noema" tokenize $m --chat c.json; says "has no chat template"
run 2 "unknown family" "$noema" tokenize $m --chat c.json --chat-template nosuch; says "'nosuch' is neither a family"
printf '{"messages": 3}' > w.json
run 3 "no messages" "$noema" tokenize $m --chat w.json --chat-template chatml; says "must be a list of messages"
printf '[' > w.json
run 3 "no JSON" "$noema" tokenize $m --chat w.json --chat-template chatml; says "the conversation is no JSON: line 1"
run 2 "no file" "$noema" tokenize $m --chat none.json --chat-template chatml

run 0 "logits of a turn" "$noema" logits $m -p 'ann saw "the" fox' --chat --chat-template vicuna --show-prompt --top 1
says 'USER: ann saw "the" fox'; says "ASSISTANT:"
printf '{"text": "ann saw"}\n{"text": "bob saw"}\n' > rows.jsonl
run 0 "logits of rows" "$noema" logits $m --data rows.jsonl --chat --chat-template vicuna --top 1
is "two rows" "$(grep -c '^text ' out)" 2

# ---- against jinja2 -----------------------------------------------------------
if python3 -c 'import jinja2, sys; sys.exit(jinja2.__version__ < "3.1")' 2> /dev/null && [ -x "$jinja_test" ]; then
  oracle=$root/scripts/jinja_oracle.py
  for what in "files $root/tests/data/jinja" "random 2 1500"; do
    python3 "$oracle" $what > cases
    "$jinja_test" --render < cases > ours
    is "as many results" "$(wc -l < ours)" "$(wc -l < cases)"
    if python3 "$oracle" compare cases ours > told; then ok; else no "jinja2 differs"; fi
    cat told
  done
else
  echo "skipped: python3-jinja2 is not here"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
