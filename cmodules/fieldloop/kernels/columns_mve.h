// The columns of the _mve convolution: what an output pixel sees, as tile_mve.h lays it out.
#ifndef FIELDLOOP_KERNELS_COLUMNS_MVE_H
#define FIELDLOOP_KERNELS_COLUMNS_MVE_H

#include "fieldloop/fl_kernels.h"

enum {
    FL_GATHERED_MAX = 64,  // bytes of a column that is gathered
    FL_PADDED_MAX = 2048,
};

typedef struct {
    const fl_conv_params_t *p;
    const int8_t *x;
    int32_t x_zero;
    int32_t k, pad;           // see tile_mve.h
    int32_t span_h, span_w;   // of the dilated kernel
    int32_t runs, n;          // contiguous runs of the map in a kernel row, and their bytes
    int32_t gathered;         // groups of 8 bytes to gather; 0: copied run by run
    int32_t in_h, in_w, in_c, out_w;
    int32_t step, next;       // bytes from one pixel of the map, of the output to the next
    int32_t pad_top, pad_left, stride_h, stride_w;
    int32_t x_row, x_tap;     // bytes from one row, one tap of the kernel to the next
    uint16_t at[FL_GATHERED_MAX];  // of byte i of a column, padding included: from the patch's corner
} fl_columns_mve_t;

// Bytes of a copy of the map with its padding, for small maps whose columns are gathered; 0: none is made.
static inline uint32_t fl_padded_bytes_mve(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    const int64_t k = (int64_t)p->kernel_h * p->kernel_w * d->in_c;
    const int64_t h = (int64_t)(d->out_h - 1) * p->stride_h + (p->kernel_h - 1) * p->dilation_h + 1;
    const int64_t w = (int64_t)(d->out_w - 1) * p->stride_w + (p->kernel_w - 1) * p->dilation_w + 1;
    const int inside = p->pad_top == 0 && p->pad_left == 0 && h <= d->in_h && w <= d->in_w;
    if (inside || p->pad_top < 0 || p->pad_left < 0 || k > FL_GATHERED_MAX || h * w * d->in_c > FL_PADDED_MAX) {
        return 0;
    }
    return (uint32_t)(h * w * d->in_c);
}

// `padded`: fl_padded_bytes_mve bytes.
void fl_columns_start_mve(fl_columns_mve_t *c, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                          int32_t x_zero, int8_t *padded);

// The columns of output pixels first..first + 3, those beyond the last one being its own again. Padding reads x_zero.
void fl_columns_mve(const fl_columns_mve_t *c, int32_t first, int32_t pixels, int8_t *to);

#endif
