/* libraries.c - which versions of the libraries that noema stands on are at work. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/core.h"

#include <jansson.h>
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yaml.h>

void nm_libraries(char out[256]) {
  char pcre[64] = "";
  pcre2_config(PCRE2_CONFIG_VERSION, pcre);
  pcre[strcspn(pcre, " ")] = 0;                     /* behind it stands a date */
  snprintf(out, 256, "jansson %s, PCRE2 %s, utf8proc %s, SQLite %s, xxHash %d.%d.%d, libyaml %s",
           jansson_version_str(), pcre, utf8proc_version(), sqlite3_libversion(),
           XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE, yaml_get_version_string());
}
