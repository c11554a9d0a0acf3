/* jinja_test.c - the template engine: templates with their expected outputs, origins of bytes,
 * limits, errors with their place, and ten thousand damaged templates.
 *
 *   jinja_test --render < CASES.jsonl       for the comparison with python3-jinja2: reads
 *   {"template": ..., "vars": {...}} a line, writes {"text": ...} or {"error": ...} a line */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/chat.h"
#include "text/jinja.h"
#include "text/tokenizer.h"

static int render(const char *src, size_t n, const json_t *vars, struct nm__prompt *out,
                  nm_err *err) {
  struct nm__jinja *t;
  *out = (struct nm__prompt){0};
  int st = nm__jinja_parse("case", src, n, &t, err);
  if (st) return st;
  static const struct nm__jinja_text texts[] = {{"bos_token", "<s>", 3}, {"eos_token", "</s>", 4}};
  st = nm__jinja_render(t, &(struct nm__jinja_opts){.vars = vars, .texts = texts, .n_texts = 2,
                                                    .date = "2026-01-31 12:30:05",
                                                    .max_steps = 5000000},
                        out, err);
  nm__jinja_free(t);
  return st;
}

/* ---- for the comparison ---------------------------------------------- */

static int render_lines(void) {
  char *line = NULL;
  size_t cap = 0;
  for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
    json_t *c = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
    json_t *src = json_object_get(c, "template");
    if (!json_is_string(src)) return 1;
    nm_err err = {0};
    struct nm__prompt p;
    int st = render(json_string_value(src), json_string_length(src), json_object_get(c, "vars"),
                    &p, &err);
    json_t *out = json_object();
    if (st) json_object_set_new(out, "error", json_string(err.text));
    else json_object_set_new(out, "text", json_stringn(p.s, p.n));
    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    json_decref(c);
    nm__prompt_done(&p);
  }
  free(line);
  return 0;
}

/* ---- templates with their outputs ------------------------------------ */

#define DATA "tests/data/jinja/"
#define SHARED "../shared/data/tokenizers/"

static char *slurp(const char *path, size_t *n) {
  struct nm__map m;
  nm_err err;
  if (nm__map_open(path, &m, &err)) fail_msg("%s", err.text);
  char *s = nm__strndup((const char *)m.data, m.size);
  *n = m.size;
  nm__map_close(&m);
  return s;
}

static char *data_file(const char *name, const char *end, size_t *n) {
  char path[256];
  snprintf(path, sizeof path, DATA "%s%s", name, end);
  return slurp(path, n);
}

static json_t *data_json(const char *name, const char *end) {
  size_t n;
  char *s = data_file(name, end, &n);
  json_t *j = json_loadb(s, n, JSON_ALLOW_NUL, NULL);
  assert_non_null(j);
  free(s);
  return j;
}

static const char *const names[] = {"channels", "chatml", "command",    "deep",   "generation", "granite",
                                    "header",   "inst",   "pipes",      "scopes", "space",      "thinking",
                                    "tools",    "turns",  "values",     "zephyr"};
enum { N_NAMES = sizeof names / sizeof *names };

/* The expected outputs are jinja2's, written by scripts/jinja_oracle.py. */
static void files(void **state) {
  (void)state;
  int errors = 0, n_cases = 0;
  for (int f = 0; f < N_NAMES; f++) {
    size_t n;
    char *src = data_file(names[f], ".jinja", &n);
    json_t *in = data_json(names[f], ".json"), *out = data_json(names[f], ".out");
    assert_int_equal(json_array_size(in), json_array_size(out));
    for (size_t i = 0; i < json_array_size(in); i++, n_cases++) {
      json_t *want = json_object_get(json_array_get(out, i), "text");
      nm_err err = {0};
      struct nm__prompt p;
      int st = render(src, n, json_array_get(in, i), &p, &err);
      if (!want) {
        assert_int_equal(st, NM_EFORMAT);
        assert_non_null(strstr(err.text, "line "));
        errors++;
      } else {
        if (st) fail_msg("%s %zu: %s", names[f], i, err.text);
        assert_string_equal(p.s, json_string_value(want));
        assert_int_equal(p.n, json_string_length(want));
      }
      nm__prompt_done(&p);
    }
    json_decref(in);
    json_decref(out);
    free(src);
  }
  assert_true(n_cases == 4 * N_NAMES && errors > 0 && errors < n_cases / 4);
}

