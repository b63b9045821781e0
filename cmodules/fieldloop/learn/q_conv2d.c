// Convolution with 16-bit deltas, a scatter over the spots of one channel. Taps that lie side by side on the map are one run.
#include "fieldloop/fl_backward_q.h"
#include "kernels/taps.h"
#include "learn/q_runs.h"
#include "learn/q_words.h"

void fl_q_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                             const int8_t *w_row, int32_t mantissa, uint32_t r, int32_t *delta_in) {
    const int32_t w_line = p->kernel_w * d->in_c;
    for (uint32_t e = 0; e < count; e++) {
        const uint32_t t = (uint32_t)fl_q_scale_word(spots[e].delta.q, mantissa, r);
        if (t == 0) {
            continue;
        }
        const fl_taps_t ty = fl_taps(spots[e].y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        const fl_taps_t tx = fl_taps(spots[e].x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        const int32_t taps = p->dilation_w == 1 && tx.end > tx.first ? tx.end - tx.first : 1;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            const int32_t line = (ty.start + ky * p->dilation_h) * d->in_w + tx.start;
            for (int32_t kx = tx.first; kx < tx.end; kx += taps) {
                fl_q_add_run((uint32_t *)delta_in + (line + kx * p->dilation_w) * d->in_c,
                             w_row + ky * w_line + kx * d->in_c, t, (uint32_t)(taps * d->in_c));
            }
        }
    }
}

void fl_q_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row) {
    const int32_t kernel_w = p->kernel_w;
    const int32_t last = d->in_w - (kernel_w - 1) * p->dilation_w;  // a window that starts below it ends on the map
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        uint32_t *line = (uint32_t *)row + ky * kernel_w * d->in_c;
        // windows with all taps of this line on the map, side by side
        fl_q_runs_t gathered = {.sums = line, .n = (uint32_t)(kernel_w * d->in_c), .zero = x_zero};
        for (uint32_t e = 0; e < count; e++) {
            const int32_t iy = spots[e].y * p->stride_h - p->pad_top + ky * p->dilation_h;
            if (iy < 0 || iy >= d->in_h) {
                continue;
            }
            const int32_t t = fl_q_shift(spots[e].delta.q, r);
            const int32_t start = spots[e].x * p->stride_w - p->pad_left;
            const int32_t at = iy * d->in_w + start;
            if (p->dilation_w == 1 && start >= 0 && start < last) {
                fl_q_gather_run(&gathered, x + at * d->in_c, t);
                continue;
            }
            const fl_taps_t tx = fl_taps(spots[e].x, p->stride_w, p->pad_left, p->dilation_w, kernel_w, d->in_w);
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                fl_q_runs_t alone = {.sums = line + kx * d->in_c, .n = (uint32_t)d->in_c, .zero = x_zero};
                fl_q_gather_run(&alone, x + (at + kx * p->dilation_w) * d->in_c, t);
                fl_q_finish_runs(&alone);
            }
        }
        fl_q_finish_runs(&gathered);
    }
}
