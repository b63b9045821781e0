// What each kernel needs beside its output, in each variant: one place, built everywhere, so that a host can tell the
// RAM of any board.
#include "fieldloop/fl_kernels.h"

uint32_t fl_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d) {
    (void)variant;
    (void)p;
    (void)d;
    return 0;
}

uint32_t fl_depthwise_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d) {
    (void)variant;
    (void)p;
    (void)d;
    return 0;
}

uint32_t fl_fully_connected_scratch(fl_variant_t variant, int32_t out_c, int32_t in_c) {
    (void)variant;
    (void)out_c;
    (void)in_c;
    return 0;
}
