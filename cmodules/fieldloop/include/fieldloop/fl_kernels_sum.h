// Kernels in two halves, for operators whose input comes in parts: sums into accumulators that the caller keeps, then one
// step from accumulators to finished elements. All halves together give the bytes of the whole kernel: integer sums are
// exact, and f32 sums go on where they stopped (in the whole kernel's order as long as the parts come in it).
//
// Accumulators lie a pixel after the other, out_c each, without gaps, aligned to their element. The caller sets them to 0.
#ifndef FIELDLOOP_FL_KERNELS_SUM_H
#define FIELDLOOP_FL_KERNELS_SUM_H

#include <stdint.h>

#include "fieldloop/fl_kernels.h"

// How the weights of a part lie among all: elements of w from one tap to the next, and from one output channel to the next.
typedef struct {
    int32_t tap, row;
} fl_part_t;

// acc[y, x, o] += sum over taps on the map and channels of the part of (x - x_zero) * (w - w_zero); it wraps. One group.
// d->in_c: channels of the part; d->x_step as in fl_conv2d; d->y_step is not looked at. fl_conv2d_scratch is not needed.
void fl_conv2d_sum(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                   const fl_part_t *part,
                   const int8_t *x,  // [in_h, in_w, in_c], d->x_step a pixel
                   const int8_t *w,  // of the part's first channel: [out_c, kernel_h, kernel_w, in_c] in steps of `part`
                   int32_t *acc);    // [out_h, out_w, out_c]

// out = finished(acc + b) as fl_conv2d finishes; of q, neither zero point of the inputs nor `folded` is looked at. `out` may
// be where `acc` is, if a pixel's outputs then take no more room than its accumulators: out_step <= 4 * channels.
void fl_finish_sums(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b,
                    const int32_t *acc,             // [pixels, channels]
                    int8_t *out, int32_t out_step);  // [pixels, channels], out_step elements a pixel

// acc[c] += sum over pixels of x[., c]; it wraps. What average pools over the whole map and means begin with.
void fl_pool_sum(int32_t pixels, int32_t channels,
                 const int8_t *x, int32_t x_step,  // [pixels, channels], x_step elements a pixel
                 int32_t *acc);                    // [channels]

// `count` elements were summed. As fl_avg_pool and fl_mean finish; `out` may be where `acc` is.
void fl_finish_avg_pool(int32_t count, int32_t act_min, int32_t act_max, int32_t channels, const int32_t *acc, int8_t *out);
void fl_finish_mean(const fl_mean_params_t *p, const fl_mean_quant_t *q, int32_t count, int32_t channels,
                    const int32_t *acc, int8_t *out);

// The same in f32; in place with out_step == channels.
void fl_conv2d_sum_f32(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_part_t *part, const float *x,
                       const float *w, float *acc);
void fl_finish_sums_f32(float lo, float hi, int32_t pixels, int32_t channels, const float *b, const float *acc, float *out,
                        int32_t out_step);
void fl_pool_sum_f32(int32_t pixels, int32_t channels, const float *x, int32_t x_step, float *acc);
// acc / count, clamped: average pools and means alike.
void fl_finish_mean_f32(int32_t count, float lo, float hi, int32_t channels, const float *acc, float *out);

#endif
