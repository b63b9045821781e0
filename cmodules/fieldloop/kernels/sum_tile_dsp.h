// The inner loops of partial sums with the DSP extension: widened inputs of two pixels times pairs of output channels, and of
// one pixel times fours of them.
#ifndef FIELDLOOP_KERNELS_SUM_TILE_DSP_H
#define FIELDLOOP_KERNELS_SUM_TILE_DSP_H

#include <stdint.h>

// Inputs are centred, in quads. Two pixels: of each quad the words (0, 2) and (1, 3) of pixel 0, then those of pixel 1. One
// pixel: the two words of each quad. The assembly has the offsets in it.
typedef struct {
    const uint32_t *x;
    int32_t *acc;            // of the (first) pixel
    int32_t *acc1;           // of the second
    int32_t row;             // elements from one row of weights to the next
    int32_t skip;            // from the end of the quads in the last row of a pair or four to the first of the next
    const int32_t *acc_end;  // of the (first) pixel
    const uint32_t *x_end;
    const int8_t *w;
    uint32_t quads;          // 1 or more
} fl_sum_tile_t;

void fl_sum_two_dsp(const fl_sum_tile_t *t);
void fl_sum_quad_dsp(const fl_sum_tile_t *t);  // as fl_sum_two_dsp, of one quad
void fl_sum_one_dsp(const fl_sum_tile_t *t);

#endif
