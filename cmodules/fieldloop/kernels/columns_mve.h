// The columns of the _mve convolution: what an output pixel sees, as tile_mve.h lays it out.
#ifndef FIELDLOOP_KERNELS_COLUMNS_MVE_H
#define FIELDLOOP_KERNELS_COLUMNS_MVE_H

#include "fieldloop/fl_kernels.h"

enum { FL_GATHERED_MAX = 64 };  // bytes of a column that is gathered

typedef struct {
    const fl_conv_params_t *p;
    const fl_map_dims_t *d;
    const int8_t *x;
    int32_t x_zero;
    int32_t k, pad;           // see tile_mve.h
    int32_t span_h, span_w;   // of the dilated kernel
    int32_t runs, n;          // contiguous runs of the map in a kernel row, and their bytes
    int32_t gathered;         // groups of 8 bytes to gather; 0: copied run by run
    uint16_t at[FL_GATHERED_MAX];  // of byte i of a column, padding included: from the patch's corner
} fl_columns_mve_t;

void fl_columns_start_mve(fl_columns_mve_t *c, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                          int32_t x_zero);

// The column of output pixel (oy, ox); `to` is its first block. The map's padding reads x_zero.
void fl_column_mve(const fl_columns_mve_t *c, int32_t oy, int32_t ox, int8_t *to);

#endif
