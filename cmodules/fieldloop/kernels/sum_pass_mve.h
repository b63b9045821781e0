// Four rows of up to 16 weights, which stay in registers, over all pixels of a line: the inner loops of partial sums with
// Helium.
#ifndef FIELDLOOP_KERNELS_SUM_PASS_MVE_H
#define FIELDLOOP_KERNELS_SUM_PASS_MVE_H

#include <stdint.h>

// The assembler has the places in it.
typedef struct {
    const int8_t *x;
    int32_t x_step;    // from one pixel to the next
    int32_t *acc;      // of four channels of the first pixel
    int32_t acc_step;  // bytes from one pixel to the next
    int32_t pixels;    // 1 or more
    int32_t n;
    const int8_t *w;
    int32_t row;
    int32_t more[4];   // what each accumulator gets besides
    int32_t minus;     // -x_zero
} fl_sum_pass_t;

// acc += sum over n <= 16 of x * w, and `more`.
void fl_sum_pass_more_mve(const fl_sum_pass_t *t);
// The same without `more`.
void fl_sum_pass_mve(const fl_sum_pass_t *t);
// acc += sum over n <= 8 of (x - x_zero) * w.
void fl_sum_pass_centred_mve(const fl_sum_pass_t *t);

#endif
