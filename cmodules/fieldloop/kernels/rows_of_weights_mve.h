// Four rows of weights over one row of inputs: the inner loops of the _mve fully connected layer.
#ifndef FIELDLOOP_KERNELS_ROWS_OF_WEIGHTS_MVE_H
#define FIELDLOOP_KERNELS_ROWS_OF_WEIGHTS_MVE_H

#include <stdint.h>

#include "fieldloop/fl_image.h"

typedef struct {
    // the first four are loaded at once, into r0, r2, r4, r6
    const int8_t *x;  // [k]
    int32_t pad;      // 0..15: with it k is a multiple of 16
    int32_t k;
    int32_t blocks;   // of 16 after the first, which is the one with the pad
    // and these, into r2, r4, r6, r8
    int32_t zero;  // out_zero
    int32_t multiplier, shift;
    const int8_t *w_end;  // behind the last row
    const int8_t *w;      // [4 * n, k]
    const int32_t *folded;
    int8_t *out;
    const fl_requant_t *requant;
    uint32_t requant_step;  // bytes from four factors to the next four: 32, or 0
} fl_rows_of_weights_t;

// `right`: one factor for all, whose shift is negative. `any`: a factor each, from `requant` on.
void fl_rows_of_weights_right_mve(const fl_rows_of_weights_t *r);
void fl_rows_of_weights_any_mve(const fl_rows_of_weights_t *r);

#endif
