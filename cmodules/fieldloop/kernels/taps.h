// Which taps of a window lie on the map: what convolutions and pools, forward and backward, work out once a pixel.
#ifndef FIELDLOOP_KERNELS_TAPS_H
#define FIELDLOOP_KERNELS_TAPS_H

#include <stdint.h>

// Taps first..end-1 of `kernel` land on 0..size-1; tap t lands on start + t * dilation.
typedef struct {
    int32_t first, end, start;
} fl_taps_t;

static inline fl_taps_t fl_taps(int32_t out, int32_t stride, int32_t pad, int32_t dilation, int32_t kernel,
                                int32_t size) {
    fl_taps_t t = {0, kernel, out * stride - pad};
    if (t.start < 0) {
        t.first = (-t.start + dilation - 1) / dilation;
    }
    if (t.start + (kernel - 1) * dilation >= size) {
        // nothing lands below `size` when the window starts beyond it
        t.end = t.start >= size ? 0 : (size - 1 - t.start) / dilation + 1;
    }
    return t;
}

#endif
