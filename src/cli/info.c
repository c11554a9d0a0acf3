/* info.c - noema info */
#include "cli/cli.h"

#include <stdio.h>

static const struct cli_opt opts[] = {
    {"--sites", CLI_FLAG, NULL, "the intermediates that can be read and edited, with their widths"},
    {"--json", CLI_FLAG, NULL, "everything, tensors and metadata too, as JSON"},
    {0}};

static int run(struct cli *c) {
  nm_err err = {0};
  char *text;
  if (c->n_pos != 1) return cli_usage(c, "one MODEL file or folder is needed");
  if (nm_info(c->pos[0], cli_flag(c, "json"), cli_flag(c, "sites"), &text, &err))
    return cli_fail(c, &err);
  fputs(text, stdout);
  nm_free(text);
  return 0;
}

const struct cli_verb cli_info = {"info",
                                  "architecture, sizes, types, tokenizer, sites, memory",
                                  "info MODEL [--sites] [--json]",
                                  "Shows what a GGUF file, a Hugging Face directory or a "
                                  "safetensors file holds. One that noema\ncannot run says \"no "
                                  "model here\" and why.",
                                  "  noema info models/planted.gguf --sites",
                                  opts,
                                  run};
