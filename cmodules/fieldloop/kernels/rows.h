// Walks two inputs that broadcast against each other, a row of the output's last axis at a time.
#ifndef FIELDLOOP_KERNELS_ROWS_H
#define FIELDLOOP_KERNELS_ROWS_H

#include <stdint.h>

#include "fieldloop/fl_kernels.h"

// n elements: out[i] from a[i * a_step] and b[i * b_step]; steps in elements, 0 or more.
typedef void fl_row_t(const void *with, int32_t n, const void *a, int32_t a_step, const void *b, int32_t b_step,
                      void *out);

void fl_walk_rows(const fl_broadcast_t *d, int32_t element_bytes, fl_row_t *row, const void *with, const void *a,
                  const void *b, void *out);

#endif
