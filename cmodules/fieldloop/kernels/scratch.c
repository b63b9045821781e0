// What each kernel needs beside its output, in each variant: one place, built everywhere, so that a host can tell the
// RAM of any board.
#include "columns_dsp.h"
#include "columns_mve.h"
#include "fieldloop/fl_kernels.h"
#include "four_dsp.h"
#include "steps.h"
#include "windows_mve.h"

uint32_t fl_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d) {
    if (variant == FL_KERNELS_DSP) {
        const int32_t w_c = d->in_c / (p->groups > 1 ? p->groups : 1);
        // two columns of int16
        return fl_has_columns(p, w_c) ? 4 * (uint32_t)(p->kernel_h * p->kernel_w * w_c) : 0;
    }
    const uint32_t k = (uint32_t)p->kernel_h * p->kernel_w * (uint32_t)d->in_c;
    if (variant == FL_KERNELS_MVE && p->groups <= 1 && d->out_c >= 2 && fl_y_step(d) <= 16384 && k <= FL_COLUMN_MAX) {
        // four columns of int8, in whole blocks of 16, and a small map within its padding
        return 4 * ((k + 15u) & ~15u) + fl_padded_bytes_mve(p, d);
    }
    return 0;
}

uint32_t fl_depthwise_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d) {
    if (variant == FL_KERNELS_DSP) {
        return fl_depthwise_is_four(p, d) ? 8 * (uint32_t)(p->kernel_h * p->kernel_w) : 0;
    }
    if (variant == FL_KERNELS_MVE) {
        const uint32_t bytes = fl_windows_of_mve(p, d).bytes;
        return bytes ? bytes + FL_WINDOWS_SLACK + FL_WINDOWS_TABLE + FL_WINDOWS_EDGE : 0;
    }
    return 0;
}

uint32_t fl_fully_connected_scratch(fl_variant_t variant, int32_t out_c, int32_t in_c) {
    (void)variant;
    (void)out_c;
    (void)in_c;
    return 0;
}
