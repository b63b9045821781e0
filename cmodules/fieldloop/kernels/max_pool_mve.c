// Max pooling, 16 channels at a time.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"
#include "steps.h"
#include "taps.h"

void fl_max_pool_mve(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                     const int8_t *x, int8_t *out) {
    const int32_t x_step = fl_x_step(d), y_step = fl_y_step(d), x_row = d->in_w * x_step;
    const int8x16_t low = vdupq_n_s8((int8_t)act_min);
    const int8x16_t high = vdupq_n_s8((int8_t)act_max);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const int8_t *corner = x + (ty.start + ty.first) * x_row + (tx.start + tx.first) * x_step;
            for (int32_t c = 0; c < d->in_c; c += 16) {
                const mve_pred16_t some = vctp8q((uint32_t)(d->in_c - c));
                int8x16_t best = low;  // below it nothing counts
                const int8_t *row = corner + c;
                for (int32_t ky = ty.first; ky < ty.end; ky++, row += x_row) {
                    const int8_t *v = row;
                    for (int32_t kx = tx.first; kx < tx.end; kx++, v += x_step) {
                        best = vmaxq_s8(best, vldrbq_z_s8(v, some));
                    }
                }
                vstrbq_p_s8(out + c, vminq_s8(best, high), some);
            }
            out += y_step;
        }
    }
}

#else
typedef int fl_no_max_pool_mve_t;  // a translation unit may not be empty
#endif
