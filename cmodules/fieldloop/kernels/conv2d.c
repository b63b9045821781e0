// Convolution. With a horizontal dilation of 1 and one group, the taps of one kernel row that lie on the map are one
// contiguous run of inputs and one of weights, so the inner loop is a plain dot product of up to kernel_w * in_c elements.
#include "finish.h"
#include "kernels/variants.h"
#include "patch.h"

// The `channels` outputs of one pixel that see the patch, from channel `c` on.
static void one_group(const fl_patch_t *v, const fl_quant_t *q, int32_t stride, const int8_t *w, const int32_t *b,
                      int32_t c, int32_t channels, int8_t *out) {
    const int32_t end = c + channels;
    const uint32_t base = q->w_zero ? 0u - (uint32_t)q->w_zero * fl_patch_sum(v, q->x_zero) : 0u;
    for (; c + 4 <= end; c += 4) {
        uint32_t acc[4] = {base, base, base, base};
        fl_patch_dot4(v, w, stride, q->x_zero, acc);
        out = fl_finish_run(q, b, c, 4, acc, out);
        w += 4 * stride;
    }
    for (; c < end; c++) {
        const uint32_t acc = base + fl_patch_dot(v, w, q->x_zero);
        out = fl_finish_run(q, b, c, 1, &acc, out);
        w += stride;
    }
}

void fl_conv2d_plain(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                     const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    (void)scratch;
    const int32_t groups = p->groups ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    const int32_t channels = d->out_c / groups;
    const int32_t stride = p->kernel_h * p->kernel_w * w_c, step = fl_y_step(d);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            fl_patch_t v = fl_patch_of(p, d, w_c, w_c, x, ty, tx);  // of group 0: the others lie w_c channels further each
            for (int32_t g = 0; g < groups; g++) {
                const int32_t c = g * channels;
                one_group(&v, q, stride, w + c * stride, b, c, channels, out + c);
                v.x += w_c;
            }
            out += step;
        }
    }
}