/* ---- origin ---------------------------------------------------------- */

static void marks(const char *src, const char *vars, const char *text, const char *user) {
  json_t *v = json_loads(vars, 0, NULL);
  nm_err err = {0};
  struct nm__prompt p;
  assert_non_null(v);
  if (render(src, strlen(src), v, &p, &err)) fail_msg("%s: %s", src, err.text);
  assert_string_equal(p.s, text);
  assert_int_equal(p.n, strlen(user));
  for (size_t i = 0; i < p.n; i++)
    if (p.user[i] != (user[i] == 'u')) fail_msg("%s: byte %zu of '%s' is '%d'", src, i, p.s, p.user[i]);
  nm__prompt_done(&p);
  json_decref(v);
}

static void origins(void **state) {
  (void)state;
  marks("a{{ x }}b{{ 'c' ~ x }}", "{\"x\": \"U\"}", "aUbcU", ".u..u");
  marks("{{ x|upper }}{{ x.title() }}", "{\"x\": \"stra\u00dfe\"}", "STRASSEStra\u00dfe", "uuuuuuuuuuuuuu");
  marks("{{ (' ' + x + ' ')|trim }}", "{\"x\": \" u \"}", "u", "u");
  marks("{{ '<a>'|replace('a', x) }}{{ x|replace('U', 'T') }}", "{\"x\": \"UV\"}", "<UV>TV", ".uu..u");
  marks("{{ ('T' + x)[::-1] }}{{ (x + 'T')[1:] }}", "{\"x\": \"UV\"}", "VUTVT", "uu.u.");
  marks("{{ [x, 'T']|join('-') }}{{ ('T,' + x).split(',')|last }}", "{\"x\": \"U\"}", "U-TU", "u..u");
  marks("{{ x|tojson }}{{ {'k': x}|tojson }}", "{\"x\": \"<\\\"\"}", "\"<\\\"\"{\"k\": \"<\\\"\"}",
        ".uuu........uuu..");
  marks("{{ x }}{{ x|tojson }}", "{\"x\": [1, \"a\"]}", "[1, 'a'][1, \"a\"]", "uuuu.u.uuu...u.u");
  marks("{{ n }}{{ n + 1 }}{{ 1 + 1 }}", "{\"n\": 7}", "782", "uu.");
  marks("{{ ('t\\n' + x)|indent(1) }}", "{\"x\": \"u\\nv\"}", "t\n u\n v", "...u..u");
  marks("{% set b %}t{{ x }}{% endset %}{{ b|capitalize }}", "{\"x\": \"U\"}", "Tu", ".u");
  marks("{% for c in x %}{{ c }},{% endfor %}{{ bos_token }}", "{\"x\": \"\u00e9b\"}", "\u00e9,b,<s>", "uu.u....");
  marks("{{ x.role }}{{ x|items|list|first|first }}", "{\"x\": {\"role\": \"<s>\"}}", "<s>role", "uuuuuuu");
}

/* ---- errors ---------------------------------------------------------- */

static void says(const char *src, const char *what) {
  nm_err err = {0};
  struct nm__prompt p;
  json_t *vars = json_loads("{\"d\": {\"a\": 1}, \"l\": [1], \"s\": \"text\"}", 0, NULL);
  int st = render(src, strlen(src), vars, &p, &err);
  if (!st) fail_msg("'%s' renders '%s'", src, p.s);
  assert_int_equal(st, NM_EFORMAT);
  assert_int_equal(err.status, st);
  if (!strstr(err.text, what)) fail_msg("'%s': '%s' lacks '%s'", src, err.text, what);
  json_decref(vars);
}

