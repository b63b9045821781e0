// The order of a mean: kept axes outside, averaged ones inside, both ascending.
#ifndef FIELDLOOP_KERNELS_MEAN_H
#define FIELDLOOP_KERNELS_MEAN_H

#include "fieldloop/fl_kernels.h"

typedef struct {
    int32_t outer_n[4], outer_step[4];  // of the kept axes; 1, 0 in place of an averaged one
    int32_t inner_n[4], inner_step[4];  // of the averaged axes; 1, 0 in place of a kept one
    int32_t count;                      // elements averaged
} fl_mean_walk_t;

fl_mean_walk_t fl_mean_walk(uint32_t axes, const int32_t shape[4]);

#endif
