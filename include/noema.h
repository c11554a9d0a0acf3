#ifndef NOEMA_H
#define NOEMA_H
#include <stddef.h>
#include <stdint.h>
#define NM_STATUS_LIST(X) \
  X(NM_OK,            0, 0,   "ok") \
  X(NM_EFAIL,        -1, 1,   "failed") \
  X(NM_EUSAGE,       -2, 2,   "wrong use") \
  X(NM_EFORMAT,      -3, 3,   "bad input file") \
  X(NM_EMEMORY,      -4, 4,   "not enough memory") \
  X(NM_ECHECK,       -5, 5,   "a stated check failed") \
  X(NM_EUNSURE,      -6, 6,   "ran and cannot conclude") \
  X(NM_EINTR,        -7, 130, "interrupted")
enum nm_status {
#define X(name, value, exit_code, text) name = value,
  NM_STATUS_LIST(X)
#undef X
};
typedef struct nm_err { int status; char text[640]; } nm_err;
int nm_exit_code(int status);
typedef struct nm_progress {
  int (*fn)(void *arg, const char *what, double done, double total);
  void *arg;
} nm_progress;
#endif
