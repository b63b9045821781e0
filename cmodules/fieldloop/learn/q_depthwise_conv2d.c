// Depthwise convolution with 16-bit deltas: output channel c reads input channel c / depth_multiplier only.
#include "fieldloop/fl_backward_q.h"
#include "kernels/taps.h"
#include "learn/q_words.h"

void fl_q_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                       uint32_t count, uint32_t c, const int8_t *w, int32_t mantissa, uint32_t r,
                                       int32_t *delta_in) {
    int32_t *plane = delta_in + c / p->depth_multiplier;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_scale_word(spots[e].delta.q, mantissa, r);
        if (t == 0) {
            continue;
        }
        const fl_taps_t ty = fl_taps(spots[e].y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        const fl_taps_t tx = fl_taps(spots[e].x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        const int32_t step = p->dilation_w * d->in_c;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            const int32_t iy = ty.start + ky * p->dilation_h;
            int32_t *place = plane + (iy * d->in_w + tx.start + tx.first * p->dilation_w) * d->in_c;
            const int8_t *tap = w + (ky * p->kernel_w + tx.first) * d->out_c + c;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                *place += t * *tap;
                place += step;
                tap += d->out_c;
            }
        }
    }
}

void fl_q_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row) {
    const int8_t *plane = x + c / p->depth_multiplier;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_shift(spots[e].delta.q, r);
        if (t == 0) {
            continue;
        }
        const fl_taps_t ty = fl_taps(spots[e].y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        const fl_taps_t tx = fl_taps(spots[e].x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        const int32_t step = p->dilation_w * d->in_c;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            const int32_t iy = ty.start + ky * p->dilation_h;
            const int8_t *place = plane + (iy * d->in_w + tx.start + tx.first * p->dilation_w) * d->in_c;
            int32_t *tap = row + ky * p->kernel_w + tx.first;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                *tap++ += t * (*place - x_zero);
                place += step;
            }
        }
    }
}