static void errors(void **state) {
  (void)state;
  says("a\nb {{ x.y }}", "case, line 2, column 8: 'x' is undefined");
  says("{{ d.b.c }}", "line 1, column 8: 'dict object' has no attribute 'b'");
  says("{% if %}", "line 1, column 7: an expression was expected; found '%}'");
  says("\n  {{ 'abc }}", "line 2, column 6: this string has no end");
  says("{% for x in l %}", "{% endfor %} was expected; found the end of the template");
  says("{% for x in l %}{% endif %}", "a tag was expected; found 'endif'");
  says("{{ (1 }}", "'}' where ')' was expected");
  says("{# open", "line 1, column 1: this comment {# has no end #}");
  says("{{ 1", "line 1, column 1: this tag {{ has no end }}");
  says("{% raw %}x", "has no {% endraw %}");
  says("{% include 'x' %}", "the tag 'include' is outside of the subset");
  says("{{ l|groupby('x') }}", "line 1, column 6: the filter 'groupby' is not in the subset");
  says("{{ l is odds }}", "the test 'odds' is not in the subset");
  says("{{ l.append(2) }}", "the method 'append' of 'list' is outside of the subset");
  says("{{ s.format(1) }}", "the method 'format'");
  says("{{ raise_exception('no ' ~ s) }}", "the template refuses: no text");
  says("{{ 1 + s }}", "unsupported operand type(s) for +: 'int' and 'str'");
  says("{{ s.__class__ }}", "is unsafe");
  says("{% break %}", "'break' stands outside of a loop");
  says("{{ 99999999999999999999 }}", "an integer below 2^63 was expected");
  says("\xff", "line 1, column 1: the template is not UTF-8 here");
}

/* ---- limits ---------------------------------------------------------- */

