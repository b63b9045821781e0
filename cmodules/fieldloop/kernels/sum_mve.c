// The kernels in two halves with Helium.
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 2

void fl_conv2d_sum_mve(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                       const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    fl_conv2d_sum_plain(p, x_zero, w_zero, d, part, x, w, acc);
}

void fl_finish_sums_mve(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                        int8_t *out, int32_t out_step) {
    fl_finish_sums_plain(q, pixels, channels, b, acc, out, out_step);
}

void fl_pool_sum_mve(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    fl_pool_sum_plain(pixels, channels, x, x_step, acc);
}

#else
typedef int fl_no_sum_mve_t;  // a translation unit may not be empty
#endif
