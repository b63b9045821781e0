// The backward kernels: each takes plain arrays and is usable on its own. Equations in docs/DESIGN.md.
//
// Units. `delta` is dLoss/dz, z real (not quantised), f32; maps are NHWC of one sample, so entry (y, x, c) has the
// index (y * out_w + x) * out_c + c. `x` is the saved int8 input, real value x_scale * (x - x_zero). Weights have
// real value scale[row] * w. Gradient rows are in units of delta * (x - x_zero), without x_scale.
//
// Sparsity. What takes part comes as a list, of spots or of rows; the rest counts as zero and is not looked at. Sums run in the
// order of the list, always: the order of float additions is part of the contract.
//
// Nothing here allocates, fails or writes outside its outputs; the learner proves shapes and ranges beforehand.
#ifndef FIELDLOOP_FL_BACKWARD_H
#define FIELDLOOP_FL_BACKWARD_H

#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_image.h"
#include "fieldloop/fl_kernels.h"

// FL_OK, or FL_ENOTSUP where this processor rounds f32 otherwise than IEEE 754 to nearest with subnormals
// (flush-to-zero, denormals-are-zero): a training run would give other bytes than everywhere else.
int fl_float_mode_check(void);

// ---- output error ----

// e^x for x in -inf..0 (x > 0 counts as 0), within 1 ulp, monotone (both proved for every f32); 0 below -87; NaN stays NaN.
float fl_exp_negative(float x);

// Softmax and cross-entropy at the logits: delta[i] = p_i - [i == label], p = softmax(scale * (q - zero_point)).
// Returns the L1 norm of delta in exact arithmetic, 2 (1 - p_label), or a non-finite number where the logits overflow f32.
// *predicted: index of the highest logit, the lowest of equals.
float fl_output_error(const int8_t *q /* [classes] */, uint32_t classes, float scale, int32_t zero_point, uint32_t label,
                      float *delta /* [classes] */, uint32_t *predicted);

// ---- how many, and which ----

typedef struct {
    float s_min, s_max;  // bounds of the ratio, 0..1
    float zeta;          // damping per layer away from the output, 0..1
    uint32_t k_rule;     // fl_k_rule_t
} fl_ratio_t;

// Sum of |delta[i]|, i ascending.
float fl_l1_norm(const float *delta /* [n] */, uint32_t n);

// Raises the running maximum (*y_max = max(rho * *y_max, y)), then returns the error-propagation rate
// alpha = y / *y_max, 0..1; 0 while *y_max is 0.
float fl_propagation_rate(float y, float *y_max, float rho);

// TinyPropv2's metric at the output: d_min + alpha * (d_max - d_min). A sample is trained iff it is above d_thr.
float fl_decision(float alpha, float d_min, float d_max);

// S = (s_min + alpha (s_max - s_min)) zeta^distance in Q15: every factor is rounded to Q15 first, and every product
// again, half up, so that k is the same on every machine.
uint32_t fl_ratio_q15(const fl_ratio_t *r, float alpha, uint32_t distance);

// Kept entries of n, 1..n. FL_K_INTEGER: (n * S_q15 + 2^14) >> 15. FL_K_TRUNC_F32: truncated f32 product n * S, as the
// papers' code has it.
uint32_t fl_keep_count(const fl_ratio_t *r, float alpha, uint32_t distance, uint32_t n);

// ---- random numbers: a function of (seed, step, stream, index), no state ----

// Key of one stream: the rounding of one layer in one step, say.
uint32_t fl_random_key(uint32_t seed, uint32_t step, uint32_t stream);
// 32 random bits for `index` under `key`.
uint32_t fl_random(uint32_t key, uint32_t index);
// Uniform in 0..n-1 (0 where n is 0) from 32 random bits.
uint32_t fl_random_below(uint32_t bits, uint32_t n);

// v rounded to a neighbouring integer so that the mean is v (to 2^-32), from 32 random bits; |v| saturates below 2^31.
int32_t fl_round_stochastic(float v, uint32_t bits);

// ---- shapes ----

typedef struct {
    const float *scale;
    uint32_t stride;  // scale of row i: scale[i * stride]; 0 = one for all
} fl_row_scales_t;

// ---- spots: outputs of one channel, each with its delta; what the kernels of maps work on ----

typedef union {
    float f;    // FL_DELTAS_F32
    int32_t q;  // FL_DELTAS_INT16: +-32767, in units of the delta's power of two
} fl_word_t;

typedef struct {
    uint16_t y, x;  // place in the layer's output map
    fl_word_t delta;
} fl_spot_t;

