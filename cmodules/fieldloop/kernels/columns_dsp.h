// Columns: what one output pixel sees, centred and widened to int16 in the order of the weights, two pixels together.
//
// Scratch, 4 bytes an element of a row of weights:
//
//   quad i:  | p0 k0,k2 | p0 k1,k3 | p1 k0,k2 | p1 k1,k3 |   four words; k counts from 4 i
//   tail j:  | p0 k, p1 k |                                  one word; the last k % 4 elements
//
// Padding is 0, since centred.
#ifndef FIELDLOOP_KERNELS_COLUMNS_DSP_H
#define FIELDLOOP_KERNELS_COLUMNS_DSP_H

#include "fieldloop/fl_kernels.h"

// A kernel row of fewer than four channels is gathered as bytes first, on the stack, up to this many for the pixel.
enum { FL_COLUMN_STAGE = 192 };

// Elements of a column, so that no image asks for gigabytes of scratch.
enum { FL_COLUMN_MAX = 1 << 20 };

// What stays the same for all pixels of a convolution; of a grouped one, for a group.
typedef struct {
    const fl_conv_params_t *p;
    const fl_map_dims_t *d;
    const int8_t *x;  // [in_h, in_w, in_c], from the group's first channel on
    int32_t w_c;      // channels a tap
    int32_t k;        // elements of a row of weights: kernel_h * kernel_w * w_c
    uint32_t minus;   // the pair (-x_zero, -x_zero)
    int32_t x_zero;
    int staged;       // rows are gathered as bytes first
    // Output pixels of which every tap lies on the map: from..from + count - 1 along each axis.
    int32_t y_from, x_from;
    uint32_t y_count, x_count;
    uint32_t y_step, x_step, origin;  // their first tap: element oy * y_step + ox * x_step - origin of x, modulo 2^32
    // A kernel row of theirs: `runs` runs of n elements, x_run apart; the next row x_row behind it.
    int32_t runs, n, x_run, x_row;
} fl_columns_t;

// Whether there are columns for the convolution.
static inline int fl_has_columns(const fl_conv_params_t *p, int32_t w_c) {
    const int32_t taps = p->kernel_h * p->kernel_w;
    return (w_c % 4 == 0 || taps == 1 || taps * w_c <= FL_COLUMN_STAGE) && taps * w_c <= FL_COLUMN_MAX;
}

// For group 0: the next one's x is w_c further.
fl_columns_t fl_columns(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t w_c, int32_t x_zero, const int8_t *x);

// Writes the column of output pixel (oy, ox) as pixel 0 or 1 of the scratch.
void fl_column(const fl_columns_t *v, int32_t oy, int32_t ox, uint32_t *scratch, int32_t pixel);

// Writes what output pixel (oy, ox) sees as it is, k bytes and up to 3 more; padding is x_zero.
void fl_column_bytes(const fl_columns_t *v, int32_t oy, int32_t ox, int8_t *to);

// Both columns where each is one run of k bytes.
void fl_two_columns(const int8_t *x0, const int8_t *x1, int32_t k, int32_t x_zero, uint32_t *scratch);

#endif
