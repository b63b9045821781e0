// The inner loop of the fully connected layer: rows of weights four by four over the same inputs.
#ifndef FIELDLOOP_KERNELS_ROWS_DSP_H
#define FIELDLOOP_KERNELS_ROWS_DSP_H

#include "fieldloop/fl_kernels.h"

// The assembly has the offsets in it. Steps are in bytes, and 0 where four values serve all rows.
typedef struct {
    const int32_t *b;       // of the next four rows
    int32_t b_step;
    const fl_requant_t *r;
    int32_t r_step;
    const int8_t *x;        // [k]
    const int8_t *x_16;     // end of its quads in fours,
    const int8_t *x_4;      //   of all quads,
    const int8_t *x_end;    //   of x
    int32_t k;
    uint32_t minus;         // the pair (-x_zero, -x_zero)
    int8_t *out;
    const int8_t *out_end;
    int32_t twice_zero_1;   // 2 * zero point + 1
    uint32_t special;       // FL_ROWS_*
    uint32_t low, high;     // four times the clamp's limits
    const int8_t *w;        // [rows, k]
    uint32_t acc[4];
    const fl_quant_t *q;
} fl_rows_t;

enum {
    FL_ROWS_CLAMPED = 1,  // to less than int8
    FL_ROWS_REST = 2,     // some scale is no short right shift
};

// Runs from out to out_end, a multiple of four rows.
void fl_rows_dsp(fl_rows_t *s);

#endif
