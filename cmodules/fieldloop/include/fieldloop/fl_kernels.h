// The int8 kernels: each takes plain arrays and is usable on its own. Results equal TensorFlow Lite Micro's reference
// kernels (double rounding) on every byte.
//
// Maps are NHWC with N = 1; the real value of an int8 element is scale * (q - zero_point).
// The order of arguments is: parameters, quantisation, sizes, inputs, scratch, output. Nothing here allocates, fails, or
// writes outside its output and scratch, as long as the sizes are true and the parameters keep to the ranges stated in fl_image.h
// (fl_image_check proves both for an image). An output may not overlap an input. Accumulators are 32 bits and wrap.
#ifndef FIELDLOOP_FL_KERNELS_H
#define FIELDLOOP_FL_KERNELS_H

#include <stdint.h>

#include "fieldloop/fl_image.h"

// Which kernels are built: plain C everywhere, _dsp for Armv7E-M (M4, M7), _mve for Armv8.1-M with Helium (M55). All give
// the same bytes. Chosen by the compiler's target, or by -DFL_KERNELS=0, 1, 2 (on a host the instructions are emulated).
typedef enum { FL_KERNELS_PLAIN = 0, FL_KERNELS_DSP = 1, FL_KERNELS_MVE = 2 } fl_variant_t;

fl_variant_t fl_kernels_variant(void);

typedef struct {
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w, out_c;
    // Elements from one pixel to the next, where a kernel sees some channels of wider maps; 0: in_c, out_c.
    int32_t x_step, y_step;
    int32_t w_step;  // depthwise: elements of w from one tap to the next; 0: out_c
} fl_map_dims_t;

// From a 32-bit accumulator to int8: clamp(out_zero + acc * requant, act_min, act_max).
typedef struct {
    int32_t x_zero;
    int32_t out_zero;
    int32_t act_min, act_max;
    const fl_requant_t *requant;  // of output channel c: requant[c * requant_stride]
    uint32_t requant_stride;      // 0: one factor for all channels; 1: one each
    int32_t w_zero;               // of the weights: not 0 in networks of the older uint8 kind only
    const int32_t *folded;        // [out_c] b - x_zero * sum of w (32 bits, wrapping), or NULL: not worked out beforehand
    uint32_t flags;               // FL_OP_SINGLE_ROUNDING
} fl_quant_t;

// acc[y, x, o] = b[o] + sum over taps on the map and channels of (x - x_zero) * w. Any stride, padding and dilation.
void fl_conv2d(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d,
               const int8_t *x,   // [in_h, in_w, in_c]
               const int8_t *w,   // [out_c, kernel_h, kernel_w, in_c / groups]
               const int32_t *b,  // [out_c] or NULL
               void *scratch,     // fl_conv2d_scratch bytes, 16-byte aligned
               int8_t *out);      // [out_h, out_w, out_c]

// As fl_conv2d, each output channel o from input channel o / depth_multiplier alone.
void fl_depthwise_conv2d(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d,
                         const int8_t *x,   // [in_h, in_w, in_c]
                         const int8_t *w,   // [kernel_h, kernel_w, out_c]
                         const int32_t *b,  // [out_c] or NULL
                         void *scratch,     // fl_depthwise_conv2d_scratch bytes, 16-byte aligned
                         int8_t *out);      // [out_h, out_w, out_c]

// acc[n, o] = b[o] + sum over c of (x[n, c] - x_zero) * w[o, c].
void fl_fully_connected(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c,
                        const int8_t *x,   // [batch, in_c]
                        const int8_t *w,   // [out_c, in_c]
                        const int32_t *b,  // [out_c] or NULL
                        void *scratch,     // fl_fully_connected_scratch bytes, 16-byte aligned
                        int8_t *out);      // [batch, out_c]

