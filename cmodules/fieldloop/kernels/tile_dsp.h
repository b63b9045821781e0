// The inner tile of the convolution: output channels two by two for two pixels whose columns lie in scratch.
#ifndef FIELDLOOP_KERNELS_TILE_DSP_H
#define FIELDLOOP_KERNELS_TILE_DSP_H

#include "fieldloop/fl_kernels.h"

// The first fifteen words are the assembly's.
typedef struct {
    const fl_requant_t *r;  // of the next two channels
    int8_t *out0, *out1;    // of pixel 0 and 1
    int32_t twice_zero_1;   // 2 * zero point + 1
    const int8_t *out_end;  // of pixel 0
    const uint32_t *x;      // columns
    const int32_t *b;
    int32_t k;              // elements of a row of weights
    const uint32_t *x_16;   // end of the columns' quads in fours,
    const uint32_t *x_4;    //   of all quads,
    const uint32_t *x_end;  //   of the tail
    uint32_t low, high;     // four times the clamp's limits
    uint32_t clamped;       // to less than int8
    const int8_t *w;        // [channels, k]
    const fl_quant_t *q;
} fl_tile_t;

// Runs from out0 to out_end: an even number of channels, with a bias, scaled by channel, rounded twice.
void fl_tile_dsp(const fl_tile_t *tile);

#endif
