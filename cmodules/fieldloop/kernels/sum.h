// The variants of the kernels in two halves, one file each; sum.c hands the public names to the one this build is for. What
// is not here has one variant.
#ifndef FIELDLOOP_KERNELS_SUM_H
#define FIELDLOOP_KERNELS_SUM_H

#include "fieldloop/fl_kernels_sum.h"

#define FL_DECLARE_SUMS(variant)                                                                                    \
    void fl_conv2d_sum_##variant(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d, \
                                 const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc);            \
    void fl_finish_sums_##variant(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b,          \
                                  const int32_t *acc, int8_t *out, int32_t out_step);                               \
    void fl_pool_sum_##variant(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc);

FL_DECLARE_SUMS(plain)
FL_DECLARE_SUMS(dsp)
FL_DECLARE_SUMS(mve)

#endif
