// What the windowed _mve kernels do last: clamp the pixels they wrote, and nothing between them.
#ifndef FIELDLOOP_KERNELS_CLAMP_MVE_H
#define FIELDLOOP_KERNELS_CLAMP_MVE_H

#include "finish_mve.h"
#include "steps.h"

static inline void fl_clamp_pixels_mve(const fl_quant_t *q, const fl_map_dims_t *d, int8_t *out) {
    const int32_t pixels = d->out_h * d->out_w, step = fl_y_step(d);
    if (step == d->out_c) {
        fl_clamp_map_mve(q, pixels * step, out);
        return;
    }
    for (int32_t i = 0; i < pixels; i++) {
        fl_clamp_map_mve(q, d->out_c, out + i * step);
    }
}

#endif
