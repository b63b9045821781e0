// Depthwise convolution: output channel c reads input channel c / depth_multiplier only; weights are [kh, kw, out_c].
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

void fl_backward_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const float *delta,
                                        const uint16_t *kept, uint32_t count, const int8_t *w,
                                        const fl_row_scales_t *w_scale, float *delta_in) {
    for (int32_t i = 0; i < d->in_h * d->in_w * d->in_c; i++) {
        delta_in[i] = 0.0f;
    }
    for (uint32_t e = 0; e < count; e++) {
        int32_t at = kept ? (int32_t)kept[e] : (int32_t)e;
        int32_t position = at / d->out_c;
        int32_t c = at - position * d->out_c;
        int32_t oy = position / d->out_w;
        int32_t ox = position - oy * d->out_w;
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        float scaled = delta[at] * w_scale->scale[(uint32_t)c * w_scale->stride];
        float *plane = delta_in + c / p->depth_multiplier;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            int32_t iy = ty.start + ky * p->dilation_h;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                int32_t ix = tx.start + kx * p->dilation_w;
                float *place = plane + (iy * d->in_w + ix) * d->in_c;
                *place = *place + scaled * (float)w[(ky * p->kernel_w + kx) * d->out_c + c];
            }
        }
    }
}

void fl_backward_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const float *delta,
                                      const uint16_t *grouped, uint32_t count, uint32_t c, const int8_t *x,
                                      int32_t x_zero, float *row) {
    int32_t positions = d->out_h * d->out_w;
    const int8_t *plane = x + c / p->depth_multiplier;
    for (int32_t i = 0; i < p->kernel_h * p->kernel_w; i++) {
        row[i] = 0.0f;
    }
    for (uint32_t e = 0; e < count; e++) {
        int32_t position = grouped ? (int32_t)grouped[e] - (int32_t)c * positions : (int32_t)e;
        int32_t oy = position / d->out_w;
        int32_t ox = position - oy * d->out_w;
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        float delta_here = delta[position * d->out_c + (int32_t)c];
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            int32_t iy = ty.start + ky * p->dilation_h;
            for (int32_t kx = tx.first; kx < tx.end; kx++) {
                int32_t ix = tx.start + kx * p->dilation_w;
                float *place = row + ky * p->kernel_w + kx;
                *place = *place + delta_here * (float)(plane[(iy * d->in_w + ix) * d->in_c] - x_zero);
            }
        }
    }
}
