/* hints.c - what the name of an option's value says about it, and which word was meant. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* Small words with bars between them. */
bool cli_choices(const struct cli_opt *o, char list[CLI_MAX_WORD]) {
  const char *a = o->arg;
  if (!a || !strchr(a, '|') || strlen(a) >= CLI_MAX_WORD) return false;
  if (strspn(a, "abcdefghijklmnopqrstuvwxyz0123456789-_.|") != strlen(a)) return false;
  snprintf(list, CLI_MAX_WORD, "%s", a);
  for (char *p = list; *p; p++)
    if (*p == '|') *p = ' ';
  return true;
}

bool cli_takes_file(const struct cli_opt *o) {
  static const char *const names[] = {"F", "FILE", "DIR", "MODEL", "RECIPE"};
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (const char *s = o->arg ? o->arg : ""; *s;) {
    size_t n = strspn(s, letters);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
      if (n == strlen(names[i]) && !memcmp(s, names[i], n)) return true;
    s += n ? n : 1;
  }
  return false;
}

static int least(int a, int b) { return a < b ? a : b; }

/* How many letters must be changed, put in, left out or swapped with the next one. */
static int distance(const char *a, int n, const char *b, int k) {
  enum { LONGEST = 40 };
  int d[LONGEST + 1][LONGEST + 1];
  if (n > LONGEST || k > LONGEST) return LONGEST;
  for (int i = 0; i <= n; i++) d[i][0] = i;
  for (int j = 0; j <= k; j++) d[0][j] = j;
  for (int i = 1; i <= n; i++)
    for (int j = 1; j <= k; j++) {
      int same = a[i - 1] == b[j - 1];
      d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + !same);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[n][k];
}

/* At most a third of the letters may be wrong; the beginning of a long word is near it. */
void cli_near_word(struct cli_near *near, const char *word, size_t n) {
  int far = distance(near->given, (int)near->n, word, (int)n);
  if (near->n >= 4 && near->n < n && !memcmp(near->given, word, near->n)) far = 1;
  if (n < 3 || far > 1 + (int)near->n / 4 || (near->best && far >= near->distance)) return;
  near->best = word;
  near->n_best = n;
  near->distance = far;
}
