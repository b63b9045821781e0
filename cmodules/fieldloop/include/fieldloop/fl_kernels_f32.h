// The f32 kernels, for models that stay float. Same shapes and order of arguments as fl_kernels.h; nothing here needs
// scratch, uses libm, or fuses or reorders a sum: every output has one accumulator that takes its products in ascending
// order of taps and channels and the bias last, so all machines give the same bytes. `lo`, `hi`: the folded activation.
#ifndef FIELDLOOP_FL_KERNELS_F32_H
#define FIELDLOOP_FL_KERNELS_F32_H

#include <stdint.h>

#include "fieldloop/fl_kernels.h"

void fl_conv2d_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d,
                   const float *x,  // [in_h, in_w, in_c]
                   const float *w,  // [out_c, kernel_h, kernel_w, in_c / groups]
                   const float *b,  // [out_c] or NULL
                   float *out);     // [out_h, out_w, out_c]

void fl_depthwise_conv2d_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d,
                             const float *x,  // [in_h, in_w, in_c]
                             const float *w,  // [kernel_h, kernel_w, out_c]
                             const float *b,  // [out_c] or NULL
                             float *out);     // [out_h, out_w, out_c]

void fl_fully_connected_f32(float lo, float hi, int32_t batch, int32_t out_c, int32_t in_c,
                            const float *x,  // [batch, in_c]
                            const float *w,  // [out_c, in_c]
                            const float *b,  // [out_c] or NULL
                            float *out);     // [batch, out_c]

void fl_max_pool_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d,
                     const float *x,  // [in_h, in_w, in_c]
                     float *out);     // [out_h, out_w, in_c]
void fl_avg_pool_f32(const fl_conv_params_t *p, float lo, float hi, const fl_map_dims_t *d,
                     const float *x,  // [in_h, in_w, in_c]
                     float *out);     // [out_h, out_w, in_c]

// `opcode`: FL_OP_ADD, FL_OP_SUB, FL_OP_MUL, FL_OP_MINIMUM or FL_OP_MAXIMUM.
void fl_binary_f32(uint32_t opcode, float lo, float hi, const fl_broadcast_t *d, const float *a, const float *b,
                   float *out);

void fl_softmax_f32(int32_t rows, int32_t cols,
                    const float *x,  // [rows, cols]
                    float *out);     // [rows, cols]

void fl_mean_f32(uint32_t axes, float lo, float hi, const int32_t shape[4], const float *x, float *out);

void fl_unary_f32(const fl_unary_params_t *p, int32_t n,
                  const float *x,  // [n]
                  float *out);     // [n]

// x / scale in f32, halves away from zero, plus the zero point, clamped; NaN becomes the zero point.
void fl_affine_quantize(float scale, int32_t zero_point, int32_t n,
                        const float *x,  // [n]
                        int8_t *out);    // [n]
void fl_affine_dequantize(float scale, int32_t zero_point, int32_t n,
                          const int8_t *x,  // [n]
                          float *out);      // [n]

#endif