static void limits(void **state) {
  (void)state;
  says("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more steps");
  says("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply");
  says("{% set ns = namespace(x='abcdefgh') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "more");
  says("{{ range(100001) }}", "more than 100000");
  says("{{ 'x' * 999999999 }}", "");
  says("{{ [1] * 9999999999 }}", "");
  says("{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", "nested too deeply");
  char *deep = nm__alloc(200001, 1);
  memcpy(deep, "{{", 2);
  memset(deep + 2, '(', 100000);
  says(deep, "nested too deeply");
  memset(deep + 2, '-', 100000);
  memcpy(deep + 100002, " 1 }}", 6);
  says(deep, "nested too deeply");
  for (int i = 0; i < 20000; i++) memcpy(deep + 10 * i, "{% if 1 %}", 10);
  says(deep, "nested too deeply");
  memcpy(deep, "{{ 1", 4);
  for (int i = 2; i < 50000; i++) memcpy(deep + 2 * i, "+1", 2);
  memcpy(deep + 100000, " }}", 4);
  says(deep, "nested too deeply");
  free(deep);
}

/* ---- damage ---------------------------------------------------------- */

/* Whatever a template's bytes are: a text, or a sentence with its place. Every text is UTF-8. */
static void mutations(void **state) {
  (void)state;
  struct nm__rng r = {.seed = 77};
  int ok = 0;
  for (int i = 0; i < 10000; i++) {
    static char *src[N_NAMES];
    static size_t size[N_NAMES];
    static json_t *vars[N_NAMES];
    int f = i % N_NAMES;
    if (!src[f]) {
      src[f] = data_file(names[f], ".jinja", &size[f]);
      vars[f] = data_json(names[f], ".json");
    }
    static const char *const bits[] = {"{{", "}}", "{%", "%}", "(", ")", "[", "|", "'", "-", "~", ":", ".", "end", "\n", "\xc3", "not ", "0"};
    char *s = nm__strndup(src[f], size[f]);
    size_t n = size[f];
    for (uint64_t k = 1 + nm__rng_below(&r, 3); k > 0; k--) {
      size_t at = nm__rng_below(&r, n - 4), len = 1 + nm__rng_below(&r, 4);
      const char *bit = bits[nm__rng_below(&r, sizeof bits / sizeof *bits)];
      if (nm__rng_below(&r, 3) == 0) memmove(s + at, s + at + len, n - at - len), n -= len;
      else memcpy(s + at, bit, strlen(bit) < n - at ? strlen(bit) : 0);
    }
    nm_err err = {0};
    struct nm__prompt p;
    int st = render(s, n, json_array_get(vars[f], (size_t)i / N_NAMES % 4), &p, &err);
    if (st && (st != NM_EFORMAT || !strstr(err.text, "line "))) fail_msg("%d: %s", st, err.text);
    if (!st) {
      json_t *text = json_stringn(p.s, p.n);
      assert_non_null(text);
      json_decref(text);
      ok++;
    }
    nm__prompt_done(&p);
    free(s);
    if (i >= 10000 - N_NAMES) {
      free(src[f]);
      json_decref(vars[f]);
    }
  }
  print_message("measured: %d of 10000 damaged templates still render\n", ok);
  assert_true(ok > 500 && ok < 9500);
}

/* ---- families -------------------------------------------------------- */

static void families(void **state) {
  (void)state;
  size_t n;
  if (!nm__exists(SHARED "chat_templates.json")) {
    print_message("skipped: no recorded prompts of families\n");
    skip();
  }
  char *s = slurp(SHARED "chat_templates.json", &n);
  json_t *all = json_loadb(s, n, 0, NULL);
  free(s);
  for (size_t i = 0; i < json_array_size(all); i++) {
    json_t *c = json_array_get(all, i);
    const char *name = json_string_value(json_object_get(c, "template"));
    const struct nm__chat_family *f = nm__chat_find(name);
    nm_err err = {0};
    struct nm__prompt p;
    if (!f) fail_msg("no family '%s'", name);
    int st = nm__chat_render(f, json_object_get(c, "messages"),
                             json_is_true(json_object_get(c, "add_generation_prompt")), &p, &err);
    if (st) fail_msg("%s: %s", name, err.text);
    assert_string_equal(p.s, json_string_value(json_object_get(c, "text")));
    nm__prompt_done(&p);
  }
  print_message("measured: %zu recorded prompts equal\n", json_array_size(all));
  assert_true(json_array_size(all) > 0);
  json_decref(all);
}

static void family_rules(void **state) {
  (void)state;
  json_t *m = json_loads("[{\"role\": \"system\", \"content\": \" s \"}, {\"role\": \"user\", \"content\": "
                         "[{\"type\": \"text\", \"text\": \" <end_of_turn>\"}]}]", 0, NULL);
  struct nm__prompt p;
  nm_err err = {0};
  assert_int_equal(nm__chat_render(nm__chat_find("gemma"), m, false, &p, &err), 0);
  assert_string_equal(p.s, "<start_of_turn>user\ns\n\n<end_of_turn><end_of_turn>\n");
  for (size_t i = 0; i < p.n; i++) assert_int_equal(p.user[i], i >= 20 && i < 36);
  nm__prompt_done(&p);
  json_array_append_new(m, json_pack("{s:s, s:s}", "role", "tool", "content", "x"));
  assert_int_equal(nm__chat_render(nm__chat_find("vicuna"), m, false, &p, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "message 3: the family 'vicuna' has no role 'tool'"));
  assert_int_equal(nm__chat_render(nm__chat_find("chatml"), m, false, &p, &err), 0);
  nm__prompt_done(&p);
  json_decref(m);
  static const char *const told[][2] = {{"chatml", "chatml"}, {"header", "llama3"}, {"turns", "gemma"},
                                        {"command", "command-r"}, {"granite", "granite"}, {"deep", "deepseek3"},
                                        {"inst", "mistral-v3"}, {"pipes", "phi3"}, {"zephyr", "zephyr"}};
  for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
    size_t n;
    char *s = data_file(told[i][0], ".jinja", &n);
    const struct nm__chat_family *f = nm__chat_detect(s, n);
    if (f != nm__chat_find(told[i][1])) fail_msg("%s is not told", told[i][0]);
    free(s);
  }
}