// All of these ADD to their output, spot by spot in the order given: the order of additions for one element of the output
// is that of the spots. Kernels may take several spots at a time as long as that holds. `scale` is the weights' of channel
// c; w_row: [kernel_h, kernel_w, in_c] of channel c.

void fl_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *w_row, float scale, float *delta_in /* [in_h, in_w, in_c] */);
void fl_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                         const int8_t *x, int32_t x_zero, float *row /* [kernel_h, kernel_w, in_c] */);
// w: [kernel_h, kernel_w, out_c], of which channel c is read.
void fl_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *w, float scale, float *delta_in);
void fl_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                   uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero,
                                   float *row /* [kernel_h, kernel_w] */);
// delta_in[j] += delta[i] * scale[i] * w[i, j] for the rows listed (ascending; NULL: all), zeros left out.
void fl_rows_fully_connected_input(const float *delta /* [rows] */, const uint16_t *rows, uint32_t count,
                                   const int8_t *w /* [rows, cols] */, const fl_row_scales_t *w_scale, uint32_t cols,
                                   float *delta_in /* [cols] */);

// ---- writing a row: what a weight is kept in, and how it is stepped ----

// Where the trained numbers of a layer lie beside w. Element j of row r has the index r * row_stride + j * step in every
// one of them and in w (dense and convolution: row_stride = n, step = 1; depthwise: 1 and rows).
typedef struct {
    int8_t *w;
    int8_t *low;      // FL_WEIGHTS_INT16: value = w + low / 256, low -128..127; else NULL
    float *master;    // FL_WEIGHTS_F32: in steps of w; w is its nearest integer (halves away from zero); else NULL
    float *moment1;   // momentum of the gradient, or Adam's first moment of x_scale * gradient; else NULL
    float *moment2;   // Adam's second; else NULL
    uint32_t row_stride, step;
} fl_trained_t;

typedef struct {
    uint32_t optimizer;  // fl_optimizer_t; what counts for a layer is which moments it has
    float lr;
    float x_scale;
    int32_t x_zero;
    fl_row_scales_t w_scale;
    uint32_t key;        // of fl_random; index of a weight as above, biases from rows * n on
    uint32_t max_step;   // of the int8 part, 1..254
    float beta1, beta2;
    float decay1, decay2;  // beta^t of this update, t from 1
    uint64_t *clipped;     // += weights that moved less than asked for
} fl_step_rule_t;

// One row of real gradients: gradient[j] = dLoss/dz * (x - x_zero), as fl_spots_*_row make them (not times x_scale). g stands
// for gradient[j]; every line rounds once an operation, from left to right.
//   SGD: s = factor * g, factor = (lr * x_scale) / w_scale[row]; a g of exactly 0 moves nothing and is skipped. So step layers
//     without moments (t->moment1 NULL), whatever the optimizer.
//   Momentum (t->moment1, no moment2): m = beta1 * m + g; s = factor * m.
//   Adam (both): g = clamp(x_scale * g, +-1e15); m = beta1 * m + (1 - beta1) * g; v = beta2 * v + ((1 - beta2) * g) * g;
//     s = (lr / w_scale[row]) * ((m / (1 - decay1)) / (square root of (v / (1 - decay2)) + 1e-7)).
// |s| is cut to max_step; then the weight moves by -s. int8: s rounded stochastically; int16: s * 256 rounded so, in steps of
// 1/256; f32: master - s. It ends at +-127. A step that is rounded to 0 moves nothing, whatever the weight (-128 stays).
void fl_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient, uint32_t n);

// SGD of a fully connected row without the detour over a gradient: s = (factor * delta) * (x[j] - x_zero), else the same;
// inputs at the zero point move nothing and are skipped.
void fl_step_fully_connected_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, float delta,
                                 const int8_t *x /* [cols] */, uint32_t cols);

// One bias: b -= s, stochastically, clamped to +-2^30; the step is fl_step_row's, of g = sum (in Adam's without x_scale, but
// clamped alike) and with the factor lr / (x_scale * w_scale[row]). `m1`, `m2`: its moments, or NULL. A sum of 0 moves nothing,
// moments included.
void fl_step_bias(const fl_step_rule_t *u, uint32_t row, float sum, uint32_t index, int32_t *b, float *m1, float *m2);

// Square root of v >= 0, correctly rounded (IEEE 754), without libm.
float fl_square_root(float v);

// The folded activation: delta[i] stays iff act_min < q[i] < act_max, q the operator's saved int8 output.
void fl_backward_activation(const int8_t *q /* [n] */, uint32_t n, int32_t act_min, int32_t act_max,
                            float *delta /* [n] */);

#endif
