// Depthwise convolution, spot by spot: output channel c reads input channel c / depth_multiplier only; weights are
// [kernel_h, kernel_w, out_c].
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

void fl_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *w, float scale, float *delta_in) {
    float *plane = delta_in + (int32_t)c / p->depth_multiplier;
    for (uint32_t i = 0; i < count; i++) {
        fl_taps_t ty = fl_taps(spots[i].y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        fl_taps_t tx = fl_taps(spots[i].x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        float scaled = spots[i].delta.f * scale;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            int32_t iy = ty.start + ky * p->dilation_h;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                int32_t ix = tx.start + kx * p->dilation_w;
                float *place = plane + (iy * d->in_w + ix) * d->in_c;
                *place = *place + scaled * (float)w[(ky * p->kernel_w + kx) * d->out_c + (int32_t)c];
            }
        }
    }
}

void fl_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                   uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, float *row) {
    const int8_t *plane = x + (int32_t)c / p->depth_multiplier;
    for (uint32_t i = 0; i < count; i++) {
        fl_taps_t ty = fl_taps(spots[i].y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        fl_taps_t tx = fl_taps(spots[i].x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        float delta = spots[i].delta.f;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            int32_t iy = ty.start + ky * p->dilation_h;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                int32_t ix = tx.start + kx * p->dilation_w;
                float *place = row + ky * p->kernel_w + kx;
                *place = *place + delta * (float)(plane[(iy * d->in_w + ix) * d->in_c] - x_zero);
            }
        }
    }
}
