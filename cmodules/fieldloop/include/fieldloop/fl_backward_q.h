// The backward pass with deltas of 16 bits, for processors without an FPU. A delta is an array of int32 words of
// -32767..32767 and one exponent: real value word * 2^exponent. Products are summed in int32, which cannot overflow: the
// caller's `shift` sees to it. Everything is integer arithmetic but a handful of scalars per row, so the bytes are the same
// everywhere. Spots are those of fl_backward.h, with delta.q. "Rounded" means halves away from zero.
#ifndef FIELDLOOP_FL_BACKWARD_Q_H
#define FIELDLOOP_FL_BACKWARD_Q_H

#include <stdint.h>

#include "fieldloop/fl_backward.h"

// f32 deltas of the output (|v| <= 1) in place to words with exponent -15: rounded, clamped to +-32767.
void fl_q_from_f32(fl_word_t *delta /* [n] */, uint32_t n);

// Sum of |word|, exact (n <= 65535).
uint32_t fl_q_l1(const int32_t *delta, uint32_t n);

// sum * 2^exponent as f32, round to nearest (even); 0 and subnormals where it underflows, the largest f32 where it would
// overflow.
float fl_q_real(uint32_t sum, int32_t exponent);

// Scales of rows as 15-bit mantissas of one exponent: scale[i] ~ mantissa[i] * 2^exponent, the largest in [2^14, 2^15).
// fl_q_scale_exponent finds the exponent; fl_q_mantissa rounds one of these scales to it, 0..2^15 (where it rounds up).
int32_t fl_q_scale_exponent(const fl_row_scales_t *scales, uint32_t rows);
int32_t fl_q_mantissa(float scale, int32_t exponent);

// Shift that keeps sums in range: the least r >= 0 with (l1 >> r) + entries < 2^31 / bound - 1 (in integers).
// `bound`: largest |factor| a word is multiplied with (128 for weights, 255 for centred inputs). Words that are shifted by r
// and rounded have an L1 norm of at most l1 / 2^r + entries / 2; where a pool shares a word out before (rounding once
// more), l1 / 2^r + entries, if `entries` counts what it was shared out to.
uint32_t fl_q_headroom(uint32_t l1, uint32_t entries, uint32_t bound);

// t of a word: (word * mantissa >> 15) >> r, rounded once, halves away from zero.
int32_t fl_q_scaled(int32_t word, int32_t mantissa, uint32_t r);

// delta_in (int32 sums) += t(spot) * w, as fl_spots_*_input; t = fl_q_scaled(spot, mantissa, r).
void fl_q_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                             const int8_t *w_row, int32_t mantissa, uint32_t r, int32_t *delta_in);
void fl_q_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                       uint32_t count, uint32_t c, const int8_t *w, int32_t mantissa, uint32_t r,
                                       int32_t *delta_in);
void fl_q_rows_fully_connected_input(const int32_t *delta, const uint16_t *rows, uint32_t count, const int8_t *w,
                                     const fl_row_scales_t *w_scale, int32_t scale_exponent, uint32_t r, uint32_t cols,
                                     int32_t *delta_in);

// int32 sums in place to words: shifted right, rounded, by the least h >= 0 that brings all of them into +-32767.
// Returns h: the exponent grows by it.
uint32_t fl_q_normalise(int32_t *sums, uint32_t n);

// Two deltas of one tensor: a (exponent *ea) += b (eb), at the larger exponent (plus one where a sum would leave the range).
void fl_q_add(int32_t *a, int32_t *ea, const int32_t *b, int32_t eb, uint32_t n);

// row (int32 sums) += (spot >> r, rounded) * (x - x_zero)
void fl_q_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row);
void fl_q_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row);

// Plain SGD: the step of element j is factor * 2^exponent * sums[j], factor the f32 of fl_step_row, taken apart into 24
// bits and a power of two; the product is exact in 64 bits, truncated to units of 2^-32 and rounded stochastically
// (fl_random, the same indices as fl_step_row). int8 and int16 weights (t->low). Above max_step it is cut before it is
// rounded. A weight whose rounded step is 0 is left as it is.
void fl_q_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const int32_t *sums, int32_t exponent,
                   uint32_t n);
// The same bytes for sums[j] = delta * (x[j] - x_zero), without the detour.
void fl_q_step_fully_connected_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, int32_t delta,
                                   int32_t exponent, const int8_t *x, uint32_t cols);
void fl_q_step_bias(const fl_step_rule_t *u, uint32_t row, int32_t sum, int32_t exponent, uint32_t index, int32_t *b);

#endif
