// How the _mve depthwise convolution cuts a map, so that its scratch stays within FL_WINDOWS_MAX bytes.
//
// A window is four rows of the map, or of its padding, as words: a byte a row. A column of it has a word a channel, so
// that the four columns a kernel sees of one channel are gathered by one instruction:
//
//   column 0: channel 0 (row 0, 1, 2, 3) | channel 1 (row 0, 1, 2, 3) | ... | column 1: ...
//
// A 3x3 kernel of stride 1 makes two by two outputs of such a gathering, others one.
#ifndef FIELDLOOP_KERNELS_WINDOWS_MVE_H
#define FIELDLOOP_KERNELS_WINDOWS_MVE_H

#include "fieldloop/fl_kernels.h"
#include "steps.h"

// The scratch: windows | slack | table | edge, the last of which is always written.
enum {
    FL_WINDOW_CHANNELS = 16,
    FL_WINDOWS_MAX = 4096,
    FL_WINDOWS_SLACK = 64,   // what is written behind the last window
    FL_WINDOWS_TABLE = 288,  // weights of 16 channels, 16 bytes each, between zeros
    FL_WINDOWS_EDGE = 16,    // a row off the map: x_zero
    FL_WINDOWS_OUT_MAX = 1 << 24,  // a pixel's step, whose fourfold fits 32 bits
};

typedef struct {
    int32_t two;       // 1: two rows and two columns of outputs at a time
    int32_t channels;  // words a column: 16, or all there are
    int32_t out_cols;  // outputs in a strip of the map
    int32_t cols;      // and the columns they see
    int32_t windows;   // held at a time
    uint32_t bytes;    // of all windows; 0: not for these kernels
} fl_windows_mve_t;

static inline fl_windows_mve_t fl_windows_of_mve(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    fl_windows_mve_t v = {.channels = d->in_c < FL_WINDOW_CHANNELS ? d->in_c : FL_WINDOW_CHANNELS};
    const int32_t plain = p->stride_h == 1 && p->stride_w == 1 && p->dilation_h == 1 && p->dilation_w == 1;
    v.two = plain && p->kernel_h <= 3 && p->kernel_w <= 3 && d->out_h >= 2 && d->out_w >= 2;
    const int32_t most = FL_WINDOWS_MAX / 4 / v.channels;  // columns
    const int32_t least = v.two ? 2 : 4;                   // outputs a turn
    const int32_t step = v.two ? 1 : p->stride_w;
    const int32_t span = v.two ? 3 : (p->kernel_w - 1) * p->dilation_w + 1;
    const int32_t too_wide = step > most || span > most || (least - 1) * step + span > most;
    if (p->kernel_h > 4 || p->kernel_w > 4 || too_wide || fl_y_step(d) > FL_WINDOWS_OUT_MAX) {
        return v;
    }
    const int32_t fit = (most - span) / step + 1;
    v.out_cols = d->out_w < fit ? d->out_w : fit;
    v.cols = ((v.out_cols < least ? least : v.out_cols) - 1) * step + span;
    const int32_t fitting = most / v.cols;
    const int32_t needed = v.two ? (d->out_h + 1) / 2 : d->out_h;
    v.windows = needed < fitting ? needed : fitting;
    v.bytes = (uint32_t)(v.windows * v.cols * v.channels * 4);
    return v;
}

// Fills `count` windows for output rows oy, oy + step, ... of the strip from output column ox on, with the channels of
// the map from `ic` on. `edge` is 16 bytes of x_zero.
void fl_windows_fill_mve(const fl_windows_mve_t *v, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                         const int8_t *edge, const int32_t *oy, int32_t count, int32_t ox, int32_t ic, int8_t *to);

#endif
