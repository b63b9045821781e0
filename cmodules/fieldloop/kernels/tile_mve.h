// Four pixels' columns times pairs of output channels: the inner loops of the _mve convolution.
#ifndef FIELDLOOP_KERNELS_TILE_MVE_H
#define FIELDLOOP_KERNELS_TILE_MVE_H

#include <stdint.h>

#include "fieldloop/fl_image.h"

// A column holds what one output pixel sees, `k` bytes in the weights' order, with `pad` bytes before them to a multiple of
// 16. Blocks of 16 bytes of the four columns take turns:
//
//   block 0 of pixel 0 | of pixel 1 | of pixel 2 | of pixel 3 | block 1 of pixel 0 | ...
//
// The bytes of `pad` may be anything: the weights there count as 0 and are not read.
typedef struct {
    // the first five are loaded at once: their order is that of r0, r1, r2, r4, r7
    const int8_t *w_end;     // behind the last row of weights
    const int8_t *columns;   // [1 + blocks][4][16]
    int32_t pad;             // 0..15
    int32_t k;
    int32_t blocks;          // after the first
    int8_t *out;             // these two move on: pixel 0's next output
    const int32_t *folded;   // [channels] bias - x_zero * sum of weights
    const fl_requant_t *requant;  // of the first channel
    uint32_t requant_step;   // bytes from one pair of channels to the next: 16, or 0 with one factor for all
    uint32_t zero;           // out_zero
    uint16_t place[8];       // of pixel i, channel j of the pair: place[2 * i + j] from `out`
    const int8_t *w;         // [channels, k]
    int32_t pairs;           // of channels
} fl_tile_mve_t;

// Every shift at most -1: one rounding right shift. The other takes any shift.
void fl_tile_right_mve(fl_tile_mve_t *t);
void fl_tile_any_mve(fl_tile_mve_t *t);

#endif