// Scratch bytes of a kernel in a variant (so that a host knows them for every board); 0 in plain C, always.
uint32_t fl_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d);
uint32_t fl_depthwise_conv2d_scratch(fl_variant_t variant, const fl_conv_params_t *p, const fl_map_dims_t *d);
uint32_t fl_fully_connected_scratch(fl_variant_t variant, int32_t out_c, int32_t in_c);

// Pools keep their input's quantisation. Every window must touch the map; padding takes no part.
void fl_max_pool(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                 const int8_t *x,  // [in_h, in_w, in_c]
                 int8_t *out);     // [out_h, out_w, in_c]

// The mean, halves rounded away from zero.
void fl_avg_pool(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                 const int8_t *x,  // [in_h, in_w, in_c]
                 int8_t *out);     // [out_h, out_w, in_c]

typedef struct {
    int32_t a_zero, b_zero, out_zero;
    int32_t act_min, act_max;
} fl_add_quant_t;

// Both summands are brought to a common scale with left_shift extra bits, added, and brought to the output's.
void fl_add(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n,
            const int8_t *a,  // [n]
            const int8_t *b,  // [n]
            int8_t *out);     // [n]

// Two inputs that broadcast against each other: the output's sizes, outermost axis first, and how far each input steps
// along each axis, in elements (0 where it is repeated).
typedef struct {
    int32_t n[4];
    int32_t a[4], b[4];
} fl_broadcast_t;

void fl_add_broadcast(const fl_add_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
                      const int8_t *b, int8_t *out);
void fl_sub(const fl_add_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
            const int8_t *b, int8_t *out);
void fl_mul(const fl_mul_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
            const int8_t *b, int8_t *out);
// Of one quantisation, which the output shares.
void fl_minimum(int32_t act_min, int32_t act_max, const fl_broadcast_t *d, const int8_t *a, const int8_t *b,
                int8_t *out);
void fl_maximum(int32_t act_min, int32_t act_max, const fl_broadcast_t *d, const int8_t *a, const int8_t *b,
                int8_t *out);

typedef struct {
    int32_t x_zero, out_zero;
    int32_t act_min, act_max;
} fl_mean_quant_t;

// The mean over the axes of p->axes: (sum - count * x_zero) * p->out, the count being part of that factor.
void fl_mean(const fl_mean_params_t *p, const fl_mean_quant_t *q, const int32_t shape[4],
             const int8_t *x,  // shape
             int8_t *out);     // shape without the averaged axes

// Softmax of each row, in fixed point; output scale 1/256, zero point -128. cols <= FL_SOFTMAX_MAX_COLS.
void fl_softmax(const fl_softmax_params_t *p, int32_t rows, int32_t cols,
                const int8_t *x,  // [rows, cols]
                int8_t *out);     // [rows, cols]

enum { FL_SOFTMAX_MAX_COLS = 4095 };  // what its sum of exponentials, with 12 integer bits, can hold

// out[i] = table[x[i] + 128].
void fl_table(const int8_t *table,  // [256]
              int32_t n,
              const int8_t *x,  // [n]
              int8_t *out);     // [n]

// Rows of a table; an index (int8 or int32, by index_bytes) outside of it means its first or last row.
void fl_embedding(int32_t entries, uint32_t row_bytes, uint32_t index_bytes, int32_t n,
                  const void *index,  // [n]
                  const void *table,  // [entries] rows of row_bytes
                  void *out);         // [n] rows

// A block of elements of 1 or 4 bytes from one place to another: sizes, outermost axis first, and the steps of both sides
// along each axis, in elements. Pad, transpose, slice and concat are such copies.
typedef struct {
    int32_t n[4];
    int32_t x[4], out[4];
} fl_copy_dims_t;

void fl_copy(const fl_copy_dims_t *d, uint32_t element_bytes, const void *x, void *out);

// `bytes` bytes from x to out, which may overlap: memmove, in words (that of a small C library goes byte by byte).
void fl_move(uint32_t bytes, const void *x, void *out);

// n elements of the low bytes of `value`.
void fl_fill(int32_t n, uint32_t element_bytes, int32_t value, void *out);

#endif
