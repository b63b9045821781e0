// Real values <-> the int8 values of a tensor, and the class of the highest score.
//
// Quantising is scale * (q - zero_point) turned round: the quotient of two floats taken in double precision and
// rounded to the nearest integer, ties to even, then clamped to int8. numpy's rint on float64 gives the
// same bytes.
#ifndef FIELDLOOP_FL_QUANTIZE_H
#define FIELDLOOP_FL_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_image.h"

// q[n] from x[n] with the scale and zero point of `t`, an int8 activation. NaN becomes the zero point.
void fl_quantize(const fl_tensor_t *t, const float *x, int8_t *q, size_t n);

// x[n] from q[n].
void fl_dequantize(const fl_tensor_t *t, const int8_t *q, float *x, size_t n);

// Index of the largest score of tensor `t`, whatever its dtype; of equal ones the first.
size_t fl_argmax(const fl_tensor_t *t, const void *scores);

#endif