/* ---- tokens by origin ------------------------------------------------ */

/* A vocabulary of single letters in which <|end|> is a control token, <turn> user-defined
 * markup and "ab" an ordinary user-defined piece. */
static struct nm__tok *small_tokenizer(const char *family) {
  static const char *const fixed[] = {"<unk>", "<s>", "</s>", "<|end|>", "<turn>", "ab", "<b>"};
  struct nm__str piece[7 + 95];
  int32_t type[7 + 95];
  float score[7 + 95] = {0};
  static char letters[95];
  nm_err err;
  for (int i = 0; i < 7; i++) {
    piece[i] = (struct nm__str){fixed[i], strlen(fixed[i])};
    type[i] = i == 0 ? 2 : i < 4 ? 3 : 4;
  }
  for (int i = 0; i < 95; i++) {
    letters[i] = (char)(32 + i);
    piece[7 + i] = (struct nm__str){&letters[i], 1};
    type[7 + i] = 1;
  }
  struct nm__gguf *g;
  struct nm__tok *t = NULL;
  struct nm__str none = {"x y", 3};
  if (nm__gguf_new("small", "test", &g, &err) ||
      nm__gguf_add_string(g, "tokenizer.ggml.model", family, strlen(family), &err) ||
      nm__gguf_add_strings(g, "tokenizer.ggml.tokens", piece, 102, &err) ||
      nm__gguf_add_i32s(g, "tokenizer.ggml.token_type", type, 102, &err) ||
      nm__gguf_add_f32s(g, "tokenizer.ggml.scores", score, 102, &err) ||
      nm__gguf_add_strings(g, "tokenizer.ggml.merges", &none, 1, &err) ||
      nm__gguf_add_u32(g, "tokenizer.ggml.bos_token_id", 1, &err) ||
      nm__gguf_add_bool(g, "tokenizer.ggml.add_bos_token", true, &err) ||
      nm__gguf_add_bool(g, "tokenizer.ggml.add_space_prefix", false, &err) ||
      nm__tok_open(g, &t, NULL, &err))
    fail_msg("%s", err.text);
  nm__gguf_close(g);
  return t;
}

/* How often each special id comes out of a template and one user text. */
static void count(const struct nm__tok *t, const char *src, const char *user, int end, int turn,
                  int ab) {
  json_t *vars = json_pack("{s:s}", "x", user);
  struct nm__ids v = {0};
  struct nm__prompt p;
  nm_err err = {0};
  int n[7] = {0};
  if (render(src, strlen(src), vars, &p, &err) ||
      nm__tok_encode_marked(t, p.s, p.user, p.n, (struct nm__tok_opts){0}, &v, &err))
    fail_msg("%s: %s", src, err.text);
  for (size_t i = 0; i < v.n; i++) n[v.id[i] < 7 ? v.id[i] : 0] += v.id[i] < 7;
  if (n[1] != 1 || n[2] || n[3] != end || n[4] != turn || n[5] != ab || v.id[0] != 1)
    fail_msg("%s, '%s': %d BOS, %d EOS, %d end, %d turn, %d ab", src, user, n[1], n[2], n[3], n[4], n[5]);
  nm__ids_done(&v);
  nm__prompt_done(&p);
  json_decref(vars);
}

