// Patches: where the taps of one output pixel lie in inputs and weights, and the dot products over them. What the plain
// convolution and its partial sums walk.
#ifndef FIELDLOOP_KERNELS_PATCH_H
#define FIELDLOOP_KERNELS_PATCH_H

#include "dot.h"
#include "fieldloop/fl_kernels.h"
#include "steps.h"
#include "taps.h"

// What one output pixel sees of the channels that are summed: all of them, a group's, or a part's.
typedef struct {
    const int8_t *x;   // the map's pixel under tap (ty.first, tx.first), the first of the channels
    int32_t w_from;    // that tap's place in a row of weights
    int32_t rows;      // kernel rows on the map
    int32_t runs;      // runs a kernel row: 1, or one a tap where they do not lie side by side
    int32_t n;         // elements a run
    int32_t x_row, w_row;  // from one kernel row to the next
    int32_t x_run, w_run;  // from one run to the next
} fl_patch_t;

static inline uint32_t fl_patch_dot(const fl_patch_t *v, const int8_t *w, int32_t x_zero) {
    uint32_t acc = 0;
    const int8_t *x_row = v->x;
    const int8_t *w_row = w + v->w_from;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            acc += fl_dot(x_row + i * v->x_run, w_row + i * v->w_run, v->n, x_zero);
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
    return acc;
}

static inline void fl_patch_dot4(const fl_patch_t *v, const int8_t *w, int32_t stride, int32_t x_zero, uint32_t acc[4]) {
    const int8_t *x_row = v->x;
    const int8_t *w_row = w + v->w_from;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            fl_dot4(x_row + i * v->x_run, w_row + i * v->w_run, stride, v->n, x_zero, acc);
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
}

// The sum of all centred inputs of the patch: what a weight zero point is multiplied with.
static inline uint32_t fl_patch_sum(const fl_patch_t *v, int32_t x_zero) {
    uint32_t sum = 0;
    const int8_t *x_row = v->x;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            sum += fl_centred_sum(x_row + i * v->x_run, v->n, x_zero);
        }
        x_row += v->x_row;
    }
    return sum;
}

// `channels` of the map's pixel from x on; `tap` elements of weights from one tap to the next.
static inline fl_patch_t fl_patch_of(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t channels, int32_t tap,
                                     const int8_t *x, fl_taps_t ty, fl_taps_t tx) {
    const int32_t taps = tx.end - tx.first, step = fl_x_step(d);
    if (ty.end <= ty.first || taps <= 0) {
        return (fl_patch_t){.x = x};  // a window that lies in the padding sees nothing: no address to form
    }
    // taps side by side are one run where nothing lies between them, neither in x nor in w
    const int32_t contiguous = p->dilation_w == 1 && channels == step && channels == tap;
    fl_patch_t v = {
        .rows = ty.end - ty.first,
        .runs = contiguous ? 1 : taps,
        .n = contiguous ? taps * channels : channels,
        .w_from = (ty.first * p->kernel_w + tx.first) * tap,
        .w_row = p->kernel_w * tap,
        .w_run = tap,
    };
    v.x = x + ((ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w) * step;
    // beyond the last kernel row nothing is read: with one row the step may not even fit 32 bits
    v.x_row = v.rows > 1 ? p->dilation_h * d->in_w * step : 0;
    v.x_run = v.runs > 1 ? p->dilation_w * step : 0;
    return v;
}

#endif
