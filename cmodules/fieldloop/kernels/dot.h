// Dot products of a run of inputs with one or four rows of weights: the inner loops of conv2d and fully connected. Calls,
// so that their registers are their own: inlined into the loops around them, a core without many spills the pointers.
// Sums wrap (uint32_t), so that no image, however hostile, makes them undefined.
#ifndef FIELDLOOP_KERNELS_DOT_H
#define FIELDLOOP_KERNELS_DOT_H

#include <stdint.h>

uint32_t fl_dot(const int8_t *x, const int8_t *w, int32_t n, int32_t x_zero);

// Four rows at once, `row` apart, so that each input is loaded and centred once for four products. n is 1 or more.
void fl_dot4(const int8_t *x, const int8_t *w, int32_t row, int32_t n, int32_t x_zero, uint32_t acc[4]);

// The sum of the centred inputs: what a zero point of the weights is multiplied with.
uint32_t fl_centred_sum(const int8_t *x, int32_t n, int32_t x_zero);

#endif