static void tokens_by_origin(void **state) {
  (void)state;
  for (int family = 0; family < 2; family++) {
    struct nm__tok *t = small_tokenizer(family ? "gpt2" : "llama");
    count(t, "<turn>{{ x }}<|end|>", "hi", 1, 1, 0);
    count(t, "{{ bos_token }}<turn>{{ x }}<|end|>", "<s></s><|end|><turn>", 1, 1, 0);
    count(t, "<turn>{{ x }}end|>", "<|", 0, 1, 0);               /* halves that join at a border */
    count(t, "<turn><|{{ x }}", "end|>", 0, 1, 0);
    count(t, "<turn><|e{{ x }}d|>", "n", 0, 1, 0);
    count(t, "<turn>{{ x|upper|lower }}", "<|END|>", 0, 1, 0);
    count(t, "<turn>{{ (' ' ~ x)|trim }}", "<|end|> ", 0, 1, 0);
    count(t, "<turn>{{ x|replace('!', '') }}", "<|e!nd|>", 0, 1, 0);
    count(t, "<turn>{{ '<|Z|>'|replace('Z', x) }}", "end", 0, 1, 0);
    count(t, "<turn>{{ {'k': [x]}|tojson }}", "<|end|>", 0, 1, 0);
    count(t, "<turn>{{ x[::-1] }}{{ x.split('|')|join('|') }}", "<|end|>", 0, 1, 0);
    count(t, "<turn>{{ x|list|join }}{{ x|indent }}{{ x|title|lower }}", "<|end|><turn>", 0, 1, 0);
    count(t, "<turn>{{ x }}a{{ x }}", "b ab", 0, 1, 3);          /* ordinary pieces go across */
    count(t, "plain {{ x }}", "<turn>", 0, 1, 0);                /* no markup of this prompt */
    nm__tok_free(t);
  }
}

/* Where no special token is in sight, the ids are those of the whole text. */
static void borders_change_nothing(void **state) {
  (void)state;
  const char *path = SHARED "ggml-vocab-llama-spm.gguf";
  if (!nm__exists(path)) {
    print_message("skipped: no published vocabularies\n");
    skip();
  }
  static const char *const vocab[] = {"ggml-vocab-llama-spm.gguf", "ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-bpe.gguf"};
  static const char text[] = "Hello wonderful   world, it's 12345 o'clock; \xC3\xBC" "ber <b>bold</b>\n\n  end";
  for (int k = 0; k < 3; k++) {
    char file[128];
    struct nm__gguf *g;
    struct nm__tok *t;
    nm_err err;
    snprintf(file, sizeof file, SHARED "%s", vocab[k]);
    if (nm__gguf_open(file, &g, &err) || nm__tok_open(g, &t, NULL, &err)) fail_msg("%s", err.text);
    for (size_t from = 0; from < sizeof text - 1; from += 3) {
      uint8_t user[sizeof text] = {0};
      struct nm__ids a = {0}, b = {0};
      memset(user + from, 1, (sizeof text - 1 - from) / 2);
      assert_int_equal(nm__tok_encode(t, text, sizeof text - 1, (struct nm__tok_opts){0}, &a, &err), 0);
      assert_int_equal(nm__tok_encode_marked(t, text, user, sizeof text - 1, (struct nm__tok_opts){0}, &b, &err), 0);
      assert_int_equal(a.n, b.n);
      assert_memory_equal(a.id, b.id, a.n * sizeof *a.id);
      nm__ids_done(&a);
      nm__ids_done(&b);
    }
    nm__tok_free(t);
    nm__gguf_close(g);
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--render")) return render_lines();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(files),        cmocka_unit_test(origins),
      cmocka_unit_test(errors),       cmocka_unit_test(limits),
      cmocka_unit_test(mutations),    cmocka_unit_test(families),
      cmocka_unit_test(family_rules), cmocka_unit_test(tokens_by_origin),
      cmocka_unit_test(borders_change_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
