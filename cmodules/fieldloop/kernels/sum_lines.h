// A convolution as lines: for one tap, or for the taps of a kernel row where those are one run, the pixels side by side that
// see it on the map. Each line is a product of two matrices, for which a variant has fast loops.
#ifndef FIELDLOOP_KERNELS_SUM_LINES_H
#define FIELDLOOP_KERNELS_SUM_LINES_H

#include "fieldloop/fl_kernels_sum.h"

// acc[i, o] += sum over c < n of (x[i * x_step + c] - x_zero) * w[o * row + c]
typedef struct {
    const int8_t *x;
    int32_t x_step;
    int32_t pixels;  // 1 or more, as n is
    int32_t n;
    const int8_t *w;
    int32_t row;
    int32_t out_c;
    int32_t x_zero;
    int32_t *acc;  // [pixels, out_c]
} fl_sum_line_t;

void fl_sum_lines(const fl_conv_params_t *p, int32_t x_zero, const fl_map_dims_t *d, const fl_part_t *part,
                  const int8_t *x, const int8_t *w, int32_t *acc, void (*line)(const fl_sum_line_t *line));

#endif
