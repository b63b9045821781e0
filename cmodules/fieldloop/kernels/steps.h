// How far a kernel moves from one pixel, or tap of depthwise weights, to the next: fl_map_dims_t says 0 for "no gap".
#ifndef FIELDLOOP_KERNELS_STEPS_H
#define FIELDLOOP_KERNELS_STEPS_H

#include "fieldloop/fl_kernels.h"

static inline int32_t fl_x_step(const fl_map_dims_t *d) {
    return d->x_step ? d->x_step : d->in_c;
}

static inline int32_t fl_y_step(const fl_map_dims_t *d) {
    return d->y_step ? d->y_step : d->out_c;
}

static inline int32_t fl_w_step(const fl_map_dims_t *d) {
    return d->w_step ? d->w_step : d->out_c;
}

#endif
