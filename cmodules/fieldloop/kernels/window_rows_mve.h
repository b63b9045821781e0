// Rows of one channel of a depthwise convolution over windows (windows_mve.h): the inner loops.
#ifndef FIELDLOOP_KERNELS_WINDOW_ROWS_MVE_H
#define FIELDLOOP_KERNELS_WINDOW_ROWS_MVE_H

#include <stdint.h>

typedef struct {
    // the first eight are loaded at once, into r1, r3, r5, r7, r8, r9, r10, r11
    const int8_t *x;    // the channel's word of the first column of the first window
    int8_t *out;        // these two move on
    int32_t step;       // bytes of a window that a turn (two: of 2 columns; one: a column) advances
    int32_t out_step;   // bytes of the output that a turn advances
    int32_t bias;
    int32_t multiplier, shift;
    int32_t zero;           // out_zero
    const int8_t *table;    // the channel's weights, [4 columns][4 rows], 0 beyond the kernel
    int32_t turns;          // of a row: 2 columns each, or 4
    int32_t back;           // columns that a last turn, one more, does again; 0: there is none
    int32_t rows;           // one each window, or a pair
    int32_t x_row, out_row; // from one to the next
    int32_t last_row;       // two: what the last out_row differs by
    int32_t lanes;          // one: of a turn that are stored
    uint32_t gather[4];     // bytes from a window's word to those of the kernel's columns
    uint32_t place[4];      // of the outputs of a turn, from the first
} fl_window_rows_t;

// Two rows of outputs for each window, of a 3x3 kernel with stride 1: the table begins 8 bytes in, 5 zeros before it and
// 4 behind it. `one`: a row for each window, of any stride. `any`: for shifts from 0 on.
void fl_window_two_right_mve(fl_window_rows_t *v);
void fl_window_two_any_mve(fl_window_rows_t *v);
void fl_window_one_right_mve(fl_window_rows_t *v);
void fl_window_one_any_mve(fl_window_rows_t *v);

#endif
