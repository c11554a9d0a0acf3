/* convert.c - noema convert: another form, other types. */
#include "cli/cli.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_opt opts[] = {
    {"-o, --out", CLI_TEXT, "PATH", "F.gguf, or a directory for safetensors"},
    {"--type", CLI_TEXT, "T", "Q8_0, Q4_K_M, F16, ... (default: as stored)"},
    {"--to", CLI_TEXT, "FORM", "gguf or safetensors (default: by the name of PATH)"},
    {"--pure", CLI_FLAG, NULL, "all matrices in the type, none with more bits"},
    {"--tensor-type", CLI_LIST, "GLOB=T", "another type for tensors of these names"},
    {"--split-size", CLI_TEXT, "SIZE", "several files of at most this much: 500M, 2G"},
    {"--force", CLI_FLAG, NULL, "replace what is there"},
    {"--dry-run", CLI_FLAG, NULL, "say what would be written, and write nothing"},
    {"--json", CLI_FLAG, NULL, "the table of tensors as JSON"},
    {"-t, --threads", CLI_INT, "N", "threads (default: all cores)"},
    {0}};

/* "500M" in bytes; 0 when it is none. */
static unsigned long long size_of(const char *s) {
  char *end;
  unsigned long long v = strtoull(s, &end, 10), unit = 1;
  if (end == s || *s == '-') return 0;
  if (*end) {
    const char *units = "KMGT", *at = strchr(units, *end);
    if (!at || end[1]) return 0;
    for (const char *u = units; u <= at; u++) unit *= 1000;
  }
  return v && v <= ULLONG_MAX / 2 / unit ? v * unit : 0;
}

static void shape(const nm_convert_tensor *t, char *out, size_t n) {
  size_t at = 0;
  for (int i = 0; i < t->n_dims && at < n; i++)
    at += (size_t)snprintf(out + at, n - at, "%s%lld", i ? "x" : "", (long long)t->dims[i]);
}

static void print_table(const nm_convert_result *r) {
  unsigned long long from = 0, to = 0;
  printf("%-42s %-16s %-8s %-8s %12s %12s\n", "tensor", "sizes", "from", "to", "bytes", "bytes");
  for (size_t i = 0; i < r->n_tensors; i++) {
    const nm_convert_tensor *t = &r->tensor[i];
    char dims[100];
    shape(t, dims, sizeof dims);
    printf("%-42s %-16s %-8s %-8s %12llu %12llu\n", t->name, dims, t->from, t->to,
           (unsigned long long)t->bytes_from, (unsigned long long)t->bytes_to);
    from += t->bytes_from;
    to += t->bytes_to;
  }
  printf("%-42s %-16s %-8s %-8s %12llu %12llu\n", "total", "", "", "", from, to);
}

static void print_json(const nm_convert_result *r) {
  printf("{\"tensors\": [");
  for (size_t i = 0; i < r->n_tensors; i++) {
    const nm_convert_tensor *t = &r->tensor[i];
    printf("%s\n  {\"name\": ", i ? "," : "");
    cli_print_string(t->name);
    printf(", \"sizes\": [");
    for (int k = 0; k < t->n_dims; k++) printf("%s%lld", k ? ", " : "", (long long)t->dims[k]);
    printf("], \"from\": \"%s\", \"to\": \"%s\", \"bytes_from\": %llu, \"bytes_to\": %llu}",
           t->from, t->to, (unsigned long long)t->bytes_from, (unsigned long long)t->bytes_to);
  }
  printf("],\n \"files\": %d, \"bytes\": %llu, \"weights\": %llu, \"bits_per_weight\": %.4f}\n",
         r->n_files, (unsigned long long)r->bytes, (unsigned long long)r->n_weights,
         r->bits_per_weight);
}

static void print_end(struct cli *c, const nm_convert_opts *o, const nm_convert_result *r) {
  char files[40] = "";
  if (*r->warning) fprintf(stderr, "noema convert: warning: %s\n", r->warning);
  if (cli_flag(c, "json")) print_json(r);
  else if (o->dry_run) print_table(r);
  if (r->n_files > 1) snprintf(files, sizeof files, " in %d files", r->n_files);
  if (!cli_flag(c, "json"))
    printf("%s%s: %zu tensors, %.1f MB%s, %.2f bits a weight\n", o->dry_run ? "would be: " : "",
           o->out, r->n_tensors, (double)r->bytes / 1e6, files, r->bits_per_weight);
}

static int run(struct cli *c) {
  nm_err err = {0};
  nm_convert_result r;
  const char *glob[CLI_MAX_LIST];
  const char *split = cli_text(c, "split-size");
  long long threads = cli_int(c, "threads", 0);
  nm_convert_opts o = {.out = cli_text(c, "out"), .to = cli_text(c, "to"),
                       .type = cli_text(c, "type"), .pure = cli_flag(c, "pure"),
                       .tensor_type = glob, .n_tensor_type = cli_list(c, "tensor-type", glob),
                       .force = cli_flag(c, "force"), .dry_run = cli_flag(c, "dry-run"),
                       .threads = (int)threads, .progress = &cli_progress};
  if (c->n_pos != 1) return cli_usage(c, "one model to read is needed, a file or a directory");
  o.in = c->pos[0];
  if (!o.out || !*o.out) return cli_usage(c, "-o PATH is needed");
  if (threads < 0 || threads > 1024) return cli_usage(c, "--threads %lld is out of range", threads);
  if (split && !(o.split_bytes = size_of(split)))
    return cli_usage(c, "--split-size takes a size like 500M or 2G, not '%.40s'", split);
  cli_catch_interrupt();
  if (nm_convert(&o, &r, &err)) return cli_fail(c, &err);
  cli_progress_end();
  print_end(c, &o, &r);
  nm_convert_result_free(&r);
  return 0;
}

const struct cli_verb cli_convert = {
    "convert",
    "safetensors to GGUF and back, and quantising",
    "convert MODEL -o PATH [--type T] [--to gguf|safetensors] [--dry-run]",
    "Reads a GGUF file or a Hugging Face directory and writes the other, or the same with other\n"
    "types: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0,\n"
    "and Q5_K and Q4_K without a mixture. Where rows are no multiple of 256, a type of blocks of\n"
    "32 stands in.",
    "  noema convert models/planted.gguf -o small.gguf --type Q8_0\n"
    "  noema convert models/planted.gguf -o small.gguf --type Q4_K_M --dry-run",
    opts,
    run};
